"""Doge: values say how far their keys are seen, and residuals have trained weights. Paper: arXiv 2412.11834."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, QK_NORM, attention, classes, decoder, gated, rms
from pellucid.spec import Block, Custom, PreNorm, QkNorm, Spec

CLASSES = classes("Doge", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 32768, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 32,
    "num_attention_heads": 8, "num_key_value_heads": None, "hidden_act": "silu", "hidden_dropout": 0.0,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
    "keep_window_size": 2048, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = {
    "is_moe": (False,),  # its router mixes the tokens of a call, so that a text has no logits of its own
    "num_experts": None, "num_experts_per_tok": None, "norm_topk_prob": None, "output_router_logits": None,
    "router_aux_loss_coef": None, "sliding_window": (None,),
}  # fmt: skip

BASE = "model."
WEIGHTS = {
    **LLAMA, **QK_NORM,
    "model.layers.{i}.input_residual": "blocks.{i}.attn_residual",
    "model.layers.{i}.post_attention_residual": "blocks.{i}.mlp_residual",
    "model.layers.{i}.self_attn.A": "blocks.{i}.attn.A",
    "model.layers.{i}.self_attn.dt_proj.{p}": "blocks.{i}.attn.dt.{p}",
}  # fmt: skip


def spec(c: Config) -> Spec:
    norm = rms(c)
    options = (("attention", attention(c, qk_norm=QkNorm(norm=norm))), ("keep", c.size("keep_window_size")))
    block = Block(
        attn=Custom(path="pellucid.families.doge.dynamic:DynamicMask", options=(*options, ("causal", True))),
        mlp=gated(c, bias=c.mlp_bias), order=PreNorm(norm=norm), dropout=c.share("hidden_dropout"),
    )  # fmt: skip
    weighed = Custom(path="pellucid.families.doge.dynamic:Weighed", options=(("block", block), ("causal", True)))
    return decoder(c, "doge", [weighed] * c.layers("num_hidden_layers"))
