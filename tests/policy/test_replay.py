"""Recorded decisions taken again: every flip, nothing but flips, and what cannot be known is said."""

import random
from collections import Counter
from functools import cache
from itertools import combinations
from types import MappingProxyType

import pytest

from broker.access.refusals import decision_detail
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import PolicyFiles, load
from broker.policy.replay import MOST_NAMED, Deciding, People, Recorded, Replay, facts_of, recorded_from
from tests.policy import naive
from tests.policy.sample import CATALOG, POLICIES, RULES, files

FACTS = {
    "purpose": "resolve",
    "relation": "assignee",
    "ticket_kind": "general",
    "provenance": "routed",
    "opened_by": "customer",
    "presence": "absent",
}
MASKED_CONTACT = "p, tier1, resolve, assignee, any, routed, any, any, contact, masked, allow\n"
WIDER = RULES.replace(MASKED_CONTACT, MASKED_CONTACT.replace("masked", "clear"))


def recorded(**changes) -> Recorded:
    """Makes a recorded decision of the sample policy: a tier 1 agent, name in clear, e-mail masked."""
    told = {
        "facts": FACTS,
        "roles": frozenset({"tier1"}),
        "groups": frozenset({"front"}),
        "levels": {"customer.name": "clear", "customer.email": "masked"},
        "decisions": 10,
        "example": "e-1",
        "agents": frozenset({"https://idp|ann"}),
        "customers": frozenset({"c1", "c2"}),
    }
    return Recorded(**{**told, **changes})


@cache
def starting_policy():
    """Loads the policy of the repository."""
    return load(PolicyFiles.from_directory(POLICIES), "1")


@cache
def draft(rules: str = RULES, catalog: str = CATALOG):
    """Loads the sample policy with other rules."""
    return load(files(policy_csv=rules, catalog_yaml=catalog), "draft")


def replay(inputs, new):
    """Takes recorded decisions again under a draft; people are those that the inputs name."""
    again = Replay(new)
    agents = {}
    customers = {}
    nameless = Counter()
    for recorded in inputs:
        for mark in again.add(recorded):
            agents.setdefault(mark, Counter()).update(dict.fromkeys(recorded.agents, recorded.decisions))
            customers.setdefault(mark, set()).update(recorded.customers)
            nameless[mark] += 0 if recorded.customers else recorded.decisions
    people = {
        mark: People(len(named), len(customers[mark]), nameless[mark], dict(named.most_common(MOST_NAMED)))
        for mark, named in agents.items()
    }
    return again.report(people)


class TestFlips:
    def test_the_same_policy_flips_nothing(self):
        """A policy replayed under itself agrees with itself."""
        report = replay([recorded()], draft())

        assert (report.decisions, report.changed, report.flips) == (10, 0, ())

    def test_a_wider_draft(self):
        """Masked to clear is told with its counts, agents, ticket kinds, example and exposure."""
        report = replay([recorded()], draft(WIDER))
        [flip] = report.widened

        assert (flip.field, flip.before, flip.after) == ("customer.email", "masked", "clear")
        assert (flip.decisions, flip.ticket_kinds, flip.examples) == (10, {"general": 10}, ("e-1",))
        assert flip.people.most_concerned == {"https://idp|ann": 10}
        assert flip.people.customers == 2
        assert report.sensitive_newly_clear.keys() == {"customer.email"}
        assert report.sensitive_newly_clear["customer.email"].customers == 2
        assert report.customers_newly_reachable == 0
        assert report.narrowed == ()

    def test_a_narrower_draft(self):
        """What is taken away is told as narrowing, and exposes nobody."""
        report = replay([recorded()], draft(RULES.replace(MASKED_CONTACT, "")))

        assert [(f.field, f.after) for f in report.narrowed] == [("customer.email", "withheld")]
        assert (report.widened, report.sensitive_newly_clear) == ((), {})

    def test_customers_newly_reachable_are_those_of_decisions_that_withheld_everything(self):
        """Each customer once, however many decisions; who was reached before is not new."""
        refused = recorded(
            facts=FACTS | {"purpose": "review"},
            levels=dict.fromkeys(("customer.name", "customer.email"), "withheld"),
        )
        more = recorded(facts=refused.facts, levels=refused.levels, customers=frozenset({"c2", "c3"}))
        wider = RULES.replace(
            "# end", "p, tier1, review, any, any, any, any, any, profile, masked, allow\n# end"
        )
        report = replay([refused, more, recorded()], draft(wider))

        assert (report.opened, report.customers_newly_reachable) == (20, 3)
        assert report.newly_reachable.nameless == 0

    def test_decisions_that_name_no_customer_are_not_lost(self):
        """Where an event names no customer, the decisions are counted instead."""
        wider = draft(WIDER)
        [flip] = replay([recorded(customers=frozenset())], wider).flips

        assert (flip.people.customers, flip.people.nameless) == (0, 10)

    def test_equal_inputs_are_decided_once(self):
        """A thousand times the same input is one input, and a thousand decisions."""
        report = replay([recorded() for _ in range(1000)], draft())

        assert (report.inputs, report.decisions) == (1, 10_000)

    def test_a_group_that_leads_elsewhere(self):
        """The draft's own mapping of groups decides, not the roles of then."""
        remapped = RULES.replace("g, idp:front, tier1", "g, idp:front, tier1\ng, idp:front, tier2")
        present = recorded(facts=FACTS | {"presence": "present"})

        assert replay([present], draft()).flips == ()
        assert [f.after for f in replay([present], draft(remapped)).flips] == ["clear"]

    def test_a_draft_cannot_talk_a_class_harmless(self):
        """A field that is sensitive in force stays so in the report, whatever the draft calls it."""
        catalog = CATALOG.replace(", sensitive: true", "")
        again = Replay(
            draft(WIDER, catalog=catalog),
            sensitive=frozenset({"customer.email"}),
        )
        again.add(recorded())

        assert again.report({}).sensitive_newly_clear.keys() == {"customer.email"}


class TestUndecidable:
    @pytest.mark.parametrize("fact", FACTS)
    def test_a_fact_that_was_not_recorded(self, fact):
        """A decision from before a fact existed is counted by that fact, and not guessed."""
        told = {name: word for name, word in FACTS.items() if name != fact}
        report = replay([recorded(facts=told), recorded()], draft(WIDER))

        assert report.undecidable == {fact: 10}
        assert (report.changed, report.decisions) == (10, 20)

    def test_roles_that_were_not_recorded(self):
        """Without groups the roles of then decide; without both nobody can."""
        wider = draft(WIDER)

        assert replay([recorded(groups=None)], wider).changed == 10
        assert replay([recorded(groups=None, roles=None)], wider).undecidable == {"roles": 10}

    def test_refusals_that_were_only_counted(self):
        """Beyond the denial rate one event stands for many decisions, and tells of none what it saw."""
        report = replay([recorded_from({"count": 40}, 2)], draft())

        assert report.undecidable == {"facts": 80}

    def test_a_word_of_another_release(self):
        """A relation that this release does not know decides nothing."""
        report = replay([recorded(facts=FACTS | {"relation": "auditor"})], draft())

        assert report.undecidable == {"a word that this release knows": 10}

    def test_a_field_that_the_draft_does_not_know_is_told_apart(self):
        """A field gone from the catalog is neither a flip nor undecidable; its neighbours are compared."""
        levels = {"customer.fax": "clear", "customer.email": "masked"}
        report = replay([recorded(levels=levels)], draft(WIDER))

        assert report.fields_unknown == {"customer.fax": 10}
        assert [flip.field for flip in report.flips] == ["customer.email"]

    def test_groups_that_no_decision_tells_of(self):
        """Which agents a newly mapped group would have widened is not on record, and the report says so."""
        report = replay([recorded()], draft(RULES.replace("g, idp:back", "g, idp:new, tier2\ng, idp:back")))

        assert report.groups_never_recorded == ("back", "new")


class TestGroupsThatAVersionDidNotMap:
    """Version 1 did not map `late`, version 2 did: who was in it is on record from version 2 on."""

    MAPPED = MappingProxyType({1: frozenset({"front", "back"}), 2: frozenset({"front", "back", "late"})})
    TIER2 = RULES.replace("g, idp:back", "g, idp:late, tier2\ng, idp:back")
    TIER1 = RULES.replace("g, idp:back", "g, idp:late, tier1\ng, idp:back")
    PRESENT = FACTS | {"presence": "present"}

    def report(self, rules, *taken):
        again = Replay(draft(rules), mapped=self.MAPPED)
        for one in taken:
            again.add(one)
        return again.report({})

    def test_where_it_matters_it_is_undecidable(self):
        """An agent of version 1 may have been in the group and would see more; nobody guesses."""
        of_then = recorded(facts=self.PRESENT, version=1)
        report = self.report(self.TIER2, of_then, recorded(facts=self.PRESENT, version=2))

        assert report.undecidable == {"membership of late": 10}
        assert (report.decisions, report.flips) == (20, ())
        assert report.groups_not_recorded == {"late": (1,)}

    def test_who_had_no_role_then(self):
        """Whoever was refused everything for lack of a role may have been a member."""
        refused = recorded(
            roles=frozenset(), groups=frozenset(), levels={"customer.name": "withheld"}, version=1
        )

        assert self.report(self.TIER1, refused).undecidable == {"membership of late": 10}

    def test_where_it_makes_no_difference_it_is_decided(self):
        """Where members would see the same, the decision is taken again like any other."""
        wider = self.TIER1.replace(MASKED_CONTACT, MASKED_CONTACT.replace("masked", "clear"))
        report = self.report(wider, recorded(version=1))

        assert (report.undecidable, report.changed) == ({}, 10)
        assert report.groups_not_recorded == {"late": (1,)}

    def test_a_group_that_takes_away(self):
        """Members may see less by it: a denial of their role is not guessed away either."""
        denial = "p, held, any, any, any, any, any, any, contact, any, deny"
        rules = RULES.replace("g, idp:back", "g, idp:late, held\ng, idp:back").replace(
            "# end", f"{denial}\n# end"
        )

        assert self.report(rules, recorded(version=1)).undecidable == {"membership of late": 10}

    def test_what_no_version_mapped_is_told_apart(self):
        """A group that the draft is the first to map decides nothing here, and the report names it."""
        rules = RULES.replace("g, idp:back", "g, idp:new, tier2\ng, idp:back")
        report = self.report(rules, recorded(facts=self.PRESENT, version=1))

        assert (report.undecidable, report.groups_not_recorded) == ({}, {})
        assert "new" in report.groups_never_recorded

    def test_one_by_one_is_enough(self):
        """Whether any set of groups would change a decision is seen by asking each group alone."""
        rng = random.Random(4)
        facts = facts_of(self.PRESENT)
        found = Counter()
        for _ in range(150):
            rights = [("clear", "allow"), ("masked", "allow"), ("any", "deny"), ("clear", "deny")]
            lines = [f"g, idp:{role}, {role}" for role in "abcd"]
            for role in "abcd":
                field = rng.choice(("profile", "contact", "customer.phone"))
                level, effect = rng.choice(rights)
                lines.append(f"p, {role}, any, any, any, any, any, any, {field}, {level}, {effect}")
            limits = "version: 1\nbudgets: {default: {per_hour: 20, per_day: 60}}\n...\n"
            texts = files(policy_csv="\n".join([*lines, "# end", ""]), limits_yaml=limits)
            policy = load(texts, "draft")
            deciding, fields = Deciding(policy), tuple(policy.catalog.fields)
            base = deciding.levels(frozenset("a"), facts, fields)
            alone = any(deciding.levels(frozenset("a") | {role}, facts, fields) != base for role in "bcd")
            together = any(
                deciding.levels(frozenset("a") | set(more), facts, fields) != base
                for size in (2, 3)
                for more in combinations("bcd", size)
            )
            found[alone, together] += 1
            assert alone or not together

        assert len(found) > 1


def test_compared_is_the_decision_and_not_what_the_grant_left_of_it():
    """A read's level may be stricter than its decision was, because its grant was; that is no flip."""
    detail = {
        "facts": FACTS,
        "roles": ["tier1"],
        "groups": ["front"],
        "fields": {"customer.name": ["clear", "policy.csv:6"]},
        "levels": {"customer.name": "masked"},
    }

    assert replay([recorded_from(detail, 1)], draft()).flips == ()


def test_what_the_ledger_tells_is_what_a_replay_reads():
    """A decision written down and read back decides the same under the same policy."""
    policy = starting_policy()
    facts = Facts(
        "resolve-ticket", Relation.ASSIGNEE, "device", Provenance.ROUTED, OpenedBy.CUSTOMER, Presence.ABSENT
    )
    for groups in ({"support-tier1"}, {"support-tier2", "support-billing"}, {"strangers"}):
        decided = policy.decide_for(frozenset(groups), facts, tuple(policy.catalog.fields))
        report = replay([recorded_from(decision_detail(decided), 1)], policy)

        assert (report.inputs, report.flips, report.undecidable) == (1, (), {})


@pytest.mark.parametrize("seed", range(4))
def test_nothing_missed_nothing_invented(seed):
    """Random drafts flip what an opinion that shares no code flips by deciding twice, and no more."""
    rng = random.Random(seed)
    starting = PolicyFiles.from_directory(POLICIES)
    lines = starting.texts["policy.csv"].splitlines()
    rules_at = [i for i, line in enumerate(lines) if line.startswith("p, ")]
    for i in rng.sample(rules_at, 6):
        words = lines[i].split(", ")
        if words[-1] == "allow":
            words[9] = rng.choice(("clear", "masked"))
            words[4] = rng.choice(("any", "billing", words[4]))
            words[7] = rng.choice(("any", "present", words[7]))
        lines[i] = ", ".join(words)
    questions = [line.rpartition(", ")[0] for line in lines]
    unique = [line for i, line in enumerate(lines) if i not in rules_at or questions[i] not in questions[:i]]
    texts = dict(starting.texts) | {"policy.csv": "\n".join(unique) + "\n"}
    old, new = starting_policy(), load(PolicyFiles.from_mapping(texts), "draft")
    before, after = naive.parse(starting.texts["policy.csv"]), naive.parse(texts["policy.csv"])
    taken, expected = [], Counter()
    for _ in range(400):
        facts = {
            "purpose": rng.choice(sorted(old.catalog.purposes)),
            "relation": rng.choice(list(Relation)).value,
            "ticket_kind": rng.choice(old.catalog.ticket_kinds),
            "provenance": rng.choice(list(Provenance)).value,
            "opened_by": rng.choice(list(OpenedBy)).value,
            "presence": rng.choice(list(Presence)).value,
        }
        groups = frozenset(rng.sample(sorted(old.book.groups), rng.choice((1, 2))))
        levels, count = {}, rng.randint(1, 9)
        for name in rng.sample(sorted(old.catalog.fields), 4):
            said = [
                naive.decide(rules, includes, set().union(*(mapped[g] for g in groups)), facts, name,
                             old.catalog.fields[name].field_class) or "withheld"
                for rules, includes, mapped in (before, after)
            ]  # fmt: skip
            levels[name] = said[0]
            if said[0] != said[1]:
                expected[name, *said] += count
        taken.append(Recorded(facts, old.roles_of(groups), groups, levels, count))

    found = Counter({(f.field, f.before, f.after): f.decisions for f in replay(taken, new).flips})
    assert found == expected
