"""A policy small enough to hold in the head, and ways to spoil it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from broker.errors import PolicyInvalidError
from broker.model import Facts, OpenedBy, Presence, Provenance, Relation
from broker.policy import Policy, PolicyFiles, load

POLICIES = Path(__file__).parents[2] / "policies"

RULES = """\
# who sees what
g, idp:front, tier1
g, idp:back, tier2
g, tier2, tier1

p, tier1, resolve, assignee, any, routed, any, any, profile, clear, allow
p, tier1, resolve, assignee, any, routed, any, any, contact, masked, allow
p, tier2, resolve, assignee, any, routed, any, present, contact, clear, allow
p, any, any, any, any, any, self, any, contact, any, deny
# end
"""

CATALOG = """\
version: 1
ticket_kinds: [general, billing]
purposes: {resolve: Work on the ticket., review: Look at the work.}
field_classes:
  profile: {about: Who it is.}
  contact: {about: How to reach them., sensitive: true}
kinds:
  customer:
    table: crm.customer
    key: customer_id
    fields:
      name: {column: name, class: profile, mask: text}
      email: {column: email, class: contact, mask: email}
      phone: {column: phone, class: contact, mask: phone}
  invoice:
    table: crm.invoice
    key: invoice_id
    via: customer
    link: customer_id
    rows: 50
    fields:
      total: {column: total, class: profile, mask: text}
...
"""

LIMITS = """\
version: 1
budgets:
  default: {per_hour: 20, per_day: 60}
  tier1: {per_hour: 30, per_day: 50}
grant: {default_minutes: 5, maximum_minutes: 10}
...
"""

ADMIN = """\
g, spiffe://broker.dev/feed/helpdesk, helpdesk-feed
p, helpdesk-feed, /broker.v1.TicketFeedService/PublishEvents, allow
# end
"""

TEXTS: Mapping[str, str] = {
    "admin.csv": ADMIN,
    "catalog.yaml": CATALOG,
    "limits.yaml": LIMITS,
    "model.conf": (POLICIES / "model.conf").read_text("utf-8"),
    "policy.csv": RULES,
}

FACTS = Facts("resolve", Relation.ASSIGNEE, "general", Provenance.ROUTED, OpenedBy.CUSTOMER, Presence.ABSENT)


def files(**texts: str) -> PolicyFiles:
    """Gives the small policy with files replaced: `policy_csv="…"`."""
    return PolicyFiles.from_mapping(
        {**TEXTS, **{name.replace("_", "."): text for name, text in texts.items()}}
    )


def edited(name: str, old: str, new: str) -> PolicyFiles:
    """Gives the small policy with one place of one file replaced."""
    assert TEXTS[name].count(old) >= 1, "the control arm: the place is there"
    return PolicyFiles.from_mapping({**TEXTS, name: TEXTS[name].replace(old, new, 1)})


@cache
def small(**texts: str) -> Policy:
    """Loads the small policy."""
    return load(files(**texts), "1")


def findings(spoilt: PolicyFiles) -> list[str]:
    """Gives what a load finds wrong; there must be something."""
    with pytest.raises(PolicyInvalidError) as refused:
        load(spoilt, "1")
    return refused.value.findings
