"""P4: what another system made with the same 32 secret bytes is refused.

Left out: PASETO's other versions and purposes (v4.public has no secret in common with anybody) and iron, whose key is a password.
"""

from __future__ import annotations

import base64
import hmac
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b, sha1, sha256, sha384, sha512
from itertools import product
from typing import Any, NamedTuple

import orjson
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from itsdangerous import Signer, TimestampSigner, URLSafeSerializer, URLSafeTimedSerializer
from starlette.middleware.sessions import SessionMiddleware

from dcaf.core import encryption
from dcaf.core.base64url import Payload, decode, encode
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.errors import SessionError
from dcaf.core.keys import Key, Keyring, length_prefixed
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED

NOW = 1_789_000_000
KID = "k7Qx"
AUDIENCE = "shop"
SALTS = ("itsdangerous", "itsdangerous.Signer", "cookie-session", "dcaf1s", "mac", "")
DJANGO_SALTS = ("django.core.signing", "django.contrib.sessions.backends.signed_cookies", "dcaf")
DERIVATIONS = ("django-concat", "concat", "hmac", "none")
DIGESTS = (sha1, sha256, sha384, sha512)
OURS = b"".join(length_prefixed(part) for part in ("dcaf1e", KID, AUDIENCE))
SECRETS = 20

Maker = Callable[[bytes, bytes, random.Random], Iterator[str]]


class Forger(NamedTuple):
    """Who knows a secret, and what a good token of each suite looks like, but not how to seal one."""

    secret: bytes
    ring: Keyring
    signed: str
    encrypted: str


def forger(source: random.Random) -> Forger:
    secret = source.randbytes(32)
    ring = Keyring(Key.from_bytes(KID, secret))
    return Forger(secret, ring, real_token(ring, SIGNED), real_token(ring, ENCRYPTED))


def both(ring: Keyring) -> Sealer:
    """One that accepts either suite: the widest door there is."""
    return Sealer(keys=ring, audience=AUDIENCE, clock=lambda: NOW, suite=SIGNED, also_accepted=[ENCRYPTED])


def real_token(ring: Keyring, suite: Any) -> str:
    sealer = Sealer(keys=ring, audience=AUDIENCE, clock=lambda: NOW, suite=suite)
    session = sealer.start()
    session["step"] = 2
    return str(orjson.loads(sealer.seal(session, sealer.binding(), sequence=1))["dcaf"]["token"])


def tried(ring: Keyring, tokens: Iterable[str]) -> Counter[str]:
    """How many of these were accepted, and why the others were not."""
    sealer, found = both(ring), Counter[str]()
    binding = sealer.binding()
    for token in tokens:
        try:
            sealer.open({"dcaf": {"token": token}}, binding)
        except SessionError as error:
            found[str(error.reason)] += 1
        else:
            found["accepted"] += 1
    return found


# Systems, each with the secret as bytes and what it is to carry


def itsdangerous_signers(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    for salt, derivation, digest in product(SALTS, DERIVATIONS, DIGESTS):
        for system in (Signer, TimestampSigner):
            yield system(secret, salt=salt, key_derivation=derivation, digest_method=digest).sign(carried).decode()


def itsdangerous_serializers(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    for salt, digest in product(SALTS, DIGESTS):
        for system in (URLSafeSerializer, URLSafeTimedSerializer):
            yield str(system(secret, salt=salt, signer_kwargs={"digest_method": digest}).dumps(_text(carried)))


def starlette_cookie(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    async def nothing(*_: Any) -> None: ...

    cookie = SessionMiddleware(nothing, secret_key=secret.decode("latin-1"))
    yield cookie.signer.sign(base64.b64encode(json.dumps({"session": _text(carried)}).encode())).decode()
    yield cookie.signer.sign(base64.b64encode(carried)).decode()


def flask_cookie(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    settings = {"key_derivation": "hmac", "digest_method": sha1}
    cookie = URLSafeTimedSerializer(secret, salt="cookie-session", signer_kwargs=settings)
    yield str(cookie.dumps({"session": _text(carried)}))
    yield str(cookie.dumps({"session": _text(carried) * 9}))  # long enough for Flask to compress it


def django_signing(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    # django.core.signing: dumps() and set_signed_cookie(), with time stamps and without
    for salt, key in product(DJANGO_SALTS, (secret, b"django.http.cookies" + secret)):
        derived = sha256(f"{salt}signer".encode() + key).digest()
        for value in (encode(carried), f"{encode(carried)}:1uXyZ0", _text(carried)):
            yield f"{value}:{encode(hmac.digest(derived, value.encode(), 'sha256'))}"


def rails_verifier(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    data = base64.b64encode(carried).decode()
    yield from (f"{data}--{hmac.digest(secret, data.encode(), digest).hex()}" for digest in ("sha1", "sha256"))


def json_web_tokens(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    for bits, digest in ((256, "sha256"), (384, "sha384"), (512, "sha512")):
        for header in ({"alg": f"HS{bits}", "typ": "JWT"}, {"alg": f"HS{bits}", "kid": KID}):
            body = f"{encode(orjson.dumps(header))}.{encode(carried)}"
            yield f"{body}.{encode(hmac.digest(secret, body.encode(), digest))}"
    unsigned = encode(b'{"alg":"none"}')
    yield f"{unsigned}.{encode(carried)}."


def bare_hmac(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    """No system in particular: the mac of the very text, which for a token's own body is a token but for the key."""
    for digest in ("sha256", "sha384", "sha512"):
        mac = hmac.digest(secret, carried, digest)
        yield from (f"{_text(carried)}.{encode(mac)}", f"{_text(carried)}.{mac.hex()}", f"{_text(carried)}.{encode(mac)[:43]}")


def json_web_encryption(secret: bytes, carried: bytes, source: random.Random) -> Iterator[str]:
    if len(secret) == 32:
        header, nonce = encode(b'{"alg":"dir","enc":"A256GCM"}'), source.randbytes(12)
        box = AESGCM(secret).encrypt(nonce, carried, header.encode())
        yield f"{header}..{encode(nonce)}.{encode(box[:-16])}.{encode(box[-16:])}"


def bare_boxes(secret: bytes, carried: bytes, source: random.Random) -> Iterator[str]:
    """No system in particular: nonce, ciphertext and tag under the secret itself, and even under our associated data."""
    if len(secret) == 32:
        for bound_to in (b"", OURS, AUDIENCE.encode()):
            short, long = source.randbytes(12), source.randbytes(24)
            yield encode(short + AESGCM(secret).encrypt(short, carried, bound_to))
            yield encode(long + encryption.encrypt(secret, long, carried, bound_to))


def fernet(secret: bytes, carried: bytes, _: random.Random) -> Iterator[str]:
    if len(secret) == 32:
        yield Fernet(base64.urlsafe_b64encode(secret)).encrypt_at_time(carried, NOW).decode()


def paseto(secret: bytes, carried: bytes, source: random.Random) -> Iterator[str]:
    if len(secret) == 32:
        yield paseto_v4_local(secret, source.randbytes(32), carried)


def paseto_v4_local(secret: bytes, nonce: bytes, carried: bytes) -> str:
    """PASETO v4.local without footer and assertion (paseto-standard, Version4, section Encrypt)."""
    derived = blake2b(b"paseto-encryption-key" + nonce, key=secret, digest_size=56).digest()
    mac_key = blake2b(b"paseto-auth-key-for-aead" + nonce, key=secret, digest_size=32).digest()
    box = _chacha20(_hchacha20(derived[:32], derived[32:48]), bytes(8) + derived[48:], carried)
    parts = (b"v4.local.", nonce, box, b"", b"")
    encoded = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    mac = blake2b(len(parts).to_bytes(8, "little") + encoded, key=mac_key, digest_size=32).digest()
    return f"v4.local.{encode(nonce + box + mac)}"


def _chacha20(secret: bytes, start: bytes, data: bytes) -> bytes:
    return Cipher(ChaCha20(secret, start), mode=None).encryptor().update(data)


def _hchacha20(secret: bytes, start: bytes) -> bytes:
    """The rounds of ChaCha20 without the addition at their end: the key stream, less what was added."""
    stream = _words(_chacha20(secret, start, bytes(64)))
    added = (*_words(b"expand 32-byte k"), *_words(start))
    mixed = zip((*stream[:4], *stream[12:]), added, strict=True)
    return b"".join(((word - less) % 2**32).to_bytes(4, "little") for word, less in mixed)


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def _text(carried: bytes) -> str:
    return carried.decode()


SYSTEMS: list[Maker] = [
    itsdangerous_signers,
    itsdangerous_serializers,
    starlette_cookie,
    flask_cookie,
    django_signing,
    rails_verifier,
    json_web_tokens,
    bare_hmac,
    json_web_encryption,
    bare_boxes,
    fernet,
    paseto,
]


def written(key: Key) -> list[bytes]:
    """The same secret as other systems' configuration has it."""
    secret = key.secret
    return [secret, secret.hex().encode(), encode(secret).encode(), base64.b64encode(secret), key.text().encode()]


def carried_by(who: Forger) -> list[bytes]:
    """What the other system is made to sign or encrypt: a session, and what would be worth most here."""
    body, claims = who.signed.rpartition(".")[0], decode(who.signed.split(".")[2])
    return [b'{"step":2}', claims, claims + b'\n{"step":2}', body.encode(), body.split(".", 2)[2].encode()]


def made_by(system: Maker, who: Forger, source: random.Random) -> Iterator[str]:
    """Every token of a system as it is, and as each part of a token of ours that it could be mistaken for."""
    key = who.ring.active
    for secret, carried in product(written(key), carried_by(who)):
        for token in system(secret, carried, source):
            yield token
            yield from dict.fromkeys(_wrapped(token, who.signed))


def _wrapped(token: str, signed: str) -> Iterator[str]:
    parts = [part.rstrip("=").replace("+", "-").replace("/", "_") for part in re.split(r"[.:]|--", token)]
    yield from (f"{prefix}.{KID}.{token}" for prefix in ("dcaf1s", "dcaf1e"))
    yield from (f"{prefix}.{KID}.{'.'.join(parts[-3:])}" for prefix in ("dcaf1s", "dcaf1e"))
    yield f"dcaf1s.{KID}.{'.'.join(parts[-2:])}"
    body = signed.rpartition(".")[0]
    for part in (parts[-1], max(parts, key=len)):
        yield from (f"{body}.{part}", f"{body}.{part[:43]}", f"{body}.{part[-43:]}")
        yield f"{body.rpartition('.')[0]}.{part}.{parts[-1][:43]}"
        yield f"dcaf1e.{KID}.{part}"
    yield f"dcaf1e.{KID}.{encode(token.encode())}"
    yield f"dcaf1e.{KID}.{''.join(parts[-3:])}"


@pytest.mark.promise(4)
def test_tokens_of_other_systems_with_the_same_secret_are_refused(scale: float, measured: Callable[[int, str], None]) -> None:
    found, source = Counter[str](), random.Random(4)
    for _ in range(max(1, int(SECRETS * scale))):
        who = forger(source)
        for system in SYSTEMS:
            reasons = tried(who.ring, made_by(system, who, source))
            assert reasons["accepted"] == 0, system.__name__
            found += reasons
    at_the_seal = found["mac"] + found["tag"]
    measured(
        4,
        f"{found['accepted']} of {found.total():,} tokens of {len(SYSTEMS)} other systems with the same secret accepted; "
        f"{at_the_seal:,} of them had the shape of ours and failed at the mac or the tag",
    )
    # Most were refused by the seal itself, not because they look different.
    assert found["mac"] > found.total() // 5
    assert found["tag"] > found.total() // 10


@pytest.mark.promise(4)
def test_control_the_same_check_accepts_a_real_token_of_either_suite() -> None:
    who = forger(random.Random(4))
    assert tried(who.ring, [who.signed, who.encrypted]) == {"accepted": 2}


@pytest.mark.promise(4)
@pytest.mark.parametrize("system", [bare_hmac, bare_boxes])
def test_control_a_key_that_is_used_as_it_is_instead_of_derived_is_caught(system: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    who = forger(random.Random(4))
    assert tried(who.ring, made_by(system, who, random.Random(4)))["accepted"] == 0
    monkeypatch.setattr(Key, "derive", lambda key, _suite, _audience, _role: key.secret)
    assert tried(who.ring, made_by(system, who, random.Random(4)))["accepted"] > 0


@pytest.mark.promise(4)
def test_control_a_key_derived_without_the_suite_or_the_role_would_serve_another_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    who = forger(random.Random(4))
    claims, state = who.signed.split(".")[2:4]

    def box_under_the_mac_key() -> str:
        secret, nonce = who.ring.active.derive("dcaf1s", AUDIENCE, "mac"), bytes(24)
        box = encryption.encrypt(secret, nonce, decode(claims) + b"\n" + decode(state), OURS)
        return f"dcaf1e.{KID}.{encode(nonce + box)}"

    assert tried(who.ring, [box_under_the_mac_key()]) == {"tag": 1}
    derive = Key.derive
    monkeypatch.setattr(Key, "derive", lambda key, _suite, audience, _role: derive(key, "dcaf1", audience, "any"))
    assert tried(who.ring, [box_under_the_mac_key()]) == {"accepted": 1}


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    ("nonce", "token"),
    [
        (
            "00" * 32,
            "v4.local.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQAr68PS4AXe7If_ZgesdkUMvSwscFlAl1pk5HC0e8kApeaqMfGo_7OpBnwJOAbY9V7"
            "WU6abu74MmcUE8YWAiaArVI8XJ5hOb_4v9RmDkneN0S92dx0OW4pgy7omxgf3S8c3LlQg",
        ),
        (
            "df654812bac492663825520ba2f6e67cf5ca5bdc13d4e7507a98cc4c2fcc3ad8",
            "v4.local.32VIErrEkmY4JVILovbmfPXKW9wT1OdQepjMTC_MOtjA4kiqw7_tcaOM5GNEcnTxl60WkwMsYXw6FSNb_UdJPXjpzm0KW9ojM5f4O2mRvE2Icw"
            "eP-PRdoHjd5-RHCiExR1IK6t6-tyebyWG6Ov7kKvBdkrrAJ837lKP3iDag2hzUPHuMKA",
        ),
    ],
    ids=["4-E-1", "4-E-3"],
)
def test_the_paseto_tokens_above_are_those_of_its_published_vectors(nonce: str, token: str) -> None:
    carried = b'{"data":"this is a secret message","exp":"2022-01-01T00:00:00+00:00"}'
    assert paseto_v4_local(bytes(range(0x70, 0x90)), bytes.fromhex(nonce), carried) == token


@pytest.mark.promise(4)
def test_a_body_signed_with_the_derived_key_is_a_token_and_so_the_check_reaches_that_far() -> None:
    who = forger(random.Random(4))
    claims, state = (decode(part) for part in who.signed.split(".")[2:4])
    assert tried(who.ring, [SIGNED.seal(who.ring.active, AUDIENCE, claims, Payload(state)).decode()]) == {"accepted": 1}
