"""TrOCR's decoder, as a language model. Paper: arXiv 2109.10282."""

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec
from pellucid.weights.table import Entry

CLASSES = {"causal-lm": "TrOCRForCausalLM"}
DEFAULTS = {
    "vocab_size": 50265, "d_model": 1024, "decoder_layers": 12, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096,
    "activation_function": "gelu", "max_position_embeddings": 512, "dropout": 0.1, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "scale_embedding": False, "use_learned_position_embeddings": True,
    "layernorm_embedding": True, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "num_attention_heads": "decoder_attention_heads", "hidden_size": "d_model", "num_hidden_layers": "decoder_layers",
}  # fmt: skip
IGNORED = b.IGNORED | {"cross_attention_hidden_size": None, "classifier_dropout": None}

BASE = "model."
WEIGHTS: dict[str, Entry] = b.ALONE | {"output_projection.weight": "lm_head.out.weight"}


def spec(c: Config) -> Spec:
    positions = b.learned(c, 2) if c.use_learned_position_embeddings else b.fairseq(c)
    embed = b.embedding(c, positions, b.NORM if c.layernorm_embedding else None)
    blocks = [b.block(c, "decoder", b.POST)] * c.layers("decoder_layers")
    return b.decoder_alone(c, "trocr", blocks, embed, b.POST, c.size("max_position_embeddings"))
