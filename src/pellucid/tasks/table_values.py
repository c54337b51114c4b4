"""Numbers and dates in the cells of a table and in a question: what TAPAS is told beside the words.

Which texts are values, and how they compare, is part of how its checkpoints were trained: google-research/tapas,
utils/number_utils.py and utils/number_annotation_utils.py. arXiv 2004.02349, section 2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from math import inf, isnan

Day = tuple[float | None, float | None, float | None]  # year, month, day, as far as they are said
Value = float | Day
Key = Callable[[Value], tuple[float, ...]]

NUMBER = re.compile(r"((^|\s)[+-])?((\.\d+)|(\d+(,\d\d\d)*(\.\d*)?))")
COUNTS = "zero one two three four five six seven eight nine ten eleven twelve".split()
PLACES = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
WORDS = {word: float(i) for words in (COUNTS, PLACES) for i, word in enumerate(words)}
SUFFIXES = ("st", "nd", "rd", "th")
YEARS = range(1700, 2017)
LONGEST = 5  # words of a date
ALIKE = 0.7  # share of a column's cells that has to have values of one kind
EQUAL, LESS, MORE = 1, 2, 4  # what a question's value is beside a cell's

# Forms of dates, and which of year, month and day each says.
FORMS = [
    ("%B", "m"), ("%Y", "y"), ("%Ys", "y"), ("%b %Y", "ym"), ("%B %Y", "ym"), ("%B %d", "md"), ("%b %d", "md"),
    ("%d %b", "md"), ("%d %B", "md"), ("%B %d, %Y", "ymd"), ("%d %B %Y", "ymd"), ("%m-%d-%Y", "ymd"),
    ("%Y-%m-%d", "ymd"), ("%Y-%m", "ym"), ("%d %b %Y", "ymd"), ("%b %d, %Y", "ymd"), ("%d.%m.%Y", "ymd"),
    ("%A, %b %d", "md"), ("%A, %B %d", "md"),
]  # fmt: skip
FIELDS = {"%A": r"\w+", "%B": r"\w+", "%Y": r"\d{4}", "%b": r"\w{3}", "%d": r"\d{1,2}", "%m": r"\d{1,2}"}


def _pattern(form: str) -> re.Pattern[str]:
    """What a text has to look like before it is worth to read it as a date."""
    text = form.replace(".", r"\.").replace("-", r"\-").replace(" ", r"\s+")
    for field, written in FIELDS.items():
        text = text.replace(field, written)
    return re.compile(f"^{text}$")


PATTERNS = [(form, parts, _pattern(form)) for form, parts in FORMS]


def values_in(text: str) -> list[Value]:
    """The values of a text, in its order; of values within others only the longest ones."""
    text = " ".join(text.lower().split())
    found: dict[tuple[int, int], list[Value]] = {}
    for match in NUMBER.finditer(text):
        if (number := _number(match.group())) is not None:
            found[match.span()] = [number]
    for span in _spans(text, 1):
        if span not in found:
            word = text[slice(*span)]
            said = [each for each in (_number(word), WORDS.get(word)) if each is not None]
            if said:
                found[span] = [*said]
    for span in _spans(text, LONGEST):
        if (day := _day(text[slice(*span)])) is not None:
            found.setdefault(span, []).append(day)
    kept: list[tuple[int, int]] = []
    for start, end in sorted(found, key=lambda span: (span[0] - span[1], span[0])):
        if not any(first <= start and end <= last for first, last in kept):
            kept.append((start, end))
    return [value for span in sorted(kept) for value in found[span]]


def column_values(texts: Sequence[str]) -> dict[int, Value]:
    """Row -> value of a column whose cells have values of one kind, most of them; days go before numbers."""
    found = [values_in(text) for text in texts]
    kinds = Counter(kind for values in found for kind in {type(value) for value in values})
    most = max(kinds.values(), default=0)
    if most == 0 or most < len(texts) * ALIKE:
        return {}
    kind = tuple if kinds[tuple] == most else float
    firsts = ((row, next((each for each in values if type(each) is kind), None)) for row, values in enumerate(found))
    return {row: value for row, value in firsts if value is not None}


def ranks(values: Mapping[int, Value]) -> dict[int, tuple[int, int]]:
    """Row -> its rank from 1 by value, from the least and from the largest; empty where the values do not compare."""
    key = comparing(list(values.values()))
    if key is None:
        return {}
    order = sorted({key(value) for value in values.values()})
    place = {each: i for i, each in enumerate(order)}
    return {row: (place[key(value)] + 1, len(order) - place[key(value)]) for row, value in values.items()}


def relations(asked: Sequence[Value], values: Mapping[int, Value]) -> dict[int, int]:
    """Row -> how values of a question compare with the row's, as a set of bits."""
    found: dict[int, int] = {}
    for each in asked:
        key = comparing([*values.values(), each]) if values else None
        for row, value in values.items() if key is not None else ():
            said, there = key(each), key(value)  # type: ignore[misc]  # a key, by the line above
            found[row] = found.get(row, 0) | (EQUAL if said == there else LESS if said < there else MORE)
    return found


def comparing(values: Sequence[Value]) -> Key | None:
    """What orders values of one kind: days by what all of them say. None where nothing does."""
    if all(isinstance(value, float) for value in values):
        return lambda value: (value,) if isinstance(value, float) else ()
    days = [value for value in values if isinstance(value, tuple)]
    shared = [i for i in range(3) if all(day[i] is not None for day in days)]
    if len(days) < len(values) or not shared:
        return None
    return lambda value: tuple(value[i] or 0.0 for i in shared) if isinstance(value, tuple) else ()


def _number(text: str) -> float | None:
    for suffix in SUFFIXES:
        if text.endswith(suffix):
            text = text.removesuffix(suffix)
            break
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return None if isnan(value) or value == inf else value


def _day(text: str) -> Day | None:
    for form, parts, pattern in PATTERNS:
        if not pattern.match(text):
            continue
        try:
            day = datetime.strptime(text, form)
        except ValueError:
            continue
        if day.year in YEARS:
            said = zip("ymd", (day.year, day.month, day.day))
            year, month, date = (float(value) if part in parts else None for part, value in said)
            return year, month, date
    return None


def _spans(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Where runs of at most so many words begin and end."""
    starts: list[int] = []
    for i, char in enumerate(text):
        if not char.isalnum():
            continue
        if i == 0 or not text[i - 1].isalnum():
            starts.append(i)
        if i + 1 == len(text) or not text[i + 1].isalnum():
            yield from ((start, i + 1) for start in starts[-most:])
