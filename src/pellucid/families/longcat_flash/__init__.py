"""LongCat Flash: two latent attentions and two MLPs a layer, and experts on a path around the second half.

Paper: arXiv 2509.01322. `block.py` has the layer, and experts that return what they are given.
"""

from pellucid.config import Config
from pellucid.families._decoder import EMBEDDING, HEAD_WEIGHTS, classes, decoder, gated, rms
from pellucid.families._latent import DERIVED, MLA, latent
from pellucid.families._moe import PROJECTIONS, experts
from pellucid.spec import Block, Custom, PreNorm, Router, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("LongcatFlash", "causal-lm")
DEFAULTS = {
    "vocab_size": 131072, "hidden_size": 6144, "num_layers": 28, "num_attention_heads": 64,
    "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False, "rope_parameters": None,
    "rope_scaling": None, "rope_theta": 10000000.0, "attention_bias": False, "attention_dropout": 0.0,
    "ffn_hidden_size": 12288, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "head_dim": 64, "v_head_dim": 128, "qk_head_dim": None, "moe_topk": 12,
    "n_routed_experts": 512, "output_router_logits": False, "zero_expert_num": 256, "expert_ffn_hidden_size": 2048,
    "routed_scaling_factor": 6.0,
}  # fmt: skip
ALIASES = {
    "num_local_experts": "n_routed_experts", "num_experts_per_tok": "moe_topk",
    "intermediate_size": "ffn_hidden_size", "moe_intermediate_size": "expert_ffn_hidden_size",
}  # fmt: skip
IGNORED = DERIVED | {
    "num_hidden_layers": None,  # the attentions, two a layer
    "router_bias": (False,), "norm_topk_prob": (False,), "zero_expert_type": ("identity",),
    "mla_scale_q_lora": (True,), "mla_scale_kv_lora": (True,), "attention_method": ("MLA",),
    "output_router_logits": None,
}  # fmt: skip

BASE = "model."
HALVES = {0: "first", 1: "second"}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layer, block, routed = "model.layers.{i}.", "blocks.{i}.", c.size("n_routed_experts")
    table: dict[str, Entry] = {
        **EMBEDDING, **HEAD_WEIGHTS, "model.mtp.*": Unused("predicts more than one token"),
        f"{layer}mlp.router.classifier.weight": f"{block}moe.router.weight",
        f"{layer}mlp.router.e_score_correction_bias": f"{block}moe.router.select_bias",
    }  # fmt: skip
    for i, half in HALVES.items():
        table[f"{layer}input_layernorm.{i}.weight"] = f"{block}{half}.attn_norm.weight"
        table[f"{layer}post_attention_layernorm.{i}.weight"] = f"{block}{half}.mlp_norm.weight"
        for name, slot in MLA.items():
            if ".self_attn." in name and isinstance(slot, str):
                table[name.replace(".self_attn.", f".self_attn.{i}.")] = slot.replace(block, f"{block}{half}.")
        table |= {f"{layer}mlps.{i}.{name}.weight": f"{block}{half}.mlp.{m}.weight" for name, m in PROJECTIONS.items()}
    for name, matrix in PROJECTIONS.items():
        table[f"{layer}mlp.experts.{{e}}.{name}.weight"] = f"{block}moe.experts.{{e}}.{matrix}.weight"
        for e in range(routed, routed + c.number("zero_expert_num", null=0, most=4096)):
            table[f"{layer}mlp.experts.{e}.{name}.weight"] = Unused("of an expert that does nothing", kept=True)
    return table


def spec(c: Config) -> Spec:
    width = c.size("hidden_size")
    scales = {"q_scale": (width / c.size("q_lora_rank")) ** 0.5, "kv_scale": (width / c.size("kv_lora_rank")) ** 0.5}
    half = Block(attn=latent(c, interleaved=True, **scales), mlp=gated(c), order=PreNorm(norm=rms(c)))
    router = Router(
        top_k=c.size("num_experts_per_tok"), select_bias=True, float32=True,
        scale=c.number("routed_scaling_factor", float),
    )  # fmt: skip
    moe = experts(c, router, count="n_routed_experts")
    options = (("half", half), ("moe", moe), ("idle", c.number("zero_expert_num", null=0, most=4096)))
    block = Custom(path="pellucid.families.longcat_flash.block:ShortcutBlock", options=options)
    return decoder(c, "longcat_flash", [block] * c.layers("num_layers"))


KEEPS = {"ShortcutBlock": lambda part: (part["half"], part["half"])}
