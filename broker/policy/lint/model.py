"""Says what differs in `model.conf`; that it differs is the hash's to say (`engine.check_model`).

Nothing here parses for Casbin or runs anything: the file is cut into words, and every word that the
release's model does not use is named with its line.

Invariants:
- the release's own model gives no finding;
- a call is `g` or `g2`; an operator is `==`, `&&` or `||`; a name is a column of the request or a rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from broker.policy.files import MODEL, unwanted_character
from broker.policy.findings import Findings, nearest, quoted
from broker.policy.lines import MAX_LINE
from broker.policy.rules import CONDITIONS

MAX_MODEL_LINE = 4 * MAX_LINE
"""Most characters of a line that are looked at; the release's matcher has 700."""

_REQUEST = ("sub", *CONDITIONS, "field", "level")
_RULE = ("role", *CONDITIONS, "field", "level", "eft")

DEFINITIONS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "request_definition": {"r": ", ".join(_REQUEST)},
        "policy_definition": {"p": ", ".join(_RULE)},
        "role_definition": {"g": "_, _", "g2": "_, _"},
        "policy_effect": {"e": "some(where (p.eft == allow)) && !some(where (p.eft == deny))"},
        "matchers": {"m": ""},
    }
)
"""The sections of the release's model, their keys and values; the matcher is compared part by part."""

PARTS = frozenset(
    {f'(p.{name} == "any" || p.{name} == r.{name})' for name in (*CONDITIONS, "level")}
    | {'(p.role == "any" || g(r.sub, p.role))', '(p.field == "any" || g2(r.field, p.field))'}
)
"""The parts of the release's matcher, joined by `&&`."""

_CODE = ", which runs text as code"
_PATTERN = ": a pattern, which matches more than it names; words are compared exactly here"
_CALLS = {
    "eval": _CODE,
    "exec": _CODE,
    "regexmatch": ": a regular expression: without anchors it matches more than it names, and one like "
    "(a+)+$ runs for hours",
    "keymatch": _PATTERN,
    "keyget": _PATTERN,
    "globmatch": _PATTERN,
    "ipmatch": ": addresses, which no rule speaks of",
}
_WORDS = re.compile(r'"any"|[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*|==|&&|\|\||[(),]')
_NAMES = frozenset({f"r.{name}" for name in _REQUEST} | {f"p.{name}" for name in _RULE})


def check_words(text: str, findings: Findings) -> None:
    """Names what the release's model does not have."""
    section = ""
    seen: set[tuple[str, str]] = set()
    for number, line in _lines(text, findings):
        if line.startswith("["):
            section = line.strip("[]")
            if section not in DEFINITIONS:
                findings.add(
                    MODEL,
                    number,
                    "model-section",
                    f"the model has no section {quoted(line)}; {nearest(section, DEFINITIONS)}",
                )
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        known = DEFINITIONS.get(section)
        if not equals:
            findings.add(
                MODEL, number, "model-line", f"{quoted(line)} is no section, no comment and no 'key = value'"
            )
        elif known is not None and _key_is_good(number, section, key, seen, findings):
            seen.add((section, key))
            _check_value(number, section, key, value, findings)
    for name, keys in DEFINITIONS.items():
        for key in keys:
            if (name, key) not in seen:
                findings.add(MODEL, 1, "model-missing", f"'{key} = …' is missing in section [{name}]")


def _key_is_good(number: int, section: str, key: str, seen: set[tuple[str, str]], findings: Findings) -> bool:
    known = DEFINITIONS[section]
    if key not in known:
        sentence = f"section [{section}] has no key {quoted(key)}; {nearest(key, known)}"
    elif (section, key) in seen:
        sentence = f"the key {quoted(key)} stands here twice"
    else:
        return True
    findings.add(MODEL, number, "model-key", sentence)
    return False


def _lines(text: str, findings: Findings) -> Iterator[tuple[int, str]]:
    """Gives the lines that say something."""
    for number, line in enumerate(text.split("\n"), 1):
        if found := unwanted_character(line):
            findings.add(MODEL, number, found[0], f"the line holds {found[1]}")
        elif len(line) > MAX_MODEL_LINE:
            findings.add(
                MODEL, number, "line-too-long", f"the line is longer than {MAX_MODEL_LINE} characters"
            )
        elif (stripped := line.strip()) and stripped[0] not in "#;":
            yield number, stripped


def _check_value(number: int, section: str, key: str, value: str, findings: Findings) -> None:
    if comment := re.search(r"[#;]", value):
        findings.add(
            MODEL,
            number,
            "model-comment",
            f"a comment sign {comment.group()} stands in the value; Casbin drops what is behind it",
        )
    elif value.endswith("\\"):
        findings.add(MODEL, number, "model-continuation", "the value goes on in the next line")
    elif section == "matchers":
        _check_matcher(number, value, findings)
    elif " ".join(value.split()) != DEFINITIONS[section][key]:
        findings.add(
            MODEL,
            number,
            "model-definition",
            f"'{key}' is {quoted(value)}; in this release it is '{DEFINITIONS[section][key]}'",
        )


def _check_matcher(number: int, matcher: str, findings: Findings) -> None:
    """Names calls, words and operators beyond the few there are; then missing and added parts."""
    before = len(findings)
    if strange := _WORDS.sub(" ", matcher).split():
        findings.add(
            MODEL,
            number,
            "model-operator",
            f"the matcher holds {', '.join(quoted(word) for word in dict.fromkeys(strange))}; it compares "
            'with ==, joins with && and ||, and knows one constant, "any"',
        )
    for match in _WORDS.finditer(matcher):
        word = match.group()
        if word[0] != "_" and not word[0].isalpha():
            continue
        if not matcher[match.end() :].lstrip().startswith("("):
            if word not in _NAMES:
                sentence = f"the matcher names {quoted(word)}; {nearest(word, _NAMES)}"
                findings.add(MODEL, number, "model-word", sentence)
        elif word not in {"g", "g2"}:
            findings.add(MODEL, number, "model-call", f"the matcher calls {quoted(word)}{_about(word)}")
    if not _balanced(matcher):
        findings.add(MODEL, number, "model-bracket", "the matcher's brackets do not match")
    if len(findings) == before:
        _check_parts(number, matcher, findings)


def _balanced(matcher: str) -> bool:
    depth = 0
    for sign in re.findall(r"[()]", matcher):
        depth += 1 if sign == "(" else -1
        if depth < 0:
            return False
    return depth == 0


def _about(word: str) -> str:
    for beginning, about in _CALLS.items():
        if word.casefold().startswith(beginning):
            return about
    return "; it may call g and g2 alone"


def _check_parts(number: int, matcher: str, findings: Findings) -> None:
    parts = {" ".join(part.split()) for part in matcher.split("&&")}
    for part in sorted(PARTS - parts):
        findings.add(MODEL, number, "model-matcher", f"the matcher lacks the part {part}")
    for part in sorted(parts - PARTS):
        findings.add(MODEL, number, "model-matcher", f"the matcher has a part of its own: {quoted(part)}")
