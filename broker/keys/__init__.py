"""The broker's signing keys: ES256 private keys in files, rotated without a restart.

Invariants:
- a key is published before it signs and verifies until every token it signed has run out;
- its state is computed from times in the manifest and the clock: nobody has to flip a switch;
- a private key is a file of mode 0600, never a row: the database's administrator is an adversary;
- whoever holds a private key can mint grants for `publish_lead` plus a grant's life after it was
  revoked nowhere: `KeyFolder.revoke` takes it out of every process within a second.
"""

from broker.keys.folder import KeyFolder, KeyInfo, KeyState
from broker.keys.signing import ALGORITHM, FileSigner, Signer, SigningKeys

__all__ = ["ALGORITHM", "FileSigner", "KeyFolder", "KeyInfo", "KeyState", "Signer", "SigningKeys"]
