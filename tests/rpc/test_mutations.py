"""Right requests with something turned in them, at random but seeded: an answer of the catalogue, each time.

What single fields may not hold is in the contract's rows; here are the values that nobody thought of, and
several at once. Whatever the broker says to them, it is not INTERNAL, nobody's child process dies of it, and
the next right call is answered.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from tests.rpc.contract import HIDDEN, NAMES, TEXTS, caller
from tests.rpc.test_contract import CONTRACT, RPCS

pytestmark = pytest.mark.asyncio(loop_scope="session")

MUTANTS = 12
NEVER = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
SLOW = 4
"""Mutants of what takes long to answer rightly: an examination of a policy, a replay."""

WORDS = (
    *HIDDEN.values(), *NAMES.values(), *TEXTS,
    "customer.email", "billing", "resolve-ticket", "no-such", "1", "0", "-1", "9" * 30, "null", "{}", "p, g",
    str(uuid.UUID(int=0)), str(uuid.UUID(int=(1 << 128) - 1)), "0198c5f0-0000-7000-8000-000000000000",
    "\ud7ff", "\U0010ffff", "%s%n", "${jndi}", "=1+1", "a" * 3000,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 99, 100, 101, 2**31 - 1, -(2**31))
LONGS = (*NUMBERS, 2**53, 2**63 - 1, -(2**63), 253_402_300_799, 1_700_000_000)

DRAWN: dict[int, Callable[[random.Random], Any]] = {
    Field.TYPE_STRING: lambda r: r.choice(WORDS) + (r.choice(WORDS) if r.random() < 0.2 else ""),
    Field.TYPE_BYTES: lambda r: r.randbytes(r.choice((0, 1, 16, 31, 32, 33, 4000))),
    Field.TYPE_BOOL: lambda r: r.random() < 0.5,
    **dict.fromkeys((Field.TYPE_INT32, Field.TYPE_SINT32), lambda r: r.choice(NUMBERS)),
    **dict.fromkeys((Field.TYPE_INT64, Field.TYPE_SINT64), lambda r: r.choice(LONGS)),
    **dict.fromkeys((Field.TYPE_UINT32,), lambda r: abs(r.choice(NUMBERS[:-1]))),
    **dict.fromkeys((Field.TYPE_UINT64,), lambda r: abs(r.choice(LONGS[:-1]))),
}


def turn(message: Message, draw: random.Random) -> None:
    """Turns one field of a message, or of a message in it."""
    field = draw.choice(message.DESCRIPTOR.fields)
    if draw.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        entries = getattr(message, field.name)
        key = draw.choice([*entries, draw.choice(WORDS)])
        if field.message_type.fields_by_name["value"].type == Field.TYPE_STRING:
            entries[key] = cut(entries[key], draw) if key in entries else draw.choice(WORDS)
    elif field.message_type is not None:
        held = getattr(message, field.name)
        turn(held.add() if field.is_repeated else held, draw)
    elif field.is_repeated:
        held = getattr(message, field.name)
        held.extend(DRAWN[field.type](draw) for _ in range(draw.choice((1, 2, 3, 70))))
    else:
        setattr(message, field.name, DRAWN[field.type](draw))


def cut(text: str, draw: random.Random) -> str:
    """Takes a piece out of a text, or puts a word into it."""
    start = draw.randrange(len(text) + 1)
    return text[:start] + draw.choice(WORDS)[:50] + text[start + draw.choice((0, 1, 20)) :]


@pytest.mark.attack("B4", "B6")
@pytest.mark.parametrize("name", sorted(name for name, method in RPCS.items() if method.input_type.fields))
async def test_mutants(company, name):
    """No mutant finds a way past the catalogue, and the right request is answered after all of them."""
    rpc, draw = CONTRACT[name], random.Random(name)
    right = await rpc.right(company)
    async with caller(company, rpc) as peer:
        for number in range(SLOW if rpc.seconds > 5 else MUTANTS):
            mutant = type(right)()
            mutant.CopyFrom(right)
            for _ in range(draw.choice((1, 1, 2, 4))):
                turn(mutant, draw)
            if name == "AuditService/StreamEvents":
                mutant.follow = False  # it would go on until the deadline
            answer = await peer.call(name, mutant, stream=rpc.stream, timeout=max(rpc.seconds, 20))
            assert answer.code not in NEVER, (number, answer)

        again = await peer.call(name, await rpc.right(company), stream=rpc.stream, timeout=rpc.seconds)
        assert again.code == "OK"
