"""A spec in words, a line for each part. What has no words of its own here is written as its fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import singledispatch
from typing import Any

from pellucid import spec as s


def rows(spec: s.Spec) -> list[tuple[str, str]]:
    """Label and text of each part, in the order in which a token meets them."""
    found = [*stack(spec.encoder, "encoder "), *stack(spec.stack, "decoder ")] if spec.encoder else stack(spec.stack)
    if spec.pooler:
        found.append(("pooler", pooler(spec.pooler)))
    return found + [("heads", f"{task}: {words(head)}") for task, head in spec.heads.items()]


def pooler(part: s.Activation | s.Pooling) -> str:
    """What stands for a text."""
    if not isinstance(part, s.Pooling):
        part = s.Pooling(act=part)
    return f"dense and {part.act} on {POOLS[part.pool]}" if part.act else POOLS[part.pool]


def stack(stack: s.Stack, side: str = "") -> list[tuple[str, str]]:
    """An embedding, its positions, the kinds of blocks, the final norm."""
    ropes = list(dict.fromkeys(getattr(getattr(block, "attn", None), "rope", None) for block in stack.blocks))
    found = [(f"{side}embedding", f"{words(stack.embed)}, width {stack.width}")]
    found += [(f"{side}positions", text) for text in positions(stack, ropes)]
    kinds: dict[s.Block | s.Custom, list[int]] = {}
    for i, block in enumerate(stack.blocks):
        kinds.setdefault(block, []).append(i)
    first: list[str] = []
    for block, places in kinds.items():
        lines = block_lines(block, rope=len(ropes) > 1)
        label = f"{side}block{'s' if len(places) > 1 else ''} {ranges(places)}"
        found += [(label, line) for line in lines if line not in first] or [(label, "differs in a detail; see --json")]
        if first:
            found.append((label, f"otherwise as block {next(iter(kinds.values()))[0]}"))
        first = first or lines
    if stack.depth:
        found.append((f"{side}depth", f"{len(stack.depth)} steps through {len(stack.blocks)} blocks"))
    if stack.body:
        found.append((f"{side}body", words(stack.body)))
    return [*found, (f"{side}final norm", words(stack.norm))] if stack.norm else found


def positions(stack: s.Stack, ropes: Sequence[s.Rope | None]) -> list[str]:
    """Every way in which a stack knows where a token is."""
    return [words(part) for part in (stack.embed.positions, stack.relative_bias, *ropes) if part] or ["none"]


def block_lines(block: s.Block | s.Custom, *, rope: bool) -> list[str]:
    """A block's parts; `rope` where the blocks of a stack differ in it."""
    if isinstance(block, s.Custom):
        return [words(block)]
    lines = [words(block.order)]
    for part in sorted(fields(block), key=lambda part: part.name == "mlp"):  # which runs last
        value = getattr(block, part.name)
        if part.name in ("order", "dropout") or value in (None, part.default):
            continue
        lines.append(f"{part.name}: {words(value)}")
        if rope and hasattr(value, "rope"):
            lines.append(f"{part.name} positions: {words(value.rope) if value.rope else 'none'}")
    return lines


def ranges(places: Sequence[int]) -> str:
    """[0, 1, 2, 5] as `0..2, 5`; even steps as `0, 2 … 24`."""
    step = places[1] - places[0] if len(places) > 2 else 1
    if step > 1 and list(places) == list(range(places[0], places[-1] + 1, step)):
        return f"{places[0]}, {places[1]} … {places[-1]}"
    runs: list[list[int]] = []
    for i in places:
        if runs and i == runs[-1][-1] + 1:
            runs[-1].append(i)
        else:
            runs.append([i])
    texts = [f"{run[0]}..{run[-1]}" if run[1:] else str(run[0]) for run in runs]
    return ", ".join(texts) if len(texts) < 5 else f"{', '.join(texts[:3])} … {texts[-1]}"


# ------------------------------------------------------------------------------------------------ words


@singledispatch
def words(part: Any) -> str:
    """One part of a spec. For a kind that is not below: its name, and the fields that say something."""
    if isinstance(part, (tuple, list)):
        return f"[{', '.join(words(each) for each in part)}]"
    if not is_dataclass(part):
        return f"{part:g}" if isinstance(part, float) else str(part)
    said = [
        f"{f.name} {words(value)}"
        for f in fields(part)
        if (value := getattr(part, f.name)) != f.default and f.name != "dropout"
    ]
    return ", ".join([type(part).__name__, *said])


@words.register
def _(part: s.RmsNorm) -> str:
    weight = f", weights + {part.offset:g}" if part.offset else ""
    return f"RMS norm (eps {part.eps:g}{weight})"


@words.register
def _(part: s.LayerNorm) -> str:
    return f"layer norm (eps {part.eps:g})"


@words.register
def _(part: s.PreNorm) -> str:
    return f"{words(part.norm)} before each part"


@words.register
def _(part: s.PostNorm) -> str:
    return f"{words(part.norm)} after each sum"


@words.register
def _(part: s.Sandwich) -> str:
    return f"sandwich: {words(part.norm)} before and after each part"


@words.register
def _(part: s.OutNorm) -> str:
    return f"{words(part.norm)} after each part"


@words.register
def _(part: s.Parallel) -> str:
    return f"parallel parts, {'one' if part.shared else 'each its'} {words(part.norm)} before them"


@words.register
def _(part: s.Custom) -> str:
    """`pellucid.families.xlnet.relative:RelativeAttention`: its own code, with its options."""
    module, _, name = part.path.partition(":")
    options = (f"{key} {words(value)}" for key, value in part.options)
    return listed(f"{name} of {module.removeprefix('pellucid.')}", *options)


@words.register
def _(part: s.Rope) -> str:
    return listed(
        f"rotary on {part.dim} channels",
        f"theta {part.theta:g}",
        part.interleaved and "in neighbouring pairs",
        part.sections and f"axes of {' + '.join(map(str, part.sections))} pairs",
        part.scaling and words(part.scaling),
    )


@words.register
def _(part: s.LearnedPositions) -> str:
    return f"learned, {part.rows}"


@words.register
def _(part: s.RelativeBias) -> str:
    both = "both directions" if part.bidirectional else "backwards"
    return f"bias by distance, {part.buckets} buckets up to {part.max_distance}, {both}"


@words.register
def _(part: s.Attention) -> str:
    heads = f"{part.heads} heads" + (f" / {part.kv_heads} kv" if part.kv_heads != part.heads else "")
    usual = abs(part.scale * part.head_dim**0.5 - 1) < 1e-6
    return listed(
        f"{heads} × {part.head_dim}",
        "causal" if part.causal else "both directions",
        part.window and f"window {part.window}",
        part.chunk and f"chunks of {part.chunk}",
        part.cap and f"scores capped at {part.cap:g}",
        part.sinks and "sinks",
        part.qk_norm and f"{words(part.qk_norm.norm)} on {'q' if part.qk_norm.queries_only else 'q and k'}",
        part.gate and f"{part.gate.act} gate for each {part.gate.per}",
        not usual and f"scale {part.scale:g}",
        part.biases and f"bias on {part.biases}",
    )


@words.register
def _(part: s.Mlp) -> str:
    return listed(words(part.act), part.gated and "gated", str(part.hidden), part.bias and "bias")


@words.register
def _(part: s.Moe) -> str:
    chosen = f"{part.router.top_k} of {part.experts} experts by {part.router.score}, each {words(part.expert)}"
    return listed(chosen, part.shared and f"and one for all: {words(part.shared.mlp)}")


@words.register
def _(part: s.Embed) -> str:
    return listed(
        f"{part.vocab} tokens",
        part.token_types and f"{part.token_types} token types",
        part.scale and f"times {part.scale:g}",
        part.norm and words(part.norm),
    )


@words.register
def _(part: s.Transform) -> str:
    return listed("dense", part.act, part.norm and words(part.norm))


@words.register
def _(part: s.LmHead) -> str:
    return listed(
        "tied to the embedding" if part.tied else "a matrix of its own",
        part.bias and "bias",
        part.transform and f"after {words(part.transform)}",
        part.scale and f"input times {part.scale:g}",
        part.cap and f"logits capped at {part.cap:g}",
    )


@words.register
def _(part: s.SequenceHead) -> str:
    return f"{part.labels} labels, from {POOLS[part.pool]}"


@words.register
def _(part: s.TokenHead) -> str:
    return f"{part.labels} labels for each token"


@words.register
def _(part: s.SpanHead) -> str:
    return "start and end of an answer"


POOLS: dict[s.Pool, str] = {
    "pooler": "the pooler", "first": "the first token", "last": "the last token", "mean": "the mean of the tokens",
    "eos": "the last end token", "end": "the first end token", "largest": "the token with the largest id",
    "late": "the mean of the tokens' scores",
}  # fmt: skip


@words.register
def _(part: s.ChoiceHead) -> str:
    return f"a score for each choice, from {POOLS[part.pool]}"


@words.register
def _(part: s.PairHead) -> str:
    return "whether two sentences belong together"


@words.register
def _(part: s.PretrainingHead) -> str:
    return "; ".join(words(head) for head in (part.lm, part.pair, part.token) if head)


def listed(*texts: Any) -> str:
    """Those that say something, with commas."""
    said: Iterable[str] = (str(text) for text in texts if text)
    return ", ".join(said)


def plain(part: Any) -> Any:
    """A spec as JSON: `dataclasses.asdict`, and the name of each part under "kind": unions stay clear."""
    if is_dataclass(part):
        return {"kind": type(part).__name__} | {f.name: plain(getattr(part, f.name)) for f in fields(part)}
    if isinstance(part, (list, tuple)):
        return [plain(each) for each in part]
    return {key: plain(value) for key, value in part.items()} if isinstance(part, dict) else part
