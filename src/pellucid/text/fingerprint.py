"""What a tokenizer does, in a few kilobytes: saved beside it, compared when it is loaded.

`tokenizer_fingerprint.json` lies in every folder that we save, as a file of its own: the reference neither reads it nor
copies it into folders that it saves itself. It holds

    probes      texts on which tokenizers are known to part silently, with their ids and what these decode to
    special     the special tokens by role, and a digest of all added tokens with their options
    vocabulary  how many tokens, and a digest of every id, text, merge and score
    template    a digest of each chat template
    files       digests of the vocabulary's files: where these are as they were, the vocabulary is not looked at

Comparing takes about 10 ms for 128,000 tokens in an unchanged tokenizer.json. Where the file was rewritten, the whole
vocabulary is compared (0.3 s). Not covered: what changes neither an id of a probe nor one of the parts above, such as
padding sides and length limits. The probes' texts are stored with their ids, so a later version with more probes still
compares what an earlier one wrote.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pellucid import hub
from pellucid.errors import TokenizerError
from pellucid.text.classes import VOCABULARIES

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

    from pellucid.text.tokenizer import Tokenizer

FILE = hub.FINGERPRINT
VERSION = 1  # of the file and of its digests
LARGEST = 1 << 20  # bytes of a fingerprint; ours have about 8000

# Each separates tokenizers that were once taken for equal: another class, another conversion, another version.
PROBES = (
    "", " ", "  ", "   leading", "trailing  ", "two  and   three    spaces", "\n", "\n\n\n", "a\n b\n\n  c", "\t\tx\ty",
    "a\r\nb\rc", "\u00a0no\u00a0break", "\u3000wide", "zero\u200bwidth\ufeffmarks",
    "Hello world", "Hello, world!", "hello WORLD McDonald", "The naïve café, señor", "nai\u0308ve cafe\u0301",
    "\u00c5 \u212b ﬁ ½ ²",
    "I'm can't we've they'd it's you'll I'LL", "don’t “quote” it … – —",
    "0", "1234567890", "12345.67 3,141,592 1e-5 0x1F", " 42 007", "٣٤٥ १२३ ¾",
    "你好，世界。", "日本語の漢字とカタカナ", "한국어 테스트", "สวัสดีชาวโลก", "مرحبا بالعالم", "שלום עולם",
    "हिन्दी में", "Привет, Мир", "Ελληνικά Σας", "İstanbul ıŞ", "ß ẞ straße", "𝒳 𐍈 𠀀",
    "😀", "👩‍👩‍👧‍👦 🇩🇪 👍🏽", "\ufffd", "\x00\x07\x1b[0m", "\ue000 private",
    "def f(x):\n    return x**2  # {a: [1]}\n", "if (a&&b||!c) { x->y; }", "https://example.org/a?b=c&d=%20",
    '<div class="x">&amp;</div>',
    "..........!!!!????", "-----=====_____", "w" * 70, "antidisestablishmentarianism Donaudampfschifffahrt",
    "▁under Ġgee ##ing @@ </w> <0x41>", "<s> </s> <unk> <pad> <bos> <eos>", "[CLS] [SEP] [MASK] [PAD] [INST]",
    "a<|endoftext|>b<|im_start|>user<|eot_id|><extra_id_0><mask>",
)  # fmt: skip
PAIR = ("one text", "and another")

# Arguments of `Tokenizer.from_folder` that change nothing of all this.
HARMLESS = frozenset(("padding_side", "truncation_side", "model_max_length", "model_input_names"))


@dataclass(frozen=True)
class Probe:
    """A text, its ids with special tokens, and what these decode to without them; None for the text itself."""

    text: str
    ids: tuple[int, ...]
    back: str | None = None


@dataclass(frozen=True)
class Fingerprint:
    """See the module."""

    probes: tuple[Probe, ...]
    pair: tuple[int, ...]  # ids of PAIR
    roles: Mapping[str, str]
    added: str
    tokens: int
    vocabulary: str
    templates: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """One short name for all of it; the same for every file form of one tokenizer."""
        probes = [(probe.text, probe.ids, probe.back) for probe in self.probes]
        return _digest([probes, self.pair, dict(self.roles), self.added, self.tokens, self.vocabulary, self.templates])

    def __str__(self) -> str:
        return self.digest


def take(tokenizer: Tokenizer, folder: Path | None = None) -> Fingerprint:
    """The fingerprint of a tokenizer; `folder` is where its vocabulary's files lie, if they are to be remembered."""
    roles = dict(tokenizer.special_tokens_map)
    written = "".join(f"a{text}b {text} c" for text in dict.fromkeys(roles.values()))
    probes, pair = look(tokenizer, dict.fromkeys((*PROBES, written)))
    return Fingerprint(
        probes,
        pair,
        roles,
        _added(tokenizer),
        len(tokenizer),
        _vocabulary(tokenizer.rust),
        _templates(tokenizer),
        _files(folder) if folder else {},
    )


def verify(tokenizer: Tokenizer, folder: Path, asked: Collection[str] = ()) -> None:
    """Compares a tokenizer with the fingerprint in its folder; does nothing where there is none.

    Args:
        asked: arguments that the caller gave to change it; what they change is not compared.

    Raises:
        TokenizerError: they differ; names what, and the first probe with both lists of ids. The file is broken.
    """
    stored = read(folder)
    found = [] if stored is None else differences(stored, tokenizer, folder, asked)
    if found:
        raise TokenizerError(
            f"this tokenizer is not the one that was saved here: {'; '.join(found)}",
            where=folder / FILE,
            next=f"put the files back that belong to the model; if the change is meant: pellucid tokenize -m {folder} "
            "--accept, or load once with check_fingerprint=False and save",
        )


def differences(stored: Fingerprint, tokenizer: Tokenizer, folder: Path, asked: Collection[str] = ()) -> list[str]:
    """What differs between a tokenizer and a fingerprint, a sentence each; the vocabulary last, as it may take time."""
    changed = set(asked) - HARMLESS
    found: list[str] = []
    if not changed - {"chat_template"}:
        found += _different_probes(stored, *look(tokenizer, [probe.text for probe in stored.probes]))
        found += _different_special(stored, tokenizer)
    if "chat_template" not in changed:
        found += _different_templates(stored.templates, _templates(tokenizer))
    if not changed & {"tokenizer_class", "extra_ids"}:
        found += _different_vocabulary(stored, tokenizer, folder, sizes=not changed - {"chat_template"})
    return found


# ---- the parts -------------------------------------------------------------------------------------------


def look(tokenizer: Tokenizer, texts: Iterable[str] = PROBES) -> tuple[tuple[Probe, ...], tuple[int, ...]]:
    """What becomes of each text, and of a pair. Nothing where the vocabulary drops merges at random."""
    if getattr(tokenizer.rust.model, "dropout", None):
        return (), ()
    texts = list(texts)
    probes = []
    for text, ids in zip(texts, _encode(tokenizer, texts)):
        back = tokenizer.decode(ids, skip_special_tokens=True)
        probes.append(Probe(text, tuple(ids), None if back == text else back))
    return tuple(probes), tuple(_encode(tokenizer, [PAIR])[0])


def _encode(tokenizer: Tokenizer, inputs: list[Any]) -> list[list[int]]:
    """Ids of each; none for a text that a vocabulary without an unknown token cannot write."""
    try:
        return list(tokenizer(inputs, truncation=False, padding=False)["input_ids"])
    except TokenizerError:
        return [[]] if len(inputs) == 1 else [_encode(tokenizer, [each])[0] for each in inputs]


def _added(tokenizer: Tokenizer) -> str:
    """A digest of the added tokens and their options."""
    options = ("special", "lstrip", "rstrip", "single_word", "normalized")
    tokens = sorted(tokenizer.added_tokens_decoder.items())
    return _digest([(i, token.content, *(bool(getattr(token, o)) for o in options)) for i, token in tokens])


def _vocabulary(rust: RustTokenizer) -> str:
    """A digest of all ids and texts, and of merges or scores in their order, however the library writes them."""
    model = json.loads(rust.model.__getstate__())
    if isinstance(model["vocab"], list):
        texts = {i: text for i, (text, _) in enumerate(model["vocab"])}
        scores = array("f", (score for _, score in model["vocab"]))  # float64 in the file may come back one bit apart
        if sys.byteorder == "big":
            scores.byteswap()
        order = [scores.tobytes().hex()]
    else:
        texts = {i: text for text, i in model["vocab"].items()}
        order = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []]
    texts |= {i: token.content for i, token in rust.get_added_tokens_decoder().items()}
    found = hashlib.sha256("\0".join(f"{i}\0{texts[i]}" for i in sorted(texts)).encode())
    found.update(("\0\0" + "\n".join(order)).encode())
    return found.hexdigest()[:32]


def _templates(tokenizer: Tokenizer) -> dict[str, str]:
    """A digest of each template by its name; "default" for the only one."""
    given = tokenizer.chat_template
    named = {} if given is None else given if isinstance(given, dict) else {"default": given}
    return {name: _digest(text) for name, text in sorted(named.items())}


def _files(folder: Path) -> dict[str, str]:
    """Digests of the vocabulary's files, below 64 MB each: hashing is then faster than comparing."""
    names = {name for kinds in VOCABULARIES.values() for names in kinds for name in names} | {"tekken.json"}
    if (folder / "tokenizer.json").is_file():
        names = {"tokenizer.json"}
    small = [path for name in sorted(names) if (path := folder / name).is_file() and path.stat().st_size < 1 << 26]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in small}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# ---- how they differ ------------------------------------------------------------------------------------


def _different_probes(stored: Fingerprint, probes: tuple[Probe, ...], pair: tuple[int, ...]) -> list[str]:
    if not probes or not stored.probes:  # a vocabulary that drops merges at random
        return []
    found = []
    others = [(then, now) for then, now in zip(stored.probes, probes) if then.ids != now.ids]
    if others:
        then, now = others[0]
        count = f"{len(others)} of {len(probes)} probes have other ids, first {then.text!r}"
        found.append(f"{count}: {around(now.ids, then.ids)} now, {around(then.ids, now.ids)} then")
    elif pair != stored.pair:
        found.append(f"the pair {PAIR} has ids {list(pair)} now, {list(stored.pair)} then")
    others = [(then, now) for then, now in zip(stored.probes, probes) if then.ids == now.ids and then.back != now.back]
    if others:
        then, now = others[0]
        texts = [probe.text if probe.back is None else probe.back for probe in (now, then)]
        ids = around(then.ids, then.ids)
        found.append(f"{len(others)} probes decode differently, first {ids}: {texts[0]!r} now, {texts[1]!r} then")
    return found


def around(ids: Sequence[int], other: Sequence[int], most: int = 24) -> str:
    """A list of ids, shortened to where it parts from the other."""
    if len(ids) <= most:
        return str(list(ids))
    same = next((i for i, (a, b) in enumerate(zip(ids, other)) if a != b), min(len(ids), len(other)))
    begin = max(0, min(same - 4, len(ids) - most))
    shown = ", ".join(map(str, ids[begin : begin + most]))
    return f"[{'…, ' * bool(begin)}{shown}{', …' * (begin + most < len(ids))}] ({len(ids)} ids)"


def _different_special(stored: Fingerprint, tokenizer: Tokenizer) -> list[str]:
    now = tokenizer.special_tokens_map
    names = [name for name in {**stored.roles, **now} if stored.roles.get(name) != now.get(name)]
    found = [f"{name} is {now.get(name)!r}, was {stored.roles.get(name)!r}" for name in names]
    if _added(tokenizer) != stored.added:
        found.append("the added tokens or their options differ")
    return found


def _different_templates(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            which = "the chat template" if name == "default" else f"the chat template {name!r}"
            found.append(f"{which} {'is gone' if name not in now else 'is new' if name not in then else 'differs'}")
    return found


def _different_vocabulary(stored: Fingerprint, tokenizer: Tokenizer, folder: Path, *, sizes: bool) -> list[str]:
    if sizes and len(tokenizer) != stored.tokens:
        return [f"{len(tokenizer)} tokens now, {stored.tokens} then"]
    if not sizes and len(tokenizer) != stored.tokens:  # an argument added some
        return []
    if stored.files and _files(folder) == stored.files:
        return []
    same = _vocabulary(tokenizer.rust) == stored.vocabulary
    return [] if same else ["the vocabulary has as many tokens, but other texts, merges or scores"]


# ---- the file -------------------------------------------------------------------------------------------


def write(fingerprint: Fingerprint, folder: Path) -> Path:
    """Writes the fingerprint into a folder, a probe a line."""
    head = {
        "version": VERSION,
        "digest": fingerprint.digest,
        "tokens": fingerprint.tokens,
        "vocabulary": fingerprint.vocabulary,
        "roles": dict(fingerprint.roles),
        "added": fingerprint.added,
        "templates": dict(fingerprint.templates),
        "files": dict(fingerprint.files),
        "pair": fingerprint.pair,
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    probes = [
        json.dumps([p.text, p.ids] if p.back is None else [p.text, p.ids, p.back], separators=(",", ":"))
        for p in fingerprint.probes
    ]
    text = "\n".join(["{", *lines, '  "probes": [\n    ' + ",\n    ".join(probes) + "\n  ]", "}"]) + "\n"
    path = folder / FILE
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path) -> Fingerprint | None:
    """The fingerprint in a folder; None where there is none.

    Raises:
        TokenizerError: the file is broken, or of a later version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes are too many")
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']!r}, and this is version {VERSION}")
        return Fingerprint(
            tuple(Probe(_text(p[0]), _ids(p[1]), _text(p[2]) if p[2:] else None) for p in found["probes"]),
            _ids(found["pair"]),
            _texts(found["roles"]),
            _text(found["added"]),
            int(found["tokens"]),
            _text(found["vocabulary"]),
            _texts(found["templates"]),
            _texts(found["files"]),
        )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        what = f"not a fingerprint: {type(e).__name__}: {e}"
        raise TokenizerError(what, where=path, next="delete the file, or save the tokenizer again") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where a text should be")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(name): _text(text) for name, text in value.items()}


def _ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        raise TypeError(f"{value!r:.40} where ids should be")
    return tuple(value)
