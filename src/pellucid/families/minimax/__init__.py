"""MiniMax 01: lightning attention in every other layer, residuals taken after the norm. Paper: arXiv 2501.08313."""

from pellucid.config import Config
from pellucid.families._decoder import (
    ATTENTION,
    EMBEDDING,
    GENERIC,
    HEAD_WEIGHTS,
    attention,
    classes,
    decoder,
    layer_types,
    rms,
)
from pellucid.families._moe import NUMBERED, experts, moe_weights
from pellucid.families._read import activation
from pellucid.spec import Block, Custom, KimiDelta, Mixer, PreNorm, RmsNorm, Router, Spec
from pellucid.weights.table import Entry, Fused, Unused

CLASSES = classes("MiniMax", *GENERIC)
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "pad_token_id": None, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": False, "sliding_window": None, "attention_dropout": 0.0,
    "num_experts_per_tok": 2, "num_local_experts": 8, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000000.0, "layer_types": None, "block_size": 256,
    "full_attn_alpha_factor": 1, "full_attn_beta_factor": 1, "linear_attn_alpha_factor": 1,
    "linear_attn_beta_factor": 1, "mlp_alpha_factor": 1, "mlp_beta_factor": 1,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."
AT = "model.layers.{i}.self_attn."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    decays = ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
    moe = moe_weights("block_sparse_moe", matrices=NUMBERED)
    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | moe | {
        AT + "qkv_proj.weight": Fused("blocks.{i}.attn.{}_in.weight", "qkv", groups=c.size("num_attention_heads")),
        AT + "norm.weight": "blocks.{i}.attn.norm.weight",
        AT + "output_gate.weight": "blocks.{i}.attn.gate.weight",
        AT + "out_proj.weight": "blocks.{i}.attn.out.weight",
        **{AT + name: Unused("follows from the number of heads and the layer", kept=True) for name in decays},
    }  # fmt: skip


def spec(c: Config) -> Spec:
    full = attention(c, biases="", window=c.size("sliding_window", null=None))
    layers = c.layers("num_hidden_layers")
    lightning = Custom(path="pellucid.families.minimax.lightning:Lightning", options=(
        ("heads", full.heads), ("head_dim", full.head_dim), ("act", activation(c.hidden_act, c)),
        ("chunk", c.size("block_size")), ("layers", layers),
    ))  # fmt: skip
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=True)
    jitter = c.share("router_jitter_noise")
    moe = experts(c, router, count="num_local_experts", hidden="intermediate_size", jitter=jitter)
    mixers: dict[str, Mixer] = {"full_attention": full, "linear_attention": lightning}

    def factors(part: str) -> tuple[float, float]:
        return c.number(f"{part}_alpha_factor", float), c.number(f"{part}_beta_factor", float)

    def block(kind: str) -> Custom:
        inner = Block(attn=mixers[kind], mlp=moe, order=PreNorm(norm=rms(c)))
        own = (("block", inner), ("attn", factors(kind.replace("attention", "attn"))), ("mlp", factors("mlp")))
        return Custom(path="pellucid.families.minimax.lightning:Weighted", options=own)

    made = {kind: block(kind) for kind in mixers}
    types = layer_types(c, [*mixers], lambda i: "full_attention" if (i + 1) % 2 else "linear_attention")
    return decoder(c, "minimax", [made[kind] for kind in types])


# A matrix for each head, as Kimi's delta rule has it; no convolution.
KEEPS = {
    "Lightning": lambda part: (
        KimiDelta(heads=part["heads"], head_dim=part["head_dim"], kernel=1, norm=RmsNorm(eps=0.0)),
    ),
}
