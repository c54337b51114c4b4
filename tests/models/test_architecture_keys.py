"""A key that one family reads is known to all: in a file of another family that does not read it, it is an error."""

from __future__ import annotations

import reference as ref
from pellucid import families
from pellucid.config import BOOKKEEPING, GENERATION, architecture_keys

# Keys that act in training alone.
TRAINING = ("drop", "router_aux_loss_coef", "aux_loss")


def test_what_a_family_reads_is_an_architecture_key() -> None:
    missing: dict[str, str] = {}
    for case in ref.cases(tasks=False):
        family = families.find(case.config["model_type"])
        config = family.config(case.config, "config.json")
        family.module.spec(config)
        for key in config.read - architecture_keys() - BOOKKEEPING - GENERATION:
            if not any(word in key for word in TRAINING):
                missing[key] = case.family
    assert not missing, "add them to src/pellucid/architecture_keys.txt"
