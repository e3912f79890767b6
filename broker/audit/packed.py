"""The notification pack: what it is made of, and how anybody checks it with the public key alone.

A ZIP archive:

    README.txt       what this is, in words
    manifest.txt     every other member with its digest; a note signed by the log's key (C2SP signed-note)
    checkpoint.txt   the log's signed checkpoint
    rotations.json   records of rotation that lead from the reader's key to the one that signed
    report.json      what was asked for, the counts, the class of each field
    customers.jsonl  one line a customer, by pseudonym
    leaves.jsonl     the ledger events, byte for byte, each with its place in the log
    nodes.jsonl      the hashes that lead from the leaves to the checkpoint's root

Invariants:
- nothing is read from a member before the signed manifest has told its length and digest;
- list and counts are not believed: they are made again from the leaves, and must be the same bytes;
- the pack proves that what it holds is on record, unchanged. That nothing was left out is what the broker
  signs; the whole log shows it (`broker audit verify`), a part of it cannot.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from broker.audit.exposed import Totals
from broker.audit.leaves import Told
from broker.merkle import inclusion_proof, leaf_hash, verify_inclusion
from broker.note import Note, NoteInvalidError, VerifierKey
from broker.tlog import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.proof import parse_rotations

MANIFEST, README, CHECKPOINT, ROTATIONS = "manifest.txt", "README.txt", "checkpoint.txt", "rotations.json"
REPORT, CUSTOMERS, LEAVES, NODES = "report.json", "customers.jsonl", "leaves.jsonl", "nodes.jsonl"
SIGNED = (README, CHECKPOINT, ROTATIONS, REPORT, CUSTOMERS, LEAVES, NODES)
"""The members whose digests the manifest tells, in its order."""

KIND = "support-access-broker/exposure-pack/v1"
"""First line of a manifest: no log has that name, so no manifest is a checkpoint."""

MOST_UNSIGNED = 8 << 20
"""Longest of what must be read before a signature is known: manifest, checkpoint, rotations."""

LONGEST_LINE = 8 << 20
"""Longest line of a member: a leaf, in base64."""

BLOCK = 1 << 16
STEP = 5000

ABOUT = """\
Notification pack of a support access broker: whose data was given out, and the proof of it.

customers.jsonl lists every customer by pseudonym: which fields were given out in clear, which masked, first
and last time, tickets (pseudonyms), purposes. report.json has the question and the counts. leaves.jsonl holds
the broker's ledger events behind it, nodes.jsonl the hashes that lead from each of them to the root that
checkpoint.txt signs (RFC 6962, C2SP tlog-checkpoint). manifest.txt has the SHA-256 digest and length of every
file and is signed by the broker's log key (C2SP signed-note).

Check it, offline, with the broker's public key that you got by a way of your own:

    broker audit verify-pack PACK --key log.pub

By hand: the digests of the files are those of the manifest; its signature and the checkpoint's hold; each
leaf's hash leads to the checkpoint's root; the counts are those of the leaves.

It proves that these events are on record, unchanged, and that the list follows from them. That no other event
belongs here is what the broker's signature says; the whole log shows it.
"""


class PackUnreadableError(LogInvalidError):
    """It is no archive at all."""


@dataclass(frozen=True, slots=True)
class PackVerdict:
    """A pack that holds."""

    origin: str
    size: int  # of the log
    create_time: str
    report: Mapping[str, Any]


def manifest_text(origin: str, create_time: str, digests: Mapping[str, tuple[str, int]]) -> str:
    """Writes what is signed."""
    lines = [f"{digest} {size} {name}" for name, (digest, size) in digests.items()]
    return "\n".join([KIND, origin, create_time, *lines]) + "\n"


def line(value: Mapping[str, Any]) -> bytes:
    """Writes one line of JSON in the one spelling that a pack has."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


def leaf_line(index: int, leaf: bytes) -> bytes:
    """Writes a leaf with its place in the log."""
    return line({"index": index, "leaf": base64.b64encode(leaf).decode()})


def node_line(lo: int, hi: int, digest: bytes) -> bytes:
    """Writes the hash over leaves lo to hi, without hi."""
    return line({"lo": lo, "hi": hi, "hash": base64.b64encode(digest).decode()})


def report_of(
    reads: int,
    unreadable: int,
    totals: Totals,
    selection: Mapping[str, str],
    classes: Mapping[str, str],
    checkpoint: Checkpoint,
) -> bytes:
    """Writes the report, after its customers were counted.

    Args:
        reads: that the leaves tell of, those that came to nothing too.
        unreadable: leaves that do not even tell whose data it was.
        totals: of the reads that gave something out.
        selection: what was asked for.
        classes: of the fields.
        checkpoint: under which the leaves are proved.
    """
    return line({
        "version": 1,
        "selection": dict(selection),
        "log": {"origin": checkpoint.origin, "size": checkpoint.size},
        "classes": dict(classes),
        "totals": totals.as_mapping(classes),
        "narrowed": reads - totals.reads,
        "unreadable_leaves": unreadable,
    })  # fmt: skip


def verify_pack(
    path: Path, anchors: Sequence[VerifierKey], progress: Callable[[str], None] = lambda _: None
) -> PackVerdict:
    """Checks a pack from beginning to end.

    Raises:
        PackUnreadableError: it is none, so there is nothing to check.
        LogInvalidError: it does not hold; says what.
        OSError: the file cannot be read.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as exc:
        raise PackUnreadableError("This is not a pack: it is no archive, or one that was cut off.") from exc
    try:
        with archive:
            return _Reader(archive, anchors, progress).verdict()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise LogInvalidError("The pack is damaged: a member is not what was packed.") from exc
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise LogInvalidError("The pack cannot be read: a member is not what it should be.") from exc


def listed(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Reads the report and the customers of a pack that one has made or fetched; nothing is checked."""

    def customers() -> Iterator[dict[str, Any]]:
        with zipfile.ZipFile(path) as archive, archive.open(CUSTOMERS) as member:
            yield from map(json.loads, member)

    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(REPORT)), customers()


class _Reader:
    def __init__(
        self, archive: zipfile.ZipFile, anchors: Sequence[VerifierKey], progress: Callable[[str], None]
    ) -> None:
        self._archive = archive
        self._progress = progress
        if sorted(archive.namelist()) != sorted((MANIFEST, *SIGNED)):
            raise LogInvalidError("The pack has other members than a pack has.")
        # (1) the keys, the checkpoint, and the manifest that they sign
        keys = TrustedKeys(anchors, parse_rotations(json.loads(self._small(ROTATIONS))))
        self._checkpoint = keys.open(self._small(CHECKPOINT))
        try:
            note = Note.parse(self._small(MANIFEST))
        except NoteInvalidError as exc:
            raise LogInvalidError("The manifest is not a signed note.") from exc
        if not note.verified_by(keys.at(self._checkpoint.size)):
            raise LogInvalidError("The manifest is not signed by the log's key.")
        kind, origin, self._create_time, *rest = note.text.rstrip("\n").split("\n")
        if kind != KIND or origin != self._checkpoint.origin:
            raise LogInvalidError("The manifest is of another log, or of another kind of pack.")
        told = [text.split(" ") for text in rest]
        self._digests = {name: (digest, int(size)) for digest, size, name in told}
        if tuple(self._digests) != SIGNED:
            raise LogInvalidError("The manifest does not name the pack's members.")

    def verdict(self) -> PackVerdict:
        # (2) the digests of all members
        for name in SIGNED:
            self._progress(f"Checking {name}")
            self._check(name)
        report = json.loads(b"".join(self._lines(REPORT)))
        # (3) each leaf leads to the checkpoint's root
        told = self._leaves(report["selection"])
        # (4) list and counts are those of the leaves
        self._progress("Counting again")
        totals = Totals()
        listed = self._lines(CUSTOMERS)
        for one in told.customers(totals, report["classes"]):
            if line(one) != next(listed, b""):
                raise LogInvalidError(f"The list differs from the leaves at customer {one['customer']}.")
        if next(listed, None) is not None:
            raise LogInvalidError("The list names a customer of whom no leaf tells.")
        again = report_of(
            len(told.reads), told.unreadable, totals, report["selection"], report["classes"], self._checkpoint
        )
        if line(report) != again:
            raise LogInvalidError("The counts are not those of the leaves.")
        return PackVerdict(self._checkpoint.origin, self._checkpoint.size, self._create_time, report)

    def _leaves(self, selection: Mapping[str, str]) -> Told:
        nodes = {}
        for text in self._lines(NODES):
            node = json.loads(text)
            nodes[node["lo"], node["hi"]] = base64.b64decode(node["hash"], validate=True)
        size, root = self._checkpoint.size, self._checkpoint.root
        told = Told()
        last = -1
        for count, text in enumerate(self._lines(LEAVES)):
            if count % STEP == 0:
                self._progress(f"Proving leaf {count:,}")
            told_leaf = json.loads(text)
            index, leaf = told_leaf["index"], base64.b64decode(told_leaf["leaf"], validate=True)
            if index <= last:
                raise LogInvalidError("A leaf is there twice, or out of its order.")
            last = index
            path = [nodes.get((part.lo, part.hi), b"") for part in inclusion_proof(index, size)]
            if not verify_inclusion(leaf_hash(leaf), index, size, path, root):
                raise LogInvalidError(f"Leaf {index} does not lead to the checkpoint's root.")
            if not told.add(leaf, selection):
                raise LogInvalidError(f"Leaf {index} does not belong to what was asked for.")
        return told

    def _small(self, name: str) -> str:
        with self._archive.open(name) as member:
            data = member.read(MOST_UNSIGNED + 1)
        if len(data) > MOST_UNSIGNED:
            raise LogInvalidError(f"{name} is too long.")
        return data.decode()

    def _check(self, name: str) -> None:
        digest, size = self._digests[name]
        found, length = hashlib.sha256(), 0
        with self._archive.open(name) as member:
            while length <= size and (block := member.read(BLOCK)):
                found.update(block)
                length += len(block)
        if length != size or found.hexdigest() != digest:
            raise LogInvalidError(f"{name} is not what the manifest says: it was changed.")

    def _lines(self, name: str) -> Iterator[bytes]:
        with self._archive.open(name) as member:
            yield from _split(member)


def _split(member: IO[bytes]) -> Iterator[bytes]:
    while text := member.readline(LONGEST_LINE + 1):
        if len(text) > LONGEST_LINE:
            raise LogInvalidError("A line of the pack is too long.")
        yield text
