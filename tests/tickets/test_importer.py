"""First load from CSV: checked as a whole, nothing vouched for, nothing newer undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.dev.helpdesk import assignment
from broker.errors import EventConflictError
from broker.model import OpenedBy, Provenance, Relation, TicketStatus
from broker.tickets import importer
from broker.tickets.importer import ImportInvalidError, Loaded, load, read_file
from tests.tickets.conftest import ALICE, BOB, FEED_ID

HEADER = "ticket_id,kind,status,customer_id,agent_issuer,agent_subject,relation,opened_by"
GOOD = "T-1,billing,open,7;8,https://idp.example,alice,assignee,customer"


def written(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "tickets.csv"
    path.write_text("\n".join([header, *lines, ""]), "utf-8")
    return path


class TestReadFile:
    def test_good(self, tmp_path):
        """Lines of one ticket are joined; a ticket may have no agent; columns come in any order."""
        tickets = read_file(
            written(
                tmp_path,
                GOOD,
                "T-1,billing,open,7;8,https://idp.example,bob,supervisor,customer",
                "T-2,device,pending,9,,,,",
            )
        )

        assert [len(ticket.assignments or ()) for ticket in tickets] == [2, 0]
        order = ",".join(reversed(HEADER.split(",")))
        row = ",".join(reversed(GOOD.split(",")))
        assert [tickets[0].details] == [t.details for t in read_file(written(tmp_path, row, header=order))]

    @pytest.mark.parametrize(
        ("line", "finding"),
        [
            ("T 1,billing,open,7,,,,", "ticket_id"),
            ("T-1';--,billing,open,7,,,,", "ticket_id"),
            ("T-2,Billing,open,7,,,,", "kind"),
            ("T-2,billing,ajar,7,,,,", "status"),
            ("T-2,billing,open,7;7,,,,", "customer_id"),
            ("T-2,billing,open, 7,,,,", "customer_id"),
            ("T-2,billing,open,7\u200b,,,,", "customer_id"),
            ("T-2,billing,open,7,https://idp.example,,assignee,", "agent.subject"),
            ("T-2,billing,open,7,https://idp.example,alice,none,", "relation"),
            ("T-2,billing,open,7,a|b,alice,assignee,", "agent.issuer"),
            ("T-2,billing,open,7,,,,agent", "opened_by"),
            ("T-1,billing,closed,7;8,https://idp.example,bob,assignee,customer", "ticket_id"),
            (GOOD, "ticket_id"),
            ("T-2,billing,open,7", "4 columns"),
        ],
    )
    def test_bad_line(self, tmp_path, line, finding):
        """A bad line is named by file and line, without repeating its values."""
        with pytest.raises(ImportInvalidError) as caught:
            read_file(written(tmp_path, GOOD, line))

        assert caught.value.findings[0].startswith("tickets.csv:3: ")
        assert finding in caught.value.findings[0]

    def test_all_findings(self, tmp_path):
        """All bad lines are named at once, up to a bound."""
        bad = ["T 1,billing,open,7,,,,"] * 50

        with pytest.raises(ImportInvalidError) as caught:
            read_file(written(tmp_path, *bad))

        assert len(caught.value.findings) == importer.MAX_FINDINGS

    @pytest.mark.parametrize(
        "content",
        [b"", b"ticket_id\nT-1\n", HEADER.encode(), HEADER.encode() + b"\nT-1,\xff\n", b'"' + b"x" * 200_000],
    )
    def test_no_such_file(self, tmp_path, content):
        """A file that is empty, of other columns, without tickets or not text is refused."""
        path = tmp_path / "tickets.csv"
        path.write_bytes(content)

        with pytest.raises(ImportInvalidError):
            read_file(path)
        with pytest.raises(ImportInvalidError):
            read_file(tmp_path / "missing.csv")

    def test_mark(self, tmp_path):
        """The mark that spreadsheets write first, and their line ends, do no harm."""
        path = tmp_path / "tickets.csv"
        path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode())

        assert len(read_file(path)) == 1


class TestLoad:
    async def test_ground(self, world, tmp_path):
        """What was loaded is ground whose provenance says that nobody vouches for it."""
        steps: list[tuple[int, int]] = []
        done = await load(
            world.feed_pool,
            FEED_ID,
            read_file(written(tmp_path, GOOD, "T-2,billing,open,7,,,,")),
            lambda *step: steps.append(step),
        )
        await world.beat()

        assert done == Loaded(2, 0)
        assert steps == [(2, 2)]
        standing = await world.ground("T-1")
        assert standing.ground.provenance is Provenance.IMPORTED
        assert standing.ground.opened_by is OpenedBy.CUSTOMER
        assert standing.ground.customers == ("7", "8")
        assert standing.feed_fresh

    async def test_twice(self, world, tmp_path):
        """Loading twice is loading once; a mended file replaces what only a load had said."""
        await load(world.feed_pool, FEED_ID, read_file(written(tmp_path, GOOD)))
        await load(world.feed_pool, FEED_ID, read_file(written(tmp_path, GOOD)))
        assert await world.history("T-1") == [("alice", "import", True)]

        mended = GOOD.replace("alice", "bob").replace("7;8", "7")
        assert await load(world.feed_pool, FEED_ID, read_file(written(tmp_path, mended))) == Loaded(1, 0)

        assert (await world.ground("T-1")).ground.relation is Relation.NONE
        assert (await world.ground("T-1", BOB)).ground.customers == ("7",)

    async def test_events_win(self, world, tmp_path):
        """Any event is newer than a load, whichever comes first; sequence numbers are left alone."""
        path = written(tmp_path, GOOD, GOOD.replace("T-1", "T-2"))
        await world.send(world.helpdesk.open("T-1", customers=["9"], assignee=BOB))

        assert await load(world.feed_pool, FEED_ID, read_file(path)) == Loaded(1, 1)
        assert (await world.ground("T-1")).ground.relation is Relation.NONE
        assert (await world.ground("T-1", BOB)).ground.customers == ("9",)

        await world.send(
            world.helpdesk.open("T-2", customers=["9"]), world.helpdesk.assign("T-2", assignment(ALICE))
        )
        assert (await world.ground("T-2")).ground.provenance is Provenance.ROUTED
        assert (await world.ground("T-2")).ground.customers == ("9",)
        assert not (await world.beat()).resync_needed

    async def test_after_a_snapshot(self, world, tmp_path):
        """A load cannot bring back what a snapshot closed by not naming it."""
        await load(world.feed_pool, FEED_ID, read_file(written(tmp_path, GOOD)))
        assert (await world.resync(world.helpdesk.snapshot())).closed == 1

        with pytest.raises(EventConflictError):
            await load(world.feed_pool, FEED_ID, read_file(written(tmp_path, GOOD)))

        assert (await world.ground("T-1")).ground.status is TicketStatus.CLOSED

    async def test_batches(self, world, tmp_path):
        """A big file goes in batches and tells how far it is."""
        lines = [GOOD.replace("T-1", f"T-{n}") for n in range(importer.BATCH + 3)]
        steps: list[tuple[int, int]] = []

        done = await load(
            world.feed_pool, FEED_ID, read_file(written(tmp_path, *lines)), lambda *step: steps.append(step)
        )

        assert done == Loaded(503, 0)
        assert steps == [(500, 503), (503, 503)]
