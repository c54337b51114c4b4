"""`tokenizer.ggml.pre` of a GGUF file: its name for how a byte-level BPE vocabulary's model splits a text.

Each pattern splits what the one before left; a piece between two matches is a piece too. Where llama.cpp writes a
pattern differently because its regex library lacks character classes, this is the model's own (its comments have it).
The one that no regex library has, "AFMoE_digits", is written with a look-ahead here.

Source: src/llama-vocab.cpp of github.com/ggml-org/llama.cpp, commit 0c1e5709.
"""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.text.formats.encodings import CL100K, CONTRACTIONS, EDGE, GPT2, KIMI, O200K, QWEN, REST, TEKKEN

DIGIT = r"\p{N}"
THREES = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"  # from the right: 1, 234, 567
LINES = r"[^\n]+|[\n]+"
PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
# Letters with case, of the Unicode version that DeepSeek had.
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
ASIAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff"
)
SENTENCE = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
CODE_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + REST
)
RUNS = "|".join([*(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)), r"\s{1,2}(?!\S)", r"\s{1}"])


@dataclass(frozen=True)
class Split:
    """One kind.

    whole: a piece that is a token is taken as it is, before any merge.
    bos: the model starts a text with bos, unless the file says otherwise.
    plain: tokens are written as text, not in GPT-2's alphabet of bytes; bytes without a token are <0x0A>.
    spaces: spaces are written ▁.
    """

    patterns: tuple[str, ...] = ()
    whole: bool = False
    bos: bool = False
    plain: bool = False
    spaces: bool = False


GPT2_SPLIT, QWEN_SPLIT, DIGITS_GPT2, GPT4O = Split((GPT2,)), Split((QWEN,)), Split((DIGIT, GPT2)), Split((O200K,))
LLAMA3 = Split((CL100K,), whole=True, bos=True)
DEEPSEEK3 = Split((r"\p{N}{1,3}", CJK, CODE_WORDS))
BAILING = Split(
    (rf"'(?i:[sdmt]|ll|ve|re)|{EDGE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",)
)
# Gemma 4 and its like: spaces are ▁, and merges may cross everything. (llama.cpp splits at line ends and repairs that
# for runs of them.)
GEMMA4 = Split(plain=True, spaces=True, bos=True)

KINDS = {
    GPT2_SPLIT: "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais"
    " jina-v1-en jina-v2-code roberta-bpe exaone4 trillion granite-docling",
    DIGITS_GPT2: "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2",
    LLAMA3: "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    Split((CL100K,)): "dbrx smaug-bpe chatglm-bpe",
    Split((CL100K,), whole=True): "glm4 glm5",
    QWEN_SPLIT: "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    GPT4O: "gpt-4o llama4 kanana2 talkie minimax-m2",
    Split((O200K,), whole=True): "granite-embed-multi-97m",
    Split((TEKKEN,), whole=True, bos=True): "tekken",
    Split((r"\d{1,3}(?=(?:\d{3})*\b)", O200K)): "tiny_aya cohere2moe",
    Split((KIMI,)): "kimi-k2",
    DEEPSEEK3: "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    BAILING: "bailingmoe bailingmoe2 llada-moe",
    Split((SENTENCE,)): "poro-chat bloom gpt3-finnish",
    Split((SENTENCE, DIGIT)): "viking",
    Split((PUNCTUATION, GPT2, "[0-9][0-9][0-9]")): "falcon",
    Split(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", DIGIT)
    ): "deepseek-coder",
    Split(
        (
            r"[\r\n]",
            rf"\s?[{CASED}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
            r"\p{N}+",
        )
    ): "deepseek-llm",
    Split(
        (
            r"\p{N}{1,3}",
            CJK,
            CODE_WORDS.replace(r"[\p{P}\p{S}]+[\r\n]*|" + REST, r"[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"),
            DIGIT,
        )
    ): "spark2_5",
    Split(
        (
            "[\uac00-\ud7a3\u3131-\u318e]+"
            "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
            f"|[\u3105-\u312f]+|{CJK}",
            O200K.replace(r"\p{N}{1,3}", DIGIT),
        ),
        whole=True,
    ): "youtu",
    Split(
        (rf"{CONTRACTIONS}|{EDGE}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|{RUNS}",)
    ): "jais-2",
    Split((rf"{CONTRACTIONS}|{EDGE}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{REST}",)): "qwen35",
    Split((rf"{CONTRACTIONS}|{EDGE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{REST}",)): "seed-coder",
    Split((rf"{EDGE}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}",)): "ufakzeka",
    Split((THREES, rf"[{ASIAN}]+", CODE_WORDS)): "afmoe",
    Split((LINES, QWEN)): "laguna",
    Split(
        (
            rf"{CONTRACTIONS}|{EDGE}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?"
            r"|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ): "exaone-moe",
    Split((r"\p{N}+", r"(?=(\d{3})+(?!\d))")): "superbpe",
    Split((r"\p{N}{1,3}", CL100K.replace(r"\p{N}{1,3}", r"\p{N}+")), whole=True): "minicpm5",
    Split(
        (
            r"<sentinel:[0-9]+>",
            r"(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        bos=True,
    ): "chameleon",
    GEMMA4: "gemma4 granite-embed-multi-311m",
    Split(plain=True, spaces=True): "sarvam-moe",
    Split((r"\S+",), plain=True): "whitespace",
    Split((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")): "default",
}
SPLITS = {name: split for split, names in KINDS.items() for name in names.split()}

# Files from before the key existed say only the architecture; for these it decides.
ARCHITECTURES = {
    "gpt2": "gpt-2",
    "gptneox": "gpt-2",
    "mpt": "mpt",
    "falcon": "falcon",
    "starcoder": "starcoder",
    "starcoder2": "starcoder",
    "refact": "refact",
    "codeshell": "codeshell",
    "bloom": "bloom",
    "qwen": "qwen2",
    "qwen2": "qwen2",
    "phi2": "phi-2",
    "olmo": "olmo",
    "command-r": "command-r",
    "dbrx": "dbrx",
}
