"""Guesses of models: smaller ones, own first blocks, one with another tokenizer; the reference's arguments."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from engine.decoding import begin_of, case_of, prompts_of
from engine.tokenizers_at_hand import tokenizer as made_tokenizer
from models import tiny
from pellucid import AutoModelForCausalLM, AutoTokenizer
from pellucid.engine.engine import Engine
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Output, Request
from pellucid.engine.rules.penalties import RepetitionPenalty
from pellucid.engine.speculation import (
    DraftModel,
    EarlyExit,
    FirstOf,
    ForcedTokens,
    Habits,
    OtherTokenizer,
    PromptLookup,
    SuffixLookup,
    speculation,
)
from pellucid.engine.speculation.early import first_blocks
from pellucid.engine.speculation.universal import opening, whole
from pellucid.errors import ArgumentError, Unsupported
from pellucid.text.tokenizer import Tokenizer

ALL = Habits(adaptive=False, threshold=0.0, tokens=4)


@pytest.fixture(scope="module")
def story() -> Any:
    return AutoModelForCausalLM.from_pretrained()


def one(model: Any, ids: list[int], **options: Any) -> Output:
    (job,) = Engine(model).generate([Request(ids=ids, begin=begin_of(model), **options)])
    return job.result()[0]


# ------------------------------------------------------------------------------------------------ draft models


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_ids_are_those_of_the_reference_s_assisted_generation(family: str, checkpoints: Path) -> None:
    """With an assistant that is often wrong: of the same shape, other weights."""
    case = case_of(family)
    ours, theirs = ref.pair(case, checkpoints)
    helper, their_helper = copy.deepcopy(ours), copy.deepcopy(theirs)
    for model in (helper, their_helper):
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() > 1 and "emb" not in name and "shared" not in name and "head" not in name:
                parameter.data.mul_(0.9)
    for prompt in prompts_of(case):
        usual = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
        with torch.no_grad():
            found = theirs.generate(torch.tensor([prompt]), assistant_model=their_helper, **usual)
            looked = theirs.generate(torch.tensor([prompt]), prompt_lookup_num_tokens=3, **usual)
        skip = 1 if ours.encoder is not None else len(prompt)
        assert torch.equal(found, looked)
        output = one(ours, prompt, max_new=14, speculation=DraftModel(helper, ALL))
        assert output.ids == found[0, skip:].tolist()
        assert output.drafted >= output.accepted > 0
        assert one(ours, prompt, max_new=14, speculation=PromptLookup(3)).ids == output.ids


def test_drafts_go_by_the_line_s_rules(story: Any) -> None:
    """The model itself as its draft is right all the time only if the same rules shape both."""
    asked = {"max_new": 60, "rules": [RepetitionPenalty(1.3)]}
    output = one(story, [1], speculation=DraftModel(story, ALL), **asked)
    assert output.ids == one(story, [1], **asked).ids != one(story, [1], max_new=60).ids
    assert output.drafted == output.accepted > 40


def test_requests_draft_together(story: Any) -> None:
    """Seven requests take as many forwards of the draft as the one that takes most."""
    how = DraftModel(story, ALL)
    asked = [Request(ids=[1, 5 + i], max_new=30, speculation=how) for i in range(7)]
    engine = Engine(story)
    together = engine.generate(asked)
    alone = []
    for request in asked:
        single = Engine(story)
        assert single.generate([request])[0].result()[0].ids == together[len(alone)].result()[0].ids
        alone.append(single.side(story).steps)
    assert engine.side(story).steps == max(alone)
    assert engine.main.steps == 1 + 6  # each confirms five


def test_a_draft_ends_where_the_text_does_and_where_it_is_unsure(story: Any) -> None:
    whole_text = one(story, [1], max_new=40).ids
    eos = frozenset({whole_text[6]})
    first = whole_text.index(whole_text[6])
    output = one(story, [1], max_new=40, eos=eos, speculation=DraftModel(story, Habits(adaptive=False, tokens=20)))
    assert output.ids == whole_text[: first + 1]
    sure, unsure = (
        one(story, [1], max_new=40, speculation=DraftModel(story, Habits(adaptive=False, tokens=8, threshold=t)))
        for t in (0.0, 0.99)
    )
    assert sure.ids == unsure.ids == whole_text
    assert sure.drafted > unsure.drafted > 0


def test_the_heuristic_schedule_moves_the_limit(story: Any) -> None:
    habits = Habits(adaptive=False, threshold=0.0, tokens=2, schedule="heuristic")
    engine = Engine(story)
    (job,) = engine.generate([Request(ids=[1], max_new=100, speculation=DraftModel(story, habits))])
    assert job.outputs[0].accepted == job.outputs[0].drafted
    assert engine.main.steps == 1 + 9  # guesses of 2, 4, 6 … 16 tokens, and what is left


def test_padded_vocabularies(story: Any) -> None:
    """The same weights with more rows, and with fewer: what one does not know is never right, and never said."""
    for rows in (story.spec.vocab + 40, story.spec.vocab - 100):
        helper = _resized(story, rows)
        output = one(story, [1], max_new=60, speculation=DraftModel(helper, ALL))
        assert output.ids == one(story, [1], max_new=60).ids
        sampled = {"max_new": 40, "sample": True, "seed": 3, "speculation": DraftModel(helper, ALL)}
        assert one(story, [1], **sampled).accepted > 2


def _resized(model: Any, rows: int) -> Any:
    helper = copy.deepcopy(model)
    weight = model.embed.tokens.weight.data
    padded = torch.nn.functional.pad(weight, (0, 0, 0, max(rows - len(weight), 0)))[:rows].clone()
    helper.embed.tokens.weight = torch.nn.Parameter(padded)
    helper.lm_head.out.weight = helper.embed.tokens.weight
    helper.stack = replace(helper.stack, embed=replace(helper.stack.embed, vocab=rows))
    helper.spec = replace(helper.spec, stack=helper.stack)
    return helper


# ------------------------------------------------------------------------------------------------ early exit


def test_first_blocks_share_their_weights(story: Any) -> None:
    short = first_blocks(story, 2)
    assert first_blocks(story, 2) is short
    assert {id(p) for p in short.parameters()} < {id(p) for p in story.parameters()}
    assert (len(short.blocks), len(story.blocks)) == (2, 5)
    ids = torch.tensor([[1, 5, 6]])
    with torch.inference_mode(), story.record("blocks.1.resid_post") as found:
        story(ids)
        expected = story.lm_head(story.norm(found["blocks.1.resid_post"]))
        assert torch.allclose(short(ids).logits[0], expected, atol=1e-5)
    with pytest.raises(ArgumentError, match="5 blocks"):
        first_blocks(story, 5)
    output = one(story, [1], max_new=60, speculation=EarlyExit(4, ALL))
    assert output.ids == one(story, [1], max_new=60).ids
    assert 0 < output.accepted < output.drafted


# ------------------------------------------------------------------------------------------------ another tokenizer


@pytest.fixture(scope="module")
def shuffled(story: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer]:
    """The story model under other ids, without some merges: the same words, most of the same tokens."""
    own = AutoTokenizer.from_pretrained()
    size = story.spec.vocab
    moved = [0, 1, 2, *torch.randperm(size - 3, generator=torch.Generator().manual_seed(0)).add(3).tolist()]
    data = json.loads(own.rust.to_str())
    data["model"]["vocab"] = {token: moved[id] for token, id in data["model"]["vocab"].items()}
    data["model"]["merges"] = data["model"]["merges"][:-5]
    folder = tmp_path_factory.mktemp("shuffled")
    (folder / "tokenizer.json").write_text(json.dumps(data))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = copy.deepcopy(story)
    model.embed.tokens.weight = torch.nn.Parameter(torch.empty_like(story.embed.tokens.weight))
    model.embed.tokens.weight.data[moved] = story.embed.tokens.weight.data
    model.lm_head.out.weight = model.embed.tokens.weight
    return model, Tokenizer.from_folder(folder)


def test_guesses_travel_as_text(story: Any, shuffled: tuple[Any, Tokenizer]) -> None:
    own = AutoTokenizer.from_pretrained()
    model, other = shuffled
    how = OtherTokenizer(model, other, own, Habits(adaptive=False, threshold=0.0, tokens=6))
    for prompt in ("Once upon a time", "Tim said: “Ça va?” 🙂 and then", "The dog"):
        ids = own(prompt)["input_ids"]
        output = one(story, ids, max_new=60, speculation=how)
        assert output.ids == one(story, ids, max_new=60).ids
        assert output.accepted > 0.6 * output.drafted > 15
    asked = {"max_new": 40, "n": 3, "sample": True, "seed": 5}
    plain, guessed = (
        Engine(story).generate([Request(ids=[1], speculation=s, **asked)])[0].result() for s in (None, how)
    )
    assert [o.ids for o in plain] == [o.ids for o in guessed]


@pytest.mark.parametrize("name", ["byte-bpe", "spm-unigram", "llama2"])
def test_a_stranger_s_guesses_do_no_harm(story: Any, name: str) -> None:
    """A model by chance, with a tokenizer of each kind: cut characters, bytes, spaces."""
    own, other = AutoTokenizer.from_pretrained(), made_tokenizer(name)
    model = tiny.make("llama", vocab_size=len(other), max_position_embeddings=200)
    how = OtherTokenizer(model, other, own, Habits(adaptive=False, threshold=0.0, tokens=5))
    for ids in (own("A  🙂 dog\n")["input_ids"], [1, 250, 131, 7]):
        output = one(story, ids, max_new=40, speculation=how)
        assert output.ids == one(story, ids, max_new=40).ids
        assert output.drafted > 0


def test_where_characters_end() -> None:
    text = "aé€🙂".encode()
    assert [whole(text[:n]) for n in range(len(text) + 1)] == [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]
    assert opening(AutoTokenizer.from_pretrained()) == [1]


# ------------------------------------------------------------------------------------------------ arguments


def test_arguments_of_the_reference(story: Any, shuffled: tuple[Any, Tokenizer]) -> None:
    own = AutoTokenizer.from_pretrained()
    model, other = shuffled
    assert speculation(GenerationConfig(), story) is None
    assert speculation(GenerationConfig(), story, grammar=True) == ForcedTokens()
    assert speculation(GenerationConfig(num_beams=2), story, grammar=True) is None
    both = speculation(GenerationConfig(prompt_lookup_num_tokens=7), story, grammar=True)
    assert both == FirstOf((ForcedTokens(), PromptLookup(7)))
    assert speculation(GenerationConfig(prompt_lookup_num_tokens=7), story) == PromptLookup(7, 2)
    given = GenerationConfig(prompt_lookup_num_tokens=7, max_matching_ngram_size=3)
    assert speculation(given, story) == PromptLookup(7, 3)
    assert speculation(GenerationConfig(assistant_early_exit=2), story) == EarlyExit(2, Habits())
    options = GenerationConfig(num_assistant_tokens=5, num_assistant_tokens_schedule="heuristic")
    assert speculation(options, story, assistant_model=model) == DraftModel(
        model, Habits(tokens=5, schedule="heuristic")
    )
    model.generation_config.update(num_assistant_tokens=9, assistant_confidence_threshold=0.2)
    assert speculation(GenerationConfig(num_assistant_tokens=5), story, assistant_model=model) == DraftModel(
        model, Habits(tokens=5, threshold=0.2)
    )
    assert speculation(GenerationConfig(), story, own, model, own) == DraftModel(model, Habits(tokens=9, threshold=0.2))
    found = speculation(GenerationConfig(target_lookbehind=4), story, own, model, other)
    assert found == OtherTokenizer(model, other, own, Habits(tokens=9, threshold=0.2), 4, 10)


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ({"prompt_lookup_num_tokens": 3, "assistant_early_exit": 2}, {}, "choose one"),
        ({"prompt_lookup_num_tokens": 3, "num_beams": 2}, {}, "beam search"),
        ({"prompt_lookup_num_tokens": 3, "penalty_alpha": 0.6, "top_k": 4}, {}, "contrastive search"),
        ({"assistant_early_exit": 9}, {}, "use 1 to 4"),
        ({"use_mtp": True}, {}, "later tokens"),
        ({}, {"assistant_tokenizer": "own"}, "without assistant_model"),
        ({}, {"assistant_model": "llama", "assistant_tokenizer": "own"}, "without a tokenizer"),
        ({}, {"assistant_model": "bert"}, "predicts no tokens"),
        ({}, {"assistant_model": "t5"}, "only the assistant has an encoder"),
        ({}, {"assistant_model": "large"}, "tokenizers differ"),
        ({"assistant_ensemble_weight": 0.5, "prompt_lookup_num_tokens": 3}, {}, "another one"),
    ],
)
def test_arguments_that_do_not_fit(story: Any, options: dict[str, Any], more: dict[str, Any], words: str) -> None:
    makers = {
        "own": AutoTokenizer.from_pretrained, "llama": lambda: tiny.make("llama"), "t5": lambda: tiny.make("t5"),
        "bert": lambda: tiny.make("bert", task="sequence-classification"),
        "large": lambda: tiny.make("llama", vocab_size=2000),
    }  # fmt: skip
    with pytest.raises((ArgumentError, Unsupported), match=words):
        speculation(GenerationConfig(**options), story, **{name: makers[kind]() for name, kind in more.items()})


def test_lookups_are_plain_values() -> None:
    assert SuffixLookup() == SuffixLookup() != SuffixLookup(tokens=3)
