"""One family beside the reference library, value by value.

    python tests/probe.py TYPE [--variant V] [--task T] [--float64] [--all]

Prints the distance of every output and every hidden state, in the order in which they are computed, and marks the first
that parts. Loading errors come with the parameter names of both sides. Exit status 1 if anything parts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors import safe_open
from torch import Tensor

import reference as ref
from pellucid import PellucidError, families
from pellucid.models.model import Model

# The order in which values are computed.
ORDER = (
    "encoder_hidden", "encoder_att", "encoder_last", "hidden", "decoder_hidden", "attentions", "decoder_att", "cross",
    "last", "pooler", "logits", "loss",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family")
    parser.add_argument("--variant", default="", help="of the fixture; otherwise the plain config")
    parser.add_argument("--task", help="'base' is the model without a head; otherwise the fixture's first")
    parser.add_argument("--float64", action="store_true", help="nothing rounded to float32, on either side")
    parser.add_argument("--all", action="store_true", help="every task of the plain config, and every variant")
    asked = parser.parse_args()
    found = [case for case in ref.cases() if case.family == asked.family]
    if not found:
        print(f"there is no {ref.FAMILIES / asked.family}.json")
        return 2
    if not asked.all:
        task = None if asked.task == "base" else asked.task or found[0].task
        found = [ref.case(asked.family, asked.variant, task)]
    good = [probe(case, asked.float64) for case in found]
    print(f"\n{sum(good)} of {len(good)} agree", *(f"  not {case}" for case, g in zip(found, good) if not g), sep="\n")
    return 0 if all(good) else 1


def probe(case: ref.Case, float64: bool) -> bool:
    """Whether one case agrees; prints what was compared."""
    print(f"\n{case}")
    with tempfile.TemporaryDirectory() as root:
        folder = ref.checkpoint(case, Path(root))
        try:
            ref.ours(case, folder)
        except PellucidError as error:
            print(f"  does not load: {type(error).__name__}: {error}")
            names(case, folder)
            return False
        try:
            if float64:
                with ref.InFloat64():
                    return compare(*both(case, folder, torch.float64), limit=1e-9)
            return compare(*both(case, folder, torch.float32), limit=1e-4)
        except Exception:  # of either side; the other cases go on
            traceback.print_exc()
            return False


def both(case: ref.Case, folder: Path, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The values that our model and the reference return for the same inputs."""
    asked = {
        **ref.call(case, ref.inputs(case)),
        "output_hidden_states": True,
        "output_attentions": True,
    }
    with torch.no_grad():
        theirs = dict(ref.tensors(ref.reference(case, folder, dtype)(**asked)))
        mine = dict(ref.tensors(ref.ours(case, folder, dtype)(**asked)))
    for found in (mine, theirs):
        for name in [name for name in found if name.partition("[")[0] in ref.without(case)]:
            del found[name]
    return mine, theirs


def compare(mine: dict[str, Tensor], theirs: dict[str, Tensor], limit: float) -> bool:
    """Prints a line for each value, in the order in which they are computed."""
    parted = False
    for name in sorted({**theirs, **mine}, key=place):
        if name not in mine or name not in theirs:
            print(f"  {name:32} only in {'ours' if name in mine else 'the reference'}")
            parted = True
            continue
        a, b = mine[name], theirs[name]
        same = a.shape == b.shape
        apart = ref.distance(a, b) if same else float("nan")
        good = apart <= limit
        note = "" if good else "  parts" if parted else "  <-- the first that parts"
        print(f"  {name:32} {apart:9.2e}  {tuple(a.shape)}{'' if same else f' against {tuple(b.shape)}'}{note}")
        parted = parted or not good
    return not parted


def place(name: str) -> tuple[int, int]:
    """Where `hidden_states[3]` stands among the values."""
    kind, _, index = name.partition("[")
    return next((i for i, start in enumerate(ORDER) if kind.startswith(start)), len(ORDER)), int(index[:-1] or 0)


def names(case: ref.Case, folder: Path) -> None:
    """The tensors of the reference's file, and our parameters where the config can be read."""
    print("  the file has:")
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                print(f"    {name:64} {file.get_slice(name).get_shape()}")
    try:
        config, family = families.read_config(folder)
        spec, _ = family.spec(config)
        with torch.device("meta"):
            model = Model(spec, config, family.table(config), case.task)
    except PellucidError:
        return
    print("  we have:")
    for name, parameter in model.named_parameters():
        print(f"    {name:64} {list(parameter.shape)}")


if __name__ == "__main__":
    from transformers.utils import logging

    logging.disable_progress_bar()
    sys.exit(main())
