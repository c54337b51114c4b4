"""What `pellucid generate` has generated, and when: its results and its last line."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.engine.request import Logprob, Output
    from pellucid.models.model import Model
    from pellucid.tasks.text_generation import Piece


@dataclass
class Run:
    """The continuations of a prompt. Times are in seconds from the start.

    Args:
        several: more than one continuation was asked for.
        beams: the tokens come all at the end.
    """

    prompt: str
    several: bool = False
    beams: bool = False
    pieces: dict[int, list[str]] = field(default_factory=dict)
    last_piece: Piece | None = None
    interrupted: bool = False
    begun: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0

    def take(self, piece: Piece) -> None:
        self.pieces.setdefault(piece.output, []).append(piece.text)
        self.last_piece = piece
        self.last = time.perf_counter() - self.begun
        self.first = self.first or self.last

    @property
    def outputs(self) -> list[Output]:
        return self.last_piece.job.outputs if self.last_piece else []

    @property
    def texts(self) -> list[str]:
        """The continuations, one at least."""
        return ["".join(self.pieces.get(i, ())) for i in range(max(len(self.outputs), 1))]

    @property
    def tokens(self) -> int:
        return sum(len(output.ids) for output in self.outputs)

    def finish(self, output: Output) -> str:
        return "interrupted" if self.interrupted and output.finish != "stop" else output.finish

    @property
    def decode_rate(self) -> float:
        """Tokens per second after the first of each continuation, which came with the prompt."""
        later = self.tokens - len(self.outputs)
        return later / (self.last - self.first) if later > 0 and not self.beams else 0.0

    @property
    def whole_rate(self) -> float:
        """Tokens per second, reading the prompt included."""
        return self.tokens / self.last if self.last else 0.0

    # ---------------------------------------------------------------------------------------- --json

    def facts(self, folder: Path, model: Model) -> dict[str, Any]:
        """For `--json`; those of the first continuation are on top."""
        job = self.last_piece.job if self.last_piece else None
        each = [self._of(output, text) for output, text in zip(self.outputs, self.texts)]
        found: dict[str, Any] = {
            "model": str(folder),
            "dtype": str(model.dtype).removeprefix("torch."),
            "prompt": self.prompt,
            "text": self.texts[0],
            "prompt_tokens": len(job.request.ids) if job else 0,
            "ids": [],
            "finish": "interrupted" if self.interrupted else "",
            **(each[0] if each else {}),
            "seconds": round(self.last, 4),
            "decode_tokens_per_second": round(self.decode_rate, 2),
            "tokens_per_second": round(self.whole_rate, 2),
        }
        if job and job.request.speculation is not None:
            found |= {name: sum(getattr(output, name) for output in job.outputs) for name in ("drafted", "accepted")}
        return {**found, "continuations": each} if self.several else found

    def _of(self, output: Output, text: str) -> dict[str, Any]:
        found: dict[str, Any] = {"text": text, "ids": list(output.ids), "finish": self.finish(output)}
        if output.score is not None:
            found["score"] = output.score
        if output.logprobs:
            found["logprobs"] = [_written(each) for each in output.logprobs]
        return found

    # ---------------------------------------------------------------------------------------- the last line

    def summary(self, wished: int, context: int | None) -> str:
        """The line after the text."""
        rates = f"{self.decode_rate:.1f} tokens/s ({self.whole_rate:.1f} with the prompt)"
        if self.beams:
            rates = f"{self.whole_rate:.1f} tokens/s with the prompt"
        line = f"{self.tokens} tokens · {rates} · {self._ends(wished, context)}"
        drafted, accepted = (sum(getattr(output, name) for output in self.outputs) for name in ("drafted", "accepted"))
        return line + (f" · {accepted} of {drafted} guessed tokens were right" if drafted else "")

    def _ends(self, wished: int, context: int | None) -> str:
        """Why they ended; how many of them, where they differ."""
        whys = Counter(self._why(output, wished, context) for output in self.outputs)
        if len(whys) < 2:
            return next(iter(whys), "interrupted" if self.interrupted else "")
        return "; ".join(f"{count} × {why}" for why, count in whys.items())

    def _why(self, output: Output, wished: int, context: int | None) -> str:
        why = self.finish(output)
        if why == "length":
            full = len(output.ids) < wished
            return f"length: the context of {context} is full" if full else f"length: {wished} tokens were asked for"
        if why != "stop" or self.last_piece is None:
            return why
        ended = output.ids and output.ids[-1] in self.last_piece.job.request.eos
        return "stop: an end token" if ended else "stop: the text is complete"


def _written(one: Logprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "top": [list(pair) for pair in one.top]}
