"""Packed pages: the bound of their error, the bytes they save, and a text that stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.cache.cache import Cache
from pellucid.cache.group import PAGE
from pellucid.cache.packed import BITS, RESIDUAL
from pellucid.cache.pages import Pages
from pellucid.errors import ArgumentError
from pellucid.ops.codes import pack, unpack


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(list(BITS.values())),
    over=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**20),
    scale=st.sampled_from([1e-6, 1.0, 3e4]),
    shift=st.sampled_from([0.0, -5.0, 400.0]),
)
def test_the_error_is_at_most_half_a_step(bits: int, over: int, seed: int, scale: float, shift: float) -> None:
    chance = torch.Generator().manual_seed(seed)
    x = (torch.randn(2, PAGE, 3, 5, generator=chance) + shift) * scale
    x[0, 1, 0] = x[0, :, 0, 0] = 0
    packed = pack(x, bits, over)
    step = packed.step.float()
    error = (unpack(packed, bits, torch.float64).sub(x.double())).abs()
    rounding = x.abs().amax() * 2**-20  # of float32 on the way
    assert (error <= step / 2 + rounding).all()
    spread, most = x.amax(over, keepdim=True) - x.amin(over, keepdim=True), x.abs().amax(over, keepdim=True)
    assert (step <= (spread + most * 2**-5) / (2**bits - 1) + 1e-29).all()


def test_what_it_saves() -> None:
    """bfloat16 with heads of 64: a page in 8 bits takes 0.55, one in 4 bits 0.30 of its bytes."""
    saved = {}
    for name in BITS:
        cache = Cache(1, quantized=name)
        k = torch.randn(RESIDUAL + 4 * PAGE, 2, 64).bfloat16()
        cache.rows[0].write(0, k, k)
        cache.rows[0].length = len(k)
        plain = cache.nbytes
        cache.rows[0].commit()
        packed, hot = cache.pages.packed(None), cache.pages.group(None)
        assert cache.nbytes == 4 * packed.page_bytes + RESIDUAL // PAGE * hot.page_bytes < plain
        saved[name] = packed.page_bytes / hot.page_bytes
        cache.pages.check()
    assert saved["int8"] == pytest.approx(0.55, abs=0.01)
    assert saved["int4"] == pytest.approx(0.30, abs=0.01)


@torch.inference_mode()
def test_a_text_stays_the_same(shared: Path) -> None:
    """stories260K, greedy: with 8 bits all of 260 tokens, with 4 bits somewhat beyond what is not packed."""
    from pellucid import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shared / "models/stories260K/hf")
    texts = {}
    for name in (None, *BITS):
        cache, ids, text = Cache(1, quantized=name), torch.tensor([[1, 403, 407, 261]]), []
        for _ in range(260):
            text.append(int(model(ids, past_key_values=cache).logits[0, -1].argmax()))
            ids = torch.tensor([text[-1:]])
        texts[name] = text
        cache.pages.check()
    assert texts["int8"] == texts[None]
    assert texts["int4"][: RESIDUAL + 2 * PAGE - 20] == texts[None][: RESIDUAL + 2 * PAGE - 20]


def test_wrong_words() -> None:
    with pytest.raises(ArgumentError, match="'int3'"):
        Cache(1, quantized="int3")
    with pytest.raises(ArgumentError, match="beside pages"):
        Cache(1, Pages(), quantized="int8")
