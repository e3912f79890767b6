"""What the lint says of rules holds at every point and for every set of roles, as a reading by hand does."""

from datetime import date, timedelta
from itertools import combinations, product
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.findings import Findings, Severity
from broker.policy.lint import LintReport, lint, search
from broker.policy.lint.rules import RuleCheck
from broker.policy.rules import CONDITIONS, Rule, RuleBook
from tests.policy import naive
from tests.policy.sample import RULES, edited, files, small

TODAY = date(2026, 11, 25)
CATALOG = small().catalog
LEVELS = ("clear", "masked")
ROLES = ("one", "two", "three")  # three includes one
INCLUDES = {"three": {"one"}}
SETS = [set(some) for n in range(1, 4) for some in combinations(ROLES, n)]
WORDS = {
    "purpose": ("resolve", "review"),
    "relation": ("assignee",),
    "ticket_kind": (),
    "provenance": ("routed", "self"),
    "opened_by": (),
    "presence": ("present", "absent"),
}
OTHERS = {
    "relation": ("none",),
    "ticket_kind": ("billing",),
    "provenance": ("peer",),
    "opened_by": ("system",),
}
FIELDS = ("customer.name", "customer.email", "customer.phone", "invoice.total")
POINTS = [
    (roles, dict(zip(CONDITIONS, words, strict=True)), field)
    for roles, words, field in product(
        SETS, product(*((*words, *OTHERS.get(column, ())) for column, words in WORDS.items())), FIELDS
    )
]


def rule_strategy():
    """Gives the words of a rule, as the strict reader lets them through."""
    conditions = [st.sampled_from(("any", "any", *words)) for words in WORDS.values()]
    fields = st.sampled_from(("contact", "profile", "customer.email"))
    allow = st.tuples(
        st.sampled_from(ROLES),
        *conditions,
        fields,
        st.sampled_from(("clear", "masked", "any")),
        st.just("allow"),
    )
    deny = st.tuples(
        st.sampled_from((*ROLES, "any")),
        *conditions,
        st.one_of(fields, st.just("any")),
        st.sampled_from(("clear", "any")),
        st.just("deny"),
    )
    return st.one_of(allow, deny)


def book_of(lines):
    """Makes a rule book of words."""
    rules = tuple(Rule(n, w[0], w[1:7], w[7], w[8], w[9]) for n, w in enumerate(lines, 1))
    return RuleBook(
        rules,
        MappingProxyType({role: frozenset({role}) for role in ROLES}),
        MappingProxyType({"three": frozenset({"one"})}),
    )


def told(book):
    """Gives what the lint says of the effect of rules, by line."""
    findings = Findings(1000)
    RuleCheck(book, CATALOG).check_effect(findings, lambda _text: None)
    return {found.line: found.name for found in findings}


def by_hand(lines):
    """Gives the same, by looking at every point."""
    rules = [dict(zip(naive.COLUMNS, words, strict=True)) for words in lines]
    effects = [rule["effect"] for rule in rules]
    points = []  # per point, per level: the rules that match
    for roles, facts, field in POINTS:
        point = (naive.every_role(roles, INCLUDES), facts, field, CATALOG.fields[field].field_class)
        points.append(
            [{n for n, rule in enumerate(rules) if naive.matches(rule, *point, level)} for level in LEVELS]
        )
    said = {}
    for n, effect in enumerate(effects):
        open_ = any(
            n in matching and not any(effects[other] == "deny" for other in matching - {n})
            for point in points
            for matching in point
        )
        changes = any(outcome(point, effects) != outcome(point, effects, n) for point in points)
        assert any(n in point[0] | point[1] for point in points), "the control arm: every rule matches"
        if not open_:
            said[n + 1] = "shadowed-rule" if effect == "allow" else "redundant-rule"
        elif not changes:
            said[n + 1] = "redundant-rule" if effect == "allow" else "precaution"
    return said


def outcome(point, effects, without=None):
    """Gives the level of a point, from the rules that match there."""
    for level, matching in zip(LEVELS, point, strict=True):
        if {effects[n] for n in matching - {without}} == {"allow"}:
            return level
    return None


@settings(max_examples=100, deadline=None)
@given(st.lists(rule_strategy(), min_size=1, max_size=6, unique_by=lambda words: words[:-1]))
def test_shadowed_redundant_and_precautions_are_exactly_those(lines):
    """A rule is named if and only if its removal changes no decision, and by the right name."""
    assert told(book_of(lines)) == by_hand(lines)


def line(role, field, level, effect, **conditions):
    """Gives the words of one rule."""
    return (role, *(conditions.get(column, "any") for column in CONDITIONS), field, level, effect)


def test_two_roles_are_looked_at_together():
    """Masked beside clear is redundant for each role alone, not where another role may not see clear."""
    alone = [line("one", "contact", "clear", "allow"), line("one", "contact", "masked", "allow")]
    beside = [*alone, line("two", "contact", "clear", "deny")]

    assert told(book_of(alone)) == {2: "redundant-rule"}
    assert told(book_of(beside)) == {}


@pytest.mark.attack("C18")
def test_steps_are_bounded_and_it_says_so(monkeypatch):
    """Where the steps run out there is a note, not a claim; decisions and errors are not affected."""
    lines = [
        line("one", "contact", "clear", "allow"),
        line("one", "contact", "clear", "allow", purpose="resolve"),
    ]
    assert told(book_of(lines)) == {2: "redundant-rule"}, "the control arm"
    monkeypatch.setattr(search, "MAX_STEPS", 0)

    assert told(book_of(lines)) == {1: "not-decided", 2: "redundant-rule"}  # the second needs no step


def look(policy):
    """Lints, and leaves out that the small policy has a purpose without a rule."""
    report = lint(policy, today=TODAY)
    return LintReport.of(found for found in report.findings if found.name != "purpose-unused")


def names(report):
    """Gives severity, line and name of what was found."""
    return [(found.severity, found.line, found.name) for found in report.findings]


CLEAR = "p, tier2, resolve, assignee, any, routed, any, present, contact, clear, allow"


class TestSensitive:
    """What a sensitive class shows in clear is asked after."""

    def test_small_policy_is_in_order(self):
        """The control arm: contact in clear while the customer is there is no finding."""
        assert names(look(files())) == []

    @pytest.mark.parametrize("presence", ["any", "absent"])
    @pytest.mark.parametrize("field", ["contact", "customer.email"])
    @pytest.mark.parametrize("level", ["clear", "any"])
    def test_clear_without_presence_is_an_error(self, presence, field, level):
        """A sensitive field that shows in clear with the customer away is refused, by class or by name."""
        rule = CLEAR.replace("present, contact, clear", f"{presence}, {field}, {level}")
        report = look(edited("policy.csv", CLEAR, rule))

        assert (Severity.ERROR, 8, "sensitive-clear") in names(report)
        assert not report.ok

    def test_clear_that_denials_take_away_is_none(self):
        """Where a denial leaves nothing in clear with the customer away, nothing is said; exactly there."""
        rules = RULES.replace("present, contact, clear", "any, contact, clear")
        deny = "p, any, any, any, any, routed, any, absent, {}, clear, deny\n# end"
        whole = look(files(policy_csv=rules.replace("# end", deny.format("contact"))))
        half = look(files(policy_csv=rules.replace("# end", deny.format("customer.email"))))

        assert "sensitive-clear" not in {found.name for found in whole.findings}
        assert "sensitive-clear" in {found.name for found in half.errors}

    def test_accepted_in_writing_it_is_a_warning_with_its_reason(self):
        """The comment directly above the rule turns the error into a warning that is listed."""
        rule = "# accept sensitive-clear: they write back by post\n" + CLEAR.replace("present", "any")
        report = look(edited("policy.csv", CLEAR, rule))

        assert report.ok
        assert [(found.line, found.name, found.accepted) for found in report.accepted] == [
            (9, "sensitive-clear", "they write back by post")
        ]
        assert report.warnings == ()

    @pytest.mark.attack("C12")
    @pytest.mark.parametrize(("old", "new"), [("resolve", "any"), ("assignee", "any")])
    def test_wildcard_over_a_sensitive_class_is_an_error(self, old, new):
        """Purpose and relation are named where contact data is shown, masked or not."""
        rule = "p, tier1, resolve, assignee, any, routed, any, any, contact, masked, allow"
        profile = "p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow"
        spoilt = look(edited("policy.csv", rule, rule.replace(old, new)))
        control = look(edited("policy.csv", profile, profile.replace(old, new)))

        assert (Severity.ERROR, 7, "sensitive-wildcard") in names(spoilt)
        assert "sensitive-wildcard" not in {found.name for found in control.findings}


class TestAccept:
    """An acceptance holds for what it names and stands above, and is never left lying about."""

    @pytest.mark.parametrize(
        ("comment", "name"),
        [
            ("# accept sensitive-clear: a reason", "accept-unused"),  # nothing to accept there
            ("# accept sensitive-clear: a reason\n", "accept-unused"),  # a blank line below it
            ("# accept sensitive-clear: a reason\n# why", "accept-unused"),
            ("# accept sensitive-clear:", "accept-form"),
            ("# accept sensitive-clear:  ", "accept-form"),
            ("# Accept sensitive-clear: a reason", "accept-form"),
            ("#accept sensitive-clear: a reason", "accept-form"),
            ("# accept sensitive-claer: a reason", "accept-form"),
            ("# accept rule-ended: a reason", "accept-form"),
        ],
    )
    def test_one_that_accepts_nothing_is_a_finding(self, comment, name):
        """Misspelt, misplaced or outlived, it is a warning."""
        report = look(edited("policy.csv", CLEAR, f"{comment}\n{CLEAR}"))

        assert [found.name for found in report.warnings] == [name]

    def test_it_holds_for_one_rule_and_one_finding(self):
        """The rule after the next is not accepted, nor is another finding of the same rule."""
        clear = CLEAR.replace("present", "any")
        other = clear.replace("resolve", "review")
        accept = "# accept sensitive-wildcard: a reason\n# accept sensitive-clear: a reason"
        both = look(edited("policy.csv", CLEAR, f"{accept}\n{clear.replace('assignee', 'any')}\n{other}"))

        assert sorted((found.line, found.name) for found in both.accepted) == [
            (10, "sensitive-clear"),
            (10, "sensitive-wildcard"),
        ]
        assert [(found.line, found.name) for found in both.errors] == [(11, "sensitive-clear")]

    def test_an_error_that_cannot_be_accepted_stays(self):
        """Nothing but the few findings listed can be accepted."""
        rule = f"# accept sensitive-clear: a reason\n{CLEAR.replace('present', 'any')}, until 2026-01-31"
        report = look(edited("policy.csv", CLEAR, rule))

        assert "rule-ended" in {found.name for found in report.errors}


class TestNever:
    """A rule that no request meets was meant otherwise."""

    @pytest.mark.parametrize(("old", "new"), [("assignee", "none"), ("routed", "unknown")])
    def test_allow_of_a_ground_that_cannot_be(self, old, new):
        """Nobody without a relation is ever asked about, and how a relation came to be is known."""
        report = look(edited("policy.csv", CLEAR, CLEAR.replace(old, new)))

        assert (Severity.ERROR, 8, "never-matches") in names(report)

    def test_class_without_fields(self):
        """A rule for a class that no field has is an error; the class alone is a warning."""
        classes = "  contact: {about: How to reach them., sensitive: true}\n"
        catalog = edited("catalog.yaml", classes, classes + "  money: {about: Cards.}\n").texts[
            "catalog.yaml"
        ]
        rules = RULES.replace("# end", CLEAR.replace("contact", "money") + "\n# end")

        assert [found.name for found in look(files(catalog_yaml=catalog)).findings] == [
            "class-without-fields"
        ]
        report = look(files(catalog_yaml=catalog, policy_csv=rules))
        assert [found.name for found in report.errors] == ["never-matches"]

    def test_denial_of_a_ground_that_does_not_occur_is_a_precaution(self):
        """What may be a mistake in an allow is prudence in a denial."""
        deny = "p, any, any, none, any, any, any, any, any, any, deny\n# end"
        report = look(files(policy_csv=RULES.replace("# end", deny)))

        assert names(report) == [(Severity.NOTE, 10, "precaution")]


class TestEnds:
    """A rule that has ended keeps a version from being put in force."""

    @pytest.mark.parametrize(
        ("days", "found"),
        [
            (-1, (Severity.ERROR, 8, "rule-ended")),
            (0, (Severity.NOTE, 8, "rule-ends-soon")),
            (13, (Severity.NOTE, 8, "rule-ends-soon")),
            (14, None),
        ],
    )
    def test_by_the_day_given(self, days, found):
        """Ended is an error, soon is a note, later is nothing."""
        timed = f"{CLEAR}, until {TODAY + timedelta(days=days)}"

        assert names(look(edited("policy.csv", CLEAR, timed))) == ([found] if found else [])
