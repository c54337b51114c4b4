"""pellucid quantize: the same model in fewer bits."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._folder import size_text, table_text
from pellucid.errors import ArgumentError, InputError
from pellucid.models.targets import TARGETS, Options, Progress, Report, Target, find

SMALL = 1e9  # bytes of a model whose predictions are compared, if nobody says
EVERY = 0.2  # seconds between two lines of progress


@click.command("quantize", cls=Command)
@click.argument("source", metavar="IN", required=False)
@click.argument("out", metavar="OUT", required=False)
@click.option("--to", "to", metavar="KIND", help="What to write: q4_k_m, q8_0, …; --list has them all.")
@click.option("--calibrate", "--imatrix", "text", metavar="FILE", help="A text: what it needs most loses least.")
@click.option("--measure/--no-measure", default=None, help="Compare predictions before and after; for small models.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the target.")
@click.option("--force", is_flag=True, help="Write over OUT.")
@click.option("--list", "listed", is_flag=True, help="The kinds that there are.")
@json_option
def command(
    source: str | None,
    out: str | None,
    to: str | None,
    text: str | None,
    measure: bool | None,
    settings: tuple[str, ...],
    force: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Write the model IN (a folder, a hub id or a .gguf file) to OUT in fewer bits, one tensor at a time.

    \b
    pellucid quantize ./llama llama.gguf --to q4_k_m
    pellucid quantize ./llama llama.gguf --to q4_k_m --imatrix book.txt
    pellucid quantize --list
    """
    if listed:
        names = {name: f"{each.help} ({each.container})" for name, each in TARGETS.items()}
        print_json(names) if as_json else click.echo(table_text(list(names.items())))
        return
    if source is None or out is None or to is None:
        raise click.UsageError("IN, OUT and --to KIND are needed; --list has the kinds")
    target = find(to)
    place = placed(Path(out), target, force)
    calibration, chosen = read(text), dict(map(setting, settings))
    began = time.monotonic()
    folder = hub.resolve(source)
    says, notes = beside_model(folder, gguf=target.container == "gguf")
    options = Options(text=calibration, settings=chosen, progress=Line(), says=says)
    report = target.run(folder, place, options)
    report.notes.extend(notes)
    facts = told(report, time.monotonic() - began)
    if measure or (measure is None and report.before < SMALL and hub.has_tokenizer(folder)):
        from pellucid.models.packing_to_disk import quality

        facts["quality"] = quality(folder, place, options.text).facts()
    if target.container != "gguf":  # a file has its card inside
        from pellucid.models.describing import write_packed_card

        write_packed_card(folder, place, packed(target, options, report), measured(facts.get("quality", {})))
    print_json(facts) if as_json else click.echo(summary(report, facts))


def beside_model(folder: Path, *, gguf: bool) -> tuple[Mapping[str, Any], list[str]]:
    """What a GGUF file says beside the model (`Options.says`), and notes of what it cannot say."""
    if not gguf:
        return {}, []
    from pellucid.tasks.sentence_layout import said_in_gguf

    return said_in_gguf(folder)


def packed(target: Target, options: Options, report: Report) -> list[tuple[str, str]]:
    """What a card says of how a model was packed."""
    settings = ", ".join(f"{name}={value}" for name, value in options.settings.items())
    kinds = ", ".join(f"{count} {kind} ({size_text(size)})" for kind, (count, size) in report.kinds.items())
    rows = [
        ("format", f"{target.name}: {target.help}"),
        ("settings", settings),
        ("calibrated", "on a text that was given" if options.text else ""),
        ("tensors", kinds),
        ("size", f"{size_text(report.before)} -> {size_text(report.after)}"),
    ]
    return [(name, value) for name, value in rows if value]


def placed(out: Path, target: Target, force: bool) -> Path:
    """Where to write.

    Raises:
        ArgumentError: a name that does not fit the container, or something is there.
    """
    if (out.suffix == ".gguf") != (target.container == "gguf"):
        want = "a file whose name ends in .gguf" if target.container == "gguf" else "a folder"
        raise ArgumentError(f"{target.name} is written as {want}", where=out, next=f"give the name of {want}")
    return free(out, force)


def free(out: Path, force: bool) -> Path:
    """The same path.

    Raises:
        ArgumentError: something is there, and may not be written over.
    """
    taken = out.exists() if out.suffix == ".gguf" or not out.is_dir() else any(out.iterdir())
    if taken and not force:
        raise ArgumentError("there is something already", where=out, next="give another name, or --force")
    return out


def read(name: str | None) -> str | None:
    """The text of a file.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        return None if name is None else Path(name).read_text(encoding="utf-8")
    except UnicodeError as error:
        raise InputError(f"the text is not UTF-8: {error}", where=name, next="convert it to UTF-8") from None


def setting(text: str) -> tuple[str, Any]:
    """`group_size=64` -> name and value; a number or true or false where it is one."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ArgumentError(f"{text!r} is no NAME=VALUE", where="--set", next="such as --set group_size=64")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            pass
    return name, value


class Line:
    """Progress on standard error: one line, drawn over itself on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, step: Progress) -> None:
        now = time.monotonic()
        if step.done < step.tensors and now - self.last < (EVERY if self.live else 50 * EVERY):
            return
        self.last = now
        rate = size_text(int(step.read / max(now - self.began, 1e-3)))
        line = f"{step.done}/{step.tensors} tensors, {size_text(step.read)} read, {rate}/s  {step.what}"
        end = step.done == step.tensors or not self.live
        click.echo(f"\r{line:.100}\033[K" if self.live else line, err=True, nl=end)


def told(report: Report, seconds: float) -> dict[str, Any]:
    """The report for scripts."""
    return {
        "files": [str(path) for path in report.files],
        "kinds": {kind: {"tensors": count, "bytes": size} for kind, (count, size) in report.kinds.items()},
        "bytes_before": report.before,
        "bytes_after": report.after,
        "seconds": round(seconds, 2),
        "notes": report.notes,
    }


def summary(report: Report, facts: dict[str, Any]) -> str:
    """The report on a few lines."""
    kinds = ", ".join(f"{count} {kind} ({size_text(size)})" for kind, (count, size) in report.kinds.items())
    share = report.after / max(report.before, 1)
    rows = [
        ("written", f"{report.files[0]}" + (f" and {len(report.files) - 1} more" if report.files[1:] else "")),
        ("size", f"{size_text(report.before)} -> {size_text(report.after)} ({share:.0%}), {facts['seconds']} s"),
        ("tensors", kinds),
        *(("note", note) for note in report.notes),
    ]
    return table_text(rows + [("quality", line) for line in measured(facts.get("quality", {}))])


def measured(quality: dict[str, float]) -> list[str]:
    """What packing cost, in a line or two."""
    found = []
    if "perplexity_before" in quality:
        found.append(f"perplexity {quality['perplexity_before']:.4g} -> {quality['perplexity_after']:.4g}")
    if "kl_mean" in quality:
        found.append(f"KL {quality['kl_mean']:.3g} nats, the same first choice in {quality['same_top']:.1%} of places")
    if "drift" in quality:
        found.append(f"outputs drift by {quality['drift']:.2%}")
    return [f"{line}  ({quality['tokens']:,.0f} tokens)" for line in found]
