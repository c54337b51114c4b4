"""What a sentence model's vectors are made of: states of a text's tokens, by a transformer or out of a table."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import normalizers
from torch import Tensor

from pellucid.config import read_json
from pellucid.errors import ConfigError, InputError, Unsupported, WeightsError
from pellucid.models.model import Model
from pellucid.ops.elementwise import upcast
from pellucid.tasks.chat_rows import Rendering, guessed
from pellucid.tasks.flow import BUDGET, ELSEWHERE, forwards, groups
from pellucid.tasks.rows import Cut, Row, check_texts, encode, room
from pellucid.tasks.sentence_modules import Bag, Layers, Source, Static, Transformer, Words
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.source import open_weights


@dataclass
class OfTransformer:
    """States that a model computes.

    Args:
        longest: tokens of a text that are read; None for any number.
        chat: texts stand in the tokenizer's chat template.
    """

    model: Model
    tokenizer: Tokenizer
    longest: int | None
    chat: Rendering | None = None

    @classmethod
    def open(cls, source: Transformer, model: Model, tokenizer: Tokenizer) -> OfTransformer:
        """A loaded model and tokenizer, as the layout has them.

        Raises:
            WeightsError: the checkpoint lacks parameters.
        """
        untrained = [name for name in model.report.initialised if not name.startswith("pooler.")]
        if untrained:
            what = f"{len(untrained)} parameter(s) are not trained: {', '.join(untrained[:3])}"
            raise WeightsError(what, where=source.folder, next="give a checkpoint that has them")
        said, most = source.longest, model.spec.context
        longest = room(model, tokenizer) if said is None else min(said, most) if most is not None else said
        chat = guessed(tokenizer) if source.chat == "if there is one" else source.chat
        return cls(model, _lowered(tokenizer) if source.lower else tokenizer, longest, chat)

    @property
    def width(self) -> int:
        """Channels of a state."""
        return self.model.spec.width

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of what it computes with."""
        return self.model.dtype

    def to(self, device: torch.device | str) -> None:
        """Moves it."""
        self.model.to(device)

    def rows(self, texts: Sequence[str], prompt: str, task: str | None = None) -> list[Row]:
        """A row of ids for each text behind the prompt, cut to the longest; a chat template may ask for the task."""
        check_texts(texts)
        if self.chat is not None:
            chat = self.chat.for_task(self.tokenizer, task)
            chats = [chat.chat(prompt, [("user", text)]) for text in texts]
            return chat.rows(self.tokenizer, chats, self.longest)
        return encode(self.model, self.tokenizer, [prompt + text for text in texts], cut=Cut(True, self.longest))

    def windows(self, text: str, prompt: str) -> list[Row]:
        """The rows that read all of a text that is too long, each behind the prompt."""
        assert self.longest is not None
        if self.chat is not None:
            raise Unsupported("windows of a chat", where="windows", next="leave it out, or raise max_seq_length")
        begin = self.tokenizer.encode(prompt, add_special_tokens=False, verbose=False) if prompt else []
        ids = self.tokenizer.encode(prompt + text, add_special_tokens=False, verbose=False)[len(begin) :]
        around = self.tokenizer.num_special_tokens_to_add() + len(begin)
        if around >= self.longest:
            what = f"the prompt leaves no room: {around} tokens of {self.longest}"
            raise InputError(what, where="prompt", next="give a shorter prompt")
        pieces = [[*begin, *piece] for piece in even(ids, self.longest - around)]
        return [Row(self.tokenizer.build_inputs_with_special_tokens(piece)) for piece in pieces]

    def prompt_tokens(self, prompt: str) -> int:
        """How many first tokens of a row are a prompt's, with the special one before it; a chat has no such."""
        if self.chat is not None:
            return 0
        whole = self.tokenizer.encode(prompt, verbose=False)
        return len(whole) - (whole[-1] in self.tokenizer.all_special_ids)

    def states(self, rows: Sequence[Row], layers: Layers | None) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of rows that went together, and their tokens\' states [B, T, D], of any value behind a row."""
        for group, output in forwards(self.model, rows, **({"output_hidden_states": True} if layers else {})):
            yield group, output.last_hidden_state if layers is None else mean_of(layers, output.hidden_states)


def mean_of(layers: Layers, states: Sequence[Tensor]) -> Tensor:
    """The weighted mean of layers' states [B, T, D]; with the embeddings there is one more than layers."""
    kept = states[layers.start :]
    if len(kept) != len(layers.weight_L):
        what = f"{len(layers.weight_L)} weights for the {len(kept)} layers from {layers.start} on"
        raise ConfigError(what, where="WeightedLayerPooling", next="correct layer_start in its config.json")
    weight_L = layers.weight_L.to(kept[0].device)
    return sum((w * upcast(x) for w, x in zip(weight_L, kept)), torch.zeros(())) / weight_L.sum()


def _lowered(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that makes letters small first."""
    copy = deepcopy(tokenizer)
    steps = [normalizers.Lowercase(), *([copy.rust.normalizer] if copy.rust.normalizer is not None else [])]
    copy.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    return copy


@dataclass
class OfTable:
    """A vector of each token, looked up; no token knows of another. A text may have no token at all."""

    vectors_VD: Tensor
    tokenizer: Tokenizer | WhiteSpace
    longest: int | None

    @property
    def width(self) -> int:
        """Channels of a state."""
        return self.vectors_VD.shape[1]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.vectors_VD.device

    @property
    def dtype(self) -> torch.dtype:
        """Of what it computes with."""
        return self.vectors_VD.dtype

    def to(self, device: torch.device | str) -> None:
        """Moves it."""
        self.vectors_VD = self.vectors_VD.to(device)

    def rows(self, texts: Sequence[str], prompt: str, task: str | None = None) -> list[Row]:
        """A row of ids for each text behind the prompt, cut to the longest, whatever the task."""
        check_texts(texts)
        return [Row(ids[: self.longest], dropped=len(ids[self.longest :]) if self.longest else 0)
                for ids in self._ids([prompt + text for text in texts])]  # fmt: skip

    def windows(self, text: str, prompt: str) -> list[Row]:
        """The rows that read all of a text; no token knows of another, so that the prompt is read once."""
        [ids] = self._ids([prompt + text])
        return [Row(piece) for piece in even(ids, self.longest or len(ids))]

    def prompt_tokens(self, prompt: str) -> int:
        """They count in every pooling, as in the reference."""
        return 0

    def states(self, rows: Sequence[Row], layers: Layers | None) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of rows that went together, and their tokens\' states [B, T, D], of any value behind a row."""
        for group in groups([len(row.ids) for row in rows], BUDGET.get(self.device.type, ELSEWHERE)):
            most = max(1, *(len(rows[i].ids) for i in group))
            ids_BT = torch.tensor([[*rows[i].ids, *[0] * (most - len(rows[i].ids))] for i in group])
            yield group, F.embedding(ids_BT.to(self.device), self.vectors_VD)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(self.tokenizer, WhiteSpace):
            return [self.tokenizer.encode(text) for text in texts]
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []


@dataclass
class OfBag(OfTable):
    """A vector of each text: of each known word, its weight as often as it is there. The table is [V, 1]."""

    often: bool

    @property
    def width(self) -> int:
        """Known words."""
        return len(self.vectors_VD)

    def states(self, rows: Sequence[Row], layers: Layers | None) -> Iterator[tuple[list[int], Tensor]]:
        """Numbers of rows that went together, and their vectors [B, V]."""
        for group in groups([max(1, len(row.ids)) for row in rows], BUDGET.get(self.device.type, ELSEWHERE)):
            x_BV = self.vectors_VD.new_zeros(len(group), self.width)
            for x_V, i in zip(x_BV, group):
                ids = torch.tensor(rows[i].ids, dtype=torch.int64, device=self.device)
                x_V.index_add_(0, ids, self.vectors_VD[ids, 0])
            yield group, x_BV

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found = super()._ids(texts)
        return found if self.often else [list(dict.fromkeys(ids)) for ids in found]


States = OfTransformer | OfTable


def even(ids: Sequence[int], most: int) -> list[list[int]]:
    """As few pieces of at most so many as there can be, of nearly one length."""
    count = -(-len(ids) // most)
    cuts = [len(ids) * i // count for i in range(count + 1)]
    return [list(ids[start:end]) for start, end in zip(cuts, cuts[1:])]


@dataclass(frozen=True)
class WhiteSpace:
    """Words between white space, as WordEmbeddings knows them: itself, without signs around it, or with small letters.

    A word that is none of these is left out, and so is a stop word.
    """

    words: dict[str, int]
    stop: frozenset[str] = frozenset()
    lower: bool = False

    def encode(self, text: str) -> list[int]:
        """Ids of the words that are known."""
        found = (self._id(word) for word in (text.lower() if self.lower else text).split())
        return [i for i in found if i is not None]

    def _id(self, word: str) -> int | None:
        bare = word.strip(string.punctuation)
        for form in (word, bare, bare.lower()):
            if form in self.stop:
                return None
            if form and form in self.words:
                return self.words[form]
        return None


# ------------------------------------------------------------------------------------------------------ opening

Opener = Callable[[Transformer], tuple[Model, Tokenizer]]


def open_source(source: Source, opener: Opener) -> States:
    """The states that a layout's source names.

    Args:
        opener: loads a transformer and its tokenizer.

    Raises:
        PellucidError: a file is missing or broken.
    """
    match source:
        case Transformer():
            return OfTransformer.open(source, *opener(source))
        case Static(folder):
            tokenizer = Tokenizer.from_folder(folder)
            cut = tokenizer.rust.truncation
            return OfTable(_table(source), tokenizer, cut["max_length"] if cut else None)
        case Words(folder, longest):
            said = read_json(folder / "whitespacetokenizer_config.json")
            words = {word: i for i, word in enumerate(said.get("vocab") or ())}
            stop = frozenset(said.get("stop_words") or ())
            return OfTable(_table(source), WhiteSpace(words, stop, bool(said.get("do_lower_case"))), longest)
        case Bag(words=known, weight_V=weight_V, often=often):
            return OfBag(weight_V[:, None], WhiteSpace({word: i for i, word in enumerate(known)}), None, often)


def _table(source: Static | Words) -> Tensor:
    """Vectors of tokens or words [V, D], in float32 at least; model2vec shares rows and has a weight for each token."""
    weights = open_weights(source.folder)

    def one(*names: str) -> Tensor | None:
        name = next((name for name in names if name in weights.names), None)
        return None if name is None else weights.tensor(name)

    vectors = one("emb_layer.weight" if isinstance(source, Words) else "embedding.weight", "embeddings")
    if vectors is None or vectors.dim() != 2:
        what = f"no table of vectors among {', '.join(sorted(weights.names))}"
        raise WeightsError(what, where=source.folder, next="download the folder again")
    if (rows := one("mapping")) is not None:
        vectors = vectors[rows.long()]
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    weight = one("weights")
    return vectors if weight is None else vectors * weight.to(vectors.dtype)[:, None]
