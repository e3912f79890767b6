"""`broker audit resolve` and `erase`: from pseudonyms back to customers, and never again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from broker.cli.audit.options import Json
from broker.cli.output import CommandFailedError, print_json, print_table, say
from broker.cli.persons import Administrator, run
from broker.errors import StartupError

Reason = Annotated[
    str, typer.Option("--reason", help="Why, for the ledger; no customers' data.", show_default=False)
]


def resolve(
    administrator: Administrator,
    reason: Reason,
    pseudonyms: Annotated[
        list[str] | None, typer.Argument(metavar="PSEUDONYM...", help="Pseudonyms of customers.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Customers as `exposure --jsonl` or a pack's customers.jsonl has them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell whose pseudonyms are, so that people can be notified.

    For who may call ResolvePseudonyms (admin.csv). Who asked, why and for how many is an event. Pseudonyms of
    people who were erased are nobody's. The output is personal data.

    \b
    Example:
      broker audit exposure --agent "https://idp.example|mallory" --jsonl > customers.jsonl
      broker audit resolve --file customers.jsonl --reason "INC-7: notify" --as rick
    """
    from broker.client import AuditClient

    names = [*(pseudonyms or ()), *(_read(file) if file else ())]
    if not names:
        raise StartupError("give pseudonyms, or --file")
    found = run(administrator, AuditClient, lambda client: client.resolve(names, reason=reason))
    if as_json:
        print_json([{"pseudonym": name, "customer_id": found.get(name)} for name in names])
    else:
        print_table(("pseudonym", "customer"), ((name, found.get(name, "nobody")) for name in names))


def erase(
    administrator: Administrator,
    customer_id: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's key.")],
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, nothing is done.")] = False,
    as_json: Json = False,
) -> None:
    """Unlink one customer from the ledger for ever.

    Ends their grants, takes them off their tickets, destroys their salt: nobody can tell any more whose the
    pseudonym is. Events, proofs and counts stay. Erase at the helpdesk first: a ticket that it sends later
    links the customer anew, under another pseudonym. Backups forget when they are overwritten
    (deploy/README.md). Safe to repeat, to be repeated where it failed. For who may call EraseCustomer.

    \b
    Example:
      broker audit erase 5 --reason "request of 2026-11-20" --as petra --yes
    """
    from broker.client import AuditClient

    if not yes:
        raise CommandFailedError("nothing was erased; it cannot be undone", "repeat with --yes to do it")
    done = run(administrator, AuditClient, lambda client: client.erase(customer_id, reason=reason))
    if as_json:
        print_json(asdict(done))
    elif done.salt_destroyed:
        say(f"erased: pseudonym {done.pseudonym} is nobody's (decision id {done.decision_id})")
        say(f"  {done.revoked} live grants ended, {done.tickets} tickets unlinked")
    else:
        say("no pseudonym leads to that key: the ledger never had one, or an earlier run has destroyed it")
        say(f"  {done.revoked} live grants ended, {done.tickets} tickets unlinked")


def _read(path: Path) -> list[str]:
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return [line["customer"] for line in lines if "customer" in line]
    except OSError as exc:
        raise StartupError(f"{path}: {exc.strerror}") from None
    except (ValueError, TypeError):
        raise StartupError(
            f"{path}: not the lines of customers that `broker audit exposure --jsonl` writes"
        ) from None
