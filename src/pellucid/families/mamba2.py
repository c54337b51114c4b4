"""Mamba 2: state space duality. Paper: arXiv 2405.21060."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder
from pellucid.families._gguf import DECODER, STATE_KEYS, Gguf, state
from pellucid.families._read import activation
from pellucid.families._recurrent import BESIDE, MAMBA2, step_limits
from pellucid.families.mamba import WEIGHTS as MAMBA
from pellucid.spec import Block, Mamba2, PreNorm, RmsNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Mamba2", "causal-lm")
DEFAULTS = {
    "num_heads": 128, "head_dim": 64, "vocab_size": 32768, "hidden_size": 4096, "state_size": 128,
    "num_hidden_layers": 64, "layer_norm_epsilon": 1e-5, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    "expand": 2, "conv_kernel": 4, "n_groups": 8, "use_bias": False, "use_conv_bias": True, "hidden_act": "silu",
    "time_step_limit": None, "residual_in_fp32": True, "tie_word_embeddings": False,
}  # fmt: skip
IGNORED = BESIDE | {
    "time_step_rank": None, "rms_norm": (True,), "norm_before_gate": None, "intermediate_size": None,
}  # fmt: skip

BASE = "backbone."
WEIGHTS: dict[str, Entry] = {name: slot for name, slot in MAMBA.items() if ".mixer." not in name} | {
    f"backbone.layers.{{i}}.mixer.{name}": slot for name, slot in MAMBA2.items()
}
GGUF = Gguf(
    STATE_KEYS | {"num_heads": "ssm.time_step_rank", "n_groups": "ssm.group_count"},
    lambda c: DECODER | _gguf.mamba2(c.n_groups),
    more=lambda said: state(said) | {"head_dim": said.get("ssm.inner_size") // said.get("ssm.time_step_rank")},
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = RmsNorm(eps=c.number("layer_norm_epsilon", float))
    heads, head_dim, groups = c.size("num_heads"), c.size("head_dim"), c.size("n_groups")
    if heads * head_dim != c.size("expand") * c.size("hidden_size") or heads % groups:
        what = f"{heads} heads of {head_dim} channels in {groups} groups, for expand * hidden_size channels"
        raise ConfigError(what, where=c.where, next="correct num_heads, head_dim, n_groups or expand")
    attn = Mamba2(
        heads=heads, head_dim=head_dim, state=c.size("state_size"), groups=groups, kernel=c.size("conv_kernel"),
        norm=norm, norm_groups=groups, conv_bias=c.use_conv_bias, bias=c.use_bias, act=activation(c.hidden_act, c),
        step=step_limits(c),
    )  # fmt: skip
    order = PreNorm(norm=norm, float32=c.residual_in_fp32)
    blocks = [Block(attn=attn, mlp=None, order=order)] * c.layers("num_hidden_layers")
    return decoder(c, "mamba2", blocks, norm=norm, hidden_after=True)
