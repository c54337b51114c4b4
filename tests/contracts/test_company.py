"""A request's tokens do not depend on its company, for every family that writes text.

Alone, among 2, 7 and 32, in chunks, behind shared prefixes, after its pages were taken away, and with guesses that are
confirmed: the ids are those of the request alone, in float32. Where two tokens are likelier than all others by the same
amount, within rounding, either may come; then what follows is not compared, and such a tie has to be one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from pellucid.engine.decoding import Guess
from pellucid.engine.decoding.line import Line
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request
from pellucid.engine.sequence import Feed, Seen

CASES = [c for c in ref.cases(variants=False) if c.task in ("causal-lm", "seq2seq-lm")]
MUTUAL = ("cpmant",)  # a text that is read at once sees all of itself: it has no log-probabilities token by token
CAUSAL = [c for c in CASES if c.task == "causal-lm" and c.family not in MUTUAL]
LENGTHS, NEW = (45, 1, 17, 70, 9, 38, 3), 6  # of prompts; a page has 32 tokens


@dataclass(frozen=True)
class HalfRight:
    """Guesses what the request says alone, and every other time something else."""

    answers: Sequence[tuple[list[int], list[int]]]

    def drafter(self, job: Job) -> HalfRight:
        return self

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield []
        return [Guess(self._tokens(line)[:n]) for line, n in zip(lines, most)]

    def _tokens(self, line: Line) -> list[int]:
        prompt, output = list(line.job.request.ids), line.output.ids
        known = next(after for before, after in self.answers if before == prompt)
        coming = known[len(output) : len(output) + 3]
        return [token if (len(output) + i) % 3 else (token + 1) % 7 + 3 for i, token in enumerate(coming)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        pass


def prompts_of(case: ref.Case) -> list[list[int]]:
    """Seven prompts; the sixth begins like the fourth."""
    given = ref.inputs(case, batch=len(LENGTHS), time=max(LENGTHS))["input_ids"].tolist()
    rows = [row[:n] for row, n in zip(given, LENGTHS)]
    rows[5] = [*rows[3][:35], *rows[5][35:]]
    return rows


def request(case: ref.Case, model: Any, prompt: list[int], **more: Any) -> Request:
    start = model.spec.decoder_start
    begin = [start if isinstance(start, int) else 2] if model.encoder is not None else []
    return Request(ids=prompt, begin=begin, max_new=NEW, **more)


def margin(model: Any, asked: Request, output: list[int]) -> float:
    """How much likelier the best token is than the next, after a prompt and an output, in logits."""
    seen: list[torch.Tensor] = []

    @dataclass(frozen=True)
    class Look:
        def __call__(self, ids: Sequence[int], logits_V: torch.Tensor) -> torch.Tensor:
            seen.append(logits_V)
            return logits_V

        def took(self, ids: Sequence[int], token: int, logits_V: torch.Tensor) -> None:
            pass

        def fork(self) -> Look:
            return self

    Engine(model).generate([Request(ids=asked.ids, begin=asked.begin, max_new=len(output) + 1, rules=[Look()])])
    best = seen[len(output)].topk(2).values
    return float(best[0] - best[1])


def compare(model: Any, asked: Request, right: list[int], found: list[int], how: str) -> None:
    if found == right:
        return
    at = next(i for i, (a, b) in enumerate(zip(right, found)) if a != b)
    apart = margin(model, asked, right[:at])
    assert apart < 1e-4, f"{how}: {found} where the request alone gives {right}; no tie, {apart} apart"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_company_does_not_matter(case: ref.Case, checkpoints: Path) -> None:
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompts = prompts_of(case)
    if model.spec.context is not None:
        prompts = [prompt[: model.spec.context - NEW] for prompt in prompts]
    alone = [Engine(model).generate([request(case, model, p)])[0].result()[0].ids for p in prompts]
    guesses = HalfRight(list(zip(prompts, alone)))

    def among(order: Sequence[int], engine: Engine, how: str, **more: Any) -> None:
        jobs = [engine.add(request(case, model, prompts[i], **more)) for i in order]
        while engine.busy:
            engine.step()
            engine.check()
        for i, job in zip(order, jobs):
            compare(model, job.request, alone[i], job.result()[0].ids, how)

    ways: dict[str, Callable[[], Engine]] = {
        "among 2": lambda: Engine(model, share=False),
        "among 7": lambda: Engine(model, share=False),
        "among 32": lambda: Engine(model, share=False),
        "in chunks": lambda: Engine(model, budget=37, share=False),
        "behind prefixes": lambda: Engine(model),
        "short of pages": lambda: Engine(model, pages=8),
    }
    orders = {"among 2": (3, 1), "among 32": [i % 7 for i in range(32)], "behind prefixes": (3, 5, 3, 0, 3)}
    for how, engine in ways.items():
        among(orders.get(how, range(7)), engine(), how)
    among((3, 5, 3), ways["behind prefixes"](), "with guesses", speculation=guesses)
    among(range(7), ways["among 7"](), "with guesses", speculation=guesses)


@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_sampling_reports_what_training_computes(case: ref.Case, checkpoints: Path) -> None:
    """Log-probabilities of sampled tokens, and of the prompt's, are those of one forward with gradients."""
    model = ref.ours(case, ref.checkpoint(case, checkpoints))
    prompt = prompts_of(case)[2][:11]
    engine = Engine(model)
    asked = [Request(ids=prompt, max_new=NEW, sample=True, seed=i, logprobs=2, prompt_logprobs=0) for i in range(2)]
    for job in engine.generate(asked):
        (output,) = job.result()
        whole = torch.tensor([[*prompt, *output.ids]])
        logits = model(whole).logits.float()  # with a graph behind it
        assert logits.requires_grad
        logits = logits.detach()
        logprobs = logits[0, :-1].log_softmax(-1)
        wanted = logprobs.gather(1, whole[0, 1:, None])[:, 0]
        reported = torch.tensor([each.logprob for each in (*job.prompt_logprobs, *output.logprobs)])
        assert (reported - wanted).abs().max() < 1e-5 * max(1.0, float(logits.abs().max()))
        for place, each in enumerate(output.logprobs):
            top = logprobs[len(prompt) - 1 + place].topk(2)
            assert torch.allclose(torch.tensor([p for _, p in each.top]), top.values, atol=1e-4)
