"""Where the demo's story is shown, and what ends it where it goes otherwise than told."""

from __future__ import annotations

import sys
from collections.abc import Awaitable

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from broker.client import BrokerCallError, FieldState, Record


class WrongStoryError(Exception):
    """A step went otherwise than told."""


class Stage:
    """Shows what each actor saw."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
        self._step = 0

    def step(self, title: str) -> None:
        """Begins the next step."""
        self._step += 1
        self.console.print()
        self.console.print(Text(f"{self._step}. {title}", style="bold"))

    def tell(self, text: str) -> None:
        """Says what is to be noticed."""
        self.console.print(Text(f"   {text}"))

    def record(self, who: str, record: Record) -> None:
        """Shows a record as the agent sees it."""
        table = Table("field", "state", "value", box=box.SIMPLE, title=f"   {who} sees", title_justify="left")
        colours = {FieldState.CLEAR: "green", FieldState.MASKED: "yellow", FieldState.WITHHELD: "red"}
        for each in record:
            shown = each.reason if each.state is FieldState.WITHHELD else each.value or ""
            table.add_row(each.name, Text(each.state, style=colours[each.state]), Text(shown))
        self.console.print(table)

    def refusal(self, who: str, error: BrokerCallError) -> None:
        """Shows a refusal as the tool sees it."""
        self.console.print(
            Panel(
                Text(f"{error.code}  {error.reason}\n{error}\ndecision id {error.decision_id}"),
                title=f"{who} sees",
                title_align="left",
                border_style="red",
                expand=False,
            )
        )


def expect(claim: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads as a sentence
    """Ends the story where it goes otherwise than told.

    Raises:
        WrongStoryError: the claim does not hold.
    """
    if not claim:
        raise WrongStoryError(otherwise)


async def refused(call: Awaitable[object], error: type[BrokerCallError]) -> BrokerCallError:
    """Awaits a call that must be refused in this very way; gives the refusal.

    Raises:
        WrongStoryError: it was not.
    """
    try:
        await call
    except error as exc:
        return exc
    except BrokerCallError as exc:
        raise WrongStoryError(f"refused with {exc.reason}, not with {error.reasons[0]}") from exc
    raise WrongStoryError(f"answered, where {error.reasons[0]} was due")
