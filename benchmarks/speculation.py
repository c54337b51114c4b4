"""What guesses bring, by how often they are right: every figure is a ratio to plain greedy in one process, interleaved.

    python benchmarks/speculation.py make DIR                              the 160m Llama of shared/bench/peers.py, bf16
    python benchmarks/speculation.py forced DIR [--rounds 5] [--record]    a drafter that is right as often as told
    python benchmarks/speculation.py story [--rounds 5] [--record]         all drafters, the small model: the same ids?

`forced` knows the greedy text and spoils each token that it guesses with a probability of 1 - a. How much it guesses is
decided as for every drafter (engine/speculation/pace.py), at most `--tokens`. A text of 16 tokens is continued by
`--new`. The ratio is plain seconds over its own: 1 is as fast as without. A prefix is how many tokens were the same as
plain greedy's before the first that was not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from compare import finish
from engine import in_turns, load, ratios, summary
from pellucid import AutoModelForCausalLM, AutoTokenizer
from pellucid.engine.decoding import Guess, Speculation
from pellucid.engine.engine import Engine
from pellucid.engine.request import Request
from pellucid.engine.sequence import Feed, Seen
from pellucid.engine.speculation import DraftModel, EarlyExit, Habits, OtherTokenizer, PromptLookup, SuffixLookup
from pellucid.engine.speculation.pace import Paces

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job

ACCEPTANCES = (0.0, 0.5, 0.8, 1.0)
VOCAB, PROMPT = 32000, 16


@dataclass(frozen=True)
class Forced:
    """Guesses a known text, and spoils each token with a probability of 1 - right."""

    text: Sequence[int]
    right: float
    tokens: int
    seed: int

    def drafter(self, job: Job) -> ForcedDrafter:
        return ForcedDrafter(self, Paces(job), torch.Generator().manual_seed(self.seed))


@dataclass
class ForcedDrafter:
    how: Forced
    paces: Paces
    chance: torch.Generator

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield from ()
        return [self._guess(line, min(n, self.how.tokens)) for line, n in zip(lines, most)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        self.paces.judged(line, [1.0] * len(guess.tokens), accepted)

    def _guess(self, line: Line, most: int) -> Guess:
        begin = len(line.output.ids)
        coming = self.how.text[begin : begin + self.paces.length(line, [1.0] * most)]
        spoiled = (torch.rand(len(coming), generator=self.chance) >= self.how.right).tolist()
        return Guess([token ^ 1 if wrong else token for token, wrong in zip(coming, spoiled)])


def continued(model: Any, ids: Sequence[int], new: int, how: Speculation | None) -> tuple[float, Any]:
    """Seconds of all steps but the one that reads the prompt, and the output."""
    engine = Engine(model)
    job = engine.add(Request(ids=ids, max_new=new, speculation=how))
    engine.step()
    start = time.perf_counter()
    while engine.busy:
        engine.step()
    return time.perf_counter() - start, job.result()[0]


def same(ids: Sequence[int], expected: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(ids, expected)) if a != b), len(expected))


def measure(args: argparse.Namespace, what: str, model: Any, ids: Sequence[int], hows: dict[str, Any]) -> None:
    """Every way in turns; `hows` are made from the plain output and the number of the round."""
    _, plain = continued(model, ids, args.new, None)
    outputs: dict[str, list[Any]] = {name: [] for name in hows}

    def run(name: str) -> float:
        taken, output = continued(model, ids, args.new, hows[name](plain.ids, len(outputs[name])))
        outputs[name].append(output)
        return taken

    times = in_turns(args.rounds, {name: (lambda name=name: run(name)) for name in hows})
    figures: dict[str, Any] = {"plain, ms a token": summary([1000 * s / (args.new - 1) for s in times["plain"]])}
    check: dict[str, Any] = {}
    for name in hows:
        check[f"{name}, same prefix of {args.new}"] = min(same(o.ids, plain.ids) for o in outputs[name])
        if name != "plain":
            drafted, accepted = (sum(getattr(o, n) for o in outputs[name]) for n in ("drafted", "accepted"))
            figures[name] = {
                "speed": ratios(times["plain"], times[name]),
                "drafted": round(drafted / len(outputs[name]), 1),
                "accepted": round(accepted / len(outputs[name]), 1),
            }
    finish(args, what, figures, check)


def forced(args: argparse.Namespace) -> None:
    ids = torch.randint(3, VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(0)).tolist()
    hows: dict[str, Any] = {"plain": lambda text, turn: None}
    for right in ACCEPTANCES:
        hows[f"acceptance {right}"] = lambda text, turn, right=right: Forced(text, right, args.tokens, turn)
    measure(
        args, f"speculation at forced acceptance, bf16, {torch.get_num_threads()} threads", load(args.dir), ids, hows
    )


def story(args: argparse.Namespace) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(), AutoTokenizer.from_pretrained()
    ids = tokenizer("Once upon a time")["input_ids"]
    bold = Habits(adaptive=False, threshold=0.0, tokens=4)
    ways: dict[str, Speculation | None] = {
        "plain": None,
        "prompt lookup": PromptLookup(), "prompt lookup, always": PromptLookup(adaptive=False),
        "suffix lookup": SuffixLookup(), "suffix lookup, always": SuffixLookup(adaptive=False),
        "early exit": EarlyExit(3), "early exit, always": EarlyExit(3, bold),
        "draft model, always": DraftModel(model, bold),
        "other tokenizer, always": OtherTokenizer(model, tokenizer, tokenizer, bold),
    }  # fmt: skip
    hows = {name: (lambda text, turn, how=how: how) for name, how in ways.items()}
    measure(args, "drafters, stories260K, float32", model, ids, hows)


def make(folder: str) -> None:
    """The checkpoint, written by the reference library."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(
        vocab_size=VOCAB, max_position_embeddings=4096, rope_theta=500000.0, tie_word_embeddings=False, bos_token_id=1,
        eos_token_id=2, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=12, head_dim=64,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("dir")
    for name, new in (("forced", 128), ("story", 200)):
        command = commands.add_parser(name)
        if name == "forced":
            command.add_argument("dir")
            command.add_argument("--tokens", type=int, default=10)
        command.add_argument("--new", type=int, default=new)
        command.add_argument("--rounds", type=int, default=5)
        command.add_argument("--record", action="store_true")
    args = parser.parse_args()
    match args.command:
        case "make":
            make(args.dir)
        case "forced":
            forced(args)
        case "story":
            story(args)


if __name__ == "__main__":
    main()
