"""What holds for every command."""

from __future__ import annotations

import subprocess
import sys

import asyncpg
import pytest
import typer.main

from broker.cli import access, app, output
from broker.client import (
    BrokerCallError,
    BudgetExceededError,
    ClientError,
    FieldState,
    FieldValue,
    UnavailableError,
)
from broker.errors import DatabaseUnavailableError, PolicyInvalidError, StartupError

ROOT = typer.main.get_command(app)


def walk(command, path=()):
    """Gives every verb with its path."""
    children = getattr(command, "commands", {})
    if not children or path == ("dev",):
        yield path, command
    for name, child in children.items():
        yield from walk(child, (*path, name))


VERBS = dict(walk(ROOT))


class TestHelp:
    @pytest.mark.parametrize("path", VERBS, ids=" ".join)
    def test_has_an_example(self, broker, path):
        """Every verb explains itself and shows how it is called."""
        said = broker(*path, "--help")

        assert said.code == 0
        assert "Example:\n" in said.out
        assert f"      broker {' '.join(path)}" in said.out or f" broker {' '.join(path)}" in said.out

    @pytest.mark.parametrize("path", VERBS, ids=" ".join)
    def test_describes_every_option(self, path):
        """No option without a sentence."""
        for parameter in VERBS[path].params:
            if parameter.param_type_name == "option":
                assert parameter.help, parameter.name

    @pytest.mark.parametrize("path", [p for p in VERBS if p != ("serve",)], ids=" ".join)
    def test_prints_json(self, path):
        """Everything that prints data prints it for programs too; a stream is for them alone."""
        options = {option for p in VERBS[path].params for option in p.opts}

        assert "--json" in options or path in {("dev",), ("audit", "stream")}

    def test_no_secret_is_an_argument(self):
        """Arguments are seen by everybody on the machine: secrets come from files and commands."""
        names = {option for command in VERBS.values() for p in command.params for option in p.opts}

        assert not {n for n in names if any(w in n for w in ("password", "dsn", "secret"))}
        assert {n for n in names if "token" in n} == {"--token-file", "--token-command"}

    def test_starts_without_what_it_does_not_need(self):
        """Help is quick, and the parent of `serve` has neither grpc nor a driver in it."""
        script = (
            "import sys\nfrom broker.cli import run\nassert run(['serve', '--help']) == 0\n"
            "print([m for m in ('grpc', 'asyncpg', 'casbin', 'cryptography', 'faker') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert done.stdout.splitlines()[-1] == "[]"


class TestErrors:
    @pytest.fixture
    def failing(self, broker, monkeypatch):
        """Runs a verb that ends with an error."""

        def command(error: BaseException):
            def fail(*_needs: str):
                raise error

            monkeypatch.setattr("broker.cli.server.read_settings", fail)
            return broker("migrate")

        return command

    def test_exit_codes(self, failing):
        """2 for usage and settings, 1 for what was refused or failed, 130 for Ctrl-C."""
        assert failing(StartupError("BROKER_X is missing")).code == 2
        assert failing(DatabaseUnavailableError()).code == 1
        assert failing(PolicyInvalidError(["policy.csv:3: no"])).code == 1
        assert failing(ClientError("no file")).code == 1
        assert failing(output.CommandFailedError("no", "do that")).code == 1
        assert failing(RuntimeError("x")).code == 1
        assert failing(KeyboardInterrupt()).code in {1, 130}

    def test_wrong_usage_is_2(self, broker):
        """An unknown verb, option or value is wrong usage."""
        assert broker("nonsense").code == 2
        assert broker("migrate", "--nonsense").code == 2
        assert broker("trace", "show", "no-uuid").code == 2
        assert broker("serve", "--workers", "0").code == 2

    def test_an_unexpected_error_shows_its_name_alone(self, failing):
        """A driver's text can quote a customer's row; it is never shown."""
        said = failing(ValueError("Key (email)=(jane@example.com) exists"))

        assert "ValueError" in said.err
        assert "jane" not in said.err + said.out

    def test_a_refusal_can_be_quoted(self, failing):
        """Code, reason, field and decision id are shown."""
        metadata = {"decision_id": "d-1", "free_time": "2026-11-23T15:04:05Z"}
        error = BudgetExceededError(
            "Used up.", code="RESOURCE_EXHAUSTED", reason="BUDGET_EXCEEDED", metadata=metadata
        )
        said = failing(error)

        assert said.err.splitlines()[0] == "broker: Used up."
        assert "15:04:05" in said.err
        assert "reason BUDGET_EXCEEDED" in said.err
        assert "decision id d-1" in said.err

    @pytest.mark.parametrize(
        ("reason", "command"),
        [
            ("ADMIN_DENIED", "broker policy whoami"),
            ("EVENT_NOT_FOUND", "broker audit events"),
            ("PROPOSAL_DIGEST", "broker policy show"),
            ("VERSION_INVALID", "broker policy propose"),
            ("VERSION_NOT_FOUND", "broker policy list"),
        ],
    )
    def test_a_refusal_names_the_command_that_helps(self, failing, reason, command):
        """Whoever was refused, or mistook an id, learns where to look; another reason says nothing of it."""
        assert command in failing(BrokerCallError("No.", code="NOT_FOUND", reason=reason)).err
        assert command not in failing(BrokerCallError("No.", code="NOT_FOUND", reason="TICKET_DENIED")).err

    def test_what_was_found_is_told(self, failing):
        """What the installed guard lacks, or what is wrong with a version, is the operator's to mend."""
        finding = {"finding": "customer.phone: the guard does not have it (column phone)"}
        error = BrokerCallError("No.", code="FAILED_PRECONDITION", reason="GUARD_BEHIND", metadata=finding)

        assert finding["finding"] in failing(error).err

    def test_a_database_that_refuses_is_told_from_one_that_is_away(self, failing):
        """A wrong password is the operator's to mend, not the developers'; nothing of the driver's text."""
        refused = failing(asyncpg.InvalidPasswordError('password authentication failed for user "jane"'))
        away = failing(DatabaseUnavailableError(cause="ConnectionRefusedError"))

        assert "the database refuses: InvalidPasswordError" in refused.err
        assert "DSN" in refused.err
        assert "jane" not in refused.err
        assert "developers" not in refused.err
        assert "host and port" in away.err
        assert "ConnectionRefusedError" in away.err

    def test_nobody_there_says_what_to_check(self, failing):
        """Without an answer there is no reason, so the next step is ours to say."""
        assert "certificates" in failing(UnavailableError("failed to connect", code="UNAVAILABLE")).err

    def test_missing_settings_are_named(self, broker, monkeypatch):
        """The variable is named, a value never is."""
        for name in ("BROKER_CONFIG", "BROKER_OWNER_DSN"):
            monkeypatch.delenv(name, raising=False)
        said = broker("migrate")

        assert said.code == 2
        assert "BROKER_OWNER_DSN" in said.err

    def test_missing_settings_point_at_the_sample_companys(self, broker, monkeypatch, tmp_path):
        """Beside a sample company the line to type is shown; elsewhere it is not."""
        for name in ("BROKER_CONFIG", "BROKER_OWNER_DSN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        assert "export" not in broker("migrate").err
        (tmp_path / ".broker").mkdir()
        (tmp_path / ".broker" / "broker.toml").touch()

        assert "export BROKER_CONFIG=.broker/broker.toml" in broker("migrate").err
        monkeypatch.setenv("BROKER_DEV_DIR", "elsewhere")
        assert "export" not in broker("migrate").err

    def test_a_wrong_setting_is_named_without_its_value(self, broker, monkeypatch):
        """A password in the wrong place is not shown."""
        monkeypatch.delenv("BROKER_CONFIG", raising=False)
        monkeypatch.setenv("BROKER_WORKERS", "hunter2")
        said = broker("migrate")

        assert said.code == 2
        assert "BROKER_WORKERS" in said.err
        assert "hunter2" not in said.err


class TestClientOptions:
    def test_a_target_needs_its_files(self, broker):
        """What is missing is named."""
        said = broker("contain", "list", "--target", "localhost:1", "--ca-file", "ca.pem")

        assert said.code == 2
        assert "--cert-file, --key-file" in said.err

    def test_without_a_target_a_sample_company_is_needed(self, broker, tmp_path):
        """The way to one is shown."""
        said = broker("access", "tickets", "--agent", "alice", "--dir", tmp_path)

        assert said.code == 2
        assert "broker dev" in said.err

    def test_agents_of_real_issuers_are_named_in_full(self, broker, tmp_path):
        """A subject alone is not a person where there are several issuers."""
        for name in ("ca", "cert", "key"):
            (tmp_path / name).touch()
        said = broker(
            "contain", "suspend", "mallory", "--reason", "x", "--target", "localhost:1",
            "--ca-file", tmp_path / "ca", "--cert-file", tmp_path / "cert", "--key-file", tmp_path / "key",
        )  # fmt: skip

        assert said.code == 2
        assert "issuer|subject" in said.err


class TestOutput:
    def test_tells_no_row_from_an_empty_value(self):
        """A customer without invoices, or one who is gone, is not a field that was left empty."""
        assert access._remark(FieldValue("invoice.total", FieldState.CLEAR, ())) == "no row"
        assert access._remark(FieldValue("customer.company", FieldState.CLEAR, ("",))) == ""
        assert access._remark(FieldValue("customer.iban", FieldState.WITHHELD, (), "needs x")) == "needs x"

    def test_obeys_nobody(self, capsys):
        """A value cannot move the cursor, change colours or ring the bell."""
        output.print_table(("a",), [["x\x1b[31m\x07\u202ey"]])

        assert not {"\x1b", "\x07", "\u202e"} & set(capsys.readouterr().out)

    def test_does_not_read_markup(self, capsys):
        """A value in square brackets is shown as it is."""
        output.print_table(("a",), [["[bold]x[/bold]"]])

        assert "[bold]x[/bold]" in capsys.readouterr().out

    def test_says_when_there_is_nothing(self, capsys):
        """An empty table is a sentence on standard error."""
        output.print_table(("a",), [])
        said = capsys.readouterr()

        assert (said.out, said.err) == ("", "nothing to show\n")
