"""Prompts that are no ids, or more: caches, vectors, encoder states, decoder prompts, a family's own inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
import reference as ref
from models import tiny
from models.tiny import refused
from pellucid.errors import ArgumentError, InputError, Unsupported

GREEDY: dict[str, Any] = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": []}
CAUSAL = ["llama", "gemma2", "lfm2"]


# ------------------------------------------------------------------------- past_key_values


@pytest.mark.parametrize("family", [*CAUSAL, "t5"])
def test_a_talk_in_a_cache(family: str) -> None:
    """What a call returned goes into the next one, which reads only what is new; two rows, one of them padded."""
    model, behind = tiny.make(family), family == "t5"
    ids = tiny.ids(2, 9)
    mask = torch.ones_like(ids)
    if not behind:
        mask[1, :3] = 0
    first = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    held = first.past_key_values
    begin = 1 if behind else 9
    assert [row.length for row in held.rows] == [begin + 6, (1 if behind else 6) + 6]
    more = torch.cat([first.sequences, tiny.ids(2, 4, seed=5)], 1)
    if behind:
        asked = {"input_ids": ids, "decoder_input_ids": more}
    else:
        asked = {"input_ids": more, "attention_mask": torch.cat([mask, torch.ones_like(more[:, 9:])], 1)}
    alone = model.generate(**asked, **GREEDY)
    assert torch.equal(model.generate(**asked, past_key_values=held, **GREEDY), alone)
    assert [row.length for row in held.rows] == [begin + 17, (1 if behind else 6) + 17]
    forward = model(**({"input_ids": alone[:1, -1:]} if not behind else
                       {"decoder_input_ids": alone[:1, -1:], "encoder_outputs": model.encode(ids[:1])}),
                    past_key_values=chosen(held, 0)).logits[:, -1]  # fmt: skip
    whole = model(**({"input_ids": alone[:1]} if not behind else
                     {"input_ids": ids[:1], "decoder_input_ids": alone[:1]})).logits[:, -1]  # fmt: skip
    torch.testing.assert_close(forward, whole, rtol=1e-4, atol=1e-4)


def chosen(cache: Any, row: int) -> Any:
    cache.select([row])
    return cache


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": True, "seed": 3, "num_return_sequences": 3}, {"num_beams": 3}, {"penalty_alpha": 0.5, "top_k": 3},
        {"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1},
    ],
    ids=str,
)  # fmt: skip
def test_every_way_goes_on_from_a_cache(how: dict[str, Any]) -> None:
    """It holds the sequences afterwards; of a beam search, what it held before."""
    model, ids = tiny.make("llama"), tiny.ids(2, 9)
    cache, asked = model(ids[:, :5]).past_key_values, {**GREEDY, **how}
    assert torch.equal(model.generate(ids, past_key_values=cache, **asked), model.generate(ids, **asked))
    count = how.get("num_return_sequences", 1)
    assert [row.length for row in cache.rows] == [5 if "num_beams" in how else 15] * 2 * count
    cache.pages.check()


def test_caches_that_do_not_fit() -> None:
    model, ids = tiny.make("llama"), tiny.ids(2, 5)
    full = model(ids).past_key_values
    with refused(InputError, "row 0", "5 tokens"):
        model.generate(ids, past_key_values=full, **GREEDY)
    with refused(InputError, "2 rows", "1 prompts"):
        model.generate(ids[:1], past_key_values=full, **GREEDY)
    with refused(InputError, "past_key_values is a tuple"):
        model.generate(ids, past_key_values=(), **GREEDY)


# ------------------------------------------------------------------------- vectors and states


@pytest.mark.parametrize("family", [*CAUSAL, "gpt2", "t5"])
def test_vectors_in_place_of_ids(family: str) -> None:
    """The new tokens alone, as with the ids; rules do not see a prompt; ids beside them stand before the output."""
    model, ids = tiny.make(family), tiny.ids(2, 9)
    tower = model.encoder if model.encoder is not None else model
    vectors = tower.embed.tokens(ids).detach()
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    whole = model.generate(ids, attention_mask=mask, **GREEDY)
    new = whole if model.encoder is not None else whole[:, 9:]
    assert torch.equal(model.generate(inputs_embeds=vectors, attention_mask=mask, **GREEDY), new)
    if model.encoder is None:
        both = model.generate(ids, inputs_embeds=vectors, attention_mask=mask, repetition_penalty=1.5, **GREEDY)
        assert torch.equal(both, model.generate(ids, attention_mask=mask, repetition_penalty=1.5, **GREEDY))
    else:
        with refused(ArgumentError, "inputs_embeds"):
            model.generate(ids, inputs_embeds=vectors, **GREEDY)
    with refused(InputError, "inputs_embeds"):
        model.generate(inputs_embeds=vectors[..., :3], **GREEDY)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_vectors_are_read_as_by_the_reference(family: str, checkpoints: Path) -> None:
    case = ref.case(family, "", "causal-lm")
    mine, theirs = ref.pair(case, checkpoints)
    vectors = theirs.get_input_embeddings()(ref.inputs(case, batch=2, time=9)["input_ids"]).detach()
    asked = {"inputs_embeds": vectors, "repetition_penalty": 1.5, "max_new_tokens": 9, "do_sample": False}
    asked["attention_mask"] = torch.ones(2, 9, dtype=torch.long)
    assert mine.generate(**asked).tolist() == theirs.generate(**asked).tolist()
    longer = {**asked, "max_length": 14, "max_new_tokens": None}
    assert mine.generate(**longer).tolist() == theirs.generate(**longer).tolist()
    asked["eos_token_id"] = []
    seen = [m.generate(**asked, return_dict_in_generate=True, output_hidden_states=True) for m in (mine, theirs)]
    for a, b in zip(*(found.hidden_states for found in seen)):
        for x, y in zip(a, b):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_what_the_encoder_said_before() -> None:
    model, ids = tiny.make("t5"), tiny.ids(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    whole = model.generate(ids, attention_mask=mask, **GREEDY)
    said = model.encode(ids, mask)
    for states in (said, (said.last_hidden_state,), said.last_hidden_state):
        assert torch.equal(model.generate(encoder_outputs=states, attention_mask=mask, **GREEDY), whole)
    with refused(InputError, "encoder_outputs"):
        model.generate(encoder_outputs=(torch.zeros(2, 5, 3),), **GREEDY)
    with refused(ArgumentError, "encoder_outputs"):
        tiny.make("llama").generate(ids, encoder_outputs=said, **GREEDY)
    repeated = {**GREEDY, "encoder_repetition_penalty": 3.0}
    named = model.generate(ids, encoder_outputs=said, attention_mask=mask, **repeated)
    assert torch.equal(named, model.generate(ids, attention_mask=mask, **repeated))
    assert torch.equal(model.generate(encoder_outputs=said, attention_mask=mask, **repeated), whole)  # no ids to repeat


# ------------------------------------------------------------------------- behind an encoder


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_decoder_prompts_are_the_references(family: str, checkpoints: Path) -> None:
    """With the start token and without, padded on the left, and in a padded batch of prompts."""
    case = ref.case(family, "", "seq2seq-lm")
    mine, theirs = ref.pair(case, checkpoints)
    ids, begin = ref.inputs(case, batch=2, time=9)["input_ids"], ref.inputs(case, batch=2, time=4, seed=7)["input_ids"]
    start = torch.full((2, 1), case.config["decoder_start_token_id"])
    for given in (begin, torch.cat([start, begin], 1)):
        asked = {"decoder_input_ids": given, "max_new_tokens": 7, "do_sample": False, "num_beams": 1}
        assert mine.generate(ids, **asked).tolist() == theirs.generate(ids, **asked).tolist()
    whole = mine.generate(ids, decoder_input_ids=begin, **GREEDY)
    lists = mine.generate(ids.tolist(), decoder_input_ids=begin.tolist(), **GREEDY)
    assert lists == whole.tolist()
    pads, mask = torch.zeros(2, 2, dtype=torch.long), torch.tensor([[0, 0, 1, 1, 1, 1]] * 2)
    padded = mine.generate(
        ids, decoder_input_ids=torch.cat([pads, begin], 1), decoder_attention_mask=mask, **GREEDY
    )  # fmt: skip
    assert padded[:, -7:].tolist() == whole[:, -7:].tolist()
    with refused(InputError, "decoder_input_ids has 1 rows"):
        mine.generate(ids, decoder_input_ids=begin[:1])
    with refused(ArgumentError, "decoder_input_ids"):
        tiny.make("llama").generate(ids, decoder_input_ids=begin)
    with refused(ArgumentError, "decoder_attention_mask"):
        mine.generate(ids, decoder_attention_mask=torch.ones(2, 4))


def test_global_attention_of_led(checkpoints: Path) -> None:
    case = ref.case("led", "", "seq2seq-lm")
    mine, theirs = ref.pair(case, checkpoints)
    ids = ref.inputs(case, batch=2, time=16)["input_ids"]
    everywhere = torch.zeros_like(ids)
    everywhere[:, ::5] = 1
    asked = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 9, "do_sample": False, "num_beams": 1}
    found = mine.generate(ids, global_attention_mask=everywhere, **asked)
    assert found.tolist() == theirs.generate(ids, global_attention_mask=everywhere, **asked).tolist()
    asked |= {"return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True}
    near, far = (mine.generate(ids, **asked, **more) for more in ({}, {"global_attention_mask": everywhere}))
    assert not torch.allclose(near.logits[0], far.logits[0])
    assert not torch.allclose(near.encoder_hidden_states[-1], far.encoder_hidden_states[-1])
    with refused(InputError, "global_attention_mask"):
        mine.generate(ids, global_attention_mask=everywhere[:, :3], **asked)
    with refused(ArgumentError, "global_attention_mask"):  # no input of this family: a name that does not exist
        tiny.make("llama").generate(ids, global_attention_mask=everywhere)


def test_negative_prompts_are_the_references(checkpoints: Path) -> None:
    """Padded on either side; as lists they are the same."""
    case = ref.case("llama", "", "causal-lm")
    mine, theirs = ref.pair(case, checkpoints)
    ids, negative = (
        ref.inputs(case, batch=2, time=9)["input_ids"],
        ref.inputs(case, batch=2, time=5, seed=9)["input_ids"],
    )
    asked: dict[str, Any] = {"max_new_tokens": 7, "do_sample": False, "guidance_scale": 1.7}
    ones = {"attention_mask": torch.ones_like(ids), "negative_prompt_attention_mask": torch.ones_like(negative)}
    whole = mine.generate(ids, negative_prompt_ids=negative, **asked)
    assert whole.tolist() == theirs.generate(ids, negative_prompt_ids=negative, **ones, **asked).tolist()
    padded, mask = torch.nn.functional.pad(negative, (2, 0)), torch.nn.functional.pad(torch.ones_like(negative), (2, 0))
    again = mine.generate(ids, negative_prompt_ids=padded, negative_prompt_attention_mask=mask, **asked)
    assert torch.equal(again, whole) and not torch.equal(mine.generate(ids, **asked), whole)
    assert mine.generate(ids.tolist(), negative_prompt_ids=negative.tolist(), **asked) == [
        row[: row.index(2, 9) + 1] if 2 in row[9:] else row for row in whole.tolist()
    ]
    with refused(InputError, "1 negative prompts for 2"):
        mine.generate(ids, negative_prompt_ids=negative[:1], **asked)


def test_options_without_the_models_own() -> None:
    model, ids = tiny.make("llama"), tiny.ids(1, 5)
    model.generation_config = model.generation_config.merged({"max_new_tokens": 3, "eos_token_id": []})
    assert model.generate(ids).shape == (1, 8)
    assert model.generate(ids, use_model_defaults=False).shape == (1, 25)
    assert model.generate(ids, max_new_tokens=None).shape == (1, 25)  # None takes back
    with refused(Unsupported, "synced_gpus"):
        model.generate(ids, synced_gpus=True)


def test_a_quantized_cache_is_one_of_few_bits() -> None:
    """8 bits leave the small model's story as it is; 4 bits are taken too, and other numbers refused."""
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    options = {"do_sample": False, "max_new_tokens": 200, "cache_implementation": "quantized"}
    plain = model.generate([1], do_sample=False, max_new_tokens=200)
    assert model.generate([1], cache_config={"nbits": 8}, **options) == plain
    assert len(model.generate([1], **options)) == 201
    with pytest.raises(ArgumentError, match="nbits=3"):
        model.generate([1], cache_config={"nbits": 3}, **options)


@pytest.mark.parametrize("family", CAUSAL)
def test_a_call_that_fails_leaves_the_cache_as_it_was(family: str) -> None:
    model, ids = tiny.make(family), tiny.ids(1, 9)
    cache = model.generate(ids, return_dict_in_generate=True, **GREEDY).past_key_values
    held, text = cache.rows[0].length, tiny.ids(1, 30, seed=2)
    text[:, :9] = ids
    text[:, 9:16] = model.generate(ids, **GREEDY)[:, 9:]

    def broken(so_far, scores):  # type: ignore[no-untyped-def]
        if so_far.shape[1] == 33:
            raise RuntimeError("a processor of the caller's")
        return scores

    with pytest.raises(RuntimeError, match="the caller's"):
        model.generate(text, past_key_values=cache, logits_processor=[broken], **GREEDY)
    assert cache.rows[0].length == held
    assert torch.equal(model.generate(text, past_key_values=cache, **GREEDY), model.generate(text, **GREEDY))


def test_a_cache_of_another_model_is_refused() -> None:
    first, second = tiny.make("llama"), tiny.make("llama")
    cache = first.generate(tiny.ids(1, 9), return_dict_in_generate=True, **GREEDY).past_key_values
    with refused(ArgumentError, "another model"):
        second.generate(tiny.ids(1, 30), past_key_values=cache, **GREEDY)
    with refused(ArgumentError, "another model"):
        second(tiny.ids(1, 3), past_key_values=cache)
