"""The catalog against the rules: what is marked too mildly, and what nobody can use."""

from __future__ import annotations

from collections.abc import Mapping

from broker.catalog import Catalog, Mask
from broker.policy.files import CATALOG
from broker.policy.findings import Findings, Severity
from broker.policy.lines import ANY
from broker.policy.rules import RuleBook
from broker.policy.strict_yaml import read_yaml

REACHES_A_PERSON = frozenset({Mask.EMAIL, Mask.PHONE})
"""The masks of fields by which a customer is called or written to: what a fraudster wants."""


def contact_classes(catalog: Catalog) -> frozenset[str]:
    """Gives the field classes that hold an e-mail address or a telephone number, by their masks."""
    return frozenset(f.field_class for f in catalog.fields.values() if f.mask in REACHES_A_PERSON)


def protected_classes(catalog: Catalog) -> frozenset[str]:
    """Gives the sensitive classes, and those that hold contact data whatever the catalog calls them."""
    return catalog.sensitive_classes | contact_classes(catalog)


def check_classes(text: str, catalog: Catalog, findings: Findings) -> None:
    """Names classes that are marked too mildly."""
    lines = _lines(text)
    for name in sorted(contact_classes(catalog) - catalog.sensitive_classes):
        findings.add(
            CATALOG,
            lines["field_classes", name],
            "contact-not-sensitive",
            f"class {name!r} has fields with the mask email or phone and is not marked sensitive",
        )
    if not catalog.sensitive_classes:
        findings.add(
            CATALOG,
            1,
            "nothing-sensitive",
            "no field class is marked sensitive, so nothing is watched over",
            Severity.WARNING,
        )


def check_use(text: str, catalog: Catalog, book: RuleBook, findings: Findings) -> None:
    """Names classes without fields, purposes that no rule allows and fields that no rule shows."""
    lines = _lines(text)
    classes = {field.field_class for field in catalog.fields.values()}
    for name in catalog.field_classes:
        if name not in classes:
            findings.add(
                CATALOG,
                lines["field_classes", name],
                "class-without-fields",
                f"no field is of class {name!r}",
                Severity.WARNING,
            )
    allows = [rule for rule in book.rules if rule.effect == "allow"]
    purposes = {rule.conditions[0] for rule in allows}
    for name in catalog.purposes:
        if not purposes & {name, ANY}:
            findings.add(
                CATALOG,
                lines["purposes", name],
                "purpose-unused",
                f"no rule allows anything for purpose {name!r}",
                Severity.WARNING,
            )
    shown = {rule.field for rule in allows}
    for name, field in catalog.fields.items():
        if not shown & {name, field.field_class}:
            findings.add(
                CATALOG,
                lines["field_classes", field.field_class],
                "field-unused",
                f"no rule shows {name} to anybody",
                Severity.NOTE,
            )


def _lines(text: str) -> Mapping[tuple[str, str], int]:
    """Gives where words are declared; the text is one that the strict reader has accepted."""
    document = read_yaml(CATALOG, text, Findings())
    lines: dict[tuple[str, str], int] = {}
    for section, _, value in document.items() if document else ():
        if section in {"purposes", "field_classes"}:
            lines |= {(section, word): key.line for word, key, _ in value.items()}
    return lines
