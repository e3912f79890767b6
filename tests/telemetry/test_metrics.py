"""Metrics: how many and how long, never who; the sum over workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from broker.errors import CATALOGUE
from broker.telemetry import Metrics, render_metrics
from broker.telemetry.metrics import TRUST

READ = "broker.v1.AccessService/ReadRecord"
PII = "jane@example.org"


@pytest.fixture
def registry():
    return CollectorRegistry()


def test_request(registry):
    """A request counts by method and code, with its time, under the name without a slash."""
    metrics = Metrics((READ,), registry)
    metrics.request(READ, "OK", 0.003)
    metrics.request(f"/{READ}", "OK", 0.004)
    labels = {"method": READ, "code": "OK"}

    assert registry.get_sample_value("broker_request_seconds_count", labels) == 2
    assert registry.get_sample_value("broker_request_seconds_bucket", {**labels, "le": "0.005"}) == 2
    assert registry.get_sample_value("broker_request_seconds_bucket", {**labels, "le": "0.002"}) == 0


@pytest.mark.attack("E7")
def test_no_label_is_the_callers_choice(registry):
    """Whatever a caller sends, the series stay few and name neither a customer, a ticket nor an agent."""
    metrics = Metrics((READ,), registry)
    metrics.request(READ, "OK", 0.001)
    metrics.denial("TICKET_DENIED")
    for i in range(100):
        metrics.request(f"/x/{PII}{i}", "OK", 0.001)
        metrics.request(READ, f"{PII}{i}", 0.001)
        metrics.denial(f"{PII}{i}")
    text = render_metrics(registry=registry).decode()

    assert PII not in text
    assert set(re.findall(r'method="([^"]*)"', text)) == {READ, "_OTHER"}
    assert set(re.findall(r'code="([^"]*)"', text)) == {"OK", "_OTHER"}
    assert set(re.findall(r'reason="([^"]*)"', text)) == {*CATALOGUE, "_OTHER"}
    assert set(re.findall(r'source="([^"]*)"', text)) == set(TRUST)
    assert len(metrics._bound) == 1
    assert set(re.findall(r"[{,](\w+)=", text)) <= {"method", "code", "reason", "sink", "source", "le"}


def test_parent_renders_the_sum_of_the_workers(tmp_path):
    """Two workers write to one folder; a third process renders their sum."""
    code = (
        "from broker.telemetry import Metrics\n"
        f"m = Metrics(({READ!r},)); m.request({READ!r}, 'OK', 0.01); m.spans_dropped['store'].inc(2)\n"
        "m.feed_stale.set(1); m.policy_alert.set(1)\n"
    )
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    text = render_metrics(tmp_path).decode()

    assert f'broker_request_seconds_count{{code="OK",method="{READ}"}} 2.0' in text
    assert 'broker_spans_dropped_total{sink="store"} 4.0' in text
    assert "broker_feed_stale 1.0" in text
