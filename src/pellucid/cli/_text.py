"""Whether tokenizer, chat template and the settings of generation fit each other and the model. No torch but in one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid import hub
from pellucid.cli._folder import Known
from pellucid.config import read_json
from pellucid.errors import PellucidError, TokenizerError
from pellucid.text import fingerprint
from pellucid.text.chats import turns
from pellucid.text.classes import GENERIC, row
from pellucid.text.loading import CONFIG
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.cli.check import Findings

SPARE = 1024  # rows of an embedding that nobody wonders about: sizes are rounded up
FOR_SAMPLING = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # and the values at which they say nothing


# ---- the tokenizer ---------------------------------------------------------------------------------------


def look_at_tokenizer(found: Findings, folder: Path) -> Tokenizer | None:
    if not hub.has_tokenizer(folder):
        what = "the folder has none: the model takes ids, no text"
        found.warn("tokenizer", what, "copy the tokenizer's files here")
        return None
    tokenizer = Tokenizer.from_folder(folder, check_fingerprint=False)
    look_at_pad(found, tokenizer)
    found.attempt("tokenizer", look_at_other_files, tokenizer, folder)
    found.attempt("tokenizer", look_at_fingerprint, tokenizer, folder)
    return tokenizer


def look_at_pad(found: Findings, tokenizer: Tokenizer) -> None:
    """The pad token, or what `Tokenizer` pads with where there is none."""
    if tokenizer.pad_token is not None:
        same = " (also the end token)" if tokenizer.pad_token == tokenizer.eos_token else ""
        found.ok("tokenizer", f"pads with {tokenizer.pad_token!r} = {tokenizer.pad_token_id}{same}")
        return
    roles = {role: getattr(tokenizer, role) for role in ("eos_token", "unk_token")}
    role, text = next(((role, text) for role, text in roles.items() if text is not None), ("id 0", None))
    stands = f"{role}{'' if text is None else f' {text!r}'}"
    found.ok("tokenizer", f"no pad token: {stands} takes its place, hidden by the attention mask")


def look_at_other_files(found: Findings, tokenizer: Tokenizer, folder: Path) -> None:
    """A folder often holds its vocabulary twice. Whether the older files mean the same as tokenizer.json.

    Only where the folder names the class that the older files were written for.
    """
    named = str(read_json(folder / CONFIG).get("tokenizer_class", "")) if (folder / CONFIG).is_file() else ""
    if not (folder / "tokenizer.json").is_file() or row(named) is None or row(named) is GENERIC:
        return
    with tempfile.TemporaryDirectory() as other:
        for path in folder.iterdir():
            if path.name in hub.TOKENIZER and path.name not in ("tokenizer.json", hub.FINGERPRINT):
                os.symlink(path.resolve(), Path(other) / path.name)
        try:
            second = Tokenizer.from_folder(other)
        except TokenizerError:
            return  # there is no second form, or none that is read
    texts = list(fingerprint.PROBES)
    first, again = (each(texts, add_special_tokens=False)["input_ids"] for each in (tokenizer, second))
    apart = [(text, a, b) for text, a, b in zip(texts, first, again) if a != b]
    if apart:
        text, a, b = apart[0]
        shown = f"{text!r} is {fingerprint.around(a, b)} and {fingerprint.around(b, a)}"
        what = f"tokenizer.json and the older vocabulary files disagree on {len(apart)} of {len(texts)} probes: {shown}"
        found.warn("tokenizer", what, "tokenizer.json is used; delete the form that does not belong to the model")
    else:
        found.ok("tokenizer", f"tokenizer.json and the older vocabulary files agree on {len(texts)} probes")


def look_at_fingerprint(found: Findings, tokenizer: Tokenizer, folder: Path) -> None:
    now = fingerprint.take(tokenizer)
    found.facts["fingerprint"] = now.digest
    stored = fingerprint.read(folder)
    differs = [] if stored is None else fingerprint.differences(stored, tokenizer, folder)
    if differs:
        found.fail(
            "tokenizer",
            f"not the tokenizer that was saved here ({stored}): {'; '.join(differs)}",
            f"put its files back, or accept this one: pellucid tokenize -m {folder} --accept",
        )
    else:
        found.ok("tokenizer", f"fingerprint {now}, {'not stored in the folder' if stored is None else 'as stored'}")


def look_at_vocabulary(found: Findings, known: Known, tokenizer: Tokenizer) -> None:
    """Whether every id has a row in the embedding, every row an id, and every id below the last a token."""
    rows = known.spec.vocab
    ids = {i: text for text, i in tokenizer.get_vocab().items()}
    beyond = {i: text for i, text in ids.items() if i >= rows}
    last = max(ids, default=-1)
    if beyond:
        _tell_beyond(found, beyond, tokenizer, rows)
    elif rows - last - 1 > SPARE + rows // 20:
        what = f"{len(ids)} tokens, and the embedding has {rows} rows: the model can choose ids without a text"
        found.warn("tokenizer", what, "check that this tokenizer belongs to this model")
    else:
        found.ok("tokenizer", f"{len(ids)} tokens, the embedding has {rows} rows")
    holes = [i for i in range(last) if i not in ids]
    if holes:
        what = f"{_some(holes, 'id')} below the last, {last}, without a token; the model can choose them"
        found.warn(
            "tokenizer", what, "check that no file of the tokenizer is missing; the original may have holes, too"
        )


def _tell_beyond(found: Findings, beyond: dict[int, str], tokenizer: Tokenizer, rows: int) -> None:
    some = ", ".join(f"{beyond[i]!r} = {i}" for i in sorted(beyond)[:3])
    what = f"{len(beyond)} of {len(tokenizer)} ids are beyond the {rows} rows of the embedding: {some}"
    if beyond.keys() <= tokenizer.added_tokens_decoder.keys():
        next = "model.resize_token_embeddings(len(tokenizer)) makes room for them"
        found.warn("tokenizer", f"{what} (added tokens: an error if they occur)", next)
    else:
        found.fail("tokenizer", what, "use the tokenizer that belongs to this model")


def look_at_limit(found: Findings, known: Known, tokenizer: Tokenizer) -> None:
    """What `truncation=True` cuts to, against what the model takes."""
    limit, context = tokenizer.model_max_length, known.spec.context
    if context is not None and context < limit < 1e20:
        what = f"model_max_length is {limit}, and the model takes {context}: truncation leaves too much"
        found.warn("tokenizer", what, f"set model_max_length to {context} in tokenizer_config.json")


# ---- the chat template -----------------------------------------------------------------------------------


def look_at_template(found: Findings, tokenizer: Tokenizer, ends: Iterable[int]) -> None:
    """Whether the template works, begins as plain texts do, and ends an answer with a token that ends generation."""
    if tokenizer.chat_template is None:
        return
    seen = turns.look(tokenizer)
    bos, plain = tokenizer.bos_token_id, tokenizer("a")["input_ids"]
    adds = bos is not None and plain[:1] == [bos]
    begins = f"begins with {tokenizer.bos_token!r}, once" if seen.begins_with_bos else "begins without BOS"
    found.ok("template", f"renders, {begins}; an answer ends with {seen.end!r}" if seen.end else f"renders, {begins}")
    if adds and not seen.begins_with_bos:
        what = f"plain texts begin with {tokenizer.bos_token!r} (the tokenizer adds it), and chats do not"
        found.warn("template", what, "write {{ bos_token }} at its beginning if the model was trained so")
    if seen.pieces:
        found.ok("template", f"writes {', '.join(map(repr, seen.pieces))} as several tokens of this vocabulary")
    if seen.cut:
        count = len(tokenizer(seen.cut, add_special_tokens=False)["input_ids"])
        what = f"an answer ends with {seen.cut!r}, which is {count} tokens of this vocabulary and not one"
        found.warn("template", what, "use the template that belongs to this tokenizer, or add the token")
    elif seen.end is None:
        what = "no special token follows an answer: nothing tells the model to stop"
        found.warn("template", what, "write {{ eos_token }} behind an answer")
    elif tokenizer.convert_tokens_to_ids(seen.end) not in set(ends):
        i = tokenizer.convert_tokens_to_ids(seen.end)
        what = f"an answer ends with {seen.end!r} = {i}, which does not end generation (eos_token_id {sorted(ends)})"
        found.warn("template", what, f"add {i} to eos_token_id in generation_config.json")


# ---- special ids and the settings of generation ----------------------------------------------------------


def look_at_special_ids(found: Findings, known: Known, tokenizer: Tokenizer | None, folder: Path) -> None:
    """Ids of config.json, generation_config.json and the tokenizer: in range, and the same."""
    from pellucid.engine.options import read_options

    before = len(found.lines)
    path = folder / "generation_config.json"
    stated = read_json(path) if path.exists() else {}
    settings = read_options(folder)
    roles = ["bos", "eos", "pad"] + ["decoder_start"] * (known.spec.encoder is not None)
    for role in roles:
        key = f"{role}_token_id"
        sources = {"generation_config.json": stated.get(key), "config.json": known.config.get(key)}
        for file, value in sources.items():
            for i in value if isinstance(value, list) else [value]:
                _look_at_id(found, f"{file}: {key}", i, known.spec.vocab, harmless=role == "pad")
        _compare(found, key, sources | {"the tokenizer": getattr(tokenizer, key, None)})
    if {"causal-lm", "seq2seq-lm"} & known.spec.heads.keys():
        _look_at_settings(found, settings, stated, known.spec.context)
    if len(found.lines) == before:
        found.ok("special", f"{', '.join(roles)} ids are in range and agree")
    if tokenizer is not None:
        own = set() if tokenizer.eos_token_id is None else {tokenizer.eos_token_id}
        found.attempt("template", look_at_template, tokenizer, settings.eos or own)


def _look_at_id(found: Findings, name: str, value: object, rows: int, *, harmless: bool) -> None:
    if value is None or (type(value) is int and 0 <= value < rows):
        return
    what = f"{name} is {value!r}, no row of the embedding ({rows})"
    if harmless and type(value) is int:
        found.warn("special", what)
    else:
        found.fail("special", what, "correct the id")


def _compare(found: Findings, key: str, sources: dict[str, Any]) -> None:
    """The first that names an id is the one that is used; whether the others name one of its ids."""
    said = {file: value if isinstance(value, list) else [value] for file, value in sources.items() if value is not None}
    used, *others = said or [""]
    for file in others:
        if not {*said[used]} & {*said[file]}:
            what = f"{key} is {sources[used]} in {used}, which counts, and {sources[file]} in {file}"
            end = "the model may not stop: " * (key == "eos_token_id")
            found.warn("special", what, f"{end}correct the one that is wrong")


def _look_at_settings(found: Findings, settings: Any, stated: dict[str, Any], context: int | None) -> None:
    """generation_config.json against itself and against the model's context."""
    try:
        settings.check()
    except PellucidError as error:
        found.warn("special", f"generation_config.json: {error.what}", f"generate refuses; {error.next}")
    idle = {key: stated[key] for key, neutral in FOR_SAMPLING.items() if stated.get(key) not in (None, neutral)}
    if idle and not stated.get("do_sample"):
        values = ", ".join(f"{key}={value}" for key, value in idle.items())
        what = f"generation_config.json: {values} without do_sample: generation is greedy, and they have no effect"
        found.warn("special", what, "set do_sample to true, or delete them")
    for key in ("max_length", "max_new_tokens"):
        value = stated.get(key)
        if context is not None and type(value) is int and value > context:
            what = f"generation_config.json: {key}={value}, and the model's context is {context}"
            found.warn("special", what, f"generation ends at {context}; set {key} to at most that")
    least, most = stated.get("min_new_tokens"), stated.get("max_new_tokens")
    if type(least) is int and type(most) is int and least > most:
        what = f"generation_config.json: min_new_tokens={least} is more than max_new_tokens={most}"
        found.warn("special", what, "correct the one that is wrong")


def _some(ids: list[int], noun: str) -> str:
    """`3 ids (5, 7, 9)`, of which the first few are written out."""
    listed = ", ".join(map(str, ids[:3])) + (", …" if ids[3:] else "")
    return f"{len(ids)} {noun}{'s' * (len(ids) > 1)} ({listed})"
