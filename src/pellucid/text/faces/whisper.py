"""Whisper's tokenizer: language, task and timestamps go before a text; times come back out of the ids.

Sources: OpenAI's whisper/tokenizer.py (the order of the prefix, the languages) and transformers 5.23 (the names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.errors import ArgumentError, TokenizerError, nearest, strict
from pellucid.text import convert
from pellucid.text.classes import TokenizerClass
from pellucid.text.encoding import BatchEncoding
from pellucid.text.languages import WHISPER, WHISPER_ALIASES
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.vocabulary import plain

TASKS = ("translate", "transcribe")
TIME = re.compile(r"<\|\d+\.\d+\|>")
SEGMENT = 1500  # timestamps of a window of 30 s, 20 ms each


class WhisperTokenizer(Tokenizer):
    """Made by `from_folder` for the class WhisperTokenizer."""

    language: str | None
    task: str | None
    predict_timestamps: bool

    def begin(self, folder: Path, row: TokenizerClass, options: Mapping[str, Any]) -> None:
        """What `from_folder` knows beyond the constructor."""
        self._row = row
        self.language, self.task = options.get("language"), options.get("task")
        self.predict_timestamps = bool(options.get("predict_timestamps"))
        if self.rust.token_to_id("<|startoftranscript|>") is not None:  # else no prefix can be made
            self.set_prefix_tokens()

    # ---- before a text --------------------------------------------------------------------------------------

    def set_prefix_tokens(
        self, language: str | None = None, task: str | None = None, predict_timestamps: bool | None = None
    ) -> None:
        """What goes before every text from here on; None keeps what was set."""
        before = self.language, self.task, self.predict_timestamps
        self.language = before[0] if language is None else language
        self.task = before[1] if task is None else task
        self.predict_timestamps = before[2] if predict_timestamps is None else bool(predict_timestamps)
        try:
            tokens = self._prefix()
        except ArgumentError:
            self.language, self.task, self.predict_timestamps = before
            raise
        template = " ".join(tokens)
        row = replace(self._row, single=f"{template} $A {{eos}}", pair=f"{template} $A $B:1 {{eos}}:1")
        convert.post_processor(self.rust, row, {}, self._roles)
        self._changed()

    @property
    def prefix_tokens(self) -> list[int]:
        """The ids before a text."""
        ids: list[int] = self.convert_tokens_to_ids(self._prefix())
        return ids

    def _prefix(self) -> list[str]:
        tokens = ["<|startoftranscript|>"]
        if self.language is not None:
            tokens.append(f"<|{language_code(self.language)}|>")
        if self.task is not None:
            if self.task not in TASKS:
                raise ArgumentError(f"task={self.task!r}", next=nearest(self.task, TASKS) or f"one of {TASKS}")
            tokens.append(f"<|{self.task}|>")
        if not self.predict_timestamps:
            tokens.append("<|notimestamps|>")
        if missing := [token for token in tokens if self.rust.token_to_id(token) is None]:
            raise TokenizerError(f"{missing[0]} is not in the vocabulary", where=self.name_or_path)
        return tokens

    def get_decoder_prompt_ids(
        self, task: str | None = None, language: str | None = None, no_timestamps: bool = True
    ) -> list[tuple[int, int]]:
        """Position and id of what the decoder is to begin with, after its first token."""
        self.set_prefix_tokens(task=task, language=language, predict_timestamps=not no_timestamps)
        return list(enumerate(self.prefix_tokens[1:], 1))

    @strict
    def get_prompt_ids(self, text: str, return_tensors: str | None = "np") -> Any:
        """Ids of a text that is to have come before, for `generate(prompt_ids=…)`."""
        ids = self("<|startofprev|>", " " + text.strip(), add_special_tokens=False)["input_ids"]
        special = set(self.all_special_ids)
        if found := [id for id in ids[1:] if id in special]:
            raise ArgumentError(f"the prompt holds the special token {self.convert_ids_to_tokens(found[0])}")
        return BatchEncoding({"input_ids": ids}, tensor_type=return_tensors)["input_ids"]

    # ---- ids to text ----------------------------------------------------------------------------------------

    @strict
    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
        output_offsets: bool = False,
        time_precision: float = 0.02,
        decode_with_timestamps: bool = False,
    ) -> Any:
        """The text of ids, without times.

        Args:
            output_offsets: `{"text": …, "offsets": [{"text", "timestamp": (start, end)}, …]}`, in seconds.
            time_precision: seconds from one timestamp to the next.
            decode_with_timestamps: write times as `<|1.24|>`, counted on where a window follows another.
        """
        ids = plain(token_ids["input_ids"] if isinstance(token_ids, Mapping) else token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            asked = (skip_special_tokens, clean_up_tokenization_spaces, spaces_between_special_tokens)
            return self.batch_decode(ids, *asked, output_offsets, time_precision, decode_with_timestamps)
        ids = [ids] if isinstance(ids, int) else ids
        kept = self._without_prompt(ids) if skip_special_tokens else ids
        if decode_with_timestamps:
            text = self._with_times(kept, skip_special_tokens, time_precision)
        else:
            text = TIME.sub("", super().decode(kept, skip_special_tokens, clean_up_tokenization_spaces))
        return {"text": text, "offsets": self._offsets(ids, time_precision)} if output_offsets else text

    @strict
    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
        output_offsets: bool = False,
        time_precision: float = 0.02,
        decode_with_timestamps: bool = False,
    ) -> list[Any]:
        """`decode` of each row."""
        asked = (skip_special_tokens, clean_up_tokenization_spaces, spaces_between_special_tokens)
        timed = (output_offsets, time_precision, decode_with_timestamps)
        return [self.decode(row, *asked, *timed) for row in plain(sequences)]

    @property
    def timestamp_begin(self) -> int:
        """The id of <|0.00|>: the first behind the special tokens."""
        found = self.rust.token_to_id("<|notimestamps|>")
        return 1 + (found if found is not None else max(self.all_special_ids))

    def timestamp_ids(self, time_precision: float = 0.02) -> list[int]:
        """The ids of <|0.00|>, <|0.02|> … <|30.00|>."""
        texts = [f"<|{i * time_precision:.2f}|>" for i in range(SEGMENT + 1)]
        ids: list[int] = self.convert_tokens_to_ids(texts)
        return ids

    def _without_prompt(self, ids: list[int]) -> list[int]:
        """What follows a prompt (`<|startofprev|> …`), from the start token on."""
        if not ids or ids[0] != self.rust.token_to_id("<|startofprev|>"):
            return ids
        start = self.rust.token_to_id("<|startoftranscript|>")
        return ids[ids.index(start) :] if start in ids else []

    def _with_times(self, ids: Sequence[int], skip: bool, precision: float) -> str:
        """Text and times. A time that is earlier than the last one belongs to the next window."""
        begin = self.timestamp_begin
        parts: list[Any] = [[]]
        latest = before = passed = 0.0
        for i, id in enumerate(ids):
            if id < begin:
                parts[-1].append(id)
                continue
            time = (id - begin) * precision
            if time < latest:
                if i >= 2 and not (ids[i - 1] >= begin and ids[i - 2] >= begin):
                    passed += precision * SEGMENT  # one time alone ended the window: it was full
                else:
                    latest, passed, parts = before, passed + before, parts[:-2]
            before, latest = latest, time
            parts += [f"<|{time + passed:.2f}|>", []]
        return "".join(part if isinstance(part, str) else self._text(part, skip) for part in parts)

    def _text(self, ids: list[int], skip: bool = False) -> str:
        text: str = super().decode(ids, skip) if ids else ""
        return text

    def _offsets(self, ids: Sequence[int], precision: float) -> list[dict[str, Any]]:
        """Each stretch between two times, with these in seconds."""
        begin = self.timestamp_begin
        times = [i for i, id in enumerate(ids) if id >= begin]
        ends = [i for i in times if i and ids[i - 1] >= begin]
        if not ends and len(times) <= 1:
            return []
        if times[-1] + 1 not in ends:
            ends.append(times[-1] + 1)
        found, last, latest, passed = [], times[0], 0, 0
        for end in ends:
            part = ids[last:end]
            if len(part) > 1:
                start, stop = part[0] - begin, part[-1] - begin
                if start < latest:
                    single = last >= 2 and not (ids[last - 2] >= begin and ids[last - 1] >= begin)
                    passed += SEGMENT if single else latest
                latest = stop
                span = (start * precision + passed * precision, stop * precision + passed * precision)
                found.append({"text": TIME.sub("", self._text(list(part))), "timestamp": span})
            last = end
        return found


def language_code(language: str) -> str:
    """ "en" for "en", "english", "English". Raises ArgumentError for a language that Whisper does not know."""
    asked = language.lower()
    names = {name.replace("_", " "): code for code, name in WHISPER.items()} | WHISPER_ALIASES
    if asked in WHISPER:
        return asked
    if asked not in names:
        known: Iterable[str] = WHISPER if len(asked) == 2 else names
        raise ArgumentError(f"language={language!r}", next=nearest(asked, list(known)) or "a code such as 'en'")
    return names[asked]
