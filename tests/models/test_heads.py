"""Heads: what they take, what they refuse, and what stands for a text that others surround."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid.errors import ArgumentError, InputError, Unsupported

IDS = tiny.ids(2, 3, 6)  # two questions, three choices
TWO = torch.tensor([1, 0])


def call(model: Any, given: Any = None, **options: Any) -> Any:
    with torch.no_grad():
        return model(given, **options) if given is not None else model(**options)


# ------------------------------------------------------------------------- choices


def test_choices_are_rows_of_their_own() -> None:
    model = tiny.make("bert", "multiple-choice")
    mask = torch.ones_like(IDS)
    mask[0, 1, 4:] = 0
    out = call(model, IDS, attention_mask=mask, token_type_ids=torch.ones_like(IDS), labels=torch.tensor([2, 0]))
    assert out.logits.shape == (2, 3) and out.loss.isfinite()
    types = torch.ones(1, 1, 4, dtype=torch.long)
    alone = call(model, IDS[:1, 1:2, :4], token_type_ids=types).logits
    assert torch.allclose(out.logits[0, 1], alone[0, 0], atol=1e-6)
    vectors = model.get_input_embeddings()(IDS)
    assert torch.allclose(call(model, inputs_embeds=vectors).logits, call(model, IDS).logits, atol=1e-6)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"input_ids": IDS[0]}, "[batch, choices, time]"), ({"input_ids": IDS[None]}, "[1, 2, 3, 6]"),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 6)}, "attention_mask"),
        ({"input_ids": IDS, "labels": torch.tensor([3, 0])}, "labels"),
        ({"input_ids": IDS, "labels": torch.tensor([1])}, "labels"), ({}, "a NoneType"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_what_is_no_list_of_choices(options: dict[str, Any], says: str) -> None:
    with refused(InputError, says):
        call(tiny.make("bert", "multiple-choice"), **options)


# ------------------------------------------------------------------------- pairs and pretraining


def test_pairs_by_either_name() -> None:
    model = tiny.make("bert", "next-sentence")
    ids = IDS[:, 0]
    assert torch.equal(call(model, ids, labels=TWO).loss, call(model, ids, next_sentence_label=TWO).loss)
    with refused(ArgumentError, "sentence_order_label"):
        call(model, ids, sentence_order_label=TWO)
    with refused(InputError, "labels"):
        call(model, ids, labels=torch.tensor([2, 0]))


def test_pretraining_wants_both_labels() -> None:
    model, ids = tiny.make("bert", "pretraining"), IDS[:, 0]
    out = call(model, ids, labels=ids, next_sentence_label=TWO)
    parts = [
        torch.nn.functional.cross_entropy(out.prediction_logits.flatten(0, 1), ids.flatten()),
        torch.nn.functional.cross_entropy(out.seq_relationship_logits, TWO),
    ]
    assert torch.allclose(out.loss, sum(parts))
    assert call(model, ids).loss is None
    for one in ({"labels": ids}, {"next_sentence_label": TWO}):
        with refused(InputError, "labels"):
            call(model, ids, **one)


def test_pairs_are_refused_elsewhere() -> None:
    with refused(ArgumentError, "next_sentence_label"):
        call(tiny.make("bert", "masked-lm"), IDS[:, 0], next_sentence_label=TWO)


def test_a_class_may_stand_for_pretraining() -> None:
    config = tiny.keys("gpt2")
    model = pellucid.AutoModelForPreTraining.from_config(pellucid.AutoConfig.for_model(**config))
    assert model.task == "causal-lm" and model.can_generate()
    with refused(Unsupported, "pretraining", "llama has"):
        tiny.make("llama", "pretraining")
    with refused(Unsupported, "multiple-choice"):
        tiny.make("gpt2", "multiple-choice")


# ------------------------------------------------------------------------- sides of an encoder-decoder


def test_the_end_of_a_text_is_found_among_pads() -> None:
    """A row's decoder reads the row's own tokens behind the start token, whatever pads surround them."""
    model = tiny.make("t5", "sequence-classification")
    ids = tiny.ids(2, 7)
    ids[0, -1] = ids[1, 4] = 1  # eos
    for left in (False, True):
        mask, given = torch.ones_like(ids), ids.clone()
        if left:
            given[1] = ids[1].roll(2)
        mask[1, slice(0, 2) if left else slice(5, 7)] = 0
        whole = call(model, given, attention_mask=mask).logits
        assert torch.allclose(whole[1], call(model, ids[1:, :5]).logits[0], atol=1e-5)
        assert torch.allclose(whole[0], call(model, ids[:1]).logits[0], atol=1e-5)
    with refused(InputError, "end-of-sequence", "row 1"):
        call(model, torch.stack((ids[0], tiny.ids(7).clamp_min(3))))


def test_the_encoder_alone() -> None:
    whole, alone = tiny.make("t5", None), tiny.make("t5", "text-encoding")
    assert alone.encoder is None and not alone.can_generate()
    alone.load_state_dict(
        {name.removeprefix("encoder."): w for name, w in whole.state_dict().items() if name.startswith("encoder.")}
    )
    ids = IDS[:, 0]
    with torch.no_grad():
        assert torch.equal(call(alone, ids).last_hidden_state, whole.encode(ids).last_hidden_state)
    with refused(ArgumentError, "decoder_input_ids"):
        call(alone, ids, decoder_input_ids=ids)


# ------------------------------------------------------------------------- decoders by config


def test_bert_writes_only_as_a_decoder() -> None:
    with refused(Unsupported, "causal-lm"):
        tiny.make("bert", "causal-lm")
    model = tiny.make("bert", "causal-lm", is_decoder=True)
    ids = IDS[:, 0]
    assert torch.allclose(call(model, ids[:, :4]).logits, call(model, ids).logits[:, :4], atol=1e-6)
    assert len(model.generate(ids[0].tolist(), max_new_tokens=3)) == 9


# ------------------------------------------------------------------------- further inputs


def test_inputs_that_a_family_names() -> None:
    model = tiny.make("layoutlm", "token-classification")
    ids = IDS[:, 0]
    boxes = torch.arange(4).expand(2, 6, 4) * 7
    assert not torch.equal(call(model, ids, bbox=boxes).logits, call(model, ids).logits)
    for wrong, says in (
        (boxes[:, :5], "[2, 5, 4]"), (boxes[..., :3], "four"), (boxes.float(), "four"), (boxes.flip(-1), "left"),
        (boxes * 9, "from 0 to 60"), ([[1]], "a list"),
    ):  # fmt: skip
        with refused(InputError, says, "bbox"):
            call(model, ids, bbox=wrong)
    with refused(ArgumentError, "boxes", "bbox"):
        call(model, ids, boxes=boxes)


def test_rows_of_a_table_that_skips_pads() -> None:
    """RoBERTa's position_ids are rows of its table; pads inside a text do not count."""
    model, ids = tiny.make("roberta", "masked-lm"), IDS[:, 0]
    rows = torch.arange(2, 8).expand(2, -1)
    assert torch.allclose(call(model, ids, position_ids=rows).logits, call(model, ids).logits, atol=1e-6)
    with refused(InputError, "57 positions"):
        call(model, tiny.ids(1, 58))


def test_routers_are_returned_where_there_are_any() -> None:
    model, ids = tiny.make("mixtral", "causal-lm"), IDS[:, 0]
    out = call(model, ids, labels=ids, output_router_logits=True)
    assert len(out.router_logits) == len(model.spec.stack.blocks) and out.router_logits[0].shape[0] == ids.numel()
    loss = call(model, ids, labels=ids).loss
    assert torch.allclose(out.loss, loss + model.config.router_aux_loss_coef * out.aux_loss)
    with refused(ArgumentError, "output_router_logits"):
        call(tiny.make("llama"), ids, output_router_logits=True)


def test_what_stands_for_a_text_in_clip() -> None:
    """The first end token; in files that call 2 the end, the token with the largest id."""
    ids = torch.tensor([[5, 9, 40, 9, 7], [9, 41, 3, 4, 41]])
    for end, places in ((9, (1, 0)), (2, (2, 1))):
        out = call(tiny.make("clip_text_model", None, eos_token_id=end), ids)
        assert all(torch.equal(out.pooler_output[row], out.last_hidden_state[row, t]) for row, t in enumerate(places))
    with refused(InputError, "end-of-sequence", "row 0"):
        call(tiny.make("clip_text_model", None, eos_token_id=8), ids)


def test_positions_on_several_axes() -> None:
    model = tiny.make("qwen2_vl_text", None)
    ids = IDS[:, 0]

    def states(places: Any = None) -> torch.Tensor:
        return call(model, ids, position_ids=places).last_hidden_state

    flat = torch.arange(6).expand(3, 2, -1)
    assert torch.allclose(states(flat), states(), atol=1e-6)
    wide = flat.clone()
    wide[2, :, 3:] += 3
    assert not torch.allclose(states(wide), states(), atol=1e-3)
    for wrong in (flat[:2], flat.float(), flat[:, :, :4]):
        with refused(InputError, "position_ids"):
            states(wrong)
    with refused(InputError, "position_ids"):
        call(tiny.make("llama"), ids, position_ids=flat)


# ------------------------------------------------------------------------- heads that are called alike


@pytest.mark.parametrize(
    ("trained", "asked"),
    [("sequence-classification", "token-classification"), ("token-classification", "sequence-classification")],
)
def test_a_head_that_is_taken_for_another_is_said(
    trained: str, asked: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are called `classifier` in files, and with as many labels the one loads in the other's place."""
    import reference as ref

    tiny.make("bert", trained).save_pretrained(tmp_path)
    with caplog.at_level("WARNING", "pellucid"):
        assert ref.our_class(trained).from_pretrained(tmp_path) and not caplog.messages
        model = ref.our_class(asked).from_pretrained(tmp_path)
    [said] = [note for note in model.report.notes if "called like" in note]
    assert f"a head for {trained}" in said and asked in said and said in caplog.text
    caplog.clear()
    other = ref.our_class(asked).from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert "classifier.out.weight" in other.report.initialised
    assert not [note for note in other.report.notes if "called like" in note]  # this one is new, and that is said
