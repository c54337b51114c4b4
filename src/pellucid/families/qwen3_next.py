"""Qwen3-Next: three layers of gated DeltaNet, one of gated attention, experts in all. qwen.ai/blog?id=qwen3-next."""

from collections.abc import Mapping
from typing import Any

from pellucid.config import Config
from pellucid.families import _gguf
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
    under,
)
from pellucid.families._gguf import DECODER, DELTANET_KEYS, HEAD_DIM, KEYS, RMS, Gguf, Said, partial
from pellucid.families._gguf import EXPERTS as GGUF_EXPERTS
from pellucid.families._moe import experts, moe_weights, qwen_sparse_layers
from pellucid.families._recurrent import DELTANET, delta_net, hybrid_types, of_layers
from pellucid.spec import Block, DeltaNet, Gate, Mixer, Moe, PreNorm, QkNorm, RmsNorm, Router, SharedExpert, Spec, Task
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
LINEAR = under("model.layers.{i}.linear_attn.", DELTANET, base="")
EXPERTS = moe_weights(shared="shared_expert") | {
    "model.layers.{i}.mlp.shared_expert_gate.weight": "blocks.{i}.mlp.shared_gate.weight",
}  # fmt: skip


def table(c: Config, linear: dict[str, Entry]) -> dict[str, Entry]:
    """The names of both kinds of layers; `q_proj` holds each head's queries, then its gate."""
    layers = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    q = Fused("blocks.{i}.attn.{}.{p}", ("q", "gate.proj"), groups=c.size("num_attention_heads"))
    more: dict[str, Entry] = {"model.layers.{i}.self_attn.q_proj.{p}": q, "mtp.*": Unused("predicts several tokens")}
    return of_layers(layers, LINEAR | linear) | LLAMA | QK_NORM | more


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    groups = c.size("linear_num_key_heads")
    fused: dict[str, Entry] = {
        f"model.layers.{{i}}.linear_attn.in_proj_{parts}.weight": Fused("blocks.{i}.attn.{}.weight", parts, groups)
        for parts in ("qkvz", "ba")
    }
    return table(c, fused) | EXPERTS


def gguf_decoder(c: Config, linear: Mapping[str, Entry]) -> dict[str, Entry]:
    """Both kinds of layers; norms have one added, but for that of linear attention."""
    norms = {name: entry for name, entry in DECODER.items() if "norm" in name and "ffn" not in name}
    q = Fused("blocks.{i}.attn.{}.{p}", ("q", "gate.proj"), c.size("num_attention_heads"))
    shifted = _gguf.shifted(norms | _gguf.POST_NORM)
    layers = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    return DECODER | shifted | {"blk.{i}.attn_q.{p}": q} | of_layers(layers, {**_gguf.DELTANET, **linear})


def gguf_weights(c: Config) -> dict[str, Entry]:
    groups = c.size("linear_num_key_heads")
    own: dict[str, Entry] = {
        "blk.{i}.ssm_ba.weight": Fused("blocks.{i}.attn.{}.weight", "ba", groups),
        "blk.{i}.ssm_in.weight": Fused("blocks.{i}.attn.{}.weight", "qkvz", groups),  # older files
    }
    return gguf_decoder(c, own) | _gguf.experts(c.num_experts)


def gguf_sizes(said: Said) -> dict[str, Any]:
    """Sizes of gated DeltaNet, and which layers have it where a file says it for each."""
    recurs = said.by_layer("attention.recurrent_layers")
    recurs = recurs and recurs[: said.get("block_count") - said.get("nextn_predict_layers", 0)]
    return partial(said) | {
        "linear_value_head_dim": said.get("ssm.inner_size") // said.get("ssm.time_step_rank"),
        "layer_types": recurs and ["linear_attention" if yes else "full_attention" for yes in recurs],
    }


def recurrent(c: Config, spec: Spec) -> dict[str, Any]:
    """Which layers do not attend, for each; key heads are said once."""
    blocks = [block for block in spec.stack.blocks if isinstance(block, Block)]
    recurs = [isinstance(block.attn, DeltaNet) for block in blocks]
    return {"attention.recurrent_layers": recurs, "attention.head_count_kv": c.num_key_value_heads}


GGUF = Gguf(
    KEYS | RMS | HEAD_DIM | DELTANET_KEYS | GGUF_EXPERTS | {
        "moe_intermediate_size": "expert_feed_forward_length",
        "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    },
    gguf_weights, more=gguf_sizes, says=recurrent,
)  # fmt: skip


def HEADS(c: Config) -> dict[Task, Mapping[str, Entry]]:  # noqa: N802
    return span_under_transformer(WEIGHTS(c))


def types(c: Config) -> list[str]:
    every = c.size("full_attention_interval")
    return hybrid_types(c, lambda i: "linear_attention" if (i + 1) % every else "full_attention")


def mixers(c: Config, norm: RmsNorm, **rope: Any) -> list[Mixer]:
    """Each layer's: gated DeltaNet, or attention with a gate for each channel."""
    gate = Gate(per="channel", bias=c.attention_bias)
    attn = attention(c, qk_norm=QkNorm(norm=norm), gate=gate, **rope)
    kinds: dict[str, Mixer] = {"full_attention": attn, "linear_attention": delta_net(c)}
    return [kinds[kind] for kind in types(c)]


def mixture(c: Config, *, renormalise: bool) -> Moe:
    """Experts beside one that sees every token, gated."""
    router = Router(top_k=c.size("num_experts_per_tok"), renormalise=renormalise)
    shared = SharedExpert(mlp=gated(c, hidden="shared_expert_intermediate_size"), gate=True)
    return experts(c, router, shared=shared)


def spec(c: Config) -> Spec:
    norm, mlp = rms(c, offset=1.0, round_first=False), gated(c)
    moe, order = mixture(c, renormalise=c.norm_topk_prob), PreNorm(norm=norm)
    layers = zip(mixers(c, norm), qwen_sparse_layers(c))
    blocks = [Block(attn=attn, mlp=moe if sparse else mlp, order=order) for attn, sparse in layers]
    return decoder(c, "qwen3_next", blocks, norm=norm)
