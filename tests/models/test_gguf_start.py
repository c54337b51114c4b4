"""A packed model loads and writes without what torch imports for the first op that it hands to a subclass."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from gguf import GGMLQuantizationType as Kind

import gguf_models
import reference as ref

CODE = """
import sys, torch
from pellucid import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert type(model.get_parameter("blocks.0.mlp.up.weight")).__name__ == "GgufBlocks"
model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=3, do_sample=False)
sys.exit("torch.distributed.tensor" in sys.modules or "sympy" in sys.modules)
"""


def test_loading_and_generating_import_no_more_of_torch(tmp_path):
    case = ref.case("llama", "", "causal-lm")
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    case = replace(case, variant="packed", config={**case.config, **sizes})
    path = gguf_models.write(ref.checkpoint(case, tmp_path), tmp_path / "small.gguf", Kind.Q8_0)
    assert subprocess.run([sys.executable, "-c", CODE, str(path)], timeout=120).returncode == 0
