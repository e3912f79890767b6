"""What comparing two policies costs: `python -m tests.bench --only compare`.

Beside it, brute force: it asks the compiled table, which is already thousands of times quicker than
Casbin, about every role and every two, at every combination of facts and for every field. Beyond some
points it asks a sample and the time is scaled up; the row says of how many.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import chain, combinations, islice, product
from pathlib import Path

from broker.policy import Policy, PolicyFiles, load
from broker.policy.compare import compare
from broker.policy.compare.domain import DAY, OTHER, Domain
from tests.bench import decision

POLICIES = Path(__file__).parents[2] / "policies"
MOST_POINTS = 40_000
"""Most points that brute force visits in a round."""


def edited(files: PolicyFiles, name: str) -> Policy:
    """Gives a policy with a handful of its allows made clear and a handful of rules gone."""
    rng = random.Random(len(files.texts["policy.csv"]))
    lines = files.texts["policy.csv"].splitlines()
    masked = [i for i, line in enumerate(lines) if line.endswith(", masked, allow")]
    for i in rng.sample(masked, 3):
        lines[i] = lines[i].replace(", masked, allow", ", clear, allow")
    kept: dict[str, None] = dict.fromkeys(lines[i] for i in range(len(lines)) if lines[i].startswith("p"))
    rules = list(kept)[:-2]
    others = [line for line in lines if not line.startswith("p") and line != "# end"]
    text = "\n".join([*others, *rules, "# end", ""])
    return load(PolicyFiles.from_mapping({**files.texts, "policy.csv": text}), name)


def questions(old: Policy, new: Policy, domain: Domain) -> Iterator[tuple]:
    """Gives every question that brute force asks, in an order that a sample can be taken from."""
    roles = sorted(old.book.mapped_roles & new.book.mapped_roles)
    sets = [frozenset(s) for s in chain(((r,) for r in roles), combinations(roles, 2))]
    columns = [
        [c.spelt_out((word,))[0] if word == OTHER else word for word in c.words]
        for c in domain.columns
        if c.name != DAY
    ]
    fields = sorted(old.catalog.fields.keys() & new.catalog.fields.keys())
    rng = random.Random(1)
    everything = [sets, fields, *columns]
    count = 1
    for words in everything:
        count *= len(words)
    if count <= MOST_POINTS:
        yield from product(*everything)
        return
    while True:
        yield tuple(rng.choice(words) for words in everything)


def brute(old: Policy, new: Policy, domain: Domain) -> tuple[float, int, int]:
    """Gives the seconds that brute force takes, the points visited and the points there are."""
    roles = len(old.book.mapped_roles & new.book.mapped_roles)
    there_are = (roles * (roles + 1) // 2) * domain.size * len(old.catalog.fields)
    asked = list(islice(questions(old, new, domain), MOST_POINTS))
    start = time.perf_counter()
    for held, field, *facts in asked:
        for policy in (old, new):
            policy.table.outcome(policy.table.ground(held, facts), field)
    spent = time.perf_counter() - start
    return spent * there_are / len(asked), len(asked), there_are


def run(quick: bool, say: Callable[[str], None] = lambda _: None) -> list[dict]:
    """Compares the starting policy and 1,000 rules with an edit of each, and with quite another policy."""
    starting, large = PolicyFiles.from_directory(POLICIES), decision.files(1_000)
    old, many = load(starting, "old"), load(large, "old")
    rows = []
    for name, before, after in (
        ("starting policy, edited", old, edited(starting, "new")),
        ("1,000 rules, edited", many, edited(large, "new")),
        ("1,000 rules, all others", many, load(decision.files(1_001), "new")),
    ):
        domain = Domain(before, after)
        times, ratios = [], []
        for _ in range(3 if quick else 7):
            gc.collect()
            start = time.perf_counter()
            changes = compare(before, after).changes
            times.append(time.perf_counter() - start)
            slow, visited, there_are = brute(before, after, domain)
            ratios.append(slow / times[-1])
        say(f"{name}: {len(changes)} sentences")
        rows.append(
            {
                "what": name,
                "seconds": statistics.median(times),
                "sentences": len(changes),
                "points": there_are,
                "visited": visited,
                "times_faster": {
                    "median": statistics.median(ratios),
                    "low": min(ratios),
                    "high": max(ratios),
                },
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    """Gives the result as text."""
    return "\n".join(
        f"{row['what']:26} {row['seconds'] * 1e3:7.0f} ms, {row['sentences']:5} sentences, "
        f"{row['times_faster']['median']:6.0f} ({row['times_faster']['low']:.0f} to "
        f"{row['times_faster']['high']:.0f}) times faster than at all {row['points']:,} points"
        + (f" ({row['visited']:,} asked)" if row["visited"] < row["points"] else "")
        for row in rows
    )
