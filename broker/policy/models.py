"""The models that this release can read: its own, which serves, and older ones, which are compared alone.

A model is known by the hash of its `model.conf`. What differs between releases is which facts a rule
may speak of; a rule of an older release says nothing about a fact that came later, so here it says
`any`, which is how it was decided.

Invariants:
- only this release's model serves: `decision.load` knows `SERVED` alone;
- an older model's rules are decided by stock Casbin with that model's own text, never with ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

from broker.policy.engine import MODEL_SHA256
from broker.policy.files import MODEL
from broker.policy.findings import Findings
from broker.policy.rules import CONDITIONS

Models = Mapping[str, tuple[str, ...]]
"""By the hash of a `model.conf`: its columns of facts, in the order of its request definition."""

SERVED: Models = MappingProxyType({MODEL_SHA256: CONDITIONS})
"""The model of this release, the only one that serves."""

KNOWN: Models = MappingProxyType({**SERVED})
"""The models that can be compared and replayed.

A release that changes the model moves the old hash here with its columns, so that versions from
before can still be compared and replayed.
"""


def check_model(text: str, models: Models, findings: Findings) -> tuple[str, ...]:
    """Gives the columns of a model; one that is not among the models is a finding."""
    digest = model_hash(text)
    if digest not in models:
        text = (
            f"the model belongs to the release; its sha256 must be {MODEL_SHA256}, not {digest}"
            if models is SERVED
            else f"no release known here has a model with sha256 {digest}; put back the model.conf of the "
            f"release that the policy was written for, or compare it with a broker of that release"
        )
        findings.add(MODEL, 1, "model-changed" if models is SERVED else "model-unknown", text)
    return models.get(digest, CONDITIONS)


def model_hash(text: str) -> str:
    """Names a model: the hex SHA-256 of its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
