"""Propose, approve, reject, withdraw, roll back: each act is one transaction with its ledger event.

Invariants:
- a candidate is examined before it may wait, and again, for its approver, before it comes into force;
- what is signed about the compiled table is what the examination before this very act compared;
- number, signature, version, event: one transaction under one lock. If we die before its commit nothing
  happened, and the old version is active everywhere; after it the new one is;
- an approval that is repeated by the same person finds it done and says so again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import Connection, queries, transaction, translated
from broker.errors import (
    PolicyInvalidError,
    PolicyRefusedError,
    ProposalDigestError,
    ProposalNotFoundError,
    ProposalOvertakenError,
    SecondPersonError,
    VersionNotFoundError,
)
from broker.keys import SigningKeys
from broker.ledger import ADMIN_DOOR, Event, EventIds, EventKind, append_events
from broker.model import Agent
from broker.policy import PolicyFiles
from broker.policy.bundle import Bundle
from broker.policy.seal import TYPE, Seal
from broker.policy.store import PolicyStore
from broker.publishing.examining import Examine
from broker.publishing.gate import Examination, Question, Seat
from broker.publishing.reading import Reading, telling
from broker.publishing.values import Administrator, Draft, Proposal, ProposalState
from broker.publishing.verdicts import refusal

Q = queries("publishing")

WAITS = 7 * 24 * 3600.0
"""Seconds that a proposal waits for its approval."""

MOST_OPEN = 20
"""Proposals that may wait at a time; each holds up to 3 MiB."""

MOST_OF_AUTHOR = 10
"""Proposals of one person that may wait at a time: nobody alone keeps the others' out."""

Check = Callable[[Bundle, Bundle | None], Awaitable[None]]
"""Refuses a bundle that what is installed cannot serve, beside the one in force, where that can be read."""
Replays = Callable[[Administrator, Bundle], Awaitable[Mapping[str, Any]]]
"""Says how recorded decisions would have been under a bundle."""


async def _no_check(_bundle: Bundle, _active: Bundle | None) -> None:
    """Lets everything pass."""


class Publisher:
    """Brings policies into force."""

    def __init__(
        self,
        *,
        pool: asyncpg.Pool,
        store: PolicyStore,
        ids: EventIds,
        keys: SigningKeys,
        issuer: str,
        clock: Callable[[], float],
        examine: Examine,
        methods: Collection[str],
        check_guard: Check = _no_check,
        replay: Replays | None = None,
        thorough: bool = True,
    ) -> None:
        """Takes what it works with.

        Args:
            pool: connections as broker_admin.
            store: reads versions.
            ids: ids of events and proposals.
            keys: sign versions.
            issuer: this broker's, in every signature.
            clock: POSIX seconds.
            examine: examines candidates.
            methods: full names of the admin port's RPCs.
            check_guard: refuses what the installed guard does not cover.
            replay: takes the last days' decisions again, for the report; None: not done.
            thorough: compare candidates with Casbin for seconds.
        """
        self._pool = pool
        self._store = store
        self._ids = ids
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._examine = examine
        self._methods = frozenset(methods)
        self._check_guard = check_guard
        self._replay = replay
        self._thorough = thorough
        self._reading = Reading(pool)

    async def propose(self, by: Administrator, draft: Draft) -> tuple[UUID, Proposal | None, Examination]:
        """Examines a draft and lets it wait for an approver, or publishes it where its author may alone.

        Returns:
            The event's id; the proposal, None where the draft was refused; what the examination found.

        Raises:
            ProposalOvertakenError: another version is in force than the draft is meant to follow.
            ProposalsFullError: too many wait, of all or of this author, and this one would, too.
            GuardBehindError: the installed guard does not cover the catalog of what is published alone.
            PolicyUnavailableError: others are examined, or another policy of this author's is.
        """
        version, active = await self._in_force()
        base = int(version)
        if draft.base not in {0, base}:
            raise ProposalOvertakenError(metadata={"version": version})
        more = {
            "replaces_tests": draft.replaces_tests,
            "urgent": draft.alone,
            "restores": draft.restores is not None,
        }
        found = await self._examine(await self._question(draft.bundle, active, by, **more))
        detail = {"digest": draft.bundle.digest, "why": draft.reason, "widens": found.widens}
        if found.refusals:
            async with transaction(self._pool) as conn:
                event = await self._record(
                    conn, by, "propose", {**detail, "refusals": len(found.refusals)},
                    outcome="refused", reason=PolicyRefusedError.reason,
                )  # fmt: skip
            return event, None, found
        alone = draft.alone and found.only_narrows
        if alone:
            await self._check_guard(draft.bundle, active)
        elif self._replay is not None:  # for an approver to read; an emergency does not wait for it
            found = replace(found, facts={**found.facts, "replay": await self._replay(by, draft.bundle)})
        proposal_id = self._ids.new()
        async with transaction(self._pool) as conn:
            await self._store_proposal(conn, proposal_id, by, draft, base, found, alone=alone)
            event = await self._record(conn, by, "propose", {**detail, "proposal": str(proposal_id)})
            if alone:
                event = await self._publish(
                    conn, by, proposal_id, draft.bundle.digest, found, reason=draft.reason, alone=True
                )
        return event, await self.proposal(proposal_id), found

    async def roll_back(
        self, by: Administrator, version: int, reason: str
    ) -> tuple[UUID, Proposal | None, Examination]:
        """Proposes an old version's content anew; where it only narrows, it is in force at once.

        Raises:
            VersionNotFoundError: there is none of that number.
            VersionInvalidError: it is not what was published under that number.
            GuardBehindError: the installed guard does not cover its catalog.
            PolicyUnavailableError: others are examined, or another policy of this author's is.
        """
        with telling():
            bundle = await self._store.version(version)
        if bundle is None:
            raise VersionNotFoundError
        draft = Draft(bundle, reason, base=0, restores=version, replaces_tests=True, alone=True)
        return await self.propose(by, draft)

    async def approve(
        self, by: Administrator, proposal_id: UUID, digest: str, reason: str
    ) -> tuple[UUID, Proposal]:
        """Brings a proposal into force, for another person than its author.

        Args:
            by: the approver.
            proposal_id: which.
            digest: of what the approver has looked at.
            reason: the approver's words; may be empty.

        Returns:
            The event's id, and the proposal with its version.

        Raises:
            ProposalNotFoundError: there is none.
            ProposalEndedError: it does not wait any more.
            ProposalOvertakenError: another version came into force since.
            ProposalDigestError: it holds something else.
            SecondPersonError: the approver is its author.
            PolicyRefusedError: it fails its examination today.
            GuardBehindError: the installed guard does not cover its catalog.
            PolicyUnavailableError: others are examined, or another policy of this approver's is.
        """
        proposal = await self.proposal(proposal_id)
        if proposal.bundle is None:  # pages of proposals hold none
            raise ProposalNotFoundError
        if (proposal.state, proposal.end_person, proposal.digest) == (ProposalState.APPROVED, by.key, digest):
            async with transaction(self._pool) as conn:  # said again, because the answer was lost
                return await self._record(conn, by, "approve again", _named(proposal)), proposal
        async with transaction(self._pool) as conn:  # before anything that takes time
            await self._number(conn, by, proposal_id, digest, alone=False)
        _, active = await self._in_force()
        author = by.person.is_same(_agent(proposal.author))
        if author:  # the database said so already; this comparison is the stricter one
            raise SecondPersonError(cause="author")
        restores = proposal.restores_version is not None
        found = await self._examine(
            await self._question(proposal.bundle, active, by, approves=True, restores=restores)
        )
        if found.refusals:
            raise PolicyRefusedError(cause="examination", metadata={"finding": found.refusals[0][:500]})
        await self._check_guard(proposal.bundle, active)
        async with transaction(self._pool) as conn:
            event = await self._publish(conn, by, proposal_id, digest, found, reason=reason, alone=False)
        return event, await self.proposal(proposal_id)

    async def end(
        self, by: Administrator, proposal_id: UUID, reason: str, *, withdraw: bool
    ) -> tuple[UUID, Proposal]:
        """Rejects a proposal, or withdraws one's own."""
        act = "withdraw" if withdraw else "reject"
        async with transaction(self._pool) as conn:
            with translated():
                verdict = await conn.fetchval(
                    Q.end_proposal, proposal_id, "withdrawn" if withdraw else "rejected", by.key, by.console,
                    reason,
                )  # fmt: skip
            if verdict != "ok":
                raise refusal(verdict)
            event = await self._record(conn, by, act, {"proposal": str(proposal_id), "why": reason})
        return event, await self.proposal(proposal_id)

    async def proposal(self, proposal_id: UUID) -> Proposal:
        """Gives a proposal with all it holds.

        Raises:
            ProposalNotFoundError: there is none.
        """
        proposal = await self._reading.proposal(proposal_id)
        if proposal is None:
            raise ProposalNotFoundError
        return proposal

    async def looked(self, by: Administrator, act: str, **detail: object) -> UUID:
        """Records that somebody looked at something or tried it out."""
        async with transaction(self._pool) as conn:
            return await self._record(conn, by, act, detail, kind=EventKind.ADMIN)

    async def _in_force(self) -> tuple[str, Bundle | None]:
        """Gives the version that is active, and what it holds; None where that is not what was published.

        Then a new version can be published all the same, by two persons: nothing is there to compare with.
        """
        try:
            return await self._store.active()
        except PolicyInvalidError:
            return await self._store.active_version(), None

    # --- inside a transaction ------------------------------------------------------------------------
    async def _store_proposal(
        self,
        conn: Connection,
        proposal_id: UUID,
        by: Administrator,
        draft: Draft,
        base: int,
        found: Examination,
        *,
        alone: bool,
    ) -> None:
        bundle = draft.bundle
        with translated():
            verdict = await conn.fetchval(
                Q.propose, proposal_id, base, draft.restores, bundle.digest, bundle.files.digest,
                as_json(bundle.files.texts), bundle.tests_digest, as_json(bundle.tests), by.key, by.console,
                draft.reason, found.widens, as_json(found.as_mapping()), WAITS, MOST_OPEN,
                MOST_OF_AUTHOR, alone,
            )  # fmt: skip
        if verdict != "open":
            raise refusal(verdict)

    async def _number(
        self, conn: Connection, by: Administrator, proposal_id: UUID, digest: str, *, alone: bool
    ) -> int:
        """Gives the number that the proposal's version will have; from here on nobody else publishes."""
        with translated():
            row = await conn.fetchrow(Q.may_publish, proposal_id, digest, by.key, alone)
        if row is None or row["verdict"] != "ok":
            raise refusal(row["verdict"] if row else "unknown")
        return int(row["version"])

    async def _publish(
        self, conn: Connection, by: Administrator, proposal_id: UUID, digest: str, found: Examination,
        *, reason: str, alone: bool,
    ) -> UUID:  # fmt: skip
        version = await self._number(conn, by, proposal_id, digest, alone=alone)
        row = await conn.fetchrow(Q.proposal, proposal_id)
        if row is None:
            raise ProposalNotFoundError
        bundle = Bundle.of(PolicyFiles.from_mapping(json.loads(row["files"])), json.loads(row["tests"]))
        if bundle.digest != digest:  # whoever can write below us cannot have something else signed
            raise ProposalDigestError(cause="stored files differ")
        how = ProposalState.ALONE if alone else ProposalState.APPROVED
        seal = Seal(
            version, bundle.files.digest, bundle.tests_digest, how.value, base=row["base_version"],
            proposal=str(proposal_id), author=row["author"], approver="" if alone else by.key,
            table=found.table,
        )  # fmt: skip
        signature = self._keys.sign({"typ": TYPE}, seal.claims(self._issuer, self._clock()))
        with translated():
            await conn.execute(
                Q.publish, proposal_id, digest, by.key, by.console, alone, reason, version, signature
            )
        detail = {
            "proposal": str(proposal_id), "digest": digest, "author": row["author"], "widens": row["widens"],
            "why": reason,
        }  # fmt: skip
        act = "publish alone" if alone else "approve"
        return await self._record(conn, by, act, detail, policy_version=str(version))

    async def _record(
        self,
        conn: Connection,
        by: Administrator,
        act: str,
        detail: dict[str, Any],
        *,
        kind: EventKind = EventKind.POLICY,
        outcome: str = "done",
        reason: str = "",
        policy_version: str = "",
    ) -> UUID:
        event = Event(
            id=self._ids.new(),
            kind=kind,
            outcome=outcome,
            trace_id=by.trace_id,
            agent=by.key,
            tool=by.console,
            reason=reason,
            policy_version=policy_version,
            detail={"act": act, **detail},
        )
        await append_events(conn, [event], door=ADMIN_DOOR)
        return event.id

    async def _question(
        self,
        bundle: Bundle,
        active: Bundle | None,
        by: Administrator,
        *,
        replaces_tests: bool = False,
        approves: bool = False,
        urgent: bool = False,
        restores: bool = False,
    ) -> Question:
        seat = Seat(by.person.groups, by.console)
        return Question(
            candidate=bundle,
            active=active,
            before=await self._reading.catalogs(),
            today=datetime.fromtimestamp(self._clock(), UTC).date(),
            methods=self._methods,
            replaces_tests=replaces_tests or approves,  # what it replaces was told when it was proposed
            restores=restores,
            author=None if approves else seat,
            approver=seat if approves else None,
            person=by.person.agent,
            urgent=urgent or approves,
            # Files that are in force, or were proposed, have been held against Casbin at length.
            thorough=self._thorough
            and not approves
            and (active is None or bundle.files.digest != active.files.digest),
        )


def as_json(value: Any) -> str:
    """Writes what the database stores as jsonb."""
    return json.dumps(dict(value), ensure_ascii=False)


def _named(proposal: Proposal) -> dict[str, object]:
    return {"proposal": str(proposal.proposal_id), "digest": proposal.digest}


def _agent(key: str) -> Agent:
    issuer, _, subject = key.partition("|")
    return Agent(issuer, subject)
