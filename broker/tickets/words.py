"""The forms of ids and words that tickets are made of, and one strict reader for each.

Invariants:
- a value has exactly one spelling: NFC, printable, no blank edges; whatever else is refused, not mended;
- a refusal names the field and a fixed phrase, never the value.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import TypeVar

from broker.errors import RequestMalformedError
from broker.model import Agent

E = TypeVar("E", bound=StrEnum)

TICKET_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A ticket's id, as the contract in proto/broker/v1 states it."""

KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
"""A ticket's kind: a word that a policy can name."""

RESERVED_KINDS = frozenset({"any"})
"""What a rule writes for "whatever kind" can be no kind."""

MAX_CUSTOMER_ID = 128
MAX_ISSUER = 256  # as long as a setting may be
MAX_SUBJECT = 255  # OpenID Connect Core, 2


def refuse(field: str, phrase: str) -> RequestMalformedError:
    """Makes the refusal of one field."""
    return RequestMalformedError(cause=f"{field} {phrase}", field=field)


def read_ticket_id(value: object, field: str = "ticket_id") -> str:
    """Reads a ticket's id."""
    if not isinstance(value, str) or not TICKET_ID.fullmatch(value):
        raise refuse(field, "is no ticket id")
    return value


def read_customer_id(value: object, field: str = "customer_id") -> str:
    """Reads a customer's id; the catalog's key column decides later what type it has."""
    return _printable(value, field, MAX_CUSTOMER_ID)


def read_kind(value: object, field: str) -> str:
    """Reads a ticket kind; one that the catalog does not know matches no rule."""
    if not isinstance(value, str) or not KIND.fullmatch(value) or value in RESERVED_KINDS:
        raise refuse(field, "is no word for a kind")
    return value


def read_agent(issuer: object, subject: object, field: str) -> Agent:
    """Reads an agent; the issuer holds no `|`, which joins the two in the database."""
    name = _printable(issuer, f"{field}.issuer", MAX_ISSUER)
    if "|" in name or " " in name:
        raise refuse(f"{field}.issuer", "is no issuer")
    return Agent(name, _printable(subject, f"{field}.subject", MAX_SUBJECT))


def read_word(value: object, words: type[E], field: str) -> E:
    """Reads a member of an enum by its exact spelling."""
    if isinstance(value, str) and value in {word.value for word in words}:
        return words(value)
    raise refuse(field, f"is none of {', '.join(words)}")


def _printable(value: object, field: str, longest: int) -> str:
    # isprintable() is false for control, zero-width, direction marks, surrogates and every space but " ".
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= longest
        or not value.isprintable()
        or value != value.strip()
        or not unicodedata.is_normalized("NFC", value)
    ):
        raise refuse(field, f"is not 1 to {longest} printable characters in NFC")
    return value
