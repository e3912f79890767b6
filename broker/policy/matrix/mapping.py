"""The matrix for programs: every side of every row as a list of words."""

from __future__ import annotations

from broker.policy.matrix.rows import Matrix, Row
from broker.policy.matrix.words import level_word


def as_mapping(matrix: Matrix) -> dict[str, object]:
    """Writes the matrix as plain values; `--json` prints them."""
    return {
        "dimensions": {name: list(words) for name, words in matrix.space.dimensions.items()},
        "note": matrix.note,
        "sections": [
            {
                "role_sets": [sorted(roles) for roles in section.role_sets],
                "rows": [_row(matrix, row) for row in section.rows],
            }
            for section in matrix.sections
        ],
    }


def _row(matrix: Matrix, row: Row) -> dict[str, object]:
    space = matrix.space
    return {
        "level": level_word(row.level),
        **{name: space.ordered(i, row.box.sides[i]) for i, name in enumerate(space.names)},
        "rules": [
            {
                "place": rule.place,
                "words": list(rule.words),
                "until": rule.until.isoformat() if rule.until else None,
            }
            for rule in row.rules
        ],
    }
