"""What a worker remembers between calls: open grants, and what the last grant on a ticket stood on.

Invariants:
- an entry holds nothing that the ledger's append does not compare: it may be old, never wrong for long;
- entries end with their grant, and the least recently used goes first, so memory stays bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from broker.catalog import Field
from broker.model import Decided, Facts, FieldDecision, Level
from broker.tickets import Standing

CAPACITY = 20_000
"""Grants kept open, some 2 KB each and their plans: with 5 minutes of life, 66 grants a second and worker."""

MOST_PLANS = 32
"""Field lists planned per grant; a tool that asks for ever new ones is decided anew each time."""

MOST_PLANNED = 200_000
"""Fields of all plans of a worker, some 400 bytes each (80 MB): callers choose the lists, and their order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision on some fields of an open grant, ready to be carried out many times."""

    policy_version: str
    per_hour: int
    per_day: int
    steps: tuple[tuple[FieldDecision, Field | None, Level | None], ...]  # in the order asked; None: withheld
    reads: tuple[str, ...]  # the fields that are not withheld
    leaf_rest: bytes
    decided: Decided


PlanKey = tuple[str, date, tuple[str, ...], frozenset[str]]
"""Version of the policy, day, fields in the order asked, groups."""


@dataclass(slots=True)
class OpenGrant:
    """A grant, its pass, and the ticket's facts as they were last seen."""

    guard_pass: str
    customer_pseudonym: str
    ticket_pseudonym: str
    levels: dict[str, Level]
    expire_time: datetime
    facts: Facts
    facts_version: int
    present: bool
    plans: dict[PlanKey, Plan] = field(default_factory=dict)


class OpenGrants:
    """The grants that this worker has seen; a bounded map by grant id and agent."""

    def __init__(
        self, now: Callable[[], datetime], capacity: int = CAPACITY, planned: int = MOST_PLANNED
    ) -> None:
        """Takes the clock (only to let ended entries go), most entries, most fields of their plans."""
        self._now = now
        self._capacity = capacity
        self._most_planned = planned
        self._planned = 0
        self._plans: deque[tuple[OpenGrant, PlanKey, int]] = deque()  # each plan that lives has its entry
        self._entries: OrderedDict[tuple[UUID, str], OpenGrant] = OrderedDict()

    def get(self, grant_id: UUID, agent: str) -> OpenGrant | None:
        """Gives an open grant; None if this worker has not seen it or it has ended."""
        opened = self._entries.get((grant_id, agent))
        if opened is None:
            return None
        if opened.expire_time <= self._now():
            del self._entries[grant_id, agent]
            return None
        self._entries.move_to_end((grant_id, agent))
        return opened

    def put(self, grant_id: UUID, agent: str, opened: OpenGrant) -> None:
        """Keeps a grant open."""
        self._entries[grant_id, agent] = opened
        self._entries.move_to_end((grant_id, agent))
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def plan(self, opened: OpenGrant, key: PlanKey, plan: Plan) -> None:
        """Keeps a plan with its grant; where there are too many, the worker's oldest go."""
        if len(opened.plans) >= MOST_PLANS:
            opened.plans.clear()
        opened.plans[key] = plan
        self._plans.append((opened, key, len(plan.steps)))
        self._planned += len(plan.steps)
        while self._planned > self._most_planned:
            oldest, old_key, fields = self._plans.popleft()
            oldest.plans.pop(old_key, None)
            self._planned -= fields

    def drop(self, grant_id: UUID, agent: str) -> None:
        """Forgets a grant whose facts have changed; the next read opens it again."""
        self._entries.pop((grant_id, agent), None)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a grant stood on: the ticket as it was for this agent, its customer, and both pseudonyms."""

    standing: Standing
    customer: str
    customer_pseudonym: str
    ticket_pseudonym: str


BasisKey = tuple[str, str, str]
"""Agent, ticket, and the customer as the request named it ("" where it named none)."""

BASES = 10_000
"""Tickets remembered; some 2 KB each."""

BASIS_SECONDS = 300.0
"""How long a basis is remembered, counted from its last grant; pseudonyms of an erased person end with it."""


class Bases:
    """What the last grants stood on, so that the next one on a ticket asks the database once, not thrice.

    Only what the append accepted is remembered, and the append compares it again each time: a ticket that
    is not the agent's is never in here, so nothing here can tell such tickets apart.
    """

    def __init__(self, steady: Callable[[], float], capacity: int = BASES) -> None:
        """Takes seconds that only count up, and the most entries."""
        self._steady = steady
        self._capacity = capacity
        self._entries: OrderedDict[BasisKey, tuple[float, Basis]] = OrderedDict()

    def get(self, key: BasisKey) -> Basis | None:
        """Gives what the last grant stood on, unless it was too long ago."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._steady() >= entry[0]:
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: BasisKey, basis: Basis) -> None:
        """Remembers what a grant stands on that was just accepted."""
        self._entries[key] = (self._steady() + BASIS_SECONDS, basis)
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def drop(self, key: BasisKey) -> None:
        """Forgets what the append did not accept, or what a denial must not stand on."""
        self._entries.pop(key, None)
