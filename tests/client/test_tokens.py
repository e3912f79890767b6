"""Where the agent's token comes from."""

from __future__ import annotations

import sys

import pytest

from broker.client import TokenSourceError, token_command, token_file
from broker.client.tokens import claims
from tests.client.conftest import NOW, agent_token

SCRIPT = """
import sys, pathlib
p = pathlib.Path(sys.argv[1]); n = int(p.read_text() or 0) + 1; p.write_text(str(n)); print(sys.argv[2])
"""


class TestFile:
    def test_is_read_for_every_call(self, tmp_path):
        """Whoever renews the token just writes the file."""
        path = tmp_path / "token"
        source = token_file(path)
        path.write_text("one\n")
        first = source()
        path.write_text("two")

        assert (first, source()) == ("one", "two")

    @pytest.mark.parametrize(
        "content", [None, b"", b"\n", b"\xff\xfe"], ids=["none", "empty", "blank", "binary"]
    )
    def test_refuses_what_is_no_token(self, tmp_path, content):
        """A missing, empty or binary file is an error that names the file and never its content."""
        path = tmp_path / "token"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TokenSourceError, match="token"):
            token_file(path)()


class TestCommand:
    def source(self, tmp_path, token, clock):
        script, count = tmp_path / "s.py", tmp_path / "count"
        script.write_text(SCRIPT)
        count.write_text("")
        return token_command(f"{sys.executable} {script} {count} '{token}'", clock=clock), count

    async def test_is_run_again_shortly_before_the_token_ends(self, tmp_path):
        """One run serves until half a minute before `exp`."""
        now = [float(NOW)]
        source, count = self.source(tmp_path, agent_token("alice", NOW + 600), lambda: now[0])
        assert await source() == agent_token("alice", NOW + 600)
        now[0] += 569
        await source()
        assert count.read_text() == "1"
        now[0] += 2
        await source()

        assert count.read_text() == "2"

    async def test_is_run_for_every_call_where_the_end_is_unknown(self, tmp_path):
        """An opaque token is never kept."""
        source, count = self.source(tmp_path, "opaque", lambda: NOW)
        await source()
        await source()

        assert count.read_text() == "2"

    async def test_is_run_without_a_shell(self, tmp_path):
        """Shell syntax is an argument like any other."""
        marker = tmp_path / "marker"
        source = token_command(f"echo $(touch {marker}) ; touch {marker}")
        assert (await source()).startswith("$(touch")

        assert not marker.exists()

    @pytest.mark.parametrize("command", ["", "   ", "echo 'open"])
    def test_refuses_what_cannot_be_split(self, command):
        """A blank command or an open quote is refused before anything runs."""
        with pytest.raises(TokenSourceError):
            token_command(command)

    @pytest.mark.parametrize("command", ["false", "true", "/no/such/program"])
    async def test_refuses_a_failing_command(self, command):
        """A command that fails or prints nothing gives no token."""
        with pytest.raises(TokenSourceError):
            await token_command(command)()


class TestClaims:
    @pytest.mark.parametrize(
        "token", ["", "a", "a.b", "a.!.c", "a.W10.c", "a.bnVsbA.c", "a." + "W1tb" * 9999 + ".c"]
    )
    def test_an_unreadable_token_is_its_own_agent(self, token):
        """Two tokens that cannot be read never share a grant."""
        assert claims(token).agent == token
        assert claims(token).expire_time == 0

    def test_reads_issuer_and_subject(self):
        """Both make the agent: subjects of two issuers differ."""
        assert claims(agent_token("alice")).agent == "https://idp.test|alice"
