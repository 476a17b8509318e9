"""A sealer goes on from what a store says of a session, and lays what a turn did over a newer state that the store has."""

import hashlib
import json
from typing import Any

import pytest

from dcaf.core import Key, Keyring, SessionEnded, SessionUnavailable, SessionValueError
from dcaf.core.base64url import Payload, decode
from dcaf.core.claims import Claims
from dcaf.core.mapping import state_of
from dcaf.core.migrations import Migrations
from dcaf.core.sealer import Sealer
from dcaf.core.store import OpenRequest, StatelessLease

NOW = 1_789_000_000
KEY = Key.from_bytes("k7", hashlib.sha256(b"kept").digest())


def sealer(**settings: Any) -> Sealer:
    return Sealer(**{"keys": Keyring(KEY), "audience": "shop", "clock": lambda: NOW, **settings})


def begun(made: Sealer, state: Any = None) -> Any:
    """A session whose first turn was sealed."""
    session = made.start()
    session.update(state or {})
    made.seal(session, made.binding(), sequence=1)
    return session


def leased(made: Sealer, session: Any, **says: Any) -> StatelessLease:
    """What a store says of a session; all but ``says`` as its token has it."""
    claims = made.claims_of(session)
    lease = StatelessLease(OpenRequest(claims.sid, claims, made.binding()))
    for name, value in says.items():
        assert hasattr(lease, name)
        setattr(lease, name, value)
    return lease


def kept(made: Sealer, state: bytes, *, first: Any = None, **says: Any) -> Any:
    """A session whose state a store keeps."""
    session = begun(made, first)
    assert made.resume(session, leased(made, session, payload=Payload(state), **says)) == []
    return session


def rename(values: Any) -> Any:
    return {"wizard_step": values.pop("step", 1), **values}


def upgrading(**settings: Any) -> Sealer:
    return sealer(migrations=Migrations(2, {2: rename}), **settings)


def test_a_prepared_state_has_all_that_a_store_keeps_of_it() -> None:
    made = sealer()
    session = begun(made, {"a": 1})
    session["a"] = 2
    sealed = made.prepare(session, made.binding(), sequence=7).sealed
    claims = Claims.read(decode(sealed.token.split(b".")[2]))
    assert (sealed.payload.data, sealed.is_changed) == (b'{"a":2}', True)
    assert sealed.claims == claims
    assert claims.seq == 7
    member = json.loads(sealed.envelope)
    assert member == {"a": 2, "dcaf": {"token": sealed.token.decode(), "expires_at": claims.exp}}
    assert made.open(member, made.binding()).to_dict() == {"a": 2}


def test_a_state_that_nobody_changed_is_prepared_with_its_number_and_its_token() -> None:
    made = sealer()
    session = begun(made, {"a": 1})
    prepared = made.prepare(session, made.binding(), sequence=7)
    assert (prepared.sealed.is_changed, prepared.sealed.claims.seq) == (False, 1)
    assert prepared.sealed.token == made.token(session, made.binding())


def test_what_a_header_or_a_cookie_carries_is_prepared_without_an_envelope() -> None:
    made = sealer()
    session = begun(made)
    session["a"] = 1
    sealed = made.prepare(session, made.binding(), sequence=2, has_mirror=False).sealed
    assert (sealed.envelope, sealed.payload.data) == (b"", b'{"a":1}')


def test_what_is_written_while_a_store_commits_is_a_change_of_the_next_turn() -> None:
    made = sealer()
    session = begun(made, {"a": 1, "b": 1})
    session["a"] = 2
    prepared = made.prepare(session, made.binding(), sequence=2)
    session["b"] = 2
    prepared.mark_sealed(session)
    assert session.changes == {"set": {"b": 2}, "delete": []}
    assert (session.sequence, made.claims_of(session)) == (2, prepared.sealed.claims)
    later = made.prepare(session, made.binding(), sequence=3)
    assert later.sealed.payload.data == b'{"a":2,"b":2}'


def test_a_committed_state_rests_until_it_is_changed() -> None:
    made = sealer()
    session = begun(made, {"a": 1})
    session["a"] = 2
    prepared = made.prepare(session, made.binding(), sequence=2)
    prepared.mark_sealed(session)
    assert not session.is_modified
    assert made.token(session, made.binding()) == prepared.sealed.token
    session["b"] = 3
    assert made.prepare(session, made.binding(), sequence=3).sealed.payload.data == b'{"a":2,"b":3}'


def test_a_change_between_two_turns_is_laid_over_what_the_store_has_by_then() -> None:
    made = sealer()
    session = kept(made, b'{"n":1,"log":["a"],"mine":1}')
    session.incr("n")
    session["mine"] = 2
    lease = leased(made, session, revision=5, payload=Payload(b'{"n":5,"log":["a","b"],"mine":7}'))
    assert made.resume(session, lease) == ["mine"]
    assert session.to_dict() == {"n": 6, "log": ["a", "b"], "mine": 2}
    assert session.changes == {"set": {"n": 6, "mine": 2}, "delete": []}
    assert session.sequence == 5


def test_a_change_that_may_be_in_the_stores_state_already_is_not_made_once_more() -> None:
    made = sealer()
    session = kept(made, b'{"n":1}')
    session.incr("n")
    lease = leased(made, session, revision=2, payload=Payload(b'{"n":2}'))
    assert made.resume(session, lease, is_in_doubt=True) == []
    assert (session.to_dict(), session.is_modified) == ({"n": 2}, False)


def test_a_change_whose_commit_failed_is_made_where_nobody_has_committed_the_session_since() -> None:
    made = sealer()
    session = kept(made, b'{"n":1}')
    session.incr("n")
    lease = leased(made, session, payload=Payload(b'{"n":1,"user:theme":"dark"}'))  # of the same number
    assert made.resume(session, lease, is_in_doubt=True) == []
    assert (session.to_dict(), session.is_modified) == ({"n": 2, "user:theme": "dark"}, True)


class Added:
    """What a turn has added."""

    is_empty = False


def test_what_was_added_goes_with_the_change_that_may_be_in_the_stores_state_already() -> None:
    for revision, goes in ((1, False), (2, True)):
        made = sealer()
        session = kept(made, b'{"n":1}')
        session.incr("n")
        state_of(session).journal = Added()  # type: ignore[assignment]
        made.resume(session, leased(made, session, revision=revision, payload=Payload(b'{"n":3}')), is_in_doubt=True)
        assert (state_of(session).journal is None, session["n"]) == (goes, 3 if goes else 4)


def test_what_a_turn_has_changed_stays_when_the_store_has_the_state_that_it_began_with() -> None:
    made = sealer()
    session = kept(made, b'{"a":1}')
    session["a"] = 2
    assert made.resume(session, leased(made, session, payload=Payload(b'{"a":1}'))) == []
    assert session.changes == {"set": {"a": 2}, "delete": []}


def test_a_state_that_a_token_carries_keeps_to_the_tokens_limit_and_one_that_the_server_keeps_does_not() -> None:
    made = sealer(max_token_bytes=1_000)
    session = kept(made, b'{"a":1}')
    with pytest.raises(SessionValueError, match="would be larger"):
        session["a"] = "x" * 2_000
    session = kept(made, b'{"a":1}', place="disk")
    session["a"] = "x" * 2_000
    sealed = made.prepare(session, made.binding(), sequence=2).sealed
    assert len(sealed.payload.data) > 2_000
    assert (len(sealed.token) <= 1_000, sealed.claims.at) == (True, "disk")


def test_a_turn_is_laid_over_a_newer_state_and_goes_on_from_its_number() -> None:
    made = sealer()
    session = begun(made, {"n": 1, "mine": 1})
    assert made.resume(session, leased(made, session)) == []
    session.incr("n")
    session["mine"] = 2
    assert made.rebase(session, Payload(b'{"n":5,"mine":7,"new":true}'), 0, 9) == ["mine"]
    assert session.to_dict() == {"n": 6, "mine": 2, "new": True}
    assert session.sequence == 9
    assert made.prepare(session, made.binding(), sequence=10).sealed.claims.seq == 10


def test_the_last_token_does_not_rest_over_a_newer_state() -> None:
    made = sealer()
    session = begun(made, {"a": 1})
    made.resume(session, leased(made, session))
    before = made.token(session, made.binding())
    assert made.rebase(session, Payload(b'{"a":2}'), 0, 2) == []
    sealed = made.prepare(session, made.binding(), sequence=3).sealed
    assert (sealed.payload.data, sealed.claims.seq, sealed.is_changed) == (b'{"a":2}', 2, False)
    assert sealed.token != before
    assert made.open(json.loads(sealed.envelope), made.binding()).to_dict() == {"a": 2}


@pytest.mark.parametrize("goes_on", ["resume", "rebase"])
def test_a_state_of_an_older_version_is_brought_to_the_present_one(goes_on: str) -> None:
    made = upgrading()
    session = begun(made, {"old": 1})
    older = Payload(b'{"step":3,"a":1}')
    if goes_on == "resume":
        assert made.resume(session, leased(made, session, payload=older, version=1)) == []
    else:
        made.resume(session, leased(made, session))
        assert made.rebase(session, older, 1, 1) == []
    assert session.to_dict() == {"wizard_step": 3, "a": 1}
    assert (session.is_modified, session.sequence, made.rests(session)) == (False, 1, False)
    sealed = made.prepare(session, made.binding(), sequence=2).sealed
    assert (sealed.payload.data, sealed.is_changed) == (b'{"wizard_step":3,"a":1}', True)
    assert (sealed.claims.seq, sealed.claims.sv) == (2, 2)


def test_a_state_of_a_newer_version_is_left_to_the_release_that_wrote_it() -> None:
    made = upgrading()
    session = begun(made)
    with pytest.raises(SessionUnavailable) as caught:
        made.resume(session, leased(made, session, payload=Payload(b'{"step":3}'), version=3))
    assert caught.value.reason == "version"


def test_a_state_from_whose_version_no_way_leads_has_ended() -> None:
    made = upgrading()
    session = begun(made)
    with pytest.raises(SessionEnded) as caught:
        made.resume(session, leased(made, session, payload=Payload(b'{"step":3}'), version=0))
    assert caught.value.reason == "version"


@pytest.mark.parametrize(
    "newer",
    [b'{"a":1}', None, Payload(b"[]"), Payload(b"no JSON"), Payload('{"a":1}'), Payload(segment=b"!")],  # type: ignore[arg-type]
    ids=["bytes", "nothing", "a list", "no JSON", "a text", "no base64url"],
)
def test_a_state_that_nobody_can_read_is_the_stores_fault(newer: Any) -> None:
    made = sealer()
    session = begun(made)
    made.resume(session, leased(made, session))
    with pytest.raises(SessionUnavailable) as caught:
        made.rebase(session, newer, 0, 2)
    assert caught.value.reason == "store"
