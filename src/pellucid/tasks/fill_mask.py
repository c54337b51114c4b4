"""Masked words to guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.tasks.hidden import encode, forward
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Guess:
    """One token for a mask.

    Args:
        score: its probability, 0 to 1.
        sequence: the text with the mask replaced.
    """

    score: float
    token: int
    token_str: str
    sequence: str


def fill(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    targets: Sequence[str] | None = None,
) -> list[list[list[Guess]]]:
    """For each text and each mask in it, the best guesses first.

    Args:
        targets: words to choose from, one token each; None for the whole vocabulary.

    Raises:
        InputError: a text without a mask, a target that is no single token.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InputError("this tokenizer has no mask token", where="fill-mask", next="use a masked language model")
    if type(top_k) is not int or top_k < 1:
        raise InputError(f"top_k={top_k!r}", where="top_k", next="use a whole number, at least 1")
    if targets is not None and (not isinstance(targets, (list, tuple)) or not targets):
        raise InputError(f"targets={targets!r}", where="targets", next="give words in a list")
    rows = encode(model, tokenizer, texts)
    for text, ids in zip(texts, rows):
        if mask not in ids:
            raise InputError(
                f"no mask in {text[:60]!r}",
                where="fill-mask",
                next=f"write {tokenizer.mask_token} where a word is missing",
            )
    allowed = None if targets is None else [_single(tokenizer, word) for word in targets]
    found = []
    for ids, logits_TV in zip(rows, forward(model, rows, "logits")):
        spots = [t for t, i in enumerate(ids) if i == mask]
        found.append([_guesses(tokenizer, ids, spot, logits_TV[spot], top_k, allowed) for spot in spots])
    return found


def _guesses(
    tokenizer: Tokenizer,
    ids: list[int],
    spot: int,
    logits_V: torch.Tensor,
    top_k: int,
    allowed: list[int] | None,
) -> list[Guess]:
    share_V = logits_V.float().softmax(-1)
    if allowed is not None:
        best = sorted(allowed, key=lambda token: -float(share_V[token]))[:top_k]
    else:
        best = share_V.topk(min(top_k, share_V.numel())).indices.tolist()
    return [
        Guess(
            score=float(share_V[token]),
            token=token,
            token_str=tokenizer.decode([token]),
            sequence=tokenizer.decode([*ids[:spot], token, *ids[spot + 1 :]], skip_special_tokens=True),
        )
        for token in best
    ]


def _single(tokenizer: Tokenizer, word: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(f"the target {word!r} is {len(ids)} tokens", where="targets", next="give words of one token")
    if ids[0] == tokenizer.unk_token_id:
        raise InputError(f"the target {word!r} is not in the vocabulary", where="targets", next="give another word")
    return ids[0]
