"""sentencepiece `.model` files: Llama, Gemma, T5, XLM-RoBERTa.

Where transformers 5.23 and the sentencepiece library give different ids for the same `.model`, this file
follows sentencepiece, with which the models were trained. With Llama-2's tokenizer.model, of the 47 cases
that llama.cpp expects (made with Hugging Face tokenizers, and equal to sentencepiece):

- The reference gets 15 wrong: all that begin with a space, for two reasons. It orders merges by id;
  sentencepiece orders them by score, and runs of spaces (id 259 on) have the lowest score of all, -1e9. So
  "a  # c" is `▁a ▁ ▁# ▁c`, in the reference `▁a ▁▁ # ▁c`: indented code is cut differently. And
  sentencepiece puts its dummy space before every text, " Hello" is `▁ ▁Hello`; the reference leaves it out
  where a space is there already.
- Under model_type mistral, or without a tokenizer_class, the reference uses a generic class without the dummy
  space: "Hello" is `Hello`, not `▁Hello`. 45 wrong. That class also skips a file's other whitespace rules.
- Ours: 47 right, and the same ids as sentencepiece 0.2.3 on 4,638 random texts with spaces, marks and
  scripts.

A Llama or Gemma folder that does not say `add_bos_token` gets no <s> in the reference, against its
documentation. For T5 all three agree on 1,449 texts; where a combining mark or joiner follows a character
that the file's table replaces, the Rust library drops the mark (43 of 3,000 random texts), in the reference
as here.

After special tokens inside a text sentencepiece has no rule. There the reference's is kept: `legacy: true`
puts a dummy space before every stretch of text, `false` only before the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid.errors import TokenizerError
from pellucid.text import languages
from pellucid.text.classes import TokenizerClass
from pellucid.text.formats import spm
from pellucid.text.formats.bpe import MISSING, check_ids, read_vocabulary
from pellucid.text.recipes import BEFORE

MAX_SENTINELS = 100_000  # T5 has 100, and UL2 300
SPACE = "▁"  # how sentencepiece writes a space (U+2581)


Pieces = list[tuple[str, float]]


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """A `.model` file."""
    return from_model(spm.read(files[0]), row, options, unk)


def from_model(
    model: spm.SentencePieceModel, row: TokenizerClass, options: Mapping[str, Any], unk: str | None
) -> Tokenizer:
    """The same from its parts. The model's own unknown piece counts, where the class kept it."""
    pieces = lay_out(model, row, options)
    known = {text for text, _ in pieces}
    unknown = next((text for text in (*model.texts(spm.UNKNOWN), unk) if text in known), None)
    return _assemble(model, pieces, unknown, row, options)


def lay_out(model: spm.SentencePieceModel, row: TokenizerClass, options: Mapping[str, Any]) -> Pieces:
    """Pieces in the order of their ids, see `classes.Layout`; T5's sentinels count backwards from the last id."""
    layout = row.layout
    pieces = [(text, 0.0) for text in layout.first]
    pieces += [(piece.text, piece.score) for piece in model.pieces[layout.drop :]]
    if row.text == "albert":  # "2,000,": a comma behind a digit is a piece of its own
        pieces = [(text, score - 100 if _digit_and_comma(text) else score) for text, score in pieces]
    have = {text for text, _ in pieces}
    behind = [*reversed(sentinel_tokens(options)), *language_tokens(row, options), *layout.last]
    return pieces + [(text, 0.0) for text in behind if text not in have]


def _digit_and_comma(text: str) -> bool:
    return len(text) > 1 and text[-1] == "," and text[-2].isdigit()


def sentinel_tokens(options: Mapping[str, Any]) -> list[str]:
    """T5's <extra_id_0> … in reading order; none for other classes."""
    count = options.get("extra_ids") or 0
    if not isinstance(count, int) or not 0 <= count <= MAX_SENTINELS:
        raise TokenizerError(f"extra_ids={count!r}: a whole number from 0 to {MAX_SENTINELS:,} is needed")
    return [f"<extra_id_{i}>" for i in range(count)]


def language_codes(row: TokenizerClass, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The languages of a class, in the order of their ids: "en_XX", …"""
    if row.layout.codes == "PLBART":
        name = options.get("language_codes", "base")
        if name not in languages.PLBART:
            raise TokenizerError(f"language_codes={name!r}; known are {', '.join(languages.PLBART)}")
        return languages.PLBART[name]
    if row.layout.codes == "M2M100" and options.get("language_codes") == "wmt21":
        return languages.WMT21
    found: tuple[str, ...] = getattr(languages, row.layout.codes) if row.layout.codes else ()
    return found


def language_tokens(row: TokenizerClass, options: Mapping[str, Any]) -> list[str]:
    """The tokens of these languages: "en_XX" is `__en_XX__` for some classes."""
    return [row.layout.code.format(code) for code in language_codes(row, options)]


def build_mapped(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """A vocab.json numbers the pieces of a `.model` file (M2M100, Marian).

    Pieces that only the numbers have (Marian's target side) must not be found in a text: they are written with a
    space before them, which no normalised text holds. Pieces that only the file has get ids behind, see bpe.MISSING.
    """
    ids, model = read_vocabulary(files[0]), spm.read(files[1])
    check_ids(ids, files[0])
    if unk not in ids:
        raise TokenizerError(f"the vocabulary lacks the unknown token {unk!r}", where=files[0])
    if sorted(ids.values()) != list(range(len(ids))):
        raise TokenizerError(f"{len(ids)} tokens, and the highest id is {max(ids.values())}", where=files[0])
    scores = {piece.text: piece.score for piece in model.pieces}
    special = {*row.tokens.values(), *(text for text in ids if is_language(text))}
    in_order = sorted(ids, key=ids.__getitem__)
    rare = min(scores.values(), default=0.0) - 10  # as sentencepiece scores an unknown character
    pieces = [_numbered(text, scores, special, rare) for text in in_order]
    pieces += [(text, 0.0) for text in language_tokens(row, options) if text not in ids]
    if missing := [piece for piece in model.pieces if piece.kind == spm.NORMAL and piece.text not in ids]:
        pieces += [(MISSING, 0.0), *((piece.text, piece.score) for piece in missing)]
    rust = _assemble(model, pieces, unk, row, options)
    rust.decoder = decoders.Sequence([decoders.Replace(" ", ""), rust.decoder])
    rust.add_tokens([AddedToken(text, normalized=False) for text in in_order if is_language(text)])
    return rust


def _numbered(text: str, scores: Mapping[str, float], special: set[str], rare: float) -> tuple[str, float]:
    """A piece of vocab.json with its score.

    A stretch that sentencepiece does not know is looked up as it is. For one sign that is the same as a rare piece.
    """
    if text in scores or text in special:
        return text, scores.get(text, 0.0)
    return (text, rare) if len(text) == 1 and not text.isalnum() else (" " + text, 0.0)


def is_language(text: str) -> bool:
    """Marian's way to ask for a target language: the text begins with `>>fra<<`."""
    return text.startswith(">>") and text.endswith("<<")


def _assemble(
    model: spm.SentencePieceModel, pieces: Pieces, unknown: str | None, row: TokenizerClass, options: Mapping[str, Any]
) -> Tokenizer:
    vocab = {text: i for i, (text, _) in enumerate(pieces)}
    if unknown is None:
        raise TokenizerError(f"no unknown piece among {len(pieces)}")
    algorithm: models.Model
    if model.algorithm == spm.UNIGRAM:
        algorithm = models.Unigram(pieces, unk_id=vocab[unknown], byte_fallback=model.byte_fallback)
    else:  # characters are BPE that never merges
        pairs = merges(model) if model.algorithm == spm.BPE else []
        algorithm = models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=model.byte_fallback)
    rust = Tokenizer(algorithm)
    asked = options.get("add_prefix_space")
    prefix = model.add_dummy_prefix if asked is None else bool(asked)
    before = BEFORE[row.text](options)
    if row.words:
        _words(rust, model, prefix, row, options, before)
    else:
        every_stretch = "legacy" not in row.options or bool(options["legacy"])
        _sentence(rust, model, prefix, every_stretch, before)
    rust.add_special_tokens([AddedToken(text, normalized=False) for text in model.texts(spm.CONTROL) if text in vocab])
    own = [text for text in model.texts(spm.USER_DEFINED) if text in vocab]
    # then "▁▁" is found where spaces are written so; else Prepend is in the way
    normalized = not prefix or bool(row.words)
    rust.add_tokens([AddedToken(text, normalized=normalized and SPACE in text, special=False) for text in own])
    return rust


def merges(model: spm.SentencePieceModel) -> list[tuple[str, str]]:
    """The merge list that the scores of a BPE model stand for.

    sentencepiece merges the adjacent pair whose union has the highest score, and has no list. Every way to
    split a piece into two pieces is a merge, in the order of the union's score; splits of one union go by
    their left part. Control, unknown and byte pieces are never made by merging (`bpe_model.cc`,
    `reserved_id_map_`).
    """
    kinds = (spm.NORMAL, spm.USER_DEFINED, spm.UNUSED)
    known = {piece.text for piece in model.pieces if piece.kind in kinds}
    ranked = sorted((piece for piece in model.pieces if piece.kind in kinds), key=lambda piece: -piece.score)
    found = []
    for piece in ranked:
        text = piece.text
        for cut in range(1, len(text)):
            if text[:cut] in known and text[cut:] in known:
                found.append((text[:cut], text[cut:]))
    return found


def _whitespace_rules(model: spm.SentencePieceModel, first: str = "") -> list[normalizers.Normalizer]:
    """The file's character table, then: no space at the ends, one where there are several.

    Spaces at the start become `first`: the dummy space that comes there anyway, where a text without them gets it
    from Metaspace. (Metaspace knows the first stretch by its place in the raw text, so none may be deleted there.)
    """
    rules: list[normalizers.Normalizer] = []
    if model.charsmap:
        rules.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        rules += [normalizers.Replace(Regex(r" +\z"), ""), normalizers.Replace(Regex(r"\A +"), first)]
        rules.append(normalizers.Replace(Regex(" {2,}"), " "))
    return rules


def _sentence(
    rust: Tokenizer,
    model: spm.SentencePieceModel,
    prefix: bool,
    every_stretch: bool,
    before: list[normalizers.Normalizer],
) -> None:
    """Pieces may cross spaces: sentencepiece's own rule, the whole text is one unit.

    A normalizer runs on every stretch between special tokens; only Metaspace knows which is the first. It
    prepends its character unless the text begins with it; with a real space as the character, in a text where
    spaces are already written as ▁, it always prepends.
    """
    metaspace = pre_tokenizers.Metaspace
    strips = model.remove_extra_whitespaces
    rules = [*before, *_whitespace_rules(model, SPACE if prefix and strips and not every_stretch else "")]
    if prefix and every_stretch:
        rules.append(normalizers.Prepend(SPACE))
    rust.normalizer = normalizers.Sequence([*rules, normalizers.Replace(" ", SPACE)])
    if prefix and not every_stretch:
        first = metaspace(SPACE if strips else " ", prepend_scheme="first", split=False)
        rust.pre_tokenizer = pre_tokenizers.Sequence([first, metaspace(SPACE, prepend_scheme="never", split=False)])
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    rust.decoder = decoders.Sequence(steps)


def _words(
    rust: Tokenizer,
    model: spm.SentencePieceModel,
    prefix: bool,
    row: TokenizerClass,
    options: Mapping[str, Any],
    before: list[normalizers.Normalizer],
) -> None:
    """Pieces stay within words, as in the tokenizer.json files that these models publish."""
    scheme = "always" if prefix else "never"
    cut: list[pre_tokenizers.PreTokenizer] = []
    rules: list[normalizers.Normalizer] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if row.words == "whitespace":
        cut.append(pre_tokenizers.WhitespaceSplit())
    else:
        rules = _whitespace_rules(model)
    if options.get("split_by_punct"):
        cut.append(pre_tokenizers.Punctuation("isolated"))
    cut.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=True))
    steps = [*before, *rules]
    rust.normalizer = normalizers.Sequence(steps) if len(steps) > 1 else steps[0] if steps else None
    rust.pre_tokenizer = pre_tokenizers.Sequence(cut)
    back: list[decoders.Decoder] = [decoders.Metaspace(SPACE, prepend_scheme=scheme, split=True)]
    if model.byte_fallback:
        back += [decoders.ByteFallback(), decoders.Fuse()]
    rust.decoder = decoders.Sequence(back) if len(back) > 1 else back[0]
