"""generate beside the reference's: ids, scores, logits, attentions and hidden states; one row, and three with pads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref

# gemma2 and mixtral past their window of 5; bamba is a hybrid of attention and Mamba 2.
FAMILIES = ["llama", "gpt2", "gemma2", "mixtral", "bamba", "t5", "bart"]
CASES = [ref.case(family, "", "seq2seq-lm" if family in ("t5", "bart") else "causal-lm") for family in FAMILIES]
# No rule here makes two tokens equally likely: then the library's own order would decide.
RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "penalties": {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "encoder_repetition_penalty": 0.8},
    "lengths": {"min_new_tokens": 4, "exponential_decay_length_penalty": (2, 1.3), "renormalize_logits": True},
    "words": {"bad_words_ids": [[7], [9, 11]], "suppress_tokens": [20, 21], "sequence_bias": {(13,): 2.0, (5, 6): 1.0}},
}


def given(case: ref.Case, rows: int) -> dict[str, torch.Tensor]:
    """Prompts; of three, two have pads: on the left, or behind what an encoder reads, as the reference needs them."""
    ids = ref.inputs(case, batch=rows, time=11)["input_ids"]
    mask = torch.ones_like(ids)
    for row, pads in ((1, 3), (2, 6)) if rows > 1 else ():
        at = slice(11 - pads, 11) if ref.two_sided(case) else slice(0, pads)
        mask[row, at] = 0
        ids[row, at] = case.config["pad_token_id"]
    return {"input_ids": ids, "attention_mask": mask}


def both(case: ref.Case, root: Path, rows: int = 3, **asked: Any) -> tuple[Any, Any]:
    """What the two libraries return; an end token is likely, so that rows end at different places."""
    mine, theirs = ref.pair(case, root)
    options = {"max_new_tokens": 9, "do_sample": False, "return_dict_in_generate": True, **asked}
    with torch.no_grad():
        return mine.generate(**given(case, rows), **options), theirs.generate(**given(case, rows), **options)


def lengths(found: Any, ends: set[int], prompt: int) -> list[int]:
    """Steps of each row, its end token included."""
    rows = found.sequences[:, prompt:].tolist()
    return [next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in rows]


def ends_of(case: ref.Case, root: Path) -> set[int]:
    """The model's end token, and one that the first row comes to."""
    mine, _ = both(case, root)
    return {case.config["eos_token_id"], int(mine.sequences[0, -5])}


def alike(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_greedy_ids_scores_and_logits(case: ref.Case, rules: str, rows: int, checkpoints: Path) -> None:
    ends = ends_of(case, checkpoints)
    asked = {**RULES[rules], "eos_token_id": sorted(ends), "output_scores": True, "output_logits": True}
    mine, theirs = both(case, checkpoints, rows, **asked)
    pad = case.config["pad_token_id"]

    def but_pad(scores_BV: torch.Tensor) -> torch.Tensor:
        """The reference's rules see pads as tokens of the prompt."""
        return torch.cat([scores_BV[:, :pad], scores_BV[:, pad + 1 :]], 1)

    assert mine.sequences.tolist() == theirs.sequences.tolist()
    assert len(mine.scores) == len(theirs.scores) == len(mine.logits) == len(theirs.logits)
    done = lengths(mine, ends, 1 if ref.two_sided(case) else 11)
    for step in range(len(mine.scores)):
        real = [row for row in range(rows) if step < done[row]]
        alike(but_pad(mine.scores[step][real]), but_pad(theirs.scores[step][real]))
        alike(mine.logits[step][real], theirs.logits[step][real])
    behind = [(step, row) for row in range(rows) for step in range(done[row], len(mine.scores))]
    assert all(mine.scores[step][row].argmax() == pad for step, row in behind)
    mine_T, theirs_T = (
        model.compute_transition_scores(found.sequences, found.scores, normalize_logits=True)
        for model, found in zip(ref.pair(case, checkpoints), (mine, theirs))
    )
    for row in range(rows):
        if row == 0 or rules != "penalties":  # pads again
            alike(mine_T[row, : done[row]], theirs_T[row, : done[row]])
        assert not mine_T[row, done[row] :].any()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attentions_and_hidden_states_of_every_step(case: ref.Case, rows: int, checkpoints: Path) -> None:
    """The reference's tuples, values and shapes; pads are zeros here and whatever they were computed to there."""
    asked = {"eos_token_id": [], "output_attentions": True, "output_hidden_states": True, "max_new_tokens": 5}
    mine, theirs = both(case, checkpoints, rows, **asked)
    real = given(case, rows)["attention_mask"].bool()
    names = [name for name in theirs if name not in ("sequences", "past_key_values")]
    assert [name for name in mine if name not in ("sequences", "past_key_values")] == names
    for name in names:
        assert len(mine[name]) == len(theirs[name]), name
        for step, (layers, wanted) in enumerate(zip(mine[name], theirs[name])):
            if name.startswith("encoder"):
                compare(layers, wanted, real, real if name.endswith("attentions") else None)
                continue
            assert len(layers) == len(wanted), name
            for a, b in zip(layers, wanted):
                queries = torch.ones(rows, a.shape[1 if name.endswith("states") else 2], dtype=torch.bool)
                if not ref.two_sided(case) and step == 0:
                    queries = real
                compare(a, b, queries, keys_of(name, case, real, a) if "attentions" in name else None)


def keys_of(name: str, case: ref.Case, real: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """[B, S]: the keys of a step that count."""
    if name == "cross_attentions":
        return real
    if ref.two_sided(case):
        return torch.ones(len(pattern), pattern.shape[-1], dtype=torch.bool)
    new = torch.ones(len(real), 5, dtype=torch.bool)
    whole = torch.cat([real, new], 1)
    steps = pattern.shape[-1] if pattern.shape[2] > 1 or pattern.shape[-1] > 10 else None
    return whole[:, :steps] if steps is not None else torch.ones(len(real), pattern.shape[-1], dtype=torch.bool)


def compare(a: torch.Tensor, b: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor | None) -> None:
    assert a.shape == b.shape
    if keys is None:  # hidden states [B, T, D]
        alike(a[queries], b[queries])
        return
    wanted = queries[:, None, :, None] & keys[:, None, None, :]
    alike(a * wanted, b * wanted)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_beams_with_all_that_is_returned(case: ref.Case, rows: int, checkpoints: Path) -> None:
    """Sequences, their scores, what they were chosen from, which beams; attentions and hidden states of every beam."""
    asked = {
        "num_beams": 3, "num_return_sequences": 2, "output_scores": True, "output_logits": True, "max_new_tokens": 5,
        "output_attentions": True, "output_hidden_states": True, "suppress_tokens": [case.config["eos_token_id"]],
        "forced_eos_token_id": None,
    }  # fmt: skip
    mine, theirs = both(case, checkpoints, rows, **asked)
    assert type(mine).__name__ == type(theirs).__name__
    assert mine.sequences.tolist() == theirs.sequences.tolist()
    assert mine.beam_indices.tolist() == theirs.beam_indices.tolist()
    alike(mine.sequences_scores, theirs.sequences_scores)
    for name in ("scores", "logits"):
        for a, b in zip(mine[name], theirs[name], strict=True):
            alike(a, b)
    scored = [
        model.compute_transition_scores(found.sequences, found.scores, found.beam_indices)
        for model, found in zip(ref.pair(case, checkpoints), (mine, theirs))
    ]
    alike(*scored)
    alike(scored[0].sum(1) / 5, mine.sequences_scores)
    side = "decoder_" if ref.two_sided(case) else ""
    real = given(case, rows)["attention_mask"].bool().repeat_interleave(3, 0)
    for step, (layers, wanted) in enumerate(
        zip(mine[f"{side}hidden_states"], theirs[f"{side}hidden_states"], strict=True)
    ):
        for a, b in zip(layers, wanted, strict=True):
            queries = real if step == 0 and not side else torch.ones(a.shape[:2], dtype=torch.bool)
            compare(a, b, queries, None)
    for layers, wanted in zip(mine[f"{side}attentions"][1:], theirs[f"{side}attentions"][1:], strict=True):
        for a, b in zip(layers, wanted, strict=True):
            assert a.shape == b.shape
            if rows == 1 or side:
                alike(a, b)


def test_ends_of_beams(checkpoints: Path) -> None:
    """Beams that end early: indices are -1 behind the end, transition scores 0, and sums are the sequences' scores."""
    (case,) = (case for case in CASES if case.family == "t5")
    asked = {"num_beams": 4, "num_return_sequences": 4, "output_scores": True, "length_penalty": 0.7}
    mine, theirs = both(case, checkpoints, 3, **asked, eos_token_id=sorted(ends_of(case, checkpoints)))
    assert mine.beam_indices.tolist() == theirs.beam_indices.tolist()
    alike(mine.sequences_scores, theirs.sequences_scores)
    steps = (mine.beam_indices >= 0).sum(1)
    assert len(set(steps.tolist())) > 1
    for row, count in enumerate(steps.tolist()):
        assert mine.sequences[row, : count + 1].tolist() == theirs.sequences[row, : count + 1].tolist()
    (model, other) = ref.pair(case, checkpoints)
    scored = model.compute_transition_scores(mine.sequences, mine.scores, mine.beam_indices)
    alike(scored, other.compute_transition_scores(theirs.sequences, theirs.scores, theirs.beam_indices))
    alike(scored.sum(1) / steps**0.7, mine.sequences_scores)


@pytest.mark.parametrize("warpers", [{}, {"temperature": 0.6, "top_k": 12, "top_p": 0.8}, {"min_p": 0.05}], ids=str)
def test_draws_follow_the_references_distribution(warpers: dict[str, Any], checkpoints: Path) -> None:
    """Chi-square of the second of two drawn tokens, given the first; seeds are torch's own."""
    case = CASES[0]
    mine, theirs = ref.pair(case, checkpoints)
    ids = ref.inputs(case, batch=1, time=7)["input_ids"]
    torch.manual_seed(0)
    options = {"do_sample": True, "max_new_tokens": 2, "eos_token_id": [], "top_k": 0, **warpers}
    drawn = mine.generate(ids, num_return_sequences=1500, **options)[:, 7:].tolist()
    first = max({row[0] for row in drawn}, key=[row[0] for row in drawn].count)
    seconds = [row[1] for row in drawn if row[0] == first]
    asked = {**options, "max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
    for prompt, tokens in ((ids, [row[0] for row in drawn]), (torch.cat([ids, torch.tensor([[first]])], 1), seconds)):
        mask = torch.ones_like(prompt)
        scores = theirs.generate(prompt, attention_mask=mask, **asked).scores[0][0]
        chi_square(tokens, scores.softmax(-1))


def chi_square(tokens: list[int], share_V: torch.Tensor) -> None:
    """Not a token that cannot be; the others as often as they should, within what one run in 10,000 exceeds."""
    wanted_V = share_V * len(tokens)
    seen_V = torch.bincount(torch.tensor(tokens), minlength=len(share_V)).float()
    assert not seen_V[share_V == 0].any()
    often = wanted_V >= 5
    rest = torch.stack([wanted_V[~often].sum(), seen_V[~often].sum()])
    wanted, seen = torch.cat([wanted_V[often], rest[:1]]), torch.cat([seen_V[often], rest[1:]])
    wanted, seen = wanted[wanted > 0], seen[wanted > 0]
    freedom = len(wanted) - 1
    distance = float(((seen - wanted) ** 2 / wanted).sum())
    # Wilson and Hilferty: the cube root of chi-square over its freedom is nearly normal
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3
    assert distance < limit, f"{distance:.1f} with {freedom} degrees of freedom"
