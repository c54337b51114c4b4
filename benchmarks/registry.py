"""Every family at width 512 and 4 layers beside transformers: one forward of 256 tokens, and 32 greedy tokens.

    python benchmarks/registry.py [TYPE ...] [--rounds 5] [--dtype float32] [--record] [--markdown docs/speed.md]

Both libraries load the same random checkpoint in one process and take turns (A B A B …); a figure is the median of
the ratios pair by pair, below 1 where Pellucid is faster. Sizes come from the family's test fixture, with the widths
of `LARGE` put in the place of its tiny ones; a fixture's own "large" wins.

The page that `--markdown` writes is made anew up to its first section (`## `). Sections are written by hand, and stay.
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

WHAT = "registry, width 512, 4 layers"
WIDTH, LAYERS, PROMPT, SHORT, NEW = 512, 4, 256, 16, 32
LARGE: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 8),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "index_n_heads"), 8),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 8),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "kv_n_heads", "linear_num_key_heads"), 4),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "dim_head", "attention_head_size", "v_head_dim"), 64),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "qk_nope_head_dim", "index_head_dim"), 64),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 64),
    **dict.fromkeys(("intermediate_size", "d_ff", "dim_ff", "dff", "n_inner", "hidden_dim", "ffn_dim"), 1536),
    **dict.fromkeys(("d_inner", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 1536),
    **dict.fromkeys(("intermediate_size_mlp", "prefix_dense_intermediate_size", "shared_intermediate_size"), 1536),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"), 512),
    **dict.fromkeys(("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 512),
    **dict.fromkeys(("shared_experts_intermediate_size", "attention_hidden_size"), 512),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_encoder_layers"), LAYERS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len"), 1024),
    **dict.fromkeys(("max_encoder_position_embeddings", "max_decoder_position_embeddings", "context_length"), 1024),
    **dict.fromkeys(("original_max_position_embeddings", "keep_window_size"), 1024),
    **dict.fromkeys(("vocab_size", "src_vocab_size", "tgt_vocab_size", "vocab_size_per_layer_input"), 8000),
    **dict.fromkeys(("sliding_window", "window_size", "local_attention", "attention_chunk_size"), 128),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "embedding_size", "index_topk"), 128),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 128),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "time_step_rank", "mamba_dt_rank"), 32),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 32),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 16),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    "linear_num_value_heads": 8, "mrope_section": [16, 8, 8],
}  # fmt: skip
# What some families ask of `generate` by default, and we compare the models at plain greedy search.
PLAIN_SEARCH: dict[str, Any] = {
    "num_beams": 1, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "repetition_penalty": 1.0,
    "length_penalty": 1.0, "early_stopping": False,
}  # fmt: skip


def enlarged(given: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A config with sizes at which time is spent in products rather than in calls; `own` are the fixture's own."""
    large = {}
    for key, value in given.items():
        if isinstance(value, dict) and not key.startswith(("vision", "audio", "vq")):
            large[key] = enlarged(value, own.get(key, {}))
        elif key in own:
            large[key] = own[key]
        elif isinstance(value, list) and key.endswith("layer_types"):
            large[key] = (value * LAYERS)[:LAYERS]
        else:
            large[key] = LARGE.get(key, value) if value is not None else None
    return {**own, **large}


def measure(name: str, dtype: torch.dtype, rounds: int, folder: Path) -> dict[str, Any]:
    """Ratios of one family; `folder` is empty."""
    fixture = ref.fixture(name)
    main = ref.case(name, "", fixture["tasks"][0])
    config = enlarged(fixture["config"], fixture.get("large", {}))
    case = ref.Case(**{**vars(main), "variant": "large", "config": config})
    stored = ref.checkpoint(case, folder)
    ours = ref.ours(case, stored, dtype)
    theirs = ref.reference_class(case.task, case).from_pretrained(stored, dtype=dtype).eval()  # its own best kernels
    given = {**ref.inputs(case, batch=1, time=PROMPT), **ref.options(case)}
    found: dict[str, Any] = {}
    with torch.inference_mode():
        found["forward"], mine, other = paired(lambda: ours(**given), lambda: theirs(**given), rounds)
        found["apart"] = float(f"{ref.distance(ref.first(mine).float(), ref.first(other).float()):.1e}")
        if case.task in ("causal-lm", "seq2seq-lm"):
            prompt = given["input_ids"][:, :SHORT]
            asked = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": NEW}
            asked |= {"min_new_tokens": NEW, **plain_search(theirs.generation_config)}
            found["decode"], mine, other = paired(
                lambda: ours.generate(prompt, **asked), lambda: theirs.generate(prompt, **asked), rounds
            )
            found["same_tokens"] = torch.equal(mine, other)
    return found


def plain_search(asks: Any) -> dict[str, Any]:
    """Arguments that undo what a model's generation config asks for beyond greedy search."""
    return {key: value for key, value in PLAIN_SEARCH.items() if getattr(asks, key, None) not in (None, value)}


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[dict[str, float], Any, Any]:
    """Median milliseconds of each, the median ratio and its range; and both results, from a pair that warms up."""
    results = ours(), theirs()
    times = []
    for _ in range(rounds):
        pair = []
        for run in (ours, theirs):
            start = time.perf_counter()
            run()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    ratios = [a / b for a, b in times]
    figures = {
        "ours_ms": round(1e3 * statistics.median(a for a, _ in times), 2),
        "theirs_ms": round(1e3 * statistics.median(b for _, b in times), 2),
        "ratio": round(statistics.median(ratios), 2), "min": round(min(ratios), 2), "max": round(max(ratios), 2),
    }  # fmt: skip
    return figures, *results


def markdown(records: list[dict[str, Any]]) -> str:
    """The table of a page: the newest figures of each type in these records, of one dtype."""
    newest = {name: (record, found) for record in records for name, found in record["figures"].items()}
    on, commits = records[-1]["machine"], sorted({record["commit"] for record, _ in newest.values()})
    dtype = records[-1]["dtype"]
    which, given, page = (
        ("", "", "speed.md") if dtype == "float32" else (f" in {dtype}", f" --dtype {dtype}", f"speed-{dtype}.md")
    )
    lines = [
        f"# Speed of every family{which}",
        "",
        f"Made by `python benchmarks/registry.py{given} --record --markdown docs/{page}`",
        f"({records[-1]['date']}, commit {', '.join(commits)}; {on['cpu']}, {on['cores']} cores,",
        f"torch {on['torch']}, transformers {on['transformers']}).",
        f"Width {WIDTH}, {LAYERS} layers, {dtype}, batch 1: one forward of {PROMPT} tokens, and {NEW}",
        f"greedy tokens behind a prompt of {SHORT}. A ratio is our time over the reference's, median of the pairs",
        "(least to most); below 1 is faster. benchmarks/records.jsonl has command, threads and rounds of each run.",
        "Logits apart are a share of their largest value; where attention over random weights saturates (mt5),",
        "rounding grows, on both sides alike: tests/parity compare in float64 too.",
        "",
        "| type | forward, ms | ratio | decode, ms | ratio | logits apart |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, (_, found) in sorted(newest.items()):
        cells = []
        for part in ("forward", "decode"):
            one = found.get(part)
            cells += [f"{one['ours_ms']}", f"{one['ratio']} ({one['min']} to {one['max']})"] if one else ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['apart']:.0e} |")
    for part in ("forward", "decode"):
        ratios = sorted(found[part]["ratio"] for _, found in newest.values() if part in found)
        slower = sum(ratio > 1 for ratio in ratios)
        middle = statistics.median(ratios)
        lines.append(f"\n{part}: median ratio {middle:.2f} over {len(ratios)} types; above 1 in {slower}.")
    return "\n".join(lines) + "\n"


def page(records: list[dict[str, Any]], before: str) -> str:
    """The whole page: the table, and the sections that somebody has written below it."""
    _, heading, written = f"\n{before}".partition("\n## ")
    return markdown(records) + heading + written


def recorded(dtype: str) -> list[dict[str, Any]]:
    """Earlier runs of this benchmark, oldest first."""
    found = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    return [one for one in found if one["what"] == WHAT and one["dtype"] == dtype]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    quiet_reference()
    start = time.perf_counter()
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for name in args.types or ref.families():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = measure(name, getattr(torch, args.dtype), args.rounds, Path(folder))
            except Exception as error:  # one family's sizes that do not fit must not cost the table of the others
                failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                print(f"{name:24} FAILED {failed[name]}", flush=True)
                continue
        results[name] = found
        shown = "  ".join(f"{part} {one['ratio']:.2f}" for part, one in found.items() if isinstance(one, dict))
        print(f"{name:24} {shown}  apart {found['apart']:.0e}", flush=True)
    elapsed = round(time.perf_counter() - start)
    print(f"{len(results)} families in {elapsed} s; failed: {', '.join(failed) or 'none'}")
    record = {
        "date": time.strftime("%Y-%m-%d"), "what": WHAT, "commit": commit(),
        "command": "python " + " ".join(["benchmarks/registry.py", *sys.argv[1:]]), "rounds": args.rounds,
        "dtype": args.dtype, "machine": machine(), "threads": torch.get_num_threads(), "seconds": elapsed,
        "figures": results, "failed": failed,
        "checked": {"largest distance of logits": max((found["apart"] for found in results.values()), default=None)},
    }  # fmt: skip
    if args.record:
        with RECORDS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    if args.markdown:
        before = args.markdown.read_text() if args.markdown.exists() else ""
        args.markdown.write_text(page([*recorded(args.dtype), record], before))


def quiet_reference() -> None:
    """No progress bars and no advice between the lines of the table."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    main()
