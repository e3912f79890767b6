"""The folder of the sample company."""

from __future__ import annotations

import socket
import stat

import pytest

from broker.dev.layout import Layout, process_environment, tool_identity
from broker.dev.sample import SampleAgent
from broker.errors import StartupError
from broker.settings import SERVE_NEEDS, read_settings


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "company")
    made.make()
    made.save_agents({"alice": SampleAgent("alice", ("support-tier1",))})
    return made


class TestLayout:
    def test_lets_nobody_else_in(self, layout):
        """Folder, private keys, passwords and settings are their owner's alone."""
        layout.choose_ports(usual=False)
        layout.passwords(("broker_owner",))
        layout.write_settings({}, workers=1, extra={})

        assert stat.S_IMODE(layout.folder.stat().st_mode) == 0o700
        for path in layout.folder.rglob("*"):
            if path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path

    def test_keeps_what_it_made(self, layout):
        """A second start goes on with the same authority, keys and passwords."""
        before = {path: path.read_bytes() for path in layout.folder.rglob("*.pem")}
        password = layout.passwords(("broker_owner",))["broker_owner"]
        layout.make()

        assert {path: path.read_bytes() for path in layout.folder.rglob("*.pem")} == before
        assert layout.passwords(("broker_owner", "broker_feed"))["broker_owner"] == password

    def test_must_exist_for_a_client(self, tmp_path):
        """A wrong folder is an error that says how to make one."""
        with pytest.raises(StartupError, match="broker dev --dir"):
            Layout.existing(tmp_path)

    def test_makes_tokens_for_those_who_work_here(self, layout):
        """An unknown agent or tool is an error that lists the known ones."""
        assert layout.token("alice").count(".") == 2
        with pytest.raises(StartupError, match="alice"):
            layout.token("eve")
        with pytest.raises(StartupError, match="desk, phone"):
            layout.token("alice", "fax")
        with pytest.raises(StartupError, match="desk, phone"):
            layout.client_tls("tool-fax")


class TestSettings:
    def test_are_what_serve_reads(self, layout, monkeypatch):
        """What is written is read back by the service's own reader, complete."""
        dsns = dict.fromkeys(
            ("dsn", "reader_dsn", "admin_dsn", "feed_dsn", "auditor_dsn"), 'postgresql://u:p"w\\@/x'
        )
        ports = layout.choose_ports(usual=False)
        layout.write_settings(dsns, workers=3, extra={"grant_seconds": 7, "reflection": False})
        for name in list(process_environment(layout.settings_file)):
            monkeypatch.delenv(name, raising=False) if name.startswith("BROKER_") else None
        monkeypatch.setenv("BROKER_CONFIG", str(layout.settings_file))
        settings = read_settings(*SERVE_NEEDS)

        assert settings.dsn == 'postgresql://u:p"w\\@/x'
        assert settings.access is not None
        assert settings.access.port == ports["access"]
        assert (settings.workers, settings.grant_seconds, settings.reflection) == (3, 7, False)
        assert [tool.identity for tool in settings.tools] == [tool_identity("desk"), tool_identity("phone")]

    def test_other_brokers_settings_do_not_reach_the_process(self, layout, monkeypatch):
        """A variable of the shell cannot point the sample company at a real database."""
        monkeypatch.setenv("BROKER_DSN", "postgresql://production/")
        environment = process_environment(layout.settings_file, {"BROKER_WORKERS": "2"})

        assert "BROKER_DSN" not in environment
        assert environment["BROKER_WORKERS"] == "2"
        assert environment["BROKER_CONFIG"] == str(layout.settings_file)


class TestPorts:
    def test_are_remembered(self, layout):
        """Clients find the ports of the last start."""
        chosen = layout.choose_ports(usual=False)

        assert layout.ports() == chosen
        assert len(set(chosen.values())) == 3

    def test_avoid_what_is_taken(self, layout, monkeypatch):
        """A usual port that somebody else has is replaced by a free one."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setattr("broker.dev.layout.USUAL_PORTS", {"access": port})

            assert layout.choose_ports(usual=True)["access"] != port
