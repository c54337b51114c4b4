"""Rendering of chat templates beside transformers: our time as a share of theirs, so below 1 is faster.

    python benchmarks/chat_templates.py [--rounds 40] [--record]

Each template in tests/data/chat_templates renders one message, 21 messages and 401 messages, in turns with the
reference's `render_jinja_template` (A B A B …), in CPU time of the thread; the ratio is of the fastest tenths. Texts
are compared first. `--record` appends the medians over all templates to benchmarks/records.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from compare import finish
from pellucid.text.chats.template import render

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data" / "chat_templates"
USER = {"role": "user", "content": "What is the weather like in Köln today? " * 5}
ANSWER = {"role": "assistant", "content": "I have no idea about that, sorry. " * 10}
TALKS = {
    "1 message": [USER],
    "21 messages": [USER, ANSWER] * 10 + [USER],
    "401 messages": [USER, ANSWER] * 200 + [USER],
}
FIXED = {"tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}


def fastest_tenth(times: list[float]) -> float:
    return sorted(times)[len(times) // 10]


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    pairs = []
    for _ in range(rounds):
        start = time.thread_time()
        theirs()
        middle = time.thread_time()
        ours()
        pairs.append((middle - start, time.thread_time() - middle))
    return fastest_tenth([b for _, b in pairs]) / fastest_tenth([a for a, _ in pairs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in TALKS}
    for path in sorted(FOLDER.glob("*.jinja")):
        source, row = path.read_text("utf-8"), []
        for name, talk in TALKS.items():

            def theirs(source: str = source, talk: list[dict[str, str]] = talk) -> str:
                return render_jinja_template([talk], chat_template=source, **FIXED)[0][0]

            def ours(source: str = source, talk: list[dict[str, str]] = talk) -> str:
                return render(source, {"messages": talk, **FIXED}).text

            try:
                want = theirs()
            except Exception:  # some templates want tools
                continue
            assert ours() == want, path.name
            found[name].append(ratio(ours, theirs, asked.rounds if len(talk) < 100 else max(asked.rounds // 8, 5)))
            row.append(f"{found[name][-1]:.2f}")
        print(f"{path.stem:26}", *row)
    summary = {
        name: {"median": round(statistics.median(each), 2), "min": round(min(each), 2), "max": round(max(each), 2)}
        for name, each in found.items()
    }
    finish(asked, "chat-templates", summary, {"same_text": True, "templates": len(found["1 message"])})


if __name__ == "__main__":
    main()
