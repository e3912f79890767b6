"""The demo's second half: customers complain, and the ledger answers who, whom, and whether it was touched.

Invariants:
- what the auditor does is `broker audit …` as a process of its own, with the auditor's credentials alone;
- the complaint file is what a complaints desk has: addresses, times, what the caller knew.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from rich import box
from rich.table import Table

from broker.dev.layout import AGENT_ISSUER
from broker.dev.stage import Stage, expect
from broker.dev.world import World, agent

COMPLAINTS = 6
"""Of customers whom Mallory read; that many are enough for a name."""

UNRELATED = (901, 902)
"""Customers whom nobody read: some complaints always have another cause."""

HONEST = ("amir", "chen", "dana", "emeka", "fatou", "goran", "hanna", "ivan")
HONEST_READS = 24
FIRST_HONEST_TICKET = 400
"""Behind the tickets that Mallory got through, so that each customer is read by one of them."""

MALLORY = f"{AGENT_ISSUER}|mallory"


async def a_leak_is_traced(world: World, stage: Stage, read: Sequence[int]) -> None:
    """From complaints to a name, to everybody who must be told, to a ledger that says it was not touched."""
    await _others_work(world)
    file = world.folder / "complaints.csv"
    await _complain(world, file, read)
    await _attributed(stage, world, file)
    await _exposed(stage, world, read)
    await _verified(stage, world)


async def _others_work(world: World) -> None:
    """Lets other agents read customers of the same queue: without them there is nobody to compare with."""
    await asyncio.gather(
        *(
            _works(world, name, FIRST_HONEST_TICKET + place * HONEST_READS)
            for place, name in enumerate(HONEST)
        )
    )


async def _works(world: World, name: str, first: int) -> None:
    numbers = range(first, first + HONEST_READS)
    await world.publish(
        *(world.helpdesk.open(f"H-{each}", customers=[str(each)], assignee=agent(name)) for each in numbers)
    )
    async with world.client(name) as desk:
        for each in numbers:
            await desk.read(f"H-{each}", ["customer.name"], purpose="resolve-ticket")


async def _complain(world: World, file: Path, read: Sequence[int]) -> None:
    """Writes the complaint file."""
    conn = await asyncpg.connect(world.records_dsn("crm_owner"))
    try:
        rows = await conn.fetch(
            "SELECT email FROM crm.customer WHERE customer_id = ANY($1) ORDER BY customer_id",
            [*read[:COMPLAINTS], *UNRELATED],
        )
    finally:
        await conn.close()
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["kind", "identifier", "contact_time", "fields"])
        writer.writerows(["email", row["email"], now, "customer.name"] for row in rows)


async def _attributed(stage: Stage, world: World, file: Path) -> None:
    stage.step(
        f'{COMPLAINTS + len(UNRELATED)} customers are phoned as "support"; an auditor asks who could know'
    )
    found = await _audit(world, "attribute", str(file))
    table = Table("who", "complaints", "by chance", "corrected p", "named", box=box.SIMPLE)
    for each in found["candidates"][:4]:
        table.add_row(
            " + ".join(name.rpartition("|")[2] for name in each["names"]),
            f"{len(each['complaints'])} of {found['used']}",
            f"{each['expected']:.2f}",
            f"{each['corrected']:.2g}",
            "yes" if each["named"] else "",
        )
    stage.console.print(table)
    named = [each["names"] for each in found["candidates"] if each["named"]]
    expect([MALLORY] in named, f"Mallory is not named: {named}")
    agents = [names for names in named if len(names) == 1 and names[0].startswith(AGENT_ISSUER)]
    expect(agents == [[MALLORY]], f"somebody innocent is named: {agents}")
    expect(len(found["not_used"]) == len(UNRELATED), f"not used are {found['not_used']}")
    for line in found["not_used"]:
        stage.tell(f"complaint in line {line['line']}: {line['why']}")
    stage.tell(f"{found['note'].partition(':')[0]}.")


async def _exposed(stage: Stage, world: World, read: Sequence[int]) -> None:
    stage.step("Whom must the company tell? Everything that was given out to her")
    report = await _audit(world, "exposure", "--agent", MALLORY)
    customers = report["totals"]["customers"]
    expect(customers == len(read), f"{customers} customers, where she read {len(read)}")
    stage.tell(f"{customers} customers, by pseudonym, with fields, levels, times and tickets.")


async def _verified(stage: Stage, world: World) -> None:
    stage.step("A database administrator, with every right, rewrites one event of the ledger")
    await _audit(world, "verify")
    stage.tell("Before: every event is what was signed and published.")
    conn = await asyncpg.connect(world.dsn())
    try:
        async with conn.transaction():
            await conn.execute("SET LOCAL session_replication_role = replica")  # her triggers do not fire
            event = await conn.fetchval(
                "UPDATE broker.ledger_event SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), "
                "'mallory', 'alice'), 'UTF8') WHERE id = (SELECT id FROM broker.ledger_event "
                "WHERE kind = 'read' AND agent = $1 ORDER BY id LIMIT 1) RETURNING id",
                MALLORY,
            )
    finally:
        await conn.close()
    verdict = await _audit(world, "verify", code=1)
    first = verdict["findings"][0]
    expect(str(event) in json.dumps(first), f"it is not the event that is named: {first}")
    stage.tell(f"After: verify fails and names event {event}.")


async def _audit(world: World, *words: str, code: int = 0) -> Any:
    """Runs `broker audit …` as the auditor and gives what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "audit", *words, "--json",
        env={**os.environ, "BROKER_CONFIG": str(world.layout.settings_file)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    expect(
        process.returncode == code, f"broker audit {words[0]} ended with {process.returncode}: {err.decode()}"
    )
    return json.loads(out)
