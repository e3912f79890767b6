"""`broker audit spans`: spans by attribute, name and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.audit import filters
from broker.cli.audit.events import Json
from broker.cli.output import print_json, print_table
from broker.cli.persons import Administrator, run
from broker.errors import StartupError

if TYPE_CHECKING:
    from broker.client import AuditClient, MeasuredSpan

USUAL = 100


def spans(
    administrator: Administrator,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", help="NAME=VALUE that a span must have; may be given often."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the span, as 'read record'.")] = "",
    since: filters.Since = "1h",
    until: filters.Until = "",
    most: Annotated[int, typer.Option("--most", min=1, max=10_000, help="At most so many.")] = USUAL,
    as_json: Json = False,
) -> None:
    """List spans by attribute, name and time, newest first.

    \b
    Example:
      broker audit spans --attribute broker.error.reason=FEED_STALE --since 2h --as audrey
      broker audit spans --name "broker.v1.AccessService/ReadRecord" --since 10m --as audrey
    """
    from broker.client import AuditClient

    begin, end = filters.period(since, until)
    now = datetime.now(UTC)
    attributes = _pairs(attribute or ())

    async def gather(client: AuditClient) -> list[MeasuredSpan]:
        asked = client.spans(
            attributes=attributes, name=name, since=begin or now - timedelta(hours=1), until=end or now,
            most=most,
        )  # fmt: skip
        return [span async for span in asked]

    found = run(administrator, AuditClient, gather, doing="Looking through spans")
    if as_json:
        print_json([asdict(span) for span in found])
        return
    print_table(
        ("began", "took ms", "span", "status", "trace"),
        (
            (
                f"{datetime.fromtimestamp(span.start_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S.%f}",
                f"{(span.end_ns - span.start_ns) / 1e6:.3f}", span.name.removeprefix("broker.v1."),
                span.status, span.trace_id,
            )
            for span in found
        ),
    )  # fmt: skip


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise StartupError("--attribute takes NAME=VALUE, as broker.error.reason=FEED_STALE")
        found[name] = value
    return found
