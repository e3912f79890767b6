"""Decisions with what grants say of them, encoded once for all grants on the same facts; pure.

Invariants:
- an entry is what the policy of that version says of those facts: it is never stale, only of no more use;
- memory is bounded; beyond it everything is forgotten and decided anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date

from broker.access.refusals import decision_detail
from broker.ledger import encode
from broker.model import Budget, Decided, Facts, FieldDecision, Level
from broker.policy import Policy

CAPACITY = 1024
"""Decisions remembered, some 3 KB each: agents of one role asking for the same fields share theirs."""

Key = tuple[str, date, frozenset[str], Facts, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decision, ready to be granted many times."""

    decided: Decided
    budget: Budget
    fields: tuple[str, ...]  # those that are not withheld
    levels: tuple[str, ...]  # theirs
    detail: bytes  # of the event
    said: str  # JSON: every field as the grant's answer says it

    def answer(self, purpose: str, audience: str) -> str:
        """Gives the answer that the grant's row keeps for its repeated request, JSON."""
        return f'{{"purpose":{json.dumps(purpose)},"audience":{json.dumps(audience)},"fields":{self.said}}}'


class PreparedDecisions:
    """What this worker has decided for grants; agents with the same groups and facts share an entry."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        """Takes the most entries."""
        self._capacity = capacity
        self._entries: dict[Key, Prepared] = {}

    def get(self, policy: Policy, groups: frozenset[str], facts: Facts, fields: tuple[str, ...]) -> Prepared:
        """Gives the decision of this policy, as of its day, for an agent of these groups."""
        key = (policy.version, policy.today, groups, facts, fields)
        found = self._entries.get(key)
        if found is None:
            if len(self._entries) >= self._capacity:
                self._entries.clear()
            found = self._entries[key] = _prepare(policy, groups, facts, fields)
        return found


def said(answer: str) -> tuple[FieldDecision, ...]:
    """Reads what a grant that stands already said field by field, for its repeated request."""
    return tuple(
        FieldDecision(name, Level(level) if level else None, rule, tuple(missing))
        for name, level, rule, missing in json.loads(answer)["fields"]
    )


def _prepare(policy: Policy, groups: frozenset[str], facts: Facts, fields: tuple[str, ...]) -> Prepared:
    decided = policy.decide_for(groups, facts, fields)
    allowed = decided.decision.allowed
    return Prepared(
        decided=decided,
        budget=policy.budget(decided.roles),
        fields=tuple(allowed),
        levels=tuple(level.value for level in allowed.values()),
        detail=encode(decision_detail(decided)),
        said=json.dumps(
            [[f.name, f.level.value if f.level else None, f.rule, f.missing] for f in decided.decision.fields]
        ),
    )
