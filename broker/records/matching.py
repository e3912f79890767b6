"""The part of the guard that turns complainants' identifiers into pseudonyms for an auditor; no I/O.

Invariants:
- what an auditor may call is one function, and what it reads of the customers' table is the key and those
  columns that their masks call an e-mail address or a telephone number.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker.catalog import Catalog, Mask
from broker.records.relations import World
from broker.records.steps import Step, fill, grant, step

MATCH_CALL = 500
"""Most identifiers of complainants that one call turns into pseudonyms."""

MATCH_DAY = 2000
"""Most on one day (UTC), of all auditors together: a complaint file is no way to try a list of people."""


def _contacts(catalog: Catalog, world: World) -> dict[str, str]:
    """Gives the quoted columns of the customers' table that hold an e-mail address or a telephone number."""
    relation = world.relations[catalog.root.name]
    if relation.is_view:  # it reads with the guard's rights, to whom nobody is visible without a pass
        return {}
    kinds = {Mask.EMAIL: "email", Mask.PHONE: "phone"}
    return {
        relation.columns[f.column].quoted: kinds[f.mask]
        for f in catalog.root.fields.values()
        if f.mask in kinds
    }


def matching(catalog: Catalog, world: World) -> Iterator[Step]:
    """Makes what turns complainants into pseudonyms: the mask of a field says that it is a contact."""
    yield step("match_usage", "auditors may name their one function")
    contacts = _contacts(catalog, world)
    if not contacts:
        return
    relation = world.relations[catalog.root.name]
    key = relation.columns[catalog.root.key].quoted
    columns = dict.fromkeys([key, *contacts])
    yield grant(relation, columns, "broker_guard_keeper", "what complaints are compared with")
    values = ", ".join(
        f"('{kind}', {fill(f'plain_{kind}', text=f't.{column}::text')})" for column, kind in contacts.items()
    )
    yield step("match_create", "for the moment of handing over the view")
    yield step("match_view", "contacts, comparable", table=relation.quoted, key=key, values=values)
    yield Step(fill("match_view_owner"), "", "nobody logs in as its owner")
    yield Step(fill("match_create_end"), "", "handed over")


def match_parts(catalog: Catalog, world: World) -> dict[str, str]:
    """Gives what the function's template is filled with."""
    return {
        "call": str(MATCH_CALL),
        "day": str(MATCH_DAY),
        "email": fill("plain_email", text="a.told"),
        "phone": fill("plain_phone", text="a.told"),
        "contacts": fill("match_contacts") if _contacts(catalog, world) else "",
    }
