"""Many threads with one tokenizer: nobody sees another's settings, and memory stays as it is."""

from __future__ import annotations

import copy
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from folders import TEXTS, folder
from tokenizers import processors

from pellucid.text.calling import KEPT
from pellucid.text.tokenizer import Tokenizer

OPTIONS: list[dict[str, Any]] = [
    {},
    {"padding": True},
    {"truncation": True, "max_length": 7},
    {"truncation": True, "max_length": 12, "stride": 2, "return_overflowing_tokens": True},
    {"truncation": True, "max_length": 9, "padding": "max_length", "padding_side": "left"},
    {"split_special_tokens": True, "return_offsets_mapping": True},
    {"padding": True, "pad_to_multiple_of": 16, "add_special_tokens": False},
]


@pytest.mark.parametrize("name", ["bert-uncased", "gpt2", "t5"])
def test_threads_do_not_see_each_others_settings(name: str) -> None:
    tok = Tokenizer.from_folder(folder(name))
    if tok.pad_token is None:
        tok.pad_token = tok.eos_token
    texts = [text for text in TEXTS if text][:12]
    expected = [tok(texts, **options) for options in OPTIONS]

    def work(turn: int) -> bool:
        which = turn % len(OPTIONS)
        return dict(tok(texts, **OPTIONS[which])) == dict(expected[which])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


def test_settings_follow_the_tokenizer() -> None:
    """What was made for a call's settings is made again when the tokenizer changes, by whatever way."""
    tok = Tokenizer.from_folder(folder("bert-uncased"))
    cut: dict[str, Any] = {"truncation": True, "max_length": 6}
    before = tok.encode("a qwertz b", **cut)
    tok.add_tokens(["qwertz"])
    assert tok.encode("a qwertz b", **cut) == [101, 1037, 30522, 1038, 102] != before
    tok.add_special_tokens({"extra_special_tokens": ["[X]"]})
    assert tok.encode("a [X] b", **cut) == [101, 1037, 30523, 1038, 102]
    backend = tok.backend_tokenizer
    assert tok.encode("a b", **cut) == [101, 1037, 1038, 102]
    backend.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 102)])
    assert tok.encode("a b", **cut) == [1037, 1038, 102]
    backend.add_tokens(["zxcvb"])
    assert tok.encode("zxcvb", **cut) == [30524, 102]
    shared = Tokenizer(tokenizer_object=backend)
    assert shared.encode("a b", **cut) == [1037, 1038, 102]
    backend.add_tokens(["mnbv"])
    assert shared.encode("mnbv", **cut) == tok.encode("mnbv", **cut) == [30525, 102]
    other = copy.deepcopy(tok)
    other.add_tokens(["poiu"])
    assert len(other) == len(tok) + 1 and other.encode("poiu", **cut) == [30526, 102] != tok.encode("poiu", **cut)


def test_many_settings_take_no_room() -> None:
    tok = Tokenizer.from_folder(folder("bert-uncased"))
    for length in range(4, 200):
        assert len(tok.encode("a " * 300, truncation=True, max_length=length)) == length
    assert len(tok._settled) <= KEPT


def resident() -> int:
    """KiB of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
@pytest.mark.parametrize("name", ["bert-uncased", "gpt2"])
def test_memory_is_flat(name: str) -> None:
    """Encodes of texts that were never seen; a million takes the same (benchmarks/tokenizing.py memory)."""
    tok = Tokenizer.from_folder(folder(name))

    def some(start: int) -> None:
        for i in range(start, start + 8_000):
            ids = tok(f"text {i} of many {i * 7919}", truncation=True, max_length=16)["input_ids"]
            tok.decode(ids)

    some(0)
    before = resident()
    some(8_000)
    assert resident() - before < 4096
