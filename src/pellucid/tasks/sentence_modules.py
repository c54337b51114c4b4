"""The modules of a sentence model, and how each is read from the folder that sentence-transformers wrote for it.

A chain is a source of token states (a transformer, or a table of vectors), a pooling, and steps on the sentence's
vector; what works on the states themselves stands between the first two. A bag of words is a vector already. Modules
are told apart by the last part of their class's name, which never changed in versions 1 to 6.
Source: sentence-transformers 6.2, https://sbert.net/docs/package_reference/sentence_transformer/modules.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pellucid.config import read_json
from pellucid.errors import ConfigError, Unsupported, WeightsError
from pellucid.spec import Activation
from pellucid.tasks.chat_rows import Rendering
from pellucid.weights.source import open_weights

NAMED_AFTER = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
TRANSFORMER = tuple(f"sentence_{kind}_config.json" for kind in NAMED_AFTER)
Kind = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
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


# ---------------------------------------------------------------------------------------------------- what there is


@dataclass(frozen=True)
class Transformer:
    """States of tokens by a model.

    Args:
        folder: of the model and its tokenizer.
        longest: tokens of a text; None for what the model and its tokenizer allow.
        lower: letters become small ones before the tokenizer sees them.
        chat: texts stand in the chat template; "if there is one" where the folder does not say.
    """

    folder: Path
    longest: int | None = None
    lower: bool = False
    chat: Rendering | Literal["if there is one"] | None = None


@dataclass(frozen=True)
class Static:
    """A vector of each token, whatever stands beside it (StaticEmbedding, model2vec): a table and a tokenizer.json."""

    folder: Path


@dataclass(frozen=True)
class Words:
    """The same of words (WordEmbeddings): a text is cut at white space, and words that are not known are left out."""

    folder: Path
    longest: int | None = None


@dataclass(frozen=True, eq=False)
class Bag:
    """A text's vector has a number for each known word (BoW): its weight, as often as the text has it.

    Args:
        words: each has the number of its place.
        weight_V: of each word.
        often: a word counts each time; otherwise once.
    """

    folder: Path
    words: tuple[str, ...]
    weight_V: Tensor
    often: bool


Source = Transformer | Static | Words | Bag


@dataclass(frozen=True, eq=False)
class Layers:
    """Token states are a weighted mean of those of all layers from `start`; 0 are the embeddings."""

    weight_L: Tensor
    start: int


@dataclass(frozen=True, eq=False)
class Weights:
    """Each token counts by its own weight: a table [V]."""

    weight_V: Tensor


@dataclass(frozen=True, eq=False)
class Cnn:
    """Filters over K neighbours, of several odd K, side by side; around a text there are zeros. arXiv 1408.5882.

    Args:
        filters: of each size, weight [O, D, K] and bias [O].
    """

    filters: tuple[tuple[Tensor, Tensor], ...]

    @property
    def width(self) -> int:
        """Channels of a state behind it."""
        return sum(len(bias_O) for _, bias_O in self.filters)


@dataclass(frozen=True, eq=False)
class Lstm:
    """A recurrent network over tokens, forwards, or both ways with the states joined. doi:10.1162/neco.1997.9.8.1735.

    Args:
        layers: of each layer the ways, forwards first: weights [4H, D] of the input and [4H, H] of the state, and the
            bias [4H] of each, of the gates i, f, g, o.
    """

    layers: tuple[tuple[tuple[Tensor, ...], ...], ...]

    @property
    def width(self) -> int:
        """Channels of a state behind it."""
        return sum(weight_hh.shape[1] for _, weight_hh, _, _ in self.layers[-1])


OnTokens = Layers | Weights | Cnn | Lstm


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


Step = Normalize | Project | LayerNorm
Module = Source | OnTokens | Pool | Step


@dataclass(frozen=True)
class Chain:
    """A text to one vector; the pooling is None where the source gives one."""

    source: Source
    pool: Pool | None
    steps: tuple[Step, ...] = ()
    tokens: OnTokens | None = None


def read_chain(modules: list[tuple[str, Path]], where: Path) -> Chain:
    """The modules of these kinds and folders, in their order, as a chain.

    Raises:
        Unsupported: names a module that is not done here, or an order that makes no vector.
        ConfigError, WeightsError: what a module's folder says makes no sense.
    """
    kinds = [kind for kind, _ in modules]
    said = f"the modules are {', '.join(kinds)}"
    if any(kind not in MODULES for kind in kinds):
        raise Unsupported(said, where=where, next=f"a sentence's vector is made by {', '.join(MODULES)}")
    found = [module for kind, path in modules if (module := MODULES[kind](path)) is not None]
    source = found.pop(0) if found else None
    if not isinstance(source, Source) or any(isinstance(module, Source) for module in found):
        raise Unsupported(said, where=where, next=f"first, and only there, one of {', '.join(SOURCES)}")
    tokens, found = (found[0], found[1:]) if found and isinstance(found[0], OnTokens) else (None, found)
    if isinstance(tokens, Layers):
        _require_layers(source, said, where)
    pool, found = (found[0], found[1:]) if found and isinstance(found[0], Pool) else (None, found)
    if isinstance(source, Static | Bag) and (tokens or pool):
        raise Unsupported(said, where=where, next=f"no {', '.join(ON_TOKENS)}, Pooling behind a {kinds[0]}")
    if pool is None and not isinstance(source, Static | Bag):
        raise Unsupported(said, where=where, next=f"one Pooling, behind the {kinds[0]}")
    steps = tuple(module for module in found if isinstance(module, Step))
    if len(steps) < len(found):
        raise Unsupported(said, where=where, next=f"behind the Pooling only {', '.join(STEPS)}")
    return Chain(source, Pool(("mean",)) if isinstance(source, Static) else pool, steps, tokens)


def _require_layers(source: Source, said: str, where: Path) -> None:
    """All layers are there where the model's config says so; without it the reference took the last one alone."""
    if not isinstance(source, Transformer):
        raise Unsupported(said, where=where, next="WeightedLayerPooling stands behind a Transformer")
    if not read_json(source.folder / "config.json").get("output_hidden_states"):
        what = "a WeightedLayerPooling, and the model's config.json does not say output_hidden_states"
        raise ConfigError(what, where=source.folder, next='add "output_hidden_states": true')


# -------------------------------------------------------------------------------------------------- sources of states

SAID_ELSEWHERE = (
    "transformer_task", "modality_config", "module_output_name", "processing_kwargs", "unpad_inputs",
    "max_seq_length", "do_lower_case",
)  # fmt: skip


def transformer_settings(inner: Path) -> tuple[dict[str, Any], Path]:
    """What a Transformer's folder says beside its model's own files, and where."""
    path = next((inner / name for name in TRANSFORMER if (inner / name).is_file()), None)
    return (read_json(path) if path else {}), path or inner


def _transformer(inner: Path) -> Transformer:
    values, path = transformer_settings(inner)
    said = {
        key: value for key, value in values.items() if key not in SAID_ELSEWHERE and value not in (None, {}, [], False)
    }
    output, task = values.get("module_output_name"), values.get("transformer_task")
    if output not in (None, "token_embeddings") or task not in (None, "feature-extraction"):
        said |= {"module_output_name": output, "transformer_task": task}
    for kind in ("text", "message"):
        methods = (values.get("modality_config") or {}).get(kind) or {}
        reads = methods.get("method_output_name", "last_hidden_state")
        if reads not in ("last_hidden_state", ["last_hidden_state"]) or methods.get("method", "forward") != "forward":
            said["modality_config"] = methods
    if said:
        raise Unsupported(f"a Transformer with {said}", where=path, next="only texts to their last hidden states")
    longest = values.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise ConfigError(f"max_seq_length={longest!r}", where=path, next="a whole number, at least 1")
    return Transformer(inner, longest, bool(values.get("do_lower_case")), read_rendering(values, path))


def read_rendering(values: Mapping[str, Any], where: Path) -> Rendering | None:
    """Whether a Transformer's texts stand in a chat template: where it says "message", version 6 makes them messages.

    Raises:
        Unsupported: names further options of the tokenizer.
    """
    given = {key: value for key, value in (values.get("processing_kwargs") or {}).items() if value}
    options = given.pop("chat_template", {})
    if given or not isinstance(options, dict):
        raise Unsupported(f"processing_kwargs={given or options}", where=where, next="only chat_template's variables")
    message = (values.get("modality_config") or {}).get("message")
    return None if message is None else Rendering(message.get("format") == "structured", options)


def _words(folder: Path) -> Words:
    values = read_json(folder / "wordembedding_config.json")
    cuts = str(values.get("tokenizer_class")).rpartition(".")[2]
    if cuts != "WhitespaceTokenizer":
        raise Unsupported(f"a WordEmbeddings with a {cuts}", where=folder, next="only with a WhitespaceTokenizer")
    return Words(folder, values.get("max_seq_length"))


def _bag(folder: Path) -> Bag:
    values = read_json(folder / "config.json")
    words, known = tuple(dict.fromkeys(values.get("vocab") or ())), values.get("word_weights") or {}
    if not words:
        raise ConfigError("a BoW without words", where=folder / "config.json", next="download the folder again")
    other = values.get("unknown_word_weight", 1)
    weight_V = torch.tensor([float(known.get(word, known.get(word.lower(), other))) for word in words])
    return Bag(folder, words, weight_V, often=bool(values.get("cumulative_term_frequency", True)))


# ------------------------------------------------------------------------------------------ on the states of tokens


def _layers(folder: Path) -> Layers:
    values = read_json(folder / "config.json")
    weight_L, start = _tensors(folder)("layer_weights"), values.get("layer_start", 4)
    most = values.get("num_hidden_layers", 12) + 1
    if len(weight_L) != most - start:
        what = f"{len(weight_L)} layer_weights for layers {start} to {most - 1}"
        raise WeightsError(what, where=folder, next="download the folder again")
    return Layers(weight_L, start)


def _weights(folder: Path) -> Weights:
    return Weights(_tensors(folder)("emb_layer.weight")[:, 0])


def _cnn(folder: Path) -> Cnn:
    values, tensors = read_json(folder / "cnn_config.json"), _tensors(folder)
    sizes = values.get("kernel_sizes", [1, 3, 5])
    strides = values.get("stride_sizes") or [1] * len(sizes)
    if any(size % 2 == 0 for size in sizes) or any(stride != 1 for stride in strides):
        what = f"a CNN of kernel_sizes={sizes}, stride_sizes={strides}"
        raise Unsupported(what, where=folder, next="only odd sizes, one step at a time: a state for each token")
    return Cnn(tuple((tensors(f"convs.{i}.weight"), tensors(f"convs.{i}.bias")) for i in range(len(sizes))))


def _lstm(folder: Path) -> Lstm:
    values, tensors = read_json(folder / "lstm_config.json"), _tensors(folder)
    ways = ("", "_reverse") if values.get("bidirectional", True) else ("",)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layers = range(values.get("num_layers", 1))
    return Lstm(
        tuple(tuple(tuple(tensors(f"encoder.{part}_l{i}{way}") for part in parts) for way in ways) for i in layers)
    )


def read_pool(folder: Path) -> Pool:
    """What a Pooling's folder says.

    Raises:
        ConfigError: a kind that does not exist.
    """
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


SOURCES: dict[str, Callable[[Path], Source]] = {
    "Transformer": _transformer,
    "StaticEmbedding": Static,
    "WordEmbeddings": _words,
    "BoW": _bag,
}
ON_TOKENS: dict[str, Callable[[Path], OnTokens]] = {
    "WeightedLayerPooling": _layers,
    "WordWeights": _weights,
    "CNN": _cnn,
    "LSTM": _lstm,
}
STEPS: dict[str, Callable[[Path], Step | None]] = {
    "Normalize": _normalize,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Dropout": lambda folder: None,  # in training only
}
MODULES: dict[str, Callable[[Path], Module | None]] = {**SOURCES, **ON_TOKENS, "Pooling": read_pool, **STEPS}
