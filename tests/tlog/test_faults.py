"""A database that came back without its last events stops appends until the loss is accepted."""

from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime

import asyncpg
import pytest

from broker.audit.log import accept_loss, find_loss, find_prunable, prune
from broker.database import open_pool
from broker.errors import LedgerUnavailableError
from broker.ledger import EventIds, Ledger, head, rest_of
from broker.model import id_floor
from broker.tlog import Gone, LogInvalidError, Statement, TreeTable
from broker.tlog.continuity import PUBLISHED
from broker.tlog.verify import Kind
from tests.ledger.conftest import denial, sign
from tests.tlog.conftest import COUNT, cut, event, verified


@pytest.fixture
async def admin(log):
    """Gives a pool as broker_admin."""
    pool = await open_pool(log.database.dsn("broker_admin"), name="test", max_size=2)
    yield pool
    pool.terminate()


@pytest.fixture
async def access(log):
    """Gives the ledger of an access worker."""
    pool = await open_pool(log.database.dsn("broker_access"), name="test", max_size=2)
    yield Ledger(pool, sign)
    pool.terminate()


async def accepted(log, pool, reason="disk failure"):
    """Accepts the loss; gives what was found."""
    found = await find_loss(pool, log.storage, log.keys)
    await accept_loss(pool, found, log.keys, EventIds(), who="os:test", reason=reason)
    return found


@pytest.mark.attack("O6")
@pytest.mark.attack("A4")
class TestRestored:
    async def test_o6_appends_stop_until_the_loss_is_accepted(self, full, admin, access):
        """A standby without the last events: verify says so, nothing is appended, then all goes on."""
        await access.append(denial())
        await full.integrate(5)
        before = await full.published()
        await cut(full, COUNT)
        sequencer = full.sequencer()
        await sequencer.round(TreeTable(full.admin))

        assert sequencer.state.stopped
        assert "was it restored" in sequencer.state.problem
        with pytest.raises(LedgerUnavailableError):
            await access.append(denial())
        with pytest.raises(LedgerUnavailableError):
            await full.append(1)
        assert "behind its published checkpoint" in await access.ready()
        assert (await verified(full)).findings[0].kind is Kind.BEHIND

        found = await accepted(full, admin)
        assert (found.head.size, found.lost) == (COUNT, before.size - COUNT)
        await access.append(denial())
        await sequencer.round(TreeTable(full.admin))
        result = await verified(full, kept=[before])

        assert await access.ready() == ""
        assert (sequencer.state.problem, sequencer.state.stopped) == ("", False)
        assert (result.holds, result.lost, result.size) == (True, found.lost, before.size + 2)

    async def test_o6_what_is_still_there_is_not_lost(self, full, admin):
        """Published events whose row survived are leaves with their events again."""
        late = await full.append(2)
        await full.integrate(3)
        rows = await full.superuser.fetch("SELECT * FROM broker.ledger_event WHERE id = ANY ($1)", late)
        await cut(full, COUNT)
        for row in rows:
            places = ", ".join(f"${n + 1}" for n in range(len(row)))
            await full.sql(f"INSERT INTO broker.ledger_event VALUES ({places})", *row.values())
        found = await accepted(full, admin)
        await full.integrate(1)

        assert (len(found.leaves), found.lost) == (5, 3)
        assert (await full.leaves())[COUNT : COUNT + 2] == late
        result = await verified(full)
        assert (result.holds, result.lost) == (True, 3)

    async def test_a_loss_that_nobody_accepted_is_a_finding(self, full, admin):
        """Only the log's key can say that missing events are lost: a forged statement does not count."""
        await full.integrate(3)
        await cut(full, COUNT)
        await accepted(full, admin)
        await full.integrate(1)
        assert (await verified(full)).holds
        await full.sql("UPDATE broker.tlog_statement SET note = replace(note, '\n12 15\n', '\n12 16\n')")
        kinds = [finding.kind for finding in (await verified(full)).findings]

        assert kinds == [Kind.MISSING] * 3 + [Kind.SIGNATURE]

    @pytest.mark.attack("A2")
    async def test_a2_a_loss_covers_no_other_leaf(self, full, admin):
        """Ids that are taken out of the tree, also between the lost ones, are deleted events."""
        late = await full.append(3)
        await full.integrate(2)
        rows = await full.superuser.fetch("SELECT * FROM broker.ledger_event WHERE id = $1", late[1])
        await cut(full, COUNT)
        places = ", ".join(f"${n + 1}" for n in range(len(rows[0])))
        await full.sql(f"INSERT INTO broker.ledger_event VALUES ({places})", *rows[0].values())
        await accepted(full, admin)
        await full.integrate(1)
        result = await verified(full)
        assert (result.holds, result.lost) == (True, 4)
        await full.sql("UPDATE broker.ledger_tree SET event_id = NULL WHERE seq IN (5, $1)", COUNT + 1)
        await full.sql("DELETE FROM broker.ledger_event WHERE id IN ($1, $2)", full.events[5], late[1])
        result = await verified(full)

        assert [(each.kind, each.seq) for each in result.findings] == [
            (Kind.MISSING, 5),
            (Kind.MISSING, COUNT + 1),
        ]

    @pytest.mark.attack("A13")
    @pytest.mark.parametrize("stolen", [True, False])
    async def test_a13_a_stolen_old_key_signs_no_loss(self, full, stolen):
        """A key that was handed over signs none, not even of its own leaves; the reigning one is believed."""
        thief = full.keys.active_signer()
        full.keys.rotate()
        await full.integrate(3)
        loss = Statement(Gone.LOST, full.keys.origin, ((0, 5),))
        (told,) = await full.append(1, detail={"call": "audit accept-loss", "statement": loss.digest})
        note = loss.signed(thief if stolen else full.keys.active_signer())
        await full.admin.execute("SELECT broker.tlog_state($1, $2)", told, note)
        await full.sql("UPDATE broker.ledger_tree SET event_id = NULL WHERE seq < 5")
        await full.sql("DELETE FROM broker.ledger_event WHERE id = ANY ($1)", full.events[:5])
        waiting = await verified(full)
        await full.integrate(1)
        result = await verified(full)

        assert (result.holds, result.lost) == ((False, 0) if stolen else (True, 5)), result.findings
        assert (waiting.holds, waiting.lost) == (result.holds, result.lost)

    @pytest.mark.attack("A13")
    async def test_a13_a_statement_is_that_of_its_own_event(self, full):
        """With another event, or with one that tells of another statement, it is not believed."""
        loss = Statement(Gone.LOST, full.keys.origin, ((0, 1),))
        (told,) = await full.append(1, detail={"statement": loss.digest})
        (other,) = await full.append(1, detail={"statement": loss.digest[::-1]})
        await full.admin.execute(
            "SELECT broker.tlog_state($1, $2)", told, loss.signed(full.keys.active_signer())
        )
        await full.integrate(1)
        assert (await verified(full)).holds
        for change in (
            "UPDATE broker.tlog_statement SET event_id = $1",
            "UPDATE broker.tlog_statement SET leaf = (SELECT leaf FROM broker.ledger_event WHERE id = $1)",
            "UPDATE broker.tlog_statement SET leaf = NULL WHERE event_id = $1",
        ):
            await full.sql(change, other)
            assert [each.kind for each in (await verified(full)).findings] == [Kind.SIGNATURE], change

    async def test_a_waiting_key_takes_over_before_it_signs_a_loss(self, full, admin):
        """While appends are stopped the sequencer signs nothing: the acceptance hands over by itself."""
        await full.integrate(3)
        await cut(full, COUNT)
        await full.sequencer().round(TreeTable(full.admin))
        new = full.keys.rotate()
        await accepted(full, admin)
        await full.integrate(1)

        assert full.keys.load().active == new
        assert (await verified(full)).holds

    async def test_another_past_is_never_accepted(self, full, admin):
        """A database whose tree was changed is refused; the control is the one that only lacks its end."""
        await full.integrate(3)
        await cut(full, COUNT)
        await full.sql("UPDATE broker.ledger_tree SET leaf_hash = sha256('x') WHERE seq = 5")
        await cut(full, COUNT)  # signed with the log's own key
        with pytest.raises(LogInvalidError, match="another past"):
            await find_loss(admin, full.storage, full.keys)
        await full.sql("UPDATE broker.ledger_tree SET leaf_hash = (SELECT sha256('\\x00' || leaf) "
                       "FROM broker.ledger_event WHERE id = event_id) WHERE seq = 5")  # fmt: skip
        await full.sql("UPDATE broker.tlog_head SET root = sha256('x')")
        with pytest.raises(LogInvalidError, match="not what its signature covers"):
            await find_loss(admin, full.storage, full.keys)
        await cut(full, COUNT)

        assert (await find_loss(admin, full.storage, full.keys)).lost == 3

    @pytest.mark.attack("A8")
    @pytest.mark.parametrize("size", [COUNT, COUNT + 2])
    async def test_a8_another_past_of_the_same_length_is_never_accepted(self, full, admin, size):
        """Appends that stopped because of a fork go on for nobody, also where the fork is the longer one."""
        await full.sql("UPDATE broker.ledger_tree SET leaf_hash = sha256('x') WHERE seq = 5")
        await full.sql("INSERT INTO broker.ledger_tree SELECT 12 + n, NULL, sha256('y') "
                       "FROM generate_series(0, $1 - 13) AS n", size)  # fmt: skip
        await cut(full, size)  # signed with the log's own key
        await full.sequencer().round(TreeTable(full.admin))
        assert (await TreeTable(full.admin).head()).stopped
        with pytest.raises(LogInvalidError, match="root"):
            await find_loss(admin, full.storage, full.keys)

    @pytest.mark.attack("A8")
    async def test_a8_nothing_is_accepted_without_what_was_published(self, full, admin):
        """Without storage and memory a loss cannot be told from a fork."""
        await full.integrate(3)
        await cut(full, COUNT)
        shutil.move(full.folder / "log", full.folder / "away")
        with pytest.raises(LogInvalidError, match="bring BROKER_TLOG_DIR back"):
            await find_loss(admin, full.storage, full.keys)
        (full.folder / "keys" / PUBLISHED).unlink()
        with pytest.raises(LogInvalidError, match="Nothing is published"):
            await find_loss(admin, full.storage, full.keys)
        shutil.move(full.folder / "away", full.folder / "log")

        assert (await find_loss(admin, full.storage, full.keys)).lost == 3

    async def test_another_root_stops_appends_too(self, full):
        """At the same size another root is a fork of our own: nobody may add to it."""
        await full.sql("UPDATE broker.tlog_head SET root = sha256('x')")
        sequencer = full.sequencer()
        await sequencer.round(TreeTable(full.admin))

        assert sequencer.state.stopped
        with pytest.raises(LedgerUnavailableError):
            await full.append(1)

    async def test_nothing_is_lost_by_a_lost_connection(self, full, admin):
        """The control: a head that is where it was stops nothing."""
        sequencer = full.sequencer()
        await sequencer.round(TreeTable(full.admin))

        assert not sequencer.state.stopped
        assert (await find_loss(admin, full.storage, full.keys)).leaves == []

    async def test_a_rolled_back_head_is_seen_by_the_running_one(self, full):
        """A database that goes back under a running sequencer is noticed at its next round."""
        sequencer = full.sequencer()
        await sequencer.round(TreeTable(full.admin))
        await full.append(3)
        await sequencer.round(TreeTable(full.admin))
        await cut(full, COUNT)
        await sequencer.round(TreeTable(full.admin))

        assert sequencer.state.stopped


class TestPrune:
    @pytest.fixture
    async def old(self, log):
        """Gives a log whose first four events lie in a month of two years ago; others follow."""
        for month in ("202401", "202402"):
            low, high = [
                await log.superuser.fetchval(
                    "SELECT broker.uuid7_floor(to_date($1, 'YYYYMM') + make_interval(months => $2))", month, n
                )
                for n in (0, 1)
            ]
            await log.superuser.execute(
                f"CREATE TABLE broker.ledger_event_{month} (LIKE broker.ledger_event INCLUDING CONSTRAINTS);"
                f"ALTER TABLE broker.ledger_event_{month} OWNER TO broker_owner;"
                f"ALTER TABLE broker.ledger_event ATTACH PARTITION broker.ledger_event_{month} "
                f"FOR VALUES FROM ('{low}') TO ('{high}')"
            )
        await backdated(log, 4)
        await log.integrate(COUNT)
        assert (await verified(log)).holds
        return log

    async def owner(self, log):
        return await open_pool(log.database.dsn("broker_owner"), name="test", max_size=1)

    async def pruned(self, log):
        """Prunes the two months; gives what was found."""
        pool = await self.owner(log)
        found = await find_prunable(pool, log.storage, log.keys, datetime(2024, 3, 1, tzinfo=UTC))
        try:
            await prune(pool, found, log.keys, EventIds(), who="os:test")
        finally:
            pool.terminate()
        await log.integrate(1)
        return found

    async def test_pruned_events_are_no_finding(self, old):
        """Months that ended go, their leaves stay, verify goes on to hold and tells how many went."""
        before = await old.published()
        found = await self.pruned(old)
        assert (found.names, found.leaves) == (("ledger_event_202401", "ledger_event_202402"), ((0, 4),))
        result = await verified(old, kept=[before])

        assert (result.holds, result.pruned) == (True, 4), result.findings
        assert not await old.superuser.fetchval("SELECT to_regclass('broker.ledger_event_202401')")

    @pytest.mark.attack("A2")
    async def test_a2_a_prune_covers_no_other_leaf(self, old):
        """Whatever the tree says a deleted event's id was: only pruned leaves may be without."""
        await self.pruned(old)
        june = (await old.leaves())[8]
        await old.sql("DELETE FROM broker.ledger_event WHERE id = $1", june)
        await old.sql("UPDATE broker.ledger_tree SET event_id = $1 WHERE seq = 8", id_floor(1_705_000_000))
        result = await verified(old)

        assert [(each.kind, each.seq) for each in result.findings] == [(Kind.MISSING, 8)]
        assert result.pruned == 4

    @pytest.mark.attack("A2")
    @pytest.mark.parametrize("how", ["moved", "changed", "as it was"])
    async def test_a2_only_what_was_published_is_pruned(self, old, how):
        """An event that was moved below the month's end first, or changed, keeps everything from going."""
        pool = await self.owner(old)
        event_id, fake = (await old.leaves())[8], id_floor(1_705_000_000)
        if how == "moved":
            await old.sql("UPDATE broker.ledger_event SET id = $1 WHERE id = $2", fake, event_id)
            await old.sql("UPDATE broker.ledger_tree SET event_id = $1 WHERE seq = 8", fake)
        elif how == "changed":
            await old.sql(
                "UPDATE broker.ledger_event SET leaf = leaf || '\\x20' WHERE id = $1", (await old.leaves())[0]
            )
        expected = pytest.raises(LogInvalidError, match="not the one that was published")
        with contextlib.nullcontext() if how == "as it was" else expected:
            found = await find_prunable(pool, old.storage, old.keys, datetime(2024, 3, 1, tzinfo=UTC))
            assert found.leaves == ((0, 4),)
        pool.terminate()

    async def test_a_key_that_waits_takes_over_first(self, old):
        """A prune is signed by the key that reigns when its event becomes a leaf."""
        old.keys.rotate()
        with pytest.raises(LogInvalidError, match="about to take over"):
            await self.pruned(old)
        await old.integrate(1)
        await self.pruned(old)
        await old.integrate(1)

        assert (await verified(old)).pruned == 4

    async def test_a_statement_outlives_its_own_event(self, old):
        """The event that told of a prune is pruned itself one day; the statement goes on to count."""
        await self.pruned(old)
        told = await old.superuser.fetchval("SELECT event_id FROM broker.tlog_statement")
        seq = (await old.leaves()).index(told)
        second = Statement(Gone.PRUNED, old.keys.origin, ((seq, seq + 1),))
        (event_id,) = await old.append(1, detail={"statement": second.digest})
        await old.admin.execute(
            "SELECT broker.tlog_state($1, $2)", event_id, second.signed(old.keys.active_signer())
        )
        await old.integrate(1)
        await old.sql("DELETE FROM broker.ledger_event WHERE id = $1", told)
        result = await verified(old)

        assert (result.holds, result.pruned) == (True, 5), result.findings

    async def test_the_same_without_the_statement_is_a_finding(self, old):
        """A partition that the superuser drops by himself is deleted events, the first one named."""
        await old.superuser.execute("DROP TABLE broker.ledger_event_202401")
        finding = (await verified(old)).findings[0]

        assert (finding.kind, finding.event_id) == (Kind.MISSING, (await old.leaves())[0])

    async def test_what_is_no_leaf_stays(self, old):
        """Events that are not in the published log are never dropped."""
        pool = await self.owner(old)
        before = datetime(2024, 3, 1, tzinfo=UTC)
        assert await find_prunable(pool, old.storage, old.keys, before)
        shutil.rmtree(old.folder / "log")
        with pytest.raises(LogInvalidError, match="not published"):
            await find_prunable(pool, old.storage, old.keys, before)
        await old.sql("DELETE FROM broker.ledger_tree WHERE seq = 0")
        with pytest.raises(LogInvalidError, match="no leaves"):
            await find_prunable(pool, old.storage, old.keys, before)
        assert await find_prunable(pool, old.storage, old.keys, datetime(2023, 1, 1, tzinfo=UTC)) is None
        pool.terminate()


async def backdated(log, count: int) -> None:
    """Puts events of January 2024 into the ledger and the published log, as they would be by now."""
    ids = EventIds(clock=lambda: datetime(2024, 1, 15, tzinfo=UTC).timestamp())
    made = [event(id=ids.new()) for _ in range(count)]
    for each in made:
        rest = rest_of(each.kind, agent=each.agent, tool=each.tool, detail=each.detail)
        leaf = head(each.id, each.trace_id, rest) + (
            b',"outcome":"done","reason":"","record_time":"2024-01-15T00:00:00.000000Z"}'
        )
        await log.sql(
            "INSERT INTO broker.ledger_event VALUES "
            "($1, 'admin', '2024-01-15 00:00:00+00', $2, $3, NULL, $4, '', '', 'done', '', NULL, $5)",
            each.id, each.agent, each.tool, each.trace_id, leaf,
        )  # fmt: skip
    await log.sequencer().round(TreeTable(log.admin))


async def test_only_administrators_work_on_the_log(full):
    """No other role may take events in, stop appends or write statements; reading is the auditors'."""
    for role in ("broker_access", "broker_feed", "broker_reader", "broker_auditor"):
        conn = await asyncpg.connect(full.database.dsn(role))
        for statement in (
            "SELECT broker.stop_appends()",
            "SELECT broker.resume_appends()",
            "SELECT broker.tlog_settle(0, '', gen_random_uuid())",
            "SELECT broker.tlog_state(gen_random_uuid(), '')",
            "SELECT broker.tlog_integrate(0, '', '{}', '{}', '', '')",
            "INSERT INTO broker.ledger_tree VALUES (99, NULL, '')",
            "UPDATE broker.tlog_head SET size = 0",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
        await conn.close()
    for statement in ("UPDATE broker.ledger_tree SET seq = 1", "DELETE FROM broker.ledger_tree",
                      "TRUNCATE broker.ledger_tree"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):  # the trigger's, for owners
            await full.superuser.execute(statement)
