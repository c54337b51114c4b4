"""A talk: what is read again and what is not, and how it changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import pellucid
from models import tiny
from pellucid import hub
from pellucid.engine.options import GenerationConfig
from pellucid.errors import InputError, PellucidError, TokenizerError, Unsupported
from pellucid.tasks.chat import Chat
from pellucid.text.answers import Content, Reasoning
from pellucid.text.tokenizer import Tokenizer

sys.path.append(str(Path(__file__).parents[1] / "cli"))
from made_up_template import CHAT  # noqa: E402

# As Qwen 3: reasoning of earlier answers is left out, so the talk that was read is not how the next prompt begins.
FORGETFUL = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}:\n"
    "{{ m.content if loop.last or m.role == 'user' else m.content[:10] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)


@pytest.fixture(scope="module")
def model():
    return pellucid.AutoModelForCausalLM.from_pretrained()


def tokenizer(template: str | None = CHAT) -> Tokenizer:
    return Tokenizer.from_folder(hub.default_model(), **({} if template is None else {"chat_template": template}))


def chat(model, template: str = CHAT, **options) -> Chat:
    return Chat(model, tokenizer(template), GenerationConfig(**{"max_new_tokens": 12, **options}))


def said(deltas) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, Content))


def fresh(talk: Chat, text: str) -> str:
    """What a model that has read nothing answers to the same."""
    other = Chat(talk.model, talk.tokenizer, talk.options, dict(talk.variables), [dict(m) for m in talk.messages])
    return said(other.ask(text))


def test_a_turn_reads_only_what_is_new(model):
    talk = chat(model)
    for text in ("Tell me of Lily.", "And then?", "Why?"):
        before = talk.turn.prompt + talk.turn.new
        expected = fresh(talk, text)
        assert said(talk.ask(text)) == expected
        assert talk.turn.cached == max(0, before - 1)
    assert [m["role"] for m in talk.messages] == ["user", "assistant"] * 3
    assert talk.turn.finish == "length"


def test_a_template_that_rewrites_the_past(model):
    talk = chat(model, FORGETFUL)
    said(talk.ask("Tell me of Lily."))
    for text in ("And then?", "Why?"):
        expected = fresh(talk, text)
        whole = talk.turn.prompt + talk.turn.new - 1
        assert said(talk.ask(text)) == expected
        assert 20 < talk.turn.cached < whole


@pytest.mark.parametrize("family", ["mamba", "lfm2", "gemma2"])
@pytest.mark.parametrize("template", [CHAT, FORGETFUL], ids=["grows", "rewrites"])
def test_a_state_that_cannot_go_back_begins_before_the_answer(family, template):
    """What a model with random weights answers is encoded in another way than it was chosen: ids part in any case."""
    longer = {} if family == "mamba" else {"max_position_embeddings": 512}
    talk = chat(tiny.make(family, vocab_size=512, **longer), template)
    for text in ("Tell me of Lily.", "And then?", "Why?"):
        read = talk.turn.prompt
        expected = fresh(talk, text)
        assert said(talk.ask(text)) == expected
        assert talk.turn.cached >= read
    talk.undo()
    talk.undo()
    expected = fresh(talk, "Why?")
    assert said(talk.ask("Why?")) == expected


def test_a_question_without_an_answer_is_taken_back(model):
    talk = chat(model)
    with pytest.raises(InputError, match="the talk has 5[0-9][0-9] tokens, and the model's context is 512"):
        said(talk.ask("a " * 500))
    assert talk.messages == []
    assert said(talk.ask("Hello")) == fresh(chat(model), "Hello")


def test_the_context_fills_and_the_talk_goes_on(model):
    talk = chat(model, max_new_tokens=60)
    said(talk.ask("Tell me of Lily. " * 20))
    with pytest.raises(InputError, match="context is 512"):
        for _ in range(20):
            said(talk.ask("And then she went home and told her mom. " * 2))
    assert talk.turn.prompt + talk.turn.new <= 512
    while len(talk.messages) > 2:
        talk.undo()
    expected = fresh(talk, "And?")
    assert said(talk.ask("And?")) == expected


def test_an_answer_that_is_stopped_stays_with_a_mark(model):
    talk = chat(model, max_new_tokens=60)
    whole = fresh(talk, "Tell me of Lily.")
    for i, _ in enumerate(talk.ask("Tell me of Lily.")):
        talk.stopped = i == 5
    (asked, answer) = talk.messages
    assert answer["interrupted"] is True and whole.startswith(answer["content"]) and 5 < len(answer["content"]) < 50
    assert talk.turn.finish == "interrupted"
    expected = fresh(talk, "And?")
    assert said(talk.ask("And?")) == expected and talk.turn.cached > 20
    assert "interrupted" not in talk.text()


def test_an_answer_that_is_left(model):
    talk = chat(model, max_new_tokens=60)
    for _ in talk.ask("Tell me of Lily."):
        break
    assert len(talk.messages) == 2 and talk.messages[1]["interrupted"]
    expected = fresh(talk, "And?")
    assert said(talk.ask("And?")) == expected


def test_every_answer_has_a_seed_of_its_own(model):
    def answers() -> list[str]:
        talk = chat(model, do_sample=True, seed=3)
        found = [said(talk.ask("Tell me of Lily."))]
        for _ in range(2):
            found.append(said(talk.ask(talk.undo())))
        return found

    assert answers() == answers() and len(set(answers())) == 3


def test_ends_of_the_settings_the_tokenizer_and_the_template(model):
    assert chat(model, eos_token_id=7).ends == {7, 2}
    assert chat(model, eos_token_id=[1, 2]).missed is None
    talk = chat(model, CHAT.replace("{{ eos_token }}", "<unk>"), eos_token_id=[7])
    assert talk.missed == ("<unk>", 0) and talk.ends == {0, 2, 7}


def test_the_system_message(model):
    talk = chat(model)
    talk.system = "Be brief."
    assert talk.system == "Be brief." and talk.text() == "<s>system:\nBe brief.</s>"
    said(talk.ask("Hello"))
    talk.system = "Be long."
    assert [m["role"] for m in talk.messages] == ["system", "user", "assistant"] and talk.system == "Be long."
    assert talk.undo() == "Hello" and len(talk.messages) == 1
    with pytest.raises(InputError, match="nothing was asked"):
        talk.undo()
    talk.system = None
    assert talk.messages == []


@pytest.mark.parametrize(
    "messages", [None, {}, "x", [1], [{"content": "a"}], [{"role": 1, "content": "a"}], [{"role": "user"}]]
)
def test_what_is_no_talk_is_refused(model, messages):
    talk = chat(model)
    with pytest.raises(PellucidError):
        talk.load(messages)
    assert talk.messages == []


def test_reasoning_is_told_apart(model):
    """The model does not reason; its words are put into its mouth."""
    template = CHAT + "{# </think> #}"
    talk = chat(model, template.replace("assistant:\n{% endif", "assistant:\n<think>\n{% endif"), max_new_tokens=20)
    deltas = list(talk.ask("Hello"))
    assert deltas and all(isinstance(delta, Reasoning) for delta in deltas)
    assert talk.messages[1]["reasoning_content"] and not talk.messages[1]["content"]


def test_no_template_and_no_decoder(model):
    with pytest.raises(TokenizerError, match="no chat template"):
        Chat(model, tokenizer(None), GenerationConfig())
    with pytest.raises(Unsupported):
        Chat(tiny.make("t5"), tokenizer(), GenerationConfig())
