"""The special tokens that a post-processor puts around a text and around a pair, seen from outside.

Rust post-processors take encodings, not ids. What they do is read off one probe: `[CLS] A [SEP] B [SEP]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer as RustTokenizer

PROBES = ("a", "0", " the", "▁", "\u4e00")  # one of them has a token in every vocabulary


@dataclass(frozen=True)
class Part:
    """A special token, or one of the two texts."""

    text: int | None  # 0 or 1; None for a special token
    id: int  # of the special token
    type_id: int


@dataclass(frozen=True)
class Frame:
    """What surrounds a text, or a pair of texts."""

    parts: tuple[Part, ...]

    @staticmethod
    def of(rust: RustTokenizer, *, pair: bool) -> Frame:
        """Raises ValueError where no probe has a token."""
        for probe in PROBES:
            encoding = rust.encode(probe, probe if pair else None)
            found: list[Part] = []
            for text, id, type_id in zip(encoding.sequence_ids, encoding.ids, encoding.type_ids):
                part = Part(text, id if text is None else 0, type_id)
                if text is None or part not in found[-1:]:
                    found.append(part)
            if {part.text for part in found} >= ({0, 1} if pair else {0}):
                return Frame(tuple(found))
        raise ValueError("this vocabulary has no token for any of " + ", ".join(map(repr, PROBES)))

    @staticmethod
    def bare(texts: int) -> Frame:
        """Nothing around one or two texts."""
        return Frame(tuple(Part(text, 0, 0) for text in range(texts)))

    def ids(self, *texts: Sequence[int]) -> list[int]:
        """The ids of one or two texts with the special tokens."""
        return [id for part in self.parts for id in ([part.id] if part.text is None else texts[part.text])]

    def type_ids(self, *texts: Sequence[int]) -> list[int]:
        """The token types of the same."""
        return [part.type_id for part in self.parts for _ in ([0] if part.text is None else texts[part.text])]

    def mask(self, *texts: Sequence[int]) -> list[int]:
        """1 for each special token of the same."""
        return [int(part.text is None) for part in self.parts for _ in ([0] if part.text is None else texts[part.text])]
