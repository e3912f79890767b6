"""One commit for many, each with its own fate."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import asyncpg
import pytest

from broker.errors import LedgerUnavailableError, RequestIdReusedError
from broker.ledger import writer
from tests.ledger.conftest import denial, eventually

PLANT = """
CREATE FUNCTION broker.plant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = {id} THEN RAISE EXCEPTION 'planted' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER plant BEFORE INSERT ON broker.ledger_event FOR EACH ROW EXECUTE FUNCTION broker.plant();
"""


async def plant(ground, event_id: uuid.UUID, code: str = "P0001") -> None:
    """Fails the insert of exactly one event."""
    await ground.conn.execute(PLANT.format(id=f"'{event_id}'::uuid", code=code))


class TestGroups:
    async def test_wait_for_their_commit(self, own_ground):
        """What comes while a commit is under way shares the next one, and nobody hears before it."""
        sizes = []
        ledger = await own_ground.ledger(on_group=sizes.append)
        lock = await asyncpg.connect(own_ground.database.dsn())
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("LOCK TABLE broker.ledger_event IN SHARE MODE")  # inserts wait
        first = asyncio.create_task(ledger.append(denial()))
        await eventually(lambda: own_ground.conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        others = [asyncio.create_task(ledger.append(denial())) for _ in range(9)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
        await transaction.rollback()
        await lock.close()
        verdicts = await asyncio.gather(first, *others)

        assert sizes == [1, 9]
        assert {v.receipt.tree_size for v in verdicts} == {1, 9}

    @pytest.mark.attack("R10")
    async def test_r10_cancelled_waiters_fail_nobody(self, own_ground):
        """Waiters that go away during the write leave their events behind and their neighbours alone."""
        ledger = await own_ground.ledger()
        lock = await asyncpg.connect(own_ground.database.dsn())
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("LOCK TABLE broker.ledger_event IN SHARE MODE")
        events = [denial() for _ in range(8)]
        tasks = [asyncio.create_task(ledger.append(events[0]))]
        await eventually(lambda: own_ground.conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        tasks += [asyncio.create_task(ledger.append(event)) for event in events[1:]]
        await asyncio.sleep(0)
        gone, staying = tasks[::2], tasks[1::2]
        for task in gone:
            task.cancel()
        await transaction.rollback()
        await lock.close()
        verdicts = await asyncio.gather(*staying)
        await ledger.drain()

        assert all(task.cancelled() for task in gone)
        assert all(verdict.reason == "" for verdict in verdicts)  # control: who stayed has an answer
        stored = await own_ground.conn.fetchval(
            "SELECT count(*) FROM broker.ledger_event WHERE id = ANY ($1)", [e.id for e in events]
        )
        assert stored == len(events)


@pytest.mark.attack("R6")
async def test_r6_two_replicas_append_at_once(ground):
    """What two replicas append side by side is all there, each once, under ids that nobody shares."""
    ledgers = [await ground.ledger() for _ in range(2)]
    events = [denial() for _ in range(200)]
    verdicts = await asyncio.gather(*(ledgers[i % 2].append(event) for i, event in enumerate(events)))
    rows = await ground.conn.fetch(
        "SELECT id, leaf FROM broker.ledger_event WHERE id = ANY ($1)", [event.id for event in events]
    )

    assert {row["id"]: row["leaf"] for row in rows} == {
        event.id: verdict.receipt.leaf for event, verdict in zip(events, verdicts, strict=True)
    }
    assert len(rows) == len(events)


class TestBadRows:
    @pytest.mark.attack("A15", "A16", "O9")
    @pytest.mark.parametrize("code", ["P0001", "23514", "53100"], ids=["any", "check", "disk full"])
    async def test_a15_one_refused_insert_fails_itself_alone(self, own_ground, code):
        """A trigger that fails one insert of a group: that one is UNAVAILABLE, its neighbours are durable."""
        case = await own_ground.case()
        ledger = await own_ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        items = [case.read(grant) for _ in range(5)] + [denial(), case.grant()]
        await plant(own_ground, items[2].id, code)
        waits = [asyncio.create_task(ledger.append(item)) for item in items]
        results = await asyncio.gather(*waits, return_exceptions=True)

        if code == "53100":  # the disk is full: who knows for whom; the whole group is refused, none is lost
            assert all(isinstance(result, LedgerUnavailableError) for result in results)
            return
        assert [isinstance(r, LedgerUnavailableError) for r in results] == [i == 2 for i in range(len(items))]
        for index, item in enumerate(items):
            assert (await own_ground.event(item.id) is None) == (index == 2)

    async def test_an_unstorable_text_fails_itself_alone(self, ground):
        """A NUL that no check caught never fails the neighbours of the group."""
        failures = []
        ledger = await ground.ledger(on_failure=failures.append)
        events = [denial(), denial(agent="a\0b"), denial(tool="\ud800"), denial()]
        results = await asyncio.gather(*(ledger.append(e) for e in events), return_exceptions=True)

        assert [isinstance(r, LedgerUnavailableError) for r in results] == [False, True, True, False]
        assert len(failures) == 2  # what could not be put on record, not how often it was tried

    async def test_a_full_backlog_is_a_failure(self, ground, monkeypatch):
        """Whoever is refused because too many wait is counted, too."""
        failures = []
        monkeypatch.setattr(writer, "BACKLOG", 2)
        ledger = await ground.ledger(on_failure=failures.append)
        waits = [ledger.append(denial()) for _ in range(5)]
        results = await asyncio.gather(*waits, return_exceptions=True)

        assert sum(isinstance(r, LedgerUnavailableError) for r in results) == len(failures) == 3

    async def test_refused_neighbours_share_nothing(self, own_ground):
        """Each refused caller has an error of its own, so that decision ids do not mix."""
        await own_ground.conn.execute("ALTER TABLE broker.ledger_event RENAME TO gone")
        ledger = await own_ground.ledger()
        results = await asyncio.gather(*(ledger.append(denial()) for _ in range(3)), return_exceptions=True)

        assert len({id(result) for result in results}) == 3

    async def test_an_unknown_kind_or_outcome_is_no_door(self, ground):
        """Access workers can append nothing that only an administrator or an append with ground may say."""
        ledger = await ground.ledger()
        for changes in (
            {"kind": "policy"},
            {"kind": "read"},
            {"outcome": "released"},
            {"reason": 'X","y":"'},
        ):
            event = denial()
            event = replace(event, **{k: _Kind(v) if k == "kind" else v for k, v in changes.items()})
            with pytest.raises(LedgerUnavailableError):
                await ledger.append(event)
            assert await ground.event(event.id) is None
        await ledger.append(denial())  # control


class _Kind(str):
    """A kind as an Event holds it, without the enum's check."""

    __slots__ = ()

    @property
    def value(self) -> str:
        return str(self)


class TestIdempotence:
    async def test_an_id_is_stored_once(self, ground):
        """The same event appended twice answers twice and stands once; beside it a neighbour is fine."""
        case = await ground.case()
        ledger = await ground.ledger()
        grant = case.grant()
        await ledger.append(grant)
        read = case.read(grant)
        first = await ledger.append(read)
        again, neighbour = await asyncio.gather(ledger.append(read), ledger.append(case.read(grant)))

        assert first.receipt.leaf == again.receipt.leaf
        assert (again.reason, neighbour.reason) == ("", "")
        assert (
            await ground.conn.fetchval("SELECT count(*) FROM broker.ledger_event WHERE id = $1", read.id) == 1
        )

    async def test_an_id_of_another_event_proves_nothing(self, ground):
        """An event under an id that is taken by another one is refused, not told the other's verdict."""
        case, other = await ground.case(), await ground.case()
        ledger = await ground.ledger()
        grant, others = case.grant(), other.grant()
        await ledger.append(grant)
        await ledger.append(others)
        read = case.read(grant)
        await ledger.append(read)
        forged = replace(other.read(others), id=read.id)
        with pytest.raises(LedgerUnavailableError):
            await ledger.append(forged)

    async def test_a_repeated_request_gives_the_grant_that_stands(self, ground):
        """One request id gives one grant, also when repeats come at once and on two replicas."""
        case = await ground.case()
        one, two = await ground.ledger(), await ground.ledger()
        first = case.grant()
        repeats = [replace(case.grant(), request_id=first.request_id) for _ in range(6)]
        asked = [first, *repeats]
        verdicts = await asyncio.gather(*((one, two)[i % 2].append(item) for i, item in enumerate(asked)))

        assert {v.reason for v in verdicts} == {""}
        assert len({v.row["grant_id"] for v in verdicts}) == 1
        assert len({v.row["pass"] for v in verdicts}) == 1
        other = await one.append(replace(case.grant(), request_id=first.request_id, request_hash=b"x" * 32))
        assert other.reason == RequestIdReusedError.reason  # control: another question
