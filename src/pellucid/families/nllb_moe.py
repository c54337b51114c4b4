"""NLLB-200 with experts, 54B. Paper: arXiv 2207.04672.

No expert has a capacity: every token is served by two, whatever stands beside it.
"""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.families import m2m_100
from pellucid.spec import Block, Moe, Router, Spec, Stack
from pellucid.weights.table import Entry

CLASSES = b.both("NllbMoe", "seq2seq-lm")
DEFAULTS = m2m_100.DEFAULTS | {
    "num_experts": 128, "encoder_sparse_step": 4, "decoder_sparse_step": 4, "router_bias": False,
    "moe_token_dropout": 0.2,
}  # fmt: skip
ALIASES = b.ALIASES
IGNORED = b.IGNORED | {
    "second_expert_policy": ("all",),
    # of training, and of experts that turn tokens away
    "expert_capacity": None, "router_dtype": None, "router_ignore_padding_tokens": None, "router_z_loss_coef": None,
    "router_aux_loss_coef": None, "router_type": None, "normalize_router_prob_before_dropping": None,
    "batch_prioritized_routing": None, "moe_eval_capacity_token_fraction": None, "output_router_logits": (False,),
}  # fmt: skip

BASE = "model."
RENAMED = {
    ".fc1.": ".ffn.fc1.", ".fc2.": ".ffn.fc2.", ".final_layer_norm.": ".ff_layer_norm.",
    ".encoder_attn.": ".cross_attention.", ".encoder_attn_layer_norm.": ".cross_attention_layer_norm.",
}  # fmt: skip


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    names: dict[str, Entry] = {}
    for name, slot in b.table_with_waves(c).items():
        old = next((old for old in RENAMED if old in name), "")
        names[name.replace(old, RENAMED[old]) if old else name] = slot
    for side, at in (("encoder", "encoder."), ("decoder", "")):
        ffn, mlp = f"model.{side}.layers.{{i}}.ffn", f"{at}blocks.{{i}}.mlp"
        names[f"{ffn}.router.classifier.{{p}}"] = f"{mlp}.router.{{p}}"
        for theirs, ours in (("fc1", "up"), ("fc2", "down")):
            for e in range(c.size("num_experts")):
                names[f"{ffn}.experts.expert_{e}.{theirs}.{{p}}"] = f"{mlp}.experts.{e}.{ours}.{{p}}"
    return names


def spec(c: Config) -> Spec:
    positions = b.fairseq(c)
    embed = b.embedding(c, positions, None)
    sides: dict[b.Side, Stack] = {
        side: b.stack(c, side, b.PRE, embed, layers(c, side)) for side in ("encoder", "decoder")
    }
    return b.encoder_decoder(c, "nllb-moe", order=b.PRE, positions=positions, sides=sides, fixed_bias=False)


def layers(c: Config, side: b.Side) -> list[Block]:
    """Every so many layers have experts, which speak as quietly as they did on average in training."""
    dense, step = b.mlp(c, side), c.number(f"{side}_sparse_step")
    expert = replace(dense, out_scale=1 - c.share("moe_token_dropout"))
    router = Router(top_k=2, renormalise=True, bias=c.router_bias, float32=True)
    moe = Moe(experts=c.size("num_experts"), expert=expert, router=router)
    every = range(c.layers(f"{side}_layers"))
    return [b.block(c, side, b.PRE, moe if step and (i + 1) % step == 0 else dense) for i in every]
