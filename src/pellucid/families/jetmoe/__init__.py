"""JetMoe: experts in the attention too. Paper: arXiv 2404.07413."""

from pellucid.config import Config
from pellucid.families._decoder import EMBEDDING, HEAD_WEIGHTS, classes, decoder, gated
from pellucid.families._moe import experts
from pellucid.families._read import read_rope
from pellucid.spec import Attention, Block, Custom, PreNorm, RmsNorm, Router, Spec
from pellucid.weights.table import Entry, Fused, Stacked

CLASSES = classes("JetMoe", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 12, "num_key_value_heads": 16,
    "kv_channels": 128, "intermediate_size": 5632, "max_position_embeddings": 4096, "activation_function": "silu",
    "num_local_experts": 8, "num_experts_per_tok": 2, "aux_loss_coef": 0.01, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": None, "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "attention_dropout": 0.0,
}  # fmt: skip
ALIASES = {"head_dim": "kv_channels", "num_experts": "num_local_experts", "router_aux_loss_coef": "aux_loss_coef"}
IGNORED = {
    "output_router_logits": None, "num_attention_heads": None,  # the key heads, once for each chosen expert
    "bias": (True,), "glu": (True,), "num_layers": None, "ffn_hidden_size": None,
}  # fmt: skip

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at, block = c.size("num_local_experts"), "model.layers.{i}.", "blocks.{i}."
    return EMBEDDING | HEAD_WEIGHTS | {
        at + "input_layernorm.weight": block + "attn_norm.weight",
        at + "self_attention.kv_proj.weight": Fused(block + "attn.{}.weight", "kv"),
        at + "self_attention.experts.bias": block + "attn.shift",
        at + "self_attention.experts.router.layer.weight": block + "attn.router.weight",
        at + "self_attention.experts.input_linear.weight": Stacked(block + "attn.experts.{e}.q.weight", count),
        at + "self_attention.experts.output_linear.weight": Stacked(block + "attn.experts.{e}.o.weight", count),
        at + "post_attention_layernorm.weight": block + "mlp_norm.weight",
        at + "mlp.bias": block + "mlp.bias",
        at + "mlp.router.layer.weight": block + "mlp.router.weight",
        at + "mlp.input_linear.weight": Stacked(Fused(block + "mlp.experts.{e}.{}.weight", ("gate", "up")), count),
        at + "mlp.output_linear.weight": Stacked(block + "mlp.experts.{e}.down.weight", count),
    }  # fmt: skip


def spec(c: Config) -> Spec:
    router = Router(top_k=c.size("num_experts_per_tok"), score="topk_softmax")
    expert = gated(c, act="activation_function")
    moe = experts(c, router, count="num_local_experts", expert=expert, bias=True)
    kv_heads, head_dim = c.size("num_key_value_heads"), c.size("kv_channels")
    inner = Attention(
        heads=kv_heads * router.top_k, kv_heads=kv_heads, head_dim=head_dim, scale=head_dim**-0.5, causal=True,
        rope=read_rope(c, head_dim), dropout=c.share("attention_dropout"),
    )  # fmt: skip
    options = (("attention", inner), ("router", router), ("experts", moe.experts))
    attn = Custom(path="pellucid.families.jetmoe.routed:RoutedAttention", options=options)
    block = Block(attn=attn, mlp=moe, order=PreNorm(norm=RmsNorm(eps=1e-6)))  # whatever rms_norm_eps says
    return decoder(c, "jetmoe", [block] * c.layers("num_hidden_layers"))
