"""The broker's signing keys: ES256 private keys in files, rotated without a restart.

Invariants:
- a key is published before it signs and verifies until every token it signed has run out;
- its state is computed from times in the manifest and the clock: nobody has to flip a switch;
- a private key is a file of mode 0600, never a row: the database's administrator is an adversary;
- whoever steals a private key can sign grants (which still need a row in the database to read with)
  until `KeyFolder.revoke` takes the key out of every process, within a second.
"""

from broker.keys.folder import KeyFolder, KeyInfo, KeyState, write_durably
from broker.keys.log import LogKeyFolder, LogKeys, Rotation
from broker.keys.signing import (
    ALGORITHM,
    FileSigner,
    Signer,
    SigningKeys,
    compact_length,
    published,
    sign_compact,
)

__all__ = [
    "ALGORITHM",
    "FileSigner",
    "KeyFolder",
    "KeyInfo",
    "KeyState",
    "LogKeyFolder",
    "LogKeys",
    "Rotation",
    "Signer",
    "SigningKeys",
    "compact_length",
    "published",
    "sign_compact",
    "write_durably",
]
