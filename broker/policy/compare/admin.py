"""What a changed `admin.csv` means: who may call what, and who has which role.

Somebody who sits at the console has any set of groups. As with the roles of agents, what a set gains is
gained by one group of it or by two, so those are asked: a set has the union of allows and denials.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from typing import TYPE_CHECKING

from broker.policy.compare.change import Area, Change, Direction
from broker.policy.rules import GROUP_PREFIX

if TYPE_CHECKING:
    from broker.policy.admin import AdminTable

Who = tuple[str, ...]
"""An identity, a group, or two groups that one person has."""


def compare_admins(old: AdminTable, new: AdminTable) -> Iterator[Change]:
    """Gives the changes of rights on the admin port.

    A role that somebody gains is a widening even where no method comes with it: it may come later, or
    the broker may ask for the role by its name.
    """
    members = sorted(old.members.keys() | new.members.keys())
    for member in members:
        held, holds = (table.members.get(member, frozenset()) for table in (old, new))
        for direction, roles, text in (
            (Direction.WIDENING, holds - held, "gains the role"),
            (Direction.NARROWING, held - holds, "loses the role"),
        ):
            if names := sorted(roles):
                yield _change(direction, f"{member} {text} {', '.join(names)}", who=[[member]], roles=names)
    groups = [member for member in members if member.startswith(GROUP_PREFIX)]
    told: dict[tuple[Direction, str], set[str]] = {}  # of members alone
    gains: dict[tuple[Direction, Who], list[Who]] = {}
    for who in chain(((member,) for member in members), combinations(groups, 2)):
        before, now = (
            table.allowed_methods(frozenset().union(*(table.members.get(name, ()) for name in who)))
            for table in (old, new)
        )
        for direction, changed in ((Direction.WIDENING, now - before), (Direction.NARROWING, before - now)):
            alone = (told.get((direction, name), set()) for name in who)
            if beyond := changed.difference(*alone):
                told.setdefault((direction, who[0]), set()).update(beyond if len(who) == 1 else ())
                gains.setdefault((direction, tuple(sorted(beyond))), []).append(who)
    for (direction, methods), people in gains.items():
        may = "may now call" if direction is Direction.WIDENING else "may no longer call"
        subjects = ", ".join(" together with ".join(who) for who in people)
        called = ", ".join(method.rpartition(".")[2] for method in methods)
        who_may = [list(who) for who in people]
        yield _change(direction, f"{subjects} {may} {called}", who=who_may, methods=list(methods))


def _change(direction: Direction, sentence: str, **details: object) -> Change:
    return Change(direction, Area.ADMIN, sentence, details)
