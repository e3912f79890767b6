"""Syntax of requests: what every handler checks before it asks for anything.

Names a field in `BadRequest` and never quotes what it held.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.errors import RequestMalformedError

TICKET_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
WORD = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
"""Covers what policies name purposes and roles by and helpdesks kinds: what is in force can be asked for."""

FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\.[a-z][a-z0-9_]{0,63}", re.ASCII)
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,16384}", re.ASCII)
CUSTOMER_ID_LENGTH = 128
MOST_FIELDS = 64
"""Fields of one request; the widest catalog of a real helpdesk has fewer."""

MOST_PAGE = 100
DEFAULT_PAGE = 50
REASON_LENGTH = 500
FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)
LAST_TIME = datetime(2200, 1, 1, tzinfo=UTC)
"""Times that an event can have, generously."""


def ticket_id(text: str, field: str = "ticket_id") -> str:
    """Checks a ticket id."""
    if not TICKET_ID.fullmatch(text):
        raise RequestMalformedError(field=field, cause="ticket id")
    return text


def word(text: str, field: str) -> str:
    """Checks a word of the policy, as a purpose."""
    if not WORD.fullmatch(text):
        raise RequestMalformedError(field=field, cause="word")
    return text


def customer_id(text: str, field: str = "customer_id") -> str:
    """Checks a customer id; "" means "not named"."""
    if len(text) > CUSTOMER_ID_LENGTH or not _plain(text):
        raise RequestMalformedError(field=field, cause="customer id")
    return text


def field_names(names: Sequence[str], field: str = "fields") -> tuple[str, ...]:
    """Checks a list of field names: 1 to 64, each well-formed, each once; empty is never "all"."""
    names = tuple(names)  # of a protobuf's list, each look costs
    if not 1 <= len(names) <= MOST_FIELDS:
        raise RequestMalformedError(field=field, cause="number of fields")
    for index, name in enumerate(names):
        if not FIELD_NAME.fullmatch(name):
            raise RequestMalformedError(field=f"{field}[{index}]", cause="field name")
    if len(set(names)) != len(names):
        raise RequestMalformedError(field=field, cause="repeated field")
    return names


def uuid(text: str, field: str, version: int | None = None) -> UUID:
    """Checks a UUID in its one canonical spelling."""
    try:
        value = UUID(text)
    except ValueError:
        raise RequestMalformedError(field=field, cause="uuid") from None
    if str(value) != text or (version is not None and value.version != version):
        raise RequestMalformedError(field=field, cause="uuid")
    return value


def moment(message: Message, name: str, field: str) -> datetime | None:
    """Gives a message's time field; None where it is unset."""
    stamp: Timestamp = getattr(message, name)
    if not message.HasField(name):
        return None
    try:
        found = stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RequestMalformedError(field=field, cause="time") from None
    if not FIRST_TIME <= found < LAST_TIME:
        raise RequestMalformedError(field=field, cause="time")
    return found


def bounded(text: str, field: str, most: int) -> str:
    """Checks a required text for length and for characters that hide."""
    if not 1 <= len(text) <= most or not _plain(text):
        raise RequestMalformedError(field=field, cause="text")
    return text


def token(text: str, field: str) -> str:
    """Checks that a text could be a compact JWS; the signature's check says whether it is one."""
    if not TOKEN.fullmatch(text):
        raise RequestMalformedError(field=field, cause="token")
    return text


def page_size(number: int) -> int:
    """Checks a page size; 0 means the default."""
    if not 0 <= number <= MOST_PAGE:
        raise RequestMalformedError(field="page_size", cause="page size")
    return number or DEFAULT_PAGE


def _plain(text: str) -> bool:
    """Tells whether a text is NFC, trimmed, and free of control, format and surrogate characters."""
    return (
        text == text.strip()
        and unicodedata.is_normalized("NFC", text)
        and not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for char in text)
    )
