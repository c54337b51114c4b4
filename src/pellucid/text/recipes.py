"""How a text is normalised, cut into words and put together again, for each kind of class.

These are the parts of a tokenizer.json. `RECIPES` is for vocabularies of words and bytes. A sentencepiece file brings
its own rules; `BEFORE` has what a class does to a text before them.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tokenizers import Regex, decoders, normalizers, pre_tokenizers

Options = Mapping[str, Any]
Normalizer = normalizers.Normalizer


class Parts(NamedTuple):
    normalizer: Normalizer | None
    pre_tokenizer: pre_tokenizers.PreTokenizer | None
    decoder: decoders.Decoder | None


# How GPT-4's followers cut a text: contractions, words with one sign before them, digits, signs, line ends, spaces.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The same, with combining marks as parts of words.
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Words, each sign with what follows it, and quotes alone.
BLENDERBOT_SMALL = r"'|[.,!?()][^.,!?()'\s]*|[^.,!?()'\s]+"


def byte_level(options: Options) -> Parts:
    """GPT-2: words with the space before them, as bytes written in printable characters."""
    prefix = bool(options.get("add_prefix_space"))
    return Parts(None, pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel())


def byte_level_nfc(options: Options) -> Parts:
    """GPT-NeoX: the same, composed first."""
    return byte_level(options)._replace(normalizer=normalizers.NFC())


def cohere(options: Options) -> Parts:
    """Command: digits one by one."""
    _, words, decoder = byte_level(options)
    cut = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    return Parts(normalizers.NFC(), cut, decoder)


def _by_pattern(pattern: str, options: Options) -> Parts:
    prefix = bool(options.get("add_prefix_space"))
    cut = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
    ]
    return Parts(normalizers.NFC(), pre_tokenizers.Sequence(cut), decoders.ByteLevel())


def clip(options: Options) -> Parts:
    """CLIP: lower case, spaces carry nothing, a word's last byte ends in </w>."""
    steps = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    words = pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)
    cut = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    back = [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Replace(Regex(r" +\z"), "")]
    return Parts(normalizers.Sequence(steps), cut, decoders.Sequence(back))


def bert(options: Options) -> Parts:
    """BERT: words and signs, spaces carry nothing."""
    normalizer = normalizers.BertNormalizer(
        clean_text=options.get("clean_text", True),
        handle_chinese_chars=options["tokenize_chinese_chars"],
        strip_accents=options["strip_accents"],
        lowercase=options["do_lower_case"],
    )
    return Parts(normalizer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(prefix="##"))


def openai(options: Options) -> Parts:
    """The first GPT: BERT's words. (Its authors split with spaCy; BERT's splitter is the reference's stand-in.)"""
    return Parts(
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
        decoders.BPEDecoder(suffix="</w>"),
    )


def herbert(options: Options) -> Parts:
    """HerBERT: the same, in the text's case."""
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    return openai(options)._replace(normalizer=normalizer)


def ctrl(options: Options) -> Parts:
    """CTRL and PhoBERT: words between spaces, one line end kept at the end of a word."""
    words = pre_tokenizers.Split(Regex(r"\S+\n?"), "removed", invert=True)
    return Parts(None, words, decoders.BPEDecoder(suffix="</w>"))


def blenderbot_small(options: Options) -> Parts:
    """ParlAI's small model: lower case, signs start words, a line end is the word __newln__."""
    steps = [normalizers.Replace(Regex(r"(?<=[^\s'])\n"), " __newln__ "), normalizers.Lowercase()]
    words = pre_tokenizers.Split(Regex(BLENDERBOT_SMALL), "removed", invert=True)
    return Parts(normalizers.Sequence(steps), words, decoders.BPEDecoder(suffix="</w>"))


RECIPES: dict[str, Callable[[Options], Parts]] = {
    "bytes": byte_level,
    "bytes-nfc": byte_level_nfc,
    "cohere": cohere,
    "qwen2": lambda options: _by_pattern(QWEN2, options),
    "qwen3.5": lambda options: _by_pattern(QWEN35, options),
    "clip": clip,
    "bert": bert,
    "openai": openai,
    "herbert": herbert,
    "ctrl": ctrl,
    "blenderbot-small": blenderbot_small,
}


# ---- before sentencepiece ---------------------------------------------------------------------------------


def _accents_and_case(options: Options) -> list[Normalizer]:
    steps: list[Normalizer] = []
    if not options.get("keep_accents", True):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if options.get("do_lower_case"):
        steps.append(normalizers.Lowercase())
    return steps


def albert(options: Options) -> list[Normalizer]:
    """ALBERT and XLNet: LaTeX quotes, then accents and case as the options say."""
    quotes: list[Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    return quotes + _accents_and_case(options)


def siglip(options: Options) -> list[Normalizer]:
    """SigLIP's `canonicalize_text`: lower case, no ASCII punctuation; its spaces go as sentencepiece's do."""
    signs = "[" + "".join("\\" + sign for sign in string.punctuation) + "]"
    spaces: list[Normalizer] = [
        normalizers.Replace(Regex(signs), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
    ]
    return [*_accents_and_case({"do_lower_case": options.get("do_lower_case", True)}), *spaces]


def gpt_sw3(options: Options) -> list[Normalizer]:
    """GPT-SW3: control characters go, spaces of other widths become spaces."""
    silent = r"[\x{00}-\x{08}\x{0B}-\x{1F}\x{7F}-\x{A0}\x{AD}\x{200B}]"
    wide = r"[\x{2002}\x{2003}\x{2005}\x{2008}\x{2009}\x{200A}\x{202F}\x{3000}\x{FFFC}]"
    return [normalizers.Replace(Regex(silent), ""), normalizers.Replace(Regex(wide), " "), normalizers.NFC()]


BEFORE: dict[str, Callable[[Options], list[Normalizer]]] = {
    "": lambda options: [],
    "albert": albert,
    "rembert": albert,
    "deberta-v2": _accents_and_case,
    "lower": _accents_and_case,
    "siglip": siglip,
    "gpt-sw3": gpt_sw3,
}
