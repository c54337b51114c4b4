"""Texts to vectors whose nearness says how alike they are: a transformer and the steps of its layout.

A text that is longer than the model reads is cut and its tokens are counted (`Embedding.dropped`); with `windows` all
of it is read: in as few windows as it needs, of nearly one length, each behind the prompt. Its vector is the mean of
theirs, each counting as its tokens, of length 1 again where the model's own vectors are.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid import families
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.model import Model
from pellucid.nn.linear import plain
from pellucid.ops.elementwise import activation, upcast
from pellucid.spec import Task
from pellucid.tasks.rows import Row
from pellucid.tasks.sentence_layout import Layout
from pellucid.tasks.sentence_modules import (
    Chain,
    Cnn,
    Kind,
    LayerNorm,
    Layers,
    Lstm,
    Normalize,
    Pool,
    Project,
    Step,
    Weights,
)
from pellucid.tasks.sentence_sources import OfTransformer, Opener, States, WhiteSpace, open_source
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
        task: "query", "document" …: the route, of a model that has several; a variable of chat templates that read it.
    """

    prompt: str = ""
    windows: bool = False
    dim: int | None = None
    unit: bool = False
    states: bool = False
    task: str | None = None


@dataclass
class SentenceModel:
    """A layout and what its sources have loaded: an encoder for each route, or one for all."""

    layout: Layout
    encoders: dict[str, Encoder]

    def embed(self, texts: Sequence[str], how: How = How()) -> list[Embedding]:
        """A vector for each text.

        Raises:
            InputRefused: a text that is no string. ArgumentError: no such route.
        """
        return self.encoders[self.layout.chain(how.task)].embed(texts, how)

    @property
    def sources(self) -> list[States]:
        """Where token states come from; each once, the first route's first."""
        return list({id(each.source): each.source for each in self.encoders.values()}.values())

    @property
    def model(self) -> Model | None:
        """The first route's model; None where it is a table."""
        first = self.sources[0]
        return first.model if isinstance(first, OfTransformer) else None

    @property
    def transformers(self) -> dict[Path, tuple[Model, Tokenizer]]:
        """Models and their tokenizers, by their folders."""
        found = {
            each.chain.source.folder: each.source
            for each in self.encoders.values()
            if isinstance(each.source, OfTransformer)
        }
        return {folder: (source.model, source.tokenizer) for folder, source in found.items()}

    @property
    def device(self) -> torch.device:
        """Where the first route is."""
        return self.sources[0].device

    @property
    def dtype(self) -> torch.dtype:
        """The first route's."""
        return self.sources[0].dtype

    @property
    def context(self) -> int | None:
        """The least positions that a model has; None for any number."""
        known = [source.model.spec.context for source in self.sources if isinstance(source, OfTransformer)]
        return min((n for n in known if n is not None), default=None)

    def to(self, device: torch.device | str) -> None:
        """Moves all."""
        for source in self.sources:
            source.to(device)

    @property
    def tokenizer(self) -> Tokenizer | WhiteSpace:
        """The first route's."""
        return self.sources[0].tokenizer

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return next(iter(self.encoders.values())).dim

    @property
    def longest(self) -> int | None:
        """Tokens of a text that are read, by the route that reads most; None for any number."""
        each = [source.longest for source in self.sources]
        return None if None in each else max(n for n in each if n is not None)

    @longest.setter
    def longest(self, value: int) -> None:
        for source in self.sources:
            source.longest = value


@dataclass
class Encoder:
    """A source of token states, and what makes one vector of them."""

    source: States
    chain: Chain

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        tokens, pool = self.chain.tokens, self.chain.pool
        width = tokens.width if isinstance(tokens, Cnn | Lstm) else self.source.width
        width *= len(pool.kinds) if pool else 1
        for step in self.chain.steps:
            width = len(step.weight_OI) if isinstance(step, Project) else width
        return width

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], how: How = How()) -> list[Embedding]:
        """A vector for each text.

        Raises:
            InputRefused: a text that is no string, or has no token. ArgumentError: more dimensions than a vector has.
        """
        if how.dim is not None and how.dim > self.dim:
            what = f"{how.dim} dimensions of vectors that have {self.dim}"
            raise ArgumentError(what, where="truncate_dim", next=f"ask for at most {self.dim}")
        pool = self.chain.pool
        if how.states and pool is None:
            what = "a bag of words has no states of tokens"
            raise Unsupported(what, where=self.chain.source.folder, next="ask for the sentence's vector")
        rows = self.source.rows(texts, how.prompt, how.task)
        parts = [
            self.source.windows(text, how.prompt) if row.dropped and how.windows else [row]
            for text, row in zip(texts, rows)
        ]
        skip = self.source.prompt_tokens(how.prompt) if how.prompt and pool and not pool.include_prompt else 0
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

    def _read(self, rows: Sequence[Row], skip: int, keep: bool) -> tuple[Tensor, list[Tensor]]:
        """A vector of each row [R, D], and the states of its tokens if they are kept."""
        vectors = torch.empty(len(rows), self.dim, device=self.source.device)
        vectors = vectors.to(torch.promote_types(self.source.dtype, torch.float32))
        states = [torch.empty(0)] * len(rows) if keep else []
        tokens, pool = self.chain.tokens, self.chain.pool
        for group, x_BTD in self.source.states(rows, tokens if isinstance(tokens, Layers) else None):
            lengths, weight_BT = [len(rows[i].ids) for i in group], None
            if isinstance(tokens, Weights):
                weight_BT = _weights([rows[i] for i in group], tokens, x_BTD)
                x_BTD = upcast(x_BTD) * weight_BT[..., None]
            elif isinstance(tokens, Cnn | Lstm):
                x_BTD = mixed(tokens, x_BTD, lengths)
            x_BD = x_BTD if pool is None else pooled(pool, x_BTD, lengths, skip, weight_BT)
            for step in self.chain.steps:
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
        steps = self.chain.steps
        return unit(mean_D) if steps and isinstance(steps[-1], Normalize) else mean_D


def _weights(rows: Sequence[Row], tokens: Weights, x_BTD: Tensor) -> Tensor:
    """Each token's weight [B, T], zeros behind a row."""
    weight_BT = torch.zeros(x_BTD.shape[:2])
    for weight_T, row in zip(weight_BT, rows):
        weight_T[: len(row.ids)] = tokens.weight_V.cpu()[row.ids]
    return weight_BT.to(x_BTD.device)


def mixed(step: Cnn | Lstm, x_BTD: Tensor, lengths: Sequence[int]) -> Tensor:
    """States of tokens that know of others [B, T, O], in float32: as if each text were alone, with zeros around it."""
    there_BT1 = (torch.arange(x_BTD.shape[1]) < torch.tensor(lengths)[:, None])[..., None].to(x_BTD.device)
    x_BTD = upcast(x_BTD).masked_fill(~there_BT1, 0)
    if isinstance(step, Cnn):
        return torch.cat([_filtered(x_BTD, weight.to(x_BTD), bias.to(x_BTD)) for weight, bias in step.filters], dim=2)
    for ways in step.layers:
        found = [_remembered(x_BTD, there_BT1, [part.to(x_BTD) for part in way], i) for i, way in enumerate(ways)]
        x_BTD = torch.cat(found, dim=2)
    return x_BTD


def _filtered(x_BTD: Tensor, weight_ODK: Tensor, bias_O: Tensor) -> Tensor:
    """Each token and its neighbours to O channels."""
    K = weight_ODK.shape[2]
    near_BTDK = F.pad(x_BTD, (0, 0, K // 2, K // 2)).unfold(1, K, 1)
    return plain(near_BTDK.flatten(2).flatten(0, 1), weight_ODK.flatten(1), bias_O).unflatten(0, x_BTD.shape[:2])


def _remembered(x_BTD: Tensor, there_BT1: Tensor, parts: Sequence[Tensor], backwards: int) -> Tensor:
    """States [B, T, H] of one way through the tokens. Behind a text they stay as they were: backwards, at zeros."""
    weight_ih, weight_hh, bias_ih, bias_hh = parts
    read_BTG = plain(x_BTD.flatten(0, 1), weight_ih, bias_ih).unflatten(0, x_BTD.shape[:2])
    state_BH = memory_BH = x_BTD.new_zeros(len(x_BTD), weight_hh.shape[1])
    found_BTH = x_BTD.new_empty(*x_BTD.shape[:2], weight_hh.shape[1])
    steps = range(x_BTD.shape[1])
    for t in reversed(steps) if backwards else steps:
        i, f, g, o = (read_BTG[:, t] + plain(state_BH, weight_hh, bias_hh)).chunk(4, dim=1)
        next_BH = f.sigmoid() * memory_BH + i.sigmoid() * g.tanh()
        memory_BH = torch.where(there_BT1[:, t], next_BH, memory_BH)
        state_BH = torch.where(there_BT1[:, t], o.sigmoid() * memory_BH.tanh(), state_BH)
        found_BTH[:, t] = state_BH
    return found_BTH


def pooled(step: Pool, x_BTD: Tensor, lengths: Sequence[int], skip: int = 0, weight_BT: Tensor | None = None) -> Tensor:
    """One vector of each row's states, [B, K * D], where K kinds are joined; computed in float32.

    Args:
        x_BTD: of any value behind each row's length; a row of none becomes zeros.
        skip: so many first tokens do not count.
        weight_BT: how much each token counts in means; the states have been multiplied by it.
    """
    x_BTD = upcast(x_BTD)
    at_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
    length_B1 = torch.tensor(lengths, device=x_BTD.device)[:, None]
    counts_BT = (at_T < length_B1) & (at_T >= torch.minimum(torch.tensor(skip), length_B1 - 1))
    sum_B1 = None if weight_BT is None else weight_BT.sum(1, keepdim=True)
    return torch.cat([_pooled(kind, x_BTD, counts_BT, sum_B1) for kind in step.kinds], dim=-1)


def _pooled(kind: Kind, x_BTD: Tensor, counts_BT: Tensor, sum_B1: Tensor | None) -> Tensor:
    """All kinds but the maximum are sums, each with its weights of the tokens."""
    if kind == "max":
        highest_BD = x_BTD.masked_fill(~counts_BT[..., None], -torch.inf).amax(1)
        return highest_BD.masked_fill(~counts_BT.any(1, keepdim=True), 0)
    ones_BT = counts_BT.to(x_BTD.dtype)

    def share(weight_BT: Tensor) -> Tensor:
        return (weight_BT.sum(1, keepdim=True) if sum_B1 is None else sum_B1).clamp(min=1e-9)

    match kind:
        case "mean":
            weight_BT = ones_BT / share(ones_BT)
        case "mean_sqrt_len_tokens":
            weight_BT = ones_BT / share(ones_BT).sqrt()
        case "weightedmean":  # arXiv 2202.08904, section 3: later tokens of a decoder have read more
            rising_BT = ones_BT * torch.arange(1, ones_BT.shape[1] + 1, device=ones_BT.device)
            weight_BT = rising_BT / share(rising_BT)
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


def _projected(step: Project, x_BD: Tensor) -> Tensor:
    bias = None if step.bias_O is None else step.bias_O.to(x_BD)
    y_BO = activation(plain(x_BD, step.weight_OI.to(x_BD), bias), step.act)
    if step.residual is None:
        return y_BO
    return y_BO + (plain(x_BD, step.residual.to(x_BD), None) if isinstance(step.residual, Tensor) else x_BD)


# ------------------------------------------------------------------------------------------------------ opening


def task_of(folder: Path) -> Task | None:
    """What is loaded of a transformer: all of it, but of an encoder-decoder the encoder."""
    config, family = families.read_config(folder)
    return "text-encoding" if family.spec(config)[0].encoder is not None else None


def sentence_model(layout: Layout, opener: Opener) -> SentenceModel:
    """What a layout names, loaded; a source that several routes share once.

    Args:
        opener: loads a transformer and its tokenizer.
    """
    if layout.assumed:
        log.warning(layout.assumed)
    chains = layout.chains
    named = {each.source.folder: each.source for each in chains.values()}
    opened = {folder: open_source(source, opener) for folder, source in named.items()}
    return SentenceModel(layout, {name: Encoder(opened[each.source.folder], each) for name, each in chains.items()})
