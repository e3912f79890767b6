"""Collects what is wrong with policy files, so that an editor hears of everything at once.

Invariants:
- a finding reads `file:line: sentence [name]`; the name is what tests and the manual speak of;
- a file that is nothing but mistakes costs no more than `MAX_FINDINGS` of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from broker.errors import PolicyInvalidError

MAX_FINDINGS = 100
"""Most findings told; beyond it the reader stops, so that a wrong file of 2 MB is refused at once."""

MAX_QUOTED = 60
"""Longest piece of a file that a sentence repeats."""


class TooManyFindingsError(Exception):
    """There is no point in reading on."""


class Findings:
    """The list that readers add to."""

    def __init__(self) -> None:
        """Starts with nothing found."""
        self._found: list[tuple[str, int, str]] = []

    def __len__(self) -> int:
        """Counts what was found."""
        return len(self._found)

    def add(self, file: str, line: int, name: str, sentence: str) -> None:
        """Adds a finding.

        Raises:
            TooManyFindingsError: the list is full; whoever reads stops reading.
        """
        self._found.append((file, line, f"{file}:{line}: {sentence} [{name}]"))
        if len(self._found) >= MAX_FINDINGS:
            raise TooManyFindingsError

    def has(self, file: str) -> bool:
        """Says whether anything was found in that file."""
        return any(found[0] == file for found in self._found)

    def raise_if_any(self) -> None:
        """Ends the load where anything was found.

        Raises:
            PolicyInvalidError: with every finding, in the order of files and lines.
        """
        if self._found:
            found = [text for _, _, text in sorted(self._found)]
            if len(found) >= MAX_FINDINGS:
                found.append(f"policy: more than {MAX_FINDINGS} findings; the rest was not read [too-many]")
            raise PolicyInvalidError(found)


def quoted(word: str) -> str:
    """Quotes a piece of a file for a sentence, cut to size and without control characters."""
    short = word if len(word) <= MAX_QUOTED else word[:MAX_QUOTED] + "…"
    return repr(short)


def nearest(word: str, known: Iterable[str]) -> str:
    """Gives the end of a sentence about an unknown word: the nearest known one, or which there are."""
    words = sorted(known)
    for candidate in words:
        if candidate.casefold() == word.strip("\"'` ").casefold():
            return f"did you mean {candidate!r}?"
    if close := get_close_matches(word[:MAX_QUOTED], words, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    if not words:
        return "there are none yet"
    shown = ", ".join(words[:12])
    return f"known: {shown}{', …' if len(words) > 12 else ''}"  # noqa: PLR2004 - a line of a terminal
