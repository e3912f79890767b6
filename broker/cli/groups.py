"""A group of verbs whose list tells of each verb a whole sentence, on as many lines as that takes."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

LONGEST = 200
"""Characters of a verb's first sentence; a longer one is no summary."""


class VerbGroup(TyperGroup):
    """Lists its verbs; click alone cuts each summary off at the edge of the terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of verbs; typer keeps the types of both to itself."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, verb.get_short_help_str(limit=LONGEST)) for name, verb in found if verb and not verb.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
