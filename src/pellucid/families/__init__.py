"""One file for each architecture: `families/<model_type>.py` holds data, no forward.

    CLASSES    task -> the class that the reference has for it, written to `architectures`
    DEFAULTS   what files written by the reference leave out
    ALIASES    other spellings of a key
    IGNORED    key -> values at which ignoring it is right (None: any)
    WEIGHTS    file name -> slot (`weights/table.py`), or a function of the config that returns it;
               BASE is the prefix that headless files leave out
    HEADS      task -> more of the same, where a file name means something for that task alone; or a function too
    KEEPS      class of a part of its own -> known parts that keep as much of a row, where its options do not say
    GGUF       how llama.cpp's files of the architecture say the same (`_gguf.py`)
    spec(c)    Config -> Spec; heads that CLASSES does not name are dropped

ALIASES, IGNORED, BASE, HEADS, KEEPS and GGUF may be left out. The directory is the registry: the family of
`xlm-roberta` is `xlm_roberta.py`. A family may also live in another package, under the entry point `pellucid.families`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, cast

from pellucid.config import MOST_EXPERTS, Config, read_json
from pellucid.errors import ConfigError, Unsupported, nearest
from pellucid.families._gguf import Gguf, described
from pellucid.spec import Moe, Spec, Task
from pellucid.weights.table import Entry, Table

# Model types with a hyphen, whose modules have an underscore.
HYPHENS = (
    "bert-generation", "blenderbot-small", "data2vec-text", "deberta-v2", "encoder-decoder", "megatron-bert",
    "modernbert-decoder", "nllb-moe", "openai-gpt", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip

# Other model types that are these architectures, key for key.
SAME_AS = {"gpt-sw3": "gpt2"}


@dataclass(frozen=True)
class Family:
    """What a family file says, ready to use."""

    name: str
    module: ModuleType

    @property
    def ignored(self) -> Mapping[str, tuple[Any, ...] | None]:
        own = cast(Mapping[str, "tuple[Any, ...] | None"], getattr(self.module, "IGNORED", {}))
        return {**own, "quantization_config": None}  # of the weights, not of the model: `quant.opened` reads it

    def table(self, config: Config, task: Task | None = None) -> Table:
        """What the files of a task call things."""
        weights = self.module.WEIGHTS
        entries = cast(Mapping[str, Entry], weights(config.copy()) if callable(weights) else weights)
        own = getattr(self.module, "HEADS", {})
        heads = cast("Mapping[Task | None, Mapping[str, Entry]]", own(config.copy()) if callable(own) else own)
        return Table(
            entries, base=getattr(self.module, "BASE", ""), head=heads.get(task),
            others=[name for other, names in heads.items() if other != task for name in names],
        )  # fmt: skip

    def gguf_table(self, config: Config, task: Task | None = None) -> Table:
        """What a GGUF file of this architecture calls things; heads that llama.cpp has not keep their usual names."""
        entries = self.gguf.entries(config.copy())
        return Table({**entries, **self.table(config, task).entries})

    @property
    def gguf(self) -> Gguf:
        """Raises Unsupported: the family has no table of such files."""
        found = getattr(self.module, "GGUF", None)
        if found is None:
            raise Unsupported(
                f"no table of GGUF names for {self.name}",
                next="load the safetensors checkpoint, or add GGUF to the family (docs/adding-a-family.md)",
            )  # fmt: skip
        return cast(Gguf, found)

    @property
    def classes(self) -> Mapping[Task | None, str]:
        return cast("Mapping[Task | None, str]", self.module.CLASSES)

    def task(self, asked: Task | None) -> Task | None:
        """The task that answers: one class may stand for several, as GPT-2's causal model does for pretraining.

        Raises:
            Unsupported: the family has no such head.
        """
        if asked not in self.classes:
            known = ", ".join(str(task) for task in self.classes if task is not None)
            raise Unsupported(f"no {asked} head for {self.name}", where="task", next=f"{self.name} has {known}")
        name = self.classes[asked]
        return next(task for task, other in self.classes.items() if other == name)

    def config(self, values: Mapping[str, Any], where: object) -> Config:
        aliases = getattr(self.module, "ALIASES", {})
        return Config(values, defaults=self.module.DEFAULTS, aliases=aliases, where=where)

    def spec(self, config: Config) -> tuple[Spec, dict[str, Any]]:
        """The spec, and the keys that nobody knows.

        Raises:
            ConfigError: a value that makes no model, or a key that would be ignored at a price.
        """
        fresh = config.copy()
        fresh.check()
        spec = cast(Spec, self.module.spec(fresh))
        if (experts := experts_in((spec.encoder, spec.stack))) > MOST_EXPERTS:  # each is a module of its own
            what = f"{experts} experts in all layers, more than {MOST_EXPERTS}"
            raise ConfigError(what, where=config.where, next="correct config.json")
        heads = {task: head for task, head in spec.heads.items() if task in self.classes}
        return replace(spec, family=self.name, heads=heads), fresh.close(self.ignored)


def experts_in(part: object) -> int:
    """How many experts there are in all layers of a spec."""
    if isinstance(part, Moe):
        return part.experts
    if isinstance(part, tuple):
        return sum(times * experts_in(each) for each, times in Counter(part).items())  # equal blocks once
    if is_dataclass(part):
        return sum(experts_in(getattr(part, f.name)) for f in fields(part))
    return 0


@cache
def built_in() -> frozenset[str]:
    """Every `model_type` of this package."""
    hyphens = {name.replace("-", "_"): name for name in HYPHENS}
    own = [hyphens.get(module.name, module.name) for module in iter_modules(__path__) if module.name[0] != "_"]
    return frozenset({*own, *SAME_AS})


def names() -> list[str]:
    """Every `model_type` there is a family for."""
    return sorted(built_in().union(point.name for point in entry_points(group="pellucid.families")))


def knows(model_type: object) -> bool:
    """Whether there is a family for a `model_type`, as files spell it."""
    return isinstance(model_type, str) and (model_type in built_in() or model_type in names())


def find(model_type: object, where: object = "config.json") -> Family:
    """The family of a `model_type`.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if isinstance(model_type, str) and model_type:
        for point in entry_points(group="pellucid.families", name=model_type):
            return Family(model_type, point.load())
        if model_type in built_in():
            module = SAME_AS.get(model_type, model_type).replace("-", "_")
            return Family(model_type, import_module(f"pellucid.families.{module}"))
    known = names()
    raise ConfigError(
        f"no family for model_type={model_type!r}" if model_type else "config.json names no model_type",
        where=where,
        next=nearest(str(model_type), known) or f"this version knows {', '.join(known)}; see docs/adding-a-family.md",
    )


def read_config(folder: Path, overrides: Mapping[str, Any] | None = None) -> tuple[Config, Family]:
    """A folder's config.json with its family's defaults, and the family; or what a GGUF file says in its place.

    Raises:
        ConfigError: config.json is missing, broken, or of an unknown family.
        ArgumentError: an override that is no key of the family.
    """
    if folder.suffix == ".gguf" and not folder.is_dir():
        path = folder
        model_type, said = described(path)
        family = find(model_type, path)
        values = family.gguf.values(said, model_type, family.classes)
    else:
        path = folder / "config.json"
        values = read_json(path)
        family = find(values.get("model_type"), path)
    config = family.config(values, path)
    if overrides:
        config.update(overrides)
    return config, family
