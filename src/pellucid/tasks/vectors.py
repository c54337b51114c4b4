"""What is done with sentences' vectors: similarities, search, and fewer bits.

Vectors are tensors, arrays or lists, one [D] or several [N, D]. Names and definitions are those of the `util` of
sentence-transformers; scores are computed in float32 at least, since near neighbours in bfloat16 would tie.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.errors import ArgumentError, InputError, nearest
from pellucid.tasks.flow import whole_number
from pellucid.tasks.sentence_layout import Similarity

log = logging.getLogger("pellucid")

Vectors = Tensor | np.ndarray | Sequence[Any]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = ("float32", "int8", "uint8", "binary", "ubinary")
ENOUGH = 100  # vectors whose least and largest values say where others will lie


def as_tensor(vectors: Vectors) -> Tensor:
    """One or several vectors, in float32 at least.

    Raises:
        InputError: they have different lengths, or are no numbers.
    """
    try:
        if isinstance(vectors, Sequence) and len(vectors) and isinstance(vectors[0], Tensor | np.ndarray):
            vectors = torch.stack([torch.as_tensor(each) for each in vectors])
        found = torch.as_tensor(vectors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no vectors of one length: {error}", where="vectors", next="give what encode returned"
        ) from None
    if found.dim() not in (1, 2):
        raise InputError(f"vectors of shape {tuple(found.shape)}", where="vectors", next="give [D] or [N, D]")
    return found.to(torch.promote_types(found.dtype, torch.float32))


def rows_of(vectors: Vectors) -> Tensor:
    """Several vectors, [N, D]; one becomes a row."""
    found = as_tensor(vectors)
    return found[None] if found.dim() == 1 else found


def unit(x: Tensor) -> Tensor:
    """To length 1; zeros stay."""
    return F.normalize(x, dim=-1)


# ------------------------------------------------------------------------------------------------ similarities


def dot_score(a: Vectors, b: Vectors) -> Tensor:
    """Products of all pairs, [A, B]."""
    return rows_of(a) @ rows_of(b).T


def cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """Cosines of all pairs, [A, B]."""
    return unit(rows_of(a)) @ unit(rows_of(b)).T


def euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Negative distances of all pairs, [A, B]."""
    return -torch.cdist(rows_of(a), rows_of(b))


def manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Negative sums of absolute differences of all pairs, [A, B]."""
    return -torch.cdist(rows_of(a), rows_of(b), p=1.0)


def pairwise_dot_score(a: Vectors, b: Vectors) -> Tensor:
    """Products of each with its partner, [N]."""
    return (as_tensor(a) * as_tensor(b)).sum(-1)


def pairwise_cos_sim(a: Vectors, b: Vectors) -> Tensor:
    """Cosines of each with its partner, [N]."""
    return (unit(as_tensor(a)) * unit(as_tensor(b))).sum(-1)


def pairwise_euclidean_sim(a: Vectors, b: Vectors) -> Tensor:
    """Negative distances of each to its partner, [N]."""
    return -torch.linalg.vector_norm(as_tensor(a) - as_tensor(b), dim=-1)


def pairwise_manhattan_sim(a: Vectors, b: Vectors) -> Tensor:
    """Negative sums of absolute differences of each to its partner, [N]."""
    return -(as_tensor(a) - as_tensor(b)).abs().sum(-1)


Score = Callable[[Vectors, Vectors], Tensor]
SIMILARITIES: dict[Similarity, tuple[Score, Score]] = {  # of all pairs, of partners
    "cosine": (cos_sim, pairwise_cos_sim),
    "dot": (dot_score, pairwise_dot_score),
    "euclidean": (euclidean_sim, pairwise_euclidean_sim),
    "manhattan": (manhattan_sim, pairwise_manhattan_sim),
}


# ------------------------------------------------------------------------------------------------------ search


class Hit(TypedDict):
    """A text of a corpus, by its number, and how near it is."""

    corpus_id: int
    score: float


def semantic_search(
    query_embeddings: Vectors,
    corpus_embeddings: Vectors,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500_000,
    top_k: int = 10,
    score_function: Score = cos_sim,
) -> list[list[Hit]]:
    """For each query the nearest vectors of a corpus, the nearest first.

    Args:
        query_chunk_size, corpus_chunk_size: of each so many at a time; only the memory depends on them.
    """
    for name, value in (
        ("query_chunk_size", query_chunk_size),
        ("corpus_chunk_size", corpus_chunk_size),
        ("top_k", top_k),
    ):
        whole_number(name, value)
    queries, corpus = rows_of(query_embeddings), rows_of(corpus_embeddings)
    if queries.shape[-1] != corpus.shape[-1]:
        what = f"queries of {queries.shape[-1]} dimensions, a corpus of {corpus.shape[-1]}"
        raise InputError(what, where="semantic_search", next="embed both with one model, cut to one length")
    queries = queries.to(corpus.device)
    found: list[list[Hit]] = []
    for chunk in queries.split(query_chunk_size):
        scores, numbers = torch.empty(len(chunk), 0), torch.empty(len(chunk), 0, dtype=torch.int64)
        for start in range(0, len(corpus), corpus_chunk_size):
            part = score_function(chunk, corpus[start : start + corpus_chunk_size])
            best = part.topk(min(top_k, part.shape[1]), dim=1)
            scores = torch.cat([scores, best.values.cpu()], 1)
            numbers = torch.cat([numbers, best.indices.cpu() + start], 1)
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]
        ranked = zip(numbers.gather(1, order).tolist(), scores.gather(1, order).tolist())
        found += [[Hit(corpus_id=i, score=s) for i, s in zip(*each)] for each in ranked]
    return found


# -------------------------------------------------------------------------------------------------- fewer bits


def quantize_embeddings(
    embeddings: Vectors,
    precision: Precision,
    ranges: np.ndarray | None = None,
    calibration_embeddings: Vectors | None = None,
) -> np.ndarray:
    """Vectors in fewer bits: 4, 4 or 32 times smaller.

    Args:
        precision: "int8" and "uint8" cut the range of each dimension into 256 steps; "binary" and "ubinary" keep the
            signs, eight to a byte (as int8, 128 less; as uint8).
        ranges: least and largest value of each dimension, [2, D]: needed for vectors that are quantized apart from each
            other, which would not compare otherwise.
        calibration_embeddings: vectors whose ranges are taken; without both, those of `embeddings` themselves.

    Raises:
        ArgumentError: there is no such precision. InputError: one vector alone, whose range is nothing.
    """
    if precision not in PRECISIONS:
        hint = nearest(str(precision), PRECISIONS) or f"one of {', '.join(PRECISIONS)}"
        raise ArgumentError(f"precision={precision!r}", where="precision", next=hint)
    x = as_tensor(embeddings).cpu().numpy()
    if precision == "float32":
        return x.astype(np.float32)
    if precision in ("binary", "ubinary"):
        bits = np.packbits(x > 0, axis=-1)
        return bits if precision == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
    if ranges is None:
        ranges = _ranges(
            x if calibration_embeddings is None else as_tensor(calibration_embeddings).cpu().numpy(), precision
        )
    low, high = np.asarray(ranges, np.float32)
    step = (high - low) / 255
    codes = np.clip(np.floor((x - low) / np.where(step == 0, 1, step)), 0, 255)
    return codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)


def _ranges(x: np.ndarray, precision: str) -> np.ndarray:
    """Least and largest value of each dimension, [2, D]."""
    if x.ndim == 1 or len(x) == 1:
        what = f"one vector alone says nothing of its dimensions' ranges, which {precision} needs"
        raise InputError(
            what, where="precision", next="pass ranges or calibration_embeddings, or quantize many at once"
        )
    if len(x) < ENOUGH:
        log.warning(
            "%s: ranges of %d vectors only; ranges= or calibration_embeddings= of more are steadier", precision, len(x)
        )
    return np.stack([x.min(0), x.max(0)])
