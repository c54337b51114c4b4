"""Granite 3: Llama with four multipliers. Paper: arXiv 2408.13359 (power scheduler), section 4."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, gated, rms
from pellucid.families._gguf import DECODER, KEYS, RMS, Gguf, paired, rope
from pellucid.spec import Attention, Block, Embed, LmHead, Order, PreNorm, Spec

CLASSES = classes("Granite", "causal-lm")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0,
    "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "embedding_multiplier": 1.0,
    "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
}  # fmt: skip

BASE = "model."
WEIGHTS = LLAMA


def granite_block(c: Config, attn: Attention, order: Order | None = None) -> Block:
    """A block whose sublayers are scaled before they join the residual stream."""
    return Block(
        attn=attn, mlp=gated(c, bias=c.mlp_bias), order=order or PreNorm(norm=rms(c)),
        residual_scale=c.number("residual_multiplier", float),
    )  # fmt: skip


def granite_decoder(c: Config, family: str, blocks: list[Block], logit_scale: float) -> Spec:
    """A decoder with a scale on the embedding and one on the logits."""
    embed = Embed(vocab=c.size("vocab_size"), scale=c.number("embedding_multiplier", float))
    return decoder(c, family, blocks, embed=embed, head=LmHead(tied=c.tie_word_embeddings, logit_scale=logit_scale))


GRANITE_KEYS = KEYS | RMS | {
    "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale", "logits_scaling": "logit_scale",
}  # fmt: skip
GGUF = Gguf(GRANITE_KEYS, paired(DECODER), more=rope)


def spec(c: Config) -> Spec:
    block = granite_block(c, attention(c, scale=c.number("attention_multiplier", float)))
    blocks = [block] * c.layers("num_hidden_layers")
    return granite_decoder(c, "granite", blocks, 1 / c.number("logits_scaling", float, least=1e-6))
