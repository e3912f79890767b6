"""`admin.csv` against itself and against the RPCs of the release."""

from __future__ import annotations

from collections.abc import Iterable

from broker.policy.admin import AdminTable
from broker.policy.files import ADMIN
from broker.policy.findings import Findings, Severity, nearest
from broker.policy.lines import read_csv


def check_admin(text: str, table: AdminTable, methods: Iterable[str], findings: Findings) -> None:
    """Names rows that do nothing, and RPCs without a row.

    A denial that denies nothing is an error, because somebody counts on it; an allow that allows nothing is
    a warning, and may stand there before the release that brings its RPC.

    Args:
        text: of the file, which its strict reader has accepted.
        table: what that reader made of it.
        methods: the full names of the release's RPCs; none: they are not known here.
        findings: where to say what is wrong.
    """
    lines = list(read_csv(ADMIN, text, Findings()))
    known = frozenset(methods)
    allows = {line.words[1:3]: line.number for line in lines if line.words[::3] == ("p", "allow")}
    held = {line.words[2] for line in lines if line.words[0] == "g"}
    for line in lines:
        if line.words[0] == "g":
            continue
        _, role, method, effect = line.words
        if effect == "deny" and (role, method) in allows:
            findings.add(
                ADMIN,
                line.number,
                "shadowed-rule",
                f"the line takes away what line {allows[role, method]} gives",
                Severity.WARNING,
                "Remove one of the two; a denial wins in any case.",
            )
        weight = Severity.ERROR if effect == "deny" else Severity.WARNING
        if role not in held:
            sentence = f"nobody has role {role!r}; {nearest(role, held)}"
            findings.add(ADMIN, line.number, "role-without-members", sentence, weight)
        if known and method not in known:
            sentence = f"this release has no RPC {method}; {nearest(method, known)}"
            findings.add(ADMIN, line.number, "unknown-method", sentence, weight)
    for method in table.missing(known):
        sentence = f"no row for {method}; add who may call it"
        findings.add(ADMIN, 1, "method-missing", sentence, hint=_rows(method, allows))


def _rows(method: str, allows: Iterable[tuple[str, ...]]) -> str:
    """Writes the rows that may be meant, to be pasted: of the roles that may call others of its service."""
    service = method.rpartition("/")[0]
    roles = sorted({role for role, known in allows if known.rpartition("/")[0] == service})
    rows = [f"p, {role}, {method}, allow" for role in roles]
    return "\n".join(["Add those that are meant of these rows:", *rows]) if rows else ""
