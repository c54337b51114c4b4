"""OpenAI's privacy filter: gpt-oss read in both directions, through windows. Weights: openai/privacy-filter."""

from dataclasses import replace
from typing import Any

from pellucid.config import Config
from pellucid.families import gpt_oss
from pellucid.families._decoder import attention, classes, decoder, rms
from pellucid.families._moe import experts
from pellucid.families._read import grouped_heads, read_rope
from pellucid.spec import Block, ClampedGlu, Mlp, PreNorm, Router, Spec, TokenHead
from pellucid.weights.table import Entry, Fused, Stacked, Transposed

CLASSES = classes("OpenAIPrivacyFilter", "token-classification")
DEFAULTS: dict[str, Any] = gpt_oss.DEFAULTS | {
    "vocab_size": 200064, "hidden_size": 640, "intermediate_size": 640, "num_hidden_layers": 8,
    "num_attention_heads": 14, "num_key_value_heads": 2, "pad_token_id": 199999, "eos_token_id": 199999,
    "classifier_dropout": 0.0, "num_labels": 33,
}  # fmt: skip
ALIASES, IGNORED = gpt_oss.ALIASES, gpt_oss.IGNORED

BASE = "model."


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    count, at = c.size("num_local_experts"), "model.layers.{i}.mlp.experts.gate_up_proj"
    both = Fused("blocks.{i}.mlp.experts.{e}.{}.weight", ("gate", "up"))  # one behind the other
    return gpt_oss.WEIGHTS(c) | {
        at: Stacked(Transposed(both), count),
        f"{at}_bias": Stacked(replace(both, pattern="blocks.{i}.mlp.experts.{e}.{}.bias"), count),
    }


def spec(c: Config) -> Spec:
    norm = rms(c, round_first=False)
    act = ClampedGlu(alpha=c.number("swiglu_alpha", float), limit=c.number("swiglu_limit", float))
    expert = Mlp(hidden=c.size("intermediate_size"), act=act, gated=True, bias=True)
    router = Router(top_k=c.size("num_experts_per_tok"), score="topk_softmax", bias=True, float32=True)
    moe = experts(c, router, count="num_local_experts", expert=expert)
    rope = read_rope(c, grouped_heads(c)[2], interleaved=True)
    attn = replace(attention(c, sinks=True, rope=rope), causal=False, window=c.size("sliding_window"))
    blocks = [Block(attn=attn, mlp=moe, order=PreNorm(norm=norm))] * c.layers("num_hidden_layers")
    found = decoder(c, "openai_privacy_filter", blocks, norm=norm)
    head = TokenHead(labels=c.size("num_labels"), dropout=c.share("classifier_dropout"))
    return replace(found, heads={"token-classification": head})
