"""Masked words to guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.tasks.flow import logits_at, whole_number
from pellucid.tasks.rows import REFUSE, Cut, InputRefused, encode
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Guess:
    """One token for a mask.

    Args:
        score: its probability, 0 to 1.
        sequence: the text with the mask replaced; other masks stay.
    """

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class Filled:
    """The guesses for each mask of a text, the best first.

    Args:
        dropped: tokens of the text that were cut off.
    """

    masks: list[list[Guess]]
    dropped: int = 0


def fill(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    targets: Sequence[str] | None = None,
    cut: Cut = REFUSE,
) -> list[Filled]:
    """The best guesses for each mask in each text.

    Args:
        targets: words to choose from, one token each; None for the whole vocabulary.

    Raises:
        InputRefused: a text without a mask, or one that is too long. InputError: a target that is no single token.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise InputError("this tokenizer has no mask token", where="fill-mask", next="use a masked language model")
    whole_number("top_k", top_k)
    if targets is not None and (not isinstance(targets, (list, tuple)) or not targets):
        raise InputError(f"targets={targets!r}", where="targets", next="give words in a list")
    allowed = None if targets is None else sorted({single(tokenizer, word) for word in targets})
    rows = encode(model, tokenizer, texts, cut=cut)
    spots = [[t for t, token in enumerate(row.ids) if token == mask] for row in rows]
    for i, (text, found) in enumerate(zip(texts, spots)):
        if not found:
            what = f"no mask in {text[:60]!r}" + (", as it was cut" if rows[i].dropped else "")
            raise InputRefused(i, what, next=f"write {tokenizer.mask_token} where a word is missing")
    results: list[Filled] = [Filled([])] * len(rows)
    for i, logits_KV in logits_at(model, rows, spots):
        each = zip(spots[i], logits_KV)
        masks = [_guesses(tokenizer, rows[i].ids, spots[i], t, logits_V, top_k, allowed) for t, logits_V in each]
        results[i] = Filled(masks, rows[i].dropped)
    return results


def _guesses(
    tokenizer: Tokenizer,
    ids: list[int],
    spots: list[int],
    spot: int,
    logits_V: Tensor,
    top_k: int,
    allowed: list[int] | None,
) -> list[Guess]:
    share_V = logits_V.float().softmax(-1)
    if allowed is not None:
        best = sorted(allowed, key=lambda token: -float(share_V[token]))[:top_k]
    else:
        best = share_V.topk(min(top_k, share_V.numel())).indices.tolist()
    alone = len(spots) == 1  # otherwise the other masks are to be seen
    return [
        Guess(
            score=float(share_V[token]),
            token=token,
            token_str=tokenizer.decode([token]),
            sequence=tokenizer.decode([*ids[:spot], token, *ids[spot + 1 :]], skip_special_tokens=alone),
        )
        for token in best
    ]


def single(tokenizer: Tokenizer, word: str) -> int:
    """The id of a word that is one token, as the vocabulary writes it or as a text does.

    Raises:
        InputError: it is several tokens, or unknown.
    """
    if not isinstance(word, str):
        raise InputError(f"the target {word!r} is a {type(word).__name__}", where="targets", next="give words")
    ids = [found] if (found := tokenizer.get_vocab().get(word)) is not None else []
    ids = ids or tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(f"the target {word!r} is {len(ids)} tokens", where="targets", next="give words of one token")
    if ids[0] == tokenizer.unk_token_id:
        raise InputError(f"the target {word!r} is not in the vocabulary", where="targets", next="give another word")
    return ids[0]
