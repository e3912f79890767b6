"""`broker audit stream`: the ledger for a SIEM."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from broker.cli.audit.events import as_mapping
from broker.cli.persons import Administrator, run
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import AuditClient

INDEXES = {
    "jsonl": re.compile(rb'{"event_id":"[0-9a-f-]{36}","leaf_index":([0-9]+),'),
    "ocsf": re.compile(rb'{"activity_id":[0-9]+,"category_uid":.*?,"sequence":([0-9]+),'),
    "cef": re.compile(rb"CEF:0\|broker\|.*? cn1=([0-9]+) "),
}
"""How each format's lines begin, up to the index of the event's leaf; before anything that a caller named."""

TAIL = 1 << 20
"""Bytes at the end of a file in which its last line is looked for."""


def stream(
    administrator: Administrator,
    form: Annotated[
        str, typer.Option("--format", help="jsonl, ocsf (1.3.0, API Activity) or cef.")
    ] = "jsonl",
    append: Annotated[
        Path | None,
        typer.Option("--append", help="File to go on with: after its last whole line, in its format."),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="Index of the first leaf, or now; for an --append that is there, its own."
        ),
    ] = "0",
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, for ever.")] = False,
) -> None:
    """Write the ledger's events in the order of the transparency log, one a line, for a SIEM.

    Each event comes once. With --append the file itself is the cursor: cut off anywhere, the next run goes on
    behind its last whole line, so nothing is lost and nothing repeated; a file without one is refused. On a
    pipe, keep the index of the last line that is safe and go on with --from. A broker that does not answer is
    waited for.

    \b
    Example:
      broker audit stream --append ledger.jsonl --follow --as audrey
      broker audit stream --format cef --from now --follow --as audrey | logger
    """
    from broker.audit.export import json_line
    from broker.audit.siem import cef_line, ocsf_line
    from broker.client import AuditClient

    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "jsonl": json_line,
        "ocsf": ocsf_line,
        "cef": cef_line,
    }
    if form not in lines:
        raise StartupError("--format is jsonl, ocsf or cef")
    if not (start == "now" or (start.isascii() and start.isdigit())):
        raise StartupError("--from takes the index of a leaf, or now")
    first = None if start == "now" else int(start)
    if append is not None and append.exists():
        first = mended(append, form, first)
    with contextlib.ExitStack() as stack:
        out: BinaryIO = stack.enter_context(append.open("ab")) if append else sys.stdout.buffer

        async def write(client: AuditClient) -> None:
            async for batch in client.stream(first, follow=follow):
                if batch.events:
                    text = "".join(lines[form](as_mapping(event)) + "\n" for event in batch.events)
                    out.write(text.encode())
                    out.flush()
                    if append is not None:
                        os.fsync(out.fileno())

        run(administrator, AuditClient, write, doing="Following the ledger" if append else "")


def mended(path: Path, form: str, first: int | None) -> int | None:
    """Cuts an unfinished last line off a stream's file; gives where to go on, `first` where it is empty.

    Raises:
        StartupError: its last whole line is not of this format, or it has none; nothing was touched.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return first
        file.seek(max(size - TAIL, 0))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        last = tail[tail.rfind(b"\n", 0, whole - 1) + 1 : whole] if whole else b""
        found = INDEXES[form].match(last)
        if found is None:
            what = f"is no event in format {form}" if whole else "has no end"
            raise StartupError(f"{path}: its last line {what}; it is left as it is. Name a new file")
        file.truncate(size - len(tail) + whole)
    return int(found[1]) + 1
