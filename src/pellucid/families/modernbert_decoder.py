"""ModernBERT as a decoder (Ettin). Paper: arXiv 2507.11412."""

from dataclasses import replace
from typing import cast

from pellucid.config import Config
from pellucid.families import modernbert
from pellucid.families._encoder import classes
from pellucid.families.modernbert import hidden
from pellucid.spec import SequenceHead, Spec

CLASSES = classes("ModernBertDecoder", "causal-lm", "sequence-classification")
DEFAULTS = {key: value for key, value in modernbert.DEFAULTS.items() if key != "classifier_pooling"}
IGNORED = modernbert.IGNORED | {"classifier_pooling": None}  # the last token, always

BASE = modernbert.BASE
WEIGHTS = {
    f"model.layers.{{i}}.attn.{x}_proj.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkv"
} | modernbert.WEIGHTS
HEADS = {
    "causal-lm": hidden("lm_head.transform", at="lm_head") | {"decoder.{p}": "lm_head.out.{p}"},
    "sequence-classification": modernbert.LABELS,
}


def spec(c: Config) -> Spec:
    window = c.number("local_attention", null=None)
    half = window // 2 if window else None
    found = modernbert.modernbert(c, "modernbert_decoder", "last", causal=True, window=half)
    sequence = cast(SequenceHead, found.heads["sequence-classification"])
    return replace(found, heads={**found.heads, "sequence-classification": replace(sequence, bias=c.classifier_bias)})
