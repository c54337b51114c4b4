"""Pellucid's tokenizers beside the reference's, on this machine: every figure is a ratio taken in one run, interleaved.

    python benchmarks/tokenizing.py speed [--rounds 15] [--record]   single texts, batches, decoding; 1 and all threads
    python benchmarks/tokenizing.py stream                           100,000 tokens through a Stream
    python benchmarks/tokenizing.py memory [--million 1]             resident memory over so many encodes

Both libraries run on the same Rust engine, so what differs is what Python adds. Texts: tinyshakespeare and the UDHR in
12 languages of shared/data (see there for origins). Each measurement of `speed` is a process of its own with
RAYON_NUM_THREADS set; in it the libraries take turns (A B A B …) on the same folder, and medians with the smallest and
largest are printed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests" / "text"))

from folders import SHARED, folder  # noqa: E402

from compare import finish, summary  # noqa: E402

NAMES = ("gpt2", "llama2", "bert-uncased", "t5")
LINES = 1000


def texts() -> tuple[list[str], list[str], str]:
    """1000 lines of Shakespeare, the paragraphs of the UDHR, and one long text."""
    plays = (SHARED / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    rights = [
        line
        for path in sorted((SHARED / "text" / "udhr").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line
    ]
    return [line for line in plays.splitlines() if line][:LINES], rights, plays[:200_000]


def cases(tok: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is timed, for a tokenizer of either library."""
    lines, rights, long = texts()
    rows = tok(lines)["input_ids"]
    yield "100 short texts, one by one", lambda: [tok(text) for text in lines[:100]]
    yield "100 short texts, encode", lambda: [tok.encode(text) for text in lines[:100]]
    yield "100 short texts, truncation", lambda: [tok(text, truncation=True, max_length=64) for text in lines[:100]]
    yield "batch of 1000 lines", lambda: tok(lines)
    yield "batch, padded tensors", lambda: tok(lines, padding=True, truncation=True, max_length=64, return_tensors="pt")
    yield "batch, offsets and masks", lambda: tok(lines, return_offsets_mapping=True, return_special_tokens_mask=True)
    yield "12 languages", lambda: tok(rights)
    yield "one text of 200,000 characters", lambda: tok(long)
    yield "decode 1000 rows", lambda: tok.batch_decode(rows, skip_special_tokens=True)


def worker(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of every case for both libraries, in turn."""
    import transformers

    from pellucid.text.tokenizer import Tokenizer

    transformers.logging.set_verbosity_error()
    path = folder(name)
    both = {"pellucid": Tokenizer.from_folder(path), "transformers": transformers.AutoTokenizer.from_pretrained(path)}
    for tok in both.values():
        tok.pad_token = tok.pad_token or tok.eos_token
        tok.model_max_length = int(1e30)
    ours, theirs = (dict(cases(tok)) for tok in both.values())
    found = {}
    for case, run in ours.items():
        times: dict[str, list[float]] = {lib: [] for lib in both}
        for turn in range(rounds + 1):
            for lib, each in (("pellucid", run), ("transformers", theirs[case])):
                gc.collect()
                start = time.perf_counter()
                each()
                if turn:
                    times[lib].append(time.perf_counter() - start)
        found[case] = summary(times)
    lines, rights, _ = texts()
    same = sum(a == b for a, b in zip(both["pellucid"](lines)["input_ids"], both["transformers"](lines)["input_ids"]))
    return {"cases": found, "same_rows": same}


def speed(args: argparse.Namespace) -> None:
    figures: dict[str, Any] = {}
    check = {}
    for threads in ("1", str(os.cpu_count())):
        for name in args.names:
            command = [sys.executable, __file__, "worker", name, str(args.rounds)]
            environment = os.environ | {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            result = json.loads(done.stdout.strip().splitlines()[-1])
            check[f"{name}, equal rows of {LINES}"] = result["same_rows"]
            for case, found in result["cases"].items():
                figures[f"{name}, {threads} threads: {case}"] = found
    finish(args, "tokenizers, seconds", figures, check)


def stream(args: argparse.Namespace) -> None:
    """Microseconds an id, for growing lengths: linear if they are equal."""
    from pellucid.text.stream import Stream
    from pellucid.text.tokenizer import Tokenizer

    for name in args.names:
        tok = Tokenizer.from_folder(folder(name))
        ids = (tok.encode(texts()[2], add_special_tokens=False) * 3)[:100_000]
        for count in (1_000, 10_000, len(ids)):
            for stop in ((), ("\n\nNobody:", "###", "</answer>")):
                best = []
                for _ in range(3):
                    one = Stream(tok, stop=stop)
                    start = time.perf_counter()
                    for id in ids[:count]:
                        one.add(id)
                    one.end()
                    best.append(time.perf_counter() - start)
                print(f"{name:14} {count:7} ids, {len(stop)} stops: {min(best) / count * 1e6:.2f} us an id")


def memory(args: argparse.Namespace) -> None:
    from pellucid.text.tokenizer import Tokenizer

    for name in args.names:
        tok = Tokenizer.from_folder(folder(name))
        for i in range(int(args.million * 1e6) + 1):
            tok.decode(tok(f"text {i} of many {i * 7919}", truncation=True, max_length=16)["input_ids"])
            if i in (1_000, 100_000, 250_000, 500_000) or i == args.million * 1e6:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"{name:14} {i:8} encodes: {pages * resource.getpagesize() / 2**20:.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "stream", "memory"):
        command = commands.add_parser(name)
        command.add_argument("--names", nargs="+", default=NAMES)
        command.add_argument("--rounds", type=int, default=15)
        command.add_argument("--record", action="store_true")
        command.add_argument("--million", type=float, default=1)
    commands.add_parser("worker").add_argument("rest", nargs=2)
    args = parser.parse_args()
    match args.command:
        case "worker":
            print(json.dumps(worker(args.rest[0], int(args.rest[1]))))
        case "speed":
            speed(args)
        case "stream":
            stream(args)
        case "memory":
            memory(args)


if __name__ == "__main__":
    main()
