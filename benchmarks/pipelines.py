"""`text-classification` over lines of mixed lengths, beside the reference's pipeline; and memory over a million lines.

    python benchmarks/pipelines.py speed [--lines 10000] [--rounds 3] [--batch-size N] [--record]
    python benchmarks/pipelines.py sizes [--lines 500]          which batch size serves the reference best
    python benchmarks/pipelines.py profile [--lines 1000]       where our time goes
    python benchmarks/pipelines.py memory [--lines 1000000] [--record]

The model is a random BERT of 6 layers and 384 channels, as small sentence encoders are. Texts are reviews of
shared/data/sentiment: one in ten is a paragraph of several, three in ten are the beginning of one. The libraries take
turns (A B A B …); medians with extremes are printed. Ours is asked without a batch size, the reference with its best.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import pellucid
from compare import finish
from engine import in_turns, ratios, seconds, summary

SENTIMENT = Path(__file__).resolve().parents[2] / "shared" / "data" / "sentiment"
VOCABULARY = Path(__file__).resolve().parents[1] / "tests" / "data" / "tokenizers" / "bert-uncased" / "vocab.txt"
SIZES = (1, 4, 8, 16, 32, 64)
BEST = 1  # rows of a batch of the reference, the fastest of SIZES here: it pads what goes together
MIXED = {"truncation": True, "max_length": 512}


def texts(count: int) -> list[str]:
    files = (SENTIMENT / f"rt-polarity.{kind}" for kind in ("pos", "neg"))
    lines = [line for file in files for line in file.read_text(encoding="latin-1").splitlines()]
    chance = random.Random(0)
    found = []
    for _ in range(count):
        kind, line = chance.random(), chance.choice(lines)
        if kind < 0.1:
            line = " ".join(chance.choice(lines) for _ in range(chance.randint(2, 12)))
        elif kind < 0.4:
            line = " ".join(line.split()[: chance.randint(2, 9)])
        found.append(line)
    return found


def checkpoint(folder: Path, width: int = 384, layers: int = 6) -> Path:
    """A random BERT with two labels, written by the reference library."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 32, intermediate_size=4 * width
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(VOCABULARY.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 512}')
    return folder


def both(folder: Path) -> tuple[Any, Any]:
    import transformers

    return (
        pellucid.pipeline("text-classification", folder),
        transformers.pipeline("text-classification", str(folder), device="cpu"),
    )


def speed(args: argparse.Namespace, folder: Path) -> None:
    ours, theirs = both(folder)
    given, size = texts(args.lines), args.batch_size or BEST
    found, wanted = ours(given, **MIXED), theirs(given, batch_size=size, **MIXED)
    apart = max(abs(one["score"] - other["score"]) for one, other in zip(found, wanted))
    labels = sum(one["label"] == other["label"] for one, other in zip(found, wanted))
    runs = {
        "ours": lambda: len(given) / seconds(lambda: ours(given, **MIXED)),
        "transformers": lambda: len(given) / seconds(lambda: theirs(given, batch_size=size, **MIXED)),
    }
    rates = in_turns(args.rounds, runs)
    figures: dict[str, Any] = {f"{name}, texts/s": summary(values) for name, values in rates.items()}
    figures["ratio"] = ratios(rates["ours"], rates["transformers"])
    check = {"largest difference of scores": float(f"{apart:.2g}"), "same labels": f"{labels} of {len(given)}"}
    assert apart < 1e-4, check
    what = f"text-classification of {len(given)} texts of mixed lengths, BERT 6 x 384, reference with batch_size={size}"
    finish(args, what, figures, check)


def sizes(args: argparse.Namespace, folder: Path) -> None:
    _, theirs = both(folder)
    given = texts(args.lines)
    for size in SIZES:
        taken = min(seconds(lambda: theirs(given, batch_size=size, **MIXED)) for _ in range(2))  # noqa: B023
        print(f"batch_size={size:3}  {len(given) / taken:8.1f} texts/s")


def profile(args: argparse.Namespace, folder: Path) -> None:
    ours, _ = both(folder)
    given = texts(args.lines)
    ours(given, **MIXED)
    profiler = cProfile.Profile()
    profiler.runcall(ours, given, **MIXED)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def memory(args: argparse.Namespace, folder: Path) -> None:
    """The largest resident size after half of the lines, and after all of them.

    No object of ours stays behind a window (tracemalloc), yet the process grows: oneDNN keeps what it made for a
    thousand sizes of products, and the allocator what lies between. ONEDNN_PRIMITIVE_CACHE_CAPACITY=64 shows the share.
    """
    ours = pellucid.pipeline("text-classification", checkpoint(folder / "small", width=32, layers=1))

    def lines() -> Iterator[str]:
        for i in range(args.lines):
            yield (
                f"line {i} of so many lines"
                if i % 7
                else f"line {i} is a longer one, for a change, than the others are"
            )

    marks = {}
    for done, _ in enumerate(ours(lines()), 1):
        if done in (args.lines // 2, args.lines):
            marks[done] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    grown = marks[args.lines] / marks[args.lines // 2]
    figures = {f"peak MiB after {done:,} lines": round(value, 1) for done, value in marks.items()}
    what = f"text-classification of {args.lines:,} lines from a generator, memory"
    finish(args, what, figures, {"flat": grown < 1.05})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("speed", "sizes", "profile", "memory"))
    parser.add_argument("--lines", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, help="of the reference")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    usual = {"speed": 10_000, "sizes": 500, "profile": 1000, "memory": 1_000_000}
    args.lines = args.lines or usual[args.command]
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        commands = {"speed": speed, "sizes": sizes, "profile": profile, "memory": memory}
        commands[args.command](args, checkpoint(folder))


if __name__ == "__main__":
    main()
