"""Stop strings in a text that comes in pieces: where the first one ends, and what could still become one.

The automaton of Aho and Corasick (1975): one step a character, however many stop strings there are.
"""

from __future__ import annotations

from collections.abc import Iterable

from pellucid.errors import ArgumentError


class Stops:
    """`feed` pieces of a text; what comes out is the text up to the first stop string.

    The first stop string is the one that is complete first, so that generating can end there; where several end at the
    same character, it is the longest of them.
    """

    def __init__(self, stop: str | Iterable[str] = ()) -> None:
        """Raises ArgumentError for a stop string that is empty or no string."""
        self._next: list[dict[str, int]] = [{}]  # of each state: character -> state
        self._depth = [0]  # how many characters of a stop string have been seen
        self._found = [""]  # the longest stop string that ends here
        self._fallback = [0]  # the state of the longest proper suffix
        for text in [stop] if isinstance(stop, str) else stop:
            self._insert(text)
        self._link()
        self.reset()

    def reset(self) -> None:
        """Ready for another text."""
        self._state = 0
        self._held = ""
        self.stopped: str | None = None

    def feed(self, text: str) -> str:
        """What is certain not to belong to a stop string; nothing more once one was found."""
        if self.stopped is not None or len(self._next) == 1:
            return "" if self.stopped is not None else text
        state, held = self._state, self._held + text
        for at, char in enumerate(text, len(self._held) + 1):
            while state and char not in self._next[state]:
                state = self._fallback[state]
            state = self._next[state].get(char, 0)
            if found := self._found[state]:
                self.stopped, self._held = found, ""
                return held[: at - len(found)]
        self._state, ready = state, len(held) - self._depth[state]
        self._held = held[ready:]
        return held[:ready]

    def end(self) -> str:
        """What was held back, when no more comes."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _insert(self, text: str) -> None:
        if not isinstance(text, str) or not text:
            raise ArgumentError(f"stop={text!r}", next="give strings that are not empty")
        state = 0
        for char in text:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._found.append("")
                self._fallback.append(0)
            state = self._next[state][char]
        self._found[state] = text

    def _link(self) -> None:
        """Fallbacks, nearest states first; a state also ends what its fallback ends."""
        queue = list(self._next[0].values())
        for state in queue:
            for char, child in self._next[state].items():
                other = self._fallback[state]
                while other and char not in self._next[other]:
                    other = self._fallback[other]
                self._fallback[child] = self._next[other].get(char, 0)
                self._found[child] = self._found[child] or self._found[self._fallback[child]]
                queue.append(child)
