"""Offsets that sentencepiece's normalization shifts, put right.

Where the Rust `Precompiled` normalizer drops characters at the start of a text (control characters, in T5's), it
forgets to count them, and every offset of that text is too small (tokenizers 0.23, `replace` in precompiled.rs: the
removal is written to the character before, and there is none). So a step before it drops them, which counts right.

Left: a dropped character behind one that becomes longer (`¨` is a space and a mark) takes the place of its last part,
so that part's offset is one character late. To drop it before would join what it keeps apart, and change ids.
"""

from __future__ import annotations

from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as RustTokenizer

# What published character maps drop: found by trying all of Unicode on those of T5, NLLB and XLM-R.
CANDIDATES = [chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x2010), 0xFEFF)]


def keep_offsets(rust: RustTokenizer) -> None:
    """Puts the step before the normalizer of `rust`, if it needs one and has none."""
    steps = rust.normalizer
    if steps is None or b'"Precompiled"' not in (state := steps.__getstate__()) or rb"\\A[" in state[:200]:
        return
    plain = steps.normalize_str("a")
    dropped = [rf"\x{{{ord(char):X}}}" for char in CANDIDATES if steps.normalize_str(char + "a") == plain]
    if dropped:
        first = normalizers.Replace(Regex(rf"\A[{''.join(dropped)}]+"), "")
        rust.normalizer = normalizers.Sequence([first, steps])
