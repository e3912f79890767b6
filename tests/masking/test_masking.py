from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalog import Mask
from broker.masking import HIDDEN, LONGEST, mask

CASES = {
    "an address shows first letters and top-level domain": (Mask.EMAIL, "alice@example.com", "a•••@e•••.com"),
    "subdomains are hidden": (Mask.EMAIL, "alice@mail.example.co.uk", "a•••@m•••.uk"),
    "a name of two letters shows none": (Mask.EMAIL, "al@example.com", "•••@e•••.com"),
    "a domain of two letters shows none": (Mask.EMAIL, "alice@ex.com", "a•••@•••.com"),
    "an address that starts with a digit hides it": (Mask.EMAIL, "4711@example.com", "•••@e•••.com"),
    "two @ are no address": (Mask.EMAIL, "a@b@example.com", HIDDEN),
    "no domain is no address": (Mask.EMAIL, "alice", HIDDEN),
    "a numeric top-level domain is none": (Mask.EMAIL, "alice@10.0.0.1", HIDDEN),
    "a quoted name is not taken apart": (Mask.EMAIL, '"alice b"@example.com', HIDDEN),
    "a line break hides all": (Mask.EMAIL, "alice@example.com\n", HIDDEN),
    "a phone shows two digits": (Mask.PHONE, "+49 (711) 28-42 222", "•••22"),
    "a short number shows none": (Mask.PHONE, "110 112", HIDDEN),
    "letters hide the whole number": (Mask.PHONE, "call 0711 2842222", HIDDEN),
    "other scripts' digits show none": (Mask.PHONE, "٠٧١١٢٨٤٢٢٢٢", HIDDEN),
    "a card shows four": (Mask.TAIL, "4111 1111 1111 1234", "•••1234"),
    "an IBAN shows four": (Mask.TAIL, "DE89-3704-0044-0532-0130-00", "•••3000"),
    "seven characters show none": (Mask.TAIL, "1234567", HIDDEN),
    "blanks do not make it long": (Mask.TAIL, "1 2 3 4 5", HIDDEN),
    "other characters hide all": (Mask.TAIL, "4111_1111_1111_1234", HIDDEN),
    "a date shows the year": (Mask.DATE, "1980-02-29", "1980-••-••"),
    "a time shows the year": (Mask.DATE, "2021-01-01 00:00:00+00", "2021-••-••"),
    "a day that never was shows none": (Mask.DATE, "1981-02-29", HIDDEN),
    "PostgreSQL's infinity shows none": (Mask.DATE, "infinity", HIDDEN),
    "a year before Christ shows none": (Mask.DATE, "0044-03-15 BC", HIDDEN),
    "text shows its first letter": (Mask.TEXT, "Alice Liddell", "A•••"),
    "two letters show none": (Mask.TEXT, "Al", HIDDEN),
    "a digit in front shows none": (Mask.TEXT, "4111 called", HIDDEN),
    "an accent stays with its letter": (Mask.TEXT, "E\u0301milie", "É•••"),
    "half a grapheme is not shown": (Mask.TEXT, "क\u094dष Rao", HIDDEN),
    "an emoji family is not taken apart": (Mask.TEXT, "👩\u200d👧 Smith", HIDDEN),
    "no text shows that there is a value": (Mask.TEXT, "", HIDDEN),
}


@pytest.mark.parametrize("case", CASES)
def test_shows(case: str):
    """Each mask shows what its row in the module says."""
    kind, value, expected = CASES[case]

    assert mask(kind, value) == expected


@pytest.mark.parametrize("kind", Mask)
def test_none_stays_none(kind: Mask):
    """Where there is no value there is nothing to mask."""
    assert mask(kind, None) is None


@pytest.mark.parametrize("kind", Mask)
def test_long_values_show_nothing(kind: Mask):
    """A value beyond any shape is hidden whole, without being looked at."""
    assert mask(kind, "a" * (LONGEST + 1)) == HIDDEN


def shown(masked: str) -> list[str]:
    """Gives what a masked value lets through: what lies between the bullets and fixed signs."""
    return [part for part in re.split(r"[•@.-]+", masked) if part]


EMAILS = st.emails()
PHONES = st.from_regex(r"\A\+?[0-9]{1,3}[ -]?(\([0-9]{2,4}\))?[0-9 -]{4,12}\Z")
CARDS = st.from_regex(r"\A([0-9]{4}[ -]?){3}[0-9]{4}\Z")
DATES = st.dates().map(str) | st.datetimes().map(str)
ANY = st.text() | EMAILS | PHONES | CARDS | DATES

MOST = {Mask.EMAIL: 24, Mask.PHONE: 2, Mask.TAIL: 4, Mask.DATE: 4, Mask.TEXT: 1}
"""Longest run of the value that each mask may show; an address's is its top-level domain."""


@given(kind=st.sampled_from(Mask), value=ANY)
def test_never_more_than_promised(kind: Mask, value: str):
    """Whatever comes in, no run of it longer than the promise comes out."""
    masked = mask(kind, value)

    assert masked is not None
    assert HIDDEN in masked or "••" in masked
    for part in shown(masked):
        assert len(part) <= MOST[kind]
        assert part in re.sub(r"[() ./-]", "", unicodedata.normalize("NFC", value))  # punctuation aside


@given(value=EMAILS)
def test_an_address_shows_nothing_between(value: str):
    """Of an address only two letters and the top-level domain are left, in this form alone."""
    masked = mask(Mask.EMAIL, value)

    assert re.fullmatch(r"•••|\w?•••@\w?•••\.[a-zA-Z]{2,24}", masked or "")
    if masked != HIDDEN:
        assert (masked or "").rsplit(".", 1)[1] == value.rsplit(".", 1)[1]


@given(kind=st.sampled_from(Mask), value=ANY)
def test_twice_shows_no_more(kind: Mask, value: str):
    """Masking a masked value shows the same or less."""
    once = mask(kind, value)
    twice = mask(kind, once)

    assert twice in {once, HIDDEN}


@given(first=st.text("abc", min_size=3, max_size=50), second=st.text("abc", min_size=3, max_size=50))
def test_the_length_does_not_show(first: str, second: str):
    """Two texts with the same first letter look the same, however long they are."""
    assert (mask(Mask.TEXT, "x" + first)) == (mask(Mask.TEXT, "x" + second))
