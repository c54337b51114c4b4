"""The recurrent mixers against the reference's modules with random weights; with and without a cache, alone and not."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference as ref
from pellucid import spec as s
from pellucid.cache.batch import Batch
from pellucid.cache.cache import Cache
from pellucid.nn.block import mixer
from pellucid.weights.table import Entry, Fused, Squeezed, Table

WIDTH = 22
RMS = s.RmsNorm(eps=0.013)

CONV: dict[str, Entry] = {"conv1d.weight": "conv.weight", "conv1d.bias": "conv.bias", "A_log": "a_log"}
SHORTCONV: dict[str, Entry] = {
    "in_proj.{p}": Fused("{}.{p}", "bcx"), "conv.{p}": "conv.{p}", "out_proj.{p}": "out.{p}",
}  # fmt: skip
DELTA_CONV: dict[str, Entry] = {"conv1d.weight": Fused("{}_conv.weight", "qkv"), "A_log": "a_log"}
DELTANET: dict[str, Entry] = DELTA_CONV | {
    "in_proj_qkvz.weight": Fused("{}.weight", "qkvz", groups=2),
    "in_proj_ba.weight": Fused("{}.weight", "ba", groups=2), "dt_bias": "dt_bias", "norm.weight": "norm.weight",
    "out_proj.weight": "out.weight",
}  # fmt: skip
OLMO: dict[str, Entry] = DELTA_CONV | {
    **{f"{name}_proj.weight": f"{name}.weight" for name in "qkvab"}, "g_proj.weight": "z.weight",
    "dt_bias": "dt_bias", "o_norm.weight": "norm.weight", "o_proj.weight": "out.weight",
}  # fmt: skip
MAMBA: dict[str, Entry] = CONV | {
    "in_proj.{p}": Fused("{}.{p}", "xz"), "x_proj.weight": Fused("{}.weight", ("dt_in", "b", "c")),
    "dt_proj.weight": "dt.weight", "dt_proj.bias": "dt_bias", "D": "d", "out_proj.{p}": "out.{p}",
    "dt_layernorm.weight": "dt_norm.weight", "b_layernorm.weight": "b_norm.weight",
    "c_layernorm.weight": "c_norm.weight",
}  # fmt: skip
MAMBA2: dict[str, Entry] = CONV | {
    "in_proj.{p}": Fused("{}.{p}", ("z", "x", "b", "c", "dt")), "dt_bias": "dt_bias", "D": "d",
    "norm.weight": "norm.weight", "out_proj.{p}": "out.{p}",
}  # fmt: skip
KIMI: dict[str, Entry] = {
    "conv1d.weight": Fused("{}_conv.weight", "qkv"), "forget_gate.A_log": Squeezed("a_log", (0, 1, 3)),
    "forget_gate.dt_bias": "dt_bias", "forget_gate.f_a_proj.weight": "a_in.weight",
    "forget_gate.f_b_proj.weight": "a.weight", "g_a_proj.weight": "z_in.weight", "g_b_proj.weight": "z.weight",
    "o_norm.weight": "norm.weight", "o_proj.weight": "out.weight",
    **{f"{name}_proj.weight": f"{name}.weight" for name in "qkvb"},
}  # fmt: skip
WKV: dict[str, Entry] = {
    "time_decay": "decay", "time_first": "first", "time_mix_key": "k_blend.weight", "time_mix_value": "v_blend.weight",
    "time_mix_receptance": "r_blend.weight", "key.weight": "k.weight", "value.weight": "v.weight",
    "receptance.weight": "r.weight", "output.weight": "out.weight",
}  # fmt: skip

DELTA_KEYS = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 5, "linear_value_head_dim": 7,
    "linear_conv_kernel_dim": 4, "rms_norm_eps": 0.013, "num_hidden_layers": 4,
}  # fmt: skip
DELTA = s.DeltaNet(key_heads=2, value_heads=6, key_dim=5, value_dim=7, kernel=4, norm=RMS)
MAMBA2_KEYS = {
    "mamba_n_heads": 6, "mamba_d_head": 11, "mamba_d_state": 5, "mamba_n_groups": 2, "mamba_d_conv": 4,
    "mamba_expand": 3, "rms_norm_eps": 0.013,
}  # fmt: skip
TWO = s.Mamba2(heads=6, head_dim=11, state=5, groups=2, kernel=4, norm=RMS, norm_groups=2)

# name -> type, class, config keys, table, spec
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Entry], s.Mixer]] = {
    "short conv": ("lfm2", "Lfm2ShortConv", {"conv_L_cache": 3}, SHORTCONV, s.ShortConv(kernel=3)),
    "short conv with biases": (
        "lfm2", "Lfm2ShortConv", {"conv_L_cache": 4, "conv_bias": True}, SHORTCONV, s.ShortConv(kernel=4, bias=True),
    ),
    "delta net": ("qwen3_next", "Qwen3NextGatedDeltaNet", DELTA_KEYS, DELTANET, DELTA),
    "delta net with negative eigenvalues": (
        "olmo_hybrid", "OlmoHybridGatedDeltaNet", DELTA_KEYS, OLMO,
        s.DeltaNet(
            key_heads=2, value_heads=6, key_dim=5, value_dim=7, kernel=4, norm=s.RmsNorm(eps=1e-5), negative=True,
        ),
    ),
    "kimi delta": (
        "kimi_linear", "KimiLinearDeltaAttention",
        {"linear_head_dim": 5, "linear_num_heads": 6, "rms_norm_eps": 0.013, "num_hidden_layers": 4}, KIMI,
        s.KimiDelta(heads=6, head_dim=5, kernel=4, norm=RMS, rank=5),
    ),
    "mamba": (
        "mamba", "MambaMixer", {"state_size": 5, "expand": 2, "time_step_rank": 3}, MAMBA,
        s.Mamba(inner=44, state=5, kernel=4, dt_rank=3),
    ),
    "mamba with biases": (
        "mamba", "MambaMixer",
        {"state_size": 5, "time_step_rank": 3, "conv_kernel": 3, "use_bias": True, "use_conv_bias": False}, MAMBA,
        s.Mamba(inner=44, state=5, kernel=3, dt_rank=3, bias=True, conv_bias=False),
    ),
    "falcon mamba": (
        "falcon_mamba", "FalconMambaMixer", {"state_size": 5, "time_step_rank": 3, "mixer_rms_eps": 0.013}, MAMBA,
        s.Mamba(inner=44, state=5, kernel=4, dt_rank=3, norm=s.RmsNorm(eps=0.013, weight=False)),
    ),
    "jamba": (
        "jamba", "JambaMambaMixer",
        {"mamba_d_state": 5, "mamba_dt_rank": 3, "mamba_expand": 2, "rms_norm_eps": 0.013}, MAMBA,
        s.Mamba(inner=44, state=5, kernel=4, dt_rank=3, norm=RMS),
    ),
    "mamba 2": ("bamba", "BambaMixer", MAMBA2_KEYS, MAMBA2, TWO),
    "mamba 2 with biases and limits": (
        "mamba2", "Mamba2Mixer",
        {
            "num_heads": 4, "head_dim": 11, "state_size": 5, "n_groups": 1, "expand": 2, "use_bias": True,
            "use_conv_bias": False, "layer_norm_epsilon": 0.013, "time_step_limit": (0.3, 0.8), "chunk_size": 4,
        },
        MAMBA2,
        s.Mamba2(
            heads=4, head_dim=11, state=5, groups=1, kernel=4, norm=RMS, bias=True, conv_bias=False, step=(0.3, 0.8),
        ),
    ),
    "wkv": ("rwkv", "RwkvSelfAttention", {"attention_hidden_size": 29}, WKV, s.Wkv(inner=29)),
}  # fmt: skip


def both(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """The reference's module with loud weights, and ours with the same."""
    from transformers import AutoConfig

    kind, class_name, keys, table, spec = CASES[name]
    config = AutoConfig.for_model(kind, hidden_size=WIDTH, **keys)
    module = import_module(f"transformers.models.{kind}.modeling_{kind}")
    with torch.device("meta"):  # where nobody initialises
        theirs = getattr(module, class_name)(config, 0)
    theirs = theirs.to_empty(device="cpu")
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5)
    theirs = theirs.to(dtype).eval()
    mine = mixer(WIDTH, spec, 0).to(dtype).eval()
    slots = dict(mine.named_parameters())
    filled = set()
    for file_name, tensor in theirs.named_parameters():
        place = Table(table).find(file_name)
        assert place is not None, file_name
        for slot, part in zip(place.slots, place.split(tensor, [slots[slot].shape[0] for slot in place.slots])):
            slots[slot].data.copy_(part)
            filled.add(slot)
    assert filled == set(slots)
    return theirs, mine


def packed(x_BTD: Tensor, lengths: list[int] | None = None, cache: Cache | None = None) -> tuple[Tensor, Batch]:
    lengths = lengths or [x_BTD.shape[1]] * x_BTD.shape[0]
    tokens = torch.cat([x[:n] for x, n in zip(x_BTD, lengths)])
    starts = [row.length for row in cache.rows] if cache else [0] * len(lengths)
    positions = torch.cat([torch.arange(a, a + n) for a, n in zip(starts, lengths)])
    return tokens, Batch(lengths, positions, [a + n for a, n in zip(starts, lengths)], cache)


def run(module: nn.Module, x_BTD: Tensor, lengths: list[int] | None = None, cache: Cache | None = None) -> Tensor:
    tokens, batch = packed(x_BTD, lengths, cache)
    with torch.no_grad():
        out = module(tokens, batch, None)
    batch.finish()
    return out


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", CASES)
def test_parity(name: str, dtype: torch.dtype, limit: float) -> None:
    theirs, mine = both(name, dtype)
    for T in (1, 13, 70):
        x = torch.randn(2, T, WIDTH, dtype=dtype)
        with torch.no_grad(), ref.InFloat64() if dtype == torch.float64 else torch.no_grad():
            expected = theirs(x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert ref.distance(run(mine, x).unflatten(0, (2, T)), expected) < limit


@pytest.mark.parametrize("name", CASES)
def test_pieces_and_company(name: str) -> None:
    """Sequences of different length in one cache, then more tokens for all: each is its own one pass."""
    _, mine = both(name, torch.float32)
    x = torch.randn(3, 60, WIDTH)
    alone = [run(mine, row[None]) for row in x]
    cache = Cache(3)
    done = [0, 0, 0]
    found: list[list[Tensor]] = [[], [], []]
    for lengths in ([7, 3, 7], [1, 1, 1], [40, 2, 2], [1, 1, 1], [1, 5, 5]):
        part = torch.stack([torch.cat((row[n:], row[:n])) for row, n in zip(x, done)])
        for i, piece in enumerate(run(mine, part, lengths, cache).split(lengths)):
            found[i].append(piece)
            done[i] += lengths[i]
    for i in range(3):
        assert ref.distance(torch.cat(found[i]), alone[i][: done[i]]) < 3e-6


@pytest.mark.parametrize("name", CASES)
def test_a_forward_that_fails_leaves_the_state(name: str) -> None:
    """States count when the batch has finished; forks share them and part."""
    _, mine = both(name, torch.float32)
    x = torch.randn(1, 9, WIDTH)
    cache = Cache(1)
    run(mine, x[:, :5], cache=cache)
    tokens, batch = packed(torch.randn(1, 3, WIDTH), cache=cache)
    mine(tokens, batch, None)  # never finished
    fork = Cache(1)
    fork.rows = [cache.rows[0].copy()]
    run(mine, torch.randn(1, 4, WIDTH), cache=fork)
    assert ref.distance(run(mine, x[:, 5:], cache=cache), run(mine, x)[5:]) < 3e-6
