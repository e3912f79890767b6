"""The notification pack: what it holds can be shown with the public key alone, and any change shows."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import tracemalloc
import zipfile
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from broker.audit import pack as packing_module
from broker.audit import packed
from broker.audit.exposure import Selection
from broker.audit.new_file import new_file
from broker.audit.pack import PART, Packed, build_pack, pack_parts
from broker.audit.packed import MANIFEST, SIGNED, verify_pack
from broker.keys import LogKeyFolder
from broker.note import Note, sign
from broker.tlog import LogInvalidError
from tests.audit.test_exposure import ANNA, BEN, activate
from tests.tlog.conftest import opened

NOW = datetime.now(UTC).replace(microsecond=0)
AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
SEVERAL = 300
"""Events: more than a tile of the log holds."""


class Packing:
    """A ledger with a published log, and packs of it."""

    def __init__(self, audited, log, folder):
        self.audited, self.log, self.folder = audited, log, folder
        self.keys = log.keys.load().keys[:1]
        self.numbers = iter(range(1000))

    def parts(self, **more):
        """Makes a pack, part by part."""
        return pack_parts(
            self.audited.pool,
            Selection(agent=ANNA),
            keys=self.log.keys,
            storage=self.log.storage,
            now=AT,
            **more,
        )

    async def long_leaves(self, count, size=8000):
        """Adds disclosures whose events do not get smaller when they are packed."""
        rng = random.Random(5)
        for n in range(count):
            detail = {"facts": {}, "levels": {"customer.name": "clear"}, "noise": rng.randbytes(size).hex()}
            await self.audited.put(agent=ANNA, customer=f"long-{n}", detail=detail)
        await self.log.integrate()

    def path(self):
        """Gives a file that is not there yet."""
        return self.folder / f"pack-{next(self.numbers)}.zip"

    async def build(self, selection=None, at=AT):
        """Makes a pack."""
        path = self.path()
        await build_pack(
            self.audited.pool,
            selection or Selection(agent=ANNA),
            path,
            keys=self.log.keys,
            storage=self.log.storage,
            now=at,
        )
        return path

    def changed(self, pack, changes, *, signer=None):
        """Copies a pack with other members; the manifest is made for them where somebody signs."""
        with zipfile.ZipFile(pack) as archive:
            members = {name: archive.read(name) for name in archive.namelist()} | changes
        if signer is not None:
            text = Note.parse(members[MANIFEST].decode()).text
            _, origin, time, *_ = text.split("\n")
            digests = {
                name: (hashlib.sha256(members[name]).hexdigest(), len(members[name])) for name in SIGNED
            }
            members[MANIFEST] = str(sign(packed.manifest_text(origin, time, digests), signer)).encode()
        path = self.path()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    def members(self, pack):
        """Reads a pack."""
        with zipfile.ZipFile(pack) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
async def packing(audited, tmp_path):
    """Gives 300 events of which some are Anna's disclosures, one of them narrowed, all published."""
    await activate(audited)
    async with opened(audited.database, tmp_path) as log:
        for n in range(SEVERAL):
            await audited.put(
                at=NOW - timedelta(seconds=SEVERAL - n),
                agent=ANNA if n % 9 == 0 else BEN,
                customer=f"c{n % 14}",
                ticket=f"t{n}",
                levels={"customer.email": "clear" if n % 2 else "masked", "customer.name": "clear"},
            )
        read = await audited.put(agent=ANNA, customer="only-narrowed")
        grant = await audited.conn.fetchval("SELECT grant_id FROM broker.ledger_event WHERE id = $1", read)
        await audited.put(
            kind="outcome",
            outcome="done",
            agent=ANNA,
            grant=grant,
            detail={"read": str(read), "came_to": "empty"},
        )
        await log.integrate()
        yield Packing(audited, log, tmp_path)


async def test_shows_what_it_says_offline(packing):
    """List, counts and classes are in it; verifying takes the file and the key."""
    pack = await packing.build()
    verdict = verify_pack(pack, packing.keys)
    reads = len(range(0, SEVERAL, 9))
    assert verdict.report["totals"]["reads"] == reads
    assert verdict.report["totals"]["customers"] == 14
    assert verdict.report["totals"]["classes"]["contact"] == {"clear": 7, "masked": 7}
    assert verdict.report["narrowed"] == 1
    customers = [json.loads(x) for x in packing.members(pack)["customers.jsonl"].splitlines()]
    assert len(customers) == 14
    assert "only-narrowed" not in {one["customer"] for one in customers}
    assert packing.members(pack)["leaves.jsonl"].count(b"\n") == reads + 2
    assert pack.stat().st_mode & 0o777 == 0o600


async def test_the_same_question_gives_the_same_bytes(packing):
    """Nothing but question, log and time is in it."""
    first, second, later = (
        await packing.build(),
        await packing.build(),
        await packing.build(at=AT + timedelta(1)),
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != later.read_bytes()


async def test_leaves_in_parts_as_it_is_made(packing, monkeypatch):
    """Parts are the file, none is long, and memory holds some leaves of many: a fraction of the pack."""
    monkeypatch.setattr(packing_module, "FETCHED", 20)
    monkeypatch.setattr(packing_module, "STEP", 10)
    await packing.long_leaves(600)
    whole = (await packing.build()).read_bytes()
    del whole  # what is measured is the making alone
    parts = packing.parts()
    size, last = 0, None
    async with aclosing(parts):
        await anext(parts)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        async for part in parts:
            if isinstance(part, Packed):
                last = part
            else:
                size += len(part)
                assert len(part) <= PART
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert last == Packed(614, len(range(0, SEVERAL, 9)) + 600, len(range(0, SEVERAL, 9)) + 602, 902)
    assert size > 5_000_000
    assert most - before < 2_000_000
    assert (
        b"".join([part async for part in packing.parts() if isinstance(part, bytes)])
        == (await packing.build()).read_bytes()
    )


async def test_lets_others_of_the_loop_go_on(packing, monkeypatch):
    """Between two steps the loop comes round: the feed is served while a pack is made."""
    monkeypatch.setattr(packing_module, "STEP", 1)
    rounds = 0
    seen = []

    async def count():
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    async for _ in packing.parts(progress=lambda _: seen.append(rounds)):
        pass
    counting.cancel()
    assert len(seen) > 2 * SEVERAL // 9
    assert len(set(seen)) == len(seen)


async def test_one_who_goes_holds_nothing(packing):
    """Taken no further, it gives its connection back; the next ones are made over the same pool."""
    await packing.long_leaves(60)
    for _ in range(4):  # the pool has three
        parts = packing.parts()
        async with aclosing(parts):
            assert len(await anext(parts)) == PART
    assert packing.audited.pool.get_idle_size() == packing.audited.pool.get_size()
    verify_pack(await packing.build(), packing.keys)


@pytest.mark.parametrize("name", [MANIFEST, *SIGNED])
async def test_a_byte_that_is_changed_shows(packing, name):
    """Whatever member it is in; control: the pack as it was, packed anew, holds."""
    pack = await packing.build()
    verify_pack(packing.changed(pack, {}), packing.keys)
    data = bytearray(packing.members(pack)[name])
    data[len(data) // 2] ^= 1
    with pytest.raises(LogInvalidError):
        verify_pack(packing.changed(pack, {name: bytes(data)}), packing.keys)
    with pytest.raises(LogInvalidError):
        verify_pack(packing.changed(pack, {name: None}), packing.keys)


async def test_the_signature_alone_is_not_believed(packing):
    """Signed by the right key, list, counts and leaves must still follow from the log."""
    pack = await packing.build()
    signer = packing.log.keys.active_signer()
    verify_pack(packing.changed(pack, {}, signer=signer), packing.keys)
    members = packing.members(pack)
    listed = members["customers.jsonl"].splitlines(keepends=True)
    leaves = members["leaves.jsonl"].splitlines(keepends=True)
    report = json.loads(members["report.json"])
    report["totals"]["customers"] -= 1
    for changes in (
        {"customers.jsonl": b"".join(listed[1:])},
        {"customers.jsonl": b"".join([*listed, listed[0]])},
        {"customers.jsonl": members["customers.jsonl"].replace(b'"reads":', b'"reads":1', 1)},
        {"report.json": packed.line(report)},
        {"leaves.jsonl": b"".join(leaves[1:])},
        {"leaves.jsonl": b"".join([*leaves, leaves[0]])},
        {"leaves.jsonl": members["leaves.jsonl"].replace(b'"index":9,', b'"index":8,')},
        {"nodes.jsonl": b""},
        {"report.json": members["report.json"].replace(b"idp.test|anna", b"idp.test|nobody")},
    ):
        assert all(members[name] != data for name, data in changes.items())
        with pytest.raises(LogInvalidError):
            verify_pack(packing.changed(pack, changes, signer=signer), packing.keys)


async def test_another_key_is_not_believed(packing, tmp_path):
    """A pack that somebody else signed, over the same log's name, is refused."""
    other = LogKeyFolder(tmp_path / "other", packing.log.keys.origin)
    key = other.create()
    pack = await packing.build()
    with pytest.raises(LogInvalidError):
        verify_pack(pack, [key])
    with pytest.raises(LogInvalidError, match="manifest is not signed"):
        verify_pack(packing.changed(pack, {}, signer=other.active_signer()), packing.keys)


@pytest.mark.parametrize("data", [b"", b"PK", b"not a pack" * 100])
async def test_what_is_no_pack_is_refused(tmp_path, data):
    """With a sentence."""
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    with pytest.raises(LogInvalidError, match="not a pack"):
        verify_pack(path, [])


async def test_what_is_not_published_yet_is_not_packed(packing):
    """Nothing is signed that cannot be proved, and nothing half is left behind."""
    await packing.audited.put(agent=ANNA, customer="late")
    with pytest.raises(LogInvalidError, match="not published yet"):
        await packing.build()
    assert not list(packing.folder.glob("*pack*"))


async def test_an_index_that_the_leaf_does_not_bear_out_is_not_signed(packing):
    """A row of the index that somebody moved to another agent refuses the pack."""
    await packing.build()
    await packing.audited.conn.execute(
        "UPDATE broker.disclosure SET agent_id = (SELECT name_id FROM broker.disclosure_name WHERE name = $1)"
        " WHERE event_id = (SELECT min(event_id::text)::uuid FROM broker.disclosure AS d"
        " JOIN broker.disclosure_name AS n ON n.name_id = d.agent_id WHERE n.name = $2)",
        ANNA,
        BEN,
    )
    with pytest.raises(LogInvalidError, match="not what the index says"):
        await packing.build()


async def test_an_index_with_another_customer_than_the_leaf_is_not_signed(packing):
    """Nor one that has a disclosure under somebody else's pseudonym."""
    await packing.build()
    await packing.audited.conn.execute("UPDATE broker.disclosure SET customer = 'c99' WHERE customer = 'c0'")
    with pytest.raises(LogInvalidError, match="another customer"):
        await packing.build()


async def test_a_leaf_under_another_events_id_is_not_signed(packing):
    """The leaf must be of the event whose place in the log it is given."""
    await packing.build()
    conn = packing.audited.conn
    await conn.execute("SET session_replication_role = replica")
    await conn.execute(
        "UPDATE broker.ledger_event SET leaf = (SELECT leaf FROM broker.ledger_event WHERE agent = $1"
        " AND kind = 'read' ORDER BY id LIMIT 1) WHERE id = (SELECT id FROM broker.ledger_event"
        " WHERE agent = $1 AND kind = 'read' ORDER BY id DESC LIMIT 1)",
        ANNA,
    )
    with pytest.raises(LogInvalidError, match="not what the index says"):
        await packing.build()


async def test_a_pack_never_replaces_a_file(packing):
    """What is there stays."""
    pack = await packing.build()
    before = pack.read_bytes()
    packing.path = lambda: pack
    with pytest.raises(FileExistsError):
        await packing.build(at=AT + timedelta(1))
    assert pack.read_bytes() == before
    assert [each.name for each in packing.folder.glob("*pack*")] == [pack.name]


async def test_one_that_comes_meanwhile_is_not_replaced_either(packing):
    """The name is looked at last, when the pack is whole."""
    path = packing.folder / "pack-0.zip"

    def write():
        with new_file(path) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert path.read_bytes() == b"theirs"
    assert [each.name for each in packing.folder.glob("*pack*")] == [path.name]


@pytest.mark.parametrize(
    "why", [OSError(28, "full"), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
def test_what_stops_it_leaves_no_file(tmp_path, why):
    """Whether the disk is full, somebody presses Ctrl-C or the call is cancelled; control: nothing does."""

    def write():
        with new_file(tmp_path / "stopped.zip") as file:
            file.write(b"half")
            raise why

    with pytest.raises(type(why)):
        write()
    assert list(tmp_path.iterdir()) == []
    with new_file(tmp_path / "whole.zip") as file:
        file.write(b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("whole.zip", b"whole")]
