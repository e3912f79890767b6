"""Draws a waterfall in a terminal; apart from waterfall.py because only a CLI needs rich."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from broker.telemetry import ERROR_REASON, RPC_RESPONSE_STATUS_CODE
from broker.traces.waterfall import BAR_WIDTH, Trace, waterfall


def render(trace: Trace, width: int = BAR_WIDTH) -> Table:
    """Gives the table that `broker trace show` prints: a tree of spans with their place in time."""
    table = Table(title=f"Grant {trace.grant_id}", title_justify="left", box=None, pad_edge=False)
    table.add_column("span", no_wrap=True)
    table.add_column("at ms", justify="right")
    table.add_column("took ms", justify="right")
    table.add_column("", min_width=width, no_wrap=True)
    table.add_column("outcome")
    for row in waterfall(trace, width):
        if row.depth == 0:
            heading = f"{row.start:%Y-%m-%d %H:%M:%S} UTC  trace {row.trace_id}"
            table.add_row(Text(heading, style="dim", overflow="ignore"))
        colour = "red" if row.status == "ERROR" else "cyan" if row.depth == 0 else "green"
        first, cells = row.bar
        said = (row.attributes.get(RPC_RESPONSE_STATUS_CODE), row.attributes.get(ERROR_REASON))
        table.add_row(
            Text("  " * row.depth + row.name),
            f"{row.offset_ms:.3f}",
            f"{row.duration_ms:.3f}",
            Text(" " * first + "━" * cells, style=colour),
            " ".join(str(word) for word in said if word),
        )
    if trace.truncated:
        table.caption = "There are more traces than are shown."
    return table
