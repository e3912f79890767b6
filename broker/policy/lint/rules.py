"""Rules that can do nothing, do nothing more, show too much, or have ended.

Invariants:
- a rule is called shadowed, redundant or a precaution only where that holds at every point of the domain,
  for every set of roles; where it cannot be decided within bounds, a note says so;
- what shows a sensitive class in clear to somebody whose customer is away is an error until the file
  says why (`accept.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

from broker.catalog import Catalog
from broker.model import Level, Presence, Provenance, Relation
from broker.policy.files import RULES
from broker.policy.findings import Findings, Severity
from broker.policy.lines import ANY
from broker.policy.lint.search import OutOfStepsError, RuleSearch, Verdict
from broker.policy.rules import CONDITIONS, Rule, RuleBook

SOON = timedelta(days=14)
"""How long before its end a rule is mentioned."""

MAX_NAMED = 3
"""Most lines that a sentence names."""

_RELATION = CONDITIONS.index("relation")
_PROVENANCE = CONDITIONS.index("provenance")
_PURPOSE = CONDITIONS.index("purpose")
_PRESENCE = CONDITIONS.index("presence")

Say = Callable[[str], None]


def check_ends(book: RuleBook, today: date, findings: Findings) -> None:
    """Names rules that have ended, and those that soon will."""
    for rule in book.rules:
        if rule.until is None:
            continue
        if today > rule.until:
            findings.add(RULES, rule.line, "rule-ended", f"the rule ended with {rule.until}")
        elif today + SOON > rule.until:
            findings.add(
                RULES, rule.line, "rule-ends-soon", f"the rule ends with {rule.until}", Severity.NOTE
            )


class RuleCheck:
    """What can be said of each rule of one book."""

    def __init__(self, book: RuleBook, catalog: Catalog) -> None:
        """Takes the rules in force and their catalog."""
        self._book = book
        self._catalog = catalog
        self._findings = Findings()
        self._search = RuleSearch(book, catalog)
        self._unanswered: list[Rule] = []
        self._nothing: set[int] = set()  # lines of rules that never match

    def check_sense(self, findings: Findings) -> None:
        """Names rules that never match, and what they show of sensitive classes."""
        self._findings = findings
        for rule in self._book.rules:
            if why := self._never_matches(rule):
                self._nothing.add(rule.line)
                self._add(rule, "never-matches", why)
            elif rule.effect == "allow":
                self._check_sensitive(rule)

    def check_effect(self, findings: Findings, say: Say) -> None:
        """Names rules that change no decision; the costly part, bounded."""
        self._findings = findings
        count = len(self._book.rules)
        for number, rule in enumerate(self._book.rules, 1):
            if number % 100 == 0:
                say(f"Looking for rules that change nothing: {number} of {count}")
            if rule.line in self._nothing:
                continue
            try:
                if rule.effect == "allow":
                    self._check_allow(rule)
                else:
                    self._check_deny(rule)
            except OutOfStepsError:
                self._unanswered.append(rule)
        if self._unanswered:
            self._findings.add(
                RULES,
                self._unanswered[0].line,
                "not-decided",
                f"of {len(self._unanswered)} of {count} rules, this one first, it was not found out within "
                "the steps there are whether they change anything",
                Severity.NOTE,
            )

    def _never_matches(self, rule: Rule) -> str:
        """Says why no request ever meets the rule; empty where one may.

        A denial of a ground that does not occur in this release is a precaution; an allow is a mistake.
        """
        if not self._search.fields(rule):
            return f"the rule never matches: no field is of class {rule.field!r}"
        if rule.effect == "allow":
            if rule.conditions[_RELATION] == Relation.NONE:
                return "the rule never matches: whoever has no relation to a ticket is refused before"
            if rule.conditions[_PROVENANCE] == Provenance.UNKNOWN:
                return "the rule never matches: how somebody came to a ticket of theirs is always known"
        return ""

    def _check_sensitive(self, rule: Rule) -> None:
        search = self._search
        fields = [
            name
            for name in search.fields(rule)
            if self._catalog.fields[name].field_class in self._catalog.sensitive_classes
        ]
        if not fields:
            return
        wide = [CONDITIONS[at] for at in (_PURPOSE, _RELATION) if rule.conditions[at] == ANY]
        if wide:
            said = " and ".join(f"any {column}" for column in wide)
            self._add(rule, "sensitive-wildcard", f"the rule shows {self._of(rule)} for {said}")
        if rule.level == Level.MASKED or rule.conditions[_PRESENCE] == Presence.PRESENT:
            return
        denies = search.denies(Level.CLEAR)
        choices = [search.alone(rule), *search.choices(rule, fields=fields, presence=Presence.ABSENT.value)]
        try:
            shown = search.exists(choices, denies, _misses(denies))
        except OutOfStepsError:
            shown = True  # what is not known to be denied counts as shown
        if shown:
            self._add(
                rule, "sensitive-clear", f"the rule shows {self._of(rule)} in clear with the customer away"
            )

    def _check_allow(self, rule: Rule) -> None:
        search = self._search
        levels = _levels(rule)
        box = [search.alone(rule), *search.choices(rule)]
        everything = ~search.at[rule.line]
        denied = [search.denies(level) for level in levels]
        if not any(search.exists(box, bits, _misses(bits)) for bits in denied):
            meeting = denied[0] & self._meets(rule)
            self._add(
                rule,
                "shadowed-rule",
                f"whatever the rule allows is denied, by {self._lines(meeting)}",
                Severity.WARNING,
            )
            return
        clear = search.allows(Level.CLEAR) & everything, search.denies(Level.CLEAR)
        masked = search.allows(Level.MASKED) & everything, search.denies(Level.MASKED)
        if Level.CLEAR in levels:
            matter = clear[0] | clear[1]
            if search.exists(box, matter, _misses(matter)):
                return
        if Level.MASKED in levels:
            box[0] = search.with_another(rule, clear[1])
            matter = clear[0] | clear[1] | masked[0] | masked[1]
            if search.exists(box, matter, _alone_masked(*clear, *masked)):
                return
        covering = self._covers(rule) & search.table.allow
        for level in levels:
            covering &= search.allows(level)
        if not covering and not clear[1] & self._meets(rule):
            covering = self._covers(rule) & clear[0]  # clear is more than masked
        why = f"{self._lines(covering)} allows as much" if covering else "other rules together allow as much"
        self._add(
            rule,
            "redundant-rule",
            f"without the rule every decision is the same: {why} or more",
            Severity.WARNING,
        )

    def _check_deny(self, rule: Rule) -> None:
        search = self._search
        others = {level: search.denies(level) & ~search.at[rule.line] for level in _levels(rule)}
        alone = [search.alone(rule), *search.choices(rule)]
        if not any(search.exists(alone, bits, _misses(bits)) for bits in others.values()):
            covering = others[Level.CLEAR] & self._covers(rule)
            for bits in others.values():
                covering &= bits
            self._add(
                rule,
                "redundant-rule",
                f"without the rule every decision is the same: {self._lines(covering) or 'other lines'} "
                "denies as much or more",
                Severity.WARNING,
            )
            return
        box = [alone[0] if rule.role == ANY else search.with_another(rule, search.table.allow), *alone[1:]]
        for level, denies in others.items():
            allows = search.allows(level)
            if search.exists(box, allows | denies, _lets_through(allows, denies)):
                return
        self._add(
            rule,
            "precaution",
            "no rule allows what this one denies and others do not; it stands for rules to come",
            Severity.NOTE,
        )

    def _meets(self, rule: Rule) -> int:
        """Gives the rules that match somewhere where this one does."""
        bits = self._search.table.everything
        for column in (self._search.alone(rule), *self._search.choices(rule)):
            some = 0
            for each in column:
                some |= each
            bits &= some
        return bits

    def _covers(self, rule: Rule) -> int:
        """Gives the other rules that match everywhere where this one does."""
        bits = self._search.table.everything & ~self._search.at[rule.line]
        for column in (self._search.alone(rule), *self._search.choices(rule)):
            for each in column:
                bits &= each
        return bits

    def _lines(self, bits: int) -> str:
        rules = self._search.table.each(bits, MAX_NAMED + 1)
        named = ", ".join(str(rule.line) for rule in rules[:MAX_NAMED])
        more = " and others" if len(rules) > MAX_NAMED else ""
        return f"line{'s' if len(rules) > 1 else ''} {named}{more}" if rules else ""

    def _of(self, rule: Rule) -> str:
        field = self._catalog.fields.get(rule.field)
        return f"{rule.field} (class {field.field_class})" if field else f"class {rule.field}"

    def _add(self, rule: Rule, name: str, sentence: str, severity: Severity = Severity.ERROR) -> None:
        self._findings.add(RULES, rule.line, name, sentence, severity)


def _levels(rule: Rule) -> Sequence[Level]:
    return tuple(Level) if rule.level == ANY else (Level(rule.level),)


def _misses(bits: int) -> Verdict:
    """Asks for a point that none of these rules matches."""

    def verdict(sure: int, maybe: int) -> bool | None:
        if sure & bits:
            return False
        return None if maybe & bits else True

    return verdict


def _lets_through(allows: int, denies: int) -> Verdict:
    """Asks for a point that one of these allows matches and none of these denials."""

    def verdict(sure: int, maybe: int) -> bool | None:
        if sure & denies or not maybe & allows:
            return False
        return True if sure & allows and not maybe & denies else None

    return verdict


def _alone_masked(allows_clear: int, denies_clear: int, allows: int, denies: int) -> Verdict:
    """Asks for a point that no other rule decides as masked, and that does not come out clear."""

    def verdict(sure: int, maybe: int) -> bool | None:
        if sure & (allows | denies) or (sure & allows_clear and not maybe & denies_clear):
            return False
        if not maybe & (allows | denies) and (not maybe & allows_clear or sure & denies_clear):
            return True
        return None

    return verdict
