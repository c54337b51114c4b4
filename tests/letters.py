"""Made-up texts with known answers: what the small models of docs/tutorials learn, and are measured on.

Everything comes from a `random.Random`, so that the same seed gives the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

FIRST = """Ada Alan Anna Boris Carl Clara Dana Edith Emil Frida Greta Hanna Hugo Ida Ingrid Jonas Karin Lars Lena Lydia
    Magnus Maria Nora Olaf Oscar Peter Rosa Sven Tom Vera""".split()
LAST = "Berg Hill Holm Keller Lind Moore Novak Olsen Parker Rossi Stone Vogel Weber Young".split()
TOWNS = """Athens Bergen Berlin Bern Boston Cork Dublin Geneva Hamburg Kiel Leeds Lima Lisbon London Lyon Madrid Milan
    Oslo Paris Prague Riga Rome Turin Vienna""".split()
TRADES = "Bank Books Foods Motors Press Railways Steel Tools".split()
COLOURS = "red blue green old new small large white".split()
THINGS = "boat house lamp clock horse chair piano bicycle coat ring map table".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
STARTS = "b br d dr f g gr h j k kl l m n p r s st t tr v w".split()
ENDS = "a e i o u an en in on ar er or el il us".split()


def made_up(rng: Random) -> str:
    """A name that nobody has."""
    return "".join(rng.choice(STARTS) + rng.choice(ENDS) for _ in range(rng.choice((2, 2, 3)))).capitalize()


# ---- entities ----------------------------------------------------------------------------------------------


def entity(rng: Random, kind: str) -> str:
    strange = rng.random() < 0.4
    if kind == "PER":
        first, last = (made_up(rng), made_up(rng)) if strange else (rng.choice(FIRST), rng.choice(LAST))
        return rng.choice((first, first, f"{first} {last}", f"{first} {last}", f"Mr {last}", f"Mrs {last}"))
    if kind == "LOC":
        return made_up(rng) if strange else rng.choice(TOWNS)
    owner = made_up(rng) if strange else rng.choice(LAST + TOWNS)
    return f"{owner} {rng.choice(TRADES)}"


NEWS = """
    {PER} lives in {LOC} .
    {PER} lives in {LOC} with a dog and two cats .
    {PER} works for {ORG} in {LOC} .
    {ORG} opened an office in {LOC} .
    Last {month} {PER} wrote a letter to {PER} .
    {PER} has left {ORG} .
    On {day} {PER} took the train from {LOC} to {LOC} .
    {PER} and {PER} met at the gates of {ORG} .
    It rained in {LOC} .
    Nobody in {LOC} has heard of {ORG} .
    The letter from {PER} came on {day} .
    {PER} bought a {colour} {thing} .
    The {colour} {thing} was sold to {PER} for ten pounds .
    In {month} it is cold in {LOC} .
    Where is {PER} ?
    {ORG} sells a {colour} {thing} to {ORG} .
    The weather is fine and the {thing} is {colour} .
    {PER} was born in {LOC} .
    The house of {PER} stands near the river .
    Dear {PER} , I am well .
    I hope that you are well .
    Yours , {PER}
    {ORG} has paid {PER} .
    Tell {PER} that the {thing} is here .
    We moved from {LOC} to {LOC} in {month} .
"""
NEWS_LINES = [line.strip() for line in NEWS.strip().splitlines()]


def tagged(rng: Random, sentences: int) -> tuple[list[str], list[str]]:
    """Words, and the tag of each: B-PER, I-PER, …, O."""
    words: list[str] = []
    tags: list[str] = []
    for _ in range(sentences):
        for word in rng.choice(NEWS_LINES).split():
            kind = word.strip("{}")
            if kind in ("PER", "LOC", "ORG"):
                named = entity(rng, kind).split()
                words += named
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(named) - 1)
            else:
                words.append(filled(rng, word))
                tags.append("O")
    return words, tags


def filled(rng: Random, word: str) -> str:
    choices = {"{month}": MONTHS, "{day}": DAYS, "{colour}": COLOURS, "{thing}": THINGS}
    return rng.choice(choices[word]) if word in choices else word


def joined(words: list[str]) -> str:
    """Words as a text, without a space before a full stop."""
    return " ".join(words).replace(" .", ".").replace(" ,", ",").replace(" ?", "?")


# ---- questions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """A sentence, and the questions that it answers: (question, answer)."""

    text: str
    asked: tuple[tuple[str, str], ...]


def fact(rng: Random, who: str) -> Fact:
    town, firm = rng.choice(TOWNS), f"{rng.choice(LAST)} {rng.choice(TRADES)}"
    thing = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
    day = f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"
    kind = rng.randrange(4)
    if kind == 0:
        said = rng.choice((f"{who} lives in {town}.", f"In {town} lives {who}.", f"{who} has a house in {town}."))
        return Fact(said, ((f"Where does {who} live?", town), (f"Who lives in {town}?", who)))
    if kind == 1:
        said = rng.choice((f"{who} works for {firm}.", f"{firm} has hired {who}."))
        return Fact(said, ((f"Who does {who} work for?", firm), (f"Who works for {firm}?", who)))
    if kind == 2:
        said = rng.choice((f"{who} bought a {thing}.", f"A {thing} was sold to {who}."))
        return Fact(said, ((f"What did {who} buy?", f"a {thing}"), (f"Who bought the {thing}?", who)))
    said = rng.choice((f"{who} left on {day}.", f"On {day} {who} went away."))
    return Fact(said, ((f"When did {who} leave?", day), (f"Who left on {day}?", who)))


@dataclass(frozen=True)
class Example:
    """A question, a context and the answer; "" where the context has none."""

    question: str
    context: str
    answer: str


def question(rng: Random, most: int = 5) -> Example:
    people = rng.sample(FIRST, rng.randint(2, most))
    facts = [fact(rng, who) for who in people]
    asked, answer = rng.choice(rng.choice(facts).asked)
    if rng.random() < 0.15:
        other = rng.choice([name for name in FIRST if name not in people])
        asked, answer = fact(rng, other).asked[0][0], ""
    context = " ".join(each.text for each in facts)
    once = context.lower().count(answer.lower()) == 1
    return Example(asked, context, answer if once else "")


# ---- tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lookup:
    """A table, a question about it, and the cells (row, column) that answer it."""

    table: dict[str, list[str]]
    question: str
    cells: set[tuple[int, int]]


ROWS = 6  # at most


def lookup(rng: Random, simple: float = 0.2) -> Lookup:
    """A question about a table; a simple one, with such a chance, asks for what stands in the cell itself."""
    n = rng.randint(2, ROWS)
    names, towns = rng.sample(FIRST, n), rng.sample(TOWNS, n)
    if rng.random() < 0.5:
        towns[1] = towns[0]
    ages = [str(age) for age in rng.sample(range(18, 80), n)]
    row = rng.randrange(n)
    here = [i for i in range(n) if towns[i] == towns[row]]
    oldest, youngest = (pick(range(n), key=lambda i: int(ages[i])) for pick in (max, min))
    asked = [
        (f"Find {names[row]}.", "name", [row]),
        (f"Find {towns[row]}.", "town", here),
        (f"Find {ages[row]}.", "age", [row]),
        ("How old is the oldest?", "age", [oldest]),
        ("How old is the youngest?", "age", [youngest]),
    ] if rng.random() < simple else [
        (f"Where does {names[row]} live?", "town", [row]),
        (f"How old is {names[row]}?", "age", [row]),
        (f"Who lives in {towns[row]}?", "name", here),
        ("Who is the oldest?", "name", [oldest]),
        ("Who is the youngest?", "name", [youngest]),
    ]  # fmt: skip
    question, column, rows = rng.choice(asked)
    table = {"name": names, "town": towns, "age": ages}
    cells = {(i, [*table].index(column)) for i in rows}
    if column != "age" and "est?" not in question and rng.random() < 0.3:
        del table["age"]
    return Lookup(table, question, cells)


# ---- topics ------------------------------------------------------------------------------------------------

TOPICS = {
    "sport": "match team goal coach player race referee stadium trophy ball swimmer league runner tennis football",
    "politics": "minister vote election parliament law party president mayor senate treaty campaign reform border tax",
    "weather": "rain snow storm wind cloud sun frost fog thunder heat cold forecast sky temperature hail drought",
    "food": "bread soup cheese cook dinner recipe oven salt butter apple kitchen taste lunch sugar meal sauce",
    "music": "song guitar concert singer piano drum melody orchestra band choir violin album tune rhythm opera dance",
    "travel": "train ticket hotel airport journey luggage passport flight tourist map ship platform guide holiday visa",
    "science": "atom planet experiment telescope cell theory laboratory formula energy particle gene star physicist",
    "money": "bank loan price market interest salary coin debt profit shop budget share cost wallet cash dollar",
}
TOPIC_WORDS = {topic: [*words.split(), topic] for topic, words in TOPICS.items()}
PLAIN = """
    the {} was what everybody spoke about
    we could not forget the {}
    there is a new {} near the river
    a {} and a {}
    they waited long for the {}
    nobody had seen such a {} before
    the {} came after the {}
    she wrote a letter about the {}
    he asked whether the {} was ready
    the {} of last year was better
    it was the best {} in town
    our {} has changed
    the {} ended and the {} began
    without a {} there is no {}
    is this your {}
    the {} made people happy
"""
PLAIN_LINES = [line.strip() for line in PLAIN.strip().splitlines()]


def topical(rng: Random, topics: list[str]) -> str:
    """Some sentences, each about one of the topics; none of them where there is no topic."""
    lines = []
    for topic in topics * rng.choice((1, 1, 2)) or [""]:
        words = TOPIC_WORDS[topic] if topic else "thing day house tree road garden letter man woman child".split()
        line = rng.choice(PLAIN_LINES)
        lines.append(line.format(*rng.sample(words, line.count("{}"))))
    rng.shuffle(lines)
    return ". ".join(line.capitalize() for line in lines) + "."


# ---- sentences into others -----------------------------------------------------------------------------------

NOUNS = {  # English: German, gender
    "man": ("Mann", "m"), "woman": ("Frau", "f"), "child": ("Kind", "n"), "dog": ("Hund", "m"), "cat": ("Katze", "f"),
    "horse": ("Pferd", "n"), "house": ("Haus", "n"), "lamp": ("Lampe", "f"), "boat": ("Boot", "n"),
    "ring": ("Ring", "m"), "clock": ("Uhr", "f"), "coat": ("Mantel", "m"), "letter": ("Brief", "m"),
    "book": ("Buch", "n"),
}  # fmt: skip
ALIVE = ["man", "woman", "child", "dog", "cat", "horse"]
ADJECTIVES = {"old": "alt", "small": "klein", "red": "rot", "new": "neu", "good": "gut", "blue": "blau"}
VERBS = {  # English: past, German
    "sees": ("saw", "sieht"), "buys": ("bought", "kauft"), "finds": ("found", "findet"), "loves": ("loved", "liebt"),
    "draws": ("drew", "malt"), "needs": ("needed", "braucht"),
}  # fmt: skip
THE = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}


def phrase(rng: Random, noun: str, case: int) -> tuple[str, str]:
    """ "the old dog", and in German as a subject (0) or an object (1)."""
    german, gender = NOUNS[noun]
    article = THE[gender][case]
    if rng.random() < 0.5:
        return f"the {noun}", f"{article} {german}"
    adjective = rng.choice([*ADJECTIVES])
    ending = "en" if article == "den" else "e"
    return f"the {adjective} {noun}", f"{article} {ADJECTIVES[adjective]}{ending} {german}"


def translated(rng: Random) -> tuple[str, str]:
    who, wer = (name := rng.choice(FIRST), name) if rng.random() < 0.3 else phrase(rng, rng.choice(ALIVE), 0)
    what, was = phrase(rng, rng.choice([*NOUNS]), 1)
    verb = rng.choice([*VERBS])
    english, german = f"{who} {verb} {what}.", f"{wer} {VERBS[verb][1]} {was}."
    return english[0].upper() + english[1:], german[0].upper() + german[1:]


def into_the_past(rng: Random) -> tuple[str, str]:
    english, _ = translated(rng)
    verb = next(verb for verb in VERBS if f" {verb} " in english)
    return english, english.replace(f" {verb} ", f" {VERBS[verb][0]} ")


GREETINGS = """
    I hope that you are well.
    It is cold here.
    Thank you for your letter.
    I have not written for long.
    The children are at school.
    It rains every day.
    How is your mother?
    We think of you.
"""
GREETING_LINES = [line.strip() for line in GREETINGS.strip().splitlines()]
CLOSINGS = ["Write soon.", "I must go now.", "There is no other news.", "Come and see us.", "The post leaves at six."]


def letter(rng: Random) -> tuple[str, str]:
    """A letter, and what it says in a sentence."""
    to, by = rng.sample(FIRST, 2)
    verb = rng.choice([past for past, _ in VERBS.values()])
    news = f"{verb} the {rng.choice([*ADJECTIVES])} {rng.choice([*NOUNS])} in {rng.choice(TOWNS)}"
    before = " ".join(rng.sample(GREETING_LINES, rng.randint(1, 3)))
    after = " ".join(rng.sample(CLOSINGS, rng.randint(1, 2)))
    return f"Dear {to}, {before} I {news}. {after} Yours, {by}", f"{by} {news}."
