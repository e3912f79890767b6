"""`broker policy explain` and `broker policy who-can`: why a field is seen, and by whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.output import print_json, print_line
from broker.cli.policy import named
from broker.cli.policy.options import Json, read, role_set
from broker.errors import StartupError
from broker.model import Facts, Level, OpenedBy, Presence, Provenance, Relation

if TYPE_CHECKING:
    from broker.policy import Policy
    from broker.policy.who_can import Way

HEADS = {
    Level.CLEAR: "{field} is seen in clear by",
    Level.MASKED: "{field} is seen, masked at least, by",
}
"""What stands above the ways, by level."""


def explain(
    administrator: named.WhoAsks,
    policy_name: named.Draft,
    roles: Annotated[
        str, typer.Option("--roles", help="The agent's role, or roles: tier1+billing; '' for none.")
    ],
    purpose: Annotated[str, typer.Option("--purpose", help="A purpose of the catalog.")],
    relation: Annotated[Relation, typer.Option("--relation", help="The agent's relation to the ticket.")],
    kind: Annotated[
        str, typer.Option("--kind", help="A ticket kind; 'other' for one that the catalog lacks.")
    ],
    provenance: Annotated[Provenance, typer.Option("--provenance", help="How the ticket came to the agent.")],
    opened_by: Annotated[OpenedBy, typer.Option("--opened-by", help="Who opened the ticket.")],
    presence: Annotated[Presence, typer.Option("--presence", help="Whether the customer is there.")],
    fields: Annotated[list[str], typer.Option("--field", help="A field, as customer.phone. Repeatable.")],
    as_json: Json = False,
) -> None:
    """Say why a field is in clear, masked or withheld, and what would have to be otherwise.

    Names the rule that allows it, the denials that refuse it, and every smallest change of the request
    that would show more. Each was decided again, with all denials.

    \b
    Example:
      broker policy explain policies --roles tier1 --purpose call-back --relation assignee \\
        --kind general --provenance routed --opened-by customer --presence absent --field customer.phone
      broker policy explain 3 --roles tier1 ... --field customer.phone --as anna
    """
    from broker.policy.explain import explain_point

    policy = read(named.files(policy_name, administrator))
    held = role_set(policy, roles) if roles else frozenset[str]()
    facts = Facts(
        purpose=_known("--purpose", purpose, policy.catalog.purposes),
        relation=relation,
        kind=_kind(policy, kind),
        provenance=provenance,
        opened_by=opened_by,
        presence=presence,
    )
    told = [
        explain_point(policy, held, facts, _known("--field", field, policy.catalog.fields))
        for field in fields
    ]
    if as_json:
        print_json({"facts": facts.as_mapping(), "fields": [each.as_mapping() for each in told]})
        return
    for each in told:
        print_line(f"{each.field}: {each.level.value if each.level else 'withheld'}")
        for sentence in each.sentences:
            print_line(f"  {sentence}")


def who_can(
    administrator: named.WhoAsks,
    policy_name: named.Draft,
    field: Annotated[str, typer.Argument(metavar="FIELD", help="A field, as customer.phone.")],
    level: Annotated[Level | None, typer.Option("--level", help="Only at this level, or more.")] = None,
    roles: Annotated[
        list[str] | None,
        typer.Option("--roles", help="Only these roles: tier1, or tier1+billing. Repeatable."),
    ] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="Only for this purpose.")] = "",
    relation: Annotated[Relation | None, typer.Option("--relation", help="Only in this relation.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="Only on tickets of this kind.")] = "",
    provenance: Annotated[Provenance | None, typer.Option("--provenance", help="Only if it came so.")] = None,
    opened_by: Annotated[OpenedBy | None, typer.Option("--opened-by", help="Only if opened so.")] = None,
    presence: Annotated[Presence | None, typer.Option("--presence", help="Only while this holds.")] = None,
    as_json: Json = False,
) -> None:
    """Say who can see a field, and under which conditions: every way there is, in few sentences.

    What a sentence does not mention does not matter. The ways in clear are also ways to see it masked.

    \b
    Example:
      broker policy who-can policies customer.phone --kind billing
      broker policy who-can policies customer.phone --level clear
      broker policy who-can 3 customer.phone --as anna
    """
    from broker.policy.everywhere import default_role_sets, note_on
    from broker.policy.who_can import who_can as ways_of

    policy = read(named.files(policy_name, administrator))
    fixed = {
        "purpose": _known("--purpose", purpose, policy.catalog.purposes) if purpose else "",
        "relation": relation or "",
        "ticket_kind": _kind(policy, kind) if kind else "",
        "provenance": provenance or "",
        "opened_by": opened_by or "",
        "presence": presence or "",
    }
    asked = [role_set(policy, text) for text in roles] if roles else None
    ways = ways_of(
        policy,
        _known("FIELD", field, policy.catalog.fields),
        level=level,
        role_sets=asked,
        **{name: str(word) for name, word in fixed.items() if word},
    )
    note = note_on(default_role_sets(policy)) if asked is None else ""
    if as_json:
        print_json({"field": field, "ways": [way.as_mapping() for way in ways], "note": note})
    else:
        _print(field, level, ways, note)


def _print(field: str, level: Level | None, ways: Iterable[Way], note: str) -> None:
    from broker.policy.aloud import places

    for asked in Level if level is None else (level,):
        some = [way for way in ways if way.level is asked]
        print_line(HEADS[asked].format(field=field) + (" nobody" if not some else ""))
        for way in some:
            print_line(f"  - {way.sentence}")
            print_line(f"    ({places(way.rules)})")
    if note:
        print_line(note)


def _kind(policy: Policy, word: str) -> str:
    from broker.policy.everywhere import OTHER_KIND

    return _known("--kind", word, [*policy.catalog.ticket_kinds, OTHER_KIND])


def _known(option: str, word: str, known: Iterable[str]) -> str:
    from broker.policy.findings import nearest, quoted

    if word not in (words := list(known)):
        raise StartupError(f"{option}: the policy has no {quoted(word)}; {nearest(word, words)}")
    return word
