"""The reference library as an oracle: tiny checkpoints with loud random weights, and float64 arithmetic.

The default initialisation (0.02, ones, zeros) hides mistakes: a forgotten bias is zero, a norm's offset makes no
difference, attention is uniform. Here every matrix keeps activations near 1 and every vector differs from neutral.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
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
}


@dataclass(frozen=True)
class Case:
    """One checkpoint: a family's fixture, one of its variants, one of its tasks."""

    family: str
    variant: str
    task: str | None
    config: dict[str, Any] = field(hash=False, compare=False)
    norm_offset: float = field(default=0.0, hash=False, compare=False)

    def __str__(self) -> str:
        return " · ".join(part for part in (self.family, self.task or "base", self.variant) if part)


def fixture(family: str) -> dict[str, Any]:
    return json.loads((FAMILIES / f"{family}.json").read_text())


def families() -> list[str]:
    return sorted(path.stem for path in FAMILIES.glob("*.json"))


def cases(*, variants: bool = True, tasks: bool = True) -> list[Case]:
    """Every task of the plain config, and every variant with the first task."""
    found = []
    for family in families():
        data = fixture(family)
        offset = data.get("norm_offset", 0.0)
        for task in data["tasks"] if tasks else data["tasks"][:1]:
            two = {"num_labels": 2} if task == "question-answering" else {}  # start and end
            found.append(Case(family, "", task, data["config"] | two, offset))
        for name, changes in data["variants"].items() if variants else ():
            config = {**data["config"], **changes}
            found.append(Case(family, name, data["tasks"][0], config, offset))
    return found


def reference_class(task: str | None) -> Any:
    import transformers

    return getattr(transformers, AUTO[task])


def our_class(task: str | None) -> Any:
    import pellucid

    return getattr(pellucid, AUTO[task])


def make_loud(model: torch.nn.Module, norm_offset: float, seed: int = 0) -> None:
    """Random weights at a scale that keeps activations near 1, and no vector at its neutral value."""
    chance = torch.Generator().manual_seed(seed)

    def draw(shape: torch.Size) -> torch.Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float64)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                embeds = "embed" in name or "shared" in name or name.endswith(("wte.weight", "wpe.weight"))
                fan_in = 1 if embeds else max(parameter.shape) if parameter.shape[0] == parameter.shape[1] else None
                fan = fan_in or (parameter.shape[0] if "c_" in name else parameter.shape[1])
                scale = 1.0 if "relative_attention_bias" in name else 1 / math.sqrt(fan)
                parameter.copy_(draw(parameter.shape) * scale * (1.3 if "q" in name.split(".")[-2] else 1.0))
            elif name.endswith("bias"):
                parameter.copy_(draw(parameter.shape) * 0.4)
            else:
                parameter.copy_(1.0 - norm_offset + draw(parameter.shape) * 0.3)


@cache
def checkpoint(case: Case, root: Path) -> Path:
    """A folder that the reference library wrote, with loud weights and config keys as they are in the wild."""
    from transformers import AutoConfig

    folder = root / str(case).replace(" ", "_")
    if folder.exists():
        return folder
    config = AutoConfig.for_model(**case.config)
    model = reference_class(case.task).from_config(config, attn_implementation="eager")
    make_loud(model, case.norm_offset)
    model.save_pretrained(folder)
    return folder


def reference(case: Case, folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    model = reference_class(case.task).from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval()


def ours(case: Case, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    return our_class(case.task).from_pretrained(folder, dtype=dtype, **options)


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


def inputs(case: Case, *, batch: int = 2, time: int = 13, seed: int = 1) -> dict[str, torch.Tensor]:
    """Ids (and what else the task takes) for one call; no special id among them."""
    chance = torch.Generator().manual_seed(seed)
    vocab = case.config["vocab_size"]

    def ids(*shape: int) -> torch.Tensor:
        return torch.randint(3, vocab, shape, generator=chance)

    given = {"input_ids": ids(batch, time)}
    if case.family == "bert":
        given["token_type_ids"] = torch.randint(0, 3, (batch, time), generator=chance)
    if case.family == "t5":
        given["decoder_input_ids"] = ids(batch, time - 2)
    return given


def labels(case: Case, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Labels that suit the task, some of them ignored."""
    chance = torch.Generator().manual_seed(2)
    batch, time = given["input_ids"].shape
    n = case.config.get("num_labels", 2)
    match case.task:
        case "sequence-classification":
            return {"labels": torch.randint(0, n, (batch,), generator=chance)}
        case "token-classification":
            tags = torch.randint(0, n, (batch, time), generator=chance)
            tags[:, ::4] = -100
            return {"labels": tags}
        case "question-answering":
            return {
                "start_positions": torch.tensor([3] * batch),
                "end_positions": torch.tensor([time + 7] * batch),
            }
        case None:
            return {}
    wanted = given.get("decoder_input_ids", given["input_ids"]).clone()
    wanted[:, ::5] = -100
    return {"labels": wanted}


def tensors(output: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The values of an output that both libraries return, flattened."""
    for name in (
        "loss", "logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output", "hidden_states",
        "attentions", "encoder_last_hidden_state", "encoder_hidden_states", "decoder_hidden_states",
        "encoder_attentions", "decoder_attentions", "cross_attentions",
    ):  # fmt: skip
        value = getattr(output, name, None)
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from ((f"{name}[{i}]", one) for i, one in enumerate(value))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, as a share of b's largest value."""
    assert a.shape == b.shape, f"{tuple(a.shape)} against {tuple(b.shape)}"
    return float((a.detach() - b.detach()).abs().max() / b.detach().abs().max().clamp_min(1e-30))
