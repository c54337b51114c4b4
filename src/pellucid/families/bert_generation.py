"""BERT for generation: no token types, no pooler. Paper: arXiv 1907.12461."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._encoder import EMBEDDINGS, LAYERS, ROBERTA, embedding, encoder
from pellucid.spec import Head, LmHead, Spec, Task

CLASSES = {None: "BertGenerationEncoder", "causal-lm": "BertGenerationDecoder"}
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 50358, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
IGNORED = shared.IGNORED | {"type_vocab_size": None}

BASE = "bert."
WEIGHTS = EMBEDDINGS | LAYERS | ROBERTA


def spec(c: Config) -> Spec:
    head = LmHead(tied=c.tie_word_embeddings, bias=True)
    heads: dict[Task, Head] = {"causal-lm": head} if c.is_decoder else {}
    return encoder(c, "bert_generation", embed=embedding(c, token_types=0), pooler=None, heads=heads)
