"""The matrix as CSV, for a spreadsheet: one row per set of roles and box, words between blanks."""

from __future__ import annotations

import csv
import io

from broker.policy.aloud import places
from broker.policy.everywhere import name_of
from broker.policy.lines import ANY
from broker.policy.matrix.rows import Matrix
from broker.policy.matrix.words import level_word


def as_csv(matrix: Matrix) -> str:
    """Writes the matrix as CSV (RFC 4180, with line feeds).

    No cell can be taken for a formula: words are names, from letters, digits and `. _ - +`, and begin
    with a letter.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["roles", "level", *matrix.space.names, "rules", "rule_words"])
    for section in matrix.sections:
        for roles in section.role_sets:
            for row in section.rows:
                sides = [
                    ANY if len(side) == len(words) else " ".join(matrix.space.ordered(i, side))
                    for i, (side, words) in enumerate(zip(row.box.sides, matrix.space.words, strict=True))
                ]
                told = [places(row.rules), "; ".join(", ".join(rule.words) for rule in row.rules)]
                writer.writerow([name_of(roles), level_word(row.level), *sides, *told])
    return out.getvalue()
