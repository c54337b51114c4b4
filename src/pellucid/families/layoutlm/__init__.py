"""LayoutLM: BERT that knows where on the page a word is. Paper: arXiv 1912.13318."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, classes, embedding, encoder, heads, lm_head
from pellucid.spec import Custom, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes(
    "LayoutLM", "masked-lm", "sequence-classification", "token-classification", "question-answering",
    pretraining="masked-lm",
)  # fmt: skip
CLASSES["document-question-answering"] = CLASSES["question-answering"]
DEFAULTS = shared.DEFAULTS | {"max_2d_position_embeddings": 1024}
IGNORED = shared.IGNORED

BASE = "layoutlm."
WEIGHTS = under(BASE, BERT, "bert.") | CLS | {
    f"layoutlm.embeddings.{axis}_position_embeddings.weight": f"embed.features.{axis}.weight" for axis in "xyhw"
}  # fmt: skip
# The reference's classes carry the pooler along, whether they read it or not.
IDLE: dict[str, Entry] = {"layoutlm.pooler.dense.{p}": Unused("pooler that this task does not read", kept=True)}
HEADS = dict.fromkeys(("masked-lm", "token-classification", "question-answering"), IDLE)


def spec(c: Config) -> Spec:
    rows = c.size("max_2d_position_embeddings")
    boxes = Custom(path="pellucid.families.layoutlm.boxes:Boxes", options=(("rows", rows),))
    embed = embedding(c, features=boxes)
    return encoder(c, "layoutlm", embed=embed, inputs=("bbox",), heads=heads(c, lm_head(c)))
