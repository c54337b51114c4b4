"""What `generate` returns with `return_dict_in_generate`: the reference's classes, fields and layouts.

Scores and logits are those of the decode loop. Attentions and hidden states are not kept while it runs: one forward
over the finished sequences computes them, and they are cut into the steps that the reference returns. Where a row has a
pad, before its prompt or behind its end, they are zeros; its scores there say that the pad is certain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.errors import ArgumentError

Steps = tuple[Tensor, ...]
Layers = tuple[tuple[Tensor, ...], ...]  # of each step, of each layer


class _Named:
    """Results by name: `out.scores`, `out["scores"]`, `out[0]`; what was not asked for is None, and does not count."""

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there."""
        return tuple(self.values())

    def keys(self) -> list[str]:
        """Names of the values that are there."""
        return [each.name for each in fields(self) if getattr(self, each.name) is not None]  # type: ignore[arg-type]

    def values(self) -> list[Any]:
        """The values that are there."""
        return [getattr(self, name) for name in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values that are there."""
        return list(zip(self.keys(), self.values()))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a name, or `default`."""
        return getattr(self, key) if key in self else default

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self:
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(_Named):
    """Of a decoder. R rows are prompts times returned sequences, S steps the tokens of the longest.

    Args:
        sequences: [R, T + S] ids, prompts with their pads among them.
        scores: for each step [R, V], the logits after all rules.
        logits: for each step [R, V], the logits of the model.
        attentions: for each step, for each layer [R, H, T, T] at first, then [R, H, 1, T + step].
        hidden_states: for each step, before each layer and at the end [R, T, D] at first, then [R, 1, D].
        past_key_values: what the cache holds of the sequences, all but their last tokens.
    """

    sequences: Tensor
    scores: Steps | None = None
    logits: Steps | None = None
    attentions: Layers | None = None
    hidden_states: Layers | None = None
    past_key_values: Cache | None = None


@dataclass(eq=False)
class GenerateEncoderDecoderOutput(_Named):
    """Of an encoder-decoder: as of a decoder, and what the encoder made of B prompts.

    Args:
        encoder_attentions, encoder_hidden_states: for each layer [B, H, T, T], [B, T, D].
        cross_attentions: for each step, for each layer [R, H, new, T].
    """

    sequences: Tensor
    scores: Steps | None = None
    logits: Steps | None = None
    encoder_attentions: Steps | None = None
    encoder_hidden_states: Steps | None = None
    decoder_attentions: Layers | None = None
    cross_attentions: Layers | None = None
    decoder_hidden_states: Layers | None = None
    past_key_values: Cache | None = None


@dataclass(eq=False)
class GenerateBeamDecoderOnlyOutput(_Named):
    """Of a beam search of a decoder. N is prompts times beams.

    Args:
        sequences_scores: [R], log-probability over the length penalty.
        scores: for each step [N, V], log-probabilities after all rules, of every beam.
        beam_indices: [R, S], which of the N each token continued; -1 behind the end.
    """

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Steps | None = None
    logits: Steps | None = None
    beam_indices: Tensor | None = None
    attentions: Layers | None = None
    hidden_states: Layers | None = None
    past_key_values: Cache | None = None


@dataclass(eq=False)
class GenerateBeamEncoderDecoderOutput(_Named):
    """Of a beam search of an encoder-decoder."""

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: Steps | None = None
    logits: Steps | None = None
    beam_indices: Tensor | None = None
    encoder_attentions: Steps | None = None
    encoder_hidden_states: Steps | None = None
    decoder_attentions: Layers | None = None
    cross_attentions: Layers | None = None
    decoder_hidden_states: Layers | None = None
    past_key_values: Cache | None = None


# Names of version 4, one for each way of decoding.
GreedySearchDecoderOnlyOutput = SampleDecoderOnlyOutput = ContrastiveSearchDecoderOnlyOutput = GenerateDecoderOnlyOutput
GreedySearchEncoderDecoderOutput = SampleEncoderDecoderOutput = GenerateEncoderDecoderOutput
ContrastiveSearchEncoderDecoderOutput = GenerateEncoderDecoderOutput
BeamSearchDecoderOnlyOutput = BeamSampleDecoderOnlyOutput = GenerateBeamDecoderOnlyOutput
BeamSearchEncoderDecoderOutput = BeamSampleEncoderDecoderOutput = GenerateBeamEncoderDecoderOutput
GenerateNonBeamOutput = GenerateDecoderOnlyOutput | GenerateEncoderDecoderOutput
GenerateBeamOutput = GenerateBeamDecoderOnlyOutput | GenerateBeamEncoderDecoderOutput
GenerateOutput = GenerateNonBeamOutput | GenerateBeamOutput
GreedySearchOutput = SampleOutput = ContrastiveSearchOutput = GenerateNonBeamOutput
BeamSearchOutput = BeamSampleOutput = GenerateBeamOutput


def transition_scores(
    sequences_RT: Tensor, scores: Steps, beam_indices_RS: Tensor | None, *, normalize: bool
) -> Tensor:
    """The score of each token that was chosen, [R, S]; 0 behind the end of a beam.

    Raises:
        ArgumentError: no scores; fewer tokens than scores; something that is none of these.
    """
    import torch

    if not isinstance(scores, (tuple, list)) or not scores:
        what = "there are no scores" if scores is None or scores == () else f"scores is a {type(scores).__name__}"
        raise ArgumentError(what, where="scores", next="give the tuple that generate(output_scores=True) returns")
    for name, value in (("sequences", sequences_RT), ("beam_indices", beam_indices_RS)):
        if not isinstance(value, torch.Tensor) and (value is not None or name == "sequences"):
            what = f"{name} is a {type(value).__name__}"
            raise ArgumentError(what, where=name, next="give what generate(return_dict_in_generate=True) returned")

    scores_SNV = torch.stack(tuple(scores))
    if normalize:
        scores_SNV = scores_SNV.log_softmax(-1)
    if beam_indices_RS is None:
        beam_indices_RS = torch.arange(scores_SNV.shape[1])[:, None].expand(-1, len(scores))
    beam_indices_RS = beam_indices_RS.to(scores_SNV.device)
    longest = int((beam_indices_RS >= 0).sum(1).max())
    row_RS = beam_indices_RS[:, :longest].long()
    if sequences_RT.shape[1] < longest or sequences_RT.shape[0] != len(row_RS):
        what = f"sequences are {list(sequences_RT.shape)}, for {len(row_RS)} rows of {longest} scores"
        raise ArgumentError(what, where="sequences", next="give what generate returned together")
    token_RS = sequences_RT[:, sequences_RT.shape[1] - longest :].to(scores_SNV.device)
    step_S = torch.arange(longest, device=scores_SNV.device)
    found_RS = scores_SNV[step_S, row_RS.clamp_min(0), token_RS]
    return found_RS.masked_fill(row_RS < 0, 0.0)
