"""Longformer: RoBERTa with attention in windows. Paper: arXiv 2004.05150."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import roberta
from pellucid.families._decoder import under
from pellucid.families._encoder import USUAL, block, classes, head_size
from pellucid.spec import Custom, Spec

CLASSES = classes("Longformer", *USUAL, pretraining="masked-lm", encoding=True)
DEFAULTS = roberta.DEFAULTS | {"vocab_size": 30522, "attention_window": None, "sep_token_id": 2}
IGNORED = roberta.IGNORED | {
    "onnx_export": None, "ignore_attention_mask": None,  # ways to run the same arithmetic
    "attention_mode": None,  # of the first release's own kernels
    "is_decoder": (False,),
}  # fmt: skip

BASE = "longformer."
SELF = "longformer.encoder.layer.{i}.attention.self"
WEIGHTS = under(BASE, roberta.WEIGHTS, roberta.BASE) | {
    f"{SELF}.{name}_global.{{p}}": f"blocks.{{i}}.attn.global_{name[0]}.{{p}}" for name in ("query", "key", "value")
}  # fmt: skip
HEADS = roberta.HEADS


def windows(c: Config, layers: int) -> list[int]:
    """How far each layer's tokens see on either side: half of `attention_window`, which may be a list."""
    given = c.attention_window or 512
    each = given if isinstance(given, list) else [given] * layers
    if len(each) != layers or not all(type(size) is int and size > 0 and size % 2 == 0 for size in each):
        what = f"attention_window={given!r} for {layers} layers"
        raise ConfigError(what, where=c.where, next="give an even number, or one for each layer")
    return [size // 2 for size in each]


def spec(c: Config) -> Spec:
    heads, head_dim = head_size(c)
    options = (
        ("heads", heads), ("head_dim", head_dim), ("dropout", c.share("attention_probs_dropout_prob")),
        ("sep", c.sep_token_id),
    )  # fmt: skip
    path = "pellucid.families.longformer.attention:TaskAttention"
    blocks = [
        block(c, Custom(path=path, options=(*options, ("radius", radius))))
        for radius in windows(c, c.layers("num_hidden_layers"))
    ]
    return roberta.roberta(c, "longformer", blocks=blocks, inputs=("global_attention_mask",))
