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

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid.text.classes import TokenizerClass
from pellucid.text.formats import spm

SPACE = "▁"  # how sentencepiece writes a space (U+2581)


def plain_layout(model: spm.SentencePieceModel, options: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Ids as in the file."""
    return [(piece.text, piece.score) for piece in model.pieces]


def t5_layout(model: spm.SentencePieceModel, options: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Sentinels after the file's pieces, counted backwards: <extra_id_0> is the last id."""
    sentinels = [(text, 0.0) for text in reversed(sentinel_tokens(options))]
    return plain_layout(model, options) + sentinels


def fairseq_layout(model: spm.SentencePieceModel, options: Mapping[str, Any]) -> list[tuple[str, float]]:
    """fairseq's order of the first four, then the file's pieces without its first three, then <mask>."""
    first = [(text, 0.0) for text in ("<s>", "<pad>", "</s>", "<unk>")]
    return first + plain_layout(model, options)[3:] + [("<mask>", 0.0)]


LAYOUTS: dict[str, Callable[[spm.SentencePieceModel, Mapping[str, Any]], list[tuple[str, float]]]] = {
    "plain": plain_layout,
    "t5": t5_layout,
    "fairseq": fairseq_layout,
}


def sentinel_tokens(options: Mapping[str, Any]) -> list[str]:
    """T5's <extra_id_0> … in reading order; none for other classes."""
    return [f"<extra_id_{i}>" for i in range(options.get("extra_ids") or 0)]


def build(files: list[Path], row: TokenizerClass, options: Mapping[str, Any], unk: str | None) -> Tokenizer:
    """A `.model` file. `unk` is not used: the file marks its own unknown piece."""
    model = spm.read(files[0])
    pieces = LAYOUTS[row.layout](model, options)
    vocab = {text: i for i, (text, _) in enumerate(pieces)}
    unknown = model.texts(spm.UNKNOWN)[0]
    if model.algorithm == spm.BPE:
        algorithm: models.Model = models.BPE(
            vocab=vocab,
            merges=merges(model),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    else:
        algorithm = models.Unigram(pieces, unk_id=vocab[unknown], byte_fallback=model.byte_fallback)
    rust = Tokenizer(algorithm)
    asked = options.get("add_prefix_space")
    prefix = model.add_dummy_prefix if asked is None else bool(asked)
    if row.words:
        _words(rust, model, prefix)
    else:
        every_stretch = "legacy" not in row.options or bool(options["legacy"])
        _sentence(rust, model, prefix, every_stretch)
    for kind, special in ((spm.CONTROL, True), (spm.USER_DEFINED, False)):
        rust.add_tokens([AddedToken(text, normalized=False, special=special) for text in model.texts(kind)])
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


def _whitespace_rules(model: spm.SentencePieceModel) -> list[normalizers.Normalizer]:
    """The file's character table, then: no space at the ends, one where there are several."""
    rules: list[normalizers.Normalizer] = []
    if model.charsmap:
        rules.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        rules += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return rules


def _sentence(rust: Tokenizer, model: spm.SentencePieceModel, prefix: bool, every_stretch: bool) -> None:
    """Pieces may cross spaces: sentencepiece's own rule, the whole text is one unit.

    A normalizer runs on every stretch between special tokens; only Metaspace knows which is the first. It
    prepends its character unless the text begins with it; with a real space as the character, in a text where
    spaces are already written as ▁, it always prepends.
    """
    rules = _whitespace_rules(model)
    if prefix and every_stretch:
        rules.append(normalizers.Prepend(SPACE))
    rust.normalizer = normalizers.Sequence([*rules, normalizers.Replace(" ", SPACE)])
    if prefix and not every_stretch:
        metaspace = pre_tokenizers.Metaspace
        first = metaspace(" ", prepend_scheme="first", split=False)
        rust.pre_tokenizer = pre_tokenizers.Sequence([first, metaspace(SPACE, prepend_scheme="never", split=False)])
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    rust.decoder = decoders.Sequence(steps)


def _words(rust: Tokenizer, model: spm.SentencePieceModel, prefix: bool) -> None:
    """Pieces stay within words, as in the tokenizer.json that T5 and XLM-RoBERTa publish."""
    scheme = "always" if prefix else "never"
    if model.charsmap:
        rust.normalizer = normalizers.Precompiled(model.charsmap)
    split = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=True)
    rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    rust.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme, split=True)
