"""The weight table: layouts split and join to the same values, names are found in both directions, quickly."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pellucid
from models import tiny
from pellucid.errors import WeightsError
from pellucid.ops.positions import sinusoids
from pellucid.weights.table import (
    OTHER_HEAD,
    Flat,
    Fused,
    Layout,
    Paired,
    Place,
    Recomputed,
    Row,
    Shifted,
    Squeezed,
    Stacked,
    Table,
    Transposed,
    Unused,
)

SLOT = "blocks.{i}.x.{}.weight"


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, list[tuple[int, ...]]]:
    """A layout, and the shapes of its slots."""
    size = st.integers(1, 4)
    groups, width = draw(size), draw(size)
    kind = draw(st.sampled_from(["plain", "fused", "transposed", "squeezed", "stacked", "paired", "flat"]))
    parts = tuple("abcd"[: draw(size)])
    rows = [groups * draw(size) for _ in parts]
    inner: Layout = Fused(SLOT.replace("{i}", "{i}.{e}") if kind == "stacked" else SLOT, parts, groups=groups)
    shapes: list[tuple[int, ...]] = [(n, width) for n in rows]
    if kind == "plain" or (kind != "fused" and draw(st.booleans())):
        inner, shapes = inner.pattern.replace("{}", "a"), shapes[:1]
    if kind == "paired":
        return Paired("blocks.{i}.a.weight", groups), [(2 * rows[0], width)]
    if kind == "flat":
        return Flat("blocks.{i}.a.weight"), [(1, width)]
    if kind == "transposed":
        return Transposed(inner), shapes
    if kind == "squeezed":
        dims = draw(st.sampled_from([(0,), (1,), (2,), (0, 2), (0, 1, 2)]))
        return Squeezed(inner, dims), shapes
    if kind == "stacked":
        count = draw(size)
        of = draw(st.sampled_from([inner, Transposed(inner)]))
        return Stacked(of, count, flat=draw(st.booleans())), shapes * count
    return inner, shapes


@given(layouts())
def test_split_and_join_are_inverse(case: tuple[Layout, list[tuple[int, ...]]]) -> None:
    layout, shapes = case
    place = Table({"f.{i}": layout}).find("f.3")
    assert place is not None and len(place.slots) == len(set(place.slots)) == len(shapes)
    assert all(slot.startswith("blocks.3.") and "{" not in slot for slot in place.slots)
    shape = place.shape(dict(zip(place.slots, shapes)))
    tensor = torch.arange(torch.Size(shape).numel()).view(shape)
    parts = place.split(tensor, [shape[0] for shape in shapes])
    assert [tuple(part.shape) for part in parts] == shapes
    assert torch.equal(place.join(parts), tensor)
    together = torch.cat([part.flatten() for part in parts])
    assert torch.equal(together.sort()[0], tensor.flatten())  # nothing twice, nothing lost


@pytest.mark.parametrize(
    "layout",
    [
        "a.weight", Fused("{}.weight", "qkv"), Transposed(Fused("{}.weight", "qkv")), Squeezed("a.weight", (1,)),
        Stacked(Fused("{e}.{}.weight", "qkv"), 4), Stacked(Transposed("{e}.weight"), 4, flat=True),
    ],
)  # fmt: skip
def test_layouts_without_groups_are_views(layout: Layout) -> None:
    place = Table({"f": layout}).find("f")
    assert place is not None
    shape = place.shape(dict.fromkeys(place.slots, (2, 3)))
    tensor = torch.zeros(shape)
    for part in place.split(tensor, [2] * len(place.slots)):
        assert part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()


def test_published_layouts() -> None:
    """Against the reshapes that the models' own code does."""
    rows = torch.arange(2 * 3 * 5).view(-1, 1)
    q, k, v = split(Fused("{}", "qkv", groups=2), rows, 10, 10, 10)  # GPT-NeoX: [heads, 3, channels]
    assert torch.equal(torch.stack((q, k, v)), rows.view(2, 3, 5).transpose(0, 1).reshape(3, 10, 1))
    q, k, v = split(Fused("{}", "qkv", groups=2), rows[:24], 16, 4, 4)  # Falcon: [kv heads, group + 2, channels]
    grouped = rows[:24].view(2, 6, 2)
    assert torch.equal(q.view(2, 4, 2), grouped[:, :-2]) and torch.equal(k.view(2, 2), grouped[:, -2])
    gate, up = split(Fused("{}", ("gate", "up"), groups=15), rows, 15, 15)  # gpt-oss: in turn
    assert torch.equal(gate, rows[0::2]) and torch.equal(up, rows[1::2])
    kept = rows.view(3, 2, 5, 1).swapaxes(1, 2).reshape(30, 1)  # llama.cpp's queries: 3 heads, their halves in turn
    assert torch.equal(split(Paired("{}", heads=3), kept, 30)[0], rows)
    v1, v2 = split(Stacked(Transposed("{e}"), 2, flat=True), rows.view(6, 5), 5, 5)  # DBRX: [experts * hidden, width]
    assert torch.equal(v2, rows.view(2, 3, 5)[1].t()) and torch.equal(v1, rows.view(2, 3, 5)[0].t())


def test_a_shifted_vector_comes_back_bit_for_bit() -> None:
    """Gemma's norms in GGUF: float32 in the file, one more than the weight, whatever the model computes in."""
    place = Table({"f": Shifted("a.weight", 1.0)}).find("f")
    assert place is not None
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    stored = weight.float() + 1
    (back,) = place.split(stored, [1000])
    assert torch.equal(back.bfloat16(), weight) and torch.equal(place.join([back.bfloat16()]), stored)


def split(layout: Layout, tensor: torch.Tensor, *rows: int) -> list[torch.Tensor]:
    return Place("f", ("a",) * len(rows), layout).split(tensor, rows)


# ------------------------------------------------------------------------- names

TABLE = Table(
    {
        "model.embed.weight": "embed.tokens.weight",
        "model.layers.{i}.mlp.{p}": "blocks.{i}.mlp.up.{p}",
        "model.layers.{i}.qkv.{p}": Fused("blocks.{i}.attn.{}.{p}", "qkv"),
        "model.layers.{i}.experts.{e}.w1.weight": "blocks.{i}.moe.{e}.gate.weight",
        "model.layers.{i}.experts.w2": Stacked("blocks.{i}.moe.{e}.down.weight", 4),
        "model.layers.{i}.norms.{e}.weight": Row("blocks.{i}.attn.q_norm.weight"),
        "model.layers.{i}.sub.0.mix.{e}.weight": "blocks.{i}.a.{e}.weight",
        "model.layers.{i}.sub.1.mix.{e}.weight": "blocks.{i}.b.{e}.weight",
        "model.layers.0.special.weight": "special.weight",
        "model.layers.{i}.special.weight": "blocks.{i}.special.weight",
        "model.mask": Recomputed("causal mask"),
        "vision.*": Unused("another part"),
        "bert.LayerNorm.{p}": "norm.{p}",
    },
    base="model.",
    head={"head.{p}": "classifier.out.{p}"},
    others=["head.weight", "other.{p}"],
)
NUMBER = st.integers(0, 300)


@given(NUMBER, NUMBER, st.booleans())
def test_names_lead_to_slots_and_back(i: int, e: int, headless: bool) -> None:
    names = [
        "model.embed.weight", f"model.layers.{i}.mlp.bias", f"model.layers.{i}.qkv.weight",
        f"model.layers.{i}.experts.{e}.w1.weight", f"model.layers.{i}.experts.w2",
        f"model.layers.{i}.sub.0.mix.{e}.weight", f"model.layers.{i}.sub.1.mix.{e}.weight",
        f"model.layers.{i}.special.weight", "head.bias",
    ]  # fmt: skip
    for name in names:
        if headless:
            name = name.removeprefix("model.")
        place = TABLE.find(name)
        assert place is not None and place.name == name
        for slot in place.slots:
            assert TABLE.default_place(slot, headless=headless) == place
        assert place == TABLE.find(place.name) and not place.unused


def test_which_name_means_what() -> None:
    def slots(name: str) -> tuple[str, ...]:
        place = TABLE.find(name)
        assert place is not None
        return place.slots

    assert slots("model.layers.2.sub.1.mix.7.weight") == ("blocks.2.b.7.weight",)
    assert slots("model.layers.2.qkv.bias") == tuple(f"blocks.2.attn.{x}.bias" for x in "qkv")
    assert slots("layers.5.experts.w2") == tuple(f"blocks.5.moe.{e}.down.weight" for e in range(4))
    assert slots("model.layers.0.special.weight") == ("special.weight",)  # spelt out goes before open
    assert slots("model.layers.1.special.weight") == ("blocks.1.special.weight",)
    assert slots("bert.LayerNorm.gamma") == ("norm.weight",) and slots("head.weight") == ("classifier.out.weight",)
    for name in ("model.layers.x.mlp.weight", "model.layers.²3.mlp.weight", "model.layers.mlp.weight", "{i}", "", "."):
        assert TABLE.find(name) is None
    found = {name: TABLE.find(name) for name in ("vision.a.3.weight", "other.bias", "mask")}
    assert [place and (place.unused or place.recomputed) for place in found.values()] == [
        "another part", OTHER_HEAD, "causal mask",
    ]  # fmt: skip


def test_rows_of_one_slot() -> None:
    places = TABLE.default_places("blocks.3.attn.q_norm.weight", 3)
    assert [place.name for place in places] == [f"model.layers.3.norms.{e}.weight" for e in range(3)]
    whole = torch.arange(12.0).view(3, 4)
    rows = [place.join([whole]) for place in places]
    assert torch.equal(torch.stack(rows), whole)
    assert all(place.shape({place.slots[0]: (3, 4)}) == (4,) for place in places)
    assert [place.pieces for place in places] == [(f"blocks.3.attn.q_norm.weight[{e}]",) for e in range(3)]
    assert TABLE.module_names(["blocks.3.attn.q_norm.weight"]) == {}


def test_one_half_of_an_encoder_decoder() -> None:
    table = Table(
        {
            "shared.weight": "encoder.embed.tokens.weight",
            "decoder.embed.weight": "embed.tokens.weight",
            "encoder.{i}.qkv.weight": Fused("encoder.blocks.{i}.attn.{}.weight", "qkv"),
            "decoder.{i}.q.weight": "blocks.{i}.attn.q.weight",
            "decoder.{i}.cross.q.weight": "blocks.{i}.cross.q.weight",
            "lm_head.weight": "lm_head.out.weight",
            "score.weight": "classifier.out.weight",
        }
    )

    def sides(half: Table) -> list[object]:
        return [place and (place.unused or place.slots[0]) for place in map(half.find, names)]

    names = ["shared.weight", "decoder.embed.weight", "encoder.2.qkv.weight", "decoder.2.q.weight", "score.weight"]
    away = "part of the decoder"
    assert sides(table.reader()) == [
        "embed.tokens.weight", "embed.tokens.weight", "blocks.2.attn.q.weight", away, "classifier.out.weight",
    ]  # fmt: skip
    assert sides(table.reader(shared=False))[1] == away
    away = "part of the encoder"
    assert sides(table.decoder()) == [
        "embed.tokens.weight", "embed.tokens.weight", away, "blocks.2.attn.q.weight", "classifier.out.weight",
    ]  # fmt: skip
    assert sides(table.decoder(shared=False))[0] == away
    default = table.decoder().default_place("embed.tokens.weight")
    assert default is not None and default.name == "decoder.embed.weight"
    cross = table.decoder().find("decoder.1.cross.q.weight")
    assert cross is not None and cross.unused and cross.keep  # goes along, for whoever adds the encoder again


def test_twenty_thousand_names_take_well_under_a_second() -> None:
    """A mixture of 128 experts in 48 layers, read and written."""
    table = Table(
        {f"model.layers.{{i}}.experts.{{e}}.{x}.weight": f"blocks.{{i}}.moe.{{e}}.{x}.weight" for x in ("a", "b", "c")}
        | {"model.layers.{i}.stacked": Stacked(Fused("blocks.{i}.s.{e}.{}.weight", ("gate", "up")), 128)},
        base="model.",
    )
    names = [f"model.layers.{i}.experts.{e}.{x}.weight" for i in range(48) for e in range(128) for x in "abc"]
    stacked = [f"blocks.{i}.s.{e}.{x}.weight" for i in range(48) for e in range(128) for x in ("gate", "up")]
    start = time.perf_counter()
    slots = [place.slots[0] for name in names if (place := table.find(name))]
    assert len(slots) == len(names) == len([slot for slot in slots if table.default_place(slot)])
    paths = table.module_names([*slots, *stacked])
    assert len(paths) == len(names)
    assert time.perf_counter() - start < 20


# ------------------------------------------------------------------------- from and to a folder


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda t: t.pop("model.layers.1.self_attn.q_layernorm.norms.4.weight"), "1.self_attn.q_layernorm.norms.4."),
        (lambda t: t.update({"model.layers.1.self_attn.q_layernorm.norms.6.weight": torch.ones(12)}), "norms.6."),
        (lambda t: t.update({"model.layers.1.self_attn.k_layernorm.norms.1.weight": torch.ones(11)}), "[11]"),
    ],
)
def test_rows_that_are_missing_or_too_many(tmp_path: Path, change: Callable[[Any], Any], says: str) -> None:
    """StableLM's norm of each head: every row once, or a refusal that names the one."""
    model = tiny.make("stablelm", qk_layernorm=True)
    tensors = tiny.tensors_of(model)
    tiny.folder_of(tmp_path, tensors, tiny.keys("stablelm", qk_layernorm=True))
    loaded = tiny.auto("stablelm").from_pretrained(tmp_path)
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))
    assert loaded.blocks[1].attn.q_norm.weight.shape == (6, 12)
    tiny.make("stablelm", qk_layernorm=True).load_state_dict(loaded.state_dict(names="file"))
    change(tensors)
    tiny.folder_of(tmp_path, tensors, tiny.keys("stablelm", qk_layernorm=True))
    with tiny.refused(WeightsError, says):
        tiny.auto("stablelm").from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["gpt_neox", "falcon", "bloom", "codegen", "stablelm", "opt", "apertus"])
def test_in_another_dtype_and_back(tmp_path: Path, family: str) -> None:
    """Scattered rows and stacked ones, saved as bfloat16, loaded as float32: the same numbers."""
    model = tiny.make(family).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = tiny.auto(family).from_pretrained(tmp_path, dtype="float32")
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], theirs[name].float()) for name in theirs)
    again = tiny.make(family)
    again.load_state_dict(loaded.state_dict(names="file"))
    assert all(torch.equal(tensor, ours[name]) for name, tensor in again.state_dict().items())


def test_a_head_that_another_task_calls_otherwise(tmp_path: Path) -> None:
    """`score.weight` labels sequences and `classifier.weight` tokens: each is the other's head, not asked for."""
    names = {
        "sequence-classification": ["score.weight"],
        "token-classification": ["classifier.bias", "classifier.weight"],
    }
    for task, other in (tuple(names), tuple(names)[::-1]):
        tiny.make("gpt_neox", task).save_pretrained(tmp_path / task)
        assert tiny.auto("gpt_neox", task).from_pretrained(tmp_path / task).report.initialised == []
        loaded = tiny.auto("gpt_neox", other).from_pretrained(tmp_path / task)
        assert sorted(loaded.report.other_heads) == names[task] and loaded.report.initialised


def tril(window: int | None = None) -> torch.Tensor:
    seen = torch.ones(97, 97).tril() != 0
    return (seen if window is None else seen.triu(1 - window))[None, None]


@pytest.mark.parametrize(
    "family, name, right, wrong",
    [
        ("gpt_neo", "transformer.h.1.attn.attention.bias", tril(5), tril(4)),
        ("gpt_neo", "transformer.h.0.attn.attention.bias", tril(), tril(6)),
        ("gpt_neox", "gpt_neox.layers.2.attention.bias", tril(), tril().logical_not()),
        ("gpt_neox", "gpt_neox.layers.0.attention.masked_bias", torch.tensor(-1e9), torch.tensor(1.0)),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
         523 ** -(torch.arange(0, 6, 2) / 6), 523 ** -(torch.arange(0, 12, 2) / 12)),
        ("openai-gpt", "position_ids", torch.arange(97), torch.arange(1, 98)),
        ("xglm", "model.embed_positions.weights",
         sinusoids(torch.arange(99), 42, layout="halves", short=True) * (torch.arange(99) != 1)[:, None],
         sinusoids(torch.arange(99), 42, layout="halves", short=False)),
    ],
)  # fmt: skip
def test_what_follows_from_the_config_is_compared_and_dropped(
    tmp_path: Path, family: str, name: str, right: torch.Tensor, wrong: torch.Tensor
) -> None:
    """Buffers that old files carry."""
    tensors = tiny.tensors_of(tiny.make(family))
    tiny.folder_of(tmp_path, tensors | {name: right}, tiny.keys(family))
    loaded = tiny.auto(family).from_pretrained(tmp_path)
    assert [*loaded.report.recomputed] == [name] and name not in loaded.state_dict(names="file")
    tiny.folder_of(tmp_path, tensors | {name: wrong}, tiny.keys(family))
    with tiny.refused(WeightsError, name):
        tiny.auto(family).from_pretrained(tmp_path)


def test_what_training_starts_from() -> None:
    """Norms that store w for 1 + w begin at zero, and a module's START at what it says."""
    with_offset, trained = new("nemotron"), new("apertus")
    assert not with_offset.blocks[1].mlp_norm.weight.any() and not with_offset.blocks[1].mlp_norm.bias.any()
    assert trained.blocks[1].attn_norm.weight.eq(1).all()
    act = trained.blocks[1].mlp.act
    assert torch.nn.functional.softplus(act.alpha_p).item() == pytest.approx(0.8) and act.beta.item() == 0.5
    assert not act.beta.requires_grad and act.alpha_p.requires_grad


def new(family: str) -> Any:
    values = tiny.keys(family)
    return tiny.auto(family).from_config(pellucid.AutoConfig.for_model(values.pop("model_type"), **values))
