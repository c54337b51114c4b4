"""What can be typed into `pellucid chat` beside questions: `/name rest`, each a method of its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid.errors import ArgumentError, InputError, nearest

if TYPE_CHECKING:
    from pellucid.tasks.chat import Chat
    from pellucid.text.answers import Delta
    from pellucid.text.tokenizer import Tokenizer

OPTIONS = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "max_new_tokens", "min_new_tokens",
    "do_sample",
)  # fmt: skip
THINKING = ("enable_thinking", "thinking")  # what templates call it


class Quit(Exception):  # noqa: N818  it is no error
    """The talk is over."""


@dataclass
class Talk:
    """A chat, and the commands that act on it. A command returns what to print, or an answer to stream."""

    chat: Chat
    model: str
    files: set[Path] = field(default_factory=set)  # written or read in this talk: may be written again

    def do(self, line: str) -> str | Iterator[Delta]:
        """One command, `/name rest`.

        Raises:
            InputError, ArgumentError: there is no such command, or it does not go.
        """
        name, _, rest = line[1:].partition(" ")
        command = getattr(self, name, None) if name in COMMANDS else None
        if command is None:
            raise InputError(f"there is no command /{name}", where="chat", next=meant(name, COMMANDS))
        found: str | Iterator[Delta] = command(rest.strip())
        return found

    def help(self, rest: str) -> str:
        """the list of commands"""
        width = max(len(f"{name} {hint}") for name, hint in COMMANDS.items()) + 2
        lines = [f"/{f'{name} {hint}':<{width}}{getattr(Talk, name).__doc__}" for name, hint in COMMANDS.items()]
        keys = ['a line that ends in \\ goes on in the next; """ begins and ends a text of several lines',
                "Ctrl-C stops an answer; Ctrl-D, or Ctrl-C twice, ends the talk"]  # fmt: skip
        return "\n".join([*lines, *keys])

    def system(self, rest: str) -> str:
        """what the model is told before the talk; alone it shows it, "off" takes it away"""
        if not rest:
            return self.chat.system or "(there is no system message)"
        before = self.chat.messages
        self.chat.system = None if rest == "off" else rest
        try:
            if self.chat.messages:
                self.chat.ids() if len(self.chat.messages) > 1 else self._probe()
        except BaseException:
            self.chat.messages = before
            raise
        return ""

    def _probe(self) -> None:
        """Whether the template takes a system message: some raise, some need a question behind it."""
        self.chat.messages.append({"role": "user", "content": "?"})
        try:
            self.chat.ids()
        finally:
            self.chat.messages.pop()

    def set(self, rest: str) -> str:
        """temperature, top_k, top_p, seed, max_new_tokens, or what the template reads; alone it shows them"""
        if not rest:
            return "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in self._settings())
        name, _, value = rest.replace("=", " ", 1).partition(" ")
        set_value(self.chat, name, value.strip())
        return ""

    def _settings(self) -> list[tuple[str, Any]]:
        options = [(name, getattr(self.chat.options, name)) for name in OPTIONS]
        variables = {name: self.chat.variables.get(name) for name in variables_of(self.chat.tokenizer)}
        return options + list((variables | self.chat.variables).items())

    def save(self, rest: str) -> str:
        """write the talk as JSON"""
        path = path_of(rest)
        if path.exists() and path not in self.files:
            raise InputError(f"{path} exists, and is no file of this talk", where="/save", next="give another name")
        text = json.dumps({"model": self.model, "messages": self.chat.messages}, indent=1, ensure_ascii=False) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"not written: {error.strerror}", where=path, next="give another name") from None
        self.files.add(path)
        return f"{len(self.chat.messages)} messages in {path}"

    def load(self, rest: str) -> str:
        """take up a talk that was saved, in place of this one"""
        path = path_of(rest)
        self.chat.load(read_messages(path))
        self.files.add(path)
        return f"{len(self.chat.messages)} messages from {path}"

    def reset(self, rest: str) -> str:
        """begin anew; the system message stays"""
        self.chat.messages = self.chat.messages[:1] if self.chat.system is not None else []
        return ""

    def undo(self, rest: str) -> str:
        """take back the latest question and its answer"""
        return f"taken back: {self.chat.undo()}"

    def retry(self, rest: str) -> Iterator[Delta]:
        """another answer to the latest question"""
        return self.chat.ask(self.chat.undo())

    def stats(self, rest: str) -> str:
        """tokens and times of the latest answer"""
        turn, context = self.chat.turn, self.chat.model.spec.context
        rate = (turn.new - 1) / (turn.last - turn.first) if turn.new > 1 else 0.0
        held = turn.prompt + turn.new
        return (
            f"{turn.prompt} tokens before the answer, {turn.cached} of them read in earlier turns · {turn.new} new · "
            f"{turn.first:.2f} s to the first, then {rate:.1f} tokens/s · {held} of "
            f"{'any number' if context is None else context} · ended by {turn.finish or 'nothing yet'}"
        )

    def tokens(self, rest: str) -> str:
        """the talk as the model reads it, and its length in tokens"""
        if not self.chat.messages:
            return "0 tokens"
        return f"{self.chat.text()}\n{len(self.chat.ids())} tokens"

    def quit(self, rest: str) -> str:
        """end the talk"""
        raise Quit


# name -> what follows it; the methods' docstrings are the help
COMMANDS = {
    "help": "", "system": "TEXT", "set": "NAME VALUE", "save": "FILE", "load": "FILE", "reset": "", "undo": "",
    "retry": "", "stats": "", "tokens": "", "quit": "",
}  # fmt: skip


def meant(name: str, known: Any) -> str:
    """`did you mean /reset?`, or the whole list."""
    near = nearest(name, known)
    return near.replace("'", "/", 1).replace("'", "") if near else "/help lists them"


def path_of(rest: str) -> Path:
    if not rest:
        raise InputError("no file is named", where="chat", next="/save talk.json, /load talk.json")
    return Path(rest).expanduser().absolute()


def read_messages(path: Path) -> Any:
    """The messages in a JSON file: a list, or an object that holds them.

    Raises:
        InputError: the file is missing or no JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"not read: {error.strerror}", where=path, next="check the name") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=path, next="give a file of /save") from None
    return found.get("messages") if isinstance(found, dict) else found


def variables_of(tokenizer: Tokenizer) -> list[str]:
    """What the template reads beside messages, tools and special tokens."""
    from pellucid.text.chats import prompt as chat
    from pellucid.text.chats import template

    asked = template.names(tokenizer.get_chat_template()).asked
    return sorted(asked - chat.STANDARD - tokenizer.special_tokens_map.keys())


def set_value(chat: Chat, name: str, text: str) -> None:
    """One option of generation, or one variable of the template; "none" takes it back.

    Raises:
        ArgumentError: there is no such name, or the value is out of range. TemplateError: the template refuses it.
    """
    from pellucid.engine.options import GenerationConfig
    from pellucid.text.chats import turns

    own = variables_of(chat.tokenizer)
    if name not in OPTIONS and name not in own:
        known = f"there are {', '.join([*OPTIONS, *own])}"
        raise ArgumentError(f"nothing is called {name!r}", where="set", next=nearest(name, [*OPTIONS, *own]) or known)
    if not text:
        raise ArgumentError(f"no value for {name}", where="set", next=f"{name} VALUE, or {name} none")
    value = value_of(text)
    if name in OPTIONS:
        kept = {key: each for key, each in chat.options.to_dict().items() if key != name}
        options = GenerationConfig(**kept).merged({name: value})
        options.check()
        chat.options = options
        return
    variables = {key: each for key, each in chat.variables.items() if key != name}
    variables |= {} if value is None else {name: value}
    chat.tokenizer.apply_chat_template(turns.TALK, tokenize=False, **variables)
    chat.variables = variables


def value_of(text: str) -> Any:
    """JSON where it is some (numbers, true, lists), else the text; "none" is None, "True" and "False" are those."""
    known = {"none": None, "null": None, "True": True, "False": False, "None": None}
    if text in known:
        return known[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
