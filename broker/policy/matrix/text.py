"""The matrix as text: for a terminal, and for the file that is reviewed as a diff."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

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


def as_text(matrix: Matrix, *, golden: bool = False) -> str:
    """Writes the matrix as text.

    Args:
        matrix: what to write.
        golden: name rules by what they say and not by their line, with a list of them at the end, so
            that a rule added above changes no row but its own.
    """
    name = _names if golden else places
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
        rules = {rule for section in matrix.sections for row in section.rows for rule in row.rules}
        lines += sorted(f"{name_of_rule(rule)}  p, {', '.join(rule.words)}" for rule in rules)
    return "\n".join(lines) + "\n"


def title(section: Section) -> str:
    """Names a section: its sets of roles, and what they include."""
    names = ", ".join(name_of(roles) for roles in section.role_sets)
    return f"{names} (includes {', '.join(sorted(section.includes))})" if section.includes else names


def name_of_rule(rule: Rule) -> str:
    """Names a rule by its words, which no other rule has: six hex digits of their SHA-256."""
    return hashlib.sha256(",".join(rule.words).encode()).hexdigest()[:6]


def _names(rules: Sequence[Rule]) -> str:
    return ", ".join(sorted(name_of_rule(rule) + ending(rule) for rule in rules))


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
