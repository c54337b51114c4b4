"""What a tokenizer class means beyond its files: one row a class.

A folder names its class in tokenizer_config.json (`tokenizer_class`, with or without "Fast"), or only its
model in config.json (`model_type`). Source of the rows: the class definitions of transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Files that hold a vocabulary, by what they are; tokenizer.json comes before all of them.
VOCABULARIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "sentencepiece": (("tokenizer.model",), ("spiece.model",), ("sentencepiece.bpe.model",)),
    "wordpiece": (("vocab.txt",),),
    "bytelevel": (("vocab.json", "merges.txt"),),
}


@dataclass(frozen=True)
class TokenizerClass:
    """Defaults that a folder may override, and what no file says.

    vocabulary: which files the class has without a tokenizer.json; a key of VOCABULARIES, or "" for none.
    single, pair: the post-processor in the notation of `tokenizers`, with {cls} for the token of that role;
        None for `[bos] $A [eos]` as add_bos_token and add_eos_token say.
    options: defaults of the options in tokenizer_config.json that change ids.
    layout: how pieces of a sentencepiece file become ids, a key of convert.LAYOUTS.
    words: pieces never cross whitespace (`word_ids` then count words).
    """

    vocabulary: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    single: str | None = None
    pair: str | None = None
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    padding_side: str = "right"
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "plain"
    words: bool = False


def _tokens(**roles: str) -> dict[str, str]:
    return {f"{role}_token": text for role, text in roles.items()}


GENERIC = TokenizerClass("sentencepiece")
WITH_TYPES = ("input_ids", "token_type_ids", "attention_mask")
BERT = TokenizerClass(
    "wordpiece",
    tokens=_tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    inputs=WITH_TYPES,
    options={"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
)
LLAMA = TokenizerClass(
    "sentencepiece",
    tokens=_tokens(unk="<unk>", bos="<s>", eos="</s>"),
    padding_side="left",
    # The reference's own documentation says that add_bos_token defaults to True; its version 5.23 reads False
    # where the key is missing. Version 4 and Meta's code add it, and the models were trained with it.
    options={"add_bos_token": True, "legacy": False},
)
GEMMA = replace(
    LLAMA,
    tokens=_tokens(unk="<unk>", bos="<bos>", eos="<eos>", pad="<pad>", mask="<mask>"),
    options={"add_bos_token": True},
)
T5 = TokenizerClass(
    "sentencepiece",
    tokens=_tokens(eos="</s>", unk="<unk>", pad="<pad>"),
    single="$A {eos}",
    pair="$A {eos} $B {eos}",
    options={"extra_ids": 100},
    layout="t5",
    words=True,
)
GPT2 = TokenizerClass("bytelevel", tokens=_tokens(unk="<|endoftext|>", bos="<|endoftext|>", eos="<|endoftext|>"))
ROBERTA = TokenizerClass(
    "bytelevel",
    tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} {sep} $B {sep}",
)
XLM_ROBERTA = replace(ROBERTA, vocabulary="sentencepiece", layout="fairseq", words=True)

CLASSES: dict[str, TokenizerClass] = {
    "PreTrainedTokenizer": GENERIC,
    "TokenizersBackend": GENERIC,
    "BertTokenizer": BERT,
    "ConvBertTokenizer": BERT,
    "DistilBertTokenizer": replace(BERT, inputs=GENERIC.inputs),
    "ElectraTokenizer": BERT,
    "LayoutLMTokenizer": BERT,
    "LxmertTokenizer": BERT,
    "MobileBertTokenizer": BERT,
    "SqueezeBertTokenizer": BERT,
    "DPRContextEncoderTokenizer": BERT,
    "DPRQuestionEncoderTokenizer": BERT,
    "LlamaTokenizer": LLAMA,
    "GemmaTokenizer": GEMMA,
    "T5Tokenizer": T5,
    "GPT2Tokenizer": GPT2,
    "RobertaTokenizer": ROBERTA,
    "BartTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "LEDTokenizer": ROBERTA,
    "XLMRobertaTokenizer": XLM_ROBERTA,
    # Known with a tokenizer.json only:
    "AlbertTokenizer": TokenizerClass(tokens=BERT.tokens | _tokens(bos="[CLS]", eos="[SEP]", unk="<unk>", pad="<pad>")),
    "CLIPTokenizer": TokenizerClass(
        tokens=_tokens(unk="<|endoftext|>", bos="<|startoftext|>", eos="<|endoftext|>", pad="<|endoftext|>")
    ),
    "CodeLlamaTokenizer": TokenizerClass(tokens=LLAMA.tokens, padding_side="left"),
    "CohereTokenizer": TokenizerClass(padding_side="left"),
    "DebertaV2Tokenizer": TokenizerClass(
        tokens=BERT.tokens | _tokens(bos="[CLS]", eos="[SEP]"),
        inputs=("input_ids", "attention_mask", "token_type_ids"),
    ),
    "DebertaTokenizer": TokenizerClass(
        tokens=BERT.tokens | _tokens(bos="[CLS]", eos="[SEP]"),
        inputs=("input_ids", "attention_mask", "token_type_ids"),
    ),
    "FNetTokenizer": TokenizerClass(inputs=("input_ids", "token_type_ids")),
    "GPTNeoXTokenizer": TokenizerClass(tokens={**GPT2.tokens, **_tokens(pad="<|padding|>")}),
    "MPNetTokenizer": TokenizerClass(tokens={**ROBERTA.tokens, **_tokens(unk="[UNK]")}),
    "Qwen2Tokenizer": TokenizerClass(tokens=_tokens(unk="<|endoftext|>", eos="<|endoftext|>", pad="<|endoftext|>")),
    "WhisperTokenizer": TokenizerClass(tokens=GPT2.tokens),
    "XLNetTokenizer": TokenizerClass(padding_side="left"),
}

MODEL_TYPES = {
    model_type: name
    for name, model_types in {
        "BertTokenizer": "bert distilbert electra convbert layoutlm megatron-bert mobilebert nomic_bert"
        " squeezebert blip align git vilt visual_bert",
        "LlamaTokenizer": "llama mistral mixtral idefics",
        "GemmaTokenizer": "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma t5gemma",
        "T5Tokenizer": "t5 mt5 switch_transformers musicgen",
        "GPT2Tokenizer": "gpt2 gpt_neo gptj codegen opt phi starcoder2",
        "RobertaTokenizer": "roberta bart longformer led bridgetower roberta-prelayernorm",
        "XLMRobertaTokenizer": "xlm-roberta xmod",
        "AlbertTokenizer": "albert",
        "CLIPTokenizer": "clip clipseg owlvit",
        "CohereTokenizer": "cohere cohere2",
        "DebertaTokenizer": "deberta",
        "DebertaV2Tokenizer": "deberta-v2",
        "FNetTokenizer": "fnet",
        "GPTNeoXTokenizer": "gpt_neox mamba mamba2 falcon_mamba mpt olmo olmoe rwkv",
        "MPNetTokenizer": "mpnet",
        "Qwen2Tokenizer": "qwen2 qwen2_moe qwen3 qwen3_moe qwen2_vl qwen2_5_vl",
        "WhisperTokenizer": "whisper",
        "XLNetTokenizer": "xlnet",
    }.items()
    for model_type in model_types.split()
}


def row(name: str) -> TokenizerClass:
    """The row of a class, by its name with or without "Fast"; the generic one for a class nobody knows."""
    return CLASSES.get(name.removesuffix("Fast"), GENERIC)
