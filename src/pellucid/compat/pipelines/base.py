"""Pipeline: what all tasks share under the reference's face: forms of input, options, progress, order."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from pellucid.compat.modeling import PreTrainedModel
from pellucid.engine.fields import DEFAULTS, advice
from pellucid.errors import ArgumentError, InputError
from pellucid.tasks.fit import report_misfit, require_head, require_trained
from pellucid.tasks.flow import WINDOW, stream
from pellucid.tasks.rows import Cut
from pellucid.text.tokenizer import Tokenizer

T = TypeVar("T")

log = logging.getLogger("pellucid")

UNNEEDED = ("batch_size", "num_workers")  # accepted: batches are formed by tokens, in this process


class Pipeline:
    """A task with its model and tokenizer. Called with one input, or with many; models may be shared between pipelines.

    A subclass has `run`, the task for a list of inputs, and `show`, one of its results in the reference's shape. Their
    keyword arguments are the options of a call.
    """

    task: ClassVar[str]
    models: ClassVar[tuple[type[PreTrainedModel], ...]]  # the first one loads a checkpoint that does not say more
    wanted: ClassVar[str] = "give a text, or many"  # advice where an input is none
    generates: ClassVar[bool] = False  # options of `generate` are options of the call

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, **defaults: Any) -> None:
        """`defaults` are options of the call, for every call."""
        self.model, self.tokenizer, self.defaults = model, tokenizer, defaults
        self.check_options(defaults)
        require_head(model, self.task, [each.TASK for each in self.models])
        require_trained(model, self.task)
        report_misfit(model, tokenizer)

    @classmethod
    def opened(cls, model: Any, where: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
        """The model of a path or id, and where its tokenizer is.

        Args:
            where: `revision` and `token`, of an id.
            options: of `from_pretrained`.
        """
        return cls.models[0].from_pretrained(model, **where, **options), model

    def __call__(self, inputs: Any, *, progress: bool = False, **options: Any) -> Any:
        """The result for one input, a list for a list of them, an iterator for any other iterable; in input order.

        Args:
            progress: show on stderr how many are done.
            options: those of the task; see the class.
        """
        self.check_options(options)
        options = {**self.defaults, **options}
        if self.is_one(inputs):
            return next(self._results([inputs], 1, progress, options))
        many, size = self._many(inputs)
        found = self._results(many, size, progress, options)
        return list(found) if isinstance(inputs, list | tuple) else found

    def is_one(self, inputs: Any) -> bool:
        """Whether the input is a single one."""
        return isinstance(inputs, str)

    def run(self, inputs: list[Any]) -> Sequence[Any]:
        """One result for each input."""
        raise NotImplementedError

    def show(self, found: Any) -> Any:
        """A result in the reference's shape."""
        raise NotImplementedError

    # ---- what people call beside it -----------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""
        return self.model.dtype

    def predict(self, X: Any) -> Any:
        """The call, as scikit-learn names it."""
        return self(X)

    transform = predict

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Writes the model and the tokenizer."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(os.fspath(save_directory))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model.folder or self.model.spec.family!r})"

    # ---- forms of input -----------------------------------------------------------------------------------

    def _many(self, inputs: Any) -> tuple[Iterable[Any], int | None]:
        """The inputs one by one, and how many there are where that is known."""
        size = len(inputs) if isinstance(inputs, Sized) else None
        if isinstance(inputs, Path):
            raise InputError(f"{self.task} of a path", where="inputs", next="give Lines(path) for a file's lines")
        if not isinstance(inputs, str | bytes | Mapping):
            if isinstance(inputs, Iterable):
                return inputs, size
            if size is not None and hasattr(inputs, "__getitem__"):
                return (inputs[i] for i in range(size)), size
        raise InputError(f"{self.task} of a {type(inputs).__name__}", where="inputs", next=self.wanted)

    def _results(
        self, inputs: Iterable[Any], size: int | None, progress: bool, options: dict[str, Any]
    ) -> Iterator[Any]:
        run_names, show_names = options_named(type(self), "run"), options_named(type(self), "show")
        shown = {name: value for name, value in options.items() if name in show_names}
        runs = {
            name: value for name, value in options.items() if name in run_names or name not in (*show_names, *UNNEEDED)
        }
        losses = Losses(self.task)

        def run(window: list[Any]) -> Sequence[Any]:
            found = self.run(window, **runs)
            losses.add(found)
            return found

        def results() -> Iterator[Any]:
            first = {} if size is None or progress else {"first": WINDOW}
            for one in stream(run, inputs, **first):
                yield self.show(one, **shown)
            losses.end()

        return counted(results(), self.task, size) if progress else results()

    # ---- options ------------------------------------------------------------------------------------------

    @classmethod
    def check_options(cls, options: Mapping[str, Any], also: Sequence[str] = ("progress",)) -> None:
        """Refuses options that the task does not take; `also` are names to think of when one is misspelt.

        Raises:
            ArgumentError: names the nearest option.
        """
        known = list(dict.fromkeys([*options_of(cls), *(DEFAULTS if cls.generates else ())]))
        for name in options:
            if name not in (*known, *UNNEEDED):
                near = advice(name, [*known, *also]) or f"it takes {', '.join(known[:12])}"
                near = "the tokenizer is the pipeline's own" if name == "tokenizer" else near
                near = "use model.stream(prompts, tokenizer=…)" if name == "streamer" else near
                raise ArgumentError(f"{cls.task} takes no {name!r}", where=name, next=near)


@dataclass
class Losses:
    """Counts texts that were cut: says so when it happens first, and at the end of a call where there were more."""

    task: str
    texts: int = 0
    cut: int = 0
    tokens: int = 0
    most: int = 0
    said: int = 0

    def add(self, found: Sequence[Any]) -> None:
        lost = [n for one in found if (n := getattr(one, "dropped", 0))]
        self.texts, self.cut, self.tokens = self.texts + len(found), self.cut + len(lost), self.tokens + sum(lost)
        self.most = max([self.most, *lost])
        if lost and not self.said:
            self._say("")

    def end(self) -> None:
        if self.cut > self.said:
            self._say("in all, ")

    def _say(self, begin: str) -> None:
        self.said = self.cut
        log.warning(
            "%s: %s%d of %d texts were too long and were cut; %d tokens were dropped, up to %d of one text",
            self.task, begin, self.cut, self.texts, self.tokens, self.most,
        )  # fmt: skip


def cut_of(tokenize: Mapping[str, Any] | None, **asked: Any) -> Cut:
    """What a call says of texts that are too long, itself or in its options of the tokenizer."""
    for name in tokenize or {}:
        if name not in ("truncation", "max_length", "padding", "return_tensors"):
            raise ArgumentError(f"no {name!r} for the tokenizer here", where=name, next="truncation or max_length")
    values = {**{name: value for name, value in asked.items() if value is not None}, **(tokenize or {})}
    return Cut(values.get("truncation", False), values.get("max_length"))


def with_lost(shown: dict[str, Any], dropped: int) -> dict[str, Any]:
    """A result, with the number of tokens that were cut off where there are such."""
    return {**shown, "truncated_tokens": dropped} if dropped else shown


def options_of(kind: type[Pipeline]) -> tuple[str, ...]:
    """The options of a call, but for those of `generate`, and for `progress`, which every call has."""
    return tuple(name for name in (*options_named(kind, "run"), *options_named(kind, "show")) if name != "progress")


def options_named(kind: type[Pipeline], method: str) -> tuple[str, ...]:
    """The options that a method names, in a class or in one that it extends."""
    found = [signature(vars(each)[method]).parameters.items() for each in kind.__mro__ if method in vars(each)]
    return tuple(name for named in found for name, each in named if each.kind is Parameter.KEYWORD_ONLY)


def counted(found: Iterator[T], task: str, size: int | None) -> Iterator[T]:
    """The same, and a line on stderr that counts: ten times a second at most."""
    of = "" if size is None else f" of {size:,}"
    start, shown, done, width = time.monotonic(), 0.0, 0, 0

    def line(end: str = "") -> None:
        nonlocal width
        rate = done / max(time.monotonic() - start, 1e-9)
        text = f"{task}: {done:,}{of}, {rate:,.1f} a second".ljust(width)[: room()]
        width = len(text)
        print(f"\r{text}", end=end, file=sys.stderr, flush=True)

    try:
        for one in found:
            done += 1
            if (now := time.monotonic()) - shown > 0.1:
                shown = now
                line()
            yield one
    finally:
        line("\n")


def room() -> int | None:
    """Characters of a line of the terminal, less one so that it does not break; None where stderr is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns - 1
    except (OSError, ValueError, AttributeError):
        return None
