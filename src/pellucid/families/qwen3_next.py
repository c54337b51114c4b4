"""Qwen3-Next: three layers of gated DeltaNet, one of gated attention, experts in all. qwen.ai/blog?id=qwen3-next."""

from collections.abc import Mapping
from typing import Any

from pellucid.config import Config
from pellucid.families._decoder import (
    GENERIC,
    LLAMA,
    QK_NORM,
    attention,
    classes,
    decoder,
    gated,
    rms,
    span_under_transformer,
)
from pellucid.families._recurrent import DELTANET, delta_net, hybrid_types
from pellucid.spec import Block, Ffn, Gate, Mixer, Moe, PreNorm, QkNorm, RmsNorm, Router, SharedExpert, Spec, Task
from pellucid.weights.table import Entry, Fused, Unused

CLASSES = classes("Qwen3Next", *GENERIC)
DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_parameters": None, "rope_scaling": None,
    "rope_theta": 10000.0, "partial_rotary_factor": 0.25, "attention_bias": False, "attention_dropout": 0.0,
    "head_dim": 256, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "decoder_sparse_step": 1, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10, "num_experts": 512, "norm_topk_prob": True,
    "router_aux_loss_coef": 0.001, "mlp_only_layers": None, "layer_types": None, "full_attention_interval": 4,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
IGNORED = {"output_router_logits": None}

BASE = "model."
MOE: dict[str, Entry] = {
    "model.layers.{i}.mlp.gate.weight": "blocks.{i}.mlp.router.weight",
    "model.layers.{i}.mlp.shared_expert_gate.weight": "blocks.{i}.mlp.shared_gate.weight",
    **{
        f"model.layers.{{i}}.mlp.{file}.{x}_proj.weight": f"blocks.{{i}}.mlp.{slot}.{x}.weight"
        for file, slot in (("experts.{e}", "experts.{e}"), ("shared_expert", "shared"))
        for x in ("gate", "up", "down")
    },
}


def gated_attention_names(c: Config) -> dict[str, Entry]:
    """All but the linear layers; q_proj holds each head's queries, then its gate."""
    q = Fused("blocks.{i}.attn.{}.{p}", ("q", "gate.proj"), groups=c.size("num_attention_heads"))
    return LLAMA | QK_NORM | {"model.layers.{i}.self_attn.q_proj.{p}": q, "mtp.*": Unused("predicts several tokens")}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    linear, groups = "model.layers.{i}.linear_attn", c.size("linear_num_key_heads")
    return gated_attention_names(c) | MOE | {
        **{f"{linear}.{name}": slot for name, slot in DELTANET.items()},
        f"{linear}.in_proj_qkvz.weight": Fused("blocks.{i}.attn.{}.weight", "qkvz", groups=groups),
        f"{linear}.in_proj_ba.weight": Fused("blocks.{i}.attn.{}.weight", "ba", groups=groups),
    }  # fmt: skip


def HEADS(c: Config) -> dict[Task, Mapping[str, Entry]]:  # noqa: N802
    return span_under_transformer(WEIGHTS(c))


def mixers(c: Config, norm: RmsNorm, **rope: Any) -> list[Mixer]:
    """Each layer's mixer."""
    every = c.size("full_attention_interval")
    kinds: dict[str, Mixer] = {
        "full_attention": attention(
            c, qk_norm=QkNorm(norm=norm), gate=Gate(per="channel", bias=c.attention_bias), **rope
        ),
        "linear_attention": delta_net(c),
    }
    types = hybrid_types(c, lambda i: "linear_attention" if (i + 1) % every else "full_attention")
    return [kinds[kind] for kind in types]


def experts(c: Config, *, renormalise: bool) -> Moe:
    """Experts beside one that sees every token, gated."""
    return Moe(
        experts=c.size("num_experts"), expert=gated(c, hidden="moe_intermediate_size"),
        router=Router(top_k=c.size("num_experts_per_tok"), renormalise=renormalise),
        shared=SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size"), gate=True),
        loss=c.number("router_aux_loss_coef", float),
    )  # fmt: skip


def spec(c: Config) -> Spec:
    norm, dense = rms(c, offset=1.0, round_first=False), c.get("mlp_only_layers") or []
    moe, mlp, step = experts(c, renormalise=c.norm_topk_prob), gated(c), c.size("decoder_sparse_step")

    def ffn(i: int) -> Ffn:
        return moe if i not in dense and (i + 1) % step == 0 else mlp

    blocks = [Block(attn=one, mlp=ffn(i), order=PreNorm(norm=norm)) for i, one in enumerate(mixers(c, norm))]
    return decoder(c, "qwen3_next", blocks, norm=norm)
