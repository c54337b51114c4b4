"""tiktoken's rank files and Mistral's tekken.json, against tiktoken's own algorithm written out."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from folders import TEXTS, golden, source
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pellucid.errors import PellucidError, TokenizerError
from pellucid.text.formats import tiktoken
from pellucid.text.formats.encodings import ENCODINGS, TEKKEN
from pellucid.text.tokenizer import Tokenizer

BYTES = {bytes([byte]): byte for byte in range(256)}


def slow(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """tiktoken, src/lib.rs: a whole piece, else the pair of the lowest rank, the leftmost of equals, and so on."""
    if piece in ranks:
        return [ranks[piece]]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        known = [(ranks[a + b], i) for i, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ranks]
        if not known:
            return [ranks[part] for part in parts]
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def write_ranks(path: Path, ranks: Mapping[bytes, int]) -> Path:
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


# ---- the conversion --------------------------------------------------------------------------------------


@st.composite
def vocabularies(draw: st.DrawFn) -> dict[bytes, int]:
    """256 bytes and tokens of a, b, c: made of tokens or of nothing, in an order of ranks that may make no sense."""
    tokens = [b"a", b"b", b"c"]
    for _ in range(draw(st.integers(0, 14))):
        made = draw(st.sampled_from(tokens)) + draw(st.sampled_from(tokens))
        tokens.append(draw(st.sampled_from([made, made, made, draw(st.binary(max_size=4).map(only_abc))])))
    new = list(dict.fromkeys(token for token in tokens[3:] if len(token) > 1))
    if draw(st.booleans()):
        new = draw(st.permutations(new))
    return BYTES | {token: 256 + i for i, token in enumerate(new)}


def only_abc(data: bytes) -> bytes:
    return bytes(b"abc"[byte % 3] for byte in data)


@settings(max_examples=200, deadline=None)
@given(ranks=vocabularies(), texts=st.lists(st.text("abc", max_size=24), min_size=1, max_size=8))
@example(ranks=BYTES | {b"ab": 256, b"ba": 257, b"aba": 258}, texts=["ababa", "abaaba"])
@example(ranks=BYTES | {b"aba": 256, b"ab": 257, b"abab": 258}, texts=["ababab"])
@example(ranks=BYTES | {b"abc": 256}, texts=["abc", "abca"])  # a token that no merge makes
def test_merges_from_ranks(ranks: dict[bytes, int], texts: list[str]) -> None:
    rust = tiktoken.convert(ranks, r"\p{L}+", {}, where="here")
    for text in texts:
        assert rust.encode(text).ids == slow(text.encode(), ranks)


def train(text: str, count: int) -> dict[bytes, int]:
    """Ranks as a trainer makes them: the most frequent pair, again and again."""
    ranks, words = dict(BYTES), [[word[i : i + 1] for i in range(len(word))] for word in text.encode().split(b" ")]
    for _ in range(count):
        pairs: dict[bytes, int] = {}
        for word in words:
            for a, b in zip(word, word[1:]):
                pairs[a + b] = pairs.get(a + b, 0) + 1
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        ranks.setdefault(best, len(ranks))
        for word in words:
            i = 0
            while i + 1 < len(word):
                if word[i] + word[i + 1] == best:
                    word[i : i + 2] = [best]
                i += 1
    return ranks


TRAINED = train(Path(__file__).read_text(encoding="utf-8"), 300)


@pytest.mark.parametrize("name", ["gpt2", "cl100k", "qwen", "o200k", "kimi"])
def test_every_byte_comes_back(name: str) -> None:
    encoding = ENCODINGS[name]
    rust = tiktoken.convert(TRAINED, encoding.pattern, {}, where="here", nfc=False)
    for text in [*TEXTS, "\x00\x1f\x85\u2028", "İſẞ ﷽ 𝔘", " " * 300, "\n" * 99]:
        assert rust.decode(rust.encode(text).ids) == text
        pieces = [piece for piece, _ in rust.pre_tokenizer.pre_tokenize_str(text)]
        back = {chr(code): byte for byte, code in tiktoken.ALPHABET.items()}
        expected = [id for piece in pieces for id in slow(bytes(back[letter] for letter in piece), TRAINED)]
        assert rust.encode(text).ids == expected


def test_gpt2_ranks_are_llama_cpps_cases(tmp_path: Path) -> None:
    ranks = source("tiktoken/gpt2.tiktoken")
    (tmp_path / "gpt2.tiktoken").write_bytes(ranks.read_bytes())
    tok = Tokenizer.from_folder(tmp_path)
    assert not [text for text, ids in golden("gpt-2") if tok.encode(text) != ids]
    assert (len(tok), tok.eos_token_id) == (50257, 50256)


def test_whisper(tmp_path: Path) -> None:
    (tmp_path / "multilingual.tiktoken").write_bytes(source("whisper/multilingual.tiktoken").read_bytes())
    tok = Tokenizer.from_folder(tmp_path)
    # openai/whisper, tests/test_tokenizer.py and the model's published ids
    said = {"<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|en|>": 50259, "<|su|>": 50357}
    said |= {"<|translate|>": 50358, "<|transcribe|>": 50359, "<|notimestamps|>": 50363, "<|0.00|>": 50364}
    assert {text: tok.convert_tokens_to_ids(text) for text in said} == said
    assert (len(tok), tok.convert_tokens_to_ids("<|30.00|>")) == (51865, 51864)
    assert tok.decode(tok.encode("다람쥐 헌 쳇바퀴에")) == "다람쥐 헌 쳇바퀴에"
    (tmp_path / "config.json").write_text('{"model_type": "whisper", "vocab_size": 51866}')
    third = Tokenizer.from_folder(tmp_path)
    assert (third.convert_tokens_to_ids("<|yue|>"), len(third)) == (50358, 51866)


# ---- whose file it is ------------------------------------------------------------------------------------

# Ids that the models' own code gives (see the sources in encodings.py).
IDS = {
    "llama3": {"<|begin_of_text|>": 128000, "<|eot_id|>": 128009, "<|python_tag|>": 128010, "<|image|>": 128011},
    "llama4": {"<|begin_of_text|>": 200000, "<|header_start|>": 200005, "<|eot|>": 200008, "<|image_start|>": 200080},
    "qwen": {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|extra_204|>": 151850},
    "cl100k": {"<|endoftext|>": 100257, "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276},
    "o200k": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    "o200k-harmony": {
        "<|startoftext|>": 199998,
        "<|return|>": 200002,
        "<|call|>": 200012,
        "<|reserved_201087|>": 201087,
    },
    "p50k": {"<|endoftext|>": 50256},
    "glm4": {"<|endoftext|>": 151329, "[gMASK]": 151331, "<sop>": 151333, "<|observation|>": 151338},
    "hunyuan": {"<|endoftext|>": 127957, "<|startoftext|>": 127958, "<|pad|>": 127961, "<|extra_203|>": 128165},
    "arcade100k": {"<|endoftext|>": 100257, "<|im_start|>": 100277, "<|reg0|>": 100280, "<|extra0|>": 100288},
    "phi3-small": {"<|dummy_id_2|>": 100256, "<|endoftext|>": 100257, "<|end|>": 100266, "<|endofprompt|>": 100276},
    "whisper-english": {"<|endoftext|>": 50256, "<|notimestamps|>": 50362},
}
SIZES = {"llama3": 128256, "llama4": 202048, "phi3-small": 100352, "kimi": 163840, "o200k-harmony": 201088}


@pytest.mark.parametrize("name", ENCODINGS)
def test_special_tokens(name: str) -> None:
    encoding = ENCODINGS[name]
    names = encoding.names(encoding.ranks)
    ids = {text: id for id, text in names.items()}
    assert len(ids) == len(names)
    assert {text: ids[text] for text in IDS.get(name, {})} == IDS.get(name, {})
    if name in SIZES:
        assert max(names) + 1 == SIZES[name]
    own = [token for token in encoding.tokens.values() if name != "kimi"]
    assert set(own) <= ids.keys()


def many(count: int) -> dict[bytes, int]:
    """So many ranks, of tokens that nothing makes."""
    return BYTES | {b"%x" % (i + 4096): i for i in range(256, count)}


def test_a_file_is_known_by_its_name_its_class_or_its_size(tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "tokenizer.model", many(1000))
    for name, encoding in ENCODINGS.items():
        for each in encoding.classes:
            assert tiktoken.recognise(path, each, None) == name
        for file in encoding.files:
            assert tiktoken.recognise(write_ranks(tmp_path / file, BYTES), "", None) == name
        assert tiktoken.recognise(path, name, None) == name
    with pytest.raises(TokenizerError, match=r"1000 tiktoken ranks(.|\n)*tokenizer_class="):
        tiktoken.recognise(path, "", None)
    with pytest.raises(TokenizerError, match=r"tokenizer_class=\['cl100k'"):
        tiktoken.recognise(write_ranks(tmp_path / "tokenizer.model", many(100256)), "", None)
    assert (
        tiktoken.recognise(write_ranks(tmp_path / "tokenizer.model", many(128000)), "LlamaTokenizer", None) == "llama3"
    )


def test_llama3(tmp_path: Path) -> None:
    """As in Meta's folder: tokenizer.model holds ranks, not a sentencepiece model."""
    write_ranks(tmp_path / "tokenizer.model", many(128000))
    tok = Tokenizer.from_folder(tmp_path)
    assert tok.encode("a<|eot_id|>") == [128000, 97, 128009] and len(tok) == 128256
    assert (tok.bos_token, tok.eos_token) == ("<|begin_of_text|>", "<|end_of_text|>")
    assert tok.encode("a", add_special_tokens=False) == [97]


def test_kimi_takes_its_names_from_the_folder(tmp_path: Path) -> None:
    write_ranks(tmp_path / "tiktoken.model", BYTES)
    named = {str(id): {"content": text} for id, text in ((163584, "[BOS]"), (163585, "[EOS]"), (163838, "[UNK]"))}
    config = {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": named, "eos_token": "[EOS]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tiktoken.model").write_bytes(base64.b64encode(b"a") + b" 97\n")
    with pytest.raises(TokenizerError, match="255 of the 256 bytes"):
        Tokenizer.from_folder(tmp_path)
    write_ranks(tmp_path / "tiktoken.model", many(163584))
    tok = Tokenizer.from_folder(tmp_path)
    assert tok.encode("[BOS]<|reserved_token_163600|>[UNK]") == [163584, 163600, 163838]
    assert tok.eos_token_id == 163585 and len(tok) == 163840


def test_glm4_begins_with_its_mask(tmp_path: Path) -> None:
    write_ranks(tmp_path / "tokenizer.model", many(151329))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ChatGLM4Tokenizer"}')
    assert Tokenizer.from_folder(tmp_path).encode("a") == [151331, 151333, 97]


def test_hunyuan_counts_lines(tmp_path: Path) -> None:
    lines = [base64.b64encode(token) + b" 7\n" for token in many(1000)]
    path = tmp_path / "hy.tiktoken"
    path.write_bytes(b"".join(lines))
    assert tiktoken.read(path, counted=True) == many(1000)
    with pytest.raises(TokenizerError, match="different ranks"):
        tiktoken.read(path)


# ---- tekken ----------------------------------------------------------------------------------------------


def tekken(ranks: Mapping[bytes, int] = TRAINED, **changes: Any) -> dict[str, Any]:
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None} for i, token in enumerate(ranks)
    ]
    config = {
        "pattern": TEKKEN,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": 100 + 400,
        "default_num_special_tokens": 100,
        "version": "v3",
    }
    return {"config": config, "vocab": vocab} | changes


def load_tekken(path: Path, data: Any) -> Tokenizer:
    (path / "tekken.json").write_text(json.dumps(data))
    return Tokenizer.from_folder(path)


def test_tekken(tmp_path: Path) -> None:
    tok = load_tekken(tmp_path, tekken())
    kept = dict(list(TRAINED.items())[:400])
    for text in TEXTS:
        ids = tok.encode(text, add_special_tokens=False)
        pieces = [piece for piece, _ in tok.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        back = {chr(code): byte for byte, code in tiktoken.ALPHABET.items()}
        expected = [id + 100 for piece in pieces for id in slow(bytes(back[letter] for letter in piece), kept)]
        if "<s>" not in text:
            assert ids == expected and tok.decode(ids) == text
    assert len(tok) == 500 and tok.padding_side == "left"
    assert (tok.bos_token, tok.eos_token, tok.unk_token, tok.pad_token) == ("<s>", "</s>", "<unk>", "<pad>")
    ids = [tok.convert_tokens_to_ids(text) for text in ("<unk>", "<s>", "[INST]", "[TOOL_CONTENT]", "<SPECIAL_20>")]
    assert ids == [0, 1, 3, 19, 20] and tok.encode("a[INST]") == [1, 197, 3]


def test_tekken_with_its_own_special_tokens(tmp_path: Path) -> None:
    texts = ["<unk>", "<s>", "</s>", "[THINK]"]
    special = [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(texts)]
    tok = load_tekken(tmp_path, tekken(special_tokens=special))
    assert tok.encode("[THINK]a[INST]")[:3] == [1, 3, 197]
    assert tok.convert_tokens_to_ids("<SPECIAL_4>") == 4 and tok.pad_token is None


# ---- broken and hostile ----------------------------------------------------------------------------------

BROKEN_RANKS = {
    "no number": b"YQ== x\n",
    "one word": b"YQ==\n",
    "three words": b"YQ== 1 2\n",
    "no base64": b"!!!! 1\n",
    "half of base64": b"YQ 1\n",
    "no UTF-8": b"\xff\xfe 1\n",
    "a rank below 0": b"YWI= -5\n",
    "a rank beyond all ids": b"YWI= 99999999999\n",
    "a rank of a thousand digits": b"YWI= " + b"9" * 5000 + b"\n",
    "a rank twice": b"YWI= 5\n",
    "a token of 257 bytes": base64.b64encode(b"x" * 257) + b" 256\n",
}


@pytest.mark.parametrize("name", BROKEN_RANKS)
def test_broken_ranks(name: str, tmp_path: Path) -> None:
    path = write_ranks(tmp_path / "gpt2.tiktoken", BYTES)
    path.write_bytes(path.read_bytes() + BROKEN_RANKS[name])
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(tmp_path)
    assert "gpt2.tiktoken" in str(caught.value) and len(str(caught.value)) < 500


def test_ranks_that_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken, "MAX_BYTES", 1000)
    write_ranks(tmp_path / "gpt2.tiktoken", BYTES)
    with pytest.raises(TokenizerError, match="too many"):
        Tokenizer.from_folder(tmp_path)


def test_runs_that_can_be_made_in_millions_of_ways(tmp_path: Path) -> None:
    runs = [letter * count for letter in (b"a", b"b", b"c", b"d", b"e") for count in range(2, 257)]
    write_ranks(tmp_path / "gpt2.tiktoken", BYTES | {run: 256 + i for i, run in enumerate(runs)})
    with pytest.raises(TokenizerError, match="ways"):
        Tokenizer.from_folder(tmp_path)


def special(rank: Any, text: Any) -> dict[str, Any]:
    return {"special_tokens": [{"rank": rank, "token_str": text, "is_control": True}]}


def config(**changes: Any) -> dict[str, Any]:
    return {"config": tekken()["config"] | changes}


BROKEN_TEKKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no configuration": ({"config": 5}, ""),
    "no pattern": ({"config": {}}, "lacks"),
    "a pattern that is a list": (config(pattern=[]), "pattern"),
    "a pattern that is none": (config(pattern="(((("), "broken"),
    "a billion special tokens": (config(default_num_special_tokens=10**9, default_vocab_size=2 * 10**9), "special"),
    "less than no special tokens": (config(default_num_special_tokens=-1), "special"),
    "more tokens than there are": (config(default_vocab_size=10**9), "configuration says"),
    "a size as text": (config(default_vocab_size="500"), "number"),
    "no vocabulary": ({"vocab": None}, ""),
    "a vocabulary of numbers": ({"vocab": list(range(500))}, ""),
    "ranks out of order": ({"vocab": tekken()["vocab"][::-1]}, "rank"),
    "a byte less": ({"vocab": tekken({token: 0 for token in TRAINED if token != b"a"})["vocab"]}, "256 bytes"),
    "a special token beyond the block": (special(100, "<x>"), "special token"),
    "a special token without text": (special(0, ""), "special token"),
    "a special token that is a number": (special(0, 7), "special token"),
    "a special token named like a filler": (special(0, "<SPECIAL_50>"), "twice"),
    "a special token that is a byte": (special(0, "a"), "another token"),
    "special tokens that are numbers": ({"special_tokens": [1, 2]}, ""),
}


@pytest.mark.parametrize("name", BROKEN_TEKKEN)
def test_broken_tekken(name: str, tmp_path: Path) -> None:
    changes, said = BROKEN_TEKKEN[name]
    with pytest.raises(TokenizerError) as caught:
        load_tekken(tmp_path, tekken(**changes))
    assert re.search(said, str(caught.value)) and str(tmp_path) in str(caught.value)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**9), form=st.sampled_from(["gpt2.tiktoken", "tekken.json"]))
def test_any_change_is_an_error_or_a_tokenizer(tmp_path_factory: pytest.TempPathFactory, seed: int, form: str) -> None:
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("changed")
    if form == "tekken.json":
        (folder / form).write_text(json.dumps(tekken()))
    else:
        write_ranks(folder / form, TRAINED)
    data = bytearray((folder / form).read_bytes())
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.choice([10, 32, 48, 255, chance.randrange(256)])
    (folder / form).write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
    try:
        tok = Tokenizer.from_folder(folder)
    except PellucidError:
        return
    assert tok.decode(tok.encode("hello w 日本", add_special_tokens=False)) == "hello w 日本"
