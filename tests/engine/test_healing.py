"""Token healing: the text of the prompt stays, its last token may grow; beside transformers where that works."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers_at_hand import TEXTS, tokenizer
from torch import Tensor

from pellucid.engine.grammar import grammar_rule
from pellucid.engine.healing import Completion, Healed, heal
from pellucid.errors import Unsupported
from pellucid.text.pieces import pieces_of

NAMES = ["byte-bpe", "stories260K", "llama2"]


def bytes_of(name: str, ids: list[int]) -> bytes:
    return pieces_of(tokenizer(name)).join(ids)


def healed(name: str, ids: list[int], **options: Any) -> tuple[Healed, Completion]:
    found = heal(ids, tokenizer(name), **options)
    assert found.rule is not None
    return found, found.rule


def spelled(name: str, *tokens: str) -> list[int]:
    vocab = tokenizer(name).vocab
    return [vocab[token] for token in tokens]


# ----------------------------------------------------------------------------------------------------- the reference


@cache
def model() -> Any:
    torch.manual_seed(3)
    size = len(tokenizer("byte-bpe"))
    config = transformers.GPT2Config(
        vocab_size=size, n_positions=64, n_embd=24, n_layer=2, n_head=2, initializer_range=0.4
    )
    made = transformers.GPT2LMHeadModel(config).eval()
    made.generation_config.eos_token_id = None
    return made


@cache
def their_tokenizer() -> Any:
    """It wants special tokens that are not in the prompt, and puts none around it."""
    rust = tokenizers.Tokenizer.from_str(tokenizer("byte-bpe").rust.to_str())
    rust.post_processor = tokenizers.processors.ByteLevel()
    special = {"bos_token": "<|begin_of_text|>", "pad_token": "<|pad|>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=rust, **special)


@torch.no_grad()
def greedy(ids: list[int], rule: Completion | None, steps: int) -> list[int]:
    for _ in range(steps):
        logits: Tensor = model()(torch.tensor([ids])).logits[0, -1]
        ids = [*ids, int((logits if rule is None else rule(ids, logits)).argmax())]
    return ids


def cut_texts() -> list[list[int]]:
    """Prompts cut at every character, where the reference works: more than one token, no space in the last."""
    rows = [
        tokenizer("byte-bpe").encode(TEXTS[i][:n], add_special_tokens=False) for i in range(4) for n in range(9, 60, 5)
    ]
    return [row for row in rows if b" " not in bytes_of("byte-bpe", row[-1:]) and len(row) > 1]


def test_ids_are_those_of_the_reference() -> None:
    grown = 0
    for ids in cut_texts():
        options = {
            "max_new_tokens": 4,
            "do_sample": False,
            "pad_token_id": their_tokenizer().pad_token_id,
            "token_healing": True,
        }
        right = model().generate(torch.tensor([ids]), tokenizer=their_tokenizer(), **options)[0].tolist()
        found = heal(ids, tokenizer("byte-bpe"))
        assert greedy(found.ids, found.rule, 4 + len(found.taken)) == right
        grown += right[: len(ids)] != ids
    assert grown > 3  # tokens did change


# ------------------------------------------------------------------------------------------------------------ by hand


def test_a_cut_word_may_be_completed_by_its_token() -> None:
    ids = spelled("byte-bpe", "http", "Ġb")
    found, rule = healed("byte-bpe", ids)
    assert (found.ids, found.taken, found.text) == (ids[:1], tuple(ids[1:]), " b")
    logits = torch.zeros(len(tokenizer("byte-bpe")))
    out = rule(found.ids, logits)
    allowed = {token for token, id in tokenizer("byte-bpe").vocab.items() if out[id].isfinite()}
    assert allowed == {token for token in tokenizer("byte-bpe").vocab if token.startswith("Ġb")}
    assert {"Ġb", "Ġball", "Ġbig"} <= allowed
    assert out[ids[1]] == 1.0  # the token that was there has a small advantage
    assert torch.equal(rule([*found.ids, 7], logits), logits)


def test_a_space_at_the_end_stays_and_may_join_a_word() -> None:
    ids = tokenizer("llama2").encode("The dog ")
    assert tokenizer("llama2").convert_ids_to_tokens(ids)[-1] == "▁"
    found, rule = healed("llama2", ids)
    out = rule(found.ids, torch.zeros(32000))
    for token in ("▁", "▁is", "▁ball"):
        assert out[tokenizer("llama2").vocab[token]].isfinite()
    assert not out[tokenizer("llama2").vocab["is"]].isfinite()


def test_several_tokens() -> None:
    """Either the prompt's tokens again, or one token that goes beyond what is left of them."""
    ids = spelled("llama2", "<s>", "▁h", "el")
    found, rule = healed("llama2", ids, most=3)
    assert found.taken == tuple(ids[1:])
    out = rule(found.ids, torch.zeros(32000))
    assert out[spelled("llama2", "▁h", "▁hello", "▁help")].isfinite().all()
    assert not out[spelled("llama2", "▁he", "▁ha", "el")].isfinite().any()
    second = rule([*found.ids, ids[1]], torch.zeros(32000))
    assert second[spelled("llama2", "el", "ello")].isfinite().all()
    assert not second[spelled("llama2", "▁hello", "e")].isfinite().any()
    for done in ([*ids], [*found.ids, *spelled("llama2", "▁hello")]):
        assert torch.equal(rule(done, torch.zeros(32000)), torch.zeros(32000))


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("llama2", ["<s>"]),  # nothing would be left to begin with
        ("llama2", ["▁dog"]),
        ("llama2", ["▁dog", "</s>"]),  # a special token is no cut word
        ("llama2", ["▁dog", "<0xE6>"]),  # a part of a character
        ("llama2", ["<s>", "▁GROUP"]),  # no token is longer
    ],
)
def test_prompts_that_stay(name: str, tokens: list[str]) -> None:
    ids = spelled(name, *tokens)
    assert heal(ids, tokenizer(name)) == Healed(ids)
    assert heal([], tokenizer(name)) == Healed([])


def test_ids_without_a_token_stay() -> None:
    assert heal([5, 40000], tokenizer("llama2")) == Healed([5, 40000])


def test_tokens_without_a_text_of_their_own() -> None:
    with pytest.raises(Unsupported):
        heal([5, 6], tokenizer("wordpiece"))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(0, 99),
)
def test_whatever_the_model_says_the_text_of_the_prompt_stays(name: str, text: str, most: int, seed: int) -> None:
    ids = [1, *tokenizer(name).encode(text, add_special_tokens=False)]
    found = heal(ids, tokenizer(name), most)
    assert [*found.ids, *found.taken] == ids
    chance, out = torch.Generator().manual_seed(seed), found.ids
    for _ in found.taken:
        logits = 9 * torch.randn(len(tokenizer(name)), generator=chance)
        out = [*out, int((logits if found.rule is None else found.rule(out, logits)).argmax())]
    assert bytes_of(name, out).startswith(bytes_of(name, ids))
    assert bytes_of(name, list(found.taken)).decode() == found.text


def test_before_a_grammar() -> None:
    """The end of the prompt comes first, in any tokens, then the grammar's text."""
    ids = spelled("llama2", "<s>", "▁dog", ":")
    found, _ = healed("llama2", ids)
    wanted, tok = {"type": "regex", "regex": "//[a-z]+"}, tokenizer("llama2")
    rule = grammar_rule(wanted, tok, vocab=32000, eos={2}, begin=len(found.ids), before=found.text)
    assert rule is not None
    assert rule.accepts(found.ids, spelled("llama2", "://", "a", "b", "</s>")) == 4
    assert rule.accepts(found.ids, spelled("llama2", ":", "//", "a")) == 3
    assert rule.accepts(found.ids, spelled("llama2", "//")) == 0
