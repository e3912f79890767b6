"""The strict reader of `policies/tests/*.yaml`.

    version: 1
    tests:
      A tier 1 agent knows whom they talk to:
        roles: [tier1]
        purpose: resolve-ticket
        ticket: {relation: assignee, provenance: routed}
        expect: {clear: class:profile, masked: class:contact, withheld: every}
    ...

Invariants:
- every word is the catalog's or the model's; roles are checked when a policy is there (`runner.py`);
- a fact that is left out is `any`;
- the closer word wins: a field over its class, a class over `sensitive` and `every`; two equally close
  words that differ are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from broker.catalog import Catalog
from broker.model import OpenedBy, Presence, Provenance, Relation
from broker.policy.findings import Findings, TooManyFindingsError, nearest, quoted
from broker.policy.lines import ANY
from broker.policy.rules import CONDITIONS, GROUP_PREFIX
from broker.policy.strict_yaml import Value, read_yaml
from broker.policy.suite.administrators import read_admin_case
from broker.policy.suite.cases import Case, Expected, Suites

VERSION = 1
"""The only version of the files' form."""

MAX_CASES = 2000
"""Most tests of all files together."""

EVERY = "every"
"""All mapped roles, alone and in pairs; as an expectation: all fields."""

SENSITIVE = "sensitive"
"""The fields of the sensitive classes."""

CLASS = "class:"
"""What a field class begins with in an expectation."""

_TICKET = ("relation", "kind", "provenance", "opened_by", "presence")
_CLOSE, _CLOSER, _CLOSEST = range(3)


@dataclass(frozen=True, slots=True)
class Unread:
    """A test that cannot be read, or a whole file where `name` is empty."""

    file: str
    line: int
    name: str
    findings: tuple[str, ...]

    @property
    def text(self) -> str:
        """Gives the one-line form."""
        first, *others = self.findings
        why = f"{first}, and {len(others)} more" if others else first
        return f"{self.file}:{self.line}: {self.name}: {why}" if self.name else why


def read_suites(texts: Mapping[str, str], catalog: Catalog) -> Suites:
    """Reads test files against a catalog, all of them or none.

    Args:
        texts: by file name.
        catalog: whose fields and words the tests may use.

    Raises:
        PolicyInvalidError: anything is wrong; the findings are of all files.
    """
    findings = Findings()
    suites = Suites(())
    with suppress(TooManyFindingsError):  # then it has those
        for file in sorted(texts):
            for _, line, read in _entries(file, texts[file], catalog, findings):
                suites += read(findings)
                if len(suites.cases) > MAX_CASES:
                    findings.add(file, line, "too-many", f"more than {MAX_CASES} tests")
                    raise TooManyFindingsError
    findings.raise_if_any()
    return suites


def read_apart(texts: Mapping[str, str], catalog: Catalog) -> tuple[Suites, list[Unread]]:
    """Reads test files against a catalog, each test by itself: no other goes with one that cannot be read."""
    suites, unread = Suites(()), []
    for file in sorted(texts):
        of_file = Findings()
        with suppress(TooManyFindingsError):
            for name, line, read in _entries(file, texts[file], catalog, of_file):
                findings = Findings()
                with suppress(TooManyFindingsError):
                    case = read(findings)
                if found := tuple(each.text for each in findings):
                    unread.append(Unread(file, line, name, found))
                else:
                    suites += case
        unread += [Unread(file, each.line, "", (each.text,)) for each in of_file]
    return suites, unread


def _entries(
    file: str, text: str, catalog: Catalog, findings: Findings
) -> Iterator[tuple[str, int, Callable[[Findings], Suites]]]:
    """Gives the tests of a file: name, line, and what reads one; `findings` are those of the file's form."""
    document = read_yaml(file, text, findings)
    if document is None:
        return
    top = document.keys(("version",), ("tests", "administrators"))
    if "tests" not in top and "administrators" not in top:
        document.refuse("missing-key", "the key 'tests' or 'administrators' is missing")
    if "version" in top:
        top["version"].number(VERSION, VERSION)
    for name, key, value in top["tests"].items() if "tests" in top else ():
        yield name, key.line, partial(_case, catalog, file, name, key.line, value)
    for name, key, value in top["administrators"].items() if "administrators" in top else ():
        yield name, key.line, partial(_administrators, file, name, key.line, value)


def _case(catalog: Catalog, file: str, name: str, line: int, value: Value, findings: Findings) -> Suites:
    return Suites((_Reader(catalog, file, value.telling(findings)).case(name, line),))


def _administrators(file: str, name: str, line: int, value: Value, findings: Findings) -> Suites:
    return Suites((), (read_admin_case(file, name, line, value.telling(findings)),))


def fields_of(catalog: Catalog, classes: Iterable[str]) -> list[str]:
    """Gives the fields of classes, in the catalog's order."""
    wanted = frozenset(classes)
    return [name for name, field in catalog.fields.items() if field.field_class in wanted]


class _Reader:
    """Reads one test."""

    def __init__(self, catalog: Catalog, file: str, value: Value) -> None:
        self._catalog = catalog
        self._file = file
        self._value = value

    def case(self, name: str, line: int) -> Case:
        """Gives the test; where something is wrong, a harmless one."""
        entry = self._value.keys(("expect",), ("roles", "groups", "purpose", "ticket"))
        roles, groups = self._who(entry)
        ticket = entry["ticket"].keys((), _TICKET) if "ticket" in entry else {}
        known: Mapping[str, Iterable[str]] = {
            "purpose": self._catalog.purposes,
            "relation": Relation,
            "kind": self._catalog.ticket_kinds,
            "provenance": Provenance,
            "opened_by": OpenedBy,
            "presence": Presence,
        }
        values = {**({"purpose": entry["purpose"]} if "purpose" in entry else {}), **ticket}
        conditions = tuple(self._words(column, values.get(column), words) for column, words in known.items())
        if len(conditions) != len(CONDITIONS):  # the columns above are in the order of CONDITIONS
            raise AssertionError("a column is missing")
        expected = self._expected(entry["expect"]) if "expect" in entry else {}
        return Case(self._file, line, name, roles, groups, conditions, MappingProxyType(expected))

    def _who(self, entry: Mapping[str, Value]) -> tuple[tuple[frozenset[str], ...], frozenset[str]]:
        if ("roles" in entry) == ("groups" in entry):
            self._value.refuse("who", "a test names either 'roles' or 'groups'")
            return (), frozenset()
        if "groups" in entry:
            groups = entry["groups"].one_or_more()
            return (), frozenset(group.removeprefix(GROUP_PREFIX) for group in groups)
        words = entry["roles"].one_or_more()
        if EVERY not in words:
            return (frozenset(words),), frozenset()
        if words != [EVERY]:
            entry["roles"].refuse("who", f"{EVERY!r} stands alone")
        return (), frozenset()

    def _words(self, column: str, value: Value | None, known: Iterable[str]) -> tuple[str, ...]:
        if value is None:
            return ()
        words = value.one_or_more()
        if words == [ANY]:
            return ()
        names = [str(word) for word in known]
        for word in words:
            if word not in names:
                value.refuse(
                    f"unknown-{'ticket-kind' if column == 'kind' else column.replace('_', '-')}",
                    f"{column} is never {quoted(word)}; {nearest(word, [*names, ANY])}",
                )
        return tuple(words)

    def _expected(self, value: Value) -> dict[str, Expected]:
        expected: dict[str, tuple[int, Expected]] = {}
        levels = value.keys((), tuple(Expected))
        for level in Expected:
            for word in levels[level].one_or_more() if level in levels else ():
                closeness, fields = self._fields(levels[level], word)
                for field in fields:
                    close, other = expected.get(field, (-1, level))
                    if close == closeness and other is not level:
                        levels[level].refuse(
                            "contradiction", f"{field} is expected to be {other} and {level}"
                        )
                    elif close < closeness:
                        expected[field] = (closeness, level)
        if not expected:
            value.refuse("empty", "the test expects nothing")
        return {field: level for field, (_, level) in expected.items()}

    def _fields(self, value: Value, word: str) -> tuple[int, list[str]]:
        catalog = self._catalog
        if word == EVERY:
            return _CLOSE, list(catalog.fields)
        if word == SENSITIVE:
            fields = fields_of(catalog, catalog.sensitive_classes)
            return _CLOSE, fields or self._unknown(value, "no field class is marked sensitive")
        if word.startswith(CLASS):
            name = word.removeprefix(CLASS)
            fields = fields_of(catalog, [name])
            return _CLOSER, fields or self._unknown(
                value, f"no field is of class {quoted(name)}; {nearest(name, catalog.field_classes)}"
            )
        if word in catalog.fields:
            return _CLOSEST, [word]
        classes = [CLASS + name for name in catalog.field_classes]
        known = [*catalog.fields, *classes, EVERY, SENSITIVE]
        return _CLOSEST, self._unknown(value, f"there is no field {quoted(word)}; {nearest(word, known)}")

    @staticmethod
    def _unknown(value: Value, sentence: str) -> list[str]:
        value.refuse("unknown-field", sentence)
        return []
