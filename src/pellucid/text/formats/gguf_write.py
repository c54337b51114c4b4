"""A tokenizer as the metadata of a GGUF file: the way back of `gguf.py`.

llama.cpp computes ids from arrays of tokens, scores, types and merges, and knows how a text is split by a name. Each
kind of vocabulary is written as its converter does. Where what is written gives other ids than the tokenizer, on the
probes of `fingerprint.py`, the tokenizer itself goes into the file too (`tokenizer.huggingface.json`): we read that.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import pre_tokenizers

from pellucid.errors import Unsupported
from pellucid.text.fingerprint import PROBES
from pellucid.text.formats import spm, tiktoken
from pellucid.text.formats.gguf import KEY, ROLES
from pellucid.text.formats.splits import SPLITS, Split

if TYPE_CHECKING:
    from pellucid.text.tokenizer import Tokenizer

SPACE = "▁"
EMBEDDED = "tokenizer.huggingface.json"


def metadata(tokenizer: Tokenizer, rows: int, folder: Path) -> dict[str, Any]:
    """Its keys.

    Args:
        rows: of the model's embedding: ids without a token are filled up to it.
        folder: where a sentencepiece model with the scores of its pieces may be.

    Raises:
        Unsupported: an algorithm that llama.cpp lacks, or a way to split texts that has no name there.
    """
    state = json.loads(tokenizer.rust.to_str())
    kind = state["model"]["type"]
    if kind == "BPE":
        found = _spaces(state, folder) if _writes_spaces(state) else _bytes(tokenizer, state)
    elif kind in WRITERS:
        found = WRITERS[kind](state, folder)
    else:
        raise Unsupported(f"a tokenizer of the kind {kind}", where=folder, next="GGUF has BPE, Unigram and WordPiece")
    texts = {id: text for text, id in tokenizer.rust.get_vocab(with_added_tokens=True).items() if id < rows}
    added = {id: token for id, token in tokenizer.rust.get_added_tokens_decoder().items() if id < rows}
    spell, scores = found.pop("spell", str), found.pop("scores", None)
    unknown = tokenizer.unk_token or _unknown(state["model"])
    tokens, types = [], array("i")
    for id in range(rows):
        text = texts.get(id)
        if text is None:
            tokens.append(f"[PAD{id}]")
            types.append(spm.UNUSED)
        else:
            tokens.append(text if id in added else spell(text))
            types.append(_type(text, added.get(id), unknown, found[KEY + "model"]))
    found |= {KEY + "tokens": tokens, KEY + "token_type": types}
    if scores is not None:
        least = min(scores.values(), default=0.0)
        found[KEY + "scores"] = array("f", [scores.get(texts.get(id, ""), least - 1) for id in range(rows)])
    place = None if unknown is None else tokenizer.rust.token_to_id(unknown)
    if place is not None and place < rows:
        found[KEY + "unknown_token_id"] = place
    return found | _special(tokenizer, rows) | _templates(tokenizer.chat_template)


def _unknown(model: Mapping[str, Any]) -> str | None:
    """What an algorithm calls a text that has no token, where no role says it."""
    if model.get("unk_id") is not None:
        text: str = model["vocab"][model["unk_id"]][0]
        return text
    return model.get("unk_token")


def _type(text: str, added: Any, unknown: str | None, model: str) -> int:
    if text == unknown and model != "gpt2":
        return spm.UNKNOWN
    if added is not None:
        return spm.CONTROL if added.special else spm.USER_DEFINED
    spelt = len(text) == 6 and text.startswith("<0x") and text.endswith(">")
    return spm.BYTE if spelt and model in ("llama", "t5") else spm.NORMAL


def _special(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Ids of special tokens, and which of them a text gets by itself."""
    found: dict[str, Any] = {}
    for role, key in ROLES.items():
        text = getattr(tokenizer, role, None) if role in tokenizer.special_tokens_map else None
        id = None if text is None else tokenizer.rust.token_to_id(str(text))
        if id is not None and id < rows:
            found[KEY + key] = id
    ids = tokenizer.encode("a")
    for key, token, at in (("add_bos_token", "bos_token_id", 0), ("add_eos_token", "eos_token_id", -1)):
        found[KEY + key] = bool(ids) and ids[at] == found.get(KEY + token)
    return found


def _templates(given: str | Mapping[str, str] | None) -> dict[str, Any]:
    if not given:
        return {}
    texts = {"default": given} if isinstance(given, str) else dict(given)
    named = {f"tokenizer.chat_template.{name}": text for name, text in texts.items() if name != "default"}
    default = {"tokenizer.chat_template": texts["default"]} if "default" in texts else {}
    names = {"tokenizer.chat_templates": sorted(name for name in texts if name != "default")} if named else {}
    return default | names | named


# ------------------------------------------------------------------------------------------------ algorithms


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The parts of a sequence, one after the other."""
    if part is None:
        return []
    inner = part.get("pretokenizers") or part.get("normalizers") or part.get("decoders")
    return [part] if part["type"] != "Sequence" else [step for each in inner or [] for step in _steps(each)]


def _writes_spaces(state: Mapping[str, Any]) -> bool:
    """Whether a BPE is sentencepiece's: it writes spaces as ▁, and bytes without a piece as <0x0A>."""
    return bool(state["model"].get("byte_fallback"))


def _spaces(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Sentencepiece BPE: the piece with the best score merges first, so a score is minus its place among the merges."""
    scores: dict[str, float] = dict.fromkeys(state["model"]["vocab"], 0.0)
    for rank, merge in enumerate(state["model"]["merges"]):
        text = "".join(merge if isinstance(merge, list) else merge.split(" ", 1))
        scores[text] = min(scores.get(text, 0.0), 0.0) or float(-rank - 1)
    steps = _steps(state["normalizer"]) + _steps(state["pre_tokenizer"])
    prefix = any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )
    found = {KEY + "model": "llama", KEY + "pre": "default", "scores": scores, KEY + "add_space_prefix": prefix}
    return found | _own_scores(folder)


def _own_scores(folder: Path) -> dict[str, Any]:
    """The scores of tokenizer.model, where it is there."""
    path = folder / "tokenizer.model"
    if not path.is_file():
        return {}
    model = spm.read(path)
    return {
        "scores": {piece.text: piece.score for piece in model.pieces},
        KEY + "add_space_prefix": model.add_dummy_prefix,
        KEY + "remove_extra_whitespaces": model.remove_extra_whitespaces,
    }


def _bytes(tokenizer: Tokenizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Byte-level BPE: merges as they are."""
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    name = split_name(tokenizer.rust.pre_tokenizer, whole=bool(state["model"].get("ignore_merges")))
    return {KEY + "model": "gpt2", KEY + "pre": name, KEY + "merges": merges}


def split_name(given: pre_tokenizers.PreTokenizer | None, *, whole: bool) -> str:
    """What llama.cpp calls a way to split texts: the first that splits the probes so.

    Raises:
        Unsupported: it has none like it.
    """
    seen: set[Split] = set()
    wanted = None if given is None else [_pieces(given, text) for text in PROBES]
    for name, split in SPLITS.items():
        if split in seen or split.plain:
            continue
        seen.add(split)
        made = tiktoken.split(*split.patterns)
        if split.whole == whole and wanted == [_pieces(made, text) for text in PROBES]:
            return name
    raise Unsupported("llama.cpp has no name for how this tokenizer splits texts", next="keep tokenizer.json beside")


def _pieces(split: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [piece for piece, _ in split.pre_tokenize_str(text)]


def _unigram(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    import base64

    found: dict[str, Any] = {KEY + "model": "t5", KEY + "pre": "default", "scores": dict(state["model"]["vocab"])}
    for step in _steps(state["normalizer"]):
        if step["type"] == "Precompiled":
            found[KEY + "precompiled_charsmap"] = array("B", base64.b64decode(step["precompiled_charsmap"]))
        if step["type"] == "Replace":
            found[KEY + "remove_extra_whitespaces"] = True
    found[KEY + "add_space_prefix"] = True
    return found | {key: value for key, value in _own_scores(folder).items() if key != "scores"}


def _wordpiece(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """BERT's words: the file writes a beginning as ▁, and nothing before what goes on."""
    prefix = state["model"]["continuing_subword_prefix"]

    def spell(text: str) -> str:
        if text.startswith("[") and text.endswith("]"):
            return text
        return text.removeprefix(prefix) if text.startswith(prefix) else SPACE + text

    found: dict[str, Any] = {KEY + "model": "bert", KEY + "pre": "default", "spell": spell}
    for step in _steps(state["normalizer"]):
        if step["type"] == "BertNormalizer":
            found[KEY + "normalizer.lowercase"] = bool(step["lowercase"])
            strips = step["lowercase"] if step["strip_accents"] is None else step["strip_accents"]
            found[KEY + "normalizer.strip_accents"] = bool(strips)
    return found


WRITERS = {"Unigram": _unigram, "WordPiece": _wordpiece}
