"""Whose reads explain the complaints: overlap against what chance gives in the same queues and weeks. Pure.

What is asked of one agent: of the people who complained, how many had this agent seen, before the contact,
with everything in clear that the caller knew? Had the leak been elsewhere, a complainant would be anybody
among the people who were served in the same queues in the same weeks. So of m complainants of a queue's week
the agent would have seen as many as a blind draw of m out of all N gives, n of whom they had seen: the
hypergeometric distribution. Counts of different queues and weeks add up; the tail of the sum is exact (a
convolution). A complainant with tickets in several queues or weeks is a draw of their own, seen if in any.

Where the model has to round, it rounds towards the agent's innocence:
- customers seen with a field are counted per combination of fields and added up, so one who was read in two
  ways counts twice; the fields that a caller knew count as seen together as often as the rarest of them;
- a read after the contact, but in its week, raises what chance gives, and never counts as an overlap;
- of two agents together, those whom both saw count twice.

Invariants:
- nothing of the complaints decides how much each test may spend: the weights come from the ledger alone;
- a pair is tested only where both are in excess, and pairs not tested have spent their share all the same;
- nobody is named for complaints that a name before theirs explains, no tool for what two agents explain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import combinations
from uuid import UUID

from broker.audit.statistics import holm, hypergeometric, upper_tail

ALPHA = 0.01
"""Highest corrected p-value that names somebody: one wrong name in a hundred leaks that were elsewhere."""

EXCESS = 0.05
"""Highest p-value, before any correction, of an agent who may be half of a pair."""

MOST_IN_PAIRS = 20
"""Most agents, lowest p-value first, who are looked at in pairs: 190 pairs."""

MOST_SHOWN = 10
"""Candidates that are told in full, beside those who are named; the others are chance."""

LEAST_HITS = 2
"""Complaints that somebody must explain to be tested beside others who do."""

SHARES = {"agent": 0.8, "tool": 0.1, "pair": 0.1}
"""What each family of tests may spend of alpha."""

ANY_FIELD = ""
"""Stands for the fields of a complaint that names none: anything in clear."""


class Verdict(StrEnum):
    """What the ranking says; evidence, never proof."""

    NAMED = "named"  # somebody's overlap is far beyond chance
    NONE = "none of us explains this"
    NOTHING_TO_TEST = "no complaint could be used"


@dataclass(frozen=True, slots=True)
class Read:
    """One disclosure of a complainant, before the contact."""

    event_id: UUID
    time: datetime
    agent: int
    tool: int
    stratum: int  # queue and week
    clear: frozenset[str]
    unreadable: bool = False  # the leaf does not tell: any field may have been seen


@dataclass(frozen=True)
class Case:
    """A complaint whose customer is known by pseudonym, with everybody's reads before the contact."""

    line: int
    contact: datetime
    fields: frozenset[str]
    reads: tuple[Read, ...]

    @cached_property
    def strata(self) -> frozenset[int]:
        """Gives the queues and weeks in which this customer was served."""
        return frozenset(read.stratum for read in self.reads)

    @property
    def wanted(self) -> frozenset[str]:
        """Gives what must have been seen."""
        return self.fields or frozenset({ANY_FIELD})

    def evidence(self, subject: int) -> tuple[Read, ...]:
        """Gives the subject's reads that showed what the caller knew; empty unless they showed all of it."""
        mine = [r for r in self.reads if subject in {r.agent, r.tool}]
        seen = frozenset[str]().union(*(r.clear for r in mine))
        if any(r.unreadable for r in mine):
            return tuple(mine)
        if not (self.fields <= seen if self.fields else seen):
            return ()
        return tuple(r for r in mine if not self.fields or r.clear & self.fields)


@dataclass(frozen=True, slots=True)
class Chance:
    """How many customers there were, and how many of them each subject had seen."""

    size: Mapping[int, int]  # stratum -> customers
    seen: Mapping[tuple[int, int, str], int]  # subject, stratum, field in clear -> customers, rather too many
    size_by_week: Mapping[date, int]  # customers by the week of their first disclosure
    seen_by_week: Mapping[tuple[int, date, str], int]
    totals: Mapping[int, int]  # subject -> customers ever; every agent and tool there is
    tools: frozenset[int]  # which subjects are tools; the others are agents


@dataclass(frozen=True, slots=True)
class Candidate:
    """A subject, or two agents, with what speaks for them as the source."""

    subjects: tuple[int, ...]
    kind: str  # agent, tool, pair
    lines: tuple[int, ...]  # complaints whose customers they had seen
    expected: float  # how many chance gives
    p_value: float  # of what was asked: in the same queues and weeks, or among all customers
    corrected: float = 1.0  # over everything tested
    p_unconditioned: float | None = None  # among all customers, whatever queue and week; of those shown
    named: bool = False


@dataclass(frozen=True, slots=True)
class Attribution:
    """The answer: candidates, best first, and what nobody explains."""

    verdict: Verdict
    candidates: tuple[Candidate, ...]
    used: int
    uncovered: tuple[int, ...] = ()  # complaints whose customers nobody had seen so
    unnamed: tuple[int, ...] = ()  # complaints that no name explains
    tests: int = 0


def overlaps(cases: Sequence[Case]) -> tuple[set[int], dict[int, set[int]]]:
    """Gives the cases that anybody explains, and who is tested with the cases that they explain (by place).

    One complaint names nobody: whoever explains a single one is tested only where nobody explains two.
    """
    hits: dict[int, set[int]] = defaultdict(set)
    for place, case in enumerate(cases):
        for subject in {s for read in case.reads for s in (read.agent, read.tool)}:
            if case.evidence(subject):
                hits[subject].add(place)
    covered = set[int]().union(*hits.values())
    least = min(LEAST_HITS, max(map(len, hits.values()), default=0))
    return covered, {s: places for s, places in hits.items() if len(places) >= least}


Seen = Mapping[tuple[int, str], int]
"""Customers that somebody had seen: stratum, field -> number."""


def attribute(
    cases: Sequence[Case], chance: Chance, *, conditioned: bool = True, alpha: float = ALPHA
) -> Attribution:
    """Ranks agents, tools and pairs by how far their overlap with the complaints is beyond chance.

    Args:
        cases: complaints, each of another customer, with everybody's reads before the contact.
        chance: what the ledger says of everybody else.
        conditioned: compare within queue and week; else among all customers, which can name a whole queue's
            agents when the leak was of their customers, and is there to be compared with.
        alpha: highest corrected p-value of a name.
    """
    return _Attributing(cases, chance, conditioned=conditioned, alpha=alpha).run()


@dataclass(frozen=True, slots=True)
class _Weights:
    """What each test may spend: half the same for all of a family, half by how many customers they saw.

    Who saw more is likelier to be the source before any complaint is heard; who saw little can still be
    named, for twice what an even share would ask at most.
    """

    single: Mapping[int, float]  # within the family, adding up to one
    tools: frozenset[int]
    pairs: float  # what all products of two agents add up to
    tests: int

    def of(self, subjects: tuple[int, ...]) -> float:
        """Gives the weight of one test."""
        if len(subjects) == 1:
            return SHARES["tool" if subjects[0] in self.tools else "agent"] * self.single[subjects[0]]
        one, other = subjects
        return SHARES["pair"] * self.single[one] * self.single[other] / self.pairs


def _weights(chance: Chance) -> _Weights:
    single: dict[int, float] = {}
    agents = [s for s in chance.totals if s not in chance.tools]
    for family in (agents, [s for s in chance.totals if s in chance.tools]):
        whole = sum(chance.totals[s] for s in family)
        for s in family:
            single[s] = 0.5 / len(family) + (0.5 * chance.totals[s] / whole if whole else 0.5 / len(family))
    square = sum(single[a] ** 2 for a in agents)
    n = len(agents)
    return _Weights(
        single, chance.tools, max((1 - square) / 2, 1e-12), n + len(chance.tools) + n * (n - 1) // 2
    )


def _parts(cases: Iterable[Case], size: Mapping[int, int], seen: Seen) -> tuple[list[list[float]], float]:
    """Gives the independent counts that chance makes of the cases, and their mean."""
    alike: Counter[tuple[frozenset[int], frozenset[str]]] = Counter((c.strata, c.wanted) for c in cases)
    parts, expected = [], 0.0
    for (strata, wanted), drawn in alike.items():
        if len(strata) == 1:
            [stratum] = strata
            population = max(size[stratum], drawn)
            marked = min(population, *(seen.get((stratum, name), 0) for name in wanted))
            parts.append(hypergeometric(population, marked, drawn))
            expected += drawn * marked / population
        else:
            chance = min(1 - _missed(strata, size, seen, name) for name in wanted)
            parts += [[1 - chance, chance]] * drawn
            expected += drawn * chance
    return parts, expected


def _missed(strata: Iterable[int], size: Mapping[int, int], seen: Seen, name: str) -> float:
    missed = 1.0
    for stratum in strata:
        if marked := seen.get((stratum, name)):
            missed *= max(0.0, 1 - marked / size[stratum])
    return missed


def monday(moment: datetime) -> date:
    """Gives the first day of a moment's week, UTC."""
    day = moment.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


class _Attributing:
    """One question: its cases, who had seen them, and what each test may spend."""

    def __init__(self, cases: Sequence[Case], chance: Chance, *, conditioned: bool, alpha: float) -> None:
        self._cases = [case for case in cases if case.reads]
        self._chance = chance
        self._conditioned = conditioned
        self._alpha = alpha
        self._weights = _weights(chance)
        self._sums: dict[tuple[int, date, str], int] = {}
        self._covered, self._hits = overlaps(self._cases)
        self._seen: dict[int, dict[tuple[int, str], int]] = defaultdict(dict)
        for (subject, stratum, name), customers in chance.seen.items():
            self._seen[subject][stratum, name] = customers

    def run(self) -> Attribution:
        if not self._cases:
            return Attribution(Verdict.NOTHING_TO_TEST, (), 0)
        everything = range(len(self._cases))
        tested = self._beside_agents([self._test((s,), everything) for s in self._hits])
        tested += self._pairs(tested)
        corrected = holm([t.p_value for t in tested], [self._weights.of(t.subjects) for t in tested])
        ranked = sorted(
            (replace(t, corrected=c) for t, c in zip(tested, corrected, strict=True)),
            key=lambda t: (t.corrected, t.p_value, len(t.subjects), t.subjects),
        )
        shown = [
            c if place >= MOST_SHOWN and c.corrected > self._alpha else self._in_full(c)
            for place, c in enumerate(ranked)
        ]
        named = self._name(shown)
        explained = {line for c in named for line in c.lines}
        return Attribution(
            verdict=Verdict.NAMED if named else Verdict.NONE,
            candidates=tuple(replace(c, named=c in named) for c in shown),
            used=len(self._cases),
            uncovered=tuple(c.line for place, c in enumerate(self._cases) if place not in self._covered),
            unnamed=tuple(c.line for c in self._cases if c.line not in explained),
            tests=self._weights.tests,
        )

    def _test(self, subjects: tuple[int, ...], places: Collection[int]) -> Candidate:
        """Tests one subject, or two together, on the cases at some places."""
        mine = set[int]().union(*(self._hits.get(s, set()) for s in subjects)).intersection(places)
        cases = [self._cases[place] for place in places]
        seen = self._seen[subjects[0]]
        if len(subjects) > 1:
            seen = sum((Counter(self._seen[s]) for s in subjects), Counter())
        parts, expected = _parts(cases, self._chance.size, seen)
        if not self._conditioned:
            parts = self._parts_of_all(cases, subjects)
        return Candidate(
            subjects=subjects,
            kind="pair" if len(subjects) > 1 else "tool" if subjects[0] in self._chance.tools else "agent",
            lines=tuple(self._cases[place].line for place in sorted(mine)),
            expected=expected,
            p_value=upper_tail(parts, len(mine)),
        )

    def _in_full(self, candidate: Candidate) -> Candidate:
        parts = self._parts_of_all(self._cases, candidate.subjects)
        return replace(candidate, p_unconditioned=upper_tail(parts, len(candidate.lines)))

    def _beside_agents(self, tested: list[Candidate]) -> list[Candidate]:
        """Makes tools answer for what the likeliest two agents do not explain: those read through tools."""
        agents = sorted(
            (t for t in tested if t.kind == "agent" and len(t.lines) > 1),
            key=lambda t: (t.p_value, t.subjects),
        )
        left = self._without({t.subjects[0] for t in agents[:2]})
        return [
            replace(t, p_value=max(t.p_value, self._test(t.subjects, left).p_value))
            if t.kind == "tool"
            else t
            for t in tested
        ]

    def _without(self, subjects: set[int]) -> list[int]:
        """Gives the places of the cases that some subjects do not explain."""
        gone = set[int]().union(*(self._hits.get(s, set()) for s in subjects))
        return [place for place in range(len(self._cases)) if place not in gone]

    def _parts_of_all(self, cases: Iterable[Case], subjects: tuple[int, ...]) -> list[list[float]]:
        """Gives what chance makes of the cases among all customers served up to the week of the contact."""
        alike = Counter((monday(c.contact), c.wanted) for c in cases)
        parts = []
        for (last, wanted), drawn in alike.items():
            population = max(self._until(0, last, ""), drawn)
            marked = min(sum(self._until(s, last, name) for s in subjects) for name in wanted)
            parts.append(hypergeometric(population, min(marked, population), drawn))
        return parts

    def _until(self, subject: int, last: date, name: str) -> int:
        """Counts the customers whom a subject (0: anybody) had seen up to a week."""
        key = (subject, last, name)
        if key not in self._sums:
            self._sums[key] = sum(
                self._chance.seen_by_week.get((subject, week, name), 0) if subject else size
                for week, size in self._chance.size_by_week.items()
                if week <= last
            )
        return self._sums[key]

    def _pairs(self, tested: Sequence[Candidate]) -> list[Candidate]:
        """Tests agents in pairs who are both in excess, also on what the other one does not explain."""
        excess = sorted(
            (t for t in tested if t.kind == "agent" and t.p_value <= EXCESS),
            key=lambda t: (t.p_value, t.subjects),
        )[:MOST_IN_PAIRS]
        return [
            self._test(pair, range(len(self._cases)))
            for pair in combinations(sorted(t.subjects[0] for t in excess), 2)
            if self._adds(pair[0], {pair[1]}) and self._adds(pair[1], {pair[0]})
        ]

    def _adds(self, subject: int, others: set[int]) -> bool:
        """Tells whether a subject is in excess on the cases that the others do not explain."""
        left = self._without(others)
        if not self._hits.get(subject, set()).intersection(left):
            return False
        return self._test((subject,), left).p_value <= self._alpha * self._weights.of((subject,))

    def _name(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """Takes names from the top; after the first, only for what is left by those before."""
        named: list[Candidate] = []
        for candidate in ranked:
            if candidate.corrected > self._alpha:
                break
            before = {s for c in named for s in c.subjects}
            if not before or (
                not before & set(candidate.subjects)
                and all(self._adds(s, before) for s in candidate.subjects)
            ):
                named.append(candidate)
        return named
