"""pellucid plan: what a model takes and how fast it can be here, before it is downloaded."""

from __future__ import annotations

from dataclasses import asdict

import click

from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._folder import size_text, table_text
from pellucid.models.plan import DISK, PROMPT, Plan, plan
from pellucid.models.sizes import FLOATS, PACKS


@click.command("plan", cls=Command)
@click.argument("model", required=False)
@click.option("--context", type=int, help="Tokens of each row; the model's own if not said, at most 4096.")
@click.option("--batch", type=int, default=1, show_default=True, help="Rows at once.")
@click.option("--dtype", help=f"To compute in: auto, {', '.join(FLOATS)}.")
@click.option("--quantization", metavar="KIND", help=f"Matrices packed: {', '.join(PACKS)}.")
@click.option("--devices", metavar="LIST", help="Where it may go, in this order: cuda:0=24GB,cpu=16GB,disk.")
@click.option("--memory", metavar="LIMIT", help="Of the processor's memory: 8GB. What is free, if not said.")
@click.option("--measure", is_flag=True, help="Measure this machine again.")
@click.option("--gguf-file", metavar="NAME", help="Which GGUF file of several.")
@json_option
def command(
    model: str | None,
    context: int | None,
    batch: int,
    dtype: str | None,
    quantization: str | None,
    devices: str | None,
    memory: str | None,
    measure: bool,
    gguf_file: str | None,
    as_json: bool,
) -> None:
    """Say what MODEL (a folder, a .gguf file, a hub id) takes, and how fast it can be here. Nothing is downloaded.

    \b
    pellucid plan ./gemma --context 8192
    pellucid plan org/model --quantization nf4 --memory 8GB
    pellucid plan ./gemma --devices cuda:0=24GB,cpu=16GB
    """
    found = plan(
        model, context=context, batch=batch, dtype=dtype, quantization=quantization, devices=devices, memory=memory,
        measure=measure or None, gguf_file=gguf_file,
    )  # fmt: skip
    print_json(asdict(found) | {"total": found.total}) if as_json else click.echo(text(found))


def text(found: Plan) -> str:
    """The plan on one screen."""
    kinds = ", ".join(f"{kind} {size_text(n)}" for kind, n in found.weights.items())
    rows = f"{found.batch} × {found.context} tokens"
    lines: list[tuple[str, str]] = [
        ("model", f"{found.model}: {found.family}, {found.parameters:,} parameters, computes in {found.dtype}"),
        ("weights", kinds),
        ("cache", cache_text(found, rows)),
        ("activations", f"about {size_text(found.activations)} in a step"),
        ("in all", f"{size_text(found.total)}{'' if found.fits else ': DOES NOT FIT'}"),
        ("longest", longest_text(found)),
        *speeds(found),
    ]
    table: list[tuple[str, ...]] = [("device", "blocks", "weights", "cache", "room")]
    for share in found.devices:
        room = "the file, mapped" if share.device == DISK else size_text(share.room or 0)
        table.append((share.device, str(share.blocks), size_text(share.weights), size_text(share.cache), room))
    lines += [("note", note) for note in found.notes]
    return f"{table_text(lines)}\n\n{columns(table)}"


def cache_text(found: Plan, rows: str) -> str:
    if not found.cache:
        return "none: it reads a text once"
    each = f", {size_text(found.cache_of_row)} a row" if found.cache_of_row else ""
    return f"{size_text(found.cache)} for {rows} ({size_text(found.cache_of_token)} a token{each})"


def longest_text(found: Plan) -> str:
    limit = "the model has no limit" if found.made_for is None else f"the model was made for {found.made_for:,}"
    if found.longest is None:
        return f"every context fits; {limit}"
    rows = f" in each of {found.batch} rows" if found.batch > 1 else ""
    return f"{found.longest:,} tokens fit{rows}; {limit}"


def speeds(found: Plan) -> list[tuple[str, str]]:
    """What is expected, and of what it is a bound."""
    here, said = found.machine, []
    if here is None:
        return []
    if found.prompt is not None:
        tokens = min(PROMPT, found.context)
        said.append(
            ("prompt", f"about {rate(found.prompt)} tokens/s at float32's rate ({tokens} tokens, without logits)")
        )
    if found.decode is not None:
        at = f"{size_text(found.read)} a step, at {found.context} tokens" + ("" if found.batch == 1 else ", all rows")
        said.append(("decode", f"at most {rate(found.decode)} tokens/s ({at})"))
    measured = f"reads {here.read / 1e9:.3g} GB/s, multiplies {here.multiply / 1e9:.3g} GFLOP/s in float32"
    said.append(("machine", f"{here.cpu}, {here.cores} cores: {measured} ({here.date}; --measure repeats)"))
    if found.prompt is not None or found.decode is not None:
        said.append(("", "what the machine allows, no forecast: `pellucid bench` says how near a model comes"))
    return said


def columns(table: list[tuple[str, ...]]) -> str:
    """Aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(f"{cell:<{w}}" if not i else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths)))
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)


def rate(value: float) -> str:
    """Three digits that say something, and no powers of ten: 99,800."""
    return f"{float(f'{value:.3g}'):,.10g}"
