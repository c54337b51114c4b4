"""Splinter: BERT that was trained to find spans for a question token. Paper: arXiv 2101.00438."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, classes, encoder
from pellucid.spec import Custom, Spec

CLASSES = classes("Splinter", "question-answering")
DEFAULTS = shared.DEFAULTS | {"question_token_id": 104}
IGNORED = shared.IGNORED

BASE = "splinter."
PARTS = ("query_start_transform", "query_end_transform", "start_transform", "end_transform")
WEIGHTS = under(BASE, BERT, "bert.") | {
    **{f"splinter_qass.{part}.dense.{{p}}": f"head.{part}.dense.{{p}}" for part in PARTS},
    **{f"splinter_qass.{part}.LayerNorm.{{p}}": f"head.{part}.norm.{{p}}" for part in PARTS},
    "splinter_qass.start_classifier.weight": "head.start_classifier.weight",
    "splinter_qass.end_classifier.weight": "head.end_classifier.weight",
}


def spec(c: Config) -> Spec:
    options = (("question", c.number("question_token_id")),)
    head = Custom(path="pellucid.families.splinter.spans:Spans", options=options)
    return encoder(c, "splinter", pooler=None, heads={"question-answering": head})
