"""pellucid bench: how fast a model is on this machine, and what share of its bandwidth that is."""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pellucid import hub
from pellucid.cli._command import Command
from pellucid.cli._folder import size_text, table_text
from pellucid.cli._profile import AHEAD, profile, replays
from pellucid.cli.plan import columns
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.machine import available_cores, processor, read_rate
from pellucid.models.plan import Plan, plan

if TYPE_CHECKING:
    from pellucid.cache.pages import Pages
    from pellucid.engine.engine import Engine
    from pellucid.engine.request import Request
    from pellucid.models.model import Model

SHORT = 16  # tokens before those that are counted
SPARE = 4  # pages beside those of a row's tokens
FIRST = 3  # ids below it are often special


@click.command("bench", cls=Command)
@click.argument("model", required=False)
@click.option("--prompt", type=int, help="Tokens of the prompt that is timed; 512, or the model's context.")
@click.option("--new", type=int, default=32, show_default=True, help=f"Tokens to decode, behind {SHORT}.")
@click.option("--batch", default="1,8", show_default=True, help="Rows at once, each number on its own.")
@click.option("--context", help="Decode at these depths too: 16,2000.")
@click.option("--repeats", type=int, default=3, show_default=True, help="Runs; the fastest counts.")
@click.option("--threads", type=int, help="Threads to use; torch's choice if not said.")
@click.option("--dtype", help="To compute in; the file's if not said.")
@click.option("--profile", "profiled", is_flag=True, help="Where each millisecond of a decode step goes.")
@click.option("--json", "as_json", is_flag=True, help="Only the last line: one JSON object.")
def command(
    model: str | None,
    prompt: int | None,
    new: int,
    batch: str,
    context: str | None,
    repeats: int,
    threads: int | None,
    dtype: str | None,
    profiled: bool,
    as_json: bool,
) -> None:
    """Measure MODEL (a folder, a .gguf file, a hub id) with random tokens: loading, prompts, decoding, memory.

    \b
    pellucid bench ./gemma
    pellucid bench x.gguf --batch 1,8,32 --context 16,2000
    pellucid bench ./gemma --threads 1 --profile

    The last line is JSON. Speeds are tokens a second, all rows counted; the fastest of --repeats runs counts.
    """
    for name, value in (("--new", new), ("--repeats", repeats), ("--prompt", prompt), ("--threads", threads)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name} {value}", where=name, next="give 1 or more")
    asked = Asked(prompt, new, numbers("--batch", batch), numbers("--context", context), repeats, threads, dtype)
    folder = hub.resolve(model)
    found = measure(folder, asked, profiled=profiled)
    if not as_json:
        click.echo(text(found))
    click.echo(json.dumps(rounded(found)))


def rounded(value: Any) -> Any:
    """Numbers to five digits: the machine's noise is larger."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def numbers(option: str, given: str | None) -> list[int]:
    """Whole numbers from 1, with commas between them.

    Raises:
        ArgumentError: something else is there.
    """
    parts = [part.strip() for part in given.split(",")] if given is not None else []
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ArgumentError(f"{option} {given!r}", where=option, next="give whole numbers with commas: 1,8")
    return [int(part) for part in parts]


@dataclass(frozen=True)
class Asked:
    """What to measure."""

    prompt: int | None
    new: int
    batches: Sequence[int]
    contexts: Sequence[int]
    repeats: int
    threads: int | None
    dtype: str | None


# ------------------------------------------------------------------------------------------------ measuring


def measure(folder: Path, asked: Asked, *, profiled: bool = False) -> dict[str, Any]:
    """Every figure, by its name in the JSON line.

    Raises:
        ArgumentError: more tokens than the model has positions for.
    """
    sketch = plan(folder, dtype=asked.dtype, measure=False)  # refuses what is no model before torch is imported
    new = asked.new + 1 + AHEAD * profiled
    deepest = max([asked.prompt or 0, SHORT + asked.new, *(depth + new for depth in asked.contexts)])
    if sketch.made_for is not None and deepest > sketch.made_for:
        what = f"{deepest} tokens, and the model was made for {sketch.made_for}"
        raise ArgumentError(what, where="bench", next="give a smaller --prompt, --new or --context")
    import torch

    from pellucid.models.loading import load

    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    threads = torch.get_num_threads()
    cores = min(threads, available_cores())
    bandwidth = read_rate(cores)
    start = time.perf_counter()
    model = load(task=sketch.task, folder=folder, dtype=asked.dtype)
    loaded = time.perf_counter() - start
    run = Run(model, sketch, asked)
    with torch.inference_mode():
        found = run.figures() | (run.profile() if profiled else {})
    bandwidth = max(bandwidth, read_rate(cores))
    return {
        "model": str(folder), "family": sketch.family, "task": sketch.task, "dtype": sketch.dtype,
        "parameters": sketch.parameters, "threads": threads, "cpu": processor(), "read_gb_per_s": bandwidth / 1e9,
        "load_s": loaded, **found, **shares(found, bandwidth), "peak_rss_gb": resident_peak(),
        "slowest": run.slowest,
    }  # fmt: skip


def shares(found: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """How near decoding comes to reading its bytes as fast as the machine reads."""
    if "decode_tok_s" not in found:
        return {}
    for row in found.get("profile", ()):
        row["gb_per_s"] = row["bytes"] / row["ms"] / 1e6 if row["bytes"] else None
        row["share"] = row["gb_per_s"] * 1e9 / bandwidth if row["bytes"] else None
    return {"bandwidth_share": found["decode_tok_s"] * found["bytes_per_token"] / bandwidth}


def resident_peak() -> float | None:
    """GiB that this process has held at most; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


@dataclass
class Run:
    """One model under measurement, with its random ids."""

    model: Model
    plan: Plan
    asked: Asked
    slowest: dict[str, float] = field(default_factory=dict)
    engine: Engine = field(init=False)

    def figures(self) -> dict[str, Any]:
        asked = self.asked
        prompt = asked.prompt or min(512, self.plan.made_for or 512)
        self.read(8)
        found: dict[str, Any] = {"prompt": prompt}
        found |= self.rate("prefill", prompt, partial(self.read, prompt))
        if not self.decodes:
            for rows in (n for n in asked.batches if n > 1):
                found |= self.rate(f"batch{rows}_prefill", rows * prompt, partial(self.read, prompt, rows))
            return found
        found |= {"short": SHORT, "new": asked.new, "bytes_per_token": self.sketch(SHORT + asked.new // 2).read}
        self.generate(1)
        for rows in dict.fromkeys([1, *asked.batches]):
            name = "decode" if rows == 1 else f"batch{rows}"
            found |= self.rate(name, rows * asked.new, partial(self.generate, rows))
        for depth in asked.contexts:
            before = partial(self.behind, depth, asked.new + 1)
            found |= self.rate(f"depth{depth}", asked.new, self.finish, before)
        return found

    @property
    def decodes(self) -> bool:
        return self.plan.task in ("causal-lm", "seq2seq-lm")

    def sketch(self, context: int) -> Plan:
        """What a step of one row behind so many tokens takes."""
        return plan(Path(self.plan.model), dtype=self.asked.dtype, context=context, measure=False)

    def rate(
        self, name: str, tokens: int, run: Callable[[], object], before: Callable[[], object] = lambda: None
    ) -> dict[str, float]:
        """Tokens a second of the fastest of all runs; the slowest is noted. What is done before each is not timed."""
        rates = []
        for _ in range(self.asked.repeats):
            before()
            start = time.perf_counter()
            run()
            rates.append(tokens / (time.perf_counter() - start))
        self.slowest[f"{name}_tok_s"] = min(rates)
        return {f"{name}_tok_s": max(rates)}

    # ------------------------------------------------------------------------------------ what is run

    def ids(self, rows: int, tokens: int) -> list[list[int]]:
        """The same random ids every time."""
        chance, vocab = random.Random(0), self.model.spec.vocab
        return [[chance.randrange(min(FIRST, vocab - 1), vocab) for _ in range(tokens)] for _ in range(rows)]

    def read(self, prompt: int, rows: int = 1) -> None:
        """One forward with all its logits; of an encoder-decoder, the encoder's."""
        import torch

        ids = torch.tensor(self.ids(rows, prompt))
        self.model.encode(ids) if self.model.encoder is not None else self.model(ids)

    def generate(self, rows: int) -> None:
        """Greedy tokens behind a few, for all rows at once."""
        from pellucid.engine.engine import generate

        generate(self.model, self.requests(rows, SHORT, self.asked.new))

    def requests(self, rows: int, tokens: int, new: int) -> list[Request]:
        from pellucid.engine.asking import Prompt, requests
        from pellucid.engine.options import GenerationConfig

        options = GenerationConfig(max_new_tokens=new, do_sample=False)
        start = None if self.model.encoder is None else [self.start]
        return requests(self.model, options, [Prompt(ids=ids, begin=start) for ids in self.ids(rows, tokens)])

    @property
    def start(self) -> int:
        """The token that opens an output; any will do."""
        start = self.model.spec.decoder_start
        return start if isinstance(start, int) else FIRST

    def behind(self, depth: int, new: int, pages: Pages | None = None) -> None:
        """Begins a row: it has read a prompt of so many tokens and chosen one."""
        from pellucid.engine.engine import Engine

        self.engine = Engine(self.model, pages)
        self.engine.add(self.requests(1, depth, new)[0])
        while self.engine.busy and not self.engine.step():
            pass

    def finish(self) -> None:
        """The rest of that row's tokens."""
        while self.engine.busy:
            self.engine.step()

    def profile(self) -> dict[str, Any]:
        """The kinds of work in a step behind the deepest context that was asked for, and what measuring them costs."""
        if not self.decodes:
            what = f"a {self.plan.family} model for {self.plan.task} decodes nothing"
            raise Unsupported(what, where="--profile", next="leave --profile out")
        depth, steps = max([SHORT, *self.asked.contexts]), self.asked.new
        cached = self.sketch(depth + steps // 2).read_of_cache
        rounds, bare = [], []
        for _ in range(self.asked.repeats):
            self.recorded(depth, steps)
            start = time.perf_counter()
            self.finish()
            bare.append((time.perf_counter() - start) / steps)
            self.recorded(depth, steps)
            rounds.append(profile(self.engine, cached, depth + AHEAD + steps + 1))
        rows = min(rounds, key=lambda rows: sum(row["ms"] for row in rows))
        took = sum(row["ms"] for row in rows)
        return {
            "profile": rows, "profile_depth": depth, "profile_replayed": replays(self.engine) is not None,
            "step_ms": 1e3 * min(bare), "profiled_step_ms": took,
        }  # fmt: skip

    def recorded(self, depth: int, steps: int) -> None:
        """Begins a row that has so many steps left, each like the other: one is recorded, where any is."""
        from pellucid.cache.group import PAGE
        from pellucid.cache.pages import Pages

        new = AHEAD + steps + 1
        self.behind(depth, new, Pages(SPARE + (depth + new) // PAGE))
        for _ in range(AHEAD):
            self.engine.step()


# ------------------------------------------------------------------------------------------------ the page


def text(found: dict[str, Any]) -> str:
    """The figures on one screen."""
    speeds = [name for name in found if name.endswith("_tok_s")]
    lines = [
        ("model", f"{found['model']}: {found['family']}, {found['parameters']:,} parameters, {found['dtype']}"),
        ("machine", f"{found['cpu']}, {found['threads']} threads, reads {found['read_gb_per_s']:.1f} GB/s"),
        ("load", f"{found['load_s']:.2f} s"),
        *((label(name), rate_text(found, name)) for name in speeds),
    ]
    if "bandwidth_share" in found:
        size = size_text(found["bytes_per_token"])
        lines.append(("bandwidth", f"{found['bandwidth_share']:.0%} of it in decode: {size} for each token"))
    else:
        lines.append(("decode", "nothing: this model reads a text once"))
    if found["peak_rss_gb"] is not None:
        lines.append(("memory", f"{found['peak_rss_gb']:.2f} GiB at most"))
    page = table_text(lines)
    return f"{page}\n\n{profile_text(found)}" if "profile" in found else page


def label(name: str) -> str:
    """`depth2000_tok_s` as `depth 2000`."""
    kind, number = re.fullmatch(r"([a-z]+)(\d*)(?:_prefill)?_tok_s", name).groups()  # type: ignore[union-attr]
    return f"{'prompt' if kind == 'prefill' else kind} {number}".strip()


def rate_text(found: dict[str, Any], name: str) -> str:
    """A speed, how it was taken, and how far the slowest run was from it."""
    best, slowest = found[name], found["slowest"][name]
    how = ""
    if "prefill" in name:
        how = f" ({found['prompt']} tokens{', with all logits' if found['task'] == 'causal-lm' else ''})"
    elif name == "decode_tok_s":
        how = f" ({found['new']} tokens behind {found['short']})"
    return f"{best:.1f} tokens/s{how}" + (f", slowest {slowest:.1f}" if slowest < 0.995 * best else "")


def profile_text(found: dict[str, Any]) -> str:
    """The table of a step's milliseconds."""
    total = found["profiled_step_ms"]
    table: list[tuple[str, ...]] = [("one step", "ms", "of the step", "bytes", "GB/s", "of bandwidth", "kernels, ms")]
    for row in found["profile"]:
        share = ("", "", "")
        if row["bytes"]:
            share = (size_text(row["bytes"]), f"{row['gb_per_s']:.1f}", f"{row['share']:.0%}")
        table.append((row["kind"], f"{row['ms']:.3f}", f"{row['ms'] / total:.1%}", *share, kernels_text(row)))
    size = sum(row["bytes"] for row in found["profile"])
    table.append(("all", f"{total:.3f}", "100%", size_text(size), f"{size / total / 1e6:.1f}", "", ""))
    what = "replayed" if found["profile_replayed"] else "computed by the modules: none was recorded"
    cost = f"{what}; behind {found['profile_depth']} tokens; without measuring {found['step_ms']:.3f} ms a step"
    return f"{columns(table)}\n{cost}"


def kernels_text(row: dict[str, Any]) -> str:
    """Milliseconds of a kind's kernels, the longest first, where there are several."""
    by = sorted(row.get("by", {}).items(), key=lambda one: -one[1])
    return ", ".join(f"{kernel} {ms:.3f}" for kernel, ms in by) if len(by) > 1 else ""
