"""The encrypted suite: every refusal names its reason and key, and claims end at the first line feed."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from dcaf.core import Key, Keyring, SessionInvalid, encryption
from dcaf.core.base64url import Payload, encode
from dcaf.core.encryption import ENCRYPTED, NONCE_BYTES, TAG_BYTES, EncryptedSuite, _bound_to, _cmac_key, encrypt

KEY = Key.from_bytes("k7", hashlib.sha256(b"encrypted").digest())
RING = Keyring(KEY)
CLAIMS, STATE = b'{"aud":"shop","seq":1}', b'{"step":1}'
TOKEN = ENCRYPTED.seal(KEY, "shop", CLAIMS, Payload(STATE))


def boxed(plain: bytes) -> bytes:
    """A token of our key around any text, as another program with it might make."""
    nonce = hashlib.sha256(plain).digest()[:NONCE_BYTES]
    box = encrypt(KEY.derive("dcaf1e", "shop", "box"), nonce, plain, _bound_to("k7", "shop"))
    return f"dcaf1e.k7.{encode(nonce + box)}".encode()


def refusal(token: bytes, ring: Keyring = RING) -> tuple[str | None, str | None]:
    with pytest.raises(SessionInvalid) as caught:
        ENCRYPTED.open(token, ring, "shop")
    return caught.value.reason, caught.value.kid


def test_what_was_sealed_opens_and_no_two_tokens_are_the_same() -> None:
    opened = ENCRYPTED.open(TOKEN, RING, "shop")
    assert (opened.suite, opened.key, opened.claims, opened.payload.data) == ("dcaf1e", KEY, CLAIMS, STATE)
    assert len({ENCRYPTED.seal(KEY, "shop", CLAIMS, Payload(STATE)) for _ in range(100)}) == 100


def test_a_nonce_is_24_random_bytes() -> None:
    asked: list[int] = []

    def randomness(length: int) -> bytes:
        asked.append(length)
        return b"n" * length

    token = EncryptedSuite(randomness).seal(KEY, "shop", CLAIMS, Payload(STATE))
    assert asked == [24]
    assert token.startswith(b"dcaf1e.k7." + encode(b"n" * 24).encode())
    assert len(token) == len("dcaf1e.k7.") + -(-(24 + len(CLAIMS) + 1 + len(STATE) + TAG_BYTES) * 4 // 3)


def test_every_refusal_names_its_reason_and_the_key_that_was_asked_for() -> None:
    last = TOKEN[-1:]
    assert refusal(TOKEN[:-1] + b"=") == ("shape", None)
    for other in (b"k.7", b"k_7", b"k" * 17, b"", b"k7\n"):
        assert refusal(TOKEN.replace(b".k7.", b".%b." % other)) == ("shape", None)
    assert refusal(TOKEN.replace(b".k7.", b".%b." % (b"k" * 16))) == ("kid", "k" * 16)
    assert refusal(TOKEN, Keyring(Key.generate("k8"))) == ("kid", "k7")
    assert refusal(TOKEN, Keyring(Key.generate("k7"))) == ("tag", "k7")
    assert refusal(b"dcaf1e.k7." + b"A" * 57) == ("base64", "k7")
    assert refusal(b"dcaf1e.k7." + b"A" * 53 + b"B" * 5) == ("base64", "k7")
    assert refusal(TOKEN[:-2] + (b"A" if TOKEN[-2:-1] != b"A" else b"B") + last) == ("tag", "k7")
    assert refusal(boxed(b'{"aud":"shop"}{"no":"line feed"}')) == ("claims", "k7")


def test_the_shape_comes_first_then_the_key_then_the_spelling_then_the_tag() -> None:
    unknown, twin = Keyring(Key.generate("k8")), Keyring(Key.generate("k7"))
    misspelled = b"dcaf1e.k7." + b"A" * 53 + b"B" * 5
    for shapeless in (b"A" * 53, b"A" * 57 + b"+", b"A" * 57 + b"=", b"A" * 57 + b".", b"A" * 57 + b"\n", b"A" * 57 + b"\xe9"):
        assert refusal(b"dcaf1e.k7." + shapeless, unknown) == ("shape", None)
        assert refusal(b"dcaf1e.k7." + shapeless) == ("shape", None)
    assert refusal(b"dcaf1e.k7." + b"A" * 57, unknown) == refusal(misspelled, unknown) == ("kid", "k7")
    assert refusal(b"dcaf1e.k7." + b"A" * 57, twin) == refusal(misspelled, twin) == ("base64", "k7")
    assert refusal(b"dcaf1e.k7." + b"A" * 54, twin) == ("tag", "k7")


@pytest.mark.parametrize(
    ("secret", "subkey"),
    [
        ("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", "cad1ed03299eedac2e9a99808621502f"),
        ("2b7e151628aed2a6abf7158809cf4f3c", "fbeed618357133667c85e08f7236a8de"),
    ],
    ids=["NIST SP 800-38B, D.3, with a carry", "RFC 4493, section 4, without one"],
)
def test_the_first_subkey_of_cmac_is_the_published_one(secret: str, subkey: str) -> None:
    assert _cmac_key(bytes.fromhex(secret)).hex() == subkey


def test_claims_end_at_the_first_line_feed() -> None:
    opened = ENCRYPTED.open(boxed(b'{"a":1}\n{\n}'), RING, "shop")
    assert (opened.claims, opened.payload.data) == (b'{"a":1}', b"{\n}")


def test_a_block_cipher_that_serves_again_has_nothing_left_from_before() -> None:
    secret, text = bytes(range(32)), bytes(range(64))
    fresh = Cipher(AES(secret), modes.ECB()).encryptor().update(text)
    encryption._cmac_key(secret)
    assert encryption._aes(secret, text) == encryption._aes(secret, text) == fresh
