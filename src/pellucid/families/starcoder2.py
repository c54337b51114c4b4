"""StarCoder 2. Paper: arXiv 2402.19173."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, layer_norm, plain_mlp
from pellucid.families._gguf import DECODER, KEYS, Gguf, rope
from pellucid.spec import Block, Embed, PreNorm, Spec
from pellucid.weights.table import over

CLASSES = classes("Starcoder2", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 49152, "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30,
    "num_attention_heads": 24, "num_key_value_heads": 2, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096, "norm_epsilon": 1e-5, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "sliding_window": None, "attention_dropout": 0.0, "residual_dropout": 0.0,
    "embedding_dropout": 0.0, "use_bias": True, "bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": None,
    "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = {"attention_softmax_in_fp32": None, "scale_attention_softmax_in_fp32": None, "mlp_type": ("default",)}

BASE = "model."
WEIGHTS = over(LLAMA, {
    "model.layers.{i}.mlp.c_fc.{p}": "blocks.{i}.mlp.up.{p}",
    "model.layers.{i}.mlp.c_proj.{p}": "blocks.{i}.mlp.down.{p}",
})  # fmt: skip
GGUF = Gguf(
    KEYS | {"norm_epsilon": "attention.layer_norm_epsilon", "sliding_window": "attention.sliding_window"},
    DECODER, more=lambda said: rope(said) | {"use_bias": said.has("blk.0.attn_q.bias")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = layer_norm(c, "norm_epsilon")
    attn = attention(c, biases="qkvo" if c.use_bias else "", window=c.size("sliding_window", null=None))
    mlp, dropout = plain_mlp(c, bias=c.use_bias), c.share("residual_dropout")
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=dropout)
    embed = Embed(vocab=c.size("vocab_size"), dropout=c.share("embedding_dropout"))
    return decoder(c, "starcoder2", [block] * c.layers("num_hidden_layers"), norm=norm, embed=embed)
