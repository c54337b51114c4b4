"""pellucid generate: continue a text, printed as it is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pellucid import families, hub
from pellucid.cli._choosing import HEADING, as_options, choosing
from pellucid.cli._command import INTERRUPTED, Command, Option, json_option, print_json, read_text
from pellucid.cli._run import Run
from pellucid.errors import ArgumentError, nearest

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig
    from pellucid.models.model import Model

AHEAD = "The same text sooner: guesses that the model confirms"


@click.command("generate", cls=Command)
@click.argument("prompt", required=False)
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: the small model inside the package.")
@click.option("--max-new-tokens", type=int, default=256, show_default=True, metavar="N")
@click.option("--stop", "stop_strings", multiple=True, metavar="TEXT", help="Ends the text before TEXT; repeatable.")
@click.option("--format", "form", metavar="FORM", help="What the text must be; see above.")
@click.option("-n", "count", type=int, metavar="N", help="So many continuations, when they are complete.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--no-stream", is_flag=True, help="Print the text when it is complete.")
@json_option
@click.option("--logprobs", type=int, metavar="N", help="In --json: of each token, and of the N first.")
@click.option("--offline", is_flag=True, help="Never open a socket.")
@choosing(HEADING)
@click.option("--seed", type=int, metavar="N", cls=Option, heading=HEADING, help="The same seed, the same text.")
@click.option("--beams", type=int, metavar="N", cls=Option, heading=HEADING, help="Search for the most likely text.")
@click.option("--draft", metavar="DIR_OR_ID", cls=Option, heading=AHEAD, help="A smaller model guesses.")
@click.option("--lookup", type=int, metavar="N", cls=Option, heading=AHEAD, help="N tokens at a time, from the text.")
def command(
    prompt: str | None,
    model: str | None,
    stop_strings: tuple[str, ...],
    form: str | None,
    count: int | None,
    dtype: str | None,
    no_stream: bool,
    as_json: bool,
    logprobs: int | None,
    offline: bool,
    beams: int | None,
    draft: str | None,
    lookup: int | None,
    **wishes: Any,
) -> None:
    """Continue PROMPT, as the model's generation_config.json says.

    PROMPT "-" is read from standard input, without its last newline; no PROMPT begins with the BOS token.
    --temperature, --top-k, --top-p, --min-p and --seed turn sampling on. FORM is json, schema=FILE or schema={…},
    regex=PATTERN, choice=ONE|OTHER, or grammar=FILE (Lark, GBNF).

    \b
    pellucid generate --greedy
    pellucid generate -m ./gemma "Rain fell on" --temperature 0.8 --seed 1
    pellucid generate -m ./gemma "As JSON: " --format schema=person.json
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("--logprobs are part of what --json prints; give both")
    options = as_options(**wishes) | {
        "stop_strings": list(stop_strings) or None,
        "num_return_sequences": count,
        "num_beams": beams,
        "prompt_lookup_num_tokens": lookup,
    }
    text = read_text(prompt, "PROMPT")
    response_format = read_form(form)
    folder = hub.resolve(model, offline=offline or None)
    assistant_folder = None if draft is None else hub.resolve(draft, offline=offline or None)

    from pellucid.engine.asking import Means
    from pellucid.engine.options import read_options
    from pellucid.tasks.text_generation import stream_text
    from pellucid.text.tokenizer import Tokenizer

    settings = read_options(folder).merged(options)
    check(settings)  # refuses a value out of range before the weights are read

    tokenizer = Tokenizer.from_folder(folder)
    network = open_model(folder, dtype)
    means = Means(
        response_format=response_format,
        logprobs=logprobs,
        assistant=None if assistant_folder is None else open_model(assistant_folder, dtype),
        assistant_tokenizer=None if assistant_folder is None else Tokenizer.from_folder(assistant_folder),
    )
    run = Run(text, several=settings.num_return_sequences > 1, beams=settings.num_beams > 1)
    flowing = not (no_stream or as_json or run.several)
    try:
        for piece in stream_text(network, tokenizer, [text], settings, means):
            run.take(piece)
            if flowing:
                click.echo(piece.text, nl=False)
    except KeyboardInterrupt:
        run.interrupted = True
    if as_json:
        print_json(run.facts(folder, network))
    else:
        click.echo("" if flowing else "\n---\n".join(run.texts))
        click.echo(run.summary(options["max_new_tokens"], network.spec.context), err=True)
    if run.interrupted:
        click.get_current_context().exit(INTERRUPTED)


def check(settings: GenerationConfig) -> None:
    """Refuses options that are wrong, in the command line's words where a user of it would not know ours."""
    wished, drawn = settings.num_return_sequences, settings.samples
    if wished > 1 and settings.num_beams == 1 and not drawn:
        raise click.UsageError(f"-n {wished} would be all alike: draw them (--temperature, --seed), or add --beams")
    settings.check()


def read_form(form: str | None) -> dict[str, Any] | None:
    """What --format says, as a response_format.

    Raises:
        ArgumentError: there is no such form, or its file is not readable.
    """
    if form is None:
        return None
    kind, equals, value = form.partition("=")
    match kind:
        case "json" if not equals:
            return {"type": "json_object"}
        case "schema" if value:
            text = value if value.lstrip().startswith("{") else read_file(value)
            return {"type": "json_schema", "json_schema": {"schema": text}}
        case "regex" if value:
            return {"type": "regex", "regex": value}
        case "choice" if value:
            return {"type": "choice", "choice": value.split("|")}
        case "grammar" if value:
            return {"type": "grammar", "grammar": read_file(value)}
    forms = ("json", "schema=FILE", "regex=PATTERN", "choice=ONE|OTHER", "grammar=FILE")
    kinds = [each.partition("=")[0] for each in forms]
    near = "" if kind in kinds else nearest(kind, kinds)
    raise ArgumentError(f"--format {form}", where="--format", next=f"{near} forms: {', '.join(forms)}".strip())


def read_file(path: str) -> str:
    """A file of text.

    Raises:
        ArgumentError: it cannot be read.
    """
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeError) as error:
        what = f"--format: {path} is not read: {getattr(error, 'strerror', None) or error}"
        raise ArgumentError(what, where="--format", next="name a file of UTF-8 text") from None


def open_model(folder: Path, dtype: str | None) -> Model:
    """A model with a trained vocabulary head."""
    from pellucid.models.loading import load
    from pellucid.tasks.fit import require_trained

    config, family = families.read_config(folder)
    spec, _ = family.spec(config)
    model = load(task="seq2seq-lm" if spec.encoder else "causal-lm", dtype=dtype, folder=folder)
    require_trained(model, "generate")
    return model
