"""Agents as people type them: one reader for every verb, which never guesses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.cli.connections import Broker
from broker.cli.names import AGENT, agent_name
from broker.client import AgentName
from broker.dev.layout import AGENT_ISSUER
from broker.errors import StartupError

ONE, TWO = "https://idp.one", "https://idp.two"
SOMEWHERE = Broker("localhost:1", Path("ca"), Path("cert"), Path("key"), sample=None)
BLOCK = '[[issuers]]\nissuer = "{}"\naudience = "a"\nalgorithms = ["ES256"]\njwks_file = "jwks.json"\n'


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Names issuers of agents in the settings."""

    def write(*issuers: str) -> None:
        file = tmp_path / "broker.toml"
        file.write_text("".join(map(BLOCK.format, issuers)))
        monkeypatch.setenv("BROKER_CONFIG", str(file))

    return write


@pytest.mark.parametrize("broker", [None, SOMEWHERE], ids=["database", "port"])
class TestReading:
    def test_in_full(self, broker, settings):
        """The first bar separates: no issuer holds one, and subjects of some identity providers do."""
        settings(ONE, TWO)
        assert agent_name("https://a|mallory", broker) == AgentName("https://a", "mallory")
        assert agent_name("https://a|auth0|17", broker) == AgentName("https://a", "auth0|17")
        assert agent_name("https://a|auth0|17", broker).key == "https://a|auth0|17"

    @pytest.mark.parametrize("text", ["|mallory", "https://a|", "|"])
    def test_half_a_name(self, broker, settings, text):
        """Is nobody's."""
        settings(ONE)
        with pytest.raises(StartupError, match="lacks its issuer or its subject"):
            agent_name(text, broker)

    def test_alone_where_one_issuer_is_known(self, broker, settings):
        """The subject is that issuer's, named twice or once."""
        settings(ONE, ONE)
        assert agent_name("mallory", broker) == AgentName(ONE, "mallory")

    def test_alone_where_several_are_known(self, broker, settings):
        """What could be meant is written as it can be pasted."""
        settings(ONE, TWO)
        with pytest.raises(StartupError) as refused:
            agent_name("mallory", broker)
        assert f'"{ONE}|mallory", "{TWO}|mallory"' in str(refused.value)

    def test_alone_where_none_is_known(self, broker, monkeypatch):
        """How it is written, and where it is found."""
        monkeypatch.delenv("BROKER_CONFIG", raising=False)
        with pytest.raises(StartupError, match=r"write issuer\|subject, as `broker audit"):
            agent_name("mallory", broker)


def test_of_the_sample_company(company, settings):
    """Its agents are known by name, whatever the settings say; of others it is told who there is."""
    settings(ONE, TWO)
    sample = Broker("localhost:1", Path("ca"), Path("cert"), Path("key"), sample=company.folder)
    assert agent_name("mallory", sample) == AgentName(AGENT_ISSUER, "mallory")
    assert agent_name(f"{ONE}|mallory", sample) == AgentName(ONE, "mallory")
    with pytest.raises(StartupError, match=r"there are: .*alice.*mallory"):
        agent_name("malory", sample)


@pytest.mark.parametrize(
    "verb",
    [("audit", "events"), ("audit", "exposure"), ("contain", "suspend"), ("contain", "reinstate"),
     ("contain", "revoke")],
    ids=" ".join,
)  # fmt: skip
def test_one_help_text(broker, verb):
    """Every verb that takes an agent says the same of it."""
    assert AGENT in " ".join(broker(*verb, "--help").out.split())


@pytest.mark.parametrize("way", ["port", "database"])
def test_every_verb_takes_every_form(broker, company, monkeypatch, way):
    """Subject alone or in full is the same agent, over the port as over the database."""
    monkeypatch.setenv("BROKER_CONFIG", str(company.layout.settings_file))
    person = ("--as", "audrey", "--dir", company.folder)
    broker(
        "access", "read", "T-1001", "--agent", "alice", "--fields", "customer.name", "--dir", company.folder
    )
    forms = ("alice", f"{AGENT_ISSUER}|alice")

    asked = ("audit", "exposure", "--json", *(person if way == "port" else ()))
    reports = [broker(*asked, "--agent", form).data for form in forms]
    assert reports[0] == reports[1]
    assert reports[0]["totals"]["reads"] >= 1
    unknown = broker(*asked, "--agent", f"{AGENT_ISSUER}|alcie")
    assert (unknown.code, unknown.out) == (1, "")
    assert f"no event names the agent {AGENT_ISSUER}|alcie" in unknown.err
    if way == "port":
        asked = ("audit", "events", "--kind", "read", "--jsonl", *person)
        outputs = [broker(*asked, "--agent", form).out for form in forms]
        # Of each line only the event: its place in the log may have been given between the two questions.
        listed = [[json.loads(line)["event_id"] for line in out.splitlines()] for out in outputs]
        assert listed[0] == listed[1] != []
        nobody = broker(*asked, "--agent", f"{AGENT_ISSUER}|alcie")
        assert (nobody.code, nobody.out) == (0, "")
        assert "no event names the agent" in nobody.err
        assert "no event names" not in broker(*asked, "--agent", "alice", "--reason", "FEED_STALE").err
