"""Guidance and diversity between beams beside the reference's, or by their definitions; every class of its file."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

import pellucid
import reference as ref
from pellucid.compat.guided_logits import Unguided
from pellucid.engine.rules.build import rules
from pellucid.errors import ArgumentError, InputError, Unsupported

V = 19


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_every_processor_of_the_reference_is_there() -> None:
    found = {
        name
        for name, value in vars(theirs).items()
        if inspect.isclass(value) and value.__module__ == theirs.__name__ and not name.endswith("State")
    }
    assert len(found) >= 37
    for name in found:
        ours = inspect.signature(getattr(pellucid, name).__call__).parameters
        assert [*ours][:3] == ["self", "input_ids", "scores"], name


def test_guidance_of_two_halves() -> None:
    ids, scores = torch.ones(3, 2), random(0, 6, V)
    ours, reference = (kind(2.5) for kind in (pellucid.ClassifierFreeGuidanceLogitsProcessor,
                                              theirs.ClassifierFreeGuidanceLogitsProcessor))  # fmt: skip
    torch.testing.assert_close(ours(ids, scores), reference(ids, scores), rtol=1e-6, atol=1e-6)
    with pytest.raises(InputError, match="5 rows of ids"):
        ours(torch.ones(5, 2), scores)
    with pytest.raises(ArgumentError, match="above 1"):
        pellucid.ClassifierFreeGuidanceLogitsProcessor(1.0)


@pytest.fixture(scope="module")
def models(checkpoints: Path) -> tuple[Any, Any]:
    """Ours, and the reference's."""
    return ref.pair(ref.case("llama", "", "causal-lm"), checkpoints)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("start", [None, "ids", "mask"])
def test_guidance_by_a_second_call(models: tuple[Any, Any], use_cache: bool, start: str | None) -> None:
    ids = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(1))
    negative = {"unconditional_ids": torch.tensor([[4, 5, 6], [7, 8, 9]])} if start else {}
    if start == "mask":  # rotary: the reference counts positions from the pad, which changes no number
        negative["unconditional_attention_mask"] = torch.tensor([[1, 1, 1], [0, 1, 1]])
    ours, reference = (kind(1.7, model, use_cache=use_cache, **negative) for kind, model in zip(
        (pellucid.UnbatchedClassifierFreeGuidanceLogitsProcessor,
         theirs.UnbatchedClassifierFreeGuidanceLogitsProcessor), models))  # fmt: skip
    size = int(models[0].spec.vocab)
    with torch.no_grad():
        for step in range(4):
            scores = random(step, 2, size)
            torch.testing.assert_close(ours(ids, scores), reference(ids, scores), rtol=1e-4, atol=1e-4)
            ids = torch.cat([ids, torch.randint(3, 90, (2, 1), generator=torch.Generator().manual_seed(step))], 1)


def test_guidance_goes_back_and_forks(models: tuple[Any, Any]) -> None:
    """Whatever was read before: a function of the prompt and the ids."""
    model = models[0]
    logits = random(3, int(model.spec.vocab))
    rule, prompt = Unguided(2.0, model, [4, 5]), [7, 8]
    rule(prompt, logits)
    for more in ([9], [9, 10], [9, 10], [9], [11, 12, 13], []):
        fresh = Unguided(2.0, model, [4, 5])
        fresh(prompt, logits)
        wanted = fresh(prompt + more, logits)
        for each in (rule, rule.fork()):
            torch.testing.assert_close(each(prompt + more, logits), wanted, rtol=1e-4, atol=1e-4)
    other = Unguided(2.0, model, [4, 5])([20, 21, 22], logits)
    torch.testing.assert_close(rule([20, 21, 22], logits), other, rtol=1e-4, atol=1e-4)
    assert torch.equal(Unguided(1, None)([1], logits), logits.log_softmax(0))


def test_guidance_of_generate_is_the_same(models: tuple[Any, Any]) -> None:
    """The processor in `generate`, rows of different lengths, and the option."""
    model = models[0]
    ids = torch.randint(3, 90, (2, 6), generator=torch.Generator().manual_seed(5))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    negative = torch.tensor([[4, 5], [6, 7]])
    processor = pellucid.UnbatchedClassifierFreeGuidanceLogitsProcessor(3.0, model, negative)
    found = model.generate(ids, logits_processor=[processor], **options)
    assert torch.equal(found, model.generate(ids, guidance_scale=3.0, negative_prompt_ids=negative, **options))
    assert not torch.equal(found, model.generate(ids, **options))


def test_guidance_without_ids() -> None:
    ids, scores = torch.tensor([[1, 2], [3, 4]]), random(0, 2, V)
    kind = pellucid.UnbatchedClassifierFreeGuidanceLogitsProcessor
    with pytest.raises(InputError, match="for row 1"):
        kind(2.0, None, torch.tensor([[1, 2]]))(ids, scores)
    with pytest.raises(InputError, match="masked"):
        kind(2.0, None, torch.tensor([[1, 2]]), torch.tensor([[0, 0]]))
    with pytest.raises(ArgumentError, match="guidance_scale"):
        kind("x", None)


# ------------------------------------------------------------------------- diversity


@pytest.mark.parametrize("beams, groups", [(6, 3), (4, 2), (5, 2)])
def test_diversity(beams: int, groups: int) -> None:
    """By its definition: the reference's version 5 has it no more."""
    processor, size = pellucid.HammingDiversityLogitsProcessor(0.7, beams, groups), beams // groups
    taken = torch.randint(4, (2 * beams,), generator=torch.Generator().manual_seed(1))
    for group in range(groups):
        each = min(size, beams - group * size)
        scores = random(group, 2 * each, 5)
        found = processor(torch.ones(2 * each, 3), scores, current_tokens=taken, beam_group_idx=group)
        for row in range(2 * each):
            prompt = row // each
            count = Counter(taken[prompt * beams : prompt * beams + group * size].tolist())
            wanted = scores[row] - 0.7 * torch.tensor([float(count[token]) for token in range(5)])
            torch.testing.assert_close(found[row], wanted)
    with pytest.raises(InputError, match="one group"):
        processor(torch.ones(3, 3), torch.zeros(3, 5), taken, 0)
    listed = pellucid.LogitsProcessorList([processor])
    assert torch.equal(listed(torch.ones(1, 1), scores, current_tokens=taken, beam_group_idx=groups - 1), found)


@pytest.mark.parametrize("arguments", [(0.0, 4, 2), (0.5, 1, 2), (0.5, 4, 1), (0.5, 2, 3)])
def test_diversity_out_of_range(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ArgumentError, match="next"):
        pellucid.HammingDiversityLogitsProcessor(*arguments)


def test_what_is_no_rule_of_one_row() -> None:
    for processor, says in (
        (pellucid.ClassifierFreeGuidanceLogitsProcessor(2.0), "guidance_scale="),
        (pellucid.HammingDiversityLogitsProcessor(0.5, 4, 2), "num_beam_groups="),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match=says):
            rules(pellucid.GenerationConfig(), prompt=[1], processors=[processor])
