"""Model: a tower with its heads, perhaps an encoder beside it, and the forward that every use goes through."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch, Memory
from pellucid.cache.extents import Cache
from pellucid.config import Config
from pellucid.errors import ArgumentError, InputError, Unsupported, WeightsError, nearest
from pellucid.models import checks
from pellucid.models.names import descend
from pellucid.models.output import Output
from pellucid.models.packing import Packing, packing, positions
from pellucid.nn import heads
from pellucid.nn.attention import Attention
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Embedding
from pellucid.nn.tapped import Listener, Tapped
from pellucid.nn.tower import Tower
from pellucid.nn.watched import stored
from pellucid.ops.threads import threads_for
from pellucid.spec import Head, LmHead, SequenceHead, SpanHead, Spec, Task, TokenHead
from pellucid.weights.table import Place, Table


@dataclass
class Report:
    """Where every tensor of a file went. Nothing is dropped without a line here."""

    files: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    recomputed: dict[str, str] = field(default_factory=dict)  # buffer -> kind; compared, then dropped
    other_heads: list[str] = field(default_factory=list)  # parts of heads that were not asked for
    unused: dict[str, str] = field(default_factory=dict)  # tensor -> reason
    initialised: list[str] = field(default_factory=list)  # parameters of a new head, from a seed
    unknown_keys: dict[str, Any] = field(default_factory=dict)  # config keys that nobody knows
    arguments: dict[str, Any] = field(default_factory=dict)  # accepted and without effect here
    notes: list[str] = field(default_factory=list)


class Model(Tower):
    """A network with the weights of a checkpoint.

    Parameters and intermediate values have the same names in every family: `blocks.3.attn.q.weight`,
    `blocks.3.attn.pattern`. File names work too, where a module or a state dict is asked for.

    Args:
        task: which head; None for the hidden states alone.
    """

    spec: Spec
    config: Config
    table: Table
    report: Report

    def __init__(self, spec: Spec, config: Config, table: Table, task: Task | None) -> None:
        super().__init__(spec.stack)
        self.spec, self.config, self.table, self.task = spec, config, table, task
        self.report = Report()
        self.places: list[Place] = []  # the file tensors this model was filled from, in the file's order
        self._paths: dict[str, str] | None = None
        self._widest = 0  # of all linear layers, elements; counted at the first forward
        self.encoder = Tower(spec.encoder) if spec.encoder else None
        self.head_spec: Head | None = _head_spec(spec, task)
        pooled = isinstance(self.head_spec, SequenceHead) and self.head_spec.pool == "pooler"
        self.pooler = heads.Pooler(spec.width) if spec.pooler and (task is None or pooled) else None
        if self.head_spec is not None:
            self.add_module(*heads.head(spec.width, spec.vocab, self.head_spec))
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
        logits_to_keep: int = 0,
        *,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: Output | tuple[Tensor, ...] | None = None,
        **unknown: Any,
    ) -> Output | tuple[Any, ...]:
        """One pass over a rectangular batch.

        Args:
            input_ids, inputs_embeds: [B, T] int64, or [B, T, D]; one of the two.
            attention_mask: [B, T] of ones and zeros, pads on either side; with a cache also [B, past + T].
            position_ids: [B, T]; None: from 0 at each row's first token, or on from the cache.
            past_key_values: the cache that an earlier call returned.
            labels: [B, T] int64 for language models and taggers, -100 where no loss is wanted; [B] or [B, C] for
                classifiers. Adds `.loss`, a float32 mean.
            use_cache: return `.past_key_values`. Gradients do not flow into what a cache holds.
            output_attentions: return the patterns of all layers, [B, H, T, S] each.
            output_hidden_states: return the residual stream before each block, and the final states.
            return_dict: False for a plain tuple.
            logits_to_keep: logits for this many last places only; 0 for all.

        Raises:
            InputError: ids outside the vocabulary, a mask of another shape, more positions than the model has.
            ArgumentError: an argument this model does not take.
        """
        self._refuse(unknown)
        wants_hidden = self._wish(output_hidden_states, "output_hidden_states")
        wants_patterns = self._wish(output_attentions, "output_attentions")
        result: dict[str, Any] = {}
        memory: Memory | None = None
        types = token_type_ids
        if self.encoder is None:
            self._refuse_given(
                decoder_input_ids=decoder_input_ids, decoder_attention_mask=decoder_attention_mask,
                decoder_inputs_embeds=decoder_inputs_embeds, encoder_outputs=encoder_outputs,
            )  # fmt: skip
        else:
            self._refuse_given(token_type_ids=token_type_ids, position_ids=position_ids)
            past = isinstance(past_key_values, Cache) and past_key_values.get_seq_length()
            if encoder_outputs is None and not past:
                encoder_outputs = self.encode(
                    input_ids, attention_mask, inputs_embeds, hidden=wants_hidden, patterns=wants_patterns
                )
            memory = self._memory(encoder_outputs, attention_mask)
            result |= _as_encoder(encoder_outputs)
            input_ids, inputs_embeds, attention_mask = (
                decoder_input_ids,
                decoder_inputs_embeds,
                decoder_attention_mask,
            )
            if input_ids is None and inputs_embeds is None and labels is not None:
                B, T = labels.shape if isinstance(labels, Tensor) and labels.dim() == 2 else (1, 1)
                checks.labels_of(self.head_spec, labels, B, T, self.spec.vocab, None)
                input_ids = self._shifted(labels)
        x_BTD = self._vectors(self, input_ids, inputs_embeds)
        B, T = x_BTD.shape[:2]
        cache = self._cache(past_key_values, use_cache, B)
        side = "attention_mask" if self.encoder is None else "decoder_attention_mask"
        past = cache is not None and cache.get_seq_length() > 0
        shape = packing(B, T, attention_mask, name=side, past=past)
        if memory is not None and len(memory.lengths) != B:
            what = f"decoder_input_ids has {B} rows, the encoder's input {len(memory.lengths)}"
            raise InputError(what, where="decoder_input_ids", next="give as many")
        self._check(types, labels, logits_to_keep, B, T)
        checks.spans_of(self.head_spec, start_positions, end_positions, B)
        batch = self._batch(shape, cache, position_ids, x_BTD.device, memory, [] if wants_hidden else None)
        with self._patterns(self, wants_patterns) as patterns, self.threads(sum(shape.lengths)):
            x_ND = self.run(shape.pack(x_BTD), batch, None if types is None else shape.pack(types))
            result |= self._head(x_ND, shape, labels, input_ids, logits_to_keep, start_positions, end_positions)
        batch.finish()
        result["past_key_values"] = cache
        self._collect(result, shape, batch, patterns)
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
    ) -> Output:
        """The encoder alone, of an encoder-decoder: `.last_hidden_state` [B, T, D]."""
        if self.encoder is None:
            raise Unsupported(f"{self.spec.family} has no encoder beside its decoder", next="call the model itself")
        x_BTD = self._vectors(self.encoder, input_ids, inputs_embeds)
        shape = packing(x_BTD.shape[0], x_BTD.shape[1], attention_mask)
        batch = self._batch(shape, None, None, x_BTD.device, None, [] if hidden else None)
        with self._patterns(self.encoder, patterns) as found, self.threads(sum(shape.lengths)):
            x_ND = self.encoder.run(shape.pack(x_BTD), batch)
        return Output(
            last_hidden_state=shape.unpack(x_ND),
            hidden_states=tuple(shape.unpack(h) for h in batch.hidden) if batch.hidden is not None else None,
            attentions=tuple(found["attn"]) if patterns else None,
        )

    def predict(self, x_ND: Tensor) -> Tensor:
        """Packed hidden states to logits, [N, D] -> [N, V]: what a decode loop calls on the tokens it needs."""
        if not isinstance(self.head_spec, LmHead):
            raise Unsupported(
                f"this model has no vocabulary to predict (task: {self.task})",
                next="load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM",
            )
        logits: Tensor = self.lm_head(x_ND)
        return logits

    def lookup(self, ids_N: Tensor, where: str = "input_ids") -> Tensor:
        """Token vectors, after a check that there are such tokens."""
        vocab = self.spec.vocab
        if not torch.compiler.is_compiling() and ids_N.numel():
            low, high = (int(x) for x in ids_N.aminmax())
            if low < 0 or high >= vocab:
                raise InputError(
                    f"token id {high if high >= vocab else low} is outside the vocabulary of {vocab}",
                    where=where,
                    next="use the tokenizer of this model",
                )
        vectors: Tensor = self.embed.tokens(ids_N)
        return vectors

    def threads(self, tokens: int) -> AbstractContextManager[None]:
        """The threads that a forward of so many packed tokens is worth."""
        if self._widest == 0:
            sizes = [m.in_features * m.out_features for m in self.modules() if isinstance(m, nn.Linear)]
            self._widest = max(sizes, default=1)
        return threads_for(tokens * self._widest)

    # ------------------------------------------------------------------------------- forward, in pieces

    def _check(self, types: Any, labels: Any, keep: Any, batch: int, time: int) -> None:
        """Refuses token types, labels and numbers of logits that do not fit."""
        if labels is not None:
            checks.labels_of(self.head_spec, labels, batch, time, self.spec.vocab, self.config.problem_type)
        if type(keep) is not int or keep < 0:
            what = f"logits_to_keep={keep!r}"
            raise InputError(what, where="logits_to_keep", next="give how many last places; 0 for all")
        if types is not None:
            kinds = self.stack.embed.token_types
            shapes = ((batch, time), (1, time))
            checks.whole_numbers("token_type_ids", types, shapes[: 1 + (batch == 1)], least=0, below=max(kinds, 1))

    def _vectors(self, tower: Tower, ids_BT: Tensor | None, given_BTD: Tensor | None) -> Tensor:
        name = "decoder_input_ids" if self.encoder is not None and tower is self else "input_ids"
        if (ids_BT is None) == (given_BTD is None):
            found = "neither" if ids_BT is None else "both"
            embeds = "decoder_inputs_embeds" if name.startswith("decoder") else "inputs_embeds"
            raise InputError(f"{found} of {name} and {embeds} given", where="forward", next="give one of the two")
        if given_BTD is not None:
            right = isinstance(given_BTD, Tensor) and given_BTD.dim() == 3 and given_BTD.shape[-1] == self.spec.width
            if not right or not given_BTD.numel() or given_BTD.dtype != self.dtype:
                what = (
                    f"inputs_embeds is {checks.describe(given_BTD)}, not [batch, time, {self.spec.width}] {self.dtype}"
                )
                raise InputError(what, where="inputs_embeds", next="give what model.get_input_embeddings() returns")
            return given_BTD
        if (
            not isinstance(ids_BT, Tensor)
            or ids_BT.dim() != 2
            or ids_BT.dtype not in checks.WHOLE
            or not ids_BT.numel()
        ):
            what = f"{name} is {checks.describe(ids_BT)}"
            raise InputError(what, where=name, next="give integer ids, [batch, time], at least one")
        return self.lookup(ids_BT if ids_BT.dtype in (torch.int64, torch.int32) else ids_BT.long(), name)

    def _batch(
        self,
        shape: Packing,
        cache: Cache | None,
        given: Tensor | None,
        device: torch.device,
        memory: Memory | None,
        hidden: list[Tensor] | None,
    ) -> Batch:
        learned = self.stack.embed.positions
        place_N, ends = positions(shape, cache, given, device, learned.rows if learned is not None else None)
        self.check_positions(max(ends))
        return Batch(shape.lengths, place_N, ends, cache, memory=memory, hidden=hidden)

    def check_positions(self, end: int) -> None:
        """Refuses positions that have no trained vector."""
        learned = self.stack.embed.positions
        if learned is not None and end > learned.rows:
            raise InputError(
                f"{end} tokens, and the model has {learned.rows} positions",
                where="input_ids",
                next="shorten the text",
            )

    def _cache(self, given: Cache | None, use: bool | None, rows: int) -> Cache | None:
        if given is not None:
            if not self.stack.blocks[0].attn.causal:
                raise InputError("past_key_values for an encoder", where="past_key_values", next="leave it out")
            if not isinstance(given, Cache):
                what = f"past_key_values is a {type(given).__name__}"
                raise InputError(what, where="past_key_values", next="pass what an earlier call returned")
            if len(given) != rows:
                what = f"the cache holds {len(given)} rows, the batch {rows}"
                raise InputError(what, where="past_key_values", next="cache.select(rows) keeps the rows you need")
            return given
        if not self.stack.blocks[0].attn.causal:
            return None  # nothing follows what an encoder reads
        if use is None:
            use = bool(self.config.get("use_cache", True)) and not self.training and not torch.compiler.is_compiling()
        return Cache(rows) if use else None

    def _memory(self, outputs: Output | tuple[Tensor, ...] | None, mask: Tensor | None) -> Memory | None:
        if outputs is None:
            return None
        x_BTD: Any = outputs[0] if isinstance(outputs, (Output, tuple, list)) and len(outputs) else outputs
        right = isinstance(x_BTD, Tensor) and x_BTD.dim() == 3 and x_BTD.shape[-1] == self.spec.width
        if not right or not x_BTD.numel():
            what = f"encoder_outputs begin with {checks.describe(x_BTD)}, not [batch, time, {self.spec.width}]"
            raise InputError(what, where="encoder_outputs", next="pass what model.encode returned")
        shape = packing(x_BTD.shape[0], x_BTD.shape[1], mask)
        return Memory(shape.pack(x_BTD), shape.lengths)

    def _shifted(self, labels_BT: Tensor) -> Tensor:
        """Decoder inputs for given labels: one place to the right, behind the start token."""
        start, pad = self.spec.decoder_start, self.config.pad_token_id
        if start is None:
            raise InputError("the config names no decoder_start_token_id", where="labels", next="set it in the config")
        shifted = F.pad(labels_BT[:, :-1], (1, 0), value=start)
        return shifted.masked_fill(shifted == heads.IGNORE, pad if pad is not None else 0)

    def _collect(self, result: dict[str, Any], shape: Packing, batch: Batch, patterns: dict[str, list[Tensor]]) -> None:
        side = "decoder_" if self.encoder is not None else ""
        if batch.hidden is not None:
            result[f"{side}hidden_states"] = tuple(shape.unpack(x_ND) for x_ND in batch.hidden)
        if patterns["attn"]:
            result[f"{side}attentions"] = tuple(patterns["attn"])
        if patterns["cross"]:
            result["cross_attentions"] = tuple(patterns["cross"])

    def _head(
        self,
        x_ND: Tensor,
        shape: Packing,
        labels: Tensor | None,
        ids_BT: Tensor | None,
        keep: int,
        first_B: Tensor | None,
        last_B: Tensor | None,
    ) -> dict[str, Any]:
        """Hidden states to what the task returns."""
        match self.head_spec:
            case None:
                pooled = self.pooler(x_ND[shape.first()]) if self.pooler is not None else None
                return {"last_hidden_state": shape.unpack(x_ND), "pooler_output": pooled}
            case LmHead():
                return self._language(x_ND, shape, labels, keep)
            case SequenceHead(pool=pool):
                if pool == "pooler":
                    assert self.pooler is not None
                    pooled = self.pooler(x_ND[shape.first()])
                else:
                    pooled = x_ND[self._last_tokens(shape, ids_BT)]
                logits = self.classifier(pooled)
                problem = self.config.problem_type
                return {
                    "loss": None if labels is None else heads.label_loss(logits, labels, problem),
                    "logits": logits,
                }
            case TokenHead():
                logits_NC = self.classifier(x_ND)
                loss = None if labels is None else heads.token_loss(logits_NC, shape.pack(labels))
                return {"loss": loss, "logits": shape.unpack(logits_NC)}
            case SpanHead():
                return self._span(x_ND, shape, first_B, last_B)

    def _language(self, x_ND: Tensor, shape: Packing, labels: Tensor | None, keep: int) -> dict[str, Any]:
        if keep and labels is None:
            return {"logits": self.lm_head(shape.unpack(x_ND)[:, -keep:])}
        logits_NV = self.lm_head(x_ND)
        loss = None
        if labels is not None:
            labels_N = shape.pack(labels)
            if self.task == "causal-lm":
                labels_N = heads.next_tokens(labels_N, list(shape.lengths))
            loss = heads.token_loss(logits_NV, labels_N)
        return {"loss": loss, "logits": shape.unpack(logits_NV)[:, -keep:]}

    def _span(self, x_ND: Tensor, shape: Packing, first_B: Tensor | None, last_B: Tensor | None) -> dict[str, Any]:
        start_BT, end_BT = shape.unpack(self.span(x_ND)).unbind(-1)
        loss = None
        if first_B is not None and last_B is not None:
            away_BT = ~shape.places().to(start_BT.device)
            lowest = torch.finfo(start_BT.dtype).min
            loss = heads.span_loss(
                start_BT.masked_fill(away_BT, lowest), end_BT.masked_fill(away_BT, lowest), first_B, last_B
            )
        return {"loss": loss, "start_logits": start_BT, "end_logits": end_BT}

    def _last_tokens(self, shape: Packing, ids_BT: Tensor | None) -> list[int]:
        """Packed index of each row's last token; without a mask, pad ids on the right do not count."""
        pad = self.config.pad_token_id
        if shape.kept is not None or pad is None or ids_BT is None:
            return shape.last()
        rows = []
        for row, ids in enumerate(ids_BT.tolist()):
            real = [t for t, i in enumerate(ids) if i != pad]
            rows.append(row * shape.time + (real[-1] if real else shape.time - 1))
        return rows

    def _wish(self, given: bool | None, name: str) -> bool:
        return bool(self.config.get(name) if given is None else given)

    def _refuse(self, unknown: Mapping[str, Any]) -> None:
        for name in unknown:
            known = [n for n in signature(Model.forward).parameters if n not in ("self", "unknown")]
            raise ArgumentError(
                f"forward takes no {name!r}", where=name, next=nearest(name, known) or f"it takes {', '.join(known)}"
            )

    def _refuse_given(self, **given: Any) -> None:
        for name, value in given.items():
            if value is not None:
                raise ArgumentError(f"a {self.spec.family} model takes no {name}", where=name, next="leave it out")

    # ------------------------------------------------------------------------------------------ taps

    def tap_names(self) -> list[str]:
        """Every value that can be read or replaced, by its full name."""
        return [
            f"{path}.{tap}".lstrip(".")
            for path, module in self.named_modules()
            if isinstance(module, Tapped)
            for tap in module.TAPS
        ]

    @contextmanager
    def taps(self, listeners: Mapping[str, Listener]) -> Iterator[None]:
        """Reads or replaces values while the block runs.

        Args:
            listeners: tap name, or a pattern (`blocks.*.resid_post`), or the module's name in the file
                (`model.layers.3.self_attn.q`) -> a function of the value, [N, …] packed, that returns what to put in
                its place, or None to leave it.

        Raises:
            ArgumentError: no tap has that name.
        """
        with ExitStack() as stack:
            for name, listener in listeners.items():
                found = fnmatch.filter(self.tap_names(), self.canonical(name))
                if not found:
                    next = nearest(name, self.tap_names()) or "see model.tap_names()"
                    raise ArgumentError(f"there is no tap {name!r}", where="taps", next=next)
                for full in found:
                    path, _, tap = full.rpartition(".")
                    module = self.get_submodule(path)
                    assert isinstance(module, Tapped)
                    stack.callback(module.listen(tap, listener))
            yield

    @contextmanager
    def record(self, *names: str) -> Iterator[dict[str, Tensor]]:
        """Collects values by tap name while the block runs; the last one where a tap is passed more than once."""
        found: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[[Tensor], None]:
            def keep(x: Tensor) -> None:
                found[name] = x

            return keep

        wanted = [full for name in names for full in fnmatch.filter(self.tap_names(), self.canonical(name))]
        with self.taps({name: keeper(name) for name in wanted or names}):
            yield found

    @contextmanager
    def _patterns(self, tower: Tower, wanted: bool) -> Iterator[dict[str, list[Tensor]]]:
        """Attention patterns of a tower's blocks, in order, while a forward runs."""
        found: dict[str, list[Tensor]] = {"attn": [], "cross": []}
        with ExitStack() as stack:
            for block in tower.blocks if wanted else ():
                for part, kept in found.items():
                    attention = getattr(block, part)
                    if isinstance(attention, Attention):
                        stack.callback(attention.listen("pattern", kept.append))
            yield found

    # ------------------------------------------------------------------------------------------ names

    def canonical(self, name: str) -> str:
        """The canonical form of a name that may be the file's."""
        place = self.table.find(name)
        if place is not None and len(place.slots) == 1:
            return place.slots[0]
        paths = self.file_paths()
        for known in sorted(paths, key=len, reverse=True):
            if name == known or name.startswith(f"{known}."):
                return paths[known] + name[len(known) :]
        return name

    def file_paths(self) -> dict[str, str]:
        """File path of each module -> canonical path."""
        if self._paths is None:
            parameters = nn.Module.named_parameters(self, remove_duplicate=False)
            self._paths = self.table.module_names([name for name, _ in parameters])
        return self._paths

    def get_submodule(self, target: str) -> nn.Module:
        """A module by its canonical path, or by its path in the file."""
        try:
            return super().get_submodule(target)
        except AttributeError:
            paths = self.file_paths()
            if target not in paths:
                raise
            return super().get_submodule(paths[target])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "_paths" not in self.__dict__:
                raise
            step = descend(self, name, self.file_paths())
            if step is None:
                raise
            return step

    # ------------------------------------------------------------------------------------------ weights

    def state_dict(  # type: ignore[override]  # one more argument than torch's
        self, *args: Any, names: str = "canonical", **kwargs: Any
    ) -> dict[str, Any]:
        """As torch has it; `names="file"` gives the checkpoint's own names and layouts.

        Raises:
            ArgumentError: another value of `names`.
        """
        if names == "canonical":
            return super().state_dict(*args, **kwargs)
        if names != "file":
            raise ArgumentError(f"names={names!r}", where="state_dict", next="use 'canonical' or 'file'")
        held = dict(nn.Module.named_parameters(self, remove_duplicate=False))
        return {name: place.join([held[slot].detach() for slot in place.slots]) for name, place in self.file_places()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch has it, under canonical names or the checkpoint's."""
        held = dict(nn.Module.named_parameters(self, remove_duplicate=False))
        if any(name not in held for name in state_dict):
            state_dict = self._canonical_tensors(state_dict, held)
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.tie_weights()
        return result

    def _canonical_tensors(self, given: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, tensor in given.items():
            place = None if name in held else self.table.find(name)
            if place is None or not all(slot in held for slot in place.slots):
                found[name] = tensor
                continue
            rows = [held[slot].shape[0] for slot in place.slots]
            found.update(zip(place.slots, place.split(tensor, rows)))
        for tied, source in self.ties().items():
            if source in found:
                found.setdefault(tied, found[source])
            elif tied in found:
                found[source] = found[tied]
        return found

    def file_places(self) -> Iterator[tuple[str, Place]]:
        """Each file tensor of this model: as in the file it came from, or as the table has it for what is new.

        Raises:
            WeightsError: a parameter that the family's table does not know.
        """
        held = [name for name, _ in nn.Module.named_parameters(self, remove_duplicate=False)]
        covered: set[str] = set()
        ties = self.ties()
        for place in self.places:
            if all(slot in held for slot in place.slots):
                covered.update(place.slots, (ties.get(slot, slot) for slot in place.slots))
                yield place.name, place
        for slot in held:
            if slot in covered or slot in ties:
                continue
            found = self.table.default_place(slot, headless=self.task is None)
            if found is None:
                raise WeightsError(f"no file name for the parameter {slot}", next="add it to the family's WEIGHTS")
            covered.update(found.slots)
            yield found.name, found

    def ties(self) -> dict[str, str]:
        """Parameters that are another one: name -> the name under which it is stored."""
        tied = {"embed.tokens.weight": "encoder.embed.tokens.weight"} if self.encoder is not None else {}
        if isinstance(self.head_spec, LmHead) and self.head_spec.tied:
            tied["lm_head.out.weight"] = tied.get("embed.tokens.weight", "embed.tokens.weight")
        return tied

    def tie_weights(self) -> None:
        """Makes tied parameters one object again, after either was replaced."""
        for name, source in self.ties().items():
            path, _, last = name.rpartition(".")
            owner, _, key = source.rpartition(".")
            weight = self.get_submodule(owner)._parameters[key]
            self.get_submodule(path)._parameters[last] = weight
        if isinstance(self.head_spec, LmHead) and isinstance(self.lm_head.out, Linear):
            self.lm_head.out.homes = 1 + len(self.ties()) if self.head_spec.tied else 1

    def untie(self) -> None:
        """Gives the head a matrix of its own, still to be filled."""
        assert isinstance(self.head_spec, LmHead)
        self.head_spec = replace(self.head_spec, tied=False)
        out = self.lm_head.out
        out._parameters["weight"] = nn.Parameter(torch.empty_like(out._parameters["weight"]))
        out.homes = 1

    def get_input_embeddings(self) -> nn.Module:
        """The table of token vectors."""
        tower = self.encoder if self.encoder is not None else self
        embed = tower.embed
        assert isinstance(embed, Embedding)
        return embed.tokens

    def get_output_embeddings(self) -> nn.Module | None:
        """The matrix before the vocabulary's logits, where there is one."""
        return self.lm_head.out if isinstance(self.head_spec, LmHead) else None

    def num_parameters(self, *, only_trainable: bool = False) -> int:
        """Numbers in the model, tied ones once."""
        found = nn.Module.named_parameters(self)
        return sum(p.numel() for _, p in found if p.requires_grad or not only_trainable)

    @property
    def device(self) -> torch.device:
        """Where the embedding lives; ids go there."""
        return self._stored().device

    @property
    def dtype(self) -> torch.dtype:
        """Of the embedding, and of everything computed from it."""
        return self._stored().dtype

    def _stored(self) -> Tensor:
        weight: Tensor = stored(self.embed.tokens)
        return weight


def _head_spec(spec: Spec, task: Task | None) -> Head | None:
    if task is None:
        return None
    if task not in spec.heads:
        raise Unsupported(
            f"no {task} head for {spec.family}",
            where="task",
            next=f"{spec.family} has {', '.join(spec.heads)}",
        )
    return spec.heads[task]


def _as_encoder(outputs: Output | tuple[Tensor, ...] | None) -> dict[str, Any]:
    """An encoder's results under the names that the whole model returns them by."""
    if outputs is None:
        return {}
    if not isinstance(outputs, Output):
        return {"encoder_last_hidden_state": outputs[0]}
    return {
        "encoder_last_hidden_state": outputs.last_hidden_state,
        "encoder_hidden_states": outputs.hidden_states,
        "encoder_attentions": outputs.attentions,
    }
