"""YOSO, by the expectation of its hashes. Paper: arXiv 2111.09714."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families import nystromformer
from pellucid.families._decoder import under
from pellucid.families._encoder import BERT, CLS, USUAL, classes, head_size
from pellucid.families.nystromformer import unpooled
from pellucid.spec import Custom, Spec

CLASSES = classes("Yoso", *USUAL)
DEFAULTS = shared.ROBERTA_DEFAULTS | {
    "max_position_embeddings": 4096, "type_vocab_size": 1, "use_expectation": True, "hash_code_len": 9, "num_hash": 64,
    "conv_window": None, "use_fast_hash": True, "lsh_backward": True,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "use_expectation": (True,),  # False draws hashes, which the reference can on GPUs alone
    "num_hash": None, "use_fast_hash": None, "lsh_backward": None,  # of that
    "conv_window": (None,),  # the reference multiplies what it convolves by zero
    "attention_probs_dropout_prob": None,  # no part of the reference drops anything
    "is_decoder": (False,),
}  # fmt: skip

BASE = "yoso."
WEIGHTS = under(BASE, BERT, "bert.") | CLS
HEADS = nystromformer.HEADS


def spec(c: Config) -> Spec:
    heads, head_dim = head_size(c)
    options = (("heads", heads), ("head_dim", head_dim), ("bits", c.size("hash_code_len")))
    return unpooled(c, "yoso", Custom(path="pellucid.families.yoso.attention:HashAttention", options=options))
