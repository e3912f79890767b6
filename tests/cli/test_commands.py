"""Every verb against a running sample company."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest

from broker.policy.decision import load
from tests.cli.conftest import running_company

UNKNOWN = "7f0c2f7e-0d5c-4b0e-9c3e-0d2a1f6b9a11"


@pytest.fixture(scope="module")
def company():
    """Starts a company of their own: grants are revoked here, and versions of the policy come into force."""
    with running_company() as world:
        yield world


@pytest.fixture
def here(company) -> tuple[str, str]:
    """Points clients at the company."""
    return "--dir", str(company.folder)


@pytest.fixture(autouse=True)
def settings(company, monkeypatch) -> None:
    """Points commands that read settings at the company."""
    monkeypatch.setenv("BROKER_CONFIG", str(company.layout.settings_file))


class TestAccess:
    READ = ("access", "read", "T-1001", "--agent", "alice", "--fields")

    def test_read_shows_field_by_field(self, broker, here):
        """Value, state and reason of each field, and that the read is on record."""
        said = broker(*self.READ, "customer.name, customer.email,customer.iban", *here)

        assert said.code == 0
        assert re.search(r"customer\.name +clear", said.out)
        assert re.search(r"customer\.email +masked +\S*•", said.out)
        assert re.search(r"customer\.iban +withheld +needs role billing", said.out)
        assert "verified: this read is on record" in said.out

    def test_read_prints_json(self, broker, here):
        """The same for programs, with stable keys."""
        data = broker(*self.READ, "customer.name,customer.iban", "--json", *here).data

        assert set(data) == {
            "decision_id",
            "policy_version",
            "grant_id",
            "trace_id",
            "receipt_verified",
            "receipt",
            "fields",
        }
        assert data["receipt_verified"] is True
        assert [f["state"] for f in data["fields"]] == ["clear", "withheld"]
        assert set(data["fields"][0]) == {"name", "state", "values", "reason", "truncated"}

    def test_read_takes_a_token_from_a_file_or_a_command(self, broker, here, company, tmp_path):
        """In production nobody has `--agent`."""
        token = tmp_path / "token"
        token.write_text(company.layout.token("alice"))
        tls = company.layout.client_tls("tool-desk")
        options = (
            "--target", company.access_target,
            "--ca-file", tls.ca_file, "--cert-file", tls.cert_file, "--key-file", tls.key_file,
        )  # fmt: skip
        read = ("access", "read", "T-1001", "--fields", "customer.name", *options)
        by_file = broker(*read, "--token-file", token)
        by_command = broker(*read, "--token-command", f"cat {token}")

        assert (by_file.code, by_command.code) == (0, 0)

    def test_a_refusal_says_what_to_do(self, broker, here):
        """One sentence, the reason, the decision id, the next command; nothing on standard output."""
        said = broker(*self.READ, "customer.iban", *here)

        assert (said.code, said.out) == (1, "")
        decision = re.search(r"decision id (\S+)", said.err)
        assert decision is not None
        pasted = re.search(r"broker (access explain .*)", said.err)
        assert pasted is not None
        assert broker(*shlex.split(pasted[1])).code == 0
        why = broker("access", "explain", decision[1], "--agent", "alice", "--json", *here).data
        assert why["fields"][0]["name"] == "customer.iban"
        assert why["fields"][0]["missing"]
        assert "needs role billing" in broker("access", "explain", decision[1], "--agent", "alice", *here).out

    def test_a_wrong_word_is_named(self, broker, here):
        """Which of the fields is unknown, which purpose or tool: not its place in the request alone."""
        assert "'customer.nme'" in broker(*self.READ, "customer.name,customer.nme", *here).err
        assert "catalog.yaml" in broker(*self.READ, "customer.name", "--purpose", "snoop", *here).err
        said = broker(*self.READ, "customer.name", "--tool", "fax", *here)
        assert (said.code, "desk, phone" in said.err) == (2, True)

    def test_a_foreign_ticket_is_refused(self, broker, here):
        """Somebody else's ticket ends with 1 and no hint."""
        said = broker("access", "read", "T-1001", "--agent", "mallory", "--fields", "customer.name", *here)

        assert said.code == 1
        assert "(or it might not exist)" in said.err

    def test_tickets_lists_the_agents_own(self, broker, here):
        """The same list as a table and as JSON."""
        data = broker("access", "tickets", "--agent", "alice", "--json", *here).data
        table = broker("access", "tickets", "--agent", "alice", *here).out

        assert data[-1]["ticket_id"] == "T-1001"
        assert all(ticket["ticket_id"] in table for ticket in data)

    @pytest.mark.parametrize(
        "options",
        [(), ("--agent", "alice", "--token-file", "x"), ("--agent", "alice", "--token-command", "x")],
        ids=["no token", "two", "two others"],
    )
    def test_needs_exactly_one_token_source(self, broker, here, options):
        """It is never guessed whose token is meant."""
        said = broker("access", "tickets", *options, *here)

        assert said.code == 2
        assert "exactly one" in said.err


class TestContain:
    def test_suspends_lists_and_reinstates(self, broker, here):
        """The agent is stopped at once and may go on afterwards; the list tells both."""
        read = ("access", "tickets", "--agent", "chen", *here)
        assert broker("contain", "suspend", "chen", "--reason", "drill", *here).code == 0
        listed = broker("contain", "list", "--json", *here).data
        assert [(s["agent"]["subject"], s["reason"]) for s in listed] == [("chen", "drill")]
        assert "drill" in broker("contain", "list", *here).out
        refused = broker("access", "read", "T-1003", "--agent", "chen", "--fields", "customer.name", *here)
        assert refused.code == 1

        again = broker(
            "contain", "reinstate", "https://idp.broker.dev|chen", "--reason", "over", "--json", *here
        )
        assert again.data["agent"]["subject"] == "chen"
        assert again.data["end_time"]
        assert broker("contain", "list", "--json", *here).data == []
        assert len(broker("contain", "list", "--all", "--json", *here).data) == 1
        assert broker(*read).code == 0

    def test_tells_that_nobody_was_suspended(self, broker, here):
        """A misspelt agent is not told to be at work again."""
        said = broker("contain", "reinstate", "https://idp.broker.dev|chne", "--reason", "over", *here)
        alone = broker("contain", "reinstate", "chne", "--reason", "over", *here)

        assert said.code == 0
        assert "https://idp.broker.dev|chne was not suspended" in said.err
        assert alone.code == 2
        assert "bella" in alone.err
        assert "chen" in alone.err

    def test_revokes(self, broker, here):
        """The number of grants that ended is told."""
        broker("access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", *here)
        data = broker("contain", "revoke", "--agent", "alice", "--reason", "drill", "--json", *here).data

        assert data["revoked"] >= 1
        assert broker("contain", "revoke", "--ticket", "T-1001", "--reason", "drill", *here).code == 0

    @pytest.mark.parametrize("selector", [(), ("--agent", "a", "--ticket", "b")], ids=["none", "two"])
    def test_revoke_needs_one_selector(self, broker, here, selector):
        """It is never guessed what shall end."""
        assert broker("contain", "revoke", "--reason", "x", *selector, *here).code == 2


class TestTrace:
    def test_draws_the_waterfall(self, broker, here, company):
        """Creation and read, as a picture and as JSON."""
        grant = broker(*TestAccess.READ, "customer.city", "--json", *here).data["grant_id"]
        for _ in range(100):  # each round asks the database, which takes a while: spans follow their event
            said = broker("trace", "show", grant, "--json")
            if said.code == 0 and "ReadRecord" in said.out:
                break
        names = {span["name"].rpartition("/")[2] for span in said.data["spans"]}

        assert {"CreateGrant", "ReadRecord"} <= names
        assert "━" in broker("trace", "show", grant).out

    def test_says_that_there_is_none(self, broker):
        """An unknown grant ends with 1."""
        said = broker("trace", "show", UNKNOWN)

        assert said.code == 1
        assert "no spans" in said.err


class TestRecords:
    def test_check_finds_the_guard_standing(self, broker, company):
        """Each assertion is shown; ends with 0."""
        data = broker("records", "check", "--policies", company.layout.policies, "--json").data

        assert all(assertion["ok"] for assertion in data if not assertion["warning"])
        assert broker("records", "check").code == 0

    def test_install_has_nothing_to_do(self, broker):
        """What is installed is not installed twice."""
        said = broker("records", "install")

        assert (said.code, said.out) == (0, "")
        assert "nothing to do" in said.err

    def test_uninstall_only_prints(self, broker):
        """Without --yes nothing is done, and without a word on salts it is refused."""
        assert broker("records", "uninstall").code == 1
        said = broker("records", "uninstall", "--destroy-salts")

        assert said.code == 0
        assert "DROP" in said.out
        assert "nothing was done" in said.err
        assert broker("records", "check").code == 0


class TestKeys:
    def test_rotate_and_list_guard_keys(self, broker):
        """The new key signs, the old one runs out."""
        new = broker("keys", "rotate", "--guard", "--json").data["key_id"]
        states = {key["key_id"]: key["state"] for key in broker("keys", "list", "--guard", "--json").data}

        assert states.pop(new) == "signing"
        assert set(states.values()) == {"retiring"}

    def test_rotate_list_and_revoke_signing_keys(self, broker):
        """A new key is published before it signs; a second one has to wait; a stolen one goes at once."""
        first = broker("keys", "list", "--json").data
        assert [key["state"] for key in first] == ["active"]
        assert broker("keys", "rotate").code == 0
        assert [key["state"] for key in broker("keys", "list", "--json").data] == ["active", "published"]
        assert broker("keys", "rotate").code == 2
        assert broker("keys", "rotate", "--now").code == 2
        assert broker("keys", "revoke", first[0]["key_id"], "--json").data["revoked"] == first[0]["key_id"]

        last = broker("keys", "list", "--json").data
        assert [key["state"] for key in last] == ["gone", "active"]
        assert last[0]["public"] == first[0]["public"]
        assert {key["public"]["kid"] for key in last} == {key["key_id"] for key in last}
        assert "d" not in first[0]["public"]


class TestFeed:
    HEADER = "ticket_id,kind,status,customer_id,agent_issuer,agent_subject,relation,opened_by\n"

    def test_status_shows_the_feed_fresh(self, broker):
        """The helpdesk's heartbeats count."""
        [feed] = broker("feed", "status", "--json").data

        assert (feed["fresh"], feed["events_missing"]) == (True, False)

    def test_import_refuses_after_a_snapshot(self, broker, tmp_path):
        """A first load never undoes what the helpdesk has said since."""
        file = tmp_path / "tickets.csv"
        file.write_text(self.HEADER + "I-1,general,open,1,,,,\n")
        said = broker("feed", "import", file)

        assert said.code == 1
        assert "snapshot" in said.err

    def test_import_names_file_and_line(self, broker, tmp_path):
        """A wrong file loads nothing."""
        file = tmp_path / "tickets.csv"
        file.write_text(self.HEADER + "I 1,general,open,1,,,,\n")
        said = broker("feed", "import", file)

        assert said.code == 1
        assert "tickets.csv:2" in said.err

    def test_import_needs_a_known_feed(self, broker, tmp_path):
        """A feed of no settings is wrong usage."""
        file = tmp_path / "tickets.csv"
        file.write_text(self.HEADER)

        assert broker("feed", "import", file, "--feed", "nobody").code == 2


class TestPolicy:
    def test_check(self, broker, company, monkeypatch):
        """A good policy is counted."""
        # Without the seconds of comparing it thoroughly, which tests/policy does.
        monkeypatch.setattr("broker.policy.load", lambda files, version, **_: load(files, version))

        assert broker("policy", "check", company.layout.policies, "--json").data["rules"] > 10

    def test_findings_name_file_and_line(self, broker, tmp_path, company):
        """A broken policy changes nothing and every finding is shown."""
        shutil.copytree(company.layout.policies, tmp_path, dirs_exist_ok=True)
        rules = tmp_path / "policy.csv"
        rules.write_text(rules.read_text().replace(", allow\n", ", Allow\n", 1))
        said = broker("policy", "check", tmp_path)

        assert said.code == 1
        assert re.search(r"policy\.csv:\d+:", said.out)
        checked = broker("policy", "check", tmp_path, "--json")
        assert checked.code == 1
        assert [(found["file"], found["severity"]) for found in checked.data["findings"]] == [
            ("policy.csv", "error")
        ]

    def test_break_glass(self, broker, company, here, monkeypatch):
        """With the owner's DSN and the keys a folder comes into force without persons, and it shows."""
        before = int(broker("policy", "status", "--json", "--as", "olga", *here).data["version"])
        broken = broker("policy", "break-glass", company.layout.policies, "--reason", "a drill", "--json")
        assert (broken.code, int(broken.data["version"])) == (0, before + 1), broken.err

        listed = broker("policy", "list", "--json", "--as", "audrey", *here).data["versions"]
        assert (listed[0]["version"], listed[0]["how"]) == (broken.data["version"], "break-glass")
        assert (listed[0]["reason"], listed[0]["author"]) == ("a drill", None)

    def test_who_is_at_the_console(self, broker, here, tmp_path):
        """Exactly one way to be somebody; a token of nobody's is refused, a stranger's name is told."""
        token = tmp_path / "token"
        token.write_text("x")

        assert broker("policy", "whoami", "--as", "anna", "--json", *here).data["person"]["subject"] == "anna"
        assert broker("policy", "whoami", *here).code == 2
        assert broker("policy", "whoami", "--as", "anna", "--token-file", token, *here).code == 2
        assert broker("policy", "whoami", "--as", "mallory", *here).code == 2
        refused = broker("policy", "whoami", "--token-file", token, *here)
        assert (refused.code, "TOKEN_INVALID" in refused.err) == (1, True)


class TestMigrate:
    def test_finds_nothing_to_do(self, broker):
        """A database that is up to date stays as it is."""
        assert broker("migrate", "--json").data == {"applied": []}


class TestDev:
    def test_token(self, broker, here):
        """A token goes to standard output and nothing else does."""
        said = broker("dev", "token", "alice", *here)

        assert said.code == 0
        assert said.out.strip().count(".") == 2
        assert broker("dev", "token", "alice", "--json", *here).data["agent"] == "alice"
        assert broker("dev", "token", "eve", *here).code == 2

    def test_runs_once_per_folder(self, broker, here):
        """A second company in the same folder is refused."""
        said = broker("dev", *here)

        assert said.code == 2
        assert "already" in said.err
