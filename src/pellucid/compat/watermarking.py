"""Watermark detectors with the reference's names, arguments and numbers.

    detector = WatermarkDetector(model.config, "cpu", WatermarkingConfig(bias=2.5))
    detector(output_ids, return_dict=True).z_score

`mean_score` and `weighted_mean_score` (SynthID-Text, without training) take what `SynthIDTextWatermarkLogitsProcessor`
computes: `compute_g_values(ids)` and the mask of repeated contexts.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pellucid import hub
from pellucid.engine.watermark import watermark_of
from pellucid.engine.watermark.configs import BaseWatermarkingConfig as BaseWatermarkingConfig
from pellucid.engine.watermark.configs import SynthIDTextWatermarkingConfig as SynthIDTextWatermarkingConfig
from pellucid.engine.watermark.configs import WatermarkingConfig as WatermarkingConfig
from pellucid.engine.watermark.processors import (
    SynthIDTextWatermarkLogitsProcessor as SynthIDTextWatermarkLogitsProcessor,
)
from pellucid.engine.watermark.processors import WatermarkLogitsProcessor as WatermarkLogitsProcessor
from pellucid.engine.watermark.synthid import mean_score as mean_score
from pellucid.engine.watermark.synthid import weighted_mean_score as weighted_mean_score
from pellucid.errors import ArgumentError, ConfigError, InputError, WeightsError, strict

WEIGHTS = "model.safetensors"
SMALLEST = 1e-30  # a likelihood of 0 would decide alone
CERTAIN = 1e-5  # how near a prior or posterior comes to 0 and 1


# ---- green lists -------------------------------------------------------------------------------------------------


@dataclass
class WatermarkDetectorOutput:
    """What `WatermarkDetector` finds, an array [batch] each.

    `z_score`: how many standard deviations more tokens are green than by chance; `confidence` is `1 - p_value`.
    """

    num_tokens_scored: np.ndarray | None = None
    num_green_tokens: np.ndarray | None = None
    green_fraction: np.ndarray | None = None
    z_score: np.ndarray | None = None
    p_value: np.ndarray | None = None
    prediction: np.ndarray | None = None
    confidence: np.ndarray | None = None


class WatermarkDetector:
    """Counts green tokens (arXiv 2301.10226, 2306.04634). Config, device and vocabulary are those of the writing."""

    @strict
    def __init__(
        self,
        model_config: Any,
        device: Any = "cpu",
        watermarking_config: WatermarkingConfig | Mapping[str, Any] | None = None,
        ignore_repeated_ngrams: bool = False,
        max_cache_size: int = 128,
    ) -> None:
        """
        Args:
            model_config: of the model that wrote: `vocab_size` and the first token are read.
            ignore_repeated_ngrams: count a sequence of tokens once, however often it comes.
            max_cache_size: green lists that are kept.

        Raises:
            ArgumentError: no config of green lists.
        """
        config = watermark_of(watermarking_config)
        if not isinstance(config, WatermarkingConfig):
            what = f"watermarking_config is a {type(watermarking_config).__name__}"
            raise ArgumentError(what, where="watermarking_config", next="give the WatermarkingConfig of the writing")
        behind_encoder = getattr(model_config, "is_encoder_decoder", False)
        first = "decoder_start_token_id" if behind_encoder else "bos_token_id"
        self.bos_token_id = getattr(model_config, first, None)
        self.greenlist_ratio = config.greenlist_ratio
        self.ignore_repeated_ngrams = ignore_repeated_ngrams
        self.processor = WatermarkLogitsProcessor(model_config.vocab_size, device, **config.to_dict())
        self._greens = lru_cache(maxsize=max_cache_size)(self._green_set)

    def __call__(
        self, input_ids: Tensor, z_threshold: float = 3.0, return_dict: bool = False
    ) -> WatermarkDetectorOutput | np.ndarray:
        """Whether each text [batch, length] is watermarked; everything else with `return_dict`.

        The prompt should not be part of the text. A first token that all rows begin with is left out.

        Raises:
            InputError: texts too short to score, or only some of which begin with the first token.
        """
        ids = torch.as_tensor(input_ids)
        begins = [row[0] == self.bos_token_id for row in ids.tolist() if row]
        if any(begins) != all(begins):
            what = f"{sum(begins)} of {len(begins)} texts begin with the token {self.bos_token_id}"
            raise InputError(what, where="input_ids", next="prepare all of them alike")
        ids = ids[:, 1:] if any(begins) else ids
        width = self.processor.context_width
        if ids.shape[-1] <= width:
            what = f"{ids.shape[-1]} tokens, of which context_width={width} are needed before the first to score"
            raise InputError(what, where="input_ids", next=f"give at least {width + 1}")
        scored, green = np.array([self._count(row) for row in ids.tolist()], float).T
        expected = self.greenlist_ratio
        z_score = (green - expected * scored) / np.sqrt(scored * expected * (1 - expected))
        prediction = z_score > z_threshold
        if not return_dict:
            return prediction
        p_value = 0.5 * torch.special.erfc(torch.as_tensor(z_score / np.sqrt(2))).numpy()
        return WatermarkDetectorOutput(scored, green, green / scored, z_score, p_value, prediction, 1 - p_value)

    def _count(self, ids: list[int]) -> tuple[int, int]:
        """How many tokens are scored, and how many of them are green."""
        selfhash = self.processor.seeding_scheme == "selfhash"
        n = self.processor.context_width + (not selfhash)
        grams = Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
        if self.ignore_repeated_ngrams:
            grams = Counter(dict.fromkeys(grams, 1))
        green = 0
        for gram, count in grams.items():
            seed = self.processor.rule.seed(gram if selfhash else gram[:-1])
            green += count * (gram[-1] in self._greens(seed))
        return grams.total(), green

    def _green_set(self, seed: int) -> frozenset[int]:
        return frozenset(self.processor.rule.seeded(seed).tolist())


# ---- SynthID-Text ------------------------------------------------------------------------------------------------


class BayesianDetectorConfig:
    """What `BayesianDetectorModel` is built from, and what it was trained for.

    Args:
        watermarking_depth: layers of the tournament.
        base_rate: the probability that a text is watermarked, before it is seen.
    """

    def __init__(self, watermarking_depth: int | None = None, base_rate: float = 0.5, **kwargs: Any) -> None:
        """`kwargs`: what else a config.json holds, kept as attributes."""
        self.watermarking_depth, self.base_rate = watermarking_depth, base_rate
        self.model_name: str | None = None
        self.watermarking_config: dict[str, Any] | None = None
        vars(self).update(kwargs)

    def set_detector_information(self, model_name: str, watermarking_config: Any) -> None:
        """Whose texts are detected."""
        self.model_name, self.watermarking_config = model_name, watermarking_config

    def to_dict(self) -> dict[str, Any]:
        return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in vars(self).items()}


@dataclass
class BayesianWatermarkDetectorModelOutput:
    """`posterior_probabilities` [batch] that texts are watermarked, and the loss where there were labels."""

    loss: Tensor | None = None
    posterior_probabilities: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter([each for each in (self.loss, self.posterior_probabilities) if each is not None])

    def __getitem__(self, at: int | str) -> Tensor:
        found: Tensor = getattr(self, at) if isinstance(at, str) else list(self)[at]
        return found


class BayesianDetectorWatermarkedLikelihood(nn.Module):
    """How likely g-values are in a watermarked text.

    In a layer, a match between two different tokens has the winner's g-value, one between equal tokens a coin's. Which
    it was, a logistic regression on the layers before says.
    """

    def __init__(self, watermarking_depth: int) -> None:
        super().__init__()
        self.watermarking_depth = watermarking_depth
        self.beta = nn.Parameter(-2.5 + 0.001 * torch.randn(1, 1, watermarking_depth))
        self.delta = nn.Parameter(0.001 * torch.randn(1, 1, watermarking_depth, watermarking_depth))

    def forward(self, g_values: Tensor) -> Tensor:
        """P(g | watermarked) [batch, length, depth] of g-values 0 or 1."""
        before = self.delta[0, 0].tril(-1)
        two = torch.sigmoid(g_values.to(before.dtype) @ before.T + self.beta)
        return 0.5 * ((g_values + 0.5) * two + (1 - two))


class BayesianDetectorModel(nn.Module):
    """The posterior probability that g-values come from a watermarked text (doi 10.1038/s41586-024-08025-4).

    For non-distortionary tournaments with g-values of probability 1/2, as `SynthIDTextWatermarkLogitsProcessor` makes.
    """

    def __init__(self, config: BayesianDetectorConfig) -> None:
        """Raises ArgumentError where the config does not say how deep the tournament is."""
        super().__init__()
        depth = config.watermarking_depth
        if not isinstance(depth, int) or depth < 1:
            raise ArgumentError(f"watermarking_depth={depth!r}", where="config", next="the number of watermarking keys")
        self.config = config
        self.watermarking_depth, self.base_rate = depth, config.base_rate
        self.likelihood_model_watermarked = BayesianDetectorWatermarkedLikelihood(depth)
        self.prior = nn.Parameter(torch.tensor([float(config.base_rate)]))

    def forward(
        self,
        g_values: Tensor,
        mask: Tensor,
        labels: Tensor | None = None,
        loss_batch_weight: float = 1,
        return_dict: bool = False,
    ) -> BayesianWatermarkDetectorModelOutput | tuple[Tensor, ...]:
        """The posterior [batch] of g-values [batch, length, depth], where the mask [batch, length] is 1."""
        likely = self.likelihood_model_watermarked(g_values).clamp_min(SMALLEST)
        odds = (likely.log() - torch.full_like(likely, 0.5).log()) * mask[..., None]
        prior = self.prior.clamp(CERTAIN, 1 - CERTAIN)
        posterior = torch.sigmoid(prior.log() - (1 - prior).log() + odds.sum((-2, -1)))
        loss = None
        if labels is not None:
            penalty = (self.likelihood_model_watermarked.delta**2).sum() * loss_batch_weight
            loss = nn.functional.binary_cross_entropy(posterior.clamp(CERTAIN, 1 - CERTAIN), labels) + penalty
        if return_dict:
            return BayesianWatermarkDetectorModelOutput(loss, posterior)
        return (posterior,) if loss is None else (posterior, loss)

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """config.json and model.safetensors, as the reference reads them."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        named = {"architectures": ["BayesianDetectorModel"], "model_type": ""} | self.config.to_dict()
        (folder / "config.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
        save_file(
            {name: each.contiguous() for name, each in self.state_dict().items()}, folder / WEIGHTS, {"format": "pt"}
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> BayesianDetectorModel:
        """A trained detector from a folder or hub id.

        Raises:
            ConfigError, WeightsError: its files are broken, or are no detector's.
        """
        offline = True if local_files_only else None
        folder = hub.resolve(pretrained_model_name_or_path, want="model", revision=revision, offline=offline)
        try:
            config = BayesianDetectorConfig(**json.loads((folder / "config.json").read_bytes()))
        except (ValueError, TypeError, OSError) as e:
            raise ConfigError(f"no detector's config: {e}", where=folder / "config.json") from None
        model = cls(config)
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (RuntimeError, OSError, SafetensorError) as e:
            raise WeightsError(f"no detector's weights: {e}", where=folder / WEIGHTS) from None
        return model.eval()


class SynthIDTextWatermarkDetector:
    """The posterior of texts, by a trained `BayesianDetectorModel`."""

    def __init__(
        self,
        detector_module: BayesianDetectorModel,
        logits_processor: SynthIDTextWatermarkLogitsProcessor,
        tokenizer: Any,
    ) -> None:
        self.detector_module, self.logits_processor, self.tokenizer = detector_module, logits_processor, tokenizer

    def __call__(self, tokenized_outputs: Tensor) -> BayesianWatermarkDetectorModelOutput | tuple[Tensor, ...]:
        """What the model says of texts [batch, length]; repeated contexts and what follows EOS do not count."""
        processor = self.logits_processor
        alive = processor.compute_eos_token_mask(tokenized_outputs, self.tokenizer.eos_token_id)
        mask = processor.compute_context_repetition_mask(tokenized_outputs) * alive[:, processor.ngram_len - 1 :]
        found: BayesianWatermarkDetectorModelOutput | tuple[Tensor, ...]
        found = self.detector_module(processor.compute_g_values(tokenized_outputs), mask)
        return found
