"""What a decision costs, by number of rules and of tickets: `python -m tests.bench.decision [--quick]`.

Each round measures every size in turn, so that a busy machine is busy for all; medians of the
rounds, with the lowest and the highest. A decision is about five fields at both levels; stock
`casbin.Enforcer.enforce` answers one question about one field at one level, so the ratio flatters
Casbin tenfold.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from broker.model import Facts, Level, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles, load
from broker.policy.engine import Engine
from broker.policy.explain import explain
from broker.policy.rules import CONDITIONS
from broker.policy.table import Table

MODEL = (Path(__file__).parents[2] / "policies" / "model.conf").read_text("utf-8")
SIZES = (10, 100, 1_000, 10_000)
CHUNK = 5_000  # decisions of one pass; their facts are made outside the clock
PASSES = 15  # of each size in a round

ROLES = [f"role{i}" for i in range(12)]
PURPOSES = [f"purpose{i}" for i in range(8)]
KINDS = [f"kind{i}" for i in range(8)]
CLASSES = [f"class{i}" for i in range(5)]
FIELDS = [f"field{i}" for i in range(25)]


def files(rules: int) -> PolicyFiles:
    """Makes a policy with that many rules: every role is used, one rule in ten is a denial."""
    rng = random.Random(rules)
    words = {
        "role": ROLES,
        "purpose": ["any", *PURPOSES],
        "relation": ["any", "assignee", "assignee", "supervisor", "collaborator"],
        "kind": ["any", "any", *KINDS],
        "provenance": ["any", "routed", "routed", "peer", "imported"],
        "opened_by": ["any", "any", "customer", "peer", "self"],
        "presence": ["any", "any", "present"],
        "field": [*CLASSES, *(f"customer.{name}" for name in FIELDS)],
        "level": [Level.CLEAR, Level.MASKED],
    }
    lines: dict[str, str] = {}
    while len(lines) < rules:
        picked = [rng.choice(choices) for choices in words.values()]
        picked[0] = ROLES[len(lines) % len(ROLES)]
        effect = "deny" if len(lines) % 10 == 9 else "allow"
        if effect == "deny":
            picked[-1] = Level.CLEAR
        lines.setdefault(", ".join(picked), effect)
    used = ROLES[: min(rules, len(ROLES))]
    groups = [f"g, idp:{role}, {role}" for role in used]
    fields = "\n".join(
        f"      {name}: {{column: {name}, class: {CLASSES[i % len(CLASSES)]}, mask: text}}"
        for i, name in enumerate(FIELDS)
    )
    return PolicyFiles.from_mapping(
        {
            "model.conf": MODEL,
            "policy.csv": "\n".join(
                [*groups, *(f"p, {line}, {effect}" for line, effect in lines.items()), "# end", ""]
            ),
            "catalog.yaml": (
                f"version: 1\nticket_kinds: [{', '.join(KINDS)}]\n"
                f"purposes: {{{', '.join(f'{p}: Some work' for p in PURPOSES)}}}\n"
                f"field_classes: {{{', '.join(f'{c}: {{about: Some fields}}' for c in CLASSES)}}}\n"
                "kinds:\n  customer:\n    table: crm.customer\n    key: customer_id\n    fields:\n"
                f"{fields}\n...\n"
            ),
            "limits.yaml": "version: 1\nbudgets:\n  default: {per_hour: 20, per_day: 60}\n...\n",
            "admin.csv": "p, feed, /broker.v1.TicketFeedService/PublishEvents, allow\n# end\n",
        }
    )


Asked = tuple[frozenset[str], Facts, list[str]]


@cache
def situations() -> list[Asked]:
    """Gives what a helpdesk really meets, again and again: some facts, and the fields of its tools' forms."""
    rng = random.Random(1)
    forms = [[f"customer.{name}" for name in rng.sample(FIELDS, 5)] for _ in range(8)]
    return [
        (
            frozenset(rng.sample(ROLES[:4], rng.randint(1, 2))),
            Facts(
                rng.choice(PURPOSES),
                rng.choice([Relation.ASSIGNEE, Relation.ASSIGNEE, Relation.SUPERVISOR]),
                rng.choice(KINDS),
                rng.choice([Provenance.ROUTED, Provenance.ROUTED, Provenance.PEER, Provenance.SELF]),
                rng.choice(list(OpenedBy)),
                rng.choice(list(Presence)),
            ),
            rng.choice(forms),
        )
        for _ in range(100)
    ]


def tickets(count: int) -> Iterator[list[Asked]]:
    """Gives tickets in chunks, each in one of the situations."""
    rng = random.Random(count)
    for start in range(0, count, CHUNK):
        yield [rng.choice(situations()) for _ in range(min(CHUNK, count - start))]


def warm(policy: Policy, chunk: list[Asked]) -> float:
    """Gives microseconds per decision on situations that were met before.

    Ten tickets are asked for often, a million once each; every request brings facts of its own.
    """
    for each in situations():
        policy.decide(*each)
    asked = [
        (roles, replace(facts), list(fields))
        for _ in range(CHUNK // len(chunk))
        for roles, facts, fields in chunk
    ]
    decide = policy.decide
    gc.disable()
    start = time.perf_counter()
    for roles, facts, fields in asked:
        decide(roles, facts, fields)
    spent = time.perf_counter() - start
    gc.enable()
    return spent / len(asked) * 1e6


def cold(policy: Policy, count: int) -> float:
    """Gives microseconds per decision that the memo does not know, reasons of denials included."""
    asked = next(tickets(count))
    spent = 0.0
    for roles, facts, fields in asked:
        policy.table._memo.clear()
        start = time.perf_counter()
        policy.decide(roles, facts, fields)
        spent += time.perf_counter() - start
    return spent / len(asked) * 1e6


def stock(engine: Engine, count: int) -> float:
    """Gives microseconds per question to stock Casbin."""
    asked = next(tickets(count))
    start = time.perf_counter()
    for roles, facts, fields in asked:
        words = facts.as_mapping()
        engine.enforce(("@" + "+".join(sorted(roles)), *(words[c] for c in CONDITIONS), fields[0], "clear"))
    return (time.perf_counter() - start) / len(asked) * 1e6


def build(policy: Policy) -> float:
    """Gives milliseconds to compile the table."""
    start = time.perf_counter()
    Table(policy.book, policy.catalog, explain)
    return (time.perf_counter() - start) * 1e3


def spread(values: list[float]) -> dict[str, float]:
    """Gives the median, the lowest and the highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(values: list[float], others: list[float]) -> dict[str, float]:
    """Gives the spread of the ratios, round by round."""
    return spread([a / b for a, b in zip(values, others, strict=True)])


def run(quick: bool, say: Callable[[str], None] = lambda _: None) -> dict:
    """Measures decisions at 10 to 10,000 rules and 10 to 1,000,000 tickets beside stock Casbin.

    Returns:
        Rows by rules and by tickets. `flat` compares the warm decision with that of the smallest
        size, measured beside it; `times_faster` compares it with one stock enforce over the
        same rules.
    """
    rounds = 3 if quick else 9
    policies, load_ms = {}, {}
    for size in SIZES:
        start = time.perf_counter()
        policies[size] = load(files(size), str(size))
        load_ms[size] = (time.perf_counter() - start) * 1e3
        say(f"{size} rules loaded: {policies[size].verification}")
    role_sets = {roles for roles, _, _ in situations()}
    engines = {size: Engine(MODEL, p.book, p.catalog, role_sets) for size, p in policies.items()}
    counts = (10, 1_000, 100_000) if quick else (10, 1_000, 100_000, 1_000_000)
    by_rules: dict[str, dict[int, list[float]]] = {
        name: {size: [] for size in SIZES} for name in ("warm", "cold", "stock", "build")
    }
    by_tickets: dict[int, list[float]] = {count: [] for count in counts}
    beside_few: dict[int, list[float]] = {count: [] for count in counts}
    few = next(tickets(10))
    for number in range(rounds):
        passes: dict[int, list[float]] = {size: [] for size in SIZES}
        gc.collect()
        for chunk in tickets(PASSES * CHUNK):
            for size in SIZES:  # pass by pass in turn: a pass is 5 ms, what disturbs lasts longer
                passes[size].append(warm(policies[size], chunk))
        for size in SIZES:
            by_rules["warm"][size].append(statistics.median(passes[size]))
            by_rules["cold"][size].append(cold(policies[size], 200))
            by_rules["stock"][size].append(stock(engines[size], max(3, 3_000 // size)))
            by_rules["build"][size].append(build(policies[size]))
        say(f"rules, round {number + 1} of {rounds}")
    policy = policies[1_000]
    for number in range(2 if quick else 3):
        gc.collect()
        for count in counts:
            passes_of = [(warm(policy, chunk), warm(policy, few)) for chunk in tickets(count)]
            by_tickets[count].append(statistics.median(a for a, _ in passes_of))
            beside_few[count].append(statistics.median(a / b for a, b in passes_of))
        say(f"tickets, round {number + 1}")
    return {
        "rules": [
            {
                "rules": size,
                "warm_us": spread(by_rules["warm"][size]),
                "cold_us": spread(by_rules["cold"][size]),
                "stock_us": spread(by_rules["stock"][size]),
                "build_ms": spread(by_rules["build"][size]),
                "load_ms": load_ms[size],
                "flat": ratios(by_rules["warm"][size], by_rules["warm"][SIZES[0]]),
                "times_faster": ratios(by_rules["stock"][size], by_rules["warm"][size]),
                "verification": policies[size].verification,
            }
            for size in SIZES
        ],
        "tickets": [
            {"tickets": count, "warm_us": spread(costs), "flat": spread(beside_few[count])}
            for count, costs in by_tickets.items()
        ],
    }


def table(result: dict) -> str:
    """Gives the result as text."""

    def cell(value: dict[str, float], digits: int = 2) -> str:
        return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"

    lines = [
        f"{row['rules']:>6} rules: warm {cell(row['warm_us'])} us, flat {cell(row['flat'])}, "
        f"cold {cell(row['cold_us'], 0)} us, stock enforce {cell(row['stock_us'], 0)} us, "
        f"{cell(row['times_faster'], 0)} times faster, table {cell(row['build_ms'], 1)} ms, "
        f"load {row['load_ms']:.0f} ms"
        for row in result["rules"]
    ]
    lines += [
        f"{row['tickets']:>9} tickets: warm {cell(row['warm_us'])} us, flat {cell(row['flat'])}"
        for row in result["tickets"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, 100,000 tickets at most")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    measured = run(arguments.quick, lambda text: print(text, file=sys.stderr))
    print(table(measured))
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2), "utf-8")
