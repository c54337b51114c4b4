"""Pellucid beside llama.cpp, transformers and bitsandbytes on the same weights, in every format: ratios of one run.

    PYTHONPATH=PEERS python benchmarks/packed.py DIR --peers ../shared/bench/peers.py [--only q4_k_m,nf4] [--record]

DIR is what `peers.py make` writes: hf/ and {bf16,q8_0,q4_0,q4_k_m}.gguf of one model. PEERS is a folder with
llama-cpp-python and bitsandbytes. Each measurement is a process; ours and the peers take turns, `--rounds` times. A
ratio is ours over the peer's of the same round: above 1 is faster, but for seconds and GiB.
    prompt      512 tokens, logits of the last one (as llama.cpp), or of all (as transformers' forward)
    decode      32 tokens behind 16, greedy; batch of 8: all tokens counted
    deep        decode behind 2,000 tokens, over decode behind 16
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compare import BATCH, NEW, PROMPT, SHORT, STATISTICS, VOCAB, best, finish, resident_peak

DEEP = 2000
CASES = {  # name: ours, then the peers: (command of peers.py, its file, its options)
    "bf16": ("hf", [("hf", "hf", ["--mode", "bf16"]), ("llamacpp", "bf16.gguf", [])]),
    "q8_0": ("q8_0.gguf", [("llamacpp", "q8_0.gguf", [])]),
    "q4_0": ("q4_0.gguf", [("llamacpp", "q4_0.gguf", [])]),
    "q4_k_m": ("q4_k_m.gguf", [("llamacpp", "q4_k_m.gguf", [])]),
    "nf4": ("hf", [("hf", "hf", ["--mode", "nf4"])]),
}  # fmt: skip
OF_PEER = {"prefill_tok_s": {"hf": "prefill_all_tok_s", "llamacpp": "prefill_tok_s"}}  # which of ours is the same work


def measure(case: str, path: str, repeats: int) -> dict[str, Any]:
    """Ours, in this process; best of `repeats`."""
    import torch

    from pellucid import AutoModelForCausalLM, BitsAndBytesConfig

    base = resident_peak()
    options: dict[str, Any] = {"dtype": torch.bfloat16} if case == "bf16" else {}
    if case == "nf4":
        packing = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=True,
        )  # fmt: skip
        options = {"dtype": torch.bfloat16, "quantization_config": packing}
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(path, **options)
    load = time.perf_counter() - start
    chance = torch.Generator().manual_seed(0)

    def generate(rows: int, length: int, new: int) -> float:
        part = torch.randint(3, VOCAB, (rows, length), generator=chance)  # no prompt begins as one before
        start = time.perf_counter()
        model.generate(
            part, attention_mask=torch.ones_like(part), do_sample=False, max_new_tokens=new, min_new_tokens=new,
            pad_token_id=0,
        )  # fmt: skip
        return time.perf_counter() - start

    def decoding(rows: int, length: int) -> float:
        """Seconds of NEW steps behind a prompt, which the peers do not count either."""
        return min(generate(rows, length, NEW + 1) - generate(rows, length, 1) for _ in range(repeats))

    def steps(length: int) -> float:
        """The same for one row, from the times when its tokens come."""
        clock = Clock()
        part = torch.randint(3, VOCAB, (1, length), generator=chance)
        model.generate(part, do_sample=False, max_new_tokens=NEW + 1, min_new_tokens=NEW + 1, streamer=clock)
        return clock.times[NEW + 1] - clock.times[1]  # the first is the prompt's

    with torch.inference_mode():
        generate(1, 8, NEW)
        own = resident_peak() - base
        ids = torch.randint(3, VOCAB, (1, PROMPT), generator=chance)
        figures = {
            "load_s": load,
            "own_gib": own,  # loaded and some tokens long, without what torch takes
            "prefill_tok_s": PROMPT / best(lambda: generate(1, PROMPT, 1), repeats),
            "prefill_all_tok_s": PROMPT / best(lambda: model(ids), repeats),
            "decode_tok_s": NEW / min(steps(SHORT) for _ in range(repeats)),
            "batch8_tok_s": BATCH * NEW / decoding(BATCH, SHORT),
        }
        figures["peak_rss_gb"] = resident_peak()  # as the peers: before the long prompt
        figures["deep_ratio"] = steps(DEEP) / (NEW / figures["decode_tok_s"])
    return figures


class Clock:
    """A streamer that notes when tokens come."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def checked(folder: Path) -> dict[str, Any]:
    """What the figures rest on: our last logits of each file beside llama.cpp's of the same file."""
    import ctypes

    import llama_cpp
    import torch

    from pellucid import AutoModelForCausalLM

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    ids = [(7919 * i) % (VOCAB - 3) + 3 for i in range(48)]
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.gguf")):
        with torch.inference_mode():
            ours = AutoModelForCausalLM.from_pretrained(path)(torch.tensor([ids])).logits[0, -1].float()
        peer = llama_cpp.Llama(str(path), n_ctx=64, logits_all=False, verbose=False)
        peer.eval(ids)
        theirs = torch.tensor(peer._ctx.get_logits()[:VOCAB])
        cosine = float(torch.nn.functional.cosine_similarity(ours, theirs, 0))
        found[path.stem] = {"cosine of logits": round(cosine, 5), "same token": bool(ours.argmax() == theirs.argmax())}
        peer.close()
    return found


def compared(args: argparse.Namespace) -> None:
    figures: dict[str, Any] = {}
    for case in args.only.split(",") if args.only else CASES:
        ours, peers = CASES[case]
        runs: dict[str, list[dict[str, Any]]] = {"pellucid": [], **{peer: [] for peer, *_ in peers}}
        for _ in range(args.rounds):
            mine = [sys.executable, __file__, str(Path(args.dir) / ours), "--worker", case]
            runs["pellucid"].append(run([*mine, "--repeats", str(args.repeats)]))
            for peer, file, options in peers:
                command = [sys.executable, args.peers, peer, str(Path(args.dir) / file), *options]
                runs[peer].append(run([*command, "--repeats", str(args.repeats)]))
        for name in runs["pellucid"][0]:
            figures[f"{case} {name}"] = {"pellucid": spread([each[name] for each in runs["pellucid"]])}
            for peer, *_ in peers:
                mine_name = OF_PEER.get(name, {}).get(peer, name)
                if name in runs[peer][0]:
                    values = [each[name] for each in runs[peer]]
                    ratios = [a[mine_name] / b for a, b in zip(runs["pellucid"], values)]
                    figures[f"{case} {name}"] |= {peer: spread(values), f"ratio to {peer}": spread(ratios)}
            print(f"{case} {name}", json.dumps(figures[f"{case} {name}"]), flush=True)
    finish(args, "every format, one model, beside the peers", figures, checked(Path(args.dir)))


def spread(values: list[float]) -> dict[str, float]:
    return {name: round(f(values), 3) for name, f in STATISTICS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--peers", default="../shared/bench/peers.py")
    parser.add_argument("--only", help="some of " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="in each process, of which the best counts")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--worker", metavar="CASE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args.worker, args.dir, args.repeats)))
    else:
        compared(args)


if __name__ == "__main__":
    main()
