"""Phi 1, 1.5 and 2. Papers: arXiv 2306.11644, 2309.05463."""

from pellucid.config import Config
from pellucid.families._decoder import LLAMA, attention, classes, decoder, layer_norm, plain_mlp
from pellucid.families._gguf import DECODER, KEYS, Gguf, partial
from pellucid.spec import Block, Embed, LmHead, Parallel, QkNorm, Spec
from pellucid.weights.table import over

CLASSES = classes("Phi", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = {
    "vocab_size": 51200, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
    "num_attention_heads": 32, "num_key_value_heads": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    "attention_dropout": 0.0, "hidden_act": "gelu_new", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    "qk_layernorm": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
}  # fmt: skip

BASE = "model."
WEIGHTS = over(LLAMA, {
    "model.layers.{i}.self_attn.dense.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.self_attn.q_layernorm.{p}": "blocks.{i}.attn.q_norm.{p}",
    "model.layers.{i}.self_attn.k_layernorm.{p}": "blocks.{i}.attn.k_norm.{p}",
    "model.layers.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.up.{p}",
    "model.layers.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.down.{p}",
    "model.final_layernorm.{p}": "norm.{p}",
})  # fmt: skip
GGUF = Gguf(KEYS | {"layer_norm_eps": "attention.layer_norm_epsilon"}, DECODER, more=partial)


def spec(c: Config) -> Spec:
    norm = layer_norm(c)
    attn = attention(c, biases="qkvo", qk_norm=QkNorm(norm=norm) if c.qk_layernorm else None)
    order, dropout = Parallel(norm=norm, shared=True), c.share("resid_pdrop")
    block = Block(attn=attn, mlp=plain_mlp(c, bias=True), order=order, dropout=dropout)
    embed = Embed(vocab=c.size("vocab_size"), dropout=c.share("embd_pdrop"))
    head = LmHead(tied=c.tie_word_embeddings, bias=True)
    return decoder(c, "phi", [block] * c.layers("num_hidden_layers"), norm=norm, embed=embed, head=head)
