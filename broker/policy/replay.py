"""Recorded decisions taken again under a draft: what would have been otherwise, and whom it would expose.

Invariants:
- a decision is taken again on what it saw, never on what is so today;
- what the record does not tell is not guessed: such decisions are counted as undecidable, by what is missing;
- an event names the groups that its version mapped; whether its agent was in another one is undecidable
  where that would change the decision. Each such group is asked alone, which is enough: rights are unions,
  so where several together show more, one of them allows it, and where they show less, one of them denies;
- compared is what the policy said then, not what came of it: a read's level may have been stricter,
  because its grant was;
- equal inputs are decided once, whatever their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from broker.catalog import Catalog
from broker.model import SHOWN, WITHHELD, Facts, Level
from broker.policy.decision import Policy
from broker.policy.rules import CONDITIONS
from broker.policy.table import Table

MOST_EXAMPLES = 5
"""Event ids kept per flip, the earliest: enough to look at, few enough to read."""

MOST_NAMED = 10
"""Agents named per flip: those with the most decisions."""


class Mark(NamedTuple):
    """What a decision has become; people are counted by it. A flip of one field, or one of the two below."""

    field: str
    before: str
    after: str


OPENED = Mark("", WITHHELD, "anything")
"""A decision that withheld everything and would now show something."""


def newly_clear(name: str) -> Mark:
    """Marks a sensitive field that was masked or withheld and would now be in clear."""
    return Mark(name, "not clear", Level.CLEAR.value)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Equal decisions of the record: what they saw, what they said, how many they are."""

    facts: Mapping[str, str]
    roles: frozenset[str] | None  # None: the record does not tell
    groups: frozenset[str] | None  # those that the policy knew which decided; None: the record does not tell
    levels: Mapping[str, str]  # field -> clear, masked or withheld
    decisions: int = 1
    example: str = ""  # id of the first one's event
    version: int = 0  # of the policy that decided; 0: the record does not tell
    agents: frozenset[str] = frozenset()  # empty where people are counted elsewhere
    customers: frozenset[str] = frozenset()  # pseudonyms; as above


@dataclass(frozen=True, slots=True)
class People:
    """Whom the decisions of one mark concern."""

    agents: int = 0
    customers: int = 0
    nameless: int = 0  # decisions whose event names no customer
    most_concerned: Mapping[str, int] = field(default_factory=dict)  # agent -> decisions, most first


@dataclass(frozen=True, slots=True)
class Flip:
    """One field that would be shown otherwise, over all decisions."""

    field: str
    before: str
    after: str
    decisions: int
    ticket_kinds: Mapping[str, int]
    roles: Mapping[str, int]  # role sets, as `billing+tier1` -> decisions
    examples: tuple[str, ...]
    people: People

    @property
    def widens(self) -> bool:
        """Says whether more would be shown."""
        return SHOWN.index(self.after) > SHOWN.index(self.before)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a draft would have changed."""

    digest: str
    decisions: int  # looked at
    inputs: int  # different ones among those that could be decided
    changed: int  # decisions with at least one flip
    opened: int  # of them: withheld everything, would show something
    shut: int  # of them: showed something, would withhold everything
    undecidable: Mapping[str, int]  # what is missing -> decisions
    fields_unknown: Mapping[str, int]  # fields that the draft's catalog does not know -> decisions
    groups_never_recorded: tuple[str, ...]  # groups that the draft maps and no decision tells of
    flips: tuple[Flip, ...]  # most decisions first
    newly_reachable: People
    sensitive_newly_clear: Mapping[str, People]  # field -> whom it exposes
    groups_not_recorded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Groups that the draft and some version of the span map -> versions of the span that did not."""
    people_counted: bool = True  # False: there were too many different inputs to count people by

    @property
    def widened(self) -> tuple[Flip, ...]:
        """Gives the flips that would show more."""
        return tuple(flip for flip in self.flips if flip.widens)

    @property
    def narrowed(self) -> tuple[Flip, ...]:
        """Gives the flips that would show less."""
        return tuple(flip for flip in self.flips if not flip.widens)

    @property
    def customers_newly_reachable(self) -> int:
        """Counts the customers of decisions that withheld everything and would now show something."""
        return self.newly_reachable.customers

    def as_mapping(self) -> dict[str, Any]:
        """Gives the report as JSON can hold it."""
        return {**asdict(self), "flips": [{**asdict(flip), "widens": flip.widens} for flip in self.flips]}

    @classmethod
    def from_mapping(cls, found: Mapping[str, Any]) -> ReplayReport:
        """Reads what `as_mapping` gave."""
        flips = [{name: value for name, value in flip.items() if name != "widens"} for flip in found["flips"]]
        read = {
            "flips": tuple(Flip(**{**flip, "people": People(**flip["people"])}) for flip in flips),
            "newly_reachable": People(**found["newly_reachable"]),
            "sensitive_newly_clear": {
                name: People(**people) for name, people in found["sensitive_newly_clear"].items()
            },
            "groups_not_recorded": {
                group: tuple(versions) for group, versions in found.get("groups_not_recorded", {}).items()
            },
        }
        return cls(**{**found, **read})


class _Flipping:
    """What is counted of one flip."""

    __slots__ = ("decisions", "examples", "roles", "ticket_kinds")

    def __init__(self) -> None:
        self.decisions = 0
        self.ticket_kinds: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.examples: list[str] = []

    def add(self, recorded: Recorded, roles: frozenset[str]) -> None:
        self.decisions += recorded.decisions
        self.ticket_kinds[recorded.facts["ticket_kind"]] += recorded.decisions
        self.roles["+".join(sorted(roles)) or "(none)"] += recorded.decisions
        if recorded.example:
            self.examples = sorted([*self.examples, recorded.example])[:MOST_EXAMPLES]  # ids grow with time


class Deciding:
    """A draft as a bare table: levels without the sentences that explain a denial, which cost most."""

    def __init__(self, policy: Policy) -> None:
        """Compiles the rules, which `load` has held against Casbin."""
        self._table = Table(policy.book, policy.catalog)

    def levels(self, roles: frozenset[str], facts: Facts, fields: Iterable[str]) -> dict[str, str]:
        """Decides fields; those that the catalog does not know are left out."""
        point = self._table.point(roles, facts)
        known = self._table.fields
        levels = {name: point[name].level for name in fields if name in known}
        return {name: level.value if level else WITHHELD for name, level in levels.items()}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one distinct input; worked out once."""

    flips: tuple[Mark, ...]
    unknown: tuple[str, ...]
    opened: bool
    shut: bool
    marks: frozenset[Mark]
    missing: str = ""  # what the record would have to tell; then the others are empty


class Replay:
    """Takes decisions again, as many kinds of them as come, and says what became of them."""

    def __init__(
        self,
        new: Policy,
        *,
        sensitive: frozenset[str] = frozenset(),
        mapped: Mapping[int, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        """Takes the draft.

        Args:
            new: the draft.
            sensitive: fields that count as sensitive whatever the draft's own catalog says of them.
            mapped: the groups that each version mapped which was in force in the span.
        """
        self._mapped = mapped
        self._sometimes = frozenset().union(*mapped.values()).intersection(new.book.groups)
        self._new = new
        self._deciding = Deciding(new)
        self._sensitive = sensitive | sensitive_fields(new.catalog)
        self._outcomes: dict[tuple[object, ...], _Outcome] = {}
        self._flips: dict[Mark, _Flipping] = {}
        self._groups: set[str] = set()
        self._undecidable: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._decisions = self._changed = self._opened = self._shut = 0

    def unrecorded(self, version: int) -> frozenset[str]:
        """Gives the groups of the draft that other versions' events tell of, and this one's do not."""
        return self._sometimes - self._mapped.get(version, frozenset())

    def add(self, recorded: Recorded) -> frozenset[Mark]:
        """Takes decisions again; gives the marks by which their people are to be counted."""
        self._decisions += recorded.decisions
        facts = facts_of(recorded.facts)
        roles = recorded.roles
        if recorded.groups is not None:
            self._groups |= recorded.groups
            roles = self._new.roles_of(recorded.groups)
        missing = facts if isinstance(facts, str) else "roles" if roles is None else ""
        if isinstance(facts, str) or roles is None or not recorded.levels:
            self._undecidable[missing or "fields"] += recorded.decisions
            return frozenset()
        unrecorded = self.unrecorded(recorded.version) - (recorded.groups or frozenset())
        key = (roles, facts, tuple(recorded.levels.items()), unrecorded)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._decide(roles, facts, recorded.levels, unrecorded)
        if outcome.missing:
            self._undecidable[outcome.missing] += recorded.decisions
            return frozenset()
        for name in outcome.unknown:
            self._unknown[name] += recorded.decisions
        for mark in outcome.flips:
            self._flips.setdefault(mark, _Flipping()).add(recorded, roles)
        self._changed += recorded.decisions if outcome.flips else 0
        self._opened += recorded.decisions if outcome.opened else 0
        self._shut += recorded.decisions if outcome.shut else 0
        return outcome.marks

    def report(self, people: Mapping[Mark, People] | None) -> ReplayReport:
        """Says what became of everything that was added.

        Args:
            people: whom the decisions of each mark concern; None: nobody counted them.
        """
        counted = people or {}
        flips = [
            Flip(
                *mark, flipping.decisions, dict(flipping.ticket_kinds.most_common()),
                dict(flipping.roles.most_common()), tuple(flipping.examples), counted.get(mark, People()),
            )
            for mark, flipping in self._flips.items()
        ]  # fmt: skip
        clear = {mark.field for mark in self._flips if mark.after == Level.CLEAR} & self._sensitive
        return ReplayReport(
            digest=self._new.digest,
            decisions=self._decisions,
            inputs=sum(1 for outcome in self._outcomes.values() if not outcome.missing),
            changed=self._changed,
            opened=self._opened,
            shut=self._shut,
            undecidable=dict(self._undecidable.most_common()),
            fields_unknown=dict(self._unknown.most_common()),
            groups_never_recorded=tuple(sorted(self._new.book.groups.keys() - self._groups)),
            flips=tuple(sorted(flips, key=lambda flip: (-flip.decisions, flip.field, flip.before))),
            newly_reachable=counted.get(OPENED, People()),
            sensitive_newly_clear={name: counted.get(newly_clear(name), People()) for name in sorted(clear)},
            groups_not_recorded={
                group: tuple(v for v, known in sorted(self._mapped.items()) if group not in known)
                for group in sorted(self._sometimes)
                if any(group not in known for known in self._mapped.values())
            },
            people_counted=people is not None,
        )

    def _decide(
        self, roles: frozenset[str], facts: Facts, levels: Mapping[str, str], unrecorded: frozenset[str]
    ) -> _Outcome:
        after = self._deciding.levels(roles, facts, levels)
        matter = [
            group
            for group in sorted(unrecorded)
            if self._deciding.levels(roles | self._new.roles_of(frozenset({group})), facts, levels) != after
        ]
        if matter:
            return _Outcome((), (), False, False, frozenset(), f"membership of {', '.join(matter)}")
        flips = tuple(Mark(name, levels[name], now) for name, now in after.items() if now != levels[name])
        shown = any(level != WITHHELD for level in levels.values())
        shows = any(level != WITHHELD for level in after.values())
        marks = set(flips)
        clear = {mark.field for mark in flips if mark.after == Level.CLEAR}
        marks |= {newly_clear(name) for name in clear & self._sensitive}
        if shows and not shown:
            marks.add(OPENED)
        return _Outcome(
            flips=flips,
            unknown=tuple(name for name in levels if name not in after),
            opened=shows and not shown,
            shut=shown and not shows,
            marks=frozenset(marks),
        )


def sensitive_fields(catalog: Catalog) -> frozenset[str]:
    """Gives the fields that a catalog calls sensitive."""
    return frozenset(n for n, f in catalog.fields.items() if f.field_class in catalog.sensitive_classes)


def facts_of(told: Mapping[str, str]) -> Facts | str:
    """Gives recorded facts as a decision sees them, or which one is missing."""
    for name in CONDITIONS:
        if not told.get(name):
            return name if told else "facts"
    try:
        return Facts.of(*(told[name] for name in CONDITIONS))
    except ValueError:
        return "a word that this release knows"


def recorded_from(detail: Mapping[str, Any], decisions: int, example: str = "", version: int = 0) -> Recorded:
    """Takes what an event tells of its decision (`detail` of its leaf)."""
    roles, groups = detail.get("roles"), detail.get("groups")
    return Recorded(
        facts=detail.get("facts", {}),
        roles=None if roles is None else frozenset(roles),
        groups=None if groups is None else frozenset(groups),
        levels={name: said[0] for name, said in detail.get("fields", {}).items()},
        decisions=decisions * int(detail.get("count", 1)),  # refusals that were only counted
        example=example,
        version=version,
    )
