"""Nyströmformer. Paper: arXiv 2102.03902."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, HIDDEN, USUAL, block, classes, embedding, encoder, head_size, lm_head
from pellucid.families._read import activation
from pellucid.spec import ChoiceHead, Custom, Dense, Head, LearnedPositions, Spec, Task
from pellucid.weights.table import Squeezed

CLASSES = classes("Nystromformer", *USUAL)
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 30000, "hidden_act": "gelu_new", "max_position_embeddings": 510, "segment_means_seq_len": 64,
    "num_landmarks": 64, "conv_kernel_size": 65, "inv_coeff_init_option": False, "layer_norm_eps": 1e-5,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "inv_coeff_init_option": (False,),
    "attention_probs_dropout_prob": None,  # the reference drops no shares
    "is_decoder": (False,),
}  # fmt: skip

BASE = "nystromformer."
CONV = "nystromformer.encoder.layer.{i}.attention.self.conv.weight"
WEIGHTS = under(BASE, BERT, "bert.") | CLS | {CONV: Squeezed("blocks.{i}.attn.conv", (1, 3))}
HEADS = HIDDEN | {
    "multiple-choice": {"pre_classifier.{p}": "classifier.dense.{p}", "classifier.{p}": "classifier.out.{p}"},
}


def spec(c: Config) -> Spec:
    (heads, head_dim), kernel = head_size(c), c.size("conv_kernel_size", null=None)
    if kernel is not None and kernel % 2 == 0:
        raise ConfigError(f"conv_kernel_size={kernel} is even", where=c.where, next="correct config.json")
    # Where there are as many landmarks as tokens, attention is exact.
    exact = c.size("num_landmarks") == c.size("segment_means_seq_len")
    options = (
        ("heads", heads), ("head_dim", head_dim), ("landmarks", None if exact else c.num_landmarks), ("kernel", kernel),
    )  # fmt: skip
    attn = Custom(path="pellucid.families.nystromformer.attention:NystromAttention", options=options)
    return unpooled(c, "nystromformer", attn)


def unpooled(c: Config, family: str, attn: Custom) -> Spec:
    """BERT without its pooler, positions from row 2 on: classifiers of texts have a hidden layer."""
    embed = embedding(c, positions=LearnedPositions(rows=c.size("max_position_embeddings") + 2, offset=2))
    found: dict[Task, Head] = shared.heads(c, lm_head(c), hidden=Dense(act=activation(c.hidden_act, c)), pool="first")
    found["multiple-choice"] = ChoiceHead(pool="first", hidden=Dense(act="relu"))
    blocks = [block(c, attn)] * c.layers("num_hidden_layers")
    return encoder(c, family, blocks, embed=embed, heads=found, pooler=None)
