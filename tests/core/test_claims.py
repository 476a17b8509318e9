"""For whom and since when: the strict schema of the claims, the order of the checks, and the edges of time."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcaf.core import Key, SessionEnded, SessionError, SessionInvalid
from dcaf.core.claims import MAX_INTEGER, Binding, Claims, Lifetime, check_times, digest

KEY = Key.from_bytes("k7", hashlib.sha256(b"claims").digest())
OTHER = Key.from_bytes("k8", hashlib.sha256(b"other").digest())
LIFE = Lifetime(idle_s=600, absolute_s=3_600)
SID, SUB, CID = "s" * 22, "u" * 22, "c" * 22
FULL = {
    "aud": "shop",
    "sid": SID,
    "seq": 3,
    "born": 1_000,
    "iat": 2_000,
    "exp": 2_600,
    "sub": SUB,
    "cid": CID,
    "sv": 2,
    "ep": 4,
    "at": "server",
    "ix": [5, 6],
}
REQUIRED = ["aud", "sid", "seq", "born", "iat", "exp"]
INTEGERS = ["seq", "born", "iat", "exp", "sv", "ep"]
TEXTS = ["aud", "sid", "sub", "cid"]
DIGESTS = ["sid", "sub", "cid"]


def read(values: Any) -> Any:
    return Claims.read(json.dumps(values).encode())


def refused(values: Any) -> Any:
    with pytest.raises(SessionInvalid) as caught:
        read(values)
    return caught.value.reason


def test_all_claims_are_read_and_written_in_their_order() -> None:
    claims = read(FULL)
    assert claims == Claims("shop", SID, 3, 1_000, 2_000, 2_600, SUB, CID, 2, 4, "server", (5, 6))
    assert claims.write() == json.dumps(FULL, separators=(",", ":")).encode()


def test_optional_claims_may_be_absent_and_are_then_not_written() -> None:
    values = {name: FULL[name] for name in REQUIRED}
    assert read(values).write() == json.dumps(values, separators=(",", ":")).encode()


COUNTS = st.integers(0, MAX_INTEGER)
DIGEST = st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True)
CLAIMS = st.builds(
    Claims,
    aud=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    sid=DIGEST,
    seq=COUNTS,
    born=COUNTS,
    iat=COUNTS,
    exp=COUNTS,
    sub=st.none() | DIGEST,
    cid=st.none() | DIGEST,
    sv=st.none() | COUNTS,
    ep=st.none() | COUNTS,
    at=st.none() | st.from_regex(r"[a-z]{1,16}", fullmatch=True),
    ix=st.none() | st.lists(COUNTS, max_size=5).map(tuple),
)


@given(CLAIMS)
def test_what_was_written_is_read_back(claims: Any) -> None:
    assert Claims.read(claims.write()) == claims


@given(CLAIMS, st.integers(0, 300), st.sampled_from(list(b'0123456789,:"{}[]aZ_-\\ .e\n\x00\x7f')), st.booleans())
def test_claims_as_they_are_written_are_read_as_any_others(claims: Any, at: int, byte: int, is_plain: bool) -> None:
    """The short way and the long one, on what was written and on what differs from it in one place."""
    written = (claims._replace(sub=None, cid=None, sv=None, ep=None, at=None) if is_plain else claims).write()
    at %= len(written)
    for data in (written, written[:at] + bytes([byte]) + written[at + 1 :], written[:at] + written[at + 1 :]):
        assert either(Claims.read, data) == either(Claims._parse, data)


def either(reader: Any, data: bytes) -> Any:
    try:
        found = reader(data)
    except SessionInvalid as refusal:
        return refusal.reason
    return found, [type(value) for value in found]


def test_the_claims_of_most_tokens_take_the_short_way(monkeypatch: Any) -> None:
    monkeypatch.setattr(Claims, "_parse", None)
    claims = Claims("shop", "s" * 22, 2**49, 1, 0, 999_999_999_999_999)
    some: dict[str, Any] = {"sub": "u" * 22, "cid": "c" * 22, "sv": 0, "ep": 2**49, "at": "server", "ix": (1, 20, 300)}
    for written in (claims, claims._replace(**some), *(claims._replace(**{name: value}) for name, value in some.items())):
        assert Claims.read(written.write()) == written
    for written in (claims._replace(seq=10**15), claims._replace(aud='"'), claims._replace(aud="é"), claims._replace(sv=10**15)):
        with pytest.raises(TypeError):
            Claims.read(written.write())


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_claim_is_refused(name: Any) -> None:
    assert refused({key: value for key, value in FULL.items() if key != name}) == "claims"


@pytest.mark.parametrize("name", ["nbf", "iss", "jti", "AUD", "", "dcaf"])
def test_an_unknown_claim_is_refused(name: Any) -> None:
    assert refused(FULL | {name: 1}) == "claims"


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [None, True, False, {}, [True], [1.0], [-1], [2**53], ["1"], [[1]]], ids=str)
def test_a_claim_of_another_type_is_refused(name: Any, value: Any) -> None:
    assert refused(FULL | {name: value}) == "claims"


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [-1, 2**53, 2**64, 1.0, 1.5, "1", "", [1], 1e300], ids=str)
def test_a_count_is_an_integer_from_0_to_2_to_the_53_less_1(name: Any, value: Any) -> None:
    assert refused(FULL | {name: value}) == "claims"
    assert getattr(read(FULL | {name: 2**53 - 1}), name) == 2**53 - 1
    assert getattr(read(FULL | {name: 0}), name) == 0


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize(
    "value", ["", "s" * 21, "s" * 23, "s" * 21 + "=", "s" * 21 + "é", "s" * 22 + "\n", "s" * 21 + ".", 5], ids=repr
)
def test_a_digest_is_22_characters_of_base64url(name: Any, value: Any) -> None:
    assert refused(FULL | {name: value}) == "claims"


@pytest.mark.parametrize(
    "value", ["", "a" * 17, "Server", "server ", "server\n", "s\u00e9rver", "a-b", "a1", "\u0430", 5, ["server"]], ids=repr
)
def test_a_place_is_one_to_16_small_letters(value: Any) -> None:
    assert refused(FULL | {"at": value}) == "claims"


@pytest.mark.parametrize("value", ["a", "server", "elsewhere", "a" * 16])
def test_a_place_that_nobody_here_knows_is_a_good_claim(value: Any) -> None:
    assert read(FULL | {"at": value}).at == value


@pytest.mark.parametrize("value", [5, 1.5, ["shop"]])
def test_an_audience_is_text(value: Any) -> None:
    assert refused(FULL | {"aud": value}) == "claims"


@pytest.mark.parametrize("value", ["1", 5, {"0": 1}, "[]"])
def test_an_index_is_an_array_of_counts(value: Any) -> None:
    assert refused(FULL | {"ix": value}) == "claims"
    assert read(FULL | {"ix": []}).ix == ()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"1", b'"x"', b"{}", b"\xff", b'{"aud":NaN}', b"[" * 2_000, b"{}{}"])
def test_what_is_no_object_of_claims_is_refused(data: Any) -> None:
    with pytest.raises(SessionInvalid) as caught:
        Claims.read(data)
    assert caught.value.reason == "claims"
    assert caught.value.__cause__ is None


def test_the_law_of_the_schema_catches_a_reader_that_coerces(monkeypatch: Any) -> None:
    def coercing(data: Any) -> Any:
        values = json.loads(data)
        coerced: dict[str, Any] = {name: int(value) if name in INTEGERS else value for name, value in values.items()}
        return Claims(**coerced)

    assert coercing(json.dumps(FULL | {"seq": True, "exp": 2_600.0}).encode()).exp == 2_600
    monkeypatch.setattr(Claims, "read", coercing)
    for values in (FULL | {"seq": True}, FULL | {"exp": 2_600.0}, FULL | {"born": -1}, FULL | {"sid": 5}):
        with pytest.raises(pytest.fail.Exception):
            refused(values)


def claims(**changes: Any) -> Any:
    return Claims("shop", SID, 1, 1_000, 1_000, 1_600)._replace(**changes)


def verdict(found: Any, now: Any, life: Any = LIFE) -> Any:
    try:
        check_times(found, life, now)
    except SessionError as error:
        return type(error).__name__, error.reason
    return "accepted"


@pytest.mark.parametrize(
    ("found", "now", "expected"),
    [
        (claims(), 1_600, "accepted"),
        (claims(), 1_659, "accepted"),
        (claims(), 1_660, "accepted"),
        (claims(), 1_661, ("SessionEnded", "exp")),
        (claims(iat=1_060), 1_000, "accepted"),
        (claims(iat=1_061), 1_000, ("SessionInvalid", "iat")),
        (claims(exp=9_999), 4_600, "accepted"),
        (claims(exp=9_999), 4_660, "accepted"),
        (claims(exp=9_999), 4_661, ("SessionEnded", "born")),
        (claims(iat=5_000, exp=0), 1_000, ("SessionInvalid", "iat")),
        (claims(exp=0), 9_999, ("SessionEnded", "exp")),
        (claims(exp=MAX_INTEGER), MAX_INTEGER, ("SessionEnded", "born")),
    ],
)
def test_time_is_judged_with_a_minute_of_skew(found: Any, now: Any, expected: Any) -> None:
    assert verdict(found, now) == expected


@given(born=st.integers(0, 10_000), refreshes=st.lists(st.integers(0, 700), max_size=30))
def test_no_row_of_refreshes_outlives_the_absolute_timeout(born: Any, refreshes: Any) -> None:
    now = born
    for pause in refreshes:
        end = LIFE.end(born, now)
        assert end == min(now + 600, born + 3_600)
        assert end <= born + LIFE.absolute_s
        now = min(now + pause, end)


def bound(binding: Any, suite: Any = "dcaf1s", key: Any = KEY) -> Any:
    subject, conversation = binding.digests(suite, key)
    return claims(aud=binding.audience, sub=subject, cid=conversation)


BINDINGS = [Binding(a, s, c) for a in ("shop", "other") for s in (None, "ann", "bob") for c in (None, "one", "two")]


def judged(binding: Any, found: Any, suite: Any = "dcaf1s", key: Any = KEY) -> Any:
    try:
        binding.check(found, suite, key)
    except SessionInvalid as error:
        return error.reason
    return None


def only_the_holder(judge: Any) -> None:
    for holder in BINDINGS:
        for caller in BINDINGS:
            assert (judge(caller, bound(holder)) is None) == (holder == caller)


def test_only_the_holder_is_accepted() -> None:
    only_the_holder(judged)


@pytest.mark.parametrize("dropped", ["audience", "subject", "conversation"])
def test_the_law_of_holders_catches_a_binding_that_is_not_checked(dropped: Any) -> None:
    claim = {"audience": "aud", "subject": "sub", "conversation": "cid"}[dropped]

    def lenient(caller: Any, found: Any) -> Any:
        same = caller.audience if dropped == "audience" else getattr(bound(caller), claim)
        return judged(caller, found._replace(**{claim: same}))

    with pytest.raises(AssertionError):
        only_the_holder(lenient)


@pytest.mark.parametrize(
    ("holder", "caller", "reason"),
    [
        (Binding("shop", "ann"), Binding("shop", "bob"), "sub"),
        (Binding("shop", "ann"), Binding("shop"), "sub"),
        (Binding("shop"), Binding("shop", "ann"), "sub"),
        (Binding("shop", None, "one"), Binding("shop", None, "two"), "cid"),
        (Binding("shop", None, "one"), Binding("shop"), "cid"),
        (Binding("shop"), Binding("shop", None, "one"), "cid"),
        (Binding("shop", "ann", "one"), Binding("other", "bob", "two"), "aud"),
        (Binding("shop", "ann", "one"), Binding("shop", "bob", "two"), "sub"),
        (Binding("shop", "one"), Binding("shop", None, "one"), "sub"),
    ],
)
def test_drift_is_refused_in_either_direction_in_the_order_of_the_protocol(holder: Any, caller: Any, reason: Any) -> None:
    assert judged(caller, bound(holder)) == reason


def test_a_digest_is_that_of_the_protocol_and_of_one_key_suite_audience_and_role() -> None:
    import hmac

    from dcaf.core.base64url import encode

    secret = KEY.derive("dcaf1s", "shop", "bind")
    expected = hmac.digest(secret, b"\0\0\0\3sub\0\0\0\4\xc3\xa5sa", "sha256")[:16]
    assert digest(secret, "sub", "åsa") == encode(expected) == Binding("shop", "åsa").digests("dcaf1s", KEY)[0]
    ann = Binding("shop", "ann", "ann")
    found = {*ann.digests("dcaf1s", KEY), *ann.digests("dcaf1e", KEY), *ann.digests("dcaf1s", OTHER)}
    assert len(found | set(Binding("other", "ann", "ann").digests("dcaf1s", KEY))) == 8


def test_a_binding_shows_no_subject() -> None:
    assert repr(Binding("shop", "CANARY", "CANARY")) == "Binding(audience='shop')"


def test_an_ended_session_is_told_from_an_invalid_one() -> None:
    assert issubclass(SessionEnded, SessionError)
    assert not issubclass(SessionEnded, SessionInvalid)
