"""The engine beside the reference library: many requests, shared prompts, grammars, and what a step costs.

    python benchmarks/engine.py workload DIR [--rounds 3] [--record]   32 requests of mixed lengths, beside transformers
    python benchmarks/engine.py shared DIR [--rounds 5] [--record]     16 requests behind one prompt of 512 tokens
    python benchmarks/engine.py json DIR [--rounds 5] [--record]       JSON under a schema beside free text
    python benchmarks/engine.py overhead [--rounds 5] [--record]       milliseconds of a step beside the model's own

DIR is a bf16 checkpoint of ../shared/bench/peers.py (160m). Everything runs in one process, in turns (A B A B …);
medians with the smallest and the largest value.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

import pellucid
from compare import STATISTICS, finish
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request

REQUESTS, SHARED, BEHIND = 32, 512, 16
PADDED = 32  # rows of transformers' padded batches: 4 made 65 tokens/s here, 8 made 82, 16 made 91, 32 made 99
VOCAB = 32000
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 8},
        "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string"}}},
    },
    "required": ["name", "age", "tags", "address"],
}


def in_turns(rounds: int, runs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each function measured, in turns; the first turn warms up and does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            value = run()
            if turn:
                found[name].append(value)
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    return {name: round(f(values), 4) for name, f in STATISTICS}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    return summary([a / b for a, b in zip(ours, theirs)])


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def load(folder: str) -> Any:
    return pellucid.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


# ------------------------------------------------------------------------------------------------ many requests


def workload(args: argparse.Namespace) -> None:
    """Prompts of 16 to 255 tokens and outputs of 16 to 127, at random; useful tokens per second, all of 32 requests."""
    from transformers import AutoModelForCausalLM

    chance = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, VOCAB, (int(torch.randint(16, 256, (), generator=chance)),), generator=chance).tolist()
        for _ in range(REQUESTS)
    ]
    wishes = torch.randint(16, 128, (REQUESTS,), generator=chance).tolist()
    useful = sum(wishes)
    ours, theirs = load(args.dir), AutoModelForCausalLM.from_pretrained(args.dir, dtype=torch.bfloat16)
    texts: dict[str, list[list[int]]] = {}

    def engine() -> float:
        requests = [Request(ids=prompt, max_new=most) for prompt, most in zip(prompts, wishes)]
        start = time.perf_counter()
        jobs = Engine(ours).generate(requests)
        rate = useful / (time.perf_counter() - start)
        texts["pellucid"] = [job.result()[0].ids for job in jobs]
        return rate

    def padded() -> float:
        start, found = time.perf_counter(), []
        for begin in range(0, REQUESTS, PADDED):
            rows, most = prompts[begin : begin + PADDED], wishes[begin : begin + PADDED]
            width = max(map(len, rows))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            out = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=max(most),
                                  min_new_tokens=max(most), pad_token_id=0)  # fmt: skip
            found += [row[width : width + n].tolist() for row, n in zip(out, most)]
        texts["padded"] = found
        return useful / (time.perf_counter() - start)

    def continuous() -> float:
        from transformers import GenerationConfig

        settings = GenerationConfig(max_new_tokens=max(wishes), do_sample=False, eos_token_id=-1, pad_token_id=0)
        start = time.perf_counter()
        manager = theirs.init_continuous_batching(generation_config=settings)
        manager.start()
        for prompt, most in zip(prompts, wishes):
            manager.add_request(prompt, max_new_tokens=most)
        made = 0
        for _ in range(REQUESTS):
            result = None
            while result is None:
                result = manager.get_result(timeout=60)
            made += len(result.generated_tokens)
        rate = made / (time.perf_counter() - start)
        manager.stop(block=True)
        if made != useful:
            raise SystemExit(f"continuous batching made {made} tokens of {useful}")
        return rate

    runs = {"pellucid": engine, "padded": padded} | ({} if args.skip_continuous else {"continuous": continuous})
    rates = in_turns(args.rounds, runs)
    figures: dict[str, Any] = {f"{name}, tokens/s": summary(values) for name, values in rates.items()}
    for name in rates.keys() - {"pellucid"}:
        figures[f"pellucid / {name}"] = ratios(rates["pellucid"], rates[name])
    same = sum(a == b for a, b in zip(texts["pellucid"], texts["padded"]))
    first = sum(a[0] == b[0] for a, b in zip(texts["pellucid"], texts["padded"]))
    check = {"requests": REQUESTS, "same first token as the reference": first, "same tokens throughout (bf16)": same}
    finish(args, "engine: 32 requests of mixed lengths, bf16", figures, check)


def shared(args: argparse.Namespace) -> None:
    """Time to the first token of each of 16 requests that begin with the same 512 tokens, one after the other."""
    model = load(args.dir)
    chance = torch.Generator().manual_seed(0)
    prefix = torch.randint(3, VOCAB, (SHARED,), generator=chance).tolist()
    prompts = [[*prefix, *torch.randint(3, VOCAB, (8,), generator=chance).tolist()] for _ in range(BEHIND)]
    firsts: dict[bool, list[int]] = {}

    def run(share: bool) -> float:
        engine = Engine(model, share=share)
        engine.generate([Request(ids=[*prefix, 7], max_new=1)])  # whoever came before
        start, times, found = time.perf_counter(), [], []
        for prompt in prompts:
            engine.add(Request(ids=prompt, max_new=1))
        while engine.busy:
            for job, _, token in engine.step():
                times.append(time.perf_counter() - start)
                found.append((job.order, token))
        firsts[share] = [token for _, token in sorted(found)]
        return statistics.mean(times)

    times = in_turns(args.rounds, {"without": lambda: run(False), "with": lambda: run(True)})
    figures = {name: summary(values) for name, values in times.items()}
    figures["without / with"] = ratios(times["without"], times["with"])
    check = {"same first tokens": sum(a == b for a, b in zip(firsts[True], firsts[False])), "of": BEHIND}
    finish(args, "engine: 16 requests behind one prompt of 512 tokens, mean seconds to the first token", figures, check)


def json_output(args: argparse.Namespace) -> None:
    """Tokens per second under a JSON schema, and free, over the same number of tokens."""
    from pellucid.engine.grammar import grammar_rule

    model = load(args.dir)
    tokenizer = pellucid.AutoTokenizer.from_pretrained(args.tokenizer)
    wanted = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    prompt = tokenizer.encode("A person as JSON: ")
    kept: list[bool] = []

    def run(free: bool) -> float:
        rules = [] if free else [grammar_rule(wanted, tokenizer, vocab=VOCAB, eos={2}, begin=len(prompt))]
        requests = [
            Request(
                ids=prompt, max_new=96, eos=frozenset() if free else frozenset({2}), rules=rules, sample=True, seed=i
            )
            for i in range(args.batch)
        ]
        engine, made = Engine(model), 0
        start = time.perf_counter()
        jobs = engine.generate(requests)
        took = time.perf_counter() - start
        for job in jobs:
            made += len(job.result()[0].ids)
            if not free:  # a random model hardly ever closes its strings: each text begins one of the schema
                rule = grammar_rule(wanted, tokenizer, vocab=VOCAB, eos={2}, begin=len(prompt))
                kept.append(rule.accepts(prompt, job.outputs[0].ids) == len(job.outputs[0].ids))
        return made / took

    rates = in_turns(args.rounds, {"free": lambda: run(True), "schema": lambda: run(False)})
    figures = {f"{name}, tokens/s": summary(values) for name, values in rates.items()}
    figures["schema / free"] = ratios(rates["schema"], rates["free"])
    finish(
        args, f"engine: JSON schema, batch {args.batch}", figures, {"texts of the schema": sum(kept), "of": len(kept)}
    )


def overhead(args: argparse.Namespace) -> None:
    """A step of the small model beside the forward inside it, in milliseconds: what the engine itself costs."""
    model = pellucid.AutoModelForCausalLM.from_pretrained()

    def run(rows: int) -> float:
        engine = Engine(model)
        for _ in range(rows):
            engine.add(Request(ids=[1, 403, 407], max_new=120))
        inside = 0.0
        whole_model, predict, finish_row = model.run, model.predict, time.perf_counter

        def timed(f: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal inside
                start = finish_row()
                result = f(*arguments)
                inside += finish_row() - start
                return result

            return call

        engine.step()
        model.run, model.predict = timed(whole_model), timed(predict)
        try:
            start, steps = time.perf_counter(), 0
            while engine.busy:
                engine.step()
                steps += 1
            whole = time.perf_counter() - start
        finally:
            del model.run, model.predict
        return (whole - inside) / steps * 1e3

    times = in_turns(args.rounds, {f"batch {rows}": partial(run, rows) for rows in (1, 32)})
    figures = {f"{name}, ms": summary(values) for name, values in times.items()}
    finish(args, "engine: a step beside the model, 260K parameters", figures, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, rounds in (("workload", workload, 3), ("shared", shared, 5), ("json", json_output, 5),
                              ("overhead", overhead, 5)):  # fmt: skip
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--record", action="store_true")
        if run is not overhead:
            command.add_argument("dir")
        if run is workload:
            command.add_argument("--skip-continuous", action="store_true")
        if run is json_output:
            command.add_argument("--batch", type=int, default=1)
            command.add_argument("--tokenizer", required=True, help="one of 32000 tokens (Mistral's)")
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
