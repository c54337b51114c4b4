"""Which endings of a text stood in it, or in another, before; and what followed them how often.

A suffix automaton (Blumer et al. 1985): a state is a set of strings that end at the same places, a link leads to the
longest ending that stands at more of them. It grows token by token, in constant time on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

COUNTED = 64  # endings of the text, the longest ones, whose places are counted at each token; bounds a step's time


@dataclass
class Suffixes:
    """The automaton of a growing text.

    Args:
        length: of each state's longest string.
        link: of each state the state of its longest ending that stands at more places; -1 of the root.
        count: at how many places each state's strings stand.
        latest: the last of these places, the index behind it.
        next: transitions of each state.
        last: the state of the whole text.
    """

    text: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=lambda: [0])
    link: list[int] = field(default_factory=lambda: [-1])
    count: list[int] = field(default_factory=lambda: [0])
    latest: list[int] = field(default_factory=lambda: [0])
    next: list[dict[int, int]] = field(default_factory=lambda: [{}])
    last: int = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self._add(token)

    def following(self, most: int) -> tuple[list[int], list[float]]:
        """What followed the longest ending that stood somewhere before; see `continuation`."""
        state = self.link[self.last]
        return self.continuation(state, self.length[state], most) if state > 0 else ([], [])

    def continuation(self, state: int, matched: int, most: int) -> tuple[list[int], list[float]]:
        """What followed a string most often, token by token, the latest among equals; at most so many.

        The chance of a token is how often it was the one that followed; as if something else had followed once more,
        which counts the less the longer the string is.
        """
        tokens: list[int] = []
        chances: list[float] = []
        while len(tokens) < most:
            while state > 0 and not self.next[state]:  # the text's end: it goes on as where its own ending stood before
                state = self.link[state]
                matched = self.length[state]
            if state <= 0:
                break
            follows, count, latest = self.next[state], self.count, self.latest
            token, after = max(follows.items(), key=lambda each: (count[each[1]], latest[each[1]]))
            total = sum(count[each] for each in follows.values())
            tokens.append(token)
            chances.append(count[after] / (total + 1 / matched))
            state, matched = after, matched + 1
        return tokens, chances

    def copy(self) -> Suffixes:
        """For a text that goes its own way."""
        return Suffixes(
            list(self.text), list(self.length), list(self.link), list(self.count), list(self.latest),
            [dict(follows) for follows in self.next], self.last,
        )  # fmt: skip

    def _add(self, token: int) -> None:
        self.text.append(token)
        whole = self._state(len(self.text), -1, 1, {})
        state = self.last
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = whole
            state = self.link[state]
        self.link[whole] = self._before(state, token) if state >= 0 else 0
        self.last = whole
        self._count(self.link[whole])

    def _before(self, state: int, token: int) -> int:
        """The state of a string and a token that stood together before; split off where it is not one by itself."""
        found = self.next[state][token]
        if self.length[found] == self.length[state] + 1:
            return found
        split = self._state(self.length[state] + 1, self.link[found], self.count[found], dict(self.next[found]))
        self.latest[split] = self.latest[found]
        while state >= 0 and self.next[state].get(token) == found:
            self.next[state][token] = split
            state = self.link[state]
        self.link[found] = split
        return split

    def _state(self, length: int, link: int, count: int, follows: dict[int, int]) -> int:
        self.length.append(length)
        self.link.append(link)
        self.count.append(count)
        self.latest.append(len(self.text))
        self.next.append(follows)
        return len(self.length) - 1

    def _count(self, state: int) -> None:
        """The text's endings stand at one more place."""
        for _ in range(COUNTED):
            if state <= 0:
                return
            self.count[state] += 1
            self.latest[state] = len(self.text)
            state = self.link[state]


@dataclass
class Match:
    """The longest ending of a text that stands in another one."""

    other: Suffixes
    state: int = 0
    length: int = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on."""
        other = self.other
        for token in tokens:
            while self.state and token not in other.next[self.state]:
                self.state = other.link[self.state]
                self.length = other.length[self.state]
            if token in other.next[self.state]:
                self.state = other.next[self.state][token]
                self.length += 1

    def following(self, most: int) -> tuple[list[int], list[float]]:
        """What followed it there."""
        other = self.other
        while self.state and other.length[other.link[self.state]] >= self.length:
            self.state = other.link[self.state]  # it was split since, when the other text grew
        return other.continuation(self.state, self.length, most) if self.state else ([], [])

    def copy(self) -> Match:
        """For a text that goes its own way."""
        return Match(self.other, self.state, self.length)
