"""OLMo Hybrid: gated DeltaNet with negative eigenvalues, and OLMo 3's attention in every fourth layer. allenai.org."""

from pellucid.config import Config
from pellucid.families._decoder import ATTENTION, EMBEDDING, GATED, QK_NORM, attention, classes, decoder, gated, rms
from pellucid.families._read import grouped_heads, read_rope, rotary_section
from pellucid.families._recurrent import delta_net, hybrid_types, of_layers
from pellucid.spec import Block, OutNorm, PreNorm, QkNorm, RmsNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("OlmoHybrid", "causal-lm")
DEFAULTS = {
    "vocab_size": 100352, "hidden_size": 3840, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 30, "num_key_value_heads": None, "hidden_act": "silu", "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-6, "pad_token_id": 100277, "bos_token_id": None, "eos_token_id": 100257,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_theta": 10000.0, "attention_bias": False,
    "attention_dropout": 0.0, "layer_types": None, "linear_num_key_heads": None, "linear_num_value_heads": None,
    "linear_key_head_dim": None, "linear_value_head_dim": None, "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
}  # fmt: skip
IGNORED = {
    "linear_a_log_min": None, "linear_a_log_max": None, "linear_dt_min": None, "linear_dt_max": None,
    "linear_dt_init_floor": None, "linear_use_gate": (True,),
}  # fmt: skip

BASE = "model."
LINEAR: dict[str, Entry] = {
    **{f"model.layers.{{i}}.linear_attn.{x}_proj.weight": f"blocks.{{i}}.attn.{x}.weight" for x in "qkvab"},
    **{f"model.layers.{{i}}.linear_attn.{x}_conv1d.weight": f"blocks.{{i}}.attn.{x}_conv.weight" for x in "qkv"},
    "model.layers.{i}.linear_attn.g_proj.weight": "blocks.{i}.attn.z.weight",
    "model.layers.{i}.linear_attn.o_proj.weight": "blocks.{i}.attn.out.weight",
    "model.layers.{i}.linear_attn.o_norm.weight": "blocks.{i}.attn.norm.weight",
    "model.layers.{i}.linear_attn.A_log": "blocks.{i}.attn.a_log",
    "model.layers.{i}.linear_attn.dt_bias": "blocks.{i}.attn.dt_bias",
    "model.layers.{i}.attention_layer_norm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.input_layernorm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.feedforward_layer_norm.weight": "blocks.{i}.mlp_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.mlp_norm.weight",
}
# These norms stand behind their parts; the reference writes the first under the name that the linear layers have.
FULL: dict[str, Entry] = {
    "model.layers.{i}.feedforward_layer_norm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blocks.{i}.attn_norm.weight",
    "model.layers.{i}.post_feedforward_layernorm.weight": "blocks.{i}.mlp_norm.weight",
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    kinds = types(c)
    linear = [i for i, kind in enumerate(kinds) if kind == "linear_attention"]
    full = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    head: dict[str, Entry] = {"lm_head.weight": "lm_head.out.weight"}
    return of_layers(linear, LINEAR) | of_layers(full, FULL) | EMBEDDING | ATTENTION | QK_NORM | GATED | head


def types(c: Config) -> list[str]:
    layers = c.layers("num_hidden_layers")
    last = layers - 1 if layers < 4 else None  # a small model has one layer of attention too
    return hybrid_types(c, lambda i: "full_attention" if i % 4 == 3 or i == last else "linear_attention")


def spec(c: Config) -> Spec:
    norm, section = rms(c, round_first=False), rotary_section(c)
    turns = section is None or section.get("rope_theta") is not None
    rope = read_rope(c, grouped_heads(c)[2]) if turns else None
    attn = attention(c, rope=rope, qk_norm=QkNorm(norm=norm, over="full"))
    linear = delta_net(c, norm=RmsNorm(eps=1e-5), negative=c.linear_allow_neg_eigval)
    kinds = {
        "full_attention": Block(attn=attn, mlp=gated(c), order=OutNorm(norm=norm)),
        "linear_attention": Block(attn=linear, mlp=gated(c), order=PreNorm(norm=norm)),
    }
    return decoder(c, "olmo_hybrid", [kinds[kind] for kind in types(c)], norm=norm)
