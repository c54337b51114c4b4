"""Every family at width 512 and 4 layers beside transformers: one forward of 256 tokens, and 32 greedy tokens.

    python benchmarks/registry.py [TYPE ...] [--rounds 5] [--dtype float32] [--record] [--markdown docs/speed.md]

Both libraries load the same random checkpoint in one process and take turns (A B A B …); a figure is the median of
the ratios pair by pair, below 1 where Pellucid is faster. Sizes come from the family's test fixture, with the widths
of `LARGE` put in the place of its tiny ones; a fixture's own "large" wins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE)]

import reference as ref  # noqa: E402  # of the tests
from compare import RECORDS, commit, machine  # noqa: E402

WIDTH, LAYERS, PROMPT, SHORT, NEW = 512, 4, 256, 16, 32
LARGE: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "embed_dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 8),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 8),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_size"), 64),
    **dict.fromkeys(("intermediate_size", "d_ff", "n_inner", "hidden_dim", "ffn_dim", "d_inner", "ffn_hidden"), 1536),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 1536),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions"), 1024),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"), 512),
    "vocab_size": 8000, "sliding_window": 128,
}  # fmt: skip


def enlarged(fixture: dict[str, Any]) -> dict[str, Any]:
    """The fixture's config with sizes at which time is spent in products rather than in calls."""
    given = fixture["config"]
    config = {key: LARGE.get(key, value) if value is not None else None for key, value in given.items()}
    for key in ("layer_types", "mlp_layer_types"):
        if isinstance(given.get(key), list):
            config[key] = (given[key] * LAYERS)[:LAYERS]
    return config | fixture.get("large", {})


def measure(name: str, dtype: torch.dtype, rounds: int, folder: Path) -> dict[str, Any]:
    """Ratios of one family; `folder` is empty."""
    fixture = ref.fixture(name)
    main = ref.case(name, "", fixture["tasks"][0])
    case = ref.Case(**{**vars(main), "variant": "large", "config": enlarged(fixture)})
    stored = ref.checkpoint(case, folder)
    ours = ref.ours(case, stored, dtype)
    theirs = ref.reference_class(case.task, case).from_pretrained(stored, dtype=dtype).eval()  # its own best kernels
    given = ref.inputs(case, batch=1, time=PROMPT)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        forward = paired(lambda: ours(**given), lambda: theirs(**given), rounds)
        found["forward"] = forward
        mine, other = ref.first(ours(**given)), ref.first(theirs(**given))
        found["apart"] = float(f"{ref.distance(mine.float(), other.float()):.1e}")
        if case.task in ("causal-lm", "seq2seq-lm"):
            prompt = {"input_ids": given["input_ids"][:, :SHORT]}
            length = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
            mask = {"attention_mask": torch.ones_like(prompt["input_ids"])}
            found["decode"] = paired(
                lambda: ours.generate(**prompt, **mask, **length),
                lambda: theirs.generate(**prompt, **mask, **length),
                rounds,
            )
    return found


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, the median ratio and its range; the first pair warms up."""
    times = []
    for _ in range(rounds + 1):
        pair = []
        for run in (ours, theirs):
            start = time.perf_counter()
            run()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    times = times[1:]
    ratios = [a / b for a, b in times]
    return {
        "ours_ms": round(1e3 * statistics.median(a for a, _ in times), 2),
        "theirs_ms": round(1e3 * statistics.median(b for _, b in times), 2),
        "ratio": round(statistics.median(ratios), 2), "min": round(min(ratios), 2), "max": round(max(ratios), 2),
    }  # fmt: skip


def markdown(results: dict[str, dict[str, Any]], record: dict[str, Any]) -> str:
    """The table of docs/speed.md."""
    on = record["machine"]
    lines = [
        "# Speed of every family",
        "",
        f"Made by `{record['command']}` ({record['date']}, commit {record['commit']}, {on['cpu']}, {on['cores']} cores,",
        f"torch {on['torch']}, transformers {on['transformers']}). Width {WIDTH}, {LAYERS} layers, {record['dtype']},",
        f"batch 1: one forward of {PROMPT} tokens, and {NEW} greedy tokens behind a prompt of {SHORT}. A ratio is our",
        "time over the reference's, median of the pairs (least to most); below 1 is faster.",
        "",
        "| type | forward, ms | ratio | decode, ms | ratio | logits apart |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, found in results.items():
        cells = []
        for part in ("forward", "decode"):
            one = found.get(part)
            cells += [f"{one['ours_ms']}", f"{one['ratio']} ({one['min']} to {one['max']})"] if one else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['apart']:.0e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name in args.types or ref.families():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = measure(name, getattr(torch, args.dtype), args.rounds, Path(folder))
            except Exception as error:  # one family's sizes that do not fit must not cost the table of the others
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                print(f"{name:24} FAILED {failed[name]}", flush=True)
                continue
        results[name] = found
        shown = "  ".join(f"{part} {one['ratio']:.2f}" for part, one in found.items() if isinstance(one, dict))
        print(f"{name:24} {shown}  apart {found['apart']:.0e}", flush=True)
    record = {
        "date": time.strftime("%Y-%m-%d"), "what": "registry, width 512, 4 layers", "commit": commit(),
        "command": "python " + " ".join(["benchmarks/registry.py", *sys.argv[1:]]), "rounds": args.rounds,
        "dtype": args.dtype, "machine": machine(), "figures": results, "failed": failed,
        "checked": {"largest distance of logits": max(found["apart"] for found in results.values())},
    }  # fmt: skip
    if args.record:
        with RECORDS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    if args.markdown:
        args.markdown.write_text(markdown(results, record))


if __name__ == "__main__":
    main()
