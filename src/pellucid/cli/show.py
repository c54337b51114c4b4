"""pellucid show: what a model is, from config.json and the headers of its files; or the code that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json, printable
from pellucid.cli._describe import plain, rows
from pellucid.cli._folder import Known, Stored, size_text, stored, table_text, understand
from pellucid.spec import Spec


@click.command("show", cls=Command)
@click.argument("dir")
@click.option("--code", is_flag=True, help="The source of every function that this model runs, in call order.")
@json_option
def command(dir: str, code: bool, as_json: bool) -> None:
    """Say what the model in DIR (or of a hub id) is, without loading it.

    \b
    pellucid show ./gemma
    pellucid show ./gemma --code | less
    """
    folder = hub.resolve(dir, want="config")
    known = understand(folder)
    if code:
        from pellucid.cli._code import functions, page

        found = functions(known)
        print_json([vars(one) for one in found]) if as_json else click.echo(page(known, found))
        return
    files = stored(folder, known)
    print_json(facts(folder, known, files)) if as_json else click.echo(printable(text(folder, known, files)))


def text(folder: Path, known: Known, files: Stored | None) -> str:
    """The model on one screen."""
    spec = known.spec
    count = f"{files.parameters:,} parameters" if files else "weights not here"
    context = f"context {spec.context}" if spec.context else "no limit of length"
    found = [
        ("family", f"{spec.family}{f' ({known.named})' if known.named else ''}"),
        ("size", f"{count}, {len(spec.stack.blocks)} blocks, {context}"),
        *rows(spec),
    ]
    if files:
        kinds = ", ".join(f"{kind} {size_text(n)}" for kind, n in files.bytes.items())
        found.append(("weights", f"{kinds} in {files.files[0]}" + (" …" if files.files[1:] else "")))
    elif other := weights_elsewhere(folder):
        found.append(("weights", f"{other}: no header to read; `pellucid check` opens it"))
    found += [("unknown keys", f"{key} = {value!r}: no effect") for key, value in known.unknown.items()]
    found += [("execution", note) for note in notes(spec, files)]
    return table_text(found)


def facts(folder: Path, known: Known, files: Stored | None) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "folder": str(folder),
        "class": known.named or None,
        "spec": plain(known.spec),
        "weights": vars(files) if files else None,
        "unknown_keys": known.unknown,
        "notes": notes(known.spec, files),
    }


def notes(spec: Spec, files: Stored | None) -> list[str]:
    """What a reader of the spec would not guess about running it."""
    found = []
    if files and files.dtype == "F16":
        found.append("float16 computes in float32 on a CPU, unless another dtype is asked for")
    for kind, count in files.packed.items() if files else ():
        assert files is not None
        found.append(f"{count} matrices stay packed as {kind}: {files.ways[kind]}")
    if files and len(files.bytes) > 1 and not files.packed:
        found.append(f"the files mix {', '.join(sorted(files.bytes))}; it computes in {files.dtype} if nothing is said")
    if any(getattr(getattr(block, "attn", None), "cap", None) for block in spec.stack.blocks):
        found.append("capped scores: attention is written out, torch's fused kernels know no cap")
    return found


def weights_elsewhere(folder: Path) -> str:
    """A weight file that show does not open."""
    return next((path.name for path in sorted(folder.glob("pytorch_model*.bin"))), "")
