"""What a comparison says: sentences that a security admin can read aloud, and their direction."""

import pytest

from broker.catalog import Mask
from broker.masking import mask
from broker.policy import PolicyFiles, load
from broker.policy.compare import Area, Direction, compare
from tests.policy.differing import TODAY
from tests.policy.sample import ADMIN, CATALOG, POLICIES, RULES, edited, files, small

STARTING = PolicyFiles.from_directory(POLICIES)
VALUES = ("jane@example.com", "1234567", "ABCD-EFGH", "1980-01-02", "Jane Doe")
"""One of each shape that a mask knows; a seven-digit number is too short for a tail."""

USUAL = "resolve, assignee, routed, not opened by the agent"

LINES = (
    CATALOG.replace("  contact: {", "  device: {about: What they have.}\n  contact: {")
    .replace("total: {column: total, class: profile", "total: {column: total, class: device")
    .replace(
        "...\n",
        """\
  line:
    table: crm.line
    key: line_id
    via: invoice
    link: invoice_id
    rows: 50
    fields:
      text: {column: text, class: device, mask: text}
  part:
    table: crm.part
    key: part_id
    via: line
    link: line_id
    rows: 50
    fields:
      name: {column: name, class: profile, mask: text}
...
""",
    )
)
"""Invoices and their lines, of which no rule says anything, and the parts on those lines, which are seen."""


def with_lines(old, new):
    """Gives the policy with lines and parts, with one place of its catalog replaced."""
    assert old in LINES, "the control arm: the place is there"
    return files(catalog_yaml=LINES.replace(old, new, 1))


def sentences(old, new, *, area=None, direction=None):
    """Gives the sentences of a comparison, of one area or direction where asked."""
    return [
        change.sentence
        for change in compare(old, new).changes
        if area in {None, change.area} and direction in {None, change.direction}
    ]


def with_edit(name, old, new):
    """Loads the small policy with one place changed."""
    return load(edited(name, old, new), "2")


class TestRules:
    """What sentences about rules say."""

    def test_same_policy_is_no_difference(self):
        """A policy and itself, and the same rules in another order with other comments."""
        lines = STARTING.texts["policy.csv"].splitlines()
        shuffled = [line for line in reversed(lines) if line[:1] in {"p", "g"}] + ["# end", ""]
        old = load(STARTING, "1")
        other = PolicyFiles.from_mapping({**STARTING.texts, "policy.csv": "\n".join(shuffled)})

        assert compare(old, old).changes == ()
        assert compare(old, load(other, "2")).changes == ()

    def test_one_field_in_clear(self):
        """The sentence names roles, facts and field, and both levels."""
        rule = "p, tier1, resolve, assignee, any, routed, any, present, customer.phone, clear, allow"
        new = with_edit("policy.csv", "# end", f"{rule}\n# end")

        assert sentences(small(), new) == [
            f"tier1, {USUAL}, customer present: customer.phone masked -> clear"
        ]
        assert sentences(new, small(), direction=Direction.NARROWING) == [
            f"tier1, {USUAL}, customer present: customer.phone clear -> masked"
        ]

    def test_widening_that_two_roles_have_and_none_alone(self):
        """A denial of one role that goes shows where somebody has that role and another that allows."""
        denial = "p, billing, any, any, any, any, any, any, contact, any, deny"
        allow = "p, billing, resolve, any, any, any, any, any, profile, masked, allow"
        group = "g, idp:money, billing\n"
        lines = f"{denial}\n{allow}\n# end"
        text = files().texts["policy.csv"].replace("g, tier2", group + "g, tier2").replace("# end", lines)
        old = load(files(policy_csv=text), "1")
        new = load(files(policy_csv=text.replace(denial + "\n", "")), "2")

        assert sentences(old, new) == [
            f"billing together with tier1, {USUAL}: all contact fields withheld -> masked",
            f"billing together with tier2, {USUAL}, customer absent: all contact fields withheld -> masked",
            f"billing together with tier2, {USUAL}, customer present: all contact fields withheld -> clear",
        ]

    def test_group_that_gains_a_role(self):
        """Its members gain, although no rule changed; the group that leads there already does not."""
        new = with_edit("policy.csv", "g, idp:back, tier2", "g, idp:back, tier2\ng, idp:front, tier2")

        assert sentences(small(), new, area=Area.GROUPS) == [
            f"members of idp:front, {USUAL}, customer present: all contact fields masked -> clear",
            "group idp:front gains tier2",
        ]
        assert not sentences(small(), new, area=Area.RULES)

    def test_role_by_another_name_is_no_difference_for_people(self):
        """A role that is renamed with its group and rules changes nobody's access."""
        new = load(files(policy_csv=files().texts["policy.csv"].replace("tier2", "second")), "2")

        assert sentences(small(), new) == [
            "group idp:back gains second and loses tier2; nobody's access changes by it"
        ]

    def test_rule_that_ends_later(self):
        """A later end is a widening for the days between; an end where there was none is a narrowing."""
        rule = "p, tier1, review, any, any, any, any, any, profile, masked, allow"

        def ending(end):
            text = files().texts["policy.csv"].replace("# end", f"{rule}{end}\n# end")
            return load(files(policy_csv=text), "1", today=TODAY)

        assert sentences(ending(", until 2026-12-31"), ending(", until 2027-01-31")) == [
            "tier1 or tier2, review, from 2027-01-01 to 2027-01-31: all profile fields withheld -> masked"
        ]
        assert sentences(ending(""), ending(", until 2026-12-31"), direction=Direction.NARROWING) == [
            "tier1 or tier2, review, from 2027-01-01: all profile fields masked -> withheld"
        ]
        assert sentences(ending(", until 2026-11-24"), small()) == []

    def test_purpose_that_only_one_side_knows(self):
        """A rule for any purpose reaches a purpose that the catalog gains."""
        rule = "p, tier1, any, any, any, any, any, any, profile, masked, allow"
        text = files().texts["policy.csv"].replace("# end", f"{rule}\n# end")
        more = files().texts["catalog.yaml"].replace("purposes: {", "purposes: {survey: Ask them., ")
        old, new = load(files(policy_csv=text), "1"), load(files(policy_csv=text, catalog_yaml=more), "2")

        assert sentences(old, new) == [
            "tier1 or tier2, survey: all profile fields withheld -> masked",
            "new purpose survey",
        ]


class TestCatalog:
    """What sentences about the catalog say."""

    @pytest.mark.parametrize(
        ("old", "new", "direction", "sentence"),
        [
            (
                "phone: {column: phone",
                "phone: {column: iban",
                "widening",
                "customer.phone: other data show under this name, column phone -> iban",
            ),
            (
                "table: crm.customer",
                "table: crm.person",
                "widening",
                "customer: other records show, its table was crm.customer and is crm.person",
            ),
            (
                "key: customer_id",
                "key: person_id",
                "widening",
                "customer: other records show, its key was customer_id and is person_id",
            ),
            (
                "link: customer_id",
                "link: payer_id",
                "widening",
                "invoice: other records show, its link was customer_id and is payer_id",
            ),
            ("rows: 50", "rows: 80", "widening", "invoice: at most 50 rows of a customer -> 80"),
            ("rows: 50", "rows: 20", "narrowing", "invoice: at most 50 rows of a customer -> 20"),
            (
                "mask: phone",
                "mask: tail",
                "widening",
                "customer.phone, mask phone -> tail: masked values show the last four characters now",
            ),
            (
                "mask: phone",
                "mask: tail",
                "narrowing",
                "customer.phone, mask phone -> tail: masked values show the last two digits no longer",
            ),
            (
                ", sensitive: true",
                "",
                "widening",
                "field class contact is no longer sensitive; rules over it are checked less",
            ),
            (
                "phone: {column: phone, class: contact",
                "phone: {column: phone, class: profile",
                "widening",
                f"tier1, {USUAL}: customer.phone masked -> clear",
            ),
            (
                "phone: {column: phone, class: contact",
                "phone: {column: phone, class: profile",
                "widening",
                "customer.phone: class contact -> profile; rights and tests follow the new class",
            ),
            (
                "phone: {column: phone, class: contact",
                "fax: {column: phone, class: contact",
                "widening",
                "customer.fax is another name for customer.phone; no test of that asks for it",
            ),
            (
                "      phone: {column: phone, class: contact, mask: phone}\n",
                "",
                "narrowing",
                "field customer.phone is gone (column crm.customer.phone, class contact)",
            ),
            (
                "fields:\n",
                "fields:\n      fax: {column: fax, class: contact, mask: phone}\n",
                "widening",
                "new field customer.fax (column crm.customer.fax, class contact)",
            ),
            ("Work on the ticket.", "Work.", "neutral", "purpose resolve: its description changed"),
        ],
    )
    def test_change_is_told(self, old, new, direction, sentence):
        """Each change of the catalog has its sentence, on its side."""
        assert sentence in sentences(small(), with_edit("catalog.yaml", old, new), direction=direction)

    def test_contact_data_by_its_masks(self):
        """Where the last mask of a class that says so goes, every field of it is named."""
        masks = CATALOG.replace("mask: email", "mask: text").replace("mask: phone", "mask: tail")
        new = load(files(catalog_yaml=masks), "2")

        assert (
            "customer.email, customer.phone: no contact data any more, by the masks of their class"
            in sentences(small(), new)
        )

    @pytest.mark.attack("C14")
    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("column: imei", "column: iban", ": other data show under this name, column imei -> iban"),
            ("mask: tail", "mask: text", ", mask tail -> text: masked values show the first letter now"),
            (
                "class: device", "class: gear",
                ": class device -> gear; rights and tests follow the new class",
            ),
        ],
    )  # fmt: skip
    def test_what_changes_behind_a_name_is_told_before_anybody_sees_it(self, old, new, sentence):
        """The rule that shows it some day is read by that name, as what it was when the name was given."""
        text = (
            files()
            .texts["catalog.yaml"]
            .replace("  contact: {", "  device: {about: It.}\n  gear: {about: More.}\n  contact: {")
        )
        tablet = "fields:\n      tablet: {column: imei, class: device, mask: tail}\n"
        text = text.replace("fields:\n", tablet, 1)
        assert old in text

        before, now = (load(files(catalog_yaml=t), "1") for t in (text, text.replace(old, new, 1)))
        assert sentences(before, now) == [f"customer.tablet{sentence}"]

    def test_what_no_rule_reaches_is_neutral(self):
        """A field of a class that no rule speaks of opens nothing yet; the rule that comes later does."""
        text = files().texts["catalog.yaml"].replace("  contact: {", "  device: {about: It.}\n  contact: {")
        more = text.replace(
            "fields:\n", "fields:\n      tablet: {column: tablet, class: device, mask: text}\n", 1
        )
        old, new = load(files(catalog_yaml=text), "1"), load(files(catalog_yaml=more), "2")
        rule = "p, tier1, resolve, assignee, any, routed, any, any, device, masked, allow\n# end"
        later = load(files(catalog_yaml=more, policy_csv=RULES.replace("# end", rule)), "3")

        assert {change.direction for change in compare(old, new).changes} == {Direction.NEUTRAL}
        assert compare(new, later).widens

    @pytest.mark.parametrize(
        ("old", "new", "direction", "sentence"),
        [
            (
                "table: crm.invoice\n",
                "table: crm.all_invoice\n",
                "widening",
                "invoice: other records show, its table was crm.invoice and is crm.all_invoice",
            ),
            (
                "key: invoice_id",
                "key: order_id",
                "widening",
                "invoice: other records show, its key was invoice_id and is order_id",
            ),
            (
                "link: customer_id",
                "link: seller_id",
                "widening",
                "invoice: other records show, its link was customer_id and is seller_id",
            ),
            # A cap is of the kind's own rows: those of what hangs on it are counted by themselves.
            ("rows: 50", "rows: 500", "widening", "invoice: at most 50 rows of a customer -> 500"),
        ],
    )
    def test_kind_on_which_a_readable_one_hangs(self, old, new, direction, sentence):
        """Rows that are reached by way of a kind are other rows when it changes, readable itself or not."""
        before, now = load(files(catalog_yaml=LINES), "1"), load(with_lines(old, new), "2")

        assert sentences(before, now, direction=direction) == [sentence]
        assert len(compare(before, now).changes) == 1

    @pytest.mark.parametrize("before", Mask)
    @pytest.mark.parametrize("now", Mask)
    def test_of_two_masks_each_shows_what_the_other_hides(self, before, now):
        """No mask is stricter than another: for some value it shows a part that the other hides."""
        shown = {value: (set(mask(before, value)), set(mask(now, value))) for value in VALUES}

        assert before is now or any(now_shows - before_shows for before_shows, now_shows in shown.values())


class TestLimits:
    """What sentences about limits say."""

    @pytest.mark.parametrize(
        ("old", "new", "wider", "narrower"),
        [
            ("tier1: {per_hour: 30", "tier1: {per_hour: 31", "tier1: customers an hour 30 -> 31", None),
            ("per_day: 50", "per_day: 40", None, "tier1: customers a day 50 -> 40"),
            ("per_hour: 20", "per_hour: 25", "tier2: customers an hour 20 -> 25", None),
            ("maximum_minutes: 10", "maximum_minutes: 15", "a grant's most minutes 10 -> 15", None),
            ("default_minutes: 5", "default_minutes: 3", None, "a grant's usual minutes 5 -> 3"),
            ("  tier1: {per_hour: 30, per_day: 50}\n", "", "tier1: customers a day 50 -> 60",
             "tier1: customers an hour 30 -> 20"),
        ],
    )  # fmt: skip
    def test_change_is_told(self, old, new, wider, narrower):
        """Each number that grows is a widening, each that shrinks a narrowing."""
        edited_policy = with_edit("limits.yaml", old, new)

        for direction, expected in (("widening", wider), ("narrowing", narrower)):
            told = sentences(small(), edited_policy, area=Area.LIMITS, direction=direction)
            assert told == ([expected] if expected else [])

    def test_group_that_loses_its_strictest_role(self):
        """Whoever is no longer held to a role's budget may reach more customers."""
        text = RULES.replace("g, idp:front, tier1", "g, idp:front, tier1\ng, idp:front, tier2")
        both = load(files(policy_csv=text), "1")

        assert sentences(both, small(), area=Area.LIMITS) == [
            "members of idp:front: customers an hour 20 -> 30",
        ]

    def test_group_that_goes(self):
        """A group that is taken away is no widening where everybody has the same budget."""
        limits = files().texts["limits.yaml"].replace("  tier1: {per_hour: 30, per_day: 50}\n", "")
        text = RULES.replace("g, idp:back", "g, idp:contractors, tier1\ng, idp:back")
        more, fewer = (load(files(policy_csv=rules, limits_yaml=limits), "1") for rules in (text, RULES))

        assert sentences(more, fewer, area=Area.LIMITS) == []
        assert not compare(more, fewer).widens
        assert sentences(fewer, more, area=Area.LIMITS) == []

    def test_group_that_goes_and_held_somebody_back(self):
        """Whoever is in another group, too, is no longer held to the budget of the one that goes."""
        text = RULES.replace("g, idp:back", "g, idp:contractors, tier2\ng, idp:back")
        with_group = load(files(policy_csv=text), "1")
        of_both = "members of idp:contractors together with idp:front: customers an hour"

        assert sentences(with_group, small(), area=Area.LIMITS) == [f"{of_both} 20 -> 30"]
        assert compare(with_group, small()).widens
        assert sentences(small(), with_group, area=Area.LIMITS) == [f"{of_both} 30 -> 20"]


class TestAdmin:
    """What sentences about the admin port say."""

    MORE = ADMIN.replace("# end", "g, idp:feeders, helpdesk-feed\n# end")

    def test_new_member_of_a_role(self):
        """Whoever gains a role gains what it may call; both are told."""
        new = load(files(admin_csv=self.MORE), "2")

        assert sentences(small(), new, direction=Direction.WIDENING) == [
            "idp:feeders gains the role helpdesk-feed",
            "idp:feeders may now call TicketFeedService/PublishEvents",
        ]
        assert sentences(new, small(), direction=Direction.NARROWING) == [
            "idp:feeders loses the role helpdesk-feed",
            "idp:feeders may no longer call TicketFeedService/PublishEvents",
        ]

    def test_new_method_of_a_role(self):
        """Everybody who has the role is named."""
        rule = "p, helpdesk-feed, /broker.v1.TicketFeedService/SendHeartbeat, allow\n# end"
        old, new = (
            load(files(admin_csv=self.MORE), "1"),
            load(files(admin_csv=self.MORE.replace("# end", rule)), "2"),
        )

        assert sentences(old, new) == [
            "idp:feeders, spiffe://broker.dev/feed/helpdesk may now call TicketFeedService/SendHeartbeat"
        ]

    def test_denial_that_goes_shows_for_two_groups_of_one_person(self):
        """What one group denied and another allows is gained by whoever is in both, and by nobody else."""
        deny = "p, held, /broker.v1.TicketFeedService/PublishEvents, deny"
        keep = "p, held, /broker.v1.TicketFeedService/SendHeartbeat, deny\ng, idp:held, held"
        old = load(files(admin_csv=self.MORE.replace("# end", f"{deny}\n{keep}\n# end")), "1")
        new = load(files(admin_csv=self.MORE.replace("# end", f"{keep}\n# end")), "2")

        assert sentences(old, new) == [
            "idp:feeders together with idp:held may now call TicketFeedService/PublishEvents"
        ]


def test_as_mapping_says_everything():
    """A program reads the same: direction, area, sentence, and the points as lists."""
    rule = "p, tier1, resolve, assignee, any, routed, customer, present, customer.phone, clear, allow"
    comparison = compare(small(), with_edit("policy.csv", "# end", f"{rule}\n# end"))

    assert comparison.as_mapping() == {
        "widens": True,
        "narrows": False,
        "changes": [
            {
                "direction": "widening",
                "area": "rules",
                "sentence": "tier1, resolve, assignee, routed, opened by the customer, customer present: "
                "customer.phone masked -> clear",
                "held_together": [[["tier1"]]],
                "fields": ["customer.phone"],
                "facts": {
                    "purpose": ["resolve"],
                    "relation": ["assignee"],
                    "provenance": ["routed"],
                    "opened_by": ["customer"],
                    "presence": ["present"],
                },
                "old": "masked",
                "new": "clear",
            }
        ],
    }
