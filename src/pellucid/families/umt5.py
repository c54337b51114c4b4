"""UMT5: mT5 with a bias by distance in every layer. Paper: arXiv 2304.09151."""

from collections.abc import Mapping
from dataclasses import replace

from pellucid.config import Config
from pellucid.families import mt5, t5
from pellucid.families._decoder import classes
from pellucid.spec import Attention, Block, Spec, Stack, Task
from pellucid.weights.table import Entry

CLASSES = classes("UMT5", *t5.TASKS) | {"pretraining": "UMT5ForConditionalGeneration"}
DEFAULTS = mt5.DEFAULTS
ALIASES, IGNORED = t5.ALIASES, t5.IGNORED | {"scalable_attention": None}  # how it was once trained

BASE = t5.BASE


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    return own_bias(t5.WEIGHTS(c))


def HEADS(c: Config) -> dict[Task, dict[str, Entry]]:  # noqa: N802
    return {task: own_bias(names) for task, names in t5.HEADS(c).items()}


def own_bias(names: Mapping[str, Entry]) -> dict[str, Entry]:
    """T5's names, but for the bias of every layer."""
    found = {}
    for name, slot in names.items():
        if str(slot).endswith("relative_bias.weight"):
            name = name.replace("block.0.layer.0", "block.{i}.layer.0").replace("blk.0.", "blk.{i}.")
            slot = str(slot).replace("relative_bias", "blocks.{i}.attn.bias")
        found[name] = slot
    return found


GGUF = replace(t5.GGUF, weights=own_bias(t5.GGUF.entries(Config({}))))


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
