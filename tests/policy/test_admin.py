"""The admin table: who may call what on the admin port, decided by Casbin, compared exactly."""

import random
import re
from itertools import combinations

import casbin
import pytest

from broker.policy import AdminTable, PolicyFiles, load
from broker.policy.admin import MODEL
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


PERSONS = TWO.replace(
    "# end",
    "g, idp:writers, writer\n"
    "p, writer, /broker.v1.PolicyService/Propose, allow\n"
    "g, idp:approvers, approver\n"
    "p, approver, /broker.v1.PolicyService/Approve, allow\n"
    "g, idp:trainees, trainee\n"
    "p, trainee, /broker.v1.PolicyService/Propose, allow\n"
    "p, trainee, /broker.v1.PolicyService/Approve, deny\n"
    "# end",
)
PROPOSE, APPROVE = "/broker.v1.PolicyService/Propose", "/broker.v1.PolicyService/Approve"
GROUPS = {
    "one group": ({"writers"}, {PROPOSE}),
    "two groups": ({"writers", "approvers"}, {PROPOSE, APPROVE}),
    "a denial in one of them": ({"approvers", "trainees"}, {PROPOSE}),
    "a denial in one of three": ({"writers", "approvers", "trainees"}, {PROPOSE}),
    "a group that is not named": ({"strangers"}, set()),
    "no group": (set(), set()),
    "a role's name": ({"writer"}, set()),
    "an identity": ({FEED}, set()),
    "the prefix": ({"idp:writers"}, set()),
    "another case": ({"Writers"}, set()),
}


@pytest.mark.parametrize(("groups", "methods"), GROUPS.values(), ids=GROUPS)
def test_persons_have_the_roles_of_their_groups(groups, methods):
    """All groups of a person count, a denial for one of them wins, and names are compared whole."""
    admin = small(admin_csv=PERSONS).admin

    assert {m for m in (PROPOSE, APPROVE, PUBLISH) if admin.allows_person(groups, m)} == methods


def test_a_group_is_no_certificate():
    """A certificate named like a group has nothing of the group's."""
    admin = small(admin_csv=PERSONS).admin

    assert not admin.allows("idp:writers", PROPOSE)
    assert admin.roles("idp:writers") == frozenset()


def test_sets_of_roles_are_as_casbin_says():
    """For every set of roles the answer is stock Casbin's, asked about a subject that has them all."""
    chance = random.Random(80)
    for _ in range(30):
        roles, methods = [f"r{i}" for i in range(5)], [f"/a.b.S/M{i}" for i in range(4)]
        rules = {
            (chance.choice(roles), chance.choice(methods), chance.choice(("allow", "allow", "deny")))
            for _ in range(12)
        }
        table = AdminTable(sorted(rules), [(f"spiffe://t/{r}", r) for r in roles])
        sets = [frozenset(c) for size in range(1, 6) for c in combinations(roles, size)]
        judge = casbin.Enforcer(casbin.Enforcer.new_model(text=MODEL))
        for rule in rules:
            judge.add_policy(*rule)
        for held in sets:
            for role in held:
                judge.add_grouping_policy("+".join(sorted(held)), role)
            expected = {m for m in methods if judge.enforce("+".join(sorted(held)), m)}
            assert table.allowed_methods(held) == expected, (rules, held)


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
    """Sets of roles times methods times rules are bounded, so a load takes no minutes."""
    lines = [f"g, spiffe://broker.dev/a/{i}, role{i}" for i in range(100)]
    lines += [f"p, role{i}, /broker.v1.Service/M{i}, {e}" for i in range(100) for e in ("allow", "deny")]

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
    from broker.rpc.admin import METHOD_NAMES  # noqa: PLC0415 - slow to import

    registered = [f"/{name}" for name in METHOD_NAMES]
    admin = load(PolicyFiles.from_directory(POLICIES), "1").admin

    assert admin.missing(registered) == ()
    assert admin.unknown(registered) == ()


def test_a_misspelt_role_is_told_the_nearest():
    """A member whose role has no rule: the sentence has the role that may be meant."""
    found = findings(edited("admin.csv", "helpdesk, helpdesk-feed", "helpdesk, helpdesk-fed"))

    assert any("role 'helpdesk-fed' has no rule; did you mean 'helpdesk-feed'?" in text for text in found)


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
