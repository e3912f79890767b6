"""Two policies that differ at random, and what differs between them by asking stock Casbin everything."""

import random
import re
from datetime import date
from itertools import chain, combinations, product
from types import MappingProxyType

import casbin

from broker.catalog import Catalog, Field, Kind, Mask
from broker.model import Budget, OpenedBy, Presence, Provenance, Relation
from broker.policy.admin import AdminTable
from broker.policy.decision import Policy
from broker.policy.findings import Findings
from broker.policy.limits import Limits
from broker.policy.rules import CONDITIONS, read_rules
from broker.policy.table import Table
from broker.policy.verify import UNDECLARED_KIND
from tests.policy import naive
from tests.policy.sample import TEXTS

ROLES = ("tier1", "tier2", "billing")
TODAY = date(2026, 11, 25)
ENDS = ("2026-11-24", "2026-11-25", "2026-12-31")
DAYS = (TODAY, date(2026, 12, 1), date(2027, 1, 1))
LEVELS = {None: 0, "masked": 1, "clear": 2}
PURPOSES = ("resolve", "review", "call")
KINDS = ("general", "billing", UNDECLARED_KIND)
REAL = {
    "purpose": PURPOSES,
    "relation": tuple(map(str, Relation)),
    "ticket_kind": KINDS,
    "provenance": tuple(map(str, Provenance)),
    "opened_by": tuple(map(str, OpenedBy)),
    "presence": tuple(map(str, Presence)),
}


def catalog(purposes, fields):
    """Makes a catalog of one kind; fields by name with their class."""
    return Catalog(
        ticket_kinds=KINDS[:2],
        purposes=MappingProxyType(dict.fromkeys(purposes, "…")),
        field_classes={"profile": "…", "contact": "…"},
        sensitive_classes=frozenset({"contact"}),
        kinds={
            "customer": Kind(
                "customer",
                "crm",
                "customer",
                "customer_id",
                {name: Field("customer", name, name, of, Mask.TEXT) for name, of in fields.items()},
            )
        },
    )


def policy(rules_csv, of, columns=CONDITIONS, today=TODAY):
    """Makes a policy of rules and a catalog, through the strict reader but without a look at Casbin."""
    findings = Findings()
    book = read_rules(rules_csv, of, findings, columns)
    findings.raise_if_any()
    book = book.in_force(today)
    limits = Limits(Budget(20, 60), {})
    return Policy("v", "d", of, limits, AdminTable((), ()), book, Table(book, of), "not compared", today)


def some_rules(rng, of, varied, *, ending=None):
    """Makes lines of rules at random that the reader takes; only the columns named vary."""
    lines = {}
    if ending is None:
        ending = rng.choice([0, 0, 0.5])
    for i in range(rng.randint(2, 9)):
        role = ROLES[i] if i < len(ROLES) else rng.choice(ROLES)
        effect = "deny" if rng.random() < 0.35 and i >= len(ROLES) else "allow"
        words = [role if effect == "allow" or rng.random() < 0.6 else "any"]
        for column in CONDITIONS:
            words_of = of.purposes if column == "purpose" else REAL[column]
            known = [w for w in REAL[column] if w in words_of and w != UNDECLARED_KIND]
            words.append(rng.choice(known[:3]) if column in varied and rng.random() < 0.6 else "any")
        words.append(rng.choice(["profile", "contact", *of.fields]))
        words.append(rng.choice(["clear", "any"] if effect == "deny" else ["clear", "masked", "any"]))
        lines.setdefault(tuple(words), effect)
    return [
        ", ".join(
            (
                "p",
                *words,
                effect,
                *([f"until {rng.choice(ENDS)}"] if effect == "allow" and rng.random() < ending else []),
            )
        )
        for words, effect in lines.items()
    ]


def text(lines, groups, nesting=()):
    """Writes a policy.csv."""
    led = [f"g, idp:{group}, {role}" for group, roles in groups.items() for role in sorted(roles)]
    return "\n".join([*led, *(f"g, {who}, {role}" for who, role in nesting), *lines, "# end", ""])


class Stock:
    """Stock Casbin over the lines of a policy.csv, asked one question at a time."""

    def __init__(self, rules_csv, of, model=TEXTS["model.conf"], columns=CONDITIONS):
        """Loads the lines as any program would."""
        self.catalog, self.columns = of, columns
        self.enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=model))
        self.groups = {}
        for line in rules_csv.splitlines():
            kind, *words = (word.strip() for word in line.split(","))
            if kind == "p":
                self.enforcer.add_policy(*words)
            elif kind == "g" and words[0].startswith("idp:"):
                self.groups.setdefault(words[0].removeprefix("idp:"), set()).add(words[1])
            elif kind == "g":
                self.enforcer.add_grouping_policy(*words)
        for field in of.fields.values():
            self.enforcer.add_named_grouping_policy("g2", field.full_name, field.field_class)
        self.asked = {}

    def level(self, roles, facts, field):
        """Gives "clear", "masked" or None; what the catalog lacks is withheld, as the broker does."""
        if field not in self.catalog.fields or facts["purpose"] not in self.catalog.purposes:
            return None
        words = tuple(facts[column] for column in self.columns)
        key = (roles, words, field)
        if key not in self.asked:
            self.asked[key] = self.ask(roles, words, field)
        return self.asked[key]

    def ask(self, roles, words, field):
        """Asks for clear, then for masked."""
        who = "@" + "+".join(sorted(roles))
        for role in roles:
            self.enforcer.add_grouping_policy(who, role)
        levels = ("clear", "masked")
        return next((level for level in levels if self.enforcer.enforce(who, *words, field, level)), None)


class ByHand(Stock):
    """The same by the reading of `naive.py`, which is quicker and is held against Casbin elsewhere."""

    def __init__(self, rules_csv, of):
        """Takes the lines."""
        self.catalog, self.columns, self.asked = of, CONDITIONS, {}
        self.rules, self.includes, self.groups = naive.parse(rules_csv)

    def ask(self, roles, words, field):
        """Reads every rule."""
        facts = dict(zip(CONDITIONS, words, strict=True))
        field_class = self.catalog.fields[field].field_class
        return naive.decide(self.rules, self.includes, roles, facts, field, field_class)


class Daily:
    """A judge for each day that makes a difference, over the lines that have not ended."""

    def __init__(self, judge, rules_csv, of):
        """Takes which judge to ask."""
        self.days, made = {}, {}
        for day in DAYS:
            lines = [line for line in rules_csv.splitlines() if not ended(line, day)]
            left = "\n".join(re.sub(", until .*", "", line) for line in lines)
            self.days[day] = made[left] if left in made else made.setdefault(left, judge(left, of))
        self.groups = self.days[TODAY].groups

    def level(self, roles, facts, field):
        """Gives what the judge of the day says."""
        return self.days[facts["day"]].level(roles, facts, field)


def ended(line, day):
    """Says whether a line has an end before that day."""
    end = re.search("until (.*)", line)
    return end is not None and date.fromisoformat(end[1]) < day


def on(day, spans):
    """Says whether a day is in one of the spans, written `to D`, `from D` or `from D to D`."""
    for span in spans:
        first, last = re.search("from ([0-9-]+)", span), re.search("to ([0-9-]+)", span)
        if (not first or str(day) >= first[1]) and (not last or str(day) <= last[1]):
            return True
    return False


def every_set(members):
    """Gives every set of members but the empty one."""
    members = sorted(members)
    sets = chain.from_iterable(combinations(members, n) for n in range(1, len(members) + 1))
    return [frozenset(chosen) for chosen in sets]


def all_facts(rng, varied):
    """Gives every combination of facts in the columns that vary; in the others one real word each."""
    columns = [REAL[c] if c in varied else (rng.choice(REAL[c]),) for c in CONDITIONS]
    return [dict(zip((*CONDITIONS, "day"), words, strict=True)) for words in product(*columns, DAYS)]


def as_large(step, other):
    """Says whether a step (before, now) goes the same way as another and at least as far."""
    (o, n), (before, now) = ([LEVELS[level] for level in each] for each in (step, other))
    return (o <= before and n >= now) if now > before else (o >= before and n <= now)


def holds(change, facts, field):
    """Says whether a change speaks of these facts and this field."""
    said = change.details["facts"]
    return field in change.details["fields"] and all(
        on(facts[c], words) if c == "day" else facts[c] in words for c, words in said.items()
    )


def step_of(change):
    """Gives what a change says came before and comes now."""
    return tuple(
        None if level == "withheld" else level for level in (change.details["old"], change.details["new"])
    )


def seeded(seed):
    """Gives two policies at random, with everything that a test needs to ask Casbin about them."""
    rng = random.Random(seed)
    varied = rng.sample(CONDITIONS, rng.randint(1, 2))
    fields = {"name": "profile", "email": "contact", "phone": "contact"}
    moved = dict(fields)
    if rng.random() < 0.3:
        moved["phone"] = "profile"
    if rng.random() < 0.2:
        moved["fax"] = "contact"
    if rng.random() < 0.2:
        del moved["email"]
    catalogs = [
        catalog(PURPOSES if rng.random() < 0.7 else PURPOSES[:2], fields),
        catalog(PURPOSES if rng.random() < 0.7 else PURPOSES[1:], moved),
    ]
    groups = {f"g-{role}": {role} for role in ROLES}
    changed = {name: set(roles) for name, roles in groups.items()}
    if rng.random() < 0.5:
        changed["g-tier1"] = set(rng.sample(ROLES, rng.randint(1, 2)))
        changed["g-new"] = {rng.choice(ROLES)}
        changed["g-keep"] = set(ROLES)
    nestings = [(), (("tier2", "tier1"),), (("billing", "tier2"),)]
    texts = []
    lines = with_every_role(some_rules(rng, catalogs[0], varied))
    for of, led in zip(catalogs, (groups, changed), strict=True):
        if texts and rng.random() < 0.6:  # an edit, not another policy
            known = [line for line in lines if understood(line, of)]
            lines = known + [line for line in some_rules(rng, of, varied) if not clash(line, known)][-2:]
            lines = with_every_role(lines)
        elif texts:
            lines = with_every_role(some_rules(rng, of, varied))
        texts.append(text(lines, led, rng.choice(nestings)))
    return rng, varied, catalogs, texts


def understood(line, of):
    """Says whether a catalog has the words of a line."""
    words = line.split(", ")
    return words[2] in {"any", *of.purposes} and (words[8] in of.fields or words[8] in {"profile", "contact"})


def clash(line, lines):
    """Says whether a line asks what one of the others asks."""
    return line.split(", ")[:10] in [other.split(", ")[:10] for other in lines]


def with_every_role(lines):
    """Gives the lines with a rule for each role that has none."""
    have = {line.split(", ")[1] for line in lines}
    return [
        *lines,
        *(f"p, {r}, any, any, any, any, any, any, profile, masked, allow" for r in ROLES if r not in have),
    ]
