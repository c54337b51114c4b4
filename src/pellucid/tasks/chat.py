"""A talk with a model: messages, and what the model keeps of them between turns.

Each turn renders the whole talk with the model's template and compares its ids with those in the cache: what they have
in common is not read again. A template may rewrite what came before (Qwen 3 drops old reasoning); then the cache is cut
back to where the ids part, or begun anew where a recurrent state cannot go back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from pellucid.engine.asking import Means
from pellucid.engine.asking import request as ask
from pellucid.engine.engine import Engine
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Request
from pellucid.errors import InputError, TokenizerError, Unsupported
from pellucid.models.model import Model
from pellucid.text.answers import Answer, AnswerTokens, Delta
from pellucid.text.chats import turns
from pellucid.text.tokenizer import Tokenizer

LONGEST = 4096  # tokens of an answer where nobody says how long
MARK = "interrupted"  # a key of messages that were not finished; templates do not see it


@dataclass
class Turn:
    """Numbers of the latest answer. Times are in seconds."""

    prompt: int = 0  # tokens of the talk when the answer began
    cached: int = 0  # of which the model had read so many before
    new: int = 0
    first: float = 0.0  # until the first token
    last: float = 0.0
    finish: str = ""  # "stop", "length", "interrupted"


@dataclass
class Chat:
    """`for delta in chat.ask("Hello"): …`; afterwards `messages` holds the answer.

    Args:
        options: how answers are chosen; their end tokens count beside the tokenizer's and the template's own.
        variables: what the template reads beside messages, such as `enable_thinking`.

    Raises:
        TokenizerError: there is no template. TemplateError: it does not work.
        Unsupported: the model is no decoder.
    """

    model: Model
    tokenizer: Tokenizer
    options: GenerationConfig
    variables: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    turn: Turn = field(default_factory=Turn)
    asked: int = 0  # answers so far: each has a seed of its own
    stopped: bool = False  # set while an answer runs, it ends with the token that is being chosen

    def __post_init__(self) -> None:
        if self.model.encoder is not None:
            raise Unsupported("an encoder-decoder has no talk that grows", where="chat", next="use generate")
        require_template(self.tokenizer)
        seen = turns.look(self.tokenizer)
        end = None if seen.end is None else self.tokenizer.convert_tokens_to_ids(seen.end)
        stated = self.options.eos
        # The token behind an answer that the stated ends have missed, as (text, id); it ends answers all the same.
        self.missed = (seen.end, end) if seen.end is not None and end is not None and end not in stated else None
        self.ends = frozenset(i for i in (*stated, self.tokenizer.eos_token_id, end) if i is not None)
        self.engine = Engine(self.model)
        self.held = self.engine.sequence()  # what the model has read of the talk

    # ---- asking ------------------------------------------------------------------------------------------

    def ask(self, text: str) -> Iterator[Delta]:
        """The answer to a text, in pieces; both join `messages`. See `answer`."""
        before = len(self.messages)
        self.messages.append({"role": "user", "content": text})
        try:
            yield from self.answer()
        finally:
            if len(self.messages) == before + 1:  # nothing was answered
                self.messages.pop()

    def answer(self) -> Iterator[Delta]:
        """The answer to the talk as it is, in pieces. One that is stopped or left joins `messages` with a mark.

        Raises:
            InputError: the talk fills the context.
            TemplateError: the template refuses the messages.
        """
        ids = self.ids(add_generation_prompt=True)
        request = self._request(ids)
        self.held.trim(self.common(ids))
        self.turn = Turn(prompt=len(ids), cached=self.held.row.length)
        parser = AnswerTokens(self.tokenizer, prompt_ids=ids)
        deltas: list[Delta] = []
        begun = time.perf_counter()
        self.asked += 1
        self.stopped, finish, output = False, MARK, None
        try:
            for job, _, token in self.engine.stream(request, self.held):
                output = job.outputs[0]
                self.turn.last = time.perf_counter() - begun
                self.turn.first = self.turn.first or self.turn.last
                self.turn.new += 1
                if self.turn.new == 1:
                    self.held.keep()
                for delta in parser.add(token):
                    deltas.append(delta)
                    yield delta
                if self.stopped:
                    break
            for delta in parser.end():
                deltas.append(delta)
                yield delta
            finish = MARK if output is None or output.finish in ("", "cancelled") else output.finish
        finally:
            self.turn.finish = finish
            if self.turn.new:
                self._take(Answer.of(deltas), finish)

    def _request(self, ids: list[int]) -> Request:
        context = self.model.spec.context
        if context is not None and len(ids) >= context:
            raise InputError(
                f"the talk has {len(ids)} tokens, and the model's context is {context}",
                where="chat",
                next="take turns back, or begin a new talk",
            )
        options = self.options
        if options.max_new_tokens is None:
            options = options.merged_quietly({"max_new_tokens": LONGEST})
        return replace(ask(self.model, options, ids, self.asked, Means(tokenizer=self.tokenizer)), eos=self.ends)

    def _take(self, answer: Answer, finish: str) -> None:
        message = answer.to_message(json_arguments=False)
        self.messages.append(message | ({MARK: True} if finish == MARK else {}))

    # ---- the talk as ids ---------------------------------------------------------------------------------

    def ids(self, *, add_generation_prompt: bool = False) -> list[int]:
        """The ids of the talk."""
        found: list[int] = self.tokenizer.apply_chat_template(
            self._shown(), add_generation_prompt=add_generation_prompt, return_dict=False, **self.variables
        )
        return found

    def text(self) -> str:
        """The talk as the model reads it."""
        return str(self.tokenizer.apply_chat_template(self._shown(), tokenize=False, **self.variables))

    def _shown(self) -> list[dict[str, Any]]:
        return [{key: value for key, value in message.items() if key != MARK} for message in self.messages]

    def common(self, ids: list[int]) -> int:
        """How many ids of the cache these begin with; one is left over, whose logits are the first answer's."""
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.held.tokens, ids)))
        return min(same, len(ids) - 1)

    def forget(self) -> None:
        """Nothing of the talk is in the cache: after an interruption that may have left it half written."""
        self.held.trim(0)

    # ---- changing it -------------------------------------------------------------------------------------

    @property
    def system(self) -> str | None:
        """What the model was told before the talk."""
        first = self.messages[0] if self.messages else {}
        return first["content"] if first.get("role") == "system" else None

    @system.setter
    def system(self, text: str | None) -> None:
        rest = self.messages[1:] if self.system is not None else self.messages
        self.messages = [*([] if text is None else [{"role": "system", "content": text}]), *rest]

    def undo(self) -> str:
        """Takes back the latest question and what followed; returns it.

        Raises:
            InputError: there is none.
        """
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise InputError("nothing was asked yet", where="chat")
        text = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        return str(text)

    def load(self, messages: Any) -> None:
        """Takes other messages in place of these.

        Raises:
            InputError: they are none. TemplateError: the template refuses them.
        """
        if not isinstance(messages, list) or not all(_is_message(each) for each in messages):
            what = "no list of messages, each with a role and a content"
            raise InputError(what, where="chat", next='[{"role": "user", "content": "Hello"}]')
        before, self.messages = self.messages, [dict(each) for each in messages]
        try:
            if messages:
                self.ids()
        except BaseException:
            self.messages = before
            raise


def require_template(tokenizer: Tokenizer) -> None:
    """
    Raises:
        TokenizerError: the tokenizer has no chat template.
    """
    if tokenizer.chat_template is None:
        raise TokenizerError(
            "there is no chat template: this model continues texts",
            where=tokenizer.name_or_path,
            next="give a model that was trained to talk, or put its template there as chat_template.jinja",
        )


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and ("content" in value or len(value) > 1)
