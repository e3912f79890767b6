"""Unique markers in every field of several customers, a full run, and a search of all that it left behind."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.dev.world import World
from tests.leaks import complaints, marked, story
from tests.leaks.search import Marker, encodings, opened, parts, search, written
from tests.promises.company import connected

SENTENCES = {
    "server log": "No line of the broker's or of PostgreSQL's log names a customer.",
    "broker database": "No row of the broker's own database holds a customer's data, or a complaint's.",
    "guard": "Nothing that the guard keeps beside salts holds a customer's data, or a complaint's.",
    "spans": "No span, attribute or link names a customer.",
    "ledger": "No leaf of the ledger and no column beside it names a customer.",
    "metrics": "No metric and no label names a customer.",
    "errors": "No error, whatever caused it, tells its caller of a customer.",
    "tokens": "No grant and no receipt, decoded, names a customer.",
    "commands": "No command but the read itself prints a customer's data.",
}

BY_PSEUDONYM = ("server log", "spans", "ledger", "metrics")
"""Where not even customers' numbers and tickets' ids are."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told() -> AsyncIterator[story.Story]:
    """Plays the day, once."""
    # Every denial is written down one by one: what is only counted could hide a leak.
    settings = {"denial_events_per_minute": 100_000}
    async with World.start(customers=20, fsync=False, settings=settings) as world:
        tale = await story.begin(world)
        for step in (
            story.go_well,
            story.be_refused,
            story.feed_goes_wrong,
            story.administer,
            story.break_down,
            complaints.attribute,
            story.command_line,
        ):
            await step(tale)
        yield tale


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(told: story.Story) -> dict[str, bytes]:
    """Gathers everything that was kept or said."""
    return await story.stores(told)


def wanted(store: str, tale: story.Story) -> list[Marker]:
    """Gives what must not be in a store."""
    by_number = marked.number_markers(tale.tickets) if store in BY_PSEUDONYM else []
    return marked.markers() + complaints.claims() + by_number


@pytest.mark.asyncio(loop_scope="module")
async def test_run_was_full(told, kept):
    """Fields were disclosed clear and masked, and calls were refused in every way that is searched."""
    seen = "\n".join(told.disclosed)
    shown = [f for f, text in marked.COLUMNS.items() if text.format(n=3) in seen or text.format(n=4) in seen]
    assert {"name", "email", "phone", "street", "notes", "city", "device_model"} <= set(shown)
    assert "•••" in seen
    reasons = "INTERNAL LEDGER_UNAVAILABLE RECORDS_UNAVAILABLE TICKET_DENIED POLICY_DENIED TOKEN_INVALID"
    reasons += " AGENT_SUSPENDED REQUEST_MALFORMED FIELD_UNKNOWN TICKET_CLOSED FIELD_NOT_GRANTED"
    assert set(reasons.split()) <= told.reasons
    for store in SENTENCES:
        assert len(kept[store]) > 500, store
    assert kept["commands"].count(b'"matched": 4') == 2  # complaints named every marked customer
    assert kept["commands"].count(b"kind,identifier,contact_time,fields") >= 4  # files that are none
    assert kept["commands"].count(b"too many identifiers") == 1
    assert b"ValueError" in kept["server log"]  # the forced exception is in it, without its text


@pytest.mark.parametrize("store", SENTENCES, ids=[name.replace(" ", "-") for name in SENTENCES])
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.attack("A19", "E7")
async def test_nothing_leaks(told, kept, store):
    """No marker comes out of a store in any form; the message says which store promises what."""
    assert search(kept[store], wanted(store, told)) == [], SENTENCES[store]


@pytest.mark.asyncio(loop_scope="module")
async def test_planted_leaks_are_found(told, kept):
    """The same search of the same stores finds a marker that is planted in each, each in another form."""
    world = told.world
    name, email, phone = (marked.markers()[i] for i in (0, 2, 3))
    planted = {
        "server log": base64.urlsafe_b64encode(b'{"customer":"' + name.value.encode() + b'"}'),
        "broker database": name.value.encode().hex(),
        "guard": name.value.upper(),
        "spans": email.value.replace("@", "%40"),
        "ledger": phone.value[-6:],
        "metrics": email.value.partition("@")[0],
        "errors": email.value[::-1],
        "tokens": "x." + base64.urlsafe_b64encode(json.dumps({"n": name.value}).encode()).decode() + ".y",
        "commands": "".join(c for c in phone.value if c.isdigit()),
    }
    async with connected(world.dsn()) as dba:
        transaction = dba.transaction()
        await transaction.start()
        await dba.execute(
            "INSERT INTO broker.agent_suspension (agent, reason, suspended_by) VALUES ('i|x', $1, 'tests')",
            planted["broker database"],
        )
        await dba.execute(
            "INSERT INTO broker.span_row SELECT trace_id, '\\x0102030405060708', parent_span_id, name, kind,"
            " start_ns, end_ns, status, grant_id, jsonb_build_object('url', $1::text), links"
            " FROM broker.span_row LIMIT 1",
            planted["spans"],
        )
        await dba.execute(
            "INSERT INTO broker.ledger_event SELECT overlay(id::text placing '000000000000' from 25)::uuid,"
            " kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,"
            " outcome, reason, policy_version, $1::bytea FROM broker.ledger_event LIMIT 1",
            b'{"phone": "' + planted["ledger"].encode() + b'"}',
        )
        rows = {
            "broker database": written(await dba.fetch("SELECT * FROM broker.agent_suspension")),
            "spans": written(await dba.fetch("SELECT * FROM broker.span")),
            "ledger": written(await dba.fetch("SELECT * FROM broker.ledger_event")),
        }
        await transaction.rollback()
    spoilt = {
        **kept,
        **rows,
        "server log": kept["server log"] + planted["server log"],
        "guard": kept["guard"] + planted["guard"].encode(),
        "metrics": kept["metrics"] + f'broker_requests{{agent="{planted["metrics"]}"}} 1\n'.encode(),
        "errors": kept["errors"] + planted["errors"].encode(),
        "tokens": kept["tokens"] + opened(planted["tokens"].encode()),
        "commands": kept["commands"] + planted["commands"].encode(),
    }
    for store, content in spoilt.items():
        assert not search(kept[store], [name, email, phone]), store
        assert search(content, [name, email, phone]), store


def test_search_knows_every_form():
    """Each part of each marker, in each encoding, is found in the middle of something else."""
    for marker in marked.markers()[:16]:
        for _, text in parts(marker.value):
            if len(text) < 6:
                continue
            for form, needle in encodings(text):
                if form.startswith("base64"):
                    continue
                hidden = b"before <" + needle + b"> after"
                assert search(hidden, [marker]), (marker.name, form)
            for shift in range(3):
                hidden = b"{" + base64.b64encode(b"x" * shift + text.encode() + b"y") + b"}"
                assert search(hidden, [marker]), (marker.name, f"base64 at {shift}")
    assert not search(b"before <nobody> 012345 after", marked.markers())  # control
