"""From approval to every worker: two brokers with two workers each, one database.

What is measured is the database's clock alone: from the activation, which is committed a moment later, to the
moment that the last worker has said that it decides by the new version. The proposals lie there for
some seconds first, as they do when a person looks at them, so workers have them compiled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rich.table import Table

from broker.database import open_pool
from broker.dev.world import World
from broker.keys import SigningKeys
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.publishing import Draft
from tests.published import ANNA, BORIS, publisher
from tests.replica import replica

LATE = """
SELECT count(*) FILTER (WHERE w.version = $1) AS have,
       extract(epoch FROM max(w.confirm_time) - (SELECT activate_time FROM broker.policy_active)) AS late
FROM broker.policy_worker AS w
"""
WORKERS = 4


async def run(*, quick: bool, say: Callable[[str], None]) -> dict:
    """Publishes some versions, prepared and not, and gives how late the last worker was, in milliseconds."""
    rounds = 5 if quick else 20
    found: dict[str, list[int]] = {}
    async with (
        World.start(None, customers=20, workers=2, fsync=True) as world,
        replica(world, "second", workers=2),
    ):
        pool = await open_pool(world.dsn("broker_admin"), name="bench", max_size=2)
        acts = publisher(pool, SigningKeys(world.layout.keys, time.time))
        files = PolicyFiles.from_directory(world.layout.policies)
        for name, pause in (("looked at for some seconds", 5.0), ("approved at once", 0.0)):
            found[name] = []
            for number in range(rounds):
                text = files.texts["policy.csv"].replace("# end\n", f"# {name} {number}\n# end\n")
                bundle = Bundle.of(PolicyFiles.from_mapping({**files.texts, "policy.csv": text}), {})
                _, proposal, _ = await acts.propose(ANNA, Draft(bundle, "bench", base=0))
                await asyncio.sleep(pause)
                _, done = await acts.approve(BORIS, proposal.proposal_id, proposal.digest, "")
                found[name].append(await _late(pool, done.version))
            say(f"{name}: {sorted(found[name])}")
        await pool.close()
    return {
        name: {"median": sorted(ms)[len(ms) // 2], "highest": max(ms), "rounds": len(ms)}
        for name, ms in found.items()
    }


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
    for name in ("proposal", "median", "highest", "rounds"):
        drawn.add_column(name, justify="left" if name == "proposal" else "right")
    for name, row in result.items():
        drawn.add_row(name, str(row["median"]), str(row["highest"]), str(row["rounds"]))
    return drawn
