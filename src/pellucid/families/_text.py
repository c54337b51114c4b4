"""The text part of a model for several kinds of input: its config is `text_config`, its names have a prefix.

What sees or hears is listed as unused and kept, so that a saved folder is whole again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from types import ModuleType

from pellucid.config import Config
from pellucid.families._decoder import HEAD_WEIGHTS
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Unused


def text_config(c: Config, family: ModuleType, outer: Container[str] = ()) -> Config:
    """The section with the family's defaults; what belongs to heads is the outer config's.

    Args:
        outer: the outer config's own keys, where early files have all others beside them instead of in a section.
    """
    section = c.section("text_config")
    heads = {"num_labels": c.num_labels, "tie_word_embeddings": c.tie_word_embeddings}
    beside = {key: c.get(key) for key in c.given() if key not in outer} if outer and section is None else {}
    values = {**(section.given() if section is not None else beside), **heads}
    where = f"{c.where}: text_config"
    return Config(values, defaults=family.DEFAULTS, aliases=getattr(family, "ALIASES", {}), where=where)


def text_part(c: Config, family: ModuleType, name: str, outer: Container[str] = ()) -> Spec:
    """The spec of the text part, read by its own family; arguments as of `text_config`.

    Raises:
        ConfigError: as for the family alone, a key that would be ignored at a price included.
    """
    inner = text_config(c, family, outer)
    inner.check()
    spec: Spec = family.spec(inner)
    inner.close(getattr(family, "IGNORED", {}))
    return replace(spec, family=name)


def text_table(table: Mapping[str, Entry], prefix: str, head: str, others: Sequence[str]) -> dict[str, Entry]:
    """A decoder's table under `prefix`, its language head under `head`, and the names of all other parts."""
    inner: dict[str, Entry] = {
        prefix + name.removeprefix("model."): entry for name, entry in table.items() if name.startswith("model.")
    }
    named: dict[str, Entry] = {
        (head + name if name.startswith("lm_head.") else name): entry for name, entry in HEAD_WEIGHTS.items()
    }
    unused = {f"{other}.*": Unused("a part that reads something else than text", kept=True) for other in others}
    return {**inner, **named, **unused}
