"""Watermarks beside transformers 5.23: the same logits and g-values, the same verdicts; and found where they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pellucid.compat import watermarking as ours
from pellucid.engine.watermark import watermark_of, watermark_rule
from pellucid.errors import ArgumentError, ConfigError, InputError, WeightsError

V = 67
GREEN = [
    {},
    {"bias": 3.5, "greenlist_ratio": 0.4, "hashing_key": 99991},
    {"context_width": 3},
    {"seeding_scheme": "selfhash"},
    {"seeding_scheme": "selfhash", "context_width": 2, "hashing_key": 2**31 - 1},
]
KEYS = [654, 400, 836, 123, 340, 443, 597, 160, 57]
SYNTHID = [
    {"ngram_len": 5, "keys": KEYS},
    {"ngram_len": 2, "keys": [1, 2**40, 7], "sampling_table_size": 101, "sampling_table_seed": 3},
    {"ngram_len": 4, "keys": KEYS[:4], "skip_first_ngram_calls": True},
    {"ngram_len": 3, "keys": KEYS[:2], "debug_mode": True, "skip_first_ngram_calls": True},
    {"ngram_len": 2, "keys": KEYS[:3], "context_history_size": 2},
    {"ngram_len": 2, "keys": KEYS[:3], "context_history_size": 0},
]


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(settings: dict[str, Any]) -> Any:
    kind = transformers.SynthIDTextWatermarkingConfig if "keys" in settings else transformers.WatermarkingConfig
    return kind(**settings)


def config(settings: dict[str, Any]) -> Any:
    return (ours.SynthIDTextWatermarkingConfig if "keys" in settings else ours.WatermarkingConfig)(**settings)


def rule_of(settings: dict[str, Any], begin: int) -> Any:
    rule = watermark_rule(config(settings), V, begin)
    assert rule is not None
    return rule


def text(
    processor: Any, *, rows: int = 2, steps: int = 40, seed: int = 0, vocab: int = V
) -> tuple[Tensor, list[Tensor]]:
    """Ids that a model of random logits writes behind a prompt of 5 under a processor, and all scores."""
    generator, scores = chance(seed), []
    ids = torch.randint(vocab, (rows, 5), generator=generator)
    for _ in range(steps):
        logits = torch.randn(rows, vocab, generator=generator)
        logits[:, ::7] = -torch.inf  # as after top-k
        scores.append(processor(ids, logits))
        chosen = scores[-1].softmax(-1).multinomial(1, generator=generator)
        ids = torch.cat([ids, chosen], 1)
    return ids, scores


# ------------------------------------------------------------------------------------------------------- processors


@pytest.mark.parametrize("settings", GREEN + SYNTHID, ids=str)
def test_scores_are_those_of_the_reference(settings: dict[str, Any]) -> None:
    ids, scores = text(config(settings).construct_processor(V, "cpu"))
    their_ids, their_scores = text(reference(settings).construct_processor(V, "cpu"))
    assert torch.equal(ids, their_ids)
    for mine, theirs in zip(scores, their_scores):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", GREEN + SYNTHID, ids=str)
def test_a_rule_is_a_function_of_ids(settings: dict[str, Any]) -> None:
    """In any order, forked or not, with the prompt that it began with."""
    ids, scores = text(reference(settings).construct_processor(V, "cpu"), rows=1, steps=25)
    generator = chance(0)
    torch.randint(V, (1, 5), generator=generator)
    used = rule_of(settings, begin=5)
    logits = []
    for step in range(25):
        logits.append(torch.randn(1, V, generator=generator))
        logits[-1][:, ::7] = -torch.inf
        scores[step].softmax(-1).multinomial(1, generator=generator)
    for step in (3, 24, 0, 10, 11, 12, 7, 24):
        row = ids[0, : 5 + step].tolist()
        used([*row[:-1], 1, 2, 3], logits[step][0])  # elsewhere
        kept = logits[step].clone()
        for rule in (used, used.fork(), rule_of(settings, begin=5)):
            torch.testing.assert_close(rule(row, logits[step][0]), scores[step][0], rtol=1e-5, atol=1e-5)
        assert torch.equal(logits[step], kept)


def test_too_short_a_context_is_said_and_changes_nothing() -> None:
    logits = torch.randn(V)
    with pytest.warns(UserWarning, match="context_width=3"):
        assert torch.equal(rule_of({"context_width": 3}, begin=2)([1, 2], logits), logits)


def test_fewer_tokens_than_candidates() -> None:
    """Where the reference looks for the fortieth of twelve tokens."""
    rule = watermark_rule({"seeding_scheme": "selfhash"}, 12, 1)
    assert rule is not None
    assert rule([1, 2], torch.zeros(12)).shape == (12,)


def test_a_repeated_context_is_not_watermarked() -> None:
    rule = rule_of({"ngram_len": 3, "keys": KEYS}, begin=1)
    logits = torch.randn(V)
    assert not torch.equal(rule([0, 5, 6], logits), logits)
    assert torch.equal(rule([0, 5, 6, 7, 5, 6], logits), logits)


def test_synthid_changes_no_probability_on_average() -> None:
    """Over many keys, the mean of the probabilities is what it was: the mark cannot be seen without the key."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])
    found = []
    for n in range(500):
        rule = watermark_rule(
            {"ngram_len": 3, "keys": [n * 7919 + 1, n * 104729 + 3], "sampling_table_size": 999}, 5, 1
        )
        assert rule is not None
        found.append(rule([0, 1, 2], logits).softmax(-1))
    spread = torch.stack(found).std(0) / len(found) ** 0.5
    apart = (torch.stack(found).mean(0) - logits.softmax(-1)).abs()
    assert (spread > 0).all() and (apart < 5 * spread).all()


# ------------------------------------------------------------------------------------------------- the hashes' parts


@pytest.mark.parametrize("settings", SYNTHID[:2] + SYNTHID[4:], ids=str)
def test_parts_of_the_processor(settings: dict[str, Any]) -> None:
    mine, theirs = (each.construct_processor(V, "cpu") for each in (config(settings), reference(settings)))
    ids = torch.randint(5, (3, 30), generator=chance(1))
    assert torch.equal(mine.sampling_table, theirs.sampling_table)
    assert torch.equal(mine.compute_g_values(ids), theirs.compute_g_values(ids))
    assert torch.equal(mine.compute_context_repetition_mask(ids), theirs.compute_context_repetition_mask(ids))
    assert torch.equal(mine.compute_eos_token_mask(ids, 3), theirs.compute_eos_token_mask(ids, 3))
    assert torch.equal(mine.compute_eos_token_mask(ids, 9), theirs.compute_eos_token_mask(ids, 9))
    grams = ids.unfold(1, settings["ngram_len"], 1)
    keys = theirs.compute_ngram_keys(grams)
    assert torch.equal(mine.compute_ngram_keys(grams), keys)
    assert torch.equal(mine.sample_g_values(keys), theirs.sample_g_values(keys))
    start = torch.ones(3, dtype=torch.long)
    assert torch.equal(mine.accumulate_hash(start, ids), theirs.accumulate_hash(start, ids))
    assert mine.expected_mean_g_value(V) == theirs.expected_mean_g_value(V)
    scores = torch.randn(3, V)
    g_values = torch.randint(2, (3, V, 4), generator=chance(2))
    torch.testing.assert_close(mine.update_scores(scores, g_values), theirs.update_scores(scores, g_values))
    with pytest.raises(InputError, match="n-grams"):
        mine.compute_ngram_keys(ids)
    with pytest.raises(InputError, match="input_ids"):
        mine.compute_g_values(ids[0])


# -------------------------------------------------------------------------------------------------- detectors, green


def model_config(**settings: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"vocab_size": V, "bos_token_id": 1, "is_encoder_decoder": False, **settings})


@pytest.mark.parametrize("settings", GREEN, ids=str)
@pytest.mark.parametrize("once", [False, True])
def test_the_detector_says_what_the_reference_says(settings: dict[str, Any], once: bool) -> None:
    marked, _ = text(config(settings).construct_processor(V, "cpu"), rows=3, steps=60)
    plain = torch.randint(5, (3, 65), generator=chance(4))
    mine = ours.WatermarkDetector(model_config(), "cpu", config(settings), ignore_repeated_ngrams=once)
    theirs = transformers.WatermarkDetector(model_config(), "cpu", reference(settings), ignore_repeated_ngrams=once)
    for ids in (marked, plain, torch.cat([torch.ones(3, 1, dtype=torch.long), plain], 1)):
        found, right = mine(ids, return_dict=True), theirs(ids, return_dict=True)
        for name, value in vars(right).items():
            np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, err_msg=name)
        np.testing.assert_array_equal(mine(ids, z_threshold=1.0), theirs(ids, z_threshold=1.0))


def test_a_watermark_is_found_and_plain_text_is_not() -> None:
    settings = {"bias": 4.0}
    marked, _ = text(config(settings).construct_processor(V, "cpu"), rows=4, steps=120)
    plain, _ = text(lambda ids, scores: scores, rows=4, steps=120)
    detector = ours.WatermarkDetector(model_config(), watermarking_config=settings)
    assert detector(marked[:, 5:]).tolist() == [True] * 4
    assert detector(plain[:, 5:]).tolist() == [False] * 4


def test_detector_of_an_encoder_decoder_leaves_out_its_first_token() -> None:
    settings = model_config(is_encoder_decoder=True, decoder_start_token_id=4)
    ids = torch.tensor([[4, 9, 8, 7, 9, 8]])
    found = ours.WatermarkDetector(settings, "cpu", {})(ids, return_dict=True)
    assert found.num_tokens_scored.tolist() == [4.0]


@pytest.mark.parametrize(
    ("ids", "says"), [([[1, 2, 3], [2, 2, 3]], "1 of 2 texts begin"), ([[5]], "1 tokens"), ([[1, 5]], "1 tokens")]
)
def test_texts_that_cannot_be_judged(ids: list[list[int]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ours.WatermarkDetector(model_config(), "cpu", {})(torch.tensor(ids))


# ------------------------------------------------------------------------------------------------ detectors, SynthID


def detectors(tmp_path: Path, depth: int) -> tuple[Any, Any]:
    """The reference's model with random weights, and ours loaded from its folder."""
    torch.manual_seed(0)
    made = transformers.BayesianDetectorModel(
        transformers.BayesianDetectorConfig(watermarking_depth=depth, base_rate=0.3)
    )
    with torch.no_grad():
        for each in made.parameters():
            each.copy_(each + 0.3 * torch.randn(each.shape))
    made.config.set_detector_information("a/model", SYNTHID[0])
    made.save_pretrained(tmp_path)
    return made, ours.BayesianDetectorModel.from_pretrained(tmp_path)


def test_the_bayesian_detector(tmp_path: Path) -> None:
    theirs, mine = detectors(tmp_path, 9)
    assert mine.config.model_name == "a/model"
    assert mine.config.watermarking_config == SYNTHID[0]
    g_values = torch.randint(2, (4, 20, 9), generator=chance(1))
    mask = torch.randint(2, (4, 20), generator=chance(2))
    labels = torch.tensor([1.0, 0.0, 1.0, 0.0])
    found, right = (
        mine(g_values, mask, labels, 0.5, return_dict=True),
        theirs(g_values, mask, labels, 0.5, return_dict=True),
    )
    torch.testing.assert_close(found.posterior_probabilities, right.posterior_probabilities)
    torch.testing.assert_close(found.loss, right.loss)
    found.loss.backward()
    right.loss.backward()
    for (name, a), (other, b) in zip(mine.named_parameters(), theirs.named_parameters()):
        assert name == other
        torch.testing.assert_close(a.grad, b.grad)
    assert len(mine(g_values, mask)) == 1 and len(mine(g_values, mask, labels)) == 2
    torch.testing.assert_close(found["loss"], found[0])


def test_a_saved_detector_is_read_by_the_reference(tmp_path: Path) -> None:
    _, mine = detectors(tmp_path / "theirs", 9)
    mine.save_pretrained(tmp_path / "ours")
    read = transformers.BayesianDetectorModel.from_pretrained(tmp_path / "ours")
    for name, each in read.state_dict().items():
        assert torch.equal(each, mine.state_dict()[name])
    assert read.config.watermarking_depth == 9 and read.config.model_name == "a/model"


def test_the_detector_of_texts(tmp_path: Path) -> None:
    theirs, mine = detectors(tmp_path, 9)
    tokenizer = SimpleNamespace(eos_token_id=3)
    ids = torch.randint(V, (3, 40), generator=chance(5))
    ids[1, 20:24] = torch.tensor([5, 6, 7, 8])
    ids[1, 30:34] = torch.tensor([5, 6, 7, 8])
    expected = transformers.SynthIDTextWatermarkDetector(
        theirs, reference(SYNTHID[0]).construct_processor(V, "cpu"), tokenizer
    )
    found = ours.SynthIDTextWatermarkDetector(mine, config(SYNTHID[0]).construct_processor(V), tokenizer)
    torch.testing.assert_close(found(ids)[0], expected(ids)[0])


def test_mean_scores_tell_marked_from_plain_text() -> None:
    processor = config(SYNTHID[0]).construct_processor(V)
    marked, _ = text(config(SYNTHID[0]).construct_processor(V), rows=4, steps=200)
    plain, _ = text(lambda ids, scores: scores, rows=4, steps=200)
    for score in (ours.mean_score, ours.weighted_mean_score):
        values = []
        for ids in (marked[:, 5:], plain[:, 5:]):
            mask = processor.compute_context_repetition_mask(ids)
            values.append(score(processor.compute_g_values(ids), mask))
        assert (values[0] > 0.53).all() and ((values[1] - 0.5).abs() < 0.03).all()


def test_mean_scores_by_hand() -> None:
    g_values = torch.tensor([[[1, 0], [1, 1], [0, 0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert ours.mean_score(g_values, mask).tolist() == [0.75]
    assert ours.weighted_mean_score(g_values, mask, torch.tensor([3.0, 1.0])).tolist() == [
        pytest.approx((3 + 3 + 1) / 8)
    ]
    assert ours.weighted_mean_score(g_values, mask).tolist() == [pytest.approx((10 + 10 + 1) / 22)]
    with pytest.raises(InputError, match="no n-gram"):
        ours.mean_score(g_values, torch.zeros(1, 3))


# ----------------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize("settings", [*GREEN, *SYNTHID], ids=str)
def test_configs_to_json_and_back(settings: dict[str, Any], tmp_path: Path) -> None:
    mine, theirs = config(settings), reference(settings)
    assert mine.to_dict() == theirs.to_dict() == dict(iter(mine))
    assert mine.to_json_string() == theirs.to_json_string()
    mine.to_json_file(tmp_path / "mine")
    theirs.to_json_file(tmp_path / "theirs")
    assert (tmp_path / "mine").read_text() == (tmp_path / "theirs").read_text()
    back = type(mine).from_dict(json.loads((tmp_path / "mine").read_text()))
    assert back == mine
    back.update(**{next(iter(back.to_dict())): 6})
    assert back != mine
    for wanted in (mine, theirs, mine.to_dict()):
        assert watermark_of(wanted) == mine


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"seeding_scheme": "righthash"}, "lefthash or selfhash"),
        ({"greenlist_ratio": 0.0}, "greenlist_ratio"),
        ({"greenlist_ratio": 1}, "greenlist_ratio"),
        ({"bias": "2"}, "bias"),
        ({"context_width": 0}, "context_width"),
        ({"hashing_key": 1.5}, "hashing_key"),
        ({"greenlist_ration": 0.5}, "did you mean 'greenlist_ratio'"),
        ({"ngram_len": 5}, "no 'keys'"),
        ({"ngram_len": 1, "keys": [1]}, "ngram_len"),
        ({"ngram_len": 5, "keys": []}, "keys"),
        ({"ngram_len": 5, "keys": [1], "sampling_table_size": 2**24 + 1}, "sampling_table_size"),
        ({"ngram_len": 5, "keys": [1], "context_history_size": -1}, "context_history_size"),
        ("lefthash", "a str"),
    ],
)
def test_what_is_no_watermark(wanted: object, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        watermark_rule(wanted, V, 1)


def test_none_is_no_watermark() -> None:
    assert watermark_rule(None, V, 1) is None
    with pytest.raises(ArgumentError, match="no 'biass'"):
        ours.WatermarkingConfig().update(biass=3)
    with pytest.raises(ArgumentError, match="watermarking_depth=None"):
        ours.BayesianDetectorModel(ours.BayesianDetectorConfig())
    with pytest.raises(ArgumentError, match="watermarking_config"):
        ours.WatermarkDetector(model_config(), "cpu", SYNTHID[0])


def test_broken_detectors(tmp_path: Path) -> None:
    detectors(tmp_path, 3)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no detector's weights"):
        ours.BayesianDetectorModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(ConfigError, match="no detector's config"):
        ours.BayesianDetectorModel.from_pretrained(tmp_path)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=14), st.lists(st.integers(0, 3), max_size=14), st.booleans())
def test_any_two_texts_after_each_other(first: list[int], second: list[int], skip: bool) -> None:
    wanted = {"ngram_len": 3, "keys": [5, 8], "context_history_size": 3, "skip_first_ngram_calls": skip}
    logits = torch.randn(V, generator=chance(0))
    used = rule_of(wanted, begin=1)
    for ids in (first, second, first[: len(first) // 2]):
        assert torch.equal(used([0, *ids], logits), rule_of(wanted, begin=1)([0, *ids], logits))
