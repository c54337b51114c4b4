"""ERNIE 4.5 with experts. Report: yiyan.baidu.com/blog/publication/ERNIE_Technical_Report.pdf."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, HEAD_DIM, KEYS, RMS, Gguf, rope
from pellucid.families._moe import experts, moe_weights, shared_experts
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, LmHead, PreNorm, Router, Spec
from pellucid.weights.table import Entry, Squeezed, Unused

CLASSES = classes("Ernie4_5_Moe", "causal-lm")
DEFAULTS = {
    "vocab_size": 103424, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 2560,
    "intermediate_size": 12288, "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4,
    "head_dim": None, "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "rope_parameters": None, "rope_scaling": None, "rope_theta": 500000.0,
    "use_bias": False, "moe_intermediate_size": 1536, "moe_k": 6, "moe_num_experts": 64,
    "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 1,
    "moe_norm_min": 1e-12, "router_aux_loss_coef": 0.001,
}  # fmt: skip
ALIASES = {"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"}
IGNORED = {
    "output_router_logits": None,
    "moe_norm_min": (1e-12,),  # of a sum of shares that is never so small
    "moe_capacity": None, "moe_gate": None, "moe_use_aux_free": None, "num_nextn_predict_layers": None,  # of training
}  # fmt: skip

BIAS = "moe_statics.e_score_correction_bias"
BASE = "model."
WEIGHTS: dict[str, Entry] = LLAMA | moe_weights(bias=BIAS) | {
    f"model.layers.{{i}}.mlp.{BIAS}": Squeezed("blocks.{i}.mlp.router.select_bias", (0,)),
    **{f"model.mtp_{part}.*": Unused("predicts several tokens at once") for part in (
        "block", "emb_norm", "hidden_norm", "linear_proj",
    )},
}  # fmt: skip
GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | {
        "moe_num_experts": "expert_count", "moe_k": "expert_used_count",
        "moe_num_shared_experts": "expert_shared_count",
        "moe_intermediate_size": "expert_feed_forward_length", "moe_layer_start_index": "leading_dense_block_count",
        "moe_layer_interval": "interleave_moe_layer_step",
    },
    lambda c: DECODER | _gguf.experts(c.moe_num_experts),
    more=lambda said: rope(said) | {"use_bias": said.has("blk.0.attn_q.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    attn = attention(c, rope=read_rope(c, grouped_heads(c)[2], interleaved=True), biases="qkvo" if c.use_bias else "")
    router = Router(top_k=c.size("moe_k"), select_bias=True, renormalise=True, float32=True)
    shared = shared_experts(c, "moe_num_shared_experts", bias=c.use_bias)
    moe, dense = experts(c, router, count="moe_num_experts", shared=shared), gated(c, bias=c.use_bias)
    layers, every = c.layers("num_hidden_layers"), c.size("moe_layer_interval")
    first, last = c.number("moe_layer_start_index"), c.number("moe_layer_end_index", least=-1) % layers
    blocks = [
        Block(attn=attn, mlp=moe if first <= i <= last and (i + 1) % every == 0 else dense, order=PreNorm(norm=rms(c)))
        for i in range(layers)
    ]
    return decoder(c, "ernie4_5_moe", blocks, head=LmHead(tied=c.tie_word_embeddings, bias=c.use_bias))
