"""Writes tests/data/decoding_version_4.json: what version 4 of the reference generates in ways that 5 does not have.

Not run by the tests. With transformers 4.51.3 (the last that has all four ways in itself) in a folder of its own, and
checkpoints that `reference.checkpoint` wrote:

    PYTHONPATH=/tmp/tf4 python tests/engine/record_version_4.py /tmp/checkpoints
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

DATA = Path(__file__).parents[1] / "data" / "decoding_version_4.json"
CLASSES = {"llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel", "t5": "T5ForConditionalGeneration"}
USUAL = {
    "max_new_tokens": 12, "pad_token_id": 1, "top_k": 0, "return_dict_in_generate": True, "output_scores": True,
    "forced_eos_token_id": None,
}  # fmt: skip


def load(family: str, root: Path) -> Any:
    folder = next(path for path in root.iterdir() if path.name.startswith(family) and path.is_dir())
    values = json.loads((folder / "config.json").read_text())
    rope = values.pop("rope_parameters", None) or {}
    values |= {"rope_theta": rope["rope_theta"]} if rope else {}
    values.pop("dtype", None)
    architecture = getattr(transformers, CLASSES[family])
    model = architecture(architecture.config_class(**values, attn_implementation="eager"))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig.from_model_config(model.config)
    return model.eval()


def settings(chance: random.Random) -> dict[str, list[dict[str, Any]]]:
    def some(n: int) -> list[int]:
        return chance.sample(range(3, 51), n)

    def ends() -> list[int]:
        return sorted(chance.sample(range(51, 101), chance.choice([1, 3, 10])))  # none is part of a word

    def ranking(beams: int) -> dict[str, Any]:
        return {
            "num_beams": beams, "num_return_sequences": beams, "early_stopping": chance.choice([True, False, "never"]),
            "length_penalty": chance.choice([1.0, 0.0, 2.0, -1.0]), "eos_token_id": ends(),
        }  # fmt: skip

    groups = [
        {**ranking(beams), "num_beam_groups": groups, "diversity_penalty": penalty}
        for beams, groups, penalty in ((2, 2, 0.5), (4, 2, 1.5), (4, 4, 3.0), (6, 3, 10.0), (6, 2, 1.0), (3, 3, 0.1))
    ]
    words = [[some(1)], [some(2)], [some(1), some(3)], [[some(1), some(1)]], [some(2), [some(2), some(3)]], [some(4)]]
    # One sequence: of several, it returns some that lack a constraint in the place of some that do not.
    constrained = [
        {**ranking(chance.choice([2, 4])), "num_return_sequences": 1, "force_words_ids": word} for word in words
    ]
    contrastive = [
        {"penalty_alpha": alpha, "top_k": k, "eos_token_id": ends()}
        for alpha, k in ((0.6, 4), (0.3, 2), (0.9, 10), (1.0, 3))
    ]
    dola = [
        {"dola_layers": layers, "eos_token_id": ends(), "repetition_penalty": penalty}
        for layers, penalty in (("low", 1.0), ("high", 1.2), ([0, 1], 1.0), ([1], 1.5))
    ]
    return {"diverse": groups, "constrained": constrained, "contrastive": contrastive, "dola": dola}


def record(root: Path, seed: int = 7) -> list[dict[str, Any]]:
    chance, found = random.Random(seed), []
    for family in CLASSES:
        model = load(family, root)
        for way, each in settings(chance).items():
            for options in each:
                if way == "dola" and (family == "t5" or options["dola_layers"] == "low" and family == "gpt2"):
                    continue  # it knows no encoders, and finds no layer in so few
                prompt = [chance.randrange(3, 101) for _ in range(chance.randrange(1, 15))]
                inputs = torch.tensor([prompt])
                with torch.no_grad():
                    out = model.generate(inputs, attention_mask=torch.ones_like(inputs), **{**USUAL, **options})
                skip = 1 if model.config.is_encoder_decoder else len(prompt)
                scores = getattr(out, "sequences_scores", None)
                found.append({
                    "family": family, "way": way, "prompt": prompt, "options": options,
                    "ids": out.sequences[:, skip:].tolist(),
                    "scores": None if scores is None else [round(score, 5) for score in scores.tolist()],
                })  # fmt: skip
    return found


if __name__ == "__main__":
    rows = ",\n".join(json.dumps(row) for row in record(Path(sys.argv[1])))
    note = json.dumps(f"transformers {transformers.__version__}, tests/engine/record_version_4.py")
    DATA.write_text(f'{{"made by": {note}, "rows": [\n{rows}\n]}}\n')
