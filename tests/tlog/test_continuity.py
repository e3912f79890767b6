"""The sequencer signs nothing that does not go on from what was published, whatever is missing or damaged."""

from __future__ import annotations

import contextlib
import shutil

import pytest

from broker.merkle import Edge, leaf_hash
from broker.tlog import Step, TreeTable
from broker.tlog.continuity import PUBLISHED
from tests.tlog.conftest import COUNT, cut, verified
from tests.tlog.test_sequencer import Killed, killed_after


async def rounds(log, count: int = 1):
    """Lets a sequencer that has just started work; gives it."""
    sequencer = log.sequencer()
    for _ in range(count):
        await sequencer.round(TreeTable(log.admin))
    return sequencer


async def signed_size(log) -> int:
    """Gives the size of the head in the database, which is what was signed."""
    return (await TreeTable(log.admin).head()).size


async def forged(log, count: int, note: str = "not signed by anybody") -> None:
    """Writes a tree of the administrator's own."""
    edge = Edge()
    for seq in range(count):
        digest = leaf_hash(b"forged %d" % seq)
        edge.extend([digest])
        await log.sql("INSERT INTO broker.ledger_tree VALUES ($1, NULL, $2)", seq, digest)
    await log.sql("UPDATE broker.tlog_head SET size = $1, root = $2, note = $3", count, edge.root(), note)


@pytest.mark.attack("A7")
class TestForged:
    @pytest.mark.parametrize("fresh", [True, False])
    async def test_a7_a_tree_that_nobody_signed_is_not_built_on(self, log, fresh):
        """A forged tree under an empty storage: nothing is signed, nothing published, appends stop."""
        if not fresh:
            await rounds(log)  # the log was seen empty
        await log.append(2)
        await forged(log, 3)
        sequencer = await rounds(log, 2)

        assert sequencer.state.stopped
        assert "signed" in sequencer.state.problem
        assert (await log.published(), await signed_size(log)) == (None, 3)

    async def test_a7_a_note_of_another_tree(self, full):
        """A signature that the log made counts for its own size and root alone."""
        (full.folder / "log" / "checkpoint").unlink()
        await full.sql("UPDATE broker.ledger_tree SET leaf_hash = sha256('x') WHERE seq = 5")
        edge = Edge()
        edge.extend([row["leaf_hash"] for row in await full.superuser.fetch(
            "SELECT leaf_hash FROM broker.ledger_tree ORDER BY seq")])  # fmt: skip
        await full.sql("UPDATE broker.tlog_head SET root = $1", edge.root())
        sequencer = await rounds(full)

        assert sequencer.state.stopped
        assert await full.published() is None

    async def test_a7_a_memory_that_nobody_signed_is_a_problem(self, full):
        """Whoever spoils the file beside the keys stops the publication, and nothing is signed."""
        (full.folder / "keys" / PUBLISHED).write_text("x")
        await full.append(1)
        sequencer = await rounds(full)

        assert PUBLISHED in sequencer.state.problem
        assert await signed_size(full) == COUNT


@pytest.mark.attack("A3")
class TestRolledBack:
    @pytest.mark.parametrize("taken", ["nothing", "a tile", "the checkpoint", "everything"])
    async def test_a3_an_old_database_is_noticed_whatever_is_gone(self, full, taken):
        """An old head that the log did sign is behind, whatever became of the published log."""
        await full.integrate(300)
        await cut(full, COUNT)
        published = full.folder / "log"
        match taken:
            case "a tile":
                shutil.rmtree(published / "tile" / "0" / "001.p")
            case "the checkpoint":
                (published / "checkpoint").unlink()
            case "everything":
                shutil.rmtree(published)
        sequencer = await rounds(full, 2)

        assert sequencer.state.stopped
        assert "is behind" in (await rounds(full)).state.problem
        assert await signed_size(full) == COUNT


class TestNewStorage:
    async def test_an_empty_storage_is_filled_again(self, full):
        """The database gives the root that the keys' folder remembers: everything is published again."""
        await full.integrate(300)
        before = await full.published()
        shutil.rmtree(full.folder / "log")
        sequencer = await rounds(full)

        assert (sequencer.state.problem, sequencer.state.stopped) == ("", False)
        assert await full.published() == before
        assert (await verified(full, kept=[before])).holds

    async def test_an_older_storage_is_filled_up(self, full):
        """A copy of last week is brought up to date."""
        shutil.copytree(full.folder / "log", full.folder / "copy")
        await full.integrate(300)
        before = await full.published()
        shutil.rmtree(full.folder / "log")
        shutil.move(full.folder / "copy", full.folder / "log")
        await rounds(full)

        assert await full.published() == before
        assert (await verified(full)).holds

    async def test_a_kept_checkpoint_stands_in_for_the_memory(self, full):
        """Storage and memory are gone: nothing goes on until somebody brings a checkpoint that was kept."""
        kept = (full.folder / "log" / "checkpoint").read_bytes()
        await full.integrate(3)
        shutil.rmtree(full.folder / "log")
        (full.folder / "keys" / PUBLISHED).unlink()
        assert (await rounds(full)).state.stopped

        (full.folder / "keys" / PUBLISHED).write_bytes(kept)
        await rounds(full)
        assert (await full.published()).size == COUNT + 3

    async def test_a_release_that_remembered_nothing(self, full):
        """The published checkpoint is remembered at the first round."""
        (full.folder / "keys" / PUBLISHED).unlink()
        sequencer = await rounds(full)

        assert sequencer.state.problem == ""
        assert (full.folder / "keys" / PUBLISHED).read_bytes() == (
            full.folder / "log" / "checkpoint"
        ).read_bytes()


@pytest.mark.attack("O5")
@pytest.mark.parametrize("step", list(Step))
async def test_o5_killed_in_the_very_first_round(log, step):
    """Between the first head and the first checkpoint nothing is published, and nothing is lost."""
    await log.append(5)
    with contextlib.suppress(Killed):
        await log.sequencer(at_step=killed_after(step)).round(TreeTable(log.admin))
    sequencer = await rounds(log)

    assert (sequencer.state.problem, sequencer.state.stopped) == ("", False)
    assert (await log.published()).root == await log.root()
    assert await log.leaves() == log.events
