"""Metrics for Prometheus: how many, how long, how stale; never who.

Invariants:
- labels are methods, codes, reasons and sources: closed lists, so neither a customer, a ticket nor an
  agent can appear, and the number of series is bounded (E7);
- a request costs one histogram observation: its count is the number of requests, by method and code;
- with PROMETHEUS_MULTIPROC_DIR set before this module is imported, workers write to files there and the
  parent renders their sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from broker.errors import CATALOGUE
from broker.telemetry.names import CODES

LATENCIES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds; the fast end is a read, the slow end the longest deadline."""

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OTHER: Final = "_OTHER"
SINKS: Final = ("store", "otlp")
TRUST: Final = ("client_authorities", "feed_keys", "issuer_keys", "revoked_serials", "signing_keys")
"""What says whom to trust, each a file or an address that can become unreadable."""


class Metrics:
    """Every metric of the broker, each child bound once."""

    def __init__(self, methods: tuple[str, ...] = (), registry: CollectorRegistry = REGISTRY) -> None:
        """Registers the metrics.

        Args:
            methods: full method names that are served; another one counts as `_OTHER`.
            registry: one `Metrics` per registry; a test brings its own.
        """
        self._methods = frozenset(methods)
        self._requests = Histogram(
            "broker_request_seconds",
            "Time from the request's arrival to its answer; _count is the number of requests.",
            ("method", "code"),
            buckets=LATENCIES,
            registry=registry,
        )
        self._bound: dict[tuple[str, str], Histogram] = {}
        denials = Counter(
            "broker_denials", "Requests that were refused, by reason.", ("reason",), registry=registry
        )
        self._denials = {reason: denials.labels(reason) for reason in (*CATALOGUE, OTHER)}
        dropped = Counter(
            "broker_spans_dropped",
            "Traces that were lost before they were stored.",
            ("sink",),
            registry=registry,
        )
        stored = Counter("broker_spans_stored", "Traces that were handed on.", ("sink",), registry=registry)
        self.spans_dropped = {sink: dropped.labels(sink) for sink in SINKS}
        self.spans_stored = {sink: stored.labels(sink) for sink in SINKS}
        self.group_size = Histogram(
            "broker_ledger_group_size", "Events that shared one commit.", buckets=SIZES, registry=registry
        )
        self.append_failures = Counter(
            "broker_ledger_append_failures", "Events that could not be put on record.", registry=registry
        )
        self.feed_stale = Gauge(
            "broker_feed_stale",
            "1 while a ticket feed is silent, so that grants and reads are UNAVAILABLE.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.policy_alert = Gauge(
            "broker_policy_alert",
            "1 while a broken policy is kept out and the last good one serves.",
            registry=registry,
            multiprocess_mode="livemax",
        )

        trust = Gauge(
            "broker_trust_alert",
            "1 while a source of trust cannot be read, so that its last good content stays in force.",
            ("source",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.trust_alert = {source: trust.labels(source) for source in TRUST}
        self.disclosure_index_lag = Gauge(
            "broker_disclosure_index_lag_seconds",
            "Time between the newest ledger event and the newest in the index of disclosures.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.event_index_lag = _gauge(
            "broker_event_index_lag_chunks",
            "Full chunks of the log that are not indexed for auditors.",
            registry,
        )
        self.log_size = _gauge("broker_log_size", "Leaves of the transparency log.", registry)
        self.log_unpublished = _gauge(
            "broker_log_unpublished", "Leaves that are signed and not published yet.", registry
        )
        self.log_lag = _gauge(
            "broker_log_lag_seconds", "Time since every event that was there was published.", registry
        )
        self.log_stopped = _gauge(
            "broker_log_stopped",
            "1 while the database is behind the published log and appends are stopped.",
            registry,
        )
        self.log_failures = Counter(
            "broker_log_failures", "Rounds of the sequencer that failed.", registry=registry
        )

    def request(self, method: str, code: str, seconds: float) -> None:
        """Counts an answered request."""
        child = self._bound.get((method, code))
        if child is None:
            child = self._bind(method, code)
        child.observe(seconds)

    def denial(self, reason: str) -> None:
        """Counts a refusal; a reason that the catalogue does not hold counts as `_OTHER`."""
        self._denials.get(reason, self._denials[OTHER]).inc()

    def _bind(self, method: str, code: str) -> Histogram:
        known = method.removeprefix("/")
        child: Histogram = self._requests.labels(
            known if known in self._methods else OTHER, code if code in CODES else OTHER
        )
        if known in self._methods and code in CODES:  # only what is bounded is remembered
            self._bound[method, code] = child
        return child


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry, multiprocess_mode="livemax")


def render_metrics(folder: Path | None = None, registry: CollectorRegistry = REGISTRY) -> bytes:
    """Gives the text that Prometheus scrapes.

    Args:
        folder: PROMETHEUS_MULTIPROC_DIR of the workers; without it, this process's own metrics.
        registry: where this process's metrics are.
    """
    if folder is None:
        return generate_latest(registry)
    summed = CollectorRegistry()
    MultiProcessCollector(summed, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(summed)


def forget_process(pid: int, folder: Path) -> None:
    """Takes a dead worker's gauges out of the sum; its counters stay, they happened."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
