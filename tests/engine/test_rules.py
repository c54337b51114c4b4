"""Each rule beside the reference's processor of the same name, on random ids and logits, ties and infinities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

import pellucid
from pellucid.compat.logits import CLASSES
from pellucid.engine.rules.penalties import hamming_diversity
from pellucid.errors import ArgumentError, InputError

V, T = 23, 17
EOS = [3, 5]
ENCODER = torch.randint(V, (3, 11), generator=torch.Generator().manual_seed(5))


def even(row: int, ids: Tensor) -> list[int]:
    """Allows what has the parity of the last token."""
    return list(range(int(ids[-1]) % 2, V, 2)) if row < 2 else [4]


CASES: dict[str, list[dict[str, Any]]] = {
    "TemperatureLogitsWarper": [{"temperature": t} for t in (0.1, 0.7, 1.0, 9.0)],
    "TopKLogitsWarper": [{"top_k": k} for k in (1, 3, V, 99)] + [{"top_k": 1, "min_tokens_to_keep": 4}],
    "TopPLogitsWarper": [{"top_p": p, "min_tokens_to_keep": k} for p in (0.013, 0.317, 0.897, 1.0) for k in (1, 3)],
    "MinPLogitsWarper": [{"min_p": p, "min_tokens_to_keep": k} for p in (0, 0.0213, 0.513, 1.0) for k in (1, 4)],
    "TopHLogitsWarper": [{"top_h": h} for h in (0.0131, 0.4171, 0.9311)],
    "TypicalLogitsWarper": [{"mass": m, "min_tokens_to_keep": k} for m in (0.0131, 0.4171, 0.9311) for k in (1, 4)],
    "EpsilonLogitsWarper": [{"epsilon": e, "min_tokens_to_keep": k} for e in (1e-4, 0.0213, 0.6) for k in (1, 4)],
    "EtaLogitsWarper": [{"epsilon": e, "min_tokens_to_keep": k} for e in (1e-4, 0.0213, 0.6) for k in (1, 4)],
    "RepetitionPenaltyLogitsProcessor": [{"penalty": 1.7}, {"penalty": 0.6, "prompt_ignore_length": 9}],
    "EncoderRepetitionPenaltyLogitsProcessor": [{"penalty": 1.7, "encoder_input_ids": ENCODER}],
    "NoRepeatNGramLogitsProcessor": [{"ngram_size": n} for n in (1, 2, 3, T, T + 1, 40)],
    "EncoderNoRepeatNGramLogitsProcessor": [
        {"encoder_ngram_size": n, "encoder_input_ids": ENCODER} for n in (1, 2, 3, 11, 12)
    ],
    "SequenceBiasLogitsProcessor": [
        {"sequence_bias": {(1,): 2.5, (2, 3): -3.0, (1, 1, 4): 1.0, (4, 4): 7.0, tuple(range(20)): 1.0}},
        {"sequence_bias": [[[1], 2.5], [[0, 1], -math.inf]]},
    ],
    "NoBadWordsLogitsProcessor": [{"bad_words_ids": [[3], [4], [0, 1], [1, 1], [0, 0, 2]], "eos_token_id": EOS}],
    "MinLengthLogitsProcessor": [{"min_length": n, "eos_token_id": EOS} for n in (0, T, T + 1)],
    "MinNewTokensLengthLogitsProcessor": [
        {"prompt_length_to_skip": 6, "min_new_tokens": n, "eos_token_id": 5} for n in (0, 10, 11, 12)
    ],
    "PrefixConstrainedLogitsProcessor": [{"prefix_allowed_tokens_fn": even, "num_beams": 1}],
    "ForcedBOSTokenLogitsProcessor": [{"bos_token_id": 7}],
    "ForcedEOSTokenLogitsProcessor": [{"max_length": n, "eos_token_id": EOS} for n in (T, T + 1)],
    "InfNanRemoveLogitsProcessor": [{}],
    "ExponentialDecayLengthPenalty": [
        {"exponential_decay_length_penalty": (s, f), "eos_token_id": EOS, "input_ids_seq_length": 5}
        for s, f in ((0, 1.3), (11, 1.3), (12, 1.3), (13, 1.3), (3, 0.8))
    ],
    "LogitNormalization": [{}],
    "SuppressTokensLogitsProcessor": [{"suppress_tokens": [1, 4, 99]}],
    "SuppressTokensAtBeginLogitsProcessor": [{"begin_suppress_tokens": [1, 4], "begin_index": n} for n in (T, T + 1)],
}


def test_all_classes_are_compared() -> None:
    assert CLASSES.keys() == CASES.keys()


def batches() -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, ids [3, T] of few different tokens, logits [3, V]."""
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(3, (3, T), generator=chance)
    loud = torch.randn(3, V, generator=chance) * 4
    yield "loud", ids, loud
    yield "quiet", ids, loud / 40
    yield "ties", ids, loud.round()
    yield "impossible", ids, loud.masked_fill(torch.rand(3, V, generator=chance) < 0.5, -math.inf)
    yield "certain", ids, torch.full((3, V), -math.inf).index_fill(1, torch.tensor([4]), 2.0)
    yield "equal", ids, torch.zeros(3, V)
    yield "one id", ids[:, :1], loud


@pytest.mark.parametrize("name", CASES)
def test_as_the_reference(name: str) -> None:
    for arguments in CASES[name]:
        ours = getattr(pellucid, name)(**arguments)
        reference = getattr(theirs, name)(**arguments)
        for batch, ids, logits in batches():
            before = logits.clone()
            found, wanted = ours(ids, logits), reference(ids, logits.clone())
            assert torch.equal(logits, before)  # never in place
            if batch in ("ties", "equal"):  # which of equals goes is free
                found, wanted = found.sort(1).values, wanted.sort(1).values
            assert torch.equal(found.isinf(), wanted.isinf()), (arguments, batch)
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6, msg=lambda m: f"{arguments} {batch} {m}")  # noqa: B023


def test_a_begin_that_moves() -> None:
    _, ids, logits = next(batches())
    ours, reference = (kinds.SuppressTokensAtBeginLogitsProcessor([1, 4], 3) for kinds in (pellucid, theirs))
    for begin in (3, T):
        ours.set_begin_index(begin)
        reference.set_begin_index(begin)
        assert torch.equal(ours(ids, logits), reference(ids, logits))


def test_large_vocabularies_are_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting stops early; where the first tokens are not enough, it goes on."""
    chance = torch.Generator().manual_seed(2)
    ids = torch.zeros(4, 3, dtype=torch.long)
    logits = torch.randn(4, 5000, generator=chance) * torch.tensor([[0.0], [0.3], [3.0], [9.0]])
    logits[0] += torch.linspace(0, 1e-3, 5000)
    for name, arguments in (
        ("TopPLogitsWarper", {"top_p": 0.897}), ("TypicalLogitsWarper", {"mass": 0.4171}),
        ("TypicalLogitsWarper", {"mass": 0.9711}), ("TopPLogitsWarper", {"top_p": 0.0113}),
    ):  # fmt: skip
        found = getattr(pellucid, name)(**arguments)(ids, logits) == -math.inf
        wanted = getattr(theirs, name)(**arguments)(ids, logits) == -math.inf
        assert int((found != wanted).sum()) <= 4, name  # sums of thousands are rounded in another order
        assert abs(int(found.sum()) - int(wanted.sum())) <= 4


def test_nan_is_removed() -> None:
    logits = torch.tensor([[math.nan, math.inf, -math.inf, 1.0]])
    ids = torch.zeros(1, 1, dtype=torch.long)
    found = pellucid.InfNanRemoveLogitsProcessor()(ids, logits)
    assert torch.equal(found, theirs.InfNanRemoveLogitsProcessor()(ids, logits)) and found.isfinite().all()


def test_ids_that_the_head_does_not_know() -> None:
    """A vocabulary may be larger than what is predicted: such ids change nothing."""
    logits = torch.randn(1, 5, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 9, 1, 9]])
    for name, arguments in (
        ("RepetitionPenaltyLogitsProcessor", {"penalty": 1.5}), ("NoRepeatNGramLogitsProcessor", {"ngram_size": 2}),
        ("MinLengthLogitsProcessor", {"min_length": 9, "eos_token_id": [1, 9]}),
    ):  # fmt: skip
        found = getattr(pellucid, name)(**arguments)(ids, logits)
        assert torch.equal(found, getattr(theirs, name)(**arguments)(ids, logits)), name
    with pytest.raises(InputError, match="vocabulary of 5"):
        pellucid.SequenceBiasLogitsProcessor({(9,): 1.0})(ids, logits)


def test_beams_of_one_prompt_share_its_text() -> None:
    chance = torch.Generator().manual_seed(3)
    ids, logits = torch.randint(3, (6, T), generator=chance), torch.randn(6, V, generator=chance)
    for name, arguments in (
        ("EncoderRepetitionPenaltyLogitsProcessor", {"penalty": 1.5, "encoder_input_ids": ENCODER}),
        ("EncoderNoRepeatNGramLogitsProcessor", {"encoder_ngram_size": 1, "encoder_input_ids": ENCODER}),
        ("PrefixConstrainedLogitsProcessor", {"prefix_allowed_tokens_fn": even, "num_beams": 2}),
    ):  # fmt: skip
        found = getattr(pellucid, name)(**arguments)(ids, logits)
        assert torch.equal(found, getattr(theirs, name)(**arguments)(ids, logits)), name


def test_a_function_that_allows_nothing() -> None:
    with pytest.raises(InputError, match="allows nothing"):
        pellucid.PrefixConstrainedLogitsProcessor(lambda row, ids: [], 1)(torch.tensor([[1]]), torch.zeros(1, 4))


def test_diversity_by_its_definition() -> None:
    found = hamming_diversity(torch.arange(5.0), 0.5, [1, 3, 1])
    assert found.tolist() == [0.0, 0.0, 2.0, 2.5, 4.0]
    assert torch.equal(hamming_diversity(torch.arange(5.0), 0.5, []), torch.arange(5.0))


def test_lists_and_filter_values() -> None:
    ids, logits = torch.tensor([[1, 2]]), torch.tensor([[1.0, 2.0, -math.inf, 4.0]])
    chain = pellucid.LogitsProcessorList([pellucid.TemperatureLogitsWarper(2.0), pellucid.TopKLogitsWarper(1)])
    assert chain(ids, logits).tolist() == [[-math.inf, -math.inf, -math.inf, 2.0]]
    assert pellucid.TopKLogitsWarper(1, filter_value=-9.0)(ids, logits).tolist() == [[-9.0, -9.0, -math.inf, 4.0]]
    chain.append(lambda input_ids, scores: scores + 1)
    assert chain(ids, logits)[0, 3] == 3
    wide = type("Wide", (), {"__call__": lambda self, input_ids, scores, factor: scores * factor})()
    assert pellucid.LogitsProcessorList([wide])(ids, logits, factor=3)[0, 3] == 12
    with pytest.raises(ArgumentError, match="factor"):
        pellucid.LogitsProcessorList([wide])(ids, logits)
    half = pellucid.TopKLogitsWarper(2)(ids, logits.bfloat16())
    assert half.dtype == torch.bfloat16 and half[0, 1] == 2


@pytest.mark.parametrize(
    "name, arguments, says",
    [
        ("TopKLogitsWarper", {"topk": 3}, "top_k"), ("TopKLogitsWarper", {"top_k": 0}, "at least 1"),
        ("TopKLogitsWarper", {"top_k": 1.5}, "1.5"), ("TopPLogitsWarper", {"top_p": 1.1}, "at most 1"),
        ("TemperatureLogitsWarper", {"temperature": 0.0}, "above 0"), ("TypicalLogitsWarper", {"mass": 1.0}, "below 1"),
        ("TemperatureLogitsWarper", {"temperature": math.nan}, "number"), ("MinPLogitsWarper", {"min_p": -1}, "-1"),
        ("RepetitionPenaltyLogitsProcessor", {"penalty": 0}, "above 0"), ("TopHLogitsWarper", {"top_h": 0}, "above 0"),
        ("NoRepeatNGramLogitsProcessor", {"ngram_size": 0}, "at least 1"), ("TopKLogitsWarper", {}, "top_k"),
        ("MinLengthLogitsProcessor", {"min_length": -1, "eos_token_id": 1}, "at least 0"),
        ("MinLengthLogitsProcessor", {"min_length": 1, "eos_token_id": "x"}, "id"),
    ],
)  # fmt: skip
def test_arguments_out_of_range(name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        getattr(pellucid, name)(**arguments)
