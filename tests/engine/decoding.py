"""What the tests of decoding strategies share: both libraries on the same prompts, and loops written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import reference as ref
from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Request

LENGTHS = (11, 4, 17)  # of three prompts
EOS = (5, 9, 13)  # of several ends, one comes soon


def case_of(family: str) -> ref.Case:
    return ref.case(family, "", "seq2seq-lm" if family in ("t5", "bart") else "causal-lm")


def prompts_of(case: ref.Case, lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    given = ref.inputs(case, batch=len(lengths), time=max(lengths), seed=3)["input_ids"].tolist()
    return [row[:n] for row, n in zip(given, lengths)]


def pair(family: str, checkpoints: Path) -> tuple[Any, Any]:
    return ref.pair(case_of(family), checkpoints)


def begin_of(model: Any) -> list[int]:
    return [] if model.encoder is None else [model.spec.decoder_start]


def run(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[Job]:
    """Our jobs for some prompts, in one engine."""
    options = {"max_new": 12, "eos": frozenset(EOS), **options}
    engine = Engine(model)
    jobs = engine.generate([Request(ids=prompt, begin=begin_of(model), **options) for prompt in prompts])
    for job in jobs:
        job.result()
    return jobs


def generate(model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> Any:
    """The reference's output for some prompts, padded on the side that the model wants."""
    both = model.config.is_encoder_decoder
    longest = max(map(len, prompts))
    fill = [[0] * (longest - len(prompt)) for prompt in prompts]
    ids = torch.tensor([[*p, *f] if both else [*f, *p] for p, f in zip(prompts, fill)])
    ones = [[1] * len(prompt) for prompt in prompts]
    mask = torch.tensor([[*o, *f] if both else [*f, *o] for o, f in zip(ones, fill)])
    usual = {
        "max_new_tokens": 12, "eos_token_id": list(EOS), "pad_token_id": 1, "do_sample": False, "top_k": 0,
        "forced_eos_token_id": None, "forced_bos_token_id": None, "return_dict_in_generate": True,
        "output_scores": True, "output_logits": True,
    }  # fmt: skip
    with torch.no_grad():
        return model.generate(ids, attention_mask=mask, **{**usual, **options})


def forward(model: Any, prompt: Sequence[int], new: Sequence[int], **options: Any) -> Any:
    """The reference's output over all tokens, without a cache; the last row of its logits says what follows."""
    options["output_hidden_states"] = True
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            start = model.config.decoder_start_token_id
            return model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *new]]), **options)
        return model(torch.tensor([[*prompt, *new]]), use_cache=False, **options)


def contains(ids: Sequence[int], word: Sequence[Any]) -> bool:
    """Whether a phrase occurs in some ids, or one of several phrases."""
    phrases = word if isinstance(word[0], list) else [word]
    return any(list(ids[i : i + len(p)]) == list(p) for p in phrases for i in range(len(ids)))


@contextmanager
def counted_forks() -> Iterator[list[int]]:
    """How many sequences were copied."""
    from pellucid.engine.sequence import Seq

    found, fork = [0], Seq.fork

    def counted(self: Seq, home: set[Seq] | None = None) -> Seq:
        found[0] += 1
        return fork(self, home)

    Seq.fork = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Seq.fork = fork  # type: ignore[method-assign]
