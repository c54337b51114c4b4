"""The engine on an accelerator beside the reference library on the same one: numbers, speed, and what was recorded.

    python benchmarks/accelerator.py [--shape 160m|1b] [--rounds 3] [--record]      about 3 minutes on one card

It makes a random Llama of that shape. `--device cpu --shape tiny` runs all of it without an accelerator, to try the
script; figures of that mean nothing. Without an accelerator it says so, and ends.

    float32     greedy ids of 8 prompts of mixed lengths are those of the reference
    bf16, fp16  the distance of the logits to those in float32, over that of the reference
    speed       tokens per second of greedy decoding at batch 1, 8 and 32, in turns with the reference
    recorded    sizes recorded in the warm-up, and after it, over mixed lengths: the second has to be 0
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
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
}  # fmt: skip
LENGTHS = (1, 7, 31, 32, 33, 100, 250, 400)
BATCHES = (1, 8, 32)
ROWS = 64  # that the pages are for


def made(shape: str, device: str, folder: str) -> None:
    """A checkpoint with weights loud enough that no two tokens are alike."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=2048, tie_word_embeddings=False, **SHAPES[shape])
    with torch.device(device):
        model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    model.bfloat16().save_pretrained(folder)


def both(folder: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    ours = pellucid.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    return ours, AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()


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


def speed(args: argparse.Namespace, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tokens per second; the prompts are read in both."""
    ours, theirs = both(folder, torch.bfloat16, args.device)
    engine, steps = engine_of(ours)
    mixed = [Request(ids=row, max_new=n + 5) for row, n in zip(prompts(LENGTHS * 4), LENGTHS * 4)]
    engine.generate(mixed)
    figures: dict[str, Any] = {}
    for batch in BATCHES:
        rows = prompts([128] * batch)
        ids = torch.tensor(rows, device=args.device)

        def here(rows: list[list[int]] = rows) -> float:
            start = time.perf_counter()
            engine.generate([Request(ids=row, max_new=args.new) for row in rows])
            return len(rows) * args.new / (time.perf_counter() - start)

        def there(ids: Tensor = ids) -> float:
            start = time.perf_counter()
            theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=args.new,
                            min_new_tokens=args.new, pad_token_id=0).cpu()  # fmt: skip
            return len(ids) * args.new / (time.perf_counter() - start)

        found = in_turns(args.rounds, {"pellucid": here, "transformers": there})
        ratio = summary([a / b for a, b in zip(found["pellucid"], found["transformers"])])
        figures[f"batch {batch}"] = {name: summary(values) for name, values in found.items()} | {"ratio": ratio}
    warm = steps.captures
    engine.generate(mixed)
    after = {"recorded in the warm-up": warm, "after it": steps.captures - warm, "steps": steps.replays,
             "tokens launched ahead": steps.hits}  # fmt: skip
    return figures, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=128, help="tokens that are written")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("no accelerator here: nothing to measure (--device cpu --shape tiny tries the script)")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        made(args.shape, args.device, folder)
        check = {"float32": same_ids(folder, args.device)} | distances(folder, args.device)
        figures, check["sizes"] = speed(args, folder)
    if args.device == "cuda":
        check["accelerator"] = torch.cuda.get_device_name()
    finish(args, f"accelerator {args.shape}", figures, check)


if __name__ == "__main__":
    main()
