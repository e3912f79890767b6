"""The incident tests: the schemes by which an insider would reach customers, as tests that nobody can remove.

They are made from the catalog, whatever a folder's tests say, and are run on every version before it can
be in force. Contact classes are those that hold an e-mail address or a telephone number by their masks,
so that leaving out `sensitive` opens nothing. `policies/tests/incident.yaml` says the same for people
to read.

What counted as contact data or as sensitive once goes on counting, by its name and by its column: a later
catalog may give it another mask, class or name, and these tests ask for it all the same.

What is no fact of a rule is refused before the policy is asked and tested elsewhere: a closed ticket
justifies nothing, and one that is reopened comes back with an assignment by somebody and an absent
customer, which are the schemes below. A second role is in each test: `every` role, alone and in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType

from broker.catalog import Catalog
from broker.policy.lint.catalog import contact_classes, protected_classes
from broker.policy.rules import CONDITIONS
from broker.policy.suite.cases import Case, Expected, Suites
from broker.policy.suite.reader import fields_of

BUILT_IN = "incident"
"""The file that failures of these tests name."""

OF_OTHERS = "Nobody sees anything on the ground of a ticket that is not theirs"
"""The one test that asks for everything to be withheld."""

SENSITIVE_NOT_CLEAR = (
    ("Whoever takes a ticket for themselves sees nothing sensitive in clear", "provenance", "self"),
    ("Whoever opened the ticket themselves sees nothing sensitive in clear", "opened_by", "self"),
    ("An assignment that was imported shows nothing sensitive in clear", "provenance", "imported"),
    ("An assignment that nobody recorded shows nothing sensitive in clear", "provenance", "unknown"),
    ("A ticket whose opening nobody recorded shows nothing sensitive in clear", "opened_by", "unknown"),
)
"""Name, fact and word of the tests about all sensitive fields."""

CONTACT_NOT_CLEAR = (
    ("A ticket that a colleague opened shows no contact data in clear", "opened_by", "peer"),
    ("While the customer is away no contact data shows in clear", "presence", "absent"),
)
"""Name, fact and word of the tests about what a fraudster would call or write to."""


def incident_suite(catalog: Catalog, before: Sequence[Catalog] = ()) -> Suites:
    """Makes the incident tests for a catalog.

    Args:
        catalog: of the version to be tested.
        before: of the versions that were in force.
    """
    cases = [_case(OF_OTHERS, "relation", "none", catalog.fields, Expected.WITHHELD)]
    sensitive = _counted(catalog, before, protected_classes)
    contact = _counted(catalog, before, contact_classes)
    cases += [_case(*scheme, sensitive, Expected.NOT_CLEAR) for scheme in SENSITIVE_NOT_CLEAR if sensitive]
    cases += [_case(*scheme, contact, Expected.NOT_CLEAR) for scheme in CONTACT_NOT_CLEAR if contact]
    return Suites(tuple(cases))


def _counted(
    catalog: Catalog, before: Iterable[Catalog], classes: Callable[[Catalog], frozenset[str]]
) -> list[str]:
    """Gives the fields that are of such a class in any of the catalogs, by their name or by their column."""
    names, places = set[str](), set[str]()
    for each in (catalog, *before):
        for name in fields_of(each, classes(each)):
            names.add(name)
            places.add(each.place_of(each.fields[name]))
    return [n for n, field in catalog.fields.items() if n in names or catalog.place_of(field) in places]


def _case(name: str, column: str, word: str, fields: Iterable[str], expected: Expected) -> Case:
    conditions = tuple((word,) if each == column else () for each in CONDITIONS)
    return Case(
        BUILT_IN, 1, name, (), frozenset(), conditions, MappingProxyType(dict.fromkeys(fields, expected))
    )
