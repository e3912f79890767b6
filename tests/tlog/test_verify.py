"""What a superuser does to the ledger behind its checkpoint is named, the first of it first."""

from __future__ import annotations

import shutil
import time
import uuid

import pytest

from broker.merkle import Edge, leaf_hash
from broker.model import id_floor
from broker.note import sign
from broker.tlog import Checkpoint, LogInvalidError, Memory, TrustedKeys
from broker.tlog.columns import COLUMNS
from broker.tlog.continuity import PUBLISHED
from broker.tlog.verify import Kind
from tests.tlog.conftest import COUNT, cut, verified


async def swapped(log, one: int, other: int) -> None:
    """Puts two events into each other's place in the tree."""
    await log.sql("ALTER TABLE broker.ledger_tree DROP CONSTRAINT ledger_tree_event_id_key")
    await log.sql(
        "UPDATE broker.ledger_tree AS t SET event_id = o.event_id, leaf_hash = o.leaf_hash "
        "FROM broker.ledger_tree AS o WHERE (t.seq, o.seq) IN (($1, $2), ($2, $1))",
        one,
        other,
    )


async def rewritten(log) -> None:
    """Recomputes tree, hashes and head over the events as they are now, as an administrator could.

    He cannot sign: the head and the kept checkpoints go on carrying the old signatures.
    """
    rows = await log.superuser.fetch(
        "SELECT t.seq, e.leaf FROM broker.ledger_tree AS t "
        "INNER JOIN broker.ledger_event AS e ON e.id = t.event_id ORDER BY t.seq"
    )
    edge = Edge()
    for row in rows:
        edge.extend([leaf_hash(row["leaf"])])
        await log.sql(
            "UPDATE broker.ledger_tree SET leaf_hash = $2 WHERE seq = $1", row["seq"], leaf_hash(row["leaf"])
        )
    await log.sql("UPDATE broker.tlog_head SET root = $1", edge.root())
    await log.sql("UPDATE broker.tlog_checkpoint SET root = $1 WHERE size = $2", edge.root(), edge.size)


class TestEvents:
    @pytest.mark.attack("A1")
    async def test_a1_an_edited_event(self, full):
        """One byte of one leaf is changed: that event is named, and no other."""
        await full.sql(
            "UPDATE broker.ledger_event "
            "SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'ann', 'bob'), 'UTF8') WHERE id = $1",
            full.events[5],
        )
        result = await verified(full)

        assert result.findings[0].kind is Kind.CHANGED
        assert {finding.event_id for finding in result.findings} == {full.events[5]}

    @pytest.mark.attack("A1")
    async def test_a1_an_edited_column(self, full):
        """Columns are an index over the leaf: each of them is recomputed."""
        others = {
            "agent": "'https://idp|eve'",
            "customer_pseudonym": "'x'",
            "grant_id": "gen_random_uuid()",
            "kind": "'policy'",
            "outcome": "'refused'",
            "policy_version": "7",
            "reason": "'X'",
            "record_time": "record_time + interval '1 microsecond'",
            "ticket_pseudonym": "'x'",
            "tool": "'x'",
            "trace_id": "'x'",
        }
        for column, value in others.items():
            before = await full.superuser.fetchval(
                f"SELECT {column} FROM broker.ledger_event WHERE id = $1", full.events[5]
            )
            await full.sql(f"UPDATE broker.ledger_event SET {column} = {value} WHERE id = $1", full.events[5])
            (finding,) = (await verified(full)).findings
            await full.sql(
                f"UPDATE broker.ledger_event SET {column} = $2 WHERE id = $1", full.events[5], before
            )

            assert (finding.kind, finding.seq, finding.event_id) == (Kind.COLUMN, 5, full.events[5])
            assert f"column {column} " in finding.sentence
        assert {*COLUMNS} == {*others, "id"}

    @pytest.mark.attack("A2")
    async def test_a2_a_deleted_event(self, full):
        """A middle event is deleted: it is named, and so is its row of the tree where that goes, too."""
        await full.sql("DELETE FROM broker.ledger_event WHERE id = $1", full.events[5])
        (finding,) = (await verified(full)).findings
        assert (finding.kind, finding.event_id) == (Kind.MISSING, full.events[5])

        await full.sql("DELETE FROM broker.ledger_tree WHERE seq = 5")
        (finding,) = [each for each in (await verified(full)).findings if each.seq == 5]
        assert finding.kind is Kind.MISSING

    @pytest.mark.attack("A3")
    async def test_a3_the_last_ones_deleted(self, full):
        """The end is cut off and the head set back: the published checkpoint is larger."""
        await full.integrate(3)
        kept = await full.published()
        await cut(full, COUNT)
        result = await verified(full)
        assert (result.findings[0].kind, result.findings[0].seq) == (Kind.BEHIND, COUNT)

        shutil.rmtree(full.folder / "log")  # the published log goes, too; what the auditor kept does not
        result = await verified(full, kept=[kept])
        assert (result.findings[0].kind, result.findings[0].seq) == (Kind.BEHIND, COUNT)

        # Who kept none sees that nothing is published any more.
        (finding,) = (await verified(full)).findings
        assert (finding.kind, finding.sentence) == (
            Kind.MISSING,
            f"Nothing is published of the {COUNT} leaves.",
        )

    @pytest.mark.attack("A4")
    async def test_a4_everything_truncated(self, full):
        """Emptied tables are the same: everything is missing, from the first event on."""
        await full.sql("TRUNCATE broker.ledger_event")
        assert [finding.event_id for finding in (await verified(full)).findings] == full.events

        await full.sql("TRUNCATE broker.ledger_tree, broker.tlog_head, broker.tlog_checkpoint")
        assert (await verified(full)).findings[0].kind is Kind.MISSING

    @pytest.mark.attack("A5")
    async def test_a5_two_swapped(self, full):
        """Two events in each other's place: the first place is named, then the second."""
        await swapped(full, 3, 8)
        findings = [each for each in (await verified(full)).findings if each.kind is Kind.REORDERED]

        assert [(each.seq, each.event_id) for each in findings] == [
            (3, full.events[8]),
            (8, full.events[3]),
        ]

    @pytest.mark.attack("A5")
    async def test_a5b_one_doubled(self, full):
        """A copy of an event under another id is no leaf; in a leaf's place it is not the published one."""
        copy = id_floor((full.events[5].int >> 80) / 1000 - 500)
        await full.sql(COPY, copy, full.events[5])
        await full.sql("UPDATE broker.tlog_head SET low_id = $1", full.events[5])
        (finding,) = (await verified(full)).findings
        assert (finding.kind, finding.event_id) == (Kind.INSERTED, copy)

        await full.sql("UPDATE broker.ledger_tree SET event_id = $1 WHERE seq = 6", copy)
        findings = (await verified(full)).findings
        assert (findings[0].seq, findings[0].event_id) == (6, copy)

    @pytest.mark.attack("A6")
    async def test_a6_a_forged_one_inserted(self, full):
        """An event below the horizon that is no leaf was put there later."""
        forged = id_floor((full.events[0].int >> 80) / 1000 - 1000)
        await full.sql(COPY, forged, full.events[5])
        await full.sql("UPDATE broker.tlog_head SET low_id = $1", full.events[0])
        (finding,) = (await verified(full)).findings

        assert (finding.kind, finding.event_id) == (Kind.INSERTED, forged)

    @pytest.mark.attack("A7")
    async def test_a7_the_whole_rewritten(self, full):
        """Leaf, columns, tree, head and kept checkpoints recomputed: tiles and signatures say otherwise."""
        await full.sql(
            "UPDATE broker.ledger_event SET agent = replace(agent, 'ann', 'bob'), "
            "leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'ann', 'bob'), 'UTF8') WHERE id = $1",
            full.events[5],
        )
        kept = await full.published()
        await rewritten(full)
        finding = (await verified(full)).findings[0]
        assert (finding.kind, finding.seq, finding.event_id) == (Kind.REORDERED, 5, full.events[5])

        # He takes the published log away, too: the signatures in the database still cover another root.
        shutil.rmtree(full.folder / "log")
        findings = (await verified(full)).findings
        assert {each.kind for each in findings} == {Kind.MISSING, Kind.CHECKPOINT}

        # And he has stolen the keys: against a checkpoint that the auditor kept even that does not help.
        await signed_anew(full)
        (full.folder / "keys" / PUBLISHED).unlink()
        await Memory(full.keys).keep(None)
        await full.integrate()
        assert (await verified(full)).holds
        assert [each.kind for each in (await verified(full, kept=[kept])).findings] == [Kind.FORKED]

    @pytest.mark.attack("A8")
    async def test_a8_two_heads(self, full, tmp_path):
        """A second log under the same key, shown to somebody else, continues no checkpoint of the first."""
        kept = await full.published()
        await full.sql("TRUNCATE broker.ledger_tree, broker.tlog_checkpoint")
        await full.sql("DELETE FROM broker.ledger_event WHERE id = $1", full.events[0])
        await full.sql(
            "UPDATE broker.tlog_head SET size = 0, root = sha256(''), note = '', low_id = $1",
            uuid.UUID(int=0),
        )
        shutil.rmtree(full.folder / "log")
        (full.folder / "keys" / PUBLISHED).unlink()  # he has the keys, too
        await full.integrate(1)
        assert (await full.published()).size == kept.size
        assert (await verified(full)).holds

        assert [each.kind for each in (await verified(full, kept=[kept])).findings] == [Kind.FORKED]

    @pytest.mark.attack("A10")
    async def test_a10_backdated_before_its_checkpoint(self, full):
        """A forged event that says it was recorded yesterday gets its place of today; that does not fit."""
        (forged,) = await full.append(1)
        yesterday = "to_char(now() - interval '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        await full.sql(
            "UPDATE broker.ledger_event SET record_time = ("
            f"{yesterday}::timestamptz), leaf = convert_to(regexp_replace(convert_from(leaf, 'UTF8'), "
            f'\'"record_time":"[^"]*\', \'"record_time":"\' || {yesterday}), \'UTF8\') WHERE id = $1',
            forged,
        )
        await full.integrate(1)
        (finding,) = (await verified(full)).findings

        assert (finding.kind, finding.seq, finding.event_id) == (Kind.BACKDATED, COUNT, forged)

    @pytest.mark.attack("A6")
    async def test_a6_a_forged_one_does_not_wait_for_ever(self, full):
        """What the database says is still open counts for some minutes by the auditor's clock, not longer."""
        await full.sql("UPDATE broker.tlog_head SET low_id = $1", uuid.UUID(int=0))
        young, old = (id_floor(time.time() - ago) for ago in (100, 1000))
        await full.sql(COPY, young, full.events[5])
        result = await verified(full)
        assert (result.holds, result.waiting) == (True, 1)
        await full.sql(COPY, old, full.events[5])
        result = await verified(full)
        assert [(each.kind, each.event_id) for each in result.findings] == [(Kind.INSERTED, old)]
        assert result.waiting == 1

        later = await verified(full, now=lambda: time.time() + 1000)
        assert {each.event_id for each in later.findings} == {young, old}

    async def test_findings_beyond_those_that_are_kept_are_counted(self, full, monkeypatch):
        """However many events were put in, the number that is told is all of them."""
        monkeypatch.setattr("broker.tlog.verify.MOST_FINDINGS", 3)
        await full.sql("UPDATE broker.ledger_event SET agent = 'x' WHERE id = $1", full.events[0])
        for ago in range(1000, 1005):
            await full.sql(COPY, id_floor(time.time() - ago), full.events[5])
        result = await verified(full)

        assert (len(result.findings), result.more) == (3, 3)

    @pytest.mark.attack("A1")
    @pytest.mark.parametrize("when", ["-infinity", "infinity", "4713-01-01 BC", None])
    async def test_a1_a_time_that_is_none(self, full, when):
        """Times that Python cannot hold are findings of that event, and of no other."""
        await full.sql("ALTER TABLE broker.ledger_event ALTER COLUMN record_time DROP NOT NULL")
        await full.sql(
            "UPDATE broker.ledger_event SET record_time = $1::text::timestamptz WHERE id = $2",
            when,
            full.events[5],
        )
        findings = (await verified(full)).findings

        assert {each.event_id for each in findings} == {full.events[5]}
        assert {each.kind for each in findings} == {Kind.COLUMN, Kind.BACKDATED}

    @pytest.mark.attack("A14")
    async def test_a14_a_leaf_that_is_none(self, full):
        """An event whose leaf no reader understands is named; verify goes on to the next."""
        rest = b'{"v":1,"id":"x","trace":"","policy_version":1e999'
        (forged,) = await full.append(1)
        await full.sql("UPDATE broker.ledger_event SET leaf = $1 WHERE id = $2", rest + b"}", forged)
        await full.integrate(1)
        (finding,) = (await verified(full)).findings

        assert (finding.kind, finding.event_id) == (Kind.COLUMN, forged)


COPY = (
    "INSERT INTO broker.ledger_event SELECT $1, kind, record_time, agent, tool, grant_id, trace_id, "
    "customer_pseudonym, ticket_pseudonym, outcome, reason, policy_version, leaf "
    "FROM broker.ledger_event WHERE id = $2"
)


async def signed_anew(log) -> None:
    """Signs the head and the kept checkpoints with the log's own key."""
    for table in ("tlog_head", "tlog_checkpoint"):
        for row in await log.superuser.fetch(f"SELECT size, root FROM broker.{table}"):
            note = str(
                sign(Checkpoint(log.keys.origin, row["size"], row["root"]).text, log.keys.active_signer())
            )
            await log.sql(f"UPDATE broker.{table} SET note = $1 WHERE size = $2", note, row["size"])


class TestPublished:
    async def test_a_changed_tile(self, full):
        """A tile with another hash is named; the database, which gives the signed root, is not blamed."""
        tile = full.folder / "log" / "tile" / "0" / "000.p" / str(COUNT)
        data = bytearray(tile.read_bytes())
        data[32 * 5] ^= 1
        tile.write_bytes(data)
        (finding,) = (await verified(full)).findings

        assert (finding.kind, finding.seq) == (Kind.TILE, 5)

    async def test_a_missing_tile(self, full):
        """A tile that is not there is named."""
        (full.folder / "log" / "tile" / "0" / "000.p" / str(COUNT)).unlink()

        assert {each.kind for each in (await verified(full)).findings} == {Kind.TILE}

    async def test_a_higher_tile(self, full):
        """Tiles above the leaves' are recomputed as well."""
        await full.integrate(300)
        tile = full.folder / "log" / "tile" / "1" / "000.p" / "1"
        tile.write_bytes(bytes(32))
        (finding,) = (await verified(full)).findings

        assert finding.kind is Kind.TILE
        assert "tile/1/000.p/1" in finding.sentence

    async def test_a_forged_checkpoint(self, full):
        """A checkpoint that the log did not sign counts for nothing."""
        path = full.folder / "log" / "checkpoint"
        path.write_text(path.read_text("utf-8").replace(f"\n{COUNT}\n", f"\n{COUNT - 1}\n"), "utf-8")

        assert (await verified(full)).findings[0].kind is Kind.SIGNATURE

    async def test_a_stranger_key(self, full, tmp_path):
        """Under another key nothing of the log verifies."""
        strangers = type(full.keys)(tmp_path / "strangers", full.keys.origin)
        key = strangers.create()

        result = await verified(full, keys=TrustedKeys([key]))
        assert {each.kind for each in result.findings} == {Kind.SIGNATURE}


@pytest.mark.attack("A13")
class TestRotation:
    async def test_a13_old_and_new_range_verify(self, full, tmp_path):
        """After a rotation everything verifies from either key, old sizes under the old one."""
        before = (full.folder / "log" / "checkpoint").read_text("utf-8")
        (old,) = full.keys.load().keys
        new = full.keys.rotate()
        await full.integrate(2)
        keys = full.keys.load()
        after = (full.folder / "log" / "checkpoint").read_text("utf-8")

        assert (keys.keys, keys.active, keys.waiting) == ((old, new), new, None)
        assert not (full.folder / "keys" / f"{old.key_id.hex()}.pem").exists()
        for anchor in (old, new):
            trusted = TrustedKeys([anchor], keys.rotations)
            assert (await verified(full, keys=trusted)).holds
            assert trusted.open(before).size == COUNT
            assert trusted.open(after).size == COUNT + 2
        with pytest.raises(LogInvalidError):
            TrustedKeys([old]).open(after)  # without the record of rotation

    async def test_a13_a_stolen_old_key_signs_nothing_new(self, full):
        """What the old key signs beyond the size of its rotation is not believed."""
        thief = full.keys.active_signer()
        full.keys.rotate()
        await full.integrate(2)
        trusted = TrustedKeys.of(full.keys.load())
        forged = Checkpoint(full.keys.origin, COUNT + 2, b"f" * 32)

        with pytest.raises(LogInvalidError):
            trusted.open(str(sign(forged.text, thief)))
        assert trusted.open(str(sign(forged.text, full.keys.active_signer()))) == forged

    async def test_a13_a_rotation_needs_both(self, full, tmp_path):
        """A record that one of the two keys did not sign leads nowhere."""
        full.keys.rotate()
        await full.integrate(1)
        (old, _), (record,) = full.keys.load().keys, full.keys.load().rotations
        half = type(record)(record.text, record.signatures[1:])

        TrustedKeys([old], [record])
        with pytest.raises(LogInvalidError):
            TrustedKeys([old], [half])

    async def test_a13_one_waits_at_a_time(self, full):
        """A second key is refused while one waits; the first exists already."""
        full.keys.rotate()
        with pytest.raises(Exception, match="waits"):
            full.keys.rotate()
        with pytest.raises(Exception, match="has a key"):
            full.keys.create()


async def test_waiting_events_are_no_finding(full):
    """Events of the last moment are counted, not blamed."""
    await full.append(3)
    result = await verified(full)

    assert (result.holds, result.waiting) == (True, 3)
