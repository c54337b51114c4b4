"""Mamba: selective state spaces and nothing else. Paper: arXiv 2312.00752."""

from pellucid.config import Config
from pellucid.families._decoder import classes, decoder
from pellucid.families._gguf import DECODER, STATE_KEYS, Gguf, state
from pellucid.families._gguf import MAMBA as GGUF_MAMBA
from pellucid.families._read import activation
from pellucid.families._recurrent import BESIDE, MAMBA, step_rank
from pellucid.spec import Block, Mamba, PreNorm, RmsNorm, Spec
from pellucid.weights.table import Entry

CLASSES = classes("Mamba", "causal-lm")
DEFAULTS = {
    "vocab_size": 50280, "hidden_size": 768, "state_size": 16, "num_hidden_layers": 32, "layer_norm_epsilon": 1e-5,
    "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "expand": 2, "conv_kernel": 4, "use_bias": False,
    "use_conv_bias": True, "hidden_act": "silu", "time_step_rank": None, "residual_in_fp32": True,
    "tie_word_embeddings": True,
}  # fmt: skip
IGNORED = BESIDE | {
    "intermediate_size": None, "d_inner": None, "d_model": None, "n_layer": None,  # said again
    "rms_norm": (True,), "fused_add_norm": None, "ssm_cfg": ({},), "pad_vocab_size_multiple": None,
}  # fmt: skip

BASE = "backbone."
WEIGHTS: dict[str, Entry] = {
    "backbone.embeddings.weight": "embed.tokens.weight",
    "backbone.embedding.weight": "embed.tokens.weight",  # as its authors wrote it
    "backbone.norm_f.weight": "norm.weight",
    "backbone.layers.{i}.norm.weight": "blocks.{i}.attn_norm.weight",
    **{f"backbone.layers.{{i}}.mixer.{name}": slot for name, slot in MAMBA.items()},
    "lm_head.weight": "lm_head.out.weight",
}
GGUF = Gguf(STATE_KEYS | {"time_step_rank": "ssm.time_step_rank"}, DECODER | GGUF_MAMBA, more=state)


def mixer(c: Config, norm: RmsNorm | None = None) -> Mamba:
    return Mamba(
        inner=c.size("expand") * c.size("hidden_size"), state=c.size("state_size"), kernel=c.size("conv_kernel"),
        dt_rank=step_rank(c, "time_step_rank"), conv_bias=c.use_conv_bias, bias=c.use_bias,
        act=activation(c.hidden_act, c), norm=norm,
    )  # fmt: skip


def spec(c: Config) -> Spec:
    norm = RmsNorm(eps=c.number("layer_norm_epsilon", float))
    order = PreNorm(norm=norm, float32=c.residual_in_fp32)
    blocks = [Block(attn=mixer(c), mlp=None, order=order)] * c.layers("num_hidden_layers")
    return decoder(c, "mamba", blocks, norm=norm, hidden_after=True)
