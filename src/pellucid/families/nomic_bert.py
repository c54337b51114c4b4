"""Nomic Embed: BERT with rotary positions and gated MLPs. Paper: arXiv 2402.01613."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import gated, under
from pellucid.families._encoder import BERT, CLS, classes, lm_head, rotary_encoder
from pellucid.families._gguf import AROUND, KEYS, LAYER, QKV, Gguf
from pellucid.spec import Pooling, Spec
from pellucid.weights.table import Fused

CLASSES = classes("NomicBert", "masked-lm", "sequence-classification", "token-classification")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 30528, "hidden_act": "silu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 2048, "rope_parameters": None, "rope_scaling": None, "rope_theta": 1000.0,
    "head_dim": None,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "nomic_bert."
WEIGHTS = (
    {
        "cls.predictions.transform.layer_norm.{p}": "lm_head.transform.norm.{p}",
        "nomic_bert.emb_ln.{p}": "embed.norm.{p}",
        "nomic_bert.encoder.layers.{i}.attn.Wqkv.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
        "nomic_bert.encoder.layers.{i}.attn.out_proj.{p}": "blocks.{i}.attn.o.{p}",
        "nomic_bert.encoder.layers.{i}.norm1.{p}": "blocks.{i}.attn_norm.{p}",
        "nomic_bert.encoder.layers.{i}.mlp.fc11.{p}": "blocks.{i}.mlp.up.{p}",
        "nomic_bert.encoder.layers.{i}.mlp.fc12.{p}": "blocks.{i}.mlp.gate.{p}",
        "nomic_bert.encoder.layers.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.down.{p}",
        "nomic_bert.encoder.layers.{i}.norm2.{p}": "blocks.{i}.mlp_norm.{p}",
    }
    | under(BASE, BERT, "bert.")
    | CLS
)
GGUF = Gguf(
    KEYS | LAYER, AROUND | QKV, more=lambda said: {"type_vocab_size": said.rows("token_types.weight")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    return rotary_encoder(
        c, "nomic_bert", gated(c), lm_head(c), biases="", pooler=Pooling(act="tanh", returned="never")
    )
