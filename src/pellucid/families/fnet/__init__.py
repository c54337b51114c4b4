"""FNet: BERT with Fourier transforms in place of attention. Paper: arXiv 2105.03824."""

from pellucid.config import Config
from pellucid.families import _encoder as shared
from pellucid.families._decoder import under
from pellucid.families._encoder import (
    BERT,
    CLS,
    USUAL,
    block,
    classes,
    embedding,
    encoder,
    heads,
    idle,
    lm_head,
)
from pellucid.spec import Custom, Projection, Spec

CLASSES = classes("FNet", *USUAL, "next-sentence", "pretraining")
DEFAULTS = shared.DEFAULTS | {
    "vocab_size": 32000, "hidden_act": "gelu_new", "type_vocab_size": 4, "pad_token_id": 3, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
IGNORED = shared.IGNORED | {
    "use_tpu_fourier_optimizations": None, "tpu_short_seq_length": None,  # ways to compute the same transform
    "is_decoder": (False,),
}  # fmt: skip

BASE = "fnet."
SAME = {name: slot for name, slot in under(BASE, BERT, "bert.").items() if ".attention." not in name}
WEIGHTS = SAME | CLS | {
    "fnet.embeddings.projection.{p}": "embed.project.{p}",
    "fnet.encoder.layer.{i}.fourier.output.LayerNorm.{p}": "blocks.{i}.attn_norm.{p}",
}  # fmt: skip
HEADS = idle("fnet.pooler.dense", "masked-lm", "token-classification", "question-answering")


def spec(c: Config) -> Spec:
    blocks = [block(c, Custom(path="pellucid.families.fnet.fourier:Fourier"))] * c.layers("num_hidden_layers")
    return encoder(c, "fnet", blocks, embed=embedding(c, projection=Projection()), heads=heads(c, lm_head(c)))
