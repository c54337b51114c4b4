"""Switch Transformers: T5 with one of many experts for each token. Paper: arXiv 2101.03961.

No expert has a capacity: every token is served, whatever stands beside it.
"""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import t5
from pellucid.families._decoder import classes
from pellucid.families._read import activation
from pellucid.spec import Block, Mlp, Moe, Router, Spec, Stack
from pellucid.weights.table import Entry

CLASSES = classes("SwitchTransformers", "seq2seq-lm", "text-encoding") | {
    "pretraining": "SwitchTransformersForConditionalGeneration"
}
DEFAULTS = {key: value for key, value in t5.DEFAULTS.items() if key != "feed_forward_proj"} | {
    "d_model": 768, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12, "num_experts": 8,
    "num_sparse_encoder_layers": 3, "num_sparse_decoder_layers": 3, "router_bias": False, "router_jitter_noise": 0.01,
    "dense_act_fn": "relu",
}  # fmt: skip
ALIASES = t5.ALIASES
IGNORED = t5.IGNORED | {
    "expert_capacity": None, "capacity_factor": None, "router_ignore_padding_tokens": None, "router_dtype": None,
    "add_router_probs": None, "router_z_loss_coef": None, "router_aux_loss_coef": None, "router_type": None,
    "batch_prioritized_routing": None, "classifier_dropout": None,
    "encoder_sparse_step": None, "decoder_sparse_step": None,  # they follow from how many layers are sparse
    "feed_forward_proj": ("relu",), "is_gated_act": (False,), "num_selected_experts": (1,),
}  # fmt: skip

BASE = t5.BASE


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    """T5's, but for the feed-forward part."""
    names = {name: slot for name, slot in t5.BOTH.items() if "DenseReluDense" not in name}
    for side, at, layer in (("encoder", "encoder.", 1), ("decoder", "", 2)):
        mlp, slot = f"{side}.block.{{i}}.layer.{layer}.mlp", f"{at}blocks.{{i}}.mlp"
        names[f"{mlp}.router.classifier.{{p}}"] = f"{slot}.router.{{p}}"
        for theirs, ours in (("wi", "up"), ("wo", "down")):
            names[f"{mlp}.{theirs}.weight"] = f"{slot}.{ours}.weight"
            for e in range(c.size("num_experts")):
                names[f"{mlp}.experts.expert_{e}.{theirs}.weight"] = f"{slot}.experts.{e}.{ours}.weight"
    return names


def spec(c: Config) -> Spec:
    act, drop = activation(c.dense_act_fn, c), c.share("dropout_rate")
    mlp = Mlp(hidden=c.size("d_ff"), act=act, gated=False, dropout=drop)
    router = Router(top_k=1, bias=c.router_bias, float32=True)
    moe = Moe(experts=c.size("num_experts"), expert=mlp, router=router, jitter=c.share("router_jitter_noise"))
    whole = t5.encoder_decoder(c, "switch_transformers", mlp)
    assert whole.encoder is not None
    return replace(
        whole,
        stack=sparse(whole.stack, moe, c.number("num_sparse_decoder_layers")),
        encoder=sparse(whole.encoder, moe, c.number("num_sparse_encoder_layers")),
    )


def sparse(stack: Stack, moe: Moe, count: int) -> Stack:
    """A stack with experts in the second of every so many layers; with a count of 0, in the second of all."""
    step = max(len(stack.blocks) // count, 1) if count else len(stack.blocks)
    blocks = [block for block in stack.blocks if isinstance(block, Block)]
    return replace(
        stack,
        blocks=tuple(
            replace(block, mlp=moe) if step == 1 or i % step == 1 else block for i, block in enumerate(blocks)
        ),
    )
