"""What `generate` returns, made of what the engine has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.row import Row
from pellucid.compat.generate_outputs import (
    GenerateBeamDecoderOnlyOutput,
    GenerateBeamEncoderDecoderOutput,
    GenerateDecoderOnlyOutput,
    GenerateEncoderDecoderOutput,
    GenerateOutput,
    Steps,
)
from pellucid.compat.prompts import Inputed, Prompts, pad_of, rectangle
from pellucid.compat.replay import Source
from pellucid.engine.job import Job
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Kept, Output
from pellucid.errors import Unsupported
from pellucid.models.model import Model


def kept(options: GenerationConfig, past: Cache | None) -> frozenset[Kept]:
    """What requests keep so that a result can be made of it."""
    keep: set[Kept] = set() if past is None else {"row"}
    if options.return_dict_in_generate:
        keep |= {"row"} if options.use_cache else set()
        keep |= {"scores"} if options.output_scores else set()
        keep |= {"logits"} if options.output_logits else set()
        keep |= {"beams"} if options.output_attentions or options.output_hidden_states else set()
    return frozenset(keep)


@dataclass(frozen=True)
class Results:
    """The finished requests of a call, one for each prompt."""

    model: Model
    options: GenerationConfig
    given: Inputed
    prompts: Prompts
    jobs: Sequence[Job]

    @cached_property
    def outputs(self) -> list[Output]:
        """Rows of the result."""
        return [output for job in self.jobs for output in job.outputs]

    @property
    def rows(self) -> list[Row] | None:
        """What the cache holds of each output; None where the strategy keeps nothing."""
        found = [output.row for output in self.outputs if output.row is not None]
        return found if len(found) == len(self.outputs) else None

    def sequences(self) -> Any:
        """Prompts and outputs, in the form in which prompts were given."""
        befores = [self._before(i) for i in range(len(self.jobs))]
        rows = [[*before, *output.ids] for before, job in zip(befores, self.jobs) for output in job.outputs]
        if self.prompts.form == "tensor":
            return rectangle(rows, pad_of(self.options)).to(self.model.device)
        return rows[0] if self.prompts.form == "one" and len(rows) == 1 else rows

    def _before(self, i: int) -> list[int]:
        """What stands before a row's outputs: what was given, but for tokens that they say again (token healing)."""
        before, mask = self.prompts.before[i], self.prompts.mask
        taken = len(self.prompts.rows[i].ids) - len(self.jobs[i].request.ids)
        if not taken:
            return before
        end = len(before) if mask is None else 1 + int(mask[i].nonzero().max())
        return before[: end - taken] + before[end:]

    # ---------------------------------------------------------------------------------------- by name

    def named(self, past: Cache | None) -> GenerateOutput:
        """All that was asked for."""
        o, beams = self.options, self.options.num_beams > 1
        found: dict[str, Any] = {"sequences": self.sequences(), "past_key_values": past or self._cache()}
        if o.output_scores:
            found["scores"] = self._steps("scores")
        if o.output_logits:
            found["logits"] = self._steps("logits")
        if beams:
            found["beam_indices"] = self._beam_indices()
        if beams and o.output_scores:
            found["sequences_scores"] = torch.tensor([o.score for o in self.outputs], device=self.model.device)
        if o.output_attentions or o.output_hidden_states:
            found |= self._seen()
        if self.model.encoder is None:
            return GenerateBeamDecoderOnlyOutput(**found) if beams else GenerateDecoderOnlyOutput(**found)
        return GenerateBeamEncoderDecoderOutput(**found) if beams else GenerateEncoderDecoderOutput(**found)

    def _cache(self) -> Cache | None:
        if not self.rows:
            return None
        cache = Cache(0, self.rows[0].home)
        cache.rows = self.rows
        return cache

    def _steps(self, name: str) -> Steps:
        """[R, V] for each step, of beams [N, V]; behind a row's end the pad is certain."""
        if self.options.num_beams > 1:
            of_jobs = [job.beam_scores if name == "scores" else job.beam_logits for job in self.jobs]
            rows = [[step_BV[beam] for step_BV in steps] for steps in of_jobs for beam in range(len(steps[0]))]
        else:
            rows = [getattr(output, name) for output in self.outputs]
        longest = max(rows, key=len)
        if not longest:
            return ()
        after_V = torch.full_like(longest[0], -torch.inf).index_fill(0, torch.tensor(pad_of(self.options)), 0.0)
        steps = ([row[at] if at < len(row) else after_V for row in rows] for at in range(len(longest)))
        return tuple(torch.stack(step).to(self.model.device) for step in steps)

    def _beam_indices(self) -> Tensor:
        """Which beam of all searches each token continued, [R, S] int32; -1 behind the end."""
        count = self.options.num_beams
        rows = [[i * count + beam for beam in each.beams] for i, job in enumerate(self.jobs) for each in job.outputs]
        return rectangle(rows, -1).int().to(self.model.device)

    # ---------------------------------------------------------------------------------------- attentions, hidden states

    def _seen(self) -> dict[str, Any]:
        if self.options.token_healing:
            what = "attentions and hidden states with token_healing"
            raise Unsupported(what, where="token_healing", next="leave one of them out")
        source, found = self._source()
        wishes = {"patterns": bool(self.options.output_attentions), "hidden": bool(self.options.output_hidden_states)}
        if self.options.num_beams == 1:
            rows = [i for i, job in enumerate(self.jobs) for _ in job.outputs]
            return found | source.replay(self.model, rows, [output.ids for output in self.outputs], **wishes)
        steps = [
            [(i, tokens) for i, job in enumerate(self.jobs) for tokens in self._beams(job, at)]
            for at in range(max(len(job.beam_ids) for job in self.jobs))
        ]
        return found | source.replay_beams(self.model, steps, **wishes)

    def _beams(self, job: Job, at: int) -> Sequence[Sequence[int] | None]:
        """The new tokens of each beam before a step."""
        if at >= len(job.beam_ids):
            return [None] * self.options.num_beams
        prompt = len(job.request.prompt)
        return [None if ids is None else ids[prompt:] for ids in job.beam_ids[at]]

    def _source(self) -> tuple[Source, dict[str, Any]]:
        """How the prompts are read again, and what the encoder says."""
        given, device = self.given, self.model.device
        ids_BP = torch.tensor(self.prompts.before, device=device)
        mask_BT = self.prompts.mask
        if self.model.encoder is not None:
            encoded, found = self._encoded()
            states_BMD = (encoded.last_hidden_state if hasattr(encoded, "last_hidden_state") else encoded[0]).to(device)
            states_mask_BM = None if given.mask is None else given.mask.to(device)
            mask_BT = torch.ones_like(ids_BP) if mask_BT is None else mask_BT.long().to(device)
            return Source(ids_BP, mask_BT, states_BMD=states_BMD, states_mask_BM=states_mask_BM), found
        vectors_BTD = None if given.vectors is None else given.vectors.to(device)
        if mask_BT is None:
            time = ids_BP.shape[1] if vectors_BTD is None else vectors_BTD.shape[1]
            mask_BT = torch.ones(len(ids_BP), time, dtype=torch.long)
        return Source(ids_BP, mask_BT.long().to(device), vectors_BTD=vectors_BTD), {}

    def _encoded(self) -> tuple[Any, dict[str, Any]]:
        """What the encoder made of the prompts, and what of it is returned."""
        given, o = self.given, self.options
        encoded = given.encoder_outputs
        if encoded is None:
            source = {"inputs_embeds": given.vectors} if given.vectors is not None else {"input_ids": given.ids}
            with torch.inference_mode():
                encoded = self.model.encode(
                    **source, attention_mask=given.mask, hidden=bool(o.output_hidden_states),
                    patterns=bool(o.output_attentions), **given.extra,
                )  # fmt: skip
        patterns = getattr(encoded, "attentions", None)
        hidden = getattr(encoded, "hidden_states", None)
        return encoded, {"encoder_attentions": patterns, "encoder_hidden_states": hidden}
