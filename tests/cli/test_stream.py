"""What `broker audit stream --append` does to a file before it asks anybody."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.audit.export import json_line
from broker.audit.siem import cef_line, ocsf_line
from broker.cli.audit.events import as_mapping
from broker.cli.audit.stream import TAIL, mended
from broker.client import LedgerEvent
from broker.errors import StartupError

FORMATS = {"jsonl": json_line, "ocsf": ocsf_line, "cef": cef_line}
FOREIGN = {
    "one line of JSON without an end": b'{"users":[{"name":"x","leaf_index":3,"sequence":3}]}',
    "the same with an end": b'{"users":[{"name":"x","leaf_index":3,"sequence":3}]}\n',
    "two megabytes without a line": b"\x00\x01" * TAIL,
    "text": b"Dear diary,\ntoday cn1=5\nand\n",
    "an unfinished line behind another's": b'{"leaf_index":1}\n{"event_id":"0',
    "blank lines": b"\n\n\n",
}


def line(form: str, index: int) -> bytes:
    """Writes an event as the stream does."""
    event = LedgerEvent(
        "019ab0c2-7a3e-7000-8000-3f1d5a2b9c44", index, datetime.now(UTC), "read", "released", "",
        'i|"leaf_index":99 "sequence":99 cn1=99', "desk", "c", "t", "", "0" * 32, "1", b"{}",
    )  # fmt: skip
    return FORMATS[form](as_mapping(event)).encode() + b"\n"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_that_is_no_stream_stays_as_it_is(tmp_path, form, what):
    """It is refused before a byte of it is touched."""
    path = tmp_path / "mine"
    path.write_bytes(FOREIGN[what])
    with pytest.raises(StartupError, match="mine"):
        mended(path, form, 0)
    assert path.read_bytes() == FOREIGN[what]


@pytest.mark.parametrize("form", FORMATS)
def test_another_formats_stream_stays_as_it_is(tmp_path, form):
    """Also its unfinished line."""
    path = tmp_path / "mine"
    for other in FORMATS.keys() - {form}:
        data = line(other, 0) + line(other, 1)[:20]
        path.write_bytes(data)
        with pytest.raises(StartupError):
            mended(path, form, 0)
        assert path.read_bytes() == data


@pytest.mark.parametrize("form", FORMATS)
def test_goes_on_behind_the_last_whole_line(tmp_path, form):
    """What is unfinished behind it goes; an empty file begins where it was asked to."""
    path = tmp_path / "mine"
    whole = line(form, 7) + line(form, 8)
    for rest in (b"", line(form, 9)[:1], line(form, 9)[:-1]):
        path.write_bytes(whole + rest)
        assert mended(path, form, 0) == 9
        assert path.read_bytes() == whole
    path.write_bytes(b"")
    assert [mended(path, form, first) for first in (4, None)] == [4, None]
