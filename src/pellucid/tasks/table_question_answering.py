"""Questions about tables to cells, and what is to be done with them: TAPAS. arXiv 2004.02349."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.errors import InputError, Unsupported
from pellucid.models.model import Model
from pellucid.tasks import table_values as values
from pellucid.tasks.flow import BUDGET, ELSEWHERE, ask, groups, rectangle
from pellucid.tasks.rows import InputRefused, room
from pellucid.text.tokenizer import Tokenizer

SEGMENT, COLUMN, ROW, BEFORE, RANK, INVERSE, RELATION = range(7)  # of a token's types
LONGEST = 512  # tokens, where neither model nor tokenizer says: positions begin anew in each cell
NOTHING = ("", "n/a", "?", "nan", "empty")  # cells that say nothing


@dataclass(frozen=True)
class Table:
    """Names of columns, and rows of cells; all texts."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Asked:
    """A question about a table."""

    table: Table
    question: str


@dataclass(frozen=True)
class Cells:
    """The answer: cells, and an operation ("SUM", "COUNT" …; "" where the model has none).

    Args:
        coordinates: (row, column) of each cell, from 0.
        applies: whether the operation is more than to name the cells.
        dropped: tokens of the table that were cut off, cell by cell first and then row by row.
    """

    cells: list[str]
    coordinates: list[tuple[int, int]]
    operation: str = ""
    applies: bool = False
    dropped: int = 0


@dataclass
class Read:
    """A question and its table as the model reads them: ids, and seven types for each."""

    ids: list[int]
    types: list[list[int]]
    dropped: int = 0
    cells: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # (row, column) -> places of its tokens


def answer(
    model: Model, tokenizer: Tokenizer, asked: Sequence[Asked], *, cut: bool = True, sequence: bool = False
) -> list[Cells]:
    """The cells that answer each question.

    Args:
        cut: drops what does not fit; otherwise a table that is too large is refused.
        sequence: the questions follow each other: each is read with the answer to the one before.

    Raises:
        InputRefused: a question or a table that is empty, or too large.
    """
    rows = [read(model, tokenizer, i, each, cut=cut) for i, each in enumerate(asked)]
    found: list[Cells] = [Cells([], [])] * len(rows)
    budget = BUDGET.get(model.device.type, ELSEWHERE)
    batches: Iterable[list[int]] = groups([len(row.ids) for row in rows], budget)
    if sequence:
        batches = ([i] for i in range(len(rows)))
    for group in batches:
        if sequence and group[0]:
            before = set(found[group[0] - 1].coordinates)
            for cell, places in rows[group[0]].cells.items():
                for place in places:
                    rows[group[0]].types[place][BEFORE] = int(cell in before)
        for i, one in zip(group, _forward(model, [rows[i] for i in group])):
            found[i] = _finish(model, asked[i].table, rows[i], *one)
    return found


@torch.inference_mode()
def _forward(model: Model, rows: Sequence[Read]) -> list[tuple[Tensor, int | None]]:
    """The probability of each token to be of the answer, and the operation."""
    given = rectangle([row.ids for row in rows], model.device)
    types = torch.zeros(*given["input_ids"].shape, 7, dtype=torch.int64)
    for i, row in enumerate(rows):
        types[i, : len(row.ids)] = torch.tensor(row.types)
    output = ask(model, **given, token_type_ids=types.to(model.device))
    logits = output.logits.float().cpu()
    chosen = output.get("logits_aggregation")
    operations = [None] * len(rows) if chosen is None else chosen.argmax(-1).tolist()
    return list(zip(logits.sigmoid(), operations))


def _finish(model: Model, table: Table, row: Read, share_T: Tensor, operation: int | None) -> Cells:
    chosen = sorted(cell for cell, places in row.cells.items() if float(share_T[places].mean()) > 0.5)
    cells = [table.rows[r][c] for r, c in chosen]
    names = {int(i): name for i, name in (model.config.get("aggregation_labels") or {}).items()}
    if operation is None or not names:
        return Cells(cells, chosen, dropped=row.dropped)
    applies = operation != model.config.get("no_aggregation_label_index")
    return Cells(cells, chosen, names.get(operation, f"OPERATION_{operation}"), applies, row.dropped)


# ---------------------------------------------------------------------------------------------- reading


def read(model: Model, tokenizer: Tokenizer, number: int, asked: Asked, *, cut: bool) -> Read:
    """`[CLS] question [SEP] header cell cell …`, each token with its column, its row, ranks and relations.

    Raises:
        InputRefused: nothing to read, or too much of it. Unsupported: the tokenizer is another model's.
    """
    table, question = asked.table, asked.question
    if not table.rows or not table.columns:
        raise InputRefused(number, "the table is empty", next="give at least one row")
    if not isinstance(question, str) or not question.strip():
        raise InputRefused(number, f"the question is {question!r:.40}", next="give a text")
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if begin is None or end is None:
        raise Unsupported("this tokenizer has no [CLS] and [SEP]", where="table-question-answering", next="use TAPAS")
    asked_ids = _ids(tokenizer, [question])[0][0]
    cells = _ids(tokenizer, [text for row in (table.columns, *table.rows) for text in row])
    n = len(table.columns)
    grid = [cells[start : start + n] for start in range(0, len(cells), n)]  # the header is row 0
    kinds = model.config.get("type_vocab_sizes")
    if n >= kinds[COLUMN]:
        what = f"the table has {n} columns, the model tells {kinds[COLUMN] - 1} apart"
        raise InputRefused(number, what, next="leave columns out")
    left = (room(model, tokenizer) or LONGEST) - len(asked_ids) - 2
    rows, trim = _fitting(grid, left, min(len(table.rows), kinds[ROW] - 1))
    whole = sum(len(ids) for row in grid for ids, _ in row)
    kept = _cost(grid, rows, trim)
    if kept > left or (not cut and kept < whole):
        what = f"the table has {whole} tokens, and {left} fit beside the question"
        raise InputRefused(number, what, next="give fewer rows" if kept > left else "pass truncation=True")
    ids, types = [begin, *asked_ids, end], [[0] * 7 for _ in range(len(asked_ids) + 2)]
    found = Read(ids, types, whole - kept)
    for r, row in enumerate(grid[: rows + 1]):
        for c, (cell, begins) in enumerate(row):
            for token in (token for token, at in zip(cell, begins) if at < trim):
                if r:
                    found.cells.setdefault((r - 1, c), []).append(len(ids))
                ids.append(token)
                types.append([1, c + 1, r, 0, 0, 0, 0])
    _add_values(found, table, question, kinds)
    return found


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Ids of each text, and for each token where its word begins; one token of its own where there is nothing."""
    made = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    empty = tokenizer.convert_tokens_to_ids("[EMPTY]")
    found = []
    for text, ids, code in zip(texts, made["input_ids"], made.encodings or ()):
        said = " ".join(re.sub(r"[^\w\d]+", " ", text.lower().strip()).replace("_", " ").split())
        if not said or text.lower().strip() in NOTHING or said == "empty":
            found.append(([empty], [0]))
            continue
        begins: list[int] = []
        for i, token in enumerate(code.tokens):
            begins.append(begins[-1] if token.startswith("##") and begins else i)
        found.append((ids, begins))
    return found


Grid = list[list[tuple[list[int], list[int]]]]


def _fitting(grid: Grid, left: int, rows: int) -> tuple[int, int]:
    """How many rows are read, and how many tokens of each cell: cells are cut short before rows are dropped."""
    longest = max(len(ids) for row in grid for ids, _ in row)
    while rows:
        trim = next((n for n in range(longest) if _cost(grid, rows, n + 1) > left), longest)
        if trim or longest == 0:
            return rows, trim
        rows -= 1
    return 0, 1


def _cost(grid: Grid, rows: int, trim: int) -> int:
    """Tokens of the header and of so many rows, of words that begin among so many of a cell."""
    return sum(at < trim for row in grid[: rows + 1] for _, begins in row for at in begins)


def _add_values(found: Read, table: Table, question: str, kinds: Sequence[int]) -> None:
    """What numbers and days of the table are among each other, and beside those of the question."""
    said = values.values_in(question)
    for c in range(len(table.columns)):
        column = values.column_values([row[c] for row in table.rows])
        for r, (rank, inverse) in values.ranks(column).items():
            for place in found.cells.get((r, c), ()):
                found.types[place][RANK : INVERSE + 1] = min(rank, kinds[RANK] - 1), min(inverse, kinds[INVERSE] - 1)
        for r, relation in values.relations(said, column).items():
            for place in found.cells.get((r, c), ()):
                found.types[place][RELATION] = relation


def table_of(given: object) -> Table:
    """A table from columns by name, from records, or from a data frame.

    Raises:
        InputError: it is none of these, or its columns are of different lengths.
    """
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # a data frame
        given = given.to_dict("list")
    if isinstance(given, list | tuple) and given and all(isinstance(row, dict) for row in given):
        names = list(dict.fromkeys(name for row in given for name in row))
        return Table([str(name) for name in names], [[_text(row.get(name)) for name in names] for row in given])
    if not isinstance(given, dict):
        what = f"a table is a {type(given).__name__}"
        raise InputError(what, where="table", next='give {"column": [cells …]}, a list of records, or a data frame')
    columns = [list(cells.values()) if isinstance(cells, dict) else list(cells) for cells in given.values()]
    if len({len(cells) for cells in columns}) > 1:
        what = f"columns of {', '.join(str(len(cells)) for cells in columns)} cells"
        raise InputError(what, where="table", next="give as many cells in each")
    return Table([str(name) for name in given], [[_text(cell) for cell in row] for row in zip(*columns)])


def _text(cell: object) -> str:
    return "" if cell is None or cell != cell else str(cell)
