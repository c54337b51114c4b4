"""How each model that publishes tiktoken ranks splits a text, and its special tokens: facts from its own code.

Sources: tiktoken_ext/openai_public.py of github.com/openai/tiktoken; whisper/tokenizer.py of github.com/openai/whisper;
models/llama3 and models/llama4/tokenizer.py of github.com/meta-llama/llama-models; tokenization_*.py in the folders of
Qwen-7B, Kimi-K2, glm-4-9b-chat, Hunyuan-A13B, stablelm-2-12b and Phi-3-small on the hub.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pellucid.text.languages import WHISPER

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
EDGE = r"[^\r\n\p{L}\p{N}]?"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = rf"{CONTRACTIONS}|{EDGE}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}"
QWEN = rf"{CONTRACTIONS}|{EDGE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}"
O200K = (
    rf"{EDGE}[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?|{EDGE}[{UPPER}]+[{LOWER}]*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{REST}"
)
TEKKEN = (  # Mistral: without contractions, digits one by one
    rf"{EDGE}[{UPPER}]*[{LOWER}]+|{EDGE}[{UPPER}]+[{LOWER}]*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{REST}"
)
KIMI = (
    rf"[\p{{Han}}]+|{EDGE}[{UPPER}&&[^\p{{Han}}]]*[{LOWER}&&[^\p{{Han}}]]+{CONTRACTIONS}?"
    rf"|{EDGE}[{UPPER}&&[^\p{{Han}}]]+[{LOWER}&&[^\p{{Han}}]]*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}"
)


def _numbered(form: str, numbers: Iterable[int]) -> list[str]:
    return [f"<|{form.format(i)}|>" for i in numbers]


def _whisper(languages: int) -> list[str]:
    return [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{language}|>" for language in list(WHISPER)[:languages]),  # the last, yue, came with the third version
        *"<|translate|> <|transcribe|> <|startoflm|> <|startofprev|> <|nospeech|> <|notimestamps|>".split(),
        *(f"<|{i * 0.02:.2f}|>" for i in range(1501)),
    ]


LLAMA3 = [
    *"<|begin_of_text|> <|end_of_text|> <|reserved_special_token_0|> <|reserved_special_token_1|>".split(),
    *"<|finetune_right_pad_id|> <|step_id|> <|start_header_id|> <|end_header_id|>".split(),
    *"<|eom_id|> <|eot_id|> <|python_tag|> <|image|>".split(),
    *_numbered("reserved_special_token_{}", range(2, 246)),
]
LLAMA4 = [
    *"<|begin_of_text|> <|end_of_text|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|>".split(),
    *"<|header_start|> <|header_end|> <|eom|> <|eot|> <|step|>".split(),
    *_numbered("text_post_train_reserved_special_token_{}", range(6)),
    *"<|python_start|> <|python_end|> <|finetune_right_pad|>".split(),
    *_numbered("text_post_train_reserved_special_token_{}", range(8, 69)),
    *"<|image_start|> <|image_end|>".split(),
    *_numbered("vision_reserved_special_token_{}", range(2)),
    *"<|tile_x_separator|> <|tile_y_separator|>".split(),
    *_numbered("vision_reserved_special_token_{}", range(2, 6)),
    *"<|image|> <|vision_reserved_special_token_6|> <|patch|>".split(),
    *_numbered("vision_reserved_special_token_{}", range(7, 1048)),
    *_numbered("reasoning_reserved_special_token_{}", range(8)),
    *"<|reasoning_thinking_start|> <|reasoning_thinking_end|>".split(),
    *_numbered("reserved_special_token_{}", range(904)),
]
HARMONY = [
    *"<|startoftext|> <|endoftext|> <|reserved_200000|> <|reserved_200001|> <|return|> <|constrain|>".split(),
    *"<|reserved_200004|> <|channel|> <|start|> <|end|> <|message|> <|reserved_200009|> <|reserved_200010|>".split(),
    *"<|reserved_200011|> <|call|>".split(),
    *_numbered("reserved_{}", range(200013, 201088)),
]
FIM = "<|fim_prefix|> <|fim_middle|> <|fim_suffix|>".split()
ARCADE = [
    *"<|endoftext|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <gh_stars> <filename>".split(),
    *"<issue_start> <issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code>".split(),
    *"<jupyter_output> <empty_output> <commit_before> <commit_msg> <commit_after> <reponame>".split(),
    *"<|endofprompt|> <|im_start|> <|im_end|> <|pause|>".split(),
    *_numbered("reg{}", range(8)),
    "<|extra0|>",
]
GLM4 = [
    *"<|endoftext|> [MASK] [gMASK] [sMASK] <sop> <eop> <|system|> <|user|> <|assistant|> <|observation|>".split(),
    *"<|begin_of_image|> <|end_of_image|> <|begin_of_video|> <|end_of_video|>".split(),
]
HUNYUAN = [
    *"<|endoftext|> <|startoftext|> <|bos|> <|eos|> <|pad|>".split(),
    *_numbered("extra_{}", range(204)),
]
# Phi-3-small fills its padded vocabulary with dummies, numbered in the order in which its code found the holes.
PHI3 = [
    *"<|dummy_id_2|> <|endoftext|> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|system|> <|user|>".split(),
    *"<|assistant|> <|dummy_id_0|> <|dummy_id_1|> <|end|>".split(),
    *_numbered("dummy_id_{}", range(3, 12)),
    "<|endofprompt|>",
    *_numbered("dummy_id_{}", range(12, 87)),
]


@dataclass(frozen=True)
class Encoding:
    """What a model's code adds to its ranks.

    pattern: how a text is split into pieces; a merge never crosses their borders.
    special: special tokens in the order of their ids; "" where an id has none.
    ranks: how many tokens the model's file has.
    start: the id of the first special token; None: they follow the ranks.
    files: names that only this model's file has; classes: names of its tokenizer class in tokenizer_config.json.
    tokens, options, single, pair, padding_side: as in `classes.TokenizerClass`.
    nfc: characters are composed before the text is split.
    counted: a token's rank is its line, whatever the line says.
    """

    pattern: str
    special: tuple[str, ...]
    ranks: int
    start: int | None = None
    files: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    tokens: dict[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    single: str | None = None
    pair: str | None = None
    padding_side: str = "right"
    nfc: bool = False
    counted: bool = False

    def names(self, ranks: int) -> dict[int, str]:
        """Special tokens by id, behind so many ranks."""
        start = ranks if self.start is None else self.start
        return {id: text for id, text in enumerate(self.special, start) if text}


def _tokens(**roles: str) -> dict[str, str]:
    return {f"{role}_token": text for role, text in roles.items()}


END = "<|endoftext|>"
OPENAI = _tokens(bos=END, eos=END, unk=END)
LLAMA = _tokens(bos="<|begin_of_text|>", eos="<|end_of_text|>")
BOS = {"add_bos_token": True}

ENCODINGS = {
    "gpt2": Encoding(GPT2, (END,), 50256, files=("gpt2.tiktoken", "r50k_base.tiktoken"), tokens=OPENAI),
    "p50k": Encoding(GPT2, (END,), 50280, start=50256, files=("p50k_base.tiktoken",), tokens=OPENAI),
    "cl100k": Encoding(
        CL100K,
        (END, *FIM, *[""] * 15, "<|endofprompt|>"),
        100256,
        start=100257,
        files=("cl100k_base.tiktoken",),
        tokens=OPENAI,
    ),
    "phi3-small": Encoding(
        CL100K,
        tuple(PHI3),
        100256,
        classes=("Phi3SmallTokenizer",),
        tokens=_tokens(bos=END, eos=END),
        padding_side="left",
    ),
    "arcade100k": Encoding(
        QWEN,
        tuple(ARCADE),
        100256,
        start=100257,
        files=("arcade100k.tiktoken",),
        classes=("Arcade100kTokenizer",),
        tokens=_tokens(eos=END, pad=END),
        nfc=True,
    ),
    "o200k": Encoding(
        O200K,
        (END, *[""] * 18, "<|endofprompt|>"),
        199998,
        start=199999,
        files=("o200k_base.tiktoken",),
        tokens=OPENAI,
    ),
    "o200k-harmony": Encoding(
        O200K,
        tuple(HARMONY),
        199998,
        files=("o200k_harmony.tiktoken",),
        classes=("GptOssTokenizer",),
        tokens=_tokens(bos="<|startoftext|>", eos="<|return|>", pad=END),
    ),
    "whisper": Encoding(GPT2, tuple(_whisper(99)), 50257, files=("multilingual.tiktoken",), tokens=OPENAI),
    "whisper-v3": Encoding(GPT2, tuple(_whisper(100)), 50257, tokens=OPENAI),
    "whisper-english": Encoding(GPT2, tuple(_whisper(99)), 50256, tokens=OPENAI),
    "llama3": Encoding(
        CL100K, tuple(LLAMA3), 128000, tokens=LLAMA | _tokens(pad="<|finetune_right_pad_id|>"), options=BOS
    ),
    "llama4": Encoding(O200K, tuple(LLAMA4), 200000, tokens=LLAMA | _tokens(pad="<|finetune_right_pad|>"), options=BOS),
    "qwen": Encoding(
        QWEN,
        (END, "<|im_start|>", "<|im_end|>", *_numbered("extra_{}", range(205))),
        151643,
        files=("qwen.tiktoken",),
        classes=("QWenTokenizer",),
        tokens=_tokens(eos=END, pad=END),
        nfc=True,
    ),
    # The names come from the folder's added_tokens_decoder. The code reserves 258, the embedding has 256.
    "kimi": Encoding(
        KIMI,
        tuple(_numbered("reserved_token_{}", range(163584, 163840))),
        163584,
        files=("tiktoken.model",),
        classes=("TikTokenTokenizer",),
    ),
    "glm4": Encoding(
        CL100K,
        tuple(GLM4),
        151329,
        classes=("ChatGLM4Tokenizer",),
        tokens=_tokens(eos=END, pad=END, gmask="[gMASK]", sop="<sop>"),
        single="{gmask} {sop} $A",
        pair="{gmask} {sop} $A $B",
        padding_side="left",
    ),
    "hunyuan": Encoding(
        QWEN,
        tuple(HUNYUAN),
        127957,
        files=("hy.tiktoken",),
        classes=("HYTokenizer",),
        tokens=_tokens(bos="<|startoftext|>", eos=END, pad="<|pad|>"),
        options=BOS,
        nfc=True,
        counted=True,
    ),
}
