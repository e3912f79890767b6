"""Reads tests/attacks.md and finds the tests that carry an attack's id.

python -m tests.structure.attacks    # fills the pending rows that have a test by now
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "tests" / "attacks.md"

IDS = [
    f"{group}{number}"
    for group, numbers in {
        "J": "1 2 3 4 5 6 7 8 9 11 12 14 15 16 18 19 20 21 23 24 25 26 27 29",
        "T": "1 2 3 4 6 7 8 9 10 11 13",
        "G": "1 2 4 5 6 8 9 10 12 13 14 15 16 17 18 20",
        "B": "1 3 4 5 6 7 8",
        "K": "1 2 3 4 5 8 9 10 12",
        "C": "1 2 3 4 5 6 7 8 9 11 12 14 15 16 18",
        "S": "1 2 3 4 5 6 8 9 10 11 12",
        "A": "1 2 3 4 5 6 7 8 10 11 13 14 15 16 17 18 19 20 21",
        "R": "1 2 3 4 6 7 8 10 12 13",
        "W": "1 2 3 5 7",
        "E": "1 2 4 5 6 7 8",
        "X": "1 2 3 4 5 6 7 8 9 11",
        "O": "1 2 3 4 5 6 8 9 11 13",
    }.items()
    for number in numbers.split()
]
"""Every attack that there is a row for; an id that is not here was never given."""

PENDING = "pending"
NOT_BUILT = "not built, because "
ROW = re.compile(r"^\| ([A-Z]\d+) \| (.+) \| (.+) \|$")
NODE = re.compile(r"`([^`]+)`")
IN_NAME = re.compile(r"(?:^|_)([jtgbkcsarwexo]\d{1,2})(?=_|$)")


def rows(text: str) -> list[tuple[str, str, str]]:
    """Gives id, attack and what tries it, row by row."""
    return [match.groups() for line in text.splitlines() if (match := ROW.match(line))]  # type: ignore[misc]


def marked(decorators: list[ast.expr]) -> Iterator[str]:
    """Gives the ids in `@pytest.mark.attack(...)`."""
    for decorator in decorators:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
            yield from (str(a.value) for a in decorator.args if isinstance(a, ast.Constant))


def named(name: str) -> set[str]:
    """Gives the ids in a test's name: `test_j1_unsigned` tries J1."""
    return {found.upper() for found in IN_NAME.findall(name)} & set(IDS)


def nodes(tree: ast.Module, file: str) -> Iterator[tuple[str, set[str]]]:
    """Gives each test class and test of a module as pytest names it, with its ids."""
    everywhere: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            marks = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            everywhere |= set(marked(marks))

    def walk(body: list[ast.stmt], path: str) -> Iterator[tuple[str, set[str]]]:
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                yield f"{path}::{node.name}", set(marked(node.decorator_list))
                yield from walk(node.body, f"{path}::{node.name}")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield f"{path}::{node.name}", set(marked(node.decorator_list)) | named(node.name)

    yield file, everywhere
    yield from walk(tree.body, file)


@cache
def tests() -> dict[str, set[str]]:
    """Gives every test file, class and test as a pytest node, with the ids that it carries."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        found.update(nodes(ast.parse(path.read_text("utf-8")), str(path.relative_to(ROOT))))
    return found


def fill(text: str) -> str:
    """Gives the table with pending rows filled from the tests that carry their id."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        match = ROW.match(line)
        if match and match[3] == PENDING and (at := [n for n, ids in tests().items() if match[1] in ids]):
            lines[index] = f"| {match[1]} | {match[2]} | {', '.join(f'`{n}`' for n in at)} |"
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(fill(TABLE.read_text("utf-8")), "utf-8")
    left = [row[0] for row in rows(TABLE.read_text("utf-8")) if row[2] == PENDING]
    sys.stdout.write(f"{len(IDS) - len(left)} of {len(IDS)} answered; pending: {' '.join(left) or 'none'}\n")
