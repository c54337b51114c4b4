"""How models write an answer: one `Format` a family, as data, and which one a chat template belongs to.

The facts are those of the published chat templates (tests/data/chat_templates/NOTICE.md says of which) and of what
vLLM's and llama.cpp's parsers accept. A new family is a row in `FAMILIES`; if it writes calls in a way that no syntax
here can express, it is a new syntax, a few lines in `machine.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pellucid.errors import ArgumentError, nearest

NAME = r"\s*(?P<name>[\w.\-/:]+)\s*"


@dataclass(frozen=True)
class Tags:
    """Reasoning between two markers.

    It begins an answer; `anywhere`: the opening marker cannot be typed by accident, so it counts everywhere.
    `until`: what ends it as well, without being a part of it.
    """

    open: str
    close: str
    anywhere: bool = False
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class JsonCalls:
    """`<tool_call>{"name": "f", "arguments": {}}</tool_call>`: objects, one after another or in a list.

    Without `open` an answer that begins with such an object is one. `keyed`: `{"f": {}}`.
    """

    open: str = ""
    close: str = ""
    keyed: bool = False


@dataclass(frozen=True)
class NamedCalls:
    """`[TOOL_CALLS]f[ARGS]{}`: a name, then arguments in JSON. `section` surrounds several."""

    open: str
    head_end: str
    close: str = ""
    head: str = NAME
    section: tuple[str, str] = ("", "")
    or_brace: bool = False  # the arguments may follow without `head_end`


@dataclass(frozen=True)
class ParamCalls:
    """`<function=f><parameter=a>1</parameter></function>`: every argument between markers of its own.

    `head` and `key` are what stands between `open` and `head_end`, `param` and `key_end`; `key` may tell a type.
    `wrapped`: a value stands on lines of its own; `quotes` may surround it.
    """

    open: str
    head_end: str
    param: str
    key_end: str
    value_end: str
    close: str
    head: str = NAME
    key: str = r"\s*(?P<key>[^\"\s]+)\s*"
    section: tuple[str, str] = ("", "")
    wrapped: bool = False
    quotes: tuple[str, str] = ("", "")
    head_stays: bool = False  # `head_end` is the beginning of the first parameter or the end of the call


@dataclass(frozen=True)
class PythonCalls:
    """`[f(a=1), g()]`, or lines of such calls. Without `open` an answer that begins with such a list is one."""

    open: str = ""
    close: str = ""


@dataclass(frozen=True)
class BraceCalls:
    """Gemma's `<|tool_call>call:f{a:<|"|>text<|"|>,b:[1]}<tool_call|>`."""

    open: str
    close: str
    quote: str


@dataclass(frozen=True)
class NestedCalls:
    """MiniMax M3: `<invoke name="f"><a><item>1</item></a></invoke>`, every tag after `mark`."""

    mark: str

    @property
    def open(self) -> str:
        return f"{self.mark}<tool_call>"

    @property
    def close(self) -> str:
        return f"{self.mark}</tool_call>"


@dataclass(frozen=True)
class Code:
    """Source code for the tool `name`, to the end of the answer."""

    open: str
    name: str = "python"


Syntax = JsonCalls | NamedCalls | ParamCalls | PythonCalls | BraceCalls | NestedCalls | Code


@dataclass(frozen=True)
class Channels:
    """An answer is messages, each with a header that says what it is (gpt-oss's harmony).

    `start` header `header_end` body `ends`; the first `start` belongs to the prompt. Patterns that are searched in the
    header: `call` gives the name of a tool, `reasoning` is reasoning, everything else is content.
    """

    start: str
    header_end: str
    ends: tuple[str, ...]
    reasoning: str = "(?!)"
    call: str = "(?!)"


THINK = Tags("<think>", "</think>")


@dataclass(frozen=True)
class Format:
    """Everything that is to be known about the answers of a family.

    `drops` are markers without a meaning of their own; `ends` end an answer, and what follows is not part of it.
    `strip`: white space around reasoning and content is the template's. `markers` tell the family by its template: all
    of the first tuple, or all of the second, and so on. `why` says how `format_of` chose.
    """

    name: str
    markers: tuple[tuple[str, ...], ...] = ()
    reasoning: tuple[Tags, ...] = (THINK,)
    calls: tuple[Syntax, ...] = ()
    channels: Channels | None = None
    drops: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    strip: bool = True
    why: str = ""

    def ending_with(self, *ends: str | None) -> Format:
        """The same with more end markers, such as a tokenizer's eos token."""
        parts = self.channels.ends if self.channels else ()
        known = {*self.ends, *self.drops, *parts, *(tags.close for tags in self.reasoning)}
        return dataclasses.replace(self, ends=self.ends + tuple(e for e in dict.fromkeys(ends) if e and e not in known))


# Looked for in every template by their closing marker, whatever the family.
REASONING = (
    THINK,
    Tags("[THINK]", "[/THINK]", anywhere=True),
    Tags("◁think▷", "◁/think▷"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
)
# What ends a turn, where a template has it.
ENDS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<|eom|>", "<end_of_turn>",
    "<turn|>", "<|end|>", "<｜end▁of▁sentence｜>", "</s>", "<|END_OF_TURN_TOKEN|>", "<seed:eos>", "[e~[", "<eos>",
    "<end_of_sentence>", "<|role_end|>", "<SPECIAL_12>", "<|eos|>", "<end_of_utterance>", "<|assistant_end|>",
    "<|message_sep|>", "<|user|>", "<|observation|>", "<|return|>", "[|endofturn|]", "</assistant>",
)  # fmt: skip
# What begins the assistant's turn in a prompt. Looked for in prompts only, so all of them always.
STARTS = (
    "<|im_start|>assistant\n", "<|im_assistant|>assistant<|im_middle|>",
    "<|start_header_id|>assistant<|end_header_id|>", "<|header_start|>assistant<|header_end|>",
    "<start_of_turn>model", "<start_of_turn>model\n", "<|turn>model\n", "<|assistant|>", "[/INST]",
    "<｜Assistant｜>", "<|CHATBOT_TOKEN|>", "<seed:bos>assistant\n", "]~b]ai\n", "<|assistant_start|>",
    "<|start_of_role|>assistant<|end_of_role|>", "<role>ASSISTANT</role>", "<|begin_assistant|>\n", "<assistant>",
    "<beginning_of_sentence>ai name=assistant\n", "<SPECIAL_11>Assistant\n", "<|start|>assistant", "<|Bot|>",
    "<｜hy_Assistant:opensource｜>", "<|begin|>assistant", '<|open|>message role="assistant"<|sep|>', "[|assistant|]",
    "<|extra_0|>", "assistant<|role_sep|>\n", "assistant:", "ASSISTANT:", "Assistant:",
    "<|start_header_id|>assistant<|end_header_id|>\n\n>>>",
)  # fmt: skip

QWEN_JSON = JsonCalls("<tool_call>", "</tool_call>")
QWEN_CODER = ParamCalls(
    "<function=", ">", "<parameter=", ">", "</parameter>", "</function>",
    section=("<tool_call>", "</tool_call>"), wrapped=True,
)  # fmt: skip
SEED = dataclasses.replace(QWEN_CODER, section=("<seed:tool_call>", "</seed:tool_call>"), wrapped=False)


def invoke(prefix: str, wrapper: str, key: str = r"(?P<key>[^\"]+)") -> ParamCalls:
    """`<p:invoke name="f"><p:parameter name="a">1</p:parameter></p:invoke>`"""
    return ParamCalls(
        f'<{prefix}invoke name="', '">', f'<{prefix}parameter name="', '">', f"</{prefix}parameter>",
        f"</{prefix}invoke>", key=key, section=(f"<{wrapper}>", f"</{wrapper}>"),
    )  # fmt: skip


def glm(suffix: str = "", head_end: str = "", section: tuple[str, str] = ("", "")) -> ParamCalls:
    """`<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>`"""
    return ParamCalls(
        f"<tool_call{suffix}>", head_end or f"<arg_key{suffix}>", f"<arg_key{suffix}>", f"<arg_value{suffix}>",
        f"</arg_value{suffix}>", f"</tool_call{suffix}>", key=rf"\s*(?P<key>.+?)\s*</arg_key{suffix}>\s*",
        section=section, head_stays=not head_end,
    )  # fmt: skip


DSML_KEY = r"(?P<key>[^\"]+)\" string=\"(?P<string>true|false)"
DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
DEEPSEEK_V3 = NamedCalls(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "```json", "<｜tool▁call▁end｜>", section=DEEPSEEK_SECTION
)
DEEPSEEK_V31 = NamedCalls("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", section=DEEPSEEK_SECTION)
KIMI_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
KIMI = NamedCalls(
    "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>", section=KIMI_SECTION,
    head=r"\s*(?P<id>(?:functions\.)?(?P<name>[\w.\-/]+?)(?::\d+)?)\s*",
)  # fmt: skip
KIMI_K3 = ParamCalls(
    "<|open|>call ", "<|sep|>", "<|open|>argument ", "<|sep|>", "<|close|>argument<|sep|>", "<|close|>call<|sep|>",
    head=r'tool="(?P<name>[^"]+)" index="\d+"', key=r'key="(?P<key>[^"]+)" type="(?P<type>\w+)"',
    section=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
)  # fmt: skip
SOLAR = NamedCalls(
    "<|tool_call:begin|>", "<|tool_call:args|>", "<|tool_call:end|>", section=("<|tool_calls|>", ""),
    head=r"(?P<id>[\w\-]*)<\|tool_call:name\|>(?P<name>[\w.\-/:]+)",
)  # fmt: skip
MISTRAL_NAMED = NamedCalls("[TOOL_CALLS]", "[ARGS]", head=NAME + r"(?:\[CALL_ID\](?P<id>\w+))?\s*", or_brace=True)
MISTRAL_JSON = JsonCalls("[TOOL_CALLS]")
PYTHON_TAG = "<|python_tag|>"
LLAMA_TAGGED = (JsonCalls(PYTHON_TAG), PythonCalls(PYTHON_TAG), Code(PYTHON_TAG))
HARMONY = Channels(
    "<|start|>assistant", "<|message|>", ("<|end|>", "<|return|>", "<|call|>"),
    reasoning=r"<\|channel\|>analysis", call=r"\bto=(?:functions\.)?(?P<name>[\w.\-]+)",
)  # fmt: skip
MUSE = Channels("<|start|>assistant", "<|message|>", ("<|eom|>", "<|eot|>"), reasoning=r"to=self")
FUNCTIONARY = Channels(">>>", "\n", (), call=r"^(?P<name>(?!all$)[\w.\-]+)$")
PYTHONIC = ("[func_name1(params_name1=params_value1",), ("[func_name1(param1=value1",)
XML_CALLS = ("<tool_call>", "<function=", "<parameter=")

# The first whose markers a template has is taken: what is more specific stands first.
FAMILIES = (
    Format(
        "seed-oss", (("<seed:tool_call>",),), (Tags("<seed:think>", "</seed:think>"),), (SEED,), ends=("<seed:eos>",)
    ),
    Format(
        "hunyuan-3", (("<tool_sep", "opensource", "<arg_key"),),
        (Tags("<think:opensource>", "</think:opensource>"),),
        (glm(":opensource", "<tool_sep:opensource>", ("<tool_calls:opensource>", "</tool_calls:opensource>")),),
        ends=("<｜hy_eos:opensource｜>",),
    ),
    Format("glm", (("<tool_call>", "<arg_key>", "<arg_value>"),), calls=(glm(),)),
    Format(
        "minimax-m3", (("]<]minimax[>[",),), (Tags("<mm:think>", "</mm:think>"),), (NestedCalls("]<]minimax[>["),),
        ends=("[e~[",),
    ),
    Format("minimax-m2", (("minimax:tool_call", "<invoke"),), calls=(invoke("", "minimax:tool_call"),), ends=("[e~[",)),
    Format("step-3", (("<steptml:invoke",),), calls=(invoke("steptml:", "steptml:toolcall"),)),
    Format(
        "deepseek-v3.2", (("｜DSML｜",),),
        calls=(
            invoke("｜DSML｜", "｜DSML｜function_calls", DSML_KEY), invoke("｜DSML｜", "｜DSML｜tool_calls", DSML_KEY),
        ),
    ),
    Format("deepseek-v3", (("<｜tool▁calls▁begin｜>", "```json"),), calls=(DEEPSEEK_V3,)),
    Format("deepseek-v3.1", (("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"),), calls=(DEEPSEEK_V31,)),
    Format("minicpm-5", (('<function name="', '<param name="'),), calls=(
        ParamCalls(
            '<function name="', '">', '<param name="', '">', "</param>", "</function>", quotes=("<![CDATA[", "]]>")
        ),
    )),
    Format("muse", (("<atem:invoke",),), (), (invoke("atem:", "atem:function_calls"),), channels=MUSE),
    Format("gpt-oss", (("<|channel|>", "<|message|>", "<|start|>assistant"),), (), channels=HARMONY),
    Format(
        "kimi-k2", (("<|tool_calls_section_begin|>",),),
        (Tags("<think>", "</think>", until=KIMI_SECTION[:1]),), (KIMI,),
    ),
    Format(
        "kimi-k3", (("<|end_of_msg|>",),), (Tags("<|open|>think<|sep|>", "<|close|>think<|sep|>", anywhere=True),),
        (KIMI_K3,), drops=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        ends=("<|end_of_msg|>",),
    ),
    Format(
        "solar-open", (("<|tool_call:begin|>",),), (Tags("<|think|>", "<|end|>", anywhere=True),), (SOLAR,),
        drops=("<|content|>", "<|begin|>assistant"), ends=("<|end|>", "<|calls|>", "<|flush|>"),
    ),
    Format(
        "command-a", (("<|START_ACTION|>",), ("<|START_RESPONSE|>",)),
        (Tags("<|START_THINKING|>", "<|END_THINKING|>", anywhere=True),),
        (JsonCalls("<|START_ACTION|>", "<|END_ACTION|>"),),
        drops=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Format("command-r", (("Action:", "```json", "tool_name"),), calls=(
        JsonCalls("Action:```json", "```"), JsonCalls("Action: ```json", "```"), JsonCalls("Action:\n```json", "```"),
    )),
    Format(
        "apertus", (("<|tools_prefix|>",),), (Tags("<|inner_prefix|>", "<|inner_suffix|>", anywhere=True),),
        (JsonCalls("<|tools_prefix|>", "<|tools_suffix|>", keyed=True),),
    ),
    Format(
        "apriel-1.6", (("<tool_calls>", "[BEGIN FINAL RESPONSE]"),),
        (Tags("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),),
        (JsonCalls("<tool_calls>", "</tool_calls>"),),
        ends=("<|end|>",),
    ),
    # hunyuan, jamba, apriel 1.5, minimax m1
    Format("tool-calls", (("<tool_calls>", "</tool_calls>"),), calls=(JsonCalls("<tool_calls>", "</tool_calls>"),)),
    Format("nemotron", (("<TOOLCALL>",),), calls=(JsonCalls("<TOOLCALL>", "</TOOLCALL>"),)),
    Format(
        "mistral", (("[TOOL_CALLS]",),), (Tags("[THINK]", "[/THINK]", anywhere=True), THINK),
        (MISTRAL_JSON, MISTRAL_NAMED),
    ),
    Format("functools", (("functools[",),), calls=(JsonCalls("functools"),)),
    Format("phi-4-mini", (("<|tool_call|>", "<|/tool_call|>"), ("<|tool|>", "<|/tool|>")),
           calls=(JsonCalls("<|tool_call|>", "<|/tool_call|>"),)),
    Format("granite-3", (("<|tool_call|>", "start_of_role"),), calls=(JsonCalls("<|tool_call|>"),),
           drops=("<response>", "</response>")),
    Format("granite-20b", (("<function_call>", "ASSISTANT:"),), calls=(JsonCalls("<function_call>"),)),
    Format("internlm-2", (("<|action_start|>",),), calls=(JsonCalls("<|action_start|><|plugin|>", "<|action_end|>"),)),
    Format("gigachat-3.1", (("<|function_call|>",),), calls=(JsonCalls("<|function_call|>"),)),
    Format("gigachat-3", (("<|role_sep|>", "function call"),), calls=(JsonCalls("function call<|role_sep|>\n"),),
           drops=("<|message_sep|>",)),
    Format("longcat", (("<longcat_tool_call>",),), calls=(JsonCalls("<longcat_tool_call>", "</longcat_tool_call>"),)),
    Format("lfm-2", (("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [", "<|im_start|>")),
           calls=(PythonCalls("<|tool_call_start|>", "<|tool_call_end|>"),)),
    Format("olmo-3", (("<function_calls>",),), calls=(PythonCalls("<function_calls>", "</function_calls>"),)),
    Format("gemma-4", (("<|tool_call>call:",),), (Tags("<|channel>thought\n", "<channel|>", anywhere=True),),
           (BraceCalls("<|tool_call>call:", "<tool_call|>", '<|"|>'),), ends=("<|tool_response>",)),
    Format("function-gemma", (("<start_function_call>",),),
           calls=(BraceCalls("<start_function_call>call:", "<end_function_call>", "<escape>"),),
           ends=("<start_function_response>",)),
    Format("gemma-3-tool-code", (("```tool_code",),), calls=(PythonCalls("```tool_code", "```"),)),
    Format("smollm-3", (("<tool_call>", "<code>"), ("/no_think", "## Metadata")),
           calls=(QWEN_JSON, PythonCalls("<code>", "</code>"))),
    Format("qwen-coder", (XML_CALLS,), calls=(QWEN_CODER, QWEN_JSON)),
    Format("functionary-v3.1", (("<function=example_function_name>",),),
           calls=(NamedCalls("<function=", ">", "</function>"), *LLAMA_TAGGED)),
    Format("functionary-v3.2", ((">>>all\n",), (">>>${recipient}",)), (), channels=FUNCTIONARY),
    Format("llama-3", (('{"name": function name, "parameters":',),), calls=(*LLAMA_TAGGED, JsonCalls())),
    Format("pythonic", PYTHONIC, calls=(*LLAMA_TAGGED, PythonCalls())),
    Format("xlam", (('[{"name": "tool_call_name"',),), calls=(JsonCalls(),)),
    Format(
        "ernie-4.5", (("<tool_call>", "<response>"),), calls=(QWEN_JSON,), drops=("<response>\n", "\n</response>")
    ),
    Format("qwen", (("<tool_call>", "</tool_call>"),), calls=(QWEN_JSON, QWEN_CODER)),
)  # fmt: skip
PLAIN = Format("plain", reasoning=(), strip=False, why="no known markers: everything is content")
FORMATS = {each.name: each for each in (*FAMILIES, PLAIN)}


@functools.lru_cache(maxsize=64)
def format_of(template: str | None, special_tokens: Iterable[str] = ()) -> Format:
    """The format that a chat template's model answers in.

    template: the text of the template; None or "" where there is none.
    special_tokens: a tuple of the tokenizer's special tokens; looked at where the template says nothing.

    Returns a `Format` whose `why` names the markers it was chosen by; `PLAIN`, which says so, where nothing is known.
    """
    text = (template or "").replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    fits = candidates(text)
    origin = "the template"
    if not fits and not any(tags.close in text for tags in REASONING):
        fits, origin = candidates("\n".join(special_tokens)), "the vocabulary"
    ends = tuple(each for each in ENDS if each in text)
    thoughts = tuple(tags for tags in REASONING if tags.close in text)
    if not fits and not thoughts:
        return PLAIN.ending_with(*ends)
    if not fits:
        why = f"{', '.join(tags.close for tags in thoughts)} in {origin}; no tool calls are known"
        return Format("reasoning", reasoning=thoughts, why=why).ending_with(*ends)
    found, markers = fits[0]
    known = {each for tags in found.reasoning for each in (tags.open, tags.close)}
    return dataclasses.replace(
        found,
        reasoning=found.reasoning + tuple(tags for tags in thoughts if tags.open not in known),
        why=f"{', '.join(map(repr, markers))} in {origin}",
    ).ending_with(*ends)


def candidates(text: str) -> list[tuple[Format, tuple[str, ...]]]:
    """The formats whose markers `text` has, with these markers, in the order of the table."""
    return [
        (format, markers) for format in FAMILIES for markers in format.markers if all(each in text for each in markers)
    ]


def format_named(name: str | Format) -> Format:
    """A format by the name of its family, or a format as it is."""
    if isinstance(name, Format):
        return name
    if name not in FORMATS:
        raise ArgumentError(
            f"no format of answers is called {name!r}", next=nearest(name, FORMATS) or f"formats: {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def matches(pattern: str, text: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, text, re.DOTALL)
