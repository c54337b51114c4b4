"""mGTE: BERT with rotary positions and gated MLPs. Paper: arXiv 2407.19669."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import gated, under
from pellucid.families._encoder import BERT, ROBERTA, classes, lm_head, rotary_encoder
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("Gte", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 250048, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 8192, "type_vocab_size": 1,
    "pad_token_id": 1, "rope_parameters": None, "rope_scaling": None, "rope_theta": 160000.0, "head_dim": None,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "new."
LAYERS: dict[str, Entry] = {
    "new.encoder.layer.{i}.attention.qkv_proj.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
    "new.encoder.layer.{i}.attention.o_proj.{p}": "blocks.{i}.attn.o.{p}",
    "new.encoder.layer.{i}.attn_ln.{p}": "blocks.{i}.attn_norm.{p}",
    "new.encoder.layer.{i}.mlp.up_gate_proj.weight": Fused("blocks.{i}.mlp.{}.weight", ("up", "gate")),
    "new.encoder.layer.{i}.mlp.down_proj.{p}": "blocks.{i}.mlp.down.{p}",
    "new.encoder.layer.{i}.mlp_ln.{p}": "blocks.{i}.mlp_norm.{p}",
    "lm_head.norm.{p}": "lm_head.transform.norm.{p}",
    "lm_head.decoder.{p}": "lm_head.out.{p}",
}
WEIGHTS = under(BASE, BERT, "bert.") | ROBERTA | LAYERS


def spec(c: Config) -> Spec:
    return rotary_encoder(c, "gte", gated(c, down_bias=True), lm_head(c, act="gelu"))
