"""Grammars: the text of a request is held to a JSON schema, a regular expression, a choice or a context-free grammar.

The parser is llguidance (https://github.com/guidance-ai/llguidance; `pip install pellucid[grammar]`). Here stand what
can be wanted (`Grammar`), how people write it (`grammar_of`), and the rule that masks logits (`GrammarRule`).

    rule = grammar_rule({"type": "json_object"}, tokenizer, vocab=32000, eos={2}, begin=len(prompt))

The text that ends with EOS, or where `rule.finished(ids)`, is of the grammar; one cut off by its length is the
beginning of such a text. Where only one continuation is possible, its tokens are the tokenizer's own.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pellucid.engine.rules.rule import shared
from pellucid.errors import ArgumentError, InputError, PellucidError, nearest
from pellucid.text.pieces import Pieces, pieces_of

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

    from pellucid.text.tokenizer import Tokenizer

KEPT = 64  # compiled grammars of one vocabulary
# Between the parts of a JSON text: nothing, a space, or a line break with at most 20 spaces. Without a limit, a model
# that cannot decide writes spaces to the end.
WHITESPACE = r"( |\n {0,20})"


# ---- what can be wanted ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JsonSchema:
    """JSON of a schema (draft 2020-12, with the keywords that llguidance knows). Properties come in the schema's order.

    Args:
        schema: an object, its JSON text, or True for any JSON.
        lenient: warn about keywords that cannot be enforced, and ignore them, instead of refusing the schema.
        whitespace: a regular expression of what may stand between the parts.
    """

    schema: Mapping[str, Any] | str | bool
    lenient: bool = False
    whitespace: str = WHITESPACE


@dataclass(frozen=True)
class Json:
    """Any JSON object."""


@dataclass(frozen=True)
class Regex:
    """A text that the whole pattern matches; the syntax of Rust's regex crate, without look-around."""

    pattern: str


@dataclass(frozen=True)
class Choice:
    """One of some texts."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Lark:
    """A context-free grammar in llguidance's dialect of Lark; it begins at the rule `start`."""

    text: str


@dataclass(frozen=True)
class Gbnf:
    """A context-free grammar as llama.cpp writes it; it begins at the rule `root`."""

    text: str


Grammar = JsonSchema | Json | Regex | Choice | Lark | Gbnf


# ---- how people write it -----------------------------------------------------------------------------------------


def grammar_of(wanted: object) -> Grammar | None:
    """The grammar that a `response_format` names; None where it leaves the text free.

    Args:
        wanted: a Grammar; a pydantic model; or one of
            {"type": "text"}
            {"type": "json_object"}, with "schema" where llama.cpp's clients give one
            {"type": "json_schema", "json_schema": {"schema": …, "name": …, "strict": …}}, strict=False is lenient
            {"type": "regex", "regex": …}
            {"type": "choice", "choice": […]}
            {"type": "grammar", "grammar": …, "syntax": "lark" or "gbnf"}; without a syntax, `root ::=` is GBNF

    Raises:
        ArgumentError: it is none of these.
    """
    if wanted is None or isinstance(wanted, Grammar):
        return wanted
    if callable(schema := getattr(wanted, "model_json_schema", None)):
        return JsonSchema(schema())
    if not isinstance(wanted, Mapping):
        raise _wrong(
            f"response_format is a {type(wanted).__name__}", "a dict with a type, a Grammar or a pydantic model"
        )
    kind = wanted.get("type")
    if not isinstance(kind, str) or kind not in FORMATS:
        raise _wrong(f"response_format has type {kind!r}", _meant(wanted))
    read, keys = FORMATS[kind]
    for key in wanted:
        if key not in ("type", *keys):
            raise _wrong(f"response_format of type {kind!r} has {key!r}", f"keys: {', '.join(('type', *keys))}")
    return read(wanted)


def _meant(wanted: Mapping[str, Any]) -> str:
    """What a format of no known type was to be: a schema as it stands, or what it is without saying so."""
    kind = wanted.get("type")
    if "properties" in wanted or kind in ("object", "array", "string", "number", "integer", "boolean", "null"):
        return 'a schema goes in here: {"type": "json_schema", "json_schema": {"schema": …}}'
    if kind is None and (named := [name for name in FORMATS if name in wanted]):
        return f'add "type": "{named[0]}"'
    return f"{nearest(str(kind), FORMATS)} types: {', '.join(FORMATS)}".strip()


def _json_object(wanted: Mapping[str, Any]) -> Grammar:
    schema = wanted.get("schema")
    return Json() if schema is None else JsonSchema(schema)


def _json_schema(wanted: Mapping[str, Any]) -> Grammar:
    inner = _need(wanted, "json_schema", Mapping, "an object")
    for key in inner:
        if key not in (keys := ("name", "description", "schema", "strict")):
            raise _wrong(f"json_schema has {key!r}", nearest(str(key), keys) or f"keys: {', '.join(keys)}")
    return JsonSchema(_need(inner, "schema", Mapping | str | bool, "an object"), lenient=inner.get("strict") is False)


def _regex(wanted: Mapping[str, Any]) -> Grammar:
    return Regex(_need(wanted, "regex", str, "a string"))


def _choice(wanted: Mapping[str, Any]) -> Grammar:
    return Choice(tuple(_need(wanted, "choice", list | tuple, "a list of strings")))


def _grammar(wanted: Mapping[str, Any]) -> Grammar:
    text, syntax = _need(wanted, "grammar", str, "a string"), wanted.get("syntax")
    if syntax not in (None, "lark", "gbnf"):
        raise _wrong(f"syntax={syntax!r}", "lark or gbnf")
    gbnf = syntax == "gbnf" or (syntax is None and "::=" in text)
    return Gbnf(text) if gbnf else Lark(text)


FORMATS: dict[str, tuple[Callable[[Mapping[str, Any]], Grammar | None], tuple[str, ...]]] = {
    "text": (lambda wanted: None, ()),
    "json_object": (_json_object, ("schema",)),
    "json_schema": (_json_schema, ("json_schema",)),
    "regex": (_regex, ("regex",)),
    "choice": (_choice, ("choice",)),
    "grammar": (_grammar, ("grammar", "syntax")),
}


def _need(found: Mapping[str, Any], key: str, kind: Any, called: str) -> Any:
    if not isinstance(value := found.get(key), kind):
        raise _wrong(f"response_format: {key}={value!r}", f"give {called} as {key}")
    return value


def _wrong(what: str, next: str) -> ArgumentError:
    return ArgumentError(what, where="response_format", next=next)


# ---- as llguidance writes it -------------------------------------------------------------------------------------


def compiled(grammar: Grammar, before: str = "", *, spaced: bool = False) -> str:
    """llguidance's JSON for a grammar.

    Args:
        before: what stands before the grammar's text, such as the end of a healed prompt.
        spaced: a space may stand before everything.

    Raises:
        ArgumentError: it is no grammar; `Vocabulary.matcher` finds what else is wrong with it.
    """
    part = _part(grammar)
    if not before and not spaced:
        return json.dumps({"grammars": [part]})
    first = ['" "?'] if spaced else []
    first += [json.dumps(before)] if before else []
    start = f"start: {' '.join(first)} @text"
    return json.dumps({"grammars": [{"lark_grammar": start}, part | {"name": "text"}]})


def _part(grammar: Grammar) -> dict[str, Any]:
    match grammar:
        case JsonSchema(schema, lenient, whitespace):
            options = {"whitespace_pattern": whitespace, "lenient": lenient}
            return {"json_schema": _schema(schema, options)}
        case Json():
            return _part(JsonSchema({"type": "object"}))
        case Regex(pattern):
            made = json.loads(_library().LLMatcher.grammar_from_regex(_text(pattern, "the pattern")))
            return {"lark_grammar": made["grammars"][0]["lark_grammar"]}
        case Choice(options):
            if not options:
                raise _wrong("a choice between no options", "give at least one")
            quoted = (json.dumps(_text(option, "an option")) for option in options)
            return {"lark_grammar": f"start: {' | '.join(quoted)}"}
        case Lark(text):
            return {"lark_grammar": _text(text, "the grammar")}
        case Gbnf(text):
            return {"lark_grammar": _lark(_text(text, "the grammar"))}


def _schema(schema: Mapping[str, Any] | str | bool, options: dict[str, Any]) -> dict[str, Any]:
    """The schema as an object with our options; those that it brings itself (`x-guidance`) win."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema, allow_nan=False)
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError) as e:
        raise _wrong(f"the schema is no JSON: {e}", "give an object") from None
    if isinstance(found, bool):
        found = {} if found else {"not": {}}
    if not isinstance(found, dict):
        raise _wrong(f"the schema is a {type(found).__name__}", "give an object")
    own = found.get("x-guidance")
    return found | {"x-guidance": options | (own if isinstance(own, dict) else {})}


def _lark(gbnf: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(gbnf)
    except Exception as e:  # the library raises bare exceptions of many kinds
        raise _wrong(f"not a GBNF grammar: {e}", "for Lark, give syntax='lark'") from None


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{name} is a {type(value).__name__}", "give a string")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise _wrong(f"{name} has half a character: {value!r}", "give text that is Unicode")
    return value


def _library() -> ModuleType:
    try:
        import llguidance
    except ImportError as e:
        raise PellucidError(
            "grammars need llguidance, which is not installed", where=str(e), next="pip install 'pellucid[grammar]'"
        ) from None
    return llguidance


# ---- a tokenizer's vocabulary under grammars ---------------------------------------------------------------------


class Tokens:
    """A vocabulary in the shape that llguidance's `LLTokenizer` asks for."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, pieces: Pieces, vocab: int, ends: Sequence[int]) -> None:
        """`ends`: the EOS ids; `vocab` itself where the model has none."""
        self._pieces, self._vocab = pieces, vocab
        special = {id: text.encode() for id, text in pieces.special.items() if id < vocab}
        known = pieces.of[:vocab]
        self.tokens = [piece or b"" for piece in known] + [b""] * (max(vocab, ends[-1] + 1) - len(known))
        for id, text in special.items():
            self.tokens[id] = text
        self.eos_token_id = ends[0]
        self.special_token_ids = sorted({*special, *ends})

    def __call__(self, text: str) -> list[int]:
        """The tokens of a text that must come next; the beginning of them where it cannot be spelled."""
        return self._pieces.ids(text, self._vocab)


class Vocabulary:
    """A tokenizer and a model under grammars, and the grammars compiled for them.

    Without an EOS, an id beyond the logits stands for it: it is allowed where the text may end, and never drawn.
    """

    def __init__(self, pieces: Pieces, vocab: int, eos: frozenset[int]) -> None:
        """`vocab`: how many logits the model gives; more or fewer than the tokenizer's tokens."""
        if wrong := [id for id in eos if not 0 <= id < vocab]:
            what = f"eos_token_id={wrong[0]}, and the model gives {vocab} logits"
            raise ArgumentError(what, where="eos_token_id", next=f"use an id from 0 to {vocab - 1}")
        self.size, self.eos = vocab, eos
        self.ends = sorted(eos) or [vocab]
        tokens = Tokens(pieces, vocab, self.ends)
        self.words = (len(tokens.tokens) + 31) // 32  # of a mask
        self._tokenizer: LLTokenizer = _library().LLTokenizer(tokens, eos_token=self.ends)
        self._made: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, grammar: str) -> LLMatcher:
        """A parser at the beginning of a text.

        Raises:
            ArgumentError: the grammar is wrong, or no text satisfies it.
        """
        with self._lock:
            made = self._made.get(grammar)
            if made is None:
                made = self._made[grammar] = self._compile(grammar)
            self._made.move_to_end(grammar)
            if len(self._made) > KEPT:
                self._made.popitem(last=False)
            return made.deep_copy()

    def _compile(self, grammar: str) -> LLMatcher:
        library = _library()
        limits = library.LLParserLimits(verbose_errors=False)
        made = library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if made.is_error():
            raise _wrong(made.get_error().strip(), "change the grammar")
        for warning in made.get_grammar_warnings():
            warnings.warn(f"response_format: {warning}", stacklevel=6)
        return made


_LOCK = threading.Lock()


def vocabulary(tokenizer: Tokenizer, vocab: int, eos: Iterable[int]) -> Vocabulary:
    """Made once for a tokenizer, as long as its tokens stay the same (0.1 s for 32,000 tokens)."""
    pieces, key = pieces_of(tokenizer), (vocab, frozenset(eos))
    with _LOCK:
        if key not in pieces.derived:
            pieces.derived[key] = Vocabulary(pieces, *key)
        return pieces.derived[key]


# ---- the rule ----------------------------------------------------------------------------------------------------

# Eight logits for each byte of a mask: 0 where a token is allowed. Adding is as fast for any mask; selecting is not.
PENALTY = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")).float()
PENALTY = PENALTY.log()


class GrammarRule:
    """Logits of tokens that the grammar does not allow become -inf: a function of ids and logits.

    The parser is a cache: it follows ids that go on, goes back where drafts were rejected, and starts again where they
    are others. Where ids are not of the grammar, nothing is allowed; where they are complete, only EOS.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str, begin: int) -> None:
        """`begin`: how many ids stand before the grammar's text."""
        self._vocabulary, self._grammar, self._begin = vocabulary, grammar, begin
        self._matcher = vocabulary.matcher(grammar)
        self._taken: list[int] = []  # by the parser
        self._current = False  # the mask is for these
        self._mask = np.zeros(vocabulary.words, np.int32)
        self._address = self._mask.ctypes.data
        self._bytes = torch.from_numpy(self._mask.view(np.uint8))

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        """Raises InputError where the tokens that the grammar needs next are lacking."""
        if logits_V.shape[-1] != self._vocabulary.size:
            what = f"{logits_V.shape[-1]} logits, and the grammar was made for {self._vocabulary.size}"
            raise InputError(what, where="response_format", next="give the model's own vocabulary size")
        if not self._follow(ids):
            allowed = sorted(self._vocabulary.eos) if self._ends(ids) else []
            out_V = torch.full_like(logits_V, -torch.inf)
            out_V[allowed] = logits_V[allowed]
            return out_V
        self._compute()
        penalty_V = PENALTY.index_select(0, self._bytes.int()).view(-1)[: logits_V.shape[-1]]
        return logits_V + penalty_V

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """Nothing: ids tell."""

    def fork(self) -> GrammarRule:
        other = GrammarRule(self._vocabulary, self._grammar, self._begin)
        other._matcher, other._taken = self._matcher.deep_copy(), self._taken.copy()
        return other

    def finished(self, ids: Sequence[int]) -> bool:
        """The text is complete, and nothing but EOS may follow: the way to end for a model that has none."""
        if not self._follow(ids):
            return self._ends(ids)
        return bool(self._matcher.is_accepting()) and (self._matcher.is_stopped() or self._only_ends())

    def forced(self, ids: Sequence[int]) -> list[int]:
        """The tokens that must come next, if there is one way: free drafts for speculation."""
        if not self._follow(ids) or self._matcher.is_stopped():
            return []
        return list(self._matcher.compute_ff_tokens())

    def accepts(self, ids: Sequence[int], drafts: Sequence[int]) -> int:
        """How many of the drafts may follow ids."""
        whole = [*ids, *drafts]
        complete = self._follow(whole)
        count = self._begin + len(self._taken) - len(ids)
        return max(0, count if complete else count + self._ends(whole))

    def prepare(self, ids: Sequence[int]) -> None:
        """Computes the mask for ids ahead of the call, while the model runs."""
        if self._follow(ids):
            self._compute()

    # The parser.

    def _follow(self, ids: Sequence[int]) -> bool:
        """Whether the parser now stands behind ids; not where they hold an EOS or are not of the grammar."""
        wanted, taken = list(ids[self._begin :]), self._taken
        same = shared(taken, wanted)
        if same < len(taken):
            self._current = False
            if not self._matcher.rollback(len(taken) - same):
                self._matcher, same = self._vocabulary.matcher(self._grammar), 0
            del taken[same:]
        if text := _before_end(wanted[same:], self._vocabulary.eos):
            count = self._matcher.try_consume_tokens(text)
            self._current &= count == 0
            taken += text[:count]
        return len(taken) == len(wanted)

    def _ends(self, ids: Sequence[int]) -> bool:
        """Behind `_follow`: whether ids are a complete text and its EOS."""
        next = self._begin + len(self._taken)
        return next < len(ids) and ids[next] in self._vocabulary.eos and bool(self._matcher.is_accepting())

    def _compute(self) -> None:
        """The mask for where the parser stands, unless it is there."""
        if not self._current:
            self._matcher.unsafe_compute_mask_ptr(self._address, self._mask.nbytes)
            self._check()

    def _check(self) -> None:
        """The library lets a text end where it finds nothing else, though the grammar does not."""
        if self._matcher.is_error() or (self._allows(self._vocabulary.ends[0]) and not self._matcher.is_accepting()):
            reason = self._matcher.stop_reason()
            self._matcher, self._taken = self._vocabulary.matcher(self._grammar), []
            raise InputError(
                f"no token continues the text within its grammar ({reason})",
                where="response_format",
                next="the grammar is too complex, or needs characters that the tokenizer has no tokens for",
            )
        self._current = True

    def _allows(self, id: int) -> bool:
        return bool(int(self._mask[id >> 5]) >> (id & 31) & 1)

    def _only_ends(self) -> bool:
        self._compute()
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
        return int(allowed.sum()) == int(allowed[self._vocabulary.ends].sum())


@dataclass(frozen=True, eq=False)
class Complete:
    """A stop: where the text is complete and only EOS may follow, which need not be computed then."""

    rule: GrammarRule

    def __call__(self, ids: Sequence[int], logits_V: Tensor | None) -> bool:
        return self.rule.finished(ids)

    def fork(self) -> Complete:
        return Complete(self.rule.fork())


def prepare(rows: Sequence[tuple[GrammarRule, Sequence[int]]], executor: LLExecutor | None = None) -> None:
    """`rule.prepare(ids)` for many rows of one model; on the threads of an `llguidance.LLExecutor` if one is given."""
    waiting = [rule for rule, ids in rows if rule._follow(ids) and not rule._current]
    if executor is not None and len(waiting) > 1:
        masks = np.empty((len(waiting), waiting[0]._mask.size), np.int32)
        matchers = [(rule._matcher, i) for i, rule in enumerate(waiting)]
        executor.unsafe_compute_mask_ptr(matchers, masks.ctypes.data, masks.strides[0], len(waiting))
        for rule, mask in zip(waiting, masks):
            rule._mask[:] = mask
            rule._check()
    for rule in waiting:
        rule._compute()


def grammar_rule(
    wanted: object,
    tokenizer: Tokenizer,
    *,
    vocab: int,
    eos: Iterable[int],
    begin: int,
    before: str = "",
    alone: bool = False,
) -> GrammarRule | None:
    """The rule of a `response_format`; None where it leaves the text free.

    Args:
        wanted: see `grammar_of`.
        vocab: how many logits the model gives.
        eos: the ids that end a text; none for a model that has none.
        begin: how many ids stand before the output: prompt, or start tokens of a decoder.
        before: text that the output begins with before the grammar's own: what `healing` took from the prompt.
        alone: the output is decoded without the prompt (encoder-decoders), where `decode` may drop a first space.

    Raises:
        ArgumentError: a grammar that is wrong or impossible.
        Unsupported: a tokenizer whose tokens have no text of their own.
        PellucidError: llguidance is not installed.
    """
    grammar = grammar_of(wanted)
    if grammar is None:
        return None
    _library()
    spaced = alone and pieces_of(tokenizer).drops_first_space
    rule = GrammarRule(vocabulary(tokenizer, vocab, eos), compiled(grammar, before, spaced=spaced), begin)
    try:
        rule.prepare([0] * begin)
    except InputError:
        raise _wrong("no token can begin a text of this grammar", "change the grammar, or take another model") from None
    return rule


def _before_end(ids: list[int], eos: frozenset[int]) -> list[int]:
    """Up to the first EOS."""
    return next((ids[:i] for i, id in enumerate(ids) if id in eos), ids)
