"""What the lint found, in the order of files and lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker.policy.findings import Finding, Severity


@dataclass(frozen=True)
class LintReport:
    """Everything that was found."""

    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> LintReport:
        """Puts findings in order."""
        return cls(tuple(sorted(findings, key=lambda found: (found.file, found.line, found.text))))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Gives what keeps the files from being put in force."""
        return self._of(Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Gives what should be put right, without what the files accept in writing."""
        return tuple(found for found in self._of(Severity.WARNING) if not found.accepted)

    @property
    def accepted(self) -> tuple[Finding, ...]:
        """Gives the warnings that the files accept, each with its reason."""
        return tuple(found for found in self.findings if found.accepted)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """Gives what is only worth knowing."""
        return self._of(Severity.NOTE)

    @property
    def ok(self) -> bool:
        """Says whether the files may be put in force."""
        return not self.errors

    def as_mapping(self) -> dict[str, object]:
        """Gives what a program reads."""
        return {
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "accepted": len(self.accepted),
            "notes": len(self.notes),
            "findings": [found.as_mapping() for found in self.findings],
        }

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.severity is severity)
