"""Attentions and hidden states of finished sequences: one forward over all, cut into the steps of generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.models.model import Model
from pellucid.models.output import Output
from pellucid.spec import Attention, LatentAttention


def replay(
    model: Model,
    sequences_RT: Tensor,
    mask_RT: Tensor,
    prompt: int,
    *,
    patterns: bool,
    hidden: bool,
    vectors_RTD: Tensor | None = None,
    states_RTD: Tensor | None = None,
    states_mask_RT: Tensor | None = None,
) -> dict[str, Any]:
    """What each step saw, under the reference's names.

    Args:
        sequences_RT: finished sequences; their last tokens are not read.
        mask_RT: which of their tokens count.
        prompt: columns of the first step.
        vectors_RTD: what was read in place of the first tokens; `sequences_RT` begins behind it.
        states_RTD: what the encoder made of each row's prompt, under `states_mask_RT`.
    """
    wishes = {"output_attentions": patterns, "output_hidden_states": hidden, "use_cache": False}
    ids, mask = sequences_RT[:, :-1], mask_RT[:, : mask_RT.shape[1] - 1]
    with torch.inference_mode():
        if states_RTD is not None:
            out = model(
                encoder_outputs=(states_RTD,), attention_mask=states_mask_RT, decoder_input_ids=ids,
                decoder_attention_mask=mask, **wishes,
            )  # fmt: skip
            return _cut(
                model,
                out,
                prompt,
                mask,
                states_mask_RT,
                ("decoder_attentions", "cross_attentions", "decoder_hidden_states"),
            )
        if vectors_RTD is not None:
            x_RTD = torch.cat([vectors_RTD, model.lookup(ids)], 1) if ids.numel() else vectors_RTD
            out = model(inputs_embeds=x_RTD, attention_mask=mask, **wishes)
        else:
            out = model(ids, attention_mask=mask, **wishes)
        return _cut(model, out, prompt, mask, None, ("attentions", "hidden_states"))


def placed(pattern_BHTS: Tensor, queries_BT: Tensor | None, keys_BS: Tensor | None) -> Tensor:
    """A pattern whose rows begin at the left, with queries and keys where masks say that they are; zeros elsewhere."""
    if (queries_BT is None or bool(queries_BT.all())) and (keys_BS is None or bool(keys_BS.all())):
        return pattern_BHTS
    B, H, T, S = pattern_BHTS.shape
    queries_BT = torch.ones(B, T) if queries_BT is None else queries_BT
    keys_BS = torch.ones(B, S) if keys_BS is None else keys_BS
    whole = pattern_BHTS.new_zeros(B, H, queries_BT.shape[1], keys_BS.shape[1])
    for row, queries, keys in zip(range(B), queries_BT, keys_BS):
        at, to = queries.nonzero().to(whole.device), keys.nonzero().flatten().to(whole.device)
        whole[row, :, at, to] = pattern_BHTS[row, :, : len(at), : len(to)]
    return whole


def _cut(
    model: Model, out: Output, prompt: int, mask_RT: Tensor, source_mask_RT: Tensor | None, names: Sequence[str]
) -> dict[str, Any]:
    found = {}
    for name in names:
        layers = getattr(out, name)
        if layers is None:
            continue
        spans = _spans(mask_RT.shape[1], prompt)
        if name.endswith("hidden_states"):
            steps = [[x[:, a:b] for x in layers] for a, b in spans]
        elif name == "cross_attentions":
            layers = [placed(x, mask_RT, source_mask_RT) for x in layers]
            steps = [[x[:, :, a:b] for x in layers] for a, b in spans]
        else:
            layers = [placed(x, mask_RT, mask_RT) for x in layers]
            pairs = list(zip(layers, _windows(model, len(layers))))
            steps = [[x[:, :, a:b, _left(a, b, window) : b] for x, window in pairs] for a, b in spans]
        found[name] = tuple(tuple(step) for step in steps)
    return found


def _spans(time: int, prompt: int) -> list[tuple[int, int]]:
    """The places that each step reads: the prompt, and then one after the other."""
    return [(0, prompt), *((at, at + 1) for at in range(prompt, time))]


def _left(begin: int, end: int, window: int | None) -> int:
    """The first key of a step: a window's keys that are out of it are forgotten between steps."""
    return 0 if window is None or begin == 0 else max(0, end - window)


def _windows(model: Model, layers: int) -> list[int | None]:
    """The window of each layer that has a pattern."""
    mixers = [getattr(block, "attn", None) for block in model.stack.blocks]
    found = [mixer.window for mixer in mixers if isinstance(mixer, Attention | LatentAttention)]
    return found if len(found) == layers else [None] * layers
