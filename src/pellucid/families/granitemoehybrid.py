"""Granite 4: Mamba 2 with a layer of attention now and then, experts or none. huggingface.co/ibm-granite."""

from typing import Any

from pellucid.config import Config
from pellucid.errors import Unsupported
from pellucid.families import _gguf
from pellucid.families._decoder import ATTENTION, EMBEDDING, HEAD_WEIGHTS, attention, classes, gated, rms
from pellucid.families._gguf import DECODER, LOCAL_EXPERTS, MAMBA2_KEYS, Gguf, Said, paired
from pellucid.families._moe import experts
from pellucid.families._read import grouped_heads, read_rope
from pellucid.families._recurrent import BESIDE, MAMBA2, hybrid_types, mamba2
from pellucid.families.granite import GRANITE_KEYS, granite_decoder
from pellucid.spec import Block, Ffn, Mixer, PreNorm, Router, SharedExpert, Spec
from pellucid.weights.table import Entry, Fused, Stacked

CLASSES = classes("GraniteMoeHybrid", "causal-lm")
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    "rope_parameters": None, "rope_theta": 10000.0, "attention_bias": False, "attention_dropout": 0.0,
    "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0,
    "num_local_experts": 8, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.001, "shared_intermediate_size": 1024,
    "position_embedding_type": None, "layer_types": None, "mamba_n_heads": 128, "mamba_n_groups": 1,
    "mamba_d_state": 256, "mamba_d_head": None, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True,
    "mamba_proj_bias": False, "time_step_limit": None,
}  # fmt: skip
ALIASES = {"layers_block_type": "layer_types"}
IGNORED = BESIDE | {"output_router_logits": None, "normalization_function": ("rmsnorm",), "init_method": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count = c.number("num_local_experts")
    shared = "blocks.{i}.mlp.shared" if count else "blocks.{i}.mlp"
    table = EMBEDDING | ATTENTION | HEAD_WEIGHTS
    table |= {f"model.layers.{{i}}.mamba.{name}": slot for name, slot in MAMBA2.items()}
    table["model.layers.{i}.shared_mlp.input_linear.weight"] = Fused(shared + ".{}.weight", ("gate", "up"))
    table["model.layers.{i}.shared_mlp.output_linear.weight"] = shared + ".down.weight"
    if count:
        expert, name = "blocks.{i}.mlp.experts.{e}", "model.layers.{i}.block_sparse_moe"
        table[f"{name}.input_linear.weight"] = Stacked(Fused(expert + ".{}.weight", ("gate", "up")), count=count)
        table[f"{name}.output_linear.weight"] = Stacked(expert + ".down.weight", count=count)
        table[f"{name}.router.layer.weight"] = "blocks.{i}.mlp.router.weight"
    return table


def gguf_weights(c: Config) -> dict[str, Entry]:
    found = paired(DECODER)(c) | _gguf.mamba2(c.mamba_n_groups)
    return found | _gguf.experts(c.num_local_experts) if c.num_local_experts else found


def gguf_sizes(said: Said) -> dict[str, Any]:
    """Without experts, the part beside them is all there is; rotary positions are for models without Mamba.

    Raises:
        Unsupported: Bamba's, whose rows lie as if whole heads were rotated, where half of each is.
    """
    hidden = said.get("expert_shared_feed_forward_length") or said.get("feed_forward_length")
    turned, heads = said.get("rope.dimension_count"), said.get("attention.head_count")
    whole = said.get("attention.key_length") or said.get("embedding_length") // heads
    if said.get("rope.scaling.finetuned") and turned and turned < whole:
        what = f"{turned} of {whole} channels of a head are rotated: a Bamba, laid out as if all were"
        raise Unsupported(what, where=said.path, next="load the safetensors checkpoint")
    rope = "rope" if said.get("rope.scaling.finetuned") else None
    return _gguf.mixed_state(said) | {"shared_intermediate_size": hidden, "position_embedding_type": rope}


GGUF = Gguf(
    {key: name for key, name in GRANITE_KEYS.items() if key != "num_key_value_heads"} | LOCAL_EXPERTS | MAMBA2_KEYS,
    gguf_weights, set={"num_local_experts": 0}, more=gguf_sizes,
    says=lambda c, spec: {"rope.scaling.finetuned": c.position_embedding_type == "rope"},
)  # fmt: skip


def spec(c: Config) -> Spec:
    shared = gated(c, hidden="shared_intermediate_size")
    rope = read_rope(c, grouped_heads(c)[2])
    attn = attention(
        c, scale=c.number("attention_multiplier", float), rope=rope if c.position_embedding_type == "rope" else None
    )
    moe: Ffn = shared
    expert, _ = gated(c), c.number("num_experts_per_tok")  # 0 where there are no experts
    if c.number("num_local_experts"):
        router = Router(top_k=c.size("num_experts_per_tok"), score="topk_softmax")
        moe = experts(c, router, count="num_local_experts", expert=expert, shared=SharedExpert(mlp=shared))
    scale, order = c.number("residual_multiplier", float), PreNorm(norm=rms(c))
    mixers: dict[str, Mixer] = {"full_attention": attn, "linear_attention": mamba2(c)}
    types = hybrid_types(c, lambda i: "linear_attention")
    blocks = [Block(attn=mixers[kind], mlp=moe, order=order, residual_scale=scale) for kind in types]
    return granite_decoder(c, "granitemoehybrid", blocks, 1 / c.number("logits_scaling", float, least=1e-6))
