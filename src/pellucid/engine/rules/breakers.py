"""Which tokens DRY's sequence breakers are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

_known: WeakKeyDictionary[Tokenizer, dict[str, frozenset[int]]] = WeakKeyDictionary()


def breaker_ids(breakers: Iterable[str | int], tokenizer: Tokenizer | None) -> frozenset[int]:
    """Ids as they are; of a string all tokens whose text has it in it, or its last token where none has.

    Raises:
        ArgumentError: a string, and no tokenizer.
    """
    found: set[int] = set()
    strings = [breaker for breaker in breakers if isinstance(breaker, str)]
    found.update(breaker for breaker in breakers if not isinstance(breaker, str))
    if not strings:
        return frozenset(found)
    if tokenizer is None:
        what = f"dry_sequence_breakers={strings!r} without a tokenizer"
        raise ArgumentError(what, where="dry_sequence_breakers", next="pass tokenizer=…, or ids, or []")
    held = _known.setdefault(tokenizer, {})
    missing = [string for string in strings if string not in held]
    if missing:
        texts = tokenizer.rust.decode_batch([[id] for id in range(len(tokenizer))], skip_special_tokens=False)
        for string in missing:
            having = frozenset(id for id, text in enumerate(texts) if string in text)
            held[string] = having or frozenset(tokenizer.rust.encode(f"a{string}", add_special_tokens=False).ids[-1:])
    return frozenset(found.union(*(held[string] for string in strings)))
