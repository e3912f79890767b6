"""Which groups lead to other roles than before; what comes of it for people is told with the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from broker.policy.compare.change import Area, Change, Direction
from broker.policy.compare.differences import Unit
from broker.policy.rules import GROUP_PREFIX


def compare_groups(groups: Sequence[Unit], touched: Collection[str]) -> Iterator[Change]:
    """Gives a neutral change for each group whose roles change.

    Args:
        groups: all groups of both sides.
        touched: the groups whose members' access changes by it.
    """
    for group in groups:
        if group.old != group.new:
            steps = [
                f"{verb} {', '.join(sorted(roles))}"
                for verb, roles in (("gains", group.new - group.old), ("loses", group.old - group.new))
                if roles
            ]
            for name in group.names:
                text = f"group {GROUP_PREFIX}{name} {' and '.join(steps)}"
                if name not in touched:
                    text += "; nobody's access changes by it"
                yield Change(Direction.NEUTRAL, Area.GROUPS, text, {"group": name})
