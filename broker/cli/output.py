"""What commands print: tables for people, JSON for programs, progress for the impatient.

Invariants:
- nothing that came from a database or the network reaches the terminal with control characters in it;
- progress is seen on a terminal alone and never in what a program reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

FILE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


class CommandFailedError(Exception):
    """A command did not do what was asked; carries what to do next."""

    def __init__(self, message: str, next_step: str = "") -> None:
        """Takes one sentence, and the next step."""
        super().__init__(message)
        self.next_step = next_step


class Progress(Protocol):
    """Takes what is done now."""

    def __call__(self, text: str, /) -> None:
        """Shows it."""


class BarProgress(Protocol):
    """Takes what is done now, which share of it is done, and what else is to be seen."""

    def __call__(self, text: str, done: float, more: str, /) -> None:
        """Shows it."""


def print_json(data: object) -> None:
    """Prints data as one JSON document; times in ISO 8601."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=_plain) + "\n")


def print_line(text: str = "") -> None:
    """Prints a line of data."""
    sys.stdout.write(f"{printable(text)}\n")


def say(text: str) -> None:
    """Says something that is not data."""
    sys.stderr.write(f"{text}\n")


def say_error(text: str, *more: str) -> None:
    """Says what went wrong, then what to do and what to quote."""
    lines = [f"broker: {text}", *(f"  {line}" for line in more if line)]
    say("\n".join(lines))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]], *, title: str = "") -> None:
    """Prints a table; empty ones say so."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        count += 1
        table.add_row(*(Text(printable(shown(cell))) for cell in row))
    if count:
        console().print(table)
    else:
        say(f"{title}: nothing to show" if title else "nothing to show")


def console() -> Console:
    """Opens standard output for tables: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def shown(cell: object) -> str:
    """Writes a table's cell."""
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case datetime():
            return f"{cell:%Y-%m-%d %H:%M:%S}"
        case _:
            return str(cell)


def printable(text: str) -> str:
    """Replaces what a terminal would obey instead of show."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


@contextmanager
def progress(text: str) -> Iterator[Progress]:
    """Shows a spinner with a text that may change; on no terminal, nothing."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(file=sys.stderr).status(Text(text)) as status:
        yield lambda new: status.update(Text(new))


@contextmanager
def progress_bar(text: str) -> Iterator[BarProgress]:
    """Shows a bar with a text beside it; on no terminal, nothing."""
    if not sys.stderr.isatty():
        yield lambda _text, _done, _more: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(), TextColumn("{task.fields[more]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        bar = bars.add_task(text, total=1.0, more="")
        yield lambda what, done, more: bars.update(bar, description=what, completed=done, more=more)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
