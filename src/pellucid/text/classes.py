"""What a tokenizer class means beyond its files: one row a class.

A folder names its class in tokenizer_config.json (`tokenizer_class`, with or without "Fast"), or only its
model in config.json (`model_type`). Source of the rows: the class definitions of transformers 4.57 and 5.23.
Where a class of version 5 lost what version 4 and the model's own code do (an end token, a mask that takes the
space before it), the row follows the model; docs/tokenizers.md lists these.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Files that hold a vocabulary, by what they are; tokenizer.json comes before all of them.
VOCABULARIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "sentencepiece": (
        ("tokenizer.model",),
        ("spiece.model",),
        ("sentencepiece.bpe.model",),
        ("sentencepiece.model",),
        ("spm.model",),
        ("spm_char.model",),
    ),
    "mapped": (("vocab.json", "sentencepiece.bpe.model"), ("vocab.json", "source.spm", "target.spm")),
    "wordpiece": (("vocab.txt",),),
    "prophetnet": (("prophetnet.tokenizer",),),
    "letters": (("vocab.txt",),),
    "bpe": (("vocab.json", "merges.txt"), ("vocab-src.json", "vocab-tgt.json", "merges.txt")),
    "fastbpe": (("vocab.txt", "bpe.codes"),),
    "fixed": ((),),  # no file: bytes, characters
}


@dataclass(frozen=True)
class Layout:
    """How pieces of a sentencepiece file become ids: `first`, the file's without its first `drop`, `last`.

    codes: the table of languages.py whose codes stand before `last`, written as `code` says.
    """

    first: tuple[str, ...] = ()
    drop: int = 0
    last: tuple[str, ...] = ()
    codes: str = ""
    code: str = "{}"


@dataclass(frozen=True)
class TokenizerClass:
    """Defaults that a folder may override, and what no file says.

    vocabulary: which files the class has without a tokenizer.json; a key of VOCABULARIES, or "" for none.
    text: how a text is normalised and cut before the vocabulary sees it; a key of `recipes.RECIPES`, or for
        sentencepiece files of `recipes.BEFORE`.
    single, pair: the post-processor in the notation of `tokenizers`, with {cls} for the token of that role;
        None for `[bos] $A [eos]` as add_bos_token and add_eos_token say. {lang} is the source language.
    trim: offsets leave out the space before a word.
    extra: special tokens without a role.
    swallows: roles whose token takes the space before it (`lstrip`).
    options: defaults of the options in tokenizer_config.json that change ids.
    layout: see Layout.
    words: how pieces stay within words: "" they may cross spaces; "space"; "whitespace", of any kind.
    face: the subclass of Tokenizer with the methods that people call; a key of `loading.FACES`.
    needs: what has to be installed that we do not bring; only a tokenizer.json loads.
    """

    vocabulary: str = ""
    text: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    single: str | None = None
    pair: str | None = None
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    padding_side: str = "right"
    trim: bool = False
    extra: tuple[str, ...] = ()
    swallows: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    layout: Layout = Layout()
    words: str = ""
    face: str = ""
    needs: str = ""


def _tokens(**roles: str) -> dict[str, str]:
    return {f"{role}_token": text for role, text in roles.items()}


# ---- WordPiece -------------------------------------------------------------------------------------------

WITH_TYPES = ("input_ids", "token_type_ids", "attention_mask")
BERT = TokenizerClass(
    "wordpiece",
    "bert",
    tokens=_tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    inputs=WITH_TYPES,
    options={"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
)
MPNET = replace(
    BERT,
    tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="[UNK]", pad="<pad>", mask="<mask>"),
    pair="{cls} $A {sep} {sep} $B {sep}",
    inputs=("input_ids", "attention_mask"),
    swallows=("mask_token",),
    trim=True,
)

# ---- byte-level BPE --------------------------------------------------------------------------------------

GPT2 = TokenizerClass("bpe", "bytes", tokens=_tokens(unk="<|endoftext|>", bos="<|endoftext|>", eos="<|endoftext|>"))
ROBERTA = TokenizerClass(
    "bpe",
    "bytes",
    tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} {sep} $B {sep}",
    trim=True,
    swallows=("mask_token",),
)
DEBERTA = TokenizerClass(
    "bpe",
    "bytes",
    tokens=BERT.tokens | _tokens(bos="[CLS]", eos="[SEP]"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    swallows=("mask_token",),
)
QWEN2 = TokenizerClass("bpe", "qwen2", tokens=_tokens(unk="<|endoftext|>", eos="<|endoftext|>", pad="<|endoftext|>"))

# ---- BPE over characters, of words with an end -------------------------------------------------------------

OPENAI = TokenizerClass("bpe", "openai", tokens=_tokens(unk="<unk>"))
MOSES = TokenizerClass(
    "bpe",
    "moses",
    tokens=_tokens(unk="<unk>", bos="<s>", sep="</s>", pad="<pad>", cls="</s>", mask="<special1>"),
    extra=tuple(f"<special{i}>" for i in range(10)),
    single="{bos} $A {sep}",
    pair="{bos} $A {sep} $B:1 {sep}:1",
    needs="sacremoses (Moses' word splitting)",
)

# ---- sentencepiece ---------------------------------------------------------------------------------------

GENERIC = TokenizerClass("sentencepiece")
LLAMA = TokenizerClass(
    "sentencepiece",
    tokens=_tokens(unk="<unk>", bos="<s>", eos="</s>"),
    padding_side="left",
    # The reference's own documentation says that add_bos_token defaults to True; its version 5.23 reads False
    # where the key is missing. Version 4 and Meta's code add it, and the models were trained with it.
    options={"add_bos_token": True, "legacy": False},
)
CODE_LLAMA = replace(LLAMA, extra=("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "<FILL_ME>"))
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
    words="whitespace",
)
ALBERT = TokenizerClass(
    "sentencepiece",
    "albert",
    tokens=_tokens(bos="[CLS]", eos="[SEP]", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]"),
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    options={"do_lower_case": True, "keep_accents": False},
    words="whitespace",
    swallows=("mask_token",),
)
DEBERTA_V2 = TokenizerClass(
    "sentencepiece",
    "deberta-v2",
    tokens=DEBERTA.tokens,
    single="{cls} $A {sep}",
    pair="{cls} $A {sep} $B:1 {sep}:1",
    inputs=DEBERTA.inputs,
    options={"do_lower_case": False, "split_by_punct": False},
    words="space",
)
XLNET = TokenizerClass(
    "sentencepiece",
    "albert",
    tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
    extra=("<eop>", "<eod>"),
    single="$A {sep} {cls}:2",
    pair="$A {sep} $B:1 {sep}:1 {cls}:2",
    inputs=WITH_TYPES,
    padding_side="left",
    options={"do_lower_case": False, "keep_accents": False, "pad_token_type_id": 3},
    words="whitespace",
    swallows=("mask_token",),
)
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq's order of what sentencepiece calls <unk> <s> </s>
XLM_ROBERTA = replace(
    ROBERTA,
    vocabulary="sentencepiece",
    text="",
    layout=Layout(FAIRSEQ, 3, ("<mask>",)),
    words="whitespace",
    trim=False,
)
CAMEMBERT = replace(
    XLM_ROBERTA,
    layout=Layout(("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1, ("<mask>",)),
    extra=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
)
MBART = replace(
    XLM_ROBERTA,
    layout=Layout(FAIRSEQ, 3, ("<mask>",), codes="MBART"),
    single="$A {eos} {lang}",
    pair="$A $B {eos} {lang}",
    options={"src_lang": "en_XX", "tgt_lang": None},
    face="translation",
)
MBART50 = replace(
    MBART,
    tokens={role: text for role, text in ROBERTA.tokens.items() if role != "bos_token"},
    layout=Layout(FAIRSEQ, 3, ("<mask>",), codes="MBART50"),
    single="{lang} $A {eos}",
    pair="{lang} $A $B {eos}",
    words="space",
)
NLLB = replace(
    MBART50,
    tokens=ROBERTA.tokens,
    layout=Layout(FAIRSEQ, 3, ("<mask>",), codes="NLLB"),
    options={"src_lang": "eng_Latn", "tgt_lang": None, "legacy_behaviour": False},
)
M2M100 = TokenizerClass(
    "mapped",
    tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", unk="<unk>", pad="<pad>"),
    layout=Layout(codes="M2M100", code="__{}__"),
    single="{lang} $A {eos}",
    pair="{lang} $A $B {eos}",
    options={"src_lang": "en", "tgt_lang": None, "language_codes": "m2m100"},
    face="translation",
)
PLBART = replace(
    XLM_ROBERTA,
    layout=Layout(FAIRSEQ, 3, ("<mask>",), codes="PLBART", code="__{}__"),
    single="$A {eos} {lang}",
    pair="$A $B {eos} {lang}",
    options={"src_lang": None, "tgt_lang": None, "language_codes": "base"},
    words="",
    face="translation",
)
SEAMLESS = TokenizerClass(
    "sentencepiece",
    tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>"),
    layout=Layout(("<pad>", "<unk>", "<s>", "</s>"), 3, code="__{}__"),
    single="{lang} $A {eos}",
    pair="{lang} $A $B {eos}",
    options={"src_lang": "eng", "tgt_lang": "fra"},
    words="space",
    face="translation",
)
PEGASUS = TokenizerClass(
    "sentencepiece",
    tokens=_tokens(pad="<pad>", eos="</s>", unk="<unk>", mask="<mask_2>"),
    extra=("<mask_1>", *(f"<unk_{i}>" for i in range(2, 103))),
    layout=Layout(("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103))), 2),
    single="$A {eos}",
    pair="$A $B {eos}",
    words="space",
)

CLASSES: dict[str, TokenizerClass] = {
    "PreTrainedTokenizer": GENERIC,
    "TokenizersBackend": GENERIC,
    "PythonBackend": GENERIC,
    "SentencePieceBackend": GENERIC,
    "PreTrainedTokenizerBase": GENERIC,
    # WordPiece
    "BertTokenizer": BERT,
    "BertTokenizerLegacy": BERT,
    "ConvBertTokenizer": BERT,
    "DistilBertTokenizer": replace(BERT, inputs=GENERIC.inputs),
    "DPRContextEncoderTokenizer": BERT,
    "DPRQuestionEncoderTokenizer": BERT,
    "DPRReaderTokenizer": replace(BERT, inputs=GENERIC.inputs),
    "ElectraTokenizer": BERT,
    "FunnelTokenizer": replace(
        BERT,
        tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", sep="<sep>", pad="<pad>", cls="<cls>", mask="<mask>"),
        single="{cls}:2 $A {sep}",
        pair="{cls}:2 $A {sep} $B:1 {sep}:1",
        options=BERT.options | {"clean_text": True},
    ),
    "LayoutLMTokenizer": BERT,
    "LayoutLMv2Tokenizer": replace(
        BERT,
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        options=BERT.options | {"model_max_length": 512},
    ),
    "LxmertTokenizer": BERT,
    "MobileBertTokenizer": BERT,
    "MPNetTokenizer": MPNET,
    "ProphetNetTokenizer": replace(
        BERT,
        vocabulary="prophetnet",
        tokens=_tokens(unk="[UNK]", sep="[SEP]", pad="[PAD]", mask="[MASK]"),
        extra=("[X_SEP]",),
        single="$A {sep}",
        pair="$A {sep} $B {sep}",
        inputs=GENERIC.inputs,
    ),
    "RealmTokenizer": BERT,
    "RetriBertTokenizer": replace(BERT, inputs=GENERIC.inputs),
    "RoCBertTokenizer": BERT,
    "SplinterTokenizer": replace(
        BERT,
        tokens=BERT.tokens | _tokens(question="[QUESTION]"),
        pair="{cls} $A {question} . {sep} $B:1 {sep}:1",
        inputs=GENERIC.inputs,
    ),
    "SqueezeBertTokenizer": BERT,
    "TapasTokenizer": replace(BERT, tokens=BERT.tokens | _tokens(empty="[EMPTY]")),
    "BertJapaneseTokenizer": replace(BERT, text="bert-japanese", needs="MeCab, Sudachi or Juman++"),
    "RoFormerTokenizer": replace(BERT, needs="rjieba (Chinese words)"),
    "EsmTokenizer": TokenizerClass(
        "letters",
        tokens=_tokens(unk="<unk>", cls="<cls>", pad="<pad>", mask="<mask>", eos="<eos>"),
        single="{cls} $A {eos}",
        pair="{cls} $A {eos} $B {eos}",
    ),
    # byte-level BPE
    "GPT2Tokenizer": GPT2,
    "CodeGenTokenizer": GPT2,
    "WhisperTokenizer": replace(
        GPT2,
        options={"language": None, "task": None, "predict_timestamps": False},
        face="whisper",
    ),
    "GPTNeoXTokenizer": replace(GPT2, text="bytes-nfc", tokens={**GPT2.tokens, **_tokens(pad="<|padding|>")}),
    "CohereTokenizer": TokenizerClass(
        "bpe",
        "cohere",
        tokens=_tokens(
            unk="<UNK>",
            bos="<BOS_TOKEN>",
            eos="<|END_OF_TURN_TOKEN|>",
            pad="<PAD>",
            cls="<CLS>",
            sep="<SEP>",
            mask="<MASK_TOKEN>",
        ),
        padding_side="left",
    ),
    "Qwen2Tokenizer": QWEN2,
    "Qwen3_5Tokenizer": replace(QWEN2, text="qwen3.5"),
    "RobertaTokenizer": ROBERTA,
    "BartTokenizer": ROBERTA,
    "LongformerTokenizer": ROBERTA,
    "LEDTokenizer": ROBERTA,
    "MvpTokenizer": ROBERTA,
    "TapexTokenizer": ROBERTA,  # small letters are the task's: tasks/table_writing.py
    "LukeTokenizer": replace(ROBERTA, extra=("<ent>", "<ent2>")),
    "LayoutLMv3Tokenizer": replace(ROBERTA, options={"add_prefix_space": True}),
    "MarkupLMTokenizer": replace(ROBERTA, pair="{cls} $A {sep} $B {sep}", inputs=WITH_TYPES, trim=False, swallows=()),
    "BlenderbotTokenizer": replace(
        ROBERTA, single="$A {eos}", pair="$A $B {eos}", trim=False, options={"add_prefix_space": True}
    ),
    "DebertaTokenizer": DEBERTA,
    # BPE of words with an end
    "CLIPTokenizer": TokenizerClass(
        "bpe",
        "clip",
        tokens=_tokens(unk="<|endoftext|>", bos="<|startoftext|>", eos="<|endoftext|>", pad="<|endoftext|>"),
        single="{bos} $A {eos}",
        pair="{bos} $A {eos} {eos} $B {eos}",
    ),
    "OpenAIGPTTokenizer": OPENAI,
    "HerbertTokenizer": TokenizerClass(
        "bpe",
        "herbert",
        tokens=_tokens(cls="<s>", unk="<unk>", pad="<pad>", mask="<mask>", sep="</s>"),
        single="{cls} $A {sep}",
        pair="{cls} $A {sep} $B:1 {sep}:1",
    ),
    "CTRLTokenizer": TokenizerClass("bpe", "ctrl", tokens=_tokens(unk="<unk>")),
    "BlenderbotSmallTokenizer": TokenizerClass(
        "bpe",
        "blenderbot-small",
        tokens=_tokens(bos="__start__", eos="__end__", unk="__unk__", pad="__null__"),
    ),
    "PhobertTokenizer": replace(ROBERTA, vocabulary="fastbpe", text="ctrl", trim=False, swallows=()),
    "BertweetTokenizer": replace(
        ROBERTA, vocabulary="fastbpe", text="ctrl", trim=False, swallows=(), options={"normalization": False}
    ),
    "XLMTokenizer": MOSES,
    "FlaubertTokenizer": MOSES,
    "FSMTTokenizer": replace(MOSES, extra=(), single="$A {sep}", pair="$A {sep} $B {sep}", inputs=GENERIC.inputs),
    "BioGptTokenizer": replace(
        MOSES,
        tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", unk="<unk>", pad="<pad>"),
        extra=(),
        single="{sep} $A",
        pair="{sep} $A {sep} $B:1",
        inputs=GENERIC.inputs,
    ),
    # sentencepiece
    "LlamaTokenizer": LLAMA,
    "CodeLlamaTokenizer": CODE_LLAMA,
    "Phi3Tokenizer": LLAMA,
    "GemmaTokenizer": GEMMA,
    "Siglip2Tokenizer": replace(GEMMA, text="lower", options={"do_lower_case": True}),
    "Tipsv2Tokenizer": replace(
        GENERIC,
        text="lower",
        tokens=_tokens(unk="<unk>", pad="<pad>"),
        options={"do_lower_case": True, "model_max_length": 64},
        words="whitespace",
    ),
    "T5Tokenizer": T5,
    "MT5Tokenizer": T5,
    "LasrTokenizer": T5,
    "UdopTokenizer": replace(T5, tokens=T5.tokens | _tokens(sep="</s>"), options={"extra_ids": 0}),
    "VideoPrismTokenizer": replace(T5, single=None, pair=None),
    "AlbertTokenizer": ALBERT,
    "FNetTokenizer": replace(ALBERT, inputs=("input_ids", "token_type_ids")),
    "BigBirdTokenizer": replace(
        ALBERT,
        text="",
        tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", sep="[SEP]", pad="<pad>", cls="[CLS]", mask="[MASK]"),
        options={},
        words="space",
    ),
    "RemBertTokenizer": replace(
        ALBERT, text="rembert", options={"do_lower_case": False, "keep_accents": True}, words="space"
    ),
    "BarthezTokenizer": replace(XLM_ROBERTA, layout=Layout(), words="space"),
    "BertGenerationTokenizer": TokenizerClass(
        "sentencepiece", tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>", sep="<::::>")
    ),
    "CamembertTokenizer": CAMEMBERT,
    "DebertaV2Tokenizer": DEBERTA_V2,
    "GPTSw3Tokenizer": TokenizerClass(
        "sentencepiece", "gpt-sw3", tokens=_tokens(unk="<unk>", eos="<|endoftext|>", pad="<pad>", bos="<s>")
    ),
    "LayoutXLMTokenizer": XLM_ROBERTA,
    "MBartTokenizer": MBART,
    "MBart50Tokenizer": MBART50,
    "MLukeTokenizer": XLM_ROBERTA,
    "NllbTokenizer": NLLB,
    "PegasusTokenizer": PEGASUS,
    "PLBartTokenizer": PLBART,
    "ReformerTokenizer": TokenizerClass("sentencepiece", tokens=_tokens(eos="</s>", unk="<unk>"), words="space"),
    "SeamlessM4TTokenizer": SEAMLESS,
    "SiglipTokenizer": TokenizerClass(
        "sentencepiece",
        "siglip",
        tokens=_tokens(eos="</s>", unk="<unk>", pad="</s>"),
        single="$A {eos}",
        pair="$A {eos} $B {eos}",
        options={"legacy": False, "do_lower_case": True, "model_max_length": 64},
    ),
    "SpeechT5Tokenizer": TokenizerClass(
        "sentencepiece",
        tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>"),
        single="$A {eos}",
        pair="$A $B {eos}",
    ),
    "XGLMTokenizer": TokenizerClass(
        "sentencepiece",
        tokens=_tokens(bos="<s>", eos="</s>", sep="</s>", cls="<s>", unk="<unk>", pad="<pad>"),
        extra=tuple(f"<madeupword{i}>" for i in range(7)),
        layout=Layout(FAIRSEQ, 3, tuple(f"<madeupword{i}>" for i in range(7))),
        single="{eos} $A",
        pair="{eos} $A {eos} {eos} $B",
        words="space",
    ),
    "XLMRobertaTokenizer": XLM_ROBERTA,
    "XLNetTokenizer": XLNET,
    # sentencepiece cuts, a vocab.json numbers
    "M2M100Tokenizer": M2M100,
    "MarianTokenizer": TokenizerClass(
        "mapped",
        tokens=_tokens(eos="</s>", unk="<unk>", pad="<pad>"),
        single="$A {eos}",
        pair="$A $B {eos}",
        options={"model_max_length": 512},
        face="marian",
    ),
    "Speech2TextTokenizer": TokenizerClass(
        "mapped",
        tokens=_tokens(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>"),
        single="$A {eos}",
        pair="$A $B {eos}",
    ),
    # no files
    "ByT5Tokenizer": TokenizerClass(
        "fixed",
        "byt5",
        tokens=_tokens(eos="</s>", unk="<unk>", pad="<pad>"),
        single="$A {eos}",
        pair="$A {eos} $B {eos}",
        options={"extra_ids": 125},
    ),
    "PerceiverTokenizer": TokenizerClass(
        "fixed",
        "perceiver",
        tokens=_tokens(pad="[PAD]", bos="[BOS]", eos="[EOS]", mask="[MASK]", cls="[CLS]", sep="[SEP]"),
        single="{cls} $A {sep}",
        pair="{cls} $A {sep} $B {sep}",
        options={"model_max_length": 2048},
    ),
    "CanineTokenizer": TokenizerClass(
        "fixed",
        "canine",
        tokens=_tokens(bos="\ue000", eos="\ue001", sep="\ue001", cls="\ue000", pad="\0", mask="\ue003"),
        single="{cls} $A {sep}",
        pair="{cls} $A {sep} $B {sep}",
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        swallows=("mask_token",),
        options={"model_max_length": 2048},
    ),
    "EsmcTokenizer": TokenizerClass(
        "fixed",
        "esmc",
        tokens=_tokens(bos="<cls>", unk="<unk>", cls="<cls>", pad="<pad>", mask="<mask>", eos="<eos>"),
        single="{cls} $A {eos}",
        pair="{cls} $A {eos} $B {eos}",
    ),
    # only as tokenizer.json: the rest needs a dictionary or code that we do not bring
    "CpmTokenizer": replace(XLNET, needs="jieba (Chinese words)"),
    "CpmAntTokenizer": TokenizerClass(needs="jieba (Chinese words)"),
    "GPTNeoXJapaneseTokenizer": TokenizerClass(needs="its own rules for Japanese spelling and emoji"),
    "NougatTokenizer": TokenizerClass(),
    "ParakeetTokenizer": TokenizerClass(),
    "MistralCommonTokenizer": LLAMA,
    "MistralCommonBackend": LLAMA,
}

MODEL_TYPES = {
    model_type: name
    for name, model_types in {
        "AlbertTokenizer": "albert yoso",
        "BertGenerationTokenizer": "bert-generation",
        "BertTokenizer": "bert distilbert electra convbert layoutlm megatron-bert mobilebert nomic_bert"
        " squeezebert blip align git vilt visual_bert bros ernie flava nezha qdqbert realm lxmert chinese_clip",
        "BigBirdTokenizer": "big_bird",
        "BioGptTokenizer": "biogpt",
        "BlenderbotSmallTokenizer": "blenderbot-small",
        "BlenderbotTokenizer": "blenderbot",
        "ByT5Tokenizer": "byt5",
        "CamembertTokenizer": "camembert",
        "CanineTokenizer": "canine",
        "CLIPTokenizer": "clip clip_text_model clipseg owlvit owlv2 groupvit xclip",
        "CodeLlamaTokenizer": "code_llama",
        "CohereTokenizer": "cohere cohere2 cohere2_moe aya_vision",
        "CpmAntTokenizer": "cpmant",
        "CTRLTokenizer": "ctrl",
        "DPRQuestionEncoderTokenizer": "dpr",
        "DebertaTokenizer": "deberta",
        "DebertaV2Tokenizer": "deberta-v2",
        "EsmTokenizer": "esm",
        "EsmcTokenizer": "esmc",
        "FlaubertTokenizer": "flaubert",
        "FNetTokenizer": "fnet",
        "FSMTTokenizer": "fsmt",
        "FunnelTokenizer": "funnel",
        "GemmaTokenizer": "gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma t5gemma vaultgemma",
        "GPT2Tokenizer": "gpt2 gpt_neo gptj codegen opt phi starcoder2 gpt_bigcode dbrx jais2",
        "GPTNeoXJapaneseTokenizer": "gpt_neox_japanese",
        "GPTNeoXTokenizer": "gpt_neox mamba mamba2 falcon_mamba mpt olmo olmoe rwkv xlstm",
        "GPTSw3Tokenizer": "gpt-sw3",
        "HerbertTokenizer": "herbert",
        "LayoutLMv2Tokenizer": "layoutlmv2",
        "LayoutLMv3Tokenizer": "layoutlmv3",
        "LayoutXLMTokenizer": "layoutxlm",
        "LlamaTokenizer": "llama mistral mixtral idefics idefics2 ministral ministral3 phi3",
        "LukeTokenizer": "luke",
        "M2M100Tokenizer": "m2m_100",
        "MarianTokenizer": "marian",
        "MarkupLMTokenizer": "markuplm",
        "MBart50Tokenizer": "mbart50",
        "MBartTokenizer": "mbart",
        "MPNetTokenizer": "mpnet",
        "NllbTokenizer": "nllb nllb-moe",
        "OpenAIGPTTokenizer": "openai-gpt",
        "PegasusTokenizer": "pegasus pegasus_x bigbird_pegasus",
        "PerceiverTokenizer": "perceiver",
        "PLBartTokenizer": "plbart",
        "ProphetNetTokenizer": "prophetnet",
        "Qwen2Tokenizer": "qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next qwen2_vl qwen2_5_vl qwen3_vl",
        "Qwen3_5Tokenizer": "qwen3_5 qwen3_5_moe qwen3_5_text qwen3_5_moe_text",
        "ReformerTokenizer": "reformer",
        "RemBertTokenizer": "rembert",
        "RobertaTokenizer": "roberta bart longformer led bridgetower roberta-prelayernorm data2vec-text ibert lilt mvp",
        "RoCBertTokenizer": "roc_bert",
        "RoFormerTokenizer": "roformer",
        "SeamlessM4TTokenizer": "seamless_m4t seamless_m4t_v2",
        "SiglipTokenizer": "siglip siglip_text_model",
        "Siglip2Tokenizer": "siglip2",
        "SpeechT5Tokenizer": "speecht5",
        "Speech2TextTokenizer": "speech_to_text",
        "SplinterTokenizer": "splinter",
        "T5Tokenizer": "t5 mt5 umt5 longt5 switch_transformers musicgen pix2struct pop2piano",
        "TapasTokenizer": "tapas",
        "Tipsv2Tokenizer": "tipsv2 tipsv2_text_model",
        "UdopTokenizer": "udop",
        "WhisperTokenizer": "whisper",
        "XGLMTokenizer": "xglm",
        "XLMRobertaTokenizer": "xlm-roberta xlm-roberta-xl xmod gte jina_embeddings_v3 trocr metaclip_2",
        "XLMTokenizer": "xlm",
        "XLNetTokenizer": "xlnet",
    }.items()
    for model_type in model_types.split()
}


def row(name: str) -> TokenizerClass:
    """The row of a class, by its name with or without "Fast"; the generic one for a class nobody knows."""
    return CLASSES.get(name.removesuffix("Fast"), GENERIC)
