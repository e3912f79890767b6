"""Who calls: the tool by its certificate, the agent by an access token, and whether they belong together.

Invariants:
- identity comes from the handshake's certificate and from a signed token, never from other metadata;
- whatever is wrong, the answer is one of two sentences; what it was is the log's and the ledger's;
- what is remembered is that a signature was good and how a certificate reads; times, deny list,
  keys and allow-lists are looked at on every call.
"""

from broker.authn.agent import AgentVerifier
from broker.authn.authority import Authorities
from broker.authn.caller import Authenticator
from broker.authn.clock import SteadyClock
from broker.authn.jwks import FileKeys, HttpsKeys, KeySource, open_sources
from broker.authn.person import PersonVerifier
from broker.authn.tool import RevokedSerials, ToolVerifier, peer_certificates

__all__ = [
    "AgentVerifier",
    "Authenticator",
    "Authorities",
    "FileKeys",
    "HttpsKeys",
    "KeySource",
    "PersonVerifier",
    "RevokedSerials",
    "SteadyClock",
    "ToolVerifier",
    "open_sources",
    "peer_certificates",
]
