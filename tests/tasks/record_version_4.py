"""Writes tests/data/pipelines_version_4.json: what version 4 of the reference answers to `pipeline_cases.CASES`.

    pip install --target DIR --no-deps transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2 pandas==2.3.3
    python tests/tasks/record_version_4.py DIR

The checkpoints are made here, with version 5; version 4 reads them in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
DATA = Path(__file__).parents[1] / "data" / "pipelines_version_4.json"


def main(version_4: str) -> None:
    from tasks.pipeline_cases import MODELS
    from tasks.pipeline_folders import folder

    with tempfile.TemporaryDirectory() as root:
        folders = {name: str(folder(name, Path(root))) for name in MODELS}
        said = os.environ | {"PYTHONPATH": version_4, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        command = [sys.executable, __file__, "--ask", json.dumps(folders)]
        found = json.loads(subprocess.run(command, env=said, check=True, stdout=subprocess.PIPE, text=True).stdout)
    lines = [f"  {json.dumps(name)}: {json.dumps(rounded(value))}" for name, value in found.items()]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def ask(folders: dict[str, str]) -> None:
    """In the process of version 4."""
    import transformers

    from tasks.pipeline_cases import CASES

    warnings.simplefilter("ignore")
    assert transformers.__version__.startswith("4."), transformers.__version__
    found, made = {}, {}
    for name, case in CASES.items():
        if not case.version_4:
            continue
        key = (case.task, case.model, json.dumps(case.made))
        if key not in made:
            made[key] = transformers.pipeline(case.task, folders[case.model], device="cpu", **case.made)
        found[name] = made[key](*case.inputs, **case.options)
        if case.task == "table-question-answering" and isinstance(case.options.get("query"), str):
            found[f"{name}, as read"] = read(made[key].tokenizer, case.options["table"], case.options["query"])
    print(json.dumps(found, default=lambda value: value.tolist()))  # tensors, and numbers of numpy


def read(tokenizer: Any, table: Any, query: str) -> Any:
    """Ids, and the types of each where there are such."""
    import pandas

    if "Tapex" in type(tokenizer).__name__:
        return tokenizer(pandas.DataFrame(table), query)["input_ids"]
    made = tokenizer(pandas.DataFrame(table), query, truncation="drop_rows_to_fit")
    return [made["input_ids"], made["token_type_ids"]]


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    if sys.argv[1] == "--ask":
        ask(json.loads(sys.argv[2]))
    else:
        main(sys.argv[1])
