"""A strict subset of YAML: mappings, lists and plain values, each with its line.

Parsing is PyYAML's safe loader's; this adds what it lets through: duplicate keys, anchors, aliases,
tags, several documents, unknown keys, `yes` for true, `1:30` and `0o17` for numbers.

Invariants:
- nothing is constructed but text, whole numbers, booleans, lists and mappings;
- every value is asked for with its type, and a mapping with the keys it may have;
- whatever is refused is a finding with file and line, and a harmless value stands in for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import yaml

from broker.policy.findings import Findings, nearest, quoted
from broker.policy.lines import YAML_END, read_text

MAX_DEPTH = 8
"""Deepest nesting; the catalog needs 5, and PyYAML composes by recursion."""

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_TAG = "tag:yaml.org,2002:"


class Value:
    """One node of a document, with the means to ask it for what it should be."""

    def __init__(self, name: str, node: yaml.Node, findings: Findings) -> None:
        """Wraps a node of the named file."""
        self._name = name
        self._node = node
        self._findings = findings

    @property
    def line(self) -> int:
        """Gives the line where the value begins."""
        return self._node.start_mark.line + 1

    def telling(self, findings: Findings) -> Value:
        """Gives the same node, which says elsewhere what is wrong with it."""
        return Value(self._name, self._node, findings)

    def refuse(self, name: str, sentence: str) -> None:
        """Adds a finding about this value."""
        self._findings.add(self._name, self.line, name, sentence)

    def text(self) -> str:
        """Gives the value as text that is not blank."""
        if not self._is("str", "text"):
            return ""
        text = str(self._node.value)
        if not text.strip():
            self.refuse("blank-value", "the text is blank")
        return text

    def number(self, least: int, most: int) -> int:
        """Gives the value as a whole number within bounds."""
        if not self._is("int", "a whole number"):
            return least
        text = str(self._node.value)
        if not _NUMBER.fullmatch(text):
            self.refuse("wrong-type", f"write the number {quoted(text)} with decimal digits only")
            return least
        if not least <= int(text) <= most:
            self.refuse("out-of-range", f"{text} is not between {least} and {most}")
            return least
        return int(text)

    def flag(self) -> bool:
        """Gives the value as `true` or `false`, spelt like that."""
        if not self._is("bool", "true or false"):
            return False
        if self._node.value not in {"true", "false"}:
            self.refuse("wrong-type", f"write true or false, not {self._node.value}")
        return bool(self._node.value == "true")

    def texts(self) -> list[str]:
        """Gives the value as a list of texts without repetition."""
        if not isinstance(self._node, yaml.SequenceNode):
            self.refuse("wrong-type", "this must be a list: [a, b, …]")
            return []
        texts: list[str] = []
        for node in self._node.value:
            value = Value(self._name, node, self._findings)
            text = value.text()
            if text in texts:
                value.refuse("duplicate", f"{quoted(text)} stands here twice")
            texts.append(text)
        return texts

    def one_or_more(self) -> list[str]:
        """Gives the value as a list of texts that is not empty, of one where it is a plain text."""
        if isinstance(self._node, yaml.SequenceNode) and not self._node.value:
            self.refuse("empty", "the list is empty")
        return [self.text()] if isinstance(self._node, yaml.ScalarNode) else self.texts()

    def items(self) -> Iterator[tuple[str, Value, Value]]:
        """Gives the entries of a mapping: the key as text, the key, the value; each key once."""
        if not isinstance(self._node, yaml.MappingNode):
            self.refuse("wrong-type", "this must be a mapping: key: value")
            return
        seen: set[str] = set()
        for key_node, node in self._node.value:
            key = Value(self._name, key_node, self._findings)
            text = key.text()
            if text in seen:
                key.refuse("duplicate-key", f"{quoted(text)} stands here twice")
            elif text:
                seen.add(text)
                yield text, key, Value(self._name, node, self._findings)

    def keys(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, Value]:
        """Gives the values of a mapping that has all required keys and none beyond the optional ones."""
        found: dict[str, Value] = {}
        for text, key, value in self.items():
            if text in required or text in optional:
                found[text] = value
            else:
                key.refuse(
                    "unknown-key", f"there is no key {quoted(text)}; {nearest(text, {*required, *optional})}"
                )
        if isinstance(self._node, yaml.MappingNode):
            for missing in (key for key in required if key not in found):
                self.refuse("missing-key", f"the key {missing!r} is missing")
        return found

    def _is(self, tag: str, words: str) -> bool:
        if isinstance(self._node, yaml.ScalarNode) and self._node.tag == _TAG + tag:
            return True
        hint = "; put quotes around it" if tag == "str" and isinstance(self._node, yaml.ScalarNode) else ""
        self.refuse("wrong-type", f"this must be {words}{hint}")
        return False


def read_yaml(name: str, text: str, findings: Findings) -> Value | None:
    """Parses one document, or gives None where it is not worth asking anything of it."""
    if read_text(name, text, YAML_END, findings) is None:
        return None
    try:
        if not _plain(name, text, findings):
            return None
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        findings.add(name, line, "syntax", f"is not YAML: {exc.problem or exc.context}")
        return None
    except yaml.YAMLError:
        findings.add(name, 1, "syntax", "is not YAML")
        return None
    return Value(name, node, findings) if node else None


def _plain(name: str, text: str, findings: Findings) -> bool:
    """Looks through the events, which nest without recursion, before anything is composed."""
    before = len(findings)
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                findings.add(name, line, "several-documents", "a second document begins here")
                return False
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            findings.add(
                name, line, "alias", "anchors and aliases (& and *) are not used here; write the value out"
            )
        elif getattr(event, "tag", None):
            findings.add(name, line, "tag", "tags (!) are not used here")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                findings.add(name, line, "too-deep", f"nests deeper than {MAX_DEPTH} levels")
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    if not documents:
        findings.add(name, 1, "empty", "the file says nothing")
    return len(findings) == before
