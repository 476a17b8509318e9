"""Makes the frozen vectors of protocol version 1: fixed keys, clock and randomness, so that the bytes are always the same.

A release may add a file of vectors. It never edits one of these, and the test holds their digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from itsdangerous import Signer

from dcaf.core.base64url import Payload, encode
from dcaf.core.claims import Binding, Lifetime
from dcaf.core.encryption import EncryptedSuite, encrypt
from dcaf.core.keys import Key, Keyring, length_prefixed
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED

Vector: TypeAlias = dict[str, Any]

FOLDER: Final = Path(__file__).with_name("v1")
NOW: Final = 1_789_000_000
LIFE: Final = Lifetime(idle_s=7 * 86_400, absolute_s=30 * 86_400)
SUITES: Final = ("dcaf1s", "dcaf1e")
LARGEST: Final = 2**53 - 1
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ORDER: Final = ("aud", "sid", "seq", "born", "iat", "exp", "sub", "cid", "sv", "ep", "at", "ix")

ABOUT: Final = {
    "protocol": 1,
    "settings": (
        "Each vector has the service it is for: `keys` as text, the active one first, and `revoked`, ids of those that are; "
        "`audience`; the accepted `suites`; `subject` and `conversation` of the caller, null where there is none; `now`, and the "
        "timeouts `idle` and `absolute`, in seconds; the application's schema `version`, with no way to it from another one; and "
        "`max_token_bytes`, 262144 where it is absent. `token` is opened, or `envelope`, the text of a JSON object."
    ),
    "expected": "`claims` and `state` are the sealed JSON texts; `nonce` (base64url) makes an encrypted token again.",
    "reasons": "`code` is what the client is told; `reason` is the first check that refuses it, in the protocol's order.",
}


def digest(text: str) -> bytes:
    """32 bytes that look random and are always the same."""
    return hashlib.sha256(f"dcaf vectors 1: {text}".encode()).digest()


FIRST: Final = Key.from_bytes("k7f3Qx", digest("first key"))
SECOND: Final = Key.from_bytes("A", digest("second key"))
LONG: Final = Key.from_bytes("0123456789abcdEF", digest("third key"))
TWIN: Final = Key.from_bytes("k7f3Qx", digest("another key of the same id"))


def nonce(name: str) -> bytes:
    """The nonce of the vector of that name."""
    return digest(f"nonce of {name}")[:24]


def compact(value: Any) -> str:
    """Compact JSON, in the order given, without escapes that are not needed."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Sealed:
    """One token in the making.

    Args:
        name: Of the vector; its session id and nonce come from it.
        suite: Its prefix.
        key: Which seals.
        audience: Whose derived keys seal.
        subject: Bound to it.
        conversation: Bound to it.
        born: When the session began.
        iat: When it was sealed.
        claims: Further claims, or others in place of the usual.
    """

    def __init__(
        self,
        name: str,
        suite: str,
        *,
        key: Key = FIRST,
        audience: str = "deploy-agent",
        subject: str | None = None,
        conversation: str | None = None,
        born: int = NOW - 3600,
        iat: int = NOW - 60,
        **claims: Any,
    ) -> None:
        self.name, self.suite, self.key, self.audience = name, suite, key, audience
        self.subject, self.conversation = subject, conversation
        sub, cid = Binding(audience, subject, conversation).digests(suite, key)
        usual = {"aud": audience, "sid": encode(digest(f"sid of {name}")[:16]), "seq": 1, "born": born, "iat": iat}
        bound = {"exp": LIFE.end(born, iat)} | ({"sub": sub} if sub else {}) | ({"cid": cid} if cid else {})
        found: dict[str, Any] = {**usual, **bound, **claims}
        self.claims: dict[str, Any] = {claim: found[claim] for claim in (*ORDER, *(set(found) - set(ORDER))) if claim in found}

    def token(self, state: str = '{"wizard_step":2}', claims: bytes | None = None) -> str:
        """Seal a state; ``claims`` are other bytes in place of its own."""
        suite = SIGNED if self.suite == "dcaf1s" else EncryptedSuite(lambda _: nonce(self.name))
        written = compact(self.claims).encode() if claims is None else claims
        return suite.seal(self.key, self.audience, written, Payload(state.encode())).decode()

    def service(self, **settings: Any) -> Vector:
        """The service that it is for, as a vector says it."""
        usual = {
            "name": self.name,
            "suites": [self.suite],
            "keys": [self.key.text()],
            "audience": self.audience,
            "subject": self.subject,
            "conversation": self.conversation,
            "now": NOW,
            "idle": LIFE.idle_s,
            "absolute": LIFE.absolute_s,
            "version": 0,
        }
        return {**usual, **settings}


def accepted(sealed: Sealed, state: str = '{"wizard_step":2}', *, order: tuple[str, ...] = (), **settings: Any) -> Vector:
    """A vector that opens; ``order`` is another order of its claims."""
    claims = compact({claim: sealed.claims[claim] for claim in (*order, *sealed.claims)} if order else sealed.claims)
    token = sealed.token(state, claims.encode())
    drawn = {"nonce": encode(nonce(sealed.name))} if sealed.suite == "dcaf1e" else {}
    return {**sealed.service(**settings), "token": token, **drawn, "claims": claims, "state": state}


def valid(suite: str) -> Iterator[Vector]:
    """Tokens that open."""

    def of(name: str, **options: Any) -> Sealed:
        return Sealed(name, suite, **options)

    all_keys = [FIRST.text(), SECOND.text(), LONG.text()]
    yield accepted(of("a first turn"), '{"wizard_step":2,"service":"api"}')
    yield accepted(of("the empty state"), "{}")
    yield accepted(of("a key id of one character", key=SECOND))
    yield accepted(of("a key id of sixteen characters", key=LONG))
    yield accepted(of("sealed by a key that only verifies", key=LONG), keys=all_keys)
    yield accepted(of("sealed by the active key of three"), keys=all_keys)
    yield accepted(of("another audience", audience="shop"))
    yield accepted(of("an audience beyond ASCII", audience="Café ☕ 東京"))
    yield accepted(of("a subject", subject="ada@example.com"))
    yield accepted(of("a conversation", conversation="t-7"))
    yield accepted(of("a subject and a conversation", subject="ada@example.com", conversation="t-7"))
    yield accepted(of("a subject and a conversation of the same name", subject="x", conversation="x"))
    yield accepted(of("a subject beyond ASCII", subject="Žofie 🐎"))
    yield accepted(of("a long subject", subject="u" * 1000))
    yield accepted(of("a subject with a NUL", subject="a\0b"))
    yield accepted(of("schema version 3", sv=3), version=3)
    yield accepted(of("schema version 0, written out", sv=0))
    yield accepted(of("a high sequence", seq=LARGEST))
    yield accepted(of("the reserved claims", ep=7, ix=[15, 6]), '{"wizard_step":2,"a":"é"}')
    yield accepted(of("state in Unicode"), '{"name":"Zoë","city":"東京","animal":"🐎","é":"\u2028\ufeff","two":"e\u0301"}')
    yield accepted(of("state with escapes"), '{"a":"\\"\\\\\\n\\t\\b\\f\\r\\u0000\\u001f","/":"</script>"}')
    yield accepted(of("big integers"), '{"a":9007199254740993,"b":18446744073709551615,"c":-9223372036854775808}')
    yield accepted(of("simple floats"), '{"a":1.0,"b":-0.0,"c":0.1,"d":123456.789}')
    yield accepted(of("floats"), '{"a":1.0,"b":-0.0,"c":1e22,"d":5e-324,"e":1.7976931348623157e308,"f":0.1}')
    yield accepted(of("keys like integers, out of order"), '{"10":"a","2":"b","1":"c"}')
    yield accepted(of("names that others give a meaning"), '{"__proto__":{"a":1},"constructor":2,"$type":"x","py/object":"y"}')
    yield accepted(of("deeply nested state"), '{"a":' + "[" * 60 + "]" * 60 + "}")
    yield accepted(of("state with the library's own member"), '{"wizard_step":2,"dcaf":{"used":["k1"]}}')
    yield accepted(of("state of 5,000 bytes"), compact({"text": "x" * 4989}))
    for length in range(3):
        yield accepted(of(f"a remainder of {length} in base64url"), compact({"a": "x" * length}))
    yield accepted(of("claims in another order", subject="ada", conversation="t-7", sv=3), order=ORDER[8::-1], version=3)
    yield accepted(of("sealed at this very second", born=NOW, iat=NOW))
    yield accepted(of("sealed a minute ahead of this clock", born=NOW, iat=NOW + 60))
    yield accepted(of("idle to the last second"), now=NOW - 60 + LIFE.idle_s + 60)
    yield accepted(
        of("lived to the last second", born=NOW - LIFE.absolute_s - 60, iat=NOW - 3600),
    )
    yield accepted(of("exp cut by the absolute timeout", born=NOW - LIFE.absolute_s + 10, iat=NOW - 5))
    yield accepted(of("both suites are accepted"), suites=["dcaf1e", "dcaf1s"])
    yield accepted(of("other timeouts"), idle=60, absolute=7200)


def refused_by_claims(suite: str) -> Iterator[tuple[str, bytes]]:
    """Claims that were sealed rightly, and are none."""
    good = Sealed("claims", suite, subject="ada", conversation="t-7", sv=3, ep=1, ix=[15]).claims
    whole = compact(good).encode()
    for name in ORDER[:6]:
        yield f"{name} absent", compact({claim: value for claim, value in good.items() if claim != name}).encode()
    for name in ("seq", "born", "iat", "exp", "sv", "ep"):
        yield from ((f"{name} is {said}", compact({**good, name: value}).encode()) for said, value in NO_INTEGERS.items())
        number = re.compile(rb'("%b":)\d+' % name.encode())
        yield from ((f"{name} is {text}", number.sub(rb"\g<1>" + text.encode(), whole)) for text in ("1.0", "1e3", "1.5"))
    for name in ("sid", "sub", "cid"):
        yield from ((f"{name} {said}", compact({**good, name: value}).encode()) for said, value in NO_IDS.items())
    for name, said, value in OTHERS:
        yield f"{name} {said}", compact({**good, name: value}).encode()
    yield "ix holds 15.0", whole.replace(b"[15]", b"[15.0]")
    yield "one more claim, __proto__", whole[:-1] + b',"__proto__":{}}'
    for said, text in (("a list", b"[]"), ("a string", b'"x"'), ("null", b"null"), ("a number", b"17"), ("an empty object", b"{}")):
        yield f"claims are {said}", text
    yield "claims are cut short", whole[:-1]
    yield "claims with something after them", whole + b"{}"
    yield "claims after a byte order mark", b"\xef\xbb\xbf" + whole
    yield "claims that are no UTF-8", whole.replace(b"deploy-agent", b"deploy-agent\xff")
    yield "claims with NaN", whole.replace(b'"seq":1', b'"seq":NaN')
    yield "claims in single quotes", whole.replace(b'"', b"'")
    yield "claims with a comma too many", whole[:-1] + b",}"


NO_INTEGERS: Final = {"true": True, "negative": -1, "2**53": 2**53, "a string": "1", "null": None, "a list": [1]}
NO_IDS: Final = {
    "has 21 characters": "A" * 21,
    "has 23 characters": "A" * 23,
    "is padded": "A" * 21 + "=",
    "ends in a line feed": "A" * 22 + "\n",
    "has a letter beyond ASCII": "A" * 21 + "é",
    "is a number": 1,
    "is null": None,
}
OTHERS: Final[tuple[tuple[str, str, Any], ...]] = (
    ("aud", "is a number", 1),
    ("aud", "is null", None),
    ("aud", "is a list", ["deploy-agent"]),
    ("ix", "is a number", 1),
    ("ix", "is null", None),
    ("ix", "is a string", "15"),
    ("ix", "is an object", {"0": 15}),
    ("ix", "holds true", [True]),
    ("ix", "holds a negative number", [-1]),
    ("ix", "holds a string", ["15"]),
    ("ix", "holds 2**53", [2**53]),
    ("ix", "holds a list", [[15]]),
    ("role", "is one more claim", "admin"),
    ("SUB", "is a claim in capitals", "x"),
)


def swapped(token: str, at: int) -> str:
    """The token with one character of base64url changed to another."""
    return token[:at] + ("B" if token[at] == "A" else "A") + token[at + 1 :]


def respelled(token: str) -> Iterator[str]:
    """The other spellings of a token whose last character has unused bits."""
    unused = {2: 16, 3: 4}[len(token.rpartition(".")[2]) % 4]
    found = ALPHABET.index(token[-1])
    return (token[:-1] + ALPHABET[at] for at in range(found - found % unused, found - found % unused + unused) if at != found)


class Refusals:
    """Collects vectors that must be refused."""

    def __init__(self) -> None:
        self.vectors: list[Vector] = []

    def add(self, reason: str, sealed: Sealed, token: str | None = None, code: str = "session-invalid", **settings: Any) -> None:
        """One that is refused for a reason; ``token`` None takes its own."""
        vector = sealed.service(**settings)
        if "envelope" not in vector:
            vector["token"] = sealed.token() if token is None else token
        self.vectors.append({**vector, "code": code, "reason": reason})


def refused() -> list[Vector]:
    """Everything that must be refused, by both suites."""
    found = Refusals()
    for suite in SUITES:
        _by_text(found, suite)
        _by_seal(found, suite)
        _by_holder_and_time(found, suite)
        for name, claims in refused_by_claims(suite):
            sealed = Sealed(f"{suite}: {name}", suite)
            found.add("claims", sealed, sealed.token(claims=claims), subject="ada", conversation="t-7", version=3)
    _of_one_suite(found)
    _envelopes(found)
    return found.vectors


def _by_text(found: Refusals, suite: str) -> None:
    def of(name: str) -> Sealed:
        return Sealed(f"{suite}: {name}", suite)

    base = of("text")
    token = base.token()
    prefix, kid, rest = token.split(".", 2)
    found.add("ascii", of("a letter beyond ASCII"), token[:-1] + "é")
    found.add("ascii", of("a digit beyond ASCII"), token[:-1] + "\uff11")
    found.add("length", of("one character over the limit"), token, "session-too-large", max_token_bytes=len(token) - 1)
    for said, text in (
        ("the empty text", ""),
        ("dots alone", "...."),
        ("New, not new", "New"),
        ("a space before it", " " + token),
        ("a line feed after it", token + "\n"),
        ("a NUL after it", token + "\0"),
        ("padding", token + "="),
        ("a dot after it", token + "."),
        ("one segment more", token + ".AAAA"),
        ("no key id", f"{prefix}..{rest}"),
        ("a key id of 17 characters", f"{prefix}.{'k' * 17}.{rest}"),
        ("a key id with a hyphen", f"{prefix}.k-7.{rest}"),
        ("a plus sign", f"{prefix}.{kid}.{rest[:20]}+{rest[21:]}"),
        ("a slash", f"{prefix}.{kid}.{rest[:20]}/{rest[21:]}"),
        ("another version of the protocol", token.replace("dcaf1", "dcaf2", 1)),
        ("a prefix in capitals", token.replace("dcaf", "DCAF", 1)),
        ("the prefix alone", prefix),
        ("prefix and key id alone", f"{prefix}.{kid}"),
        ("a JWT", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."),
        ("cut to forty characters", token[:40]),
    ):
        found.add("shape", of(said), text)
    other = SUITES[suite == SUITES[0]]
    found.add("suite", of("a service of the other suite"), token, suites=[other])
    found.add("shape", of("the other suite's prefix"), f"{other}.{kid}.{rest}", suites=list(SUITES))


def _by_seal(found: Refusals, suite: str) -> None:
    seal = "mac" if suite == "dcaf1s" else "tag"

    def of(name: str, **options: Any) -> Sealed:
        return Sealed(f"{suite}: {name}", suite, **options)

    token = of("seal").token()
    at = token.index(".", 7) + 1
    ring = [FIRST.text(), SECOND.text(), LONG.text()]
    found.add("kid", of("a key that is not in the ring"), token, keys=[SECOND.text()])
    found.add("kid", of("a revoked key"), token, keys=[SECOND.text(), FIRST.text()], revoked=[FIRST.kid])
    found.add("kid", of("a key id in other capitals"), token.replace(".k7f3Qx.", ".K7F3QX."))
    found.add(seal, of("another key of the same id"), token, keys=[TWIN.text()])
    found.add(seal, of("relabelled to another key of the ring"), token.replace(".k7f3Qx.", ".A."), keys=ring)
    found.add(seal, of("sealed for another audience", audience="shop"), audience="deploy-agent")
    found.add(seal, of("an audience in other capitals"), token, audience="Deploy-Agent")
    found.add(seal, of("the first character changed"), swapped(token, at))
    found.add(seal, of("a character in the middle changed"), swapped(token, (at + len(token)) // 2))
    found.add(seal, of("the fourth last character changed"), swapped(token, len(token) - 4))


def _by_holder_and_time(found: Refusals, suite: str) -> None:
    def of(name: str, **options: Any) -> Sealed:
        return Sealed(f"{suite}: {name}", suite, **options)

    ended = "session-ended"
    both = {"subject": "ada", "conversation": "t-7"}
    found.add("aud", of("an audience inside that is not its own", aud="shop"))
    found.add("aud", of("an empty audience inside", aud=""))
    found.add("sub", of("another subject", subject="ada"), subject="eve")
    found.add("sub", of("a subject in other capitals", subject="ada"), subject="Ada")
    found.add("sub", of("a subject composed otherwise", subject="Zo\u00eb"), subject="Zoe\u0308")
    found.add("sub", of("an anonymous caller with a subject's token", subject="ada"), subject=None)
    found.add("sub", of("a subject with an anonymous token"), subject="ada")
    found.add("sub", of("the subject itself in place of its digest", subject="ada", sub="A" * 22), subject="ada")
    found.add("cid", of("another conversation", conversation="t-7"), conversation="t-8")
    found.add("cid", of("no conversation with a conversation's token", conversation="t-7"), conversation=None)
    found.add("cid", of("a conversation with a token of none"), conversation="t-7")
    crossed = of("subject and conversation exchanged", **both)
    found.add("sub", crossed, subject="t-7", conversation="ada")
    sub, cid = crossed.claims["sub"], crossed.claims["cid"]
    found.add("sub", of("the two digests exchanged", **both, sub=cid, cid=sub))
    other = SUITES[suite == SUITES[0]]
    theirs = Binding("deploy-agent", "ada", None).digests(other, FIRST)[0]
    found.add("sub", of("a digest under the other suite's key", subject="ada", sub=theirs))
    found.add("iat", of("sealed 61 seconds ahead", born=NOW, iat=NOW + 61))
    found.add("iat", of("sealed in the far future", born=NOW, iat=LARGEST, exp=LARGEST))
    found.add("exp", of("idle a second too long"), code=ended, now=NOW - 60 + LIFE.idle_s + 61)
    found.add("exp", of("exp 0", exp=0), code=ended)
    found.add("born", of("lived a second too long", born=NOW - LIFE.absolute_s - 61, iat=NOW - 9, exp=NOW + 9), code=ended)
    found.add("born", of("a shorter absolute timeout since"), code=ended, absolute=3539)
    found.add("version", of("a schema of tomorrow", sv=4), code=ended, version=3)
    found.add("version", of("a schema of the past to which no way leads", sv=2), code=ended, version=3)
    found.add("version", of("no schema version where there is one"), code=ended, version=3)
    over = {"born": 0, "iat": 1, "exp": 2, "sv": 9}
    found.add("aud", of("everything wrong, the audience first", **both, **over, aud="shop"), subject="eve", conversation="x")
    found.add("sub", of("everything but the audience wrong", **both, **over), subject="eve", conversation="x")
    found.add("cid", of("all from the conversation on wrong", **both, **over), conversation="x")
    found.add("iat", of("ahead, and over", **both, **{**over, "iat": NOW + 99}))
    found.add("exp", of("over in both ways, of an unknown schema", **both, **over), code=ended)
    found.add("born", of("too old, of an unknown schema", **both, **{**over, "exp": NOW}), code=ended)


def _of_one_suite(found: Refusals) -> None:
    signed = Sealed("dcaf1s: spelling", "dcaf1s")
    token = signed.token()
    for count, text in enumerate(respelled(token)):
        found.add("mac", Sealed(f"dcaf1s: the mac in another spelling, {count}", "dcaf1s"), text)
    parts = token.split(".")
    for name, segments in (
        ("claims from another token", [*parts[:2], Sealed("dcaf1s: other", "dcaf1s").token().split(".")[2], *parts[3:]]),
        ("state from another token", [*parts[:3], Sealed("x", "dcaf1s").token("{}").split(".")[3], parts[4]]),
        ("claims and state exchanged", [*parts[:2], parts[3], parts[2], parts[4]]),
        ("a mac of zeros", [*parts[:4], "A" * 43]),
    ):
        found.add("mac", Sealed(f"dcaf1s: {name}", "dcaf1s"), ".".join(segments))
    for name, segments in (
        ("a mac of 42 characters", [*parts[:4], parts[4][1:]]),
        ("a mac of 44 characters", [*parts[:4], parts[4] + "A"]),
        ("no mac", parts[:4]),
        ("claims of one character", [*parts[:2], "A", *parts[3:]]),
        ("state of two characters", [*parts[:3], "AA", parts[4]]),
    ):
        found.add("shape", Sealed(f"dcaf1s: {name}", "dcaf1s"), ".".join(segments))
    for count, (said, text) in enumerate((("of a length that no bytes have", "AAAAA"), ("of 21 characters", "A" * 21))):
        body = f"dcaf1s.{FIRST.kid}.{text}.{parts[3]}"
        mac = write_mac(body)
        found.add("claims", Sealed(f"dcaf1s: claims {said}, {count}", "dcaf1s"), f"{body}.{mac}")
    box = Sealed("dcaf1e: spelling", "dcaf1e")
    for state in ('{"a":"x"}', '{"a":"xx"}', '{"a":"xxx"}'):
        sealed = box.token(state)
        if len(sealed.rpartition(".")[2]) % 4:
            for count, text in enumerate(respelled(sealed)):
                found.add("base64", Sealed(f"dcaf1e: the box in another spelling, {len(state)}, {count}", "dcaf1e"), text)
        else:
            found.add("base64", Sealed("dcaf1e: a box of a length that no bytes have", "dcaf1e"), sealed[:-3])
            found.add("tag", Sealed("dcaf1e: a box cut by three bytes", "dcaf1e"), sealed[:-4])
            found.add("tag", Sealed("dcaf1e: a box with three bytes more", "dcaf1e"), sealed + "AAAA")
    found.add("shape", Sealed("dcaf1e: a box of 53 characters", "dcaf1e"), f"dcaf1e.{FIRST.kid}." + "A" * 53)
    found.add("tag", Sealed("dcaf1e: a box of zeros", "dcaf1e"), f"dcaf1e.{FIRST.kid}." + "A" * 54)
    found.add("base64", Sealed("dcaf1e: a box of 57 characters", "dcaf1e"), f"dcaf1e.{FIRST.kid}." + "A" * 57)
    for name, plain in (("nothing sealed", b""), ("no line feed", b'{"aud":"deploy-agent"}'), ("a line feed first", b"\n{}\n{}")):
        found.add("claims", Sealed(f"dcaf1e: {name}", "dcaf1e"), _boxed(f"dcaf1e: {name}", plain))


def write_mac(body: str) -> str:
    """The mac of all that stands before the last dot."""
    secret = FIRST.derive("dcaf1s", "deploy-agent", "mac")
    return Signer(secret, key_derivation="none", digest_method=hashlib.sha256).get_signature(body).decode()


def _boxed(name: str, plain: bytes) -> str:
    secret = FIRST.derive("dcaf1e", "deploy-agent", "box")
    bound = b"".join(length_prefixed(part) for part in ("dcaf1e", FIRST.kid, "deploy-agent"))
    return f"dcaf1e.{FIRST.kid}.{encode(nonce(name) + encrypt(secret, nonce(name), plain, bound))}"


def _envelopes(found: Refusals) -> None:
    token = Sealed("envelope", "dcaf1s").token()
    for reason, code, said, text in (
        ("plain", "session-unsigned", "a plain object", '{"wizard_step":2}'),
        ("plain", "session-unsigned", "a token beside dcaf", compact({"token": token})),
        ("plain", "session-unsigned", "DCAF in capitals", compact({"DCAF": {"token": token}})),
        ("member", "session-malformed", "a list", "[]"),
        ("member", "session-malformed", "the token alone", compact(token)),
        ("member", "session-malformed", "a number", "1"),
        ("member", "session-malformed", "true", "true"),
        ("token", "session-malformed", "dcaf is null", '{"dcaf":null}'),
        ("token", "session-malformed", "dcaf is the token", compact({"dcaf": token})),
        ("token", "session-malformed", "dcaf is a list", compact({"dcaf": [token]})),
        ("token", "session-malformed", "no token", '{"dcaf":{"expires_at":1789000000}}'),
        ("token", "session-malformed", "the token is null", '{"dcaf":{"token":null}}'),
        ("token", "session-malformed", "the token is a number", '{"dcaf":{"token":1}}'),
        ("token", "session-malformed", "the token is a list", compact({"dcaf": {"token": [token]}})),
    ):
        found.add(reason, Sealed(f"envelope: {said}", "dcaf1s"), code=code, envelope=text)


STATE: Final = (
    '{"wizard_step":2,"price":1.0,"zero":-0.0,"big":9007199254740993,"user_name":"Zoë 😀","note":null,"10":"ten","2":"two",'
    '"nested":{"b":[1.0,null,9007199254740995],"a_b":"é/"},"empty":{},"list":[]}'
)


def _walk(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return change({key: _walk(item, change) for key, item in value.items()})
    return change([_walk(item, change) for item in value] if isinstance(value, list) else value)


def _mirror(change: Callable[[Any], Any]) -> Callable[[Vector], Vector]:
    """A change of everything but the token."""

    def changed(envelope: Vector) -> Vector:
        shown: Vector = _walk({key: value for key, value in envelope.items() if key != "dcaf"}, change)
        return {**shown, "dcaf": {**envelope["dcaf"], "expires_at": _walk(envelope["dcaf"]["expires_at"], change)}}

    return changed


def _members(change: Callable[[Vector], Vector]) -> Callable[[Any], Any]:
    return lambda value: change(value) if isinstance(value, dict) else value


def _as_double(value: Any) -> Any:
    if isinstance(value, str) and value.isdecimal() and len(value) > 15:
        return int(float(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _integers_first(envelope: Vector) -> Vector:
    return dict(sorted(envelope.items(), key=lambda item: not item[0].isdigit()))


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


CLIENTS: Final[dict[str, Callable[[Vector], Vector]]] = {
    "echoed as it came": lambda envelope: envelope,
    "members in reverse": _mirror(_members(lambda members: dict(reversed(members.items())))),
    "members sorted": lambda envelope: dict(sorted(envelope.items())),
    "integer keys first, as JavaScript has them": lambda envelope: dict(
        sorted(envelope.items(), key=lambda item: not item[0].isdigit())
    ),
    "the token first": lambda envelope: {"dcaf": envelope["dcaf"], **envelope},
    "expires_at before the token": lambda envelope: {**envelope, "dcaf": dict(sorted(envelope["dcaf"].items()))},
    "1.0 becomes 1, and integers are rounded to doubles": _mirror(_as_double),
    "1 becomes 1.0": _mirror(lambda value: float(value) if type(value) is int else value),
    "nulls stripped": _mirror(_members(lambda members: {key: item for key, item in members.items() if item is not None})),
    "empty containers stripped": _mirror(
        _members(lambda members: {key: item for key, item in members.items() if item not in ({}, [])})
    ),
    "names in camel case": _mirror(_members(lambda members: {_camel(key): item for key, item in members.items()})),
    "unknown siblings dropped": lambda envelope: {
        "wizard_step": envelope["wizard_step"],
        "dcaf": {"token": envelope["dcaf"]["token"]},
    },
    "unknown siblings added": lambda envelope: {
        **envelope,
        "sid": "x",
        "dcaf": {**envelope["dcaf"], "exp": 0, "sub": "eve", "alg": "none"},
    },
    "the mirror edited": lambda envelope: {**envelope, "wizard_step": 99, "is_admin": True},
    "the mirror emptied": _mirror(_members(lambda _: {})),
    "the mirror dropped": lambda envelope: {"dcaf": {"token": envelope["dcaf"]["token"]}},
    "expires_at edited": lambda envelope: {**envelope, "dcaf": {**envelope["dcaf"], "expires_at": 9999999999}},
    "expires_at null": lambda envelope: {**envelope, "dcaf": {**envelope["dcaf"], "expires_at": None}},
    "everything a string": _mirror(lambda value: value if isinstance(value, dict | list) else str(value)),
    "__proto__ planted": lambda envelope: {**envelope, "__proto__": {"dcaf": {"token": "new"}}, "constructor": 1},
}


def hostile() -> Iterator[Vector]:
    """What clients do to an envelope, which must change nothing."""
    for suite in SUITES:
        name = f"{suite}: hostile"
        sealed = Sealed(name, suite, subject="ada", born=NOW - 60)
        envelope = made(sealed, STATE, mirror=True)
        for said, change in CLIENTS.items():
            yield hostile_vector(sealed, said, compact(change(orjson.loads(envelope))))
        plain = envelope.decode()
        yield hostile_vector(sealed, "Unicode escaped", json.dumps(orjson.loads(envelope)))
        yield hostile_vector(sealed, "the token's own text escaped", plain.replace("dcaf1", "dc\\u0061f1"))
        yield hostile_vector(sealed, "the member's name escaped", plain.replace('"dcaf"', '"d\\u0063af"'))
        yield hostile_vector(sealed, "slashes escaped", plain.replace("/", "\\/"))
        yield hostile_vector(sealed, "indented", json.dumps(orjson.loads(envelope), indent=2))
        yield hostile_vector(sealed, "a member of the mirror repeated", '{"wizard_step":7,"wizard_step":8,' + plain[1:])


def hostile_vector(sealed: Sealed, said: str, envelope: str) -> Vector:
    """One of them, as text."""
    return {
        **sealed.service(name=f"{sealed.suite}: {said}"),
        "envelope": envelope,
        "claims": compact(sealed.claims),
        "state": STATE,
    }


def made(sealed: Sealed, state: str, *, mirror: bool) -> bytes:
    """The envelope as the library itself makes it."""
    times = iter([sealed.claims["born"]])
    sealer = Sealer(
        keys=Keyring(sealed.key),
        audience=sealed.audience,
        lifetime=LIFE,
        mirror=mirror,
        clock=lambda: next(times, sealed.claims["iat"]),
        randomness=lambda _: digest(f"sid of {sealed.name}")[:16],
        suite=SIGNED if sealed.suite == "dcaf1s" else EncryptedSuite(lambda _: nonce(sealed.name)),
    )
    session = sealer.start()
    session.update(orjson.loads(state))
    return sealer.seal(session, sealer.binding(sealed.subject, sealed.conversation), sequence=1)


def lengths(state: str) -> list[int]:
    """The index of a state: the byte length of each member as written."""
    return [len(compact({key: value}).encode()) - 2 for key, value in json.loads(state).items()]


def indexed(suite: str) -> Iterator[Vector]:
    """Tokens with an index of their state; one that does not fit is ignored."""
    states = {
        "large": compact({"text": "x" * 4989, "step": 2, "cart": {"items": [1.5, None, True]}}),
        "with escapes": compact({'a"b\\': 'é"', "东": ["x" * 5000], "": 0, "\n": "}", "k,": '","z":1'}),
        "with the library's own member": compact({"text": "x" * 5000, "dcaf": {"used": ["k1"]}}),
        "of many members": compact({f"key{number}": number for number in range(256)}),
    }
    for name, state in states.items():
        yield accepted(Sealed(f"an index, state {name}, {suite}", suite, ix=lengths(state)), state)
    state = states["large"]
    right = lengths(state)
    wrong = {
        "short by one": [*right[:-1], right[-1] - 1],
        "long by one": [*right[:-1], right[-1] + 1],
        "of one member less": right[:-1],
        "of one member more": [*right, 0],
        "in another order": right[::-1],
        "empty": [],
        "of zeros": [0] * len(right),
        "beyond the state": [LARGEST],
    }
    for name, index in wrong.items():
        yield accepted(Sealed(f"an index {name}, {suite}", suite, ix=index), state)


def files() -> dict[str, bytes]:
    """Name -> bytes of each file."""
    found = {
        "signed.json": list(valid("dcaf1s")),
        "encrypted.json": list(valid("dcaf1e")),
        "refused.json": refused(),
        "hostile.json": list(hostile()),
        "indexed.json": [*indexed("dcaf1s"), *indexed("dcaf1e")],
    }
    return {name: _text(vectors).encode() for name, vectors in found.items()}


def _text(vectors: list[Vector]) -> str:
    """One vector a line; ASCII alone, so that no editor changes a byte."""
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    return f'{{\n"about": {json.dumps(ABOUT, indent=1)},\n"vectors": [\n{lines}\n]\n}}\n'


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in files().items():
        path = FOLDER / name
        if not path.exists():  # what exists is frozen: a release may add vectors in another file, never edit these
            path.write_bytes(data)
