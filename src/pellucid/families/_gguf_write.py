"""A config and a spec as llama.cpp's files say them: the way back of `_gguf.py`.

What every decoder has comes from the spec, what only one family has from its table of keys. Whatever is said here is
read again by the family's own table before a file is made (`said_as`): a file never says another model than was meant.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pellucid import gguf
from pellucid.config import Config
from pellucid.errors import Unsupported
from pellucid.families._gguf import ARCHITECTURES, VARIANTS, Gguf, Said, shortest
from pellucid.spec import (
    Attention,
    Block,
    LayerNorm,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Mlp,
    Moe,
    RmsNorm,
    Rope,
    Spec,
    YarnScaling,
)

FAMILY = {"mistral": "llama", "internlm3": "llama", "iquestcoder": "llama"}  # whose table serves a family without one
# model_type -> general.architecture, where the two differ.
NAMES = {model_type: name for name, model_type in ARCHITECTURES.items()} | FAMILY | {"t5": "t5"}
NAMES |= {model_type: name for name, (_, model_type) in VARIANTS.items()}
TRAINING = ("dropout", "loss", "jitter")  # fields of a spec that no file says, and that change no result
USUAL_CONTEXT = 2048  # where a model has no limit; files must say one
FLAGS = {"use_parallel_residual": "use_parallel_residual", "norm_topk_prob": "expert_weights_norm"}
GATING = {"sigmoid": 2}  # llama.cpp's numbers of how a router scores; softmax is what it takes if nothing is said
# Metadata that must be a float, though config.json may say 10000.
FLOATS = ("epsilon", "freq_base", "freq_base_swa", "softcapping", "scale", "factor")


def architecture(family: str) -> str:
    return NAMES.get(family, family)


def metadata(table: Gguf, config: Config, spec: Spec) -> dict[str, Any]:
    """Keys with the architecture before them, as `general.architecture` itself."""
    name, own = architecture(spec.family), _from_spec(spec)
    for key, said in table.keys.items():
        if said not in own and (value := config.get(key)) is not None:
            own[said] = value
    for said, value in _unless_said(spec).items():
        own.setdefault(said, value)
    for key, said in FLAGS.items():
        if (value := config.get(key)) is not None:
            own[said] = bool(value)
    found = {f"{name}.{key}": _typed(key, value) for key, value in own.items() if value is not None}
    return {"general.architecture": name, **found}


def _typed(key: str, value: Any) -> Any:
    floating = key.rpartition(".")[2].endswith(FLOATS) and type(value) is int
    return float(value) if floating else value


def _from_spec(spec: Spec) -> dict[str, Any]:
    """What all architectures say in the same way."""
    attns = list(_attentions(spec))
    if not attns:
        what = f"GGUF files of {spec.family} are read, not written: it has no attention of the usual kind"
        raise Unsupported(what, next="keep the safetensors checkpoint, or use llama.cpp's converter")
    wide = next((attn for attn in attns if attn.window is None), attns[0])
    near = next((attn for attn in attns if attn.window is not None), None)
    mlp = next((block.mlp for block in _blocks(spec) if isinstance(block.mlp, Mlp)), None)
    rope, turned = wide.rope, near and near.rope
    first = spec.encoder or spec.stack
    kv: Any = wide.kv_heads if wide.causal else None
    if len(attns) < len(first.blocks) and spec.encoder is None:  # others mix in another way, without heads
        kv = array("i", (getattr(block.attn, "kv_heads", 0) for block in _blocks(spec)))
    found: dict[str, Any] = {
        "embedding_length": spec.stack.width, "block_count": len(first.blocks),
        "decoder_block_count": len(spec.stack.blocks) if spec.encoder else None,
        "feed_forward_length": mlp and mlp.hidden, "vocab_size": spec.stack.embed.vocab,
        "attention.head_count": wide.heads, "attention.clamp_kqv": wide.clip,
        "attention.key_length": wide.head_dim, "attention.value_length": wide.value_dim or wide.head_dim,
        "attention.head_count_kv": kv,
        "attention.causal": None if wide.causal else False,
        "rope.freq_base_swa": turned.theta if rope and turned and turned.theta != rope.theta else None,
    }  # fmt: skip
    if turns := rope or turned:
        found |= {"rope.freq_base": turns.theta, "rope.dimension_count": turns.dim, **_scaling(turns)}
    return {key: value for key, value in found.items() if value is not None}


def _unless_said(spec: Spec) -> dict[str, Any]:
    """What llama.cpp asks for where a family's table does not have it."""
    found: dict[str, Any] = {"context_length": spec.context or USUAL_CONTEXT}
    windows = [attn.window for attn in _attentions(spec)]
    if any(windows):
        found["attention.sliding_window"] = next(window for window in windows if window)
    if len({window is None for window in windows}) > 1:
        found["attention.sliding_window_pattern"] = [window is not None for window in windows]
    if spec.family == "phi3":
        found.setdefault("attention.sliding_window", 0)  # without it llama.cpp guesses
    if spec.family == "mpt":
        found["attention.max_alibi_bias"] = 8.0
    sparse = [isinstance(block.mlp, Moe) for block in _blocks(spec)]
    if any(sparse):
        found["leading_dense_block_count"] = sparse.index(True)
    for block in _blocks(spec):
        match getattr(block.order, "norm", None):
            case LayerNorm(eps=eps):
                found["attention.layer_norm_epsilon"] = eps
            case RmsNorm(eps=eps):
                found["attention.layer_norm_rms_epsilon"] = eps
        if isinstance(moe := block.mlp, Moe):
            found["feed_forward_length"] = moe.expert.hidden
            found |= {"expert_count": moe.experts, "expert_used_count": moe.router.top_k}
            if moe.shared is not None:
                found["expert_shared_feed_forward_length"] = moe.shared.mlp.hidden
            if moe.router.renormalise:
                found["expert_weights_norm"] = True
            if moe.router.score in GATING:
                found["expert_gating_func"] = GATING[moe.router.score]
    return found


def _blocks(spec: Spec) -> list[Block]:
    return [block for block in spec.stack.blocks if isinstance(block, Block)]


def _attentions(spec: Spec) -> Iterator[Attention]:
    for block in _blocks(spec):
        if isinstance(block.attn, Attention):
            yield block.attn


def _scaling(rope: Rope) -> dict[str, Any]:
    """Keys of what stretches rotary positions; Llama 3's and LongRoPE's numbers are tensors, see `vectors`."""
    match rope.scaling:
        case LinearScaling(factor=factor):
            return {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case YarnScaling() as yarn:
            return {
                "rope.scaling.type": "yarn", "rope.scaling.factor": yarn.factor,
                "rope.scaling.original_context_length": yarn.original_positions,
                "rope.scaling.yarn_beta_fast": yarn.beta_fast, "rope.scaling.yarn_beta_slow": yarn.beta_slow,
            }  # fmt: skip
        case LongRopeScaling() as long:
            return {
                "rope.scaling.original_context_length": long.original_positions,
                "rope.scaling.attn_factor": long.attention_factor,
            }
    return {}


def vectors(spec: Spec) -> dict[str, list[float]]:
    """Small float32 tensors that say what no key says."""
    rope = next((attn.rope for attn in _attentions(spec) if attn.window is None or attn.rope), None)
    match rope:
        case Rope(scaling=LongRopeScaling() as long):
            return {"rope_factors_long.weight": list(long.long), "rope_factors_short.weight": list(long.short)}
        case Rope(scaling=Llama3Scaling() as ramp):
            found = []
            for i in range(rope.dim // 2):
                turns = ramp.original_positions / (2 * math.pi * rope.theta ** (2 * i / rope.dim))
                share = (turns - ramp.low_freq_factor) / (ramp.high_freq_factor - ramp.low_freq_factor)
                share = min(max(share, 0.0), 1.0)
                found.append(1 / ((1 - share) / ramp.factor + share))
            return {"rope_freqs.weight": found}
    return {}


# ------------------------------------------------------------------------------------------------ read again


@dataclass(frozen=True)
class Unwritten(Said):
    """The header of a file that is not there yet."""

    given: Mapping[str, list[float]]

    def numbers(self, tensor: str) -> list[float]:
        return [shortest(number) for number in self.given[tensor]]


def said_as(
    table: Gguf, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], spec: Spec, where: Path
) -> dict[str, Any]:
    """What config.json would say after the file is read.

    Args:
        values: the metadata.
        shapes: of all tensors.
    """
    tensors = {name: gguf.Tensor(name, shape, 0, 0) for name, shape in shapes.items()}
    header = gguf.Gguf(3, "little", dict(values), tensors, gguf.DEFAULT_ALIGNMENT, 0)
    return table.values(Unwritten(where, header, vectors(spec)), spec.family, {})


def parted(one: Spec, other: Spec) -> str:
    """Where a model and what is read of it part; "" if nowhere."""
    found = difference(one.stack, other.stack) or difference(one.encoder, other.encoder, "encoder")
    return found and f"{found} in the file"


def difference(one: Any, other: Any, path: str = "") -> str:
    """Where two specs part, but for what only training reads: `blocks[3].attn.window is 5, and None`; else ""."""
    if is_dataclass(one) and type(one) is type(other):
        for field in fields(one):
            if field.name not in TRAINING:
                pair = getattr(one, field.name), getattr(other, field.name)
                if found := difference(*pair, f"{path}.{field.name}".lstrip(".")):
                    return found
        return ""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return next(filter(None, (difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, other)))), "")
    return "" if one == other else f"{path} is {one!r:.80}, and {other!r:.80}"
