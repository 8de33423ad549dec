"""Parser of config arguments: comma-separated words in any order, as in `configs/cifar10.py:ve,ncsnpp,deep`."""

import difflib
from collections.abc import Iterable


class Words:
    """Words of an argument. A config consumes them by `one_of` and `flag`; `done` raises if a word is left.

    Attributes:
        offered: all words that were allowed so far.
    """

    def __init__(self, argument: str):
        self._left = [word for word in argument.split(",") if word]
        self.offered: list[str] = []

    def one_of(self, what: str, choices: Iterable[str], default: str | None = None) -> str | None:
        """Consumes and returns the word that is in `choices`; returns `default` if there is none.

        Raises:
            ValueError: more than one word is in `choices`; the message calls them a `what`.
        """
        choices = list(choices)
        self.offered += choices
        matches = [word for word in self._left if word in choices]
        if len(matches) > 1:
            raise ValueError(f"{' and '.join(matches)} are both a {what}: choose one")
        self._left = [word for word in self._left if word not in choices]
        return matches[0] if matches else default

    def flag(self, word: str) -> bool:
        """Consumes a word; returns True if the argument contains it."""
        return self.one_of(word, [word]) is not None

    def done(self) -> None:
        """Checks that all words were consumed.

        Raises:
            ValueError: a word is unknown, or not allowed together with the other words.
        """
        for word in self._left:
            near = difflib.get_close_matches(word, self.offered, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.offered)}"
            raise ValueError(f"the word {word!r} is unknown here: {hint}")
