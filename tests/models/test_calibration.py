"""Reading a text block by block: the states of one pass, sums of what layers see, and scales that change nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from models import tiny
from pellucid.models import fitting
from pellucid.models.calibration import Seen, default_text, gather, importance, parted, passing, texts_of
from pellucid.models.forms import FORMS
from pellucid.models.quality import final
from pellucid.nn.linear import Linear
from pellucid.text.tokenizer import Tokenizer

WIDE = {"hidden_size": 32, "head_dim": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
SIZES: dict[str, dict[str, Any]] = {
    "llama": WIDE,
    "gemma2": WIDE,
    "mixtral": {**WIDE, "num_local_experts": 4},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_inner": 32},
    "gpt_neox": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32},
    "olmo2": WIDE,
    "bert": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32},
    "t5": {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 32},
    "mamba": {"hidden_size": 32},
    "albert": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32, "embedding_size": 16},
}
LM = {"albert": "masked-lm"}
# What AWQ's scales can be folded into in each block; of an encoder-decoder in both towers.
FOLDS = {
    "llama": {"norms", "values", "upward matrices"},
    "gemma2": {"norms", "values", "upward matrices"},
    "mixtral": {"norms", "values", "upward matrices"},
    "gpt2": {"norms", "values"},
    "gpt_neox": {"norms", "values"},
    "olmo2": {"values", "upward matrices"},
    "bert": {"values"},
    "t5": {"norms", "values", "upward matrices"},  # relu(x / s) = relu(x) / s
    "albert": {"norms", "values"},  # the norm of the embedding, before its projection
}


def make(family: str) -> Any:
    return tiny.make(family, LM.get(family, "lm"), **SIZES[family])


def texts(model: Any) -> list[list[int]]:
    return [tiny.ids(1, length, seed=length)[0].tolist() for length in (11, 7, 23)]


@pytest.mark.parametrize("family", SIZES)
def test_states_behind_the_last_block_are_those_of_one_pass(family: str) -> None:
    model, passed = make(family), None
    ends: list[Tensor] = []
    for passed in passing(model, texts(model)):
        if passed.module is model or passed.module is model.blocks[-1]:
            with torch.no_grad():
                ends = [passed.step(text) for text in passed.texts]
            whole = passed.module is model
    with torch.no_grad():
        ends = ends if whole else [model.norm(x) if model.norm is not None else x for x in ends]
        for ids, end in zip(texts(model), ends):
            assert torch.allclose(end, final(model, ids), rtol=1e-4, atol=1e-4 * float(end.abs().max()))


@pytest.mark.parametrize("family", ["llama", "mixtral", "t5"])
def test_sums_are_those_of_what_layers_read(family: str) -> None:
    model = make(family)
    read: dict[str, list[Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, given, path=path: read.setdefault(path, []).append(given[0]))
        for path, module in model.named_modules()
        if isinstance(module, Linear)
    ]
    with torch.no_grad():
        for ids in texts(model):
            final(model, ids)
    for hook in hooks:
        hook.remove()
    seen: dict[str, Seen] = {}
    for passed in passing(model, texts(model)):
        seen |= gather(passed, hessians=True)
    assert seen.keys() == read.keys() - {"lm_head.out"}
    for path, found in seen.items():
        x_NI = torch.cat([x.flatten(0, -2) for x in read[path]])
        assert found.tokens == len(x_NI), path
        assert torch.allclose(found.hessian(), x_NI.t() @ x_NI, rtol=1e-3, atol=1e-3), path
        assert torch.allclose(found.size_I, x_NI.abs().sum(0), rtol=1e-4), path
        assert torch.allclose(found.mean_square(), x_NI.square().mean(0), rtol=1e-4), path
    attn = "blocks.0.attn" if family != "t5" else "encoder.blocks.0.attn"
    assert seen[f"{attn}.q"] is seen[f"{attn}.k"] is seen[f"{attn}.v"] is not seen[f"{attn}.o"]
    if family == "mixtral":  # each expert has its own
        tokens = [
            seen[f"blocks.0.mlp.experts.{e}.up"].tokens for e in range(4) if f"blocks.0.mlp.experts.{e}.up" in seen
        ]
        assert sum(tokens) == model.blocks[0].mlp.spec.router.top_k * 41 and len(set(tokens)) > 1


def test_a_block_sees_what_changed_blocks_before_it_say() -> None:
    model = make("llama")
    plain = importance(model, texts(model))
    for passed in passing(model, texts(model)):
        found = gather(passed, hessians=False)
        if passed.prefix == "blocks.0.":
            with torch.no_grad():
                model.blocks[0].mlp.down.weight.mul_(2)
        elif passed.prefix == "blocks.1.":
            assert not torch.allclose(found["blocks.1.attn.q"].mean_square(), plain["blocks.1.attn.q.weight"])
    changed = importance(model, texts(model))
    assert torch.allclose(changed["blocks.0.attn.q.weight"], plain["blocks.0.attn.q.weight"])
    assert {f"blocks.{i}.mlp.down.weight" for i in range(len(model.blocks))} <= plain.keys()


def outputs(model: Any) -> list[Tensor]:
    with torch.no_grad():
        return [final(model, ids) for ids in texts(model)]


@pytest.mark.parametrize("family", SIZES)
def test_folded_scales_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folded model says what it said, its layers read what was foretold, and what there is to fold into is found."""
    model = make(family)
    form, notes = FORMS["awq-4"]({"group_size": 8}), fitting.Notes()
    wanted = outputs(model)
    folded: Counter[str] = Counter()
    apply = fitting._apply

    def applied(model: Any, fold: Any, scale_I: Tensor) -> None:
        folded[fold.what] += not bool(torch.equal(scale_I, torch.ones_like(scale_I)))
        apply(model, fold, scale_I)

    monkeypatch.setattr(fitting, "_apply", applied)
    for passed in passing(model, texts(model)):
        seen = gather(passed, hessians=True)
        slots = {f"{path}.weight" for path in seen}
        fitting._fold_all(passed, seen, slots, form, fitting._shared(model), notes)
        again = gather(passed, hessians=True)
        for path, found in seen.items():  # what was gathered is what is read after folding
            close = torch.allclose(
                found.hessian(), again[path].hessian(), rtol=1e-2, atol=1e-3 * float(found.hessian().max())
            )
            assert close, path
    for x, y in zip(outputs(model), wanted):
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(y.abs().max()))
    assert set(notes.folded) == FOLDS.get(family, set(notes.folded))
    assert not FOLDS.get(family) or any(folded.values())
    assert (
        "norms" not in FOLDS.get(family, ())
        or family in ("t5", "albert")
        or notes.folded["norms"] == 2 * len(model.blocks)
    )


@pytest.mark.parametrize("to", ["gptq-4", "awq-4"])
def test_fitting_leaves_the_model_as_it_was(to: str) -> None:
    model = make("mixtral")
    form, notes = FORMS[to]({"group_size": 32} if to == "gptq-4" else {"group_size": 16}), fitting.Notes()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = {
        name: place
        for name, place in model.file_places()
        if place.slots[0].startswith("blocks.")
        and place.slots[0].endswith(".weight")
        and "norm" not in name
        and "router" not in place.slots[0]
        and len(place.slots) == 1
    }
    model.places = [place for _, place in model.file_places()]
    found = dict(fitting.fit(model, texts(model), chosen, form, notes))
    assert chosen.keys() <= found.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    extra = {name for name in found if name not in chosen}
    assert all("norm" in name or name.endswith("gate.weight") for name in extra) and bool(extra) == (to == "awq-4")


def test_texts_begin_as_the_model_is_used_to() -> None:
    from pellucid import hub

    tokenizer = Tokenizer.from_folder(hub.default_model())
    pieces = texts_of(tokenizer, default_text(), length=64, most=5)
    assert len(pieces) == 5 and all(len(piece) == 64 and piece[0] == tokenizer.bos_token_id for piece in pieces)
    joined = [each for piece in pieces for each in piece[1:]]
    assert joined == tokenizer.encode(default_text(), add_special_tokens=False)[: len(joined)]
    with tiny.refused(tiny.PellucidError, "less than two tokens"):
        texts_of(tokenizer, "")


def test_the_part_that_is_reported_on_is_not_the_part_that_is_fitted_to() -> None:
    first, last = parted(default_text())
    assert first + last == default_text() and first.endswith("\n") and len(last) > len(first) / 4
    assert parted("no line end") == ("no line ", "end")
