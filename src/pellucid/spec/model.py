"""A whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pellucid.spec.ffn import Activation
from pellucid.spec.heads import Head, Task
from pellucid.spec.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Spec:
    """`stack` gives the output, over what `encoder` has read where there is one."""

    family: str
    stack: Stack
    encoder: Stack | None = None
    pooler: Activation | None = None  # dense + this on the first token
    heads: Mapping[Task, Head] = field(default_factory=dict)
    shared_embedding: bool = True  # encoder and decoder use one table of tokens
    decoder_start: int | None = None  # the id that opens an encoder-decoder's output
    context: int | None = None  # most positions the model was made for; None: no limit

    @property
    def width(self) -> int:
        return self.stack.width

    @property
    def vocab(self) -> int:
        return self.stack.embed.vocab
