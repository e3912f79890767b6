"""From approval to every worker: two brokers with two workers each, one database.

What is measured is the database's clock alone: from the activation, which is committed a moment later, to
the moment that the last worker has said that it decides by the new version. Proposals are examined as a
broker examines them, but without the seconds with Casbin, so that workers have less time beforehand, not
more. The column `call` is how long the person waited for the whole act; nothing in it waits for a worker.

An emergency, a rollback and a broken glass are not announced: their workers begin at the activation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.table import Table

from broker.database import open_pool
from broker.dev.world import World
from broker.keys import SigningKeys
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.policy.store import MOST_AHEAD
from broker.publishing import ChildExaminer, Draft
from tests.bench.decision import files as sized
from tests.published import ANNA, BORIS, founding, publisher
from tests.replica import replica

LATE = """
SELECT count(*) FILTER (WHERE w.version = $1) AS have,
       extract(epoch FROM max(w.confirm_time) - (SELECT activate_time FROM broker.policy_active)) AS late
FROM broker.policy_worker AS w
"""
WORKERS = 4

WIDER = "broken glass"
"""The way by which a version comes into force that an emergency or a rollback then narrows."""

LYING = 3.0
"""Seconds that a proposal lies there while a person looks at it."""

Act = Callable[[str], Awaitable[int]]
"""Brings a policy with a comment of its own into force; gives its version."""


async def run(*, quick: bool, say: Callable[[str], None]) -> dict:
    """Publishes versions in every way there is, and gives how late the last worker was, in milliseconds."""
    rounds = 3 if quick else 15
    found: dict[str, dict] = {}
    async with _desk() as (pool, ways):
        for name, (before, act) in ways.items():
            late, calls = [], []
            for number in range(rounds):
                for wider in range(before):
                    await _late(pool, await ways[WIDER][1](f"{name} {number} {wider}"))
                began = time.monotonic()
                version = await act(f"{name} {number}")
                calls.append(time.monotonic() - began)
                late.append(await _late(pool, version))
            say(f"{name}: {sorted(late)}")
            found[name] = {
                "median": sorted(late)[rounds // 2], "highest": max(late), "rounds": rounds,
                "call_seconds": round(sorted(calls)[rounds // 2], 2),
            }  # fmt: skip
    return found


@asynccontextmanager
async def _desk() -> AsyncIterator[tuple[object, dict[str, tuple[int, Act]]]]:
    """Gives two brokers' database, and the ways into force, each with how many wider versions come before."""
    async with (
        World.start(None, customers=20, workers=2, fsync=True) as world,
        replica(world, "second", workers=2),
    ):
        admin = await open_pool(world.dsn("broker_admin"), name="bench", max_size=2)
        owner = await open_pool(world.dsn("broker_owner"), name="bench: owner", max_size=2)
        keys = SigningKeys(world.layout.keys, time.time)
        acts = publisher(admin, keys, examine=ChildExaminer(), thorough=False)
        glass = founding(owner, keys)
        shipped = Bundle.from_directory(world.layout.policies)

        def everywhere(note: str) -> PolicyFiles:
            """Changes every file that takes time to read; whatever was read of the last one helps nothing."""
            texts = dict(shipped.files.texts)
            texts["catalog.yaml"] = texts["catalog.yaml"].replace("\n...", f"\n# {note}\n...")
            tool = f"g, spiffe://broker.dev/admin/bench-{note.rsplit(maxsplit=1)[-1]}, auditor\n# end\n"
            texts["admin.csv"] = texts["admin.csv"].replace("# end\n", tool)
            return PolicyFiles.from_mapping(texts)

        def commented(note: str, files: PolicyFiles = shipped.files) -> Bundle:
            text = files.texts["policy.csv"].replace("# end\n", f"# {note}\n# end\n")
            return Bundle.of(PolicyFiles.from_mapping({**files.texts, "policy.csv": text}), shipped.tests)

        async def approved(note: str, lying: float) -> int:
            _, proposal, found = await acts.propose(ANNA, Draft(commented(note), "bench", base=0))
            assert proposal is not None, found.refusals
            await asyncio.sleep(lying)
            _, done = await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
            return done.version

        async def alone(note: str) -> int:
            _, done, found = await acts.propose(ANNA, Draft(commented(note), "bench", base=0, alone=True))
            assert done is not None, found.refusals
            assert done.version, found.widening
            return done.version

        async def back(_note: str) -> int:
            _, done, found = await acts.roll_back(ANNA, 1, "bench")
            assert done is not None, found.refusals
            assert done.version, found.widening
            return done.version

        async def wider(note: str) -> int:
            texts = dict(shipped.files.texts)
            texts["limits.yaml"] = texts["limits.yaml"].replace("{per_hour: 40", "{per_hour: 41")
            return await broken(note, PolicyFiles.from_mapping(texts))

        async def broken(note: str, files: PolicyFiles = shipped.files) -> int:
            bundle = commented(note, files)
            version, _ = await glass.break_glass(bundle, by="bench", reason="bench", despite_refusals=True)
            return version

        ways: dict[str, tuple[int, Act]] = {
            "approved after some seconds": (0, lambda note: approved(note, LYING)),
            "approved at once": (0, lambda note: approved(note, 0.0)),
            "emergency, alone": (1, alone),
            # After more than a worker keeps compiled, else it would still have the one that comes back.
            "rollback": (MOST_AHEAD, back),
            WIDER: (0, wider),
            "broken glass, every file": (0, lambda note: broken(note, everywhere(note))),
            "broken glass, 1,000 rules": (0, lambda note: broken(note, sized(1000))),
            "broken glass, 10,000 rules": (0, lambda note: broken(note, sized(10000))),
        }
        yield admin, ways
        await admin.close()
        await owner.close()


async def _late(pool, version: int) -> int:
    end = time.monotonic() + 30
    while True:
        row = await pool.fetchrow(LATE, version)
        if row["have"] == WORKERS:
            return round(float(row["late"]) * 1000)
        assert time.monotonic() < end, row
        await asyncio.sleep(0.05)


def table(result: dict) -> Table:
    """Draws it."""
    drawn = Table(title="From activation to the last of four workers of two brokers, ms (goal: 200)")
    for name in ("how", "median", "highest", "rounds", "call, s"):
        drawn.add_column(name, justify="left" if name == "how" else "right")
    for name, row in result.items():
        drawn.add_row(
            name, str(row["median"]), str(row["highest"]), str(row["rounds"]), str(row["call_seconds"])
        )
    return drawn
