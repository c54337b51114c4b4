"""RWKV 4: a time mix that decays by channel, and a channel mix. Paper: arXiv 2305.13048."""

from pellucid.config import Config
from pellucid.families._decoder import classes, decoder, layer_norm
from pellucid.spec import Custom, Embed, LayerNorm, ShortConv, Spec, Wkv
from pellucid.weights.table import Entry

CLASSES = classes("Rwkv", "causal-lm")
DEFAULTS = {
    "vocab_size": 50277, "context_length": 1024, "hidden_size": 4096, "num_hidden_layers": 32,
    "attention_hidden_size": None, "intermediate_size": None, "layer_norm_epsilon": 1e-5, "bos_token_id": 0,
    "eos_token_id": 0, "rescale_every": 6, "tie_word_embeddings": False,
}  # fmt: skip
ALIASES = {"max_position_embeddings": "context_length"}

BASE = "rwkv."
TIME, CHANNEL = "rwkv.blocks.{i}.attention.", "rwkv.blocks.{i}.feed_forward."
MATRICES = {"key": "k", "value": "v", "receptance": "r"}
WEIGHTS: dict[str, Entry] = {
    "rwkv.embeddings.weight": "embed.tokens.weight",
    "rwkv.blocks.0.pre_ln.{p}": "embed.norm.{p}",
    "rwkv.blocks.{i}.ln1.{p}": "blocks.{i}.attn_norm.{p}",
    "rwkv.blocks.{i}.ln2.{p}": "blocks.{i}.mlp_norm.{p}",
    "rwkv.ln_out.{p}": "norm.{p}",
    "head.weight": "lm_head.out.weight",
    TIME + "time_decay": "blocks.{i}.attn.decay",
    TIME + "time_first": "blocks.{i}.attn.first",
    TIME + "output.weight": "blocks.{i}.attn.out.weight",
    **{f"{TIME}{name}.weight": f"blocks.{{i}}.attn.{x}.weight" for name, x in MATRICES.items()},
    **{f"{TIME}time_mix_{name}": f"blocks.{{i}}.attn.{x}_blend.weight" for name, x in MATRICES.items()},
    **{f"{CHANNEL}{name}.weight": f"blocks.{{i}}.mlp.{x}.weight" for name, x in MATRICES.items()},
    **{
        f"{CHANNEL}time_mix_{name}": f"blocks.{{i}}.mlp.{MATRICES[name]}_blend.weight" for name in ("key", "receptance")
    },
}


def spec(c: Config) -> Spec:
    width, norm = c.size("hidden_size"), layer_norm(c, "layer_norm_epsilon")
    block = Custom(
        path="pellucid.families.rwkv.blocks:Block",
        options=(
            ("inner", c.size("attention_hidden_size", null=width)),
            ("hidden", c.size("intermediate_size", null=4 * width)),
            ("norm", norm),
            ("halve_every", c.number("rescale_every")),
            ("causal", True),
        ),
    )
    return decoder(
        c, "rwkv", [block] * c.layers("num_hidden_layers"), norm=LayerNorm(eps=1e-5), hidden_after=True,
        embed=Embed(vocab=c.size("vocab_size"), norm=norm),
    )  # fmt: skip


# Both parts of a block blend a token with the one before it.
KEEPS = {"Block": lambda part: (Wkv(inner=part["inner"]), ShortConv(kernel=2))}
