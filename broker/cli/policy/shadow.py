"""`broker policy shadow`: a draft beside the version in force on live traffic, without effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.groups import VerbGroup
from broker.cli.output import CommandFailedError, print_json, print_line, print_table, say
from broker.cli.persons import Administrator, personal, run
from broker.cli.policy import named
from broker.cli.policy.options import Json

if TYPE_CHECKING:
    from broker.client import PolicyClient, Shadow, ShadowDifference, StartedShadow

app = typer.Typer(
    cls=VerbGroup,
    help="Let a draft decide beside the version in force, without effect, and list where it differs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def start(administrator: Administrator, draft: named.Draft, as_json: Json = False) -> None:
    """Let a draft run as shadow on every worker, in place of the one that runs.

    No answer changes; that you started it is put on the ledger.

    \b
    Example:
      broker policy shadow start drafts/wider --as anna
      broker policy shadow start 019ab2f0-7c1e-7000-8000-3f2a9c5d1e77 --as anna
    """
    from broker.client import PolicyClient

    text = named.text(draft)

    async def act(client: PolicyClient) -> StartedShadow:
        return await client.start_shadow(text or await named.kept(client, draft))

    started = run(administrator, PolicyClient, act, doing="Starting the shadow")
    if as_json:
        print_json(asdict(started))
    if started.shadow is None:
        findings = "\n  ".join(started.findings)
        raise CommandFailedError(
            f"the policy is wrong:\n  {findings}", "nothing has changed; mend these lines"
        )
    if as_json:
        return
    facts = started.facts
    counts = f"{facts['rules']} rules for {len(facts['roles'])} roles over {facts['fields']} fields"
    say(f"shadow {started.shadow.shadow_id} runs within a second or two: {counts} ({facts['verification']})")
    say("look at its differences with: broker policy shadow show")


def stop(administrator: Administrator, as_json: Json = False) -> None:
    """End the shadow that runs; what it has counted stays until the next one starts.

    \b
    Example:
      broker policy shadow stop --as anna
    """
    from broker.client import PolicyClient

    ended = run(administrator, PolicyClient, lambda client: client.stop_shadow(), doing="Stopping the shadow")
    if as_json:
        print_json({"shadow": asdict(ended) if ended else None})
    elif ended is None:
        say("no shadow was running")
    else:
        say("the shadow has ended; what it counted: broker policy shadow show")


def show(
    administrator: Administrator,
    most: Annotated[int, typer.Option("--most", min=1, max=2000, help="Most rows shown.")] = 50,
    as_json: Json = False,
) -> None:
    """Show where the shadow decides otherwise: the one that runs, or the last one.

    \b
    Example:
      broker policy shadow show --most 20 --as audrey
    """
    from broker.client import PolicyClient

    found = run(administrator, PolicyClient, lambda client: client.shadow(most=most))
    if found is None:
        raise CommandFailedError("there never was a shadow here", "start one: broker policy shadow start DIR")
    shadow, differences = found
    if as_json:
        print_json({**asdict(shadow), "differences": [asdict(each) for each in differences]})
    else:
        _print(shadow, differences)


def _print(shadow: Shadow, differences: Sequence[ShadowDifference]) -> None:
    state = f"ended {shadow.end_time:%Y-%m-%d %H:%M}" if shadow.end_time else "running"
    by = f" by {shadow.start_person.subject}" if shadow.start_person else ""
    print_line(f"shadow {shadow.shadow_id}, {state}, started {shadow.start_time:%Y-%m-%d %H:%M} UTC{by}")
    print_line(f"held against {shadow.compared:,} decisions; {shadow.differing:,} would have been otherwise")
    if shadow.trouble:
        print_line(f"trouble: {shadow.trouble}")
    if shadow.left_out:
        print_line(f"not looked at: {shadow.left_out:,} decisions, for lack of room in the workers")
    if shadow.unlisted:
        print_line(f"not listed: {shadow.unlisted:,} more differences, for lack of rows")
    rows = [
        (
            d.field, f"{d.active_level} -> {d.shadow_level}", f"{d.uses:,}", "+".join(d.roles) or "(none)",
            d.ticket_kind, d.purpose, f"{d.relation}, {d.provenance}, {d.opened_by}, {d.presence}",
        )
        for d in differences
    ]  # fmt: skip
    if rows:
        columns = ("field", "level", "decisions", "roles", "ticket kind", "purpose", "first seen with")
        print_table(columns, rows, title="Active policy -> shadow")


app.command("start")(personal(start))
app.command("stop")(personal(stop))
app.command("show")(personal(show))
