"""Messages that must not give orders: special tokens in them are encoded as the text that they are.

A template writes `<|im_end|>` and means the token; a message that holds the same characters does not. Once rendered the
two look alike, so the message's are wrapped in two private-use characters that occur nowhere in the input, and found
again in the text (`Marks`). To encode, the other ones, those of the template, change places with private-use strings
of the same length, which a twin of the tokenizer knows by the same ids (`twin`). One call of it encodes the whole text:
the message's tokens are plain text in their context, offsets stay right, and nothing is glued together.
"""

from __future__ import annotations

import copy
import json
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import InputError, Unsupported
from pellucid.text import convert

if TYPE_CHECKING:
    from pellucid.text.chats.template import Rendered
    from pellucid.text.encoding import BatchEncoding
    from pellucid.text.tokenizer import Tokenizer

PRIVATE = range(0xF0000, 0xFFFFE)  # private use; no text has a meaning there


class Plain(NamedTuple):
    """A rendered text without marks, and the spans of it that must not become special tokens."""

    text: str
    spans: list[tuple[int, int]]


class Marks:
    """Two characters that no input holds, put around control tokens in it."""

    def __init__(self, tokens: Iterable[str], values: Any) -> None:
        self.tokens = tuple(tokens)
        used = set("".join(_strings(values)))
        free = (chr(code) for code in PRIVATE if chr(code) not in used)
        self.begin, self.end = next(free), next(free)
        self._token = _any_of(self.tokens)
        self._mark = re.compile(f"{self.begin}(?P<token>{self._token.pattern}){self.end}|[{self.begin}{self.end}]")

    def put(self, value: Any) -> Any:
        """Every string in plain data, keys included, with its control tokens marked."""
        if isinstance(value, str):
            return self._token.sub(lambda found: f"{self.begin}{found[0]}{self.end}", value)
        if isinstance(value, Mapping):
            return {self.put(key): self.put(each) for key, each in value.items()}
        return [self.put(each) for each in value] if isinstance(value, list | tuple) else value

    def take(self, text: str) -> Plain:
        """The text without marks. Where a template cut a marked token in two, the place of the cut is a span too."""
        pieces, spans, at, start = [], [], 0, 0
        for found in self._mark.finditer(text):
            token = found["token"] or ""
            pieces += [text[start : found.start()], token]
            at += found.start() - start
            spans.append((at, at + len(token)))
            at += len(token)
            start = found.end()
        return Plain("".join([*pieces, text[start:]]), spans)

    def settle(self, marked: Rendered, unmarked: Rendered) -> tuple[Plain, list[tuple[int, int]]]:
        """The text to encode, and its generation blocks.

        It is the text of an ordinary rendering wherever its control tokens are those of the marked one. They are not if
        the template looks for such tokens in messages, and does something else without; then it is the marked one's.
        """
        plain = self.take(marked.text)
        ours, theirs = ([*self._token.finditer(text)] for text in (plain.text, unmarked.text))
        if [found[0] for found in ours] == [found[0] for found in theirs]:
            given = [any(_touch(span, found.span()) for span in plain.spans) for found in ours]
            return Plain(unmarked.text, [b.span() for b, is_given in zip(theirs, given) if is_given]), unmarked.spans
        return plain, [(self._place(marked.text, a), self._place(marked.text, b)) for a, b in marked.spans]

    def _place(self, text: str, at: int) -> int:
        """Where a place in the marked text is in the plain one."""
        return at - text.count(self.begin, 0, at) - text.count(self.end, 0, at)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _strings(key)
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """The longest of the tokens that begins at a place, as the Rust side finds them."""
    longest = sorted((token for token in tokens if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or "(?!)")


def marks(tok: Tokenizer, source: str, values: Any) -> Marks:
    """Marks for what gives orders to the model of a tokenizer and a template.

    These are the special tokens, and of the other added ones those that the template writes (as transformers 5.23 has
    it), or that `chat_control_tokens` in tokenizer_config.json lists.
    """
    from pellucid.text.chats import template

    listed = tok.init_kwargs.get("chat_control_tokens")
    among = template.literals(source) if listed is None else listed
    tokens = [token for token in tok.added_tokens_decoder.values() if not token.content.isspace() or token.special]
    return Marks((token.content for token in tokens if token.special or token.content in among), values)


class Twin(NamedTuple):
    """A tokenizer that knows the control tokens by other names."""

    tok: Tokenizer
    names: dict[str, str]  # control token -> private name of the same length
    added: re.Pattern[str]  # any added token

    def hide(self, plain: Plain) -> str:
        """The text with the control tokens that the template wrote under their private names."""
        spans, pieces, start, at, k = plain.spans, [], 0, 0, 0
        while found := self.added.search(plain.text, at):
            while k < len(spans) and spans[k][1] <= found.start() and spans[k] != (found.start(), found.start()):
                k += 1
            if k < len(spans) and _touch(spans[k], found.span()):
                at = found.start() + 1
                continue
            if found[0] in self.names:
                pieces += [plain.text[start : found.start()], self.names[found[0]]]
                start = found.end()
            at = found.end()
        return "".join([*pieces, plain.text[start:]])

    def check(self, texts: Sequence[str], out: BatchEncoding) -> None:
        """No plain text may have become a control token after all (a vocabulary can hold one as a word)."""
        ids = {self.tok.rust.token_to_id(name): token for token, name in self.names.items()}
        private = set("".join(self.names.values()))
        samples = out.get("overflow_to_sample_mapping", range(len(texts)))
        for sample, row in zip(samples, out.encodings or ()):
            text = texts[int(sample)]
            for id, (start, end) in zip(row.ids, row.offsets):
                if id in ids and start < end and private.isdisjoint(text[start:end]):
                    raise InputError(
                        f"{ids[id]!r} in a message cannot be encoded as text: this vocabulary has it as a word",
                        next="refuse or change such messages",
                    )


def _touch(span: tuple[int, int], found: tuple[int, int]) -> bool:
    """Whether a token holds some of a span, or a cut lies inside of it."""
    return span[0] < found[1] and found[0] < span[1] if span[0] < span[1] else found[0] < span[0] < found[1]


_TWINS: weakref.WeakKeyDictionary[Tokenizer, dict[Any, Twin]] = weakref.WeakKeyDictionary()


def twin(tok: Tokenizer, tokens: tuple[str, ...], texts: Iterable[str]) -> Twin:
    """The twin for these control tokens, with names that the texts do not hold. Made once: it costs a load."""
    used = set("".join(texts))
    size = sum(map(len, tokens))
    starts = range(PRIVATE.start, PRIVATE.stop - size, max(size, 1))
    first = next((at for at in starts if used.isdisjoint(map(chr, range(at, at + size)))), None)
    if first is None:
        raise InputError("the messages hold private-use characters of every kind", next="leave them out")
    kept = {} if tok._lent else _TWINS.setdefault(tok, {})
    key = (first, tokens, len(tok))
    if key not in kept:
        kept[key] = _make_twin(tok, tokens, first)
    return kept[key]


def _make_twin(tok: Tokenizer, tokens: tuple[str, ...], first: int) -> Twin:
    names = {}
    for token in tokens:
        names[token] = "".join(map(chr, range(first, first + len(token))))
        first += len(token)
    data = json.loads(tok.rust.to_str())
    vocabulary = data["model"]["vocab"]
    for each in sorted(data["added_tokens"], key=lambda each: each["id"]):
        if each["content"] in names:
            each.update(content=names[each["content"]], normalized=False)
        _put(vocabulary, each["content"], each["id"])
    with convert.rust_errors(tok.name_or_path):
        rust = RustTokenizer.from_str(json.dumps(data))
    for token, id in tok.added_tokens_encoder.items():
        if rust.token_to_id(names.get(token, token)) != id:
            raise Unsupported(
                f"this tokenizer cannot encode {token!r} as text: its ids do not survive a change of names",
                where=tok.name_or_path,
            )
    other = copy.copy(tok)
    other.rust = rust
    return Twin(other, names, _any_of(tok.added_tokens_encoder))


def _put(vocabulary: Any, name: str, id: int) -> None:
    """A name for an id: beside the old one in a dict; in its place in a list of pieces and scores."""
    if isinstance(vocabulary, dict):
        vocabulary[name] = id
    elif id < len(vocabulary):
        vocabulary[id][0] = name
