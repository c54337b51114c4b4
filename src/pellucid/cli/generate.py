"""pellucid generate: continue a text, printed as it is chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pellucid import families, hub
from pellucid.cli._command import INTERRUPTED, Command, json_option, print_json, read_text

if TYPE_CHECKING:
    from pellucid.engine.job import Job
    from pellucid.models.model import Model


@click.command("generate", cls=Command)
@click.argument("prompt", required=False)
@click.option("-m", "--model", metavar="DIR_OR_ID", help="Default: the small model inside the package.")
@click.option("--max-new-tokens", type=int, default=256, show_default=True, metavar="N")
@click.option("--greedy", is_flag=True, help="Always the most likely token.")
@click.option("--temperature", type=float, metavar="F", help="Divides the logits; 0 is greedy.")
@click.option("--top-k", type=int, metavar="N", help="Only the N most likely tokens; 0 for all.")
@click.option("--top-p", type=float, metavar="F", help="Only the most likely tokens that together reach F.")
@click.option("--seed", type=int, metavar="N", help="The same seed, the same text.")
@click.option("--dtype", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--no-stream", is_flag=True, help="Print the text when it is complete.")
@json_option
@click.option("--offline", is_flag=True, help="Never open a socket.")
def command(
    prompt: str | None,
    model: str | None,
    dtype: str | None,
    no_stream: bool,
    as_json: bool,
    offline: bool,
    **wishes: Any,
) -> None:
    """Continue PROMPT, as the model's generation_config.json says.

    PROMPT "-" is read from standard input, without its last newline; no PROMPT begins with the BOS token.
    --temperature, --top-k, --top-p and --seed turn sampling on.

    \b
    pellucid generate --greedy
    pellucid generate -m ./gemma "Rain fell on" --temperature 0.8 --seed 1
    """
    options = as_options(**wishes)
    text = read_text(prompt, "PROMPT")
    folder = hub.resolve(model, offline=offline or None)

    from pellucid.engine.options import read_options
    from pellucid.tasks.text_generation import stream_text
    from pellucid.text.tokenizer import Tokenizer

    settings = read_options(folder).merged(options)
    settings.check()  # refuses a value out of range before the weights are read

    tokenizer = Tokenizer.from_folder(folder)
    network = open_model(folder, dtype)
    run = Run(text)
    try:
        for piece in stream_text(network, tokenizer, [text], settings):
            run.take(piece.text, piece.job)
            if not no_stream and not as_json:
                click.echo(piece.text, nl=False)
    except KeyboardInterrupt:
        run.interrupted = True
    if as_json:
        print_json(run.facts(folder, network))
    else:
        click.echo("".join(run.pieces) if no_stream else "")
        click.echo(run.summary(options["max_new_tokens"], network.spec.context), err=True)
    if run.interrupted:
        click.get_current_context().exit(INTERRUPTED)


def as_options(*, greedy: bool, **options: Any) -> dict[str, Any]:
    """The options of `generate` that the command line asked for; None where it did not."""
    if not greedy:
        return options
    for name in ("temperature", "top_k", "top_p"):
        if options[name] is not None:
            raise click.UsageError(f"--greedy leaves nothing to --{name.replace('_', '-')}; give one of them")
    return {**options, "do_sample": False}


def open_model(folder: Path, dtype: str | None) -> Model:
    """A model with a trained vocabulary head."""
    from pellucid.models.loading import load
    from pellucid.tasks.fit import require_trained

    config, family = families.read_config(folder)
    spec, _ = family.spec(config)
    model = load(task="seq2seq-lm" if spec.encoder else "causal-lm", dtype=dtype, folder=folder)
    require_trained(model, "generate")
    return model


@dataclass
class Run:
    """What was generated, and when. Times are in seconds from the start."""

    prompt: str
    pieces: list[str] = field(default_factory=list)
    job: Job | None = None
    interrupted: bool = False
    begun: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0

    def take(self, piece: str, job: Job) -> None:
        self.pieces.append(piece)
        self.job = job
        self.last = time.perf_counter() - self.begun
        self.first = self.first or self.last

    @property
    def ids(self) -> list[int]:
        return list(self.job.outputs[0].ids) if self.job else []

    @property
    def finish(self) -> str:
        return "interrupted" if self.interrupted else self.job.outputs[0].finish if self.job else ""

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first, which came with the prompt."""
        return (len(self.ids) - 1) / (self.last - self.first) if len(self.ids) > 1 else 0.0

    @property
    def whole_rate(self) -> float:
        """Tokens per second, reading the prompt included."""
        return len(self.ids) / self.last if self.last else 0.0

    def facts(self, folder: Path, model: Model) -> dict[str, Any]:
        """For `--json`."""
        return {
            "model": str(folder),
            "dtype": str(model.dtype).removeprefix("torch."),
            "prompt": self.prompt,
            "text": "".join(self.pieces),
            "prompt_tokens": len(self.job.request.ids) if self.job else 0,
            "ids": self.ids,
            "finish": self.finish,
            "seconds": round(self.last, 4),
            "decode_tokens_per_second": round(self.decode_rate, 2),
            "tokens_per_second": round(self.whole_rate, 2),
        }

    def summary(self, wished: int, context: int | None) -> str:
        """The line after the text."""
        why = self.finish
        if why == "stop":
            why = "stop: an end token"
        elif why == "length":
            full = len(self.ids) < wished
            why = f"length: the context of {context} is full" if full else f"length: {wished} tokens were asked for"
        rates = f"{self.decode_rate:.1f} tokens/s ({self.whole_rate:.1f} with the prompt)"
        return f"{len(self.ids)} tokens · {rates} · {why}"
