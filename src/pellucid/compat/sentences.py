"""SentenceTransformer and CrossEncoder: what sentence-transformers' users write, versions 2 to 6."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from pellucid import hub
from pellucid.compat import auto
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.base import counted
from pellucid.compat.pipelines.sentences import RERANKERS, save_sentence_model
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest, strict
from pellucid.models.model import Model
from pellucid.tasks.fit import report_misfit, require_trained
from pellucid.tasks.flow import WINDOW, stream, whole_number
from pellucid.tasks.reranking import Act, CrossModel, Scored, cross_model, task_of_pairs
from pellucid.tasks.sentence_layout import Similarity, copy_layout, prompt_named, read_layout
from pellucid.tasks.sentence_modules import Transformer
from pellucid.tasks.sentences import Embedding, How, SentenceModel, sentence_model, task_of
from pellucid.tasks.vectors import SIMILARITIES, Precision, Vectors, quantize_embeddings
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")

Name = str | os.PathLike[str]
Options = Mapping[str, Any]
T = TypeVar("T", Embedding, Scored)
DOCUMENTS = ("document", "passage", "corpus")  # names of a document's prompt, the first that a model has


class _Loaded:
    """What both classes share: where a model comes from, and what belongs to it."""

    _made: SentenceModel | CrossModel

    @property
    def tokenizer(self) -> Any:
        """Of the model."""
        return self._made.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._made.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model; vectors and scores are float32 at least."""
        return self._made.dtype

    @property
    def max_seq_length(self) -> int | None:
        """Tokens of a text, or of a pair, that are read; None for any number."""
        return self._made.longest

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        whole_number("max_seq_length", value)
        most = self._made.context
        if most is not None and value > most:
            what = f"max_seq_length={value}, and the model has {most} positions"
            raise ArgumentError(what, where="max_seq_length", next=f"use {most} at most")
        self._made.longest = value

    def get_max_seq_length(self) -> int | None:
        """The same."""
        return self.max_seq_length

    def to(self, device: Any) -> Any:
        """Moves the model; returns this."""
        self._made.to(device)
        return self

    def eval(self) -> Any:
        """As it is loaded; returns this."""
        return self


class SentenceTransformer(_Loaded):
    """Texts to vectors whose nearness says how alike they are.

        model = SentenceTransformer("sentence-transformers/all-MiniLM-L6-v2")
        model.similarity(model.encode("What a film!"), model.encode(["A great movie.", "It rained."]))

    A folder without modules.json is a bare transformer; what is assumed of it is said.
    """

    @strict
    def __init__(
        self,
        model_name_or_path: Name | None = None,
        *,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Similarity | None = None,
        cache_folder: Name | None = None,
        trust_remote_code: bool | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        truncate_dim: int | None = None,
        model_kwargs: Options | None = None,
        processor_kwargs: Options | None = None,
        tokenizer_kwargs: Options | None = None,
        config_kwargs: Options | None = None,
        backend: str = "torch",
        modules: Any = None,
    ) -> None:
        """The model of a folder or hub id.

        Args:
            prompts: texts to put before others, by name, over the model's own.
            similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; None for the model's own.
            truncate_dim: so many dimensions of each vector, the first.
            model_kwargs: arguments of `AutoModel.from_pretrained`: `dtype`, `device_map`, `quantization_config` …
            processor_kwargs, tokenizer_kwargs: arguments of the tokenizer.
            config_kwargs: keys of the family.
            trust_remote_code: accepted; no code of a folder is run.

        Raises:
            PellucidError: see `errors.py`; a module that is not done here is named.
        """
        if modules is not None:
            raise Unsupported("modules=…", where="modules", next="give a folder that sentence-transformers saved")
        folder = _folder(model_name_or_path, "sentence-transformers", revision, cache_folder, token, local_files_only)
        layout, words = read_layout(folder), {**(tokenizer_kwargs or {}), **(processor_kwargs or {})}

        def opened(source: Transformer) -> tuple[Model, Tokenizer]:
            kind = auto.AutoModelForTextEncoding if task_of(source.folder) == "text-encoding" else auto.AutoModel
            model = _model(kind, source.folder, backend, device, model_kwargs, config_kwargs)
            tokenizer = Tokenizer.from_folder(source.folder, **words)
            report_misfit(model, tokenizer)
            return model, tokenizer

        self._made: SentenceModel = sentence_model(layout, opened)
        self.prompts = {"query": "", "document": "", **layout.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or layout.default_prompt
        self.truncate_dim = truncate_dim or layout.dim
        self.similarity_fn_name: Similarity = similarity_fn_name or layout.similarity
        prompt_named(self.default_prompt_name, self.prompts, None)
        self._similarities()

    @property
    def model(self) -> Any:
        """The transformer, the first route's where there are several; None where vectors come out of a table."""
        return self._made.model

    @strict
    def save_pretrained(self, path: Name, *, safe_serialization: bool = True) -> None:
        """Writes the model, its tokenizer, and the files that sentence-transformers reads beside them."""
        settings = {
            "prompts": self.prompts, "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity_fn_name, "truncate_dim": self.truncate_dim,
            "model_type": "SentenceTransformer",
        }  # fmt: skip
        save_sentence_model(self._made, Path(path), settings, safe_serialization)

    save = save_pretrained

    # ---- texts to vectors ---------------------------------------------------------------------------------

    @strict
    def encode(
        self,
        sentences: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        windows: bool = False,
        task: str | None = None,
        inputs: str | Sequence[str] | None = None,
    ) -> Any:
        """Vectors of texts: an array [N, D], or [D] of one text.

        Args:
            sentences: a text, or several; `inputs` is version 6's name.
            prompt_name, prompt: the name of a prompt, or a text, to put before each.
            batch_size: accepted; batches are formed by tokens.
            output_value: "token_embeddings" for a tensor [T, D] of each text, None for a dict of all there is.
            precision: "int8", "uint8", "binary" or "ubinary" for fewer bits; see `quantize_embeddings`.
            convert_to_tensor, convert_to_numpy: one tensor in place of an array; neither: a list of tensors.
            normalize_embeddings: to length 1.
            truncate_dim: so many dimensions, the first; None for the model's.
            windows: read all of a text that is longer than `max_seq_length`, in windows whose vectors are averaged.
                Without it such a text is cut, and that is said.
            task: "query", "document" …: the route, of a model that has several, and what a chat template may ask for;
                None for the default.

        Raises:
            InputError: a text that is no string. ArgumentError: no such prompt, precision or argument.
        """
        _alone(pool, chunk_size, device, self)
        whole_number("batch_size", batch_size)
        texts, one = _texts(sentences, inputs)
        dim = truncate_dim if truncate_dim is not None else self.truncate_dim
        how = How(
            prompt=prompt if prompt is not None else prompt_named(prompt_name, self.prompts, self.default_prompt_name),
            windows=windows,
            dim=None if dim is None else whole_number("truncate_dim", dim),
            unit=normalize_embeddings,
            states=output_value != "sentence_embedding",
            task=task,
        )
        if output_value not in ("sentence_embedding", "token_embeddings", None) or (how.states and windows):
            what = f"output_value={output_value!r}{' with windows' if windows else ''}"
            raise ArgumentError(what, where="output_value", next='use "sentence_embedding"')
        found = _all(lambda part: self._made.embed(part, how), texts, show_progress_bar, self.max_seq_length)
        if how.states:
            parts = [_parts(each, output_value) for each in found]
            return parts[0] if one else parts
        return _formed(self._stacked(found, dim), one, precision, _form(convert_to_numpy, convert_to_tensor))

    def encode_query(
        self, sentences: Any = None, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` by the route and with the prompt for queries, where the model has such; `options` as of `encode`."""
        if prompt_name is None and prompt is None:
            prompt_name = "query"
        return self.encode(sentences, prompt_name, prompt, **{"task": "query", **options})

    def encode_document(
        self, sentences: Any = None, prompt_name: str | None = None, prompt: str | None = None, **options: Any
    ) -> Any:
        """`encode` for documents; the prompt is "document", "passage" or "corpus", the first that is not empty."""
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in DOCUMENTS if self.prompts.get(name)), "document")
        return self.encode(sentences, prompt_name, prompt, **{"task": "document", **options})

    def _stacked(self, found: Sequence[Embedding], dim: int | None) -> Tensor:
        if found:
            return torch.stack([each.vector for each in found])
        return torch.empty(0, min(dim or self._made.dim, self._made.dim))

    def get_embedding_dimension(self) -> int:
        """Dimensions of a vector."""
        return min(self.truncate_dim or self._made.dim, self._made.dim)

    get_sentence_embedding_dimension = get_embedding_dimension

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within the block vectors have so many dimensions."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    # ---- similarity ---------------------------------------------------------------------------------------

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Of all pairs, [A, B], by the model's similarity."""
        return self._similarities()[0](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """Of each with its partner, [N]."""
        return self._similarities()[1](embeddings1, embeddings2)

    def _similarities(self) -> Any:
        if self.similarity_fn_name not in SIMILARITIES:
            name = self.similarity_fn_name
            hint = nearest(str(name), SIMILARITIES) or f"one of {', '.join(SIMILARITIES)}"
            raise ArgumentError(f"similarity_fn_name={name!r}", where="similarity_fn_name", next=hint)
        return SIMILARITIES[self.similarity_fn_name]


class CrossEncoder(_Loaded):
    """Pairs of texts to scores: both texts are read together.

    model = CrossEncoder("cross-encoder/ms-marco-MiniLM-L6-v2")
    model.rank("How many people live in Berlin?", ["Berlin has 3.5 million.", "Berlin has museums."])
    """

    @strict
    def __init__(
        self,
        model_name_or_path: Name | None = None,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Act | None = None,
        device: Any = None,
        *,
        cache_folder: Name | None = None,
        trust_remote_code: bool | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        model_kwargs: Options | None = None,
        processor_kwargs: Options | None = None,
        tokenizer_kwargs: Options | None = None,
        config_kwargs: Options | None = None,
        backend: str = "torch",
    ) -> None:
        """The model of a folder or hub id: a sequence classifier, or a language model that says yes or no.

        Args:
            num_labels: how many scores a pair has; None for the checkpoint's.
            max_length: tokens of a pair that are read.
            activation_fn: what is made of logits; None for the model's own, else a sigmoid of one, nothing of several.

        Raises:
            PellucidError: see `errors.py`; a head that the checkpoint does not have is refused.
        """
        folder = _folder(model_name_or_path, "cross-encoder", revision, cache_folder, token, local_files_only)
        keys = {**(config_kwargs or {}), **({} if num_labels is None else {"num_labels": num_labels})}
        kind = RERANKERS[task_of_pairs(folder)]
        self.model = _model(kind, folder, backend, device, model_kwargs, keys)
        require_trained(self.model, "a cross-encoder")
        tokenizer = Tokenizer.from_folder(folder, **{**(tokenizer_kwargs or {}), **(processor_kwargs or {})})
        report_misfit(self.model, tokenizer)
        self._made: CrossModel = cross_model(self.model, tokenizer, folder)
        self.activation_fn = activation_fn
        self.prompts = {**self._made.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or self._made.default_prompt
        if max_length is not None:
            self.max_seq_length = max_length

    @strict
    def save_pretrained(self, path: Name, *, safe_serialization: bool = True) -> None:
        """Writes the model, its tokenizer, and the files that sentence-transformers reads beside them."""
        settings = {
            "prompts": self.prompts, "default_prompt_name": self.default_prompt_name, "model_type": "CrossEncoder",
        }  # fmt: skip
        self.model.save_pretrained(Path(path), safe_serialization=safe_serialization)
        self.tokenizer.save_pretrained(Path(path))
        assert self.model.folder is not None
        copy_layout(self.model.folder, Path(path), settings)

    save = save_pretrained

    @property
    def num_labels(self) -> int:
        """Scores of a pair."""
        return self._made.labels

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    @strict
    def predict(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Act | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        inputs: Any = None,
    ) -> Any:
        """Scores of pairs: an array [N], or [N, C] where there are C labels; of one pair without the N.

        Args:
            sentences: a pair of texts, or several; `inputs` is version 6's name.
            activation_fn: what is made of logits, for this call.
            apply_softmax: of the scores of several labels.
            the others: as of `SentenceTransformer.encode`.

        Raises:
            InputError: one that is no pair of strings.
        """
        _alone(pool, chunk_size, device, self)
        whole_number("batch_size", batch_size)
        pairs, one = _pairs(sentences if inputs is None else inputs)
        scores = self._scores(pairs, prompt_name, prompt, show_progress_bar, activation_fn)
        if self.num_labels == 1:
            scores = scores[:, 0]
        elif apply_softmax:
            scores = scores.softmax(-1)
        return _formed(scores, one, "float32", _form(convert_to_numpy, convert_to_tensor))

    @strict
    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Act | None = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Documents by how well they answer a query: `[{"corpus_id", "score"}, …]`, the best first.

        Args:
            top_k: so many of the best; None for all.
            return_documents: also `"text"`.

        Raises:
            Unsupported: a model with several labels.
        """
        _alone(pool, chunk_size, device, self)
        if not isinstance(query, str) or isinstance(documents, str):
            what = "rank takes one query and a list of documents"
            raise InputError(what, where="documents", next="give texts in a list")
        self._made.require_one_label()
        pairs = [(query, each) for each in documents]
        scores = self._scores(pairs, prompt_name, prompt, show_progress_bar, activation_fn)
        order = scores[:, 0].argsort(descending=True, stable=True).tolist()
        ranked = order if top_k is None else order[: whole_number("top_k", top_k)]
        found = [{"corpus_id": i, "score": float(scores[i, 0])} for i in ranked]
        return [{**each, "text": documents[each["corpus_id"]]} for each in found] if return_documents else found

    def _scores(
        self, pairs: list[Any], prompt_name: str | None, prompt: str | None, progress: bool | None, act: Act | None
    ) -> Tensor:
        """[N, C], float32."""
        before = prompt if prompt is not None else prompt_named(prompt_name, self.prompts, self.default_prompt_name)
        act = act or self.activation_fn
        found = _all(lambda part: self._made.score(part, act, before), pairs, progress, self.max_seq_length)
        return torch.stack([each.scores for each in found]) if found else torch.empty(0, self.num_labels)


# ---- what both need ------------------------------------------------------------------------------------------


def _folder(
    name: Name | None, owner: str, revision: str | None, cache: Name | None, token: str | bool | None, local: bool
) -> Path:
    """A folder, or the one of a hub id; an id without an owner is one of `owner`'s."""
    if name is None:
        raise ArgumentError("no model is named", where="model_name_or_path", next="give a folder or a hub id")
    bare = isinstance(name, str) and "/" not in name and not os.path.exists(name)
    whole = f"{owner}/{name}" if bare else name
    return hub.resolve(whole, revision=revision, cache_dir=cache, token=token, offline=local or None)


def _model(
    kind: type[PreTrainedModel], folder: Path, backend: str, device: Any, options: Options | None, keys: Options | None
) -> PreTrainedModel:
    if backend != "torch":
        raise Unsupported(f"backend={backend!r}", where="backend", next="leave it out: it is torch, with our kernels")
    loaded: PreTrainedModel = kind.from_pretrained(folder, device=device, **(options or {}), **(keys or {}))
    return loaded


def _alone(pool: Any, chunk_size: Any, device: Any, model: _Loaded) -> None:
    """Refuses several processes; moves the model to a device that is named."""
    if pool is not None or chunk_size is not None or isinstance(device, list | tuple):
        raise Unsupported("several processes", where="pool", next="leave it out: one process uses all cores")
    if device is not None:
        model.to(device)


def _texts(sentences: Any, inputs: Any) -> tuple[list[str], bool]:
    """Texts in a list, and whether it was one alone."""
    given = sentences if inputs is None else inputs
    if given is None or (sentences is not None and inputs is not None):
        raise ArgumentError("one of sentences and inputs is needed", where="sentences", next="give a text, or a list")
    if isinstance(given, str):
        return [given], True
    if isinstance(given, bytes | Mapping):
        raise InputError(f"a text is needed, not a {type(given).__name__}", where="sentences", next="give strings")
    return list(given), False


def _pairs(given: Any) -> tuple[list[Any], bool]:
    """Pairs in a list, and whether it was one alone."""
    if given is None or isinstance(given, str | bytes | Mapping):
        what = f"pairs of texts are needed, not {given!r:.60}"
        raise InputError(what, where="sentences", next='give [("a", "b"), …]')
    many = [tuple(each) if isinstance(each, list | tuple | np.ndarray) else each for each in given]
    one = len(many) == 2 and all(isinstance(each, str) for each in many)
    return [(many[0], many[1])] if one else many, one


def _all(run: Callable[[list[Any]], list[T]], given: list[Any], progress: bool | None, most: int | None) -> list[T]:
    """All results, with a count on stderr where that is wanted; and what was cut is said.

    Args:
        progress: None wants it where the log tells everything, as in the reference.
    """
    found: Iterator[T] = stream(run, given, WINDOW)
    if log.getEffectiveLevel() <= logging.INFO if progress is None else progress:
        found = counted(found, "encode", len(given))
    results = list(found)
    lost = [each.dropped for each in results if each.dropped]
    if lost:
        log.warning(
            "%d of %d texts were longer than %s tokens and were cut: %d tokens were dropped, up to %d of one text",
            len(lost), len(results), most, sum(lost), max(lost),
        )  # fmt: skip
    return results


def _parts(found: Embedding, wanted: str | None) -> Any:
    """The states of a text's tokens, or all that there is of it, under the reference's names."""
    if wanted == "token_embeddings":
        return found.states
    assert found.row is not None
    ids = torch.tensor(found.row.ids)
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_embeddings": found.states,
        "sentence_embedding": found.vector,
    }  # fmt: skip


Form = Literal["array", "tensor", "list"]


def _form(numpy: bool, tensor: bool) -> Form:
    """What two switches ask for."""
    return "tensor" if tensor else "array" if numpy else "list"


def _formed(x: Tensor, one: bool, precision: Precision, form: Form) -> Any:
    """Vectors or scores in the form that was asked for."""
    found: Any = x.cpu().numpy() if form == "array" and precision == "float32" else x
    if precision != "float32":
        found = quantize_embeddings(x, precision) if len(x) else x.cpu().numpy()
        found = found if form == "array" else torch.from_numpy(found)
    found = list(found) if form == "list" else found
    return found[0] if one else found
