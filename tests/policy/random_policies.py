"""Random small policies: rules of any shape, those that the reader would refuse included."""

from datetime import date

from hypothesis import strategies as st

from broker.catalog import Catalog, Field, Kind, Mask
from broker.policy import Policy
from broker.policy.explain import explain
from broker.policy.rules import Rule, RuleBook
from broker.policy.table import Table

ROLES = ("tier1", "tier2", "billing")
FIELDS = {"customer.name": "profile", "customer.email": "contact", "customer.phone": "contact"}
CATALOG = Catalog(
    ticket_kinds=("general", "billing"),
    purposes={"resolve": "…", "review": "…"},
    field_classes={"profile": "…", "contact": "…"},
    sensitive_classes=frozenset(),
    kinds={
        "customer": Kind(
            "customer",
            "crm",
            "customer",
            "customer_id",
            {
                name.split(".")[1]: Field("customer", name.split(".")[1], name.split(".")[1], of, Mask.TEXT)
                for name, of in FIELDS.items()
            },
        )
    },
)
WORDS = {
    "role": ("any", *ROLES),
    "purpose": ("any", "resolve", "review"),
    "relation": ("any", "assignee", "supervisor"),
    "ticket_kind": ("any", "general", "billing"),
    "provenance": ("any", "routed", "self"),
    "opened_by": ("any", "customer", "self"),
    "presence": ("any", "present", "absent"),
    "field": ("any", "profile", "contact", *FIELDS),
    "level": ("any", "clear", "masked"),
    "effect": ("allow", "allow", "deny"),
}


def question_words(words):
    """Gives what a rule asks, without its effect."""
    return words[:-1]


rules = st.lists(
    st.tuples(*(st.sampled_from(words) for words in WORDS.values())),
    min_size=1,
    max_size=14,
    unique_by=question_words,
)
nestings = st.sampled_from(
    [{}, {"tier2": {"tier1"}}, {"tier2": {"tier1"}, "billing": {"tier2"}}, {"tier1": {"billing"}}]
)


def book_of(lines, nesting):
    """Makes a rule book without the reader."""
    return RuleBook(
        rules=tuple(
            Rule(number, words[0], tuple(words[1:7]), *words[7:]) for number, words in enumerate(lines, 1)
        ),
        groups={f"group-{role}": frozenset({role}) for role in ROLES},
        nesting={role: frozenset(to) for role, to in nesting.items()},
    )


def policy_of(lines, nesting):
    """Makes a policy without reader and check."""
    book = book_of(lines, nesting)
    table = Table(book, CATALOG, explain)
    return Policy("1", "", CATALOG, None, None, book, table, "", date(2026, 11, 25))
