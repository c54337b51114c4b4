"""ERNIE: BERT, with a vector for the task where the config asks for one. Papers: arXiv 1904.09223, 1907.12412."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, classes, embedding, encoder, heads, lm_head
from pellucid.spec import Custom, Spec

CLASSES = classes("Ernie", *USUAL, "causal-lm", "next-sentence", "pretraining")
DEFAULTS = shared.DEFAULTS | {"task_type_vocab_size": 3, "use_task_id": False}
IGNORED = shared.IGNORED

BASE = "ernie."
WEIGHTS = under(BASE, BERT, "bert.") | CLS | {"ernie.embeddings.task_type_embeddings.weight": "embed.features.weight"}


def spec(c: Config) -> Spec:
    rows = c.size("task_type_vocab_size")
    tasks = Custom(path="pellucid.families.ernie.tasks:Tasks", options=(("rows", rows),)) if c.use_task_id else None
    inputs = ("task_type_ids",) if tasks else ()
    return encoder(c, "ernie", embed=embedding(c, features=tasks), inputs=inputs, heads=heads(c, lm_head(c)))
