"""DPR's encoders of questions and passages. Paper: arXiv 2004.04906."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import EMBEDDINGS, LAYERS, encoder
from pellucid.spec import Pooling, Spec
from pellucid.weights.table import Entry

CLASSES = {None: "DPRQuestionEncoder"}
DEFAULTS = shared.DEFAULTS | {"projection_dim": 0}
IGNORED = shared.IGNORED | {"tie_word_embeddings": None, "is_decoder": (False,)}

WEIGHTS: dict[str, Entry] = {
    name: slot
    for side in ("question_encoder", "ctx_encoder")
    for name, slot in {
        **under(f"{side}.bert_model.", EMBEDDINGS | LAYERS, "bert."),
        f"{side}.encode_proj.{{p}}": "pooler.dense.{p}",
    }.items()
}


def spec(c: Config) -> Spec:
    size = c.number("projection_dim")
    pooler = Pooling(act="linear" if size else None, width=size or None, returned="alone")
    return encoder(c, "dpr", pooler=pooler, heads={})
