"""A denial says what was missing, and what it asks for would be enough."""

import json
import random
import re
from itertools import combinations, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.cli import run
from broker.model import Facts, Level, OpenedBy, Presence, Provenance, Relation
from broker.policy import PolicyFiles, load
from broker.policy.everywhere import RANK, space_of
from broker.policy.explain import NOTHING_ALLOWS, explain_point
from broker.policy.table import UNKNOWN_FIELD, UNKNOWN_PURPOSE
from tests.policy.random_policies import CATALOG, nestings, policy_of, rules
from tests.policy.sample import FACTS, POLICIES, RULES, small

TIER1 = frozenset({"tier1"})
TIER2 = frozenset({"tier2"})


def missing(policy, roles, field, **changed):
    """Gives the sentences about one field."""
    facts = Facts(**{**{name: getattr(FACTS, name) for name in Facts.__slots__}, **changed})
    return policy.decide(roles, facts, [field]).fields[0].missing


def test_nothing_is_missing_where_something_is_given():
    """A field that is clear or masked has no sentences; a withheld one always has."""
    policy = small()

    assert missing(policy, TIER1, "customer.name") == ()
    assert missing(policy, TIER1, "customer.email") == ()
    assert missing(policy, frozenset(), "customer.name") != ()


NEEDS = {
    "no role at all": ({"roles": frozenset()}, ("needs role tier1",)),
    "the wrong purpose": ({"purpose": "review"}, ("needs purpose resolve",)),
    "the wrong relation": ({"relation": Relation.NONE}, ("needs relation assignee",)),
    "the wrong provenance": (
        {"provenance": Provenance.SELF},
        ("needs provenance routed (assigned by the helpdesk, not by an agent)",),
    ),
    "two things at once": (
        {"purpose": "review", "relation": Relation.NONE},
        ("needs purpose resolve and relation assignee",),
    ),
}


@pytest.mark.parametrize(("changed", "expected"), NEEDS.values(), ids=NEEDS)
def test_the_nearest_rule_is_told(changed, expected):
    """The sentence names what the nearest allow rule wants and the request lacks, and nothing else."""
    assert missing(small(), changed.pop("roles", TIER1), "customer.name", **changed) == expected


def test_absence_is_told():
    """Where the customer's presence is what lacks, the sentence says so."""
    rule = "p, tier1, resolve, assignee, any, routed, any, present, invoice.total, clear, allow"
    text = RULES.replace("profile, clear", "customer.name, clear").replace("# end", rule + "\n# end")

    assert missing(small(policy_csv=text), TIER1, "invoice.total") == (
        "needs presence present (the customer is not on the line now)",
    )


def test_alternatives_are_joined():
    """Rules that differ in one word become one sentence; other ways follow with `or`."""
    text = RULES.replace(
        "# end",
        "p, tier2, resolve, assignee, billing, routed, any, any, invoice.total, masked, allow\n"
        "p, tier2, resolve, assignee, general, routed, any, any, invoice.total, masked, allow\n"
        "p, tier1, review, assignee, any, routed, any, any, invoice.total, masked, allow\n# end",
    ).replace("profile, clear", "customer.name, clear")
    policy = small(policy_csv=text)

    assert missing(policy, TIER1, "invoice.total") == ("needs role tier2", "or needs purpose review")
    assert missing(policy, TIER2, "invoice.total", kind="other-kind") == (
        "needs purpose review",
        "or needs ticket kind billing or general",
    )


def test_explicit_denial_is_named():
    """Where a denial took the field away, the sentence names its line and asks for nothing."""
    assert missing(small(), TIER1, "customer.email", opened_by=OpenedBy.SELF) == (
        "refused by policy.csv:9 (explicit deny)",
    )


def test_what_a_denial_would_refuse_anyway_is_not_asked_for():
    """No sentence sends somebody after a role or fact that would not help."""
    text = RULES.replace(
        "# end",
        "p, tier2, review, assignee, any, any, any, any, invoice.total, clear, allow\n"
        "p, tier2, any, any, any, any, any, any, invoice.total, any, deny\n# end",
    ).replace("profile, clear", "customer.name, clear")

    assert missing(small(policy_csv=text), TIER1, "invoice.total") == (NOTHING_ALLOWS,)


@settings(max_examples=300, deadline=None)
@given(
    roles=st.frozensets(st.sampled_from(["tier1", "tier2", "billing", "supervisor"]), max_size=2),
    purpose=st.sampled_from(
        ["resolve-ticket", "call-back", "verify-identity", "billing-dispute", "quality-review"]
    ),
    relation=st.sampled_from(Relation),
    kind=st.sampled_from(["billing", "device", "general"]),
    provenance=st.sampled_from(Provenance),
    opened_by=st.sampled_from(OpenedBy),
    presence=st.sampled_from(Presence),
    field=st.sampled_from(
        ["customer.name", "customer.email", "customer.card_number", "customer.id_document", "invoice.total"]
    ),
)
def test_what_is_asked_for_is_enough(roles, field, **facts):
    """Whoever brings what a sentence names gets the field: every choice in it, in the starting policy."""
    policy = STARTING
    asked = Facts(**facts)
    decided = policy.decide(roles, asked, [field]).fields[0]
    names = {
        "role": None,
        "purpose": "purpose",
        "relation": "relation",
        "ticket kind": "kind",
        "provenance": "provenance",
        "a ticket opened by": "opened_by",
        "presence": "presence",
    }
    if decided.level is None:
        assert decided.missing
    for sentence in decided.missing:
        if not sentence.removeprefix("or ").startswith("needs "):
            assert re.fullmatch(r"refused by policy\.csv:\d+ \(explicit deny\)", sentence)
            continue
        bare = re.sub(r" \([^)]*\)", "", sentence.removeprefix("or ").removeprefix("needs "))
        for part in bare.split(" and "):
            noun = next(n for n in sorted(names, key=len, reverse=True) if part.startswith(n + " "))
            for word in re.split(r", | or ", part[len(noun) + 1 :]):
                wanted_roles, wanted = roles, dict(facts)
                for other in bare.split(" and "):
                    other_noun = next(
                        n for n in sorted(names, key=len, reverse=True) if other.startswith(n + " ")
                    )
                    chosen = word if other == part else re.split(r", | or ", other[len(other_noun) + 1 :])[0]
                    if other_noun == "role":
                        wanted_roles = wanted_roles | {chosen}
                    else:
                        wanted[names[other_noun]] = chosen
                assert policy.decide(wanted_roles, Facts(**wanted), [field]).allowed, sentence


STARTING = load(PolicyFiles.from_directory(POLICIES), "1")


def nearest_by_hand(policy, roles, words, field):
    """Finds, by trying everything, the smallest changes that give more: level and words by dimension.

    The words of the roles are `+tier1` and `-tier1`: one role more, or one role less.
    """
    now = level_of(policy, roles, words, field)
    columns = space_of(policy.catalog).words[:-1]
    sets = {f"+{role}": roles | {role} for role in policy.book.mapped_roles - held(policy, roles)}
    sets |= {f"-{role}": roles - {role} for role in roles}
    for size in range(1, 8):
        found = set()
        for at in combinations(range(7), size):
            choices = [
                ([w for w in (columns[i - 1] if i else sets) if w != here]) if i in at else [here]
                for i, here in enumerate((None, *words))
            ]
            for role, *changed in product(*choices):
                level = level_of(policy, sets[role] if role else roles, tuple(changed), field)
                if RANK[level] > RANK[now]:
                    picked = (role, *changed)
                    found.add((level, tuple((i, picked[i]) for i in at)))
        if found:
            return found
    return set()


def held(policy, roles):
    """Gives the roles and all that they include."""
    return frozenset().union(*(policy.book.closure(role) for role in roles))


def level_of(policy, roles, words, field):
    """Decides."""
    return policy.table.outcome(policy.table.ground(roles, words), field)[0]


BROAD = [
    ("tier1", *["any"] * 6, "contact", "any", "deny"),
    ("billing", *["any"] * 6, "customer.email", "any", "allow"),
]
"""A denial that names one role, over what another role is allowed."""

CONDITIONS = ("purpose", "relation", "ticket_kind", "provenance", "opened_by", "presence")
DIMENSIONS = {name: at for at, name in enumerate(CONDITIONS, 1)}  # the roles are 0


def told(explanation):
    """Gives the changes of an explanation, each combination by itself."""
    signs = {"roles": "+", "without": "-"}
    return {
        (change.level, tuple((DIMENSIONS.get(name, 0), signs.get(name, "") + word) for name, word in picked))
        for change in explanation.changes
        for picked in product(*([(name, word) for word in words] for name, words in change.words.items()))
    }


class TestExplainPoint:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(lines=rules, nesting=nestings, broad=st.booleans(), seed=st.integers(0, 2**32))
    def test_every_smallest_change_and_no_other(self, lines, nesting, broad, seed):
        """For any policy: what would give more is what trying everything finds, no word less or more."""
        policy = policy_of([*lines, *(BROAD if broad else [])], nesting)
        rng = random.Random(seed)
        space = space_of(CATALOG)
        for _ in range(4):
            *words, field = (rng.choice(column) for column in space.words)
            roles = frozenset(rng.sample(["tier1", "tier2", "billing"], rng.randint(0, 3)))
            explanation = explain_point(policy, roles, facts_of(words), field)
            expected = nearest_by_hand(policy, roles, tuple(words), field)
            level = level_of(policy, roles, words, field)

            assert explanation.level is level
            assert explanation.sentences
            if level is Level.CLEAR:
                assert explanation.changes == ()
            else:
                assert told(explanation) == expected
                if explanation.sentences[-1].startswith("nothing would give more"):
                    points = product(*space.words[:-1])
                    seen = {level_of(policy, {r}, p, field) for p in points for r in policy.book.mapped_roles}
                    assert max(map(RANK.__getitem__, seen)) <= RANK[level]

    def test_allow_names_its_rule_and_reads_it_aloud(self):
        """An allow is told with its line and sentence; there is nothing more to be had."""
        explanation = explain_point(STARTING, frozenset({"tier1"}), facts_of(HERE), "customer.name")

        assert explanation.level is Level.CLEAR
        place = line("p, tier1, resolve-ticket, assignee, any, routed, any, any, profile, clear, allow")
        assert explanation.rule.place == place
        assert explanation.sentences == (
            (
                f"clear by {place}: Agents with tier1, to resolve-ticket, on any ticket, "
                "as its assignee, where it was routed to the agent, see profile fields in clear."
            ),
        )

    def test_masked_says_what_clear_needs(self):
        """A masked field is told with what would make it clear."""
        explanation = explain_point(
            STARTING, frozenset({"tier1"}), facts_of(("call-back", *HERE[1:])), "customer.phone"
        )

        assert explanation.level is Level.MASKED
        assert explanation.sentences[1:] == (f"would be clear if the customer were present ({CALL_BACK})",)

    def test_denial_is_told_with_its_way_out(self):
        """A denial is named and read aloud, and what escapes it is told."""
        words = ("resolve-ticket", "assignee", "billing", "routed", "self", "absent")
        explanation = explain_point(STARTING, frozenset({"billing"}), facts_of(words), "customer.iban")

        self_opened = line("p, any, any, any, any, any, self, any, any, clear, deny")
        no_money = line("p, any, any, any, any, any, self, any, billing, any, deny")
        money = line("p, billing, resolve-ticket, assignee, billing, routed, any, any, billing, any, allow")

        assert explanation.level is None
        assert explanation.sentences == (
            (
                f"withheld: refused by {self_opened}: Nobody, on any ticket, opened by the agent, "
                "sees any field in clear."
            ),
            (
                f"withheld: refused by {no_money}: Nobody, on any ticket, opened by the agent, "
                "sees billing fields at all."
            ),
            (
                "would be clear if the ticket were opened by anybody but the agent or somebody whom nobody "
                f"recorded ({money})"
            ),
            f"would be masked if the ticket were opened by somebody whom nobody recorded ({money})",
        )

    def test_what_nothing_gives_is_said(self):
        """Where no change helps, the sentence says so, and asks for nothing."""
        words = ("verify-identity", "assignee", "general", "routed", "customer", "present")
        explanation = explain_point(STARTING, frozenset({"tier2"}), facts_of(words), "customer.id_document")

        assert explanation.level is Level.MASKED
        assert explanation.changes == ()
        assert explanation.sentences[-1].startswith("nothing would give more")

    def test_a_role_too_many_is_told(self):
        """Where the denial of one role takes away what another one allows, being without it is a way."""
        policy = small(
            policy_csv=RULES.replace("g, tier2, tier1\n", "").replace(
                "# end",
                "p, tier2, resolve, assignee, any, routed, any, any, invoice.total, clear, allow\n"
                "p, tier1, any, any, any, any, any, any, invoice.total, any, deny\n# end",
            )
        )
        both = explain_point(policy, frozenset({"tier1", "tier2"}), FACTS, "invoice.total")

        assert policy.decide(TIER2, FACTS, ["invoice.total"]).fields[0].level is Level.CLEAR
        assert [dict(change.words) for change in both.changes] == [{"without": ("tier1",)}]
        assert both.sentences[-1].startswith("would be clear if the agent were without tier1 (")

    def test_nothing_would_give_more_is_true(self):
        """Where neither one role more nor one less helps, but another role alone would, that is said."""
        policy = small(
            policy_csv=RULES.replace("g, tier2, tier1\n", "").replace(
                "# end",
                "p, tier2, resolve, assignee, any, routed, any, any, invoice.total, clear, allow\n"
                "p, tier1, any, any, any, any, any, any, invoice.total, any, deny\n# end",
            )
        )
        only = explain_point(policy, TIER1, FACTS, "invoice.total")

        assert only.changes == ()
        assert only.sentences[-1] == (
            "no other facts and no role more or less would give more; agents with tier2 alone see it in clear"
        )

    def test_unknown_words_and_undeclared_kinds(self):
        """A field or purpose that does not exist is said to be; an undeclared kind is whatever it is."""
        tier1 = frozenset({"tier1"})

        assert explain_point(STARTING, tier1, facts_of(HERE), "customer.nam").sentences == (UNKNOWN_FIELD,)
        unknown = facts_of(("resolv", *HERE[1:]))
        assert explain_point(STARTING, tier1, unknown, "customer.name").sentences == (UNKNOWN_PURPOSE,)
        invented = facts_of((*HERE[:2], "invented", *HERE[3:]))
        (change,) = explain_point(STARTING, tier1, invented, "customer.device_serial").changes[:1]
        assert change.words in ({"ticket_kind": ("device",)}, {"roles": ("tier2",)})

    def test_command(self, capsys):
        """The command prints the level and the sentences, and the same as JSON; wrong words are told."""
        facts = "--purpose call-back --relation assignee --kind general --provenance routed"
        facts += " --opened-by customer --presence absent --field customer.phone"
        command = ["policy", "explain", str(POLICIES), "--roles", "tier1", *facts.split()]

        assert run(command) == 0
        assert capsys.readouterr().out.splitlines()[::2] == [
            "customer.phone: masked",
            f"  would be clear if the customer were present ({CALL_BACK})",
        ]
        assert run([*command, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fields"][0]["changes"] == [
            {"level": "clear", "words": {"presence": ["present"]}, "rules": [CALL_BACK]}
        ]
        assert run([*command, "--field", "customer.fone"]) == 2
        assert "did you mean 'customer.phone'?" in capsys.readouterr().err


def line(text):
    """Finds a line of the rules."""
    return f"policy.csv:{RULE_LINES.index(text) + 1}"


RULE_LINES = (POLICIES / "policy.csv").read_text("utf-8").splitlines()
CALL_BACK = line("p, tier1, call-back, assignee, any, routed, any, present, contact, clear, allow")
HERE = ("resolve-ticket", "assignee", "general", "routed", "customer", "absent")


def facts_of(words):
    """Gives facts from words, in the order of the conditions."""
    purpose, relation, kind, provenance, opened_by, presence = words
    return Facts(
        purpose, Relation(relation), kind, Provenance(provenance), OpenedBy(opened_by), Presence(presence)
    )
