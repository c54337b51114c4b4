"""A tensor that stays packed: what torch may do to it, and what it answers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.errors import Unsupported
from pellucid.nn.linear import Linear
from pellucid.ops import packed
from pellucid.ops.packed import PackedTensor, RowsPacked, Way


class Bytes(RowsPacked):
    """A signed byte for each number, one scale for each row."""

    KIND = "bytes"

    def unpack(self, rows: slice) -> Tensor:
        return self.parts["q"][rows].float() * self.parts["scale"][rows]


class Whole(PackedTensor):
    """The same, where no row can be taken out without unpacking."""

    KIND = "whole"
    unpack = Bytes.unpack


def matrix(
    cls: type[PackedTensor] = Bytes, lead: tuple[int, ...] = (12,), width: int = 16, seed: int = 0
) -> PackedTensor:
    chance = torch.Generator().manual_seed(seed)
    rows = torch.Size(lead).numel()
    parts = {
        "q": torch.randint(-128, 128, (rows, width), generator=chance, dtype=torch.int8),
        "scale": torch.rand(rows, 1, generator=chance) / 128,
    }
    return cls(parts, None, (*lead, width))


LAYOUTS = {
    "split": lambda x: x.split([3, 4, 5]),
    "chunk": lambda x: x.chunk(3),
    "slice": lambda x: x[2:9],
    "every third": lambda x: x[1::3],
    "heads in turn": lambda x: x.unflatten(0, (2, -1, 2)).transpose(1, 2).flatten(0, 2),
    "groups": lambda x: [s.flatten(0, 1).contiguous() for s in x.unflatten(0, (2, 6)).split([2, 4], dim=1)],
    "cat": lambda x: torch.cat([x[6:], x[:6]]),
    "stack": lambda x: torch.stack([x[6:], x[:6]])[1],
    "one more dimension": lambda x: x.unsqueeze(0).squeeze(0),
    "alias": lambda x: x.detach().clone(),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_moves_rows_moves_their_bytes(name):
    x = matrix()
    found, wanted = LAYOUTS[name](x), LAYOUTS[name](x.dense())
    for mine, theirs in zip(found, wanted) if isinstance(wanted, (list, tuple)) else [(found, wanted)]:
        assert isinstance(mine, Bytes), name
        assert torch.equal(mine.dense(), theirs)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "alias"])
def test_a_format_that_takes_no_rows_out_is_unpacked(name):
    x = matrix(Whole)
    found, wanted = LAYOUTS[name](x), LAYOUTS[name](x.dense())
    for mine, theirs in zip(found, wanted) if isinstance(wanted, (list, tuple)) else [(found, wanted)]:
        assert torch.equal(packed.unpacked(mine), theirs)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "alias"])
def test_rows_are_moved_by_a_function_without_asking_torch(name):
    x, move = matrix(), LAYOUTS[name]
    several = (lambda y: list(found)) if isinstance(found := move(x), (list, tuple)) else (lambda y: [found])
    parts = x.moved(lambda rows: list(made) if isinstance(made := move(rows), (list, tuple)) else [made])
    assert parts is not None and all(part.same(wanted) for part, wanted in zip(parts, several(found), strict=True))


def test_what_does_more_than_moving_rows_is_not_taken_for_it():
    x = matrix(lead=(16,), width=16)
    for other in (lambda y: y.t(), lambda y: y - 1, lambda y: y * 2, lambda y: y.flatten(), lambda y: y.flip(-1)):
        assert x.moved(lambda rows, other=other: [other(rows)]) is None
    assert matrix(Whole).moved(lambda rows: [rows[2:5]]) is None


def test_a_slice_is_a_view_of_the_same_bytes():
    x = matrix()
    assert x[4:].parts["q"].data_ptr() == x.parts["q"][4:].data_ptr()


def test_experts_in_three_dimensions_are_matrices():
    x = matrix(lead=(3, 4))
    for e, mine in enumerate(x):
        assert isinstance(mine, Bytes)
        assert torch.equal(mine.dense(), x.dense()[e])


def test_other_ops_run_on_the_numbers():
    x = matrix()
    for op in (
        torch.t,
        lambda w: w + 1,
        lambda w: w[:, 3],
        lambda w: w @ torch.ones(16),
        lambda w: w.reshape(-1),
        torch.sum,
    ):
        assert torch.equal(op(x), op(x.dense()))


@pytest.mark.parametrize("cls", [Bytes, Whole])
def test_an_embedding_looks_rows_up(cls):
    x, ids = matrix(cls), torch.tensor([[3, 0, 3], [11, 5, 3]])
    assert torch.equal(F.embedding(ids, x), F.embedding(ids, x.dense()))
    with pytest.raises(IndexError, match="12"):
        F.embedding(torch.tensor([12]), x)


def test_a_dtype_is_what_it_unpacks_to():
    x = matrix().to(torch.bfloat16)
    assert isinstance(x, Bytes) and x.dtype == torch.bfloat16
    assert torch.equal(x.dense(), matrix().dense().bfloat16())
    assert torch.equal(x.float().dense(), matrix().dense())  # nothing was lost
    assert x.long().dtype == torch.long and not isinstance(x.long(), PackedTensor)


def test_writing_is_refused():
    x = nn.Parameter(matrix(), requires_grad=False)
    for write in (lambda: x.fill_(0), lambda: x.add_(1), lambda: x.copy_(torch.ones(12, 16))):
        with pytest.raises(Unsupported, match="adapter"):
            write()


def test_a_copy_from_the_same_format_takes_the_bytes():
    x, other = matrix(), matrix(seed=1)
    x.copy_(other)
    assert torch.equal(x, other) and torch.equal(x.dense(), other.dense())
    assert x.parts["q"].data_ptr() != other.parts["q"].data_ptr()


def test_equal_is_of_bytes_or_of_numbers():
    assert torch.equal(matrix(), matrix())
    assert not torch.equal(matrix(), matrix(seed=1))
    assert torch.equal(matrix(), matrix().dense())


def layer(x: PackedTensor, bias: bool = True) -> Linear:
    made = Linear(x.shape[1], x.shape[0], bias=bias)
    made._parameters["weight"] = nn.Parameter(x, requires_grad=False)
    if bias:
        made._parameters["bias"] = nn.Parameter(torch.randn(x.shape[0], generator=torch.Generator().manual_seed(2)))
    return made


def test_copies_and_pickles_hold_the_same_bytes():
    made = layer(matrix())
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert isinstance(other.weight, nn.Parameter) and isinstance(other.weight, Bytes)
        assert torch.equal(other.weight, made.weight)
    fresh = layer(matrix(seed=1))
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh.weight, made.weight)


def test_a_state_dict_is_loaded_without_running_code():
    made, file = layer(matrix()), io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    assert isinstance(found["weight"], Bytes) and torch.equal(found["weight"], made.weight)
    fresh = layer(matrix(seed=1))
    fresh.load_state_dict(found)
    assert torch.equal(fresh.weight, made.weight)


def test_parts_of_another_shape_are_not_taken():
    """Kernels trust the shapes of what a file's reader has checked."""
    x, other = matrix(), matrix(seed=1)
    other.part_q = other.part_q[:1]
    with pytest.raises(Unsupported, match="adapter"):
        x.copy_(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_multiplies_by_tiles_in_any_company(dtype, bias, monkeypatch):
    monkeypatch.setattr(packed, "TILE", 64 * 16)
    x = matrix(lead=(150,)).to(dtype)
    made = layer(x, bias).to(dtype)
    assert len(list(made.weight.tiles())) == 3
    given = torch.randn(9, 16, generator=torch.Generator().manual_seed(3), dtype=dtype)
    with torch.inference_mode():
        found = made(given)
        alone = torch.cat([made(row[None]) for row in given])
    wanted = F.linear(given.double(), x.dense().double(), made.bias.double() if bias else None)
    assert torch.equal(found, alone)
    scale = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float64: 1e-14}[dtype]
    assert (found.double() - wanted).abs().max() < scale * wanted.abs().max()


def test_tiles_bound_the_memory(monkeypatch):
    monkeypatch.setattr(packed, "TILE", 64 * 16)
    made, seen = layer(matrix(lead=(1000,))), []
    monkeypatch.setattr(Bytes, "unpack", lambda self, rows: seen.append(rows) or Whole.unpack(self, rows))
    with torch.inference_mode():
        made(torch.ones(2, 16))
    assert max(rows.stop - rows.start for rows in seen) == 64
    assert sum(rows.stop - rows.start for rows in seen) == 1000


def test_gradients_flow_through_it():
    made = layer(matrix())
    given = torch.randn(5, 16, requires_grad=True)
    made(given).square().sum().backward()
    plain = given.detach().clone().requires_grad_()
    F.linear(plain, made.weight.dense(), made.bias).square().sum().backward()
    assert torch.allclose(given.grad, plain.grad) and made.weight.grad is None
    assert made.bias.grad is not None


def test_a_kernel_of_the_format_is_asked_for_once(monkeypatch):
    asked = []

    def way(self: Bytes) -> Way:
        asked.append(self)
        return Way("mine", lambda weight, x, bias: x.new_full((len(x), weight.shape[0]), 7.0))

    monkeypatch.setattr(Bytes, "way", way)
    made = layer(matrix())
    with torch.inference_mode():
        for _ in range(3):
            assert (made(torch.ones(2, 16)) == 7).all()
    assert len(asked) == 1 and made.weight.chosen().name == "mine"
    assert not (made(torch.ones(2, 16)) == 7).any(), "gradients go the written-out way"
