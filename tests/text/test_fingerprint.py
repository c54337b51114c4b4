"""The fingerprint: written by every save, compared by every load, and it names what changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import folders
import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as Rust
from tokenizers.models import BPE, WordLevel

import pellucid
from pellucid import hub
from pellucid.errors import TokenizerError
from pellucid.text import fingerprint
from pellucid.text.tokenizer import Tokenizer

NAMES = ["stories260K", "llama2", "gpt2", "bert-uncased", "bert-image", "bert-added", "t5", "xlm-roberta", "minilm"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Tokenizer.from_folder(hub.default_model()).save_pretrained(tmp_path)
    return tmp_path


def edit(path: Path, change) -> None:
    """`change` a JSON file in place."""
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")


def refused(folder: Path, **options) -> str:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_folder(folder, **options)
    assert caught.value.where == str(folder / fingerprint.FILE)
    return caught.value.what


# ---- the same tokenizer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_loads_equal(name, tmp_path):
    """Whatever the original form; also after the file was reformatted, which compares the whole vocabulary."""
    original = Tokenizer.from_folder(folders.folder(name))
    original.save_pretrained(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    stored = fingerprint.read(tmp_path)
    assert stored == fingerprint.take(again) and stored.digest == fingerprint.take(original).digest
    edit(tmp_path / "tokenizer.json", lambda value: None)
    Tokenizer.from_folder(tmp_path)


def test_the_reference_loads_the_folder_without_a_word_and_does_not_carry_the_file_on(saved, tmp_path, caplog):
    import transformers

    reference = transformers.AutoTokenizer.from_pretrained(saved)  # a warning would be an error
    assert not caplog.records
    assert reference("Lily went")["input_ids"] == Tokenizer.from_folder(saved)("Lily went")["input_ids"]
    reference.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / fingerprint.FILE).exists()
    Tokenizer.from_folder(tmp_path / "again")
    reference.save_pretrained(saved)  # over ours: another file, the same tokenizer
    Tokenizer.from_folder(saved)


def test_it_is_the_same_in_every_process(saved):
    code = """
import sys
from pathlib import Path
from pellucid.text import fingerprint
from pellucid.text.tokenizer import Tokenizer
folder = Path(sys.argv[1])
print(fingerprint.take(Tokenizer.from_folder(folder)), "torch" in sys.modules)
"""
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(saved)],
            capture_output=True,
            text=True,
            env=env,
        )
        assert done.stdout.split() == [str(fingerprint.read(saved)), "False"], done.stderr


def test_the_digest_is_pinned():
    """A change of this number is a change of the file's version: what was saved earlier would be refused."""
    vocab = {c: i for i, c in enumerate(["a", "b", "ab", "abab", "?"])}
    rust = Rust(BPE(vocab, [("a", "b"), ("ab", "ab")], unk_token="?"))
    tokenizer = Tokenizer(rust, roles={}, chat_template="{{ messages }}")
    tokenizer.add_special_tokens({"eos_token": "<end>"})
    assert str(fingerprint.take(tokenizer)) == "a25478f330180408"
    assert fingerprint.VERSION == 1


# ---- another one ---------------------------------------------------------------------------------------------


def lower(value):
    value["normalizer"] = {"type": "Lowercase"}


def swap_two(value):
    vocab = value["model"]["vocab"]
    vocab["▁Lily"], vocab["▁Tim"] = vocab["▁Tim"], vocab["▁Lily"]


def swap_merges(value):
    merges = value["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


def no_bos(value):
    value["post_processor"] = None


def an_option(value):
    value["added_tokens"][0]["lstrip"] = True


def no_decoder(value):
    value["decoder"] = None


def a_token_more(value):
    value["added_tokens"].append({**value["added_tokens"][0], "id": 512, "content": "<new>"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lower, ["probes have other ids, first ' ': [1, 35] now, [1, 410, 410] then"]),
        (swap_two, ["other texts, merges or scores"]),
        (swap_merges, ["other texts, merges or scores"]),
        (no_bos, ["57 of 57 probes have other ids, first '': [] now, [1] then"]),
        (an_option, ["the added tokens or their options differ"]),
        (no_decoder, ["probes decode differently, first [1, "]),
    ],
)
def test_every_change_of_the_file_is_named(saved, change, says):
    edit(saved / "tokenizer.json", change)
    what = refused(saved)
    for part in says:
        assert part in what
    Tokenizer.from_folder(saved, check_fingerprint=False).save_pretrained(saved)  # the way to accept it
    Tokenizer.from_folder(saved)


def test_a_role_a_token_and_a_template(saved):
    for text, files in (("<unk>", ("tokenizer_config.json", "special_tokens_map.json")), ("</s>", ())):
        for file in files or ("tokenizer_config.json", "special_tokens_map.json"):
            edit(saved / file, lambda config, text=text: config.update(eos_token=text))
        assert not files or "eos_token is '<unk>', was '</s>'" in refused(saved)
    (saved / "chat_template.jinja").write_text("{{ messages }}")
    assert "the chat template is new" in refused(saved)
    Tokenizer.from_folder(saved, chat_template="{{ mine }}")  # said by the caller: not a surprise
    (saved / "chat_template.jinja").unlink()
    edit(saved / "tokenizer.json", a_token_more)
    assert "513 tokens now, 512 then" in refused(saved)


def test_an_edited_template_is_named_and_its_names_too(saved):
    tokenizer = Tokenizer.from_folder(saved)
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    tokenizer.save_pretrained(saved)
    now = Tokenizer.from_folder(saved)
    now.chat_template = {"default": "a", "tool_use": "c", "rag": "d"}
    stored = fingerprint.read(saved)
    assert fingerprint.differences(stored, now, saved) == [
        "the chat template 'tool_use' differs",
        "the chat template 'rag' is new",
    ]


def test_the_whole_of_another_tokenizer(saved):
    Tokenizer.from_folder(folders.folder("bert-uncased")).save_pretrained(saved.parent / "bert")
    (saved / "tokenizer.json").write_bytes((saved.parent / "bert" / "tokenizer.json").read_bytes())
    what = refused(saved)
    assert "tokens now, 512 then" in what and "57 of 57 probes" in what and len(what) < 1000


def test_long_lists_of_ids_are_cut_where_they_part():
    same, now, then = tuple(range(100)), (*range(60), 7, *range(39)), (*range(60), 8, *range(39))
    shown = fingerprint.around(now, then)
    assert shown.startswith("[…, 56, 57, 58, 59, 7, 0") and shown.endswith(", …] (100 ids)")
    assert fingerprint.around(same[:5], then) == "[0, 1, 2, 3, 4]"
    assert fingerprint.around(same, same[:99]).endswith("99] (100 ids)")


def test_arguments_that_the_caller_gives_are_no_surprise(saved):
    assert Tokenizer.from_folder(saved, add_eos_token=True)("a")["input_ids"][-1] == 2
    Tokenizer.from_folder(saved, pad_token="<unk>", padding_side="left", model_max_length=7)
    edit(saved / "tokenizer.json", swap_two)  # but the vocabulary is still compared
    for options in ({"add_eos_token": True}, {"padding_side": "left"}, {"chat_template": "x"}):
        assert "other texts" in refused(saved, **options)


# ---- broken and odd ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"version": 1}', '{"version": 99}', '{"version": 1, "probes": 3}', "[" * 100_000, "\x00"]
    + ["{" + " " * (1 << 20) + "}"],
    ids=lambda text: text[:20].strip() or "empty",
)
def test_a_broken_file_says_what_to_do(saved, text):
    (saved / fingerprint.FILE).write_text(text)
    assert "not a fingerprint" in refused(saved)


@pytest.mark.parametrize("key", ["probes", "pair", "roles", "added", "tokens", "vocabulary", "templates", "files"])
@pytest.mark.parametrize("value", [None, 7, "x", [1.5], {"a": 1}, [[1, 2, 3]], [["a", ["b"]]]], ids=repr)
def test_values_of_the_wrong_kind(saved, key, value):
    edit(saved / fingerprint.FILE, lambda found: found.update({key: value, "files": value if key == "files" else {}}))
    refused(saved)


def test_a_probe_that_is_not_ours_is_looked_at(saved):
    """A later version may have other probes: those in the file count, not those in this version."""
    ids = list(Tokenizer.from_folder(saved)("a probe of the year 2031")["input_ids"])
    edit(saved / fingerprint.FILE, lambda f: f["probes"].append(["a probe of the year 2031", ids]))
    Tokenizer.from_folder(saved)
    edit(saved / fingerprint.FILE, lambda f: f["probes"][-1].__setitem__(1, ids[1:]))
    assert "1 of 58 probes have other ids, first 'a probe of the year 2031'" in refused(saved)


def test_merges_dropped_at_random_are_not_probed(tmp_path):
    vocab = {c: i for i, c in enumerate(["a", "b", "ab", "abab"])}
    rust = Rust(BPE(vocab, [("a", "b"), ("ab", "ab")], dropout=0.5))
    Tokenizer(rust, roles={}).save_pretrained(tmp_path)
    for _ in range(5):
        Tokenizer.from_folder(tmp_path)


def test_a_vocabulary_that_cannot_write_every_text(tmp_path):
    """Without an unknown token the library refuses most probes."""
    Tokenizer(Rust(WordLevel({"Hello": 0, "[UNK]": 1}, unk_token="<none>")), roles={}).save_pretrained(tmp_path)
    assert len(fingerprint.read(tmp_path).probes) == len(fingerprint.PROBES)
    Tokenizer.from_folder(tmp_path)


def test_the_probes_separate():
    """No two of these tokenizers have the same ids for all probes, and each group of probes is there for one."""
    rows = {
        name: Tokenizer.from_folder(folders.folder(name))
        for name in ("llama2", "llama2-legacy", "llama2-eos", "llama2-no-prefix", "gpt2", "gpt2-prefix", "gpt2-bos",
                     "bert-uncased", "bert-cased", "bert-accents", "bert-cleans-up", "t5", "t5-five-sentinels",
                     "unigram")
    }  # fmt: skip
    looks = {name: fingerprint.look(tokenizer) for name, tokenizer in rows.items()}
    names = list(rows)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert looks[a] != looks[b], (a, b)


# ---- models --------------------------------------------------------------------------------------------------


def test_a_model_remembers_the_tokenizer_beside_its_weights(tmp_path):
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    model.save_pretrained(tmp_path)
    stored = fingerprint.read(tmp_path)
    assert stored == fingerprint.take(Tokenizer.from_folder(hub.default_model()))
    Tokenizer.from_folder(folders.folder("bert-uncased")).save_pretrained(tmp_path / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tmp_path / "bert" / name).read_bytes())
    assert "57 of 57 probes" in refused(tmp_path)
    with pytest.raises(TokenizerError):
        pellucid.AutoTokenizer.from_pretrained(tmp_path)
    pellucid.AutoTokenizer.from_pretrained(tmp_path, check_fingerprint=False)


def test_the_tokenizer_that_is_there_already_wins(tmp_path):
    tokenizer = Tokenizer.from_folder(hub.default_model())
    tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", special=True)})
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / fingerprint.FILE).unlink()  # as if the reference had saved it
    pellucid.AutoModelForCausalLM.from_pretrained().save_pretrained(tmp_path)
    assert Tokenizer.from_folder(tmp_path).pad_token_id == 512
    assert fingerprint.read(tmp_path).tokens == 513


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": "{"},
        {"merges.txt": "", "vocab-src.json": "{}", "tokenizer_config.json": '{"tokenizer_class": "FSMTTokenizer"}'},
    ],
    ids=["broken", "not supported"],
)
def test_a_tokenizer_that_does_not_load_does_not_stop_a_model(tmp_path, caplog, files):
    pellucid.AutoModelForCausalLM.from_pretrained().save_pretrained(tmp_path / "a")
    (tmp_path / "a" / fingerprint.FILE).unlink()
    for name, text in files.items():
        (tmp_path / "a" / name).write_text(text)
    pellucid.AutoModelForCausalLM.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b" / fingerprint.FILE).exists()
    assert "no fingerprint is saved" in caplog.text


# ---- time ----------------------------------------------------------------------------------------------------


def test_comparing_takes_milliseconds(tmp_path):
    """30,000 tokens: 2 ms here; the bound only tells a quadratic mistake."""
    Tokenizer.from_folder(folders.folder("bert-uncased")).save_pretrained(tmp_path)
    tokenizer, stored = Tokenizer.from_folder(tmp_path), fingerprint.read(tmp_path)

    def seconds() -> float:
        begun = time.perf_counter()
        assert fingerprint.differences(stored, tokenizer, tmp_path) == []
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(5)) < 0.05
