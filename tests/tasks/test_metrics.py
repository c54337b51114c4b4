"""Metrics by their definitions: small cases worked out by hand, and their libraries' own numbers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from pellucid.errors import InputError, Unsupported
from pellucid.tasks import metrics


def values(measures: list[metrics.Measure]) -> dict[str, float]:
    for each in measures:
        assert each.low <= each.high and math.isfinite(each.value)
    return {each.name: each.value for each in measures}


def test_labels() -> None:
    gold, found = list("aaabbc"), list("aabbba")
    of_a, of_b = 2 * 2 / (3 + 3), 2 * 2 / (2 + 3)  # twice what is right over what is there and what was said
    assert values(metrics.of_labels(gold, found)) == pytest.approx(
        {"accuracy": 4 / 6, "f1_macro": (of_a + of_b + 0) / 3, "f1_micro": 4 / 6}
    )
    assert values(metrics.of_labels(["a"], ["b"])) == {"accuracy": 0, "f1_macro": 0, "f1_micro": 0}


def test_several_labels() -> None:
    """sklearn.metrics.f1_score of scikit-learn 1.9.1, with each average, and accuracy_score."""
    gold = [{"a", "b"}, {"b"}, {"c"}, set(), {"a"}, set()]
    found = [{"a"}, {"b", "c"}, {"c"}, {"a"}, set(), set()]
    assert values(metrics.of_label_sets(gold, found)) == pytest.approx(
        {"accuracy": 2 / 6, "f1_macro": 0.6111111111111112, "f1_micro": 0.6, "f1_samples": 0.3888888888888889}
    )
    assert values(metrics.of_label_sets([set()], [set()])) == {
        "accuracy": 1, "f1_macro": 0, "f1_micro": 0, "f1_samples": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "tags, entities",
    [
        ("O O B-MISC I-MISC I-MISC O", {("MISC", 2, 4)}), ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER", {("PER", 0, 1)}), ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER I-LOC", {("PER", 0, 0), ("LOC", 1, 1)}), ("S-PER E-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-PER I-PER E-PER I-PER", {("PER", 0, 2), ("PER", 3, 3)}), ("B I O I", {("_", 0, 1), ("_", 3, 3)}),
        ("B-a-b I-a-b", {("a-b", 0, 1)}), ("O O", set()), ("", set()),
    ],
)  # fmt: skip
def test_entities(tags: str, entities: set[tuple[str, int, int]]) -> None:
    """What seqeval.metrics.sequence_labeling.get_entities (1.2.2) finds."""
    assert metrics.entities(tags.split()) == entities


def test_tags() -> None:
    """The example in seqeval's documentation."""
    gold = ["O O O B-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    found = ["O O B-MISC I-MISC I-MISC I-MISC O".split(), "B-PER I-PER O".split()]
    assert values(metrics.of_tags(gold, found)) == pytest.approx(
        {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.8}
    )


@pytest.mark.parametrize(
    "gold, found, exact, f1",
    [
        (["the Eiffel Tower"], "Eiffel tower!", 1, 1), (["Paris", "in Paris"], "in Paris", 1, 1),
        (["a b c"], "b c d", 0, 0.8), ([""], "", 1, 1), ([], "", 1, 1), ([], "Paris", 0, 0), (["Paris"], "", 0, 0),
        (["b b"], "b", 0, 2 / 3), (["the"], "", 1, 1),
    ],
)  # fmt: skip
def test_answers(gold: list[str], found: str, exact: float, f1: float) -> None:
    assert values(metrics.of_answers([gold], [found])) == pytest.approx({"exact_match": exact, "f1": f1})


def test_translations_are_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    gold = [["the cat sat on the mat", "a cat sat there"], ["hello there big world"], ["one two three four five"]]
    found = ["the cat sat on a mat", "hello big world", "one two three four"]
    references = [[each[0] for each in gold], [each[1] if len(each) > 1 else None for each in gold]]
    bleu, chrf = metrics.of_translations(gold, found)
    assert bleu.value == sacrebleu.corpus_bleu(found, references).score
    assert chrf.value == sacrebleu.corpus_chrf(found, references).score
    assert bleu.low < bleu.value < bleu.high and chrf.low < chrf.value < chrf.high


def test_summaries_are_rouge_scores() -> None:
    scoring = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = scoring.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    gold, found = ["the cat sat on the mat", "hello there"], ["a cat on the mat sat", "hello"]
    wanted = [scorer.score(*each) for each in zip(gold, found)]
    measures = values(metrics.of_summaries([[each] for each in gold], found))
    for kind in ("rouge1", "rouge2", "rougeL"):
        assert measures[kind] == pytest.approx(np.mean([each[kind].fmeasure for each in wanted]))
    assert values(metrics.of_summaries([["other words", "the cat sat"]], ["the cat sat"]))["rouge1"] == 1


def test_bleu_by_hand() -> None:
    """Of the six words five are in the reference, of the pairs the first three, of the triples two, of the fours one:
    5/6 * 3/5 * 2/4 * 1/3 = 1/12, and BLEU is its fourth root, as both texts are six words long.
    """
    pytest.importorskip("sacrebleu")
    found = metrics.of_translations([["the cat sat on the mat"]], ["the cat sat on a mat"])
    assert values(found)["bleu"] == pytest.approx(100 * (1 / 12) ** 0.25)
    short = values(metrics.of_translations([["one two three four five six"]], ["one two three four"]))
    assert short["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 4))  # all is right, and four words stand for six


def test_chrf_by_hand() -> None:
    """`abc` for `abcde`: every character, pair and triple is right; 3 of 5, 2 of 4 and 1 of 3 of the reference's are
    there. Longer pieces do not count, as the answer has none. Recall weighs twice: 5 P R / (4 P + R).
    """
    pytest.importorskip("sacrebleu")
    precision, recall = 1.0, (3 / 5 + 2 / 4 + 1 / 3) / 3
    found = values(metrics.of_translations([["a b cde"]], ["ab c"]))  # spaces are nothing
    assert found["chrf"] == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))


def test_rouge_by_hand() -> None:
    """Five of six words are shared, two of five pairs (on the, the mat), and four in order (cat on the mat)."""
    pytest.importorskip("rouge_score")
    found = values(metrics.of_summaries([["the cat sat on the mat"]], ["a cat on the mat sat"]))
    wanted = {"rouge1": 5 / 6, "rouge2": 2 / 5, "rougeL": 4 / 6, "rougeLsum": 4 / 6}
    assert found == pytest.approx(wanted)
    longer = values(metrics.of_summaries([["red fox"]], ["the red dog ran"]))["rouge1"]
    assert longer == pytest.approx(2 * (1 / 4) * (1 / 2) / (1 / 4 + 1 / 2))  # a quarter is right, half is there


def test_a_missing_library_is_named() -> None:
    with pytest.raises(Unsupported, match="no_such_library is not installed"):
        metrics.needed("no_such_library")


def test_similarities() -> None:
    assert metrics.ranks([3, 1, 1, 2]).tolist() == [3, 0.5, 0.5, 2]
    assert values(metrics.of_similarities([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.9])) == pytest.approx({"spearman": 0.8})
    assert values(metrics.of_similarities([1, 2, 3], [5, 5, 5])) == {"spearman": 0}
    with pytest.raises(InputError, match="says nothing of an order"):
        metrics.of_similarities([1], [2])


def test_rankings() -> None:
    found = values(metrics.of_rankings([[0, 1, 0, 2], [1, 0, 0, 0]]))
    ideal, got = 2 + 1 / math.log2(3), 1 / math.log2(3) + 2 / math.log2(5)
    assert found == pytest.approx({"ndcg@10": (got / ideal + 1) / 2, "mrr@10": (1 / 2 + 1) / 2})
    assert values(metrics.of_rankings([[0] * 10 + [1]])) == {"ndcg@10": 0, "mrr@10": 0}


def test_rankings_with_grades_and_none_relevant() -> None:
    """Grades 3, 2 and 1 in the order 2, 3, 0, 1: (2 + 3 / log2 3 + 1 / log2 5) / (3 + 2 / log2 3 + 1 / 2)."""
    got, ideal = 2 + 3 / math.log2(3) + 1 / math.log2(5), 3 + 2 / math.log2(3) + 1 / 2
    found = values(metrics.of_rankings([[2, 3, 0, 1], [0, 0]]))
    assert found == pytest.approx({"ndcg@10": (got / ideal + 0) / 2, "mrr@10": (1 + 0) / 2})


def test_surprise() -> None:
    assert values(metrics.of_surprise([2.0, 4.0], [1, 5])) == pytest.approx({"perplexity": math.e})


# ----------------------------------------------------------------------------------------------------- intervals


def test_wilsons_interval() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; none of 20 is 0 to 0.1611; 1 of 29 0.0061 to 0.1718."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = metrics.proportion("share", [i < hits for i in range(n)])
        assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 200 samples of a known distribution about 95 in 100; the binomial bound is 4 standard errors."""
    chance, held = random.Random(0), 0
    for _ in range(200):
        found = metrics.mean("mean", [chance.gauss(0, 1) for _ in range(60)])
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 1


def test_the_same_data_the_same_interval() -> None:
    assert metrics.of_labels(list("abcab"), list("abcba")) == metrics.of_labels(list("abcab"), list("abcba"))
