"""The sample company is nobody real and the same for everybody."""

from __future__ import annotations

import re

from broker.dev.sample import AGENTS, TICKET_KINDS, draw
from broker.policy import PolicyFiles, load
from tests.dev.conftest import POLICIES

DATA = draw(300)


def test_the_same_seed_gives_the_same() -> None:
    """Whoever reports a problem with sample data can name it."""
    again, other = draw(300), draw(300, seed=1)

    assert again == DATA
    assert other.customers != DATA.customers


def test_the_first_ticket_is_alices() -> None:
    """The commands in README and `broker dev` use it."""
    ticket = DATA.tickets[0]

    assert (ticket.ticket_id, ticket.kind, ticket.opened_by) == ("T-1001", "general", "customer")
    assert [(a.subject, a.relation, a.assigned_by) for a in ticket.assignments] == [
        ("alice", "assignee", "queue")
    ]


def test_everybody_has_something_to_do() -> None:
    """Every kind of ticket, provenance and opener occurs, and only agents who exist."""
    subjects = {agent.subject for agent in AGENTS}
    assigned = [a for ticket in DATA.tickets for a in ticket.assignments]

    assert {a.subject for a in assigned} <= subjects
    assert {ticket.kind for ticket in DATA.tickets} == set(TICKET_KINDS)
    assert {"queue"} < {a.assigned_by for a in assigned} <= subjects | {"queue"}
    assert (
        {"customer", "system"}
        < {ticket.opened_by for ticket in DATA.tickets}
        <= subjects | {"customer", "system"}
    )
    assert {a.relation for a in assigned} == {"assignee", "supervisor"}
    assert len({ticket.ticket_id for ticket in DATA.tickets}) == len(DATA.tickets)


def test_tickets_name_customers_who_exist() -> None:
    """A ticket of nobody would be refused for the wrong reason."""
    known = {str(row[0]) for row in DATA.customers}

    assert {c for ticket in DATA.tickets for c in ticket.customers} <= known
    assert {row[1] for row in DATA.invoices} <= {row[0] for row in DATA.customers}
    assert {row[1] for row in DATA.invoice_lines} <= {row[0] for row in DATA.invoices}


def test_nobody_can_be_reached() -> None:
    """Addresses are of domains that are reserved for examples, numbers of a prefix that is fictional."""
    for row in DATA.customers:
        assert re.search(r"@example\.(com|net|org)$", str(row[3]))
        assert str(row[4]).startswith("+1 555 ")


def test_the_policy_knows_the_company() -> None:
    """Every agent's group leads to a role, and every kind of ticket is in the catalog."""
    policy = load(PolicyFiles.from_directory(POLICIES), "test")

    assert all(policy.roles_of(frozenset(agent.groups)) for agent in AGENTS)
    assert set(TICKET_KINDS) == set(policy.catalog.ticket_kinds)
