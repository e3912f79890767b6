"""tests/attacks.md answers for every attack: a test that exists, or why there is none."""

import ast

from tests.structure import attacks

PENDING_ALLOWED = False
"""Until the last test is written; then False, so that no row can stay unanswered."""


def answers():
    return attacks.rows(attacks.TABLE.read_text("utf-8"))


def test_every_id_once():
    """Each id has one row, in order; no row has an id that was never given."""
    assert [row[0] for row in answers()] == attacks.IDS


def test_no_row_is_misshapen():
    """Every line of a table is a header or a row as the check reads it."""
    lines = [line for line in attacks.TABLE.read_text("utf-8").splitlines() if line.startswith("|")]
    strange = [
        line
        for line in lines
        if not attacks.ROW.match(line) and line not in {"| id | attack | tried by |", "|---|---|---|"}
    ]

    assert strange == []


def test_answers_are_well_formed():
    """An answer is a list of tests in backticks, or a reason, or pending while that is allowed."""
    wrong = []
    for attack, _, answer in answers():
        is_tests = ", ".join(f"`{n}`" for n in attacks.NODE.findall(answer)) == answer
        is_reason = answer.startswith(attacks.NOT_BUILT) and len(answer) > len(attacks.NOT_BUILT) + 10
        if not (is_tests or is_reason or (answer == attacks.PENDING and PENDING_ALLOWED)):
            wrong.append(f"{attack}: {answer}")

    assert wrong == []


def test_named_tests_exist():
    """Each test that a row names exists."""
    missing = [
        f"{attack}: {node}"
        for attack, _, answer in answers()
        if not answer.startswith(attacks.NOT_BUILT)
        for node in attacks.NODE.findall(answer)
        if node not in attacks.tests()
    ]

    assert missing == []


def test_carried_ids_are_known():
    """A marker with an id that no row has is a slip of the pen."""
    unknown = {
        node: ids - set(attacks.IDS) for node, ids in attacks.tests().items() if ids - set(attacks.IDS)
    }

    assert unknown == {}


def test_finds_tests_by_marker_and_name():
    """The reader sees markers on classes, functions and modules, and ids in names."""
    tree = ast.parse(
        "import pytest\n"
        'pytestmark = [pytest.mark.attack("S1")]\n'
        '@pytest.mark.attack("J1", "J2")\n'
        "class TestIt:\n"
        "    async def test_g4_held_slot(self): ...\n"
        '@pytest.mark.attack("K1")\n'
        "def test_plain(): ...\n"
        "def helper_j3(): ...\n"
    )

    assert dict(attacks.nodes(tree, "t.py")) == {
        "t.py": {"S1"},
        "t.py::TestIt": {"J1", "J2"},
        "t.py::TestIt::test_g4_held_slot": {"G4"},
        "t.py::test_plain": {"K1"},
    }
