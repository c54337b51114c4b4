"""The vocabulary inside a GGUF file: the keys `tokenizer.*` of its metadata.

`tokenizer.ggml.model` says the algorithm: llama (sentencepiece BPE), gpt2 (byte-level BPE), bert (WordPiece), t5
(sentencepiece unigram), gemma4 (BPE of text), whitespace (BPE of words). rwkv, plamo2 and hybriddna have algorithms
that the Rust library lacks: a trie's longest match, a shortest path with its own cost for unknown characters, and
words of DNA. Facts: src/llama-vocab.cpp of github.com/ggml-org/llama.cpp, commit 0c1e5709.

Where llama.cpp and the model's own tokenizer differ, the model's own rule is here: see `splits.py` for patterns; words
of more than 100 characters are unknown to BERT; Gemma 4 merges across line ends. After a special token inside a text
sentencepiece has no rule, and llama.cpp's is kept: every stretch of text gets the dummy space.
"""

from __future__ import annotations

import hashlib
import warnings
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid import gguf
from pellucid.errors import TokenizerError, Unsupported
from pellucid.text import classes
from pellucid.text.classes import TokenizerClass
from pellucid.text.formats import sentencepiece, spm, tiktoken
from pellucid.text.formats.described import Described
from pellucid.text.formats.splits import ARCHITECTURES, SPLITS, Split

KEY = "tokenizer.ggml."
# Types of tokens have the numbers of sentencepiece's: spm.NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE.
ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # so it is spelled
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
    "eot_token": "eot_token_id",
    "eom_token": "eom_token_id",
    "fim_prefix_token": "fim_pre_token_id",
    "fim_suffix_token": "fim_suf_token_id",
    "fim_middle_token": "fim_mid_token_id",
    "fim_pad_token": "fim_pad_token_id",
    "fim_repo_token": "fim_rep_token_id",
    "fim_separator_token": "fim_sep_token_id",
}
OLD_KEYS = {"fim_pre_token_id": "prefix_token_id", "fim_suf_token_id": "suffix_token_id"}
OLD_KEYS |= {"fim_mid_token_id": "middle_token_id"}
# Ids of roles that a file of this model need not state.
DEFAULTS = {
    "llama": {"bos_token": 1, "eos_token": 2, "unk_token": 0},
    "bert": {"cls_token": 101, "unk_token": 100, "sep_token": 102, "pad_token": 0, "mask_token": 103},
    "t5": {"eos_token": 1, "unk_token": 2, "pad_token": 0},
}
# The end of a turn where a file does not say it: the first of these that it has.
END_OF_TURN = (
    "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT]"
    " <｜end▁of▁sentence｜> <end_of_utterance>"
).split()


@dataclass(frozen=True)
class Vocabulary:
    """The checked arrays of one file."""

    tokens: list[str]
    kinds: Iterable[int]
    scores: Iterable[float]
    ids: dict[str, int]

    def of(self, *kinds: int) -> list[str]:
        return [text for text, kind in zip(self.tokens, self.kinds) if kind in kinds]


def describe(path: Path) -> Described:
    """The tokenizer of a GGUF file.

    Raises:
        WeightsError: not a readable GGUF file.
        TokenizerError: it has no vocabulary, or one that contradicts itself.
        Unsupported: an algorithm or a split that Pellucid does not have.
    """
    metadata = gguf.read(path).metadata
    try:
        return _describe(metadata, path)
    except (TypeError, ValueError, LookupError) as e:
        raise TokenizerError(f"not a readable vocabulary: {e}", where=path, next=tiktoken.AGAIN) from None


def _describe(metadata: Mapping[str, Any], path: Path) -> Described:
    name = metadata.get(KEY + "model")
    if name in ("rwkv", "plamo2", "hybriddna"):
        raise Unsupported(
            f"tokenizer.ggml.model is {name!r}: the Rust library does not have its algorithm",
            where=path,
            next="use the tokenizer of the model's own folder",
        )
    if name not in MODELS:
        what = "it has no vocabulary" if name in (None, "none", "no_vocab") else f"tokenizer.ggml.model is {name!r}"
        raise TokenizerError(what, where=path, next=f"known are {', '.join(MODELS)}")
    vocabulary = _vocabulary(metadata)
    roles = _roles(metadata, name, vocabulary)
    split = _split(metadata, name, path)
    flags = {"llama": (True, False), "t5": (False, True), "gpt2": (split.bos, False), "gemma4": (True, False)}
    add_bos, add_eos = flags.get(name, (False, False))
    options = {
        "add_bos_token": add_bos if split.spaces and split.bos else _flag(metadata, "add_bos_token", add_bos),
        "add_eos_token": _flag(metadata, "add_eos_token", add_eos),
    }
    single, pair = _frame(name, options, roles)
    row = TokenizerClass(tokens=roles, options=options, single=single, pair=pair, inputs=_inputs(name))

    def build(options: Mapping[str, Any]) -> Tokenizer:
        embedded = metadata.get("tokenizer.huggingface.json")
        rust = MODELS[name](metadata, vocabulary, split, row, options) if not embedded else Tokenizer.from_str(embedded)
        rust.add_tokens(_added(metadata, vocabulary))
        return rust

    return Described(row, _config(metadata, vocabulary, roles), build, (), {"metadata": _digest(metadata)})


def _digest(metadata: Mapping[str, Any]) -> str:
    """Of all that decides about a tokenizer: a model's file is too large to hash."""
    digest = hashlib.sha256()
    for key, value in metadata.items():
        if key.startswith("tokenizer.") or key in ("general.architecture", "general.name"):
            digest.update(f"{key}\0{type(value).__name__}\0".encode("utf-8", gguf.ERRORS))
            if isinstance(value, list) and value and isinstance(value[0], str):
                digest.update(array("q", map(len, value)).tobytes())
                digest.update("".join(value).encode("utf-8", gguf.ERRORS))
            else:
                digest.update(value.tobytes() if isinstance(value, array) else repr(value).encode())
    return digest.hexdigest()


# ---- what the file says ----------------------------------------------------------------------------------


def _vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Raises ValueError if the arrays are missing, of another kind, too short, or have a token twice."""
    tokens = metadata.get(KEY + "tokens")
    if not isinstance(tokens, list) or not tokens or not all(type(token) is str for token in tokens):
        raise ValueError("tokenizer.ggml.tokens is not an array of strings")
    tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError as e:
        raise ValueError(f"a token is not Unicode: {e.object[e.start : e.end]!r:.100}") from None
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
        raise ValueError(f"{len(tokens)} tokens, among them twice {twice!r:.100}")
    kinds = _numbers(metadata, "token_type", len(tokens), "bBhHiIqQ", spm.NORMAL)
    return Vocabulary(tokens, kinds, _numbers(metadata, "scores", len(tokens), "fdiIqQhHbB", 0), ids)


def _numbers(metadata: Mapping[str, Any], name: str, count: int, letters: str, default: int) -> Iterable[Any]:
    found = metadata.get(KEY + name)
    if found is None:
        return [default] * count
    if not isinstance(found, array) or found.typecode not in letters or len(found) < count:
        size = len(found) if isinstance(found, array | list) else type(found).__name__
        raise ValueError(f"tokenizer.ggml.{name} is not an array of {count} numbers ({size})")
    if any(number != number for number in found):
        raise ValueError(f"tokenizer.ggml.{name} holds a value that is not a number")
    return found


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    found = metadata.get(KEY + name, default)
    if type(found) is not bool:
        raise ValueError(f"tokenizer.ggml.{name} is {found!r:.40}, not true or false")
    return found


def _roles(metadata: Mapping[str, Any], name: str, vocabulary: Vocabulary) -> dict[str, str]:
    """The texts of the special tokens. An id beyond the vocabulary is left out, with a warning."""
    found = {}
    for role, key in ROLES.items():
        id = metadata.get(KEY + key, metadata.get(KEY + OLD_KEYS.get(key, ""), DEFAULTS.get(name, {}).get(role)))
        if type(id) is int and 0 <= id < len(vocabulary.tokens):
            found[role] = vocabulary.tokens[id]
        elif id is not None and KEY + key in metadata:
            warnings.warn(f"tokenizer.ggml.{key} is {id!r:.40}, not one of {len(vocabulary.tokens)} ids", stacklevel=4)
    if name == "bert" and KEY + "cls_token_id" not in metadata and "bos_token" in found:
        found["cls_token"] = found["bos_token"]
    if end := next((text for text in END_OF_TURN if text in vocabulary.ids), None):
        found.setdefault("eot_token", end)
    return found


def _split(metadata: Mapping[str, Any], name: str, path: Path) -> Split:
    """How a BPE vocabulary's model splits a text; nothing for the other algorithms."""
    if name not in ("gpt2", "gemma4", "whitespace"):
        return Split()
    known: dict[str, str] = {"gemma4": "gemma4", "whitespace": "whitespace"}
    pre = known.get(name) or metadata.get(KEY + "pre") or ARCHITECTURES.get(str(metadata.get("general.architecture")))
    if pre is None:
        what = "it does not say how texts are split (tokenizer.ggml.pre); llama.cpp's default rule is used"
        warnings.warn(f"{path}: {what}, which is not the model's own. Convert the model again.", stacklevel=4)
        pre = "default"
    if pre not in SPLITS:
        raise Unsupported(
            f"tokenizer.ggml.pre is {pre!r:.100}, a way to split texts that is not known here",
            where=path,
            next="use the tokenizer of the model's own folder",
        )
    return SPLITS[pre]


def _frame(name: str, options: Mapping[str, Any], roles: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The post-processor, where it is not bos and eos around each text."""
    if name == "bert":
        return "{cls} $A {sep}", "{cls} $A {sep} $B:1 {sep}:1"
    if (
        options["add_bos_token"]
        and options["add_eos_token"]
        and {"bos_token", "eos_token", "sep_token"} <= roles.keys()
    ):
        return "{bos} $A {eos}", "{bos} $A {eos} {sep} $B {eos}"
    return None, None


def _inputs(name: str) -> tuple[str, ...]:
    return ("input_ids", "token_type_ids", "attention_mask") if name == "bert" else TokenizerClass.inputs


def _config(metadata: Mapping[str, Any], vocabulary: Vocabulary, roles: Mapping[str, str]) -> dict[str, Any]:
    """As tokenizer_config.json would say it."""
    config: dict[str, Any] = {role: text for role, text in roles.items() if role not in classes.ROLES}
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if type(length) is int and length > 0:
        config["model_max_length"] = length
    key = "tokenizer.chat_template"
    named = {name[len(key) + 1 :]: text for name, text in metadata.items() if name.startswith(key + ".")}
    templates = {"default": metadata[key], **named} if key in metadata else named
    if not all(isinstance(text, str) for text in templates.values()):
        raise ValueError("tokenizer.chat_template is not a text")
    if templates:
        named_list = [{"name": name, "template": text} for name, text in templates.items()]
        config["chat_template"] = named_list if named else templates["default"]
    return config


def _added(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> list[AddedToken]:
    """Tokens that are found in a text before it is split; control tokens and the unknown one are special."""
    left, right = _strips(metadata, vocabulary)
    special, plain = set(vocabulary.of(spm.CONTROL, spm.UNKNOWN)), vocabulary.of(spm.USER_DEFINED)
    return [
        AddedToken(text, normalized=False, special=text in special, lstrip=text in left, rstrip=text in right)
        for text in [*vocabulary.of(spm.CONTROL, spm.UNKNOWN), *plain]
    ]


def _strips(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[set[str], set[str]]:
    """Special tokens that take the spaces before and behind them. No key says so; llama.cpp knows these by name."""
    pre, architecture = metadata.get(KEY + "pre"), metadata.get("general.architecture")
    name = str(metadata.get("general.name", "")).lower()
    if pre in ("jina-v2-de", "jina-v2-es", "jina-v2-code") or architecture in ("nomic-bert-moe", "jina-bert-v3"):
        return {"<mask>"}, set()
    if "phi-3" in name or "phi3" in name:
        special = set(vocabulary.of(spm.CONTROL, spm.UNKNOWN, spm.USER_DEFINED))
        return set(), special - {"<unk>", "<s>", "<|endoftext|>"}
    return ({"[MASK]"} if "modern-bert" in name else set()), set()


# ---- the algorithms --------------------------------------------------------------------------------------


def _sentencepiece(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, split: Split, row: TokenizerClass, options: Mapping[str, Any]
) -> Tokenizer:
    """llama and t5: as the `.model` file that the vocabulary comes from."""
    pieces = zip(vocabulary.tokens, vocabulary.scores, vocabulary.kinds)
    charsmap = metadata.get(KEY + "precompiled_charsmap")
    bpe = metadata[KEY + "model"] == "llama"
    model = spm.SentencePieceModel(
        pieces=tuple(spm.Piece(text, float(score), int(kind)) for text, score, kind in pieces),
        algorithm=spm.BPE if bpe else spm.UNIGRAM,
        byte_fallback=spm.BYTE in set(vocabulary.kinds),
        charsmap=charsmap.tobytes() if isinstance(charsmap, array) else b"",
        add_dummy_prefix=_flag(metadata, "add_space_prefix", bpe),
        remove_extra_whitespaces=_flag(metadata, "remove_extra_whitespaces", False),
    )
    return sentencepiece.from_model(model, row, options, _unknown(vocabulary, row))


def _unknown(vocabulary: Vocabulary, row: TokenizerClass) -> str:
    """Raises ValueError: these algorithms need the token."""
    found = [*vocabulary.of(spm.UNKNOWN), *filter(None, [row.tokens.get("unk_token")])]
    if not found:
        raise ValueError("no unknown token")
    return found[0]


def _bpe(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, split: Split, row: TokenizerClass, options: Mapping[str, Any]
) -> Tokenizer:
    """gpt2, gemma4 and whitespace: the merges are in the file."""
    merges = _merges(metadata, vocabulary)
    if not split.plain:
        bpe = models.BPE(vocabulary.ids, merges, fuse_unk=False, ignore_merges=split.whole)
        rust = Tokenizer(bpe)
        rust.pre_tokenizer, rust.decoder = tiktoken.split(*split.patterns), decoders.ByteLevel()
        return rust
    unknown = row.tokens.get("unk_token")
    rust = Tokenizer(models.BPE(vocabulary.ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps: list[decoders.Decoder] = [decoders.ByteFallback(), decoders.Fuse()]
    if split.spaces:
        rust.normalizer = normalizers.Replace(" ", sentencepiece.SPACE)
        steps.insert(0, decoders.Replace(sentencepiece.SPACE, " "))
    else:  # words between spaces, which carry nothing
        if _flag(metadata, "normalizer.lowercase", False):
            rust.normalizer = normalizers.Lowercase()
        rust.pre_tokenizer = pre_tokenizers.Split(Regex(split.patterns[0]), "removed", invert=True)
    rust.decoder = decoders.Sequence(steps)
    return rust


def _merges(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Pairs of tokens, in the order in which they merge. Kimi's ranks are its ids, and its files have no list."""
    lines, ids = metadata.get(KEY + "merges"), vocabulary.ids
    if lines is None and metadata.get(KEY + "pre") == "kimi-k2":
        return tiktoken.merges({text: ids[text] for text in vocabulary.of(spm.NORMAL)}, where=KEY + "tokens")
    if not isinstance(lines, list) or not all(type(line) is str for line in lines):
        raise ValueError("tokenizer.ggml.merges is not an array of strings")
    found = []
    for line in lines:
        cut = line.find(" ", 1)  # a token may be a space
        left, right = line[:cut], line[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise ValueError(f"the merge {line!r:.100} is not of two tokens that make a third")
        found.append((left, right))
    return found


def _wordpiece(
    metadata: Mapping[str, Any], vocabulary: Vocabulary, split: Split, row: TokenizerClass, options: Mapping[str, Any]
) -> Tokenizer:
    """bert: the file writes a word's start as ▁ and its continuation as nothing, where BERT has nothing and ##."""
    unknown = _unknown(vocabulary, row)
    ids, kept = {}, {*row.tokens.values(), *vocabulary.of(spm.CONTROL, spm.UNKNOWN)}
    for id, text in enumerate(vocabulary.tokens):
        if text in kept or (text.startswith("[") and text.endswith("]")):
            ids[text] = id
        else:
            ids[text[1:] if text.startswith(sentencepiece.SPACE) else "##" + text] = id
    if len(ids) < len(vocabulary.tokens):
        raise ValueError("two tokens are one in BERT's spelling")
    rust = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    lowercase = _flag(metadata, "normalizer.lowercase", True)
    rust.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=_flag(metadata, "normalizer.strip_accents", lowercase)
    )
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    rust.decoder = decoders.WordPiece(prefix="##")
    return rust


Builder = Callable[[Mapping[str, Any], Vocabulary, Split, TokenizerClass, Mapping[str, Any]], Tokenizer]
MODELS: dict[str, Builder] = {
    "llama": _sentencepiece,
    "gpt2": _bpe,
    "bert": _wordpiece,
    "t5": _sentencepiece,
    "gemma4": _bpe,
    "whitespace": _bpe,
}
