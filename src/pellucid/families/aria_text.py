"""Aria, its text part. Paper: arXiv 2410.05993."""

from pellucid.config import Config
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, attention, classes, decoder, rms
from pellucid.families._moe import experts, shared_experts
from pellucid.spec import Block, PreNorm, Router, Spec
from pellucid.weights.table import Entry, Fused, Stacked, Transposed

CLASSES = classes("AriaText", "causal-lm")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2,
    "pretraining_tp": 1, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 2,
}  # fmt: skip
ALIASES = {"moe_intermediate_size": "intermediate_size"}
IGNORED = {"output_router_logits": None, "moe_z_loss_coeff": None, "moe_aux_loss_coeff": None}  # of training

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at, slot = c.size("moe_num_experts"), "model.layers.{i}.mlp.", "blocks.{i}.mlp."
    return EMBEDDING | ATTENTION | HEAD_WEIGHTS | {
        at + "router.weight": slot + "router.weight",
        at + "experts.fc1.weight": Stacked(Transposed(Fused(slot + "experts.{e}.{}.weight", ("gate", "up"))), count),
        at + "experts.fc2.weight": Stacked(Transposed(slot + "experts.{e}.down.weight"), count),
        **{f"{at}shared_experts.{x}_proj.{{p}}": f"{slot}shared.{x}.{{p}}" for x in ("gate", "up", "down")},
    }  # fmt: skip


def spec(c: Config) -> Spec:
    router = Router(top_k=c.size("moe_topk"), score="topk_softmax")
    shared = shared_experts(c, "moe_num_shared_experts", "intermediate_size")
    moe = experts(c, router, count="moe_num_experts", hidden="intermediate_size", shared=shared)
    block = Block(attn=attention(c), mlp=moe, order=PreNorm(norm=rms(c)))
    return decoder(c, "aria_text", [block] * c.layers("num_hidden_layers"))
