"""How many complaints until the right name: leaks in a simulated year of support work.

    python -m tests.bench --only attribution [--quick] [--json FILE]

The company (`Company`): 200,000 customers with a ticket (quick: 20,000; for `bulk` a million; shares and
curves are the same), one to three tickets each (80, 15, 5 percent), spread evenly over 52 weeks, and
over five queues by popularity; a second ticket is in the same queue half of the time. 500 agents, each
in one queue, three in ten in a second one, with an activity of lognormal(0, 0.5). A ticket is read by
one to three agents of its queue (80, 15, 5 percent), through one of three tools, with name, name and
e-mail, or all of name, e-mail and telephone in clear (10, 50, 40 percent).

The leaks, each in a company of its own:
    bulk        one agent who also saw 7 percent of all customers, evenly (70,000 of a million)
    bulk-queue  the same number, all of them in the agent's own queue: a fifth of it
    ordinary    one agent, everybody whom their own work showed them in the year (0.1 to 1 percent)
    pair        two agents who saw 3.5 percent of all customers each
    nobody      the leak was elsewhere: any customer, evenly
    queue       the leak was elsewhere, and of one queue in eight weeks alone: whose agents look guilty

A complaint: four in five are of a leaked customer, one in five of any (unrelated). The contact is 7 days and
a time of exponential(30 days) after the read (unrelated: after any of the customer's reads). The caller knew
name and telephone, e-mail, or name and e-mail (50, 30, 20 percent), of what the leak held.
What counts are all complaints received, unrelated ones and those before any read included; no customer
complains twice, which the command makes sure of.

"named": the right name is first with a corrected p of 0.01 or less; "innocents": somebody else was named at
any look, with one complaint, two, three and so on, until every right name was. `naive` takes whoever saw most
of the complainants, whatever they knew and when, as an investigator would by hand, unless that is a tie.
Seeds: the method was worked out on seeds 1 to 99; the figures are of HELD_OUT, which it never saw.
"""

from __future__ import annotations

import random
import statistics
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from uuid import UUID

from rich.table import Table

from broker.audit.attribution import Attribution, Case, Chance, Read, attribute, monday

MILLION = 1_000_000

HELD_OUT = 20_260_000
"""First of the held-out seeds."""

QUEUES = {"general": 35, "account": 25, "billing": 20, "device": 15, "refund": 5}
SHAPES = (
    (10, frozenset({"customer.name"})),
    (50, frozenset({"customer.name", "customer.email"})),
    (40, frozenset({"customer.name", "customer.email", "customer.phone"})),
)
WHOLE = len(SHAPES) - 1
KNOWN = (
    (50, frozenset({"customer.name", "customer.phone"})),
    (30, frozenset({"customer.email"})),
    (20, frozenset({"customer.name", "customer.email"})),
)
TOOLS = range(9001, 9004)
START = datetime(2025, 12, 1, tzinfo=UTC)  # a Monday
WEEKS = 52
AGENTS = 500
UNRELATED = 0.2
LEAKS = ("bulk", "bulk-queue", "ordinary", "pair")
ELSEWHERE = ("nobody", "queue")
MOST = {"bulk": 20, "bulk-queue": 30, "ordinary": 20, "pair": 40}
"""Complaints at which a search for the name is given up."""


@dataclass
class Company:
    """A year of reads, kept flat: read i of customer c is at first[c] <= i < first[c + 1]."""

    rng: random.Random
    customers: int
    queue_of: list[int] = field(default_factory=list)  # an agent's first queue
    first: array = field(default_factory=lambda: array("I"))
    agent: array = field(default_factory=lambda: array("H"))
    week: array = field(default_factory=lambda: array("B"))
    queue: array = field(default_factory=lambda: array("B"))
    shape: array = field(default_factory=lambda: array("B"))
    leaked: list[int] = field(default_factory=list)  # places of the reads that leaked
    leakers: tuple[int, ...] = ()
    chance: Chance | None = None


def company(seed: int, customers: int, leak: str) -> Company:
    """Makes a company and its leak."""
    rng = random.Random(seed)
    made = Company(rng, customers)
    weights = list(QUEUES.values())
    staff: list[tuple[list[int], list[float]]] = [([], []) for _ in QUEUES]
    for agent in range(AGENTS):
        # every queue has its agents, in proportion
        queue = bisect_left(list(accumulate(weights)), 100 * (agent + 0.5) / AGENTS)
        made.queue_of.append(queue)
        activity = rng.lognormvariate(0, 0.5)
        for q in {queue, rng.choices(range(5), weights)[0] if rng.random() < 0.3 else queue}:
            staff[q][0].append(agent + 1)
            staff[q][1].append(activity)
    cumulated = [(agents, list(accumulate(active))) for agents, active in staff]
    made.leakers = {
        "pair": (AGENTS // 5 + 1, AGENTS // 2 + 1), "nobody": (), "queue": (),
    }.get(leak, (AGENTS // 5 + 1,))  # fmt: skip
    spread = list(accumulate(weights))
    shapes = list(accumulate(share for share, _ in SHAPES))
    bulk = 0.07 if leak.startswith("bulk") else 0.035
    extra = made.leakers if leak in {"bulk", "bulk-queue", "pair"} else ()
    random_, choices = rng.random, rng.choices
    for _ in range(customers):
        made.first.append(len(made.agent))
        u = random_()
        queue = choices(range(5), cum_weights=spread)[0]
        tickets = []
        for n in range(1 if u < 0.8 else 2 if u < 0.95 else 3):
            if n and random_() < 0.5:
                queue = choices(range(5), cum_weights=spread)[0]
            tickets.append((queue, int(random_() * WEEKS)))
        for queue, week in tickets:
            u = random_()
            agents, active = cumulated[queue]
            for agent in set(choices(agents, cum_weights=active, k=1 if u < 0.8 else 2 if u < 0.95 else 3)):
                if leak == "ordinary" and agent in made.leakers:
                    made.leaked.append(len(made.agent))
                _put(made, agent, week, queue, choices(range(3), cum_weights=shapes)[0])
        queue, week = tickets[0]
        for leaker in extra:
            share = bulk if leak != "bulk-queue" else bulk / weights[made.queue_of[leaker - 1]] * 100
            inside = leak != "bulk-queue" or queue == made.queue_of[leaker - 1]
            if inside and random_() < share:
                made.leaked.append(len(made.agent))
                _put(made, leaker, week, queue, WHOLE)
    made.first.append(len(made.agent))
    if leak == "nobody":
        made.leaked = [made.first[c] for c in range(customers)]
    elif leak == "queue":
        begin = rng.randrange(WEEKS - 8)
        made.leaked = [
            i for i in range(len(made.agent)) if made.queue[i] == 2 and begin <= made.week[i] < begin + 8
        ]
    made.chance = _chance(made)
    return made


def _put(made: Company, agent: int, week: int, queue: int, shape: int) -> None:
    made.agent.append(agent)
    made.week.append(week)
    made.queue.append(queue)
    made.shape.append(shape)


def tool_of(place: int) -> int:
    """Gives the tool of a read."""
    return TOOLS[place % len(TOOLS)]


def _chance(made: Company) -> Chance:
    """Counts as broker.disclosure_tally does."""
    size: Counter = Counter()
    by_week: Counter = Counter()
    tally: Counter = Counter()
    first: Counter = Counter()
    for c in range(made.customers):
        reads = sorted(range(made.first[c], made.first[c + 1]), key=lambda i: made.week[i])
        size.update({made.week[i] * 5 + made.queue[i] for i in reads})
        by_week[made.week[reads[0]]] += 1
        met = set()
        for i in reads:
            stratum = made.week[i] * 5 + made.queue[i]
            for subject in (made.agent[i], tool_of(i)):
                for key, counts, where in (
                    ((subject, made.shape[i], stratum), tally, stratum),
                    ((subject, made.shape[i]), first, made.week[i]),
                ):
                    if key not in met:
                        met.add(key)
                        counts[subject, where, made.shape[i]] += 1
    seen: Counter = Counter()
    seen_by_week: Counter = Counter()
    totals: Counter = Counter(dict.fromkeys([*range(1, AGENTS + 1), *TOOLS], 0))
    for (subject, stratum, shape), n in tally.items():
        for name in (*SHAPES[shape][1], ""):
            seen[subject, stratum, name] += n
    for (subject, week, shape), n in first.items():
        totals[subject] += n
        for name in (*SHAPES[shape][1], ""):
            seen_by_week[subject, _monday(week), name] += n
    return Chance(
        dict(size), dict(seen), {_monday(w): n for w, n in by_week.items()}, dict(seen_by_week), dict(totals),
        frozenset(TOOLS),
    )  # fmt: skip


def _monday(week: int):
    return monday(START + timedelta(weeks=week))


def complaints(made: Company, rng: random.Random, count: int) -> list[Case]:
    """Draws complaints in the order of their arrival; one in five has nothing to do with the leak."""
    cases: list[Case] = []
    met: set[int] = set()  # who complains twice is one complaint
    while len(cases) < count:
        related = rng.random() >= UNRELATED
        c, place = -1, -1
        while c < 0 or c in met:
            place = rng.choice(made.leaked) if related else rng.randrange(len(made.agent))
            c = _customer(made, place)
        fields = rng.choices([f for _, f in KNOWN], [w for w, _ in KNOWN])[0]
        if related and made.leakers and not fields <= SHAPES[made.shape[place]][1]:
            continue
        met.add(c)
        contact = _time(made, place) + timedelta(days=7 + rng.expovariate(1 / 30))
        reads = tuple(
            Read(UUID(int=i), _time(made, i), made.agent[i], tool_of(i), made.week[i] * 5 + made.queue[i],
                 SHAPES[made.shape[i]][1])
            for i in range(made.first[c], made.first[c + 1]) if _time(made, i) < contact
        )  # fmt: skip
        cases.append(Case(len(cases) + 1, contact, fields, reads))
    return cases


def _time(made: Company, place: int) -> datetime:
    return START + timedelta(weeks=made.week[place], seconds=place * 7919 % 604800)


def _customer(made: Company, place: int) -> int:
    found = bisect_left(made.first, place)
    return found if made.first[found] == place else found - 1


def naive(cases: Sequence[Case]) -> tuple[int, ...]:
    """Names whoever saw most of the complainants; nobody where that is a tie."""
    counts = Counter(a for case in cases for a in {read.agent for read in case.reads})
    [*best] = counts.most_common(2)
    return (best[0][0],) if best and (len(best) == 1 or best[0][1] > best[1][1]) else ()


def right(answer: Attribution, leakers: tuple[int, ...]) -> bool:
    """Tells whether the first name is right: the leaker, one of the two, or both together."""
    first = answer.candidates[:1]
    return bool(first) and first[0].named and set(first[0].subjects) <= set(leakers)


def wrong(answer: Attribution, leakers: tuple[int, ...]) -> bool:
    """Tells whether an innocent is named."""
    return any(c.named and not set(c.subjects) <= set(leakers) for c in answer.candidates)


def search(made: Company, rng: random.Random, most: int, *, conditioned: bool) -> dict:
    """Lets complaints arrive one by one until the right name is first; looks for innocents all the way."""
    cases = complaints(made, rng, most)
    found, both, by_hand, innocents = None, None, 1, False
    for n in range(1, most + 1):
        answer = attribute(cases[:n], made.chance, conditioned=conditioned)
        innocents |= both is None and wrong(answer, made.leakers)
        if found is None and right(answer, made.leakers):
            found = n
        names = {s for c in answer.candidates if c.named for s in c.subjects}
        if both is None and names >= set(made.leakers):
            both = n
        picked = naive(cases[:n])
        by_hand = by_hand if picked and set(picked) <= set(made.leakers) else n + 1
        if found is not None and both is not None and n >= found + 3:
            break
    return {"named": found, "all_named": both, "innocent": bool(innocents), "naive_stable": by_hand}


def run(*, quick: bool, say: Callable[[str], None], seed: int = HELD_OUT) -> dict:
    """Measures every leak; quick: smaller companies of the same shares, fewer draws."""
    customers, draws, elsewhere = (20_000, 8, 25) if quick else (200_000, 50, 500)
    result: dict = {"agents": AGENTS, "leaks": [], "elsewhere": [], "seed": seed}
    for k, leak in enumerate(LEAKS):
        say(f"attribution: {leak}")
        made = company(seed + 100 * k, MILLION if leak == "bulk" and not quick else customers, leak)
        for conditioned in (False, True):
            found = [
                search(made, random.Random(seed + 1000 * (i + 1)), MOST[leak], conditioned=conditioned)
                for i in range(draws)
            ]
            result["leaks"].append(_summary(leak, made, found, conditioned=conditioned))
    for k, leak in enumerate(ELSEWHERE):
        say(f"attribution: elsewhere, {leak}")
        made = company(seed + 5000 + k, customers, leak)
        for conditioned in (False, True):
            for count in (10, 30):
                named = by_hand = 0
                for i in range(elsewhere):
                    cases = complaints(made, random.Random(seed + 77 * i), count)
                    named += wrong(attribute(cases, made.chance, conditioned=conditioned), ())
                    by_hand += bool(naive(cases))
                result["elsewhere"].append({
                    "leak": leak, "conditioned": conditioned, "complaints": count, "draws": elsewhere,
                    "named": named / elsewhere, "naive": by_hand / elsewhere,
                })  # fmt: skip
    return result


def _summary(leak: str, made: Company, found: list[dict], *, conditioned: bool) -> dict:
    most = MOST[leak]
    counts = sorted(f["named"] or most + 1 for f in found)
    everybody = sorted(f["all_named"] or most + 1 for f in found)
    return {
        "leak": leak,
        "conditioned": conditioned,
        "customers": made.customers,
        "leaked": len(made.leaked),
        "median": statistics.median(counts),
        "ninety": counts[int(0.9 * (len(counts) - 1))],
        "all_median": statistics.median(everybody),
        "curve": {
            n: sum(c <= n for c in counts) / len(counts)
            for n in (3, 4, 5, 6, 8, 10, 15, 20, 30, 40)
            if n <= most
        },
        "innocent": sum(f["innocent"] for f in found) / len(found),
        "naive_median": statistics.median(f["naive_stable"] for f in found),
        "draws": len(found),
    }


def table(result: dict) -> Table:
    """Draws how many complaints it took."""
    drawn = Table(title="Complaints until the right name, corrected p at most 0.01")
    for name in ("leak", "leaked", "against", "median", "9 in 10", "all names", "named after 5", "10", "20",
                 "innocents named", "naive stays right from"):  # fmt: skip
        drawn.add_column(name, justify="left" if name in {"leak", "against"} else "right")
    for row in result["leaks"]:
        curve = row["curve"]
        drawn.add_row(
            row["leak"], f"{row['leaked']} of {row['customers']}",
            "queue and week" if row["conditioned"] else "everybody",
            f"{row['median']:g}", f"{row['ninety']:g}", f"{row['all_median']:g}",
            *(f"{curve[n]:.0%}" for n in (5, 10, 20)),
            f"{row['innocent']:.1%}", f"{row['naive_median']:g}",
        )  # fmt: skip
    return drawn


def table_elsewhere(result: dict) -> Table:
    """Draws how often somebody was named though the leak was elsewhere."""
    drawn = Table(title="The leak was elsewhere: how often somebody is named")
    for name in ("leak", "against", "complaints", "named", "naive", "draws"):
        drawn.add_column(name, justify="left" if name in {"leak", "against"} else "right")
    for row in result["elsewhere"]:
        drawn.add_row(
            row["leak"], "queue and week" if row["conditioned"] else "everybody", str(row["complaints"]),
            f"{row['named']:.2%}", f"{row['naive']:.0%}", str(row["draws"]),
        )  # fmt: skip
    return drawn
