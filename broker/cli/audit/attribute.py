"""`broker audit attribute`: whose reads explain the complaints."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from broker.cli.audit.options import who
from broker.cli.output import CommandFailedError, Progress, print_json, print_line, print_table, progress, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.audit.leak import LeakReport

NOT_A_VERDICT = (
    "This is evidence, not a verdict: an overlap far beyond chance says that the data went through their "
    "hands, not that they gave it away. A stolen session or a watched screen looks the same."
)

MATCH_SECONDS = 60.0
"""Longest time of the one scan over the customers' contacts."""


def attribute(
    administrator: Administrator | None,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="COMPLAINTS.CSV",
            exists=True,
            dir_okay=False,
            help="Columns kind, identifier, contact_time, fields.",
        ),
    ],
    among_all: Annotated[
        bool,
        typer.Option(
            "--among-all", help="Compare with all customers, not with those of the same queues and weeks."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Rank agents, tools and pairs of agents by how far their reads explain complaints beyond chance.

    Each line of the file is a complaint: kind (email, phone, customer, ticket), identifier, contact_time
    (ISO 8601 with its zone, or a date), fields that the caller knew (customer.email customer.phone).
    Identifiers are compared inside the records database, at most 500 a question and 2000 a day; none is
    printed. Asks the broker for whom a token or --as is given; else runs as broker_auditor
    (BROKER_AUDITOR_DSN, BROKER_AUDITOR_RECORDS_DSN). The question and whom it found, by pseudonym, are
    events of the ledger.

    \b
    Example:
      broker audit attribute complaints.csv --as audrey
    """
    from broker.audit.complaints import MOST_BYTES, ComplaintFileError
    from broker.audit.matching import IdentifiersUsedUpError

    with file.open("rb") as source:
        data = source.read(MOST_BYTES + 1)
    try:
        if administrator is not None:
            report = _over_port(administrator, data, among_all=among_all)
        else:
            settings = read_settings("auditor_dsn")
            with progress("Reading complaints") as told:
                report = asyncio.run(
                    _ask(
                        settings.auditor_dsn, settings.auditor_records_dsn or settings.auditor_dsn, data,
                        told, conditioned=not among_all,
                    )
                )  # fmt: skip
    except ComplaintFileError as exc:
        raise StartupError(str(exc)) from None
    except IdentifiersUsedUpError:
        raise CommandFailedError(
            "too many identifiers were asked for today; nothing was compared",
            "ask again tomorrow (UTC); the cap keeps a complaint file from being a list of people to try",
        ) from None
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)


def _over_port(administrator: Administrator, data: bytes, *, among_all: bool) -> LeakReport:
    """Asks the broker; gives the same as is made from the databases."""
    from broker.audit.attribution import Attribution, Candidate, Verdict
    from broker.audit.complaints import Unused
    from broker.audit.leak import Evidence, LeakReport, Suspect
    from broker.client import AuditClient

    found = run(administrator, AuditClient, lambda client: client.attribute_leak(data, among_all=among_all))
    suspects = tuple(
        Suspect(
            c.names,
            Candidate((), c.kind, c.complaints, c.expected, c.p_value, c.corrected, c.p_among_all, c.named),
            tuple(Evidence(e.line, UUID(e.event_id), e.time, e.fields, e.tool) for e in c.evidence),
        )
        for c in found.candidates
    )
    attribution = Attribution(
        Verdict[found.verdict.upper()], tuple(s.candidate for s in suspects), found.used, found.uncovered,
        found.unexplained, found.tests,
    )  # fmt: skip
    return LeakReport(
        UUID(found.decision_id), attribution, suspects, tuple(Unused(*each) for each in found.not_used),
        found.lines, found.matched, tuple(map(UUID, found.tampered)),
    )  # fmt: skip


async def _ask(dsn: str, records_dsn: str, data: bytes, told: Progress, *, conditioned: bool) -> LeakReport:
    from broker.audit.complaints import read_complaints
    from broker.audit.leak import attribute_leak, known_fields
    from broker.audit.record import Auditor
    from broker.database import open_pool
    from broker.ledger import EventIds

    pool = await open_pool(dsn, name="broker audit attribute", max_size=1, statement_timeout=30)
    try:
        complaints = read_complaints(data, now=datetime.now(UTC), known=await known_fields(pool))
        records = await open_pool(
            records_dsn, name="broker audit attribute", max_size=1, statement_timeout=MATCH_SECONDS
        )
        try:
            return await attribute_leak(
                pool, records, complaints, by=Auditor(who()), ids=EventIds(),
                conditioned=conditioned, progress=told,
            )  # fmt: skip
        finally:
            await records.close()
    finally:
        await pool.close()


def _print(report: LeakReport) -> None:
    found = report.attribution
    named = [s for s in report.suspects if s.candidate.named]
    print_table(
        ("", "who", "complaints", "by chance", "p", "corrected", "among all", "named"),
        (
            (
                s.candidate.kind, " + ".join(s.names), f"{len(s.candidate.lines)} of {found.used}",
                f"{s.candidate.expected:.2f}", f"{s.candidate.p_value:.2g}", f"{s.candidate.corrected:.2g}",
                _small(s.candidate.p_unconditioned), s.candidate.named,
            )
            for s in report.suspects
        ),
    )  # fmt: skip
    if not named:
        print_line(f"Nobody is named: {found.verdict.value}.")
    for s in named:
        print_line(f"Reads of {' + '.join(s.names)}:")
        print_table(
            ("line", "read", "event", "tool", "fields in clear"),
            ((e.line, e.time, e.event_id, e.tool, " ".join(e.fields) or "not told") for e in s.evidence),
        )
    if named:
        print_line("Before anything is done about it, have the record verified: broker audit verify")
    if found.uncovered:
        print_line(f"Nobody had seen what the caller knew: {_lines(found.uncovered)}")
    if named and found.unnamed:
        print_line(f"Not explained by who is named: {_lines(found.unnamed)}")
    if report.tampered:
        print_line(
            f"{len(report.tampered)} index rows differ from their ledger events, or have none any more, "
            "and count for nothing: unless their month was pruned, have the database looked at"
        )
    if report.unused:
        print_table(("line", "not used, because"), ((u.line, u.why) for u in report.unused))
    print_line(f"{found.used} of {report.lines} complaints used; {found.tests} tests corrected for.")
    print_line(NOT_A_VERDICT)
    say(f"on record as event {report.event_id}")


def _small(p: float | None) -> str:
    return "" if p is None else f"{p:.2g}"


def _lines(numbers: tuple[int, ...]) -> str:
    return "lines " + ", ".join(map(str, numbers)) if len(numbers) > 1 else f"line {numbers[0]}"


def _as_json(report: LeakReport) -> dict[str, Any]:
    found = report.attribution
    return {
        "event_id": report.event_id,
        "verdict": found.verdict.name.lower(),
        "note": NOT_A_VERDICT,
        "lines": report.lines,
        "matched": report.matched,
        "used": found.used,
        "tests": found.tests,
        "candidates": [
            {
                "kind": s.candidate.kind,
                "names": s.names,
                "named": s.candidate.named,
                "complaints": s.candidate.lines,
                "expected": s.candidate.expected,
                "p_value": s.candidate.p_value,
                "corrected": s.candidate.corrected,
                "p_among_all": s.candidate.p_unconditioned,
                "evidence": [
                    {
                        "line": e.line,
                        "event_id": e.event_id,
                        "time": e.time,
                        "tool": e.tool,
                        "fields": e.fields,
                    }
                    for e in s.evidence
                ],
            }
            for s in report.suspects
        ],
        "uncovered": found.uncovered,
        "unexplained": found.unnamed,
        "tampered": report.tampered,
        "not_used": [{"line": u.line, "why": u.why} for u in report.unused],
    }
