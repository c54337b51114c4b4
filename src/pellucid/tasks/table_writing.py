"""Questions about tables to answers that are written: TAPEX, an encoder-decoder that reads a table as text.

    who is 45? col : actors | age row 1 : brad pitt | 56 row 2 : …

arXiv 2107.07653, section 2.2. A cell is cut to so many tokens, as the checkpoint's tokenizer says, and all of it is
read in small letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pellucid.engine.asking import Means
from pellucid.engine.options import GenerationConfig
from pellucid.models.model import Model
from pellucid.tasks.rows import InputRefused, room
from pellucid.tasks.table_question_answering import Asked, Table
from pellucid.tasks.text_generation import Style, generate_text
from pellucid.text.tokenizer import Tokenizer

LONGEST_CELL = 15  # tokens, where the tokenizer's config does not say


@dataclass(frozen=True)
class Written:
    """The answer, as the model wrote it.

    Args:
        dropped: tokens of the last rows, which did not fit.
    """

    text: str
    dropped: int = 0


def answer(
    model: Model, tokenizer: Tokenizer, asked: Sequence[Asked], settings: GenerationConfig, *, cut: bool = False
) -> list[Written]:
    """What is written for each question.

    Args:
        cut: leaves the last rows out where they do not fit; otherwise a table that is too large is refused.

    Raises:
        InputRefused: a question or a table that is empty, or too large.
    """
    read = [fitting(model, tokenizer, i, each, cut=cut) for i, each in enumerate(asked)]
    found = generate_text(model, tokenizer, [text for text, _ in read], settings, Means(), Style())
    return [Written(one.outputs[0].text, dropped) for one, (_, dropped) in zip(found, read)]


def fitting(model: Model, tokenizer: Tokenizer, number: int, asked: Asked, *, cut: bool) -> tuple[str, int]:
    """The text of a question and of as many first rows as fit, and how many tokens the others have."""
    table, question = asked.table, asked.question
    if not table.rows or not table.columns:
        raise InputRefused(number, "the table is empty", next="give at least one row")
    if not isinstance(question, str) or not question.strip():
        raise InputRefused(number, f"the question is {question!r:.40}", next="give a text")
    rows = [[short(tokenizer, cell) for cell in row] for row in table.rows]

    def size(count: int) -> int:
        return len(tokenizer.encode(flat(Table(table.columns, rows[:count]), question), verbose=False))

    whole, most, count = size(len(rows)), room(model, tokenizer), len(rows)
    if most is not None and whole > most:
        if not cut:
            what = f"the question and its table have {whole} tokens, the model reads {most}"
            raise InputRefused(number, what, next="give fewer rows, or pass truncation=True")
        least = 0  # rows that fit
        while count - least > 1:
            middle = (least + count) // 2
            least, count = (middle, count) if size(middle) <= most else (least, middle)
        count = least
        if size(count) > most or not count:
            raise InputRefused(number, f"no row fits into {most} tokens", next="ask less, or leave columns out")
    return flat(Table(table.columns, rows[:count]), question), whole - size(count)


def flat(table: Table, question: str) -> str:
    """A question and a table as one text."""
    head = "col : " + " | ".join(table.columns)
    rows = [f"row {i} : " + " | ".join(row) for i, row in enumerate(table.rows, 1)]
    return " ".join([question, head, *rows]).strip().lower()


def short(tokenizer: Tokenizer, cell: str) -> str:
    """A cell's first tokens."""
    most = int(tokenizer.init_kwargs.get("max_cell_length", LONGEST_CELL))
    tokens = tokenizer.tokenize(cell) if cell.strip() else []
    return cell if len(tokens) < most else tokenizer.convert_tokens_to_string(tokens[:most])
