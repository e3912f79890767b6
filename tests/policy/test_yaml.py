"""The strict readers of catalog and limits: YAML cut down to what people mean."""

import re

import pytest

from tests.policy.sample import CATALOG, TEXTS, edited, findings, small


@pytest.mark.parametrize("name", ["catalog.yaml", "limits.yaml"])
@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda text: "\ufeff" + text, "byte-order-mark"),
        (lambda text: text.replace("\n", "\r\n"), "carriage-return"),
        (lambda text: text.replace("  ", "\t", 1), "tab"),
        (lambda _: "# nothing\n...\n", "syntax"),
        (lambda _: "- 1\n...\n", "wrong-type"),
        (lambda text: "a: [\n" + text, "syntax"),
        (lambda text: text.replace("version: 1\n", "version: 1\nversion: 1\n"), "duplicate-key"),
        (lambda text: text.replace("version: 1\n", "version: 2\n"), "out-of-range"),
        (lambda text: text.replace("version: 1\n", "version: '1'\n"), "wrong-type"),
        (lambda text: text.replace("version: 1\n", "version: 0x1\n"), "wrong-type"),
        (lambda text: text.replace("version: 1\n", "version: true\n"), "wrong-type"),
        (lambda text: text.replace("version: 1\n", "version: 1.0\n"), "wrong-type"),
        (lambda text: text.replace("version: 1\n", ""), "missing-key"),
        (lambda text: text.replace("version: 1\n", "version: 1\nextra: 1\n"), "unknown-key"),
        (lambda text: text.replace("version: 1\n", "version: &a 1\n"), "alias"),
        (lambda text: text.replace("version: 1\n", "version: &a 1\nextra: *a\n"), "alias"),
        (lambda text: text.replace("version: 1\n", "version: !!int 1\n"), "tag"),
        (lambda text: text.replace("version: 1\n", "version: !!python/object/apply:os.system [x]\n"), "tag"),
        (lambda text: "version: 1\n---\n" + text, "several-documents"),
        (lambda text: text.replace("version: 1\n", "version: " + "[" * 900 + "]" * 90 + "\n"), "too-deep"),
    ],
)  # fmt: skip
def test_yaml_beyond_the_subset_is_refused(name, spoil, finding):
    """What YAML allows and nobody means is refused by name, in both files."""
    small()  # the control arm
    text = TEXTS[name]
    found = findings(edited(name, text, spoil(text)))

    assert [f for f in found if f.startswith(f"{name}:") and f.endswith(f"[{finding}]")], found


SPOILT_CATALOG = {
    "a class that nobody declared": ("class: profile", "class: profil", "unknown-class"),
    "a mask that does not exist": ("mask: email", "mask: mail", "unknown-mask"),
    "a table without a schema": ("crm.customer", "customer", "identifier"),
    "SQL in a table": ("table: crm.customer", "table: 'crm.customer; DROP TABLE x'", "identifier"),
    "SQL in a column": ("column: name", "column: 'name\"; --'", "identifier"),
    "a column of 64 characters": ("column: name", "column: " + "n" * 64, "identifier"),
    "a field with a capital": ("      name:", "      Name:", "name"),
    "a field with a dot": ("      name:", "      first.name:", "name"),
    "a field without a mask": (", mask: email", "", "missing-key"),
    "a field with a word too many": ("mask: email}", "mask: email, sensitive: true}", "unknown-key"),
    "one column under two names": ("column: phone", "column: email", "column-twice"),
    "two roots": ("    via: customer\n    link: customer_id\n    rows: 50\n", "", "root"),
    "a parent that does not exist": ("via: customer", "via: custmer", "unknown-parent"),
    "a kind that hangs on itself": ("via: customer", "via: invoice", "parent-cycle"),
    "a child without a row cap": ("    rows: 50\n", "", "parent"),
    "a row cap of nothing": ("rows: 50", "rows: 0", "out-of-range"),
    "a row cap that is a report": ("rows: 50", "rows: 100000", "out-of-range"),
    "a row cap that is text": ("rows: 50", "rows: fifty", "wrong-type"),
    "a row cap in base 60": ("rows: 50", "rows: 1:30", "wrong-type"),
    "a purpose called any": ("review:", "any:", "reserved-word"),
    "a ticket kind twice": ("[general, billing]", "[general, billing, general]", "duplicate"),
    "no ticket kinds": ("[general, billing]", "[]", "out-of-range"),
    "a ticket kind that YAML reads as false": ("[general, billing]", "[general, no]", "wrong-type"),
    "a field twice": ("      phone:", "      email:", "duplicate-key"),
    "sensitive by yes": ("sensitive: true", "sensitive: yes", "wrong-type"),
    "a purpose without a sentence": ("review: Look at the work.", "review: ''", "blank-value"),
}


@pytest.mark.parametrize(("old", "new", "name"), SPOILT_CATALOG.values(), ids=SPOILT_CATALOG)
def test_spoilt_catalog_is_refused(old, new, name):
    """A catalog that differs in one thing from a good one is refused by name."""
    found = findings(edited("catalog.yaml", old, new))

    assert [f for f in found if re.match(r"catalog\.yaml:\d+: ", f) and f.endswith(f"[{name}]")], found


def test_catalog_is_read_whole():
    """Every word of the catalog arrives where it belongs."""
    catalog = small().catalog

    assert catalog.ticket_kinds == ("general", "billing")
    assert catalog.sensitive_classes == {"contact"}
    assert list(catalog.fields) == ["customer.name", "customer.email", "customer.phone", "invoice.total"]
    assert (catalog.root.schema, catalog.root.table, catalog.root.key) == ("crm", "customer", "customer_id")
    invoice = catalog.kinds["invoice"]
    assert (invoice.via, invoice.link, invoice.rows) == ("customer", "customer_id", 50)


def test_mixed_case_columns_are_names():
    """Other people's tables may have any plain name; it is quoted later, never changed."""
    text = CATALOG.replace("column: name", "column: FirstName")

    assert small(catalog_yaml=text).catalog.fields["customer.name"].column == "FirstName"


SPOILT_LIMITS = {
    "no default": ("default:", "tier2:", "missing-key"),
    "a role that nobody has": ("tier1:", "teir1:", "unknown-role"),
    "nothing per hour": ("per_hour: 30", "per_hour: 0", "out-of-range"),
    "a negative number": ("per_hour: 30", "per_hour: -1", "wrong-type"),
    "more an hour than a day": ("per_hour: 30", "per_hour: 51", "out-of-range"),
    "a thousand times too much": ("per_day: 50", "per_day: 50000", "out-of-range"),
    "a number with underscores": ("per_day: 50", "per_day: 5_0", "wrong-type"),
    "an octal number": ("per_day: 50", "per_day: 050", "wrong-type"),
    "true for one": ("per_hour: 30", "per_hour: true", "wrong-type"),
    "no budget per day": (", per_day: 50", "", "missing-key"),
    "a default beyond the maximum": ("default_minutes: 5", "default_minutes: 11", "out-of-range"),
    "a grant of a day": ("maximum_minutes: 10", "maximum_minutes: 1440", "out-of-range"),
}


@pytest.mark.parametrize(("old", "new", "name"), SPOILT_LIMITS.values(), ids=SPOILT_LIMITS)
def test_spoilt_limits_are_refused(old, new, name):
    """Limits that differ in one thing from good ones are refused by name."""
    found = findings(edited("limits.yaml", old, new))

    assert [f for f in found if re.match(r"limits\.yaml:\d+: ", f) and f.endswith(f"[{name}]")], found
