"""The golden access matrix beside the policy, and what it must say.

The file is output. So it stands beside expectations written by hand, from reading the policy aloud:
each is a sentence, and is looked up in the file as a person would look it up.
"""

import re
from functools import cache

import pytest

from broker.policy import PolicyFiles, load
from broker.policy.matrix import as_text, matrix
from tests.policy import matrix_reader
from tests.policy.sample import POLICIES

GOLDEN = POLICIES / "access_matrix.txt"
POLICY = load(PolicyFiles.from_directory(POLICIES), "1")


def test_golden_file_is_the_matrix_of_the_policy():
    """The file is what `broker policy matrix policies --update` writes; a change is reviewed as its diff."""
    assert as_text(matrix(POLICY), golden=True) == GOLDEN.read_text("utf-8")


EXPECTED = """
# tier 1: the front line
tier1 greets by name
    tier1, resolve-ticket, assignee, general, routed, customer, absent: customer.name clear
tier1 sees which city
    tier1, resolve-ticket, assignee, general, routed, customer, present: customer.city clear
tier1 sees how an address ends
    tier1, resolve-ticket, assignee, general, routed, customer, absent: customer.street masked
tier1 sees a phone number masked, even while the customer is there, to resolve
    tier1, resolve-ticket, assignee, general, routed, customer, present: customer.phone masked
tier1 reads notes masked: they hold telephone numbers
    tier1, resolve-ticket, assignee, general, routed, customer, present: customer.notes masked
tier1 calls back with the number in clear while the customer is there
    tier1, call-back, assignee, general, routed, customer, present: customer.phone clear
tier1 calls back with a masked number when the customer is gone
    tier1, call-back, assignee, general, routed, customer, absent: customer.phone masked
tier1 gets no number in clear for a ticket that a colleague opened
    tier1, call-back, assignee, general, routed, peer, present: customer.phone masked
tier1 gets no number in clear for a ticket opened by himself
    tier1, call-back, assignee, general, routed, self, present: customer.phone masked
tier1 calls nobody back on a ticket that a colleague handed over
    tier1, call-back, assignee, general, peer, customer, present: customer.phone withheld
tier1 works on a ticket that was handed over
    tier1, resolve-ticket, assignee, general, peer, customer, absent: customer.name clear
tier1 sees a name masked on a ticket that he took himself
    tier1, resolve-ticket, assignee, general, self, customer, present: customer.name masked
tier1 sees an e-mail address masked on a ticket that he took himself
    tier1, resolve-ticket, assignee, general, self, customer, present: customer.email masked
tier1 sees a name masked on a ticket that he opened himself
    tier1, resolve-ticket, assignee, general, routed, self, present: customer.name masked
tier1 sees a name masked on an imported ticket
    tier1, resolve-ticket, assignee, general, imported, customer, present: customer.name masked
tier1 sees nothing where nobody knows how the ticket came to him
    tier1, resolve-ticket, assignee, general, unknown, customer, present: customer.name withheld
tier1 sees nothing of tickets that are not his
    tier1, resolve-ticket, none, general, unknown, customer, present: customer.name withheld
tier1 does not look into a colleague's ticket
    tier1, resolve-ticket, collaborator, general, peer, customer, present: customer.name withheld
tier1 sees the model of a device on a device ticket
    tier1, resolve-ticket, assignee, device, routed, customer, absent: customer.device_model clear
tier1 sees the serial number masked
    tier1, resolve-ticket, assignee, device, routed, customer, absent: customer.device_serial masked
tier1 sees no device on a general ticket
    tier1, resolve-ticket, assignee, general, routed, customer, present: customer.device_model withheld
tier1 sees no device on a device ticket that he opened himself
    tier1, resolve-ticket, assignee, device, routed, self, present: customer.device_model withheld
tier1 sees no money, not even on a billing ticket
    tier1, resolve-ticket, assignee, billing, routed, customer, present: customer.iban withheld
tier1 sees no date of birth
    tier1, verify-identity, assignee, general, routed, customer, present: customer.birth_date withheld
tier1 reviews nobody's work
    tier1, quality-review, supervisor, general, routed, customer, absent: customer.name withheld
tier1 works on kinds that the catalog does not know
    tier1, resolve-ticket, assignee, other, routed, system, absent: customer.name clear

# tier 2: what tier 1 could not solve
tier2 may do what tier1 may
    tier2, call-back, assignee, general, routed, customer, present: customer.phone clear
tier2 resolves with the number in clear while the customer is there
    tier2, resolve-ticket, assignee, general, routed, customer, present: customer.phone clear
tier2 resolves with a masked number when the customer is gone
    tier2, resolve-ticket, assignee, general, routed, customer, absent: customer.phone masked
tier2 sees devices on any kind of ticket
    tier2, resolve-ticket, assignee, account, peer, customer, absent: customer.device_serial clear
tier2 helps a colleague and sees who the customer is
    tier2, resolve-ticket, collaborator, general, peer, customer, absent: customer.name clear
tier2 helps a colleague and does not see how to reach the customer
    tier2, resolve-ticket, collaborator, general, peer, customer, present: customer.phone withheld
tier2 makes himself nobody's helper
    tier2, resolve-ticket, collaborator, general, self, customer, present: customer.name withheld
tier2 compares a document masked while the customer is there
    tier2, verify-identity, assignee, general, routed, customer, present: customer.id_document masked
tier2 verifies nobody who is not there
    tier2, verify-identity, assignee, general, routed, customer, absent: customer.id_document withheld
tier2 verifies nobody on a ticket of his own making
    tier2, verify-identity, assignee, general, routed, self, present: customer.id_document withheld
tier2 sees no money
    tier2, resolve-ticket, assignee, refund, routed, customer, present: invoice.total withheld

# billing: money, on tickets about money
billing sees an account number on a billing ticket
    billing, resolve-ticket, assignee, billing, routed, customer, absent: customer.iban clear
billing sees what was paid on a refund ticket
    billing, resolve-ticket, assignee, refund, routed, customer, absent: invoice_line.unit_price clear
billing sees no whole card number
    billing, billing-dispute, assignee, billing, routed, customer, present: customer.card_number masked
billing sees no money on a general ticket
    billing, resolve-ticket, assignee, general, routed, customer, present: customer.iban withheld
billing sees no money on a ticket that he took himself
    billing, resolve-ticket, assignee, billing, self, customer, present: customer.iban withheld
billing sees no money on a ticket that he opened himself
    billing, billing-dispute, assignee, refund, routed, self, present: invoice.total withheld
billing sees an address masked to resolve
    billing, resolve-ticket, assignee, billing, routed, customer, present: customer.street masked
billing talks a dispute over, with the number in clear while the customer is there
    billing, billing-dispute, assignee, billing, routed, customer, present: customer.phone clear
billing disputes with a masked number when the customer is gone
    billing, billing-dispute, assignee, refund, routed, customer, absent: customer.phone masked
billing gets no handed-over tickets
    billing, resolve-ticket, assignee, billing, peer, customer, present: customer.name withheld
billing calls nobody back
    billing, call-back, assignee, billing, routed, customer, present: customer.phone withheld

# supervisors: how the work was done
supervisor reviews with a masked name
    supervisor, quality-review, supervisor, general, routed, customer, absent: customer.name masked
supervisor reviews with a masked number
    supervisor, quality-review, supervisor, billing, routed, customer, present: customer.phone masked
supervisor reviews without documents
    supervisor, quality-review, supervisor, general, routed, customer, present: customer.id_document withheld
supervisor reviews what agents took themselves, without money
    supervisor, quality-review, supervisor, billing, self, customer, absent: invoice.total withheld
supervisor resolves nothing
    supervisor, resolve-ticket, assignee, general, routed, customer, present: customer.name withheld
"""
"""A sentence; then role, purpose, relation, ticket kind, provenance, opened by, presence: field and level."""


def expectations():
    """Reads the expectations: sentences, each with its words."""
    lines = [line for line in EXPECTED.splitlines() if line and not line.startswith("#")]
    return {
        sentence: tuple(re.split(r"[,:]? ", words.strip()))
        for sentence, words in zip(lines[::2], lines[1::2], strict=True)
    }


@cache
def printed():
    """Reads the golden file."""
    return matrix_reader.read(GOLDEN.read_text("utf-8"), POLICY.catalog)[0]


@pytest.mark.parametrize("words", expectations().values(), ids=expectations())
def test_expected(words):
    """What the policy was written to say is what the matrix says."""
    role, *facts, field, level = words

    assert level == matrix_reader.level_at(printed()[frozenset({role})], facts, field)


def test_expectations_speak_of_every_role_purpose_and_class():
    """No role, purpose, way to a ticket or class of fields is without an expectation."""
    roles, purposes, _, _, provenances, openers, _, fields, levels = map(
        set, zip(*expectations().values(), strict=True)
    )

    assert roles == POLICY.book.mapped_roles
    assert purposes == set(POLICY.catalog.purposes)
    assert provenances == {"routed", "peer", "self", "imported", "unknown"}
    assert openers >= {"customer", "peer", "self", "system"}
    assert {POLICY.catalog.fields[field].field_class for field in fields} == set(POLICY.catalog.field_classes)
    assert levels == {"clear", "masked", "withheld"}
