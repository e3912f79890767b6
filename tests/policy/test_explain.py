"""A denial says what was missing, and what it asks for would be enough."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import PolicyFiles, load
from broker.policy.explain import NOTHING_ALLOWS
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
