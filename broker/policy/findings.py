"""Collects what is wrong with policy files, so that an editor hears of everything at once.

Invariants:
- a finding reads `file:line: sentence [name]`; the name is what tests and the manual speak of;
- a file that is nothing but mistakes costs no more than `MAX_FINDINGS` of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from broker.errors import PolicyInvalidError

MAX_FINDINGS = 100
"""Most findings told; beyond it the reader stops, so that a wrong file of 2 MB is refused at once."""

MAX_QUOTED = 60
"""Longest piece of a file that a sentence repeats."""

_TEXT = re.compile(r"(?P<file>[^:\n]+)(?::(?P<line>\d+))?: (?P<sentence>.*) \[(?P<name>[a-z-]+)\]", re.DOTALL)


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"  # the files are refused
    WARNING = "warning"  # to be put right, or accepted in writing
    NOTE = "note"  # worth knowing; nothing is wrong


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in one line of one file."""

    file: str
    line: int
    name: str  # what tests, manual and SARIF call it
    sentence: str
    severity: Severity = Severity.ERROR
    hint: str = ""  # what to do about it
    accepted: str = ""  # the reason, where the file itself accepts the finding

    @property
    def text(self) -> str:
        """Gives the one-line form."""
        return f"{self.file}:{self.line}: {self.sentence} [{self.name}]"

    @classmethod
    def parse(cls, text: str) -> Finding:
        """Reads the one-line form of an error; a text of another form is a sentence about the policy."""
        if match := _TEXT.fullmatch(text):
            return cls(match["file"], int(match["line"] or 1), match["name"], match["sentence"])
        return cls("policy", 1, "refused", text)

    def as_mapping(self) -> dict[str, object]:
        """Gives what a program reads; `accepted` only where there is a reason."""
        said: dict[str, object] = {
            "severity": self.severity.value,
            "name": self.name,
            "file": self.file,
            "line": self.line,
            "sentence": self.sentence,
            "hint": self.hint,
        }
        return {**said, "accepted": self.accepted} if self.accepted else said


class TooManyFindingsError(Exception):
    """There is no point in reading on."""


class Findings:
    """The list that readers add to."""

    def __init__(self, most: int = MAX_FINDINGS) -> None:
        """Starts with nothing found; `most` findings fill the list."""
        self._most = most
        self._found: list[Finding] = []

    def __len__(self) -> int:
        """Counts what was found."""
        return len(self._found)

    def __iter__(self) -> Iterator[Finding]:
        """Gives the findings in the order of files and lines."""
        return iter(sorted(self._found, key=lambda found: (found.file, found.line, found.text)))

    def add(
        self,
        file: str,
        line: int,
        name: str,
        sentence: str,
        severity: Severity = Severity.ERROR,
        hint: str = "",
    ) -> None:
        """Adds a finding.

        Raises:
            TooManyFindingsError: the list is full; whoever reads stops reading.
        """
        self._found.append(Finding(file, line, name, sentence, severity, hint))
        if len(self._found) >= self._most:
            raise TooManyFindingsError

    def has(self, file: str) -> bool:
        """Says whether anything was found in that file."""
        return any(found.file == file for found in self._found)

    def raise_if_any(self) -> None:
        """Ends the load where anything was found.

        Raises:
            PolicyInvalidError: with every finding, in the order of files and lines.
        """
        if self._found:
            found = [each.text for each in self]
            if len(found) >= self._most:
                found.append(f"policy: more than {self._most} findings; the rest was not read [too-many]")
            raise PolicyInvalidError(found)


def quoted(word: str) -> str:
    """Quotes a piece of a file for a sentence, cut to size and without control characters."""
    short = word if len(word) <= MAX_QUOTED else word[:MAX_QUOTED] + "…"
    return repr(short)


def nearest(word: str, known: Iterable[str]) -> str:
    """Gives the end of a sentence about an unknown word: the nearest known one, or which there are."""
    words = sorted(map(str, known))  # members of an enum are words, too, and are quoted as such
    for candidate in words:
        if candidate.casefold() == word.strip("\"'` ").casefold():
            return f"did you mean {candidate!r}?"
    if close := get_close_matches(word[:MAX_QUOTED], words, n=1, cutoff=0.6):
        return f"did you mean {close[0]!r}?"
    if not words:
        return "there are none yet"
    shown = ", ".join(words[:12])
    return f"known: {shown}{', …' if len(words) > 12 else ''}"  # noqa: PLR2004 - a line of a terminal
