"""`broker policy compare`: what a change of policy changes for people."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, print_line, progress
from broker.cli.policy import named
from broker.cli.policy.options import Json

if TYPE_CHECKING:
    from broker.policy.compare import Comparison, Side

FAILED = 1


class FailOn(StrEnum):
    """What makes the command fail, for a pipeline."""

    NOTHING = "nothing"
    WIDENING = "widening"
    NARROWING = "narrowing"
    DIFFERENCE = "difference"


HEADINGS = {
    "widening": "Widening: somebody may see or do more",
    "undecidable": "Undecidable: it hangs on a fact that one side's release does not know",
    "narrowing": "Narrowing: somebody may see or do less",
    "neutral": "Neutral: nobody's access changes",
}

Named = Annotated[
    str,
    typer.Argument(
        help="Folder with five policy files; or, of the broker's, a version's number or a proposal's id.",
        show_default=False,
    ),
]


def compare(
    administrator: named.WhoAsks,
    old: Named,
    new: Named,
    fail_on: Annotated[
        FailOn, typer.Option("--fail-on", help="Exit with 1 where there is one; undecidable counts as both.")
    ] = FailOn.NOTHING,
    as_json: Json = False,
) -> None:
    """Say what changes for people from one policy to another: every difference, in few sentences.

    Rules, groups, catalog, limits and admin rights; widening apart from narrowing. Files are not
    compared by their text: what is written otherwise and means the same is no difference.

    A version or a proposal is asked of the broker, for the person of a token or --as; folders need neither.

    Exit codes: 0 compared; 1 a side cannot be read, or there is what --fail-on names; 2 wrong usage.

    \b
    Example:
      broker policy compare policies draft --fail-on widening
      broker policy compare 3 draft --as anna
    """
    from broker.policy import PolicyFiles
    from broker.policy.compare import Side
    from broker.policy.compare import compare as compare_policies

    today = datetime.now(UTC).date()
    texts = named.texts((old, new), administrator)
    with progress("Reading both sides") as now:
        before, after = (
            Side.of_files(named.called(name), PolicyFiles.from_mapping(texts[name].files), today=today)
            for name in (old, new)
        )
        comparison = compare_policies(before.policy, after.policy, now)
    if as_json:
        print_json({"old": before.name, "new": after.name, **comparison.as_mapping()})
    else:
        show(comparison, before, after)
    if fails(comparison, fail_on):
        raise typer.Exit(FAILED)


def show(comparison: Comparison, old: Side, new: Side) -> None:
    """Prints a comparison for people."""
    if not comparison.changes:
        print_line(f"{old.name} -> {new.name}: no difference")
        return
    from broker.policy.compare import Direction

    told = {direction: comparison.going(direction) for direction in Direction}
    counts = ", ".join(f"{len(changes)} {direction}" for direction, changes in told.items() if changes)
    print_line(f"{old.name} -> {new.name}: {counts}")
    for direction, changes in told.items():
        if changes:
            print_line(f"\n{HEADINGS[direction]}")
        for change in changes:
            print_line(f"  {change.area:8} {change.sentence}")


def fails(comparison: Comparison, fail_on: FailOn) -> bool:
    """Says whether there is what the caller does not want."""
    match fail_on:
        case FailOn.WIDENING:
            return comparison.widens
        case FailOn.NARROWING:
            return comparison.narrows
        case FailOn.DIFFERENCE:
            return bool(comparison.changes)
        case FailOn.NOTHING:
            return False
