"""Texts of every class of Unicode, the same in every run: `CLASSES`, name -> texts."""

from __future__ import annotations

import random
import sys
import unicodedata

from corpus_texts import UDHR

EMOJI = "😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 👨🏿‍🚀 🇩🇪🇫🇷 1️⃣ #️⃣ ❤️‍🔥 🧑🏻‍🤝‍🧑🏿 ☺︎ ☺️".split(" ")
RIGHT_TO_LEFT = ["שָׁלוֹם עוֹלָם", "السَّلامُ عَلَيْكُمْ", "ab\u202eדגה\u202cef", "\u200fא\u200e1", "۱۲۳ ١٢٣", "ﷺ ﻻ"]
WRITTEN_WITHOUT_SPACES = [
    "我能吞下玻璃而不伤身体。",
    "私はガラスを食べられます。それは私を傷つけません。",
    "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ",
    "한글은조선의세종이만들었다",
    "ᄒᆞᆫ글 각",  # letters that compose into syllables
    "漢字カタカナひらがなABC123",
]
CONTROLS = [chr(code) for code in [*range(32), *range(0x7F, 0xA0)]]
FORMATS = "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u2060\u2061\ufeff\ufff9\U000e0001\U000e0041"
PRIVATE = ["\ue000\uf8ff", "x\ue123y", "\U000f0000\U0010fffd"]
NONCHARACTERS = ["\ufdd0", "a\ufffeb", "\uffff \U0001fffe", "\U0010ffff"]
MARKS = [
    "e\u0301",
    "a\u0300\u0301\u0302\u0303",
    "\u0301x",
    "Z" + "\u0334\u0361\u0489" * 9,
    "q\u0323\u0307 q\u0307\u0323",
]
CASES = ["İstanbul ıIiİ", "ﬀ ﬃ ﬅ", "ẞß", "ΑΣΟΣ ς", "ǅ ǆ Ǆ", "Ⅷ ⅷ ① ½ ²", "Å Å Å", "①②③ ㍿ ㎏"]
PUNCTUATION = [
    "…—–‑-",
    "“quoted” ‘it’s’ «x»",
    "don't I'LL we've 'tis",
    "a,b.c;d:e!f?g",
    "!!!???...",
    "（全角）、。「」",
]
SPACES = [
    "",
    " ",
    "a" + " " * 40 + "b",
    " a",
    "a ",
    "  a  b  ",
    "a\u00a0b\u2003c\u3000d\u1680e",
    "\u2028x\u2029y\u0085z",
]
SPACES += [" " * n for n in (2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 100)]
LINES = [
    "\n",
    "\n\n\n",
    "a\n\n\nb",
    "a\r\nb\r\n",
    "\r",
    "x \n y",
    "\n  indented\n\tmore",
    "\v\f",
    "a\n" * 30,
    "\n" * 70,
]
TABS = ["\t", "\t\t\t\tx", "a\t\tb", " \t \t ", "\tif x:\n\t\treturn", "\t" * 40]
DIGITS = ["0", "12", "123", "1234", "1234567890" * 5, "3.14159", "1,000,000", "2024-01-02T03:04", "0x1F", "٣٤٥ ५६ ๗ 九"]
LONG = ["a" * 300, "ab" * 500, "=" * 200, "é" * 200, "漢" * 200, "👍" * 60, "https://x.org/" + "a1/" * 60]
CODE = [
    "def f(x):\n    return {'a': [1, 2]}  # ok\n",
    "<html>&amp;</html>",
    "a_b-c+d/e\\f",
    "x=>y;\n\n\n}",
    "C:\\new\\t",
]
WRITTEN_OUT = ["▁x ▁▁ a▁b", "Ġx Ċ", "##x a##b", "<0x41><0xE4>", "</w>x</w>", "@@ x@@"]


def samples(category: str, count: int = 40) -> list[str]:
    """Characters of a general category, all over Unicode: in a row, with spaces, within words."""
    chars = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == category]
    chosen = random.Random(category).sample(chars, min(count, len(chars)))
    return ["".join(chosen), " ".join(chosen), *(f"a{char}b {char}" for char in chosen[:12])]


def categories() -> list[str]:
    """All general categories, surrogates excepted: they are no characters."""
    return sorted({unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)} - {"Cs"})


CLASSES: dict[str, list[str]] = {
    **{f"category {name}": samples(name) for name in categories()},
    "spaces": SPACES,
    "lines": LINES,
    "tabs": TABS,
    "digits": DIGITS,
    "marks": MARKS,
    "controls": ["".join(CONTROLS), *(f"a{char}b" for char in CONTROLS)],
    "format characters": [FORMATS, *(f"a{char}b {char} c" for char in FORMATS)],
    "private use": PRIVATE,
    "noncharacters": NONCHARACTERS,
    "emoji": [*EMOJI, "".join(EMOJI), "".join(EMOJI[2:5]) + "x"],
    "right to left": RIGHT_TO_LEFT,
    "written without spaces": WRITTEN_WITHOUT_SPACES,
    "cases and compositions": CASES,
    "punctuation": PUNCTUATION,
    "long": LONG,
    "code": CODE,
    "pieces written out": WRITTEN_OUT,
    **{f"language {name}": [text[:600], *text.splitlines()[:6]] for name, text in UDHR.items()},
}
