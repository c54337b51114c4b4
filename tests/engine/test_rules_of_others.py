"""Rules that the reference does not have, by their definitions; what all rules promise; their order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig as TheirConfig
from transformers import GPT2Config, GPT2LMHeadModel

from pellucid import AutoTokenizer, GenerationConfig
from pellucid.compat.logits import CLASSES, LogitsProcessor
from pellucid.engine.rules import Rule, Trail
from pellucid.engine.rules.adaptive import AdaptiveP
from pellucid.engine.rules.breakers import breaker_ids
from pellucid.engine.rules.build import rules
from pellucid.engine.rules.constraints import LogitBias, MinLength, RemoveInvalid, Suppress
from pellucid.engine.rules.custom import Custom
from pellucid.engine.rules.mirostat import Mirostat
from pellucid.engine.rules.penalties import CountPenalty, Dry, NoRepeatNgram, RepetitionPenalty
from pellucid.engine.rules.rule import Notes, shared
from pellucid.engine.rules.warpers import DynamicTemperature, TopSigma, Xtc
from pellucid.errors import ArgumentError, InputError

few = settings(max_examples=60, deadline=None)
texts = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def logits_of(seed: int, size: int = 12) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


# ------------------------------------------------------------------------- by their definitions


@few
@given(seed=st.integers(0, 999), n=st.floats(0.1, 4), impossible=st.integers(0, 10))
def test_top_n_sigma(seed: int, n: float, impossible: int) -> None:
    logits = logits_of(seed)
    logits[:impossible] = -math.inf
    finite = [x for x in logits.tolist() if x > -math.inf]
    mean = sum(finite) / len(finite)
    spread = math.sqrt(sum((x - mean) ** 2 for x in finite) / len(finite))
    edge = max(finite) - n * spread
    found = TopSigma(n)([], logits)
    for x, y in zip(logits.tolist(), found.tolist()):
        assert y == x if x > edge + 1e-4 else y == -math.inf or x > edge - 1e-4


@few
@given(seed=st.integers(0, 999), threshold=st.floats(0.02, 0.5))
def test_xtc(seed: int, threshold: float) -> None:
    logits = logits_of(seed) / 3
    share = logits.softmax(0)
    top = [i for i, p in enumerate(share.tolist()) if p >= threshold]
    gone = sorted(top, key=lambda i: -share[i])[:-1]
    found = Xtc(1.0, threshold, seed=1)([1], logits)
    assert torch.equal(found, logits.index_fill(0, torch.tensor(gone, dtype=torch.long), -math.inf))
    assert torch.equal(Xtc(0.0, threshold, seed=1)([1], logits), logits)


def test_xtc_throws_a_coin_for_each_place() -> None:
    logits = torch.tensor([2.0, 2.1, -9.0])
    rule, other = Xtc(0.3, 0.1, seed=1), Xtc(0.3, 0.1, seed=2)
    thrown = [bool(rule(range(n), logits)[1].isinf()) for n in range(600)]
    assert 0.2 < sum(thrown) / 600 < 0.4
    assert thrown == [bool(rule(range(n), logits)[1].isinf()) for n in range(600)]
    assert thrown != [bool(other(range(n), logits)[1].isinf()) for n in range(600)]


@few
@given(seed=st.integers(0, 999), base=st.floats(0.1, 2), spread=st.floats(0.01, 2), exponent=st.floats(0, 3))
def test_dynamic_temperature(seed: int, base: float, spread: float, exponent: float) -> None:
    logits = logits_of(seed)
    logits[:3] = -math.inf
    share = [p for p in logits.double().softmax(0).tolist() if p > 0]
    doubt = -sum(p * math.log(p) for p in share) / math.log(len(share))
    least, most = max(0.0, base - spread), base + spread
    wanted = logits / max(least + (most - least) * doubt**exponent, 1e-30)
    torch.testing.assert_close(
        DynamicTemperature(base, spread, exponent)([], logits).softmax(0), wanted.softmax(0), rtol=1e-3, atol=1e-5
    )
    certain = torch.tensor([-math.inf, 3.0])
    assert torch.equal(DynamicTemperature(base, spread, exponent)([], certain), certain)


@few
@given(text=texts, presence=st.floats(-2, 2), frequency=st.floats(-2, 2), skip=st.integers(0, 10))
def test_presence_and_frequency(text: list[int], presence: float, frequency: float, skip: int) -> None:
    logits = logits_of(1, 5)
    counts = Counter(text[skip:])
    wanted = [x - frequency * counts[i] - presence * (counts[i] > 0) for i, x in enumerate(logits.tolist())]
    torch.testing.assert_close(CountPenalty(presence, frequency, skip)(text, logits), torch.tensor(wanted))


def dry(rule: Dry, text: Sequence[int], logits: Tensor) -> list[float]:
    """DRY as its author explains it: the longest repetition that each token would prolong."""
    text = text[-rule.last :] if rule.last > 0 else text
    longest: dict[int, int] = {}
    for place in range(len(text) - 1):
        n = 0
        while n <= place and text[place - n] == text[-1 - n] and text[-1 - n] not in rule.breakers:
            n += 1
        token = text[place + 1]
        longest[token] = max(n, longest.get(token, 0))
    found = logits.tolist()
    for token, n in longest.items():
        if n >= max(rule.allowed, 1) and token not in rule.breakers:
            found[token] -= rule.multiplier * rule.base ** (n - rule.allowed)
    return found


@settings(max_examples=200, deadline=None)
@given(
    text=texts, allowed=st.integers(0, 4), base=st.floats(1, 2), last=st.sampled_from([-1, 1, 2, 5, 20]),
    breakers=st.frozensets(st.integers(0, 4), max_size=2),
)  # fmt: skip
def test_dry(text: list[int], allowed: int, base: float, last: int, breakers: frozenset[int]) -> None:
    rule, logits = Dry(0.8, base, allowed, last, breakers), logits_of(2, 5)
    torch.testing.assert_close(rule(text, logits), torch.tensor(dry(rule, text, logits)), rtol=1e-4, atol=1e-4)


def test_ids_below_zero_are_none() -> None:
    """Some files have -1 for nothing."""
    assert Suppress((-1, 0))([], torch.zeros(3)).tolist() == [-math.inf, 0.0, 0.0]


def test_dry_does_not_overflow() -> None:
    found = Dry(1e30, 4.0)([1] * 3000, torch.zeros(3))
    assert found.isfinite().all() and found[1] < -1e38


def test_logit_bias() -> None:
    found = LogitBias({1: 2.0, 3: -math.inf})([], torch.zeros(4))
    assert found.tolist() == [0.0, 2.0, 0.0, -math.inf]
    with pytest.raises(InputError, match="token 99"):
        LogitBias({99: 5.0})([], torch.zeros(4))


@few
@given(seed=st.integers(0, 999), target=st.floats(0.5, 4))
def test_mirostat_2(seed: int, target: float) -> None:
    """Each step by the definition; the surprise of a long text is near the target."""
    rule, limit, text = Mirostat(2, target, 0.2), 2 * target, [0]
    for step in range(8):
        logits = logits_of(seed + step)
        surprise = [-math.log2(p) for p in logits.double().softmax(0).tolist()]
        found = rule(text, logits)
        best = int(logits.argmax())
        for token, bits in enumerate(surprise):
            if abs(bits - limit) > 1e-4:
                assert (found[token] > -math.inf) == (bits <= limit or token == best)
        token = int(torch.multinomial(found.softmax(0), 1, generator=torch.Generator().manual_seed(step)))
        rule.took(text, token, found)
        limit -= 0.2 * (-math.log2(float(found.double().softmax(0)[token])) - target)
        text.append(token)
        assert rule.limit(text) == pytest.approx(limit, abs=1e-4)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_reaches_its_target(version: int) -> None:
    chance, logits = torch.Generator().manual_seed(0), -1.1 * torch.arange(1, 2001).log()  # Zipf
    rule, text, bits = Mirostat(version, 3.0, 0.1), [0], []
    for _ in range(400):
        found = rule(text, logits)
        token = int(torch.multinomial(found.softmax(0), 1, generator=chance))
        bits.append(-float(found.log_softmax(0)[token]) / math.log(2))
        rule.took(text, token, found)
        text.append(token)
    assert sum(bits[50:]) / len(bits[50:]) == pytest.approx(3.0, abs=0.25)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_of_few_tokens(version: int) -> None:
    for logits in (torch.tensor([1.0]), torch.tensor([1.0, -math.inf]), torch.zeros(3), torch.tensor([1.0, 1.0, 0.0])):
        found = Mirostat(version, 1e-3)([], logits)
        assert found.max() == logits.max() and not found.isnan().any()


class AdaptiveByItsSource:
    """Adaptive-p with the two sums of llama.cpp, in plain numbers."""

    def __init__(self, target: float, decay: float) -> None:
        self.target, self.decay = target, decay
        self.sum, self.weight = target / (1 - decay), 1 / (1 - decay)

    def hill(self, share: list[float]) -> list[float]:
        top = min(max(2 * self.target - self.sum / self.weight, 0.0), 1.0)
        far = [abs(p - top) / 0.3 for p in share]
        return [5 - 10 * x * x / (1 + x) for x in far]

    def accept(self, p: float) -> None:
        self.sum, self.weight = p + self.decay * self.sum, 1 + self.decay * self.weight


@few
@given(seed=st.integers(0, 999), target=st.floats(0, 1), decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]))
def test_adaptive_p(seed: int, target: float, decay: float) -> None:
    rule, source, text = AdaptiveP(target, decay), AdaptiveByItsSource(target, decay), [0]
    for step in range(8):
        logits = logits_of(seed + step)
        logits[:3] = -math.inf
        share = logits.double().softmax(0).tolist()
        found = rule(text, logits)
        assert found[:3].tolist() == [-math.inf] * 3
        assert found[3:].tolist() == pytest.approx(source.hill(share)[3:], rel=1e-4, abs=1e-4)
        token = int(torch.multinomial(found.softmax(0), 1, generator=torch.Generator().manual_seed(step)))
        rule.took(text, token, found)
        source.accept(share[token])
        text = [*text, token]


def test_adaptive_p_reaches_its_target() -> None:
    """Shares from 0.5 down: drawn as they are, the mean of the chosen is 0.34."""
    chance, logits = torch.Generator().manual_seed(0), -0.7 * torch.arange(12.0)
    means = []
    for target in (0.15, 0.3):
        rule, text, shares = AdaptiveP(target), [0], []
        for _ in range(300):
            found = rule(text, logits)
            token = int(torch.multinomial(found.softmax(0), 1, generator=chance))
            shares.append(float(logits.softmax(0)[token]))
            rule.took(text, token, found)
            text.append(token)
        means.append(sum(shares[30:]) / len(shares[30:]))
    assert means == pytest.approx([0.15, 0.3], abs=0.05)


def test_adaptive_p_learns_from_what_it_judged() -> None:
    logits = logits_of(6)
    share = logits.softmax(0)
    rule = AdaptiveP(0.3, 0.5)
    rule.took([0], 5, logits)  # never asked
    rule([0], logits)
    rule.took([0, 1], 5, logits)  # asked at another place
    assert rule.mean([0, 5]) == rule.mean([0, 1, 5]) == 0.3
    fork = rule.fork()
    for row, token in ((rule, 5), (fork, 7)):
        row.took([0], token, logits)
        assert row.mean([0, token]) == pytest.approx(0.15 + 0.5 * float(share[token]))
    assert rule.mean([0, 7]) == fork.mean([0, 5]) == 0.3
    rule([0, 5], logits)
    rule.took([0, 5], 7, logits)
    assert rule.mean([0, 5]) == pytest.approx(0.15 + 0.5 * float(share[5])) != rule.mean([0, 5, 7])  # looked back


# ------------------------------------------------------------------------- what all rules promise


def every_rule() -> list[Rule]:
    return [
        RepetitionPenalty(1.5), CountPenalty(0.5, 0.2, skip=2), Dry(1.0), NoRepeatNgram(2), NoRepeatNgram(3),
        Custom(lambda ids, scores: scores - ids.float().mean()), Mirostat(2, 0.5), Xtc(0.5, 0.1, 3),
        AdaptiveP(0.3),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(walk=st.lists(st.tuples(st.integers(0, 12), texts), min_size=1, max_size=8))
def test_rules_are_functions_of_ids(walk: list[tuple[int, list[int]]]) -> None:
    """Whatever a rule saw before: ids that grow, go back, and go elsewhere."""
    followers = every_rule()
    logits, ids = logits_of(3, 5), [1]
    for keep, more in walk:
        ids = ids[:keep] + more
        for i, rule in enumerate(followers):
            fresh = every_rule()[i]
            assert torch.equal(rule(ids, logits), fresh(ids, logits))
            fork = rule.fork()
            assert torch.equal(fork([*ids, 2], logits), fresh([*ids, 2], logits))
            assert torch.equal(rule(tuple(ids), logits), fresh(ids, logits))


def test_mirostat_forgets_what_was_taken_back() -> None:
    rule, logits = Mirostat(2, 1.0, 0.5), logits_of(4)
    for place, token in enumerate([1, 2, 3]):
        rule.took([0, 1, 2][: place + 1], token, logits)
    limits = [rule.limit([0, 1, 2, 3][:n]) for n in (4, 3, 2, 1)]
    assert len(set(limits)) == 4 and limits[-1] == 2.0
    assert [rule.limit([0, 1, 2, 3][:n]) for n in (4, 3, 2, 1)] == limits  # to look back is not to go back
    fork = rule.fork()
    rule.took([0], 5, logits)
    assert rule.limit([0, 1, 2]) == 2.0  # gone
    assert rule.limit([0, 5]) != 2.0 == fork.limit([0])


@few
@given(first=texts, second=texts)
def test_shared_beginnings(first: list[int], second: list[int]) -> None:
    wanted = next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))
    assert shared(first, second) == wanted
    trail = Trail()
    assert trail.follow(first).tolist() == first and trail.follow(second).tolist() == second
    assert trail.copy().follow(first + second).tolist() == first + second


@few
@given(walk=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2), texts), min_size=1, max_size=12))
def test_notes_stand_behind_a_text(walk: list[tuple[int, int, list[int]]]) -> None:
    """What was noted on the way to some ids, the last of it, and nothing that was noted elsewhere."""
    notes, path, wanted = Notes(), [0], {}
    for number, (back, token, elsewhere) in enumerate(walk):
        path = path[: max(1, len(path) - back)]
        notes.add(path, token, number)
        path = [*path, token]
        wanted = {ids: n for ids, n in wanted.items() if list(ids) == path[: len(ids)] and len(ids) < len(path)}
        wanted[tuple(path)] = number
        for ids in (path, path[:-1], [*path, 1, 1], elsewhere, [0, *elsewhere]):
            found = [n for known, n in wanted.items() if list(known) == ids[: len(known)]]
            assert notes.last(ids, -1.0) == notes.copy().last(ids, -1.0) == max(found, default=-1.0)


def test_a_custom_processor_must_return_scores() -> None:
    for wrong in (lambda ids, scores: None, lambda ids, scores: scores[:, :2]):
        with pytest.raises(InputError, match="returned"):
            Custom(wrong)([1], torch.zeros(5))


# ------------------------------------------------------------------------- built from options

EVERYTHING: dict[str, Any] = {
    "sequence_bias": [[[1], 1.0]], "encoder_repetition_penalty": 1.2, "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 3, "bad_words_ids": [[4]], "min_length": 9,
    "min_new_tokens": 4, "forced_bos_token_id": 1, "forced_eos_token_id": 2, "remove_invalid_values": True,
    "exponential_decay_length_penalty": (3, 1.1), "suppress_tokens": [7], "begin_suppress_tokens": [8],
    "do_sample": True, "temperature": 0.7, "top_h": 0.9, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9,
    "epsilon_cutoff": 1e-3, "eta_cutoff": 1e-3, "renormalize_logits": True, "eos_token_id": [2, 3],
    "max_new_tokens": 12,
}  # fmt: skip


def their_list(options: dict[str, Any], ids: Tensor, **more: Any) -> Any:
    """The processors that the reference makes of options."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=30, n_embd=8, n_layer=1, n_head=2, n_positions=64))
    config, _ = model._prepare_generation_config(TheirConfig(**options))
    model._prepare_special_tokens(config, True)
    config.max_length = config.max_new_tokens + ids.shape[1]
    return model._get_logits_processor(config, ids.shape[1], ids, device="cpu", logits_processor=[], **more)


def allowed(row: int, ids: Tensor) -> list[int]:
    return list(range(25))


@pytest.mark.parametrize("beams", [1, 3])
def test_order_and_result_are_the_references(beams: int) -> None:
    options = {**EVERYTHING, "num_beams": beams}
    ids = torch.randint(9, 29, (1, 6), generator=torch.Generator().manual_seed(0))
    theirs = their_list(options, ids, prefix_allowed_tokens_fn=allowed)
    ours = rules(GenerationConfig(**options), prompt=ids[0].tolist(), prefix_allowed_tokens_fn=allowed)
    made = {name: type(shell(*arguments)) for name, shell, *arguments in _shells()}
    assert [made[type(each).__name__] for each in theirs] == [type(rule) for rule in ours]
    # values: without what makes the impossible finite, which overflows in the reference's later processors
    theirs = [each for each in theirs if type(each).__name__ != "InfNanRemoveLogitsProcessor"]
    ours = [rule for rule in ours if not isinstance(rule, RemoveInvalid)]
    for length in (6, 7, 14, 17) if beams == 1 else ():
        text = torch.randint(9, 29, (1, length), generator=torch.Generator().manual_seed(length))
        logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(length))
        wanted, found = logits, logits[0]
        for each, rule in zip(theirs, ours):
            wanted, found = each(text, wanted), rule(text[0].tolist(), found)
            torch.testing.assert_close(found, wanted[0], rtol=1e-5, atol=1e-5, msg=lambda m: f"{rule} {m}")  # noqa: B023


def _shells() -> list[Any]:
    """Name, and how a rule of that class is made."""
    text = torch.tensor([[1, 2]])
    arguments: dict[str, tuple[Any, ...]] = {
        "SequenceBiasLogitsProcessor": ([[[1], 1.0]],), "EncoderRepetitionPenaltyLogitsProcessor": (1.2, text),
        "EncoderNoRepeatNGramLogitsProcessor": (1, text), "NoBadWordsLogitsProcessor": ([[4]],),
        "MinLengthLogitsProcessor": (1, 2), "MinNewTokensLengthLogitsProcessor": (1, 2, 3),
        "PrefixConstrainedLogitsProcessor": (allowed, 1), "ForcedEOSTokenLogitsProcessor": (5, 1),
        "ExponentialDecayLengthPenalty": ((1, 1.5), 2, 3), "SuppressTokensLogitsProcessor": ([1],),
        "SuppressTokensAtBeginLogitsProcessor": ([1], 2), "InfNanRemoveLogitsProcessor": (), "LogitNormalization": (),
        "TemperatureLogitsWarper": (0.5,), "TopHLogitsWarper": (0.5,), "TopPLogitsWarper": (0.5,),
        "MinPLogitsWarper": (0.5,), "TypicalLogitsWarper": (0.5,), "EpsilonLogitsWarper": (0.5,),
        "EtaLogitsWarper": (0.5,), "RepetitionPenaltyLogitsProcessor": (0.5,),
    }  # fmt: skip
    return [
        (name, lambda *given, kind=kind: kind(*given).rule_of(0), *arguments.get(name, (1,)))
        for name, kind in CLASSES.items()
    ]


def kinds(options: GenerationConfig, **more: Any) -> list[str]:
    return [type(rule).__name__ for rule in rules(options, prompt=[5, 6], seed=1, **more)]


def test_options_that_others_have_stand_where_they_belong() -> None:
    options = GenerationConfig(
        logit_bias={"3": 1.0}, presence_penalty=0.5, dry_multiplier=0.8, dry_sequence_breakers=[3],
        repetition_penalty=1.1, no_repeat_ngram_size=3, do_sample=True, top_n_sigma=1.0, xtc_probability=0.5,
        dynatemp_range=0.5, temperature=0.9, min_p=0.1,
    )  # fmt: skip
    assert kinds(options) == [
        "LogitBias", "RepetitionPenalty", "CountPenalty", "Dry", "NoRepeatNgram", "TopSigma", "TopK", "MinP", "Xtc",
        "DynamicTemperature",
    ]  # fmt: skip
    assert kinds(options.merged_quietly({"do_sample": False}))[-1] == "NoRepeatNgram"
    assert kinds(options.merged_quietly({"temperature": 0}))[-1] == "NoRepeatNgram"
    assert kinds(options.merged_quietly({"mirostat": 2, "dynatemp_range": 0.0}))[-2:] == ["Temperature", "Mirostat"]
    assert kinds(options.merged_quietly({"adaptive_target": 0.0}))[-2:] == ["DynamicTemperature", "AdaptiveP"]
    assert kinds(GenerationConfig()) == [] and kinds(GenerationConfig(do_sample=True, top_k=0)) == []
    assert kinds(GenerationConfig(min_length=5)) == []  # there is no end to hold back
    assert kinds(GenerationConfig(bad_words_ids=[[2]], eos_token_id=2)) == []


def test_own_processors_stand_in_for_those_of_their_type() -> None:
    class Mine(LogitsProcessor):
        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            return scores + 1

    options = GenerationConfig(suppress_tokens=[1], min_length=9, eos_token_id=2, do_sample=True)
    own, shell = MinLength((2,), 4), CLASSES["SuppressTokensLogitsProcessor"]([3])
    found = rules(options, prompt=[1], processors=[Mine(), own, shell], grammar=[Suppress((5,))])
    assert [type(rule).__name__ for rule in found] == ["MinLength", "Suppress", "Custom", "Suppress", "TopK"]
    assert found[0] is own and found[1] == Suppress((3,))
    with pytest.raises(ArgumentError, match="str"):
        rules(options, prompt=[1], processors=["x"])


def test_breakers_are_tokens_that_have_the_string() -> None:
    tokenizer = AutoTokenizer.from_pretrained()
    found = breaker_ids(["\n", "."], tokenizer)
    assert found == {i for i in range(len(tokenizer)) if {"\n", "."} & {*tokenizer.decode([i])}}
    assert breaker_ids([3, 4], None) == {3, 4}
    assert breaker_ids([".\n.\n zebra"], tokenizer) == {tokenizer.encode("a.\n.\n zebra", add_special_tokens=False)[-1]}
    with pytest.raises(ArgumentError, match="tokenizer"):
        breaker_ids(["\n"], None)
    with pytest.raises(ArgumentError, match="tokenizer"):
        rules(GenerationConfig(dry_multiplier=0.5), prompt=[1])
