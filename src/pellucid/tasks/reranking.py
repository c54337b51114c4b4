"""Pairs of texts to scores by a cross-encoder: both are read together, so that documents can be put in order.

A cross-encoder has a sequence-classification head, or it is a causal language model that says yes or no: its score is
then the logit of one token at the end of the prompt, less that of another (a LogitScore module in the folder; of a bare
model "yes" and "no"). Where the tokenizer has a chat template with places for a query and a document, the pair stands
in it. sentence-transformers wrote what is made of scores into config.json (`sbert_ce_default_activation_function`,
later `sentence_transformers`) or, since version 6, beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pellucid.config import read_json
from pellucid.errors import ConfigError, Unsupported
from pellucid.models.model import Model
from pellucid.ops.elementwise import activation
from pellucid.spec import Activation, Task
from pellucid.tasks.chat_rows import Rendering, guessed
from pellucid.tasks.flow import forwards, logits_at, stream
from pellucid.tasks.rows import Cut, InputRefused, Row, encode, room
from pellucid.tasks.sentence_layout import LIST, SETTINGS, read_modules, read_settings
from pellucid.tasks.sentence_layout import is_sentence_model as is_laid_out
from pellucid.tasks.sentence_modules import activation_named, read_rendering, transformer_settings
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")

# What Qwen3-Reranker was trained behind, by its authors' page; the template in its folder has no place for a document.
QWEN3 = """{%- set given = messages | selectattr("role", "eq", "system") | map(attribute="content") | list -%}
{{- '<|im_start|>system\\nJudge whether the Document meets the requirements based on the Query and the Instruct ' }}
{{- 'provided. Note that the answer can only be "yes" or "no".<|im_end|>\\n<|im_start|>user\\n<Instruct>: ' }}
{{- given[0] if given else "Given a web search query, retrieve relevant passages that answer the query" }}
{{- '\\n<Query>: ' + (messages | selectattr("role", "eq", "query") | map(attribute="content") | first) }}
{{- '\\n<Document>: ' + (messages | selectattr("role", "eq", "document") | map(attribute="content") | first) }}
{{- '<|im_end|>\\n<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"""
PUBLISHED = {"qwen3-reranker": QWEN3}  # templates by what stands in a folder's name


@dataclass(frozen=True)
class Scored:
    """Of one pair: a score for each label, [C], float32.

    Args:
        dropped: tokens of the pair that were cut off.
    """

    scores: Tensor
    dropped: int = 0


@dataclass(frozen=True)
class Ranked:
    """A document, by its number, and how well it answers the query."""

    index: int
    score: float
    dropped: int = 0


Act = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Labels:
    """A sequence-classification head: a score for each of its labels."""

    count: int


@dataclass(frozen=True)
class Says:
    """A language model's answer: the logit of a token, less that of another if there is one."""

    yes: int
    no: int | None = None
    count: int = 1


Head = Labels | Says


@dataclass
class CrossModel:
    """A model, its tokenizer, and what is made of its logits.

    Args:
        chat: pairs stand in the chat template; else the tokenizer joins them.
    """

    model: Model
    tokenizer: Tokenizer
    head: Head
    act: Activation
    chat: Rendering | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    longest: int | None = None  # tokens of a pair

    def __post_init__(self) -> None:
        self.longest = self.longest or room(self.model, self.tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the model."""
        return self.model.dtype

    @property
    def context(self) -> int | None:
        """Positions that the model has."""
        return self.model.spec.context

    def to(self, device: torch.device | str) -> None:
        """Moves the model."""
        self.model.to(device)

    @property
    def labels(self) -> int:
        """Scores of a pair."""
        return self.head.count

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[str, str]], act: Act | None = None, prompt: str = "") -> list[Scored]:
        """Scores of each pair.

        Args:
            act: what is made of logits [R, C]; None for what the model says.
            prompt: stands before the first text; in a chat it is the system's message.

        Raises:
            InputRefused: one that is no pair of strings.
        """
        for i, pair in enumerate(pairs):
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InputRefused(i, f"a pair of texts is needed, not {pair!r:.60}", next='give ("a", "b")')
        rows = self._rows(pairs, prompt)
        logits_RC = torch.empty(len(rows), self.labels)
        match self.head:
            case Labels():
                for group, output in forwards(self.model, rows):
                    logits_RC[group] = output.logits.float().cpu()
            case Says(yes=yes, no=no):
                for i, logits_1V in logits_at(self.model, rows, [[len(row.ids) - 1] for row in rows]):
                    logits_V = logits_1V[0].float()
                    logits_RC[i] = logits_V[yes] if no is None else logits_V[yes] - logits_V[no]
        scores_RC = activation(logits_RC, self.act) if act is None else act(logits_RC)
        return [Scored(scores_C, row.dropped) for scores_C, row in zip(scores_RC, rows)]

    def _rows(self, pairs: Sequence[tuple[str, str]], prompt: str) -> list[Row]:
        if self.chat is not None:
            chats = [self.chat.of_pair(pair, prompt) for pair in pairs]
            return self.chat.rows(self.tokenizer, chats, self.longest)
        given = [(prompt + first, second) for first, second in pairs]
        return encode(self.model, self.tokenizer, given, cut=Cut(True, self.longest), pairs=True)

    def require_one_label(self) -> None:
        """
        Raises:
            Unsupported: the model has several labels, and none of them is a document's rank.
        """
        if self.labels != 1:
            what = f"the model has {self.labels} labels, a document's rank is one number"
            raise Unsupported(what, where="rank", next="score the pairs, and choose a label")

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        act: Act | None = None,
        prompt: str = "",
        watch: Callable[[Iterator[Scored]], Iterator[Scored]] = iter,
    ) -> list[Ranked]:
        """Documents by their scores, the best first; of equal ones the earlier.

        Args:
            watch: sees each document's scores on their way, in the documents' order: a count of them, for example.
        """
        pairs = [(query, document) for document in documents]
        found = watch(stream(lambda window: self.score(window, act, prompt), pairs))
        ranked = [Ranked(i, float(each.scores[0]), each.dropped) for i, each in enumerate(found)]
        return sorted(ranked, key=lambda one: -one.score)


def task_of_pairs(folder: Path) -> Task:
    """What is loaded of a cross-encoder's folder: the head of its architecture, or that of a LogitScore's model."""
    if is_laid_out(folder):
        return "causal-lm" if [kind for kind, _ in read_modules(folder)][1:] == ["LogitScore"] else CLASSES
    named = (read_json(folder / "config.json") if (folder / "config.json").is_file() else {}).get("architectures")
    return "causal-lm" if str((named or [""])[0]).endswith("ForCausalLM") else CLASSES


CLASSES: Task = "sequence-classification"


def cross_model(model: Model, tokenizer: Tokenizer, folder: Path | None) -> CrossModel:
    """A loaded model and tokenizer, with what the folder says of them.

    Raises:
        Unsupported: modules behind the transformer, an activation that is not known, or a chat template that has no
            place for a query and a document.
    """
    values = model.config
    named = (values.get("sentence_transformers") or {}).get("activation_fn")
    named = named or values.get("sbert_ce_default_activation_function")
    where = folder or Path()
    laid_out = folder is not None and is_laid_out(folder)
    settings = read_settings(where, "CrossEncoder") if laid_out else None
    if folder is not None and (folder / SETTINGS).is_file():
        named = read_json(folder / SETTINGS).get("activation_fn") or named
    head = _laid_out_head(model, where) if laid_out else _bare_head(model, tokenizer, where)
    chat = read_rendering(*transformer_settings(where)) if laid_out else guessed(tokenizer)
    tokenizer, chat = _with_places(tokenizer, chat, head, where)
    act: Activation = "sigmoid" if head.count == 1 else "linear"
    return CrossModel(
        model, tokenizer, head, act if named is None else activation_named(named, where), chat,
        *((settings.prompts, settings.default_prompt) if settings else ()),
    )  # fmt: skip


def _laid_out_head(model: Model, folder: Path) -> Head:
    modules = read_modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds == ["Transformer"]:
        return Labels(int(model.config.num_labels))
    if kinds != ["Transformer", "LogitScore"]:
        what = (
            f"the modules are {', '.join(kinds)}: a cross-encoder is a Transformer, and a LogitScore behind it at most"
        )
        raise Unsupported(what, where=folder / LIST, next="for vectors of texts use SentenceTransformer")
    path = modules[1][1] / "config.json"
    said = read_json(path)
    yes, no = said.get("true_token_id", -1), said.get("false_token_id")
    if said.get("module_input_name", "causal_logits") != "causal_logits":
        raise Unsupported(f"a LogitScore of {said['module_input_name']}", where=path, next="only of causal_logits")
    if any(type(i) is not int or not 0 <= i < model.spec.vocab for i in (yes, *([] if no is None else [no]))):
        what = f"true_token_id={yes!r}, false_token_id={no!r}, and {model.spec.vocab} tokens"
        raise ConfigError(what, where=path, next="correct the file")
    return Says(yes, no)


def _bare_head(model: Model, tokenizer: Tokenizer, folder: Path) -> Head:
    if model.task != "causal-lm":
        return Labels(int(model.config.num_labels))
    vocab = tokenizer.get_vocab()
    if not {"yes", "no"} <= vocab.keys():
        what = "a language model whose tokenizer has no token 'yes' or no token 'no'"
        raise Unsupported(what, where=folder, next="give a reranker: a folder with a LogitScore, or a classifier")
    log.warning("%s has no %s: a score is the logit of 'yes' less that of 'no'", folder, LIST)
    return Says(vocab["yes"], vocab["no"])


def _with_places(
    tokenizer: Tokenizer, chat: Rendering | None, head: Head, folder: Path
) -> tuple[Tokenizer, Rendering | None]:
    """A tokenizer whose chat template has places for both texts; or none, where a classifier can do without."""
    if chat is None or chat.carries_pairs(tokenizer):
        return tokenizer, chat
    name = next((name for name in PUBLISHED if name in str(folder).lower()), None)
    if name is not None:
        log.warning("the chat template has no place for a document; pairs stand in the one published for %s", name)
        tokenizer = copy(tokenizer)
        tokenizer.chat_template = PUBLISHED[name]
        return tokenizer, Rendering()
    if isinstance(head, Labels):
        log.warning("the chat template has no place for a query and a document: the tokenizer joins them")
        return tokenizer, None
    what = "the chat template has no place for a query and a document"
    raise Unsupported(what, where=folder, next="give one that reads both roles: chat_template=… of the tokenizer")
