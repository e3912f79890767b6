"""What changed limits mean: how many customers, and for how long.

Somebody with several roles has the smallest of their budgets. Where that grows for a set of roles, it
grows for the role that had the smallest before; so roles alone are enough. So are groups alone, while
they have roles: who has none reaches nobody, which is the rules' to tell. Where the group that had the
smallest ends without roles, what grows is the budget of whoever is in another group, too; two groups are
enough. The same holds of what shrinks, with the sides changed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from broker.policy.compare.change import Area, Change, Direction
from broker.policy.compare.differences import Unit
from broker.policy.rules import GROUP_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.policy.decision import Policy

Step = tuple[int, int]
"""A budget before and now."""

Budgets = tuple[int | None, int | None]
"""The budgets of a group before and now; None where no role of theirs has one."""

_SPANS = (("per_hour", "an hour"), ("per_day", "a day"))


def compare_limits(
    old: Policy, new: Policy, roles: Sequence[Unit], groups: Sequence[Unit]
) -> Iterator[Change]:
    """Gives the changes of budgets, for roles and for groups whose roles change, and of durations."""
    for key, span in _SPANS:
        steps: dict[Step, list[str]] = {}
        of_role = {role.names[0]: _budgets(old, new, role, key) for role in roles}
        of_group = {group: _budgets(old, new, group, key) for group in groups}
        for name, (before, now) in (*of_role.items(), *_alone(of_role, of_group)):
            if before is not None and now is not None:
                steps.setdefault((before, now), []).append(name)
        for name, step in _together(of_group):
            steps.setdefault(step, []).append(name)
        for (before, now), names in steps.items():
            if before != now:
                text = f"{', '.join(names)}: customers {span}"
                yield _change(text, before, now, who=names, limit=f"customers_{key}")
    for name, text in (
        ("default_grant_minutes", "a grant's usual minutes"),
        ("maximum_grant_minutes", "a grant's most minutes"),
    ):
        before, now = getattr(old.limits, name), getattr(new.limits, name)
        if before != now:
            yield _change(text, before, now, limit=name)


def _alone(of_role: Mapping[str, Budgets], of_group: Mapping[Unit, Budgets]) -> Iterator[tuple[str, Budgets]]:
    """Gives the groups that lead elsewhere than before, but where a role of theirs tells the same."""
    for group, budgets in of_group.items():
        told = {of_role[role] for role in group.old & group.new if role in of_role}
        if group.old != group.new and budgets not in told:
            yield from ((f"members of {GROUP_PREFIX}{name}", budgets) for name in group.names)


def _together(of_group: Mapping[Unit, Budgets]) -> Iterator[tuple[str, Step]]:
    """Gives what changes where somebody is in a group that comes or goes and in another, too."""
    for group, (before, now) in of_group.items():
        if (before is None) == (now is None):
            continue
        partners: dict[Step, list[str]] = {}
        for other, (was, is_now) in of_group.items():
            if before is not None and is_now is not None and before < is_now and not _at_most(was, before):
                partners.setdefault((before, is_now), []).extend(other.names)
            if now is not None and was is not None and was > now and not _at_most(is_now, now):
                partners.setdefault((was, now), []).extend(other.names)
        for step, others in partners.items():
            yield f"members of {_or(group.names)} together with {_or(others)}", step


def _at_most(budget: int | None, number: int) -> bool:
    return budget is not None and budget <= number


def _or(names: Sequence[str]) -> str:
    *most, last = (f"{GROUP_PREFIX}{name}" for name in names)
    return f"{', '.join(most)} or {last}" if most else last


def _budgets(old: Policy, new: Policy, unit: Unit, key: str) -> Budgets:
    return _budget(old, unit.old, key), _budget(new, unit.new, key)


def _budget(policy: Policy, roles: frozenset[str], key: str) -> int | None:
    number: int | None = getattr(policy.budget(roles), key) if roles else None
    return number


def _change(text: str, before: int, now: int, **details: object) -> Change:
    return Change(
        Direction.WIDENING if now > before else Direction.NARROWING,
        Area.LIMITS,
        f"{text} {before} -> {now}",
        {**details, "old": before, "new": now},
    )
