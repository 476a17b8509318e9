"""What stands at ``data.session``: the token that counts, the mirror that does not, and who may have sealed it."""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core import (
    ConfigurationError,
    Key,
    Keyring,
    Session,
    SessionEnded,
    SessionError,
    SessionInvalid,
    SessionMalformed,
    SessionTooLarge,
    SessionUnsigned,
    SessionValueError,
)
from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.claims import Claims, Lifetime, Standing, digest
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.envelope import NEW, RESTART, _exact
from dcaf.core.migrations import Migrations
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED
from dcaf.core.state import State
from dcaf.core.transaction import Overlay

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
NOW = 1_789_000_000
KEY = Key.from_bytes("k7", hashlib.sha256(b"envelope").digest())
OLD = Key.from_bytes("old", hashlib.sha256(b"old").digest())
SID = "s" * 22


class Clock:
    def __init__(self, now: Any = NOW) -> None:
        self.now = now

    def __call__(self) -> Any:
        return self.now + 0.999


def sealer(**settings: Any) -> Any:
    return Sealer(**{"keys": Keyring(KEY, OLD), "audience": "shop", "clock": Clock(), **settings})


def envelope(session: Any, made: Any, sequence: Any = 1, **binding: Any) -> Any:
    return json.loads(made.seal(session, made.binding(**binding), sequence=sequence))


def sealed(state: Any, made: Any = None, **binding: Any) -> Any:
    made = made or sealer()
    session = made.start()
    session.update(state)
    return envelope(session, made, **binding)


def opened(member: Any, made: Any = None, **binding: Any) -> Any:
    made = made or sealer()
    return made.open(member, made.binding(**binding))


def token_of(state: Any = b"{}", key: Any = KEY, audience: Any = "shop", **changes: Any) -> Any:
    claims = Claims("shop", SID, 1, NOW, NOW, NOW + 600)
    written = changes.pop("raw", None) or claims._replace(**changes).write()
    return {"dcaf": {"token": SIGNED.seal(key, audience, written, Payload(state)).decode()}}


def claims_of(member: Any) -> Any:
    return Claims.read(decode(member["dcaf"]["token"].split(".")[2]))


def state_of(member: Any) -> Any:
    return decode(member["dcaf"]["token"].split(".")[3])


def refusal(member: Any, made: Any = None, **binding: Any) -> Any:
    with pytest.raises(SessionError) as caught:
        opened(member, made, **binding)
    return type(caught.value).__name__, caught.value.reason


def over(state: Any, made: Any) -> Any:
    """A session over a state as it was sealed, the library's own member with it."""
    return opened(token_of(state), made)


STATE = {"step": 2, "service": "api", "list": [1, {"x": None}], "user:theme": "dark"}


def test_an_envelope_is_the_state_for_display_and_one_token() -> None:
    member = sealed(STATE | {"temp:x": 1})
    assert list(member) == [*STATE, "dcaf"]
    assert {key: member[key] for key in STATE} == STATE
    assert list(member["dcaf"]) == ["token", "expires_at"]
    assert member["dcaf"]["expires_at"] == NOW + 7 * 86_400
    assert opened(member).to_dict() == STATE


def test_an_empty_session_has_an_envelope_too() -> None:
    member = sealed({})
    assert list(member) == ["dcaf"]
    assert state_of(member) == b"{}"
    assert opened(member).is_empty


def test_a_mirror_of_some_keys_shows_those_alone() -> None:
    made = sealer(mirror=frozenset({"step", "absent", "dcaf", "temp:x"}))
    member = sealed(STATE | {"temp:x": 1}, made)
    assert list(member) == ["step", "dcaf"]
    assert opened(member, made).to_dict() == STATE


def test_without_a_mirror_nothing_is_shown() -> None:
    made = sealer(mirror=False)
    member = sealed(STATE, made)
    assert list(member) == ["dcaf"]
    assert opened(member, made).to_dict() == STATE


def ignores_the_mirror(open_member: Any) -> None:
    member = sealed(STATE)
    for edited in (
        {"dcaf": member["dcaf"]},
        member | {"step": 99, "evil": True},
        dict(reversed(member.items())),
        {"dcaf": {"token": member["dcaf"]["token"], "expires_at": 0, "more": 1}},
        {"dcaf": {"token": member["dcaf"]["token"]}, "step": None},
    ):
        assert open_member(json.loads(json.dumps(edited))) == STATE


def test_whatever_a_client_does_to_the_mirror_has_no_effect() -> None:
    ignores_the_mirror(lambda member: opened(member).to_dict())


def test_the_law_of_the_mirror_catches_a_reader_of_it() -> None:
    with pytest.raises(AssertionError):
        ignores_the_mirror(lambda member: {key: value for key, value in member.items() if key != "dcaf"})


BIG = 2**53


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (BIG - 1, BIG - 1),
        (BIG, str(BIG)),
        (BIG + 1, str(BIG + 1)),
        (-BIG + 1, -BIG + 1),
        (-BIG, str(-BIG)),
        (2**64 - 1, str(2**64 - 1)),
        (-(2**63), str(-(2**63))),
        (True, True),
        (1e300, 1e300),
        ({"a": [BIG, {"b": BIG}]}, {"a": [str(BIG), {"b": str(BIG)}]}),
    ],
)
def test_integers_that_javascript_would_round_are_strings_in_the_mirror_and_exact_in_the_state(stored: Any, shown: Any) -> None:
    member = sealed({"n": stored})
    assert repr(member["n"]) == repr(shown)
    assert repr(opened(member)["n"]) == repr(stored)


@pytest.mark.parametrize("before", range(9))
def test_an_integer_that_javascript_would_round_is_found_wherever_it_stands(before: int) -> None:
    for number, shown in ((10**15, 10**15), (10**16 - 1, str(10**16 - 1)), (2**64 - 1, str(2**64 - 1))):
        assert sealed({"k" * before + "n": number})["k" * before + "n"] == shown


@pytest.mark.parametrize("before", range(4))
def test_a_mirror_of_all_keys_shows_an_untouched_state_as_it_was_written(before: int) -> None:
    # As no writer of ours would write it, and with digits wherever they are looked for, but in no long row.
    written = b'{"b" : 1.0,%b"a":"1   1   1   1   1"' % (b" " * before)
    shown = sealer().seal(opened(token_of(written + b"}")), sealer().binding())
    assert shown.startswith(written + b',"dcaf":{"token":"')


def test_the_mirror_changes_nothing_of_its_argument() -> None:
    value: dict[str, Any] = {"a": [BIG]}
    _exact(value)
    assert value == {"a": [BIG]}


LIBRARY = b'{"a":1,"dcaf":{"approvals":["CANARY"]}}'


def is_hidden(session: Any) -> None:
    shown = [dict(session), session.to_dict(), session.copy(), session.changes, list(session), repr(session), session.get("dcaf")]
    shown += ["x" if "dcaf" in session else "", len(session), dict(session.user), dict(session.temp)]
    assert "dcaf" not in str(shown)
    assert "CANARY" not in str(shown)
    with pytest.raises(KeyError):
        session["dcaf"]


def test_the_librarys_own_member_shows_nowhere() -> None:
    made = sealer()
    is_hidden(over(LIBRARY, made))
    member = envelope(over(LIBRARY, made), made)
    assert list(member) == ["a", "dcaf"]
    assert "CANARY" not in json.dumps({**member, "dcaf": {**member["dcaf"], "token": ""}})


def test_the_law_of_hiding_catches_a_member_that_is_a_key() -> None:
    session = Session.from_dict({"dcaf ": {"approvals": ["CANARY"]}})
    with pytest.raises(AssertionError):
        is_hidden(session)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda s: s.clear(), {}),
        (lambda s: s.delete("a"), {}),
        (lambda s: s.delete("dcaf"), {"a": 1}),
        (lambda s: s.pop("dcaf", None), {"a": 1}),
        (lambda s: s.update(b=2), {"a": 1, "b": 2}),
        (lambda s: [s.popitem() for _ in list(s)], {}),
        (lambda s: s.setdefault("a", 5), {"a": 1}),
    ],
)
def test_the_librarys_own_member_survives_whatever_a_tool_does(change: Any, left: Any) -> None:
    made = sealer()
    session = over(LIBRARY, made)
    change(session)
    sealed_state = json.loads(state_of(envelope(session, made)))
    assert sealed_state == left | {"dcaf": {"approvals": ["CANARY"]}}
    assert opened(envelope(session, made), made).to_dict() == left


@pytest.mark.parametrize("key", ["dcaf"])
def test_no_tool_can_write_the_librarys_own_member(key: Any) -> None:
    made = sealer()
    session = over(LIBRARY, made)
    writes: tuple[Callable[[], Any], ...] = (
        lambda: session.set(key, {}),
        lambda: session.update({key: {}}),
        lambda: session.setdefault(key, {}),
        lambda: session.append(key, 1),
        lambda: session.incr(key),
        lambda: session.get(key, {}, as_type=dict[str, int]).update(x=1) or session.to_dict(),
    )
    for write in writes:
        with pytest.raises(SessionValueError, match=r"^'dcaf' is the library's own key; choose another$"):
            write()


def test_an_untouched_session_is_sealed_again_with_its_very_state_segment() -> None:
    made = sealer(mirror=False)
    odd = b'{ "b" : 1.0,\n "a":2 }'  # as no writer of ours would write it
    member = token_of(odd)
    session = opened(member, made)
    again = envelope(session, made)
    assert again["dcaf"]["token"].split(".")[3] == member["dcaf"]["token"].split(".")[3]
    assert not session._state.is_touched


@pytest.mark.parametrize("look", [Session.to_dict, lambda s: s["a"], len, lambda s: s.is_modified, lambda s: s.set("a", 2)])
def test_a_session_that_was_only_read_is_sealed_again_with_its_very_state_segment(look: Any) -> None:
    odd = b'{ "b" : 1.0,\n "a":2 }'
    made = sealer()
    session = opened(token_of(odd), made)
    look(session)
    assert state_of(envelope(session, made)) == odd
    session["a"] = 3
    assert state_of(envelope(session, made)) == b'{"b":1.0,"a":3}'


def test_a_session_keeps_its_id_and_birth_and_takes_the_number_it_is_given() -> None:
    clock = Clock()
    made = sealer(clock=clock)
    first = sealed({"a": 1}, made)
    clock.now += 1_000
    session = opened(first, made)
    session["a"] = 2
    again = envelope(session, made, sequence=7)
    before, after = claims_of(first), claims_of(again)
    assert (after.sid, after.born) == (before.sid, before.born) == (before.sid, NOW)
    assert (before.seq, after.seq, after.iat, after.exp) == (1, 7, NOW + 1_000, NOW + 1_000 + 7 * 86_400)
    assert (after.sub, after.cid, after.sv, after.ep, after.ix) == (None,) * 5


@pytest.mark.parametrize("randomness", [lambda size: b"s" * (size - 1), lambda size: "s" * size, bytearray, lambda _: None])
def test_randomness_that_gives_something_else_than_so_many_bytes_is_refused(randomness: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sealer(randomness=randomness).start()
    assert str(caught.value) == "randomness= takes a function that gives as many random bytes as it is asked for: os.urandom."


def test_two_new_sessions_have_two_ids() -> None:
    made = sealer()
    assert made.start().id != made.start().id


def test_no_row_of_refreshes_outlives_the_absolute_timeout() -> None:
    clock, refreshes = Clock(), max(60, int(10_000 * SCALE))
    made = sealer(clock=clock, lifetime=Lifetime(idle_s=600, absolute_s=3_600))
    member = sealed({}, made)
    for _ in range(refreshes):
        try:
            member = envelope(opened(member, made), made)
        except SessionEnded:
            break
        assert claims_of(member).exp <= NOW + 3_600
        clock.now += 500
    assert NOW + 3_600 < clock.now <= NOW + 3_600 + 60 + 500
    assert refusal(member, made)[0] == "SessionEnded"


@pytest.mark.parametrize("member", [{"dcaf": {"token": NEW}}, json.loads(RESTART), {"step": 5, "dcaf": {"token": "new", "x": 1}}])
def test_the_explicit_wish_starts_a_new_empty_session(member: Any) -> None:
    session = opened(member)
    assert session.is_empty
    assert session.sequence == 0
    assert session.restarted is None
    assert session.id != opened(member).id


@pytest.mark.parametrize("member", [None, 5, "x", [], True, 1.5, [{"dcaf": {"token": "new"}}]])
def test_what_is_no_object_is_malformed(member: Any) -> None:
    assert refusal(member) == ("SessionMalformed", "member")


@pytest.mark.parametrize("own", [None, 5, "x", [], {}, {"token": None}, {"token": 5}, {"token": ["new"]}, {"Token": "new"}])
def test_an_envelope_without_a_token_is_malformed(own: Any) -> None:
    assert refusal({"step": 1, "dcaf": own}) == ("SessionMalformed", "token")
    assert issubclass(SessionMalformed, SessionError)


@pytest.mark.parametrize("member", [{"step": 1}, {"Dcaf": {"token": "new"}}, {"token": "new"}])
def test_a_plain_object_is_unsigned(member: Any) -> None:
    assert refusal(member) == ("SessionUnsigned", "plain")
    assert issubclass(SessionUnsigned, SessionError)


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ({"dcaf": {"token": ""}}, ("SessionInvalid", "shape")),
        ({"dcaf": {"token": "New"}}, ("SessionInvalid", "shape")),
        ({"dcaf": {"token": "né"}}, ("SessionInvalid", "ascii")),
        ({"dcaf": {"token": "x" * (256 * 1024 + 1)}}, ("SessionTooLarge", "length")),
        (token_of(key=Key.from_bytes("k9", OLD.secret)), ("SessionInvalid", "kid")),
        (token_of(key=Key.from_bytes("k7", OLD.secret)), ("SessionInvalid", "mac")),
        (token_of(audience="other"), ("SessionInvalid", "mac")),
        (token_of(raw=b"[]"), ("SessionInvalid", "claims")),
        (token_of(aud="other"), ("SessionInvalid", "aud")),
        (token_of(sub="u" * 22), ("SessionInvalid", "sub")),
        (token_of(cid="u" * 22), ("SessionInvalid", "cid")),
        (token_of(iat=NOW + 61), ("SessionInvalid", "iat")),
        (token_of(exp=NOW - 61), ("SessionEnded", "exp")),
        (token_of(born=NOW - 30 * 86_400 - 61), ("SessionEnded", "born")),
        (token_of(sv=1), ("SessionEnded", "version")),
    ],
)
def test_every_cause_is_refused_with_its_reason(member: Any, expected: Any) -> None:
    assert refusal(member) == expected


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("claims", {"sid": "x"}, "SessionInvalid"),
    ("aud", {"aud": "other"}, "SessionInvalid"),
    ("sub", {"sub": "u" * 22}, "SessionInvalid"),
    ("cid", {"cid": "u" * 22}, "SessionInvalid"),
    ("iat", {"iat": NOW + 61}, "SessionInvalid"),
    ("exp", {"exp": NOW - 61}, "SessionEnded"),
    ("born", {"born": NOW - 30 * 86_400 - 61}, "SessionEnded"),
    ("version", {"sv": 9}, "SessionEnded"),
]


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_the_checks_come_in_the_order_of_the_protocol(first: Any) -> None:
    """With every later fault present too, the first one is the reason."""
    changes = {name: value for _, fault, _ in FAULTS[first:] for name, value in fault.items()}
    assert refusal(token_of(**changes)) == (FAULTS[first][2], FAULTS[first][0])


def test_nobody_but_the_holder_learns_that_a_token_expired() -> None:
    made = sealer(clock=Clock(NOW - 30 * 86_400))
    member = sealed({}, made, subject="ann", conversation="one")
    assert refusal(member, subject="ann", conversation="one") == ("SessionEnded", "exp")
    for binding in ({"subject": "bob", "conversation": "one"}, {"subject": "ann"}, {"conversation": "one"}, {}):
        assert refusal(member, **binding)[0] == "SessionInvalid"


def test_every_invalid_token_has_one_answer() -> None:
    members = [token_of(aud="other"), token_of(sub="u" * 22), token_of(iat=NOW + 61), {"dcaf": {"token": ""}}, token_of(raw=b"1")]
    said = set()
    for member in members:
        with pytest.raises(SessionInvalid) as caught:
            opened(member)
        said.add((str(caught.value), caught.value.code, caught.value.http_status, caught.value.offers_restart))
    assert said == {("The session was not sealed by this service for this caller.", "session-invalid", 400, True)}


def test_a_refusal_names_key_and_digest_for_the_log_and_no_session_id() -> None:
    made = sealer()
    with pytest.raises(SessionInvalid) as caught:
        opened(token_of(sub="u" * 22), made)
    assert (caught.value.kid, caught.value.sid_digest) == ("k7", made.sid_digest(SID))
    assert SID not in str(vars(caught.value))
    assert made.sid_digest(SID) != made.sid_digest("t" * 22)
    with pytest.raises(SessionInvalid) as caught:
        opened(token_of(raw=b"[]"), made)
    assert (caught.value.kid, caught.value.sid_digest) == ("k7", None)


@pytest.mark.parametrize("subject", [None, "ann", "bob"])
@pytest.mark.parametrize("conversation", [None, "one", "two"])
def test_only_the_holder_opens(subject: Any, conversation: Any) -> None:
    member = sealed({"a": 1}, subject="ann", conversation="one")
    if (subject, conversation) == ("ann", "one"):
        assert opened(member, subject=subject, conversation=conversation).to_dict() == {"a": 1}
    else:
        assert refusal(member, subject=subject, conversation=conversation)[0] == "SessionInvalid"


def test_a_token_of_an_older_key_comes_back_sealed_by_the_active_one() -> None:
    before = sealer(keys=Keyring(OLD))
    member = sealed({"a": 1}, before, subject="ann")
    made = sealer()
    again = envelope(opened(member, made, subject="ann"), made, subject="ann")
    assert [found["dcaf"]["token"].split(".")[1] for found in (member, again)] == ["old", "k7"]
    assert opened(again, sealer(keys=Keyring(KEY)), subject="ann").to_dict() == {"a": 1}
    assert refusal(again, before, subject="ann") == ("SessionInvalid", "kid")


def test_a_key_does_not_sign_before_its_time() -> None:
    early = Key.from_bytes("k9", hashlib.sha256(b"k9").digest(), not_before=NOW + 3_600)
    made = sealer(keys=Keyring(early, KEY))
    try:
        member = sealed({}, made)
    except ConfigurationError:
        return
    assert member["dcaf"]["token"].split(".")[1] != "k9"


def test_a_key_verifies_before_its_time() -> None:
    early = Key.from_bytes("k9", hashlib.sha256(b"k9").digest(), not_before=NOW + 3_600)
    member = sealed({"a": 1}, sealer(keys=Keyring(early), clock=Clock(NOW + 3_600)))
    made = sealer(keys=Keyring(KEY, early), clock=Clock(NOW + 3_599))
    assert opened(member, sealer(keys=Keyring(KEY, early), clock=Clock(NOW + 3_599))).to_dict() == {"a": 1}
    assert opened(member, made).to_dict() == {"a": 1}


@pytest.mark.parametrize("audience", ["", None, 5, b"shop"])
def test_an_audience_is_required(audience: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sealer(audience=audience)
    assert str(caught.value) == (
        "audience= must name this service, for instance audience='deploy-agent': no other service's session is accepted."
    )


@pytest.mark.parametrize("limit", [0, 100, 300])
def test_a_limit_that_leaves_no_room_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sealer(max_token_bytes=limit)
    beside = str(caught.value).rsplit(" ", 1)[1].rstrip(".")
    assert str(caught.value) == f"max_token_bytes={limit} leaves no room for a state; the claims alone take {beside}."
    assert 300 < int(beside) < 500


def fills_its_token(made: Any) -> Any:
    session, size = made.start(), 8
    while size:
        try:
            session["a"] = session.get("a", "") + "x" * size
        except SessionValueError:
            size //= 2
            continue
        size *= 2
    return envelope(session, made, sequence=2**53 - 1, subject="ann", conversation="one")


def test_no_token_that_is_sealed_is_over_the_limit() -> None:
    for limit in (500, 501, 502, 503, 4_096):
        made = sealer(max_token_bytes=limit)
        member = fills_its_token(made)
        assert limit - 120 < len(member["dcaf"]["token"]) <= limit
        assert opened(member, made, subject="ann", conversation="one").sequence == 2**53 - 1


def test_an_untouched_session_never_comes_back_over_the_limit() -> None:
    short = Key.from_bytes("k", hashlib.sha256(b"short").digest())
    long = Key.from_bytes("k" * 16, hashlib.sha256(b"long").digest())
    member = sealed({"a": "x" * 600}, sealer(keys=Keyring(short)))
    made = sealer(keys=Keyring(long, short), max_token_bytes=len(member["dcaf"]["token"]))
    try:
        again = envelope(opened(member, made), made)
    except (SessionValueError, SessionTooLarge):
        return
    assert opened(again, made).to_dict() == {"a": "x" * 600}


def test_a_session_with_the_librarys_own_member_keeps_to_the_limit() -> None:
    made = sealer(max_token_bytes=1_000)
    session = opened(token_of(b'{"dcaf":{"used":"' + b"u" * 300 + b'"}}'), made)
    with pytest.raises(SessionValueError, match="would be larger"):
        session["a"] = "x" * 500
    session["a"] = "x" * 100
    assert len(envelope(session, made)["dcaf"]["token"]) <= 1_000


def test_a_call_whose_own_member_does_not_fit_beside_anothers_leaves_nothing_of_it() -> None:
    state = State(limit_bytes=1_000)
    one, other = Overlay(state), Overlay(state)
    for name, call in {"a": one, "b": other}.items():
        call.keep({"used": {name: "u" * 600}})
        call.put(name, 1)
    one.commit()
    with pytest.raises(SessionValueError, match="would be larger"):
        other.commit()
    assert (list(state), state.own()) == (["a"], {"used": {"a": "u" * 600}})


def test_a_call_that_makes_room_for_its_own_member_is_taken() -> None:
    state = State(Payload(b'{"a":"' + b"x" * 800 + b'"}'), limit_bytes=1_000)
    call = Overlay(state)
    call.drop("a")
    call.keep({"used": {"b": "u" * 600}})
    call.commit()
    assert (list(state), state.own()) == ([], {"used": {"b": "u" * 600}})


def test_a_handle_that_grew_over_the_limit_is_refused_before_it_is_sealed() -> None:
    made = sealer(max_token_bytes=1_000)
    session = made.start()
    session["a"] = ["x"]
    session["a"].append("y" * 1_000)
    with pytest.raises(SessionValueError, match="would be larger"):
        envelope(session, made)


def test_a_token_may_be_as_long_as_the_limit_and_no_longer() -> None:
    member = sealed({"a": "x" * 600})
    length = len(member["dcaf"]["token"])
    session = opened(member)
    assert len(envelope(session, sealer(max_token_bytes=length))["dcaf"]["token"]) == length
    with pytest.raises(SessionValueError) as caught:
        envelope(session, sealer(max_token_bytes=length - 1))
    assert str(caught.value) == (
        f"the token would be {length:,} bytes long, over max_token_bytes={length - 1:,}: the session was sealed under a larger "
        "limit. Clear it, or raise the limit"
    )


def test_a_token_as_long_as_the_limit_is_made_and_rests() -> None:
    token = sealed({"a": "x" * 600})["dcaf"]["token"]
    limited = sealer(max_token_bytes=len(token), clock=Clock(NOW + 1))
    session = opened({"dcaf": {"token": token}})
    assert envelope(session, limited)["dcaf"]["token"] == token
    session["a"] = "y" * 600
    made = envelope(session, limited)["dcaf"]["token"]
    assert len(made) == len(token)
    assert opened({"dcaf": {"token": made}}, limited).to_dict() == {"a": "y" * 600}


@pytest.mark.parametrize("suite", [SIGNED, ENCRYPTED], ids=["signed", "encrypted"])
def test_the_room_for_a_state_is_what_a_token_holds_to_the_byte(suite: Any) -> None:
    key = Key.from_bytes("k" * 16, KEY.secret)
    for claims in (2, 3, 4, 300):
        for limit in range(claims * 4 // 3 + 200, claims * 4 // 3 + 212):
            room = suite.room(claims, limit)
            assert isinstance(room, int)
            longest, longer = (len(suite.seal(key, "shop", b"c" * claims, Payload(b"s" * size))) for size in (room, room + 1))
            assert longest <= limit < longer


def test_the_room_for_a_state_is_that_beside_the_longest_claims() -> None:
    most = 2**53 - 1
    times = ",".join(f'"{name}":{most}' for name in ("seq", "born", "iat", "exp"))
    digests = f'"sub":"{"A" * 22}","cid":"{"A" * 22}","sv":{most},"ep":{most}'
    written = f'{{"aud":"shop","sid":"{"A" * 22}",{times},{digests}}}'
    assert sealer(max_token_bytes=1_000).most_state_bytes == SIGNED.room(len(written), 1_000)
    least = next(limit for limit in range(300, 500) if SIGNED.room(len(written), limit) >= 2)
    assert sealer(max_token_bytes=least)
    for limit in (least - 1, 100):
        with pytest.raises(ConfigurationError) as caught:
            sealer(max_token_bytes=limit)
        taken = limit - SIGNED.room(len(written), limit) * 4 // 3
        assert str(caught.value) == f"max_token_bytes={limit} leaves no room for a state; the claims alone take {taken}."


def test_a_new_session_has_the_claims_of_one_that_begins_now() -> None:
    made = sealer(randomness=bytes, lifetime=Lifetime(600, 3_600))
    assert made.claims_of(made.start()) == Claims("shop", "A" * 22, 0, NOW, NOW, NOW + 600)


def test_a_session_lives_for_7_days_without_a_turn_and_for_30_in_all_by_default() -> None:
    claims = claims_of(sealed({}))
    assert claims.exp == NOW + 7 * 86_400
    made = sealer(clock=Clock(NOW + 29 * 86_400))
    assert (
        claims_of(envelope(made.accept(made.verify(token_of(exp=NOW + 29 * 86_400)), made.binding()), made)).exp
        == NOW + 30 * 86_400
    )


def test_the_digest_of_a_session_id_is_of_a_role_of_its_own() -> None:
    assert sealer().sid_digest(SID) == digest(KEY.derive("dcaf1s", "shop", "log"), "sid", SID)
    assert sealer(suite=ENCRYPTED).sid_digest(SID) == digest(KEY.derive("dcaf1e", "shop", "log"), "sid", SID)


def test_the_token_alone_is_that_of_the_envelope_and_counts_as_what_arrived() -> None:
    made, tokens = sealer(randomness=lambda size: b"s" * size), []
    for alone in (True, False):
        session = made.start(restarted="session-ended")
        session["n"] = 1
        binding = made.binding("ada", "c-1")
        text = made.token(session, binding, sequence=3).decode() if alone else json.loads(made.seal(session, binding, sequence=3))
        tokens.append(text if alone else text["dcaf"]["token"])
        assert (session.is_modified, session.sequence, session.restarted) == (False, 3, "session-ended")
        assert made.token(session, binding, sequence=3).decode() == tokens[0]
    assert tokens[0] == tokens[1]
    with pytest.raises(ConfigurationError, match="began or opened"):
        made.token(Session(), made.binding(), sequence=1)


@pytest.mark.parametrize("bound", [(None, "t1"), ("ada", None), ("ada", "t1")])
def test_a_token_of_nobody_does_not_rest_once_its_session_is_somebodys(bound: Any) -> None:
    made = sealer()
    session = made.start()
    session["n"] = 1
    first = made.seal(session, made.binding())
    second = made.seal(session, made.binding(*bound))
    assert made.open(json.loads(second), made.binding(*bound)).to_dict() == {"n": 1}
    with pytest.raises(SessionInvalid):
        made.open(json.loads(first), made.binding(*bound))
    assert made.seal(session, made.binding(*bound)) == second


@pytest.mark.parametrize("suite", [SIGNED, ENCRYPTED], ids=["signed", "encrypted"])
def test_the_token_of_a_state_that_nobody_changed_goes_out_again(suite: Any) -> None:
    made = sealer(suite=suite)
    first = sealed({"n": 1}, made)
    session = opened(first, made)
    assert json.loads(made.seal(session, made.binding())) == first
    session["n"] = 2
    assert json.loads(made.seal(session, made.binding()))["dcaf"]["token"] != first["dcaf"]["token"]


def test_a_token_rests_until_it_is_worn_after_a_tenth_of_the_idle_timeout() -> None:
    made = sealer(lifetime=Lifetime(idle_s=100, absolute_s=1000))
    session = made.start()
    made.token(session, made.binding(), sequence=1)
    for passed, rest, is_worn in ((0, 100, False), (10, 90, False), (11, 89, True), (100, 0, True), (150, 0, True)):
        made._clock.now = NOW + passed
        assert (made.rest_s(session), made.rests(session)) == (rest, not is_worn)


def test_a_session_that_stays_open_is_judged_again_and_no_longer_counts_as_restarted() -> None:
    clock = Clock()
    made = sealer(clock=clock, lifetime=Lifetime(600, 3_600))
    session = made.start(restarted="session-ended")
    made.seal(session, made.binding(), sequence=1)
    assert session.restarted == "session-ended"
    clock.now += 660
    made.recheck(session)
    assert (session.restarted, session.id, session.sequence) == (None, made.claims_of(session).sid, 1)
    clock.now += 1
    with pytest.raises(SessionEnded) as caught:
        made.recheck(session)
    assert (caught.value.reason, caught.value.sid_digest) == ("exp", made.sid_digest(session.id))
    short = sealer(clock=clock, lifetime=Lifetime(600, 100))
    with pytest.raises(SessionEnded) as caught:
        short.recheck(Session._over(State(standing=Standing(made.claims_of(session)._replace(exp=NOW + 9_999)))))
    assert caught.value.reason == "born"


def test_sealing_makes_the_state_what_arrived() -> None:
    made = sealer()
    session = made.start()
    session["a"] = [1]
    assert claims_of(envelope(session, made, sequence=1)).seq == 1
    assert (session.is_modified, session.changes, session.sequence) == (False, {"set": {}, "delete": []}, 1)
    session["a"].append(2)
    assert session.changes == {"set": {"a": [1, 2]}, "delete": []}
    assert opened(envelope(session, made, sequence=2)).to_dict() == {"a": [1, 2]}


def test_a_large_state_has_its_index_in_the_claims_and_is_cut_by_it() -> None:
    member = sealed({"a": "x" * 5_000, "b": 1})
    assert claims_of(member).ix == (5_006, 5)
    assert opened(member)._state.arrived.index == (5_006, 5)
    assert claims_of(sealed({"a": "x" * 4_000})).ix is None


def test_an_encrypted_state_without_a_mirror_is_not_visible_at_all() -> None:
    made = sealer(suite=ENCRYPTED, mirror=False)
    session = made.start()
    session["a"] = 1
    assert (made.visible(session), made.visible(session, whole=True)) == (b"{}", b'{"a":1}')


def test_the_key_that_signs_is_named() -> None:
    early = Key.from_bytes("k9", OLD.secret, not_before=NOW + 1)
    assert sealer(keys=Keyring(early, KEY)).signing_kid() == "k7"
    assert sealer(keys=Keyring(early, KEY), clock=Clock(NOW + 1)).signing_kid() == "k9"


def test_an_application_sees_all_of_a_signed_state_and_the_mirrored_part_of_an_encrypted_one() -> None:
    for suite, whole, shown in (
        (SIGNED, False, {"a": 2**60, "b": 2}),
        (ENCRYPTED, False, {"a": 2**60}),
        (ENCRYPTED, True, {"a": 2**60, "b": 2}),
    ):
        made = sealer(suite=suite, mirror={"a"})
        session = made.start()
        session.update({"a": 2**60, "b": 2})
        assert json.loads(made.visible(session, whole=whole)) == shown
    assert made.visible(session) == b'{"a":1152921504606846976}'


def test_a_version_is_sealed_and_absent_at_0() -> None:
    assert claims_of(sealed({})).sv is None
    assert claims_of(sealed({}, sealer(migrations=Migrations(3)))).sv == 3


def test_what_was_stored_in_one_turn_is_read_in_the_next() -> None:
    made = sealer()

    @settings(deadline=None, max_examples=max(25, int(1_000 * SCALE)))
    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"])).filter(lambda key: key != "dcaf" and not key.startswith("temp:")),
            st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé😀\0"\\'),
        )
    )
    def law(values: Any) -> None:
        member = sealed(values, made)
        assert orjson.dumps(opened(member, made).to_dict()) == orjson.dumps(values)
        assert set(member) == {*values, "dcaf"}

    law()


def test_a_session_of_another_sealer_can_be_sealed_only_by_its_standing() -> None:
    claims = Claims("other", SID, 4, NOW - 10, NOW, NOW + 5)
    session = Session._over(State(Payload(b'{"a":1}'), Standing(claims)))
    found = claims_of(envelope(session, sealer(), sequence=5))
    assert (found.aud, found.sid, found.born, found.seq) == ("shop", SID, NOW - 10, 5)


@pytest.mark.parametrize("mirror", ["step", None, 1, [None], ["a", 2]])
def test_a_mirror_is_a_bool_or_names(mirror: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sealer(mirror=mirror)
    assert str(caught.value) == 'mirror= takes True, False, or the keys to show, for instance mirror={"wizard_step"}.'


@pytest.mark.parametrize("mirror", ["step", ["step"], None, 1])
def test_a_mirror_of_another_type_shows_no_more_than_it_names(mirror: Any) -> None:
    try:
        made = sealer(mirror=mirror)
        member = sealed({"step": 1, "st": "CANARY", "secret": "CANARY"}, made)
    except ConfigurationError:
        return
    assert "CANARY" not in json.dumps({key: value for key, value in member.items() if key != "dcaf"})


def test_encode_is_the_inverse_of_decode() -> None:
    for length in range(70):
        data = bytes(range(200, 200 - length, -1))
        assert decode(encode(data)) == data
        assert "=" not in encode(data)


@pytest.mark.parametrize("bad", ["a", "abcde", "ab c", "abc!", "aé", "ab+/", "ab+a", "ab/a", "ab\n", "abc=="])
def test_what_is_no_base64url_is_not_decoded(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(bad)


def test_the_two_characters_of_the_other_alphabet_are_named_for_what_they_are() -> None:
    for bad in ("ab+a", "ab/a"):
        with pytest.raises(ValueError, match=r"^not base64url$"):
            decode(bad)


def test_a_token_in_a_larger_text_is_opened_within_the_limit_and_nothing_is_raised_for_any_other() -> None:
    made = sealer()
    session = made.start()
    session["text"] = "x" * 600
    token = json.loads(made.seal(session, made.binding(), sequence=1))["dcaf"]["token"].encode()
    for limit, opens in ((len(token), True), (len(token) - 1, False), (len(token) + 1, True)):
        found = sealer(max_token_bytes=limit).opened(token)
        assert (found is not None) is opens
        assert found is None or found.payload.data == b'{"text":"%b"}' % (b"x" * 600)
    for other in (b"", b"dcaf1s", token[:-1], token + b"x", b"dcaf1e." + token):
        assert made.opened(other) is None


def test_the_binding_of_nobody_is_that_of_no_subject_and_no_conversation() -> None:
    assert sealer().anonymous == sealer().binding()
