"""text-generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pellucid.compat import auto
from pellucid.compat.pipelines.base import Pipeline
from pellucid.engine.asking import Means
from pellucid.engine.checks import tell, tell_idle
from pellucid.engine.options import options_of
from pellucid.tasks import text_generation
from pellucid.tasks.text_generation import Continuation


class TextGenerationPipeline(Pipeline):
    """`[{"generated_text": …}]` for each prompt, with so many entries as `num_return_sequences`.

    Options are those of `generate`, 256 new tokens where nothing else is said, and:
        return_full_text: False leaves the prompt out.
        return_tensors: ids in place of text, under "generated_token_ids".
        logprobs: adds `"logprobs"` to each result: of each token, and of so many most likely ones.
        response_format: what the text must be, such as a JSON schema.
    """

    task = "text-generation"
    models = (auto.AutoModelForCausalLM,)
    generates = True

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
        **options: Any,
    ) -> Sequence[list[Continuation]]:
        settings = self.model.generation_config
        if generation_config is not None:
            settings = settings.merged_quietly(options_of(generation_config))
        if settings.max_new_tokens is None and not {"max_new_tokens", "max_length"} & options.keys():
            options["max_new_tokens"] = 256
        settings = settings.merged(options)
        tell_idle(settings, options, self.task)
        if settings.return_dict_in_generate and "return_dict_in_generate" in options:
            tell(f"{self.task}: return_dict_in_generate does nothing in a pipeline; call model.generate")
        means = Means(
            processors=logits_processor, criteria=stopping_criteria, allowed=prefix_allowed_tokens_fn,
            assistant=assistant_model, assistant_tokenizer=assistant_tokenizer, response_format=response_format,
            logprobs=logprobs,
        )  # fmt: skip
        return text_generation.generate_text(self.model, self.tokenizer, inputs, settings, means)

    def show(
        self,
        found: list[Continuation],
        *,
        return_full_text: bool = True,
        return_tensors: bool = False,
        logprobs: int | None = None,
    ) -> Any:
        def one(each: Continuation) -> dict[str, Any]:
            text = each.prompt + each.text if return_full_text else each.text
            result: dict[str, Any] = {"generated_token_ids": each.ids} if return_tensors else {"generated_text": text}
            return result if logprobs is None else {**result, "logprobs": each.logprobs}

        return [one(each) for each in found]
