"""dcaf and its peers under the same attacks: the page says what was measured, and each attack can come out both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from itsdangerous.encoding import base64_decode, base64_encode
from itsdangerous.exc import BadData

from dcaf import Key, Keyring
from tests.peers.attacks import ATTACKS, NOW, at, spellings
from tests.peers.comparison import OTHERS, PAGE, NoSubject, OneAudience, Other, cell, in_page
from tests.peers.systems import STRONG, SYSTEMS, Dcaf, StarletteSessions, Starsessions, System, Turn

DCAF = SYSTEMS[-1]
PEERS = SYSTEMS[:-1]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log: dcaf would write a line for each of thousands of refused tokens."""
    with caplog.at_level("CRITICAL", logger="dcaf"):
        yield


def name_of(system: Any) -> str:
    return type(system).__name__


def setting_of(other: Any) -> str:
    return f"{type(other.system).__name__}-{other.attack}"


def default_of(other: Other) -> System:
    return next(system for system in SYSTEMS if system.name == other.system.name)


def test_the_page_says_what_is_measured_now() -> None:
    text = PAGE.read_text()
    assert text == in_page(text), "write it anew: python -m tests.peers.comparison"


def test_a_token_of_dcaf_has_one_spelling() -> None:
    assert cell(DCAF, "spelling").startswith("1 spelling accepted, of 3,")


def test_dcaf_refuses_what_another_service_or_another_use_sealed_with_its_secret() -> None:
    assert cell(DCAF, "cross-purpose") == "another service: refused; another use: refused"


def test_dcaf_takes_no_weak_secret() -> None:
    assert cell(DCAF, "weak secret") == "0 of 3 accepted"


def test_dcaf_refuses_the_session_of_another_user() -> None:
    assert cell(DCAF, "cross-user") == "refused"


def test_a_session_of_dcaf_ends_untouched_and_also_when_it_is_used_every_day() -> None:
    assert cell(DCAF, "expiry") == "untouched: 7 days and 1 minute; changed daily: 30 days"


def test_dcaf_brings_a_session_under_the_new_secret_when_it_is_read() -> None:
    assert cell(DCAF, "rotation") == "kept; a read re-seals it"


class DecodesFirst(Dcaf):
    """Broken: whatever decodes to the right mac is the right mac."""

    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        turn = super().service(secret, old=old, name=name)
        return lambda token, value=None, user="ann": turn(token and respelled(token), value, user)


def respelled(token: str) -> str:
    """The spelling that a token ought to have had."""
    body, _, mac = token.rpartition(".")
    try:
        return f"{body}.{base64_encode(base64_decode(mac)).decode()}"
    except BadData:
        return token


class NeverEnds(Dcaf):
    """Broken: no absolute end, as far as 400 days go."""

    def settings(self, name: str) -> dict[str, Any]:
        return {**super().settings(name), "absolute_timeout": timedelta(days=9_999)}


class TakesPasswords(Dcaf):
    """Broken: a text of any kind becomes a key."""

    def keyring(self, secret: str, old: str | None) -> Keyring:
        return Keyring(Key.from_bytes("any", sha256(secret.encode()).digest()))


class ForgetsTheOld(Dcaf):
    """Broken: the new secret alone."""

    def keyring(self, secret: str, old: str | None) -> Keyring:
        return Keyring.parse(secret)


class SealsWithTheOld(Dcaf):
    """Broken: the old secret goes on sealing."""

    def keyring(self, secret: str, old: str | None) -> Keyring:
        return Keyring.parse(old or secret, secret)


BROKEN: dict[System, tuple[str, str]] = {
    DecodesFirst(): ("spelling", "14 spellings accepted"),
    OneAudience(): ("cross-purpose", "another service: accepted; another use: refused"),
    TakesPasswords(): ("weak secret", "3 of 3 accepted"),
    NoSubject(): ("cross-user", "accepted"),
    NeverEnds(): ("expiry", "untouched: 7 days and 1 minute; changed daily: alive after 400 days"),
    ForgetsTheOld(): ("rotation", "lost"),
    SealsWithTheOld(): ("rotation", "kept; a read leaves it under the old secret"),
}
"""A dcaf with one protection gone -> the attack that notices, and how its cell then begins."""


@pytest.mark.parametrize("broken", BROKEN, ids=name_of)
def test_control_an_attack_notices_that_one_protection_is_gone(broken: System) -> None:
    attack, expected = BROKEN[broken]
    assert cell(broken, attack).startswith(expected)
    assert not cell(DCAF, attack).startswith(expected)


def test_control_every_attack_has_a_broken_dcaf_that_it_catches() -> None:
    assert {attack for attack, _ in BROKEN.values()} == set(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_does_not_come_out_alike_for_all_systems(attack: str) -> None:
    assert len({re.sub(r", of [\d,]+ tried", "", cell(system, attack)) for system in SYSTEMS}) > 1


@pytest.mark.parametrize("other", OTHERS, ids=setting_of)
def test_a_setting_that_the_page_names_changes_what_its_attack_comes_to(other: Other) -> None:
    assert cell(other.system, other.attack) != cell(default_of(other), other.attack)


def test_a_peer_that_does_as_well_as_dcaf_is_shown_to() -> None:
    django = next(system for system in PEERS if system.name == "Django")
    assert cell(django, "spelling").startswith("1 spelling accepted")


def test_a_token_of_starlette_is_one_of_starsessions_with_the_same_secret_and_the_other_way_round() -> None:
    with at(NOW):
        one, other = StarletteSessions().service(STRONG[0]), Starsessions().service(STRONG[0])
        assert other(one(None, "1").sealed).value == "1"
        assert one(other(None, "1").sealed).value == "1"


@pytest.mark.parametrize("system", SYSTEMS, ids=name_of)
def test_each_service_keeps_its_state_and_refuses_a_forged_token(system: System) -> None:
    with at(NOW):
        turn = system.service(system.secrets[0])
        token = turn(None, "1").sealed
        assert turn(token, "2").value == "1"
        assert turn(f"A{token[1:-6]}AAAAAA").value is None
        assert system.service(system.secrets[1])(token).value is None


def test_the_spellings_that_are_tried_are_other_texts() -> None:
    found = spellings("head.body.signature")
    assert "head.body.signature" not in found
    assert {"head.body.signature=", "head=.body.signature", "head.body.signaturf", "head.body.sign    ature"} <= found
