"""The compiled table decides as Casbin does, and as a reading by hand does, for any policy."""

import random
import re
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import PolicyInvalidError
from broker.model import Facts, Level, OpenedBy, Presence, Provenance, Relation
from broker.policy import PolicyFiles, load
from broker.policy.engine import Engine
from broker.policy.rules import CONDITIONS
from broker.policy.table import MEMO_POINTS, UNKNOWN_FIELD, UNKNOWN_PURPOSE, Table
from broker.policy.verify import Domain, Question, compare, most_points, verify
from tests.policy import naive
from tests.policy.random_policies import CATALOG, FIELDS, ROLES, book_of, nestings, rules
from tests.policy.sample import FACTS, POLICIES, RULES, TEXTS, small


def questions_of(book, table, seed, count):
    """Gives questions near the rules and anywhere."""
    return list(islice(Domain(book, CATALOG, table).sample(random.Random(seed)), count))


def by_hand(lines, nesting, question):
    """Gives the level as a reading by hand has it."""
    return naive.decide(
        [dict(zip(naive.COLUMNS, words, strict=True)) for words in lines],
        nesting,
        question.roles,
        dict(zip(CONDITIONS, question.conditions, strict=True)),
        question.field,
        FIELDS[question.field],
    )


def level_of(table, question):
    """Gives the level that the table gives."""
    return table.outcome(table.ground(question.roles, question.conditions), question.field)[0]


class TestAgainstCasbin:
    """Casbin stays the only semantics."""

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_same_as_casbin_and_as_by_hand(self, lines, nesting, seed):
        """For any rules, roles and facts the three of them give the same level."""
        book = book_of(lines, nesting)
        table = Table(book, CATALOG)
        questions = questions_of(book, table, seed, 60)
        engine = Engine(TEXTS["model.conf"], book, CATALOG, {q.roles for q in questions})

        compare(table, engine, questions)
        for question in questions:
            assert level_of(table, question) == by_hand(lines, nesting, question)

    def test_every_point_of_a_policy(self):
        """The small policy agrees with Casbin at every point there is, and with a reading by hand."""
        policy = small()
        domain = Domain(policy.book, policy.catalog, policy.table)
        questions = list(domain.all())
        engine = Engine(TEXTS["model.conf"], policy.book, policy.catalog, {q.roles for q in questions})
        lines, includes, _ = naive.parse(RULES)

        compare(policy.table, engine, questions)

        assert len(questions) == domain.size()
        for q in questions:
            facts = dict(zip(CONDITIONS, q.conditions, strict=True))
            field_class = policy.catalog.fields[q.field].field_class
            expected = naive.decide(lines, includes, q.roles, facts, q.field, field_class)
            assert level_of(policy.table, q) == expected

    @pytest.mark.parametrize("planted", ["level", "rule"])
    def test_table_that_differs_is_not_served(self, planted):
        """One wrong bit in the table stops the load: a denial lost, or a rule that only Casbin knows."""
        policy = small()
        table = Table(policy.book, policy.catalog)
        verify(table, TEXTS["model.conf"], policy.book, policy.catalog, "seed", thorough=True)  # control
        if planted == "level":
            table.deny = 0
        else:
            table.columns = tuple({w: b & ~1 for w, b in column.items()} for column in table.columns)

        with pytest.raises(PolicyInvalidError, match="table-differs"):
            verify(table, TEXTS["model.conf"], policy.book, policy.catalog, "seed", thorough=True)

    @pytest.mark.attack("C16")
    def test_enforcement_that_is_off_is_noticed(self, monkeypatch):
        """An enforcer that was switched off allows everything; no policy loads with it."""
        import casbin  # noqa: PLC0415 - only the fault needs it

        make = casbin.Enforcer._initialize

        def switched_off(self):
            make(self)
            self.enabled = False

        small.__wrapped__()  # the control arm
        monkeypatch.setattr(casbin.Enforcer, "_initialize", switched_off)

        with pytest.raises(PolicyInvalidError):
            small.__wrapped__()


class TestLaws:
    """What holds for every policy."""

    @settings(max_examples=60, deadline=None)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_order_of_lines_never_matters(self, lines, nesting, seed):
        """Any order of the same lines gives the same levels."""
        table = Table(book_of(lines, nesting), CATALOG)
        shuffled = random.Random(seed).sample(lines, len(lines))
        other = Table(book_of(shuffled, nesting), CATALOG)

        for question in questions_of(book_of(lines, nesting), table, seed, 100):
            assert level_of(other, question) == level_of(table, question)

    @settings(max_examples=60, deadline=None)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_denial_wins_for_any_role_of_the_set(self, lines, nesting, seed):
        """What is denied to one role is denied to every set of roles with it, at that level."""
        denied = [(*words[:-1], "deny") for words in lines]
        book = book_of(denied[:1] + lines[1:], nesting)
        table = Table(book, CATALOG)
        rule = book.rules[0]

        for question in questions_of(book, table, seed, 100):
            alone = table.ground(question.roles, question.conditions)
            for level in Level:
                if table.hits(alone, question.field, level) & 1:
                    for role in ROLES:
                        wider = table.ground(question.roles | {role}, question.conditions)
                        assert table.hits(wider, question.field, level) & table.deny
                        assert table.outcome(wider, question.field)[0] is not level, rule

    @settings(max_examples=60, deadline=None)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_without_denials_more_roles_never_see_less(self, lines, nesting, seed):
        """Allows add up: a role more never takes a level away."""
        book = book_of([(*words[:-1], "allow") for words in lines], nesting)
        table = Table(book, CATALOG)
        rank = {None: 0, Level.MASKED: 1, Level.CLEAR: 2}

        for question in questions_of(book, table, seed, 60):
            wider = Question(question.roles | {"billing"}, question.conditions, question.field)
            assert rank[level_of(table, wider)] >= rank[level_of(table, question)]

    @settings(max_examples=60, deadline=None)
    @given(lines=rules, nesting=nestings, seed=st.integers(0, 2**32))
    def test_any_is_every_word(self, lines, nesting, seed):
        """A rule with `any` decides as the same rule written out for every word there is."""
        column = 1 + seed % 6
        name = naive.COLUMNS[column]
        everything = {
            "purpose": ["resolve", "review"],
            "relation": list(Relation),
            "ticket_kind": ["general", "billing", "a-kind-that-the-catalog-lacks"],
            "provenance": list(Provenance),
            "opened_by": list(OpenedBy),
            "presence": list(Presence),
        }[name]
        written_out = [
            (*words[:column], str(word), *words[column + 1 :])
            for words in lines
            for word in (everything if words[column] == "any" else [words[column]])
        ]
        book = book_of(lines, nesting)
        table, other = Table(book, CATALOG), Table(book_of(written_out, nesting), CATALOG)

        for question in questions_of(book, table, seed, 60):
            assert level_of(other, question) == level_of(table, question)

    @settings(max_examples=60, deadline=None)
    @given(lines=rules, seed=st.integers(0, 2**32))
    def test_nobody_sees_anything_without_an_allow(self, lines, seed):
        """Denials alone, no roles, or roles that do not exist: everything is withheld."""
        allows = book_of([(w if w != "any" else "tier1", *rest) for w, *rest in lines], {})
        table = Table(allows, CATALOG)
        denials = Table(book_of([(*words[:-1], "deny") for words in lines], {}), CATALOG)

        for question in questions_of(allows, table, seed, 30):
            assert level_of(denials, question) is None
            for roles in (frozenset(), frozenset({"ghost"}), frozenset({"any"}), frozenset({"@tier1"})):
                assert level_of(table, Question(roles, question.conditions, question.field)) is None


class TestDecide:
    """What the decision adds to the table."""

    tier1 = frozenset({"tier1"})

    def test_each_field_in_its_order(self):
        """Fields come back as they were asked for, each with its level and rule."""
        decision = small().decide(self.tier1, FACTS, ["customer.email", "customer.name"])

        assert [(f.name, f.level, f.rule) for f in decision.fields] == [
            ("customer.email", Level.MASKED, "policy.csv:7"),
            ("customer.name", Level.CLEAR, "policy.csv:6"),
        ]
        assert decision.policy_version == "1"
        assert decision.allowed == {"customer.email": Level.MASKED, "customer.name": Level.CLEAR}

    def test_unknown_words_withhold(self):
        """A field, a purpose or a role that nobody declared gives nothing; a blank kind neither."""
        policy = small()

        def only(roles=self.tier1, facts=FACTS, field="customer.name"):
            return policy.decide(roles, facts, [field]).fields[0]

        assert only().level is Level.CLEAR  # the control arm
        assert only(field="customer.nam").missing == (UNKNOWN_FIELD,)
        assert only(facts=facts(purpose="resolv")).missing == (UNKNOWN_PURPOSE,)
        assert only(facts=facts(purpose="any")).missing == (UNKNOWN_PURPOSE,)
        assert only(facts=facts(kind="")).level is None
        assert only(roles=frozenset({"ghost"})).level is None
        assert only(roles=frozenset()).level is None

    def test_undeclared_kind_is_whatever_it_is(self):
        """A ticket kind that the helpdesk invented matches rules that say any, and no others."""
        rule = "p, tier1, resolve, assignee, billing, routed, any, any, contact, clear, allow"
        policy = small(policy_csv=RULES.replace("# end", rule + "\n# end"))

        def decided(kind):
            return policy.decide(self.tier1, facts(kind=kind), ["customer.name", "customer.email"]).allowed

        assert decided("invented") == decided("general") == decided("any")
        assert decided("billing")["customer.email"] is Level.CLEAR

    @pytest.mark.attack("K8")
    def test_groups_lead_to_roles_and_nothing_else_does(self):
        """Only a mapped group gives a role; a group named like a role, or like a set of roles, does not."""
        policy = small()

        assert policy.roles_of(frozenset({"front", "other"})) == {"tier1"}
        assert policy.roles_of(frozenset({"front", "back"})) == {"tier1", "tier2"}
        for groups in ({"tier1"}, {"idp:front"}, {"@tier1"}, {"Front"}, {"any"}, {""}, set()):
            assert policy.roles_of(frozenset(groups)) == frozenset()

    def test_budget_is_the_strictest_of_the_roles(self):
        """Per hour and per day count apart; a role without a budget counts with the default."""
        policy = small()

        assert policy.budget(frozenset()) == policy.limits.default
        assert (policy.budget(self.tier1).per_hour, policy.budget(self.tier1).per_day) == (30, 50)
        both = policy.budget(frozenset({"tier1", "tier2"}))
        assert (both.per_hour, both.per_day) == (20, 50)

    def test_memo_is_bounded(self):
        """Endless roles, kinds, fields and purposes do not fill the memory."""
        policy = small.__wrapped__()
        for i in range(2 * MEMO_POINTS):
            policy.decide(frozenset({f"r{i}"}), FACTS, [f"customer.x{i}"])
        for i in range(1000):
            policy.decide(self.tier1, facts(kind=f"k{i}"), ["customer.name"])
            policy.decide(self.tier1, facts(purpose=f"p{i}"), ["customer.name"])

        points = policy.table._memo
        assert len(points) <= MEMO_POINTS
        assert all(set(point) <= set(policy.catalog.fields) for point in points.values())
        assert sum(self.tier1 == roles for roles, _ in points) == 1

    def test_memo_gives_what_it_gave(self):
        """A decision from the memo is the one that was made, also after the memo started afresh."""
        policy = small.__wrapped__()
        first = policy.decide(self.tier1, FACTS, list(policy.catalog.fields))
        policy.table._memo.clear()

        assert policy.decide(self.tier1, FACTS, list(policy.catalog.fields)) == first

    @pytest.mark.attack("C18")
    def test_ten_thousand_rules_decide_alike(self):
        """The largest policy loads and decides as the few rules of it that matter do."""
        extra = [
            f"p, {role}, review, {relation}, {kind}, {provenance}, {by}, {presence}, {field}, {level}, allow"
            for role in ("tier1", "tier2")
            for relation in ("assignee", "supervisor", "collaborator", "none")
            for kind in ("any", "general", "billing")
            for provenance in ("any", *Provenance)
            for by in ("any", *OpenedBy)
            for presence in ("any", "present", "absent")
            for field in ("profile", "contact", "customer.name", "customer.email", "customer.phone")
            for level in ("clear", "masked")
        ][:9_990]
        policy = small(policy_csv=RULES.replace("# end", "\n".join([*extra, "# end"])))
        fields = list(policy.catalog.fields)

        assert len(policy.book.rules) > 9_900
        for roles in (self.tier1, frozenset({"tier1", "tier2"})):
            for opened_by in OpenedBy:
                asked = facts(opened_by=opened_by)
                assert (
                    policy.decide(roles, asked, fields).allowed
                    == small().decide(roles, asked, fields).allowed
                )


def facts(**changed):
    """Gives the usual facts with some changed."""
    return Facts(**{**{name: getattr(FACTS, name) for name in Facts.__slots__}, **changed})


DECISIONS = (POLICIES.parent / "broker" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("rules", "points"), [(1, 50_000), (35, 50_000), (57, 36_585), (1000, 2_926)])
def test_how_large_a_domain_is_compared_whole(rules, points):
    """The figures of broker/README.md; a load compares far less."""
    assert most_points(rules, thorough=True) == points
    assert f"{points:,}" in DECISIONS
    assert most_points(rules, thorough=False) < points / 30


def test_verification_says_how_much_was_compared():
    """A small domain is compared whole, a large one by a sample that says so."""
    starting = PolicyFiles.from_directory(POLICIES)
    quick = load(starting, "1").verification

    assert small().verification == "table equals Casbin at all 256 points"
    assert re.fullmatch(r"table equals Casbin at \d+ of \d+ points \(seeded sample\)", quick)
    assert quick == load(starting, "2").verification
