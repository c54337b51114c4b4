"""Ministral 8B: Mistral with windows in some layers. Card: huggingface.co/mistralai/Ministral-8B-Instruct-2410."""

from pellucid.config import Config
from pellucid.families._decoder import GENERIC, LLAMA, attention, classes, decoder, gated, rms, under, windows
from pellucid.families.mistral import DEFAULTS as MISTRAL
from pellucid.spec import Block, PreNorm, Spec

CLASSES = classes("Ministral", *GENERIC)
DEFAULTS = MISTRAL | {"layer_types": None}

BASE = "model."
WEIGHTS = LLAMA
HEADS = {"question-answering": under("transformer.", LLAMA)}  # the only task with that prefix


def spec(c: Config) -> Spec:
    layers = windows(c, attention(c, biases=""), lambda i: "sliding_attention")
    mlp, order = gated(c), PreNorm(norm=rms(c))
    return decoder(c, "ministral", [Block(attn=one, mlp=mlp, order=order) for one in layers])
