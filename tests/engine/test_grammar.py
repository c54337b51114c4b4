"""Grammars: what is finished is of the grammar, whatever the model says, and a rule is a function of ids and logits.

The model here is chance: logits drawn from a seed. Texts are checked by `json.loads`, `re`, and a validator of the
keywords that the schemas below use.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import sys
import time
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers_at_hand import tokenizer

from pellucid.engine import grammar as grammars
from pellucid.engine.grammar import Choice, Gbnf, GrammarRule, Json, JsonSchema, Lark, Regex, grammar_of, grammar_rule
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported

llguidance = pytest.importorskip("llguidance")

EOS = 2  # of the stories tokenizer, which has every byte


def rule_of(wanted: object, *, name: str = "stories260K", vocab: int = 0, **options: Any) -> GrammarRule:
    tok = tokenizer(name)
    rule = grammar_rule(wanted, tok, **{"vocab": vocab or len(tok), "eos": {EOS}, "begin": 1, **options})
    assert rule is not None
    return rule


def write(
    rule: GrammarRule, *, vocab: int, eos: set[int], seed: int = 0, most: int = 400, scale: float = 3.0
) -> list[int]:
    """What a model of random logits writes behind the prompt [1]: until EOS, `finished`, or too long (then [])."""
    chance = torch.Generator().manual_seed(seed)
    ids = [1]
    for step in range(most):
        logits = torch.randn(vocab, generator=chance) * scale
        if step > most // 2 and eos:  # an end, if it is allowed
            logits[sorted(eos)] += 100
        ids.append(int(rule(ids, logits).softmax(-1).multinomial(1, generator=chance)))
        if ids[-1] in eos:
            return ids[1:-1]
        if not eos and rule.finished(ids):
            return ids[1:]
    return []


def text_of(wanted: object, seed: int = 0, name: str = "stories260K", most: int = 400) -> str | None:
    ids = write(rule_of(wanted, name=name), vocab=len(tokenizer(name)), eos={EOS}, seed=seed, most=most)
    return tokenizer(name).decode(ids) if ids else None


# ------------------------------------------------------------------------------------------------- JSON of a schema


def valid(value: Any, schema: Any) -> bool:
    """JSON Schema's meaning of the keywords below."""
    if schema is False:
        return False
    if "enum" in schema:
        return any(value == each and type(value) is type(each) for each in schema["enum"])
    if "anyOf" in schema:
        return any(valid(value, each) for each in schema["anyOf"])
    match schema["type"]:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "number":
            return type(value) in (int, float) and value >= schema["minimum"]
        case "string":
            return isinstance(value, str) and _fits(value, schema) and bool(re.search(schema.get("pattern", ""), value))
        case "array":
            return isinstance(value, list) and _fits(value, schema) and all(valid(v, schema["items"]) for v in value)
        case "object":
            known, more = schema["properties"], schema["additionalProperties"]
            return (
                isinstance(value, dict)
                and set(schema["required"]) <= set(value)
                and all(valid(value[key], known.get(key, more)) for key in value)
            )
    raise AssertionError(schema)


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    bounds = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    return bool(schema.get(bounds[0], 0) <= len(value) <= schema.get(bounds[1], 10**9))


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=4)
LEAVES = st.one_of(
    st.just({"type": "null"}),
    st.just({"type": "boolean"}),
    st.tuples(st.integers(-40, 40), st.integers(0, 300)).map(
        lambda t: {"type": "integer", "minimum": t[0], "maximum": t[0] + t[1]}
    ),
    st.integers(-9, 9).map(lambda n: {"type": "number", "minimum": n}),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda t: {"type": "string", "minLength": t[0], "maxLength": t[0] + t[1]}
    ),
    st.just({"type": "string", "pattern": "^[a-f]{2}é?$"}),
    st.lists(st.one_of(WORDS, st.integers(-5, 5), st.none(), st.booleans()), min_size=1, max_size=3).map(
        lambda each: {"enum": each}
    ),
)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(WORDS, inner, max_size=3)
    return st.one_of(
        st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda t: {"type": "array", "items": t[0], "minItems": t[1], "maxItems": t[1] + t[2]}
        ),
        st.tuples(properties, st.sampled_from([False, {"type": "integer", "minimum": 0, "maximum": 9}])).map(
            lambda t: {"type": "object", "properties": t[0], "required": list(t[0])[:2], "additionalProperties": t[1]}
        ),
        st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each}),
    )


@settings(max_examples=60, deadline=None)
@given(st.recursive(LEAVES, _larger, max_leaves=5), st.integers(0, 99))
def test_whatever_the_model_says_the_output_is_json_of_the_schema(schema: dict[str, Any], seed: int) -> None:
    text = text_of({"type": "json_schema", "json_schema": {"schema": schema}}, seed)
    if text is not None:
        assert valid(json.loads(text), schema), text


def test_most_texts_end() -> None:
    """The test above is not passed by never ending."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"]}
    wanted = JsonSchema(schema | {"additionalProperties": False})
    assert sum(text_of(wanted, seed) is not None for seed in range(20)) == 20


@pytest.mark.parametrize("name", ["stories260K", "byte-bpe", "llama2"])
def test_every_kind_of_tokenizer_spells_it(name: str) -> None:
    schema = {"type": "object", "properties": {"é ü": {"enum": ["日本", 'a "b"\n', "😀"]}}, "required": ["é ü"]}
    for seed in range(5):
        text = text_of(JsonSchema(schema | {"additionalProperties": False}), seed, name)
        assert text is not None
        assert json.loads(text)["é ü"] in schema["properties"]["é ü"]["enum"]


def test_any_object() -> None:
    texts = [text_of({"type": "json_object"}, seed, most=900) for seed in range(30)]
    made = [json.loads(text) for text in texts if text is not None]
    assert len(made) > 3 and all(isinstance(each, dict) for each in made)


def test_a_pydantic_model() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model(
        "Person", name=(str, pydantic.Field(max_length=3)), age=(int, pydantic.Field(le=9, ge=0))
    )
    text = text_of(model, 3)
    assert text is not None
    assert model.model_validate_json(text).age <= 9


def test_spaces_between_the_parts_are_limited() -> None:
    rule = rule_of(Json())
    tok = tokenizer("stories260K")
    assert rule.accepts([1], _ids('{ "a": 1, "b":\n                    2}')) == len(
        _ids('{ "a": 1, "b":\n                    2}')
    )
    assert rule.accepts([1], _ids("{  ")) < len(_ids("{  "))
    assert tok.decode(_ids("{  ")) == "{  "


def _ids(text: str) -> list[int]:
    return grammars.pieces_of(tokenizer("stories260K")).ids(text, 10**9)


# -------------------------------------------------------------------------------------------------- other grammars


@pytest.mark.parametrize("pattern", ["[0-9]{3}-[0-9]{4}", "(?i)yes|no", "a+b?", "é{2,3}|日本", r"[0-9]+(\.[0-9]+)?"])
def test_a_regular_expression(pattern: str) -> None:
    for seed in range(4):
        text = text_of({"type": "regex", "regex": pattern}, seed)
        assert text is not None
        assert re.fullmatch(pattern, text), text


@settings(max_examples=40, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(0, 99))
@example(['"', "\\", "/", "\n"], 0)
@example(["", "a"], 1)
@example(["\x7f", "\x00é😀"], 1)
@example(["ab", "abc"], 1)
def test_a_choice(options: list[str], seed: int) -> None:
    rule = rule_of({"type": "choice", "choice": options})
    ids = write(rule, vocab=len(tokenizer("stories260K")), eos={EOS}, seed=seed)
    assert grammars.pieces_of(tokenizer("stories260K")).join(ids).decode() in options


GBNF = 'root ::= item ("," item)*\nitem ::= [a-c]+ | "é"'
LARK = 'start: item ("," item)*\nitem: /[a-c]+/ | "é"'


@pytest.mark.parametrize(
    "wanted",
    [
        Gbnf(GBNF),
        Lark(LARK),
        {"type": "grammar", "grammar": GBNF},
        {"type": "grammar", "grammar": LARK, "syntax": "lark"},
    ],
)
def test_a_context_free_grammar(wanted: object) -> None:
    for seed in range(4):
        text = text_of(wanted, seed)
        assert text is not None
        assert re.fullmatch("([a-c]+|é)(,([a-c]+|é))*", text), text


# ------------------------------------------------------------------------------------------------------ the endings


def test_eos_only_where_the_text_may_end_and_only_eos_where_it_must() -> None:
    rule = rule_of(Regex("ab?"))
    a, b = _ids("a"), _ids("b")
    logits = torch.randn(512)
    assert rule([1], logits)[EOS] == -torch.inf
    after = rule([1, *a], logits)
    assert after.isfinite().nonzero().flatten().tolist() == sorted([EOS, *b, tokenizer("stories260K").vocab["<0x62>"]])
    assert after[EOS] == logits[EOS]
    assert not rule.finished([1, *a])
    assert rule([1, *a, *b], logits).isfinite().nonzero().flatten().tolist() == [EOS]
    assert rule.finished([1, *a, *b])
    assert rule.finished([1, *a, EOS])
    assert not rule.finished([1, EOS])


def test_a_stop_where_the_text_is_complete() -> None:
    stop = grammars.Complete(rule_of(Regex("ab")))
    a, b = _ids("a"), _ids("b")
    for each in (stop, stop.fork()):
        assert not each([1, *a], None)
        assert each([1, *a, *b], None)
        assert not each([1, *b], None)


def test_several_eos() -> None:
    rule = rule_of(Regex("a"), eos={EOS, 7})
    assert rule([1, *_ids("a")], torch.zeros(512)).isfinite().nonzero().flatten().tolist() == [EOS, 7]


def test_a_model_without_eos_ends_where_the_text_is_complete() -> None:
    rule = rule_of(Choice(("red", "green", "greenish")), eos=set())
    seen = {tokenizer("stories260K").decode(write(rule, vocab=512, eos=set(), seed=seed)) for seed in range(8)}
    assert seen == {"red", "greenish"}  # "green" is complete, but more may follow: only an EOS would tell


@pytest.mark.parametrize("vocab", [500, 512, 513, 640])
def test_more_or_fewer_logits_than_tokens(vocab: int) -> None:
    rule = rule_of(JsonSchema({"type": "string", "maxLength": 5}), vocab=vocab)
    ids = write(rule, vocab=vocab, eos={EOS}, seed=5)
    assert max(ids) < min(vocab, 512)
    assert isinstance(json.loads(tokenizer("stories260K").decode(ids)), str)
    with pytest.raises(InputError, match=f"{vocab + 1} logits"):
        rule([1], torch.zeros(vocab + 1))


def test_an_output_that_is_decoded_alone_may_begin_with_a_space_that_decoding_drops() -> None:
    alone, inside = rule_of(Regex("little"), alone=True), rule_of(Regex("little"))
    spaced = tokenizer("stories260K").convert_tokens_to_ids("▁little")
    assert tokenizer("stories260K").decode([spaced]) == "little"
    assert alone([1], torch.zeros(512))[spaced] == 0
    assert inside([1], torch.zeros(512))[spaced] == -torch.inf
    assert alone.accepts([1], [spaced, EOS]) == 2


def test_text_before_the_grammar() -> None:
    rule = rule_of(Json(), before=' "wor')
    assert rule.accepts([1], _ids(' "wor{}')) == len(_ids(' "wor{}'))
    assert rule.accepts([1], _ids("{}")) == 0


# ------------------------------------------------------------------------------ a function of ids, whatever came before

SCHEMA = {"type": "object", "properties": {"ab": {"type": "array", "items": {"type": "integer"}}}, "required": ["ab"]}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 511), st.integers(0, 4)), max_size=12), st.integers(0, 5))
def test_ids_that_went_back_or_elsewhere(moves: list[tuple[int, int, int]], seed: int) -> None:
    """A used rule, its fork and a new rule say the same of any ids."""
    texts = [[1, *write(rule_of(JsonSchema(SCHEMA)), vocab=512, eos={EOS}, seed=each)] for each in (seed, seed + 1)]
    logits = torch.randn(512, generator=torch.Generator().manual_seed(seed))
    used = rule_of(JsonSchema(SCHEMA))
    for cut, token, kind in moves:
        ids = texts[kind % 2][: cut + 1] + ([token] if kind == 3 else [EOS] if kind == 4 else [])
        new, fork = rule_of(JsonSchema(SCHEMA)), used.fork()
        expected = new(ids, logits)
        if cut % 2:
            assert used.forced(ids) == rule_of(JsonSchema(SCHEMA)).forced(ids)
        assert torch.equal(used(ids, logits), expected)
        assert torch.equal(fork(ids, logits), expected)
        assert used.finished(ids) == new.finished(ids)


def test_logits_stay_as_they_are() -> None:
    rule = rule_of(Json())
    logits = torch.randn(512)
    kept = logits.clone()
    out = rule([1], logits)
    assert torch.equal(logits, kept)
    allowed = out.isfinite()
    assert 0 < allowed.sum() < 512
    assert torch.equal(out[allowed], logits[allowed])


def test_ids_that_are_not_of_the_grammar_allow_nothing() -> None:
    rule = rule_of(Json())
    assert not rule([1, *_ids("x")], torch.zeros(512)).isfinite().any()
    assert not rule([1, EOS], torch.zeros(512)).isfinite().any()


def test_forced_tokens_are_the_only_way() -> None:
    rule = rule_of(JsonSchema(SCHEMA))
    forced = rule.forced([1, *_ids("{")])
    assert rule.accepts([1, *_ids("{")], forced) == len(forced)
    rule = rule_of(Regex("once upon a time[.!]"))
    forced = rule.forced([1])
    assert tokenizer("stories260K").decode(forced).startswith("once upon a t")
    ids = [1]
    for token in forced:
        assert rule(ids, torch.zeros(512)).isfinite().nonzero().flatten().tolist() == [token]
        ids.append(token)
    assert rule.forced([1, *_ids("once upon a time!")]) == []


def test_accepted_drafts() -> None:
    rule = rule_of(Regex("[0-9]{3}"))
    digits, letter = _ids("123"), _ids("x")
    assert rule.accepts([1], [*digits[:2], *letter]) == 2
    assert rule.accepts([1], [*digits, EOS, EOS]) == 4
    assert rule.accepts([1, *digits[:2]], [EOS]) == 0
    assert rule.accepts([1, *letter], digits) == 0
    assert rule([1], torch.zeros(512)).isfinite().sum() > 1  # where it was


def test_masks_ahead_and_in_parallel() -> None:
    ids = [[1], [1, *_ids("{")], [1, *_ids("{}")], [1, *_ids("x")]]
    logits = torch.randn(512)
    expected = [rule_of(Json())(each, logits) for each in ids]
    for executor in (None, llguidance.LLExecutor(2)):
        rules = [rule_of(Json()) for _ in ids]
        grammars.prepare(list(zip(rules, ids)), executor)
        assert [rule._current for rule in rules] == [True, True, True, True]
        for rule, each, right in zip(rules, ids, expected):
            assert torch.equal(rule(each, logits), right)


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"type": "jsn_object"}, "did you mean 'json_object'"),
        ({"type": "object", "properties": {}}, "a schema goes in here"),
        ({"choice": ["a", "b"]}, 'add "type": "choice"'),
        ({"type": "regex", "pattern": "a"}, "'pattern'"),
        ({"type": "regex", "regex": 3}, "regex=3"),
        ({"type": "json_schema", "schema": {}}, "'schema'"),
        ({"type": "json_schema", "json_schema": {"shema": {}}}, "did you mean 'schema'"),
        ({"type": "choice", "choice": []}, "no options"),
        ({"type": "choice", "choice": [1]}, "int"),
        ({"type": "grammar", "grammar": "x", "syntax": "ebnf"}, "ebnf"),
        ({"type": "grammar", "grammar": "root := x", "syntax": "gbnf"}, "GBNF"),
        ({"type": "grammar", "grammar": "start: x"}, "unknown name"),
        ("json", "a str"),
        (Regex("a\ud800"), "half a character"),
        (Choice(("a\udfff",)), "half a character"),
        (JsonSchema({"enum": ["\ud800"]}), "hex escape"),
        (3, "an? int"),
        (Regex("a("), "unclosed group"),
        (Regex("(?=a)b"), "look-around"),
        (Regex(r"[^\s\S]"), "no token can begin"),
        (JsonSchema("{"), "no JSON"),
        (JsonSchema("[]"), "a list"),
        (JsonSchema({"minimum": float("nan")}), "no JSON"),
        (JsonSchema({"type": "strin"}), "strin"),
        (JsonSchema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
        (JsonSchema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (JsonSchema({"$ref": "http://example.com/x"}), "example.com"),
    ],
)
def test_what_cannot_be_is_refused_when_the_request_is_made(wanted: object, says: str) -> None:
    with pytest.raises(ArgumentError, match=says) as caught:
        rule_of(wanted)
    assert caught.value.where == "response_format" and caught.value.next


def test_a_schema_that_contains_itself() -> None:
    endless: dict[str, Any] = {"type": "array"}
    endless["items"] = endless
    with pytest.raises(ArgumentError, match="no JSON"):
        rule_of(JsonSchema(endless))


def test_lenient_ignores_with_a_warning() -> None:
    schema = {"type": "array", "items": {"enum": [1]}, "uniqueItems": True}
    with pytest.warns(UserWarning, match="uniqueItems"):
        text = text_of({"type": "json_schema", "json_schema": {"schema": schema, "strict": False}})
    assert text is not None and set(json.loads(text)) <= {1}


def test_free_text_has_no_rule() -> None:
    assert grammar_of({"type": "text"}) is None
    assert grammar_rule(None, tokenizer("stories260K"), vocab=512, eos={EOS}, begin=1) is None


def test_characters_that_the_tokenizer_lacks() -> None:
    with pytest.raises(ArgumentError, match="no token can begin"):
        rule_of(Regex("日"), name="spm-unigram")
    rule = rule_of(Regex("a日"), name="spm-unigram", vocab=1000)
    a = grammars.pieces_of(tokenizer("spm-unigram")).ids("a", 1000)
    with pytest.raises(InputError, match="no token continues"):
        rule([1, *a], torch.zeros(1000))
    assert rule([1], torch.zeros(1000)).isfinite().any()  # the rule is as good as new


def test_tokens_without_a_text_of_their_own() -> None:
    with pytest.raises(Unsupported, match="WordPiece"):
        rule_of(Json(), name="wordpiece")


def test_an_eos_beyond_the_logits() -> None:
    with pytest.raises(ArgumentError, match="eos_token_id=512"):
        rule_of(Json(), eos={512})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(PellucidError, match=r"pip install 'pellucid\[grammar\]'"):
        rule_of(Json())


def test_the_module_needs_no_library_to_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    found = importlib.util.spec_from_file_location("grammar_again", grammars.__file__)
    assert found is not None and found.loader is not None
    again = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "grammar_again", again)
    found.loader.exec_module(again)
    assert again.grammar_of({"type": "json_object"}) == again.Json()


# -------------------------------------------------------------------------------------------------------------- cost


def test_a_vocabulary_and_a_grammar_are_compiled_once() -> None:
    rule, other = rule_of(Json()), rule_of(Json())
    assert rule._vocabulary is other._vocabulary
    assert list(rule._vocabulary._made).count(rule._grammar) == 1
    changed = copy.deepcopy(tokenizer("stories260K"))
    first = grammars.vocabulary(changed, 600, {EOS})
    assert grammars.vocabulary(changed, 600, {EOS}) is first
    changed.add_tokens(["<tool>"])
    assert grammars.vocabulary(changed, 600, {EOS}) is not first


def test_a_step_is_cheap() -> None:
    """Against a product of one row with a small head, 32,000 x 288 in float32; 15 times less on an idle core."""
    rule = rule_of(JsonSchema(SCHEMA), name="llama2", vocab=32000)
    pieces = grammars.pieces_of(tokenizer("llama2"))
    ids = [1, *pieces.ids('{"ab": [1, 23, 456, 7890, 12, 34, 5, 6, 7, 8, 9, 10, 11]}', 32000)]
    logits = torch.randn(32000)
    head, x = torch.randn(32000, 288), torch.randn(288)

    def spent(work: Any) -> float:
        began = time.perf_counter()
        for n in range(1, len(ids)):
            work(ids[:n])
        return time.perf_counter() - began

    masks = min(spent(lambda part: rule(part, logits)) for _ in range(4))
    heads = min(spent(lambda part: head @ x) for _ in range(4))
    assert masks < heads
