"""pellucid check: does a model folder hold together, and what will it need; without a folder: what has this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from pellucid import hub, quant
from pellucid.cli import _text
from pellucid.cli._command import Command, json_option, print_json, printable
from pellucid.cli._folder import Known, packing, size_text, understand
from pellucid.errors import PellucidError
from pellucid.text.card import read_card
from pellucid.text.licenses import for_commercial_use
from pellucid.weights.source import Weights, open_weights

T = TypeVar("T")


@click.command("check", cls=Command)
@click.argument("dir", required=False)
@click.option("--license-for", "use", type=click.Choice(["commercial"]), help="Warn if the licence does not allow it.")
@json_option
@click.pass_context
def command(ctx: click.Context, dir: str | None, use: str | None, as_json: bool) -> None:
    """Look over the model folder DIR: config, weights, tokenizer, memory. Nothing is changed or downloaded.

    Without DIR: this machine, its native kernels, and what is missing.

    Exits with 0 if nothing failed, 1 if something did, 2 if there is no such folder.

    \b
    pellucid check ./gemma
    pellucid check ./gemma --license-for commercial
    pellucid check
    """
    if use and dir is None:
        raise click.UsageError("--license-for is about a model: give its DIR", ctx)
    folder = hub.resolve(dir, offline=True) if dir is not None else None
    found = look_over(folder) if folder else machine()
    if folder and use:
        found.attempt("license", look_at_license, folder)
    if as_json:
        lines = [asdict(one) for one in found.lines]
        where = {"folder": str(folder)} if folder else {}
        print_json({**where, "ok": not found.failed, "findings": lines, **found.facts})
    else:
        for one in found.lines:
            click.echo(printable(one.text()))
        warned = sum(one.level == "warn" for one in found.lines)
        fine = "holds together" if folder else "nothing is missing"
        click.echo(f"\n{found.failed} failed, {warned} to look at" if found.failed or warned else f"\n{fine}")
    ctx.exit(1 if found.failed else 0)


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warn", "FAIL"]
    part: str
    what: str
    next: str = ""

    def text(self) -> str:
        lines = [f"{self.level:<4}  {self.part:<9}  {self.what}"]
        return "\n".join(lines + [f"{'':<17}next: {self.next}"] * bool(self.next))


@dataclass
class Findings:
    """All lines, and numbers for scripts."""

    lines: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def ok(self, part: str, what: str) -> None:
        self.lines.append(Finding("ok", part, what))

    def warn(self, part: str, what: str, next: str = "") -> None:
        self.lines.append(Finding("warn", part, what, next))

    def fail(self, part: str, what: str, next: str) -> None:
        self.lines.append(Finding("FAIL", part, what, next))

    @property
    def failed(self) -> int:
        return sum(one.level == "FAIL" for one in self.lines)

    def attempt(self, part: str, look: Callable[..., T], *things: object) -> T | None:
        """What `look` returns; where it raises, None and a line that says why."""
        try:
            return look(self, *things)
        except PellucidError as error:
            place = f" ({error.where})" if error.where else ""
            self.fail(part, f"{error.what}{place}".replace("\n", " "), error.next or "correct the file")
        except OSError as error:
            self.fail(part, f"{error.strerror} ({error.filename})", "check the file and its permissions")
        except Exception as error:  # the folder is broken in a way that its reader does not name yet
            what = f"cannot be used: {type(error).__name__}: {error}"
            self.fail(part, what, "compare the file with a working one; please report that this line is not clearer")
        return None


def machine() -> Findings:
    """What this machine has."""
    from pellucid.cli import _machine

    found = Findings()
    found.attempt("machine", _machine.look_at_machine)
    return found


def look_over(folder: Path) -> Findings:
    """Every part of a folder, as far as the parts before it allow."""
    found = Findings()
    known = found.attempt("config", look_at_config, folder)
    weights = found.attempt("weights", look_at_files, folder)
    if known and weights:
        from pellucid.cli import _tensors

        found.attempt("weights", _tensors.look_at_tensors, known, weights)
        found.attempt("memory", _tensors.look_at_memory, known, weights)
    tokenizer = found.attempt("tokenizer", _text.look_at_tokenizer, folder)
    if known:
        if tokenizer:
            found.attempt("tokenizer", _text.look_at_vocabulary, known, tokenizer)
            found.attempt("tokenizer", _text.look_at_limit, known, tokenizer)
        found.attempt("special", _text.look_at_special_ids, known, tokenizer, folder)
    return found


def look_at_config(found: Findings, folder: Path) -> Known:
    known = understand(folder)
    spec = known.spec
    context = f", context {spec.context}" if spec.context else ""
    found.ok("config", f"{spec.family}, {len(spec.stack.blocks)} blocks of width {spec.width}{context}")
    for key, value in known.unknown.items():
        if value not in (None, False, 0, "", [], {}):
            found.warn("config", f"{key} = {value!r} is a key that nobody knows, and has no effect")
    if known.named and known.named not in known.family.classes.values():
        classes = ", ".join(known.family.classes.values())
        found.warn("config", f"architectures names {known.named}; this version has {classes}")
    return known


def look_at_files(found: Findings, folder: Path) -> Weights:
    weights = quant.opened(open_weights(folder), packing(folder))
    files = weights.files
    where = files[0].name + (f" and {len(files) - 1} more" if files[1:] else "")
    found.ok("weights", f"{len(weights.names)} tensors, {size_text(weights.nbytes)} in {where}")
    return weights


def look_at_license(found: Findings, folder: Path) -> None:
    """Whether the card's licence allows commercial use."""
    card = read_card(folder)
    verdict = for_commercial_use(card)
    name = card.license if card and card.license else "none"
    what = f"{name}: commercial use is {verdict.level}: {verdict.why}"
    found.facts["license"] = {"name": name, "commercial_use": verdict.level}
    match verdict.level:
        case "allowed":
            found.ok("license", what)
        case "forbidden":
            found.fail("license", what, "ask whoever published it, or choose another model")
        case "conditions":
            found.warn("license", what, "read the licence")
        case "unknown":
            what = f"{name}: whether commercial use is allowed is unknown: {verdict.why}"
            found.warn("license", what, "ask whoever published it" if name == "none" else "read its licence")
    for base in card.base_models if card else ():
        found.warn("license", f"made from {base}, whose own licence holds too", f"pellucid card {base}")
