"""FlexOlmo: OLMo 2 with experts that were trained apart. Paper: arXiv 2507.07024."""

from pellucid.config import Config
from pellucid.families._decoder import attention, classes, decoder, rms
from pellucid.families._moe import experts, moe_weights
from pellucid.families.olmo2 import DEFAULTS as OLMO2
from pellucid.families.olmo2 import WEIGHTS as OLMO2_WEIGHTS
from pellucid.spec import Block, OutNorm, QkNorm, Router, Spec

CLASSES = classes("FlexOlmo", "causal-lm")
DEFAULTS = OLMO2 | {
    "vocab_size": 100352, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "pad_token_id": 100277,
    "eos_token_id": 100257, "rope_theta": 500000.0, "num_experts_per_tok": 5, "num_experts": 7,
    "router_aux_loss_coef": 0.01, "norm_topk_prob": False,
}  # fmt: skip
ALIASES = {"num_local_experts": "num_experts"}
IGNORED = {"output_router_logits": None}

BASE = "model."
WEIGHTS = OLMO2_WEIGHTS | moe_weights()


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=c.norm_topk_prob)
    block = Block(
        attn=attention(c, qk_norm=QkNorm(norm=norm, over="full")), mlp=experts(c, router, hidden="intermediate_size"),
        order=OutNorm(norm=norm),
    )  # fmt: skip
    return decoder(c, "flex_olmo", [block] * c.layers("num_hidden_layers"), norm=norm)
