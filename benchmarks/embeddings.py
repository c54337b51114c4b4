"""Sentence embeddings beside onnxruntime in float32 and the reference library in bfloat16.

    python benchmarks/embeddings.py [--rounds 5] [--record]          1,024 sentences through MiniLM, mean pooled
    python benchmarks/embeddings.py pipeline [--rounds 5] [--record] the same from texts, a process for each library
    python benchmarks/embeddings.py profile [--dtype bfloat16]       where our time goes

Needs `onnxruntime` and `onnx` beside the packages of the tests. Token ids are made before, but for `pipeline`: what is
timed is the model and the pooling. All sort by length; we pack rows by a budget of tokens, the others pad the best of
their batch sizes (measured here: BATCHES). The libraries take turns (A B C D …), and medians with extremes are printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pellucid
from compare import finish
from engine import in_turns, ratios, seconds, summary
from pellucid.tasks.flow import rectangle

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MODEL, LINES, SENTENCES = DATA / "models" / "minilm", DATA / "sentiment" / "rt-polarity.pos", 1024
BUDGET = {"float32": 2048, "bfloat16": 2048}  # tokens of one of our forwards
NAMES = ("ours, float32", "onnxruntime, float32", "ours, bfloat16", "transformers, bfloat16")
BATCHES = {"onnxruntime": 8, "transformers": 16}  # sentences, the fastest of 8, 16, 32 and 64
Rows = Sequence[Sequence[int]]
Run = Callable[[dict[str, Tensor]], Tensor]


def sentences(count: int) -> list[list[int]]:
    tokenizer = pellucid.AutoTokenizer.from_pretrained(str(MODEL))
    lines = LINES.read_text(encoding="latin-1").splitlines()[:count]
    return [tokenizer.encode(line) for line in lines]


def batches(rows: Rows, size: int, tokens: bool = False) -> Iterator[list[int]]:
    """Numbers of rows that go together, the shortest first: so many, or as many as have so many tokens."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    start, count = 0, 0
    for end, i in enumerate(order):
        weight = len(rows[i]) if tokens else 1
        if end > start and count + weight > size:
            yield order[start:end]
            start, count = end, 0
        count += weight
    yield order[start:]


def embed(run: Run, rows: Rows, groups: Sequence[Sequence[int]]) -> Tensor:
    """The mean of each row's states, [B, D] in float32."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in groups:
        given = rectangle([rows[i] for i in group], torch.device("cpu"))
        mask_BT1 = given["attention_mask"].unsqueeze(-1)
        states_BTD = run(given).float() * mask_BT1
        for i, mean_D in zip(group, states_BTD.sum(1) / mask_BT1.sum(1)):
            found[i] = mean_D
    return torch.stack(found)


def ours(dtype: str) -> Run:
    model = pellucid.AutoModel.from_pretrained(str(MODEL), dtype=dtype)
    return lambda given: model(**given).last_hidden_state


def theirs(dtype: str) -> Run:
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(str(MODEL), dtype=getattr(torch, dtype)).eval()
    return lambda given: model(**given).last_hidden_state


def onnx() -> Run:
    """The reference's model in onnxruntime, all optimizations on, as many threads as cores."""
    import onnxruntime
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model: Any = AutoModel.from_pretrained(str(MODEL), attn_implementation="eager").eval()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

    names = ["input_ids", "attention_mask"]
    given = rectangle([[101, 7592, 102], [101, 102]], torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        axes = {name: {0: "batch", 1: "time"} for name in [*names, "states"]}
        torch.onnx.export(
            States(), tuple(given[name] for name in names), str(path), input_names=names, output_names=["states"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(None, {name: given[name].numpy() for name in names})[0])


def speed(args: argparse.Namespace) -> None:
    rows = sentences(args.sentences)
    makers = {
        "ours, float32": (partial(ours, "float32"), list(batches(rows, args.budget or BUDGET["float32"], tokens=True))),
        "onnxruntime, float32": (onnx, list(batches(rows, BATCHES["onnxruntime"]))),
        "ours, bfloat16": (
            partial(ours, "bfloat16"), list(batches(rows, args.budget or BUDGET["bfloat16"], tokens=True))
        ),
        "transformers, bfloat16": (partial(theirs, "bfloat16"), list(batches(rows, BATCHES["transformers"]))),
    }  # fmt: skip
    with torch.inference_mode():
        runs = {name: (make(), groups) for name, (make, groups) in makers.items()}
        exact = embed(theirs("float32"), rows, list(batches(rows, 32)))
        check = {}
        for name, (run, groups) in runs.items():
            closest = torch.cosine_similarity(embed(run, rows, groups), exact).min().item()
            check[f"least cosine, {name}"] = round(closest, 6)
        timed = {
            name: partial(lambda run, groups: len(rows) / seconds(partial(embed, run, rows, groups)), run, groups)
            for name, (run, groups) in runs.items()
        }
        found = in_turns(args.rounds, timed)
    figures: dict[str, Any] = {f"{name}, sentences/s": summary(values) for name, values in found.items()}
    figures["ratio, float32"] = ratios(found["ours, float32"], found["onnxruntime, float32"])
    figures["ratio, bfloat16"] = ratios(found["ours, bfloat16"], found["transformers, bfloat16"])
    assert check["least cosine, ours, float32"] > 0.9999
    finish(args, f"{len(rows)} sentences through MiniLM, mean pooled", figures, check)


def texts(count: int) -> list[str]:
    return LINES.read_text(encoding="latin-1").splitlines()[:count]


def from_texts(name: str, lines: Sequence[str]) -> Callable[[], Tensor]:
    """Texts to vectors of length 1: our pipeline, or a tokenizer, batches, a model and a mean."""
    library, dtype = name.split(", ")
    if library == "ours":
        made = pellucid.pipeline("sentence-embedding", str(MODEL), dtype=dtype)
        return lambda: torch.stack(made(lines, return_tensors=True))
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(MODEL))
    run, size = onnx() if library == "onnxruntime" else theirs(dtype), BATCHES[library]

    def embedded() -> Tensor:
        rows = tokenizer(lines)["input_ids"]
        return torch.nn.functional.normalize(embed(run, rows, list(batches(rows, size))), dim=-1)

    return embedded


def worker(args: argparse.Namespace) -> None:
    """One library in this process: its vectors in a file, then a rate for each line that is read."""
    lines = texts(args.sentences)
    with torch.inference_mode():
        run = from_texts(args.name, lines)
        torch.save(run(), args.vectors)
        print("ready", flush=True)
        for _ in sys.stdin:
            print(len(lines) / seconds(run), flush=True)


@contextmanager
def process(name: str, args: argparse.Namespace, folder: str) -> Iterator[Callable[[], float]]:
    """A process of its own, as who uses that library has it, which works when it is asked to."""
    vectors = str(Path(folder) / name)
    command = [
        sys.executable,
        __file__,
        "worker",
        "--sentences",
        str(args.sentences),
        "--name",
        name,
        "--vectors",
        vectors,
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    ) as started:
        assert started.stdin and started.stdout
        for line in started.stdout:
            if line == "ready\n":
                break
        asked, answers = started.stdin, started.stdout

        def rate() -> float:
            asked.write("go\n")
            return float(answers.readline())

        yield rate
        asked.close()


def through_pipeline(args: argparse.Namespace) -> None:
    """From texts to vectors: `pipeline("sentence-embedding")` beside the others, each in a process of its own."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        timed = {name: stack.enter_context(process(name, args, folder)) for name in NAMES}
        found = in_turns(args.rounds, timed)
        vectors = {name: torch.load(Path(folder) / name) for name in NAMES}
        with torch.inference_mode():
            exact = from_texts("transformers, float32", texts(args.sentences))()
    closest = {name: torch.cosine_similarity(each, exact).min().item() for name, each in vectors.items()}
    check = {f"least cosine, {name}": round(value, 6) for name, value in closest.items()}
    figures: dict[str, Any] = {f"{name}, sentences/s": summary(values) for name, values in found.items()}
    figures["ratio, float32"] = ratios(found["ours, float32"], found["onnxruntime, float32"])
    figures["ratio, bfloat16"] = ratios(found["ours, bfloat16"], found["transformers, bfloat16"])
    assert check["least cosine, ours, float32"] > 0.9999
    finish(args, f"{args.sentences} texts to vectors of MiniLM, by the pipeline, a process each", figures, check)


def profile(args: argparse.Namespace) -> None:
    rows, run = sentences(args.sentences), ours(args.dtype)
    groups = list(batches(rows, args.budget or BUDGET[args.dtype], tokens=True))
    with torch.inference_mode():
        embed(run, rows, groups)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            embed(run, rows, groups)
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("speed", "pipeline", "profile", "worker"), default="speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--dtype", choices=tuple(BUDGET), default="bfloat16")
    parser.add_argument("--budget", type=int, help="tokens of one of our forwards")
    parser.add_argument("--sentences", type=int, default=SENTENCES)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--vectors", help=argparse.SUPPRESS)
    args = parser.parse_args()
    {"speed": speed, "pipeline": through_pipeline, "profile": profile, "worker": worker}[args.command](args)


if __name__ == "__main__":
    main()
