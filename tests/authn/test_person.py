"""Administrators are persons: what makes a token a machine's, and who is the same human being."""

import json

import pytest
from pydantic import ValidationError

from broker import jose
from broker.authn.person import check_person
from broker.errors import StartupError, TokenInvalidError
from broker.model import Agent, Principal, same_person
from broker.settings import AdminIssuerSettings, Settings, read_settings

BLOCK = {"issuer": "https://idp", "audience": "admin", "algorithms": ["ES256"], "jwks_file": "x"}


def _principal(subject="anna", client="console"):
    return Principal(Agent("https://idp", subject), frozenset(), client, 0.0)


def test_the_subject_is_not_the_client():
    """RFC 9068, 2.2: where a client acts for itself, it is the subject."""
    block = AdminIssuerSettings(**BLOCK, only_persons=True)
    check_person(jose.Claims({}), _principal(), block)  # the control arm

    with pytest.raises(TokenInvalidError):
        check_person(jose.Claims({}), _principal("console"), block)


@pytest.mark.parametrize("claims", [{}, {"idtyp": "app"}, {"idtyp": ["user"]}, {"idtyp": "User"}])
def test_the_issuers_own_word_for_persons(claims):
    """Where the block names a claim, only its listed values are persons; a missing claim is none."""
    block = AdminIssuerSettings(**BLOCK, person_claim="idtyp", person_values=["user"])
    check_person(jose.Claims({"idtyp": "user"}), _principal(), block)  # the control arm

    with pytest.raises(TokenInvalidError):
        check_person(jose.Claims(claims), _principal(), block)


UNSAID = {
    "nothing": {},
    "no": {"only_persons": False},
    "a claim without values": {"person_claim": "idtyp"},
    "values without a claim": {"person_values": ["user"]},
    "half a claim, and persons only": {"person_claim": "idtyp", "only_persons": True},
    "both": {"person_claim": "idtyp", "person_values": ["user"], "only_persons": True},
}


@pytest.mark.attack("C14")
@pytest.mark.parametrize("said", UNSAID.values(), ids=UNSAID)
def test_what_tells_persons_must_be_said(said, monkeypatch, tmp_path):
    """Where machines could be second persons the broker does not start, and what to add is said."""
    with pytest.raises(ValidationError):
        AdminIssuerSettings(**BLOCK, **said)
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**BLOCK, **said}.items()]
    settings = tmp_path / "broker.toml"
    settings.write_text("\n".join(["[[admin_issuers]]", *lines, ""]))
    monkeypatch.setenv("BROKER_CONFIG", str(settings))
    with pytest.raises(StartupError) as refused:
        read_settings()

    assert "BROKER_ADMIN_ISSUERS__0" in str(refused.value)
    assert "person_claim and person_values" in str(refused.value)
    assert "only_persons = true" in str(refused.value)


def test_audiences_are_apart():
    """A token that every support tool sees is never an administrator's."""
    agents, persons = {**BLOCK, "audience": "agents"}, {**BLOCK, "only_persons": True}
    Settings(issuers=[agents], admin_issuers=[persons])  # the control arm

    with pytest.raises(ValidationError, match="another audience"):
        Settings(issuers=[BLOCK], admin_issuers=[persons])


ANNA = Agent("https://idp", "anna")


@pytest.mark.attack("C14")
@pytest.mark.parametrize(
    ("issuer", "subject", "same"),
    [
        ("https://idp", "anna", True),
        ("https://idp", "Anna", True),
        ("https://IDP", "ANNA", True),
        ("https://idp/", "anna", True),
        ("https://idp", " anna ", True),
        ("https://idp", "ａnna", True),  # noqa: RUF001 - full-width, which NFKC folds
        ("https://idp", "boris", False),
        ("https://other", "anna", False),
        ("https://idp", "anna2", False),
    ],
)
def test_one_human_being(issuer, subject, same):
    """Two spellings of one name are one person; in doubt they are."""
    assert same_person(ANNA, Agent(issuer, subject)) == same
