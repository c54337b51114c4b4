"""pellucid convert: the same model in another container."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli.quantize import Line, beside_model, free, summary, told
from pellucid.models.targets import Options

SMALL = 2e9  # bytes that are read again to be compared, if nobody says
IDS = (1, 5, 2, 7, 3, 11)  # for the comparison: small ones, which every vocabulary has


@click.command("convert", cls=Command)
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option("--dtype", type=click.Choice(["f32", "f16", "bf16"]), help="Of the numbers; else as most of IN are.")
@click.option("--verify/--no-verify", default=None, help="Compare the outputs of both; done for small models.")
@click.option("--force", is_flag=True, help="Write over OUT.")
@json_option
def command(source: str, out: str, dtype: str | None, verify: bool | None, force: bool, as_json: bool) -> None:
    """Write the model IN to OUT: to a GGUF file if OUT ends in .gguf, else to a folder of safetensors.

    \b
    pellucid convert ./llama llama.gguf
    pellucid convert llama-q4_k_m.gguf ./llama --dtype bf16
    """
    place, folder = free(Path(out), force), hub.resolve(source)
    began = time.monotonic()
    from pellucid.models.conversion import convert, largest_difference

    says, notes = beside_model(folder, gguf=place.suffix == ".gguf")
    report = convert(folder, place, Options(progress=Line(), says=says), dtype=dtype)
    report.notes.extend(notes)
    facts = told(report, time.monotonic() - began)
    if verify or (verify is None and report.before + report.after < SMALL):
        apart, size = largest_difference(folder, place, IDS)
        facts["difference"] = {"largest": apart, "largest_output": size, "ids": list(IDS)}
    if as_json:
        print_json(facts)
        return
    click.echo(summary(report, facts))
    if "difference" in facts:
        click.echo(f"outputs  {apart:.3g} apart at most, where the largest is {size:.3g} ({len(IDS)} ids, float32)")
