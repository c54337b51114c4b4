"""Prompts in every form that `generate` takes, as rows; and rows in the form that was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pellucid.engine.asking import Prompt
from pellucid.engine.options import GenerationConfig
from pellucid.engine.sequence import Given
from pellucid.errors import ArgumentError, InputError, Unsupported
from pellucid.models.beside import memory_of
from pellucid.models.checks import WHOLE
from pellucid.models.inputs import Inputs
from pellucid.models.model import Model
from pellucid.models.packing import packing

Form = Literal["tensor", "one", "lists"]


@dataclass(frozen=True)
class Prompts:
    """The rows of a call.

    Args:
        rows: what is generated from, without pads.
        form: of the result: a tensor, one list, or a list of lists.
        before: what stands before each row's output in the result, with the pads that were given.
        mask: [B, T], which places of the prompts count (behind an encoder: of the decoder's); None for all.
    """

    rows: list[Prompt]
    form: Form
    before: list[list[int]]
    mask: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Inputed:
    """The arguments of `generate` that make up prompts; see there."""

    ids: Any
    mask: Tensor | None
    vectors: Tensor | None
    decoder_ids: Any
    decoder_mask: Tensor | None
    encoder_outputs: Any
    negative_ids: Any
    negative_mask: Tensor | None
    extra: Mapping[str, Any]

    def rectangular(self, pad: int) -> Inputed:
        """The same with lists as tensors, padded on the left."""
        ids, mask = _as_rectangle(self.ids, self.mask, pad)
        decoder_ids, decoder_mask = _as_rectangle(self.decoder_ids, self.decoder_mask, pad)
        return replace(self, ids=ids, mask=mask, decoder_ids=decoder_ids, decoder_mask=decoder_mask)


def read(model: Model, options: GenerationConfig, given: Inputed) -> Prompts:
    """The rows of a call.

    Raises:
        InputError: no prompt; an empty one; tensors of another shape or dtype.
        ArgumentError: arguments that do not go together.
        Unsupported: further inputs of a decoder.
    """
    if model.encoder is None:
        for name, value in (("encoder_outputs", given.encoder_outputs), ("decoder_input_ids", given.decoder_ids),
                            ("decoder_attention_mask", given.decoder_mask)):  # fmt: skip
            if value is not None:
                raise ArgumentError(f"{name} for a model without an encoder", where=name, next="leave it out")
    if given.extra and model.encoder is None:
        what = f"{', '.join(given.extra)} for a decoder"
        raise Unsupported(what, where="generate", next="call the model itself: generate reads ids alone")
    if given.vectors is not None or given.encoder_outputs is not None:
        found = _without_ids(model, options, given)
    else:
        found = of_ids(options, given.ids, given.mask)
    if given.extra:
        given = replace(given, mask=found.mask)
        found = replace(found, rows=_with_extra(model, found.rows, given))
    if given.negative_ids is not None:
        found = replace(found, rows=_with_negatives(found.rows, given, model.spec.context))
    return _behind_encoder(model, options, found, given) if model.encoder is not None else found


def of_ids(options: GenerationConfig, ids: Any, mask: Tensor | None) -> Prompts:
    """Rows of ids; the BOS token where there are none."""
    if ids is None:
        if mask is not None:
            raise ArgumentError("attention_mask without ids", where="attention_mask", next="give the ids too")
        bos = options.bos_token_id
        if bos is None:
            raise InputError("no prompt, and the model has no BOS token", where="generate", next="give ids")
        return Prompts([Prompt(ids=[bos])], "tensor", [[bos]])
    if isinstance(ids, Tensor) and mask is None:
        mask = guessed_mask(ids, options)
    rows, whole, form = rows_of(ids, mask)
    return Prompts([Prompt(ids=row) for row in rows], form, whole, mask)


def rows_of(given: Any, mask: Tensor | None, *, name: str = "") -> tuple[list[list[int]], list[list[int]], Form]:
    """The ids of each row without pads, the rows as they were given, and in what form.

    Args:
        name: of the argument, where it is not the prompt.
    """
    where = {"": "generate", "decoder": "decoder_input_ids"}.get(name, f"{name}_ids")
    if isinstance(given, Tensor):
        ids_BT = given[None] if given.dim() == 1 else given
        if ids_BT.dim() != 2 or ids_BT.dtype not in WHOLE:
            what = f"the prompt is {list(given.shape)} {given.dtype}"
            raise InputError(what, where=where, next="give integer ids, [batch, time]")
        if not ids_BT.numel():
            raise InputError("the prompt is empty", where=where, next="give at least one token")
        B, T = ids_BT.shape
        shape = packing(B, T, mask, name=f"{name}_attention_mask" if name else "attention_mask")
        rows = [list(map(int, row)) for row in shape.pack(ids_BT).split(list(shape.lengths))]
        return rows, ids_BT.tolist(), "tensor"
    if mask is not None:
        raise ArgumentError("attention_mask with a list", where="attention_mask", next="leave the pads out instead")
    rows = [given] if is_ids(given) else given
    if not isinstance(rows, (list, tuple)) or not rows or not all(_is_row(row) for row in rows):
        what = f"the prompt is no list of ids: a {type(given).__name__}, {str(given)[:60]}"
        raise InputError(what, where=where, next=_instead(given))
    lists = [list(row) for row in rows]
    return lists, lists, "one" if is_ids(given) else "lists"


def is_ids(given: Any) -> bool:
    """Whether this is one prompt, as a list."""
    return isinstance(given, (list, tuple)) and len(given) > 0 and all(type(i) is int for i in given)


def _is_row(given: Any) -> bool:
    return is_ids(given) or (isinstance(given, (list, tuple)) and len(given) == 0)


def _instead(given: Any) -> str:
    """What to give in place of something that is no ids."""
    first = given[0] if isinstance(given, (list, tuple)) and given else given
    if isinstance(given, Mapping):
        return "unpack it: generate(**encoded)"
    if isinstance(first, str):
        return "encode text with the tokenizer, or use model.stream(text, tokenizer=…) or a pipeline"
    if hasattr(first, "tolist"):
        return "give ids.tolist(), or one tensor of integers"
    return "give a tensor or lists of ids"


def guessed_mask(ids_BT: Tensor, options: GenerationConfig) -> Tensor | None:
    """Pads at the edges of a rectangle do not count, unless the pad id also ends sequences."""
    pad = options.pad_token_id
    if pad is None or pad in options.eos or ids_BT.dim() != 2:
        return None
    real = ids_BT != pad
    inside = (real.cumsum(1) > 0) & (real.flip(1).cumsum(1).flip(1) > 0)
    return inside.long()


def _as_rectangle(given: Any, mask: Tensor | None, pad: int) -> tuple[Any, Tensor | None]:
    if given is None or isinstance(given, Tensor):
        return given, mask
    rows, _, _ = rows_of(given, mask)
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


# ---------------------------------------------------------------------------------------- instead of ids, and beside


def _without_ids(model: Model, options: GenerationConfig, given: Inputed) -> Prompts:
    """Rows of vectors, or of an encoder's results. Ids may come along: for rules, and before the output."""
    if given.vectors is not None and given.encoder_outputs is not None:
        raise ArgumentError("both inputs_embeds and encoder_outputs", where="encoder_outputs", next="give one")
    if given.vectors is not None and given.ids is not None and model.encoder is not None:
        raise ArgumentError("both ids and inputs_embeds", where="inputs_embeds", next="give one")
    parts = _vectors(model, given) if given.vectors is not None else _states(model, given)
    said: list[list[int]] = [[] for _ in parts]
    before = said
    if given.ids is not None:
        fits = isinstance(given.ids, Tensor) and given.mask is not None and given.ids.shape == given.mask.shape
        said, before, _ = rows_of(given.ids, given.mask if fits else None)
        if len(said) != len(parts):
            what = f"{len(said)} rows of ids beside {len(parts)} of vectors"
            raise InputError(what, where="generate", next="give as many, or no ids")
    rows = [Prompt(ids=[0] * len(part), seen=seen, given=part) for part, seen in zip(parts, said)]
    return Prompts(rows, "tensor", before, given.mask)


def _vectors(model: Model, given: Inputed) -> list[Given]:
    stack = model.encoder.stack if model.encoder is not None else model.stack
    assert given.vectors is not None
    Inputs(vectors=given.vectors).check(stack, model.dtype)
    B, T, _ = given.vectors.shape
    shape = packing(B, T, given.mask)
    return [Given(vectors=x_TD) for x_TD in shape.pack(given.vectors.to(model.device)).split(list(shape.lengths))]


def _states(model: Model, given: Inputed) -> list[Given]:
    assert model.encoder is not None
    memory = memory_of(model.encoder.stack, given.encoder_outputs, given.mask)
    assert memory is not None
    states = memory.x.to(model.device, model.dtype).split(list(memory.lengths))
    return [Given(states=x_TD) for x_TD in states]


def _with_extra(model: Model, rows: list[Prompt], given: Inputed) -> list[Prompt]:
    """Further inputs of an encoder, such as LED's `global_attention_mask`, [B, T, …]."""
    if not isinstance(given.ids, Tensor):
        raise ArgumentError(f"{', '.join(given.extra)} with lists", where="generate", next="give tensors")
    ids_BT = given.ids[None] if given.ids.dim() == 1 else given.ids
    assert model.encoder is not None
    B, T = ids_BT.shape
    Inputs(ids_BT, extra=given.extra).check_beside(model.encoder.stack, B, T)
    shape = packing(B, T, given.mask)
    packed = {
        name: shape.pack(value.to(model.device)).split(list(shape.lengths)) for name, value in given.extra.items()
    }
    extras = [{name: pieces[i] for name, pieces in packed.items()} for i in range(len(rows))]
    return [replace(row, given=replace(row.given, extra=extra)) for row, extra in zip(rows, extras)]


def _with_negatives(rows: list[Prompt], given: Inputed, context: int | None) -> list[Prompt]:
    negatives, _, _ = rows_of(given.negative_ids, given.negative_mask, name="negative_prompt")
    if len(negatives) != len(rows):
        what = f"{len(negatives)} negative prompts for {len(rows)} prompts"
        raise InputError(what, where="negative_prompt_ids", next="give one for each prompt")
    longest = max(map(len, negatives))
    if context is not None and longest >= context:
        what = f"a negative prompt has {longest} tokens, the model's context {context}"
        raise InputError(what, where="negative_prompt_ids", next="shorten it")
    return [replace(row, negative=negative) for row, negative in zip(rows, negatives)]


def _behind_encoder(model: Model, options: GenerationConfig, found: Prompts, given: Inputed) -> Prompts:
    """What each decoder begins with: the start token, and then what was given for it."""
    named = options.decoder_start_token_id
    if isinstance(named, (list, tuple)) and len(named) not in (1, len(found.rows)):
        what = f"{len(named)} decoder_start_token_id for {len(found.rows)} rows"
        raise InputError(what, where="decoder_start_token_id", next="give one for each row, or one for all")
    starts = [options.start(model, row) for row in range(len(found.rows))]
    if given.decoder_ids is None:
        if given.decoder_mask is not None:
            what = "decoder_attention_mask without decoder_input_ids"
            raise ArgumentError(what, where="decoder_attention_mask", next="give the ids too")
        return replace(found, before=starts, mask=None)
    begins, whole, _ = rows_of(given.decoder_ids, given.decoder_mask, name="decoder")
    if len(begins) != len(found.rows):
        what = f"decoder_input_ids has {len(begins)} rows, the encoder's input {len(found.rows)}"
        raise InputError(what, where="decoder_input_ids", next="give as many")
    mask = given.decoder_mask
    if all(begin[:1] != start for begin, start in zip(begins, starts)):
        begins = [start + begin for begin, start in zip(begins, starts)]
        whole = [start + row for row, start in zip(whole, starts)]
        mask = None if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
    rows = [replace(row, begin=begin) for row, begin in zip(found.rows, begins)]
    return replace(found, rows=rows, before=whole, mask=mask)


# ---------------------------------------------------------------------------------------- the result


def rectangle(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """Rows as a tensor [B, T], filled on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])


def pad_of(options: GenerationConfig) -> int:
    """What fills rows that ended: the pad token, or else an end token."""
    pad = options.pad_token_id
    return min(options.eos, default=0) if pad is None else int(pad)
