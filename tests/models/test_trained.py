"""Trained weights: the default model and MiniLM give the reference's numbers on real text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pellucid import AutoModel, AutoModelForCausalLM, AutoTokenizer, hub, pipeline
from reference import distance

TEXTS = ["A cat sits outside", "", "Die Katze sitzt draußen.", "x" * 300, "one two three " * 40]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_minilm_beside_the_reference(shared: Path, dtype: torch.dtype) -> None:
    """Hidden states and pooled output of a ragged batch, each row against the reference's row alone."""
    import transformers

    folder = shared / "models" / "minilm"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder, dtype=dtype)
    mine = AutoModel.from_pretrained(folder, dtype=dtype)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.inference_mode():
        output = mine(**batch)
        for row, n in enumerate(batch["attention_mask"].sum(1).tolist()):
            alone = theirs(**{name: value[row : row + 1, :n] for name, value in batch.items()})
            near = 1e-5 if dtype == torch.float32 else 0.06
            assert distance(output.last_hidden_state[row, :n].float(), alone.last_hidden_state[0].float()) < near
            assert distance(output.pooler_output[row].float(), alone.pooler_output[0].float()) < near


def test_minilm_ranks_sentences(shared: Path) -> None:
    extract = pipeline("feature-extraction", shared / "models" / "minilm")
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    means = torch.stack([x[0].mean(0) for x in extract(texts, return_tensors=True)])
    unit = torch.nn.functional.normalize(means, dim=-1)
    found = unit @ unit.T
    # published on the model's card, https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    published = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    assert torch.allclose(found, published, atol=2e-3)


def test_the_default_model_beside_the_reference() -> None:
    import transformers

    folder = hub.default_model()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    mine = AutoModelForCausalLM.from_pretrained()
    ids = torch.randint(3, 512, (2, 100), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert distance(mine(ids).logits, theirs(ids).logits) < 1e-5
    prompt = ids[:, :9]
    asked = {"do_sample": False, "max_new_tokens": 60, "attention_mask": torch.ones_like(prompt)}
    assert mine.generate(prompt, **asked).tolist() == theirs.generate(prompt, **asked).tolist()
