"""Key sources: a real https server that is slow, wrong, gone or malicious, and how often it is asked."""

import asyncio
import json
import threading

import pytest

from broker import jose
from broker.authn import AgentVerifier, FileKeys, HttpsKeys, open_sources
from broker.authn.jwks import KEEP, MIN_INTERVAL
from broker.dev.oidc import DevelopmentIssuer
from broker.errors import KeysUnavailableError, StartupError, TokenInvalidError
from broker.settings import IssuerSettings
from tests.jose.forge import BROKER, ISSUER, NOW


class Steady:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def steady():
    return Steady()


@pytest.fixture
def issuer(key_server):
    """Gives an issuer whose keys the server serves."""
    made = DevelopmentIssuer(ISSUER)
    key_server.body = made.jwks().encode()
    return made


@pytest.fixture
async def source(key_server, issuer, ca_file, steady):
    """Gives a source that has its keys."""
    made = HttpsKeys(key_server.url, ca_file=ca_file, steady=steady, timeout=2.0)
    await made.start()
    yield made
    await made.close()


class TestFetch:
    async def test_before_readiness(self, source, issuer, key_server):
        """After the start the keys are there, and an ordinary call asks nobody."""
        assert not source.error
        assert (await source.for_kid(issuer.public.kid)).holds(issuer.public)
        assert source.current().holds(issuer.public)

        assert [path for path, _ in key_server.requests] == ["/keys"]

    async def test_event_loop_goes_on(self, key_server, issuer, ca_file, steady):
        """While a fetch hangs, the event loop runs, and the call gives up at its bound."""
        key_server.hold = threading.Event()
        source = HttpsKeys(key_server.url, ca_file=ca_file, steady=steady, timeout=0.2)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        with pytest.raises(KeysUnavailableError):
            await source.for_kid("any")
        ticker.cancel()
        key_server.hold.set()
        await source.close()

        assert ticks > 100

    @pytest.mark.attack("J5")
    async def test_redirects_are_not_followed(self, key_server, issuer, ca_file, steady):
        """An answer cannot send us elsewhere."""
        key_server.status = 302
        key_server.headers = {"Location": f"https://localhost:{key_server.port}/elsewhere"}
        source = HttpsKeys(key_server.url, ca_file=ca_file, steady=steady)
        await source.start()
        with pytest.raises(KeysUnavailableError):
            source.current()
        assert [path for path, _ in key_server.requests] == ["/keys"]
        key_server.status = 200
        steady.now += MIN_INTERVAL

        assert (await source.for_kid(issuer.public.kid)).holds(issuer.public)
        await source.close()

    async def test_environment_chooses_no_proxy(self, source, issuer, monkeypatch, steady, key_server):
        """A proxy in the environment is not asked."""
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        steady.now += MIN_INTERVAL
        await source.for_kid("unknown")

        assert len(key_server.requests) == 2
        assert not source.error

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (500, None),
            (404, None),
            (200, b""),
            (200, b"{}"),
            (200, b"<html>"),
            (200, b" " * (256 * 1024 + 1)),
            (200, b'{"keys":[],"keys":[]}'),
        ],
    )
    async def test_bad_answers(self, source, issuer, key_server, steady, status, body):
        """A bad answer changes nothing but `error`; the last good keys stay."""
        good = key_server.body
        key_server.status, key_server.body = status, good if body is None else body
        steady.now += MIN_INTERVAL
        await source.for_kid("unknown")
        assert source.error
        assert source.current().holds(issuer.public)
        key_server.status, key_server.body = 200, good
        steady.now += MIN_INTERVAL
        await source.for_kid("unknown")

        assert not source.error

    async def test_another_authority(self, key_server, issuer, steady):
        """A server that the configured authority does not vouch for gives no keys."""
        source = HttpsKeys(key_server.url, steady=steady)
        await source.start()
        with pytest.raises(KeysUnavailableError):
            source.current()
        await source.close()

        assert not key_server.requests

    @pytest.mark.parametrize(
        "url",
        ["http://id.example/keys", "file:///etc/passwd", "https:///keys", "https://a@id.example/k", "https://id.example/#a"],
    )  # fmt: skip
    def test_addresses_that_are_none(self, url, ca_file):
        """An address that is not plain https refuses to start."""
        with pytest.raises(StartupError):
            HttpsKeys(url, ca_file=ca_file)

        assert HttpsKeys("https://id.example/keys", ca_file=ca_file)

    def test_missing_authority(self, tmp_path):
        """An authority that is not there refuses to start."""
        with pytest.raises(StartupError):
            HttpsKeys("https://id.example/keys", ca_file=tmp_path / "none.pem")


class TestNewKeys:
    @pytest.mark.attack("J6")
    async def test_invented_ids_cost_one_fetch(self, source, key_server, steady):
        """A thousand tokens with invented ids at once make one fetch, and none for half a minute more."""
        steady.now += MIN_INTERVAL
        await asyncio.gather(*(source.for_kid(f"invented-{n}") for n in range(1000)))
        assert len(key_server.requests) == 2
        for n in range(100):
            await source.for_kid(f"again-{n}")
        steady.now += MIN_INTERVAL - 1
        await source.for_kid("once more")
        assert len(key_server.requests) == 2
        steady.now += 1

        await source.for_kid("once more")
        assert len(key_server.requests) == 3

    async def test_rotated_at_the_issuer(self, source, issuer, key_server, steady):
        """The first token of a new key is accepted, after one fetch; the old key's are not, if it went."""
        old = issuer.mint("alice", audience=BROKER, client_id="desk", now=NOW)
        fresh = DevelopmentIssuer(ISSUER)
        new = fresh.mint("alice", audience=BROKER, client_id="desk", now=NOW)
        block = IssuerSettings(
            issuer=ISSUER, audience=BROKER, algorithms=("ES256",), jwks_url="https://id.example"
        )
        verifier = AgentVerifier([block], {ISSUER: source}, lambda: NOW)
        assert await verifier.verify([f"Bearer {old}"])
        key_server.body = fresh.jwks().encode()
        steady.now += MIN_INTERVAL
        assert await verifier.verify([f"Bearer {new}"])

        with pytest.raises(TokenInvalidError):
            await verifier.verify([f"Bearer {old}"])

    async def test_a_waiter_who_goes_away(self, source, issuer, key_server, steady):
        """One client that cancels does not end the fetch that others wait for."""
        fresh = DevelopmentIssuer(ISSUER)
        key_server.body = fresh.jwks().encode()
        key_server.hold = threading.Event()
        key_server.arrived.clear()
        steady.now += MIN_INTERVAL
        first = asyncio.create_task(source.for_kid(fresh.public.kid))
        second = asyncio.create_task(source.for_kid(fresh.public.kid))
        await asyncio.to_thread(key_server.arrived.wait)
        first.cancel()
        key_server.hold.set()

        assert (await second).holds(fresh.public)
        assert len(key_server.requests) == 2


class TestOutage:
    async def test_last_good_keys_serve_for_a_while(self, source, issuer, key_server, steady):
        """While the issuer is down its last keys serve, for twelve hours and no longer."""
        key_server.status = 503
        steady.now += KEEP
        assert (await source.for_kid(issuer.public.kid)).holds(issuer.public)
        steady.now += 1
        with pytest.raises(KeysUnavailableError):
            await source.for_kid(issuer.public.kid)
        key_server.status = 200
        steady.now += MIN_INTERVAL
        await source.for_kid("any")

        assert source.current().holds(issuer.public)

    async def test_down_at_the_start(self, key_server, issuer, ca_file, steady):
        """A start without the issuer goes on without keys, says so, and heals."""
        key_server.status = 503
        source = HttpsKeys(key_server.url, ca_file=ca_file, steady=steady)
        await source.start()
        assert source.error
        with pytest.raises(KeysUnavailableError):
            await source.for_kid(issuer.public.kid)
        assert len(key_server.requests) == 1
        key_server.status = 200
        steady.now += MIN_INTERVAL

        assert (await source.for_kid(issuer.public.kid)).holds(issuer.public)
        assert not source.error
        await source.close()

    async def test_nobody_listens(self, ca_file, steady):
        """A refused connection is an outage like any other."""
        source = HttpsKeys("https://127.0.0.1:1/keys", ca_file=ca_file, steady=steady)
        await source.start()
        await source.close()

        assert source.error == "issuer's keys could not be fetched: URLError"


class TestSources:
    async def test_by_the_blocks(self, tmp_path, ca_file):
        """Each block gets the source that it names."""
        path = tmp_path / "jwks.json"
        path.write_text(DevelopmentIssuer(ISSUER).jwks())
        common = {"audience": BROKER, "algorithms": ("ES256",)}
        blocks = [
            IssuerSettings(issuer="https://a.example", jwks_file=path, **common),
            IssuerSettings(
                issuer="https://b.example", jwks_url="https://b.example/keys", jwks_ca_file=ca_file, **common
            ),
        ]
        sources = open_sources(blocks)
        assert isinstance(sources["https://a.example"], FileKeys)
        assert isinstance(sources["https://b.example"], HttpsKeys)
        file = sources["https://a.example"]
        await file.start()
        assert await file.for_kid("any") is file.current()
        await file.close()

        assert not file.trouble()

    def test_a_file_that_is_none(self, tmp_path):
        """A block whose file holds no keys refuses to start."""
        path = tmp_path / "jwks.json"
        path.write_text(json.dumps({"keys": []}))
        block = IssuerSettings(issuer=ISSUER, audience=BROKER, algorithms=("ES256",), jwks_file=path)
        with pytest.raises(StartupError):
            open_sources([block])

        path.write_text(DevelopmentIssuer(ISSUER).jwks())
        assert isinstance(open_sources([block])[ISSUER].current(), jose.KeySet)
