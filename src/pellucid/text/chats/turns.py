"""What a chat template writes around an answer: the token that ends it, BOS, and what the vocabulary does not have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

ANSWER = "Answer4711"
TALK = [{"role": "user", "content": "Question0815"}, {"role": "assistant", "content": ANSWER}]
# Texts that look like one token: <|im_start|>, <｜User｜>, <start_of_turn>, </s>.
LIKE_TOKENS = re.compile(r"<[|｜][^<>\s]{1,40}[|｜]>|</?[a-z]+(?:_[a-z]+)+>|<s>|</s>")


@dataclass(frozen=True)
class Turns:
    """See the module."""

    text: str  # a question and its answer, rendered
    end: str | None  # the first special token behind an answer
    begins_with_bos: bool
    pieces: tuple[str, ...]  # written like special tokens, and several tokens of this vocabulary: Zephyr has <|user|>
    cut: str | None  # the one of them that comes right behind an answer: the model cannot end with it


def look(tokenizer: Tokenizer) -> Turns:
    """What the tokenizer's template does with a short talk.

    Raises:
        TemplateError: it is broken, or refuses a question with an answer.
    """
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    _, found, after = text.rpartition(ANSWER)
    rust = tokenizer.backend_tokenizer
    special = tokenizer.skipped_ids()
    end = next((i for i in rust.encode(after, add_special_tokens=False).ids if i in special), None) if found else None
    bos = tokenizer.bos_token
    pieces = tuple(each for each in dict.fromkeys(LIKE_TOKENS.findall(text)) if rust.token_to_id(each) is None)
    behind = LIKE_TOKENS.match(after.lstrip())
    return Turns(
        text,
        None if end is None else rust.id_to_token(end),
        bool(bos) and text.startswith(bos),
        pieces,
        behind[0] if behind and behind[0] in pieces else None,
    )
