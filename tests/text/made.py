"""Small vocabularies, trained here in a second or two, in every form that models publish: `made("words/vocab.json")`.

They stand in for files that are too large to copy. The texts are the twelve languages of tests/data/text/udhr.json.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from corpus_texts import LINES
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from pellucid.text import languages

ROOT = Path(tempfile.mkdtemp(prefix="pellucid-made-"))
GPT = ["<|endoftext|>", "<|startoftext|>", "<|padding|>"]
FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BRACKETS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[QUESTION]", "[X_SEP]", "[EMPTY]", "."]
ANGLES = ["<pad>", "<unk>", "<cls>", "<sep>", "<mask>", "<s>", "</s>", "[UNK]"]
COHERE = ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"]
SPECIALS = {"none": [], "gpt": GPT, "fairseq": FAIRSEQ, "brackets": BRACKETS, "cohere": COHERE}
LETTERS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


def made(name: str) -> Path:
    """The file of that name; its folder is made when it is first asked for."""
    folder, _, file = name.partition("/")
    return _folder(folder) / file


@functools.cache
def _folder(name: str) -> Path:
    kind, _, variant = name.partition("-")
    path = ROOT / name
    path.mkdir()
    MAKERS[kind](path, variant)
    return path


def _bytes(path: Path, variant: str) -> None:
    """GPT-2's form."""
    rust = Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=SPECIALS[variant])
    rust.train_from_iterator(LINES, trainer)
    rust.model.save(str(path))


def _words(path: Path, variant: str) -> None:
    """Words with an end, over characters."""
    rust = Tokenizer(models.BPE(unk_token="<unk>"))
    rust.normalizer = normalizers.BertNormalizer(lowercase=variant != "cased")
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [*FAIRSEQ, "__start__", "__end__", "__unk__", "__null__", "__newln__"]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, limit_alphabet=150, end_of_word_suffix="</w>", special_tokens=special
    )
    rust.train_from_iterator(LINES, trainer)
    rust.model.save(str(path))
    _as_fastbpe(path, special)


def _as_fastbpe(path: Path, special: list[str]) -> None:
    """The same pieces as CTRL (`lo@@`) and PhoBERT (vocab.txt, bpe.codes) write them, below `at/`."""
    vocab = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
    merges = (path / "merges.txt").read_text(encoding="utf-8")
    written = {
        text: text if text in special else text.removesuffix("</w>") if text.endswith("</w>") else f"{text}@@"
        for text in vocab
    }
    (path / "at-vocab.json").write_text(json.dumps({written[text]: id for text, id in vocab.items()}))
    own = [text for text in written.values() if text not in special]
    (path / "vocab.txt").write_text("".join(f"{text} 7\n" for text in own), encoding="utf-8")
    codes = merges.partition("\n")[2].splitlines()
    (path / "bpe.codes").write_text("".join(f"{line} 7\n" for line in codes), encoding="utf-8")


def _clip(path: Path, variant: str) -> None:
    """CLIP's: lower case, bytes, </w>."""
    from pellucid.text.recipes import clip

    rust = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    rust.normalizer, rust.pre_tokenizer, _ = clip({})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = [*letters, *(f"{letter}</w>" for letter in letters)]
    trainer = trainers.BpeTrainer(vocab_size=1200, end_of_word_suffix="</w>", special_tokens=[*every, *GPT])
    rust.train_from_iterator(LINES, trainer)
    rust.model.save(str(path))


def _pieces(path: Path, variant: str) -> None:
    """vocab.txt: WordPiece, with the special tokens of several classes in front."""
    special = {"angles": ANGLES, "brackets": BRACKETS}[variant]
    rust = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rust.normalizer = normalizers.BertNormalizer()
    rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=1200, limit_alphabet=200, special_tokens=special)
    rust.train_from_iterator(LINES, trainer)
    rust.model.save(str(path))


def _letters(path: Path, variant: str) -> None:
    (path / "vocab.txt").write_text("\n".join(LETTERS))


UNIGRAM = {"model_type": "unigram", "hard_vocab_limit": False}
SENTENCEPIECE: dict[str, dict[str, Any]] = {
    "unigram": UNIGRAM,
    "bpe": {"model_type": "bpe"},
    "char": {"model_type": "char"},
    "albert": UNIGRAM | {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": "[CLS],[SEP],[MASK]"},
    "deberta": UNIGRAM
    | {"pad_id": 0, "unk_id": 3, "bos_id": 1, "eos_id": 2, "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    | {"bos_piece": "[CLS]", "eos_piece": "[SEP]"},
    "xlnet": UNIGRAM | {"control_symbols": "<cls>,<sep>,<pad>,<mask>,<eod>,<eop>"},
    "t5": UNIGRAM | {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "barthez": UNIGRAM | {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "user_defined_symbols": "<mask>"},
    "bytes": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"},
    "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
    | {"remove_extra_whitespaces": False, "split_digits": True},
    "gemma": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
    | {"remove_extra_whitespaces": False, "split_digits": True, "add_dummy_prefix": False}
    | {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "bos_piece": "<bos>", "eos_piece": "<eos>"}
    | {"user_defined_symbols": ["<mask>", "<start_of_turn>", "▁▁", "▁▁▁", "\n\n"]},
    "seamless": {"model_type": "bpe", "user_defined_symbols": ["__eng__", "__fra__", "__deu__"]},
    "sw3": {"model_type": "bpe", "user_defined_symbols": "<|endoftext|>", "pad_id": 3, "byte_fallback": True},
}


def _spm(path: Path, variant: str) -> None:
    train_sentencepiece(path / "m.model", LINES, vocab_size=1800, **SENTENCEPIECE[variant])


def train_sentencepiece(path: Path, lines: Iterable[str], **options: Any) -> Any:
    """A sentencepiece file, and the library's processor for it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), minloglevel=3, **options
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _mapped(path: Path, variant: str) -> None:
    """A vocab.json that numbers the pieces of other files in an order of its own."""
    half = len(LINES) // 2
    source = train_sentencepiece(path / "source.spm.model", LINES[:half], vocab_size=1200, **SENTENCEPIECE["unigram"])
    target = train_sentencepiece(path / "target.spm.model", LINES[half:], vocab_size=1200, **SENTENCEPIECE["unigram"])
    files = [source, target] if variant == "marian" else [source]
    pieces = {each.id_to_piece(i) for each in files for i in range(3, each.get_piece_size())}
    first = ["</s>", "<unk>", ">>fra<<"] if variant == "marian" else ["<s>", "<pad>", "</s>", "<unk>"]
    last = ["<pad>"] if variant == "marian" else []
    order = [*first, *sorted(pieces, key=lambda text: (len(text), text)), *last]
    (path / "vocab.json").write_text(json.dumps({text: i for i, text in enumerate(order)}))


def _whisper(path: Path, variant: str) -> None:
    """Byte-level BPE, with Whisper's special tokens in added_tokens.json."""
    _bytes(path, "none")
    vocab = json.loads((path / "vocab.json").read_text(encoding="utf-8"))
    vocab["<|endoftext|>"] = len(vocab)
    (path / "vocab.json").write_text(json.dumps(vocab))
    special = ["<|startoftranscript|>", *(f"<|{code}|>" for code in languages.WHISPER), "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]
    times = [f"<|{i * 0.02:.2f}|>" for i in range(1501)]
    ids = {text: len(vocab) + i for i, text in enumerate([*special, *times])}
    (path / "added_tokens.json").write_text(json.dumps(ids))
    named = {"additional_special_tokens": ["<|endoftext|>", *special]}
    (path / "special_tokens_map.json").write_text(json.dumps(named))


MAKERS: dict[str, Callable[[Path, str], None]] = {
    "bytes": _bytes,
    "words": _words,
    "clip": _clip,
    "pieces": _pieces,
    "letters": _letters,
    "spm": _spm,
    "mapped": _mapped,
    "whisper": _whisper,
}
