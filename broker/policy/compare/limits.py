"""What changed limits mean: how many customers, and for how long.

Somebody with several roles has the smallest of their budgets. Where that grows for a set of roles, it
grows for the role that had the smallest before; so roles alone are enough, and groups alone are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.policy.compare.change import Area, Change, Direction
from broker.policy.compare.differences import Unit
from broker.policy.rules import GROUP_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.policy.decision import Policy

Step = tuple[int | None, int | None]
"""A budget before and now; None where no role holds anybody back."""

_SPANS = (("per_hour", "an hour"), ("per_day", "a day"))


def compare_limits(
    old: Policy, new: Policy, roles: Sequence[Unit], groups: Sequence[Unit]
) -> Iterator[Change]:
    """Gives the changes of budgets, for roles and for groups whose roles change, and of durations."""
    for key, span in _SPANS:
        steps: dict[Step, list[str]] = {}
        of_role = {role.names[0]: _step(old, new, role, key) for role in roles}
        for name, step in of_role.items():
            steps.setdefault(step, []).append(name)
        for group in groups:
            step = _step(old, new, group, key)
            told = {of_role[role] for role in group.old & group.new if role in of_role}
            if group.old != group.new and step not in told:
                steps.setdefault(step, []).extend(f"members of {GROUP_PREFIX}{name}" for name in group.names)
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


def _step(old: Policy, new: Policy, unit: Unit, key: str) -> Step:
    return _budget(old, unit.old, key), _budget(new, unit.new, key)


def _budget(policy: Policy, roles: frozenset[str], key: str) -> int | None:
    """Gives a budget; None where there is no role, so that none holds anybody back."""
    number: int | None = getattr(policy.budget(roles), key) if roles else None
    return number


def _change(text: str, before: int | None, now: int | None, **details: object) -> Change:
    wider = now is None or (before is not None and now > before)
    shown = [
        f"{number}" if number is not None else "no limit by a role of theirs" for number in (before, now)
    ]
    return Change(
        Direction.WIDENING if wider else Direction.NARROWING,
        Area.LIMITS,
        f"{text} {shown[0]} -> {shown[1]}",
        {**details, "old": before, "new": now},
    )
