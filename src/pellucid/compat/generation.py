"""generate: prompts in, sequences out, under the reference's names and arguments."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row
from pellucid.compat.generate_outputs import GenerateOutput, transition_scores
from pellucid.compat.prompts import Inputed, Prompts, of_ids, pad_of, read
from pellucid.compat.results import Results, kept
from pellucid.compat.streamers import Streaming
from pellucid.engine.asking import Means, pages, requests
from pellucid.engine.checks import tell_idle
from pellucid.engine.engine import Engine
from pellucid.engine.fields import DEFAULTS, advice
from pellucid.engine.job import Job
from pellucid.engine.lasting import engine_for
from pellucid.engine.options import GenerationConfig, of_config, options_of
from pellucid.engine.request import Request
from pellucid.engine.sequence import Seq
from pellucid.errors import ArgumentError, InputError, Unsupported
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
        options_of(value)  # says what is wrong with it
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
                for their last tokens; beams leave it as it was.
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
            if negative_prompt_ids is not None and settings.guidance_scale is None:
                what = "negative_prompt_ids without guidance_scale: nothing would lead away from them"
                raise ArgumentError(what, where="negative_prompt_ids", next="set guidance_scale, such as 1.5")
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
                keep=kept(settings, past_key_values),
            )
            asked = requests(self, settings, prompts.rows, means)
            home = pages(settings) if past_key_values is None else past_key_values.pages
            jobs = self._run(asked, past_key_values, home, lambda jobs: _streaming(streamer, prompts, jobs, settings))
        results = Results(self, settings, given, prompts, jobs)
        if past_key_values is not None:
            past_key_values.rows = results.rows or past_key_values.rows
        return results.named(past_key_values) if settings.return_dict_in_generate else results.sequences()

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
                near = advice(name, [*DEFAULTS, *ARGUMENTS, *stack.inputs]) or "see GenerationConfig"
                near = "generate takes it, stream does not" if name in ARGUMENTS else near
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
        tell_idle(settings, options)
        return settings

    # ---------------------------------------------------------------------------------------- running

    def _run(
        self,
        asked: Sequence[Request],
        past: Cache | None,
        home: Pages | None,
        feed_of: Callable[[Sequence[Job]], Streaming | None],
    ) -> list[Job]:
        if past is not None:
            past.pages.claim(self)
        with engine_for(self, home, asked) as engine, _as_it_was(past):
            roots = [None] * len(asked) if past is None else _roots(engine, asked, past)
            return self._run_all(engine, [engine.add(*each) for each in zip(asked, roots)], feed_of)

    def _run_all(
        self, engine: Engine, jobs: list[Job], feed_of: Callable[[Sequence[Job]], Streaming | None]
    ) -> list[Job]:
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


@contextmanager
def _as_it_was(past: Cache | None) -> Iterator[None]:
    """After an error a cache holds what it held before, so that the call can be made again."""
    before = [] if past is None else [(row, row.length, row.copy() if row.states else None) for row in past.rows]
    try:
        yield
    except BaseException:
        if past is not None:
            past.rows = [_back(*each) for each in before]
        raise


def _back(row: Row, length: int, copy: Row | None) -> Row:
    if copy is not None:
        return copy
    if row.length >= length:
        row.trim(length)
    return row


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
