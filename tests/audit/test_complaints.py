"""What a complaint file may hold; what is not used is told, never guessed and never quoted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.audit.complaints import MOST, MOST_BYTES, ComplaintFileError, read_complaints

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KNOWN = ("customer.name", "customer.email", "customer.phone")
HEADER = "kind,identifier,contact_time,fields\n"


def read(text: str | bytes):
    """Reads lines below the usual header."""
    data = text if isinstance(text, bytes) else (HEADER + text).encode()
    return read_complaints(data, now=NOW, known=KNOWN)


def test_every_kind():
    """Kinds told or evident, times with zones or days, fields between blanks or bars."""
    found = read(
        "email,ada@example.org,2026-11-03T10:15:00+01:00,customer.name customer.phone\n"
        ",bob@example.org,2026-11-04,customer.name|customer.email\n"
        ",+44 20 7946 0018,2026-11-05T08:00:00Z,\n"
        "customer,C-1,2026-11-05,\n\n"
        'ticket,"T-1",2026-11-05,\n'
    )
    assert found.unused == ()
    assert [(c.line, c.kind) for c in found.used] == [
        (2, "email"), (3, "email"), (4, "phone"), (5, "customer"), (7, "ticket"),
    ]  # fmt: skip
    assert found.used[0].contact == datetime(2026, 11, 3, 9, 15, tzinfo=UTC)
    assert found.used[1].contact == datetime(2026, 11, 4, tzinfo=UTC)
    assert found.used[1].fields == {"customer.name", "customer.email"}
    assert found.used[2].fields == frozenset()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (",1042,2026-11-03,", "cannot tell what the identifier is"),
        (",020 7946 0018,2026-11-03,", "cannot tell what the identifier is"),
        ("mail,a@b.c,2026-11-03,", "kind is none of"),
        ("email,a at b,2026-11-03,", "not an e-mail address"),
        ("email,a@b@c.d,2026-11-03,", "not an e-mail address"),
        ("phone,call me,2026-11-03,", "not a telephone number"),
        ("email,,2026-11-03,", "no identifier"),
        (f"customer,{'x' * 321},2026-11-03,", "too long"),
        ("email,a@b.c,2026-11-26,", "in the future"),
        ("email,a@b.c,2026-11-25T12:00:01Z,", "in the future"),
        ("email,a@b.c,2026-11-25T09:00:00,", "without its zone"),
        ("email,a@b.c,03.11.2026,", "no ISO 8601 date"),
        ("email,a@b.c,0001-01-01T00:00:00+23:59,", "no ISO 8601 date"),
        ("email,a@b.c,1999-12-31,", "before the year 2000"),
        ("email,a@b.c,,", "no ISO 8601 date"),
        ("email,a@b.c,2026-11-03", "3 values for 4 columns"),
        ("email,a@b.c,2026-11-03,,,", "6 values for 4 columns"),
        ('email,"a@b.c,2026-11-03,', "not CSV"),
        ("email,a@b.c,2026-11-03,shoe size", "full names of the catalog"),
        ("email,a@b.c,2026-11-03,customer.shoes", "nobody was ever given any of its fields"),
        ("email,a\x00@b.c,2026-11-03,", "not UTF-8 text"),
        ("email,a\x1b[31m@b.c,2026-11-03,", "not UTF-8 text"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(line, why):
    """Each is left out with its number; the next line is used all the same, and nothing of it is quoted."""
    found = read(f"{line}\nemail,next@example.org,2026-11-03,\n")
    assert [c.line for c in found.used] == [3]
    [unused] = found.unused
    assert unused.line == 2
    assert why in unused.why
    assert "@" not in unused.why


def test_a_line_in_another_encoding():
    """A line that is not UTF-8 is left out; those around it are used."""
    found = read(
        HEADER.encode()
        + "email,jürgen@example.org,2026-11-03,\n".encode("latin-1")
        + b"customer,C-1,2026-11-03,\n"
    )
    assert [(u.line, u.why) for u in found.unused] == [(2, "not UTF-8 text")]
    assert [c.line for c in found.used] == [3]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"a@b.c,2026-11-03\n", "does not name the columns"),
        (b"identifier,contact_time,surprise\n", "does not name the columns"),
        (b"identifier,identifier,contact_time\n", "does not name the columns"),
        (HEADER.encode("utf-16"), "does not name the columns"),
        (b"x" * (MOST_BYTES + 1), "split it"),
    ],
    ids=["empty", "blank", "no header", "strange column", "twice", "UTF-16", "huge"],
)
def test_a_file_that_is_none(data, why):
    """Empty, huge, without columns, or in another encoding: refused as a whole, with what to do."""
    with pytest.raises(ComplaintFileError, match=why):
        read(data)


def test_a_header_alone_is_no_complaint():
    """A file without lines is read as what it is."""
    assert read("").used == ()


def test_spreadsheets_write_semicolons_and_marks():
    """A byte order mark, semicolons, other order and capital letters in the header are all the same."""
    found = read(b"\xef\xbb\xbfContact_Time;Identifier\r\n2026-11-03;a@b.c\r\n")
    assert [(c.kind, c.identifier) for c in found.used] == [("email", "a@b.c")]


def test_what_is_told_twice_counts_once():
    """The same identifier in other letters or blanks is a repeat, of the line that it names."""
    found = read("email,a@b.c,2026-11-03,\nemail, A@B.C ,2026-11-04,\ncustomer,a@b.c,2026-11-03,\n")
    assert [c.line for c in found.used] == [2, 4]
    assert [(u.line, u.why) for u in found.unused] == [(3, "the same identifier as line 2")]


def test_beyond_the_most_is_told():
    """No more than one question holds is used; the rest is listed."""
    found = read("".join(f"customer,C-{i},2026-11-03,\n" for i in range(MOST + 3)))
    assert len(found.used) == MOST
    assert [u.line for u in found.unused] == [MOST + 2, MOST + 3, MOST + 4]


def test_a_field_that_nobody_was_given_is_left_out_of_the_line():
    """The others still count, and the answer says how many did not: what they are is the file's text."""
    found = read("email,a@b.c,2026-11-03,customer.name ada.lovelace\n")
    assert [c.fields for c in found.used] == [{"customer.name"}]
    assert [u.why for u in found.unused] == [
        "used without 1 of its fields: nobody was ever given them in clear"
    ]


def test_no_repr_shows_an_identifier():
    """A log line or a traceback of a complaint holds nobody's address."""
    assert "ada" not in repr(read("email,ada@example.org,2026-11-03,\n"))
