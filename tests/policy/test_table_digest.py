"""Casbin's word on a table is taken from elsewhere only where it was said of the very same table."""

import subprocess
import sys
from datetime import date

import pytest

from broker.errors import PolicyInvalidError
from broker.policy import table_digest as naming
from broker.policy.decision import VOUCHED, compile_files
from broker.policy.table import Table
from broker.policy.table_digest import table_digest
from tests.policy.sample import edited, files, small

TODAY = date(2026, 11, 25)


def digest_of(policy):
    """Gives the digest of the table that files compile to."""
    return table_digest(compile_files(policy, today=TODAY)._policy.table)


CHANGES = {
    "a level": edited("policy.csv", "contact, masked, allow", "contact, clear, allow"),
    "a denial less": edited("policy.csv", "p, any, any, any, any, any, self, any, contact, any, deny\n", ""),
    "a role that includes no other": edited("policy.csv", "g, tier2, tier1\n", ""),
    "a line's number": edited("policy.csv", "# who sees what", "# who sees\n# what"),
    "a field's class": edited(
        "catalog.yaml", "{column: name, class: profile", "{column: name, class: contact"
    ),
    "a purpose": edited("catalog.yaml", "review: Look at the work.", "look: Look at the work."),
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
def test_other_decisions_have_another_name(changed):
    """Whatever changes an answer, or the rule that an answer names, changes the digest."""
    assert digest_of(files()) == digest_of(files())  # the control arm

    assert digest_of(changed) != digest_of(files())


@pytest.mark.parametrize("part", ["deny", "allow", "everything", "_any_role"])
def test_every_bit_counts(part):
    """A bit that fell over in the compiled table gives another digest, whatever the files say."""
    policy = small()
    table = Table(policy.book, policy.catalog)
    assert table_digest(table) == table_digest(policy.table)  # the control arm
    setattr(table, part, getattr(table, part) ^ 1)

    assert table_digest(table) != table_digest(policy.table)


@pytest.mark.parametrize("part", ["columns", "roles", "fields"])
def test_every_column_counts(part):
    """The same for the bits of single words."""
    policy = small()
    table = Table(policy.book, policy.catalog)
    held = getattr(table, part)
    columns = held if part == "columns" else [held]
    spoilt = [{word: bits ^ 1 for word, bits in column.items()} for column in columns]
    setattr(table, part, tuple(spoilt) if part == "columns" else spoilt[0])

    assert table_digest(table) != table_digest(policy.table)


def test_it_is_the_same_in_every_process():
    """Hashing is seeded anew in each process; the digest does not follow it."""
    program = (
        "from tests.policy.test_table_digest import digest_of; from tests.policy.sample import files;"
        "print(digest_of(files()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip

    assert said == {digest_of(files())}


def test_a_rule_that_has_ended_makes_another_table():
    """What was compared on the day before is not what decides on the day after."""
    timed = edited("policy.csv", "contact, masked, allow", "contact, masked, allow, until 2026-11-25")
    last, after = (compile_files(timed, today=date(2026, 11, day)) for day in (25, 26))
    vouched = table_digest(last._policy.table)

    assert last.judged("1", vouched=vouched).verification == VOUCHED
    assert "equals Casbin" in after.judged("1", vouched=vouched).verification


def test_another_release_asks_casbin_itself(monkeypatch):
    """Under another Casbin, Python or reader of the bitsets nobody's word is taken."""
    compiled = compile_files(files())
    vouched = table_digest(compiled._policy.table)
    assert compiled.judged("1", vouched=vouched).verification == VOUCHED  # the control arm
    monkeypatch.setattr(naming, "BY", (*naming.BY[:1], "9.9.9", *naming.BY[2:]))

    assert "equals Casbin" in compiled.judged("1", vouched=vouched).verification


@pytest.mark.parametrize("vouched", ["", "0" * 64, "nonsense"])
def test_a_table_that_nobody_vouches_for_is_compared_and_refused(monkeypatch, vouched):
    """A denial lost while compiling: without a word on this very table Casbin is asked, and differs."""
    compiled = compile_files(files())
    assert "equals Casbin" in compiled.judged("1", vouched=vouched).verification  # the control arm
    compiled._policy.table.deny = 0

    with pytest.raises(PolicyInvalidError, match="table-differs"):
        compiled.judged("1", vouched=vouched)


def test_a_word_on_the_right_table_does_not_help_a_wrong_one():
    """The digest of what should have come out vouches for nothing else."""
    vouched = digest_of(files())
    compiled = compile_files(files())
    compiled._policy.table.deny = 0

    with pytest.raises(PolicyInvalidError, match="table-differs"):
        compiled.judged("1", vouched=vouched)
