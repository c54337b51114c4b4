"""One forward: what it refuses, what it returns, compilation, gradients through embeddings, names from the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models import tiny
from models.tiny import refused
from pellucid.cache.cache import Cache
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported
from pellucid.nn.linear import Linear

CAUSAL = ("gemma2", "gpt2", "llama")


@pytest.fixture(scope="module")
def models() -> Callable[..., Any]:
    made: dict[Any, Any] = {}

    def get(family: str, task: str | None = "lm") -> Any:
        if (family, task) not in made:
            made[family, task] = tiny.make(family, task)
        return made[family, task]

    return get


def run(model: Any, given: Any = None, **options: Any) -> Any:
    if model.encoder is not None and "decoder_input_ids" not in options:
        options["decoder_input_ids"] = tiny.ids(2, 4)
    with torch.no_grad():
        return model(given, **options) if given is not None else model(**options)


IDS = tiny.ids(2, 6)
ONES = torch.ones(2, 6, dtype=torch.long)
BAD_IDS: list[tuple[Any, str]] = [
    (torch.tensor([[5, 101]]), "token id 101"), (torch.tensor([[5, -1]]), "token id -1"),
    (torch.tensor([[5, 2**40]]), f"token id {2**40}"), (torch.tensor([[-(2**62), 2**62]]), "token id"),
    (torch.zeros(2, 0, dtype=torch.long), "[2, 0]"), (torch.zeros(0, 3, dtype=torch.long), "[0, 3]"),
    (torch.tensor([3, 4]), "[2]"), (torch.tensor(3), "[]"), (torch.zeros(1, 2, 3, dtype=torch.long), "[1, 2, 3]"),
    (torch.tensor([[1.0, 2.0]]), "float32"), (torch.tensor([[True, False]]), "bool"),
    (torch.tensor([[1j]]), "complex"), ([[1, 2]], "list"), ((1, 2), "tuple"), ("text", "str"), (5, "int"),
    (np.array([[1, 2]]), "ndarray"), ([], "list"), ({"input_ids": IDS}, "dict"), (None, "neither"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "of_whole_texts"), [("bert", "blocks."), ("t5", "encoder."), ("gpt2", ""), ("llama", "")]
)
def test_layers_of_whole_texts(family: str, of_whole_texts: str) -> None:
    """Those of towers that never go on from a token: their products are chosen for many rows (nn/linear.py)."""
    layers = {name: layer for name, layer in tiny.make(family).named_modules() if isinstance(layer, Linear)}
    assert layers
    for name, layer in layers.items():
        assert layer.many == bool(of_whole_texts and name.startswith(of_whole_texts)), name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_ids_that_are_none(models: Callable[..., Any], family: str) -> None:
    model = models(family)
    for given, says in BAD_IDS:
        with refused(InputError, says):
            run(model, given)
        if model.encoder is not None and given is not None:
            with refused(InputError, says, "decoder_input_ids"):
                run(model, IDS, decoder_input_ids=given)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.int8], ids=str)
def test_other_whole_numbers_are_ids(models: Callable[..., Any], dtype: torch.dtype) -> None:
    model = models("llama")
    assert torch.equal(run(model, IDS.to(dtype)).logits, run(model, IDS).logits)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    "mask, says",
    [
        (torch.ones(2, 5), "[2, 5]"), (torch.ones(3, 6), "[3, 6]"), (torch.ones(6), "[6]"),
        (torch.ones(2, 1, 6, 6), "[2, 1, 6, 6]"), (torch.ones(2, 6) * 2, "other than 0 and 1"),
        (torch.full((2, 6), -1), "other than 0 and 1"), (torch.full((2, 6), 0.5), "other than 0 and 1"),
        (torch.full((2, 6), float("nan")), "other than 0 and 1"), (torch.zeros(2, 6), "row 0"),
        (torch.tensor([[1] * 6, [0] * 6]), "row 1"), ([[1] * 6] * 2, "list"), (np.ones((2, 6)), "ndarray"), (1, "int"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_masks_that_are_none(models: Callable[..., Any], family: str, mask: Any, says: str) -> None:
    with refused(InputError, says, "attention_mask"):
        run(models(family), IDS, attention_mask=mask)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_masks_of_other_dtypes(models: Callable[..., Any], family: str) -> None:
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    wanted = run(models(family), IDS, attention_mask=mask).logits
    for dtype in (torch.bool, torch.float32, torch.int32, torch.uint8, torch.bfloat16):
        assert torch.equal(run(models(family), IDS, attention_mask=mask.to(dtype)).logits, wanted)


@pytest.mark.parametrize(
    "family, task, options, kind, says",
    [
        ("llama", "lm", {"atention_mask": ONES}, ArgumentError, "did you mean 'attention_mask'"),
        ("llama", "lm", {"past_key_value": None}, ArgumentError, "did you mean 'past_key_values'"),
        ("llama", "lm", {"foo": 1}, ArgumentError, "input_ids"),
        ("llama", "lm", {"decoder_input_ids": IDS}, ArgumentError, "decoder_input_ids"),
        ("llama", "lm", {"token_type_ids": IDS}, PellucidError, "token_type_ids"),
        ("llama", "lm", {"start_positions": torch.tensor([1, 1])}, PellucidError, "start_positions"),
        ("t5", "lm", {"position_ids": IDS}, ArgumentError, "position_ids"),
        ("t5", "lm", {"token_type_ids": IDS}, ArgumentError, "token_type_ids"),
        ("llama", "lm", {"inputs_embeds": torch.ones(2, 6, 42)}, InputError, "both"),
        ("llama", "lm", {"labels": tiny.ids(2, 5)}, InputError, "labels"),
        ("llama", "lm", {"labels": tiny.ids(2)}, InputError, "labels"),
        ("llama", "lm", {"labels": torch.ones(2, 6)}, InputError, "labels"),
        ("llama", "lm", {"labels": [[1] * 6] * 2}, InputError, "labels"),
        ("llama", "lm", {"labels": IDS + 100}, InputError, "labels"),
        ("llama", "lm", {"labels": IDS - 105}, InputError, "labels"),
        ("bert", "lm", {"labels": tiny.ids(2, 7)}, InputError, "labels"),
        ("t5", "lm", {"labels": tiny.ids(2, 7)}, InputError, "labels"),
        ("t5", "lm", {"labels": tiny.ids(3, 4)}, InputError, "labels"),
        ("bert", None, {"labels": IDS}, PellucidError, "labels"),
        ("bert", "sequence-classification", {"labels": torch.tensor([1, 2, 3])}, InputError, "labels"),
        ("bert", "sequence-classification", {"labels": torch.tensor([1, 5])}, InputError, "labels"),
        ("bert", "sequence-classification", {"labels": torch.tensor([1, -3])}, InputError, "labels"),
        ("bert", "sequence-classification", {"labels": torch.ones(2, 4)}, InputError, "labels"),
        ("bert", "sequence-classification", {"labels": torch.ones(2)}, InputError, "labels"),
        ("bert", "token-classification", {"labels": torch.tensor([1, 2])}, InputError, "labels"),
        ("bert", "token-classification", {"labels": IDS}, InputError, "labels"),
        ("bert", "question-answering", {"labels": IDS}, PellucidError, "labels"),
        ("bert", "question-answering", {"start_positions": torch.tensor([1, 1])}, PellucidError, "end_positions"),
        ("bert", "question-answering",
         {"start_positions": torch.tensor([1]), "end_positions": torch.tensor([1])}, InputError, "start_positions"),
        ("bert", "lm", {"token_type_ids": IDS}, InputError, "token_type_ids"),
        ("bert", "lm", {"token_type_ids": ONES * -1}, InputError, "token_type_ids"),
        ("bert", "lm", {"token_type_ids": ONES[:, :5]}, InputError, "token_type_ids"),
        ("bert", "lm", {"token_type_ids": ONES.float()}, InputError, "token_type_ids"),
        ("bert", "lm", {"position_ids": ONES * 59}, InputError, "position"),
        ("bert", "lm", {"position_ids": ONES * -1}, InputError, "position_ids"),
        ("gpt2", "lm", {"position_ids": ONES[:, :5]}, InputError, "position_ids"),
        ("gpt2", "lm", {"position_ids": ONES.float()}, InputError, "position_ids"),
        ("gpt2", "lm", {"position_ids": [[0] * 6] * 2}, InputError, "position_ids"),
        ("gpt2", "lm", {"position_ids": torch.tensor([[0, 1, 2, 99, 4, 5]])}, InputError, "position"),
        ("llama", "lm", {"past_key_values": ((ONES, ONES),)}, InputError, "past_key_values"),
        ("llama", "lm", {"past_key_values": "cache"}, InputError, "past_key_values"),
        ("llama", "lm", {"past_key_values": Cache(3)}, InputError, "3 rows"),
        ("bert", "lm", {"past_key_values": Cache(2)}, PellucidError, "past_key_values"),
        ("llama", "lm", {"logits_to_keep": -1}, PellucidError, "logits_to_keep"),
        ("llama", "lm", {"logits_to_keep": "all"}, PellucidError, "logits_to_keep"),
        ("llama", "lm", {"logits_to_keep": ONES}, InputError, "logits_to_keep"),
        ("llama", "lm", {"logits_to_keep": ONES[:, :5].bool()}, InputError, "logits_to_keep"),
        ("llama", "lm", {"logits_to_keep": ONES.bool(), "labels": IDS}, InputError, "logits_to_keep"),
        ("bert", "token-classification", {"logits_to_keep": ONES.bool()}, InputError, "logits_to_keep"),
        ("t5", "lm", {"encoder_outputs": 5}, PellucidError, "encoder_outputs"),
        ("t5", "lm", {"encoder_outputs": (torch.ones(2, 6, 3),)}, InputError, "encoder_outputs"),
        ("t5", "lm", {"encoder_outputs": (torch.ones(3, 6, 34),)}, InputError, "input 3"),
        ("t5", "lm", {"decoder_attention_mask": torch.ones(2, 5)}, InputError, "attention_mask"),
        ("t5", "lm", {"decoder_input_ids": tiny.ids(3, 4)}, InputError, "decoder_input_ids"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value)[:12],
)  # fmt: skip
def test_arguments_that_do_not_fit(
    models: Callable[..., Any], family: str, task: str, options: dict[str, Any], kind: Any, says: str
) -> None:
    with refused(kind, says):
        run(models(family, task), IDS, **options)


@pytest.mark.parametrize(
    "family, says", [("gpt2", "59"), ("bert", "59"), ("llama", None), ("gemma2", None), ("t5", None)]
)
def test_more_tokens_than_positions(models: Callable[..., Any], family: str, says: str | None) -> None:
    """Learned positions end; rotary and relative ones go on."""
    model = models(family)
    limit = model.spec.context or 59
    assert run(model, tiny.ids(1, limit), **one(model)).logits.isfinite().all()
    if says is None:
        assert run(model, tiny.ids(1, limit + 1), **one(model)).logits.isfinite().all()
        return
    with refused(InputError, says):
        run(model, tiny.ids(1, limit + 1))


def one(model: Any) -> dict[str, Any]:
    return {"decoder_input_ids": tiny.ids(1, 4)} if model.encoder is not None else {}


# ------------------------------------------------------------------------- what comes out


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_outputs_by_name_number_and_unpacking(models: Callable[..., Any], family: str) -> None:
    model = models(family)
    labels = tiny.ids(2, 4) if model.encoder is not None else IDS
    out = run(model, IDS, labels=labels)
    loss, logits, *_ = out
    assert out.loss is loss is out[0] is out["loss"] and out.logits is logits is out[1] is out[:2][1]
    assert "loss" in out and "hidden_states" not in out and out.hidden_states is None and out.get("attentions") is None
    assert list(out) == list(out.to_tuple()) and len(out) == len(out.keys())
    plain = run(model, IDS, labels=labels, return_dict=False)
    assert type(plain) is tuple and len(plain) == len(out) and torch.equal(plain[1], out.logits)
    assert (out.past_key_values is not None) == (family != "bert")
    assert run(model, IDS, use_cache=False).past_key_values is None
    with pytest.raises(AttributeError, match="logits"):
        out.logit  # noqa: B018
    with pytest.raises(KeyError):
        out["logit"]
    with pytest.raises(IndexError):
        out[9]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_and_patterns_with_left_pads(models: Callable[..., Any], family: str) -> None:
    model = models(family)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    out = run(model, IDS, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    side = "encoder_" if model.encoder is not None else ""
    spec = model.spec.encoder or model.spec.stack
    hidden, patterns = out[f"{side}hidden_states"], out[f"{side}attentions"]
    assert len(hidden) == len(spec.blocks) + 1 and len(patterns) == len(spec.blocks)
    assert all(h.shape == (2, 6, model.spec.width) and not h[1, :2].any() for h in hidden)
    for pattern, block in zip(patterns, spec.blocks):
        assert pattern.shape == (2, block.attn.heads, 6, 6)
        assert torch.allclose(pattern[0].sum(-1), torch.ones(block.attn.heads, 6), atol=1e-5)
    alone = run(model, IDS[1:, 2:], output_attentions=True, **one(model))[f"{side}attentions"]
    for whole, row in zip(patterns, alone):
        assert torch.allclose(whole[1, :, 2:, 2:], row[0], atol=1e-5)
        assert not whole[1, :, :2].any() and not whole[1, :, :, :2].any()
    if model.encoder is not None:
        assert all(torch.allclose(p.sum(-1), torch.ones(())) and not p[1, ..., :2].any() for p in out.cross_attentions)
        assert [p.shape[1:] for p in out.cross_attentions] == [(5, 4, 6)] * len(model.spec.stack.blocks)
        assert len(out.decoder_hidden_states) == len(model.spec.stack.blocks) + 1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_patterns_behind_a_cache_stand_where_its_mask_says(models: Callable[..., Any], family: str) -> None:
    model, mask = models(family), torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    whole = run(model, IDS, attention_mask=mask, output_attentions=True).attentions
    cache = run(model, IDS[:, :4], attention_mask=mask[:, :4], use_cache=True).past_key_values
    later = run(model, IDS[:, 4:], attention_mask=mask, past_key_values=cache, output_attentions=True).attentions
    for one, two in zip(whole, later):
        assert torch.allclose(one[:, :, 4:], two, atol=1e-5)


@pytest.mark.parametrize("family", [*CAUSAL, "t5"])
def test_caches_go_round(models: Callable[..., Any], family: str) -> None:
    model = models(family)
    decoder = "decoder_input_ids" if model.encoder is not None else "input_ids"
    extra = {"input_ids": IDS} if model.encoder is not None else {}
    long = tiny.ids(2, 9, seed=4)
    with torch.no_grad():
        whole = model(**extra, **{decoder: long}).logits
        out = model(**extra, **{decoder: long[:, :5]}, use_cache=True)
        for t in range(5, 9):
            out = model(**extra, **{decoder: long[:, t : t + 1]}, past_key_values=out.past_key_values)
            assert torch.allclose(out.logits[:, 0], whole[:, t], atol=2e-5)
        assert out.past_key_values.get_seq_length() == 9
        assert torch.equal(model(**extra, **{decoder: long}, logits_to_keep=2).logits, whole[:, -2:])


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_at_places(models: Callable[..., Any], family: str) -> None:
    """Those of a mask, row by row, beside all; and no others are computed."""
    model, mask = models(family), torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    places = torch.tensor([[0, 1, 0, 0, 0, 1], [1, 0, 0, 1, 0, 0]], dtype=torch.bool)
    seen: list[int] = []
    with torch.no_grad():
        extra = {"decoder_input_ids": IDS} if model.encoder is not None else {}
        whole = model(IDS, attention_mask=mask, **extra).logits
        with model.lm_head.register_forward_hook(lambda _, given, out: seen.append(out.numel() // out.shape[-1])):
            found = model(IDS, attention_mask=mask, logits_to_keep=places, **extra).logits
    torch.testing.assert_close(found, whole[places], rtol=0, atol=2e-5)
    assert seen == [4]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradients_through_embeddings(models: Callable[..., Any], family: str) -> None:
    model = models(family)
    extra = {"decoder_input_ids": tiny.ids(2, 4)} if model.encoder is not None else {}
    vectors = model.get_input_embeddings()(IDS).detach().requires_grad_()
    out = model(inputs_embeds=vectors, **extra).logits
    assert torch.allclose(out, model(IDS, **extra).logits, atol=1e-5)
    out.square().mean().backward()
    assert vectors.grad is not None and vectors.grad.isfinite().all() and vectors.grad.abs().sum() > 0
    for wrong in (vectors[0], vectors[..., :-1], vectors.detach().int(), IDS, [[0.0]], None):
        with refused(InputError):
            run(model, inputs_embeds=wrong)
    model.zero_grad()


def test_compilation(models: Callable[..., Any]) -> None:
    """Equal to eager; without a cache in one graph. (The backend is eager: no compiler is tested here.)"""
    model = models("llama")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        wanted = model(IDS).logits
        whole = torch.compile(model, backend="eager", fullgraph=True)
        assert torch.allclose(whole(IDS, use_cache=False).logits, wanted, atol=1e-5)
        assert torch.allclose(torch.compile(model, backend="eager")(IDS).logits, wanted, atol=1e-5)
        torch._dynamo.reset()


# ------------------------------------------------------------------------- names from the file


def test_modules_by_their_file_names(models: Callable[..., Any]) -> None:
    model = tiny.make("llama")
    layers = model.model.layers
    assert (
        len(layers) == len(model.blocks)
        and len(list(layers)) == 3
        and layers[-1].self_attn.q_proj is layers[2].self_attn.q_proj
    )
    assert model.model.layers[1].self_attn.q_proj is model.blocks[1].attn.q
    assert model.model.layers[1].self_attn.q_proj.weight is model.blocks[1].attn.q.weight
    assert model.get_submodule("model.layers.1.self_attn.q_proj") is model.blocks[1].attn.q
    assert model.model.embed_tokens is model.embed.tokens and model.model.norm is model.norm
    x = torch.randn(3, 42)
    assert torch.equal(layers[0].mlp(x), model.blocks[0].mlp(x))
    assert layers[0].self_attn.o_proj.in_features == 60
    for wrong, kind in (
        (lambda: layers[3], IndexError), (lambda: layers[-4], IndexError), (lambda: layers[0].self_atn, AttributeError),
        (lambda: model.modle, AttributeError), (lambda: model.get_submodule("model.layers.9.mlp"), AttributeError),
        (lambda: model.model.layers(x), NotImplementedError), (lambda: layers["0"], TypeError),
    ):  # fmt: skip
        with pytest.raises(kind):
            wrong()
    before = run(model, IDS).logits
    layers[1].self_attn.q_proj = Doubled(model.blocks[1].attn.q)
    assert isinstance(model.blocks[1].attn.q, Doubled) and isinstance(layers[1].self_attn.q_proj, Doubled)
    assert not torch.equal(run(model, IDS).logits, before)
    seen: list[int] = []
    layers[2].mlp.up_proj.register_forward_hook(lambda *_: seen.append(1))
    run(model, IDS)
    assert seen == [1]


class Doubled(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("names", ["canonical", "file"])
def test_state_dicts_under_either_naming(family: str, names: str) -> None:
    model, other = tiny.make(family), tiny.make(family)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    wanted = tiny.call(other, IDS)
    assert not torch.equal(tiny.call(model, IDS), wanted)
    model.load_state_dict(other.state_dict(names=names))
    assert torch.equal(tiny.call(model, IDS), wanted)
    state = other.state_dict(names=names)
    name = next(n for n in state if n.endswith(("norm.weight", "LayerNorm.weight")) or "ln_f" in n)
    for change in ({"surprise": torch.ones(2)}, {name: torch.ones(3)}):
        with pytest.raises((RuntimeError, PellucidError), match=r"surprise|size|\[3\]"):
            model.load_state_dict({**state, **change})
    del state[name]
    with pytest.raises((RuntimeError, PellucidError), match="norm|Norm|ln_f"):
        model.load_state_dict(state)
    model.load_state_dict(state, strict=False)
    with refused(ArgumentError, "names="):
        model.state_dict(names="other")


def test_classes_and_problems(models: Callable[..., Any]) -> None:
    """The three losses of a classifier, by labels or by config."""
    for labels, problem, count in (
        (torch.tensor([1, 0]), None, 5), (torch.rand(2, 5), None, 5), (torch.rand(2), None, 1),
        (torch.rand(2, 1), "regression", 1), (torch.tensor([1, 0]), "single_label_classification", 5),
        (torch.ones(2, 5), "multi_label_classification", 5),
    ):  # fmt: skip
        model = tiny.make("bert", "sequence-classification", num_labels=count, problem_type=problem)
        assert run(model, IDS, labels=labels).loss.isfinite()
    model = models("llama", "sequence-classification")
    assert run(model, IDS, labels=torch.tensor([1, 0])).loss.isfinite()
    with refused(Unsupported, "generate"):
        model.generate(IDS)
