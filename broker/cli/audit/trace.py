"""`broker audit trace`: what happened in one thing, as it was measured and as it is on record."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.audit.events import Json, as_mapping
from broker.cli.output import console, print_json, print_line, say
from broker.cli.persons import Administrator, run

if TYPE_CHECKING:
    from broker.client import LedgerEvent, MeasuredSpan
    from broker.traces import Span


def trace(
    administrator: Administrator,
    thing: Annotated[
        str, typer.Argument(metavar="ID", help="A trace, a grant, an event or decision, or a ticket.")
    ],
    as_json: Json = False,
) -> None:
    """Show what was measured and what is on record of a trace, grant, decision, ticket or event.

    Spans are the copy, events the record: the facts of each decision, its rules and policy version, and
    whether the event is proven to be in the transparency log (--json holds the proofs, for verify-proof). A
    ticket is found by its own id while the broker has grants on it, later by its pseudonym.

    \b
    Example:
      broker audit trace T-1001 --as audrey
      broker audit trace 4bf92f3577b34da6a3ce929d0e0e4736 --json --as audrey
    """
    from broker.client import AuditClient

    found = run(administrator, AuditClient, lambda client: client.trace(thing))
    if as_json:
        print_json(
            {
                "spans": [asdict(span) for span in found.spans],
                "events": [
                    {**as_mapping(event), "proof": json.loads(proof) if proof else None}
                    for event, proof in found.events
                ],
                "truncated": found.truncated,
            }
        )
        return
    from broker.traces import Trace
    from broker.traces.render import render

    spans = tuple(map(stored, found.spans))
    console().print(render(Trace(None, spans, truncated=False), title=f"Measured: {thing}"))
    print_line("\nOn record:")
    for event, proof in found.events:
        _tell(event, proof)
    if found.truncated:
        say("there is more of it than is shown; ask for one grant or one event")


def stored(span: MeasuredSpan) -> Span:
    """Gives a span as the waterfall takes it."""
    from broker.traces import Span

    return Span(
        span.trace_id, span.span_id, span.parent_span_id or None, span.name, span.kind, span.start_ns,
        span.end_ns, span.status, span.attributes,
    )  # fmt: skip


def _tell(event: LedgerEvent, proof: str) -> None:
    outcome = " ".join(word for word in (event.outcome, event.reason) if word)
    print_line(f"\n{event.record_time:%Y-%m-%d %H:%M:%S} UTC  {event.kind} {outcome}  {event.event_id}")
    print_line(f"  by        {event.agent or 'nobody known'}, {event.tool}")
    detail = event.detail
    for name in ("facts", "levels"):
        if isinstance(detail.get(name), dict):
            print_line(f"  {name:9} {_pairs(detail[name])}")
    if isinstance(detail.get("roles"), list):
        print_line(f"  roles     {', '.join(map(str, detail['roles']))}")
    if isinstance(detail.get("fields"), dict):
        for name, told in detail["fields"].items():
            print_line(f"  field     {name}: {_decided(told)}")
    if event.policy_version:
        print_line(f"  policy    version {event.policy_version}")
    in_log = f"leaf {event.leaf_index}" if event.leaf_index is not None else "not yet"
    print_line(f"  in log    {in_log}{', proven under the newest checkpoint' if proof else ''}")


def _decided(told: object) -> str:
    """Says how a field was decided: level and rule, or what was missing."""
    words = [str(word) for word in told] if isinstance(told, list) else [str(told)]
    return f"{words[0]} ({', '.join(words[1:])})" if len(words) > 1 else words[0]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
