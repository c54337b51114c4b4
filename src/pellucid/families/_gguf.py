"""How llama.cpp's files say what config.json and safetensors say. A family has

    GGUF = Gguf(KEYS | {...}, DECODER | {...}, set={"attention_bias": False})

Names of tensors are llama.cpp's, the same for all architectures, as our slots are: one table serves nearly all.
Facts: gguf-py/gguf/constants.py and convert_hf_to_gguf.py of github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid import gguf
from pellucid.config import Config
from pellucid.errors import ConfigError, Unsupported
from pellucid.spec import Spec, Task
from pellucid.weights.table import Cut, Entry, Flat, Fused, MinusExp, Paired, Share, Shifted, Squeezed, Stacked, Unused

# general.architecture -> model_type, where the two differ.
ARCHITECTURES = {
    "gptneox": "gpt_neox", "gemma3": "gemma3_text", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe",
    "command-r": "cohere", "starcoder": "gpt_bigcode", "phi2": "phi", "gpt-oss": "gpt_oss", "glm4moe": "glm4_moe",
    "hunyuan-dense": "hunyuan_v1_dense", "hunyuan-moe": "hunyuan_v1_moe", "ernie4_5-moe": "ernie4_5_moe",
    "minimax-m2": "minimax_m2", "llama4": "llama4_text", "deepseek2": "deepseek_v2",
    "lfm2moe": "lfm2_moe", "nomic-bert": "nomic_bert", "modern-bert": "modernbert", "t5encoder": "t5",
    "mistral3": "ministral3", "exaone-moe": "exaone_moe",
    "granitehybrid": "granitemoehybrid", "nemotron_h_moe": "nemotron_h", "falcon-h1": "falcon_h1",
    "gemma4": "gemma4_text", "jina-bert-v3": "jina_embeddings_v3", "cohere2moe": "cohere2_moe", "chatglm": "glm",
    "qwen2vl": "qwen2_vl", "qwen3vl": "qwen3_vl",
    "mimo2": "mimo_v2_flash", "deepseek32": "deepseek_v32", "glm-dsa": "glm_moe_dsa", "minimax-01": "minimax",
    "bailingmoe3": "bailing_hybrid", "dots3note": "dots3_note_text",
    "qwen3next": "qwen3_next", "qwen35": "qwen3_5_text", "qwen35moe": "qwen3_5_moe_text", "kimi-linear": "kimi_linear",
}  # fmt: skip

# general.architecture -> a key, and the model_type of files that have it: one name stands for two families.
VARIANTS = {
    "llama": ("expert_count", "mixtral"), "olmo2": ("attention.sliding_window", "olmo3"),
    "deepseek2": ("expert_weights_norm", "deepseek_v3"),
    "granitemoe": ("expert_shared_feed_forward_length", "granitemoeshared"),
    "mamba": ("ssm.dt_b_c_rms", "falcon_mamba"), "granite_swa": ("expert_count", "granitemoe_swa"),
}  # fmt: skip

DENSE = {"deepseek2": "youtu"}  # the same, of files without experts
# The same, of files whose second layer has a bias by distance of its own.
BIASED = {"t5": "umt5", "t5encoder": "umt5"}


@dataclass(frozen=True)
class Said:
    """The header of one file, its keys without the architecture."""

    path: Path
    header: gguf.Gguf

    @property
    def architecture(self) -> str:
        return str(self.header.metadata.get("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        """`attention.head_count` of `llama.attention.head_count`; a list of equal numbers is one number."""
        found = self.header.metadata.get(f"{self.architecture}.{key}", default)
        if type(found) is float:
            return shortest(found)
        if not isinstance(found, (list, array)):
            return found
        different: set[Any] = set(found)
        if len(different) > 1:
            what = f"{self.architecture}.{key} differs by layer: {list(found)[:8]}"
            raise Unsupported(what, where=self.path, next="load the safetensors checkpoint")
        return different.pop() if different else default

    def by_layer(self, key: str) -> list[Any] | None:
        """A value for each layer, as it stands."""
        found = self.header.metadata.get(f"{self.architecture}.{key}")
        return list(found) if isinstance(found, (list, array)) else None

    def token(self, role: str) -> int | None:
        """The id of a special token."""
        found = self.header.metadata.get(f"tokenizer.ggml.{role}_token_id")
        return found if type(found) is int and found < 2**31 else None

    def has(self, tensor: str) -> bool:
        return tensor in self.header.tensors

    def rows(self, tensor: str) -> int | None:
        found = self.header.tensors.get(tensor)
        return found.shape[0] if found is not None and found.shape else None

    def numbers(self, tensor: str) -> list[float]:
        """A small float32 tensor of the file.

        Raises:
            ConfigError: it is no such tensor.
        """
        found = self.header.tensors[tensor]
        count = math.prod(found.shape)
        if found.kind != 0 or count > 2**16 or self.header.byte_order != "little":
            raise ConfigError(f"{tensor} is not a short vector of float32", where=self.path, next="convert it again")
        with open(found.file or self.path, "rb") as file:
            file.seek(found.start)
            return [shortest(number) for number in struct.unpack(f"<{count}f", file.read(4 * count))]


def by_layer(values: Sequence[int]) -> int | array[int]:
    """One number where all layers have the same, else each layer's."""
    return values[0] if len(set(values)) == 1 else array("i", values)


def shortest(number: float) -> float:
    """A float32 as config.json has it: 1e-06 for 9.99999997e-07."""
    for digits in range(6, 9):
        if struct.pack("<f", short := float(f"{number:.{digits}g}")) == struct.pack("<f", number):
            return short
    return number


def described(path: Path) -> tuple[str, Said]:
    """Which family a file is of, and what it says.

    Raises:
        WeightsError: not a readable GGUF file.
        ConfigError: it names no architecture.
    """
    said = Said(path, gguf.read_whole(path))
    name = said.header.metadata.get("general.architecture")
    if not isinstance(name, str) or not name:
        raise ConfigError("general.architecture is missing", where=path, next="this file holds no language model")
    if (variant := VARIANTS.get(name)) is not None and said.get(variant[0]):
        return variant[1], said
    if name in DENSE and not said.get("expert_count"):
        return DENSE[name], said
    if name in BIASED and said.has("enc.blk.1.attn_rel_b.weight"):
        return BIASED[name], said
    return ARCHITECTURES.get(name, name), said


@dataclass(frozen=True)
class Gguf:
    """The table of a family.

    Args:
        keys: key of config.json -> key of the metadata, without the architecture. One that a file lacks is left out.
        weights: name -> slot, or a function of the config that returns it.
        set: keys of config.json that every such file means; None for one whose usual value it does not mean.
        more: further keys, from the header.
        inside: the section of config.json that holds all that is said of the text part.
        says: the way back of `more`, where no part of the spec says it: metadata without the architecture.
        alike: what config.json of the family that reads the file would say of the same model, where a file has it in
            another form.
    """

    keys: Mapping[str, str]
    weights: Mapping[str, Entry] | Callable[[Config], Mapping[str, Entry]]
    set: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[Said], Mapping[str, Any]] | None = None
    says: Callable[[Config, Spec], Mapping[str, Any]] | None = None
    inside: str = ""
    alike: Callable[[Config], Mapping[str, Any]] | None = None

    def entries(self, config: Config) -> dict[str, Entry]:
        return dict(self.weights(config) if callable(self.weights) else self.weights)

    def values(self, said: Said, model_type: str, classes: Mapping[Task | None, str]) -> dict[str, Any]:
        """What config.json would say.

        Raises:
            ConfigError: metadata of the wrong kind, or that contradicts itself.
        """
        try:
            return self._values(said, model_type, classes)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            what = f"the metadata describes no {said.architecture} model: {type(error).__name__}: {error}"
            raise ConfigError(what[:300], where=said.path, next="convert the model again") from None

    def _values(self, said: Said, model_type: str, classes: Mapping[Task | None, str]) -> dict[str, Any]:
        found: dict[str, Any] = {"model_type": model_type, **self.set}
        named = classes.get("causal-lm") or classes.get("masked-lm") or classes.get(None)
        if named:
            found["architectures"] = [named]
        for key, name in self.keys.items():
            if (value := said.get(name)) is not None:
                found[key] = value
        if (rows := said.rows("token_embd.weight")) is not None:
            found["vocab_size"] = rows
        found["tie_word_embeddings"] = not said.has("output.weight")
        for role, key in {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}.items():
            found[key] = said.token(role)
        ends = [found["eos_token_id"], said.token("eot"), said.token("eom")]  # of a text, of a turn, of a message
        if len(told := list(dict.fromkeys(id for id in ends if id is not None))) > 1:
            found["eos_token_id"] = told
        if self.more is not None:
            found |= self.more(said)
        nothing = dict.fromkeys(key for key, value in self.set.items() if value is None)
        values = nothing | {key: value for key, value in found.items() if value is not None}
        if not self.inside:
            return values
        outer = {key: values[key] for key in ("model_type", "architectures", "tie_word_embeddings") if key in values}
        return outer | {self.inside: {key: value for key, value in values.items() if key not in outer}}


# ------------------------------------------------------------------------------------------------ keys

KEYS = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base",
}  # fmt: skip
HYBRID_KEYS = {key: name for key, name in KEYS.items() if key != "num_key_value_heads"}  # see `mixed`
UNTURNED_KEYS = {key: name for key, name in KEYS.items() if key != "rope_theta"}  # see `ropes`
RMS = {"rms_norm_eps": "attention.layer_norm_rms_epsilon"}
HEAD_DIM = {"head_dim": "attention.key_length"}
LAYER = {"layer_norm_eps": "attention.layer_norm_epsilon"}
EXPERTS = {"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}
LOCAL_EXPERTS = {"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"}
ROUTED_EXPERTS = {  # as DeepSeek has them
    "n_routed_experts": "expert_count", "num_experts_per_tok": "expert_used_count",
    "n_shared_experts": "expert_shared_count", "moe_intermediate_size": "expert_feed_forward_length",
    "routed_scaling_factor": "expert_weights_scale", "norm_topk_prob": "expert_weights_norm",
    "n_group": "expert_group_count", "topk_group": "expert_group_used_count",
    "first_k_dense_replace": "leading_dense_block_count",
}  # fmt: skip
SOFTMAX, SIGMOID = 1, 2  # llama.cpp's numbers of ways to score experts
WINDOW = {"sliding_window": "attention.sliding_window"}


def rope(said: Said) -> dict[str, Any]:
    """`rope_scaling` by the keys `rope.scaling.*`, and by the factors that Llama 3 and LongRoPE have as tensors."""
    kind, factor = said.get("rope.scaling.type"), said.get("rope.scaling.factor")
    original = said.get("rope.scaling.original_context_length", said.get("context_length"))
    if said.has("rope_factors_long.weight"):
        names = {"long_factor": "rope_factors_long.weight", "short_factor": "rope_factors_short.weight"}
        factors = {key: said.numbers(name) for key, name in names.items()}
        section = {"rope_type": "longrope", **factors}
        stretch, given = said.get("context_length", 0) / max(original or 0, 1), said.get("rope.scaling.attn_factor")
        usual = math.sqrt(1 + math.log(stretch) / math.log(max(original, 2))) if stretch > 1 else 1.0
        if given and abs(given - usual) > 1e-6:  # the usual one is left out, not rounded to float32
            section["attention_factor"] = given
        return {"rope_scaling": section, "original_max_position_embeddings": original}
    if said.has("rope_freqs.weight"):
        return {"rope_scaling": llama3(said)}
    if kind in (None, "none") and said.get("rope.scale_linear") not in (None, 1.0):  # as older files said it
        kind, factor = "linear", said.get("rope.scale_linear")
    if kind in (None, "none") or (kind == "linear" and factor == 1.0):
        return {}
    if kind not in ("linear", "yarn") or not factor:
        raise Unsupported(f"rope.scaling.type is {kind!r}", where=said.path, next="load the safetensors checkpoint")
    section = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        section["original_max_position_embeddings"] = original
        for key in ("beta_fast", "beta_slow"):
            if (value := said.get(f"rope.scaling.yarn_{key}")) is not None:
                section[key] = value
    return {"rope_scaling": section}


def axes(said: Said) -> dict[str, Any]:
    """Rotary positions of three axes."""
    sections = said.by_layer("rope.dimension_sections")
    section = rope(said).get("rope_scaling", {"rope_type": "default"})
    return {"rope_scaling": section | {"mrope_section": sections and sections[:3]}}


def ropes(said: Said) -> dict[str, Any]:
    """A section of rotary positions for each type of layer; windowed layers are never stretched."""
    whole, head_dim = said.get("rope.freq_base"), said.get("attention.key_length")

    def share(turned: int | None) -> dict[str, Any]:
        return {"partial_rotary_factor": turned / head_dim} if turned and head_dim and turned < head_dim else {}

    full = rope(said).get("rope_scaling", {"rope_type": "default"}) | share(said.get("rope.dimension_count"))
    local = {"rope_type": "default"} | share(said.get("rope.dimension_count_swa", said.get("rope.dimension_count")))
    sections = {
        "full_attention": {"rope_theta": whole, **full},
        "sliding_attention": {"rope_theta": said.get("rope.freq_base_swa", whole), **local},
    }
    return {"rope_parameters": sections}


def llama3(said: Said) -> dict[str, Any]:
    """The section that gives these factors: none of the four numbers is in the file, three never differ.

    Raises:
        Unsupported: none gives them.
    """
    found = said.numbers("rope_freqs.weight")
    theta, factor, low, high, original = said.get("rope.freq_base", 10000.0), max(found), 1.0, 4.0, 8192
    for i, given in enumerate(found):
        length = 2 * math.pi * theta ** (i / len(found))
        share = min(max((original / length - low) / (high - low), 0.0), 1.0)
        wanted = 1 / ((1 - share) / factor + share)
        if abs(wanted - given) > 1e-3 * wanted:
            what = f"rope_freqs.weight has {given:g} for the {i}th pair, where Llama 3 has {wanted:g}"
            raise Unsupported(what, where=said.path, next="load the safetensors checkpoint")
    return {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }  # fmt: skip


def biases(said: Said) -> dict[str, Any]:
    """What files of Llama say by the tensors that they have."""
    return {"attention_bias": said.has("blk.0.attn_q.bias"), "mlp_bias": said.has("blk.0.ffn_up.bias")}


def window_types(said: Said) -> dict[str, Any]:
    """Which layers have a window, where the file says it for each."""
    found = said.by_layer("attention.sliding_window_pattern")
    found = found and found[: said.get("block_count") - said.get("nextn_predict_layers", 0)]
    return {"layer_types": found and ["sliding_attention" if local else "full_attention" for local in found]}


def mixed(said: Said, other: str) -> dict[str, Any]:
    """Of layers that attend and others: those have no key heads."""
    heads = said.by_layer("attention.head_count_kv") or []
    types = ["full_attention" if count else other for count in heads]
    return {"num_key_value_heads": max(heads, default=None), "layer_types": types or None}


def state(said: Said) -> dict[str, Any]:
    """What Mamba's files say by their tensors and sizes."""
    found = state_at(said, 0)
    names = {"mamba_expand": "expand", "mamba_conv_bias": "use_conv_bias", "mamba_proj_bias": "use_bias"}
    return {name: found[key] for key, name in names.items()}


def state_at(said: Said, layer: int) -> dict[str, Any]:
    """The same, of Mamba in a layer beside attention."""
    return {
        "mamba_expand": said.get("ssm.inner_size") // said.get("embedding_length"),
        "mamba_conv_bias": said.has(f"blk.{layer}.ssm_conv1d.bias"),
        "mamba_proj_bias": said.has(f"blk.{layer}.ssm_in.bias"),
    }


def mixed_state(said: Said) -> dict[str, Any]:
    """Of layers of Mamba 2 and of attention."""
    found = mixed(said, "linear_attention")
    types = found["layer_types"] or []
    first = types.index("linear_attention") if "linear_attention" in types else 0
    head_dim = said.get("ssm.inner_size") // said.get("ssm.time_step_rank")
    return found | state_at(said, first) | {"mamba_d_head": head_dim}


def extra_layers(said: Said, key: str = "num_nextn_predict_layers") -> dict[str, Any]:
    """`num_hidden_layers` without those that predict further tokens."""
    count = said.get("nextn_predict_layers", 0)
    return {"num_hidden_layers": said.get("block_count", 0) - count, key: count}


def gemma_scale(said: Said, largest: int) -> dict[str, Any]:
    """`query_pre_attn_scalar`, which no file has: the size of a head, but for the model of so many layers."""
    heads, width, layers = said.get("attention.head_count"), said.get("embedding_length"), said.get("block_count")
    ours = width // heads if layers == largest and heads else said.get("attention.key_length")
    return {"query_pre_attn_scalar": ours}


def partial(said: Said) -> dict[str, Any]:
    """The share of channels that turn."""
    heads, width, turned = (
        said.get("attention.head_count"),
        said.get("embedding_length"),
        said.get("rope.dimension_count"),
    )
    whole = said.get("attention.key_length") or (width // heads if heads and width else None)
    return {**rope(said), "partial_rotary_factor": turned / whole if turned and whole else None}


# ------------------------------------------------------------------------------------------------ names

AT = "blocks.{i}."
DECODER: dict[str, Entry] = {
    "token_embd.weight": "embed.tokens.weight",
    "output_norm.{p}": "norm.{p}",
    "output.{p}": "lm_head.out.{p}",
    "blk.{i}.attn_norm.{p}": AT + "attn_norm.{p}",
    "blk.{i}.attn_q.{p}": AT + "attn.q.{p}",
    "blk.{i}.attn_k.{p}": AT + "attn.k.{p}",
    "blk.{i}.attn_v.{p}": AT + "attn.v.{p}",
    "blk.{i}.attn_output.{p}": AT + "attn.o.{p}",
    "blk.{i}.attn_q_norm.{p}": AT + "attn.q_norm.{p}",
    "blk.{i}.attn_k_norm.{p}": AT + "attn.k_norm.{p}",
    "blk.{i}.ffn_norm.{p}": AT + "mlp_norm.{p}",
    "blk.{i}.ffn_gate.{p}": AT + "mlp.gate.{p}",
    "blk.{i}.ffn_up.{p}": AT + "mlp.up.{p}",
    "blk.{i}.ffn_down.{p}": AT + "mlp.down.{p}",
    "rope_freqs.weight": Unused("said as rope_scaling", kept=True),
    "rope_factors_long.weight": Unused("said as rope_scaling", kept=True),
    "rope_factors_short.weight": Unused("said as rope_scaling", kept=True),
}
QKV: dict[str, Entry] = {"blk.{i}.attn_qkv.{p}": Fused(AT + "attn.{}.{p}", "qkv")}
SHORTCONV: dict[str, Entry] = {
    "blk.{i}.shortconv.in_proj.{p}": Fused(AT + "attn.{}.{p}", "bcx"),
    "blk.{i}.shortconv.conv.weight": Flat(AT + "attn.conv.weight", dim=1),
    "blk.{i}.shortconv.conv.bias": AT + "attn.conv.bias",
    "blk.{i}.shortconv.out_proj.{p}": AT + "attn.out.{p}",
}
STATE: dict[str, Entry] = {  # of both Mambas
    "blk.{i}.ssm_conv1d.weight": Flat(AT + "attn.conv.weight", dim=1),
    "blk.{i}.ssm_conv1d.bias": AT + "attn.conv.bias",
    "blk.{i}.ssm_dt.bias": AT + "attn.dt_bias",
    "blk.{i}.ssm_out.{p}": AT + "attn.out.{p}",
}
MAMBA: dict[str, Entry] = STATE | {
    "blk.{i}.ssm_in.{p}": Fused(AT + "attn.{}.{p}", "xz"),
    "blk.{i}.ssm_x.weight": Fused(AT + "attn.{}.weight", ("dt_in", "b", "c")),
    "blk.{i}.ssm_dt.weight": AT + "attn.dt.weight",
    "blk.{i}.ssm_a": MinusExp(AT + "attn.a_log"),
    "blk.{i}.ssm_d": AT + "attn.d",
    **{f"blk.{{i}}.ssm_{x}_norm.weight": f"{AT}attn.{x}_norm.weight" for x in ("dt", "b", "c")},
}


def mamba2(groups: int) -> dict[str, Entry]:
    """Mamba 2; its norm lies in groups."""
    return STATE | {
        "blk.{i}.ssm_in.{p}": Fused(AT + "attn.{}.{p}", ("z", "x", "b", "c", "dt")),
        "blk.{i}.ssm_a": Squeezed(MinusExp(AT + "attn.a_log"), (1,)),
        "blk.{i}.ssm_d": Squeezed(AT + "attn.d", (1,)),
        "blk.{i}.ssm_norm.weight": Cut(AT + "attn.norm.weight", groups),
    }


DELTANET: dict[str, Entry] = {
    "blk.{i}.attn_qkv.weight": Fused(AT + "attn.{}.weight", "qkv"),
    "blk.{i}.attn_gate.weight": AT + "attn.z.weight",
    "blk.{i}.ssm_conv1d.weight": Flat(Fused(AT + "attn.{}_conv.weight", "qkv"), dim=1),
    "blk.{i}.ssm_dt.bias": AT + "attn.dt_bias",
    "blk.{i}.ssm_a": MinusExp(AT + "attn.a_log"),
    "blk.{i}.ssm_norm.weight": AT + "attn.norm.weight",
    "blk.{i}.ssm_out.weight": AT + "attn.out.weight",
}
DELTANET_KEYS = {
    "linear_conv_kernel_dim": "ssm.conv_kernel", "linear_key_head_dim": "ssm.state_size",
    "linear_num_key_heads": "ssm.group_count", "linear_num_value_heads": "ssm.time_step_rank",
    "full_attention_interval": "full_attention_interval",
}  # fmt: skip
MAMBA2_KEYS = {  # as models that attend too have them
    "mamba_d_conv": "ssm.conv_kernel", "mamba_d_state": "ssm.state_size", "mamba_n_groups": "ssm.group_count",
    "mamba_n_heads": "ssm.time_step_rank",
}  # fmt: skip
STATE_KEYS = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "conv_kernel": "ssm.conv_kernel",
    "state_size": "ssm.state_size", "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
}  # fmt: skip
AROUND: dict[str, Entry] = {  # of encoders whose norms come after their parts
    "token_embd.weight": "embed.tokens.weight",
    "token_types.weight": "embed.types.weight",
    "token_embd_norm.{p}": "embed.norm.{p}",
    **{name: slot for name, slot in DECODER.items() if name.startswith(("blk.{i}.attn_", "blk.{i}.ffn_"))},
    "blk.{i}.attn_output_norm.{p}": AT + "attn_norm.{p}",
    "blk.{i}.layer_output_norm.{p}": AT + "mlp_norm.{p}",
}
POST_NORM: dict[str, Entry] = {"blk.{i}.post_attention_norm.{p}": AT + "mlp_norm.{p}"}  # another name of ffn_norm
GATE_UP: dict[str, Entry] = {"blk.{i}.ffn_up.{p}": Fused(AT + "mlp.{}.{p}", ("gate", "up"))}
SANDWICH: dict[str, Entry] = {
    "blk.{i}.post_attention_norm.{p}": AT + "attn_post_norm.{p}",
    "blk.{i}.post_ffw_norm.{p}": AT + "mlp_post_norm.{p}",
}


def paired(table: Mapping[str, Entry]) -> Callable[[Config], dict[str, Entry]]:
    """A table whose queries and keys lie in turn: what llama.cpp does to the families that its `llama` stands for."""

    def weights(c: Config) -> dict[str, Entry]:
        heads, kv = c.size("num_attention_heads"), c.size("num_key_value_heads", null=c.size("num_attention_heads"))
        turned = {
            "blk.{i}.attn_q.{p}": Paired(AT + "attn.q.{p}", heads), "blk.{i}.attn_k.{p}": Paired(AT + "attn.k.{p}", kv)
        }  # fmt: skip
        return {**table, **turned}

    return weights


def shifted(table: Mapping[str, Entry]) -> dict[str, Entry]:
    """A table whose norms have one added to their weights: Gemma's."""
    norms = {name: slot for name, slot in table.items() if isinstance(slot, str) and "norm.{p}" in name}
    found: dict[str, Entry] = {name: slot for name, slot in table.items() if name not in norms}
    for name, slot in norms.items():
        found[name.format(p="weight", i="{i}")] = Shifted(slot.format(p="weight", i="{i}"), 1.0)
        found[name.format(p="bias", i="{i}")] = slot.format(p="bias", i="{i}")
    return found


def experts(count: int) -> dict[str, Entry]:
    """Experts, one above the other in a tensor for each matrix, and what is beside them."""
    table: dict[str, Entry] = {
        "blk.{i}.ffn_gate_inp.{p}": AT + "mlp.router.{p}",
        "blk.{i}.ffn_gate_inp_shexp.weight": Flat(AT + "mlp.shared_gate.weight"),
        "blk.{i}.exp_probs_b.bias": AT + "mlp.router.select_bias",
    }
    for matrix in ("gate", "up", "down"):
        table[f"blk.{{i}}.ffn_{matrix}_exps.{{p}}"] = Stacked(f"{AT}mlp.experts.{{e}}.{matrix}.{{p}}", count)
        table[f"blk.{{i}}.ffn_{matrix}_shexp.{{p}}"] = f"{AT}mlp.shared.{matrix}.{{p}}"
    gate_up = Fused(AT + "mlp.experts.{e}.{}.weight", ("gate", "up"))
    return table | {"blk.{i}.ffn_gate_up_exps.weight": Stacked(gate_up, count)}


LATENT: dict[str, Entry] = {
    "blk.{i}.attn_q_a.{p}": AT + "attn.q_a.{p}",
    "blk.{i}.attn_q_a_norm.{p}": AT + "attn.q_norm.{p}",
    "blk.{i}.attn_q_b.{p}": AT + "attn.q_b.{p}",
    "blk.{i}.attn_kv_a_mqa.{p}": AT + "attn.kv_a.{p}",
    "blk.{i}.attn_kv_a_norm.{p}": AT + "attn.kv_norm.{p}",
    "blk.{i}.attn_kv_b.{p}": AT + "attn.kv_b.{p}",
}


INDEXER: dict[str, Entry] = {
    "blk.{i}.indexer.attn_q_b.weight": AT + "attn.indexer.q.weight",
    "blk.{i}.indexer.attn_k.weight": AT + "attn.indexer.k.weight",
    "blk.{i}.indexer.k_norm.{p}": AT + "attn.indexer.k_norm.{p}",
    "blk.{i}.indexer.proj.weight": AT + "attn.indexer.weigh.weight",
}
INDEXER_KEYS = {
    "index_n_heads": "attention.indexer.head_count", "index_head_dim": "attention.indexer.key_length",
    "index_topk": "attention.indexer.top_k",
}  # fmt: skip


def latent(c: Config) -> dict[str, Entry]:
    """Latent attention; newer files keep apart what keys and what values grow from."""
    heads, nope, value = c.size("num_attention_heads"), c.size("qk_nope_head_dim"), c.size("v_head_dim")
    return {
        "blk.{i}.attn_k_b.weight": Share(AT + "attn.kv_b.weight", heads, 0, nope, turned=True),
        "blk.{i}.attn_v_b.weight": Share(AT + "attn.kv_b.weight", heads, nope, nope + value),
        **DECODER, **LATENT,
    }  # fmt: skip


def latent_sizes(said: Said) -> dict[str, Any]:
    """Sizes of latent attention's heads, and YaRN with the factor on scores that DeepSeek has."""
    turned = said.get("rope.dimension_count")
    key = said.get("attention.key_length_mla") or said.get("attention.key_length")
    value = said.get("attention.value_length_mla") or said.get("attention.value_length")
    found, times = rope(said), said.get("rope.scaling.yarn_log_multiplier")
    if times and "rope_scaling" in found:
        factor = shortest(times * 10)
        found = {"rope_scaling": found["rope_scaling"] | {"mscale": factor, "mscale_all_dim": factor}}
    return found | {
        "q_lora_rank": said.get("attention.q_lora_rank"), "kv_lora_rank": said.get("attention.kv_lora_rank"),
        "qk_rope_head_dim": turned, "qk_nope_head_dim": key - turned, "v_head_dim": value,
        "num_key_value_heads": said.get("attention.head_count"),
    }  # fmt: skip


def latent_factor(c: Config, spec: Spec) -> dict[str, Any]:
    """The way back of what `latent_sizes` reads beside the sizes: YaRN's factor on scores."""
    section = c.get("rope_parameters") or c.get("rope_scaling") or {}
    every = section.get("mscale_all_dim")
    return {"rope.scaling.yarn_log_multiplier": every and 0.1 * every}


def further_layers(c: Config, table: Mapping[str, Entry], key: str = "num_nextn_predict_layers") -> dict[str, Entry]:
    """The table with the layers behind the last one, which predict the tokens after the next, as unused."""
    return beyond(c.layers("num_hidden_layers"), c.number(key, null=0, most=64), table)


def beyond(first: int, count: int, table: Mapping[str, Entry]) -> dict[str, Entry]:
    unused = Unused("predicts more than one token", kept=True)
    names = [name for name in table if "{i}" in name] + ["blk.{i}.*"]
    return {**table, **{name.replace("{i}", str(first + i)): unused for i in range(count) for name in names}}
