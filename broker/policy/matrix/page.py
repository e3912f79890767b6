"""The matrix as one HTML page: readable, filtered by any word, without a network.

Invariants:
- the page loads nothing: its content security policy lets through its own style and script, by hash;
- every word is escaped, though none that the strict readers let through would need it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

from broker.policy.aloud import places
from broker.policy.everywhere import name_of
from broker.policy.lines import ANY
from broker.policy.matrix.rows import Matrix, Row, Section
from broker.policy.matrix.text import COLUMNS, title
from broker.policy.matrix.words import field_words, level_word, side_words

_FILTERS = (
    ("roles", "roles"),
    ("purpose", "purpose"),
    ("relation", "relation"),
    ("ticket_kind", "ticket kind"),
    ("provenance", "provenance"),
    ("opened_by", "opened by"),
    ("presence", "presence"),
    ("field", "field"),
    ("level", "sees"),
)


def as_html(matrix: Matrix) -> str:
    """Writes the matrix as a page."""
    style, script = _part("page.css"), _part("page.js")
    parts = {
        "STYLE_HASH": _hash(style),
        "SCRIPT_HASH": _hash(script),
        "STYLE": style,
        "SCRIPT": script,
        "NOTE": escape(matrix.note),
        "FILTERS": "\n".join(_filter(matrix, name, label) for name, label in _FILTERS),
        "HEAD": "".join(f"<th>{escape(name)}</th>" for name in COLUMNS),
        "ROWS": "\n".join(_section(matrix, section) for section in matrix.sections),
    }
    return re.sub(r"%([A-Z_]+)%", lambda match: parts[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return files("broker.policy.matrix").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _filter(matrix: Matrix, name: str, label: str) -> str:
    if name == "roles":
        words = [name_of(roles) for section in matrix.sections for roles in section.role_sets]
    elif name == "level":
        words = ["clear", "masked", "withheld"]
    else:
        words = list(matrix.space.dimensions[name])
    options = "".join(f"<option>{escape(word)}</option>" for word in words)
    return (
        f'<label>{escape(label)}<select name="{name}"><option value="">any</option>{options}</select></label>'
    )


def _section(matrix: Matrix, section: Section) -> str:
    head = f'<tr><th scope="rowgroup" colspan="{len(COLUMNS)}">{escape(title(section))}</th></tr>'
    roles = " ".join(name_of(each) for each in section.role_sets)
    rows = "\n".join(_row(matrix, row, roles) for row in section.rows)
    return f"<tbody>\n{head}\n{rows}\n</tbody>"


def _row(matrix: Matrix, row: Row, roles: str) -> str:
    space = matrix.space
    level = level_word(row.level)
    data = {"roles": roles, "level": level}
    data |= {name: " ".join(space.ordered(i, row.box.sides[i])) for i, name in enumerate(space.names)}
    attributes = "".join(f' data-{name}="{escape(words)}"' for name, words in data.items())
    *facts, fields = row.box.sides
    told = [
        field_words(matrix.catalog, fields),
        *(side_words(space, i, side) for i, side in enumerate(facts)),
    ]
    cells = f'<td class="{level}">{level}</td>'
    cells += "".join(
        f'<td class="any">{ANY}</td>' if word == ANY else f"<td>{escape(word)}</td>" for word in told
    )
    rules = "; ".join(", ".join(rule.words) for rule in row.rules)
    cells += f'<td class="rules" title="{escape(rules)}">{escape(places(row.rules))}</td>'
    return f"<tr{attributes}>{cells}</tr>"
