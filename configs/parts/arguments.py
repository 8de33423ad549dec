"""The argument of a config: words with commas between, in any order, as in `configs/cifar10.py:ve,ncsnpp,deep`."""

import difflib
from collections.abc import Iterable


class Words:
    """The words of an argument, which a config takes one after the other; at last `done` says if any is left.

    Attributes:
        offered: all words that could have been taken so far.
    """

    def __init__(self, argument: str):
        self._left = [word for word in argument.split(",") if word]
        self.offered: list[str] = []

    def one_of(self, what: str, choices: Iterable[str], default: str | None = None) -> str | None:
        """Takes the word that is among `choices`; `default` if there is none.

        Raises:
            ValueError: there is more than one.
        """
        choices = list(choices)
        self.offered += choices
        found = [word for word in self._left if word in choices]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(found)} are both a {what}: choose one")
        self._left = [word for word in self._left if word not in choices]
        return found[0] if found else default

    def flag(self, word: str) -> bool:
        """Takes a word; whether it was there."""
        return self.one_of(word, [word]) is not None

    def done(self) -> None:
        """Raises ValueError for a word that nobody took: it is unknown, or means nothing beside the others."""
        for word in self._left:
            near = difflib.get_close_matches(word, self.offered, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.offered)}"
            raise ValueError(f"the word {word!r} is unknown here: {hint}")
