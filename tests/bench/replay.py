"""How fast recorded decisions are taken again, and what a shadow costs a request.

    python -m tests.bench.replay [--quick]

A ledger of a month of decisions is made from a seed (`ledgers.py`), then replayed under drafts that change
nothing, little and nearly everything: whom changes concern is counted in a second pass, so they cost.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import psutil
from rich.console import Console
from rich.table import Table

from broker.database import migrate
from broker.dev.postgres import EmbeddedPostgres
from broker.ledger import EventIds
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles, Tally, load
from broker.replaying import open_replay_pool, replay_ledger
from tests.bench import ledgers

ROOT = Path(__file__).parents[2]
PASSWORD = "bench"

DECISIONS, QUICK = 1_000_000, 50_000
SHOWN = 200_000  # uses of a decision that a tally is shown

MASKED = "p, tier1, resolve-ticket, assignee, any, imported, any, any, contact, masked, allow\n"


def drafts(files: PolicyFiles) -> dict[str, Policy]:
    """Makes the drafts to replay."""
    rules = files.texts["policy.csv"]
    shut = rules.replace(", clear, allow", ", masked, allow").splitlines(keepends=True)
    texts = {
        "nothing": rules,
        "one rule": rules.replace(MASKED, MASKED.replace("masked", "clear")),
        "all that was clear": "".join(
            line for i, line in enumerate(shut) if not line.startswith("p, ") or line not in shut[:i]
        ),
    }
    return {
        name: load(PolicyFiles.from_mapping({**files.texts, "policy.csv": text}), "draft")
        for name, text in texts.items()
    }


def folder() -> Path:
    """Makes a folder that the server's own user may pass through."""
    parent = Path(tempfile.mkdtemp(prefix="broker-bench-"))
    parent.chmod(0o711)
    return parent


async def run(*, quick: bool, say: Callable[[str], None]) -> dict:
    """Makes the ledger and replays it."""
    decisions = QUICK if quick else DECISIONS
    parent = folder()
    server = EmbeddedPostgres(parent / "pg")
    server.start()
    try:
        conn = await asyncpg.connect(server.dsn())
        await conn.execute((ROOT / "deploy" / "roles.sql").read_text("utf-8"))
        for role in ("broker_owner", "broker_admin"):
            await conn.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
        await migrate(server.dsn("postgres", "broker_owner", PASSWORD))
        files = PolicyFiles.from_directory(ROOT / "policies")
        say(f"writing a ledger of {decisions:,} decisions")
        span = await ledgers.fill(conn, load(files, "1"), decisions)
        size = await conn.fetchval(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('broker.ledger_event')"
        )
        await conn.close()
        rows = []
        pool = await open_replay_pool(server.dsn("postgres", "broker_admin", PASSWORD))
        backend = psutil.Process(await pool.fetchval("SELECT pg_backend_pid()"))
        for name, draft in drafts(files).items():
            say(f"replaying a draft that changes {name}")
            seen: dict[str, float] = {}
            began, used = time.perf_counter(), cpu(backend)
            report = await replay_ledger(
                pool, EventIds(), draft, asked_by="bench", since=span.since, until=span.until,
                progress=lambda what, _done, _n, seen=seen: seen.__setitem__(what, time.perf_counter()),
            )  # fmt: skip
            seconds = time.perf_counter() - began
            rows.append(
                {
                    "draft": name,
                    "decisions": report.decisions,
                    "inputs": report.inputs,
                    "changed": report.changed,
                    "seconds": seconds,
                    "people_seconds": seen["Done"] - seen["Counting whom it concerns"],
                    "cpu_seconds": cpu(backend) - used,
                    "per_second": report.decisions / seconds,
                }
            )
        await pool.close()
        return {"rows": rows, "ledger_mib": int(size) / 2**20, "tally_ns": tally_cost(files)}
    finally:
        server.remove()
        shutil.rmtree(parent, ignore_errors=True)


def cpu(backend: psutil.Process) -> float:
    """Gives the CPU seconds used so far, here and in the database's process."""
    times = backend.cpu_times()
    return time.process_time() + times.user + times.system


def tally_cost(files: PolicyFiles) -> dict[str, float]:
    """Times what a request pays for showing its decision, without a shadow and with one."""
    facts = Facts(
        "resolve-ticket", Relation.ASSIGNEE, "general", Provenance.ROUTED, OpenedBy.CUSTOMER, Presence.ABSENT
    )
    decided = load(files, "1").decide_for(frozenset({"support-tier1"}), facts, ("customer.name",))
    found = {}
    for name, on in (("off", False), ("on", True)):
        tally = Tally()
        tally.on = on
        began = time.perf_counter()
        for _ in range(SHOWN):
            tally.saw(decided)
        found[name] = (time.perf_counter() - began) / SHOWN * 1e9
    return found


def table(result: dict) -> Table:
    """Draws the replays."""
    cost = result["tally_ns"]
    title = (
        f"Replay of a ledger of {result['ledger_mib']:,.0f} MiB; a request shows its decision in "
        f"{cost['off']:.0f} ns without a shadow, {cost['on']:.0f} ns with one"
    )
    drawn = Table(title=title)
    for name in (
        "the draft changes",
        "decisions",
        "inputs",
        "changed",
        "s",
        "of it people",
        "CPU s",
        "decisions/s",
    ):
        drawn.add_column(name, justify="left" if name == "the draft changes" else "right")
    for row in result["rows"]:
        drawn.add_row(
            row["draft"], f"{row['decisions']:,}", f"{row['inputs']:,}", f"{row['changed']:,}",
            f"{row['seconds']:.1f}", f"{row['people_seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}", f"{row['per_second']:,.0f}",
        )  # fmt: skip
    return drawn


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(run(quick=options.quick, say=lambda text: print(text, file=sys.stderr)))
    Console(width=150).print(table(result), highlight=False)


if __name__ == "__main__":
    main()
