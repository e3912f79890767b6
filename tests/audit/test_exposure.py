"""Who was shown to whom: what the report says is what a plain count over the leaves says."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.audit.exposed import Totals, instant
from broker.audit.exposure import Selection, classes_for, exposed, put_question
from broker.audit.record import Auditor
from broker.ledger import EventIds
from broker.policy import PolicyFiles
from tests.policy.sample import POLICIES

ANNA, BEN = "https://idp.test|anna", "https://idp.test|ben"
NOW = datetime.now(UTC).replace(microsecond=0)


async def report(audited, selection, **more):
    """Gives a whole report as it is printed."""
    totals = Totals()
    customers = [one async for batch in exposed(audited.pool, selection, totals, **more) for one in batch]
    classes = await classes_for(audited.pool, totals)
    return [one.as_mapping(classes) for one in customers], totals.as_mapping(classes)


async def activate(audited):
    """Activates the starting policy, whose catalog tells the fields' classes."""
    files = PolicyFiles.from_directory(POLICIES)
    await audited.conn.execute(
        "INSERT INTO broker.policy_version (digest, files, loaded_by, how, tests, tests_digest, signature)"
        " VALUES ($1, $2, 'test', 'first', '{}', $1, 'test')",
        files.digest,
        json.dumps(dict(files.texts)),
    )


async def test_says_whose_which_fields_when_and_why(audited):
    """Fields in clear win over masked; tickets, purposes and provenance of every read are named once."""
    await activate(audited)
    times = [NOW - timedelta(minutes=m) for m in (50, 40, 30)]
    await audited.put(at=times[1], customer="c1", ticket="t1", levels={"customer.email": "masked"})
    await audited.put(
        at=times[0],
        customer="c1",
        ticket="t2",
        levels={"customer.email": "clear", "customer.phone": "masked"},
        facts={"provenance": "self", "purpose": "billing-inquiry"},
    )
    await audited.put(at=times[2], customer="c2", ticket="t3", levels={"customer.email": "masked"})
    await audited.put(at=times[2], customer="c3", agent=BEN)

    customers, totals = await report(audited, Selection(agent=ANNA))

    assert [one["customer"] for one in customers] == ["c1", "c2"]
    one = customers[0]
    assert (one["clear"], one["masked"]) == (["customer.email"], ["customer.phone"])
    assert (instant(times[0]), instant(times[1])) == (one["first"], one["last"])
    assert one["tickets"] == ["t1", "t2"]
    assert one["purposes"] == ["billing-inquiry", "resolve-ticket"]
    assert one["provenances"] == ["routed", "self"]
    assert (totals["customers"], totals["reads"], totals["unreadable"]) == (2, 3, 0)
    assert totals["classes"] == {"contact": {"clear": 1, "masked": 1}}
    assert totals["fields"]["customer.email"] == {"clear": 1, "masked": 1}


@pytest.mark.parametrize("seed", [3, 4])
async def test_is_what_a_plain_count_over_the_leaves_gives(audited, seed, monkeypatch):
    """By agent, tool, customer and grant, with and without a time, in slices: the same customers."""
    monkeypatch.setattr("broker.audit.exposure.AT_ONCE", 7)
    rng = random.Random(seed)
    start = NOW.replace(day=1, hour=0) if NOW.day > 2 else NOW - timedelta(minutes=30)
    await audited.partition(start)
    for _ in range(90):
        await audited.put(
            at=start + (NOW - start) * rng.random(),
            agent=rng.choice([ANNA, BEN]),
            tool=rng.choice(["desk", "phone"]),
            customer=f"c{rng.randrange(12)}",
            levels={rng.choice(["customer.name", "customer.email"]): rng.choice(["clear", "masked"])},
        )
    leaves = [
        json.loads(row["leaf"]) | {"at": row["record_time"]}
        for row in await audited.conn.fetch("SELECT leaf, record_time FROM broker.ledger_event")
    ]
    grant = leaves[5]["grant"]
    half = start + (NOW - start) / 2
    for selection, holds in (
        (Selection(agent=ANNA), lambda e: e["agent"] == ANNA),
        (Selection(tool="desk", since=half), lambda e: e["tool"] == "desk" and e["at"] >= half),
        (
            Selection(agent=BEN, tool="phone", until=half),
            lambda e: (e["agent"], e["tool"]) == (BEN, "phone") and e["at"] < half,
        ),
        (Selection(customer="c3"), lambda e: e["customer"] == "c3"),
        (Selection(grant_id=UUID(grant)), lambda e: e["grant"] == grant),
    ):
        expected = defaultdict(lambda: defaultdict(set))
        count = 0
        for leaf in leaves:
            if holds(leaf):
                count += 1
                for name, level in leaf["detail"]["levels"].items():
                    expected[leaf["customer"]][level].add(name)
        customers, totals = await report(audited, selection)
        assert {
            name: (sorted(seen["clear"]), sorted(seen["masked"] - seen["clear"]))
            for name, seen in expected.items()
        } == {one["customer"]: (one["clear"], one["masked"]) for one in customers}
        assert (len(expected), count) == (totals["customers"], totals["reads"])


async def test_counts_unless_narrowed_and_counts_what_cannot_be_read(audited):
    """An outcome takes its read out; a leaf that does not tell its fields stays in, marked."""
    read = await audited.put(customer="c1")
    row = await audited.conn.fetchrow("SELECT grant_id FROM broker.ledger_event WHERE id = $1", read)
    await audited.put(customer="c2", leaf=b"not json")
    assert (await report(audited, Selection(agent=ANNA)))[1]["customers"] == 2
    await audited.put(
        kind="outcome",
        outcome="done",
        grant=row["grant_id"],
        detail={"read": str(read), "came_to": "aborted"},
    )
    customers, totals = await report(audited, Selection(agent=ANNA))
    assert [(one["customer"], one["unreadable"]) for one in customers] == [("c2", True)]
    assert totals["unreadable"] == 1


async def test_holds_what_was_committed_a_moment_ago(audited):
    """A read that no index step has seen yet is in the report."""
    assert (await report(audited, Selection(agent=ANNA)))[0] == []
    await audited.put(customer="c9")
    assert (await report(audited, Selection(agent=ANNA)))[1]["customers"] == 1


async def test_the_question_is_an_event(audited):
    """It is on record with everything that was asked, before anything is read."""
    selection = Selection(agent=ANNA, since=NOW)
    await put_question(audited.pool, EventIds(), Auditor("os:eve"), selection)
    assert [{"query": "exposure", "agent": ANNA, "since": instant(NOW)}] == await audited.queries()


def test_a_question_about_everything_is_none():
    """Time alone selects nobody."""
    with pytest.raises(ValueError, match="give an agent"):
        Selection(since=NOW)
