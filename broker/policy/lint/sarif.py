"""A lint report as SARIF 2.1.0, which code-review tools show beside the lines of a change."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from broker.policy.findings import Finding, Severity
from broker.policy.lint.hints import hint_of
from broker.policy.lint.report import LintReport

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
"""The schema that the document names."""

_LEVELS: Mapping[Severity, str] = MappingProxyType(
    {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
)


def as_sarif(report: LintReport, folder: str) -> dict[str, object]:
    """Gives the report as one SARIF log.

    Args:
        report: of the lint.
        folder: where the files lie, as the reader of the log knows it; relative to the repository's root
            where a code-review tool shall find them.
    """
    names = sorted({finding.name for finding in report.findings})
    rules = [
        {
            "id": name,
            "shortDescription": {"text": name.replace("-", " ")},
            "help": {"text": hint_of(name) or name},
        }
        for name in names
    ]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "broker policy check", "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, folder, names) for finding in report.findings],
            }
        ],
    }


def _result(finding: Finding, folder: str, names: list[str]) -> dict[str, object]:
    path = f"{folder.rstrip('/')}/{finding.file}" if folder else finding.file
    result: dict[str, object] = {
        "ruleId": finding.name,
        "ruleIndex": names.index(finding.name),
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.sentence}. {finding.hint}".strip()},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(path)},
                    "region": {"startLine": finding.line},
                }
            }
        ],
    }
    if finding.accepted:
        result["suppressions"] = [
            {"kind": "inSource", "status": "accepted", "justification": finding.accepted}
        ]
    return result
