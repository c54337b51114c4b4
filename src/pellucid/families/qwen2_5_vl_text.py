"""Qwen2.5-VL's text part, which is Qwen2-VL's. Paper: arXiv 2502.13923."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import qwen2_vl_text
from pellucid.spec import Spec

CLASSES = {None: "Qwen2_5_VLTextModel"}
DEFAULTS = qwen2_vl_text.DEFAULTS

BASE = "model."
WEIGHTS = qwen2_vl_text.WEIGHTS


def spec(c: Config) -> Spec:
    return replace(qwen2_vl_text.spec(c), family="qwen2_5_vl_text")
