"""What a careful colleague would say about policy files before they are put in force.

    linter.py     all files together; what `broker policy check` and a publish ask
    report.py     the answer               hints.py    what to do about each finding
    model.py      what differs in model.conf, beyond the hash
    catalog.py    classes, purposes, fields that lead nowhere or are marked too mildly
    admin.py      admin.csv against itself and against the release's RPCs
    rules.py      rules that do nothing, show too much or have ended
    search.py     the exact question behind them: is there a point where …?
    accept.py     `# accept <finding>: <reason>` above a rule
    sarif.py      the report for code-review tools

Invariants:
- an error keeps files from being put in force; a warning is put right or accepted in writing, in the
  file; a note only tells;
- whatever the files hold, the answer is a report, never an exception;
- what is said about rules is exact over every combination of facts and roles, or says that it stopped.
"""

from broker.policy.findings import Finding, Severity
from broker.policy.lint.linter import lint
from broker.policy.lint.report import LintReport

__all__ = ["Finding", "LintReport", "Severity", "lint"]
