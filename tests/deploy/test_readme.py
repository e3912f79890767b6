"""What deploy/README.md tells operators is so."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from broker.telemetry import Metrics
from tests.conftest import LOGIN_ROLES
from tests.deploy import settings_table

DEPLOY = Path(__file__).parents[2] / "deploy"
TEXT = settings_table.README.read_text("utf-8")


def test_settings_table_is_current():
    """Every setting is in the table; where not, run `python -m tests.deploy.settings_table`."""
    assert settings_table.fill(TEXT) == TEXT
    assert "`BROKER_READER_DSN` | required" in TEXT


def test_every_role_is_explained():
    """Each role of roles.sql has its row."""
    roles = set(re.findall(r"'(broker_\w+)', '(?:NO)?LOGIN'", (DEPLOY / "roles.sql").read_text("utf-8")))

    assert roles >= set(LOGIN_ROLES)
    assert [role for role in roles if f"| `{role}` |" not in TEXT] == []


def test_metrics_exist():
    """Each metric that an alert names is one that the broker has."""
    registry = CollectorRegistry()
    Metrics(registry=registry)
    known = {s for family in registry.collect() for s in (family.name, *(x.name for x in family.samples))}
    rules = TEXT.split("## Alerts", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"\bbroker_[a-z_]+", rules))

    assert len(named) >= 5
    assert {n for n in named if n not in known and n.removesuffix("_total") not in known} == set()


def test_named_files_exist():
    """Each file of deploy/ that the text names is there."""
    named = set(re.findall(r"`deploy/([\w.-]+)`", TEXT))

    assert {"roles.sql", "compose.yaml", "broker.service"} <= named
    assert [name for name in named if not (DEPLOY / name).exists()] == []
