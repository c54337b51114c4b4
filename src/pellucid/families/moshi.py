"""Moshi: the decoder that speaks its text. Paper: arXiv 2410.00037."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import LLAMA, attention, classes, decoder, rms
from pellucid.families._read import activation
from pellucid.spec import Block, Embed, LmHead, Mlp, PreNorm, Spec
from pellucid.weights.table import Fused, over

CLASSES = classes("Moshi", "causal-lm")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": None, "max_position_embeddings": 3000, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "hidden_act": "silu", "head_dim": None, "sliding_window": 3000, "attention_dropout": 0.0,
    "ffn_dim": 22528, "rms_norm_eps": 1e-8, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
IGNORED = {
    "audio_vocab_size": None, "num_codebooks": None,  # these four of the parts that hear and speak
    "audio_encoder_config": None, "depth_decoder_config": None,
    "tie_word_embeddings": (False,),
}  # fmt: skip

BASE = "model."
WEIGHTS = over(LLAMA, {
    "model.layers.{i}.self_attn.q_proj.linear.weight": "blocks.{i}.attn.q.weight",
    "model.layers.{i}.self_attn.k_proj.linear.weight": "blocks.{i}.attn.k.weight",
    "model.layers.{i}.self_attn.v_proj.linear.weight": "blocks.{i}.attn.v.weight",
    "model.layers.{i}.self_attn.o_proj.linear.weight": "blocks.{i}.attn.o.weight",
    "model.layers.{i}.mlp.fc1.weight": Fused("blocks.{i}.mlp.{}.weight", ("gate", "up")),
    "model.layers.{i}.mlp.fc2.weight": "blocks.{i}.mlp.down.weight",
})  # fmt: skip


def spec(c: Config) -> Spec:
    norm, vocab, both = rms(c, round_first=False), c.size("vocab_size"), c.size("ffn_dim")
    if both % 2:
        raise ConfigError(f"ffn_dim={both} is for gate and up together", where=c.where, next="give an even number")
    attn = attention(c, window=c.size("sliding_window", null=None))
    mlp = Mlp(hidden=both // 2, act=activation(c.hidden_act, c), gated=True)
    embed = Embed(vocab=vocab + 1)  # with the token that stands for nothing said yet
    head = LmHead(tied=False, vocab=vocab)
    blocks = [Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm))] * c.layers("num_hidden_layers")
    return decoder(c, "moshi", blocks, norm=norm, embed=embed, head=head)
