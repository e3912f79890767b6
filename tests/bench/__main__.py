"""All benchmarks of a run, as tables and as JSON.

    python -m tests.bench                   everything, a quarter of an hour
    python -m tests.bench --quick           under a minute
    python -m tests.bench --only reads      one part: reads, decision, replay, scale, compare, exposure,
                                            attribution, propagation, events
    python -m tests.bench --json out.json   the figures for a program

Ratios are of one run, contenders in turn; single times hang on the machine and are only context.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import (
    attribution,
    attribution_time,
    compare,
    decision,
    events,
    exposure,
    propagation,
    reads,
    replay,
    scale,
)

PARTS = (
    "reads",
    "decision",
    "replay",
    "scale",
    "compare",
    "exposure",
    "attribution",
    "propagation",
    "events",
)


def cell(value: dict) -> str:
    """Writes a ratio with its spread."""
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def reads_table(result: dict) -> Table:
    """Draws reads and grants against the bare handlers."""
    table = Table(title=f"Against the bare handlers; spans missing after the run: {result['spans_missing']}")
    for name in ("what", "against", "c", "throughput", "p50", "p99", "calls/s", "CPU ms", "bare CPU ms"):
        table.add_column(name, justify="left" if name in {"what", "against"} else "right")
    for row in result["rows"]:
        table.add_row(
            row["what"], row["against"], str(row["concurrency"]), cell(row["throughput"]), cell(row["p50"]),
            cell(row["p99"]), f"{row['per_second']:.0f}", f"{row['cpu_ms']:.2f}", f"{row['bare_cpu_ms']:.2f}",
        )  # fmt: skip
    return table


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=PARTS, action="append")
    options = parser.parse_args()
    began = time.perf_counter()
    err, out = Console(stderr=True), Console(width=150)

    def say(text: str) -> None:
        err.print(f"[dim]{time.perf_counter() - began:6.1f} s[/dim] {text}", highlight=False)

    result: dict = {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "load_before": os.getloadavg()[0],
        }
    }
    for part in options.only or PARTS:
        say(part)
        if part == "reads":
            result[part] = asyncio.run(reads.run(quick=options.quick, say=say))
            out.print(reads_table(result[part]))
        elif part == "decision":
            result[part] = decision.run(options.quick, say)
            out.print(decision.table(result[part]), highlight=False)
        elif part == "compare":
            result[part] = compare.run(options.quick, say)
            out.print(compare.table(result[part]), highlight=False)
        elif part == "exposure":
            result[part] = asyncio.run(exposure.run(quick=options.quick, say=say))
            out.print(exposure.table(result[part]), highlight=False)
        elif part == "events":
            result[part] = asyncio.run(events.run(quick=options.quick, say=say))
            out.print(events.table(result[part]), highlight=False)
        elif part == "attribution":
            result[part] = attribution.run(quick=options.quick, say=say)
            out.print(attribution.table(result[part]), attribution.table_elsewhere(result[part]))
            result[part]["time"] = asyncio.run(attribution_time.run(quick=options.quick, say=say))
            out.print(attribution_time.table(result[part]["time"]), highlight=False)
        elif part == "propagation":
            result[part] = asyncio.run(propagation.run(quick=options.quick, say=say))
            out.print(propagation.table(result[part]), highlight=False)
        elif part == "replay":
            result[part] = asyncio.run(replay.run(quick=options.quick, say=say))
            out.print(replay.table(result[part]), highlight=False)
        else:
            result[part] = asyncio.run(scale.run(quick=options.quick, say=say))
            found = result[part]
            out.print(
                f"{found['many']} against {found['few']} customers and tickets: "
                f"latency {cell(found['p50'])}, throughput {cell(found['throughput'])}\n"
                f"start to first answer: {', '.join(f'{s:.2f}' for s in found['start_seconds'])} s; "
                f"worker: {found['worker_mib']:.0f} MiB",
                highlight=False,
            )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
