"""Model cards: README.md with a head of YAML, as the hub reads it. No torch.

A head is what a stranger wrote: it is read by PyYAML's safe loader, without anchors (a few lines of them stand for more
than memory holds), and what is not of the expected kind is left out.
Source: https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pellucid import gguf
from pellucid.errors import ConfigError

FILE = "README.md"
LARGEST = 2**22  # bytes of a card; the hub's own limit for its head is 2**16
LIMITS = re.compile(r"limitation|bias|risk|out-of-scope|caveat", re.I)


@dataclass(frozen=True)
class Result:
    """A number of an evaluation, as the card tells it."""

    task: str
    dataset: str
    metric: str
    value: str
    verified: bool = False


@dataclass(frozen=True)
class Card:
    """What a card says.

    Args:
        license: its identifier; of "other" ones also a name and a link.
        limitations: the sections about limitations, biases and risks, by their headings.
        text: what is below the head.
    """

    license: str = ""
    license_name: str = ""
    license_link: str = ""
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    pipeline_tag: str = ""
    library: str = ""
    tags: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    limitations: tuple[tuple[str, str], ...] = ()
    text: str = ""


def read_card(place: Path) -> Card | None:
    """The card of a model folder, or what a GGUF file says of itself; None where there is none.

    Raises:
        ConfigError: it is no UTF-8, too large, or its head is no YAML. WeightsError: the file is no GGUF file.
    """
    if place.is_file():
        return card_in(gguf.read(place).metadata)
    path = place / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"a card of {path.stat().st_size:,} bytes", where=path, next="shorten it")
    try:
        return parse_card(path.read_text("utf-8"), path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"the card is not UTF-8: {error}", where=path, next="convert it to UTF-8") from None


def parse_card(text: str, where: object = FILE) -> Card:
    """The card that a text is; see `read_card`."""
    head, body = split(text, where)
    license = _words(head.get("license"))
    return Card(
        license=license[0] if license else "",
        license_name=_word(head.get("license_name")),
        license_link=_word(head.get("license_link")),
        languages=_words(head.get("language")),
        datasets=_words(head.get("datasets")),
        base_models=_words(head.get("base_model")),
        pipeline_tag=_word(head.get("pipeline_tag")),
        library=_word(head.get("library_name")),
        tags=_words(head.get("tags")),
        results=tuple(_results(head.get("model-index"))),
        limitations=tuple(_limitations(body)),
        text=body,
    )


def split(text: str, where: object = FILE) -> tuple[dict[str, Any], str]:
    """The head as values, and what is below it."""
    found = re.match(r"\A(?:\ufeff)?---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|\Z)", text, re.S)
    if found is None:
        return {}, text
    try:
        values = yaml.load(found[1], Loader=Plain)  # noqa: S506  a subclass of the safe loader
    except (
        yaml.YAMLError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"the card's head is not YAML: {said}", where=where, next="correct it") from None
    return (values if isinstance(values, dict) else {}), text[found.end() :].lstrip("\r\n")


class Plain(yaml.SafeLoader):
    """Without anchors, and where `no` is a language and not False; dates stay text."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*name), which a card needs not")
        return super().compose_node(parent, index)


Plain.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in each if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
    ]
    for first, each in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _word(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _words(value: Any) -> tuple[str, ...]:
    """One value or a list of them as texts."""
    return tuple(word for each in (value if isinstance(value, list) else [value]) if (word := _word(each)))


def _results(index: Any) -> list[Result]:
    found = []
    for entry in _maps([each for model in _maps(index) for each in _list(model.get("results"))]):
        task, dataset = _map(entry.get("task")), _map(entry.get("dataset"))
        name = _word(dataset.get("name")) or _word(dataset.get("type"))
        part = " ".join(filter(None, (_word(dataset.get("config")), _word(dataset.get("split")))))
        for metric in _maps(_list(entry.get("metrics"))):
            found.append(
                Result(
                    _word(task.get("name")) or _word(task.get("type")),
                    f"{name} ({part})" if part else name,
                    _word(metric.get("name")) or _word(metric.get("type")),
                    _word(metric.get("value")),
                    metric.get("verified") in (True, "true"),
                )
            )
    return found


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in _list(value) if isinstance(each, Mapping)]


def _limitations(body: str) -> list[tuple[str, str]]:
    """Sections whose heading speaks of limits; one inside another is told once."""
    parts = re.split(
        r"^(#{1,6})[ \t]+(.+?)[ \t#]*$", re.sub(r"^```.*?^```", _hidden, body, flags=re.M | re.S), flags=re.M
    )
    found: list[tuple[str, str]] = []
    within = 0  # depth of the heading whose section is being told
    for depth, heading, text in zip(parts[1::3], parts[2::3], parts[3::3]):
        if within and len(depth) > within:
            found[-1] = (found[-1][0], f"{found[-1][1]}\n\n{heading}: {text.strip()}".strip())
            continue
        within = len(depth) if LIMITS.search(heading) else 0
        if within:
            found.append((heading.strip(), text.strip()))
    return [(heading, text.replace("\n\\#", "\n#")) for heading, text in found if text]


def _hidden(code: re.Match[str]) -> str:
    """A block of code, whose comments are no headings."""
    return code[0].replace("\n#", "\n\\#")


# ---------------------------------------------------------------------------------------------------- written


def write_card(head: Mapping[str, Any], body: str) -> str:
    """A card's text: a head without empty values, and a body."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in head.items() if value}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n\n{body.rstrip()}\n"


# ------------------------------------------------------------------------------------------- inside a GGUF file

HUB = "https://huggingface.co/"
LISTED = {"base_model": HUB, "dataset": f"{HUB}datasets/"}  # `general.base_model.0.name`, …: where such a thing is


def card_in(metadata: Mapping[str, Any]) -> Card | None:
    """What a GGUF file says of its licence, languages and sources. Keys: ggml's docs/gguf.md."""
    bases, datasets = (_listed(metadata, kind, begin) for kind, begin in LISTED.items())
    found = Card(
        license=_word(metadata.get("general.license")),
        license_name=_word(metadata.get("general.license.name")),
        license_link=_word(metadata.get("general.license.link")),
        languages=_words(metadata.get("general.languages")),
        datasets=datasets or _words(metadata.get("general.datasets")),
        base_models=bases,
        tags=_words(metadata.get("general.tags")),
    )
    return None if found == Card() else found


def _listed(metadata: Mapping[str, Any], kind: str, begin: str) -> tuple[str, ...]:
    """Ids of numbered things: from their address on the hub, else from their names."""
    found: list[str] = []
    while name := _word(metadata.get(f"general.{kind}.{len(found)}.name")):
        key = f"general.{kind}.{len(found)}"
        url, owner = _word(metadata.get(f"{key}.repo_url")), _word(metadata.get(f"{key}.organization"))
        found.append(url.removeprefix(begin) if url.startswith(begin) else "/".join(filter(None, (owner, name))))
    return tuple(found)


def gguf_entries(card: Card) -> dict[str, Any]:
    """The metadata that says the same: the way back of `card_in`. The task is a tag, as llama.cpp has it."""
    tags = dict.fromkeys([*card.tags, *filter(None, [card.pipeline_tag])])
    found: dict[str, Any] = {
        "general.license": card.license, "general.license.name": card.license_name,
        "general.license.link": card.license_link, "general.languages": [*card.languages], "general.tags": [*tags],
    }  # fmt: skip
    for (kind, begin), names in zip(LISTED.items(), (card.base_models, card.datasets)):
        found[f"general.{kind}.count"] = len(names)
        for i, (owner, _, name) in enumerate(each.rpartition("/") for each in names):
            url = f"{begin}{'/'.join(filter(None, (owner, name)))}"
            own = {"name": name, "organization": owner, "repo_url": url}
            found |= {f"general.{kind}.{i}.{key}": value for key, value in own.items()}
    return {key: value for key, value in found.items() if value}
