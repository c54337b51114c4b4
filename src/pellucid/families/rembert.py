"""RemBERT: small embeddings at the input, wide ones at the output. Paper: arXiv 2010.12821."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, classes, embedding, encoder, heads, lm_head
from pellucid.spec import Projection, Spec

CLASSES = classes("RemBert", *USUAL, "causal-lm", encoding=True)
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 250300, "hidden_size": 1152, "num_hidden_layers": 32, "num_attention_heads": 18,
    "input_embedding_size": 256, "output_embedding_size": 1664, "intermediate_size": 4608, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.1, "bos_token_id": 312, "eos_token_id": 313,
    "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = shared.IGNORED | {"tie_word_embeddings": None}  # the two tables have other widths: nothing can be tied

BASE = "rembert."
WEIGHTS = (
    {
        "rembert.encoder.embedding_hidden_mapping_in.{p}": "embed.project.{p}",
        "cls.predictions.dense.{p}": "lm_head.transform.dense.{p}",
        "cls.predictions.LayerNorm.{p}": "lm_head.transform.norm.{p}",
        "cls.predictions.decoder.{p}": "lm_head.out.{p}",
    }
    | under(BASE, BERT, "bert.")
    | CLS
)


def spec(c: Config) -> Spec:
    lm = lm_head(c, width=c.size("output_embedding_size"), tied=False)
    return encoder(
        c,
        "rembert",
        embed=embedding(c, width=c.size("input_embedding_size"), projection=Projection()),
        heads=heads(c, lm),
    )
