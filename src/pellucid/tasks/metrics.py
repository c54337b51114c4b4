"""Numbers that say how good predictions are, each with an interval that holds it 95 times in 100.

Proportions have Wilson's interval; all others are resampled: as many examples, drawn with replacement, a thousand times
from one seed, and the middle 95 % of what comes out (Efron 1979). Where a metric is a ratio of sums over the examples,
only the sums are drawn again. BLEU, chrF and ROUGE are those of sacrebleu and rouge-score, the extra `eval`.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from pellucid.errors import InputError, Unsupported

DRAWS, SEED = 1000, 0
Z = 1.959963984540054  # of a normal distribution, 95 % lie within


@dataclass(frozen=True)
class Measure:
    """A metric, and the ends of its interval. Shares are 0 to 1; BLEU and chrF 0 to 100, as everybody prints them."""

    name: str
    value: float
    low: float
    high: float


def proportion(name: str, hits: Sequence[bool]) -> Measure:
    """A share of the examples, with Wilson's interval (1927)."""
    n, share = len(hits), sum(hits) / len(hits)
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    return Measure(name, share, max(middle - half, 0.0), min(middle + half, 1.0))


def of_sums(name: str, sums_NS: Any, score: Callable[[np.ndarray], float]) -> Measure:
    """A score of sums over examples, [N, S] -> [S]."""
    x_NS = np.asarray(sums_NS, np.float64)
    return resampled(name, len(x_NS), lambda count_N: score(count_N @ x_NS))


def mean(name: str, values: Sequence[float]) -> Measure:
    """The mean of a value of each example."""
    return of_sums(name, [[value, 1.0] for value in values], lambda sums: ratio(sums[0], sums[1]))


def resampled(name: str, n: int, score: Callable[[np.ndarray], float]) -> Measure:
    """A score of examples that count so often each, [N]."""
    random = np.random.default_rng(SEED)
    drawn = [score(np.bincount(random.integers(0, n, n), minlength=n)) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measure(name, float(score(np.ones(n, np.int64))), float(low), float(high))


def ratio(a: Any, b: Any) -> float:
    """a / b, and 0 for nothing of nothing."""
    return float(a / b) if b else 0.0


# ------------------------------------------------------------------------------------------------ labels and tags


def of_labels(gold: Sequence[str], found: Sequence[str]) -> list[Measure]:
    """Accuracy; F1 of each label that occurs, averaged (macro), and of all examples together (micro)."""
    hits = [one == other for one, other in zip(gold, found)]
    return [proportion("accuracy", hits), *_of_sets([{one} for one in gold], [{one} for one in found])]


def of_label_sets(gold: Sequence[set[str]], found: Sequence[set[str]]) -> list[Measure]:
    """Of several labels of an example: the share whose labels are all right and no others; F1 as of one label, and of
    each example, averaged (samples). Where there is no label and none was said, F1 is 0, as in scikit-learn.
    """
    whole = [one == other for one, other in zip(gold, found)]
    samples = [ratio(2 * len(one & other), len(one) + len(other)) for one, other in zip(gold, found)]
    return [proportion("accuracy", whole), *_of_sets(gold, found), mean("f1_samples", samples)]


def _of_sets(gold: Sequence[set[str]], found: Sequence[set[str]]) -> list[Measure]:
    number = {label: i for i, label in enumerate(sorted(set().union(*gold, *found)))}
    hit_NC, gold_NC, found_NC = np.zeros((3, len(gold), len(number)))
    for row, (one, other) in enumerate(zip(gold, found)):
        for at_NC, labels in ((gold_NC, one), (found_NC, other), (hit_NC, one & other)):
            at_NC[row, [number[label] for label in labels]] = 1
    sums_NS = np.stack([hit_NC, gold_NC + found_NC], 1).reshape(len(gold), -1)

    def macro(sums_S: np.ndarray) -> float:
        hit_C, both_C = sums_S.reshape(2, -1)
        there = both_C > 0
        return ratio(np.sum(2 * hit_C[there] / both_C[there]), there.sum())

    def micro(sums_S: np.ndarray) -> float:
        hit_C, both_C = sums_S.reshape(2, -1)
        return ratio(2 * hit_C.sum(), both_C.sum())

    return [of_sums("f1_macro", sums_NS, macro), of_sums("f1_micro", sums_NS, micro)]


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, first and last place of each entity, by conlleval's rules, which are seqeval's where it is not strict.

    B, I, E and S may be missing or out of place: an entity ends before another type, before B and S, behind E and S.
    """
    found, begin, kind, before = set(), 0, "", "O"
    for at, tag in enumerate([*tags, "O"]):
        mark, name = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        if before not in ("O", "") and (before in "ES" or mark in "BSO" or name != kind):
            found.add((kind, begin, at - 1))
        if mark != "O" and (mark in "BS" or before in "OES" or name != kind):
            begin = at
        before, kind = mark, name
    return found


def of_tags(gold: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> list[Measure]:
    """Precision, recall and F1 of whole entities, and the share of words whose tag is right."""
    sums, words = [], []
    for one, other in zip(gold, found):
        there, seen = entities(one), entities(other)
        sums.append([len(there & seen), len(seen), len(there)])
        words.append([sum(a == b for a, b in zip(one, other)), len(one)])
    return [
        of_sums("precision", sums, lambda s: ratio(s[0], s[1])),
        of_sums("recall", sums, lambda s: ratio(s[0], s[2])),
        of_sums("f1", sums, lambda s: ratio(2 * s[0], s[1] + s[2])),
        of_sums("accuracy", words, lambda s: ratio(s[0], s[1])),
    ]


# ------------------------------------------------------------------------------------------------------- answers


def plain(answer: str) -> str:
    """Without case, punctuation, articles and spaces that say nothing. Source: SQuAD's evaluate-v2.0.py."""
    text = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def shared_words(gold: str, found: str) -> float:
    """F1 of the words of two answers; of two empty ones 1."""
    one, other = plain(gold).split(), plain(found).split()
    if not one or not other:
        return float(one == other)
    both = sum((Counter(one) & Counter(other)).values())
    return 2 * both / (len(one) + len(other))


def of_answers(gold: Sequence[Sequence[str]], found: Sequence[str]) -> list[Measure]:
    """Exact match and F1 with the nearest of the right answers; none of them means that "" is right."""
    golds = [list(each) or [""] for each in gold]
    exact = [any(plain(one) == plain(answer) for one in each) for each, answer in zip(golds, found)]
    best = [max(shared_words(one, answer) for one in each) for each, answer in zip(golds, found)]
    return [proportion("exact_match", exact), mean("f1", best)]


# ---------------------------------------------------------------------------------------------------------- texts


def of_translations(gold: Sequence[Sequence[str]], found: Sequence[str]) -> list[Measure]:
    """BLEU and chrF of sacrebleu, by its own settings and its own resampling."""
    library: Any = needed("sacrebleu")
    most = max(map(len, gold))
    references = [[each[i] if i < len(each) else None for each in gold] for i in range(most)]
    measures = []
    for name, metric in (("bleu", library.BLEU()), ("chrf", library.CHRF())):
        whole = metric.corpus_score(list(found), references).score
        drawn = resampled(name, len(found), _of_counts(metric, list(found), references))
        measures.append(Measure(name, whole, drawn.low, drawn.high))
    return measures


def _of_counts(metric: Any, found: list[str], references: list[list[str | None]]) -> Callable[[np.ndarray], float]:
    """A corpus's score from sacrebleu's own counts of each text, which its classes add up in the same way."""
    counts = np.array(metric._extract_corpus_statistics(found, references), np.float64)

    def score(count_N: np.ndarray) -> float:
        return float(metric._compute_score_from_stats([int(each) for each in count_N @ counts]).score)

    return score


def of_summaries(gold: Sequence[Sequence[str]], found: Sequence[str]) -> list[Measure]:
    """ROUGE-1, -2 and -L (F1, without stemming) of rouge-score, with the nearest of several references."""
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer: Any = needed("rouge_score.rouge_scorer", "rouge-score").RougeScorer(kinds)
    scores = [scorer.score_multi(list(each), text) for each, text in zip(gold, found)]
    return [mean(kind, [each[kind].fmeasure for each in scores]) for kind in kinds]


def needed(module: str, package: str = "") -> Any:
    """A library of the extra `eval`.

    Raises:
        Unsupported: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module
        raise Unsupported(
            f"{name} is not installed: {error}", where="eval", next='pip install "pellucid[eval]"'
        ) from None


def of_surprise(nats: Sequence[float], tokens: Sequence[int]) -> list[Measure]:
    """Perplexity of texts: e to the mean of -log p of their tokens."""
    sums = list(zip(nats, tokens))
    return [of_sums("perplexity", sums, lambda s: math.exp(min(ratio(s[0], s[1]), 700.0)))]


# ------------------------------------------------------------------------------------------ similarity and search


def ranks(values: Any) -> np.ndarray:
    """Places in order, from 0; equal values share the middle of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: np.ndarray = (ends - counts + ends - 1) / 2
    return middle[inverse]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; 0 where one of them does not change."""
    a, b = a - a.mean(), b - b.mean()
    return ratio((a * b).sum(), math.sqrt((a * a).sum() * (b * b).sum()))


def of_similarities(gold: Sequence[float], found: Sequence[float]) -> list[Measure]:
    """Spearman's correlation: Pearson's, of ranks (1904)."""
    one, other = np.asarray(gold, np.float64), np.asarray(found, np.float64)
    if len(one) < 2:
        raise InputError(f"{len(one)} pair says nothing of an order", where="data", next="give more")

    def score(count_N: np.ndarray) -> float:
        rows = np.repeat(np.arange(len(one)), count_N)
        return correlation(ranks(one[rows]), ranks(other[rows]))

    return [resampled("spearman", len(one), score)]


def gain(relevance: Sequence[float], most: int) -> float:
    """Relevances in an order, each divided by log2(place + 1). Source: Järvelin and Kekäläinen 2002."""
    return sum(value / math.log2(place + 2) for place, value in enumerate(relevance[:most]))


def of_rankings(relevances: Sequence[Sequence[float]], most: int = 10) -> list[Measure]:
    """nDCG and the mean reciprocal rank of the first that is relevant, of the first ten.

    Args:
        relevances: of each query's documents, all of them, in the order in which they were found; 0 is not relevant.
    """
    shares = [ratio(gain(each, most), gain(sorted(each, reverse=True), most)) for each in relevances]
    first = [next((1 / (i + 1) for i, value in enumerate(each[:most]) if value > 0), 0.0) for each in relevances]
    return [mean(f"ndcg@{most}", shares), mean(f"mrr@{most}", first)]
