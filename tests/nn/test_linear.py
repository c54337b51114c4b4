"""The execution forms: equal to the plain product, the same in any company, and a packed one never stale."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import pellucid
from pellucid.nn import linear
from pellucid.nn.linear import Linear
from pellucid.ops import cpu

SHAPES = [(1, 1), (3, 7), (64, 64), (67, 64), (172, 64), (101, 42), (384, 1536), (2048, 512), (256, 8192)]
DTYPES = [torch.float32, torch.bfloat16]

needs_packing = pytest.mark.skipif(
    torch.float32 not in linear.packed_dtypes(), reason="this torch has no oneDNN; the plain product is used"
)


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a processor where bfloat16 is packed, too."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 product for this processor")
    monkeypatch.setattr(cpu, "bfloat16_way", lambda: 0)
    linear.packed_dtypes.cache_clear()
    yield
    monkeypatch.undo()
    linear.packed_dtypes.cache_clear()


@pytest.fixture(params=["float32", "bfloat16", "bfloat16 packed", "bfloat16 of whole texts"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Every execution form."""
    if "packed" in request.param:
        request.getfixturevalue("onednn")
    if "whole" in request.param:
        monkeypatch.setattr(Linear, "many", True)
    return torch.float32 if request.param == "float32" else torch.bfloat16


def layer(O: int, I: int, dtype: torch.dtype, *, bias: bool = True, seed: int = 0) -> Linear:  # noqa: E741
    chance = torch.Generator().manual_seed(seed)
    made = Linear(I, O, bias=bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=chance))
    return made.to(dtype)


@needs_packing
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_each_form_is_the_plain_product(O: int, I: int, dtype: torch.dtype) -> None:  # noqa: E741
    made = layer(O, I, dtype)
    for rows in (1, 2, 3, 5, 17):
        x = torch.randn(rows, I).to(dtype)
        exact = F.linear(x.double(), made.weight.double(), made.bias.double())
        with torch.no_grad():
            y = made(x)
        unit = torch.finfo(dtype).eps * (1 + exact.abs().max()) * max(1, I**0.5)
        assert (y.double() - exact).abs().max() < unit
    assert (made._packed is not None) == (dtype in linear.packed_dtypes(made.many))


@needs_packing
@pytest.mark.parametrize(("O", "I"), SHAPES)
def test_a_row_does_not_depend_on_its_company(O: int, I: int, dtype: torch.dtype) -> None:  # noqa: E741
    """Bit for bit, for any number of rows and threads: what batch-independent greedy decoding rests on."""
    made = layer(O, I, dtype)
    x = torch.randn(130, I).to(dtype)
    before = torch.get_num_threads()
    try:
        with torch.no_grad():
            whole = made(x)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for rows in (1, 2, 3, 4, 5, 7, 8, 13, 16, 33, 64, 129):
                    assert torch.equal(made(x[:rows]), whole[:rows]), f"{rows} rows, {threads} threads"
    finally:
        torch.set_num_threads(before)


@needs_packing
@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("O", "I"), [*SHAPES, (2048, 8192), (3072, 768)])
def test_in_bfloat16_both_forms_of_onednn_give_the_same_bits(O: int, I: int, bias: bool) -> None:  # noqa: E741
    """So a layer may change its form between two tokens, and nobody can tell."""
    made = layer(O, I, torch.bfloat16, bias=bias)
    made.wait = 7
    x = torch.randn(100, I).to(torch.bfloat16)
    with torch.no_grad():
        waited = [made(x[:rows]) for rows in (1, 2, 3, 5, 8, 17, 64, 100)]
        assert made._packed is None
        packed = [made(x[:rows]) for rows in (1, 2, 3, 5, 8, 17, 64, 100)]
        assert made._packed is not None
        assert made.wait is not None
    assert all(torch.equal(a, b) for a, b in zip(waited, packed))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_a_row_of_the_plain_product_does_not_either(dtype: torch.dtype) -> None:
    """The form that is used while somebody holds the parameters: an optimizer, a list."""
    made = layer(101, 42, dtype)
    kept = list(made.parameters())
    x = torch.randn(130, 42).to(dtype)
    with torch.no_grad():
        whole = made(x)
        for rows in (1, 2, 3, 5, 6, 7, 9, 13, 33, 64, 129):
            assert torch.equal(made(x[:rows]), whole[:rows]), rows
    assert kept
    assert made._packed is None


def writes() -> list[tuple[str, object]]:
    def through_data(made: Linear) -> None:
        made.weight.data.mul_(3)

    def through_parameters(made: Linear) -> None:
        for parameter in made.parameters():
            parameter.data.add_(1)

    def in_place(made: Linear) -> None:
        with torch.no_grad():
            made.weight.copy_(torch.zeros_like(made.weight))

    def replaced(made: Linear) -> None:
        made.weight = torch.nn.Parameter(torch.ones_like(made.weight))

    def loaded(made: Linear) -> None:
        made.load_state_dict({k: v + 1 for k, v in made.state_dict().items()})

    def optimized(made: Linear) -> None:
        optimizer = torch.optim.SGD(made.parameters(), lr=0.5)
        made(torch.ones(2, made.in_features)).sum().backward()
        optimizer.step()

    return [(f.__name__, f) for f in (through_data, through_parameters, in_place, replaced, loaded, optimized)]


@pytest.mark.parametrize(("name", "write"), writes(), ids=[name for name, _ in writes()])
def test_a_packed_copy_is_never_stale(name: str, write: object) -> None:
    made = layer(33, 17, torch.float32)
    x = torch.randn(4, 17)
    with torch.no_grad():
        before = made(x)
    write(made)  # type: ignore[operator]
    with torch.no_grad():
        after = made(x)
    assert not torch.allclose(before, after)
    assert torch.allclose(after, F.linear(x, made.weight, made.bias), atol=1e-5)


def test_gradients_take_the_plain_product() -> None:
    made = layer(5, 3, torch.float32)
    x = torch.randn(2, 3, requires_grad=True)
    made(x).sum().backward()
    assert x.grad is not None
    assert made._packed is None


def test_what_records_torch_sees_the_plain_product(dtype: torch.dtype) -> None:
    """A kernel that torch does not know would leave uninitialised memory in a trace."""
    made, others = layer(5, 3, dtype), torch.randn(4, 2, 3).to(dtype)
    with torch.no_grad():
        wanted_B2O = F.linear(others, made.weight, made.bias)
        traced = torch.jit.trace(made, torch.zeros(2, 3, dtype=dtype))
        graph = make_fx(made)(torch.zeros(2, 3, dtype=dtype))
        for x, wanted in zip(others, wanted_B2O):
            assert torch.allclose(traced(x), wanted, atol=2**-5)
            assert torch.allclose(graph(x), wanted, atol=2**-5)
        assert torch.allclose(torch.func.vmap(made)(others), wanted_B2O, atol=2**-5)


def test_copies_and_pickles_hold_no_packed_form() -> None:
    made = layer(5, 3, torch.float32)
    x = torch.randn(2, 3)
    with torch.no_grad():
        y = made(x)
        for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert torch.equal(twin(x), y)


def test_float64_and_leading_dimensions() -> None:
    made = layer(5, 3, torch.float64)
    with torch.no_grad():
        assert made(torch.randn(2, 4, 3, dtype=torch.float64)).shape == (2, 4, 5)
        assert layer(5, 3, torch.float32)(torch.randn(2, 4, 3)).shape == (2, 4, 5)
        assert layer(5, 3, torch.float32)(torch.randn(0, 3)).shape == (0, 5)


def test_models_made_and_changed_in_inference_mode() -> None:
    """Torch counts no changes of tensors that are made there: they are multiplied as they are stored."""
    ids_BT = torch.tensor([[3, 4, 5]])
    expected = pellucid.AutoModelForCausalLM.from_pretrained()(ids_BT).logits
    with torch.inference_mode():
        model = pellucid.AutoModelForCausalLM.from_pretrained()
        assert torch.allclose(model(ids_BT).logits, expected, atol=1e-4)
        assert torch.allclose(copy.deepcopy(model)(ids_BT).logits, expected, atol=1e-4)
        assert torch.allclose(model.double()(ids_BT).logits, expected.double(), atol=1e-4)
    assert not any(parameter.is_inference() for parameter in pellucid.AutoModel.from_pretrained().parameters())
