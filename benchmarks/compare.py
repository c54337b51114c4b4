"""Pellucid beside transformers on this machine: every figure is a ratio taken in one run, interleaved.

    python benchmarks/compare.py startup [--rounds 7] [--record]   imports, tokenizer, --help, a story from start to end
    python benchmarks/compare.py run [--rounds 7] [--record]       `pellucid run` from start to result, and import torch
    python benchmarks/compare.py make DIR                          a random Llama of 1.1 billion parameters, bf16
    python benchmarks/compare.py model DIR [--rounds 5] [--record] load, memory, prompt of 512, decoding, batch of 8

Each measurement is a process of its own; the two libraries take turns (A B A B …), and medians with the smallest and
the largest value are printed. `--record` appends them to benchmarks/records.jsonl with commit, machine and check.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "records.jsonl"
STORY = HERE.parent / "src" / "pellucid" / "default_model"
LIBRARIES = ("pellucid", "transformers")
STATISTICS = (("median", statistics.median), ("min", min), ("max", max))
VOCAB, PROMPT, SHORT, NEW, BATCH = 32000, 512, 16, 32, 8

# ------------------------------------------------------------------------------------ one process, one library


def tell_story(library: str) -> str:
    """Process start to the last of 50 tokens, the small model, greedy."""
    if library == "pellucid":
        from pellucid import AutoModelForCausalLM, AutoTokenizer
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # type: ignore[no-redef]
    tokenizer = AutoTokenizer.from_pretrained(str(STORY))
    model = AutoModelForCausalLM.from_pretrained(str(STORY))
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    output = model.generate(ids, do_sample=False, max_new_tokens=50, min_new_tokens=50)
    return str(tokenizer.decode(output[0], skip_special_tokens=True))


def measure_model(library: str, folder: str) -> dict[str, Any]:
    """Load, peak memory, prompt, decode and a batch of 8, in this process; best of 3 each."""
    import torch

    base = resident_peak()
    if library == "pellucid":
        from pellucid import AutoModelForCausalLM
    else:
        from transformers import AutoModelForCausalLM  # type: ignore[no-redef]
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    load = time.perf_counter() - start
    ids = torch.randint(3, VOCAB, (BATCH, PROMPT), generator=torch.Generator().manual_seed(0))

    def generate(rows: int, new: int = NEW) -> Any:
        part = ids[:rows, :SHORT]
        return model.generate(
            part, attention_mask=torch.ones_like(part), do_sample=False, max_new_tokens=new, min_new_tokens=new,
            pad_token_id=0,
        )  # fmt: skip

    with torch.inference_mode():
        start = time.perf_counter()
        generate(1, 1)
        first = time.perf_counter() - start
        peak = resident_peak()
        prefill = best(lambda: model(ids[:1]))
        decode = best(lambda: generate(1))
        batch = best(lambda: generate(BATCH))
        logits = model(ids[:1, :64]).logits.float()
        greedy = generate(1)[0, SHORT:].tolist()
    return {
        "load_s": load, "first_token_s": first, "base_gib": base, "peak_after_first_gib": peak,
        "prefill_tok_s": PROMPT / prefill, "decode_tok_s": NEW / decode, "batch8_tok_s": BATCH * NEW / batch,
        "greedy": greedy, "logits": logits[0, -1, :8].tolist(),
    }  # fmt: skip


def best(run: Callable[[], Any], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def resident_peak() -> float:
    """GiB this process has held at most."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make(folder: str) -> None:
    """The checkpoint, written by the reference library."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, max_position_embeddings=4096, rope_theta=500000.0,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="50GB")


# ------------------------------------------------------------------------------------ many processes, in turn


def wall(command: list[str]) -> float:
    """Seconds from the start of a process to its end, or to the line it prints when its work is done."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        first = process.stdout.readline() if "worker" in command else b""
        seconds = time.perf_counter() - start
        process.stdout.read()
        if process.wait():
            sys.exit(f"failed: {' '.join(command)}")
    return seconds if first else time.perf_counter() - start


def worker(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "worker", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def startup(args: argparse.Namespace) -> None:
    python = sys.executable
    encode = f"t = AutoTokenizer.from_pretrained({str(STORY)!r}); t('Once upon a time')"
    modules = {"pellucid": "pellucid", "transformers": "transformers.cli.transformers"}
    commands = {
        "bare python": {"python": [python, "-c", "pass"]},
        "import": {lib: [python, "-c", f"import {lib}"] for lib in LIBRARIES},
        "tokenizer": {lib: [python, "-c", f"from {lib} import AutoTokenizer; {encode}"] for lib in LIBRARIES},
        "help": {lib: [python, "-m", modules[lib], "--help"] for lib in LIBRARIES},
        "import torch": {"torch": [python, "-c", "import torch"]},
        "story of 50 tokens": {lib: [python, __file__, "worker", "story", lib] for lib in LIBRARIES},
    }  # fmt: skip
    stories = {lib: worker("story", lib)["text"] for lib in LIBRARIES}
    check = {"same text": stories["pellucid"] == stories["transformers"]}
    figures: dict[str, Any] = {}
    for name, pair in commands.items():
        times: dict[str, list[float]] = {lib: [] for lib in pair}
        for turn in range(args.rounds + 1):
            for lib, command in pair.items():
                seconds = wall(command)
                if turn:  # the first one warms the file cache
                    times[lib].append(seconds)
        figures[name] = summary(times)
    finish(args, "startup, whole processes, seconds", figures, check)


def run(args: argparse.Namespace) -> None:
    """Whole processes: `pellucid run` for one text with a small model, and `import torch` alone."""
    from pipelines import checkpoint

    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", str(STORY.parent)], check=True
    )  # as an installation has it
    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder))
        asked = ["run", "sentiment-analysis", "-m", folder, "What a film!", "--json"]
        commands = {"run": [sys.executable, "-m", "pellucid", *asked], "torch": [sys.executable, "-c", "import torch"]}
        times: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(args.rounds + 1):
            for name, command in commands.items():
                seconds = wall(command)
                if turn:
                    times[name].append(seconds)
        said = subprocess.run(commands["run"], check=True, capture_output=True, text=True).stdout
    figures = summary(times)
    ratios = [a / b for a, b in zip(times["run"], times["torch"])]
    figures["ratio"] = {k: round(f(ratios), 3) for k, f in STATISTICS}
    finish(args, "pellucid run from start to end with a BERT 6 x 384, seconds", figures, {"a label": "label" in said})


def model(args: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, Any]]] = {lib: [] for lib in LIBRARIES}
    for _ in range(args.rounds):
        for lib in LIBRARIES:
            runs[lib].append(worker("model", lib, args.dir))
    names = [n for n in runs["pellucid"][0] if n not in ("greedy", "logits")]
    figures = {n: summary({lib: [run[n] for run in runs[lib]] for lib in LIBRARIES}) for n in names}
    ours, theirs = runs["pellucid"][0], runs["transformers"][0]
    check = {
        "same greedy tokens of 32": sum(a == b for a, b in zip(ours["greedy"], theirs["greedy"])),
        "largest difference of 8 logits": max(abs(a - b) for a, b in zip(ours["logits"], theirs["logits"])),
    }
    figures["file_gib"] = sum(p.stat().st_size for p in Path(args.dir).glob("*.safetensors")) / 2**30
    finish(args, "1.1 billion parameters, bf16", figures, check)


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Median, least and most for each library, and the median of the ratios pair by pair."""
    found: dict[str, Any] = {lib: {k: round(f(values), 4) for k, f in STATISTICS} for lib, values in times.items()}
    if set(LIBRARIES) <= set(times):
        ratios = [a / b for a, b in zip(times["pellucid"], times["transformers"])]
        found["ratio"] = {k: round(f(ratios), 3) for k, f in STATISTICS}
    return found


def finish(args: argparse.Namespace, what: str, figures: dict[str, Any], check: dict[str, Any]) -> None:
    for name, found in figures.items():
        print(f"{name:24}", json.dumps(found))
    print(f"{'check':24}", json.dumps(check))
    if not args.record:
        return
    record = {
        "date": time.strftime("%Y-%m-%d"), "what": what, "commit": commit(),
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]), "rounds": args.rounds,
        "machine": machine(), "figures": figures, "checked": check,
    }  # fmt: skip
    with RECORDS.open("a") as file:
        file.write(json.dumps(record) + "\n")


def commit() -> str:
    run = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return subprocess.run(run, capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, Any]:
    import torch
    import transformers

    model_name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            model_name = line.split(":")[1].strip()
            break
    data = torch.ones(2**28)
    data.sum()
    return {
        "cpu": model_name, "cores": os.cpu_count(),
        "read_gb_per_s": round(data.numel() * 4 / best(data.sum, 5) / 1e9, 1),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, rounds in (("startup", 7), ("run", 7), ("model", 5)):
        command = commands.add_parser(name)
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--record", action="store_true")
        if name == "model":
            command.add_argument("dir")
    commands.add_parser("make").add_argument("dir")
    commands.add_parser("worker").add_argument("rest", nargs="+")
    args = parser.parse_args()
    match args.command:
        case "startup":
            startup(args)
        case "run":
            run(args)
        case "model":
            model(args)
        case "make":
            make(args.dir)
        case "worker" if args.rest[0] == "story":
            print(json.dumps({"text": tell_story(args.rest[1])}), flush=True)
        case "worker":
            print(json.dumps(measure_model(args.rest[1], args.rest[2])))


if __name__ == "__main__":
    main()
