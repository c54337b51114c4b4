"""pellucid check: tokenizer, template and settings of generation, each broken in one way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_template import CHAT

from pellucid import hub
from pellucid.text.tokenizer import Tokenizer


def findings(call, folder: Path) -> list[dict[str, str]]:
    report = json.loads(call("check", "--json", folder).stdout)
    assert all(one["level"] != "ok" or not one["next"] for one in report["findings"])
    return report["findings"]


def worth_a_word(call, folder: Path) -> list[tuple[str, str, str]]:
    return [(one["level"], one["part"], one["what"]) for one in findings(call, folder) if one["level"] != "ok"]


def settings(**values) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def config(file: str = "config.json", **values) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def template(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "chat_template.jinja").write_text(text)


def resaved(change: Callable[[Tokenizer], object], *, forget: bool = True) -> Callable[[Path], object]:
    """The tokenizer, changed and written as tokenizer.json; the fingerprint that comes with it is taken away."""

    def write(folder: Path) -> None:
        tokenizer = Tokenizer.from_folder(folder)
        change(tokenizer)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.model").unlink()
        if forget:
            (folder / hub.FINGERPRINT).unlink()

    return write


def edited(change: Callable[[dict], object], *, forget: bool = True) -> Callable[[Path], object]:
    """tokenizer.json, changed as JSON."""

    def write(folder: Path) -> None:
        resaved(lambda tokenizer: None, forget=forget)(folder)
        state = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        change(state)
        (folder / "tokenizer.json").write_text(json.dumps(state), "utf-8")

    return write


def beside(folder: Path, change: Callable[[dict], object]) -> None:
    """A tokenizer.json beside the older file, and the configuration as it was."""
    state = json.loads(Tokenizer.from_folder(folder).backend_tokenizer.to_str())
    change(state)
    (folder / "tokenizer.json").write_text(json.dumps(state), "utf-8")


def move_the_last(state: dict) -> None:
    """A hole in the vocabulary, and an id beyond the embedding."""
    vocab = state["model"]["vocab"]
    vocab[max(vocab, key=vocab.get)] = 519


def lose_the_last_pieces(state: dict) -> None:
    state["model"]["vocab"] = {text: i for text, i in state["model"]["vocab"].items() if i not in (300, 301)}
    state["model"]["merges"] = []


CASES = {
    "an added token without a row": (
        resaved(lambda tok: tok.add_tokens(["<new>"])),
        ("warn", "tokenizer", "1 of 513 ids are beyond the 512 rows of the embedding: '<new>' = 512 (added tokens"),
    ),
    "a token without a row": (edited(move_the_last), ("FAIL", "tokenizer", "beyond the 512 rows of the embedding: ")),
    "a hole": (
        edited(lose_the_last_pieces),
        ("warn", "tokenizer", "2 ids (300, 301) below the last, 511, without a token"),
    ),
    "a longer limit than the model's": (
        config("tokenizer_config.json", model_max_length=1000),
        ("warn", "tokenizer", "model_max_length is 1000, and the model takes 512"),
    ),
    "two vocabularies": (
        lambda folder: beside(folder, lambda state: state.update(normalizer={"type": "Lowercase"})),
        ("warn", "tokenizer", "the older vocabulary files disagree on 55 of 56 probes: ' ' is [35] and [410, 410]"),
    ),
    "another normaliser than the saved one": (
        edited(lambda state: state.update(normalizer={"type": "Lowercase"}), forget=False),
        ("FAIL", "tokenizer", "not the tokenizer that was saved here ("),
    ),
    "a template edited after the save": (
        lambda folder: (Tokenizer.from_folder(folder).save_pretrained(folder), template(CHAT)(folder)),
        ("FAIL", "tokenizer", "the chat template is new"),
    ),
    "a broken template": (template("{% for %}"), ("FAIL", "template", "the chat template is broken")),
    "a template that refuses": (
        template("{{ raise_exception('no system here') }}"),
        ("FAIL", "template", "no system here"),
    ),
    "a template without an end": (
        template("{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}"),
        ("warn", "template", "no special token follows an answer"),
    ),
    "a template without BOS": (
        template(CHAT.replace("{{ bos_token }}", "")),
        ("warn", "template", "plain texts begin with '<s>' (the tokenizer adds it), and chats do not"),
    ),
    "a template of another model": (
        template(CHAT.replace("{{ eos_token }}", "<|im_end|>")),
        ("warn", "template", "an answer ends with '<|im_end|>', which is 8 tokens of this vocabulary and not one"),
    ),
    "an answer that does not end": (
        template(CHAT.replace("{{ eos_token }}", "<unk>")),
        ("warn", "template", "an answer ends with '<unk>' = 0, which does not end generation (eos_token_id [1, 2])"),
    ),
    "temperature without sampling": (
        settings(temperature=0.7, top_p=0.9),
        ("warn", "special", "generation_config.json: temperature=0.7, top_p=0.9 without do_sample"),
    ),
    "longer than the context": (
        settings(max_length=4096),
        ("warn", "special", "generation_config.json: max_length=4096, and the model's context is 512"),
    ),
    "more new tokens than the context": (
        settings(max_new_tokens=513),
        ("warn", "special", "generation_config.json: max_new_tokens=513, and the model's context is 512"),
    ),
    "least above most": (
        settings(min_new_tokens=9, max_new_tokens=5),
        ("warn", "special", "generation_config.json: min_new_tokens=9 is more than max_new_tokens=5"),
    ),
    "another end in the settings": (
        settings(eos_token_id=[7, 9]),
        ("warn", "special", "eos_token_id is [7, 9] in generation_config.json, which counts, and 2 in the tokenizer"),
    ),
    "another begin in the config": (
        config(bos_token_id=5),
        ("warn", "special", "bos_token_id is 1 in generation_config.json, which counts, and 5 in config.json"),
    ),
    "another pad in the config": (
        lambda folder: (settings(pad_token_id=0)(folder), config(pad_token_id=4)(folder)),
        ("warn", "special", "pad_token_id is 0 in generation_config.json, which counts, and 4 in config.json"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_finding(call, folder, name):
    change, (level, part, what) = CASES[name]
    change(folder)
    found = findings(call, folder)
    matching = [one for one in found if one["level"] == level and one["part"] == part and what in one["what"]]
    assert len(matching) == 1, [one for one in found if one["level"] != "ok"]
    assert matching[0]["next"]
    assert (call("check", folder).exit_code == 1) == any(one["level"] == "FAIL" for one in found)


def test_a_chat_that_fits_is_worth_one_line(call, chat_folder):
    assert worth_a_word(call, chat_folder) == []
    lines = [one["what"] for one in findings(call, chat_folder) if one["part"] == "template"]
    assert lines == ["renders, begins with '<s>', once; an answer ends with '</s>'"]


def test_markers_that_are_plain_text_are_no_mistake(call, chat_folder):
    """Zephyr's and TinyLlama's <|user|> are no tokens; their answers end with one."""
    template("{% for m in messages %}<|{{ m.role }}|>\n{{ bos_token }}{{ m.content }}{{ eos_token }}\n{% endfor %}")(
        chat_folder
    )
    found = [one for one in findings(call, chat_folder) if one["part"] == "template"]
    assert "writes '<|user|>', '<|assistant|>' as several tokens of this vocabulary" in [one["what"] for one in found]
    assert [one["what"] for one in found if one["level"] != "ok"] == [
        "plain texts begin with '<s>' (the tokenizer adds it), and chats do not"
    ]


def test_what_is_saved_is_as_stored(call, chat_folder):
    Tokenizer.from_folder(chat_folder).save_pretrained(chat_folder)
    assert worth_a_word(call, chat_folder) == []
    assert any(one["what"].endswith(", as stored") for one in findings(call, chat_folder))


def test_two_forms_of_one_vocabulary(call, folder):
    beside(folder, lambda state: None)
    assert worth_a_word(call, folder) == []
    assert any("files agree on 56 probes" in one["what"] for one in findings(call, folder))


def test_which_pad_rule_is_named(call, folder):
    def line() -> str:
        return next(one["what"] for one in findings(call, folder) if "pad" in one["what"])

    assert line() == "no pad token: eos_token '</s>' takes its place, hidden by the attention mask"
    config("tokenizer_config.json", pad_token="</s>")(folder)
    assert line() == "pads with '</s>' = 2 (also the end token)"
    config("tokenizer_config.json", pad_token="<unk>")(folder)
    assert line() == "pads with '<unk>' = 0"


def test_an_embedding_far_larger_than_the_vocabulary(call, tiny, tmp_path):
    """A tokenizer of 512 tokens beside 32,000 rows is another model's."""
    import pellucid

    config = pellucid.AutoConfig.from_pretrained(hub.default_model(), vocab_size=4000)
    pellucid.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(hub.default_model() / name, tmp_path)
    (told,) = worth_a_word(call, tmp_path)
    assert told[:2] == ("warn", "tokenizer") and told[2].startswith("512 tokens, and the embedding has 4000 rows")
