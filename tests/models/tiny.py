"""Small models with loud weights, made by Pellucid itself: no reference library, no file that is not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
import reference as ref
from pellucid.errors import PellucidError

LM = {"bert": "masked-lm", "t5": "seq2seq-lm"}  # the others: causal-lm
FAMILIES = ("bert", "gemma2", "gpt2", "llama", "t5")


def keys(family: str, **changes: Any) -> dict[str, Any]:
    """config.json of a family's fixture."""
    return {**ref.fixture(family)["config"], **changes}


def make(family: str, task: str | None = "lm", **changes: Any) -> Any:
    """A model from a config; every call with the same arguments gives the same weights."""
    values = keys(family, **changes)
    config = pellucid.AutoConfig.for_model(values.pop("model_type"), **values)
    task = LM.get(family, "causal-lm") if task == "lm" else task
    model = ref.our_class(task).from_config(config)
    ref.make_loud(model, ref.fixture(family).get("norm_offset", 0.0))
    return model


def auto(family: str, task: str | None = "lm") -> Any:
    return ref.our_class(LM.get(family, "causal-lm") if task == "lm" else task)


def ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 100, shape, generator=torch.Generator().manual_seed(seed))


def call(model: Any, ids_BT: torch.Tensor, **options: Any) -> torch.Tensor:
    """The first result of a forward, whatever the family."""
    if model.encoder is not None:
        options.setdefault("decoder_input_ids", ids_BT[:, :4])
    with torch.inference_mode():
        output = model(ids_BT, **options)
    said = (output.get(name) for name in ("logits", "last_hidden_state", "pooler_output"))
    return next(tensor for tensor in said if tensor is not None)


def folder_of(path: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Path:
    """A model folder with exactly these tensors."""
    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    return path


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in model.state_dict(names="file").items()}


@contextmanager
def refused(kind: type[PellucidError], *says: str) -> Iterator[None]:
    """An error of ours with all of these words, that says what to do next."""
    with pytest.raises(kind) as caught:
        yield
    for word in says:
        assert word in str(caught.value), f"{word!r} is missing in: {caught.value}"
    assert caught.value.what
