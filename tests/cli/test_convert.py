"""pellucid convert: to GGUF as llama.cpp's converter writes it, and back to the numbers it came from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import tokenizers as rust

import reference as ref
from pellucid import gguf, hub
from pellucid.cli.check import look_over
from pellucid.errors import Unsupported
from pellucid.models.conversion import convert, largest_difference
from pellucid.models.gguf_target import quantize, vocabulary
from pellucid.models.targets import Options
from pellucid.text.formats.gguf import KEY
from pellucid.text.formats.gguf_write import EMBEDDED
from pellucid.weights.source import open_weights


def test_the_command_says_how_far_the_outputs_part(call, tmp_path):
    found = json.loads(call("convert", hub.default_model(), tmp_path / "m.gguf", "--json").stdout)
    assert found["difference"]["largest"] == 0 < found["difference"]["largest_output"]
    assert "outputs" in call("convert", tmp_path / "m.gguf", tmp_path / "back", "--dtype", "bf16").stdout
    assert not look_over(tmp_path / "back").failed
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["architectures"] == ["LlamaForCausalLM"]
    assert json.loads((tmp_path / "back" / "generation_config.json").read_text())["eos_token_id"] == 2
    refused = call("convert", tmp_path / "m.gguf", tmp_path / "back")
    assert refused.exit_code == 2 and "--force" in refused.stderr
    quiet = call("convert", tmp_path / "m.gguf", tmp_path / "back", "--force", "--no-verify")
    assert quiet.exit_code == 0 and "outputs" not in quiet.stdout


def test_blocks_are_unpacked(tmp_path):
    quantize(hub.default_model(), tmp_path / "m.gguf", Options(), to="q4_0")
    convert(tmp_path / "m.gguf", tmp_path / "back", Options(), dtype="f32")
    assert {open_weights(tmp_path / "back").entry(name).dtype for name in open_weights(tmp_path / "back").names} == {
        "F32"
    }
    assert largest_difference(tmp_path / "m.gguf", tmp_path / "back", (1, 5, 2, 7))[0] <= 1e-4


def test_a_model_that_a_file_could_not_describe_is_refused(tmp_path):
    case = ref.case("mistral", "", "causal-lm")
    case = replace(case, variant="window", config={**case.config, "sliding_window": 5})
    folder = ref.checkpoint(case, tmp_path)
    with pytest.raises(Unsupported, match="window is 5"):
        convert(folder, tmp_path / "m.gguf", Options())
    assert not (tmp_path / "m.gguf").exists()


def test_ids_without_a_tokenizer(tmp_path, tiny):
    report = convert(tiny("llama", "AutoModelForCausalLM"), tmp_path / "m.gguf", Options())
    assert "no tokenizer" in report.notes[0]
    assert gguf.read(tmp_path / "m.gguf").metadata["tokenizer.ggml.model"] == "none"
    convert(tmp_path / "m.gguf", tmp_path / "back", Options())
    assert not (tmp_path / "back" / "tokenizer.json").exists()


# ------------------------------------------------------------------------------------------------ tokenizers

LINES = ["the quick brown fox jumps over the lazy dog", "to be, or not to be: that is the question!"] * 4


def trained(kind: str) -> rust.Tokenizer:
    """A small tokenizer, as files of its algorithm are."""
    match kind:
        case "bytes":
            made = rust.Tokenizer(rust.models.BPE())
            made.pre_tokenizer = rust.pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = rust.decoders.ByteLevel()
            alphabet = rust.pre_tokenizers.ByteLevel.alphabet()
            trainer = rust.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|end|>"])
        case "words":
            made = rust.Tokenizer(rust.models.WordPiece(unk_token="[UNK]"))
            made.normalizer = rust.normalizers.BertNormalizer()
            made.pre_tokenizer = rust.pre_tokenizers.BertPreTokenizer()
            made.post_processor = rust.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
            special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
            trainer = rust.trainers.WordPieceTrainer(vocab_size=120, special_tokens=special)
        case _:  # one that llama.cpp has no name for
            made = rust.Tokenizer(rust.models.BPE())
            made.pre_tokenizer = rust.pre_tokenizers.Sequence(
                [rust.pre_tokenizers.Split("o", "isolated"), rust.pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
            trainer = rust.trainers.BpeTrainer(vocab_size=60)
    made.train_from_iterator(LINES, trainer)
    return made


@pytest.mark.parametrize(("kind", "model", "pre"), [("bytes", "gpt2", "gpt-2"), ("words", "bert", "default")])
def test_tokenizers_of_every_algorithm(kind, model, pre, tmp_path):
    made = trained(kind)
    made.save(str(tmp_path / "tokenizer.json"))
    roles = {
        "bytes": {"eos_token": "<|end|>"},
        "words": {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    }[kind]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **roles}))
    found, notes = vocabulary(tmp_path, made.get_vocab_size() + 3)
    assert (found[KEY + "model"], found[KEY + "pre"]) == (model, pre)
    assert not notes and EMBEDDED not in found  # read again, it gives the same ids
    assert len(found[KEY + "tokens"]) == len(found[KEY + "token_type"]) == made.get_vocab_size() + 3


def test_a_split_without_a_name_leaves_the_tokenizer_out(tmp_path):
    trained("odd").save(str(tmp_path / "tokenizer.json"))
    found, notes = vocabulary(tmp_path, 60)
    assert found == {KEY + "model": "none"} and "no name" in notes[0]
