"""Model: a tower with its heads, perhaps an encoder beside it, and the forward that every use goes through."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch, Memory
from pellucid.cache.cache import Cache
from pellucid.cache.packing import Packing
from pellucid.config import Config
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest
from pellucid.models import checks
from pellucid.models.answers import answer
from pellucid.models.beside import as_encoder, following, memory_of
from pellucid.models.holding import Holding
from pellucid.models.inputs import Inputs, check_end
from pellucid.models.output import Output
from pellucid.models.packing import packing, placed
from pellucid.models.report import Report as Report
from pellucid.nn import heads
from pellucid.nn.apart import begin, finish
from pellucid.nn.asked import Asked
from pellucid.nn.linear import read_whole
from pellucid.nn.tower import Tower
from pellucid.ops.memory import keep_memory
from pellucid.ops.moe import balance_loss
from pellucid.ops.rope import turning_points, turns_with_length
from pellucid.ops.threads import threads_for
from pellucid.spec import (
    Block,
    ChoiceHead,
    Head,
    LmHead,
    Moe,
    PairHead,
    Pooling,
    PretrainingHead,
    Spec,
    Stack,
    Task,
    pools,
)
from pellucid.weights.table import Table


class Model(Holding):
    """A network with the weights of a checkpoint.

    Parameters and intermediate values have the same names in every family: `blocks.3.attn.q.weight`,
    `blocks.3.attn.pattern`. File names work too, where a module or a state dict is asked for.

    Args:
        spec, table: of the part that the task needs (`Spec.of`, `sides.table_for`).
        task: which head; None for the hidden states alone.
    """

    def __init__(self, spec: Spec, config: Config, table: Table, task: Task | None) -> None:
        super().__init__(spec.stack)
        keep_memory()
        self.spec, self.config, self.table, self.task = spec, config, table, task
        self.file_table, self.container = table, None
        self.report = Report()
        self.places = []
        self._paths = None
        self._widest = 0  # of all linear layers, elements; counted at the first forward
        self._remembers = spec.remembers
        self._turning = _turning(spec.stack)
        self.encoder = Tower(spec.encoder) if spec.encoder else None
        read_whole(self.encoder if spec.remembers else self)
        self.head_spec = _head_spec(spec, task)
        pooling = Pooling(act=spec.pooler) if isinstance(spec.pooler, str) else spec.pooler
        pooled = pools(self.head_spec) and (self.head_spec is not None or (pooling and pooling.returned != "never"))
        self.pooler = heads.Pooler(spec.width, pooling) if pooling and pooled else None
        for name, module in heads.modules(spec.width, spec.vocab, self.head_spec).items():
            self.add_module(name, module)
        self.tie_weights()

    # -------------------------------------------------------------------------------------- forward

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        *,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        sentence_order_label: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: Output | tuple[Tensor, ...] | None = None,
        output_router_logits: bool | None = None,
        **extra: Any,
    ) -> Output | tuple[Any, ...]:
        """One pass over a rectangular batch.

        Args:
            input_ids, inputs_embeds: [B, T] int64, or [B, T, D]; one of the two. Multiple choice: [B, choices, T], and
                all that goes with them likewise.
            attention_mask: [B, T] of ones and zeros, pads on either side; with a cache also [B, past + T].
            position_ids: [B, T]; None: from 0 at each row's first token, or on from the cache. Rotary positions on
                three axes take [3, B, T] too.
            past_key_values: the cache that an earlier call returned.
            labels: [B, T] int64 for language models and taggers, -100 where no loss is wanted; [B] or [B, C] for
                classifiers; [B] for choices and pairs. Adds `.loss`, a float32 mean.
            use_cache: return `.past_key_values`. Gradients do not flow into what a cache holds.
            output_attentions: return the patterns of all layers, [B, H, T, S] each; zeros where a pad asks or is asked.
            output_hidden_states: return the residual stream before each block, and the final states.
            return_dict: False for a plain tuple.
            logits_to_keep: logits for this many last places only; 0 for all. Or a mask of the places, [B, T]: their
                logits are [K, V] then, row by row.
            next_sentence_label, sentence_order_label: [B], beside `labels`, where a model was pretrained on both.
            output_router_logits: return what the routers of a mixture of experts said; adds their balance to the loss.
            extra: further inputs of each token that the family has by name (`bbox`, `langs`).

        Raises:
            InputError: ids outside the vocabulary, a mask of another shape, more positions than the model has.
            ArgumentError: an argument this model does not take.
        """
        self._refuse_unknown(extra)
        wants_hidden = self._wish(output_hidden_states, "output_hidden_states")
        wants_patterns = self._wish(output_attentions, "output_attentions")
        if token_type_ids is not None and "token_type_ids" in self.stack.inputs:  # the family's own kind of types
            extra, token_type_ids = extra | {"token_type_ids": token_type_ids}, None
        given = Inputs(input_ids, inputs_embeds, attention_mask, position_ids, token_type_ids, extra)
        choices = 1
        if isinstance(self.head_spec, ChoiceHead):
            given, choices = given.flat()
        first, memory = given, None
        result: dict[str, Any] = {}
        beside = Inputs(decoder_input_ids, decoder_inputs_embeds, decoder_attention_mask, side="decoder_")
        if self.encoder is None:
            self._refuse_given(
                decoder_input_ids=decoder_input_ids, decoder_attention_mask=decoder_attention_mask,
                decoder_inputs_embeds=decoder_inputs_embeds, encoder_outputs=encoder_outputs,
            )  # fmt: skip
        else:
            self._refuse_given(token_type_ids=token_type_ids, position_ids=position_ids)
            if encoder_outputs is None and not _begun(past_key_values):
                encoder_outputs = self._encode(given, hidden=wants_hidden, patterns=wants_patterns)
            memory = memory_of(self.encoder.stack, encoder_outputs, attention_mask)
            result |= as_encoder(encoder_outputs)
            given = following(self, first, beside, labels)
        B, T = given.check(self.stack, self.dtype)
        pair = self._pair(labels, next_sentence_label, sentence_order_label)
        self._check(labels, pair, logits_to_keep, B, T, choices)
        checks.spans_of(self.head_spec, start_positions, end_positions, B)
        cache = self._cache(past_key_values, use_cache, B)
        x_ND, shape, batch = self._enter(self, given, cache, memory)
        batch.hidden = [] if wants_hidden else None
        batch.router = [] if self._routes(output_router_logits) else None
        with self.patterns(self, wants_patterns) as patterns, self.threads(len(x_ND)):
            x_ND = self.run(x_ND, batch, None if given.types is None else shape.pack(given.types))
            asked = Asked(
                shape, first.ids, labels, logits_to_keep, start_positions, end_positions, pair, choices, batch
            )  # fmt: skip
            result |= answer(self, x_ND, asked)
        finish(batch.key) if batch.key is not None else batch.finish()
        result["past_key_values"] = cache
        keys_BS = _places_of_keys(given.mask, shape, past=cache is not None and cache is past_key_values)
        moved = {
            "attn": [placed(x, _places(shape), keys_BS) for x in patterns["attn"]],
            "cross": [placed(x, _places(shape), attention_mask) for x in patterns["cross"]],
        }
        self._collect(result, shape, batch, moved)
        output = Output(**result)
        return output.to_tuple() if return_dict is False else output

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        hidden: bool = False,
        patterns: bool = False,
        **extra: Tensor,
    ) -> Output:
        """The encoder alone, of an encoder-decoder: `.last_hidden_state` [B, T, D]."""
        self._refuse_unknown(extra)
        given = Inputs(input_ids, inputs_embeds, attention_mask, extra=extra)
        return self._encode(given, hidden=hidden, patterns=patterns)

    def predict(self, x_ND: Tensor) -> Tensor:
        """Packed hidden states to logits, [N, D] -> [N, V]: what a decode loop calls on the tokens it needs."""
        if not isinstance(self.head_spec, LmHead):
            raise Unsupported(
                f"this model has no vocabulary to predict (task: {self.task})",
                next="load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM",
            )
        logits: Tensor = self.lm_head(x_ND)
        return logits

    def lookup(self, ids_N: Tensor, where: str = "input_ids", tower: Tower | None = None) -> Tensor:
        """Token vectors of the model, or of its encoder, after a check that there are such tokens."""
        tower = tower or self
        vocab = tower.stack.embed.vocab
        if not torch.compiler.is_compiling() and ids_N.numel():
            low, high = (int(x) for x in ids_N.aminmax())
            if low < 0 or high >= vocab:
                raise InputError(
                    f"token id {high if high >= vocab else low} is outside the vocabulary of {vocab}",
                    where=where,
                    next="use the tokenizer of this model; tokens that were added to it need "
                    "model.resize_token_embeddings(len(tokenizer))",
                )
        vectors: Tensor = tower.embed.tokens(ids_N)
        return vectors

    def threads(self, tokens: int) -> AbstractContextManager[None]:
        """The threads that a forward of so many packed tokens is worth."""
        if self._widest == 0:
            sizes = [m.in_features * m.out_features for m in self.modules() if isinstance(m, nn.Linear)]
            self._widest = max(sizes, default=1)
        return threads_for(tokens * self._widest)

    def check_positions(self, end: int) -> None:
        """Refuses positions that have no vector."""
        check_end(self.stack, end)

    # ------------------------------------------------------------------------------- forward, in pieces

    def _enter(
        self, tower: Tower, given: Inputs, cache: Cache | None = None, memory: Memory | None = None
    ) -> tuple[Tensor, Packing, Batch]:
        """A tower's inputs, packed: token vectors [N, D], where they stand in the rectangle, and what layers read."""
        B, T = given.check(tower.stack, self.dtype)
        key = cache.key if cache is not None and torch.compiler.is_compiling() else None  # of a graph, see nn/apart.py
        cache = None if key is not None else cache
        if given.vectors is not None:
            x_BTD = given.vectors
        else:
            assert given.ids is not None
            whole = given.ids.dtype in (torch.int64, torch.int32)
            x_BTD = self.lookup(given.ids if whole else given.ids.long(), f"{given.side}input_ids", tower)
        shape = packing(
            B, T, given.mask, name=f"{given.side}attention_mask", past=key is not None or _length(cache) > 0
        )
        if memory is not None and len(memory.lengths) != B:
            what = f"decoder_input_ids has {B} rows, the encoder's input {len(memory.lengths)}"
            raise InputError(what, where="decoder_input_ids", next="give as many")
        given.check_beside(tower.stack, B, T)
        turning = tower is self and self._turning
        place_N, ends, axes_AN = given.positions(shape, cache, tower.stack, x_BTD.device, turning=turning)
        if shape.real is None:
            check_end(tower.stack, max(ends))
        ids_N, extra = given.packed(shape, tower.stack)
        batch = Batch(shape.lengths, place_N, ends, cache, memory=memory, ids=ids_N, axes=axes_AN, extra=extra)
        batch.task, batch.real = self.task, shape.real
        if torch.compiler.is_compiling() and (turning_points(tower.stack) or turns_with_length(tower.stack)):
            batch.spans = list((place_N.unflatten(0, (B, T)).amax(1) + 1).unbind())
        if key is not None:
            batch.key, batch.model = key, self.number
            types_N = None if given.types is None else shape.pack(given.types)
            batch.positions = begin(self, key, batch, types_N, absolute=given.places is not None)
        return shape.pack(x_BTD), shape, batch

    def _encode(self, given: Inputs, *, hidden: bool, patterns: bool) -> Output:
        if self.encoder is None:
            raise Unsupported(f"{self.spec.family} has no encoder beside its decoder", next="call the model itself")
        x_ND, shape, batch = self._enter(self.encoder, given)
        batch.hidden = [] if hidden else None
        with self.patterns(self.encoder, patterns) as found, self.threads(len(x_ND)):
            x_ND = self.encoder.run(x_ND, batch)
        return Output(
            last_hidden_state=shape.unpack(x_ND),
            hidden_states=tuple(shape.unpack(h) for h in batch.hidden) if batch.hidden is not None else None,
            attentions=tuple(placed(x, _places(shape), _places(shape)) for x in found["attn"]) if patterns else None,
        )

    def _cache(self, given: Cache | None, use: bool | None, rows: int) -> Cache | None:
        if given is not None:
            if not self._remembers:
                raise InputError("past_key_values for an encoder", where="past_key_values", next="leave it out")
            if not isinstance(given, Cache):
                what = f"past_key_values is a {type(given).__name__}"
                raise InputError(what, where="past_key_values", next="pass what an earlier call returned")
            if torch.compiler.is_compiling():
                self._refuse_gradients()
                return given
            if len(given) != rows:
                what = f"the cache holds {len(given)} rows, the batch {rows}"
                raise InputError(what, where="past_key_values", next="cache.select(rows) keeps the rows you need")
            given.pages.claim(self)
            return given
        if not self._remembers:
            return None  # nothing follows what an encoder reads
        if use is None:
            use = bool(self.config.get("use_cache", True)) and not self.training and not torch.compiler.is_compiling()
        if use and torch.compiler.is_compiling():
            self._refuse_gradients()
            return Cache.of_graph(torch.ops.pellucid.cache(rows))
        return Cache(rows) if use else None

    def _refuse_gradients(self) -> None:
        """In a graph, layers over a cache are operators that know none."""
        if torch.is_grad_enabled():
            what = "a compiled forward with a cache, under gradients"
            raise Unsupported(what, where="use_cache", next="call it under torch.no_grad(), or without a cache")

    def _pair(self, labels: Tensor | None, next_label: Tensor | None, order_label: Tensor | None) -> Tensor | None:
        """The label of two sentences, under the name that the head asks for it by."""
        head = self.head_spec.pair if isinstance(self.head_spec, PretrainingHead) else self.head_spec
        given = {"next": next_label, "order": order_label}
        label = given.pop(head.asks) if isinstance(head, PairHead) else None
        names = {"next": "next_sentence_label", "order": "sentence_order_label"}
        self._refuse_given(**{names[asks]: value for asks, value in given.items()})
        both = isinstance(self.head_spec, PretrainingHead) and isinstance(head, PairHead)
        if both and (labels is None) != (label is None):
            raise InputError("one of two labels given", where="labels", next="give those of tokens and pairs, or none")
        return label

    def _check(self, labels: Any, pair: Any, keep: Any, batch: int, time: int, choices: int) -> None:
        """Refuses labels and numbers of logits that do not fit."""
        if labels is not None:
            rows = batch // choices
            checks.labels_of(self.head_spec, labels, rows, time, self.spec.vocab, self.config.problem_type, choices)
        if pair is not None:
            checks.whole_numbers("the label of a pair", pair, ((batch,), (batch, 1)), least=0, besides=heads.IGNORE)
        if isinstance(keep, Tensor):
            if keep.dtype != torch.bool or keep.shape != (batch, time):
                what = f"logits_to_keep of {str(keep.dtype).removeprefix('torch.')} {tuple(keep.shape)}"
                raise InputError(what, where="logits_to_keep", next=f"a mask is bool ({batch}, {time})")
            if labels is not None or not isinstance(self.head_spec, LmHead):
                what = "a mask of logits beside labels, or of no language model"
                raise InputError(what, where="logits_to_keep", next="leave it out")
        elif type(keep) is not int or keep < 0:
            what = f"logits_to_keep={keep!r}"
            raise InputError(what, where="logits_to_keep", next="give how many last places; 0 for all")

    def _routes(self, asked: bool | None) -> bool:
        """Whether the routers' scores are wanted."""
        if _moe(self.stack) is None or self.encoder is not None:
            self._refuse_given(output_router_logits=asked or None)
            return False
        return self._wish(asked, "output_router_logits")

    def _collect(self, result: dict[str, Any], shape: Packing, batch: Batch, patterns: dict[str, list[Tensor]]) -> None:
        side = "decoder_" if self.encoder is not None else ""
        if batch.hidden is not None:
            result[f"{side}hidden_states"] = tuple(
                x if x.dim() == 3 else shape.unpack(x) for x in batch.hidden  # bodies may have other lengths
            )  # fmt: skip
        if patterns["attn"]:
            result[f"{side}attentions"] = tuple(patterns["attn"])
        if patterns["cross"]:
            result["cross_attentions"] = tuple(patterns["cross"])
        moe = _moe(self.stack)
        if batch.router and moe is not None:
            result["router_logits"] = tuple(shape.unpack(x_NE).flatten(0, 1) for x_NE in batch.router)
            if isinstance(self.head_spec, LmHead):
                result["aux_loss"] = balance_loss(batch.router, moe.experts, moe.router.top_k)
                if result["loss"] is not None:
                    result["loss"] = result["loss"] + moe.loss * result["aux_loss"]

    def _wish(self, given: bool | None, name: str) -> bool:
        return bool(self.config.get(name) if given is None else given)

    def _refuse_unknown(self, extra: Mapping[str, Any]) -> None:
        own = {*self.spec.stack.inputs, *(self.spec.encoder.inputs if self.spec.encoder else ())}
        for name in extra.keys() - own:
            known = [n for n in signature(Model.forward).parameters if n not in ("self", "extra")] + sorted(own)
            raise ArgumentError(
                f"forward takes no {name!r}", where=name, next=nearest(name, known) or f"it takes {', '.join(known)}"
            )

    def _refuse_given(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                raise ArgumentError(f"a {self.spec.family} model takes no {name}", where=name, next="leave it out")


def _head_spec(spec: Spec, task: Task | None) -> Head | None:
    if task in (None, "text-encoding"):
        return None
    if task not in spec.heads:
        raise Unsupported(
            f"no {task} head for {spec.family} with this config",
            where="task",
            next=f"{spec.family} has {', '.join(spec.heads)}",
        )
    return spec.heads[task]


def _moe(stack: Stack) -> Moe | None:
    """The first mixture of experts of a stack; all of one stack route alike."""
    parts = (block.mlp for block in stack.blocks if isinstance(block, Block))
    return next((part for part in parts if isinstance(part, Moe)), None)


def _turning(stack: Stack) -> bool:
    """Whether rotary positions of a stack have several axes."""
    ropes = (getattr(getattr(block, "attn", None), "rope", None) for block in stack.blocks)
    return any(rope is not None and rope.sections for rope in ropes)


def _places(shape: Packing) -> Tensor | None:
    """[B, T], where there are tokens; None for everywhere."""
    return None if shape.kept is None else shape.places()


def _places_of_keys(mask: Tensor | None, shape: Packing, *, past: bool) -> Tensor | None:
    """[B, S], where the keys of a call stand. A cache knows no pads: only a mask of its length says where they were."""
    if not past:
        return _places(shape)
    return mask if mask is not None and mask.shape[1] > shape.time else None


def _begun(cache: object) -> bool:
    """Whether a cache holds what an encoder has read; of one row, so that a graph depends on one length."""
    return isinstance(cache, Cache) and (cache.of_a_graph or (len(cache) > 0 and cache.rows[0].length > 0))


def _length(cache: object) -> int:
    """Tokens that a cache holds."""
    return cache.get_seq_length() if isinstance(cache, Cache) else 0
