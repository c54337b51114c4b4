"""The engine on an accelerator beside the reference library on the same one: numbers, speed, and what was recorded.

    python benchmarks/accelerator.py [--shape 160m|1b|7b] [--parts numbers,speed,…] [--rounds 3] [--record]

It makes a random Llama of that shape. `--device cpu --shape tiny` runs all of it without an accelerator, to try the
script; figures of that mean nothing. Without an accelerator it says so, and ends.

    numbers   float32: greedy ids of 8 prompts of mixed lengths are those of the reference; bf16, fp16: the distance of
              the logits to those in float32, beside that of the reference
    load      seconds of from_pretrained onto the device, the file in the system's cache
    speed     tokens per second of `generate`, greedy, at batch 1, 8 and 32, in turns with the reference; a prompt of
              2,048 tokens; and the sizes recorded in the warm-up, and after it: the second has to be 0
    static    the same at batch 1 beside the reference's compiled steps over a static cache
    packed    tokens per second at batch 1 of packed formats; NF4 beside bitsandbytes, where it is installed
    profile   where the time of a step goes: kernels on the device, and milliseconds of the host
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pellucid
from compare import finish
from engine import VOCAB, in_turns, summary
from pellucid.engine.captured import Captured, fixed_pages
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request

SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4},
    "160m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}  # fmt: skip
LENGTHS = (1, 7, 31, 32, 33, 100, 250, 400)
BATCHES = (1, 8, 32)
PARTS = ("numbers", "load", "speed", "static", "packed", "profile")
PROMPT = 128
PACKED = ("nf4", "int8", "fp8", "w4a16", "hqq-4", "q8_0", "q4_k_m")
ROWS = 64  # that the pages are for


def made(shape: str, device: str, folder: str) -> None:
    """A checkpoint with weights loud enough that no two tokens are alike."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=4096, tie_word_embeddings=False, **SHAPES[shape])
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)


def mapped(device: str) -> str | None:
    """The reference wants a package of its own for a map, even to the processor."""
    return None if device == "cpu" else device


def both(folder: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    ours = pellucid.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device=device)
    return ours, AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=mapped(device)).eval()


def engine_of(model: Any) -> tuple[Engine, Captured]:
    """With the steps of an accelerator, elsewhere without the recording."""
    free = None if model.device.type == "cuda" else 2**28
    engine = Engine(model, fixed_pages(model, free, rows=ROWS))
    engine.main.captured = engine.main.captured or Captured(engine.main)
    return engine, engine.main.captured


def prompts(lengths: Sequence[int]) -> list[list[int]]:
    chance = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCAB, (n,), generator=chance).tolist() for n in lengths]


# ------------------------------------------------------------------------------------------------ numbers


@torch.no_grad()
def last_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """After each row, float32 on the CPU."""
    found = [model(torch.tensor([row], device=model.device)).logits[0, -1] for row in rows]
    return torch.stack(found).float().cpu()


def same_ids(folder: str, device: str) -> dict[str, Any]:
    """Float32: what the engine writes, and what the reference writes of each prompt alone."""
    ours, theirs = both(folder, torch.float32, device)
    rows, new = prompts(LENGTHS), 32
    engine, _ = engine_of(ours)
    jobs = engine.generate([Request(ids=row, max_new=new) for row in rows])
    equal = 0
    for job, row in zip(jobs, rows):
        ids = torch.tensor([row], device=device)
        wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
                                 min_new_tokens=new, pad_token_id=0)[0, len(row) :]  # fmt: skip
        equal += job.result()[0].ids == wanted.tolist()
    return {"rows with the reference's ids": equal, "of": len(rows)}


def distances(folder: str, device: str) -> dict[str, Any]:
    """What the engine's decode steps say in 16 bits, and the reference, beside its float32."""
    rows = prompts(LENGTHS)
    exact = last_logits(both(folder, torch.float32, device)[1], rows)
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        ours, theirs = both(folder, dtype, device)
        engine, _ = engine_of(ours)
        seqs = [engine.sequence() for _ in rows]
        for row, seq in zip(rows, seqs):  # all but the last tokens are read before, so that those go through a step
            if len(row) > 1:
                list(engine.stream(Request(ids=row[:-1], max_new=1), seq))
        asked = [Request(ids=row, max_new=1, keep=frozenset({"logits"})) for row in rows]
        jobs = [engine.add(request, seq) for request, seq in zip(asked, seqs)]
        while engine.busy:
            engine.step()
        said = torch.stack([job.result()[0].logits[0] for job in jobs])
        far = [float((x - exact).abs().max() / exact.abs().max()) for x in (said, last_logits(theirs, rows))]
        found[str(dtype).removeprefix("torch.")] = {"ours": round(far[0], 5), "reference": round(far[1], 5)}
    return found


# ------------------------------------------------------------------------------------------------ speed


def writes(model: Any, ids: Tensor, new: int, **more: Any) -> float:
    """Seconds of a greedy `generate`."""
    start = time.perf_counter()
    model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new, min_new_tokens=new,
                   pad_token_id=0, **more).cpu()  # fmt: skip
    return time.perf_counter() - start


def beside(args: argparse.Namespace, ours: Any, theirs: Any, ids: Tensor, new: int, **more: Any) -> dict[str, Any]:
    """Tokens per second of both, in turns, and of the pairs the ratios."""
    made = ids.numel() if new == 1 else len(ids) * new
    runs = {"pellucid": lambda: made / writes(ours, ids, new), "peer": lambda: made / writes(theirs, ids, new, **more)}
    found = in_turns(args.rounds, runs)
    ratio = summary([a / b for a, b in zip(found["pellucid"], found["peer"])])
    print(f"{tuple(ids.shape)} + {new}: {ratio}", flush=True)
    return {name: summary(values) for name, values in found.items()} | {"ratio": ratio}


def speed(args: argparse.Namespace, ours: Any, theirs: Any) -> dict[str, Any]:
    found = {}
    for batch in BATCHES:
        ids = torch.tensor(prompts([PROMPT] * batch), device=args.device)
        found[f"decode, batch {batch}"] = beside(args, ours, theirs, ids, args.new)
    for batch in (1, 8):
        ids = torch.tensor(prompts([args.prompt] * batch), device=args.device)
        found[f"prompt of {args.prompt}, batch {batch}"] = beside(args, ours, theirs, ids, 1)
    ids = torch.tensor(prompts([args.prompt]), device=args.device)
    found[f"decode behind {args.prompt}"] = beside(args, ours, theirs, ids, args.new)
    return found


def recorded(args: argparse.Namespace, ours: Any) -> dict[str, Any]:
    """An engine's recordings over mixed lengths, the second time."""
    engine, steps = engine_of(ours)
    mixed = [Request(ids=row, max_new=n + 5) for row, n in zip(prompts(LENGTHS * 4), LENGTHS * 4)]
    engine.generate(mixed)
    warm = steps.captures
    engine.generate(mixed)
    return {"recorded in the warm-up": warm, "after it": steps.captures - warm, "steps": steps.replays,
            "tokens launched ahead": steps.hits}  # fmt: skip


def static(args: argparse.Namespace, ours: Any, theirs: Any) -> dict[str, Any]:
    ids = torch.tensor(prompts([PROMPT]), device=args.device)
    start = time.perf_counter()
    writes(theirs, ids, args.new, cache_implementation="static")
    first = time.perf_counter() - start
    found = beside(args, ours, theirs, ids, args.new, cache_implementation="static")
    return {"static cache, compiled, batch 1": found | {"the peer's first call, s": round(first, 1)}}


def loads(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    def load(auto: Any, **options: Any) -> float:
        start = time.perf_counter()
        model = auto.from_pretrained(folder, dtype=torch.bfloat16, **options)
        if args.device == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - start
        del model
        return taken

    runs = {
        "pellucid": lambda: load(pellucid.AutoModelForCausalLM, device=args.device),
        "peer": lambda: load(AutoModelForCausalLM, device_map=mapped(args.device)),
    }
    found = in_turns(2, runs)
    ratio = summary([b / a for a, b in zip(found["pellucid"], found["peer"])])
    return {"load, s": {name: summary(values) for name, values in found.items()} | {"ratio": ratio}}


def packed(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Batch 1 and 8 of each format; of NF4 beside the peer's, of the others beside our bfloat16."""
    from click.testing import CliRunner

    from pellucid.cli import main as command

    found: dict[str, Any] = {}
    base = pellucid.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device=args.device)
    peer = bitsandbytes(folder) if args.device == "cuda" else None
    ids = {batch: torch.tensor(prompts([PROMPT] * batch), device=args.device) for batch in (1, 8)}
    for kind in args.packed.split(","):
        out = Path(folder).with_name(f"{Path(folder).name}-{kind}" + (".gguf" if kind.startswith("q") else ""))
        ran = CliRunner().invoke(command, ["quantize", folder, str(out), "--to", kind, "--no-measure"])
        if ran.exit_code:
            found[kind] = ran.output[-300:]
            continue
        try:
            ours = pellucid.AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16, device=args.device)
            for batch, rows in ids.items():
                found[f"{kind}, batch {batch}, peer: our bf16"] = beside(args, ours, base, rows, args.new)
                if kind == "nf4" and peer is not None:
                    found[f"nf4, batch {batch}, peer: bitsandbytes"] = beside(args, ours, peer, rows, args.new)
        except Exception as error:
            found[kind] = f"{type(error).__name__}: {error}"[:300]
        shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink()
    return found


def bitsandbytes(folder: str) -> Any:
    try:
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
        return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map="cuda").eval()
    except Exception as error:
        print(f"bitsandbytes: {type(error).__name__}: {error}"[:300])
        return None


def profile(args: argparse.Namespace, ours: Any) -> dict[str, Any]:
    """Milliseconds of a step: of the device by kernels, and of the host beside it."""
    from torch.profiler import ProfilerActivity, profile

    found: dict[str, Any] = {}
    for batch in (1, 32):
        engine, steps = engine_of(ours)
        jobs = [engine.add(Request(ids=row, max_new=90)) for row in prompts([PROMPT] * batch)]
        for _ in range(20):
            engine.step()
        step, replay = next(reversed(steps._steps.values()))
        if args.device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begin.record()
            for _ in range(20):
                replay()
            end.record()
            torch.cuda.synchronize()
            found[f"replay, batch {batch}, ms"] = round(begin.elapsed_time(end) / 20, 3)
            with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
                replay()
                torch.cuda.synchronize()
            kernels = [e for e in seen.key_averages() if e.device_time_total > 0 and e.cpu_time_total == 0]
            kernels.sort(key=lambda e: -e.device_time_total)
            found[f"kernels, batch {batch}"] = sum(e.count for e in kernels)
            for e in kernels[:14]:
                print(f"  batch {batch}  {e.device_time_total / 1e3:8.3f} ms  {e.count:5d} x  {e.key[:110]}")
        start = time.perf_counter()
        for _ in range(40):
            engine.step()
        found[f"engine step, batch {batch}, ms"] = round((time.perf_counter() - start) / 40 * 1e3, 3)
        with cProfile.Profile() as host:
            for _ in range(20):
                engine.step()
        text = io.StringIO()
        pstats.Stats(host, stream=text).sort_stats("tottime").print_stats(14)
        print("\n".join(text.getvalue().splitlines()[7:]))
        for job in jobs:
            engine.cancel(job)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--packed", default=",".join(PACKED), help="formats of that part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=128, help="tokens that are written")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of the long prompt")
    parser.add_argument("--folder", help="where checkpoints are written; a memory disk is fastest")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no accelerator here: nothing to measure (--device cpu --shape tiny tries the script)")
        return
    torch.set_float32_matmul_precision("highest")
    parts, figures, check = args.parts.split(","), {}, {}
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        folder = str(Path(home) / "model")
        made(args.shape, args.device, folder)
        if "numbers" in parts:
            check |= {"float32": same_ids(folder, args.device)} | distances(folder, args.device)
            print(check, flush=True)
        if "load" in parts:
            figures |= loads(args, folder)
            print(figures, flush=True)
        if {"speed", "static", "profile"} & set(parts):
            ours, theirs = both(folder, torch.bfloat16, args.device)
            if "speed" in parts:
                figures |= speed(args, ours, theirs)
                check["sizes"] = recorded(args, ours)
            if "profile" in parts:
                figures |= profile(args, ours)
            if "static" in parts:
                figures |= static(args, ours, theirs)
            del ours, theirs
        if "packed" in parts:
            figures |= packed(args, folder)
    if args.device == "cuda":
        check["accelerator"] = torch.cuda.get_device_name()
    finish(args, f"accelerator {args.shape}", figures, check)


if __name__ == "__main__":
    main()
