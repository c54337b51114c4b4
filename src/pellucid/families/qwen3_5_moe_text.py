"""Qwen 3.5 with experts. qwen.ai/blog?id=qwen3.5."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import classes
from pellucid.families.qwen3_5_text import DEFAULTS as QWEN
from pellucid.families.qwen3_5_text import IGNORED as OTHERS
from pellucid.families.qwen3_5_text import LINEAR, MTP, gguf_sizes, gguf_weights, text
from pellucid.families.qwen3_next import EXPERTS, mixture, recurrent, table
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Fused, Stacked

CLASSES = classes("Qwen3_5Moe", "causal-lm") | {None: "Qwen3_5MoeTextModel"}
DEFAULTS = {key: value for key, value in QWEN.items() if key != "intermediate_size"} | {
    "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8, "num_experts": 256,
    "router_aux_loss_coef": 0.001,
}  # fmt: skip
IGNORED = OTHERS | {"output_router_logits": None, "norm_topk_prob": (True,), "intermediate_size": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    expert, count = "blocks.{i}.mlp.experts.{e}", c.size("num_experts")
    return table(c, LINEAR) | EXPERTS | {  # one by one, or as the released files have them
        "model.layers.{i}.mlp.experts.gate_up_proj": Stacked(Fused(expert + ".{}.weight", ("gate", "up")), count=count),
        "model.layers.{i}.mlp.experts.down_proj": Stacked(expert + ".down.weight", count=count),
    }  # fmt: skip


GGUF = _gguf.Gguf(
    _gguf.KEYS | _gguf.RMS | _gguf.HEAD_DIM | _gguf.DELTANET_KEYS | _gguf.EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    },
    lambda c: _gguf.further_layers(c, gguf_weights(c) | _gguf.experts(c.num_experts), MTP),
    more=gguf_sizes, says=recurrent,
)  # fmt: skip


def spec(c: Config) -> Spec:
    return text(c, "qwen3_5_moe_text", mixture(c, renormalise=True))
