"""Another number of token vectors in a model that is in memory: for tokens that its tokenizer was given.

What grows is what the family's own spec makes larger when the config's vocabulary does: the embedding, the head's
matrix where it has one of its own, its biases. Rows of before stay where they are, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pellucid import families
from pellucid.errors import Unsupported
from pellucid.models.loading import initialise, unfilled
from pellucid.models.model import Model
from pellucid.nn.heads import Fixed
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Table
from pellucid.ops.packed import PackedTensor
from pellucid.spec import LmHead, PretrainingHead, language

KEYS = ("vocab_size", "decoder_vocab_size")  # of the config, or of its text part
SPREAD = 1e-9  # of the covariance of the old rows: what new ones have


@torch.inference_mode(False)
@torch.no_grad()
def resize(model: Model, rows: int, *, mean: bool) -> None:
    """Gives a model `rows` token vectors in place of those that it has; tied ones stay tied.

    Args:
        mean: new rows are drawn around the mean of the old ones (Hewitt 2021, https://nlp.stanford.edu/~johnhew/
            vocab-expansion.html), so that no new token is likelier than the usual one; else as in a new model.

    Raises:
        Unsupported: the weights are packed, or the family has no table of tokens that another vocabulary makes larger.
    """
    if rows == model.spec.vocab:
        return
    if model.container is not None:
        what = "the model is a GGUF file's, which holds the tokenizer too"
        raise Unsupported(what, where=model.container.path, next="`pellucid convert` it to a folder, and load that")
    changed = _with_vocab(model, rows)
    outline = _outlined(model, changed)
    if outline.spec.vocab != rows:
        what = f"the config of a {model.spec.family} says its number of tokens in a way of its own"
        raise Unsupported(what, where="resize_token_embeddings", next="keep the number of tokens that it has")
    held, wanted = (dict(nn.Module.named_parameters(each, remove_duplicate=False)) for each in (model, outline))
    grown = {slot for slot in held if slot in wanted and held[slot].shape != wanted[slot].shape}
    for slot in grown:
        _require_plain(model, slot)
    old = {slot: held[slot] for slot in grown if slot not in model.ties()}
    made: dict[str, nn.Parameter] = {}
    for slot, parameter in old.items():
        empty = torch.empty(wanted[slot].shape, dtype=parameter.dtype, device=parameter.device)
        made[slot] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        owner, name = _owner(model, slot)
        owner._parameters[name] = made[slot]
    initialise(model, None, only=set(old))
    for slot, parameter in old.items():
        _fill(made[slot], parameter, around_mean=mean and not isinstance(_owner(model, slot)[0], Fixed))
    for slot in grown:
        owner, _ = _owner(model, slot)
        if isinstance(owner, Linear):
            owner.out_features = rows
    model.config.update(changed)
    _describe(model, outline)
    model.tie_weights()


def _with_vocab(model: Model, rows: int) -> dict[str, Any]:
    """Keys of the config that say the number of tokens, with another value."""
    values, before = model.config.to_dict(), model.spec.vocab
    changed: dict[str, Any] = {key: rows for key in KEYS if values.get(key) == before}
    if isinstance(inner := values.get("text_config"), dict):
        changed["text_config"] = {**inner, "vocab_size": rows}
    return changed


def _outlined(model: Model, changed: dict[str, Any]) -> Model:
    """The model of a changed config, without memory for its parameters."""
    config = model.config.copy()
    config.update(changed)
    family = families.find(config.model_type, config.where)
    return unfilled(Model, family.spec(config)[0], config, family.table(config, model.task), model.task)


def _owner(model: Model, slot: str) -> tuple[nn.Module, str]:
    path, _, name = slot.rpartition(".")
    return model.get_submodule(path), name


def _require_plain(model: Model, slot: str) -> None:
    """
    Raises:
        Unsupported: a parameter is packed, or in a module of the family's own.
    """
    owner, name = _owner(model, slot)
    parameter = dict.get(owner._parameters, name)
    if isinstance(parameter, PackedTensor):
        what = f"{slot} is packed ({parameter.kind})"
        raise Unsupported(what, where="resize_token_embeddings", next="resize the model before it is quantized")
    if not isinstance(owner, Table | Linear | Fixed):
        what = f"{slot} of a {model.spec.family} is no table of tokens"
        raise Unsupported(what, where="resize_token_embeddings", next="keep the number of tokens that it has")


def _fill(new: Tensor, old: Tensor, *, around_mean: bool) -> None:
    """The old rows, and behind them what `new` holds already, or rows around the mean of the old ones.

    A matrix has a row for each token, a bias a number, and the row that training leaves alone a column.
    """
    if new.dim() == 2 and len(new) == len(old):
        new, old = new.T, old.T
    kept = min(len(new), len(old))
    new[:kept] = old[:kept]
    if not around_mean or kept == len(new):
        return
    rows = old.float().reshape(len(old), -1)
    mean = rows.mean(0)
    drawn = torch.randn(len(new) - kept, len(old), device=old.device)  # of this covariance, though it has no full rank
    new[kept:] = (mean + (SPREAD / len(old)) ** 0.5 * drawn @ (rows - mean)).reshape(new[kept:].shape).to(new.dtype)


def _describe(model: Model, outline: Model) -> None:
    """What the model says of itself, with the new number of tokens. A head that has a matrix of its own keeps it."""
    model.spec = outline.spec
    for tower, other in ((model, outline), (model.encoder, outline.encoder)):
        if tower is not None and other is not None:
            tower.stack, tower.embed.spec = other.stack, other.embed.spec
    head, was = outline.head_spec, language(model.head_spec)
    match head:
        case LmHead() if was:
            head = replace(head, tied=was.tied)
        case PretrainingHead(lm=LmHead() as lm) if was:
            head = replace(head, lm=replace(lm, tied=was.tied))
    model.head_spec = head
