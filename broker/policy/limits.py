"""The limits: budgets by role and the duration of grants; values and the strict reader of `limits.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from broker.model import Budget
from broker.policy.files import LIMITS
from broker.policy.findings import Findings, nearest, quoted
from broker.policy.strict_yaml import Value, read_yaml

VERSION = 1
"""The only version of the file's form."""

DEFAULT = "default"
"""The entry for roles that have none of their own, and for agents without a role."""

MAX_CUSTOMERS = 10_000
"""Highest budget that can be written: a typing error must not become a mass leak."""

MAX_MINUTES = 60
"""Longest grant that can be written; the settings may cap it lower."""


@dataclass(frozen=True)
class Limits:
    """Everything `limits.yaml` says."""

    default: Budget
    budgets: Mapping[str, Budget]  # by role
    default_grant_minutes: int = 5
    maximum_grant_minutes: int = 10

    def budget(self, roles: frozenset[str]) -> Budget:
        """Gives the strictest budget of the roles; a role without one counts with the default."""
        budgets = [self.budgets.get(role, self.default) for role in roles] or [self.default]
        return Budget(min(b.per_hour for b in budgets), min(b.per_day for b in budgets))


def read_limits(text: str, mapped_roles: frozenset[str] | None, findings: Findings) -> Limits | None:
    """Reads the limits against the roles that groups lead to (None: not known, do not compare)."""
    document = read_yaml(LIMITS, text, findings)
    if document is None:
        return None
    before = len(findings)
    top = document.keys(("version", "budgets"), ("grant",))
    if "version" in top:
        top["version"].number(VERSION, VERSION)
    budgets: dict[str, Budget] = {}
    for role, key, value in top["budgets"].items() if "budgets" in top else ():
        if mapped_roles is not None and role != DEFAULT and role not in mapped_roles:
            key.refuse(
                "unknown-role",
                f"no group leads directly to a role {quoted(role)}; {nearest(role, mapped_roles)}",
            )
        budgets[role] = _read_budget(value)
    if "budgets" in top and DEFAULT not in budgets:
        top["budgets"].refuse("missing-key", f"the key {DEFAULT!r} is missing")
    minutes = {"default_minutes": 5, "maximum_minutes": 10}
    if "grant" in top:
        entry = top["grant"].keys(tuple(minutes))
        minutes |= {name: value.number(1, MAX_MINUTES) for name, value in entry.items()}
        if minutes["default_minutes"] > minutes["maximum_minutes"]:
            top["grant"].refuse("out-of-range", "default_minutes is more than maximum_minutes")
    if len(findings) > before:
        return None
    default = budgets.pop(DEFAULT)
    return Limits(default, MappingProxyType(budgets), minutes["default_minutes"], minutes["maximum_minutes"])


def _read_budget(value: Value) -> Budget:
    entry = value.keys(("per_hour", "per_day"))
    numbers = {name: number.number(1, MAX_CUSTOMERS) for name, number in entry.items()}
    budget = Budget(numbers.get("per_hour", 1), numbers.get("per_day", MAX_CUSTOMERS))
    if budget.per_hour > budget.per_day:
        value.refuse("out-of-range", f"{budget.per_hour} an hour is more than {budget.per_day} a day")
    return budget
