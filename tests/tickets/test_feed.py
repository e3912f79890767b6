"""Events, heartbeats and snapshots are applied once, whole, and only when signed by their feed."""

from __future__ import annotations

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from broker.dev.helpdesk import Helpdesk, assignment
from broker.errors import EventConflictError, RequestMalformedError, TokenInvalidError
from broker.model import Relation, TicketStatus
from broker.tickets import Outcome, TicketFeed
from broker.tickets import feed as feed_module
from broker.tickets.events import EVENT_TYPE
from tests.tickets.conftest import ALICE, BOB, FEED_ID, World, settings_of

APPLIED, DUPLICATE, SUPERSEDED = Outcome.APPLIED, Outcome.DUPLICATE, Outcome.SUPERSEDED


def opened(world: World, ticket_id: str = "T-1", **options) -> str:
    """Opens a ticket of customer 7, assigned to Alice by the queue."""
    return world.helpdesk.open(ticket_id, **{"customers": ["7"], "assignee": ALICE, **options})


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TestPublish:
    async def test_applied(self, world):
        """An event that has committed is ground for the agent it names."""
        assert await world.send(opened(world)) == (APPLIED,)

        standing = await world.ground("T-1")
        assert Relation.ASSIGNEE is standing.ground.relation
        assert standing.ground.customers == ("7",)

    async def test_twice(self, world):
        """The same event again changes nothing, also where it was signed anew."""
        event = opened(world)
        await world.send(event)
        before = await world.ground("T-1")
        world.clock.ahead += 5
        signed_anew = world.helpdesk.sign(jwt.decode(event, options={"verify_signature": False}))

        assert await world.send(event, signed_anew) == (DUPLICATE, DUPLICATE)
        assert before == await world.ground("T-1")

    async def test_other_content(self, world):
        """The same version with other content is refused, and the whole batch with it."""
        await world.send(opened(world))
        good = opened(world, "T-2")
        forged = world.helpdesk.sign(
            {"seq": 3, "type": "assignment", "ticket_id": "T-1", "version": 1, "assignments": []}
        )

        with pytest.raises(EventConflictError) as caught:
            await world.send(good, forged)

        assert caught.value.field == "events[1]"
        assert Relation.NONE is (await world.ground("T-2")).ground.relation
        assert await world.admin.fetchval("SELECT array_agg(contiguous_seq) FROM broker.feed") == [1]
        assert await world.send(good) == (APPLIED,)

    async def test_conflict_within_a_batch(self, world):
        """Two contents of one version in one batch are refused, too."""
        first = opened(world)
        second = world.helpdesk.sign(
            {"seq": 2, "type": "assignment", "ticket_id": "T-1", "version": 1, "assignments": []}
        )

        with pytest.raises(EventConflictError):
            await world.send(first, second)

    @pytest.mark.attack("K2")
    async def test_late_reassignment_still_ends_access(self, world):
        """A reassignment that a later event of the ticket overtook ends the old access all the same."""
        await world.send(opened(world))
        reassigned = world.helpdesk.reassign("T-1", BOB)
        await world.send(world.helpdesk.reply("T-1"))
        assert Relation.ASSIGNEE is (await world.ground("T-1", ALICE)).ground.relation

        assert await world.send(reassigned) == (APPLIED,)

        assert Relation.NONE is (await world.ground("T-1", ALICE)).ground.relation
        assert Relation.ASSIGNEE is (await world.ground("T-1", BOB)).ground.relation
        assert (await world.ground("T-1", BOB)).present

    async def test_older_does_not_undo_newer(self, world):
        """An older assignment or status that arrives late changes nothing that is newer."""
        await world.send(opened(world))
        to_alice = world.helpdesk.assign("T-1", assignment(ALICE, BOB))
        pending = world.helpdesk.set_status("T-1", "pending")
        to_bob = world.helpdesk.reassign("T-1", BOB)
        closed = world.helpdesk.close("T-1")
        await world.send(to_bob, closed)

        assert await world.send(to_alice, pending) == (SUPERSEDED, SUPERSEDED)
        assert (await world.ground("T-1", BOB)).was_last_assignee
        assert not (await world.ground("T-1", ALICE)).was_last_assignee

    async def test_before_its_ticket(self, world):
        """An assignment that comes before its ticket is no ground until the ticket comes."""
        ticket = opened(world, assignee=None)
        assigned = world.helpdesk.reassign("T-1", ALICE)
        await world.send(assigned)
        assert Relation.NONE is (await world.ground("T-1")).ground.relation
        assert (await world.listed()).tickets == ()

        await world.send(ticket)

        assert Relation.ASSIGNEE is (await world.ground("T-1")).ground.relation
        assert [ticket.ticket_id for ticket in (await world.listed()).tickets] == ["T-1"]

    async def test_history(self, world):
        """Every assignment stays on record with who made it; a row that goes on is not repeated."""
        await world.send(opened(world))
        await world.send(world.helpdesk.change("T-1", kind="billing"))
        await world.send(world.helpdesk.reassign("T-1", BOB, ALICE))
        await world.send(world.helpdesk.assign("T-1"))
        await world.send(world.helpdesk.reassign("T-1", ALICE, ALICE))

        expected = [("alice", "queue", False), ("bob", "agent", False), ("alice", "agent", True)]
        assert expected == await world.history("T-1")

    async def test_facts_version(self, world):
        """Whatever a decision rests on draws a new version; a repetition draws none."""
        seen = []
        for event in (
            opened(world),
            world.helpdesk.assign("T-1", assignment(ALICE, BOB)),
            world.helpdesk.change("T-1", customers=["7", "8"]),
            world.helpdesk.set_status("T-1", "pending"),
            world.helpdesk.reply("T-1"),
            world.helpdesk.call_ended("T-1"),
        ):
            await world.send(event)
            seen.append((await world.ground("T-1")).ground.facts_version)
            await world.send(event)
            assert (await world.ground("T-1")).ground.facts_version == seen[-1]

        assert sorted(set(seen)) == seen

    async def test_size(self, world):
        """An empty batch and one beyond the limit are refused."""
        for batch in ([], [opened(world)] * 501):
            with pytest.raises(RequestMalformedError):
                await world.send(*batch)

    @pytest.mark.parametrize("text", ["'; DROP TABLE broker.ticket;--", "7\\", "$1", "%s", '"', "7,8", "{7}"])
    @pytest.mark.attack("S1")
    async def test_sql_in_ids(self, world, text):
        """SQL, quotes and array syntax in a customer's id are an id like any other."""
        await world.send(opened(world, customers=[text, "9"]))

        assert sorted([text, "9"]) == sorted((await world.ground("T-1")).ground.customers)

    @pytest.mark.attack("K4")
    async def test_customers_follow(self, world):
        """After a merge or split only the customers that the helpdesk names now are linked."""
        await world.send(opened(world, customers=["7", "8"]))
        await world.send(world.helpdesk.change("T-1", customers=["8", "9"]))

        assert (await world.ground("T-1")).ground.customers == ("8", "9")


class TestSignature:
    """Each refusal differs in one thing from an event that is accepted."""

    async def refused(self, world: World, event: str) -> str:
        with pytest.raises(TokenInvalidError) as caught:
            await world.send(event)
        assert caught.value.field == "events[0]"
        assert await world.admin.fetchval("SELECT count(*) FROM broker.ticket") == 0
        return caught.value.cause

    def claims(self, world: World) -> dict[str, object]:
        return jwt.decode(opened(world), options={"verify_signature": False})

    async def test_control(self, world):
        """What the others were made of is accepted."""
        assert await world.send(world.helpdesk.sign(self.claims(world))) == (APPLIED,)

    async def test_other_key(self, world):
        """Another key under the same `kid` is refused."""
        other = Helpdesk(FEED_ID, time.time)
        event = other.sign(self.claims(world), {"kid": world.helpdesk.kid})

        assert "signature is wrong" in await self.refused(world, event)

    async def test_unsigned(self, world):
        """An event without a signature is refused."""
        event = jwt.encode(
            self.claims(world), None, algorithm="none", headers={"typ": EVENT_TYPE, "kid": world.helpdesk.kid}
        )
        await self.refused(world, event)

    async def test_signature_of_another_event(self, world):
        """The signature of one event does not hold for another."""
        signed, other = opened(world), opened(world, "T-2")

        await self.refused(world, signed.rsplit(".", 1)[0] + "." + other.rsplit(".", 1)[1])

    @pytest.mark.parametrize("typ", ["JWT", "at+jwt", "helpdesk-event", ""])
    async def test_other_type(self, world, typ):
        """A token of that key that was made for something else is no event."""
        await self.refused(world, world.helpdesk.sign(self.claims(world), {"typ": typ}))

    async def test_hmac_with_public_key(self, world):
        """An HMAC keyed with the public key set is refused."""
        good = world.helpdesk.sign(self.claims(world)).split(".")[1]
        header = json.dumps({"alg": "HS256", "typ": EVENT_TYPE, "kid": world.helpdesk.kid})
        signed = f"{base64url(header.encode())}.{good}"
        for key in (world.helpdesk.jwks().encode(), b""):
            mac = hmac.digest(key, signed.encode(), "sha256")
            await self.refused(world, f"{signed}.{base64url(mac)}")

    async def test_other_issuer(self, world):
        """An event that names another feed than the key's is refused."""
        await self.refused(world, world.helpdesk.sign({**self.claims(world), "iss": "other"}))

    async def test_peer_of_another_feed(self, world):
        """A peer may not hand in events of a feed that is not its own, however well signed."""
        with pytest.raises(TokenInvalidError):
            await world.feed.publish({"other"}, [opened(world)])

    async def test_key_removed(self, world):
        """A key taken out of the file stops counting with the next call."""
        event = opened(world)
        settings_of(Helpdesk(FEED_ID, time.time), world.folder)

        await self.refused(world, event)

    async def test_too_long(self, world):
        """An event beyond the limit is refused before it is decoded."""
        assert "too long" in await self.refused(world, "a" * 2**20)

    async def test_future(self, world):
        """An event signed in the future is refused by its field."""
        world.clock.ahead = 3600

        with pytest.raises(RequestMalformedError) as caught:
            await TicketFeed(world.feed_pool, [settings_of(world.helpdesk, world.folder)], time.time).publish(
                world.peer, [opened(world)]
            )

        assert caught.value.field == "events[0].iat"

    async def test_another_feeds_ticket(self, world, tmp_path):
        """A ticket belongs to the feed that first sent it."""
        await world.send(opened(world))
        other = Helpdesk("other", time.time)
        feed = TicketFeed(world.feed_pool, [settings_of(other, tmp_path)], time.time)

        with pytest.raises(EventConflictError):
            await feed.publish({"other"}, [other.open("T-1", customers=["9"], assignee=BOB)])

        async def snapshot():
            yield other.snapshot()

        with pytest.raises(EventConflictError):
            await feed.resync({"other"}, snapshot())

        assert Relation.NONE is (await world.ground("T-1", BOB)).ground.relation
        await feed.publish({"other"}, [other.open("T-2", customers=["9"], assignee=BOB)])


class TestHeartbeat:
    async def test_extends(self, world):
        """A feed is stale until its first heartbeat and fresh for max_silence after each."""
        await world.send(opened(world))
        assert not (await world.ground("T-1")).feed_fresh

        answer = await world.beat()

        assert not answer.resync_needed
        assert answer.stale_time is not None
        assert timedelta(0) < answer.stale_time - datetime.now(UTC) <= timedelta(seconds=60)
        assert (await world.ground("T-1")).feed_fresh

    async def test_silence(self, world):
        """A feed goes stale by the database's clock, without anything being done."""
        await world.send(opened(world))
        await world.beat()
        await world.later(59)
        assert (await world.ground("T-1")).feed_fresh

        await world.later(2)

        assert not (await world.ground("T-1")).feed_fresh

    async def test_gap(self, world):
        """While an event is missing, heartbeats extend nothing; when it has come, they do again."""
        await world.send(opened(world))
        lost = world.helpdesk.close("T-1")
        await world.send(opened(world, "T-2"))

        answer = await world.beat()
        assert answer.resync_needed
        assert answer.contiguous_seq == 1
        assert answer.stale_time is None

        await world.send(lost)
        answer = await world.beat()
        assert not answer.resync_needed
        assert answer.contiguous_seq == 3
        assert (await world.ground("T-2")).feed_fresh

    async def test_last_event_lost(self, world):
        """The loss of the very last event is noticed by the heartbeat's number."""
        await world.send(opened(world))
        world.helpdesk.close("T-1")

        assert (await world.beat()).resync_needed
        assert not (await world.ground("T-1")).feed_fresh

    async def test_replay(self, world):
        """A heartbeat that was sent before extends nothing, nor does one of an earlier number."""
        await world.send(opened(world))
        kept = world.helpdesk.heartbeat()
        first = await world.feed.heartbeat(world.peer, kept)
        await world.later(30)

        again = await world.feed.heartbeat(world.peer, kept)
        # (control: a new one does)
        control = await world.beat()

        assert first.stale_time is not None
        assert again.stale_time == first.stale_time - timedelta(seconds=30)
        assert control.stale_time is not None
        assert control.stale_time > again.stale_time + timedelta(seconds=20)

        early = world.helpdesk.sign({"seq": 0, "type": "heartbeat", "iat": int(world.clock()) + 1})
        assert control.stale_time == (await world.feed.heartbeat(world.peer, early)).stale_time

    @pytest.mark.parametrize("seconds", [-61, -3600])
    async def test_kept_back(self, world, seconds):
        """A heartbeat whose time is far from the database's clock is refused."""
        await world.send(opened(world))
        old = world.helpdesk.sign({"seq": 1, "type": "heartbeat", "iat": int(time.time()) + seconds})

        with pytest.raises(RequestMalformedError) as caught:
            await world.feed.heartbeat(world.peer, old)

        assert caught.value.field == "heartbeat.iat"
        assert not (await world.ground("T-1")).feed_fresh

    async def test_other_type(self, world):
        """An event is no heartbeat, and a heartbeat no event of a ticket."""
        with pytest.raises(RequestMalformedError):
            await world.feed.heartbeat(world.peer, opened(world))
        with pytest.raises(RequestMalformedError):
            await world.send(world.helpdesk.heartbeat())

    async def test_far_ahead(self, world):
        """Numbers beyond a gap are noted only up to a bound, so a broken helpdesk cannot fill the table."""
        await world.send(opened(world))
        await world.admin.execute(
            "INSERT INTO broker.feed_ahead SELECT 'helpdesk', n FROM generate_series(3, 10002) AS n"
        )
        world.helpdesk.seq = 20_000
        assert await world.send(opened(world, "T-2")) == (APPLIED,)
        assert await world.admin.fetchval("SELECT count(*) FROM broker.feed_ahead") == 10_000

        world.helpdesk.seq = 1
        closed = world.helpdesk.close("T-1")
        published = await world.feed.publish(world.peer, [closed])
        assert published.contiguous_seq == 10_002


class TestResync:
    async def test_closes_unnamed(self, world):
        """Open tickets that a snapshot does not name are closed; named ones are as it says."""
        await world.send(opened(world), opened(world, "T-2"), opened(world, "T-3"))
        world.helpdesk.close("T-1")  # lost
        world.helpdesk.reassign("T-2", BOB)  # lost
        assert (await world.beat()).resync_needed

        answer = await world.resync(world.helpdesk.snapshot())

        assert (answer.tickets, answer.closed, answer.contiguous_seq) == (2, 1, 5)
        assert TicketStatus.CLOSED is (await world.ground("T-1")).ground.status
        assert (await world.ground("T-1")).was_last_assignee
        assert Relation.NONE is (await world.ground("T-2")).ground.relation
        assert Relation.ASSIGNEE is (await world.ground("T-2", BOB)).ground.relation
        assert Relation.ASSIGNEE is (await world.ground("T-3")).ground.relation
        assert [ticket.ticket_id for ticket in (await world.listed()).tickets] == ["T-3"]
        assert not (await world.beat()).resync_needed
        assert (await world.ground("T-3")).feed_fresh

    async def test_lost_event_turns_up(self, world):
        """An event that a snapshot covers cannot undo it, also where the snapshot said so by silence."""
        await world.send(opened(world))
        reopened = world.helpdesk.reassign("T-1", ALICE)
        pending = world.helpdesk.set_status("T-1", "pending")
        world.helpdesk.close("T-1")
        await world.resync(world.helpdesk.snapshot())

        assert await world.send(reopened, pending) == (SUPERSEDED, SUPERSEDED)
        assert TicketStatus.CLOSED is (await world.ground("T-1")).ground.status

        # (control: reopening it after the snapshot counts)
        await world.send(world.helpdesk.set_status("T-1", "open"))
        assert Relation.ASSIGNEE is (await world.ground("T-1")).ground.relation

    async def test_newer_than_the_snapshot(self, world):
        """What happened after the snapshot was taken stands, whatever the snapshot says or leaves out."""
        await world.send(opened(world))
        world.helpdesk.seq += 1  # one is lost
        snapshot = world.helpdesk.snapshot()
        await world.send(world.helpdesk.reassign("T-1", BOB), opened(world, "T-2"))

        answer = await world.resync(snapshot)

        assert (answer.closed, answer.contiguous_seq) == (0, 4)
        assert Relation.ASSIGNEE is (await world.ground("T-1", BOB)).ground.relation
        assert Relation.ASSIGNEE is (await world.ground("T-2")).ground.relation

    @pytest.mark.parametrize("later", ["note", "reassign"])
    async def test_silence_beats_what_speaks_of_no_status(self, world, later):
        """An unnamed ticket is closed, whatever came later that did not say that it was opened again."""
        await world.send(opened(world))
        world.helpdesk.close("T-1")  # lost
        snapshot = world.helpdesk.snapshot()
        event = world.helpdesk.note("T-1") if later == "note" else world.helpdesk.reassign("T-1", ALICE)
        await world.send(event)  # while the snapshot is on its way

        answer = await world.resync(snapshot)

        assert (answer.closed, answer.contiguous_seq) == (1, 3)
        assert TicketStatus.CLOSED is (await world.ground("T-1")).ground.status
        assert (await world.listed()).tickets == ()

    async def test_opened_again_after_the_snapshot(self, world):
        """An unnamed ticket that was opened again since stays open, with notes on it or without."""
        await world.send(opened(world))
        world.helpdesk.close("T-1")  # lost
        snapshot = world.helpdesk.snapshot()
        await world.send(world.helpdesk.set_status("T-1", "open"), world.helpdesk.note("T-1"))

        assert (await world.resync(snapshot)).closed == 0
        assert Relation.ASSIGNEE is (await world.ground("T-1")).ground.relation

    async def test_in_parts(self, world):
        """A snapshot may come in several parts, of the size of a batch each."""
        await world.send(*(opened(world, f"T-{n}") for n in range(12)))
        snapshot = world.helpdesk.snapshot()

        answer = await world.resync(snapshot[:5], snapshot[5:12], snapshot[12:])

        assert (answer.tickets, answer.closed) == (12, 0)

    async def test_repeated_snapshot(self, world):
        """The same snapshot twice changes nothing more."""
        await world.send(opened(world), opened(world, "T-2"))
        await world.send(world.helpdesk.reassign("T-1", BOB))
        snapshot = world.helpdesk.snapshot()
        await world.resync(snapshot)
        history = await world.history("T-1")

        answer = await world.resync(snapshot)

        assert (answer.tickets, answer.closed) == (2, 0)
        assert history == await world.history("T-1")

    async def test_nothing_new(self, world):
        """A snapshot that says what is known draws no version of facts; said twice, it writes no ticket."""
        await world.send(opened(world), opened(world, "T-2"), opened(world, "T-3"))
        await world.send(world.helpdesk.note("T-2"), world.helpdesk.reassign("T-3", BOB))
        world.helpdesk.change("T-3", customers=["8"])  # lost
        facts = "SELECT array_agg(facts_version ORDER BY ticket_id) FROM broker.ticket"
        written = "SELECT array_agg(xmin::text || ctid::text ORDER BY ticket_id) FROM broker.ticket"
        before = await world.admin.fetchval(facts)

        await world.resync(world.helpdesk.snapshot())

        first = await world.admin.fetchval(facts)
        assert [n for n in range(3) if first[n] != before[n]] == [2]
        assert (await world.ground("T-3", BOB)).ground.customers == ("8",)
        rows = await world.admin.fetchval(written)
        await world.resync(world.helpdesk.snapshot())
        assert (await world.admin.fetchval(facts), await world.admin.fetchval(written)) == (first, rows)

    async def test_named_again(self, world):
        """A ticket that one snapshot closed by silence is open again when the next one names it as it was."""
        await world.send(opened(world), opened(world, "T-2"))
        await world.resync(world.helpdesk.snapshot())  # stored just as snapshots say
        world.helpdesk.seq += 1
        _, two, _ = world.helpdesk.snapshot()
        end = world.helpdesk.sign({"seq": world.helpdesk.seq, "type": "snapshot-end", "tickets": 1})
        assert (await world.resync([two, end])).closed == 1

        await world.resync(world.helpdesk.snapshot())

        assert Relation.ASSIGNEE is (await world.ground("T-1")).ground.relation
        assert [ticket.ticket_id for ticket in (await world.listed()).tickets] == ["T-2", "T-1"]

    async def test_older_snapshot(self, world):
        """A snapshot that was kept back is refused once a newer one was applied."""
        await world.send(opened(world))
        kept = world.helpdesk.snapshot()
        world.helpdesk.close("T-1")
        await world.resync(world.helpdesk.snapshot())

        with pytest.raises(EventConflictError):
            await world.resync(kept)

        assert TicketStatus.CLOSED is (await world.ground("T-1")).ground.status

    async def test_mixed(self, world):
        """A snapshot that is incomplete, doubled, mixed or padded is refused and nothing is applied."""
        first = opened(world)
        await world.send(first, opened(world, "T-2"))
        one, two, end = world.helpdesk.snapshot()
        world.helpdesk.seq += 1
        other_one, *_ = world.helpdesk.snapshot()
        cases = {
            "nothing": [],
            "no end": [[one, two]],
            "a ticket cut out": [[one, end]],
            "a ticket twice": [[one, one, end]],
            "another snapshot's ticket": [[other_one, two, end]],
            "an old event slipped in": [[first, two, end]],
            "the end first": [[end, one, two]],
            "going on after the end": [[one, two, end], [one]],
            "an empty part": [[one, two], [], [end]],
            "a heartbeat in it": [[one, two, world.helpdesk.heartbeat(), end]],
        }
        for parts in cases.values():
            with pytest.raises(RequestMalformedError):
                await world.resync(*parts)

        assert await world.admin.fetchval("SELECT bool_and(resync_seq IS NULL) FROM broker.feed")
        assert ((answer := await world.resync([one, two, end])).tickets, answer.closed) == (2, 0)

    async def test_too_long(self, world, monkeypatch):
        """A snapshot is refused where it has grown too long to be held, before its end has come."""
        await world.send(*(opened(world, f"T-{n}", customers=["7" * 100]) for n in range(9)))
        world.helpdesk.close("T-0")
        snapshot = world.helpdesk.snapshot()
        length = sum(len(token) for token in snapshot)
        monkeypatch.setattr(feed_module, "MAX_SNAPSHOT_BYTES", length // 4)

        async def stream():
            yield snapshot[:6]
            raise AssertionError("more was asked for")

        with pytest.raises(RequestMalformedError) as refused:
            await world.feed.resync(world.peer, stream())

        assert "bytes" in refused.value.cause
        assert await world.admin.fetchval("SELECT bool_and(resync_seq IS NULL) FROM broker.feed")
        # (control: within the bound it is taken)
        monkeypatch.setattr(feed_module, "MAX_SNAPSHOT_BYTES", length)
        assert (await world.resync(snapshot)).tickets == 8

    async def test_empty(self, world):
        """A snapshot of no open ticket closes all, of this feed alone."""
        other = Helpdesk("other", time.time)
        feed = TicketFeed(world.feed_pool, [settings_of(other, world.folder)], time.time)
        await feed.publish({"other"}, [other.open("X-1", customers=["9"], assignee=ALICE)])
        await world.send(opened(world))
        world.helpdesk.close("T-1")

        assert (await world.resync(world.helpdesk.snapshot())).closed == 1
        assert TicketStatus.OPEN is (await world.ground("X-1")).ground.status

    async def test_broken_off(self, world):
        """A snapshot whose sender goes away changes nothing."""
        await world.send(opened(world))

        async def stream():
            yield world.helpdesk.snapshot()[:1]
            raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            await world.feed.resync(world.peer, stream())

        assert await world.admin.fetchval("SELECT bool_and(resync_seq IS NULL) FROM broker.feed")
