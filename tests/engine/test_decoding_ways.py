"""Contrastive search, DoLa, guidance, diverse and constrained beams: the formulas written out, without a cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.decoding import EOS, case_of, contains, counted_forks, forward, generate, pair, prompts_of, run
from models import tiny
from pellucid.compat.constraints import Constraint, DisjunctiveConstraint, PhrasalConstraint
from pellucid.engine.decoding.beam import BeamSearch, Ranking
from pellucid.engine.decoding.choice import decodings, reading
from pellucid.engine.decoding.constrained import ConstrainedBeamSearch
from pellucid.engine.decoding.constraints import OneOf, Phrase, Progress
from pellucid.engine.decoding.contrastive import Contrastive
from pellucid.engine.decoding.diverse import DiverseBeamSearch
from pellucid.engine.decoding.dola import Dola, candidates
from pellucid.engine.decoding.guidance import Guidance
from pellucid.engine.engine import Engine
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Request
from pellucid.engine.rules.penalties import RepetitionPenalty
from pellucid.engine.rules.warpers import Temperature
from pellucid.errors import ArgumentError, InputError, Unsupported

FAMILIES = ["llama", "gpt2", "gemma2", "mixtral", "jamba", "falcon_h1"]


def greedy(logits: Callable[[list[int]], Tensor]) -> list[int]:
    """Twelve tokens, or up to an end, each the best of what a function says behind the new ones."""
    new: list[int] = []
    while len(new) < 12 and (not new or new[-1] not in EOS):
        new.append(int(logits(new).argmax()))
    return new


def ids_of(jobs: list[Any]) -> list[list[int]]:
    return [job.result()[0].ids for job in jobs]


# ------------------------------------------------------------------------------------------------ contrastive search


@pytest.mark.parametrize("family", [*FAMILIES, "t5", "bart"])
def test_contrastive_search_is_its_formula(family: str, checkpoints: Path) -> None:
    """(1 - alpha) p - alpha s, over the reference's forward; two prompts in one engine."""
    model, theirs = pair(family, checkpoints)
    prompts = prompts_of(case_of(family), (11, 4))

    def states(out: Any) -> Tensor:
        hidden = out.decoder_hidden_states if theirs.config.is_encoder_decoder else out.hidden_states
        return torch.nn.functional.normalize(hidden[-1][0], dim=-1)

    def written_out(prompt: list[int], new: list[int]) -> Tensor:
        share_V = forward(theirs, prompt, new).logits[0, -1].softmax(-1)
        value_V = torch.full_like(share_V, -math.inf)
        for token in share_V.topk(4).indices.tolist():
            *past, own = states(forward(theirs, prompt, [*new, token]))
            like = max(float(own @ other) for other in past)
            value_V[token] = 0.4 * share_V[token] - 0.6 * like
        return value_V

    jobs = run(model, prompts, decoding=Contrastive(alpha=0.6, top_k=4))
    assert ids_of(jobs) == [greedy(lambda new, p=prompt: written_out(p, new)) for prompt in prompts]


def test_contrastive_search_without_a_penalty_is_greedy() -> None:
    model, prompts = tiny.make("llama"), [tiny.ids(9).tolist(), tiny.ids(1).tolist()]
    wanted = ids_of(run(model, prompts))
    assert ids_of(run(model, prompts, decoding=Contrastive(alpha=0.0, top_k=5))) == wanted
    assert ids_of(run(model, prompts, decoding=Contrastive(alpha=0.9, top_k=1))) == wanted


def test_contrastive_search_reads_a_long_prompt_in_pieces_and_keeps_one_row() -> None:
    model, prompt = tiny.make("llama", max_position_embeddings=400), tiny.ids(300).tolist()
    engine = Engine(model)
    job = engine.add(Request(ids=prompt, max_new=4, decoding=Contrastive(alpha=0.6, top_k=4), prompt_logprobs=0))
    rows = set()
    while engine.busy:
        engine.step()
        rows.add(len(job.seqs))
    job.result()
    assert rows == {1, 4, 0}  # the prompt; the candidates of a step; all given back
    logp_TV = tiny.call(model, torch.tensor([prompt]))[0].log_softmax(-1)
    assert [each.logprob for each in job.prompt_logprobs] == pytest.approx(
        [float(logp_TV[i, token]) for i, token in enumerate(prompt[1:])], abs=1e-4
    )


# ------------------------------------------------------------------------------------------------ DoLa


@pytest.mark.parametrize("family", FAMILIES)
def test_dola_is_its_formula(family: str, checkpoints: Path) -> None:
    """log p - log q with the layer that differs most, over the reference's forward and its head."""
    model, theirs = pair(family, checkpoints)
    prompts = prompts_of(case_of(family), (11, 4))
    layers = [0, 1, 2]

    def written_out(prompt: list[int], new: list[int]) -> Tensor:
        out = forward(theirs, prompt, new)
        last_V = out.logits[0, -1].log_softmax(-1)
        with torch.no_grad():
            early = [theirs.get_output_embeddings()(out.hidden_states[i][0, -1]).log_softmax(-1) for i in layers]
        apart = []
        for early_V in early:
            mean_V = (last_V.exp() + early_V.exp()) / 2
            apart.append(float(sum((mean_V * (mean_V.log() - each_V)).mean() for each_V in (last_V, early_V))))
        contrast_V = last_V - early[apart.index(max(apart))]
        return contrast_V.masked_fill(last_V < last_V.max() + math.log(0.1), -math.inf)

    jobs = run(model, prompts, reading=Dola(layers=layers))
    assert ids_of(jobs) == [greedy(lambda new, p=prompt: written_out(p, new)) for prompt in prompts]


def test_which_layers_dola_looks_at() -> None:
    """Every second one of a half; without the embedding where the head is tied to it."""
    for layers, tied, low, high in (
        (3, False, [0], [1]), (4, False, [0], [2]), (8, False, [0, 2], [4, 6]), (8, True, [2], [4, 6]),
        (2, True, [1], [1]), (44, False, [*range(0, 20, 2)], [*range(24, 44, 2)]),
    ):  # fmt: skip
        model = tiny.make("llama", num_hidden_layers=layers, tie_word_embeddings=tied)
        assert (candidates(model, "low"), candidates(model, "high")) == (low, high)
    with tiny.refused(ArgumentError, "dola_layers=[44]", "0 to 43"):
        candidates(model, [44])


def test_dola_composes() -> None:
    """With several outputs, rules and drawing; what the model itself said is kept as it is."""
    model, prompt = tiny.make("llama"), tiny.ids(9).tolist()
    keep = frozenset({"logits", "scores"})
    options = {"reading": Dola(layers=[0, 1]), "sample": True, "n": 3, "keep": keep, "logprobs": 0}
    [job] = run(model, [prompt], seed=5, rules=[RepetitionPenalty(1.2), Temperature(2.0)], **options)
    outputs = job.result()
    assert len({tuple(output.ids) for output in outputs}) > 1
    for output in outputs:
        logits_TV = tiny.call(model, torch.tensor([[*prompt, *output.ids]]))[0, len(prompt) - 1 : -1]
        torch.testing.assert_close(torch.stack(output.logits), logits_TV, atol=1e-4, rtol=0)
        assert not torch.allclose(torch.stack(output.scores), logits_TV)
        assert [each.logprob for each in output.logprobs] == pytest.approx(
            [float(row_V.log_softmax(-1)[token]) for row_V, token in zip(logits_TV, output.ids)], abs=1e-4
        )


# ------------------------------------------------------------------------------------------------ guidance


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("negative", [None, [7, 8, 9, 10, 11]], ids=["alone", "negative prompt"])
def test_guidance_is_that_of_the_reference(family: str, negative: list[int] | None, checkpoints: Path) -> None:
    model, theirs = pair(family, checkpoints)
    for prompt in prompts_of(case_of(family)):
        negative_ids = None if negative is None else torch.tensor([negative])
        found = generate(theirs, [prompt], guidance_scale=2.5, negative_prompt_ids=negative_ids)
        options = GenerationConfig(guidance_scale=2.5)
        keep = frozenset({"logits", "scores"})
        [job] = run(model, [prompt], reading=reading(options, negative), keep=keep)
        output = job.result()[0]
        assert output.ids == found.sequences[0, len(prompt) :].tolist()
        for name in ("scores", "logits"):
            whole = torch.cat(getattr(found, name))
            torch.testing.assert_close(torch.stack(getattr(output, name)), whole, atol=1e-3, rtol=1e-3)


def test_guidance_composes_with_beams_and_drawing(checkpoints: Path) -> None:
    """The text without the prompt follows each beam, and scores are log-probabilities: in the reference's search, by a
    processor over its forward. (Its own guidance does not follow beams, and its scores are no log-probabilities.)"""
    from transformers import LogitsProcessor, LogitsProcessorList

    model, theirs = pair("llama", checkpoints)
    prompt, negative = prompts_of(case_of("llama"))[0], [7, 8, 9]

    class Written(LogitsProcessor):
        def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
            new = [row[len(prompt) :].tolist() for row in ids]
            other = torch.stack([forward(theirs, negative, each).logits[0, -1].log_softmax(-1) for each in new])
            return (other + 2.0 * (scores.log_softmax(-1) - other)).log_softmax(-1)

    processors = LogitsProcessorList([Written()])
    guidance = Guidance(scale=2.0, negative=negative)
    found = generate(theirs, [prompt], num_beams=3, num_return_sequences=3, logits_processor=processors)
    [job] = run(model, [prompt], n=3, decoding=BeamSearch(beams=3), reading=guidance)
    for output, ids, score in zip(job.result(), found.sequences.tolist(), found.sequences_scores.tolist()):
        assert output.ids == ids[len(prompt) : len(prompt) + len(output.ids)]
        assert output.score == pytest.approx(score, abs=1e-3)
    [job] = run(model, [prompt], sample=True, n=2, seed=4, reading=guidance, keep=frozenset({"scores"}))
    for output in job.result():
        for i, scores_V in enumerate(output.scores):
            ids = torch.tensor([[*prompt, *output.ids[:i]]])
            wanted_V = Written()(ids, forward(theirs, prompt, output.ids[:i]).logits[0, -1:])[0]
            torch.testing.assert_close(scores_V.softmax(-1), wanted_V.exp(), atol=1e-5, rtol=1e-3)


def test_guidance_of_dola_and_a_scale_of_one() -> None:
    model, prompt = tiny.make("llama"), tiny.ids(9).tolist()
    plain = ids_of(run(model, [prompt]))
    assert ids_of(run(model, [prompt], reading=Guidance(scale=1.0))) == plain
    dola = Dola(layers=[1])
    assert ids_of(run(model, [prompt], reading=Guidance(scale=1.0, of=dola))) == ids_of(
        run(model, [prompt], reading=dola)
    )
    assert ids_of(run(model, [prompt], reading=Guidance(scale=3.0, of=dola))) != plain


def test_readings_without_an_encoder_only() -> None:
    model = tiny.make("t5")
    for each in (Guidance(scale=2.0), Dola(layers="low")):
        [job] = Engine(model).generate([Request(ids=[5, 6], begin=[0], max_new=3, reading=each)])
        with pytest.raises(Unsupported, match="without an encoder"):
            job.result()


# ------------------------------------------------------------------------------------------------ beams apart


def test_one_group_is_beam_search_and_a_penalty_keeps_groups_apart() -> None:
    model, prompt = tiny.make("llama"), tiny.ids(9).tolist()
    options = {"eos": frozenset(), "n": 4, "keep": frozenset({"scores"})}
    [plain] = run(model, [prompt], decoding=BeamSearch(beams=4), **options)
    [one] = run(model, [prompt], decoding=DiverseBeamSearch(beams=4, groups=1, penalty=9.0), **options)
    assert [(o.ids, o.beams, o.score) for o in one.result()] == [(o.ids, o.beams, o.score) for o in plain.result()]
    [apart] = run(model, [prompt], decoding=DiverseBeamSearch(beams=4, groups=4, penalty=1e4), **options)
    assert all(len(set(tokens)) == 4 for tokens in zip(*(output.ids for output in apart.result())))
    for output in apart.result():  # a group of one beam: its numbers are its place
        assert set(output.beams) == {output.beams[0]}
        steps = zip(apart.beam_scores, output.beams, output.ids)
        total = sum(float(scores_BV[beam, token]) for scores_BV, beam, token in steps)
        assert output.score == pytest.approx(total / 12, abs=1e-4)
    with pytest.raises(ArgumentError, match="3 groups of 4 beams"):
        DiverseBeamSearch(beams=4, groups=3, penalty=1.0)


# ------------------------------------------------------------------------------------------------ constraints


@settings(max_examples=15, deadline=None)
@given(
    words=st.lists(st.lists(st.integers(3, 100), min_size=1, max_size=3), min_size=1, max_size=3),
    beams=st.integers(2, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_constraints_are_met_where_there_is_room(words: list[list[int]], beams: int, seed: int) -> None:
    model, prompt = tiny.make("gpt2"), tiny.ids(7, seed=seed).tolist()
    search = ConstrainedBeamSearch(beams=beams, constraints=[Phrase(word) for word in words])
    [job] = run(model, [prompt], decoding=search, eos=frozenset({2}))
    assert all(contains(job.result()[0].ids, word) for word in words)
    assert job.result()[0].score is not None


def test_constraints_without_room(caplog: pytest.LogCaptureFixture) -> None:
    model, prompt = tiny.make("gpt2"), tiny.ids(7).tolist()
    search = ConstrainedBeamSearch(beams=2, constraints=[Phrase([50, 51, 52, 53])])
    [job] = run(model, [prompt], decoding=search, max_new=3, eos=frozenset())
    assert len(job.result()[0].ids) == 3
    assert "1 of 1 outputs do not contain all constraints" in caplog.text
    [job] = run(model, [prompt], decoding=search, max_new=4, eos=frozenset())
    assert job.result()[0].ids == [50, 51, 52, 53]


def test_a_word_of_the_prompt_has_to_be_said_again() -> None:
    model, prompt = tiny.make("gpt2"), [50, 51, 52]
    [job] = run(model, [prompt], decoding=ConstrainedBeamSearch(beams=2, constraints=[Phrase([50, 51])]))
    assert contains(job.result()[0].ids, [50, 51])


def test_progress() -> None:
    progress = Progress([Phrase([5, 6, 7]), OneOf([[8], [9, 10], [9, 11, 12]])])
    assert (progress.advance(), progress.steps, progress.completed) == ([5, 8, 9], 0, False)
    for token, advance, steps in (
        (1, [5, 8, 9], 0), (9, [10, 11], 1), (11, [12], 2), (5, [5, 8, 9], 0), (5, [6], 1), (6, [7], 2), (7, [8, 9], 3),
        (9, [10, 11], 4), (10, [], 6),
    ):  # fmt: skip
        before = progress.steps
        grown = progress.after(token)
        assert progress.steps == before  # the text goes on in more than one way
        progress = grown
        assert (sorted(progress.advance()), progress.steps) == (advance, steps), token
    assert progress.completed


def test_constraints_under_the_references_names() -> None:
    """The methods do what the reference's documentation says of them."""
    word = PhrasalConstraint([5, 6])
    assert isinstance(word, Constraint)
    assert (word.advance(), word.does_advance(5), word.does_advance(6), word.remaining()) == (5, True, False, 2)
    assert word.update(5) == (True, False, False)
    other = word.copy(stateful=True)
    assert isinstance(other, PhrasalConstraint)
    assert word.update(7) == (False, False, True)
    assert (word.remaining(), word.copy().remaining(), other.remaining()) == (2, 2, 1)
    assert other.update(6) == (True, True, False)
    assert (other.advance(), other.completed, other.remaining()) == (None, True, 0)
    either = DisjunctiveConstraint([[5], [6, 7]])
    assert (either.advance(), either.remaining()) == ([5, 6], 2)
    assert either.update(5) == (True, True, False)
    for wrong in ([], [[]], [[5], [5, 6]], [5], [[-1]], [["a"]]):
        with pytest.raises(ArgumentError):
            DisjunctiveConstraint(wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        PhrasalConstraint([])


def test_a_constraint_of_ones_own() -> None:
    """Any token below 20, then any below 40."""

    class Small(Constraint):
        def __init__(self, done: int = 0) -> None:
            self.done = done

        def advance(self) -> int | list[int] | None:
            return [list(range(3, 20)), list(range(3, 40)), None][self.done]  # type: ignore[return-value]

        def does_advance(self, token_id: int) -> bool:
            return token_id in (self.advance() or ())  # type: ignore[operator]

        def update(self, token_id: int) -> tuple[bool, bool, bool]:
            if not self.does_advance(token_id):
                self.reset()
                return False, False, True
            self.done += 1
            return True, self.done == 2, False

        def reset(self) -> None:
            self.done = 0

        def remaining(self) -> int:
            return 2 - self.done

        def copy(self, stateful: bool = False) -> Small:
            return Small(self.done if stateful else 0)

    options = GenerationConfig(constraints=[Small()], force_words_ids=[[77], [[78], [79, 80]]], num_beams=3)
    [job] = run(tiny.make("gpt2"), [tiny.ids(5).tolist()], decoding=decodings(options), eos=frozenset())
    ids = job.result()[0].ids
    assert any(a < 20 and b < 40 for a, b in zip(ids, ids[1:]))
    assert contains(ids, [77]) and contains(ids, [[78], [79, 80]])


def test_constraints_outside_the_vocabulary() -> None:
    search = ConstrainedBeamSearch(beams=2, constraints=[Phrase([101])])
    [job] = Engine(tiny.make("gpt2")).generate([Request(ids=[5], max_new=3, decoding=search)])
    with pytest.raises(InputError, match="token 101"):
        job.result()


# ------------------------------------------------------------------------------------------------ choices


def test_which_strategy_options_ask_for() -> None:
    def asked(**options: Any) -> Any:
        return decodings(GenerationConfig(**options))

    assert asked() is asked(do_sample=True) is asked(penalty_alpha=0.6, top_k=1) is asked(penalty_alpha=0.0) is None
    assert asked(num_beams=3, length_penalty=2.0, early_stopping="never") == BeamSearch(
        beams=3, ranking=Ranking(length_penalty=2.0, early_stopping="never")
    )
    assert asked(num_beams=4, num_beam_groups=2, diversity_penalty=0.5, eos_token_id=7).filler == 7
    assert asked(num_beams=4, num_beam_groups=2, diversity_penalty=0.5, eos_token_id=7, pad_token_id=0).filler == 0
    assert asked(penalty_alpha=0.6, top_k=4) == Contrastive(alpha=0.6, top_k=4)
    assert isinstance(asked(num_beams=2, force_words_ids=[[5]]), ConstrainedBeamSearch)
    for wrong in (
        {"penalty_alpha": 0.6, "do_sample": True}, {"penalty_alpha": 0.6, "num_beams": 2},
        {"force_words_ids": [[5]], "num_beams": 1}, {"force_words_ids": [[5]], "num_beams": 2, "do_sample": True},
        {"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, {"num_beams": 2, "constraints": [5]},
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            asked(**wrong)


def test_which_reading_options_ask_for() -> None:
    assert reading(GenerationConfig()) is reading(GenerationConfig(guidance_scale=1.0)) is None
    assert reading(GenerationConfig(dola_layers="low")) == Dola(layers="low")
    guidance = reading(GenerationConfig(guidance_scale=2.0, dola_layers=[1]), [0, 0, 5, 6], [0, 0, 1, 1])
    assert guidance == Guidance(scale=2.0, negative=(5, 6), of=Dola(layers=[1]))
    with pytest.raises(ArgumentError, match="no tokens"):
        reading(GenerationConfig(guidance_scale=2.0), [0, 0], [0, 0])
    with pytest.raises(ArgumentError, match="dola_layers=low with num_beams"):
        reading(GenerationConfig(dola_layers="low", num_beams=2))
    with pytest.raises(ArgumentError, match="dola_layers=low with penalty_alpha"):
        reading(GenerationConfig(dola_layers="low", penalty_alpha=0.6))


@pytest.mark.parametrize(
    "wrong", [{"sample": True}, {"n": 2}, {"reading": Dola(layers="low")}], ids=["drawing", "several", "a reading"]
)
def test_what_contrastive_search_does_not_go_with(wrong: dict[str, Any]) -> None:
    request = Request(ids=[5, 6], max_new=3, decoding=Contrastive(alpha=0.6, top_k=3), **wrong)
    [job] = Engine(tiny.make("llama")).generate([request])
    with pytest.raises(ArgumentError, match="contrastive search with"):
        job.result()


@pytest.mark.parametrize(
    "decoding", [BeamSearch(beams=3), Contrastive(alpha=0.6, top_k=3)], ids=["beams", "contrastive"]
)
def test_a_row_that_its_owner_keeps_stays_as_it_is(decoding: Any) -> None:
    """It lends what it holds; what branches off is given back at the end."""
    engine, prompt = Engine(tiny.make("llama")), tiny.ids(9).tolist()
    held = engine.sequence()
    list(engine.stream(Request(ids=prompt[:6], max_new=1), held))
    tokens = list(held.tokens)
    read = engine.main.computed
    with counted_forks() as forks:
        events = list(engine.stream(Request(ids=prompt, max_new=3, decoding=decoding), held))
    assert forks[0] >= 3
    assert held.tokens == tokens and not events[0][0].seqs
    [alone] = Engine(engine.model).generate([Request(ids=prompt, max_new=3, decoding=decoding)])
    assert [token for _, _, token in events] == alone.result()[0].ids
    if isinstance(decoding, BeamSearch):
        assert engine.main.computed - read == 3 + 2 * 3  # what was new of the prompt, then the beams
