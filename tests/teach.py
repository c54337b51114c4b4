"""The small models of docs/tutorials, taught from nothing in minutes; the same seed gives the same weights here.

    python tests/teach.py [NAME …]      writes tests/data/tutorials/NAME

`film` learns from the sentence polarity data (../shared/data/sentiment), the others from `letters.py`.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import torch
from torch import Tensor

import letters
import pellucid
from pellucid.tasks.table_question_answering import ROW, Asked, read, table_of

ROOT = Path(__file__).parents[1]
TO = ROOT / "tests" / "data" / "tutorials"
REVIEWS = ROOT.parent / "shared" / "data" / "sentiment"
HELD_OUT = 200  # reviews of each kind, for tests
IGNORED = -100
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]

Batches = Iterator[dict[str, Tensor]]


def teach(model: torch.nn.Module, batches: Batches, steps: int, rate: float = 2e-3) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    seen = 0.0
    for step in range(1, steps + 1):
        loss = model(**next(batches)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shape.step()
        optimizer.zero_grad()
        seen += loss.item()
        if step % 200 == 0:
            print(f"{step:6} {seen / 200:.4f}", flush=True)
            seen = 0.0
    model.eval()


def padded(rows: list[list[int]], fill: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])


def inputs(made: dict[str, list[list[int]]], pad: int) -> dict[str, Tensor]:
    given = {"input_ids": padded(made["input_ids"], pad), "attention_mask": padded(made["attention_mask"], 0)}
    if "token_type_ids" in made:
        given["token_type_ids"] = padded(made["token_type_ids"], 0)
    return given


def bert(
    tok: pellucid.Tokenizer,
    width: int,
    layers: int,
    context: int,
    labels: list[str] | None = None,
    dropout: float = 0.1,
    **keys: object,
):
    named = (
        {}
        if labels is None
        else {"id2label": dict(enumerate(labels)), "label2id": {x: i for i, x in enumerate(labels)}}
    )
    return pellucid.AutoConfig.for_model(
        "bert", vocab_size=len(tok), hidden_size=width, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=2 * width, max_position_embeddings=context, hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0, initializer_range=0.5 / math.sqrt(width), **named, **keys,
    )  # fmt: skip


# A few minutes are too short to find out that words have to be compared. These begin with it.


@torch.no_grad()
def look_for_equals(model: torch.nn.Module, loud: float = 1.0) -> None:
    """Keys begin as queries do, so that a token looks at its equals: what is said twice is found again."""
    own = dict(model.named_parameters())
    for slot, parameter in own.items():
        if slot.endswith("attn.k.weight"):
            parameter.copy_(own[slot.replace(".k.", ".q.")].mul_(loud))


@torch.no_grad()
def look_along(model: torch.nn.Module, block: int, table: Tensor, directions: int, loud: float) -> None:
    """A block's first head looks at tokens whose vectors in a table are alike, in the directions where most differ."""
    own, size = dict(model.named_parameters()), model.config.hidden_size // model.config.num_attention_heads
    for part in "qk":
        rows = own[f"blocks.{block}.attn.{part}.weight"][:size]
        rows.zero_()
        rows[:directions] = loud * torch.linalg.svd(table - table.mean(0)).Vh[:directions]


@torch.no_grad()
def louden(table: Tensor, by: float = 3.0) -> Tensor:
    """A table among those that are added up is heard above the others."""
    return table.mul_(by)


def save(name: str, model, tok: pellucid.Tokenizer, context: int | None) -> None:
    folder = TO / name
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    if context is not None:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_max_length": context}, indent=2) + "\n")
    print(name, sum(p.numel() for p in model.parameters()), "parameters")


# ---- film reviews ------------------------------------------------------------------------------------------


def reviews() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """To learn from, and held out."""
    rows = [
        [(line.strip(), label) for line in (REVIEWS / f"rt-polarity.{kind}").read_text("utf-8").splitlines()]
        for label, kind in enumerate(("neg", "pos"))
    ]
    for each in rows:
        Random(0).shuffle(each)
    return [row for each in rows for row in each[HELD_OUT:]], [row for each in rows for row in each[:HELD_OUT]]


def review_tokenizer() -> pellucid.Tokenizer:
    return pellucid.train_tokenizer((text for text, _ in reviews()[0]), "wordpiece", vocab_size=2500, length=128)


def film() -> None:
    """text-classification."""
    tok, rng = review_tokenizer(), Random(2)
    learn, held = reviews()
    torch.manual_seed(2)
    config = bert(tok, 48, 1, 128, ["negative", "positive"], classifier_dropout=0.3)
    model = pellucid.AutoModelForSequenceClassification.from_config(config)
    rows = [(tok(text, truncation=True, max_length=64)["input_ids"], label) for text, label in learn]

    def batches() -> Batches:
        while True:
            chosen = rng.sample(rows, 64)
            ids = [[tok.mask_token_id if rng.random() < 0.1 else i for i in row] for row, _ in chosen]
            ones = [[1] * len(row) for row in ids]
            given = inputs({"input_ids": ids, "attention_mask": ones}, tok.pad_token_id)
            yield given | {"labels": torch.tensor([label for _, label in chosen])}

    teach(model, batches(), 600, 2e-3)
    classify = pellucid.TextClassificationPipeline(model, tok)
    found = classify([text for text, _ in held], truncation=True)
    right = [one["label"] == ("negative", "positive")[label] for one, (_, label) in zip(found, held)]
    print("accuracy", sum(right) / len(right))
    save("film", model, tok, 128)


# ---- topics ------------------------------------------------------------------------------------------------


def topic_tokenizer() -> pellucid.Tokenizer:
    rng = Random(3)
    texts = [letters.topical(rng, rng.sample([*letters.TOPICS], rng.randint(0, 2))) for _ in range(4000)]
    texts += [f"This text is about {topic}. This example is {topic}." for topic in letters.TOPICS] * 50
    return pellucid.train_tokenizer(texts, "wordpiece", vocab_size=573, length=64)


def topics() -> None:
    """Several labels for a text: each by itself."""
    tok, rng, names = topic_tokenizer(), Random(4), [*letters.TOPICS]
    torch.manual_seed(4)
    config = bert(tok, 48, 1, 64, names, problem_type="multi_label_classification")
    model = pellucid.AutoModelForSequenceClassification.from_config(config)

    def batches() -> Batches:
        while True:
            chosen = [rng.sample(names, rng.choice((0, 1, 1, 2, 2, 3))) for _ in range(64)]
            made = tok([letters.topical(rng, each) for each in chosen], truncation=True, max_length=64)
            labels = torch.tensor([[float(name in each) for name in names] for each in chosen])
            yield inputs(made, tok.pad_token_id) | {"labels": labels}

    teach(model, batches(), 800, 4e-3)
    save("topics", model, tok, 64)


def follows() -> None:
    """Whether a second text follows from a first, for pairs and zero-shot.

    It begins with the words of `topics`, which lie in eight directions, and looks along these. Words that mean nothing
    stand among the others, so that those which it does not know mean nothing to it.
    """
    tok, rng, names = topic_tokenizer(), Random(5), [*letters.TOPICS]
    torch.manual_seed(5)
    model = pellucid.AutoModelForSequenceClassification.from_config(
        bert(tok, 48, 2, 64, ["contradiction", "neutral", "entailment"], dropout=0.0)
    )
    known = pellucid.AutoModelForSequenceClassification.from_pretrained(TO / "topics").state_dict()
    words = known["embed.tokens.weight"]
    model.load_state_dict({**model.state_dict(), "embed.tokens.weight": words})
    look_for_equals(model)
    look_along(model, 0, words, len(names), 1.0)
    known_words = {word for each in letters.TOPIC_WORDS.values() for word in each}
    pieces = [piece for token in sorted(tok.get_vocab()) if (piece := token.removeprefix("##")).isalpha()]
    pieces = [piece for piece in pieces if piece not in known_words]

    def among_others(text: str) -> str:
        said = text.split()
        for _ in range(rng.choice((0, 0, 1, 2, 3))):
            said.insert(rng.randint(0, len(said)), "".join(rng.choices(pieces, k=rng.randint(1, 3))))
        return " ".join(said)

    def batches() -> Batches:
        while True:
            pairs, labels = [], []
            for _ in range(64):
                about = rng.sample(names, rng.choice((0, 1, 1, 2)))
                said = rng.choice(about) if about and rng.random() < 0.5 else rng.choice(names)
                word = said if rng.random() < 0.4 else rng.choice(letters.TOPIC_WORDS[said])
                hypothesis = rng.choice(("This text is about {}.", "This example is {}.", "It is about {}.")).format(
                    word
                )
                pairs.append((among_others(letters.topical(rng, about)), hypothesis))
                labels.append(2 if said in about else 0 if about else 1)
            made = tok([a for a, _ in pairs], [b for _, b in pairs], truncation="only_first", max_length=64)
            yield inputs(made, tok.pad_token_id) | {"labels": torch.tensor(labels)}

    teach(model, batches(), 1000, 2e-3)
    save("follows", model, tok, 64)


# ---- letters -----------------------------------------------------------------------------------------------


def letter_tokenizer() -> pellucid.Tokenizer:
    rng = Random(6)
    texts = [letters.joined(letters.tagged(rng, 3)[0]) for _ in range(4000)]
    texts += [f"{each.question} {each.context}" for each in (letters.question(rng) for _ in range(4000))]
    return pellucid.train_tokenizer(texts, "wordpiece-cased", vocab_size=700, length=128)


def words() -> None:
    """fill-mask."""
    tok, rng = letter_tokenizer(), Random(1)
    torch.manual_seed(1)
    model = pellucid.AutoModelForMaskedLM.from_config(bert(tok, 48, 2, 64))

    def batches() -> Batches:
        while True:
            texts = [letters.joined(letters.tagged(rng, rng.randint(1, 2))[0]) for _ in range(64)]
            made = tok(texts, truncation=True, max_length=64)
            labels = []
            for row in made["input_ids"]:
                hidden = [0 < i < len(row) - 1 and rng.random() < 0.2 for i in range(len(row))]
                labels.append([i if h else IGNORED for i, h in zip(row, hidden)])
                row[:] = [tok.mask_token_id if h and rng.random() < 0.9 else i for i, h in zip(row, hidden)]
            yield inputs(made, tok.pad_token_id) | {"labels": padded(labels, IGNORED)}

    teach(model, batches(), 600, 4e-3)
    save("words", model, tok, 64)


def names() -> None:
    """token-classification."""
    tok, rng, number = letter_tokenizer(), Random(7), {tag: i for i, tag in enumerate(TAGS)}
    torch.manual_seed(7)
    model = pellucid.AutoModelForTokenClassification.from_config(bert(tok, 48, 2, 64, TAGS))

    def batches() -> Batches:
        while True:
            rows = [letters.tagged(rng, rng.randint(1, 4)) for _ in range(64)]
            made = tok([w for w, _ in rows], is_split_into_words=True, truncation=True, max_length=64)
            labels = []
            for i, (_, tags) in enumerate(rows):
                row, last = [], None
                for word in made.word_ids(i):
                    tag = "O" if word is None else tags[word]
                    row.append(IGNORED if word is None else number[tag.replace("B-", "I-") if word == last else tag])
                    last = word
                labels.append(row)
            yield inputs(made, tok.pad_token_id) | {"labels": padded(labels, IGNORED)}

    teach(model, batches(), 1000, 4e-3)
    save("names", model, tok, 64)


def answers() -> None:
    """question-answering."""
    tok, rng = letter_tokenizer(), Random(8)
    torch.manual_seed(8)
    model = pellucid.AutoModelForQuestionAnswering.from_config(bert(tok, 48, 2, 128))
    look_for_equals(model)

    def batches() -> Batches:
        while True:
            rows = [letters.question(rng, 4) for _ in range(24)]
            made = tok([r.question for r in rows], [r.context for r in rows], return_offsets_mapping=True)
            starts, ends = [], []
            for i, row in enumerate(rows):
                at = row.context.lower().find(row.answer.lower())
                kinds, offsets = made["token_type_ids"][i], made["offset_mapping"][i]
                inside = [
                    t
                    for t, (a, b) in enumerate(offsets)
                    if kinds[t] and at <= a and b <= at + len(row.answer) and b > a
                ]
                starts.append(inside[0] if row.answer else 0)
                ends.append(inside[-1] if row.answer else 0)
            yield inputs(made, tok.pad_token_id) | {
                "start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)
            }  # fmt: skip

    teach(model, batches(), 1500, 3e-3)
    save("answers", model, tok, 128)


def judge() -> None:
    """reranking: whether a sentence answers a question."""
    tok, rng = letter_tokenizer(), Random(10)
    torch.manual_seed(10)
    model = pellucid.AutoModelForSequenceClassification.from_config(
        bert(tok, 48, 2, 64, ["relevance"], problem_type="multi_label_classification")
    )
    look_for_equals(model)

    def batches() -> Batches:
        while True:
            pairs, labels = [], []
            for _ in range(32):
                who, other = rng.sample(letters.FIRST, 2)
                right = letters.fact(rng, who)
                asked, answer = rng.choice(right.asked)
                wrong = letters.fact(rng, rng.choice((who, other)))
                good = rng.random() < 0.4
                pairs.append((asked, right.text if good else wrong.text))
                labels.append(float(good or (asked, answer) in wrong.asked))
            made = tok([a for a, _ in pairs], [b for _, b in pairs])
            yield inputs(made, tok.pad_token_id) | {"labels": torch.tensor(labels)[:, None]}

    teach(model, batches(), 1000, 4e-3)
    save("judge", model, tok, 64)


# ---- tables ------------------------------------------------------------------------------------------------


def tables() -> None:
    """table-question-answering: a TAPAS. Words and rows are what has to be compared."""
    rng = Random(11)
    texts = [text for _ in range(3000) for text in table_texts(letters.lookup(rng))]
    tok = pellucid.train_tokenizer(texts, "wordpiece", vocab_size=220, length=128)
    tok.add_tokens(["[EMPTY]"])
    torch.manual_seed(11)
    config = pellucid.AutoConfig.for_model(
        "tapas", vocab_size=len(tok), hidden_size=48, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        max_position_embeddings=128, type_vocab_sizes=[3, 8, 16, 2, 16, 16, 10], initializer_range=0.07,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = pellucid.AutoModelForTableQuestionAnswering.from_config(config)
    own = dict(model.named_parameters())
    louden(own["embed.tokens.weight"])
    rows = louden(own[f"embed.features.types.{ROW}.weight"])
    look_for_equals(model, loud=1.5)
    look_along(model, 1, rows[1 : letters.ROWS + 2], letters.ROWS, 1.2)

    def batches() -> Batches:
        for step in count():  # first to find what is said, and then what stands beside it
            yield table_batch(model, tok, [letters.lookup(rng, 0.5 if step < 300 else 0.2) for _ in range(48)])

    teach(model, batches(), 1200, 3e-3)
    save("tables", model, tok, 128)


def table_texts(one: letters.Lookup) -> list[str]:
    return [one.question, *one.table, *(cell for cells in one.table.values() for cell in cells)]


def table_batch(model, tok: pellucid.Tokenizer, rows: list[letters.Lookup]) -> dict[str, Tensor]:
    made, cells = [], []
    for row in rows:
        asked = Asked(table_of(row.table), row.question)
        one = read(model, tok, 0, asked, cut=False)
        targets = [0] * len(one.ids)
        for cell, places in one.cells.items():
            for place in places:
                targets[place] = int(cell in row.cells)
        made.append(one)
        cells.append(targets)
    longest = max(map(len, cells))
    types = torch.zeros(len(made), longest, 7, dtype=torch.int64)
    for i, one in enumerate(made):
        types[i, : len(one.ids)] = torch.tensor(one.types)
    return {
        "input_ids": padded([one.ids for one in made], tok.pad_token_id),
        "attention_mask": padded([[1] * len(one.ids) for one in made], 0),
        "token_type_ids": types,
        "labels": padded(cells, 0),
    }


# ---- one text into another -------------------------------------------------------------------------------------

WRITING: dict[str, Callable[[Random], tuple[str, str]]] = {
    "translate English to German: ": letters.translated,
    "summarize: ": letters.letter,
    "past: ": letters.into_the_past,
}


def written(rng: Random) -> tuple[str, str]:
    prefix = rng.choice([*WRITING])
    source, target = WRITING[prefix](rng)
    return prefix + source, target


def writer() -> None:
    """text2text-generation, translation, summarization: a T5."""
    rng = Random(9)
    texts = [text for _ in range(6000) for text in written(rng)]
    tok = pellucid.train_tokenizer(texts, "unigram", vocab_size=500, length=128)
    torch.manual_seed(9)
    config = pellucid.AutoConfig.for_model(
        "t5", vocab_size=len(tok), d_model=64, d_kv=16, num_heads=4, d_ff=128, num_layers=2, dropout_rate=0.05,
        pad_token_id=tok.pad_token_id, eos_token_id=tok.eos_token_id, decoder_start_token_id=tok.pad_token_id,
        task_specific_params={
            "summarization": {"prefix": "summarize: "},
            "translation_en_to_de": {"prefix": "translate English to German: "},
        },
    )  # fmt: skip
    model = pellucid.AutoModelForSeq2SeqLM.from_config(config)
    for slot, parameter in model.named_parameters():  # as loud as T5 begins, which divides no scores by a square root
        if parameter.dim() == 2:
            fan_in = 64 * 16 if ".q." in slot else 1 if "embed" in slot else parameter.shape[1]
            torch.nn.init.normal_(parameter, 0, fan_in**-0.5)

    def batches() -> Batches:
        while True:
            rows = [written(rng) for _ in range(16)]
            labels = padded(tok([target for _, target in rows])["input_ids"], IGNORED)
            yield inputs(tok([source for source, _ in rows]), tok.pad_token_id) | {"labels": labels}

    teach(model, batches(), 1200, 3e-3)
    save("writer", model, tok, None)


# ---- what they are measured on ---------------------------------------------------------------------------------


def examples() -> None:
    """Files with known answers, none of which was learned from."""
    with (TO / "reviews.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, "excel-tab", lineterminator="\n")
        table.writerows([("label", "text"), *((("negative", "positive")[label], text) for text, label in reviews()[1])])
    rng = Random(100)
    tagged = [letters.tagged(rng, 2) for _ in range(60)]
    keep("names.jsonl", [json.dumps({"words": words, "tags": tags}) for words, tags in tagged])
    asked = [letters.question(rng) for _ in range(60)]
    rows = [{"question": each.question, "context": each.context, "answers": [each.answer]} for each in asked]
    keep("questions.jsonl", [json.dumps(row) for row in rows])
    facts = list(
        {each.text: each for each in (letters.fact(rng, who) for who in letters.FIRST for _ in range(5))}.values()
    )
    keep("facts.txt", [each.text for each in facts])
    wanted = [(question, each.text) for each in facts for question, _ in each.asked[:1]]
    by_question: dict[str, list[str]] = {}
    for question, text in wanted:
        by_question.setdefault(question, []).append(text)
    chosen = rng.sample(sorted(by_question), 40)
    keep("search.jsonl", [json.dumps({"query": each, "positive": by_question[each]}) for each in chosen])
    keep("german.tsv", ["text\ttarget", *("\t".join(letters.translated(rng)) for _ in range(40))])
    keep("letters.tsv", ["text\ttarget", *("\t".join(letters.letter(rng)) for _ in range(40))])


def keep(name: str, lines: list[str]) -> None:
    (TO / name).write_text("\n".join(lines) + "\n", "utf-8")


LESSONS = {
    each.__name__: each for each in (film, topics, follows, words, names, judge, tables, writer, answers, examples)
}

if __name__ == "__main__":
    for name in sys.argv[1:] or LESSONS:
        LESSONS[name]()
