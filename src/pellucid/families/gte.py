"""mGTE: BERT with rotary positions and gated MLPs. Paper: arXiv 2407.19669."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import gated, under
from pellucid.families._encoder import BERT, LABELS, classes, lm_head, rotary_encoder
from pellucid.spec import Pooling, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("Gte", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 250048, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 8192, "type_vocab_size": 1,
    "pad_token_id": 1, "rope_parameters": None, "rope_scaling": None, "rope_theta": 160000.0, "head_dim": None,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "gte."
LAYERS: dict[str, Entry] = {
    "bert.encoder.layer.{i}.attention.qkv_proj.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
    "bert.encoder.layer.{i}.attention.o_proj.{p}": "blocks.{i}.attn.o.{p}",
    "bert.encoder.layer.{i}.attn_ln.{p}": "blocks.{i}.attn_norm.{p}",
    "bert.encoder.layer.{i}.mlp.up_gate_proj.weight": Fused("blocks.{i}.mlp.{}.weight", ("up", "gate")),
    "bert.encoder.layer.{i}.mlp.down_proj.{p}": "blocks.{i}.mlp.down.{p}",
    "bert.encoder.layer.{i}.mlp_ln.{p}": "blocks.{i}.mlp_norm.{p}",
}
OWN = LAYERS | BERT
# The first files say "new".
WEIGHTS = under(BASE, OWN, "bert.") | under("new.", OWN, "bert.") | LABELS | {
    "lm_head.dense.{p}": "lm_head.transform.dense.{p}",
    "lm_head.norm.{p}": "lm_head.transform.norm.{p}",
    "lm_head.decoder.{p}": "lm_head.out.{p}",
}  # fmt: skip


def spec(c: Config) -> Spec:
    return rotary_encoder(
        c, "gte", gated(c, down_bias=True), lm_head(c, act="gelu"), pooler=Pooling(act="tanh", returned="never")
    )
