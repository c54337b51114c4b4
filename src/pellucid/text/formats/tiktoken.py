"""tiktoken's rank files: a token in base64 and its rank a line. Llama 3 and 4, Qwen, Kimi, GLM-4, Whisper, GPT-4.

The file holds neither the pattern that splits a text into pieces nor the special tokens: `encodings.py` does.

tiktoken takes a piece that is a token as it is; else it merges, again and again, the adjacent pair whose union has
the lowest rank, the leftmost of equals (github.com/openai/tiktoken, src/lib.rs). The Rust library wants a list of
pairs instead. Every way to cut a token into two tokens is such a pair, in the order of the token's rank, and the
ids are the same: what happens inside a stretch of text until it becomes one token does not depend on what is
around it, so the pair that makes a token is the same wherever it is made, and no other cut of it ever occurs.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pellucid.errors import TokenizerError
from pellucid.text.classes import TokenizerClass
from pellucid.text.formats.described import Described
from pellucid.text.formats.encodings import ENCODINGS, Encoding

MAX_BYTES = 16 << 20  # of a file, and of all its tokens; the largest published file is 3.6 MB (o200k)
MAX_TOKEN = 256  # bytes; the longest published token has 128, a run of spaces
MAX_CUTS = 16  # into two tokens, for each token on average; published files have about 2
AGAIN = "fetch the file again: it is cut short or damaged"

# GPT-2's alphabet: how a vocabulary writes the 256 bytes as characters. The printable ones of Latin-1 stand for
# themselves, the others follow from U+0100 on (github.com/openai/gpt-2, src/encoder.py).
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ALPHABET = dict(zip([*PRINTABLE, *sorted(set(range(256)) - set(PRINTABLE))], [*PRINTABLE, *range(0x100, 0x144)]))


def is_ranks(path: Path) -> bool:
    """Whether the first line is a token and its rank; sentencepiece files share the name tokenizer.model."""
    with path.open("rb") as file:
        first = file.readline(4 * MAX_TOKEN)
    parts = first.split()
    return len(parts) == 2 and parts[1].isdigit() and not first.startswith(b"\n")


def read(path: Path, *, counted: bool = False) -> dict[bytes, int]:
    """Tokens and their ranks.

    Args:
        counted: the line's number is the rank (see `Encoding`).

    Raises:
        TokenizerError: the file is too large, a line is not a token and a rank, a token or a rank occurs twice, or
            one of the 256 bytes has no token.
    """
    if path.stat().st_size > MAX_BYTES:
        raise TokenizerError(f"{path.stat().st_size} bytes are too many for tiktoken ranks", where=path)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines()):
        if not line:
            continue
        try:
            text, rank = line.split()
            # A lone "=" is the empty token: Whisper's multilingual file keeps an id free with it.
            token = b"" if text == b"=" else binascii.a2b_base64(text, strict_mode=True)
            ranks[token] = len(ranks) if counted else int(rank)
        except ValueError:
            what = f"line {number + 1} is {line[:80]!r}, not a token in base64 and a rank"
            raise TokenizerError(what, where=path, next=AGAIN) from None
    check(ranks, where=path)
    return ranks


def check(ranks: Mapping[bytes, int], *, where: object) -> None:
    """What the conversion takes for granted, as a TokenizerError."""
    problem = ""
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        problem = f"{len(missing)} of the 256 bytes have no token, among them {missing[0]:#04x}"
    elif len(set(ranks.values())) < len(ranks):
        problem = f"{len(ranks)} tokens have {len(set(ranks.values()))} different ranks"
    elif (longest := max(map(len, ranks))) > MAX_TOKEN:
        problem = f"a token of {longest} bytes; the limit is {MAX_TOKEN}"
    elif (total := sum(map(len, ranks))) > MAX_BYTES:
        problem = f"{total} bytes of tokens; the limit is {MAX_BYTES}"
    elif not 0 <= min(ranks.values()) <= max(ranks.values()) < 1 << 31:
        problem = f"ranks from {min(ranks.values())} to {max(ranks.values())}"
    if problem:
        raise TokenizerError(problem, where=where, next=AGAIN)


def recognise(path: Path, class_name: str, vocab_size: int | None) -> str:
    """The key in ENCODINGS for a rank file.

    Args:
        class_name: `tokenizer_class` of the folder, or "".
        vocab_size: of config.json; tells the versions of Whisper apart.

    Raises:
        TokenizerError: nothing says whose file it is.
    """
    count = sum(1 for line in path.read_bytes().splitlines() if line)
    if class_name.startswith("Whisper"):
        versions = {50256: "whisper-english", 50257: "whisper-v3" if vocab_size == 51866 else "whisper"}
        if count in versions:
            return versions[count]
    for name, encoding in ENCODINGS.items():
        if class_name in encoding.classes or class_name == name:
            return name
    named = [name for name, encoding in ENCODINGS.items() if path.name in encoding.files]
    alike = [name for name, encoding in ENCODINGS.items() if encoding.ranks == count]
    if named or len(alike) == 1:
        return (named or alike)[0]
    raise TokenizerError(
        f"{count} tiktoken ranks, and nothing says whose: their file has no split pattern and no special tokens",
        where=path,
        next=f"name the encoding: tokenizer_class={alike or list(ENCODINGS)}",
    )


def convert(
    ranks: Mapping[bytes, int], pattern: str, special: Mapping[int, str], *, where: object, nfc: bool = False
) -> Tokenizer:
    """Ranks, the split pattern and the special tokens by id -> the Rust tokenizer.

    Raises:
        TokenizerError: two tokens want one id.
    """
    texts = {token.decode("latin-1").translate(ALPHABET): rank for token, rank in ranks.items()}
    used = set(texts.values())
    if twice := [text for id, text in special.items() if id in used or text in texts]:
        raise TokenizerError(f"the special token {twice[0]!r} has the id or the text of another token", where=where)
    vocab = texts | {text: id for id, text in special.items()}
    bpe = models.BPE(vocab, merges(texts, where=where), fuse_unk=False, ignore_merges=True)
    rust = Tokenizer(bpe)
    if nfc:
        rust.normalizer = normalizers.NFC()
    rust.pre_tokenizer = split(pattern)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(text, normalized=False, special=True) for _, text in sorted(special.items())])
    return rust


def split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    """Each pattern splits what the one before left, then bytes are written in GPT-2's alphabet."""
    return pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def merges(ranks: Mapping[str, int], *, where: object) -> list[tuple[str, str]]:
    """Every cut of a token into two tokens, in the order of the tokens' ranks.

    Raises:
        TokenizerError: they are so many that the file was made for that.
    """
    found: list[tuple[str, str]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        for cut in range(1, len(token)):
            if (left := token[:cut]) in ranks and (right := token[cut:]) in ranks:
                found.append((left, right))
        if len(found) > MAX_CUTS * len(ranks) + 100_000:
            raise TokenizerError(f"{len(ranks)} tokens can be made in more than {len(found)} ways", where=where)
    return found


def describe(path: Path, class_name: str, named: Mapping[int, str], vocab_size: int | None) -> Described:
    """A rank file.

    Args:
        class_name, vocab_size: see `recognise`.
        named: special tokens by id that the folder states; they win.

    Raises:
        TokenizerError: nothing says whose file it is; when it is built, all that `read` raises.
    """
    name = recognise(path, class_name, vocab_size)
    encoding = ENCODINGS[name]
    row = TokenizerClass(
        tokens=encoding.tokens,
        single=encoding.single,
        pair=encoding.pair,
        options=dict(encoding.options),
        padding_side=encoding.padding_side,
    )
    facts = {"encoding": name, "named": sorted(named.items())}
    return Described(row, {}, lambda options: build(path, encoding, named), (path,), facts)


def build(path: Path, encoding: Encoding, named: Mapping[int, str]) -> Tokenizer:
    """A rank file of a known model, without post-processor."""
    ranks = read(path, counted=encoding.counted)
    special = encoding.names(len(ranks)) | dict(named)
    return convert(ranks, encoding.pattern, special, where=path, nfc=encoding.nfc)
