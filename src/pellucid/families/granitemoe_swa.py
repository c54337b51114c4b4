"""Granite with experts, windows, attention sinks (arXiv 2309.17453), and a rotary base for each layer."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import _gguf, granite_swa
from pellucid.families._decoder import attention, classes, windows
from pellucid.families.granite_swa import by_theta
from pellucid.families.granitemoe import ALIASES as ALIASES
from pellucid.families.granitemoe import GGUF as GRANITEMOE_GGUF
from pellucid.families.granitemoe import IGNORED as IGNORED
from pellucid.families.granitemoe import WEIGHTS as GRANITEMOE
from pellucid.families.granitemoe import sparse_granite
from pellucid.families.granitemoeshared import DEFAULTS as SHARED
from pellucid.families.granitemoeshared import shared_mlp
from pellucid.spec import Spec
from pellucid.weights.table import Entry, Fused, Stacked

CLASSES = classes("GraniteMoeSWA", "causal-lm")
DEFAULTS = SHARED | {"sliding_window": 128, "layer_types": None, "layer_rope_theta": None}

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at, slot = c.size("num_local_experts"), "model.layers.{i}.block_sparse_moe.", "blocks.{i}.mlp."
    return {
        at + "experts.gate_up_proj": Stacked(Fused(slot + "experts.{e}.{}.weight", ("gate", "up")), count),
        at + "experts.down_proj": Stacked(slot + "experts.{e}.down.weight", count),
        at + "router.weight": slot + "router.weight",
        "model.layers.{i}.self_attn.sinks": "blocks.{i}.attn.sinks",
        **GRANITEMOE(c),  # whose names for the same are read too
    }


def gguf_weights(c: Config) -> dict[str, Entry]:
    """Gate and up lie in one matrix, the experts' and that of the shared MLP."""
    experts, whole = _gguf.experts(c.num_local_experts), "blk.{i}.ffn_gate_up_exps.weight"
    table: dict[str, Entry] = granite_swa.GGUF.entries(c) | {whole: experts[whole]}
    table |= {name: slot for name, slot in experts.items() if "shexp" not in name}
    return table | {
        "blk.{i}.ffn_up_shexp.weight": Fused("blocks.{i}.mlp.shared.{}.weight", ("gate", "up")),
        "blk.{i}.ffn_down_shexp.weight": "blocks.{i}.mlp.shared.down.weight",
    }


GGUF = replace(granite_swa.GGUF, keys={**granite_swa.GGUF.keys, **GRANITEMOE_GGUF.keys}, weights=gguf_weights)


def spec(c: Config) -> Spec:
    attn = attention(c, scale=c.number("attention_multiplier", float), sinks=True)
    layers = by_theta(c, windows(c, attn, lambda i: "sliding_attention" if i % 4 else "full_attention"))
    return sparse_granite(c, "granitemoe_swa", layers, shared_mlp(c))
