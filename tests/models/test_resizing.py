"""Another number of token vectors: old rows stay, ties stay, what is saved is loaded again; beside the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
import reference as ref
from models import tiny
from models.tiny import refused
from pellucid.errors import ArgumentError, Unsupported

# A head of its own, tied ones, one with a bias, a stored row that is added, an encoder beside the decoder.
LM = {"bert": "masked-lm", "gpt2": "causal-lm", "llama": "causal-lm", "t5": "seq2seq-lm", "bart": "seq2seq-lm",
      "mobilebert": "masked-lm", "opt": "causal-lm", "gemma3": "causal-lm"}  # fmt: skip
IDS = torch.tensor([[3, 14, 15, 92, 65]])


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    beside = {"decoder_input_ids": ids[:, :3]} if model.encoder is not None else {}
    with torch.no_grad():
        found: torch.Tensor = model(ids, **beside).logits
    return found


@pytest.mark.parametrize("family", sorted(LM))
@pytest.mark.parametrize("more", [11, -7])
def test_old_tokens_say_what_they_said(family: str, more: int, tmp_path: Path) -> None:
    model = tiny.make(family, LM[family])
    before, rows = logits(model), model.spec.vocab
    tied = model.ties()
    vectors = model.resize_token_embeddings(rows + more)
    assert vectors is model.get_input_embeddings() and vectors.weight.shape[0] == rows + more == model.spec.vocab
    after, kept = logits(model), min(rows, rows + more)
    assert after.shape[-1] == rows + more
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    assert model.ties() == tied and model.get_output_embeddings().out_features == rows + more
    for name, source in tied.items():
        assert model.get_parameter(name) is model.get_parameter(source)
    model.save_pretrained(tmp_path)
    again = ref.our_class(LM[family]).from_pretrained(tmp_path)
    assert again.spec.vocab == rows + more and not again.report.initialised
    torch.testing.assert_close(logits(again), after)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
def test_beside_the_reference(family: str, tmp_path: Path) -> None:
    """New rows: near the mean of the old ones, in the head too; the same sizes and keys."""
    import transformers

    model = tiny.make(family, LM[family])
    model.save_pretrained(tmp_path)
    name = {"masked-lm": "AutoModelForMaskedLM", "causal-lm": "AutoModelForCausalLM"}.get(
        LM[family], "AutoModelForSeq2SeqLM"
    )
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    rows = model.spec.vocab
    for each in (model, theirs):
        each.resize_token_embeddings(rows + 3, pad_to_multiple_of=8)
        each.resize_token_embeddings()  # nothing asked for: nothing changes
    size = -(-(rows + 3) // 8) * 8
    assert theirs.config.vocab_size == model.config.vocab_size == size
    for ours, other in (
        (model.get_input_embeddings(), theirs.get_input_embeddings()),
        (model.get_output_embeddings(), theirs.get_output_embeddings()),
    ):
        assert ours.weight.shape == other.weight.shape
        spread = ours.weight.std().item()
        torch.testing.assert_close(ours.weight, other.weight, atol=1e-3 * spread, rtol=0)
    found = logits(model, torch.tensor([[3, 5, size - 1]]))
    assert found.isfinite().all()


def test_new_rows_as_of_a_new_model() -> None:
    model = tiny.make("llama", "causal-lm")
    rows = model.spec.vocab
    torch.manual_seed(0)
    new = model.resize_token_embeddings(rows + 400, mean_resizing=False).weight[rows:]
    spread = model.config.get("initializer_range") or 0.02
    assert 0.9 * spread < new.std() < 1.1 * spread and abs(new.mean()) < 0.1 * spread


def test_a_model_that_has_written_already() -> None:
    """What was recorded or packed for the old sizes is not used again; a new token can be written and read."""
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    tokenizer = pellucid.AutoTokenizer.from_pretrained()
    ids = tokenizer(["Once upon a time"])["input_ids"]
    asked: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    [before] = model.generate(ids, **asked)
    assert tokenizer.add_tokens(["<mood>", "<place>"]) == 2
    model.resize_token_embeddings(len(tokenizer))
    assert model.generate(ids, **asked) == [before]
    new = tokenizer("Once upon <mood> a time")["input_ids"]
    assert len(tokenizer) - 2 in new and len(model.generate([new], **asked)[0]) == len(new) + 8
    matrix = model.get_output_embeddings().weight
    with torch.no_grad():
        matrix[-1] = 2 * matrix[before[-1]]  # likelier than the token that was the likeliest
    assert len(tokenizer) - 1 in model.generate(ids, **asked)[0]


def test_training_reaches_the_new_rows() -> None:
    model = tiny.make("llama", "causal-lm")
    rows = model.spec.vocab
    model.resize_token_embeddings(rows + 1)
    ids = torch.tensor([[3, rows, 5]])
    model(ids, labels=ids).loss.backward()
    assert model.get_input_embeddings().weight.grad[rows].abs().max() > 0


@pytest.mark.parametrize("asked", [{"new_num_tokens": 0}, {"new_num_tokens": "9"}, {"pad_to_multiple_of": 0}], ids=str)
def test_what_is_no_number_of_tokens(asked: dict[str, Any]) -> None:
    with refused(ArgumentError, "whole number"):
        tiny.make("llama", "causal-lm").resize_token_embeddings(**asked)


def test_what_cannot_grow(tmp_path: Path) -> None:
    from pellucid.models.conversion import convert
    from pellucid.models.targets import Options

    folder = pellucid.hub.default_model()
    convert(folder, tmp_path / "m.gguf", Options())
    with refused(Unsupported, "pellucid convert"):
        pellucid.AutoModelForCausalLM.from_pretrained(tmp_path / "m.gguf").resize_token_embeddings(600)
    with refused(Unsupported, "canine"):
        tiny.make("canine", None).resize_token_embeddings(600)
