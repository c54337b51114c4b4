"""The intermediate values of a forward, one at a time in the order in which they are computed; and files of them.

A forward runs in a thread of its own and waits at each value until it is asked for the next, so that two models can
be walked side by side while neither holds more than one of its values.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.nn.tapped import Tapped

Value = tuple[str, Tensor]


class Stopped(Exception):
    """Nobody asks for the next value any more."""


def walk(model: Model, given: Mapping[str, Tensor]) -> Iterator[Value]:
    """Tap names with their values [N, …] of one sequence, then the outputs by their names.

    A tap that is passed again is `name#2`. Patterns are left out: asking for them takes another way through attention.
    """
    values: Queue[Value | BaseException | None] = Queue(maxsize=1)
    asked = True

    def put(name: str, x: Tensor) -> None:
        if not asked:
            raise Stopped
        values.put((name, x.detach()))

    def run() -> None:
        try:
            with torch.inference_mode(), listening(model, put):
                output = model(**given, use_cache=False, output_hidden_states=False, output_attentions=False)
            for name, x in zip(output.keys(), output):
                if isinstance(x, Tensor):
                    put(name, x[0])
            values.put(None)
        except BaseException as error:  # raised again where the values are read
            values.put(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (value := values.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value
    finally:
        asked = False
        while thread.is_alive():
            if not values.empty():
                values.get()
            thread.join(0.001)


def needed(model: Model, ids_BT: Tensor) -> dict[str, Tensor]:
    """What some families cannot read ids without: boxes, here without size."""
    return {"bbox": ids_BT.new_zeros(*ids_BT.shape, 4)} if "bbox" in model.stack.inputs else {}


def listening(model: Model, put: Callable[[str, Tensor], None]) -> ExitStack:
    """Calls `put` with every tap of a model, until it is closed."""
    stack, passed = ExitStack(), Counter[str]()

    def listener(name: str) -> Callable[[Tensor], None]:
        def take(x: Tensor) -> None:
            passed[name] += 1
            put(name if passed[name] == 1 else f"{name}#{passed[name]}", x)

        return take

    for path, module in model.named_modules():
        for tap in module.TAPS if isinstance(module, Tapped) else ():
            if tap != "pattern":
                stack.callback(module.listen(tap, listener(f"{path}.{tap}".lstrip("."))))
    return stack


def aliased(values: Iterator[Value], sides: bool) -> Iterator[Value]:
    """The same with each residual stream under the reference's name for it too: `hidden_states.3`.

    Args:
        sides: of an encoder-decoder: `encoder_hidden_states.3` and `decoder_hidden_states.3`.
    """
    seen: Counter[str] = Counter()
    for name, x in values:
        yield name, x
        if name.partition("#")[0].endswith(("resid_pre", "final")):
            side = "" if not sides else "encoder_" if name.startswith("encoder.") else "decoder_"
            yield f"{side}hidden_states.{seen[side]}", x
            seen[side] += 1


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value of `b`; infinite where one is no number and the other is."""
    a, b = (x.double() if torch.float64 in (a.dtype, b.dtype) else x.float() for x in (a, b))
    if not b.numel():
        return 0.0
    apart = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    share = float(apart.nan_to_num(nan=torch.inf).max() / b.abs().nan_to_num(nan=0.0).max().clamp_min(1e-30))
    return share if share == share else float("inf")


# ------------------------------------------------------------------------------------------------ files


class Dump(Mapping[str, Tensor]):
    """Named values in a `.safetensors` or `.npz` file, read when they are asked for.

    Raises:
        InputError: no such file, or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any
        try:
            if path.suffix == ".npz":
                import numpy

                self._file = numpy.load(path)
                self._names = list(self._file.files)
            else:
                from safetensors import SafetensorError, safe_open

                try:
                    self._file = safe_open(path, "pt")
                except SafetensorError as error:
                    raise ValueError(str(error)) from None
                self._names = list(self._file.keys())
        except FileNotFoundError:
            raise InputError("there is no such file", where=path, next="write one with --save-dump") from None
        except (ValueError, zipfile.BadZipFile) as error:
            what = f"neither a .safetensors nor a .npz file: {error}"
            raise InputError(what, where=path, next="write one with --save-dump") from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        if self.path.suffix == ".npz":
            try:
                return torch.from_numpy(self._file[name])
            except (TypeError, ValueError) as error:  # texts or objects
                raise InputError(f"{name} holds no numbers: {error}", where=self.path, next="leave it out") from None
        value: Tensor = self._file.get_tensor(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save(path: Path, values: Mapping[str, Tensor]) -> None:
    """Writes a file that `Dump` reads."""
    if path.suffix == ".npz":
        import numpy

        wide = {name: x.float() if x.dtype == torch.bfloat16 else x for name, x in values.items()}
        arrays: dict[str, Any] = {name: x.numpy() for name, x in wide.items()}
        numpy.savez(path, **arrays)
        return
    from safetensors.torch import save_file

    save_file({name: x.contiguous().clone() for name, x in values.items()}, path)
