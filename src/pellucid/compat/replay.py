"""Attentions and hidden states of finished sequences: one forward over all, cut into the steps of generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.compat.generate_outputs import Layers
from pellucid.compat.prompts import rectangle
from pellucid.models.model import Model
from pellucid.models.output import Output
from pellucid.spec import Attention, LatentAttention


@dataclass(frozen=True, eq=False)
class Source:
    """How some prompts are read again, one row each.

    Args:
        ids_BP: prompts with their pads, or behind an encoder what decoders begin with; before new tokens.
        mask_BT: which of the first places count.
        vectors_BTD: what is read in place of the prompts; then `ids_BP` is not read.
        states_BMD: what the encoder made of the prompts, under `states_mask_BM`.
    """

    ids_BP: Tensor
    mask_BT: Tensor
    vectors_BTD: Tensor | None = None
    states_BMD: Tensor | None = None
    states_mask_BM: Tensor | None = None

    def replay(
        self, model: Model, rows: Sequence[int], new: Sequence[Sequence[int]], *, patterns: bool, hidden: bool
    ) -> dict[str, Layers]:
        """What each step saw, under the reference's names: the prompt at first, then token by token.

        Args:
            rows: of the prompt, for each continuation.
            new: the tokens of each continuation; the last one of the longest is not read.
        """
        row_R = torch.tensor(rows, device=self.ids_BP.device)
        new_RS = rectangle(new, 0).to(row_R.device)[:, :-1]
        real_RS = rectangle([[1] * len(tokens) for tokens in new], 0).to(row_R.device)[:, :-1]
        mask_RT = torch.cat([self.mask_BT[row_R], real_RS], 1)
        wishes = {"output_attentions": patterns, "output_hidden_states": hidden, "use_cache": False}
        states_mask_RM = None if self.states_mask_BM is None else self.states_mask_BM[row_R]
        ids_RT = torch.cat([self.ids_BP[row_R], new_RS], 1)
        with torch.inference_mode():
            if self.vectors_BTD is not None:
                x_RTD = self.vectors_BTD[row_R]
                x_RTD = torch.cat([x_RTD, model.lookup(new_RS)], 1) if new_RS.numel() else x_RTD
                out = model(inputs_embeds=x_RTD, attention_mask=mask_RT, **wishes)
            elif self.states_BMD is not None:
                out = model(
                    encoder_outputs=(self.states_BMD[row_R],), attention_mask=states_mask_RM,
                    decoder_input_ids=ids_RT, decoder_attention_mask=mask_RT, **wishes,
                )  # fmt: skip
            else:
                out = model(ids_RT, attention_mask=mask_RT, **wishes)
        return _cut(model, out, self.mask_BT.shape[1], mask_RT.shape[1])

    def replay_beams(
        self, model: Model, steps: Sequence[Sequence[tuple[int, Sequence[int] | None]]], *, patterns: bool, hidden: bool
    ) -> dict[str, Layers]:
        """The same for beams, whose tokens so far change from step to step.

        Args:
            steps: for each step, for each beam, its prompt's row and its new tokens; None where there is no beam.
        """
        found: dict[str, list[tuple[Tensor, ...]]] = {}
        for at, beams in enumerate(steps):
            new = [[0] * (at + 1) if tokens is None else [*tokens, 0] for _, tokens in beams]
            none = torch.tensor([i for i, (_, tokens) in enumerate(beams) if tokens is None], dtype=torch.long)
            seen = self.replay(model, [row for row, _ in beams], new, patterns=patterns, hidden=hidden)
            for name, layers in seen.items():
                whole = tuple(x.index_fill(0, none.to(x.device), 0.0) for x in layers[-1])
                found.setdefault(name, []).append(whole)
        return {name: tuple(layers) for name, layers in found.items()}


def _cut(model: Model, out: Output, prompt: int, end: int) -> dict[str, Layers]:
    """A forward's results as those of steps."""
    side = "" if model.encoder is None else "decoder_"
    spans = [(0, prompt), *((at, at + 1) for at in range(prompt, end))]
    found: dict[str, Layers] = {}
    if (layers := getattr(out, f"{side}attentions")) is not None:
        windows = _windows(model, len(layers))
        found[f"{side}attentions"] = tuple(
            tuple(x[:, :, a:b, _left(a, b, window) : b] for x, window in zip(layers, windows)) for a, b in spans
        )
    if (layers := out.cross_attentions) is not None:
        found["cross_attentions"] = tuple(tuple(x[:, :, a:b] for x in layers) for a, b in spans)
    if (layers := getattr(out, f"{side}hidden_states")) is not None:
        found[f"{side}hidden_states"] = tuple(tuple(x[:, a:b] for x in layers) for a, b in spans)
    return found


def _left(begin: int, end: int, window: int | None) -> int:
    """The first key of a step: a window's keys that are out of it are forgotten between steps."""
    return 0 if window is None or begin == 0 else max(0, end - window)


def _windows(model: Model, layers: int) -> list[int | None]:
    """The window of each layer that has a pattern."""
    mixers = [getattr(block, "attn", None) for block in model.stack.blocks]
    found = [mixer.window for mixer in mixers if isinstance(mixer, Attention | LatentAttention)]
    return found if len(found) == layers else [None] * layers
