"""What the linear layers of a model see while it reads a text, gathered one block at a time.

    for block in passing(model, texts):
        seen = gather(block, hessians=True)   # {"blocks.3.attn.q": Seen, …}
        ...                                   # change the block; what comes behind it sees what it then says

Each text waits before the next block as its packed states and its batch (`cache/batch.py`), so that memory is that of
one block's sums and of the states, however deep the model is, and any family is read that is a chain of blocks. Where
there is none (one block used many times, a body of its own), the tower is one block.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch, Memory
from pellucid.errors import InputError
from pellucid.models.beside import moved
from pellucid.models.inputs import Inputs
from pellucid.models.model import Model
from pellucid.nn.linear import Linear
from pellucid.nn.tower import Tower
from pellucid.text.tokenizer import Tokenizer

LENGTH, TEXTS = 512, 64  # tokens of a text, where the model has so many positions; and how many are read


@cache
def default_text() -> str:
    """What is read where nobody gives a text: stories, speech, law, code and numbers, in a few languages."""
    return files("pellucid").joinpath("calibration.txt").read_text(encoding="utf-8")


def parted(text: str) -> tuple[str, str]:
    """A text's first three quarters, to be fitted to, and its last, to see how well: cut at the end of a line."""
    at = text.rfind("\n", 0, len(text) * 3 // 4) + 1 or len(text) * 3 // 4
    return text[:at], text[at:]


def texts_of(tokenizer: Tokenizer, text: str, *, length: int = LENGTH, most: int = TEXTS) -> list[list[int]]:
    """A text as token ids, cut into pieces of one length, the last perhaps shorter; each begins as texts do.

    Raises:
        InputError: it has no tokens to predict.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    lead = [each for each in tokenizer.encode("")[:1] if each in (tokenizer.bos_token_id, tokenizer.cls_token_id)]
    step = length - len(lead)
    pieces = [[*lead, *ids[first : first + step]] for first in range(0, min(len(ids), step * most), step)]
    if len(pieces) > 1 and len(pieces[-1]) < length // 8:
        pieces.pop()
    if not pieces or len(ids) < 2:
        raise InputError("the text has less than two tokens", where="text", next="give a longer one")
    return pieces


def length_of(model: Model) -> int:
    """How many tokens of a text are read at once."""
    found = [model.config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")]
    return min([LENGTH, *(each for each in found if isinstance(each, int) and each > 1)])


# ------------------------------------------------------------------------------------------------ passing


@dataclass
class Waiting:
    """One text between two blocks."""

    x_ND: Tensor
    batch: Batch


@dataclass
class Passed:
    """A block, and the texts before it. `prefix` begins the names of its modules in the model."""

    prefix: str
    module: nn.Module
    model: Model
    texts: list[Waiting]
    step: Callable[[Waiting], Tensor]
    moved: bool = False

    @torch.no_grad()
    def run(self) -> None:
        """The block reads every text; nothing is kept."""
        for text in self.texts:
            with self.model.threads(len(text.x_ND)):
                self.step(text)

    @torch.no_grad()
    def finish(self) -> None:
        """Every text goes through the block, as the block is; done when the next one is asked for, if not before."""
        if self.moved:
            return
        self.moved = True
        for text in self.texts:
            with self.model.threads(len(text.x_ND)):
                text.x_ND = self.step(text)

    @torch.no_grad()
    def said(self, most: int = 4) -> list[Tensor]:
        """What it makes of the first texts."""
        return [self.step(text) for text in self.texts[:most]]


@torch.no_grad()
def passing(model: Model, texts: Sequence[Sequence[int]]) -> Iterator[Passed]:
    """Each block in turn, before texts that have been through all blocks before it."""
    memories: list[Memory | None] = [None] * len(texts)
    read = [torch.tensor([list(ids)]) for ids in texts]
    if model.encoder is not None:
        ended = yield from _through(model, model.encoder, "encoder.", read, memories)
        memories = [Memory(text.x_ND, text.batch.lengths) for text in ended]
        read = [moved(model, ids, None) for ids in read]
    yield from _through(model, model, "", read, memories)


def _through(
    model: Model, tower: Tower, prefix: str, read: Sequence[Tensor], memories: Sequence[Memory | None]
) -> Generator[Passed, None, list[Waiting]]:
    """A tower's blocks; then the texts, behind its norm."""
    waiting = []
    for ids, memory in zip(read, memories):
        given = Inputs(ids, extra=_needed(tower, ids))
        x_ND, _, batch = model._enter(tower, given, None, memory)
        waiting.append(Waiting(x_ND, batch))
    stack = tower.stack
    if stack.depth is not None or tower.body is not None:
        whole = Passed(prefix, tower, model, waiting, lambda text: tower.run(text.x_ND, text.batch))
        yield whole
        whole.finish()
        return waiting
    for text in waiting:
        text.x_ND = tower.embed(text.x_ND, text.batch, None)
    dtypes = [text.x_ND.dtype for text in waiting]
    for number, block in enumerate(tower.blocks):

        def step(text: Waiting, block: nn.Module = block) -> Tensor:
            said: Tensor = block(text.x_ND, text.batch, tower.relative_bias)
            return said

        passed = Passed(f"{prefix}blocks.{number}.", block, model, waiting, step)
        yield passed
        passed.finish()
    for text, dtype in zip(waiting, dtypes):
        x_ND = text.x_ND if tower.norm is None else tower.norm(text.x_ND)
        text.x_ND = x_ND.to(dtype) if tower.out is None else tower.out(x_ND.to(dtype))
    return waiting


def _needed(tower: Tower, ids_BT: Tensor) -> dict[str, Tensor]:
    """What some families cannot read ids without: boxes, here without size."""
    return {"bbox": ids_BT.new_zeros(*ids_BT.shape, 4)} if "bbox" in tower.stack.inputs else {}


# ------------------------------------------------------------------------------------------------ gathering


@dataclass
class Seen:
    """Sums over all tokens that a linear layer has seen, in float32.

    tokens: how many; of an expert, those that were sent to it.
    hessian_II: of x x^T, where it was asked for.
    size_I, square_I: of |x| and of x^2.
    """

    tokens: int = 0
    hessian_II: Tensor | None = None
    size_I: Any = 0
    square_I: Any = 0
    last: Any = field(default=None, repr=False)  # the input that came last, as an object

    def add(self, x_NI: Tensor, hessians: bool) -> None:
        flat_NI = x_NI.detach().reshape(-1, x_NI.shape[-1]).float()
        self.tokens += len(flat_NI)
        self.size_I = self.size_I + flat_NI.abs().sum(0)
        self.square_I = self.square_I + flat_NI.square().sum(0)
        if hessians and self.hessian_II is None:
            self.hessian_II = flat_NI.t() @ flat_NI
        elif self.hessian_II is not None:
            self.hessian_II.addmm_(flat_NI.t(), flat_NI)

    def hessian(self) -> Tensor:
        """The sum of x x^T, gathered with `hessians`."""
        assert self.hessian_II is not None, "not asked for"
        return self.hessian_II

    def mean_square(self) -> Tensor:
        """Of each input, [I]: what an importance matrix has for each column."""
        found: Tensor = self.square_I / max(self.tokens, 1)
        return found


def gather(passed: Passed, *, hessians: bool) -> dict[str, Seen]:
    """What each linear layer of a block sees, by its name in the model. Those that read the same value share sums."""
    seen: dict[str, Seen] = {}
    newest: list[Seen] = []  # sums of the values that were read last

    def listener(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def read(module: nn.Module, given: tuple[Any, ...]) -> None:
            x = given[0]
            if path not in seen:
                shared = next((each for each in newest if each.last is x), None)
                seen[path] = shared or Seen()
                if shared is None:
                    newest[:] = [*newest[-7:], seen[path]]
            own = seen[path]
            if own.last is not x:  # else a neighbour has counted it
                own.last = x
                own.add(x, hessians)

        return read

    with ExitStack() as stack:
        for path, module in linears(passed.module):
            hook = module.register_forward_pre_hook(listener(passed.prefix + path))
            stack.callback(hook.remove)
        passed.run()
    for each in seen.values():
        each.last = None
    return seen


def linears(module: nn.Module) -> list[tuple[str, Linear]]:
    """The linear layers of a block, in the order in which they are written."""
    return [(path, each) for path, each in module.named_modules() if isinstance(each, Linear)]


def importance(model: Model, texts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """The mean square of each input column, by the name of the matrix: `blocks.3.mlp.down.weight` -> [in]."""
    found: dict[str, Tensor] = {}
    for passed in passing(model, texts):
        found |= {f"{path}.weight": seen.mean_square() for path, seen in gather(passed, hessians=False).items()}
    return found
