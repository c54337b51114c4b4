"""A config and a spec as llama.cpp's files say them: the way back of `_gguf.py`.

What every decoder has comes from the spec, what only one family has from its table of keys. Whatever is said here is
read again by the family's own table before a file is made (`said_as`): a file never says another model than was meant.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pellucid import gguf
from pellucid.config import Config
from pellucid.families._gguf import ARCHITECTURES, DENSE, SIGMOID, VARIANTS, Gguf, Said, by_layer, shortest
from pellucid.spec import (
    Attention,
    Block,
    Custom,
    DeltaNet,
    KimiDelta,
    LatentAttention,
    LayerNorm,
    LinearScaling,
    Llama3Scaling,
    LmHead,
    LongRopeScaling,
    Mamba,
    Mamba2,
    Mixer,
    Mlp,
    Moe,
    ProportionalScaling,
    RmsNorm,
    Rope,
    ShortConv,
    Spec,
    Together,
    YarnScaling,
)

# Whose files a family's are.
FAMILY = {
    "mistral": "llama", "internlm3": "llama", "iquestcoder": "llama", "glm4_moe_lite": "deepseek_v3",
    "solar_open": "glm4_moe", "mt5": "t5", "roberta": "bert", "camembert": "bert", "xlm-roberta": "bert",
    "distilbert": "bert", "qwen2_5_vl": "qwen2_vl", "gemma3": "gemma3_text", "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text", "gemma4_unified_text": "gemma4_text", "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text", "qwen3_5_moe": "qwen3_5_moe_text",
}  # fmt: skip
# model_type -> general.architecture, where the two differ.
NAMES = {model_type: name for name, model_type in ARCHITECTURES.items()} | {"t5": "t5", "umt5": "t5"}
NAMES |= {model_type: name for name, (_, model_type) in VARIANTS.items()}
NAMES |= {model_type: name for name, model_type in DENSE.items()}
# Families whose head is written also where it is the embedding: a T5's is scaled then and an mT5's is not, and
# llama.cpp knows no Apertus without one.
UNTIED = ("mt5", "apertus")
TRAINING = ("dropout", "loss", "jitter")  # fields of a spec that no file says, and that change no result
USUAL_CONTEXT = 2048  # where a model has no limit; files must say one
FLAGS = {"use_parallel_residual": "use_parallel_residual", "norm_topk_prob": "expert_weights_norm"}
GATING = {"sigmoid": SIGMOID}  # llama.cpp's numbers of how a router scores; softmax is what it takes if nothing is said
# Metadata that must be a float, though config.json may say 10000.
FLOATS = ("epsilon", "freq_base", "freq_base_swa", "softcapping", "scale", "factor")


def architecture(spec: Spec) -> str:
    """`general.architecture`; two names stand for one family with and without experts."""
    family = FAMILY.get(spec.family, spec.family)
    name = NAMES.get(family, family)
    return name if _has_experts(spec) else name.removesuffix("_moe")


def metadata(table: Gguf, config: Config, spec: Spec) -> dict[str, Any]:
    """Keys with the architecture before them, as `general.architecture` itself."""
    name, own = architecture(spec), _from_spec(spec)
    for key, said in table.keys.items():
        if said not in own and (value := config.get(key)) is not None:
            own[said] = value
    for said, value in _unless_said(spec).items():
        own.setdefault(said, value)
    for key, said in FLAGS.items():
        if (value := config.get(key)) is not None:
            own[said] = bool(value)
    if not _has_experts(spec):  # whatever the config says of them
        own = {said: value for said, value in own.items() if not said.startswith("expert_")}
    if table.says is not None:
        own |= table.says(config, spec)
    found = {f"{name}.{key}": _typed(key, value) for key, value in own.items() if value is not None}
    return {"general.architecture": name, **found}


def _typed(key: str, value: Any) -> Any:
    floating = key.rpartition(".")[2].endswith(FLOATS) and type(value) is int
    return float(value) if floating else value


def _from_spec(spec: Spec) -> dict[str, Any]:
    """What all architectures say in the same way."""
    layers, attns, first = blocks(spec), _attentions(spec), spec.encoder or spec.stack
    hidden = [block.mlp.hidden for block in layers if isinstance(block.mlp, Mlp)]
    sparse = [isinstance(block.mlp, Moe) for block in layers]
    found: dict[str, Any] = {
        "embedding_length": spec.stack.width, "block_count": len(first.blocks),
        "decoder_block_count": len(spec.stack.blocks) if spec.encoder else None,
        "feed_forward_length": by_layer(hidden) if len(hidden) == len(layers) else next(iter(hidden), None),
        "leading_dense_block_count": sparse.index(True) if sorted(sparse) == sparse and any(sparse) else None,
        "vocab_size": spec.stack.embed.vocab,
    }  # fmt: skip
    wide = [block for block in layers if getattr(block.attn, "window", None) is None]
    for block in reversed(wide or layers):  # the first of each kind says it
        found |= _of_mixer(block.attn)
    found |= _of_attentions(attns) if attns else {}
    heads = [_key_heads(block.attn) for block in layers]
    if any(heads) and (not attns or attns[0].causal):
        found["attention.head_count_kv"] = by_layer(heads)
    return {key: value for key, value in found.items() if value is not None}


def _of_attentions(attns: Sequence[Attention]) -> dict[str, Any]:
    """Of layers that see all, and of those with a window where they differ."""
    wide = next((attn for attn in attns if attn.window is None), attns[0])
    near = next((attn for attn in attns if attn.window is not None), None)
    found: dict[str, Any] = {
        "attention.head_count": by_layer([attn.heads for attn in attns]), "attention.clamp_kqv": wide.clip,
        "attention.key_length": wide.head_dim, "attention.value_length": wide.value_dim or wide.head_dim,
        "attention.causal": None if wide.causal else False,
    }  # fmt: skip
    rope, turned = wide.rope, near and near.rope
    if turns := rope or turned:
        found |= _turning(turns)
    if rope and turned:
        found["rope.freq_base_swa"] = turned.theta if turned.theta != rope.theta else None
        found["rope.dimension_count_swa"] = turned.dim if turned.dim != rope.dim else None
    return found


def _of_mixer(mixer: Mixer | None) -> dict[str, Any]:
    """Sizes of what mixes in another way than attention of the usual kind."""
    match mixer:
        case LatentAttention() as latent:  # as attention of one key head over the small vector
            return {
                "attention.head_count": latent.heads, "attention.q_lora_rank": latent.q_rank,
                "attention.kv_lora_rank": latent.kv_rank, "attention.value_length": latent.kv_rank,
                "attention.key_length": latent.kv_rank + latent.rope_dim,
                "attention.key_length_mla": latent.nope_dim + latent.rope_dim,
                "attention.value_length_mla": latent.value_dim, "rope.dimension_count": latent.rope_dim,
                **(_turning(latent.rope) if latent.rope else {}),
            }  # fmt: skip
        case DeltaNet() as delta:
            inner = delta.value_heads * delta.value_dim
            return _state(delta.kernel, inner, delta.key_dim, delta.value_heads, delta.key_heads)
        case KimiDelta(head_dim=head_dim, kernel=kernel):
            return {"kda.head_dim": head_dim, "ssm.conv_kernel": kernel}
        case Mamba() as mamba:
            bare = mamba.norm is not None and not mamba.norm.weight
            return _state(mamba.kernel, mamba.inner, mamba.state, mamba.dt_rank) | {"ssm.dt_b_c_rms": bare}
        case Mamba2() as mamba:
            return _state(mamba.kernel, mamba.heads * mamba.head_dim, mamba.state, mamba.heads, mamba.groups)
        case Together(mamba=mamba):
            return _of_mixer(mamba)
        case ShortConv(kernel=kernel):
            return {"shortconv.l_cache": kernel}
    return {}


def _state(kernel: int, inner: int, state: int, steps: int, groups: int | None = None) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": kernel, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": steps,
        "ssm.group_count": groups,
    }  # fmt: skip


def _key_heads(mixer: Mixer | None) -> int:
    """None, where a layer does not attend."""
    match mixer:
        case Attention(kv_heads=heads) | Together(attention=Attention(kv_heads=heads)):
            return heads
        case LatentAttention():
            return 1
    return 0


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
    sparse = [isinstance(block.mlp, Moe) for block in blocks(spec)]
    if any(sparse):
        found["leading_dense_block_count"] = sparse.index(True)
    found |= {"attention.head_count": 0, "feed_forward_length": 0}  # of states alone
    for block in blocks(spec):
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


def blocks(spec: Spec) -> list[Block]:
    """A block of a family's own kind may hold one of the usual kind."""
    own = (dict(block.options).get("block") if isinstance(block, Custom) else block for block in spec.stack.blocks)
    return [block for block in own if isinstance(block, Block)]


def _has_experts(spec: Spec) -> bool:
    parts = [block.mlp for block in blocks(spec)]
    own = [part for block in spec.stack.blocks if isinstance(block, Custom) for _, part in block.options]
    return any(isinstance(part, Moe) for part in (*parts, *own))


def _attentions(spec: Spec) -> list[Attention]:
    mixers = [block.attn for block in blocks(spec)]
    attns = [mixer.attention if isinstance(mixer, Together) else mixer for mixer in mixers]
    return [attn for attn in attns if isinstance(attn, Attention)]


def _turning(rope: Rope) -> dict[str, Any]:
    """Keys of rotary positions; Llama 3's, LongRoPE's and Gemma's numbers are tensors, see `vectors`."""
    found: dict[str, Any] = {"rope.freq_base": rope.theta, "rope.dimension_count": rope.dim}
    if rope.sections:
        found["rope.dimension_sections"] = array("i", [*rope.sections, 0, 0][:4])
    match rope.scaling:
        case LinearScaling(factor=factor):
            found |= {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case YarnScaling() as yarn:
            found |= {
                "rope.scaling.type": "yarn", "rope.scaling.factor": yarn.factor,
                "rope.scaling.original_context_length": yarn.original_positions,
                "rope.scaling.yarn_beta_fast": yarn.beta_fast, "rope.scaling.yarn_beta_slow": yarn.beta_slow,
            }  # fmt: skip
        case LongRopeScaling() as long:
            found |= {
                "rope.scaling.original_context_length": long.original_positions,
                "rope.scaling.attn_factor": long.attention_factor,
            }
    return found


def vectors(spec: Spec) -> dict[str, list[float]]:
    """Small float32 tensors that say what no key says."""
    turning = (LatentAttention, Attention)
    attns = [block.attn for block in blocks(spec) if isinstance(block.attn, turning)]
    attns.sort(key=lambda attn: attn.window is not None)
    match next((attn.rope for attn in attns if attn.rope), None):
        case Rope(scaling=ProportionalScaling(share=share)) as rope:
            half = rope.dim // 2
            still = half - round(half * share)
            return {"rope_freqs.weight": [1.0] * (half - still) + [1e30] * still}
        case Rope(scaling=LongRopeScaling() as long):
            return {"rope_factors_long.weight": list(long.long), "rope_factors_short.weight": list(long.short)}
        case Rope(scaling=Llama3Scaling() as ramp) as rope:
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
    match _head(one), _head(other):
        case LmHead() as head, LmHead() as read:  # a file with a matrix of its own is untied, whatever the config says
            found = found or difference(replace(head, tied=read.tied), read, "lm_head")
    return found and f"{found} in the file"


def _head(spec: Spec) -> object:
    return spec.heads.get("causal-lm") or spec.heads.get("seq2seq-lm")


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
