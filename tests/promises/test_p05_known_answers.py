"""P5: each primitive gives its published answers, through the functions that seal and open."""

from __future__ import annotations

import hmac
import random
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256, shake_128
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from itsdangerous import Signer

from dcaf.core import encryption, signing
from dcaf.core.base64url import Payload, encode
from dcaf.core.encryption import ENCRYPTED, decrypt, encrypt
from dcaf.core.keys import Key, Keyring, hkdf_sha256
from dcaf.core.signing import SIGNED

Measured = Callable[[int, str], None]


class Derived(NamedTuple):
    """RFC 5869, appendix A: input, salt and info in hexadecimal, and the output of that many bytes."""

    secret: str
    salt: str
    info: str
    output: str


HKDF = {
    "A.1": Derived(
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    "A.2": Derived(
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    "A.3": Derived(
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
}
HMAC = {  # RFC 4231, section 4: key and data in hexadecimal, then the mac; 4.6 is cut to 128 bits
    "4.2": ("0b" * 20, b"Hi There".hex(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    "4.3": (
        b"Jefe".hex(),
        b"what do ya want for nothing?".hex(),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    "4.4": ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    "4.5": (bytes(range(1, 26)).hex(), "cd" * 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    "4.6": ("0c" * 20, b"Test With Truncation".hex(), "a3b6167473100ee06e0c796c2955552b"),
    "4.7": (
        "aa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    "4.8": (
        "aa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. "
        b"The key needs to be hashed before being used by the HMAC algorithm.".hex(),
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
}
LONG = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
LONG_BOX = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
GCM = {  # McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: key, nonce, plain, associated data, box and tag
    "13": ("00" * 32, "00" * 12, "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    "14": ("00" * 32, "00" * 12, "00" * 16, "", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    "15": (
        "feffe9928665731c6d6a8f9467308308" * 2,
        "cafebabefacedbaddecaf888",
        LONG,
        "",
        f"{LONG_BOX}b094dac5d93471bdec1a502270e3cc6c",
    ),
    "16": (
        "feffe9928665731c6d6a8f9467308308" * 2,
        "cafebabefacedbaddecaf888",
        LONG[:120],
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        f"{LONG_BOX[:120]}76fc6ece0f4e1768cddf8853bb2d551b",
    ),
}
XAES = {  # https://c2sp.org/XAES-256-GCM, test vectors: key, associated data, box and tag
    "most significant bit 0": ("01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    "most significant bit 1": ("03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
}
XAES_NONCE, XAES_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWX", b"XAES-256-GCM"
ACCUMULATED = {  # the same, accumulated randomized tests
    10_000: "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939",
    1_000_000: "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15",
}


def hkdf(case: Derived) -> str:
    """What a derived key of that length is."""
    secret, salt, info = (bytes.fromhex(part) for part in case[:3])
    return hkdf_sha256(secret, info, salt=salt, length=len(case.output) // 2).hex()


@pytest.mark.promise(5)
def test_hkdf_gives_the_answers_of_its_rfc(measured: Measured) -> None:
    right = [hkdf(case) == case.output for case in HKDF.values()]
    measured(5, f"HKDF-SHA-256: {sum(right)} of {len(HKDF)} answers of RFC 5869 (A.1 to A.3)")
    assert all(right)


class Fixed:
    """Stands for a key that derives this secret for every role."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def derive(self, *_: str) -> bytes:
        return self._secret


def mac_of_a_token(secret: bytes, data: bytes) -> str:
    """The mac segment of the signed suite over these bytes."""
    key, body = Fixed(secret), data
    return signing._mac(key, "shop", body).decode()  # type: ignore[arg-type]


@pytest.mark.promise(5)
def test_the_mac_of_a_signed_token_is_the_hmac_of_its_rfc(measured: Measured) -> None:
    right = [
        mac_of_a_token(bytes.fromhex(secret), bytes.fromhex(data)).startswith(encode(bytes.fromhex(mac))[: len(mac) * 4 // 6])
        for secret, data, mac in HMAC.values()
    ]
    measured(5, f"HMAC-SHA-256 through the signer: {sum(right)} of {len(HMAC)} answers of RFC 4231")
    assert all(right)
    assert all(len(mac_of_a_token(bytes.fromhex(secret), b"x")) == 43 for secret, _, _ in HMAC.values())


@pytest.mark.promise(5)
def test_aes_256_gcm_gives_the_answers_of_its_submission(measured: Measured) -> None:
    right = []
    for case in GCM.values():
        secret, nonce, plain, bound_to, box = (bytes.fromhex(part) for part in case)
        right.append(
            AESGCM(secret).encrypt(nonce, plain, bound_to) == box and AESGCM(secret).decrypt(nonce, box, bound_to) == plain
        )
    measured(5, f"AES-256-GCM: {sum(right)} of {len(GCM)} answers of its submission to NIST (test cases 13 to 16)")
    assert all(right)


@pytest.mark.promise(5)
def test_xaes_256_gcm_gives_the_answers_of_its_specification(measured: Measured) -> None:
    right = [
        encrypt(bytes.fromhex(secret), XAES_NONCE, XAES_PLAIN, bound_to) == bytes.fromhex(box)
        and decrypt(bytes.fromhex(secret), XAES_NONCE, bytes.fromhex(box), bound_to) == XAES_PLAIN
        for secret, bound_to, box in XAES.values()
    ]
    measured(5, f"XAES-256-GCM: {sum(right)} of {len(XAES)} answers of its specification")
    assert all(right)


def accumulated(number: int) -> str:
    """SHAKE-128 of so many boxes, whose keys, nonces, plain texts and associated data come from another SHAKE-128."""
    # 312 bytes on average; the margin is over sixty standard deviations at ten thousand, and more later
    stream = memoryview(shake_128().digest(number * 312 + 1_000_000))
    boxes, at = shake_128(), 0

    def taken(length: int) -> bytes:
        nonlocal at
        at += length
        return bytes(stream[at - length : at])

    for _ in range(number):
        secret, nonce = taken(32), taken(24)
        plain = taken(taken(1)[0])
        bound_to = taken(taken(1)[0])
        box = encrypt(secret, nonce, plain, bound_to)
        assert decrypt(secret, nonce, box, bound_to) == plain
        boxes.update(box)
    assert at <= len(stream)
    return boxes.hexdigest(32)


@pytest.mark.promise(5)
def test_xaes_256_gcm_gives_the_accumulated_answer_of_random_inputs(scale: float, measured: Measured) -> None:
    number = 1_000_000 if scale >= 1 else 10_000
    found = accumulated(number)
    verdict = "right" if found == ACCUMULATED[number] else "wrong"
    measured(5, f"XAES-256-GCM: the accumulated answer of {number:,} random inputs is {verdict}")
    assert found == ACCUMULATED[number]


# What the suites make of these primitives, once more from the document and the standard library alone


def by_hand(text: str) -> bytes:
    return len(text.encode()).to_bytes(4, "big") + text.encode()


def derived_by_hand(secret: bytes, *parts: str) -> bytes:
    pseudo_random = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(pseudo_random, b"".join(by_hand(part) for part in parts) + b"\1", "sha256")


def segment(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.promise(5)
def test_a_signed_token_is_what_the_document_says_computed_by_hand(scale: float) -> None:
    source = random.Random(5)
    for at in range(int(5_000 * scale)):
        key, audience = Key.from_bytes("k7Qx", source.randbytes(32)), "é" * (at % 3) + "shop"
        claims, state = source.randbytes(source.randrange(40)), source.randbytes(source.randrange(90))
        body = f"dcaf1s.k7Qx.{segment(claims)}.{segment(state)}"
        secret = derived_by_hand(key.secret, "dcaf", "1", "dcaf1s", audience, "mac")
        mac = segment(hmac.digest(secret, body.encode(), "sha256"))
        assert SIGNED.seal(key, audience, claims, Payload(state)) == f"{body}.{mac}".encode()


@pytest.mark.promise(5)
def test_an_encrypted_token_made_by_hand_after_the_document_is_opened(scale: float) -> None:
    source = random.Random(5)
    for at in range(int(5_000 * scale)):
        key, audience = Key.from_bytes("k7Qx", source.randbytes(32)), "é" * (at % 3) + "shop"
        claims, state, nonce = b'{"n":%d}' % at, source.randbytes(source.randrange(90)), source.randbytes(24)
        secret = derived_by_hand(key.secret, "dcaf", "1", "dcaf1e", audience, "box")
        bound_to = by_hand("dcaf1e") + by_hand("k7Qx") + by_hand(audience)
        box = AESGCM(encryption._subkey(secret, nonce)).encrypt(nonce[12:], claims + b"\n" + state, bound_to)
        opened = ENCRYPTED.open(f"dcaf1e.k7Qx.{segment(nonce + box)}".encode(), Keyring(key), audience)
        assert (opened.claims, opened.payload.data) == (claims, state)


def flipped(text: str) -> str:
    """The same in hexadecimal with its last bit flipped."""
    data = bytes.fromhex(text)
    return (data[:-1] + bytes([data[-1] ^ 1])).hex()


@pytest.mark.promise(5)
def test_control_one_flipped_bit_is_caught_in_every_answer() -> None:
    assert all(hkdf(case._replace(secret=flipped(case.secret))) != case.output for case in HKDF.values())
    for secret_hex, data, mac in HMAC.values():
        assert mac_of_a_token(bytes.fromhex(secret_hex), bytes.fromhex(flipped(data)))[:21] != encode(bytes.fromhex(mac))[:21]
    for case in GCM.values():
        secret, nonce, _, bound_to, box = (bytes.fromhex(part) for part in (*case[:4], flipped(case[4])))
        with pytest.raises(InvalidTag):
            AESGCM(secret).decrypt(nonce, box, bound_to)
    for secret_hex, bound_to, box_hex in XAES.values():
        with pytest.raises(InvalidTag):
            decrypt(bytes.fromhex(secret_hex), XAES_NONCE, bytes.fromhex(flipped(box_hex)), bound_to)
        with pytest.raises(InvalidTag):
            decrypt(bytes.fromhex(flipped(secret_hex)), XAES_NONCE, bytes.fromhex(box_hex), bound_to)


def without_the_carry(secret: bytes) -> bytes:
    block = int.from_bytes(encryption._aes(secret, bytes(16)), "big")
    return (block << 1 & (1 << 128) - 1).to_bytes(16, "big")


@pytest.mark.promise(5)
def test_control_a_cmac_without_its_carry_is_caught_by_one_vector_and_by_the_accumulated_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encryption, "_known_cmac_key", without_the_carry)
    wrong = [encrypt(bytes.fromhex(key), XAES_NONCE, XAES_PLAIN, data).hex() != box for key, data, box in XAES.values()]
    assert wrong == [False, True]
    assert accumulated(10_000) != ACCUMULATED[10_000]


@pytest.mark.promise(5)
def test_control_another_digest_in_the_signer_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def salted(secret: bytes) -> signing.Keyed:
        return signing.Keyed(Signer(secret, digest_method=sha256).derive_key())

    monkeypatch.setattr(signing, "_keyed", salted)
    assert all(
        mac_of_a_token(bytes.fromhex(secret), bytes.fromhex(data))[:21] != encode(bytes.fromhex(mac))[:21]
        for secret, data, mac in HMAC.values()
    )
