"""Encoders whose mixture has a short way: it gives what the pattern gives, and what the reference does by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reference as ref
from pellucid.cache.batch import Batch
from pellucid.errors import InputError
from pellucid.families.nystromformer.attention import NystromAttention
from pellucid.nn.local import LocalAttention
from pellucid.nn.sparse import BlockSparseAttention
from pellucid.spec import Custom

D, SIZES = 12, (("heads", 3), ("head_dim", 4), ("dropout", 0.0))


def built(kind: type, **options: Any) -> Any:
    module = kind(D, Custom(path="", options=(*SIZES, *options.items())), 0)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance) * 0.4)
    return module.eval()


LAYERS = {
    "local": lambda: built(LocalAttention, radius=2),
    "sparse": lambda: built(BlockSparseAttention, block=2, random=1, biases="qkvo"),
    "nystrom": lambda: built(NystromAttention, landmarks=4, kernel=3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_short_way_is_the_pattern(name: str) -> None:
    """Texts of several lengths, some tokens marked."""
    layer, lengths = LAYERS[name](), [19, 5, 19, 1, 23]
    x_ND = torch.randn(sum(lengths), D, generator=torch.Generator().manual_seed(1))
    marks_N = torch.arange(sum(lengths)) % 7 == 3
    positions = torch.cat([torch.arange(n) for n in lengths])

    def batch() -> Batch:
        return Batch(lengths, positions, lengths, extra={"global_attention_mask": marks_N})

    with torch.no_grad():
        short = layer(x_ND, batch())
        seen: list[Tensor] = []
        stop = layer.listen("pattern", seen.append)
        long = layer(x_ND, batch())
        stop()
    torch.testing.assert_close(short, long, atol=2e-5, rtol=1e-4)
    assert seen[0].shape == (5, 3, 23, 23)
    if name != "nystrom":  # whose inverse is an approximation
        torch.testing.assert_close(seen[0][0, :, :19].sum(-1), torch.ones(3, 19))


def test_landmarks_are_those_of_the_reference() -> None:
    from transformers import NystromformerConfig
    from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

    sizes = {"hidden_size": D, "num_attention_heads": 3, "num_landmarks": 4, "segment_means_seq_len": 20}
    theirs = NystromformerSelfAttention(NystromformerConfig(**sizes, conv_kernel_size=3)).eval()
    mine = LAYERS["nystrom"]()
    with torch.no_grad():
        mine.o.weight.copy_(torch.eye(D))
        mine.o.bias.zero_()
        for ours, name in (("q", "query"), ("k", "key"), ("v", "value")):
            getattr(theirs, name).load_state_dict(getattr(mine, ours).state_dict())
        theirs.conv.weight.copy_(mine.conv[:, None, :, None])
        x_TD = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
        expected = theirs(x_TD[None])[0][0]
        found = mine(x_TD, Batch([20], torch.arange(20), [20]))
    assert ref.distance(found, expected) < 1e-4


def case_of(family: str, task: str) -> ref.Case:
    return next(case for case in ref.cases() if (case.family, case.task, case.variant) == (family, task, ""))


@pytest.mark.parametrize("task", ["sequence-classification", "question-answering", "multiple-choice"])
def test_longformer_marks_by_its_task(task: str, checkpoints: Path) -> None:
    case = case_of("longformer", task)
    mine, theirs = ref.pair(case, checkpoints)
    given = ref.inputs(case)
    del given["global_attention_mask"]
    ids = given["input_ids"]
    ids[ids == 2] = 3
    for place in (4, 5, 12):
        ids[..., place] = 2  # <s> question </s></s> text </s>
    with torch.no_grad():
        found, expected = mine(**given), theirs(**given)
    assert ref.distance(ref.first(found), ref.first(expected)) < 1e-4


def test_longformer_asks_where_the_question_is(checkpoints: Path) -> None:
    mine, _ = ref.pair(case_of("longformer", "question-answering"), checkpoints)
    with pytest.raises(InputError, match="separators"):
        mine(torch.full((1, 5), 7))


def test_bigbird_knows_the_question(checkpoints: Path) -> None:
    """Without types, what stands behind the question has type 1; no answer lies within the question."""
    case = case_of("big_bird", "question-answering")
    mine, theirs = ref.pair(case, checkpoints)
    ids = ref.inputs(case)["input_ids"]
    ids[ids == 53] = 3
    ids[0, 5] = 53
    with torch.no_grad():
        found, expected = mine(ids), theirs(ids)
    assert ref.distance(found.start_logits, expected.start_logits) < 1e-6
    real = found.start_logits > -1e5
    assert ref.distance(found.start_logits[real], expected.start_logits[real]) < 1e-4
