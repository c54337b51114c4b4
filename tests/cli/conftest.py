"""A way to call commands in this process, and small folders to call them on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_up_template import CHAT

from pellucid import hub
from pellucid.cli import main

FAMILIES = Path(__file__).parents[1] / "families"


@pytest.fixture
def call() -> Callable[..., Result]:
    """`call("show", folder)`: exit code, stdout and stderr; an exception that escapes fails the test."""

    def call(*args: object, **options: Any) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False, **options)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the default model, to be broken."""
    return Path(shutil.copytree(hub.default_model(), tmp_path / "model"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """`tiny("bert", "AutoModelForMaskedLM")`: a folder with random weights and no tokenizer."""
    made: dict[tuple[str, str], Path] = {}

    def tiny(family: str, auto: str) -> Path:
        if (family, auto) not in made:
            import pellucid

            keys = json.loads((FAMILIES / f"{family}.json").read_text())["config"]
            config = pellucid.AutoConfig.for_model(keys.pop("model_type"), **keys)
            made[family, auto] = tmp_path_factory.mktemp(family)
            getattr(pellucid, auto).from_config(config).save_pretrained(made[family, auto])
        return made[family, auto]

    return tiny


@pytest.fixture
def chat_folder(folder: Path) -> Path:
    """The default model with a chat template; it answers with stories."""
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder
