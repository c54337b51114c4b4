"""UMT5: mT5 with a bias by distance in every layer. Paper: arXiv 2304.09151."""

from dataclasses import replace

from pellucid.config import Config
from pellucid.families import mt5, t5
from pellucid.families._decoder import classes
from pellucid.spec import Attention, Block, Spec, Stack
from pellucid.weights.table import Entry

CLASSES = classes("UMT5", *t5.TASKS) | {"pretraining": "UMT5ForConditionalGeneration"}
DEFAULTS = mt5.DEFAULTS
ALIASES, IGNORED = t5.ALIASES, t5.IGNORED

BASE = t5.BASE


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    """T5's, but for the bias."""
    return {
        name.replace("block.0.layer.0", "block.{i}.layer.0"): str(slot).replace("relative_bias", "blocks.{i}.attn.bias")
        if str(slot).endswith("relative_bias.weight")
        else slot
        for name, slot in t5.WEIGHTS(c).items()
    }


def spec(c: Config) -> Spec:
    whole = t5.spec(c)
    assert whole.encoder is not None
    return replace(whole, family="umt5", stack=by_layer(whole.stack), encoder=by_layer(whole.encoder))


def by_layer(stack: Stack) -> Stack:
    """A stack whose layers each have the bias that they shared."""

    def own(block: Block) -> Block:
        assert isinstance(block.attn, Attention)
        return replace(block, attn=replace(block.attn, bias=stack.relative_bias))

    blocks = tuple(own(block) for block in stack.blocks if isinstance(block, Block))
    return replace(stack, relative_bias=None, blocks=blocks)
