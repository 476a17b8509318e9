"""What a store keeps of an answer: for its session and its keys alone, and the same session when it goes out once more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf import Key, Keyring, Session
from dcaf.core import SessionSuperseded
from dcaf.core import kept as kept_answers
from dcaf.core.claims import Claims
from dcaf.core.kept import decrypt_kept, encrypt_kept
from dcaf.core.sealer import Sealer
from dcaf.core.settings import choose_suites
from tests.core.test_json_values import EXAMPLES, KEYS, VALUES

OLD, NEW, OTHER = Key.generate("k6"), Key.generate("k7"), Key.generate("k8")
NOW = 1_789_000_000
SUITES = {"signed": False, "encrypted": True}


def sealer(*keys: Key, encrypt: bool = False, audience: str = "shop", now: int = NOW, mirror: Any = True) -> Sealer:
    suite, *_ = choose_suites(encrypt=encrypt, accept_both=False)
    return Sealer(keys=Keyring(*keys), audience=audience, suite=suite, clock=lambda: now, mirror=mirror)


def keep(by: Sealer, state: dict[str, Any], *, has_mirror: bool = True, subject: str | None = "ada") -> Any:
    """A session that was sealed, and what a store keeps of it: id, envelope, token, kept."""
    session: Session = by.start()
    session.update(state)
    prepared = by.prepare(session, by.binding(subject, "t-1"), sequence=7, has_mirror=has_mirror, may_retry=True)
    return session.id, prepared.sealed, prepared.sealed.keep()


def claims_of(by: Sealer, token: bytes) -> Claims:
    opened = by.opened(token)
    assert opened is not None
    return Claims.read(opened.claims)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_under_the_same_key_it_goes_out_to_the_byte(state: dict[str, Any], encrypt: bool) -> None:
    by = sealer(NEW, encrypt=encrypt)
    sid, sealed, kept = keep(by, state)
    assert sealed.token not in kept
    assert by.reissue(kept, by.binding("ada", "t-1"), sid) == (sealed.token, sealed.envelope)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans(), st.booleans())
def test_after_a_rotation_of_keys_it_is_sealed_by_the_active_one_with_the_same_claims_and_mirror(
    state: dict[str, Any], encrypt: bool, has_mirror: bool
) -> None:
    before = sealer(OLD, encrypt=encrypt)
    sid, sealed, kept = keep(before, state, has_mirror=has_mirror)
    by = sealer(NEW, OLD, encrypt=encrypt, now=NOW + 500)
    token, envelope = by.reissue(kept, by.binding("ada", "t-1"), sid)
    alone = sealer(NEW, encrypt=encrypt, now=NOW + 500)  # the old key is not needed any more
    old, new = claims_of(before, sealed.token), claims_of(alone, token)
    assert new._replace(sub=None, cid=None) == old._replace(sub=None, cid=None)
    session = alone.open({"dcaf": {"token": token.decode()}}, alone.binding("ada", "t-1"))
    assert session.to_dict() == state
    if not has_mirror:
        assert envelope == b""
        return
    shown, was = json.loads(envelope), json.loads(sealed.envelope)
    assert shown.pop("dcaf") == {"token": token.decode(), "expires_at": old.exp, "retry": True}
    was.pop("dcaf")
    assert shown == was


@pytest.mark.parametrize("encrypt", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("mirror", [True, False, frozenset({"a"})], ids=str)
def test_the_mirror_is_the_one_that_was_kept(encrypt: bool, mirror: Any) -> None:
    sid, sealed, kept = keep(sealer(OLD, encrypt=encrypt, mirror=mirror), {"a": 1, "b": "\n"})
    by = sealer(NEW, OLD, encrypt=encrypt, mirror=not mirror)
    shown, was = json.loads(by.reissue(kept, by.binding("ada", "t-1"), sid)[1]), json.loads(sealed.envelope)
    del shown["dcaf"], was["dcaf"]
    assert shown == was


@pytest.mark.parametrize("encrypt", SUITES.values(), ids=SUITES)
def test_without_its_key_it_is_superseded(encrypt: bool) -> None:
    sid, _, kept = keep(sealer(OLD, encrypt=encrypt), {"a": 1})
    by = sealer(NEW, OTHER, encrypt=encrypt)
    with pytest.raises(SessionSuperseded) as caught:
        by.reissue(kept, by.binding("ada", "t-1"), sid)
    assert caught.value.reason == "key"
    assert b"dcaf1" not in repr(caught.value).encode()


WRONG: dict[str, Any] = {
    "another session": lambda kept: (sealer(NEW), kept, "A" * 22),
    "another service": lambda kept: (sealer(NEW, audience="bank"), kept, None),
    "another secret under that name": lambda kept: (sealer(Key.generate("k7")), kept, None),
    "another key's name": lambda kept: (sealer(NEW, OLD), kept.replace(b"k7.", b"k6."), None),
    "a bit": lambda kept: (sealer(NEW), kept[:-1] + bytes([kept[-1] ^ 1]), None),
    "its end": lambda kept: (sealer(NEW), kept[:-1], None),
    "its beginning alone": lambda kept: (sealer(NEW), kept[:9], None),
    "nothing": lambda kept: (sealer(NEW), b"", None),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_is_not_right_is_superseded(wrong: str) -> None:
    sid, _, kept = keep(sealer(NEW), {"a": 1})
    by, changed, asked = WRONG[wrong](kept)
    with pytest.raises(SessionSuperseded):
        by.reissue(changed, by.binding("ada", "t-1"), asked or sid)


@pytest.mark.parametrize("wrong", ["another session", "another key's name"])
def test_control_what_is_bound_to_nothing_is_caught(wrong: str, monkeypatch: Any) -> None:
    if wrong == "another session":
        monkeypatch.setattr(kept_answers, "_bound_to", lambda key, session_id: b"")
    else:
        monkeypatch.setattr(kept_answers, "_bound_to", lambda key, session_id: session_id.encode())
        monkeypatch.setattr(kept_answers, "_secret", lambda key, audience: b"s" * 32)
    with pytest.raises(pytest.fail.Exception):
        test_whatever_is_not_right_is_superseded(wrong)


def test_no_two_are_the_same_bytes_and_none_shows_what_it_has() -> None:
    boxes = {encrypt_kept(NEW, "shop", "s", b"ada@example.org") for _ in range(50)}
    assert len(boxes) == 50
    assert not any(b"ada" in box for box in boxes)
    assert {decrypt_kept(Keyring(NEW), "shop", "s", box) for box in boxes} == {b"ada@example.org"}


def test_a_token_of_the_encrypted_suite_is_not_under_the_same_key() -> None:
    """A store's row is no token, and a token no row."""
    by = sealer(NEW, encrypt=True)
    _, sealed, kept = keep(by, {"a": 1})
    assert by.opened(kept) is None
    assert decrypt_kept(Keyring(NEW), "shop", "A" * 22, sealed.token) is None


def test_a_suite_that_is_not_accepted_any_more_is_superseded() -> None:
    sid, _, kept = keep(sealer(NEW), {"a": 1})
    by = sealer(NEW, encrypt=True)
    with pytest.raises(SessionSuperseded):
        by.reissue(kept, by.binding("ada", "t-1"), sid)


def test_during_a_migration_to_encryption_it_is_sealed_by_the_new_suite() -> None:
    sid, sealed, kept = keep(sealer(NEW), {"a": 1})
    suite, *others = choose_suites(encrypt=True, accept_both=True)
    by = Sealer(keys=Keyring(NEW), audience="shop", suite=suite, also_accepted=others, clock=lambda: NOW)
    token, _ = by.reissue(kept, by.binding("ada", "t-1"), sid)
    assert token.startswith(b"dcaf1e.")
    alone = sealer(NEW, encrypt=True)
    assert claims_of(alone, token).exp == claims_of(by, sealed.token).exp
    assert alone.open({"dcaf": {"token": token.decode()}}, alone.binding("ada", "t-1")).to_dict() == {"a": 1}
