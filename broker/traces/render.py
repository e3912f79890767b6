"""Draws a waterfall in a terminal; apart from waterfall.py because only a CLI needs rich."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from broker.telemetry import ERROR_REASON, RPC_RESPONSE_STATUS_CODE
from broker.traces.waterfall import Row, Trace, waterfall

WIDTH = 22
"""Cells of the bar; with it the table fits into 80 columns."""


def render(trace: Trace, width: int = WIDTH, *, title: str = "") -> RenderableType:
    """Gives what `broker trace show` prints: for each request a tree of spans and their place in time."""
    parts: list[RenderableType] = [Text(title or f"Grant {trace.grant_id}", style="bold")]
    for trace_id, rows in groupby(waterfall(trace, width), key=lambda row: row.trace_id):
        parts += [Text(), _request(trace_id, list(rows), width)]
    if not trace.spans:
        parts.append(Text("No spans are stored about this.", style="dim"))
    if trace.truncated:
        parts.append(Text("There are more traces than are shown.", style="dim"))
    return Group(*parts)


def _request(trace_id: str, rows: list[Row], width: int) -> Group:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("span", min_width=26, no_wrap=True)
    table.add_column("at ms", justify="right", min_width=8)
    table.add_column("took ms", justify="right", min_width=8)
    table.add_column("", min_width=width, no_wrap=True)
    for row in rows:
        colour = "red" if row.status == "ERROR" else "cyan" if row.depth == 0 else "green"
        first, cells = row.bar
        table.add_row(
            Text("  " * row.depth + row.name.removeprefix("broker.v1.")),
            f"{row.offset_ms:.3f}",
            f"{row.duration_ms:.3f}",
            Text(" " * first + "━" * cells, style=colour),
        )
    root = rows[0]
    said = (root.attributes.get(RPC_RESPONSE_STATUS_CODE), root.attributes.get(ERROR_REASON))
    outcome = " ".join(str(word) for word in said if word)
    heading = Text(f"{root.start:%Y-%m-%d %H:%M:%S} UTC  {outcome}  ")
    return Group(heading.append(f"trace {trace_id}", style="dim"), table)
