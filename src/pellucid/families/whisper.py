"""Whisper's decoder, as a language model. Paper: arXiv 2212.04356."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _bart as b
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused

CLASSES = {"causal-lm": "WhisperForCausalLM"}
DEFAULTS = {
    "vocab_size": 51865, "d_model": 384, "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536,
    "activation_function": "gelu", "max_target_positions": 448, "dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "pad_token_id": 50256, "bos_token_id": 50256, "eos_token_id": 50256,
    "decoder_start_token_id": 50257, "tie_word_embeddings": True, "scale_embedding": False,
}  # fmt: skip
ALIASES = {"hidden_size": "d_model"}
IGNORED = b.IGNORED | {
    # of the encoder, and of how it hears
    "encoder_layers": None, "encoder_attention_heads": None, "encoder_ffn_dim": None, "num_hidden_layers": None,
    "num_attention_heads": None, "num_key_value_heads": None, "num_mel_bins": None, "max_source_positions": None,
    "use_weighted_layer_sum": None, "classifier_proj_size": None, "apply_spec_augment": None, "mask_time_prob": None,
    "mask_time_length": None, "mask_time_min_masks": None, "mask_feature_prob": None, "mask_feature_length": None,
    "mask_feature_min_masks": None, "median_filter_width": None, "alignment_heads": None,
    "forced_decoder_ids": None, "max_length": None,
}  # fmt: skip

BASE = "model."
WEIGHTS: dict[str, Entry] = b.ALONE | {
    "proj_out.weight": "lm_head.out.weight",
    "model.encoder.*": Unused("it hears, and this is the part that writes"),
}


def spec(c: Config) -> Spec:
    """The decoder never scales its embedding, whatever the config says."""
    block = b.block(c, "decoder", b.PRE)
    attn = replace(b.attention(c, "decoder"), biases="qvo")
    blocks = [replace(block, attn=attn)] * c.layers("decoder_layers")
    embed = replace(b.embedding(c, b.learned(c, rows="max_target_positions"), None), scale=None)
    return b.decoder_alone(c, "whisper", blocks, embed, b.PRE, c.size("max_target_positions"))
