"""CTRL. Paper: arXiv 1909.05858."""

from pellucid.config import Config
from pellucid.families._decoder import attention, decoder, layer_norm
from pellucid.spec import Block, Embed, LayerNorm, LmHead, Mlp, PreNorm, Sinusoidal, Spec
from pellucid.weights.table import Entry

CLASSES = {
    None: "CTRLModel", "causal-lm": "CTRLLMHeadModel", "sequence-classification": "CTRLForSequenceClassification",
    "pretraining": "CTRLLMHeadModel",
}  # fmt: skip
DEFAULTS = {
    "vocab_size": 246534, "n_positions": 256, "n_embd": 1280, "dff": 8192, "n_layer": 48, "n_head": 16,
    "resid_pdrop": 0.1, "embd_pdrop": 0.1, "layer_norm_epsilon": 1e-6, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {
    "max_position_embeddings": "n_positions", "hidden_size": "n_embd", "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}  # fmt: skip
IGNORED = {
    "attn_pdrop": None,  # stated, and applied by no released code
    "from_tf": None,
}  # fmt: skip

BASE = "transformer."
WEIGHTS: dict[str, Entry] = {
    "transformer.w.weight": "embed.tokens.weight",
    "transformer.h.{i}.layernorm1.{p}": "blocks.{i}.attn_norm.{p}",
    "transformer.h.{i}.multi_head_attention.Wq.{p}": "blocks.{i}.attn.q.{p}",
    "transformer.h.{i}.multi_head_attention.Wk.{p}": "blocks.{i}.attn.k.{p}",
    "transformer.h.{i}.multi_head_attention.Wv.{p}": "blocks.{i}.attn.v.{p}",
    "transformer.h.{i}.multi_head_attention.dense.{p}": "blocks.{i}.attn.o.{p}",
    "transformer.h.{i}.layernorm2.{p}": "blocks.{i}.mlp_norm.{p}",
    "transformer.h.{i}.ffn.0.{p}": "blocks.{i}.mlp.up.{p}",
    "transformer.h.{i}.ffn.2.{p}": "blocks.{i}.mlp.down.{p}",
    "transformer.layernorm.{p}": "norm.{p}",
    "lm_head.{p}": "lm_head.out.{p}",
    "classifier.weight": "classifier.out.weight",
}


def spec(c: Config) -> Spec:
    norm, width = LayerNorm(eps=1e-6), c.size("n_embd")  # of the blocks, whatever the config says of the last
    mlp = Mlp(hidden=c.size("dff"), act="relu", gated=False, bias=True)
    attn = attention(c, rope=None, biases="qkvo")
    block = Block(attn=attn, mlp=mlp, order=PreNorm(norm=norm), dropout=c.share("resid_pdrop"))
    embed = Embed(
        vocab=c.size("vocab_size"), scale=width**0.5, dropout=c.share("embd_pdrop"),
        positions=Sinusoidal(short=False, rows=c.size("n_positions")),
    )  # fmt: skip
    head = LmHead(tied=c.tie_word_embeddings, bias=True)
    return decoder(
        c, "ctrl", [block] * c.layers("n_layer"), norm=layer_norm(c, "layer_norm_epsilon"), embed=embed, head=head
    )
