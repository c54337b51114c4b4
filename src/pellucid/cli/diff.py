"""pellucid diff: run two models, or one and a file of somebody else's values, and name the first value that parts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pellucid import hub
from pellucid.cli._command import Command, json_option, print_json
from pellucid.cli._folder import Known, understand
from pellucid.errors import ConfigError, InputError, TokenizerError, nearest
from pellucid.spec import ChoiceHead

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.cli._walk import Dump, Value
    from pellucid.models.model import Model

TEXT = "The quick brown fox jumps over the lazy dog."
RANDOM = 16  # ids, where there is no tokenizer
EXACT = ("float32", "float64")
TOLERANCE, COARSE = 1e-4, 0.2  # of exact dtypes; of 16 bits, whose rounding to 0.004 adds up


@click.command("diff", cls=Command)
@click.argument("a")
@click.argument("b", required=False)
@click.option("--dtype-a", metavar="NAME", help="float32, bfloat16 …; default: the file's.")
@click.option("--dtype-b", metavar="NAME", help="The same for B; without a B, for a second A.")
@click.option("--text", help="What both read. Default: a sentence, or random ids where A has no tokenizer.")
@click.option("--ids", metavar="1,2,3", help="The same as ids.")
@click.option("--dump", metavar="FILE", help="Instead of B: a .safetensors or .npz file of named values.")
@click.option("--save-dump", metavar="FILE", help="Write the values of A.")
@click.option("--tolerance", type=float, metavar="F", help="Default: 1e-4, or 0.2 where 16 bits take part.")
@json_option
def command(
    a: str,
    b: str | None,
    dtype_a: str | None,
    dtype_b: str | None,
    text: str | None,
    ids: str | None,
    dump: str | None,
    save_dump: str | None,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Name the first value where model A and model B part, in the order in which they are computed.

    Errors are the largest difference as a share of the largest value. A --dump names values as `pellucid show --code`
    does (blocks.0.attn.q, for one sequence), or as the reference's outputs (hidden_states.3, logits); its input_ids
    are what A reads. Exits with 0 if nothing parts, 1 if something does.

    \b
    pellucid diff ./llama ./llama-tuned
    pellucid diff ./llama --dtype-b bfloat16
    pellucid diff ./llama --dump reference.safetensors
    """
    if b is not None and dump is not None:
        raise click.UsageError("B and --dump: A is compared with one of them")
    if not (b or dtype_b or dump or save_dump):
        raise click.UsageError("A alone: give B, --dtype-b, --dump or --save-dump")
    from pellucid.cli._walk import Dump, aliased, save, walk

    against = Dump(Path(dump)) if dump is not None else None
    first = open_side(a, dtype_a)
    given = inputs(first, text, ids, against)
    values: Iterator[Value] = walk(first.model, given)
    kept: dict[str, Tensor] = dict(given)
    if save_dump is not None:
        values = keeping(values, kept)
    second = None
    if against is not None:
        compared = with_dump(aliased(values, sides=first.model.encoder is not None), against, set(given))
        other = str(against.path)
    elif b is not None or dtype_b is not None:
        second = open_side(b or a, dtype_b)
        same_architecture(first, second)
        compared, other = side_by_side(values, walk(second.model, given)), second.label
    else:
        compared, other = (Apart(name, 0.0) for name, _ in values), ""
    exact = first.dtype in EXACT and (second is None or second.dtype in EXACT)
    limit = tolerance if tolerance is not None else TOLERANCE if exact else COARSE
    found = list(compared)
    deque(values, maxlen=0)  # what is left, to be kept
    if save_dump is not None:
        save(Path(save_dump), kept)
    report = Report(first.label, other, given["input_ids"].flatten().tolist(), limit, found)
    print_json(report.facts()) if as_json else click.echo(report.text())
    click.get_current_context().exit(1 if report.first else 0)


# ------------------------------------------------------------------------------------------------ both sides


@dataclass(frozen=True)
class Side:
    """One of the two models."""

    name: str
    folder: Path
    known: Known
    model: Model

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def label(self) -> str:
        return f"{self.name}, {self.dtype}"


def open_side(name: str, dtype: str | None) -> Side:
    """A model with the head that its file was written with."""
    from pellucid.models.loading import load

    folder = hub.resolve(name)
    known = understand(folder)
    return Side(name, folder, known, load(folder=folder, task=known.task, dtype=dtype))


def same_architecture(a: Side, b: Side) -> None:
    """Refuses models whose values have other names or shapes.

    Raises:
        ConfigError: names what differs.
    """
    next = "compare two checkpoints of one architecture, or one with a --dump of the other"
    if a.known.spec.family != b.known.spec.family:
        what = f"{a.name} is a {a.known.spec.family} model and {b.name} a {b.known.spec.family}"
        raise ConfigError(what, next=next)
    if a.model.task != b.model.task:
        what = f"{a.name} has the head for {a.model.task or 'nothing'} and {b.name} for {b.model.task or 'nothing'}"
        raise ConfigError(what, where="architectures", next=next)
    mine, theirs = ({name: list(p.shape) for name, p in side.model.named_parameters()} for side in (a, b))
    for name in {**mine, **theirs}:
        if mine.get(name) != theirs.get(name):
            keys = sorted(key for key, (x, y) in config_differences(a, b).items() if x != y)
            what = f"{name} is {mine.get(name, 'absent')} in {a.name} and {theirs.get(name, 'absent')} in {b.name}"
            raise ConfigError(f"{what}; the configs differ in {', '.join(keys)}", next=next)


def config_differences(a: Side, b: Side) -> dict[str, tuple[Any, Any]]:
    """Keys of config.json with both values, where they are not the same."""
    mine, theirs = a.known.config.to_dict(), b.known.config.to_dict()
    return {key: (mine.get(key), theirs.get(key)) for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)}


def inputs(side: Side, text: str | None, ids: str | None, dump: Dump | None) -> dict[str, Tensor]:
    """What both sides read: one sequence, and for an encoder-decoder the beginning of its output."""
    import torch

    from pellucid.cli._walk import needed

    model = side.model
    if text is not None and ids is not None:
        raise click.UsageError("--text and --ids: give one of them")
    if text is None and ids is None and dump is not None and "input_ids" in dump:
        names = {"input_ids", "decoder_input_ids", "token_type_ids", *model.stack.inputs}
        given = {name: read_input(dump, name) for name in names if name in dump}
    else:
        given = {"input_ids": torch.tensor([read_ids(side, text, ids)])}
    given = needed(model, given["input_ids"]) | given
    if model.encoder is not None and "decoder_input_ids" not in given:
        start, read = model.spec.decoder_start, given["input_ids"]
        opening = read[:, -1:] if not isinstance(start, int) else torch.full_like(read[:, :1], start)
        given["decoder_input_ids"] = torch.cat([opening, read[:, :-1]], 1)
    if isinstance(model.head_spec, ChoiceHead):
        given = {name: value[:, None] for name, value in given.items()}
    return given


def read_input(dump: Dump, name: str) -> Tensor:
    """An input of one sequence, as a batch of one.

    Raises:
        InputError: several sequences, or no numbers.
    """
    value = dump[name].long()
    one = value[None] if value.dim() == 1 else value
    if one.dim() < 2 or one.shape[0] != 1:
        raise InputError(f"{name} is {list(value.shape)}", where=dump.path, next="give one sequence, [tokens]")
    return one


def read_ids(side: Side, text: str | None, ids: str | None) -> list[int]:
    """The ids that were asked for; else a sentence; else random ones.

    Raises:
        InputError: --ids that are no whole numbers.
        TokenizerError: --text, and a folder without a tokenizer.
    """
    import torch

    from pellucid.text.tokenizer import Tokenizer

    if ids is not None:
        try:
            return [int(each) for each in ids.split(",")]
        except ValueError:
            raise InputError(f"{ids!r} is no list of ids", where="--ids", next="give whole numbers: 1,2,3") from None
    try:
        return list(Tokenizer.from_folder(side.folder)(text if text is not None else TEXT)["input_ids"])
    except TokenizerError:
        if text is not None:
            raise
    stack = side.model.encoder.stack if side.model.encoder is not None else side.model.stack
    return torch.randint(stack.embed.vocab, (RANDOM,), generator=torch.Generator().manual_seed(0)).tolist()


# ------------------------------------------------------------------------------------------------ the comparison


@dataclass(frozen=True)
class Apart:
    """How far a value of A is from the other's."""

    name: str
    error: float


def side_by_side(mine: Iterator[Value], theirs: Iterator[Value]) -> Iterator[Apart]:
    """Two models of one architecture: the same values in the same order, until tokens go to other experts."""
    from pellucid.cli._walk import error

    for (name, a), (other, b) in zip(mine, theirs):
        if name != other or a.shape != b.shape:  # routers chose other experts
            yield Apart(name, math.inf)
            return
        yield Apart(name, error(a, b))


def with_dump(values: Iterator[Value], dump: Dump, given: set[str]) -> Iterator[Apart]:
    """The values that a file has too.

    Raises:
        InputError: a value of another shape, or a name that no value of this model has.
    """
    from pellucid.cli._walk import error

    missing, known = [name for name in dump if name not in given], []
    for name, x in values:
        known.append(name)
        if name in missing:
            missing.remove(name)
            theirs = dump[name]
            if theirs.dim() == x.dim() + 1 and theirs.shape[0] == 1:
                theirs = theirs[0]  # a batch of one
            if theirs.shape != x.shape:
                what = f"{name} is {list(dump[name].shape)} in the file and {list(x.shape)} here"
                next = "values are [tokens, …] of one sequence; give --ids or --text, or input_ids in the file"
                raise InputError(what, where=dump.path, next=next)
            yield Apart(name, error(x, theirs))
    if missing:
        what = f"{missing[0]!r} is no value of this model" + (f", nor are {len(missing) - 1} more" * (len(missing) > 1))
        raise InputError(what, where=dump.path, next=nearest(missing[0], known) or f"it has {', '.join(known[:5])} …")


def keeping(values: Iterator[Value], kept: dict[str, Tensor]) -> Iterator[Value]:
    """The same values, each put into `kept` on its way."""
    for name, x in values:
        kept[name] = x.clone()
        yield name, x


@dataclass(frozen=True)
class Report:
    """What is printed."""

    a: str
    b: str
    ids: list[int]
    tolerance: float
    values: list[Apart]

    @property
    def first(self) -> Apart | None:
        return next((value for value in self.values if not value.error <= self.tolerance), None)

    def facts(self) -> dict[str, Any]:
        """For `--json`."""
        first = self.first.name if self.first else None
        return {**asdict(self), "first": first}

    def text(self) -> str:
        """A line for each value, and the verdict."""
        head = [f"A  {self.a}", f"B  {self.b}" if self.b else "", f"{len(self.ids)} ids: {shown(self.ids)}", ""]
        if not self.b:
            return "\n".join([line for line in head if line] + [f"{len(self.values)} values written"])
        lines = [
            f"{value.error:8.1e}  {value.name}{'   <-- they part' if value is self.first else ''}"
            for value in self.values
        ]
        largest = max((value.error for value in self.values), default=0.0)
        verdict = f"nothing parts: all within {largest:.1e} (tolerance {self.tolerance:g})"
        if self.first:
            verdict = f"they part at {self.first.name}: {self.first.error:.1e} (tolerance {self.tolerance:g})"
        return "\n".join([*head, *lines, "", verdict])


def shown(ids: list[int]) -> str:
    return " ".join(map(str, ids[:12])) + (" …" if len(ids) > 12 else "")
