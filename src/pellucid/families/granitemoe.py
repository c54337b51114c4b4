"""Granite 3 with experts: four multipliers, scores of the chosen alone. huggingface.co/ibm-granite."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, attention, classes, gated, rms
from pellucid.families._gguf import DECODER, LOCAL_EXPERTS, Gguf, paired, rope
from pellucid.families._moe import experts
from pellucid.families.granite import DEFAULTS as GRANITE
from pellucid.families.granite import GRANITE_KEYS, granite_decoder
from pellucid.spec import Attention, Block, Mlp, PreNorm, Router, SharedExpert, Spec
from pellucid.weights.table import Entry, Fused, Stacked

CLASSES = classes("GraniteMoe", "causal-lm")
DEFAULTS = {key: value for key, value in GRANITE.items() if key != "mlp_bias"} | {
    "num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.001,
}  # fmt: skip
ALIASES = {"num_experts": "num_local_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at, slot = c.size("num_local_experts"), "model.layers.{i}.", "blocks.{i}.mlp."
    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | {
        at + "block_sparse_moe.input_linear.weight":
            Stacked(Fused(slot + "experts.{e}.{}.weight", ("gate", "up")), count),
        at + "block_sparse_moe.output_linear.weight": Stacked(slot + "experts.{e}.down.weight", count),
        at + "block_sparse_moe.router.layer.weight": slot + "router.weight",
        at + "shared_mlp.input_linear.weight": Fused(slot + "shared.{}.weight", ("gate", "up")),
        at + "shared_mlp.output_linear.weight": slot + "shared.down.weight",
    }  # fmt: skip


GGUF = Gguf(
    GRANITE_KEYS | LOCAL_EXPERTS | {"shared_intermediate_size": "expert_shared_feed_forward_length"},
    lambda c: paired(DECODER)(c) | _gguf.experts(c.num_local_experts), more=rope,
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn = attention(c, scale=c.number("attention_multiplier", float))
    return sparse_granite(c, "granitemoe", [attn] * c.layers("num_hidden_layers"))


def sparse_granite(c: Config, family: str, layers: list[Attention], shared: Mlp | None = None) -> Spec:
    """Granite with a mixture in every layer, and an MLP beside it where there is one."""
    router = Router(top_k=c.size("num_experts_per_tok"), score="topk_softmax")
    moe = experts(
        c, router, count="num_local_experts", expert=gated(c), shared=SharedExpert(mlp=shared) if shared else None
    )
    scale = c.number("residual_multiplier", float)
    blocks = [Block(attn=attn, mlp=moe, order=PreNorm(norm=rms(c)), residual_scale=scale) for attn in layers]
    return granite_decoder(c, family, blocks, 1 / c.number("logits_scaling", float, least=1e-6))
