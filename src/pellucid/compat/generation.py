"""generate: prompts in, sequences out, under the reference's names and arguments."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.compat.generate_outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    transition_scores,
)
from pellucid.compat.prompts import Inputed, Prompts, of_ids, pad_of, read, rectangle
from pellucid.compat.replay import placed, replay
from pellucid.compat.streamers import Streaming
from pellucid.engine.asking import Means, requests
from pellucid.engine.engine import Engine
from pellucid.engine.fields import DEFAULTS
from pellucid.engine.job import Job
from pellucid.engine.options import GenerationConfig, of_config, options_of
from pellucid.engine.request import Kept, Request
from pellucid.engine.sequence import Seq
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest
from pellucid.models.model import Model
from pellucid.tasks import text_generation
from pellucid.tasks.awaiting import in_thread

log = logging.getLogger("pellucid")
Ids = Tensor | Sequence[int] | Sequence[Sequence[int]]


class GenerationMixin(Model):
    """What a model with a vocabulary head can do with prompts."""

    _generation_config: GenerationConfig | None = None

    def can_generate(self) -> bool:
        """Whether `generate` works for this head."""
        return self.task in ("causal-lm", "seq2seq-lm") and self.spec.remembers

    @property
    def generation_config(self) -> GenerationConfig:
        """Defaults of `generate`; the special ids are the config's where nothing else was said."""
        if self._generation_config is None:
            self._generation_config = of_config(self.config.to_dict())
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self._generation_config = value

    def generate(
        self,
        inputs: Ids | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Iterable[Any] | None = None,
        stopping_criteria: Iterable[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
        synced_gpus: bool | None = None,
        assistant_model: Model | None = None,
        streamer: Any = None,
        negative_prompt_ids: Ids | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        use_model_defaults: bool | None = None,
        custom_generate: Any = None,
        *,
        tokenizer: Any = None,
        assistant_tokenizer: Any = None,
        response_format: Any = None,
        input_ids: Ids | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        decoder_input_ids: Ids | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        **options: Any,
    ) -> Tensor | list[int] | list[list[int]] | GenerateOutput:
        """Continues prompts. Rows may differ in length; a row's tokens do not depend on the others.

        Args:
            inputs, input_ids: [B, T] ids with `attention_mask`, padded on either side; or a list of ids; or a list of
                such lists. None begins with the BOS token.
            generation_config: options instead of the model's own; unset ones are the model's, without
                `use_model_defaults` the defaults.
            logits_processor, stopping_criteria: objects called with (input_ids [1, N], scores [1, V]) of one row.
            prefix_allowed_tokens_fn: (row of the prompt, ids) -> ids that may come next.
            assistant_model: guesses tokens that this model then confirms; `assistant_tokenizer` where it has its own.
            streamer: gets the prompts, and then the tokens of each step.
            negative_prompt_ids: what classifier-free guidance (`guidance_scale`) leads away from.
            tokenizer: for stop strings, `response_format`, token healing, and assistants with another vocabulary.
            response_format: a JSON schema, a regular expression, a choice or a grammar that the output keeps to.
            inputs_embeds: [B, T, D], read in place of ids; the result is the new tokens alone.
            decoder_input_ids: what the decoder begins with behind an encoder; the start token goes before it.
            encoder_outputs: what `model.encode` returned, so that the prompt is not read again.
            past_key_values: a cache whose rows hold the beginnings of the prompts, and afterwards the sequences but
                for their last tokens.
            options: of `GenerationConfig`, and further inputs that the family has by name. `max_new_tokens` is 20
                where nothing else is said; a context that is full ends a row. Passing temperature, top_k, top_p or
                seed turns sampling on; temperature 0 is greedy. A None takes back what the model's config says.

        Returns:
            prompt and continuation: a tensor [B, T + new] for a tensor, filled with the pad id on the right; a list
            of lists for lists. An encoder-decoder gives its output alone. With `return_dict_in_generate` an object of
            `generate_outputs`, with a tensor in any case.

        Raises:
            InputError: an empty prompt, one that fills the context, ids outside the vocabulary.
            ArgumentError: an option that does not exist, or whose value is out of range.
            Unsupported: what this version does not do.
        """
        with _ending(streamer):
            _refuse(synced_gpus=synced_gpus, custom_generate=custom_generate)
            self._require_head()
            if inputs is not None and input_ids is not None:
                raise ArgumentError("both inputs and input_ids given", where="generate", next="give one")
            extra = self._extra(options, token_type_ids)
            settings = self._settings(generation_config, options, use_model_defaults)
            given = Inputed(
                ids=inputs if inputs is not None else input_ids,
                mask=attention_mask,
                vectors=inputs_embeds,
                decoder_ids=decoder_input_ids,
                decoder_mask=decoder_attention_mask,
                encoder_outputs=encoder_outputs,
                negative_ids=negative_prompt_ids,
                negative_mask=negative_prompt_attention_mask,
                extra=extra,
            )
            if past_key_values is not None and not isinstance(past_key_values, Cache):
                what = f"past_key_values is a {type(past_key_values).__name__}"
                raise InputError(what, where="past_key_values", next="pass what an earlier call returned")
            if settings.return_dict_in_generate:
                given = given.rectangular(pad_of(settings))
            prompts = read(self, settings, given)
            means = Means(
                tokenizer=tokenizer,
                processors=logits_processor or (),
                criteria=stopping_criteria or (),
                allowed=prefix_allowed_tokens_fn,
                assistant=assistant_model,
                assistant_tokenizer=assistant_tokenizer,
                response_format=response_format,
                keep=_kept(settings, past_key_values),
            )
            asked = requests(self, settings, prompts.rows, means)
            jobs = self._run(asked, past_key_values, lambda jobs: _streaming(streamer, prompts, jobs, settings))
        if past_key_values is not None:
            past_key_values.rows = _rows(jobs)
        if settings.return_dict_in_generate:
            return self._dict(given, prompts, jobs, settings, past_key_values)
        return self._sequences(prompts, jobs, settings)

    def stream(
        self,
        prompts: str | Sequence[str] | Ids,
        generation_config: GenerationConfig | None = None,
        *,
        tokenizer: Any,
        attention_mask: Tensor | None = None,
        response_format: Any = None,
        logits_processor: Iterable[Any] | None = None,
        stopping_criteria: Iterable[Any] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
        assistant_model: Model | None = None,
        assistant_tokenizer: Any = None,
        **options: Any,
    ) -> Iterator[tuple[int, str]]:
        """Continues prompts, and gives out text as it becomes certain: never half a character, no stop string.

            for row, text in model.stream(["Once upon", "Long ago"], tokenizer=tokenizer, max_new_tokens=20): …

        Leaving the loop early ends the generation.

        Args:
            prompts: a text or several, or ids as in `generate`, of which the other arguments are too.

        Yields:
            which row it is of (prompt times `num_return_sequences` plus continuation), and the text.
        """
        self._require_head()
        self._extra(options, None)
        settings = self._settings(generation_config, options)
        if isinstance(prompts, str) or (
            isinstance(prompts, (list, tuple)) and any(isinstance(p, str) for p in prompts)
        ):
            rows = text_generation.encode(tokenizer, [prompts] if isinstance(prompts, str) else prompts, settings)
        else:
            rows = of_ids(settings, prompts, attention_mask).rows
        means = Means(
            processors=logits_processor or (),
            criteria=stopping_criteria or (),
            allowed=prefix_allowed_tokens_fn,
            assistant=assistant_model,
            assistant_tokenizer=assistant_tokenizer,
            response_format=response_format,
        )
        pieces = text_generation.stream(self, tokenizer, rows, settings, means)
        each = settings.num_return_sequences
        return ((piece.row * each + piece.output, piece.text) for piece in pieces if piece.text)

    def astream(
        self, prompts: str | Sequence[str] | Ids, generation_config: GenerationConfig | None = None, **arguments: Any
    ) -> AsyncIterator[tuple[int, str]]:
        """`stream` for coroutines: `async for row, text in model.astream(…)`. The model runs in a thread.

        A reader that leaves, or whose task is cancelled, ends the generation within a step. For many readers at once,
        `engine.serving.Service` runs all their requests in one engine.
        """
        return in_thread(lambda: self.stream(prompts, generation_config, **arguments))

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """The score of each token that `generate` chose, [R, S], from what it returned; 0 behind the end of a beam.

        Args:
            normalize_logits: make log-probabilities of scores that are none (of beams they are).

        Raises:
            ArgumentError: no scores, or sequences of another call.
        """
        return transition_scores(sequences, scores, beam_indices, normalize=normalize_logits)

    # ---------------------------------------------------------------------------------------- what was asked for

    def _require_head(self) -> None:
        if not self.can_generate():
            raise Unsupported(
                f"a model for {self.task or 'hidden states'} does not generate",
                where="generate",
                next="load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM",
            )

    def _extra(self, options: dict[str, Any], token_types: Any) -> dict[str, Any]:
        """Further inputs that the family has by name, taken out of the options."""
        stack = self.encoder.stack if self.encoder is not None else self.stack
        extra = {name: options.pop(name) for name in stack.inputs if options.get(name) is not None}
        if token_types is not None and "token_type_ids" in stack.inputs:
            extra["token_type_ids"] = token_types
        elif isinstance(token_types, Tensor) and bool(token_types.any()):
            what = "token_type_ids other than 0"
            raise InputError(what, where="token_type_ids", next="leave it out: no model that generates has types")
        for name in options:
            if name not in DEFAULTS:
                near = nearest(name, [*DEFAULTS, *ARGUMENTS, *stack.inputs]) or "see GenerationConfig"
                raise ArgumentError(f"generate has no option {name!r}", where=name, next=near)
        return extra

    def _settings(
        self, config: GenerationConfig | None, options: Mapping[str, Any], model_defaults: bool | None = None
    ) -> GenerationConfig:
        """The model's options, under those of a config, under those of a call."""
        settings = self.generation_config
        if model_defaults is False:
            ids = {name: value for name, value in settings.to_dict().items() if name.endswith("_token_id")}
            settings = GenerationConfig(**ids)
        if config is not None:
            settings = settings.merged_quietly(options_of(config))
        settings = settings.merged(options, explicit=True)
        settings.check()
        return settings

    # ---------------------------------------------------------------------------------------- running

    def _run(
        self, asked: Sequence[Request], past: Cache | None, feed_of: Callable[[Sequence[Job]], Streaming | None]
    ) -> list[Job]:
        engine = Engine(self, None if past is None else past.pages)
        roots = [None] * len(asked) if past is None else _roots(engine, asked, past)
        jobs = [engine.add(request, root) for request, root in zip(asked, roots)]
        for job in jobs:
            job.result()
        feed = feed_of(jobs)
        while engine.busy:
            engine.step()
            if feed is not None:
                feed.flush()
        for job in jobs:
            job.result()
        if feed is not None:
            feed.end()
        cut = sum(job.most < job.request.max_new for job in jobs)
        if cut:
            log.warning("generate: %d row(s) may end early, the context holds %s tokens", cut, self.spec.context)
        return jobs

    # ---------------------------------------------------------------------------------------- results

    def _sequences(self, prompts: Prompts, jobs: Sequence[Job], settings: GenerationConfig) -> Any:
        befores = [_healed(prompts, i, job) for i, job in enumerate(jobs)]
        rows = [[*before, *output.ids] for before, job in zip(befores, jobs) for output in job.outputs]
        if prompts.form == "tensor":
            return rectangle(rows, pad_of(settings)).to(self.device)
        return rows[0] if prompts.form == "one" and len(rows) == 1 else rows

    def _dict(
        self, given: Inputed, prompts: Prompts, jobs: Sequence[Job], settings: GenerationConfig, past: Cache | None
    ) -> GenerateOutput:
        outputs = [output for job in jobs for output in job.outputs]
        found: dict[str, Any] = {"sequences": self._sequences(prompts, jobs, settings)}
        beams = settings.num_beams > 1
        for name in ("scores", "logits"):
            if getattr(settings, f"output_{name}"):
                rows = _of_beams(jobs, name) if beams else [getattr(output, name) for output in outputs]
                found[name] = _steps(rows, pad_of(settings), self.device)
        if beams:
            numbers = [
                [i * settings.num_beams + beam for beam in o.beams] for i, j in enumerate(jobs) for o in j.outputs
            ]
            found["beam_indices"] = rectangle(numbers, -1).int().to(self.device)
            if settings.output_scores:
                found["sequences_scores"] = torch.tensor([output.score for output in outputs], device=self.device)
        if past is None and settings.use_cache and all(output.row is not None for output in outputs):
            past = Cache(0, outputs[0].row.home if outputs[0].row else None)
            past.rows = _rows(jobs)
        found["past_key_values"] = past
        found |= self._seen(given, prompts, jobs, found["sequences"], settings)
        if self.encoder is None:
            return GenerateBeamDecoderOnlyOutput(**found) if beams else GenerateDecoderOnlyOutput(**found)
        return GenerateBeamEncoderDecoderOutput(**found) if beams else GenerateEncoderDecoderOutput(**found)

    def _seen(
        self, given: Inputed, prompts: Prompts, jobs: Sequence[Job], sequences: Tensor, settings: GenerationConfig
    ) -> dict[str, Any]:
        """Attentions and hidden states, where they are asked for."""
        patterns, hidden = bool(settings.output_attentions), bool(settings.output_hidden_states)
        if not patterns and not hidden:
            return {}
        each = torch.tensor([len(job.outputs) for job in jobs])
        new = [[1] * len(output.ids) for job in jobs for output in job.outputs]
        prompt = len(prompts.before[0])
        mask = torch.ones(len(jobs), prompt, dtype=torch.long) if prompts.mask is None else prompts.mask.long().cpu()
        whole = torch.cat([mask.repeat_interleave(each, 0), rectangle(new, 0)], 1).to(self.device)
        each = each.to(self.device)
        found: dict[str, Any] = {}
        states, source_mask, vectors = None, None, None
        if self.encoder is not None:
            encoded = given.encoder_outputs
            if encoded is None:
                source = {"inputs_embeds": given.vectors} if given.vectors is not None else {"input_ids": given.ids}
                with torch.inference_mode():
                    encoded = self.encode(
                        **source, attention_mask=given.mask, hidden=hidden, patterns=patterns, **given.extra
                    )
            found["encoder_attentions"] = getattr(encoded, "attentions", None)
            if given.encoder_outputs is None and found["encoder_attentions"] is not None:
                found["encoder_attentions"] = tuple(placed(x, given.mask, given.mask) for x in encoded.attentions)
            found["encoder_hidden_states"] = getattr(encoded, "hidden_states", None)
            source_mask = None if given.mask is None else given.mask.to(self.device).repeat_interleave(each, 0)
            states = encoded.last_hidden_state if hasattr(encoded, "last_hidden_state") else encoded[0]
            states = states.repeat_interleave(each, 0)
        elif given.vectors is not None:
            vectors, prompt = given.vectors.repeat_interleave(each, 0), given.vectors.shape[1]
            sequences = sequences[:, len(prompts.before[0]) :]
        return found | replay(
            self, sequences, whole, prompt, patterns=patterns, hidden=hidden, vectors_RTD=vectors, states_RTD=states,
            states_mask_RT=source_mask,
        )  # fmt: skip


ARGUMENTS = [name for name in signature(GenerationMixin.generate).parameters if name not in ("self", "options")]


def _refuse(*, synced_gpus: bool | None, custom_generate: Any) -> None:
    if synced_gpus:
        raise Unsupported("synced_gpus=True", where="synced_gpus", next="leave it out: this version runs on one device")
    if custom_generate is not None:
        raise Unsupported(
            "custom_generate runs code from elsewhere",
            where="custom_generate",
            next="write a decoding strategy: docs/generation.md says how",
        )


@contextmanager
def _ending(streamer: Any) -> Iterator[None]:
    """A reader in another thread is told when generation stops with an error."""
    try:
        yield
    except BaseException:
        if hasattr(streamer, "end"):
            streamer.end()
        raise


def _kept(settings: GenerationConfig, past: Cache | None) -> frozenset[Kept]:
    keep: set[Kept] = set()
    if settings.return_dict_in_generate:
        keep |= {"scores"} if settings.output_scores else set()
        keep |= {"logits"} if settings.output_logits else set()
        keep |= {"row"}
    return frozenset(keep | ({"row"} if past is not None else set()))


def _streaming(streamer: Any, prompts: Prompts, jobs: Sequence[Job], settings: GenerationConfig) -> Streaming | None:
    if streamer is None:
        return None
    if settings.num_beams > 1:
        what = f"a streamer with num_beams={settings.num_beams}: beams are known at their end"
        raise ArgumentError(what, where="streamer", next="leave one of them out")
    return Streaming(streamer, prompts.before, jobs, pad_of(settings))


def _roots(engine: Engine, asked: Sequence[Request], past: Cache) -> list[Seq]:
    """Sequences over the rows of a cache, which hold the beginnings of prompts.

    Raises:
        InputError: another number of rows, or a row that holds all of its prompt.
    """
    if len(past) != len(asked):
        what = f"the cache holds {len(past)} rows, and there are {len(asked)} prompts"
        raise InputError(what, where="past_key_values", next="cache.select(rows) keeps the rows you need")
    roots = []
    for i, (request, row) in enumerate(zip(asked, past.rows)):
        if row.length >= len(request.prompt):
            what = f"row {i} of the cache holds {row.length} tokens, its prompt has {len(request.prompt)}"
            raise InputError(what, where="past_key_values", next="give the whole text as prompt, and a token more")
        held = list(request.prompt[: row.length])
        source = tuple(request.ids) if request.begin else ()
        roots.append(Seq(engine.main, row, held, source=source, given=request.given, first=row.length, span=row.length))
    return roots


def _rows(jobs: Sequence[Job]) -> list[Any]:
    """What the cache holds of every output."""
    return [output.row for job in jobs for output in job.outputs if output.row is not None]


def _healed(prompts: Prompts, i: int, job: Job) -> list[int]:
    """What stands before a row's outputs: what was given, without tokens that they say again (token healing)."""
    before = prompts.before[i]
    taken = len(prompts.rows[i].ids) - len(job.request.ids)
    if not taken:
        return before
    end = len(before) if prompts.mask is None else 1 + int(prompts.mask[i].nonzero().max())
    return before[: end - taken] + before[end:]


def _beam_indices(jobs: Sequence[Job], beams: int) -> Tensor:
    """Which beam of all searches each token continued, [R, S] int32; -1 behind the end."""
    rows = [[i * beams + beam for beam in output.beams] for i, job in enumerate(jobs) for output in job.outputs]
    return rectangle(rows, -1).int()


def _of_beams(jobs: Sequence[Job], name: str) -> list[list[Tensor]]:
    """What each beam of each search was chosen from, step by step."""
    kept = [job.beam_scores if name == "scores" else job.beam_logits for job in jobs]
    return [[step_BV[beam] for step_BV in steps] for steps in kept for beam in range(len(steps[0]))]


def _steps(rows: Sequence[Sequence[Tensor]], pad: int, device: torch.device) -> tuple[Tensor, ...]:
    """[R, V] for each step, of [V] for each step of each row; behind a row's end the pad is certain."""
    longest = max(rows, key=len)
    if not longest:
        return ()
    after_V = torch.full_like(longest[0], -torch.inf).index_fill(0, torch.tensor(pad), 0.0)
    return tuple(
        torch.stack([row[step] if step < len(row) else after_V for row in rows]).to(device)
        for step in range(len(longest))
    )
