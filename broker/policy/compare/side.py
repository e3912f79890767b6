"""One side of a comparison: a policy and what people call it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from broker.policy.decision import Policy, load_known
from broker.policy.files import PolicyFiles
from broker.policy.models import KNOWN, Models


@dataclass(frozen=True)
class Side:
    """A policy by the name that an answer uses for it: a folder, or a version."""

    name: str
    policy: Policy

    @classmethod
    def of_files(
        cls, name: str, files: PolicyFiles, models: Models = KNOWN, *, today: date | None = None
    ) -> Side:
        """Loads one side, which may be of an older release; both sides want the same day.

        Raises:
            PolicyInvalidError: with every finding; an unknown model is one.
        """
        return cls(name, load_known(files, name, models, today=today))
