"""A.X K2: latent attention with an indexer, and gates on norms and attention. Model card: huggingface.co/skt/A.X-K2.

`gates.py` has the gates, which no other family does in this way.
"""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import deepseek_v32
from pellucid.families._decoder import classes, decoder, gated, rms
from pellucid.families._latent import INDEXER, MLA, further_layers, indexer, latent
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.spec import Block, Custom, PreNorm, Spec
from pellucid.weights.table import Entry, Fused

CLASSES = classes("AXK2", "causal-lm", "sequence-classification", "token-classification")
DEFAULTS = deepseek_v32.DEFAULTS | {
    "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 5120, "moe_intermediate_size": 512,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 32, "n_routed_experts": 128,
    "kv_lora_rank": 128, "q_lora_rank": 384, "qk_rope_head_dim": 32, "v_head_dim": 64, "qk_nope_head_dim": 64,
    "n_group": None, "topk_group": None, "max_position_embeddings": 131072, "bos_token_id": 163691,
    "eos_token_id": 163691, "index_n_heads": 16, "gated_norm_rank": 16, "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
}  # fmt: skip
ALIASES = deepseek_v32.ALIASES
IGNORED = deepseek_v32.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, block, sparse = "model.layers.{i}.", "blocks.{i}.", sparse_layers(c, c.number("first_k_dense_replace"))
    queries = Fused(f"{block}attn.{{}}.weight", ("q_b", "gate.proj"), groups=c.size("num_attention_heads"))
    table = {**MLA, **INDEXER, **moe_weights(), f"{layer}self_attn.q_b_proj.weight": queries}
    for name, slot in {"input_layernorm": "attn_norm", "post_attention_layernorm": "mlp_norm"}.items():
        table[f"{layer}{name}.norm.weight"] = f"{block}{slot}.norm.weight"
        table[f"{layer}{name}.W_down.weight"] = f"{block}{slot}.down.weight"
        table[f"{layer}{name}.W_up.weight"] = f"{block}{slot}.up.weight"
    plain = {f"{layer}{name}.weight" for name in ("input_layernorm", "post_attention_layernorm")}
    table = {name: entry for name, entry in table.items() if name.replace("{p}", "weight") not in plain}
    table |= {
        f"model.layers.{i}.post_attention_layernorm.weight": f"blocks.{i}.mlp_norm.weight"
        for i, experts_here in enumerate(sparse) if not experts_here
    }  # fmt: skip
    return further_layers(c, table)


def spec(c: Config) -> Spec:
    norm, dense = rms(c), gated(c)
    own = "pellucid.families.axk2.gates:"
    gate = Custom(path=f"{own}GatedNorm", options=(("norm", norm), ("rank", c.size("gated_norm_rank"))))
    inner = latent(c, interleaved=True, indexer=indexer(c, interleaved=False))
    attn = Custom(path=f"{own}GatedAttention", options=(("latent", inner),))
    router = replace(deepseek_router(c), outside=0.0)
    moe = experts(c, router, count="n_routed_experts", shared=shared_experts(c))
    sparse = sparse_layers(c, c.number("first_k_dense_replace"))
    first = Block(attn=attn, mlp=dense, order=PreNorm(norm=gate))
    blocks = (
        Block(attn=attn, mlp=moe, order=PreNorm(norm=gate)),
        Custom(path=f"{own}DenseBlock", options=(("block", first), ("norm", norm))),
    )
    return decoder(c, "axk2", [blocks[0] if s else blocks[1] for s in sparse])
