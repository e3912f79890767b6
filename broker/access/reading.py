"""ReadRecord, step by step; the numbers are those of the story in `__init__.py`."""

from __future__ import annotations

from uuid import UUID

from broker import masking, telemetry
from broker.access.disclosing import Disclosed, Disclosure
from broker.access.ground import ATTEMPTS, STALE, facts_of, refused_by_append, standing_refusal
from broker.access.opened import OpenGrant, OpenGrants, Plan
from broker.access.refusals import Refusals, decision_detail
from broker.access.values import FieldAnswer, RecordAnswer
from broker.errors import (
    BrokerError,
    FieldNotGrantedError,
    PolicyDeniedError,
    PolicyUnavailableError,
    RecordsUnavailableError,
    TokenInvalidError,
)
from broker.grants import GrantClaims, GrantTokens
from broker.ledger import (
    Event,
    EventIds,
    EventKind,
    GrantStore,
    Ledger,
    ReadAppend,
    head,
    rest_of,
)
from broker.model import Caller, Level, RecordSlice
from broker.policy import PolicyHolder, Tally
from broker.telemetry import CompactTrace
from broker.tickets import Tickets


class RecordReading:
    """Reads records on grants."""

    def __init__(
        self,
        *,
        policy: PolicyHolder,
        tickets: Tickets,
        disclosure: Disclosure,
        ledger: Ledger,
        store: GrantStore,
        tokens: GrantTokens,
        refusals: Refusals,
        ids: EventIds,
        opened: OpenGrants,
        shadow: Tally,
        audience: str,
    ) -> None:
        """Takes what it uses.

        Args:
            policy: the policy in force, swapped whole.
            tickets: the ground of agents on tickets.
            disclosure: appends and reads.
            ledger: the record; for outcomes.
            store: grants as the database holds them.
            tokens: checks grants' JWTs.
            refusals: puts refusals on record.
            ids: event ids.
            opened: grants that this worker keeps open.
            shadow: counts what a shadow policy is to be held against.
            audience: the broker's own audience.
        """
        self._policy = policy
        self._tickets = tickets
        self._disclosure = disclosure
        self._ledger = ledger
        self._store = store
        self._tokens = tokens
        self._refusals = refusals
        self._ids = ids
        self._opened = opened
        self._shadow = shadow
        self._audience = audience

    async def read(
        self, caller: Caller, grant_token: str, fields: tuple[str, ...], trace: CompactTrace
    ) -> RecordAnswer:
        """Reads fields of the grant's customer, cut down to what the decision of now allows.

        Raises:
            BrokerError: the read is refused; the refusal is on record, and nothing was disclosed.
        """
        agent = caller.principal.agent
        claims = self._tokens.verify(grant_token, tool=caller.tool, agent=agent, audience=self._audience)
        trace.grant_id = claims.grant_id
        _check_granted(claims, fields)
        trace.lap(telemetry.AUTHENTICATE)
        for _ in range(ATTEMPTS):
            # (1)
            opened = self._opened.get(claims.grant_id, agent.key)
            if opened is None:
                opened = await self._open(caller, claims, trace)
                trace.lap(telemetry.RESOLVE)
            # (2)
            plan = self._plan(caller, claims, opened, fields)
            trace.lap(telemetry.DECIDE)
            if not plan.reads:
                self._shadow.saw(plan.decided)
                raise await self._refuse_read(caller, claims, opened, plan, trace)
            # (3), (4)
            event_id = self._ids.new()
            started = trace.last
            append = self._append(event_id, caller, claims.grant_id, opened, plan, trace)
            disclosed = await self._disclosure.disclose(append, opened.guard_pass, plan.reads)
            trace.lap(telemetry.READ)
            trace.mark(telemetry.APPEND, started, trace.last)
            verdict = disclosed.verdict
            if verdict.reason in STALE:
                self._opened.drop(claims.grant_id, agent.key)
                if verdict.reason == "POLICY_STALE":
                    await self._policy.refresh()
                continue
            if verdict.reason or verdict.receipt is None:
                if verdict.reason != "BUDGET_EXCEEDED":
                    # The next try looks at the ground first, where refusals beyond a rate are counted.
                    self._opened.drop(claims.grant_id, agent.key)
                raise refused_by_append(event_id, verdict)
            self._shadow.saw(plan.decided)
            record = disclosed.record
            if record is None or not any(record.rows.values()):
                await self._narrow(event_id, caller, claims.grant_id, trace, disclosed)
            if record is None:
                raise disclosed.failure or RecordsUnavailableError
            # (5)
            answer = RecordAnswer(
                event_id, claims.grant_id, plan.policy_version, _mask(plan, record), verdict.receipt
            )
            trace.lap(telemetry.MASK)
            return answer
        raise PolicyUnavailableError(cause="facts or policy kept changing")

    def _append(
        self,
        event_id: UUID,
        caller: Caller,
        grant_id: UUID,
        opened: OpenGrant,
        plan: Plan,
        trace: CompactTrace,
    ) -> ReadAppend:
        return ReadAppend(
            id=event_id,
            grant_id=grant_id,
            agent=caller.principal.agent.key,
            tool=caller.tool.identity,
            trace_id=trace.trace_id,
            facts_version=opened.facts_version,
            present=opened.present,
            policy_version=int(plan.policy_version),
            per_hour=plan.per_hour,
            per_day=plan.per_day,
            head=head(event_id, trace.trace_id, plan.leaf_rest),
        )

    async def _open(self, caller: Caller, claims: GrantClaims, trace: CompactTrace) -> OpenGrant:
        agent = caller.principal.agent
        stored = await self._store.open(claims.grant_id, agent.key)
        if stored is None:
            raise TokenInvalidError(cause="grant unknown")
        standing = await self._tickets.ground(stored.ticket_id, agent)
        if refusal := standing_refusal(standing):
            raise await self._refusals.record(
                refusal,
                trace_id=trace.trace_id,
                caller=caller,
                method="ReadRecord",
                grant_id=claims.grant_id,
                customer=stored.customer_pseudonym,
                ticket=stored.ticket_pseudonym,
            )
        opened = OpenGrant(
            guard_pass=stored.guard_pass,
            customer_pseudonym=stored.customer_pseudonym,
            ticket_pseudonym=stored.ticket_pseudonym,
            levels=stored.levels,
            expire_time=stored.expire_time,
            facts=facts_of(standing, stored.purpose),
            facts_version=standing.ground.facts_version,
            present=standing.present,
        )
        self._opened.put(claims.grant_id, agent.key, opened)
        return opened

    def _plan(self, caller: Caller, claims: GrantClaims, opened: OpenGrant, fields: tuple[str, ...]) -> Plan:
        """Decides, or finds the decision that this worker took on the same facts under the same policy."""
        policy = self._policy.current
        key = (policy.version, policy.today, fields, caller.principal.groups)  # a rule may have ended since
        plan = opened.plans.get(key)
        if plan is not None:
            return plan
        decided = policy.decide_for(caller.principal.groups, opened.facts, fields)
        budget = policy.budget(decided.roles)
        steps = []
        for field in decided.decision.fields:
            # A token cannot say more than the database's grant does; a grant no more than the policy of now.
            stored = opened.levels.get(field.name)
            level = _stricter(_stricter(claims.levels[field.name], stored), field.level)
            known = policy.catalog.fields.get(field.name)
            steps.append((field, known if level else None, level if known else None))
        rest = rest_of(
            EventKind.READ,
            agent=caller.principal.agent.key,
            tool=caller.tool.identity,
            grant_id=claims.grant_id,
            customer=opened.customer_pseudonym,
            ticket=opened.ticket_pseudonym,
            policy_version=policy.version,
            detail={
                **decision_detail(decided),
                "levels": {field.name: level.value if level else "withheld" for field, _, level in steps},
            },
        )
        plan = Plan(
            policy_version=policy.version,
            per_hour=budget.per_hour,
            per_day=budget.per_day,
            steps=tuple(steps),
            reads=tuple(field.name for field, _, level in steps if level is not None),
            leaf_rest=rest,
            decided=decided,
        )
        self._opened.plan(opened, key, plan)
        return plan

    async def _refuse_read(
        self, caller: Caller, claims: GrantClaims, opened: OpenGrant, plan: Plan, trace: CompactTrace
    ) -> BrokerError:
        return await self._refusals.record(
            PolicyDeniedError(),
            trace_id=trace.trace_id,
            caller=caller,
            method="ReadRecord",
            grant_id=claims.grant_id,
            customer=opened.customer_pseudonym,
            ticket=opened.ticket_pseudonym,
            policy_version=plan.policy_version,
            detail=decision_detail(plan.decided),
        )

    async def _narrow(
        self, read_id: UUID, caller: Caller, grant_id: UUID, trace: CompactTrace, disclosed: Disclosed
    ) -> None:
        """Says in a later event that a read which was released at most came to nothing."""
        await self._ledger.append(
            Event(
                id=self._ids.new(),
                kind=EventKind.OUTCOME,
                outcome="done",
                trace_id=trace.trace_id,
                agent=caller.principal.agent.key,
                tool=caller.tool.identity,
                grant_id=grant_id,
                detail={"read": str(read_id), "came_to": "aborted" if disclosed.record is None else "empty"},
            )
        )


def _check_granted(claims: GrantClaims, fields: tuple[str, ...]) -> None:
    for index, name in enumerate(fields):
        if name not in claims.levels:
            raise FieldNotGrantedError(field=f"fields[{index}]")


def _stricter(one: Level | None, other: Level | None) -> Level | None:
    if one is None or other is None:
        return None
    return Level.MASKED if Level.MASKED in {one, other} else Level.CLEAR


def _mask(plan: Plan, found: RecordSlice) -> list[FieldAnswer]:
    answers = []
    for decided, known, level in plan.steps:
        if known is None or level is None:
            why = "; ".join(decided.missing) or "outside what the grant still justifies"
            answers.append(FieldAnswer(decided.name, None, withheld=why))
            continue
        name = known.full_name
        values: list[str | None] = [row.values[name] for row in found.rows.get(known.kind, ())]
        if level is Level.MASKED:
            values = [masking.mask(known.mask, value) for value in values]
        answers.append(FieldAnswer(decided.name, level, values, truncated=known.kind in found.truncated))
    return answers
