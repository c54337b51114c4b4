"""Chat templates by name: which files of a folder hold them, and which one a call means.

chat_template.jinja                     "default"; wins over the configuration, as the next
additional_chat_templates/NAME.jinja    the others (transformers 5)
tokenizer_config.json: chat_template    a text, or [{"name": …, "template": …}] (transformers 4)
chat_template.json                      of a processor, where nothing else is there
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.errors import ArgumentError, TokenizerError, nearest
from pellucid.text import convert

FILE, FOLDER, PROCESSOR = "chat_template.jinja", "additional_chat_templates", "chat_template.json"
Templates = str | dict[str, str] | None


def find(folder: Path, config: Mapping[str, Any], asked: Mapping[str, Any]) -> Templates:
    """The template, or several by name: what was asked for, else the folder's files, else its configuration's."""
    if "chat_template" in asked:
        return check(asked["chat_template"], folder)
    named = {"default": folder / FILE} if (folder / FILE).is_file() else {}
    if (folder / FOLDER).is_dir():
        named |= {path.name.removesuffix(".jinja"): path for path in sorted((folder / FOLDER).glob("*.jinja"))}
    if named:
        texts = {name: _read(path) for name, path in named.items()}
        return texts["default"] if texts.keys() == {"default"} else texts
    if config.get("chat_template") is None and (folder / PROCESSOR).is_file():
        config = convert.read_json(folder / PROCESSOR)
    return check(config.get("chat_template"), folder)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as e:
        raise TokenizerError(f"not readable as text: {e}", where=path) from None


def check(given: Any, where: Path) -> Templates:
    """A text, a dict of texts, or None; a list of named texts becomes a dict."""
    if isinstance(given, list) and all(
        isinstance(each, dict) and {"name", "template"} <= each.keys() for each in given
    ):
        given = {each["name"]: each["template"] for each in given}
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, dict) and all(isinstance(each, str) for pair in given.items() for each in pair):
        return given
    raise TokenizerError(
        f"chat_template is {given!r:.80}", where=where, next='it is a text, or a list of {"name": …, "template": …}'
    )


def files(templates: Templates) -> dict[str, str]:
    """What `save_pretrained` writes: path in the folder -> text. Both libraries load it."""
    if templates is None:
        return {}
    named = {"default": templates} if isinstance(templates, str) else templates
    for name in named:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ArgumentError(f"a chat template called {name!r} cannot be a file", where="chat_template")
    return {FILE if name == "default" else f"{FOLDER}/{name}.jinja": text for name, text in named.items()}


def choose(templates: Templates, asked: str | None, tools: bool) -> str:
    """The template that a call means: a name or a text that it asks for, "tool_use" if there are tools, "default".

    Raises:
        ArgumentError: there is none, or no way to tell which.
    """
    named = templates if isinstance(templates, dict) else {} if templates is None else {"default": templates}
    if asked is not None:
        if asked in named and isinstance(templates, dict):
            return named[asked]
        if "{" not in asked and "\n" not in asked:
            known = f"its names: {', '.join(sorted(named))}" if named else "it has none"
            raise ArgumentError(
                f"chat_template={asked!r} is neither Jinja nor the name of a template of this tokenizer",
                next=nearest(asked, named) or known,
            )
        return asked
    if not named:
        raise ArgumentError(
            "this tokenizer has no chat template",
            next="it may be of a base model, which has learnt no chats: take the instruct model, or set chat_template",
        )
    if tools and "tool_use" in named:
        return named["tool_use"]
    if "default" not in named:
        raise ArgumentError(
            f"this tokenizer has several chat templates and no default: {', '.join(sorted(named))}",
            next="chat_template=NAME",
        )
    return named["default"]
