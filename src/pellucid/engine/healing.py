"""Token healing: a prompt that was cut inside a word may be completed by the token that the whole word has.

`http:` ends with the token `:`, and the model, which has always seen `://` as one token, is led away from it. So the
last token is taken back, and the first new token is to begin with its text. The idea is that of guidance
(https://github.com/guidance-ai/guidance) and of `token_healing=True` in transformers. Different from the latter:

- the text of the prompt stays as it is (there, spaces at its ends and special tokens within are lost, and the first
  token becomes padding);
- the new token must begin with the text (there, it has a bonus of 10 on its logit, which a sure model outweighs);
- text is compared as bytes (there, tokens that begin with a space are not found, or the wrong ones are).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine.rules.rule import Pure
from pellucid.text.pieces import Pieces, pieces_of
from pellucid.text.tokenizer import Tokenizer

FAVOUR = 1.0  # on the logit of the prompt's own token, so that `http` does not become `https` lightly


@dataclass(frozen=True)
class Healed:
    """A prompt without its last tokens, and what brings their text back.

    Attributes:
        ids: the prompt that is left.
        taken: the tokens that were taken back; none where the prompt stays as it is.
        text: their text: what the output begins with.
        rule: sees to it; None where nothing was taken.
    """

    ids: list[int]
    taken: tuple[int, ...] = ()
    text: str = ""
    rule: Completion | None = None


@dataclass(frozen=True)
class Completion(Pure):
    """The output begins with the text of some tokens: with themselves, or with a token that goes beyond them."""

    pieces: Pieces
    taken: tuple[int, ...]
    begin: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        again = tuple(ids[self.begin : self.begin + len(self.taken)])
        rest = self.taken[len(again) :]
        if not rest or again != self.taken[: len(again)]:  # said, by the same tokens or by a longer one
            return logits_V
        allowed = [id for id in self.pieces.beginning(self.pieces.join(rest)) if id < len(logits_V)]
        allowed_N = torch.tensor(sorted({*allowed, rest[0]}), device=logits_V.device)
        out_V = torch.full_like(logits_V, -torch.inf)
        out_V[allowed_N] = logits_V[allowed_N]
        out_V[rest[0]] += FAVOUR
        return out_V


def heal(ids: Sequence[int], tokenizer: Tokenizer, most: int = 1) -> Healed:
    """Takes back the last tokens of a prompt, where another token begins with their text.

    Args:
        most: tokens to take back, as many of them as one token can begin with. The reference takes one.

    Raises:
        Unsupported: a tokenizer whose tokens have no text of their own (WordPiece).
    """
    pieces = pieces_of(tokenizer)
    for count in range(min(most, len(ids) - 1), 0, -1):
        taken = tuple(ids[-count:])
        tail = pieces.join(taken)
        if all(pieces.spelled(id) for id in taken) and _is_text(tail) and _goes_on(pieces, tail):
            left = list(ids[:-count])
            return Healed(left, taken, tail.decode(), Completion(pieces, taken, len(left)))
    return Healed(list(ids))


def _goes_on(pieces: Pieces, tail: bytes) -> bool:
    """Whether a token begins with this and is longer."""
    return any(pieces.join([id]) != tail for id in pieces.beginning(tail))


def _is_text(tail: bytes) -> bool:
    """Not a part of a character: what completes it is not a word that was cut."""
    try:
        tail.decode()
    except UnicodeDecodeError:
        return False
    return True
