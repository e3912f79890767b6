"""Versions only grow, nothing is half active, and the policy in force is swapped whole."""

import asyncio
import json
import threading
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from broker.database import open_pool
from broker.errors import LedgerUnavailableError, PolicyInvalidError, PolicyUnavailableError
from broker.policy import PolicyHolder, PolicyStore, store
from broker.policy.bundle import Bundle
from broker.policy.decision import compile_files
from tests.policy.sample import FACTS, RULES, TEXTS, edited, files
from tests.published import activate, force, force_signed, founding, seals
from tests.published import store as store_of

TIER1 = frozenset({"tier1"})
OPEN = edited("policy.csv", "contact, masked, allow", "contact, clear, allow")

TIMED = edited("policy.csv", "contact, masked, allow", "contact, masked, allow, until 2097-01-31")


class Clocked(PolicyStore):
    """The versions of a database whose clock stands, a second before the end of that rule."""

    time = datetime(2097, 1, 31, 23, 59, 59, tzinfo=UTC)

    async def look(self):
        """Gives that time with the version in force."""
        version, _ = await super().look()
        return version, self.time


@pytest.fixture
async def admin(database):
    """Gives a pool of the role that activates policies."""
    pool = await open_pool(database.dsn("broker_admin"), name="test", max_size=6)
    yield pool
    await pool.close()


@pytest.fixture
async def access(database):
    """Gives a pool of the role that decides."""
    pool = await open_pool(database.dsn("broker_access"), name="test", max_size=6)
    yield pool
    await pool.close()


def email_level(holder):
    """Gives what tier 1 sees of an e-mail address."""
    return holder.current.decide(TIER1, FACTS, ["customer.email"]).allowed.get("customer.email")


class TestStore:
    """Versions in the database."""

    async def test_new_database_has_no_policy(self, access):
        """Before anything was activated there is no version, and asking for it is UNAVAILABLE."""
        assert await store_of(access).active_version() == ""
        with pytest.raises(PolicyUnavailableError):
            await store_of(access).active()

    async def test_bootstrap_happens_once(self, admin, access):
        """Of brokers that start side by side one activates its files, and all agree on them."""
        offered = [files(policy_csv=f"# {i}\n" + RULES) for i in range(5)]
        first = founding(admin)
        created = await asyncio.gather(
            *(first.found(Bundle.of(policy, {}), by="serve") for policy in offered)
        )
        version, active = await store_of(access).active()

        assert (version, created.count(True)) == ("1", 1)
        assert active.files.digest == offered[created.index(True)].digest

    async def test_files_come_back_to_the_character(self, admin, access):
        """What is loaded from the database is what was activated."""
        policy = files(policy_csv='# naïve "quotes" \\ and {braces} …\n' + RULES)
        version = await activate(admin, policy)

        assert await store_of(access).active() == (version, Bundle.of(policy, {}))

    @pytest.mark.attack("C15")
    async def test_version_always_grows(self, admin, access):
        """Old content comes back as a new version; no version is ever gone back to."""
        versions = [int(await activate(admin, policy)) for policy in (files(), OPEN, files())]

        assert versions == sorted(set(versions))
        assert (await store_of(access).active())[1].files.digest == files().digest
        owner = await asyncpg.connect(access_dsn_of_owner(admin))
        try:
            with pytest.raises(asyncpg.PostgresError, match="never changed"):
                await owner.execute("UPDATE broker.policy_active SET version = $1", versions[0])
        finally:
            await owner.close()

    async def test_compare_and_swap(self, admin, access):
        """Whoever expects another version than the active one changes nothing."""
        first = await activate(admin, files())
        second = await activate(admin, OPEN, expected=first)  # the control arm

        with pytest.raises(PolicyUnavailableError):
            await activate(admin, files(), expected=first)
        assert await store_of(access).active_version() == second

    @pytest.mark.attack("R4")
    async def test_two_editors_at_once(self, admin):
        """Of two who expect the same version one wins, and the other learns of it."""
        first = await activate(admin, files())
        outcomes = await asyncio.gather(
            activate(admin, OPEN, expected=first),
            activate(admin, files(), expected=first),
            return_exceptions=True,
        )

        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["PolicyUnavailableError", "str"]

    @pytest.mark.attack("C1")
    async def test_broken_policy_is_not_stored(self, admin, access):
        """Files with a finding never reach the database, by either way."""
        broken = edited("policy.csv", "allow", "Allow")
        with pytest.raises(PolicyInvalidError):
            await activate(admin, broken)

        assert await store_of(access).active_version() == ""

    async def test_no_version_without_its_event(self, admin, access, monkeypatch):
        """If the ledger event that goes with it cannot be written, the policy is not active."""
        first = await activate(admin, files())

        async def nothing(*_args, **_options):
            raise LedgerUnavailableError

        monkeypatch.setattr("broker.publishing.publisher.append_events", nothing)
        with pytest.raises(LedgerUnavailableError):
            await activate(admin, OPEN)

        assert await store_of(access).active_version() == first

    async def test_activation_is_announced(self, admin, access):
        """Whoever listens hears the new version when it is committed."""
        heard = asyncio.Queue()
        async with access.acquire() as conn:
            await conn.add_listener("broker_policy", lambda *args: heard.put_nowait(args[-1]))
            version = await activate(admin, files())
            assert await asyncio.wait_for(heard.get(), 5) == version
            await conn.reset()

    async def test_half_a_policy_cannot_be_stored(self, admin):
        """The database itself refuses what is not five texts, whoever asks."""
        assert await force(admin, dict(TEXTS), files().digest)  # the control arm

        for half in (
            {name: text for name, text in TEXTS.items() if name != "limits.yaml"},
            {**TEXTS, "extra.csv": "x"},
            {**TEXTS, "policy.csv": ""},
            {**TEXTS, "policy.csv": 1},
            ["policy.csv"],
            {},
        ):
            with pytest.raises(asyncpg.CheckViolationError):
                await force(admin, half, files().digest)

    async def test_tampered_files_are_not_served(self, admin, access, database):
        """Files that are not those of the stored digest are refused, though each of them is sound."""
        await activate(admin, files())
        superuser = await asyncpg.connect(database.dsn())
        try:
            await superuser.execute("ALTER TABLE broker.policy_version DISABLE TRIGGER ALL")
            await superuser.execute(
                "UPDATE broker.policy_version SET files = $1::text::jsonb", json.dumps(dict(OPEN.texts))
            )
        finally:
            await superuser.close()

        with pytest.raises(PolicyInvalidError, match="digest"):
            await store_of(access).active()

    async def test_no_login_role_writes(self, admin, database):
        """Every statement that writes is refused to every role of the broker."""
        await activate(admin, files())
        for role in ("broker_access", "broker_admin", "broker_auditor", "broker_feed"):
            conn = await asyncpg.connect(database.dsn(role))
            try:
                for statement in (
                    "UPDATE broker.policy_version SET loaded_by = 'x'",
                    "DELETE FROM broker.policy_version",
                    "TRUNCATE broker.policy_version, broker.policy_active",
                    "UPDATE broker.policy_active SET version = version + 1",
                    "DELETE FROM broker.policy_active",
                    "INSERT INTO broker.policy_active (version) VALUES (1)",
                    "INSERT INTO broker.policy_version (digest, files, loaded_by) VALUES ('', '{}', 'x')",
                    "INSERT INTO broker.policy_proposal (proposal_id) VALUES (gen_random_uuid())",
                    "UPDATE broker.policy_proposal SET widens = false",
                    "INSERT INTO broker.policy_proposal_end (proposal_id) VALUES (gen_random_uuid())",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await conn.execute(statement)
            finally:
                await conn.close()

    async def test_only_the_administrators_role_activates(self, database):
        """The functions that activate are closed to every other login role."""
        for role in ("broker_access", "broker_auditor", "broker_feed", "broker_reader"):
            conn = await asyncpg.connect(database.dsn(role))
            try:
                for call in (
                    "publish_first_policy('{}', '', '{}', '', 'x', 'x')",
                    "publish_policy(gen_random_uuid(), '', 'x|y', 'c', true, '', 1, 'x')",
                    "make_policy_active(1)",
                    "break_policy_glass(2, '{}', '', '{}', '', 'x', 'x', 'x')",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await conn.execute(f"SELECT broker.{call}")
            finally:
                await conn.close()

    async def test_owner_cannot_change_history(self, admin, database):
        """The owner has the right and is stopped by the trigger."""
        await activate(admin, files())
        conn = await asyncpg.connect(database.dsn("broker_owner"))
        try:
            for statement in (
                "UPDATE broker.policy_version SET loaded_by = 'x'",
                "DELETE FROM broker.policy_active",
                (
                    "TRUNCATE broker.policy_version, broker.policy_active, broker.policy_proposal,"
                    " broker.policy_proposal_end"
                ),
            ):
                with pytest.raises(asyncpg.PostgresError, match="never changed"):
                    await conn.execute(statement)
        finally:
            await conn.close()


class TestHolder:
    """The policy in force in one process."""

    async def test_nothing_is_in_force_before_the_first_load(self, access):
        """Without a policy every decision is UNAVAILABLE, and the alert says why."""
        holder = PolicyHolder(store_of(access))
        with pytest.raises(PolicyUnavailableError):
            _ = holder.current
        await holder.refresh()

        assert not holder.loaded
        assert "no policy is active" in holder.alert
        with pytest.raises(PolicyUnavailableError):
            _ = holder.current

    @pytest.mark.attack("R4")
    async def test_new_version_replaces_the_old_one_whole(self, admin, access):
        """A refresh puts another object in force; whoever holds the old one goes on with all of it."""
        told = []
        holder = PolicyHolder(store_of(access))
        first = await activate(admin, files())
        await holder.refresh()
        holder.follow(lambda policy: told.append(policy.version))
        held = holder.current
        second = await activate(admin, OPEN)
        await holder.refresh()

        assert (held.version, holder.current.version) == (first, second)
        assert held is not holder.current
        assert held.decide(TIER1, FACTS, ["customer.email"]).allowed["customer.email"] == "masked"
        assert email_level(holder) == "clear"
        assert told == [first, second]

    async def test_same_version_is_not_built_again(self, admin, access):
        """A refresh without news changes nothing."""
        await activate(admin, files())
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        held = holder.current
        await holder.refresh()

        assert holder.current is held

    async def test_broken_version_keeps_the_last_good_one(self, admin, access):
        """What is active and cannot be loaded raises the alert; the next good version ends it."""
        await activate(admin, files())
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        held = holder.current
        broken = {**TEXTS, "policy.csv": RULES.replace("deny", "Deny")}
        await force_signed(admin, broken)  # as a later release might: past this release's reader
        await holder.refresh()

        assert holder.current is held
        assert "unknown-effect" in holder.alert
        await activate(admin, OPEN)
        await holder.refresh()
        assert (holder.alert, email_level(holder)) == ("", "clear")

    async def test_database_gone_keeps_the_last_good_one(self, admin, access):
        """Without the database the policy in force stays, and the alert is set."""
        await activate(admin, files())
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        await access.close()
        await holder.refresh()

        assert holder.current.version
        assert "cannot be read" in holder.alert

    @pytest.mark.parametrize("database_is_there", [True, False])
    async def test_rule_that_ends_is_out_of_force_at_the_next_refresh(self, admin, access, database_is_there):
        """The same version decides without the rule from the next day on, without the database, too."""
        seconds = [1000.0]
        told = []
        version = await activate(admin, TIMED)
        clocked = Clocked(access, seals())
        holder = PolicyHolder(clocked, monotonic=lambda: seconds[0])
        await holder.refresh()
        holder.follow(lambda policy: told.append(policy.today))
        assert email_level(holder) == "masked"
        await holder.refresh()
        held = holder.current
        if database_is_there:
            clocked.time += timedelta(seconds=1)
        else:
            await access.close()
            seconds[0] += 1
        await holder.refresh()

        assert holder.current is not held
        assert (holder.current.version, email_level(holder)) == (version, None)
        assert told == [date(2097, 1, 31), date(2097, 2, 1)]

    async def test_the_databases_clock_ends_rules(self, admin, access):
        """Where it says that the day is over it is, whatever this machine's clock says."""
        await activate(admin, TIMED)
        clocked = Clocked(access, seals())
        clocked.time += timedelta(seconds=1)
        assert datetime.now(UTC) < clocked.time
        late = PolicyHolder(clocked)
        await late.refresh()
        control = PolicyHolder(store_of(access))
        await control.refresh()

        assert (email_level(late), email_level(control)) == (None, "masked")

    async def test_policy_that_cannot_be_built_without_an_ended_rule_is_not_kept(
        self, admin, access, monkeypatch
    ):
        """Whatever that build dies of: a rule that has ended is never decided by again."""
        await activate(admin, TIMED)
        clocked = Clocked(access, seals())
        holder = PolicyHolder(clocked)
        await holder.refresh()
        with monkeypatch.context() as patched:
            patched.setattr("broker.policy.store.compile_files", lambda *_a, **_b: 1 / 0)
            clocked.time += timedelta(days=1)
            await holder.refresh()
            with pytest.raises(PolicyUnavailableError):
                _ = holder.current
        await holder.refresh()

        assert (holder.alert, email_level(holder)) == ("", None)

    async def test_unforeseen_fault_keeps_the_last_good_one(self, admin, access, monkeypatch):
        """Whatever a build dies of, the policy in force stays."""
        await activate(admin, files())
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        held = holder.current
        await activate(admin, OPEN)

        def dies(*_args, **_options):
            raise MemoryError

        monkeypatch.setattr(store, "compile_files", dies)
        await holder.refresh()

        assert holder.current is held
        assert "MemoryError" in holder.alert

    async def test_policies_are_built_off_the_event_loop(self, admin, access, monkeypatch):
        """While a policy is built, the loop runs and decisions are those of the old one."""
        await activate(admin, files())
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        await activate(admin, OPEN)
        building, go_on, threads = threading.Event(), threading.Event(), []

        def slowly(*args, **options):
            threads.append(threading.current_thread())
            building.set()
            go_on.wait(10)
            return compile_files(*args, **options)

        monkeypatch.setattr(store, "compile_files", slowly)
        refresh = asyncio.create_task(holder.refresh())
        await asyncio.to_thread(building.wait, 10)
        meanwhile = email_level(holder)
        go_on.set()
        await refresh

        assert (meanwhile, email_level(holder)) == ("masked", "clear")
        assert threads != [threading.main_thread()]

    async def test_refreshes_at_once_are_one(self, admin, access, monkeypatch):
        """Many who ask at once share one build, and one caller who goes away ends it for nobody."""
        await activate(admin, files())
        builds = []
        monkeypatch.setattr(
            store,
            "compile_files",
            lambda *args, **options: builds.append(args) or compile_files(*args, **options),
        )
        holder = PolicyHolder(store_of(access))
        tasks = [asyncio.create_task(holder.refresh()) for _ in range(50)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert len(builds) == 1
        assert holder.loaded

    async def test_who_asks_late_gets_what_is_active_then(self, admin, access, monkeypatch):
        """A refresh that finds one under way is not content with a version read before it asked."""
        await activate(admin, files())
        building, go_on = threading.Event(), threading.Event()

        def slowly(*args, **options):
            building.set()
            go_on.wait(10)
            return compile_files(*args, **options)

        holder = PolicyHolder(store_of(access))
        monkeypatch.setattr(store, "compile_files", slowly)
        early = asyncio.create_task(holder.refresh())
        await asyncio.to_thread(building.wait, 10)
        monkeypatch.setattr(store, "compile_files", compile_files)
        second = await activate(admin, OPEN)
        late = asyncio.create_task(holder.refresh())
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(early, late)

        assert holder.current.version == second

    async def test_version_that_went_back_is_not_followed(self, admin, access):
        """A database that names an older version than the one in force is an old copy of itself."""
        await activate(admin, files())
        await activate(admin, OPEN)
        holder = PolicyHolder(store_of(access))
        await holder.refresh()
        held = holder.current

        class Old(PolicyStore):
            async def look(self):
                return "1", datetime.now(UTC)

            async def published(self):
                return store.Published("1", Bundle.of(files(), {}), "")

        holder._store = Old(access, seals())
        await holder.refresh()

        assert holder.current is held
        assert "went back" in holder.alert


def access_dsn_of_owner(pool):
    """Gives the owner's DSN of a pool's database."""
    dsn = pool._connect_args[0]
    return dsn.replace("broker_admin", "broker_owner")
