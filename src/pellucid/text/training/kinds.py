"""The kinds of tokenizer that `train_tokenizer` makes: an empty pipeline and its special tokens, an entry a kind.

An entry is a `Kind`; the table has those that models publish, and a `Kind` of your own is passed in its place.
Source of the pipelines: the tokenizer.json of the models that each entry names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pellucid.errors import ArgumentError

SPACE = "▁"  # how sentencepiece writes a space (U+2581)
Roles = Mapping[str, str | None]  # special tokens: "eos_token" -> its text


@dataclass(frozen=True)
class Kind:
    """How one kind of tokenizer is made.

    pipeline: special tokens -> normalizer, pre-tokenizer, decoder, and a model without a vocabulary.
    tokens: the special tokens by role; their order is the order of their ids.
    single, pair: what goes around a text, and around two, in the notation of `tokenizers`, with {cls} for the
        token of that role.
    inputs: what the model takes.
    """

    pipeline: Callable[[Roles], Tokenizer]
    tokens: Mapping[str, str]
    single: str = "$A"
    pair: str = "$A $B:1"
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")

    def post_processor(self, roles: Roles, ids: Mapping[str, int]) -> processors.TemplateProcessing:
        """`single` and `pair` with the special tokens as they are called, and their ids."""
        texts = {role.removesuffix("_token"): text for role, text in roles.items() if text is not None}
        used = sorted({part[1:].split("}")[0] for part in self.pair.split() if part.startswith("{")})
        for role in used:
            if role not in texts:
                raise ArgumentError(f"{role}_token=None, and this kind puts it around every text ({self.single})")
        return processors.TemplateProcessing(
            single=[part.format(**texts) for part in self.single.split()],
            pair=[part.format(**texts) for part in self.pair.split()],
            special_tokens=[(texts[role], ids[texts[role]]) for role in used],
        )


def _tokens(**roles: str) -> dict[str, str]:
    return {f"{role}_token": text for role, text in roles.items()}


def _unknown(roles: Roles) -> str:
    """The unknown token, for a model that cannot be without."""
    unk = roles.get("unk_token")
    if unk is None:
        raise ArgumentError("unk_token=None, and this kind has unknown words", next="a byte kind has none")
    return unk


def _sentencepiece_bpe(roles: Roles) -> Tokenizer:
    """Spaces are ▁, one is put before the text, digits stand alone, lines and words are not crossed.

    The first Metaspace prepends always: see `formats/sentencepiece.py`.
    """
    rust = Tokenizer(models.BPE(unk_token=roles.get("unk_token"), fuse_unk=True, byte_fallback=True))
    rust.normalizer = normalizers.Replace(" ", SPACE)
    steps = [
        pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False),
        pre_tokenizers.Metaspace(SPACE, prepend_scheme="never", split=True),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.Split(Regex(r"\n+"), "isolated"),
    ]
    rust.pre_tokenizer = pre_tokenizers.Sequence(steps)
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    rust.decoder = decoders.Sequence(back)
    return rust


# Where a text is split before bytes are merged. GPT-2's own pattern is built into ByteLevel.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")


def _byte_level(pattern: str | None, *, nfc: bool = False) -> Callable[[Roles], Tokenizer]:
    def pipeline(roles: Roles) -> Tokenizer:
        rust = Tokenizer(models.BPE())
        if nfc:
            rust.normalizer = normalizers.NFC()
        if pattern is None:
            rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        else:
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
            to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            rust.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        rust.decoder = decoders.ByteLevel()
        return rust

    return pipeline


def _wordpiece(*, lowercase: bool) -> Callable[[Roles], Tokenizer]:
    def pipeline(roles: Roles) -> Tokenizer:
        rust = Tokenizer(models.WordPiece(unk_token=_unknown(roles)))
        rust.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        rust.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        rust.decoder = decoders.WordPiece(prefix="##")
        return rust

    return pipeline


def _unigram(*rules: normalizers.Normalizer) -> Callable[[Roles], Tokenizer]:
    def pipeline(roles: Roles) -> Tokenizer:
        rust = Tokenizer(models.Unigram([(_unknown(roles), 0.0)], unk_id=0))
        rust.normalizer = normalizers.Sequence(list(rules))
        metaspace = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
        rust.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
        rust.decoder = decoders.Metaspace(SPACE, prepend_scheme="always", split=True)
        return rust

    return pipeline


BERT = Kind(
    _wordpiece(lowercase=True),
    tokens=_tokens(pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    inputs=("input_ids", "token_type_ids", "attention_mask"),
)
LATEX_QUOTES = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]

KINDS: dict[str, Kind] = {
    # sentencepiece-like, with bytes for characters that the vocabulary lacks (Llama 2)
    "bpe": Kind(
        _sentencepiece_bpe,
        tokens=_tokens(unk="<unk>", bos="<s>", eos="</s>"),
        single="{bos} $A",
        pair="{bos} $A {bos}:1 $B:1",
    ),
    # of bytes: no text is unknown (Llama 3)
    "byte-bpe": Kind(
        _byte_level(LLAMA_3),
        tokens=_tokens(bos="<|begin_of_text|>", eos="<|end_of_text|>", pad="<|pad|>"),
        single="{bos} $A",
        pair="{bos} $A {bos}:1 $B:1",
    ),
    # the same, with GPT-2's split and its one special token
    "byte-bpe-gpt2": Kind(_byte_level(None), tokens=_tokens(bos="<|endoftext|>", eos="<|endoftext|>")),
    # the same, with Qwen 2's: every digit alone, composed characters
    "byte-bpe-qwen2": Kind(_byte_level(QWEN_2, nfc=True), tokens=_tokens(eos="<|endoftext|>", pad="<|endoftext|>")),
    "wordpiece": BERT,  # without case and accents
    "wordpiece-cased": replace(BERT, pipeline=_wordpiece(lowercase=False)),
    # T5, without its sentinels: extra_special_tokens has room for them
    "unigram": Kind(
        _unigram(normalizers.Nmt(), normalizers.NFKC()),
        tokens=_tokens(pad="<pad>", eos="</s>", unk="<unk>"),
        single="$A {eos}",
        pair="$A {eos} $B {eos}",
    ),
    # ALBERT: no case, no accents, BERT's special tokens around a text
    "unigram-albert": replace(
        BERT,
        pipeline=_unigram(*LATEX_QUOTES, normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()),
        tokens=_tokens(pad="<pad>", unk="<unk>", cls="[CLS]", sep="[SEP]", mask="[MASK]"),
    ),
}
