"""Rows, caches and pads, for every family fixture: the truth is the row alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from pellucid.errors import ArgumentError

MODELS = ref.cases(tasks=False)
DECODERS = [c for c in ref.cases() if c.task == "causal-lm"]
SEQ2SEQ = [c for c in ref.cases() if c.task == "seq2seq-lm"]
ids = str


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
@pytest.mark.parametrize("case", MODELS, ids=ids)
def test_a_row_among_others_is_the_row_alone(case: ref.Case, left: bool, checkpoints: Path) -> None:
    """Left pads, right pads and none give the same numbers, and zeros where there is no token."""
    model, _ = ref.pair(case, checkpoints)
    given = ref.inputs(case, batch=3, time=11)
    decoder = {name: given.pop(name) for name in ("decoder_input_ids",) if name in given}
    lengths = [11, 4, 7]
    places = [slice(11 - n, 11) if left else slice(0, n) for n in lengths]
    mask = torch.zeros(3, 11, dtype=torch.long)
    padded = {name: torch.zeros_like(value) for name, value in given.items()}
    for row, (n, at) in enumerate(zip(lengths, places)):
        mask[row, at] = 1
        for name, value in given.items():
            padded[name][row, at] = value[row, :n]
    with torch.inference_mode():
        whole = ref.first(model(**padded, **decoder, attention_mask=mask))
        for row, (n, at) in enumerate(zip(lengths, places)):
            alone = {name: value[row : row + 1, :n] for name, value in given.items()}
            alone |= {name: value[row : row + 1] for name, value in decoder.items()}
            one = ref.first(model(**alone))[0]
            by_token = whole.shape[1] == 11
            assert ref.distance(whole[row, at] if by_token else whole[row], one) < 2e-6, f"row {row}"
            assert not by_token or whole[row][mask[row] == 0].abs().sum() == 0


def as_right(
    found: torch.Tensor, one_pass: torch.Tensor, case: ref.Case, root: Path, truth: Callable[[Any], torch.Tensor]
) -> None:
    """Equal to the one pass but for rounding; where a model makes more of that, float64 says which side is right."""
    if ref.distance(found, one_pass) < 2e-6:
        return
    with torch.inference_mode():
        right = truth(ref.ours(case, ref.checkpoint(case, root), torch.float64))
    assert ref.distance(found, right) < 3 * max(ref.distance(one_pass, right), 1e-6)


@pytest.mark.parametrize("case", DECODERS, ids=ids)
def test_a_prompt_in_pieces_is_one_pass(case: ref.Case, checkpoints: Path) -> None:
    model, _ = ref.pair(case, checkpoints)
    prompt = ref.inputs(case, batch=2, time=13)["input_ids"]
    with torch.inference_mode():
        whole = model(prompt).logits
        cache, pieces = None, []
        for piece in prompt.split([5, 1, 6, 1], dim=1):
            output = model(piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            pieces.append(output.logits)
    assert cache.get_seq_length() == 13
    as_right(torch.cat(pieces, 1), whole, case, checkpoints, lambda model: model(prompt).logits)


@pytest.mark.parametrize("case", ref.sampled(DECODERS), ids=ids)
def test_a_ragged_cache_goes_on(case: ref.Case, checkpoints: Path) -> None:
    """Rows of different length, then more tokens for both: each is its own one pass."""
    model, _ = ref.pair(case, checkpoints)
    prompt = ref.inputs(case, batch=2, time=9)["input_ids"]
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    first = prompt[:, :6] * mask
    with torch.inference_mode():
        cache = model(first, attention_mask=mask, use_cache=True).past_key_values
        assert [row.length for row in cache.rows] == [6, 4]
        longer = torch.cat((mask, torch.ones(2, 3, dtype=torch.long)), 1)
        last = model(prompt[:, 6:], attention_mask=longer, past_key_values=cache).logits
        for row, start in enumerate((0, 2)):
            text = prompt[row : row + 1, start:]
            alone = model(text).logits[0, -3:]
            as_right(last[row], alone, case, checkpoints, lambda model, text=text: model(text).logits[0, -3:])


@pytest.mark.parametrize("case", ref.sampled(DECODERS), ids=ids)
def test_forks_trims_and_choices_of_rows(case: ref.Case, checkpoints: Path) -> None:
    """A row goes on from where it was cut, and its copy with it; a recurrence cannot be cut, and says so."""
    model, _ = ref.pair(case, checkpoints)
    prompt = ref.inputs(case, batch=2, time=10)["input_ids"]
    kept = 6
    with torch.inference_mode():
        cache = model(prompt[:, :8], use_cache=True).past_key_values
        if any(row.states for row in cache.rows):
            kept = 8
            with pytest.raises(ArgumentError):
                cache.crop(6)
        cache.crop(kept)
        cache.select([1, 0, 1])
        again = model(prompt[[1, 0, 1], kept:], past_key_values=cache).logits
        whole = model(prompt).logits[[1, 0, 1], kept:]
    as_right(again, whole, case, checkpoints, lambda model: model(prompt).logits[[1, 0, 1], kept:])


@pytest.mark.parametrize("case", ref.sampled(DECODERS + SEQ2SEQ), ids=ids)
def test_generation_does_not_depend_on_company(case: ref.Case, checkpoints: Path) -> None:
    """Lists of different lengths, left- and right-padded tensors, and each prompt alone: the same ids."""
    model, _ = ref.pair(case, checkpoints)
    drawn = ref.inputs(case, batch=4, time=9)["input_ids"].tolist()
    prompts = [drawn[0][:9], drawn[1][:2], drawn[2][:5], drawn[3][:1]]
    alone = [model.generate(prompt, max_new_tokens=9, do_sample=False) for prompt in prompts]
    assert model.generate(prompts, max_new_tokens=9, do_sample=False) == alone
    for left in (True, False):
        tensor = torch.zeros(4, 9, dtype=torch.long)
        mask = torch.zeros_like(tensor)
        for row, prompt in enumerate(prompts):
            at = slice(9 - len(prompt), 9) if left else slice(0, len(prompt))
            tensor[row, at], mask[row, at] = torch.tensor(prompt), 1
        together = model.generate(tensor, attention_mask=mask, max_new_tokens=9, do_sample=False).tolist()
        for row, prompt in enumerate(prompts):
            new = alone[row] if case.task == "seq2seq-lm" else alone[row][len(prompt) :]
            start = 0 if case.task == "seq2seq-lm" else 9
            assert together[row][start : start + len(new)] == new
