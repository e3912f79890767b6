"""The matrix as text: for a terminal, and for the file that is reviewed as a diff."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from broker.policy.aloud import ending, places
from broker.policy.everywhere import name_of
from broker.policy.matrix.rows import Matrix, Row, Section
from broker.policy.matrix.words import field_words, level_word, side_words
from broker.policy.rules import Rule

HEAD = """\
# The access matrix: what every set of roles sees of every ticket there can be, and the rule that decides.
#
# A row is true by itself, of all combinations of its words. What no row has is withheld, because no rule
# allows it; rows that say so name the denial that takes away what some rule allows."""

COLUMNS = (
    "sees",
    "fields",
    "purpose",
    "relation",
    "ticket kind",
    "provenance",
    "opened by",
    "presence",
    "rule",
)

SHORTEST_NAME = 6
"""Fewest digits of a rule's name."""


def as_text(matrix: Matrix, *, golden: bool = False) -> str:
    """Writes the matrix as text.

    Args:
        matrix: what to write.
        golden: name rules by what they say and not by their line, with a list of them at the end, so
            that a rule added above changes no row but its own.
    """
    rules = {rule for section in matrix.sections for row in section.rows for rule in row.rules}
    names = names_of(rules)
    name = partial(_named, names) if golden else places
    tables = [[COLUMNS, *(_cells(matrix, row, name) for row in section.rows)] for section in matrix.sections]
    widths = [max(len(line[i]) for table in tables for line in table) for i in range(len(COLUMNS))]
    lines = [HEAD, "#", *(f"# {line}" for line in _wrapped(matrix.note))]
    for section, table in zip(matrix.sections, tables, strict=True):
        lines += ["", f"== {title(section)} =="]
        head, *rows = table
        lines.append(_line(head, widths) if rows else "sees nothing")
        before = section.rows[0].box.sides[0] if rows else None
        for row, cells in zip(section.rows, rows, strict=True):
            if row.box.sides[0] != before:
                lines.append("")
            before = row.box.sides[0]
            lines.append(_line(cells, widths))
    if golden:
        lines += ["", "== rules =="]
        lines += sorted(f"{names[rule]}  p, {', '.join(rule.words)}" for rule in rules)
    return "\n".join(lines) + "\n"


def title(section: Section) -> str:
    """Names a section: its sets of roles, and what they include."""
    names = ", ".join(name_of(roles) for roles in section.role_sets)
    return f"{names} (includes {', '.join(sorted(section.includes))})" if section.includes else names


def names_of(rules: Collection[Rule]) -> dict[Rule, str]:
    """Names rules by their words: as many hex digits of their SHA-256 as no other of them begins with."""
    digests = {rule: hashlib.sha256(",".join(rule.words).encode()).hexdigest() for rule in rules}
    names: dict[Rule, str] = {}
    length = SHORTEST_NAME
    while len(names) < len(digests):
        alike = Counter(digest[:length] for digest in digests.values())
        for rule, digest in digests.items():
            if alike[digest[:length]] == 1:
                names.setdefault(rule, digest[:length])
        length += 1
    return names


def _named(names: Mapping[Rule, str], rules: Sequence[Rule]) -> str:
    return ", ".join(sorted(names[rule] + ending(rule) for rule in rules))


def _cells(matrix: Matrix, row: Row, name: Callable[[Sequence[Rule]], str]) -> tuple[str, ...]:
    *facts, fields = row.box.sides
    told = [side_words(matrix.space, i, side) for i, side in enumerate(facts)]
    return (level_word(row.level), field_words(matrix.catalog, fields), *told, name(row.rules))


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _wrapped(text: str, width: int = 100) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
