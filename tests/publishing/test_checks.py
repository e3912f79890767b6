"""Checks that stay, whatever one person, or two of whom one reads a summary, do in steps."""

import pytest
import yaml

from broker.errors import PolicyInvalidError
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.publishing import in_this_process
from broker.publishing.gate import MOST_SENTENCES
from tests.policy.sample import CATALOG, POLICIES
from tests.published import activate, administrator, founding, publisher
from tests.publishing.conftest import draft
from tests.publishing.test_alone import NARROWER, RULES, TEST, bundle, examined, more, without

AWAY = more(
    RULES,
    "# accept sensitive-clear: what is masked like this reaches nobody\n"
    "p, tier2, resolve, assignee, any, routed, customer, absent, contact, clear, allow",
)
"""The small rules, and addresses and telephone numbers in clear while the customer is away."""

EMAIL = "      email: {column: email, class: contact, mask: email}"
PHONE = "      phone: {column: phone, class: contact, mask: phone}"
NOTED = CATALOG.replace(PHONE, f"{PHONE}\n      notes: {{column: notes, class: contact, mask: text}}")
UNMASKED = NOTED.replace("mask: email", "mask: text").replace("mask: phone", "mask: tail")

STEPS = {
    "other masks": UNMASKED,
    "other names": UNMASKED.replace("email: {", "e: {")
    .replace("phone: {", "p: {")
    .replace("notes: {", "n: {"),
    "other columns": UNMASKED.replace("column: e", "column: x")
    .replace("column: p", "column: y")
    .replace("column: notes", "column: z"),
    "another class": UNMASKED.replace("contact", "reach"),
    "only what does not tell what it is": without(NOTED, PHONE, EMAIL),
}
"""Catalogs that call nothing contact data of what was."""


@pytest.mark.attack("C14", "K3")
@pytest.mark.parametrize("catalog", STEPS.values(), ids=STEPS)
def test_what_was_contact_data_is_tested_as_such(catalog):
    """At once, or where the first of two steps is in force: it stays masked while they are away."""
    rules = {"rules": AWAY, "catalog": catalog, "tests": {}}
    held = {"rules": RULES, "catalog": catalog, "tests": {}}
    if "  contact:" not in catalog:
        rules, held = ({**each, "rules": each["rules"].replace("contact", "reach")} for each in (rules, held))
    at_once = examined(bundle(**rules), bundle(catalog=NOTED), before=(NOTED,), replaces_tests=True)
    later = examined(bundle(**rules), bundle(**held), before=(catalog, NOTED))
    never = examined(bundle(**rules), bundle(**held), before=(catalog,))

    for found in (at_once, later):
        assert any("While the customer is away no contact data shows" in each for each in found.refusals), (
            found
        )
    assert never.refusals == ()  # the control arm: it hangs on what was in force


@pytest.mark.attack("C14", "K3")
async def test_what_was_contact_data_stays_so_until_the_glass_breaks(desk, database, owner):
    """Two persons take the masks away and are told; the next step takes two secrets more."""
    await activate(desk.admin, bundle(tests={}).files)
    acts = publisher(desk.admin, examine=in_this_process, thorough=False)
    unmasked = CATALOG.replace("mask: email", "mask: text").replace("mask: phone", "mask: tail")

    async def two_persons(**texts):
        _, proposal, found = await acts.propose(anna, draft(bundle(tests={}, **texts).files))
        if proposal is not None:
            await acts.approve(boris, proposal.proposal_id, proposal.digest, "")
        return found

    anna, boris = (administrator(name, "security-admins", "approvers") for name in ("anna", "boris"))
    first = await two_persons(catalog=unmasked)
    assert any("no contact data any more" in sentence for sentence in first.widening)
    second = await two_persons(catalog=unmasked, rules=AWAY)
    assert any("While the customer is away" in sentence for sentence in second.refusals)
    await two_persons(catalog=f"# Again.\n{unmasked}")  # whatever came in between
    assert (await two_persons(catalog=unmasked, rules=AWAY)).refusals

    breaks = founding(owner, examine=in_this_process)
    opened = bundle(tests={}, catalog=unmasked, rules=AWAY)
    with pytest.raises(PolicyInvalidError, match="While the customer is away"):
        await breaks.break_glass(opened, by="root", reason="a drill")
    await breaks.break_glass(opened, by="root", reason="they are no addresses", despite_refusals=True)
    assert (await two_persons(catalog=unmasked, rules=f"# Again.\n{AWAY}")).refusals == ()


MOVED = NOTED.replace("\nkinds:", "\n  misc: {about: Whatever else., sensitive: true}\nkinds:")
"""With a class of which no rule speaks."""


@pytest.mark.attack("C14")
@pytest.mark.parametrize("replaces", [False, True])
def test_a_field_that_changes_its_class_takes_no_test_along(replaces):
    """Rules that give as much, the same tests: still less is asked, and an approver reads of what."""
    mirrored = more(RULES, "p, any, any, any, any, any, any, any, misc, clear, deny")
    moved = MOVED.replace("column: notes, class: contact", "column: notes, class: misc")
    for rules in (RULES, mirrored):
        found = examined(
            bundle(rules, catalog=moved),
            bundle(rules, catalog=MOVED),
            before=(MOVED,),
            replaces_tests=replaces,
        )
        assert (found.refusals, found.widens) == ((), True)
        assert any("class contact -> misc" in text for text in found.widening)
        assert any(
            "Tier 1 reads no address in clear: customer.notes at most masked" in t for t in found.widening
        )

    shown = more(RULES, "p, tier1, resolve, assignee, any, routed, customer, present, misc, clear, allow")
    found = examined(
        bundle(shown, catalog=moved), bundle(catalog=MOVED), before=(MOVED,), replaces_tests=replaces
    )
    let_go = (
        "no longer speaks of fields, of which this held: Tier 1 reads no address in clear: customer.notes"
    )
    assert found.refusals == ()
    assert any(let_go in text for text in found.widening)


@pytest.mark.attack("C14")
def test_a_field_that_comes_back_is_known():
    """Out in one version, back in a class without rules in the next: two steps, and the second is told."""
    gone = without(MOVED, PHONE)
    back = MOVED.replace(
        PHONE, PHONE.replace("class: contact", "class: misc").replace("mask: phone", "mask: tail")
    )
    renamed = back.replace("      phone: {", "      call: {")
    narrower = {"rules": NARROWER}  # beside something that may be done alone
    for again in (back, renamed):
        found = examined(bundle(catalog=again, **narrower), bundle(catalog=gone), before=(gone, MOVED))
        assert found.refusals == ()
        assert any(
            "comes back as class misc, it was contact (customer.phone)" in t for t in found.widening
        ), found

    same = examined(bundle(catalog=MOVED, **narrower), bundle(catalog=gone), before=(gone, MOVED))
    assert not any("comes back" in text for text in same.widening)  # the control arm


STARTING = Bundle.from_directory(POLICIES)
SHUT = "p, any, any, any, any, any, any, any, customer.company, any, deny\n# end"


def starting(tests):
    """Makes the starting policy with one field shut for everybody, and these tests."""
    rules = STARTING.files.texts["policy.csv"].replace("# end", SHUT)
    return Bundle.of(PolicyFiles.from_mapping({**STARTING.files.texts, "policy.csv": rules}), tests)


def rewritten(change):
    """Gives the starting tests with a change applied to each: its new form, or None where it goes."""
    texts = {}
    for name, text in STARTING.tests.items():
        document = yaml.safe_load(text)
        for test, what in list(document.get("tests", {}).items()):
            document["tests"][test] = change(test, what)
            if document["tests"][test] is None:
                del document["tests"][test]
        texts[name] = f"{yaml.safe_dump(document, sort_keys=False, width=1000)}...\n"
    return texts


@pytest.mark.attack("C14")
def test_one_line_that_narrows_outdates_no_test_as_a_whole():
    """What a failing test says of other fields stays; what the line changed is edited alone."""
    failing = {text.split(": ")[1] for text in examined(starting(STARTING.tests), STARTING).refusals}
    assert len(failing) > 10
    without_them = rewritten(lambda test, what: None if test in failing else what)
    gone = examined(starting(without_them), STARTING, replaces_tests=True)

    assert (gone.refusals, gone.widens) == ((), True)
    for test in failing:
        assert any(f"asks less, though this holds: {test}: " in text for text in gone.widening), test

    def shut(test, what):
        withheld = what["expect"].get("withheld", [])
        words = [withheld] if isinstance(withheld, str) else withheld
        told = {**what["expect"], "withheld": [*words, "customer.company"]}
        return {**what, "expect": told} if test in failing else what

    alone = examined(starting(rewritten(shut)), STARTING, replaces_tests=True)
    assert (alone.refusals, alone.widening) == ((), ())  # the control arm
    assert sum("does not pass" in text for text in alone.narrowing) >= len(failing)


@pytest.mark.attack("C14")
def test_a_test_that_failed_before_is_no_narrowing():
    """What a broken glass left failing in force is edited by two: beside nothing narrower it is not alone."""
    failing = TEST.replace("expect: {not_clear: class:contact}", "expect: {clear: class:contact}", 1)
    held = bundle(tests={"tests/small.yaml": failing})
    idle = examined(bundle(), held, replaces_tests=True)
    narrower = examined(bundle(NARROWER), held, replaces_tests=True)

    assert (idle.refusals, idle.only_narrows, idle.widens) == ((), False, True)
    assert narrower.only_narrows  # the control arm: at least so much is what serves


@pytest.mark.attack("C14")
def test_a_class_shut_altogether_is_edited_alone():
    """What served is outdated, of fields to come as well; what protects stays."""
    serves = TEST.replace(
        "expect: {not_clear: class:contact}", "expect: {masked: class:contact, clear: class:profile}"
    )
    shut = more(RULES, "p, tier1, any, any, any, any, any, any, contact, any, deny")
    shut = more(shut, "p, tier1, any, any, any, any, any, any, profile, any, deny")
    serves = serves.replace(
        "ticket: {provenance: routed}",
        "ticket: {relation: assignee, provenance: routed, opened_by: customer}\n    purpose: resolve",
    )
    closed = serves.replace("masked: class:contact, clear: class:profile", "withheld: every")
    found = examined(
        bundle(shut, tests={"tests/a.yaml": closed}),
        bundle(tests={"tests/a.yaml": serves}),
        replaces_tests=True,
    )

    assert examined(bundle(tests={"tests/a.yaml": serves}), bundle()).refusals == ()  # the control arm
    assert (found.refusals, found.widening) == ((), ())


LESS = {
    "another word for a class": ("not_clear: class:contact", "not_clear: [customer.email, customer.phone]"),
    "fewer situations": ("{provenance: routed}", "{provenance: routed, kind: general}"),
    "all kinds there are": ("{provenance: routed}", "{provenance: routed, kind: [general, billing]}"),
    "what serves in place of what protects": ("withheld: class:contact", "withheld: customer.email"),
}


@pytest.mark.attack("C14")
@pytest.mark.parametrize(("old", "new"), LESS.values(), ids=LESS)
def test_a_test_that_asks_less(old, new):
    """In whatever way, beside whatever narrows: it widens, and the sentence names the test."""
    assert old in TEST
    found = examined(bundle(NARROWER, tests={"tests/a.yaml": TEST.replace(old, new)}), bundle())

    assert (found.refusals, found.widens) == ((), True)
    assert any("of the version in force" in text for text in found.widening), found.widening


@pytest.mark.parametrize("words", [("[tier1]", "every"), ("    ticket: {opened_by: self}\n", "")])
def test_a_test_that_asks_more(words):
    """The control arm: what implies the tests in force may take their place."""
    held = """\
version: 1
tests:
  It:
    roles: [tier1]
    ticket: {opened_by: self}
    expect: {not_clear: class:contact}
...
"""
    rules = more(NARROWER, "p, any, any, any, any, any, any, any, contact, clear, deny")
    found = examined(
        bundle(rules, tests={"tests/a.yaml": held.replace(*words)}),
        bundle(RULES, tests={"tests/a.yaml": held}),
    )

    assert (found.refusals, found.widening) == ((), ())


@pytest.mark.attack("C14")
def test_what_is_weakened_is_read_first():
    """However much else is told: an approver reads of the tests and of administrators before it."""
    classes = "".join(f"  c{i}: {{about: It.}}\n" for i in range(150))
    fields = "".join(f"      f{i}: {{column: f{i}, class: c{i}, mask: text}}\n" for i in range(150))
    many = CATALOG.replace("\nkinds:", f"\n{classes}kinds:").replace(EMAIL, f"{fields}{EMAIL}")
    moved = many.replace("column: f", "column: g")
    both = examined(
        bundle(catalog=moved.replace("mask: text", "mask: tail"), tests={}),
        bundle(catalog=many),
        replaces_tests=True,
    )

    assert len(both.widening) > MOST_SENTENCES
    assert "Tier 1 reads no address in clear" in both.widening[0]
    assert any(text.startswith("and ") and "more" in text for text in both.widening)


def test_an_approver_reads_what_is_without_effect():
    """A class, a kind of ticket, a purpose: nobody's access changes, and nobody overlooks that they came."""
    kinds = CATALOG.replace("[general, billing]", "[general, billing, refund]")
    found = examined(bundle(catalog=kinds), bundle())

    assert (found.widens, found.narrowing) == (False, ())
    assert "changes nobody's access: new ticket kind refund" in found.warnings
