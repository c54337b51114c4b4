"""A whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pellucid.spec.ffn import Activation
from pellucid.spec.heads import Head, Pooling, Task
from pellucid.spec.mixers import Attention, LatentAttention
from pellucid.spec.norms import Custom
from pellucid.spec.stack import Block, Stack


@dataclass(frozen=True, kw_only=True)
class Spec:
    """`stack` gives the output, over what `encoder` has read where there is one."""

    family: str
    stack: Stack
    encoder: Stack | None = None
    stacks: Mapping[Task | None, Stack] = field(default_factory=dict)  # of tasks that need another one (Funnel)
    pooler: Activation | Pooling | None = None  # an activation: dense + this on the first token
    heads: Mapping[Task, Head] = field(default_factory=dict)
    shared_embedding: bool = True  # encoder and decoder use one table of tokens
    decoder_start: int | Literal["last"] | None = None  # the id that opens an output; "last": the text's own (mBART)
    context: int | None = None  # most positions the model was made for; None: no limit

    @property
    def width(self) -> int:
        """Of what comes out, and of what the heads read."""
        return self.stack.out or self.stack.width

    @property
    def vocab(self) -> int:
        return self.stack.embed.vocab

    @property
    def remembers(self) -> bool:
        """Whether tokens that come later build on something kept of the earlier ones."""
        writes = self.encoder is not None or "causal-lm" in self.heads
        parts = [block.attn if isinstance(block, Block) else block for block in self.stack.blocks]
        return any(_remembers(part, writes) for part in (*parts, self.stack.body))

    @property
    def mutual(self) -> bool:
        """Whether the tokens of one call see each other, so that a prompt in pieces is another one."""
        return self.stack.body is not None and bool(dict(self.stack.body.options).get("mutual"))

    # ---------------------------------------------------------------------- parts of an encoder-decoder

    def of(self, task: Task | None) -> Spec:
        """What a task needs: its own stack; of an encoder-decoder both, the decoder alone, or the encoder alone."""
        whole = replace(self, stack=self.stacks[task]) if task in self.stacks else self
        if self.encoder is None:
            return whole
        if task == "causal-lm":
            return whole.decoder()
        return self.reader() if task in ("text-encoding", "token-classification") else whole

    def decoder(self) -> Spec:
        """The decoder on its own, without attention over an encoder: a causal language model."""
        blocks = tuple(replace(b, cross=None) if isinstance(b, Block) else b for b in self.stack.blocks)
        return replace(self, stack=replace(self.stack, blocks=blocks), encoder=None, heads=self._heads("causal-lm"))

    def reader(self) -> Spec:
        """The encoder on its own."""
        assert self.encoder is not None
        return replace(self, stack=self.encoder, encoder=None, heads=self._heads("token-classification"))

    def _heads(self, task: Task) -> dict[Task, Head]:
        return {task: self.heads[task]} if task in self.heads else {}


def _remembers(part: object, writes: bool) -> bool:
    match part:
        case None:
            return False
        case Attention(causal=causal) | LatentAttention(causal=causal):
            return causal
        case Custom():
            return bool(dict(part.options).get("causal", writes))
        case _:  # a recurrence
            return True
