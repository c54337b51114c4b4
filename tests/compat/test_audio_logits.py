"""Processors of audio models beside the reference's, on random ids and scores."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

import pellucid
from pellucid.compat.audio_logits import CLASSES
from pellucid.engine.rules.audio import Silence
from pellucid.engine.rules.build import rules
from pellucid.errors import ArgumentError, InputError, Unsupported

V = 19
TIMES = 12  # ids from here on are times


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def whisper(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(no_timestamps_token_id=TIMES - 1, eos_token_id=8, bos_token_id=8, **changes)


# ------------------------------------------------------------------------- Whisper

# After the prompt: words, and times that mostly rise.
texts = st.lists(st.one_of(st.integers(0, 7), st.integers(TIMES, V - 1)), max_size=9)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(texts, min_size=1, max_size=1), seed=st.integers(0, 999), latest=st.sampled_from([None, 0, 1, 3]),
    by_share=st.sampled_from([None, True, False]), loud=st.sampled_from([0.1, 1.0]), tilt=st.floats(-4, 4),
)  # fmt: skip
def test_timestamps(
    rows: list[list[int]], seed: int, latest: int | None, by_share: bool | None, loud: float, tilt: float
) -> None:
    ids = torch.tensor([[9, 10, *row] for row in rows])
    scores = random(seed, len(rows), V) * loud
    scores[:, TIMES:] += tilt
    config = whisper(max_initial_timestamp_index=latest)
    ours = pellucid.WhisperTimeStampLogitsProcessor(config, 2, by_share)
    reference = theirs.WhisperTimeStampLogitsProcessor(config, 2, by_share)
    assert torch.equal(ours(ids, scores), reference(ids, scores.clone()))


def test_timestamps_of_a_batch_and_a_later_begin() -> None:
    ids = torch.tensor([[9, 10, 13, 1, 14], [9, 10, 13, 2, 3], [9, 10, 13, 2, 14]])
    scores = random(0, 3, V)
    config = whisper(_detect_timestamp_from_logprob=False)  # nothing about the first time
    ours, reference = (kind(config, begin_index=2) for kind in
                       (pellucid.WhisperTimeStampLogitsProcessor, theirs.WhisperTimeStampLogitsProcessor))  # fmt: skip
    assert torch.equal(ours(ids, scores), reference(ids, scores.clone()))
    for begin in (3, 5):
        ours.set_begin_index(begin)
        reference.set_begin_index(begin)
        assert torch.equal(ours(ids, scores), reference(ids, scores.clone()))
    for config, begin, says in (
        (SimpleNamespace(eos_token_id=1), 2, "no_timestamps_token_id"), (whisper(), None, "begin_index"),
        (SimpleNamespace(no_timestamps_token_id=1), 2, "eos_token_id"), (whisper(), -1, "at least 0"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=says):
            pellucid.WhisperTimeStampLogitsProcessor(config, begin)


class Heard:
    """A model whose logits are given."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.asked = logits, []

    def prepare_inputs_for_generation(self, input_ids: Tensor, **others: Any) -> dict[str, Any]:
        return {"decoder_input_ids": input_ids}

    def forward(self, input_features: Tensor, decoder_input_ids: Tensor) -> Any:
        self.asked.append((input_features.tolist(), decoder_input_ids.tolist()))
        return SimpleNamespace(logits=self.logits)

    __call__ = forward


@pytest.mark.parametrize("are_logs", [False, True])
def test_silence_after_the_start_token(are_logs: bool) -> None:
    ids, scores = torch.tensor([[9], [9]]), random(1, 2, V) - 5
    ours, reference = (kind(3, 1, are_logs) for kind in
                       (pellucid.WhisperNoSpeechDetection, theirs.WhisperNoSpeechDetection))  # fmt: skip
    assert ours.no_speech_prob == reference.no_speech_prob == [0.0]
    for at in (ids, torch.tensor([[9, 1], [9, 2]])):  # the second step tells nothing
        assert ours(at, scores) is scores
        reference(at, scores)
        torch.testing.assert_close(ours.no_speech_prob, reference.no_speech_prob)
        scores = random(2, 2, V)


def test_silence_behind_a_longer_prompt() -> None:
    ids, logits = torch.tensor([[9, 10, 7], [9, 10, 6]]), random(3, 2, 5, V)
    ours, reference = (kind(3, 3) for kind in (pellucid.WhisperNoSpeechDetection, theirs.WhisperNoSpeechDetection))
    with pytest.raises(InputError, match="set_model"):
        ours(ids, random(4, 2, V))
    models = Heard(logits), Heard(logits)
    for each, model in zip((ours, reference), models):
        each.set_model(model)
        each.set_inputs({"inputs": torch.tensor([0.5]), "input_ids": ids})
        each(ids, random(4, 2, V))
    torch.testing.assert_close(ours.no_speech_prob, reference.no_speech_prob)
    assert models[0].asked == models[1].asked == [([0.5], ids.tolist())]
    before = ours.no_speech_prob
    for each in (ours, reference):  # an earlier text stands before the start token
        each.set_begin_index(5)
        each(torch.zeros(2, 5, dtype=torch.long), random(4, 2, V))
    torch.testing.assert_close(ours.no_speech_prob, reference.no_speech_prob)
    assert not torch.equal(ours.no_speech_prob, before)
    with pytest.raises(Unsupported, match="3 tokens"):
        ours.rule_of(0)


def test_silence_as_a_rule() -> None:
    processor, scores = pellucid.WhisperNoSpeechDetection(3, 1), random(5, 2, V)
    made = [rules(pellucid.GenerationConfig(), prompt=[9], processors=[processor], row=row)[0] for row in (0, 1)]
    assert isinstance(made[0], Silence) and made[0].fork() is made[0]
    for row, rule in enumerate(made):
        assert torch.equal(rule([9], scores[row]), scores[row])
        rule([9, 1], -scores[row])
    torch.testing.assert_close(processor.no_speech_prob, scores.softmax(-1)[:, 3])
    assert processor.rule_of(0) is not made[0] and processor.no_speech_prob.tolist() == [0.0]  # the next call


# ------------------------------------------------------------------------- Bark

CASES: dict[str, list[dict[str, Any]]] = {
    "BarkEosPrioritizerLogitsProcessor": [
        {"eos_token_id": eos, "min_eos_p": p} for eos in (3, [3, 5], torch.tensor([5])) for p in (None, 0.02, 0.3, 0.9)
    ],
    "AlternatingCodebooksLogitsProcessor": [
        {"input_start_len": n, "semantic_vocab_size": first, "codebook_size": size}
        for n in (0, 1, 2) for first, size in ((0, 9), (3, 8), (11, 8))
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bark(name: str) -> None:
    for arguments in CASES[name]:
        ours, reference = getattr(pellucid, name)(**arguments), getattr(theirs, name)(**arguments)
        for seed in range(6):
            ids, scores = torch.ones(3, 2 + seed % 2, dtype=torch.long), random(seed, 3, V)
            assert torch.equal(ours(ids, scores), reference(ids, scores.clone())), arguments


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("BarkEosPrioritizerLogitsProcessor", {"eos_token_id": 1.5, "min_eos_p": 0.1}, "1.5"),
        ("BarkEosPrioritizerLogitsProcessor", {"eos_token_id": 1, "min_eos_p": 0}, "above 0"),
        ("AlternatingCodebooksLogitsProcessor", {"input_start_len": -1, "semantic_vocab_size": 1, "codebook_size": 1},
         "at least 0"),
        ("DiaClassifierFreeGuidanceLogitsProcessor", {"guidance_scale": 1}, "above 1"),
        ("DiaClassifierFreeGuidanceLogitsProcessor", {"guidance_scale": 2, "guidance_top_k": 0}, "at least 1"),
        ("DiaEOSChannelFilterLogitsProcessor", {"num_channels": 0, "eos_token_id": 1}, "at least 1"),
        ("DiaEOSChannelFilterLogitsProcessor", {"num_channels": 1, "eos_token_id": 0}, "at least 1"),
        ("DiaEOSDelayPatternLogitsProcessor", {"delay_pattern": [0, -1], "eos_token_id": 1, "max_generation_len": 9},
         "delay_pattern"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        getattr(pellucid, name)(**arguments)


# ------------------------------------------------------------------------- Dia


@pytest.mark.parametrize("k", [None, 1, 4, V])
def test_dia_guidance(k: int | None) -> None:
    ids, scores = torch.ones(2, 3, 5), random(1, 4, 5, V)
    ours, reference = (kind(2.5, k) for kind in (pellucid.DiaClassifierFreeGuidanceLogitsProcessor,
                                                 theirs.DiaClassifierFreeGuidanceLogitsProcessor))  # fmt: skip
    assert torch.equal(ours(ids, scores), reference(ids, scores.clone()))
    with pytest.raises(InputError, match="3 rows"):
        ours(ids, scores[:3])


@pytest.mark.parametrize("eos", [1, 6, V - 1])
def test_dia_ends_of_the_first_channel(eos: int) -> None:
    ours, reference = (kind(3, eos) for kind in (pellucid.DiaEOSChannelFilterLogitsProcessor,
                                                 theirs.DiaEOSChannelFilterLogitsProcessor))  # fmt: skip
    ends = 0
    for seed in range(30):
        scores = random(seed, 2, 3, V)
        scores[0, :, eos] += 5
        before = scores.clone()
        found = ours(torch.ones(2, 4, 3), scores)
        assert torch.equal(scores, before)
        assert torch.equal(found, reference(torch.ones(2, 4, 3), scores.clone()))
        assert torch.equal(found, ours(torch.ones(2, 4, 3), scores.flatten(0, 1)))
        ends += int((found.argmax(-1) == eos).sum())
    assert 0 < ends <= 60
    with pytest.raises(InputError, match="3 channels"):
        ours(torch.ones(2, 4, 3), torch.zeros(4, V))


@pytest.mark.parametrize("pattern", [[0, 2, 3], [0, 0, 1], [1, 0, 4], [0]])
def test_dia_ends_of_the_other_channels(pattern: list[int]) -> None:
    """Whole generations: rows that end at different steps, one only because there is no room."""
    ours, reference = (kind(pattern, 6, 14) for kind in (pellucid.DiaEOSDelayPatternLogitsProcessor,
                                                         theirs.DiaEOSDelayPatternLogitsProcessor))  # fmt: skip
    forced = 0
    for step in range(1, 15):
        scores = random(step, 3, len(pattern), V)
        scores[..., 6] = -9
        for row, end in ((0, 3), (1, 5)):
            if step == end:
                scores[row, 0, 6] = 99
        ids, before = torch.ones(3, step, len(pattern)), scores.clone()
        found = ours(ids, scores)
        assert torch.equal(scores, before)
        assert torch.equal(found, reference(ids, scores.clone())), step
        assert ours.active_batches.tolist() == reference.active_batches.tolist()
        forced += int((found == -math.inf).any(-1).sum())
    assert forced == 3 * len(pattern)


def test_what_is_no_rule_of_one_row() -> None:
    for processor in (
        pellucid.DiaClassifierFreeGuidanceLogitsProcessor(2.0), pellucid.DiaEOSChannelFilterLogitsProcessor(2, 1),
        pellucid.DiaEOSDelayPatternLogitsProcessor([0, 1], 1, 9),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match="no rule of one row"):
            rules(pellucid.GenerationConfig(), prompt=[1], processors=[processor])
    assert CLASSES.keys() == {*CASES, "WhisperTimeStampLogitsProcessor"}
