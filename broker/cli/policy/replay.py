"""`broker policy replay`: what a draft would have changed in decisions that are on record."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli.output import print_json, print_line, print_table, progress_bar
from broker.cli.persons import Administrator, run
from broker.cli.policy import named
from broker.cli.policy.options import Json, read
from broker.cli.times import moment
from broker.errors import PolicyInvalidError, StartupError
from broker.settings import read_settings

if TYPE_CHECKING:
    from broker.policy import Policy
    from broker.policy.replay import Flip, ReplayReport


MOST_SHOWN = 3
"""Agents, ticket kinds and roles shown per flip; `--json` has more of them."""

Since = Annotated[str, typer.Option("--since", help="From when: 30d, 12h, 45m, 2w, or 2026-11-01 in UTC.")]
Until = Annotated[str, typer.Option("--until", help="Up to when, written alike; now, if left out.")]


def replay(
    administrator: Administrator | None,
    draft: named.Draft,
    since: Since = "30d",
    until: Until = "",
    as_json: Json = False,
) -> None:
    """Take recorded decisions again under a draft: what would have been shown otherwise, and to whom.

    Asks the broker for whom a token or --as is given; else runs as broker_admin (BROKER_ADMIN_DSN), for as
    long as it takes. Changes nothing; that you asked is put on the ledger.

    \b
    Example:
      broker policy replay drafts/wider --since 30d --as anna
      broker policy replay policies --since 2026-11-01 --until 2026-11-08 --json
    """
    from broker.policy import PolicyFiles

    now = datetime.now(UTC)
    begin, end = moment(since, "--since", now), moment(until, "--until", now) if until else now
    if begin >= end:
        raise StartupError("--since must lie before --until")
    if administrator is not None:
        report = _over_port(administrator, draft, begin, end)
    elif named.is_kept(draft):
        raise StartupError(
            f"{named.called(draft)} is the broker's: give --token-file, --token-command or --as"
        )
    else:
        settings = read_settings("admin_dsn")
        policy = read(PolicyFiles.from_directory(named.folder(draft)))
        report = asyncio.run(_replay(settings.admin_dsn, policy, begin, end))
    if as_json:
        print_json(report.as_mapping())
    else:
        show(report, begin, end)


def _over_port(administrator: Administrator, draft: str, begin: datetime, end: datetime) -> ReplayReport:
    from broker.client import PolicyClient
    from broker.policy.replay import ReplayReport

    text = named.text(draft)

    async def ask(client: PolicyClient) -> dict[str, Any]:
        return await client.replay(text or await named.kept(client, draft), since=begin, until=end)

    answer = run(administrator, PolicyClient, ask, doing="Replaying")
    if "findings" in answer:
        raise PolicyInvalidError(answer["findings"])
    return ReplayReport.from_mapping(answer)


async def _replay(dsn: str, policy: Policy, begin: datetime, end: datetime) -> ReplayReport:
    from broker.ledger import EventIds
    from broker.replaying import open_replay_pool, replay_ledger

    pool = await open_replay_pool(dsn)
    try:
        with progress_bar("Replaying") as bar:
            return await replay_ledger(
                pool, EventIds(), policy, asked_by=f"broker policy replay by {getpass.getuser()}",
                since=begin, until=end,
                progress=lambda what, done, decisions: bar(what, done, f"{decisions:,} decisions"),
            )  # fmt: skip
    finally:
        await pool.close()


def show(report: ReplayReport, begin: datetime, end: datetime) -> None:
    """Prints a report for people: what it exposes, what it takes away, and what nobody can know."""
    print_line(f"{report.decisions:,} decisions from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC")
    print_line(f"would have been otherwise: {report.changed:,}")
    if report.flips:
        _show_exposure(report)
        _show_flips("Shown more", report.widened)
        _show_flips("Shown less", report.narrowed)
    if report.shut:
        print_line(f"showed something, would have withheld everything: {report.shut:,} decisions")
    for missing, count in report.undecidable.items():
        print_line(f"undecidable: {count:,} decisions; their record does not tell: {missing}")
    for name, count in report.fields_unknown.items():
        print_line(f"not compared: {name} in {count:,} decisions; the draft's catalog does not know it")
    for group, versions in report.groups_not_recorded.items():
        told = ", ".join(map(str, versions))
        print_line(f"not on record under version {told}: who was in {group}, which it did not map")
    if report.groups_never_recorded:
        print_line(f"no decision tells of these groups: {', '.join(report.groups_never_recorded)}")


def _show_exposure(report: ReplayReport) -> None:
    if not report.people_counted:
        print_line("people were not counted: too many different decisions; choose a shorter span")
        return
    if report.opened:
        reached = report.newly_reachable
        told = f"{reached.customers:,} customers, in {report.opened:,} decisions that withheld everything"
        print_line(f"newly reachable: {told}")
        if reached.nameless:
            print_line(f"  and whoever {reached.nameless:,} of them were about, which name no customer")
    for name, people in report.sensitive_newly_clear.items():
        whose = f"of {people.customers:,} customers, before {people.agents:,} agents"
        print_line(f"newly in clear: {name} (sensitive) {whose}")


def _show_flips(title: str, flips: tuple[Flip, ...]) -> None:
    if not flips:
        return
    rows = [
        (
            flip.field, f"{flip.before} -> {flip.after}", f"{flip.decisions:,}", f"{flip.people.customers:,}",
            most(flip.people.most_concerned, flip.people.agents), most(flip.ticket_kinds), most(flip.roles),
            flip.examples[0] if flip.examples else "",
        )
        for flip in flips
    ]  # fmt: skip
    columns = ("field", "level", "decisions", "customers", "agents", "ticket kinds", "roles", "for example")
    print_table(columns, rows, title=title)


def most(counts: Mapping[str, int], total: int = 0) -> str:
    """Names the most frequent, and how many more there are."""
    shown = [f"{word.rpartition('|')[2]} {count:,}" for word, count in list(counts.items())[:MOST_SHOWN]]
    more = max(total, len(counts)) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
