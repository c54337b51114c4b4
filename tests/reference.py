"""The reference library as an oracle: tiny checkpoints with loud random weights, and float64 arithmetic.

The default initialisation (0.02, ones, zeros) hides mistakes: a forgotten bias is zero, a norm's offset makes no
difference, attention is uniform. Here every matrix keeps activations near 1 and every vector differs from neutral.

A family is one file, tests/families/<type>.json:

    config               as in config.json: tiny, with sizes that cannot be mistaken for each other
    tasks                every head; the first is the main one, which all tests use; null is the model without a head
    variants             {name: changes of the config}; with "task", a head other than the main one, with
                         "attn_implementation", see below
    mutations            {key: a value that must change the numbers, or null: what must refuse to load, see test_parity}
    skip                 {part of a test's name: reason}
    without              names of outputs that are not compared, or {task: names}
    classes              {task: class of the reference}, where its Auto class means another one
    norm_offset          what norms add to their stored weight
    quiet                {pattern of a tensor's name: [low, high], or a scale, or null to leave it alone}
    alike                a pattern: tensors whose names differ in it alone have the same values
    batch                1 where a row's numbers depend, in the reference, on the rows beside it
    shifts               false where the reference does not make the decoder's ids from labels
    options              further arguments of the forward
    first_id, vocab, token_types, inputs, labels_below       see `inputs` and `labels`
    attn_implementation  of the reference, where eager is not its truth
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

FAMILIES = Path(__file__).parent / "families"

AUTO = {
    None: "AutoModel",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "table-question-answering": "AutoModelForTableQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "next-sentence": "AutoModelForNextSentencePrediction",
    "pretraining": "AutoModelForPreTraining",
    "text-encoding": "AutoModelForTextEncoding",
}
DECODED = (None, "seq2seq-lm")  # tasks of an encoder-decoder that are given the decoder's ids
CHOICES = 3

# Vectors that are no norm and no bias, and where their values make a stable recurrence.
QUIET = {
    "*A_log": [-1.0, 1.5], "*dt_bias": [-2.0, 1.0], "*time_decay": [-3.0, 1.0], "*time_first": [-1.0, 1.0],
    "*time_mix_*": [0.1, 0.9], "*running_var": [0.5, 1.5], "*num_batches_tracked": None, "*inv_freq": None,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One checkpoint: a family's fixture, one of its variants, one of its tasks."""

    family: str
    variant: str
    task: str | None
    config: dict[str, Any] = field(hash=False, compare=False)
    fixture: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)

    def __str__(self) -> str:
        return " · ".join(part for part in (self.family, self.task or "base", self.variant) if part)


@cache
def fixture(family: str) -> dict[str, Any]:
    return json.loads((FAMILIES / f"{family}.json").read_text())


def families() -> list[str]:
    return sorted(path.stem for path in FAMILIES.glob("*.json"))


def cases(*, variants: bool = True, tasks: bool = True) -> list[Case]:
    """Every task of the plain config, and every variant with the main task or its own.

    Args:
        tasks: False for the main task alone.
    """
    found = []
    for family in families():
        data = fixture(family)
        found += [case(family, "", task) for task in (data["tasks"] if tasks else data["tasks"][:1])]
        for name, changes in data.get("variants", {}).items() if variants else ():
            if tasks or "task" not in changes:
                found.append(case(family, name, changes.get("task", data["tasks"][0])))
    return found


def full() -> bool:
    """Whether every check of every variant runs: `make contract`."""
    return os.environ.get("PELLUCID_CONTRACT") == "full"


def sampled(found: list[Case]) -> list[Case]:
    """The plain configs among some cases, for checks that cost much; all of them in the full contract."""
    return found if full() else [one for one in found if not one.variant]


def case(family: str, variant: str, task: str | None) -> Case:
    data = fixture(family)
    config = data["config"] | (data["variants"][variant] if variant else {})
    config.pop("task", None)
    if "attn_implementation" in config:
        data = data | {"attn_implementation": config.pop("attn_implementation")}
    if task == "question-answering":
        config["num_labels"] = 2  # start and end
    return Case(family, variant, task, config, data)


def reference_class(task: str | None, case: Case | None = None) -> Any:
    import transformers

    own = case.fixture.get("classes", {}) if case else {}
    return getattr(transformers, own.get(task or "base", AUTO[task]))


def our_class(task: str | None) -> Any:
    import pellucid

    return getattr(pellucid, AUTO[task])


@cache
def config(case: Case) -> Any:
    """The reference's config object."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**case.config)


# ------------------------------------------------------------------------------------------------ weights


def make_loud(
    model: nn.Module,
    norm_offset: float = 0.0,
    quiet: dict[str, Any] | None = None,
    seed: int = 0,
    alike: str | None = None,
) -> None:
    """Random weights at a scale that keeps activations near 1, and no vector at its neutral value.

    A tensor's values depend on its name and shape alone; names that differ in what matches `alike` are one.
    """
    rules = {**QUIET, **(quiet or {})}
    with torch.no_grad():
        for path, module in model.named_modules():
            saved = {k: b for k, b in module._buffers.items() if k not in module._non_persistent_buffers_set}
            trained = {k: p for k, p in module._parameters.items() if p is not None and p.requires_grad}
            for key, tensor in {**saved, **trained}.items():
                name = f"{path}.{key}"
                rule = next((rule for pattern, rule in reversed(rules.items()) if fnmatch(name, pattern)), 1.0)
                if tensor is None or not tensor.is_floating_point() or rule is None:
                    continue
                known_as = re.sub(alike, "", name) if alike else name
                chance = torch.Generator().manual_seed(crc32(known_as.encode()) + seed)
                if isinstance(rule, list):
                    low, high = rule
                    value = low + (high - low) * torch.rand(tensor.shape, generator=chance, dtype=torch.float64)
                else:
                    drawn = torch.randn(tensor.shape, generator=chance, dtype=torch.float64)
                    value = rule * scaled(drawn, name, module, key in trained and norm_offset)
                tensor.copy_(value)


def left_alone(case: Case, name: str) -> bool:
    """Whether the fixture says of a tensor that it keeps the values that the reference gives it."""
    return any(rule is None and fnmatch(name, pattern) for pattern, rule in case.fixture.get("quiet", {}).items())


def scaled(drawn: Tensor, name: str, module: nn.Module, norm_offset: float) -> Tensor:
    """Unit noise, at the size that suits what it is: a table, a matrix, a bias, a norm's weight."""
    if drawn.numel() == 0:
        return drawn
    if drawn.numel() == max(drawn.shape, default=1):  # a vector, whatever its shape
        return drawn * 0.4 if "bias" in name.rpartition(".")[2] else 1.0 - norm_offset + drawn * 0.3
    if isinstance(module, nn.Embedding) or type(module).__name__ in ("Table", "DistanceBias"):
        return drawn
    if "bias" in name.rpartition(".")[2]:
        return drawn * 0.4
    if isinstance(module, nn.Linear) or type(module).__name__.startswith("Conv") and module._get_name() != "Conv1D":
        fan = math.prod(drawn.shape[1:])
    elif type(module).__name__ == "Conv1D":  # GPT-2's linear layer, stored [in, out], or torch's convolution
        fan = drawn.shape[0] if drawn.dim() == 2 else math.prod(drawn.shape[1:])
    else:
        fan = max(drawn.shape)
    queries = name.split(".")[-2].startswith(("q", "query")) if name.count(".") else False
    return drawn / math.sqrt(fan) * (1.3 if queries else 1.0)


@cache
def checkpoint(case: Case, root: Path) -> Path:
    """A folder that the reference library wrote, with loud weights and config keys as they are in the wild."""
    folder = root / str(case).replace(" ", "_")
    if folder.exists():
        return folder
    fresh = config.__wrapped__(case)
    architecture = reference_class(case.task, case)
    make = getattr(architecture, "from_config", None) or architecture._from_config  # an Auto class, or one by name
    model = make(fresh, **eager(case))
    make_loud(model, case.fixture.get("norm_offset", 0.0), case.fixture.get("quiet"), alike=case.fixture.get("alike"))
    model.save_pretrained(folder)
    return folder


def reference(case: Case, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = reference_class(case.task, case).from_pretrained(folder, dtype=dtype, **eager(case))
    if dtype == torch.float64:  # parameters that its code makes in float32
        model.double()
    return model.eval()


def eager(case: Case) -> dict[str, str]:
    """Options of the reference that choose its plain code."""
    return {"attn_implementation": case.fixture.get("attn_implementation", "eager"), "experts_implementation": "eager"}


def ours(case: Case, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return our_class(case.task).from_pretrained(folder, dtype=dtype, **options)


@lru_cache(maxsize=2)
def pair(case: Case, root: Path) -> tuple[Any, nn.Module]:
    """Our model and the reference's, in float32, for tests that leave them as they are."""
    folder = checkpoint(case, root)
    return ours(case, folder), reference(case, folder)


class InFloat64(TorchFunctionMode):
    """Turns every request for float32 into one for float64, so that nothing in between is rounded."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double

        def widened(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        args = tuple(widened(a) for a in args)
        kwargs = {k: widened(v) for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)

    def __enter__(self) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        torch.set_default_dtype(torch.float32)
        return super().__exit__(*error)


# ------------------------------------------------------------------------------------------------ inputs


def inputs(case: Case, *, batch: int | None = None, time: int = 13, seed: int = 1) -> dict[str, Tensor]:
    """Ids (and what else the task takes) for one call; no special id among them.

    Of the fixture: `first_id` (3) is the first id that is not special; `vocab` the first that does not exist;
    `token_types` how many there are (the config's type_vocab_size, where the model takes them); `inputs` further
    inputs for each token, {"bbox": {"shape": [4], "below": 50, "sorted": true}}.
    """
    chance = torch.Generator().manual_seed(seed)
    data, theirs = case.fixture, config(case)
    batch = batch or data.get("batch", 2)
    shape = (batch, CHOICES, time) if case.task == "multiple-choice" else (batch, time)
    first = data.get("first_id", 3)
    vocab = data.get("vocab") or sizes(theirs, "vocab_size")
    taken = parameters(reference_architecture(case))

    def ids(*shape: int) -> Tensor:
        return torch.randint(first, vocab, shape, generator=chance)

    given = {"input_ids": ids(*shape)}
    types = data.get("token_types", getattr(theirs, "type_vocab_size", 0) if "token_type_ids" in taken else 0)
    if types and types > 1:
        given["token_type_ids"] = torch.randint(0, types, shape, generator=chance)
    for name, rule in data.get("inputs", {}).items():
        value = torch.randint(rule.get("first", 0), rule["below"], (*shape, *rule.get("shape", [])), generator=chance)
        given[name] = value.sort(-1).values if rule.get("sorted") else value
    if two_sided(case):
        if case.task in DECODED:
            given["decoder_input_ids"] = ids(batch, time - 2)
        elif case.task == "sequence-classification":  # from the last end-of-sequence token
            given["input_ids"][:, -1] = sizes(theirs, "eos_token_id")
    return given


def two_sided(case: Case) -> bool:
    """Whether the task of this case runs an encoder and a decoder."""
    one = case.task in ("causal-lm", "text-encoding")
    return bool(getattr(config(case), "is_encoder_decoder", False)) and not one


def sizes(theirs: Any, key: str) -> Any:
    """A key of a config, or of the first of its sections that has it."""
    for section in (theirs, *(getattr(theirs, name, None) for name in ("text_config", "decoder", "encoder"))):
        value = getattr(section, key, None)
        if value is not None:
            return value
    return None


@cache
def reference_architecture(case: Case) -> Any:
    """The reference's class for a case, behind its Auto class."""
    found = reference_class(case.task, case)
    mapping = getattr(found, "_model_mapping", None)
    known = mapping[type(config(case))] if mapping is not None else found
    return known[0] if isinstance(known, tuple) else known


def parameters(architecture: Any) -> set[str]:
    """What a class's forward takes."""
    return set(inspect.signature(architecture.forward).parameters)


def labels(case: Case, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Labels that suit the task, some of them ignored."""
    chance = torch.Generator().manual_seed(2)
    batch, time = given["input_ids"].shape[0], given["input_ids"].shape[-1]
    n = case.config.get("num_labels", 2)
    extra = {}
    match case.task:
        case "sequence-classification":
            kind = case.config.get("problem_type")
            if kind == "multi_label_classification":
                return {"labels": torch.randint(0, 2, (batch, n), generator=chance).float()}
            if n == 1 or kind == "regression":
                return {"labels": torch.randn((batch, n) if n > 1 else (batch,), generator=chance)}
            return {"labels": torch.randint(0, n, (batch,), generator=chance)}
        case "token-classification":
            tags = torch.randint(0, n, (batch, time), generator=chance)
            tags[:, ::4] = -100
            return {"labels": tags}
        case "question-answering":
            beyond = torch.tensor([5] + [time + 7] * (batch - 1))  # cut off: does not count
            return {"start_positions": torch.tensor([3] * batch), "end_positions": beyond}
        case "multiple-choice":
            return {"labels": torch.randint(0, CHOICES, (batch,), generator=chance)}
        case "next-sentence":
            return {"labels": torch.randint(0, 2, (batch,), generator=chance)}
        case "pretraining":
            for name in ("next_sentence_label", "sentence_order_label"):
                if name in parameters(reference_architecture(case)):
                    extra[name] = torch.randint(0, 2, (batch,), generator=chance)
        case None | "text-encoding":
            return {}
    wanted = given.get("decoder_input_ids", given["input_ids"]).clone()
    if below := case.fixture.get("labels_below", {}).get(case.task):  # ELECTRA: was this token replaced?
        return {"labels": wanted % below, **extra}
    wanted[:, ::5] = -100
    return {"labels": wanted, **extra}


def options(case: Case) -> dict[str, Any]:
    """Arguments of the forward that a family needs to mean the same on both sides."""
    return case.fixture.get("options", {})


def without(case: Case) -> list[str]:
    """Outputs that the reference means differently, for this task."""
    names = case.fixture.get("without", [])
    return names.get(case.task or "base", []) if isinstance(names, dict) else names


def call(case: Case, given: dict[str, Tensor]) -> dict[str, Any]:
    """Inputs and labels of one call; the decoder's ids follow from the labels, on both sides."""
    asked = {**given, **labels(case, given), **options(case)}
    if case.task == "seq2seq-lm" and case.fixture.get("shifts", True):
        asked.pop("decoder_input_ids")
    return asked


# ------------------------------------------------------------------------------------------------ outputs


def tensors(output: Any) -> Iterator[tuple[str, Tensor]]:
    """The values of an output that both libraries return, flattened."""
    for name in (
        "loss", "logits", "logits_aggregation", "start_logits", "end_logits", "prediction_logits",
        "seq_relationship_logits", "sop_logits",
        "last_hidden_state", "pooler_output", "hidden_states", "attentions", "encoder_last_hidden_state",
        "encoder_hidden_states", "decoder_hidden_states", "encoder_attentions", "decoder_attentions",
        "cross_attentions",
    ):  # fmt: skip
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}[{i}]", one) for i, one in enumerate(value) if isinstance(one, Tensor))


def first(output: Any) -> Tensor:
    """What a model is for: logits where it has a head, otherwise hidden states."""
    found = dict(tensors(output))
    found.pop("loss", None)
    return next(iter(found.values()))


def distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of b's largest value."""
    assert a.shape == b.shape, f"{tuple(a.shape)} against {tuple(b.shape)}"
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max().clamp_min(1e-30))


def median_distance(a: Tensor, b: Tensor) -> float:
    """The median over tokens of the largest difference, as a share of b's largest value."""
    return float((a - b).abs().amax(-1).median() / b.abs().max().clamp_min(1e-30))
