"""The admin table: who may call what on the admin port, decided by Casbin, compared exactly."""

import re

import casbin
import pytest

from broker.policy import PolicyFiles, load
from tests.policy.sample import ADMIN, POLICIES, edited, files, findings, small

FEED = "spiffe://broker.dev/feed/helpdesk"
PUBLISH = "/broker.v1.TicketFeedService/PublishEvents"
TWO = ADMIN.replace(
    "# end",
    "g, spiffe://broker.dev/admin/a, auditor\n"
    "p, auditor, /broker.v1.ContainmentService/ListSuspensions, allow\n"
    "g, spiffe://broker.dev/admin/a, barred\n"
    "p, barred, /broker.v1.ContainmentService/SuspendAgent, deny\n"
    "p, auditor, /broker.v1.ContainmentService/SuspendAgent, allow\n"
    "# end",
)


def test_identity_calls_what_its_role_allows():
    """A method is allowed to whoever's role has it, and to nobody else."""
    admin = small(admin_csv=TWO).admin

    assert admin.roles(FEED) == {"helpdesk-feed"}
    assert admin.allows(FEED, PUBLISH)
    assert not admin.allows(FEED, "/broker.v1.ContainmentService/ListSuspensions")
    assert admin.allows("spiffe://broker.dev/admin/a", "/broker.v1.ContainmentService/ListSuspensions")
    assert not admin.allows("spiffe://broker.dev/admin/a", PUBLISH)


def test_denial_wins():
    """A denial for one role of an identity beats the allow of another."""
    admin = small(admin_csv=TWO).admin

    assert not admin.allows("spiffe://broker.dev/admin/a", "/broker.v1.ContainmentService/SuspendAgent")


STRANGERS = {
    "the role's own name": ("helpdesk-feed", PUBLISH),
    "nobody": ("", PUBLISH),
    "an identity with more behind it": (FEED + "/x", PUBLISH),
    "the beginning of an identity": (FEED[:-1], PUBLISH),
    "another case": (FEED.upper(), PUBLISH),
    "a newline behind the identity": (FEED + "\n", PUBLISH),
    "a method with more behind it": (FEED, PUBLISH + "s"),
    "the method in another case": (FEED, PUBLISH.lower()),
    "a slash too many": (FEED, "/" + PUBLISH),
    "no method": (FEED, ""),
}


@pytest.mark.attack("K8", "C9", "G1")
@pytest.mark.parametrize(("identity", "method"), STRANGERS.values(), ids=STRANGERS)
def test_whatever_is_not_exactly_in_the_file_is_refused(identity, method):
    """Identities and methods are compared whole; a role is no identity."""
    assert small().admin.allows(FEED, PUBLISH)  # the control arm

    assert not small().admin.allows(identity, method)


def test_casbin_is_asked_at_load_alone(monkeypatch):
    """Answers were worked out when the file was read, for each set of roles once."""
    admin = small(admin_csv=TWO).admin
    monkeypatch.setattr(casbin.Enforcer, "enforce", None)

    assert admin.allows(FEED, PUBLISH)
    assert not admin.allows(FEED, PUBLISH + "s")


def test_table_too_large_to_work_out_is_refused():
    """Identities times methods times rules are bounded, so a load takes no minutes."""
    lines = [f"g, spiffe://broker.dev/a/{i}, role" for i in range(100)]
    lines += [f"p, role, /broker.v1.Service/M{i}, allow" for i in range(100)]

    assert any("[too-many-rules]" in f for f in findings(files(admin_csv="\n".join([*lines, "# end", ""]))))


def test_methods_are_compared_with_what_is_registered():
    """A registered method that the file lacks is told, and so is one that nobody registered."""
    admin = small().admin

    assert admin.methods == {PUBLISH}
    assert admin.missing([PUBLISH, "/broker.v1.ContainmentService/SuspendAgent"]) == (
        "/broker.v1.ContainmentService/SuspendAgent",
    )
    assert admin.unknown([]) == (PUBLISH,)


def test_starting_table_covers_the_admin_port():
    """Every method of the admin port's services is in the starting table, and none that does not exist."""
    from broker.v1 import containment_service_pb2, ticket_feed_service_pb2  # noqa: PLC0415 - slow to import

    registered = [
        f"/{service.full_name}/{method.name}"
        for module in (containment_service_pb2, ticket_feed_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    admin = load(PolicyFiles.from_directory(POLICIES), "1").admin

    assert admin.missing(registered) == ()
    assert admin.unknown(registered) == ()


SPOILT_ADMIN = {
    "a method with a star": ("PublishEvents", "*", "wildcard"),
    "a method without its slash": ("/broker.v1.T", "broker.v1.T", "method"),
    "a method without its package": ("/broker.v1.T", "/T", "method"),
    "a method with a slash behind": ("PublishEvents", "PublishEvents/", "method"),
    "a role in place of an identity": ("spiffe://broker.dev/feed/helpdesk", "helpdesk-feed", "identity"),
    "a SPIFFE id with a dot segment": ("broker.dev/feed/", "broker.dev/../", "identity"),
    "a SPIFFE id with a port": ("broker.dev/feed/", "broker.dev:1/feed/", "identity"),
    "a SPIFFE id with a capital": ("broker.dev", "Broker.dev", "identity"),
    "a SPIFFE id without a path": ("broker.dev/feed/helpdesk", "broker.dev", "identity"),
    "an effect with a capital": ("allow", "Allow", "unknown-effect"),
    "a role without rules": ("helpdesk, helpdesk-feed", "helpdesk, helpdesk", "role-without-rules"),
    "a role called any": ("p, helpdesk-feed", "p, any", "role-name"),
    "a rule too short": (", allow", "", "field-count"),
    "a comment behind a value": ("allow", "allow # feed", "trailing-comment"),
    "no rule": ("p, helpdesk-feed, /broker.v1.TicketFeedService/PublishEvents, allow\n", "", "no-rules"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "name"), SPOILT_ADMIN.values(), ids=SPOILT_ADMIN)
def test_spoilt_admin_table_is_refused(old, new, name):
    """An admin table that differs in one thing from a good one is refused by name."""
    found = findings(edited("admin.csv", old, new))

    assert [f for f in found if re.match(r"admin\.csv:\d+: ", f) and f.endswith(f"[{name}]")], found
