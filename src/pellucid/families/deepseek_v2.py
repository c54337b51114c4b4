"""DeepSeek V2, V2.5 and V2 Lite. Paper: arXiv 2405.04434."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._gguf import KEYS, RMS, ROUTED_EXPERTS, Gguf
from pellucid.families._latent import DERIVED, MLA, latent
from pellucid.families._moe import experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, PreNorm, Router, Spec

CLASSES = classes("DeepseekV2", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 102400, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "pretraining_tp": 1,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "head_dim": None,
    "first_k_dense_replace": 0, "kv_lora_rank": 512, "q_lora_rank": 1536, "n_group": None, "n_routed_experts": 64,
    "output_router_logits": False, "n_shared_experts": 2, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "routed_scaling_factor": 1.0, "topk_group": None, "topk_method": "greedy", "norm_topk_prob": False,
    "v_head_dim": 128, "num_experts_per_tok": None, "moe_intermediate_size": 1407,
}  # fmt: skip
ALIASES = {"num_experts": "n_routed_experts"}
IGNORED = DERIVED | {
    "norm_topk_prob": (False,),  # the released code scales the weights or makes them sum to 1; files say the first
    "output_router_logits": None, "ep_size": None, "aux_loss_alpha": None, "seq_aux": None, "moe_layer_freq": (1,),
    "scoring_func": ("softmax",),
}  # fmt: skip

BASE = "model."
WEIGHTS = MLA | moe_weights()
GGUF = Gguf(
    KEYS | RMS | {
        key: name for key, name in ROUTED_EXPERTS.items() if key != "norm_topk_prob"
    },
    lambda c: _gguf.latent(c) | _gguf.experts(c.n_routed_experts), set={"q_lora_rank": None},
    more=lambda said: _gguf.latent_sizes(said) | {
        "topk_method": "greedy" if said.get("expert_group_count", 1) == 1 else "group_limited_greedy",
    },
    says=_gguf.latent_factor,
)  # fmt: skip


def spec(c: Config) -> Spec:
    order, attn = PreNorm(norm=rms(c)), latent(c, interleaved=True)
    moe = experts(c, router(c), count="n_routed_experts", shared=shared_experts(c))
    dense, sparse = gated(c, bias=c.mlp_bias), sparse_layers(c, c.number("first_k_dense_replace"))
    return decoder(c, "deepseek_v2", [Block(attn=attn, mlp=moe if s else dense, order=order) for s in sparse])


def router(c: Config) -> Router:
    """Softmax scores, which are the weights; experts of the groups with the best single experts."""
    groups, chosen = c.size("n_group", null=1), c.size("topk_group", null=1)
    if c.topk_method not in ("greedy", "group_limited_greedy"):
        what = f"topk_method={c.topk_method!r}"
        raise ConfigError(what, where=c.where, next="known: greedy, group_limited_greedy")
    greedy = c.topk_method == "greedy"
    return Router(
        top_k=c.size("num_experts_per_tok"), groups=1 if greedy else groups, top_groups=1 if greedy else chosen,
        group_score="max", scale=c.number("routed_scaling_factor", float), float32=True,
    )  # fmt: skip
