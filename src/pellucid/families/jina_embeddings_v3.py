"""Jina Embeddings 3: RoBERTa with rotary positions, without its task adapters. Paper: arXiv 2409.10173."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, HIDDEN, ROBERTA, classes, lm_head, mlp, rotary_encoder
from pellucid.families._gguf import AROUND, KEYS, LAYER, QKV, Gguf
from pellucid.spec import Dense, Spec, Task
from pellucid.weights.table import Fused

TASKS: tuple[Task, ...] = ("masked-lm", "sequence-classification", "token-classification", "question-answering")
CLASSES = classes("JinaEmbeddingsV3", *TASKS)
DEFAULTS = shared.ROBERTA_DEFAULTS | {
    "vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "max_position_embeddings": 8194, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    "rope_parameters": None, "rope_scaling": None, "rope_theta": 20000.0, "head_dim": None,
}  # fmt: skip
IGNORED = shared.IGNORED

BASE = "roberta."
WEIGHTS = (
    {
        "roberta.emb_ln.{p}": "embed.norm.{p}",
        "roberta.encoder.layers.{i}.mixer.Wqkv.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
        "roberta.encoder.layers.{i}.mixer.out_proj.{p}": "blocks.{i}.attn.o.{p}",
        "roberta.encoder.layers.{i}.norm1.{p}": "blocks.{i}.attn_norm.{p}",
        "roberta.encoder.layers.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.up.{p}",
        "roberta.encoder.layers.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.down.{p}",
        "roberta.encoder.layers.{i}.norm2.{p}": "blocks.{i}.mlp_norm.{p}",
    }
    | under(BASE, BERT, "bert.")
    | ROBERTA
)
HEADS = HIDDEN
GGUF = Gguf(
    KEYS | LAYER, AROUND | QKV, more=lambda said: {"type_vocab_size": said.rows("token_types.weight")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    head = lm_head(c, act="gelu")
    return rotary_encoder(c, "jina_embeddings_v3", mlp(c), head, hidden=Dense(act="tanh"), pool="first")
