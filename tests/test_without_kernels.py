"""Where nothing could be compiled torch computes everything: the same tokens, slower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid import AutoModelForCausalLM, AutoTokenizer, hub
from pellucid.ops import cpu

PROMPTS = ["Once upon a time, there was a little girl named Lily. She", "One day, a big dog went to the park. It was"]
NEW = 32
HALF = {"dtype": torch.bfloat16}
# how a model is loaded, what is asked of `generate`, and by how much the logit of a greedy token may miss the best: by
# nothing in float32; elsewhere kernels round in another order, or round activations as the format's own engine does
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any], float]] = {
    "float32": ({}, {}, 0.0),
    "8 bits in the cache": ({}, {"cache_implementation": "quantized"}, 0.5),
    "bfloat16": (HALF, {}, 0.25),
    "nf4": (HALF | {"load_in_4bit": True}, {}, 0.25),
    "q8_0": ({"gguf_file": "q8_0.gguf"}, {}, 0.5),
}


def opened(folder: Path, name: str) -> Any:
    options = WAYS[name][0]
    return AutoModelForCausalLM.from_pretrained(folder if "gguf_file" in options else hub.default_model(), **options)


def answers(folder: Path) -> dict[str, list[list[int]]]:
    """The greedy tokens of each way, for two prompts in one batch."""
    tokenizer = AutoTokenizer.from_pretrained(hub.default_model())
    ids = tokenizer(PROMPTS, truncation=True, max_length=16, return_tensors="pt")
    asked = {"max_new_tokens": NEW, "do_sample": False}
    return {name: opened(folder, name).generate(**ids, **asked, **WAYS[name][1]).tolist() for name in WAYS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as a GGUF file, its matrices in blocks of 8 bits where their rows are whole blocks."""
    gguf_models = pytest.importorskip("gguf_models", reason="needs the package gguf")
    kind = gguf_models.Kind
    made = tmp_path_factory.mktemp("gguf")
    gguf_models.write(
        hub.default_model(), made / "q8_0.gguf", lambda name, shape: kind.F32 if shape[-1] % 32 else kind.Q8_0
    )
    return made


def test_torch_gives_the_same_tokens(folder: Path) -> None:
    """What is said without kernels is the best that they know, token by token, as exactly as numbers are rounded."""
    if cpu.kernels() is None:
        pytest.skip("no native kernels to compare with")
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, said in json.loads(done.stdout).items():
        ids_BT = torch.tensor(said)
        with torch.inference_mode():
            logits_BTV = opened(folder, name)(ids_BT[:, :-1]).logits.float()[:, -NEW:]
        chosen_BT = logits_BTV.gather(-1, ids_BT[:, -NEW:, None])[..., 0]
        missed = logits_BTV.amax(-1) - chosen_BT
        assert missed.max() <= WAYS[name][2], (name, missed)


if __name__ == "__main__":
    cpu.FILE = cpu.FILE.with_name("nothing.so")
    assert cpu.kernels() is None and cpu.bfloat16_way() == 0
    print(json.dumps(answers(Path(sys.argv[1]))))
