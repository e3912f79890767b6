"""The table of errors in `broker/README.md`, made from the classes: `python -m tests.rpc.error_table`."""

from __future__ import annotations

import re
from pathlib import Path

from broker.errors import CATALOGUE
from broker.v1 import error_reason_pb2

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "broker" / "README.md"
BEGIN, END = "<!-- errors:begin -->", "<!-- errors:end -->"
PREFIX = "ERROR_REASON_"

HEADING = """# Inside the broker

## Errors

Every refusal of our code is a `google.rpc.Status` with an `ErrorInfo` (domain `broker.v1`, the reason, and
the `decision_id` in its metadata) and, where a field of the request is wrong, a `BadRequest` that names it.
What grpc refuses before our code sees it (a handshake, a message over the port's limit, an unknown method
on the access port) has a code and no details. The table is made from `errors.py`:
`python -m tests.rpc.error_table`.

"""


def reasons() -> list[str]:
    """Lists the reasons of the contract, in its order."""
    values = error_reason_pb2.ErrorReason.DESCRIPTOR.values
    return [value.name.removeprefix(PREFIX) for value in values if value.number]


def table() -> str:
    """Writes the table, in the contract's order."""
    rows = ["| reason | gRPC code | what the caller reads |", "|---|---|---|"]
    rows += [f"| `{name}` | `{CATALOGUE[name].code}` | {CATALOGUE[name]().sentence} |" for name in reasons()]
    return "\n".join([BEGIN, *rows, END])


def filled(text: str) -> str:
    """Puts the table between its marks; adds the section where there is none."""
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{HEADING}{table()}\n".lstrip()
    return re.sub(f"{BEGIN}.*?{END}", lambda _: table(), text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(filled(README.read_text("utf-8") if README.exists() else ""), "utf-8")
