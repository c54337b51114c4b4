"""Families on packed weights: every feature works on them, and they mean what their numbers mean.

Every matrix whose rows are whole blocks stays packed; the same numbers, unpacked before, are what it is compared with.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor, nn

import gguf_models
import reference as ref
from engine.tokenizers_at_hand import tokenizer
from models import tiny
from pellucid.engine.engine import Engine
from pellucid.engine.grammar import Regex, grammar_rule
from pellucid.engine.request import Request
from pellucid.models.loading import load
from pellucid.ops.packed import PackedTensor, exactly
from pellucid.quant._blocks import GgufBlocks

LLAMA = {"hidden_size": 256, "head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 256}
# Sizes of whole blocks: a Q4_K block has 256 numbers.
SIZES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gemma2": LLAMA,
    "qwen3": LLAMA,
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "gpt_oss": LLAMA,
    "deepseek_v3": {"hidden_size": 256, "moe_intermediate_size": 256, "intermediate_size": 256},
    "gpt2": {"n_embd": 256, "n_head": 4, "n_inner": 256},
    "bloom": {"hidden_size": 256, "n_head": 4},
    "falcon": {"hidden_size": 256, "num_attention_heads": 4, "ffn_hidden_size": 256},
    "mamba": {"hidden_size": 256},
    "t5": {"d_model": 256, "d_kv": 64, "num_heads": 4, "d_ff": 256},
    "bert": {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 256},
}
BLOCK = {Kind.Q8_0: 32, Kind.Q4_K: 256}
CASES = [(name, Kind.Q8_0) for name in SIZES] + [(name, Kind.Q4_K) for name in ("llama", "gemma2", "mixtral", "gpt2")]
WRITERS = [case for case in CASES if case[0] != "bert"]
# Each feature of the engine, on each writer and both kinds; in CI on one of attention, experts, states, and memory.
FEATURES = [("llama", Kind.Q4_K), ("mixtral", Kind.Q8_0), ("mamba", Kind.Q8_0), ("t5", Kind.Q8_0)]
if ref.full():
    FEATURES = [(name, kind) for name in SIZES if name != "bert" for kind in (Kind.Q8_0, Kind.Q4_K)]


def packer(kind: Kind) -> Callable[[str, Tensor], Tensor]:
    def pack(slot: str, numbers: Tensor) -> Tensor:
        if numbers.dim() != 2 or numbers.shape[1] % BLOCK[kind] or not slot.endswith("weight") or "conv" in slot:
            return numbers
        blocks = gguf_models.packed(np.ascontiguousarray(numbers.float().numpy()), kind)
        return GgufBlocks({"blocks": torch.from_numpy(blocks)}, kind.name, numbers.shape)

    return pack


def unpack(model: nn.Module) -> nn.Module:
    """The same numbers in ordinary parameters."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, PackedTensor):
                module._parameters[name] = nn.Parameter(parameter.dense(), requires_grad=False)
    model.tie_weights()
    return model


@cache
def pair(family: str, kind: Kind, root: Path) -> tuple[Any, Any]:
    """A model that stays packed, and one with its numbers."""
    folder = root / f"{family}-{kind.name}"
    layers = "n_layer" if family in ("gpt2", "bloom") else "num_layers" if family == "t5" else "num_hidden_layers"
    tiny.make(family, **SIZES[family], **{layers: 2}).save_pretrained(folder)
    auto = tiny.auto(family)
    made = [load(folder=folder, task=auto.TASK, model_class=auto, pack=packer(kind)) for _ in range(2)]
    return made[0], unpack(made[1])


@cache
def writer(family: str, kind: Kind, root: Path) -> Any:
    """A packed model with the vocabulary of the stories tokenizer."""
    folder = root / f"{family}-{kind.name}-512"
    layers = "n_layer" if family in ("gpt2", "bloom") else "num_layers" if family == "t5" else "num_hidden_layers"
    tiny.make(family, **SIZES[family], **{layers: 2, "vocab_size": 512}).save_pretrained(folder)
    auto = tiny.auto(family)
    model = load(folder=folder, task=auto.TASK, model_class=auto, pack=packer(kind))
    assert sum(isinstance(p, PackedTensor) for p in model.parameters()) > 5
    return model


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("packed")


@pytest.mark.parametrize(("family", "kind"), CASES)
class TestFamilies:
    def test_logits_are_those_of_the_unpacked_numbers(self, family, kind, root):
        packed, dense = pair(family, kind, root)
        matrices = [name for name, p in packed.named_parameters() if isinstance(p, PackedTensor)]
        assert len(matrices) > 5 and not any(isinstance(p, PackedTensor) for p in dense.parameters())
        ids = tiny.ids(3, 11)
        with exactly():
            found, wanted = tiny.call(packed, ids), tiny.call(dense, ids)
            assert torch.equal(found, wanted)  # tiles are multiplied as kept matrices are
            assert torch.equal(tiny.call(packed, ids[:1, :1]), tiny.call(dense, ids[:1, :1]))
        assert torch.equal(tiny.call(packed, ids[:1]), tiny.call(packed, ids)[:1])

    def test_gradients_reach_what_is_before(self, family, kind, root):
        packed, dense = pair(family, kind, root)
        grads = []
        for model in (packed, dense):
            vectors = model.get_input_embeddings()(tiny.ids(1, 7)).detach().requires_grad_()
            given = {"decoder_input_ids": tiny.ids(1, 4)} if model.encoder is not None else {}
            output = model(inputs_embeds=vectors, **given)
            output.logits.square().mean().backward()
            grads.append(vectors.grad)
        assert ref.distance(*grads) < 1e-4


@pytest.mark.parametrize(("family", "kind"), WRITERS)
def test_greedy_ids_are_those_of_the_unpacked_numbers_alone_and_in_a_batch(family, kind, root):
    packed, dense = pair(family, kind, root)
    ids, lengths = tiny.ids(3, 11), (11, 4, 7)
    mask = torch.stack([(torch.arange(11) >= 11 - n).long() for n in lengths])
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with exactly():
        same = packed.generate(ids, attention_mask=mask, **options)[:, -5:]
    assert torch.equal(same, dense.generate(ids, attention_mask=mask, **options)[:, -5:])
    batch = packed.generate(ids, attention_mask=mask, **options)[:, -5:]
    for row, length in enumerate(lengths):
        alone = packed.generate(ids[row : row + 1, 11 - length :], **options)
        assert torch.equal(alone[0, -5:], batch[row])


def test_taps_speculation_and_logprobs(root):
    packed, dense = pair("llama", Kind.Q8_0, root)
    ids = tiny.ids(1, 9)
    with torch.inference_mode(), exactly(), packed.record("blocks.*.attn.pattern", "blocks.1.resid_post") as mine:
        packed(ids)
    with torch.inference_mode(), dense.record("blocks.*.attn.pattern", "blocks.1.resid_post") as theirs:
        dense(ids)
    assert mine.keys() == theirs.keys() and all(ref.distance(mine[k], theirs[k]) < 1e-5 for k in mine)
    steered = packed.generate(ids, max_new_tokens=4, do_sample=False)
    with packed.taps({"blocks.1.resid_post": lambda x: -x}):
        assert not torch.equal(packed.generate(ids, max_new_tokens=4, do_sample=False), steered)
    plain = packed.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
    guessed = packed.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None, prompt_lookup_num_tokens=3)
    assert torch.equal(plain, guessed)


@pytest.mark.parametrize(("family", "kind"), FEATURES)
class TestEngine:
    """What the engine promises on any weights: packed weights are compared with themselves."""

    NEW = 6

    def asked(self, model: Any, prompt: list[int], **more: Any) -> Request:
        start = model.spec.decoder_start
        begin = [start if isinstance(start, int) else 2] if model.encoder is not None else []
        return Request(ids=prompt, begin=begin, max_new=self.NEW, **more)

    def prompts(self) -> list[list[int]]:
        """The last begins with the page that the first one fills."""
        long, short = tiny.ids(1, 41).tolist()[0], tiny.ids(2, 9, seed=2).tolist()
        return [long, short[0], short[1][:1], [*long[:36], *short[1]]]

    def alone(self, model: Any) -> list[list[int]]:
        return [Engine(model).generate([self.asked(model, p)])[0].result()[0].ids for p in self.prompts()]

    def test_batches_and_shared_prefixes(self, family, kind, root):
        model = writer(family, kind, root)
        engine, right = Engine(model), self.alone(model)
        for _ in range(2):  # the second time, behind what the first has left
            jobs = [engine.add(self.asked(model, prompt)) for prompt in self.prompts()]
            while engine.busy:
                engine.step()
                engine.check()
            assert [job.result()[0].ids for job in jobs] == right

    def test_guesses_that_are_confirmed(self, family, kind, root):
        model = writer(family, kind, root)
        prompt = torch.tensor([self.prompts()[1] * 2])
        options = {"max_new_tokens": self.NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        plain = model.generate(prompt, **options)
        assert torch.equal(model.generate(prompt, prompt_lookup_num_tokens=3, **options), plain)
        if model.encoder is None:
            helper = writer(family, Kind.Q8_0 if kind is Kind.Q4_K else Kind.Q4_K, root)  # agrees, but for rounding
            assert torch.equal(model.generate(prompt, assistant_model=helper, **options), plain)

    def test_beams(self, family, kind, root):
        model = writer(family, kind, root)
        options = {"max_new_tokens": 4, "num_beams": 3, "eos_token_id": None, "pad_token_id": 0}
        ids = tiny.ids(2, 7)
        both = model.generate(ids, **options)
        for row in range(2):
            assert torch.equal(model.generate(ids[row : row + 1], **options)[0], both[row])

    def test_grammars(self, family, kind, root):
        pytest.importorskip("llguidance")
        model, tok = writer(family, kind, root), tokenizer("stories260K")
        asked = self.asked(model, self.prompts()[1])
        rule = grammar_rule(Regex("[ab]{2,4}c"), tok, vocab=512, eos={2}, begin=len(asked.prompt))
        asked = replace(asked, rules=[rule], eos=frozenset({2}), max_new=12)
        (output,) = Engine(model).generate([asked])[0].result()
        assert re.fullmatch("[ab]{2,4}c", tok.decode([token for token in output.ids if token != 2]).strip())

    def test_taps_are_read_and_replaced(self, family, kind, root):
        model = writer(family, kind, root)
        prompt, seen = self.prompts()[1], []
        plain = Engine(model).generate([self.asked(model, prompt)])[0].result()[0].ids
        watched = self.asked(model, prompt, taps={"blocks.1.resid_post": seen.append})
        assert Engine(model).generate([watched])[0].result()[0].ids == plain
        assert sum(len(x_ND) for x_ND in seen) == len(watched.prompt) + self.NEW - 1
        changed = self.asked(model, prompt, taps={"blocks.1.resid_post": lambda x_ND: -x_ND})
        assert Engine(model).generate([changed])[0].result()[0].ids != plain

    def test_log_probabilities_are_those_of_a_forward(self, family, kind, root):
        model = writer(family, kind, root)
        asked = self.asked(model, self.prompts()[1], sample=True, seed=3, logprobs=2)
        (output,) = Engine(model).generate([asked])[0].result()
        text = torch.tensor([[*asked.prompt, *output.ids]])
        with torch.inference_mode():
            source = {"input_ids": torch.tensor([asked.ids]), "decoder_input_ids": text}
            logits = model(**(source if model.encoder is not None else {"input_ids": text})).logits
        logprobs = logits[0, :-1].log_softmax(-1).gather(1, text[0, 1:, None])[len(asked.prompt) - 1 :, 0]
        found = torch.tensor([each.logprob for each in output.logprobs])
        # a kernel that rounds activations to 8 bits makes more of a last bit's difference
        assert (found - logprobs).abs().max() < 1e-2 * max(1.0, float(logits.abs().max()))


def test_a_model_moves_between_dtypes_and_keeps_its_bytes(root):
    packed, _ = pair("gemma2", Kind.Q4_K, root)
    half = copy.deepcopy(packed).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.lm_head.out.weight is half.embed.tokens.weight
    for (name, one), (_, other) in zip(packed.named_parameters(), half.named_parameters()):
        if isinstance(one, PackedTensor):
            assert other.dtype == torch.bfloat16 and torch.equal(one.parts["blocks"], other.parts["blocks"]), name
    ids = tiny.ids(2, 8)
    assert ref.distance(tiny.call(half, ids).float(), tiny.call(packed, ids)) < 0.1


def test_a_state_dict_holds_the_packed_matrices(root):
    packed, dense = pair("gpt2", Kind.Q8_0, root)
    state = packed.state_dict()
    assert isinstance(state["blocks.0.mlp.up.weight"], GgufBlocks)
    assert packed.load_state_dict(state).missing_keys == []
    assert packed.num_parameters() == dense.num_parameters()
