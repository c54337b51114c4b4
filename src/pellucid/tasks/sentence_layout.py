"""How sentence-transformers lays a sentence model out in a folder, read into what `sentences.py` computes.

    modules.json                        the modules in their order: a Transformer first, then steps to one vector
    config_sentence_transformers.json   prompts, the similarity, dimensions to cut to
    sentence_bert_config.json           the longest text, beside the Transformer's own files
    1_Pooling/config.json, 2_Dense/…    a folder for each step

Versions 1 to 6 wrote it; modules are told apart by the last part of their class's name, which never changed. A module
that is not here is refused by its name, and code that a folder brings is not run.
Source: sentence-transformers 6.2, https://sbert.net/docs/package_reference/sentence_transformer/modules.html
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pellucid.config import read_json
from pellucid.errors import ArgumentError, ConfigError, Unsupported, WeightsError, nearest
from pellucid.spec import Activation
from pellucid.weights.save import replace_file
from pellucid.weights.source import open_weights

log = logging.getLogger("pellucid")

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
NAMED_AFTER = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
TRANSFORMER = tuple(f"sentence_{kind}_config.json" for kind in NAMED_AFTER)
Kind = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
OLD_KINDS: dict[str, Kind] = {  # in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS: dict[str, Activation] = {
    "Identity": "linear", "Tanh": "tanh", "ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "GELU": "gelu",
    "SiLU": "silu", "Sigmoid": "sigmoid", "Mish": "mish", "Softplus": "softplus", "Hardswish": "hard_silu",
}  # fmt: skip


@dataclass(frozen=True)
class Pool:
    """Token states to one vector; of several kinds the vectors are joined. Without the prompt, if that is said."""

    kinds: tuple[Kind, ...]
    include_prompt: bool = True


@dataclass(frozen=True)
class Normalize:
    """To length 1."""


@dataclass(frozen=True, eq=False)
class Project:
    """act(W x + b), and the input beside it where that is said; `residual` maps the input where widths differ."""

    weight_OI: Tensor
    bias_O: Tensor | None
    act: Activation
    residual: Tensor | Literal["as it is"] | None = None


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """(x - mean) / sqrt(variance + 1e-5) * weight + bias."""

    weight_D: Tensor
    bias_D: Tensor


Step = Pool | Normalize | Project | LayerNorm


@dataclass(frozen=True)
class Layout:
    """A sentence model without its transformer.

    Args:
        inner: the folder of the transformer.
        longest: tokens of a text; None for what the model and its tokenizer allow.
        lower: letters become small ones before the tokenizer sees them.
        assumed: what the folder does not say, and was assumed.
    """

    folder: Path
    inner: Path
    steps: tuple[Step, ...]
    longest: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    dim: int | None = None
    assumed: str = ""


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder, or the one above it that names it as its transformer, has the layout."""
    return _above(folder) is not None


def read_layout(folder: Path) -> Layout:
    """The layout of a folder. One without modules.json is a bare transformer: its mean, or a decoder's last token.

    Raises:
        ConfigError: a file is broken or contradicts another. WeightsError: a step has no weights.
        Unsupported: names the module that is not done here.
    """
    top = _above(folder)
    if top is None:
        return _assumed(folder)
    modules = read_modules(top)
    settings = read_settings(top, "SentenceTransformer")
    kinds = [kind for kind, _ in modules]
    if kinds[0] != "Transformer" or "Transformer" in kinds[1:]:
        raise Unsupported(
            f"the modules are {', '.join(kinds)}", where=top / MODULES, next=f"first a Transformer; {HERE}"
        )
    inner = modules[0][1]
    longest, lower = _transformer(inner)
    steps = [step for kind, path in modules[1:] if (step := STEPS[kind](path)) is not None]
    if sum(isinstance(step, Pool) for step in steps) != 1 or not isinstance(steps[0], Pool):
        raise Unsupported(
            f"the modules are {', '.join(kinds)}", where=top / MODULES, next="one Pooling, behind the Transformer"
        )
    return Layout(top, inner, tuple(steps), longest, lower, **vars(settings))


def _above(folder: Path) -> Path | None:
    """The folder that has modules.json: this one, or the one above, where old versions kept 0_Transformer."""
    if (folder / MODULES).is_file():
        return folder
    outer = folder.parent
    if (outer / MODULES).is_file() and any(path == folder for _, path in read_modules(outer)):
        return outer
    return None


def _assumed(folder: Path) -> Layout:
    config = read_json(folder / "config.json") if folder.is_dir() else {}
    names = config.get("architectures") or [""]
    kind: Kind = "lasttoken" if str(names[0]).endswith("ForCausalLM") else "mean"
    said = "the last token of a text" if kind == "lasttoken" else "the mean of a text's tokens"
    return Layout(folder, folder, (Pool((kind,)),), assumed=f"{folder} has no {MODULES}: {said} is its vector")


def read_modules(top: Path) -> list[tuple[str, Path]]:
    """Each module's kind and folder, in their order."""
    try:
        found = json.loads((top / MODULES).read_text("utf-8"))
        entries = [(str(entry["type"]), str(entry["path"])) for entry in sorted(found, key=lambda entry: entry["idx"])]
        if not entries:
            raise ValueError("it is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{MODULES} is no list of modules: {type(error).__name__}: {error}"
        raise ConfigError(what, where=top / MODULES, next="download the file again, or correct it") from None
    modules = []
    for name, path in entries:
        kind = name.rpartition(".")[2]
        if not name.startswith("sentence_transformers."):
            what = f"the module {name} is code of the model folder, which is not run"
            raise Unsupported(what, where=top / MODULES, next=f"give a model of known modules; {HERE}")
        if kind not in (*STEPS, "Transformer"):
            raise Unsupported(f"a {kind} module", where=top / MODULES, next=HERE)
        folder = (top / path).resolve()
        if not folder.is_relative_to(top.resolve()):
            raise ConfigError(
                f"the module's path {path!r} leads out of the folder", where=top / MODULES, next="correct it"
            )
        modules.append((kind, top / path if path else top))
    return modules


def prompt_named(name: str | None, prompts: Mapping[str, str], default: str | None) -> str:
    """A prompt by its name, the default one for None; "query" and "document" are empty where a model has none.

    Raises:
        ArgumentError: there is no such prompt.
    """
    name = default if name is None else name
    if name is None:
        return ""
    known = {"query": "", "document": "", **prompts}
    if name not in known:
        hint = nearest(name, known) or f"known: {', '.join(known)}; or pass the text itself: prompt="
        raise ArgumentError(f"there is no prompt {name!r}", where="prompt_name", next=hint)
    return known[name]


@dataclass(frozen=True)
class Settings:
    """What config_sentence_transformers.json says; see `Layout`."""

    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = "cosine"
    dim: int | None = None


def read_settings(top: Path, wanted: str) -> Settings:
    """The settings of a folder, of the kind of model that is wanted.

    Raises:
        ConfigError: a value makes no sense. Unsupported: the folder is a model of another kind.
    """
    path = top / SETTINGS
    values = read_json(path) if path.is_file() else {}
    if (kind := values.get("model_type", wanted)) != wanted:
        raise Unsupported(f"the folder is a {kind}, not a {wanted}", where=path, next=f"give a {wanted}")
    prompts = {str(name): text or "" for name, text in (values.get("prompts") or {}).items()}
    default, similarity, dim = (
        values.get(key) for key in ("default_prompt_name", "similarity_fn_name", "truncate_dim")
    )
    if not all(isinstance(text, str) for text in prompts.values()):
        raise ConfigError(f"prompts={prompts!r}", where=path, next="each is a name and a text")
    if default is not None and default not in prompts:
        what = f"default_prompt_name={default!r} is none of {[*prompts]}"
        raise ConfigError(what, where=path, next="correct the file")
    if similarity not in (None, *get_args(Similarity)):
        what = f"similarity_fn_name={similarity!r}"
        raise ConfigError(what, where=path, next=f"one of {', '.join(get_args(Similarity))}")
    if dim is not None and (type(dim) is not int or dim < 1):
        raise ConfigError(f"truncate_dim={dim!r}", where=path, next="a whole number, at least 1")
    return Settings(prompts, default, similarity or "cosine", dim)


# ---------------------------------------------------------------------------------------------------- modules


SAID_ELSEWHERE = {
    "transformer_task",
    "modality_config",
    "module_output_name",
    "unpad_inputs",
    "max_seq_length",
    "do_lower_case",
}


def _transformer(inner: Path) -> tuple[int | None, bool]:
    """The longest text and whether letters become small, of a Transformer's folder."""
    path = next((inner / name for name in TRANSFORMER if (inner / name).is_file()), None)
    values = read_json(path) if path else {}
    said = {
        key: value for key, value in values.items() if key not in SAID_ELSEWHERE and value not in (None, {}, [], False)
    }
    output, task = values.get("module_output_name"), values.get("transformer_task")
    methods = (values.get("modality_config") or {}).get("text") or {}
    reads = methods.get("method_output_name", "last_hidden_state")
    if output not in (None, "token_embeddings") or task not in (None, "feature-extraction"):
        said |= {"module_output_name": output, "transformer_task": task}
    if reads not in ("last_hidden_state", ["last_hidden_state"]) or methods.get("method", "forward") != "forward":
        said["modality_config"] = methods
    if said:
        raise Unsupported(
            f"a Transformer with {said}", where=path or inner, next="only texts to their last hidden states"
        )
    longest = values.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise ConfigError(f"max_seq_length={longest!r}", where=path, next="a whole number, at least 1")
    return longest, bool(values.get("do_lower_case"))


def _pooling(folder: Path) -> Pool:
    values = read_json(folder / "config.json")
    mode = values.get("pooling_mode")
    if mode is None:
        mode = [kind for key, kind in OLD_KINDS.items() if values.get(key)] or ["mean"]
    kinds = tuple([mode] if isinstance(mode, str) else mode)
    if not kinds or any(kind not in get_args(Kind) for kind in kinds):
        raise ConfigError(
            f"pooling_mode={mode!r}", where=folder / "config.json", next=f"known: {', '.join(get_args(Kind))}"
        )
    return Pool(kinds, include_prompt=values.get("include_prompt", True) is not False)


def _dense(folder: Path) -> Project:
    values = read_json(folder / "config.json")
    act = activation_named(values.get("activation_function", "torch.nn.modules.activation.Tanh"), folder)
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in (None, "sentence_embedding"):
            raise Unsupported(f"a Dense with {key}={values[key]!r}", where=folder, next="only on the sentence's vector")
    tensors = _tensors(folder)
    residual: Any = None
    if values.get("use_residual"):
        residual = "as it is" if values.get("in_features") == values.get("out_features") else tensors("residual.weight")
    bias = tensors("linear.bias") if values.get("bias", True) else None
    return Project(tensors("linear.weight"), bias, act, residual)


def activation_named(path: object, where: Path) -> Activation:
    """The function of a class of torch.

    Raises:
        Unsupported: it is none that is known here.
    """
    module, _, name = str(path).rpartition(".")
    if not module.startswith("torch.nn") or name not in ACTIVATIONS:
        raise Unsupported(f"the activation {path}", where=where, next=f"known: {', '.join(ACTIVATIONS)}, of torch.nn")
    return ACTIVATIONS[name]


def _layer_norm(folder: Path) -> LayerNorm:
    tensors = _tensors(folder)
    return LayerNorm(tensors("norm.weight"), tensors("norm.bias"))


def _normalize(folder: Path) -> Normalize:
    path = folder / "config.json"
    values = read_json(path) if path.is_file() else {}
    for key in ("module_input_name", "module_output_name"):
        if values.get(key) not in (None, "sentence_embedding"):
            raise Unsupported(
                f"a Normalize with {key}={values[key]!r}", where=path, next="only of the sentence's vector"
            )
    return Normalize()


def _tensors(folder: Path) -> Callable[[str], Tensor]:
    """A reader of a step's tensors, in float32 at least."""
    weights = open_weights(folder)

    def read(name: str) -> Tensor:
        if name not in weights.names:
            raise WeightsError(f"no tensor {name!r}", where=folder, next="download the folder again")
        tensor = weights.tensor(name)
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    return read


STEPS: dict[str, Callable[[Path], Step | None]] = {
    "Pooling": _pooling,
    "Normalize": _normalize,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Dropout": lambda folder: None,  # in training only
}
HERE = f"known are a Transformer, then {', '.join(STEPS)}"


# -------------------------------------------------------------------------------------------------------- saving


def copy_layout(top: Path, target: Path, settings: Mapping[str, Any]) -> None:
    """Writes what a layout has beside the transformer's own files: the modules, and settings over those of before."""
    if not (top / MODULES).is_file():
        return
    for kind, path in read_modules(top):
        inner = path.relative_to(top)
        names = TRANSFORMER if kind == "Transformer" else tuple(each.name for each in path.glob("*") if each.is_file())
        for name in names:
            if (path / name).is_file():
                (target / inner).mkdir(parents=True, exist_ok=True)
                replace_file(target / inner / name, (path / name).read_bytes())
        if kind == "Normalize":
            (target / inner).mkdir(parents=True, exist_ok=True)
    replace_file(target / MODULES, (top / MODULES).read_bytes())
    before = read_json(top / SETTINGS) if (top / SETTINGS).is_file() else {}
    replace_file(target / SETTINGS, json.dumps({**before, **settings}, indent=2, ensure_ascii=False) + "\n")
