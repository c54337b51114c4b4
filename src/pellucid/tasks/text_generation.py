"""Prompts to continuations: all at once, or in pieces as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pellucid.engine.asking import Means, Prompt, check_tokenizer, pages, requests
from pellucid.engine.engine import generate as run
from pellucid.engine.job import Job
from pellucid.engine.lasting import engine_for
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Logprob, Request
from pellucid.engine.stops import stop_texts
from pellucid.models.model import Model
from pellucid.tasks.rows import Cut, InputRefused, check_one
from pellucid.tasks.rows import encode as encode_texts
from pellucid.text.stops import Stops
from pellucid.text.stream import Stream
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """What followed a prompt.

    Args:
        text: without special tokens, up to the stop string where one ended it.
        ids: as they were chosen.
        finish: "stop" at an end token or a stop string, "length" where the room or the wish was used up.
        logprobs: of each token, where they were asked for.
    """

    prompt: str
    text: str
    ids: list[int]
    finish: str
    logprobs: list[Logprob] = field(default_factory=list)


@dataclass(frozen=True)
class Continued:
    """A prompt with what followed it.

    Args:
        before: the ids that stand before those of the outputs: the prompt's, or what a decoder behind an encoder began
            with.
        dropped: tokens of the prompt that were cut off.
    """

    prompt: str
    outputs: list[Continuation]
    before: list[int]
    dropped: int = 0


@dataclass(frozen=True)
class Style:
    """How prompts are read and outputs written.

    Args:
        cut: what is done with a prompt that is longer than the model reads; None leaves that to the engine.
        last: a longer prompt keeps its last so many tokens.
        special: whether the tokenizer's own tokens go around a prompt.
        skip_special, clean_up: as of `Tokenizer.decode`.
    """

    cut: Cut | None = None
    last: int | None = None
    special: bool = True
    skip_special: bool = True
    clean_up: bool | None = None


STYLE = Style()


@dataclass(frozen=True)
class Piece:
    """Text that became certain with a token; "" where a character is incomplete, or a stop string may have begun.

    Args:
        row: of the prompt.
        output: which of the prompt's continuations.
        job: the request so far.
    """

    row: int
    output: int
    text: str
    token: int
    job: Job


def generate_text(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: GenerationConfig,
    means: Means | None = None,
    style: Style = STYLE,
) -> list[Continued]:
    """Continues all prompts together: `num_return_sequences` continuations for each, in their order.

    A decoder goes on from its prompt; behind an encoder it answers to what that has read.

    Args:
        means: what else the call brings (a grammar, logprobs …); its tokenizer is the one of the prompts.

    Raises:
        InputRefused: a prompt that is no string, that has no token, or that is too long.
    """
    read, dropped = _read(model, tokenizer, prompts, options, style)
    asked = requests(model, options, read, _with(tokenizer, means))
    texts = stop_texts(options)
    found = []
    for i, outputs in enumerate(run(model, asked, pages(options))):
        given, before = _before(tokenizer, read[i], asked[i], style)
        wholes = [_text(tokenizer, [*before, *output.ids], style) for output in outputs]
        made = [
            Continuation(prompts[i], cut(given, whole[len(given) :], texts), output.ids, output.finish, output.logprobs)
            for whole, output in zip(wholes, outputs)
        ]
        found.append(Continued(prompts[i], made, list(asked[i].begin or asked[i].ids), dropped[i]))
    return found


def _read(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[str], options: GenerationConfig, style: Style
) -> tuple[list[Prompt], list[int]]:
    """A row for each prompt, and how many tokens it lost."""
    if style.cut is not None:
        read = encode_texts(model, tokenizer, prompts, cut=style.cut, special=style.special)
        return [Prompt(ids=row.ids) for row in read], [row.dropped for row in read]
    given = encode(tokenizer, prompts, options, special=style.special)
    if style.last is None:
        return given, [0] * len(given)
    lost = [max(0, len(row.ids) - style.last) for row in given]
    return [replace(row, ids=row.ids[n:]) for row, n in zip(given, lost)], lost


def _text(tokenizer: Tokenizer, ids: Sequence[int], style: Style) -> str:
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=style.skip_special, clean_up_tokenization_spaces=style.clean_up
    )
    return text


def stream_text(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    options: GenerationConfig,
    means: Means | None = None,
) -> Iterator[Piece]:
    """The same in pieces, as the tokens of all prompts are chosen. Leaving early ends what is under way.

    Raises:
        InputRefused: a prompt that is no string, or that has no token.
    """
    return stream(model, tokenizer, encode(tokenizer, prompts, options), options, means)


def stream(
    model: Model,
    tokenizer: Tokenizer,
    rows: Sequence[Prompt],
    options: GenerationConfig,
    means: Means | None = None,
) -> Iterator[Piece]:
    """The pieces of all continuations of some rows."""
    check_tokenizer(tokenizer)
    asked = requests(model, options, rows, _with(tokenizer, means))
    texts = stop_texts(options)
    spoken = [[Speech(tokenizer, *_before(tokenizer, row, one), texts) for _ in range(one.n)]
              for row, one in zip(rows, asked)]  # fmt: skip
    numbers = {id(request): row for row, request in enumerate(asked)}
    with engine_for(model, pages(options), asked) as engine:
        for job, output, token in engine.stream(asked):
            row = numbers[id(job.request)]
            text = spoken[row][output].add(token)
            if spoken[row][output].tokens == len(job.outputs[output].ids) and job.outputs[output].finish:
                text += spoken[row][output].end()
            yield Piece(row, output, text, token, job)


class Speech:
    """A continuation's text as its tokens come.

    Args:
        given: the prompt's text, of which nothing is said again.
        before: the ids of the prompt.
        texts: stop strings.
    """

    def __init__(self, tokenizer: Tokenizer, given: str, before: Sequence[int], texts: Sequence[str]) -> None:
        self._stream = Stream(tokenizer, skip_special_tokens=True)
        self._stops, self._held = _stops(given, texts)
        self._owed = len(given) - sum(len(self._stream.add(token)) for token in before)
        self.tokens = 0

    def add(self, token: int) -> str:
        """What is certain after this token."""
        self.tokens += 1
        return self._say(self._stream.add(token))

    def end(self) -> str:
        """What was held back."""
        said = self._say(self._stream.end())
        left = self._stops.end()
        return said + left[self._held :]

    def _say(self, piece: str) -> str:
        new, self._owed = piece[self._owed :], max(0, self._owed - len(piece))
        ready = self._stops.feed(new)
        said, self._held = ready[self._held :], max(0, self._held - len(ready))
        return said


def cut(given: str, text: str, texts: Sequence[str]) -> str:
    """A continuation up to the first stop string, which may have begun in the prompt."""
    stops, held = _stops(given, texts)
    ready = stops.feed(text)
    return (ready + stops.end())[held:]


def _stops(given: str, texts: Sequence[str]) -> tuple[Stops, int]:
    """Stop strings behind a text, and how many of its characters they hold: one may have begun with them."""
    stops, held = Stops(texts), 0
    longest = max(map(len, texts), default=1)
    for char in given[max(0, len(given) - longest + 1) :]:
        held += 1 - len(stops.feed(char))
        if stops.stopped is not None:  # the prompt may say what the continuation may not
            stops.reset()
            held = 0
    return stops, held


# ---------------------------------------------------------------------------------------- prompts


def encode(
    tokenizer: Tokenizer, prompts: Sequence[str], options: GenerationConfig, *, special: bool = True
) -> list[Prompt]:
    """A row for each prompt.

    Raises:
        ArgumentError: no tokenizer.
        InputRefused: a prompt that is no string, or that has no token.
    """
    check_tokenizer(tokenizer)
    rows = []
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            what = f"a prompt is a {type(prompt).__name__}"
            talk = isinstance(prompt, (Mapping, list)) and "role" in str(prompt)
            next = "tokenizer.apply_chat_template(messages, tokenize=False) makes a string" if talk else "give a string"
            raise InputRefused(row, what, next=next)
        check_one(row, prompt)
        ids = tokenizer.encode(prompt, add_special_tokens=special) or opening(tokenizer, options)
        if not ids:
            what = "the prompt is empty, and this model has no token to begin with"
            raise InputRefused(row, what, next="give some text")
        rows.append(Prompt(ids=ids))
    return rows


def opening(tokenizer: Tokenizer, options: GenerationConfig) -> list[int]:
    """The BOS token, for an empty prompt that the tokenizer puts nothing before."""
    bos = options.bos_token_id
    bos = tokenizer.bos_token_id if bos is None else bos
    return [] if bos is None else [bos]


def _with(tokenizer: Tokenizer, means: Means | None) -> Means:
    return replace(means or Means(), tokenizer=tokenizer)


def _before(tokenizer: Tokenizer, row: Prompt, request: Request, style: Style = STYLE) -> tuple[str, Sequence[int]]:
    """The text that a continuation follows, and the ids that stand before its own."""
    if request.begin:
        return "", ()
    return _text(tokenizer, row.ids, style), request.ids
