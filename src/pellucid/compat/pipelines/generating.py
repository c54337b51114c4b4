"""text-generation, and behind an encoder text2text-generation, summarization and translation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pellucid.compat import auto
from pellucid.compat.modeling import PreTrainedModel
from pellucid.compat.pipelines.base import Pipeline, cut_of, with_lost
from pellucid.engine.asking import Means
from pellucid.engine.checks import tell, tell_idle
from pellucid.engine.fields import DEFAULTS
from pellucid.engine.options import GenerationConfig, options_of
from pellucid.errors import ArgumentError
from pellucid.tasks import text_generation
from pellucid.tasks.rows import room
from pellucid.tasks.text_generation import Continuation, Continued, Style
from pellucid.text.faces.translation import TranslationTokenizer
from pellucid.text.tokenizer import Tokenizer

NEW = 256  # tokens where nobody says how many


class Generating(Pipeline):
    """What tasks share that write text: options are those of `generate`, and what the config says for the task."""

    generates = True
    usual: ClassVar[dict[str, Any]] = {}  # options that a model's own go before

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, *, name: str | None = None, **defaults: Any):
        """`name` is the task's in the config, where it has several, such as "translation_en_to_fr"."""
        super().__init__(model, tokenizer, **defaults)
        self.name = name or self.task
        said = model.config.get("task_specific_params") or {}
        own = dict(said.get(self.name) or {})
        prefix = own.pop("prefix", model.config.get("prefix"))
        self.prefix = prefix or ""
        self.own = {key: value for key, value in own.items() if key in DEFAULTS}

    def settings(self, options: dict[str, Any], generation_config: Any, stop_sequence: Any) -> GenerationConfig:
        """What is said by the model, by its config for the task, by the call; the later goes before the earlier."""
        model = self.model.generation_config
        length = {} if model.is_given("max_length") else {"max_new_tokens": NEW}
        settings = GenerationConfig(**length, **self.usual).merged_quietly(model.to_dict()).merged_quietly(self.own)
        if generation_config is not None:
            settings = settings.merged_quietly(options_of(generation_config))
        if stop_sequence is not None:
            options = {"stop_strings": stop_sequence, **options}
        if "max_length" in options and "max_new_tokens" not in options:
            settings.update(max_new_tokens=None)  # what the call says goes before what others do
        settings = settings.merged(options)
        tell_idle(settings, options, self.task)
        if settings.return_dict_in_generate and "return_dict_in_generate" in options:
            tell(f"{self.task}: return_dict_in_generate does nothing in a pipeline; call model.generate")
        return settings


class TextGenerationPipeline(Generating):
    """`[{"generated_text": …}]` for each prompt, with so many entries as `num_return_sequences`.

    A prompt is a text, or a chat: a list of messages, of which the result is the longer list. Tokens are the most
    likely ones unless the model's generation config or an option says otherwise.

    Options are those of `generate`, 256 new tokens where nothing else is said, and:
        return_full_text: False leaves the prompt out.
        return_tensors: ids in place of text, under "generated_token_ids"; return_text=False is the same.
        prefix: a text that goes before every prompt and is not returned.
        stop_sequence: `generate`'s `stop_strings`.
        logprobs: adds `"logprobs"` to each result: of each token, and of so many most likely ones.
        response_format: what the text must be, such as a JSON schema.
        tools, documents, continue_final_message: of chats, as `apply_chat_template` takes them.
        truncation: cuts prompts that are too long. handle_long_generation="hole" keeps their ends, with room for what
            is to come.
        add_special_tokens, skip_special_tokens, clean_up_tokenization_spaces: as of the tokenizer.
        tokenizer_encode_kwargs: `truncation`, `max_length`.
    """

    task = "text-generation"
    models = (auto.AutoModelForCausalLM,)

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str) or is_chat(inputs)

    def run(
        self,
        inputs: list[Any],
        *,
        logprobs: int | None = None,
        response_format: Any = None,
        logits_processor: Iterable[Any] = (),
        stopping_criteria: Iterable[Any] = (),
        prefix_allowed_tokens_fn: Any = None,
        assistant_model: Any = None,
        assistant_tokenizer: Any = None,
        generation_config: Any = None,
        prefix: str | None = None,
        stop_sequence: str | list[str] | None = None,
        tools: Any = None,
        documents: Any = None,
        continue_final_message: bool | None = None,
        truncation: bool | str | None = None,
        handle_long_generation: str | None = None,
        add_special_tokens: bool = True,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
        tokenizer_encode_kwargs: Mapping[str, Any] | None = None,
        padding: Any = None,
        **options: Any,
    ) -> Sequence[Written]:
        settings = self.settings(options, generation_config, stop_sequence)
        means = Means(
            processors=logits_processor, criteria=stopping_criteria, allowed=prefix_allowed_tokens_fn,
            assistant=assistant_model, assistant_tokenizer=assistant_tokenizer, response_format=response_format,
            logprobs=logprobs,
        )  # fmt: skip
        cut = cut_of(tokenizer_encode_kwargs, truncation=truncation)
        style = Style(
            cut if cut.truncation else None, self._last(handle_long_generation, settings), add_special_tokens,
            skip_special_tokens, clean_up_tokenization_spaces,
        )  # fmt: skip
        before = self.prefix if prefix is None else prefix
        chats = [chat_of(self.tokenizer, each, continue_final_message, tools, documents) for each in inputs]
        prompts = [
            chat.prompt if chat else before + each if isinstance(each, str) else each
            for chat, each in zip(chats, inputs)
        ]
        found = text_generation.generate_text(self.model, self.tokenizer, prompts, settings, means, style)
        return [Written(*each) for each in zip(inputs, chats, found)]

    def show(
        self,
        found: Written,
        *,
        return_full_text: bool = True,
        return_tensors: bool = False,
        return_text: bool = True,
        logprobs: int | None = None,
    ) -> Any:
        def one(each: Continuation) -> dict[str, Any]:
            if return_tensors or not return_text:
                result: dict[str, Any] = {"generated_token_ids": [*found.continued.before, *each.ids]}
            else:
                result = {"generated_text": found.whole(each.text) if return_full_text else each.text}
            if logprobs is not None:
                result["logprobs"] = each.logprobs
            return with_lost(result, found.continued.dropped)

        return [one(each) for each in found.continued.outputs]

    def _last(self, handle: str | None, settings: GenerationConfig) -> int | None:
        """How many tokens of a prompt are kept where it is to leave room."""
        if handle is None:
            return None
        if handle != "hole":
            what = f"handle_long_generation={handle!r}"
            raise ArgumentError(what, where="handle_long_generation", next="use 'hole', or leave it out")
        most = room(self.model, self.tokenizer)
        if most is None:
            return None
        left = most - settings.new_tokens(0)
        if left < 1:
            what = f"{settings.new_tokens(0)} new tokens leave nothing of {most} for a prompt"
            raise ArgumentError(what, where="max_new_tokens", next="ask for fewer")
        return left


@dataclass(frozen=True)
class Chat:
    """Messages, and the prompt that a template makes of them; it leaves the last one open where that is continued."""

    messages: list[dict[str, Any]]
    prompt: str
    continued: bool


@dataclass(frozen=True)
class Written:
    """What followed a prompt that was given."""

    given: Any
    chat: Chat | None
    continued: Continued

    @property
    def dropped(self) -> int:
        """Tokens of the prompt that were cut off."""
        return self.continued.dropped

    def whole(self, text: str) -> Any:
        """The prompt with a text behind it: a longer text, or a longer chat."""
        if self.chat is None:
            return self.given + text
        *before, last = self.chat.messages
        if self.chat.continued:
            return [*before, {"role": last["role"], "content": last["content"] + text}]
        return [*before, last, {"role": "assistant", "content": text}]


def is_chat(given: Any) -> bool:
    """Whether an input is one list of messages, or an object with such."""
    messages = getattr(given, "messages", given)
    return isinstance(messages, list | tuple) and bool(messages) and isinstance(messages[0], Mapping)


def chat_of(tokenizer: Tokenizer, given: Any, continued: bool | None, tools: Any, documents: Any) -> Chat | None:
    """A chat as a prompt; None for what is none.

    Raises:
        PellucidError: the template is missing or refuses the messages.
    """
    if not is_chat(given):
        return None
    messages = [dict(message) for message in getattr(given, "messages", given)]
    go_on = messages[-1].get("role") == "assistant" if continued is None else continued
    prompt: str = tokenizer.apply_chat_template(
        messages, tools=tools, documents=documents, add_generation_prompt=not go_on, continue_final_message=go_on,
        tokenize=False,
    )  # fmt: skip
    return Chat(messages, prompt, go_on)


class Text2TextGenerationPipeline(Generating):
    """`[{"generated_text": …}]` for a text; for a list of texts one dict each, or lists where there are several.

    Options are those of `generate`, 4 beams and 256 new tokens where neither the model nor its config for the task says
    otherwise, and:
        truncation: cuts texts that are too long; otherwise they are refused.
        return_tensors: ids in place of text; return_text=False is the same.
        stop_sequence: `generate`'s `stop_strings`.
        clean_up_tokenization_spaces: as of the tokenizer.
    """

    task = "text2text-generation"
    models = (auto.AutoModelForSeq2SeqLM,)
    usual = {"num_beams": 4}
    key = "generated"

    def __call__(self, inputs: Any, *, progress: bool = False, **options: Any) -> Any:
        found = super().__call__(inputs, progress=progress, **options)
        if isinstance(inputs, list) and all(isinstance(each, str) for each in inputs):
            return [each[0] for each in found] if all(len(each) == 1 for each in found) else found
        return found

    def run(
        self,
        inputs: list[Any],
        coder: Tokenizer | None = None,
        *,
        truncation: bool | str | None = None,
        stop_sequence: str | list[str] | None = None,
        clean_up_tokenization_spaces: bool | None = None,
        logits_processor: Iterable[Any] = (),
        stopping_criteria: Iterable[Any] = (),
        prefix_allowed_tokens_fn: Any = None,
        assistant_model: Any = None,
        assistant_tokenizer: Any = None,
        generation_config: Any = None,
        padding: Any = None,
        **options: Any,
    ) -> Sequence[Continued]:
        settings = self.settings(options, generation_config, stop_sequence)
        means = Means(
            processors=logits_processor, criteria=stopping_criteria, allowed=prefix_allowed_tokens_fn,
            assistant=assistant_model, assistant_tokenizer=assistant_tokenizer,
        )  # fmt: skip
        style = Style(cut_of(None, truncation=truncation), clean_up=clean_up_tokenization_spaces)
        prompts = [self.prefix + each if isinstance(each, str) else each for each in inputs]
        return text_generation.generate_text(self.model, coder or self.tokenizer, prompts, settings, means, style)

    def show(self, found: Continued, *, return_tensors: bool = False, return_text: bool = True) -> Any:
        def one(each: Continuation) -> dict[str, Any]:
            if return_tensors or not return_text:
                return {f"{self.key}_token_ids": [*found.before, *each.ids]}
            return {f"{self.key}_text": each.text}

        return [with_lost(one(each), found.dropped) for each in found.outputs]


class SummarizationPipeline(Text2TextGenerationPipeline):
    """`[{"summary_text": …}]`. Options as of text2text-generation."""

    task = "summarization"
    key = "summary"


class TranslationPipeline(Text2TextGenerationPipeline):
    """`[{"translation_text": …}]`. Options as of text2text-generation, and:

    src_lang, tgt_lang: the languages, by the names that the model's tokenizer has; the task's name may say them, as in
        "translation_en_to_fr".
    """

    task = "translation"
    key = "translation"

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, *, name: str | None = None, **defaults: Any):
        if name is None:  # as for T5, which has several
            said = model.config.get("task_specific_params") or {}
            name = next((each for each in said if each.startswith("translation")), None)
            if name is not None:
                tell(f"translation: this model has several pairs of languages; this is {name}")
        super().__init__(model, tokenizer, name=name, **defaults)

    def run(
        self,
        inputs: list[Any],
        coder: Tokenizer | None = None,
        *,
        src_lang: str | None = None,
        tgt_lang: str | None = None,
        **options: Any,
    ) -> Sequence[Continued]:
        if not isinstance(self.tokenizer, TranslationTokenizer):
            return super().run(inputs, coder, **options)
        pair = self.name.split("_")
        if src_lang is None and tgt_lang is None and len(pair) == 4:
            src_lang, tgt_lang = pair[1], pair[3]
        if src_lang is None or tgt_lang is None:
            missing = "src_lang" if src_lang is None else "tgt_lang"
            next = f"name one of {', '.join([*self.tokenizer.lang_code_to_token][:8])} …"
            raise ArgumentError(f"a model of many languages, and no {missing}", where=missing, next=next)
        options = {"forced_bos_token_id": self.tokenizer.get_lang_id(tgt_lang), **options}
        return super().run(inputs, self.tokenizer.reading(src_lang), **options)
