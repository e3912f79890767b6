"""Strict lines: what every text file must be, and how a line of a CSV file becomes words.

pycasbin drops what it does not understand, and what it drops may be a denial (`Deny`, a quoted
`"deny"`, `deny # note`, a BOM or `P` before the line all evaluate to allow). So nothing reaches it
that this reader has not understood completely.

Invariants:
- a line is blank, a comment from its first column on, or words between commas; nothing else;
- words are ASCII from a short list of characters: no quotes, wildcards, brackets, comment signs;
- a file ends with its end mark, so that one cut short anywhere is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from broker.policy.files import unwanted_character
from broker.policy.findings import Findings, quoted

MAX_LINE = 1000
"""Most characters of a line; a rule has about 80."""

MAX_LINES = 30_000
"""Most lines of a file, comments included."""

CSV_END = "# end"
"""Last line of a CSV file."""

YAML_END = "..."
"""Last line of a YAML file: YAML's own end-of-document mark."""

ANY = "any"
"""The word for "whatever it is"; the only wildcard there is."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
"""What roles, purposes, ticket kinds and field classes are called."""

RESERVED = frozenset({ANY, "other", "clear", "masked", "allow", "deny", "none", "unknown", "default"})
"""Words with a meaning of their own, which nothing may be named."""

_FORBIDDEN = (
    ("quoted", re.compile(r"[\"'`]"), "quotes; write the bare word"),
    (
        "trailing-comment",
        re.compile(r"[#;]"),
        "a comment sign behind or inside a value; comments have lines of their own",
    ),
    ("wildcard", re.compile(r"[*?]"), "a wildcard; name each word, or write 'any'"),
    (
        "character",
        re.compile(r"[^A-Za-z0-9 ,._:/@+\-]"),
        "the character {0}; words are letters, digits and . _ : / -",
    ),
)


_PLAIN = re.compile(r"[A-Za-z0-9 ,._:/@+\-]*")
"""A line that holds nothing of that; nearly every line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a CSV file: its number and its words."""

    number: int
    words: tuple[str, ...]


def read_text(name: str, text: str, end: str, findings: Findings) -> list[str] | None:
    """Splits a file into lines, or gives None where it is not worth reading on.

    Args:
        name: of the file, for findings.
        text: of the file.
        end: the end mark that must be its last line.
        findings: where to say what is wrong.
    """
    if not text.strip("\ufeff \t\r\n"):
        findings.add(name, 1, "empty", "the file is empty")
        return None
    lines = text.split("\n", MAX_LINES + 1)
    if len(lines) > MAX_LINES:
        findings.add(name, MAX_LINES + 1, "too-many-lines", f"the file has more than {MAX_LINES} lines")
        return None
    before = len(findings)
    if unwanted_character(text) or len(max(lines, key=len)) > MAX_LINE:
        for number, line in enumerate(lines, 1):
            if found := unwanted_character(line):
                findings.add(name, number, found[0], f"the line holds {found[1]}")
            elif len(line) > MAX_LINE:
                findings.add(name, number, "line-too-long", f"the line is longer than {MAX_LINE} characters")
    if lines[-1] or lines[-2:-1] != [end]:
        number = len(lines) if lines[-1] else len(lines) - 1
        findings.add(
            name,
            number,
            "end-missing",
            f"the last line must be '{end}' and a line end; was the file cut short?",
        )
    return lines if len(findings) == before else None


def read_csv(name: str, text: str, findings: Findings) -> Iterator[Line]:
    """Gives the lines that say something, cut into words; each refused line is one finding."""
    for number, line in enumerate(read_text(name, text, CSV_END, findings) or (), 1):
        if not line or line.startswith("#"):
            continue
        if line != line.strip(" "):
            findings.add(name, number, "stray-space", "the line begins or ends with a space")
            continue
        if forbidden := _forbidden(line):
            findings.add(name, number, *forbidden)
            continue
        words = tuple(word.strip(" ") for word in line.split(","))
        if "" in words:
            findings.add(
                name,
                number,
                "blank-value",
                f"value {words.index('') + 1} is blank; write 'any' where it does not matter",
            )
            continue
        if words[0] not in {"p", "g"}:
            findings.add(
                name,
                number,
                "unknown-type",
                f"a line begins with 'p' (a rule) or 'g' (a group or role), not with {quoted(words[0])}",
            )
            continue
        yield Line(number, words)


def _forbidden(line: str) -> tuple[str, str] | None:
    if _PLAIN.fullmatch(line):
        return None
    for name, pattern, sentence in _FORBIDDEN:
        if match := pattern.search(line):
            return name, f"the line holds {sentence.format(quoted(match.group()))}"
    return None
