"""The table of docs/tokenizers.md: class and file form, cases equal, the reference's own score beside ours.

    python tests/text/table.py            # prints it; needs the sibling folder shared/data

A case is a text. Right is what others wrote down (llama.cpp's `expected/*.out`, swift-transformers' tests), else what
the sentencepiece library gives for its file, else the model's own algorithm by its description (`originals.py`).
Where there is none of these (CLIP), the reference is the judge.
"""

from __future__ import annotations

import functools
import gzip
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "tests")]

import originals  # noqa: E402
import vocabularies  # noqa: E402
from folders import CLASS_FOLDERS, DATA, SHARED, SPECIAL, TABLE, TEXTS, folder, golden, source  # noqa: E402

from gguf_files import write  # noqa: E402
from pellucid.text import classes  # noqa: E402
from pellucid.text.tokenizer import Tokenizer  # noqa: E402

TEMPORARY = Path(tempfile.mkdtemp(prefix="pellucid-table-"))
Encode = Callable[[str], list[int]]


class Vocabulary(NamedTuple):
    """judge: the right ids of a text, None for the reference's of the first form. forms: name -> folder or file."""

    name: str
    tokenizer_class: str
    forms: dict[str, Path]
    judge: Encode | None
    golden: str = ""
    swift: str = ""


@functools.cache
def declaration() -> list[str]:
    """The lines of the Universal Declaration of Human Rights in 12 languages."""
    files = sorted((SHARED / "text" / "udhr").glob("*.txt"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]


@functools.cache
def inputs() -> list[str]:
    """llama.cpp's texts; the three files hold the same ones, but for one or two."""
    names = ("gpt-2", "llama-spm", "bert-bge")
    return list(dict.fromkeys(text for name in names for text, _ in golden(name)))


def filled(name: str, files: dict[str, Path], **config: Any) -> Path:
    path = TEMPORARY / name
    path.mkdir()
    for to, file in files.items():
        shutil.copyfile(file, path / to)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def saved(name: str, form: Path) -> Path:
    """The same vocabulary as tokenizer.json."""
    path = TEMPORARY / f"{name}-json"
    Tokenizer.from_folder(form).save_pretrained(path)
    return path


def pairs(name: str, rust: Any) -> dict[str, Path]:
    """vocab.json and merges.txt of a BPE model."""
    path = TEMPORARY / f"{name}-bpe"
    path.mkdir()
    rust.model.save(str(path))
    return {each: path / each for each in ("vocab.json", "merges.txt")}


def clip() -> Path:
    """OpenAI's merges as the two files that CLIP publishes on the hub (openai/CLIP, clip/simple_tokenizer.py)."""
    lines = gzip.decompress(source("clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    merges = [line.split() for line in lines[1 : 49152 - 256 - 2 + 1]]
    letters = originals.printable_bytes()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    files = {"vocab.json": TEMPORARY / "clip.json", "merges.txt": TEMPORARY / "clip.txt"}
    files["vocab.json"].write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    files["merges.txt"].write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    return filled("clip", files, tokenizer_class="CLIPTokenizer")


def sentencepiece_judge(file: Path) -> Encode:
    from sentencepiece import SentencePieceProcessor

    encode: Encode = SentencePieceProcessor(model_file=str(file)).encode
    return encode


def byte_judge(form: Path) -> Encode:
    vocab = json.loads((form / "vocab.json").read_text(encoding="utf-8"))
    lines = (form / "merges.txt").read_text(encoding="utf-8").split("\n")[1:]
    merges = [(line.split(" ")[0], line.split(" ")[1]) for line in lines if line]
    return originals.ByteBpe(vocab, merges).encode


def collection() -> list[Vocabulary]:
    gpt2, llama, bert, t5 = (folder(name) for name in ("gpt2", "llama2", "bert-uncased", "t5"))
    whisper = filled(
        "whisper",
        {"multilingual.tiktoken": source("whisper/multilingual.tiktoken")},
        tokenizer_class="WhisperTokenizer",
    )
    whisper_pairs = filled(
        "whisper-pairs", pairs("whisper", Tokenizer.from_folder(whisper).rust), tokenizer_class="WhisperTokenizer"
    )
    ranks = filled("gpt2-ranks", {"gpt2.tiktoken": source("tiktoken/gpt2.tiktoken")}, tokenizer_class="GPT2Tokenizer")
    cut = clip()
    lower = originals.Bert(vocabulary_of(bert / "vocab.txt"), lower=True)
    japanese = {"tokenizer.model": source("spm-unigram/test_ja_model.model")}
    unigram = {"tokenizer.model": source("spm-unigram/test_model.model")}
    generic = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return [
        Vocabulary(
            "GPT-2",
            "GPT2Tokenizer",
            {
                "vocab.json + merges.txt": gpt2,
                "tokenizer.json": saved("gpt2", gpt2),
                "tiktoken": ranks,
                "GGUF": write(TEMPORARY / "gpt2.gguf", vocabularies.gpt2()),
            },
            byte_judge(gpt2),
            "gpt-2",
            "distilgpt2",
        ),
        Vocabulary(
            "Llama 2",
            "LlamaTokenizer",
            {
                "sentencepiece": llama,
                "tokenizer.json": saved("llama", llama),
                "GGUF": SHARED / "gguf" / "vocab-llama-spm.gguf",
            },
            sentencepiece_judge(llama / "tokenizer.model"),
            "llama-spm",
            "coreml-projects/Llama-2-7b-chat-coreml",
        ),
        Vocabulary(
            "BERT uncased",
            "BertTokenizer",
            {
                "vocab.txt": bert,
                "tokenizer.json": saved("bert", bert),
                "GGUF": write(TEMPORARY / "bert.gguf", vocabularies.bert()),
            },
            lower.encode,
            "bert-bge",
            "bert-base-uncased",
        ),
        Vocabulary(
            "T5",
            "T5Tokenizer",
            {"sentencepiece": t5, "tokenizer.json": saved("t5", t5)},
            sentencepiece_judge(t5 / "spiece.model"),
        ),
        Vocabulary(
            "test_model",
            "generic",
            {"sentencepiece": filled("unigram", unigram, **generic)},
            sentencepiece_judge(unigram["tokenizer.model"]),
        ),
        Vocabulary(
            "test_ja_model",
            "generic",
            {"sentencepiece": filled("unigram-ja", japanese, **generic)},
            sentencepiece_judge(japanese["tokenizer.model"]),
        ),
        Vocabulary(
            "CLIP", "CLIPTokenizer", {"vocab.json + merges.txt": cut, "tokenizer.json": saved("clip", cut)}, None
        ),
        Vocabulary(
            "Whisper",
            "WhisperTokenizer",
            {
                "vocab.json + merges.txt": whisper_pairs,
                "tokenizer.json": saved("whisper", whisper_pairs),
                "tiktoken": whisper,
            },
            byte_judge(whisper_pairs),
        ),
    ]


def vocabulary_of(path: Path) -> dict[str, int]:
    return {line: i for i, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1])}


def reference(form: Path, tokenizer_class: str) -> Any:
    """The reference's tokenizer of a folder; None for a form that it does not read without other packages."""
    import transformers

    names = {path.name for path in form.iterdir()} if form.is_dir() else set()
    if not form.is_dir() or any(name.endswith(".tiktoken") for name in names):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "tokenizer.json" in names or tokenizer_class == "generic":
            return transformers.AutoTokenizer.from_pretrained(str(form))
        return getattr(transformers, tokenizer_class).from_pretrained(str(form))


def rows(vocabulary: Vocabulary) -> list[str]:
    """One line of the table for each form."""
    texts = [*inputs(), *declaration()]
    first = reference(next(iter(vocabulary.forms.values())), vocabulary.tokenizer_class)
    judge = vocabulary.judge or (lambda text: list(first.encode(text, add_special_tokens=False)))
    written = dict(golden(vocabulary.golden)) if vocabulary.golden else {}
    right = {text: written[text] if text in written else judge(text) for text in texts}
    swift = json.loads((DATA / "expected" / "swift_tests.json").read_text(encoding="utf-8")).get(vocabulary.swift, [])
    found = []
    for name, form in vocabulary.forms.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tok = Tokenizer.from_folder(form)
        there = reference(form, vocabulary.tokenizer_class)
        scores = [score(each, right, swift) if each is not None else "—" for each in (tok, there)]
        label = f"{vocabulary.name} ({vocabulary.tokenizer_class})"
        found.append(f"| {label} | {name} | {len(right) + len(swift):,} | {' | '.join(scores)} |")
    return found


def score(tok: Any, right: dict[str, list[int]], swift: list[dict[str, Any]]) -> str:
    equal = sum(list(tok.encode(text, add_special_tokens=False)) == ids for text, ids in right.items())
    equal += sum(list(tok(case["input"])["input_ids"]) == case["encoded"]["input_ids"] for case in swift)
    total = len(right) + len(swift)
    return "all" if equal == total else f"{equal:,}"


# ---- every class -------------------------------------------------------------------------------------------


def class_row(name: str) -> str:
    """Our ids against the reference's and sentencepiece's, for the small vocabularies of `made.py`."""
    import test_classes
    from corpus_texts import LINES

    recipe, texts = TABLE[name], [*TEXTS, *SPECIAL, *LINES]
    files = list(recipe["files"].values())
    tok = test_classes.ours(name)
    same = sum(tok(text)["input_ids"] == test_classes.reference_ids(name, text) for text in texts)
    own = "—"
    if spm := [file for file in files if "spm-" in file]:
        judge = sentencepiece_judge(source(spm[0]))
        pieces = judge.__self__.id_to_piece  # type: ignore[attr-defined]
        plain = [text for text in texts if text not in SPECIAL]
        equal = sum(
            tok.convert_ids_to_tokens(tok.encode(text, add_special_tokens=False)) == [pieces(id) for id in judge(text)]
            for text in plain
        )
        own = "all" if equal == len(plain) else f"{equal} of {len(plain)}"
        own = own if not classes.row(name).text else f"{own} (text is changed before)"
    form = " + ".join(recipe["files"]) or "no file"
    return f"| {name} | {form} | {'all' if same == len(texts) else same} | {own} | {recipe.get('differs', '')} |"


def main() -> None:
    print("| vocabulary (class) | form | cases | Pellucid | transformers 5.23 |\n|---|---|---|---|---|")
    for vocabulary in collection():
        print("\n".join(rows(vocabulary)), flush=True)
    print(
        "\n| class | form | as the reference | as sentencepiece | where the reference differs |\n|---|---|---|---|---|"
    )
    for name in CLASS_FOLDERS:
        print(class_row(name), flush=True)
    shutil.rmtree(TEMPORARY)


if __name__ == "__main__":
    main()
