"""Texts to vectors whose nearness says how alike they are: a transformer and the steps of its layout.

A text that is longer than the model reads is cut and its tokens are counted (`Embedding.dropped`); with `windows` all
of it is read: in as few windows as it needs, of nearly one length, each behind the prompt. Its vector is the mean of
theirs, each counting as its tokens, of length 1 again where the model's own vectors are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from tokenizers import normalizers
from torch import Tensor

from pellucid import families
from pellucid.errors import InputError, WeightsError
from pellucid.models.loading import load
from pellucid.models.model import Model
from pellucid.nn.linear import plain
from pellucid.ops.elementwise import activation, upcast
from pellucid.spec import Task
from pellucid.tasks.flow import forwards
from pellucid.tasks.rows import Cut, Row, encode, room
from pellucid.tasks.sentence_layout import Kind, LayerNorm, Layout, Normalize, Pool, Project, Step, read_layout
from pellucid.tasks.vectors import unit
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")


@dataclass(frozen=True)
class Embedding:
    """Of one text: its vector [D], float32 at least.

    Args:
        tokens: how many the model read, with the special ones.
        dropped: tokens that were cut off.
        states: of each token [T, D], before the pooling; where they were asked for.
    """

    vector: Tensor
    tokens: int
    dropped: int = 0
    row: Row | None = None
    states: Tensor | None = None


@dataclass(frozen=True)
class How:
    """What is made of texts.

    Args:
        prompt: stands before each text.
        windows: reads all of a text that is too long, see above.
        dim: only so many dimensions, the first.
        unit: to length 1, after the cut.
        states: keep those of tokens.
    """

    prompt: str = ""
    windows: bool = False
    dim: int | None = None
    unit: bool = False
    states: bool = False


@dataclass
class SentenceModel:
    """A transformer, its tokenizer, and what makes one vector of its states."""

    model: Model
    tokenizer: Tokenizer
    layout: Layout
    longest: int | None = field(init=False)  # tokens of a text

    def __post_init__(self) -> None:
        said, most = self.layout.longest, self.model.spec.context
        limit = room(self.model, self.tokenizer)
        self.longest = limit if said is None else min(said, most) if most is not None else said
        untrained = [name for name in self.model.report.initialised if not name.startswith("pooler.")]
        if untrained:
            what = f"{len(untrained)} parameter(s) are not trained: {', '.join(untrained[:3])}"
            raise WeightsError(what, where=self.layout.inner, next="give a checkpoint that has them")

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        width = self.model.spec.width
        for step in self.layout.steps:
            match step:
                case Pool(kinds=kinds):
                    width *= len(kinds)
                case Project(weight_OI=weight):
                    width = len(weight)
        return width

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], how: How = How()) -> list[Embedding]:
        """A vector for each text.

        Raises:
            InputRefused: a text that is no string, or has no token.
        """
        begin, skip = self._prompt_rows(how.prompt)
        whole = [how.prompt + text if isinstance(text, str) else text for text in texts]
        rows = encode(self.model, self.tokenizer, whole, cut=Cut(True, self.longest))
        parts = [self._windows(text, row, begin, how) for text, row in zip(whole, rows)]
        vectors, states = self._read([row for each in parts for row in each], skip, how.states)
        found, at = [], 0
        for each in parts:
            vector = self._joined(vectors[at : at + len(each)], each)[: how.dim]
            vector = unit(vector) if how.unit else vector
            tokens, dropped = sum(len(row.ids) for row in each), sum(row.dropped for row in each)
            kept = (each[0], states[at]) if how.states else ()
            found.append(Embedding(vector, tokens, dropped, *kept))
            at += len(each)
        return found

    # ------------------------------------------------------------------------------------------ rows

    def _prompt_rows(self, prompt: str) -> tuple[list[int], int]:
        """The prompt's own ids, and how many first tokens of a row are no part of its vector."""
        if not prompt:
            return [], 0
        own = self.tokenizer.encode(prompt, add_special_tokens=False, verbose=False)
        if self._pool.include_prompt:
            return own, 0
        whole = self.tokenizer.encode(prompt, verbose=False)
        return own, len(whole) - (whole[-1] in self.tokenizer.all_special_ids)

    def _windows(self, text: str, row: Row, begin: list[int], how: How) -> list[Row]:
        """The rows that read a text behind its prompt: one, or as many as its windows."""
        if not row.dropped or not how.windows:
            return [row]
        assert self.longest is not None
        ids = self.tokenizer.encode(text, add_special_tokens=False, verbose=False)[len(begin) :]
        around = self.tokenizer.num_special_tokens_to_add() + len(begin)
        if around >= self.longest:
            what = f"the prompt leaves no room: {around} tokens of {self.longest}"
            raise InputError(what, where="prompt", next="give a shorter prompt")
        count = -(-len(ids) // (self.longest - around))
        cuts = [len(ids) * i // count for i in range(count + 1)]
        pieces = [[*begin, *ids[start:end]] for start, end in zip(cuts, cuts[1:])]
        return [Row(self.tokenizer.build_inputs_with_special_tokens(piece)) for piece in pieces]

    # --------------------------------------------------------------------------------------- vectors

    @property
    def _pool(self) -> Pool:
        first = self.layout.steps[0]
        assert isinstance(first, Pool)
        return first

    def _read(self, rows: Sequence[Row], skip: int, keep: bool) -> tuple[Tensor, list[Tensor]]:
        """A vector of each row [R, D], and the states of its tokens if they are kept."""
        vectors = torch.empty(len(rows), self.dim, device=self.model.device)
        vectors = vectors.to(torch.promote_types(self.model.dtype, torch.float32))
        states = [torch.empty(0)] * len(rows) if keep else []
        for group, output in forwards(self.model, rows):
            x_BTD = output.last_hidden_state
            lengths = [len(rows[i].ids) for i in group]
            x_BD = pooled(self._pool, x_BTD, lengths, skip)
            for step in self.layout.steps[1:]:
                x_BD = applied(step, x_BD)
            vectors[group] = x_BD
            for i, row_TD, n in zip(group, x_BTD, lengths) if keep else ():
                states[i] = row_TD[:n]
        return vectors, states

    def _joined(self, vectors_RD: Tensor, rows: Sequence[Row]) -> Tensor:
        if len(rows) == 1:
            return vectors_RD[0]
        counts = torch.tensor([len(row.ids) for row in rows], dtype=vectors_RD.dtype, device=vectors_RD.device)
        mean_D = (counts / counts.sum()) @ vectors_RD
        return unit(mean_D) if isinstance(self.layout.steps[-1], Normalize) else mean_D


def pooled(step: Pool, x_BTD: Tensor, lengths: Sequence[int], skip: int = 0) -> Tensor:
    """One vector of each row's states, [B, K * D], where K kinds are joined; computed in float32.

    Args:
        x_BTD: zeros behind each row's length.
        skip: so many first tokens do not count.
    """
    x_BTD = upcast(x_BTD)
    at_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    length_B1 = torch.tensor(lengths, device=x_BTD.device)[:, None]
    counts_BT = (at_T < length_B1) & (at_T >= torch.minimum(torch.tensor(skip), length_B1 - 1))
    return torch.cat([_pooled(kind, x_BTD, counts_BT) for kind in step.kinds], dim=-1)


def _pooled(kind: Kind, x_BTD: Tensor, counts_BT: Tensor) -> Tensor:
    """All kinds but the maximum are sums, each with its weights of the tokens."""
    if kind == "max":
        return x_BTD.masked_fill(~counts_BT[..., None], -torch.inf).amax(1)
    ones_BT = counts_BT.to(x_BTD.dtype)
    match kind:
        case "mean":
            weight_BT = ones_BT / ones_BT.sum(1, keepdim=True)
        case "mean_sqrt_len_tokens":
            weight_BT = ones_BT / ones_BT.sum(1, keepdim=True).sqrt()
        case "weightedmean":  # arXiv 2202.08904, section 3: later tokens of a decoder have read more
            rising_BT = ones_BT * torch.arange(1, ones_BT.shape[1] + 1, device=ones_BT.device)
            weight_BT = rising_BT / rising_BT.sum(1, keepdim=True)
        case "cls":
            weight_BT = ones_BT * (ones_BT.cumsum(1) == 1)
        case "lasttoken":
            weight_BT = ones_BT * (ones_BT.cumsum(1) == ones_BT.sum(1, keepdim=True))
    return torch.bmm(weight_BT[:, None], x_BTD)[:, 0]


def applied(step: Step, x_BD: Tensor) -> Tensor:
    """A step behind the pooling."""
    match step:
        case Normalize():
            return unit(x_BD)
        case LayerNorm(weight_D=weight_D, bias_D=bias_D):
            return F.layer_norm(x_BD, weight_D.shape, weight_D.to(x_BD), bias_D.to(x_BD))
        case Project():
            return _projected(step, x_BD)
        case Pool():
            raise AssertionError("the pooling comes first")


def _projected(step: Project, x_BD: Tensor) -> Tensor:
    bias = None if step.bias_O is None else step.bias_O.to(x_BD)
    y_BO = activation(plain(x_BD, step.weight_OI.to(x_BD), bias), step.act)
    if step.residual is None:
        return y_BO
    return y_BO + (plain(x_BD, step.residual.to(x_BD), None) if isinstance(step.residual, Tensor) else x_BD)


# ------------------------------------------------------------------------------------------------------ opening

M = TypeVar("M", bound=Model)


def open_sentence_model(
    folder: Path, *, model_class: type[Model] = Model, dtype: Any = None, device: Any = None
) -> SentenceModel:
    """The sentence model of a folder.

    Raises:
        PellucidError: see `read_layout` and `load`.
    """
    layout = read_layout(folder)
    model = load(task=task_of(layout.inner), dtype=dtype, device=device, model_class=model_class, folder=layout.inner)
    return with_layout(model, Tokenizer.from_folder(layout.inner), layout)


def task_of(folder: Path) -> Task | None:
    """What is loaded of a transformer: all of it, but of an encoder-decoder the encoder."""
    config, family = families.read_config(folder)
    return "text-encoding" if family.spec(config)[0].encoder is not None else None


def with_layout(model: Model, tokenizer: Tokenizer, layout: Layout) -> SentenceModel:
    """A loaded model and tokenizer as the layout has them."""
    if layout.assumed:
        log.warning(layout.assumed)
    return SentenceModel(model, _lowered(tokenizer) if layout.lower else tokenizer, layout)


def _lowered(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that makes letters small first."""
    copy = deepcopy(tokenizer)
    steps = [normalizers.Lowercase(), *([copy.rust.normalizer] if copy.rust.normalizer is not None else [])]
    copy.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    return copy
