"""The signed suite: one spelling a token, one key, one audience, and nothing decoded before the mac has verified."""

import hashlib
import hmac
import json
import os
import string
from typing import Any

import itsdangerous
import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core import Key, Keyring, SessionInvalid, SessionTooLarge, base64url, signing
from dcaf.core.base64url import Payload, decode, decode_known, encode, encode_as_bytes
from dcaf.core.signing import SHAPE, SIGNED, check_text

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
KEY = Key.from_bytes("k7", hashlib.sha256(b"seal").digest())
OLD = Key.from_bytes("old", hashlib.sha256(b"old").digest())
RING = Keyring(KEY, OLD)
CLAIMS = b'{"aud":"shop","seq":1}'
TOKEN = SIGNED.seal(KEY, "shop", CLAIMS, Payload(b'{"step":1}'))


def refusal(token: Any, keys: Any = RING, audience: Any = "shop") -> Any:
    with pytest.raises(SessionInvalid) as caught:
        SIGNED.open(token, keys, audience)
    assert caught.value.kid == (None if caught.value.reason == "shape" else token.split(b".")[1].decode())
    return caught.value.reason


def test_a_new_key_signs_as_the_protocol_says() -> None:
    key = Key.generate("k9")
    body, _, mac = SIGNED.seal(key, "shop", CLAIMS, Payload(b"{}")).rpartition(b".")
    assert mac.decode() == encode(hmac.digest(key.derive("dcaf1s", "shop", "mac"), body, "sha256"))


def test_a_token_is_spelled_as_the_protocol_says() -> None:
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (b"dcaf", b"1", b"dcaf1s", b"shop", b"mac"))
    pseudo_random = hmac.digest(bytes(32), KEY.secret, "sha256")
    derived = hmac.digest(pseudo_random, info + b"\1", "sha256")
    body = "dcaf1s.k7." + encode(CLAIMS) + "." + encode(b'{"step":1}')
    assert f"{body}.{encode(hmac.digest(derived, body.encode(), 'sha256'))}".encode() == TOKEN
    signer = itsdangerous.Signer(derived, key_derivation="none", digest_method=hashlib.sha256)
    assert signer.sign(body) == TOKEN
    keyed = itsdangerous.Signer(derived, key_derivation="none", algorithm=signing.Keyed(derived))
    assert keyed.sign(body) == TOKEN


@settings(deadline=None)
@given(claims=st.binary(min_size=2, max_size=60), state=st.binary(min_size=2, max_size=60), audience=st.text("aéb", min_size=1))
def test_what_was_sealed_opens(claims: Any, state: Any, audience: Any) -> None:
    token = SIGNED.seal(KEY, audience, claims, Payload(state))
    opened = SIGNED.open(token, RING, audience)
    assert (opened.key, opened.claims, opened.payload.data) == (KEY, claims, state)
    assert token.isascii()
    assert SHAPE.fullmatch(token)


def edits(token: Any) -> Any:
    alphabet = [character.encode("latin-1") for character in string.ascii_letters + string.digits + "-_.= +/\n\0é"]
    for at in range(len(token)):
        yield token[:at] + token[at + 1 :]
        for character in alphabet:
            yield token[:at] + character + token[at + 1 :]
            yield token[:at] + character + token[at:]
    for character in alphabet:
        yield token + character


def accepted(verify: Any, tokens: Any, original: Any = TOKEN) -> Any:
    count = 0
    for token in set(tokens) - {original}:
        try:
            verify(token)
        except (SessionInvalid, itsdangerous.BadSignature):
            continue
        count += 1
    return count


def opens(token: Any) -> None:
    SIGNED.open(token, RING, "shop")


def test_no_edit_of_a_single_character_is_accepted() -> None:
    assert accepted(opens, edits(TOKEN)) == 0


def test_no_splice_of_two_tokens_is_accepted() -> None:
    others = [SIGNED.seal(KEY, "shop", CLAIMS, Payload(b'{"step":%d}' % step)) for step in range(2, 2 + max(5, int(50 * SCALE)))]
    splices = {
        token[:cut] + other[cut:]
        for other in others
        for token, other in ((TOKEN, other), (other, TOKEN))
        for cut in range(1, len(token))
    } - set(others)
    assert accepted(opens, splices) == 0


def test_the_law_of_edits_catches_a_verifier_that_decodes_before_it_compares() -> None:
    signer = itsdangerous.Signer(KEY.derive("dcaf1s", "shop", "mac"), key_derivation="none", digest_method=hashlib.sha256)
    assert accepted(signer.unsign, edits(TOKEN)) > 0


def test_the_law_of_edits_catches_a_verifier_that_skips_the_mac() -> None:
    def skips(token: Any) -> None:
        if not SHAPE.fullmatch(token):
            raise SessionInvalid(reason="shape")

    assert accepted(skips, edits(TOKEN)) > 1_000


def test_every_other_spelling_of_the_mac_is_refused() -> None:
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    spellings = [TOKEN[:-1] + character.encode() for character in alphabet]
    same = [token for token in spellings if decode(token[-43:]) == decode(TOKEN[-43:])]
    assert len(same) == 4
    assert [token for token in same if accepted(opens, [token], original=b"") == 1] == [TOKEN]
    for spelled in (TOKEN + b"=", TOKEN + b"\n", TOKEN[:-43] + b"+" + TOKEN[-42:]):
        assert refusal(spelled) == "shape"


def test_a_token_of_another_audience_is_refused() -> None:
    assert refusal(TOKEN, audience="shop2") == "mac"


def test_a_token_of_another_key_of_the_same_id_is_refused() -> None:
    assert refusal(TOKEN, keys=Keyring(Key.from_bytes("k7", OLD.secret))) == "mac"


def test_a_token_that_names_another_key_of_the_ring_is_refused() -> None:
    assert refusal(TOKEN.replace(b".k7.", b".old.")) == "mac"


def test_a_token_of_an_unknown_key_is_refused_and_names_it_for_the_log() -> None:
    with pytest.raises(SessionInvalid) as caught:
        SIGNED.open(TOKEN, Keyring(OLD), "shop")
    assert (caught.value.reason, caught.value.kid) == ("kid", "k7")


def test_a_token_of_a_revoked_key_is_refused() -> None:
    revoked = Key.from_bytes("k7", KEY.secret, revoked=True)
    assert refusal(TOKEN, keys=Keyring(OLD, revoked)) == "kid"
    assert SIGNED.open(TOKEN, Keyring(OLD, KEY), "shop").key == KEY


def test_an_old_key_still_opens_after_rotation() -> None:
    assert SIGNED.open(SIGNED.seal(OLD, "shop", CLAIMS, Payload(b"{}")), RING, "shop").key == OLD


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"new",
        b"dcaf1s....",
        b"dcaf1e.k7." + b"A" * 60,
        TOKEN.replace(b"dcaf1s", b"dcaf1e"),
        TOKEN.replace(b"dcaf1s", b"dcaf2s"),
        TOKEN.replace(b"dcaf1s", b"DCAF1S"),
        TOKEN.replace(b".k7.", b"." + b"k" * 17 + b"."),
        TOKEN.replace(b".k7.", b".k_7."),
        TOKEN.replace(b".k7.", b".k.7."),
        TOKEN.replace(b".k7.", b".."),
        f"dcaf1s.k7.e.{encode(b'{}')}.{'A' * 43}".encode(),
        f"dcaf1s.k7.{encode(CLAIMS)}.e3.{'A' * 43}".encode(),
        TOKEN + b".x",
        TOKEN[:-1],
        TOKEN + b"A",
        TOKEN[:-1] + "٣".encode(),
        TOKEN.replace(b"dcaf1s", "\u017fdcaf1s".encode()),
    ],
)
def test_another_shape_is_refused(token: Any) -> None:
    assert refusal(token) == "shape"


@pytest.mark.parametrize("token", [None, 5, b"dcaf1s", ["x"], {}, "é", TOKEN, TOKEN.decode() + "\u2028", "\ud800"])
def test_only_ascii_text_is_a_token(token: Any) -> None:
    with pytest.raises(SessionInvalid) as caught:
        check_text(token, 100)
    assert caught.value.reason == "ascii"


def test_a_token_over_its_limit_is_refused_before_its_shape_is_looked_at() -> None:
    assert check_text("x" * 100, 100) == b"x" * 100
    with pytest.raises(SessionTooLarge) as caught:
        check_text("x" * 101, 100)
    assert caught.value.reason == "length"
    assert not caught.value.offers_restart


def decodes_nothing_unverified(monkeypatch: Any, verify: Any) -> Any:
    seen = []

    def spied(reader: Any) -> Any:
        def spy(segment: Any) -> Any:
            seen.append(bytes(segment))
            return reader(segment)

        return spy

    monkeypatch.setattr(signing, "decode_known", spied(decode_known))
    monkeypatch.setattr(base64url, "decode_known", spied(decode_known))
    for token in (TOKEN[:-1] + (b"A" if TOKEN[-1:] != b"A" else b"E"), TOKEN.replace(b".k7.", b".k8."), TOKEN[:-1]):
        with pytest.raises(SessionInvalid):
            verify(token)
    assert seen == []
    verify(TOKEN)
    assert set(seen) == set(TOKEN.split(b".")[2:4])


def test_nothing_is_decoded_before_the_mac_has_verified(monkeypatch: Any) -> None:
    decodes_nothing_unverified(monkeypatch, opens)


def test_the_law_of_decoding_catches_a_verifier_that_looks_first(monkeypatch: Any) -> None:
    def eager(token: Any) -> None:
        signing.decode_known(token.split(b".")[2])  # type: ignore[attr-defined]
        opens(token)

    with pytest.raises(AssertionError):
        decodes_nothing_unverified(monkeypatch, eager)


def test_the_shortest_token_has_the_shape() -> None:
    token = SIGNED.seal(KEY, "shop", b"1", Payload(b"{}"))
    assert SIGNED.open(token, RING, "shop").claims == b"1"


def test_what_was_opened_shows_neither_claims_nor_state() -> None:
    assert repr(SIGNED.open(TOKEN, RING, "shop")) == "Opened(suite='dcaf1s', key=Key(kid='k7'))"


def test_an_untouched_state_is_copied_and_not_encoded_again(monkeypatch: Any) -> None:
    payload = SIGNED.open(TOKEN, RING, "shop").payload
    assert json.loads(payload.data) == {"step": 1}
    encode, encode_as_bytes = pybase64.b64encode, []

    def seen(data: bytes, alternative: bytes) -> bytes:
        encode_as_bytes.append(data)
        return encode(data, alternative)

    monkeypatch.setattr("dcaf.core.base64url.pybase64.b64encode", seen)
    assert SIGNED.seal(KEY, "shop", CLAIMS, payload) == TOKEN
    assert payload.data not in encode_as_bytes
    SIGNED.seal(KEY, "shop", CLAIMS, Payload(payload.data))
    assert payload.data in encode_as_bytes


def test_a_state_of_another_alphabet_has_another_shape_although_a_program_with_our_key_made_it() -> None:
    for state in ("e30=", "e3+0", "e3/0", "e3 0", 'e3"0', "e3", ""):
        body = f"dcaf1s.k7.{encode(CLAIMS)}.{state}"
        signer = itsdangerous.Signer(KEY.derive("dcaf1s", "shop", "mac"), key_derivation="none", digest_method=hashlib.sha256)
        assert refusal(signer.sign(body)) == "shape"


def test_claims_that_another_program_with_our_key_misspelled_are_invalid() -> None:
    body = f"dcaf1s.k7.abcde.{encode(b'{}')}"
    signer = itsdangerous.Signer(KEY.derive("dcaf1s", "shop", "mac"), key_derivation="none", digest_method=hashlib.sha256)
    assert refusal(signer.sign(body)) == "claims"


def test_no_refusal_quotes_the_token() -> None:
    with pytest.raises(SessionInvalid) as caught:
        SIGNED.open(TOKEN[:-1] + (b"A" if TOKEN[-1:] != b"A" else b"E"), RING, "shop")
    assert str(caught.value) == "The session was not sealed by this service for this caller."
    assert TOKEN[20:40].decode() not in repr(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 131])
def test_a_keyed_mac_is_the_hmac_of_any_key(length: Any) -> None:
    secret = bytes(range(length))
    for text in (b"", b"x", bytes(200)):
        assert signing.Keyed(secret).mac(text[:1], text[1:]) == hmac.digest(secret, text, "sha256")


@pytest.mark.parametrize("data", [bytes([number, number]) for number in range(256)] + [b"", b"a", b"ab\x17", b"\xff" * 7])
def test_bytes_are_written_as_text_is_with_every_letter_and_without_padding(data: bytes) -> None:
    assert encode_as_bytes(data) == encode(data).encode()
    assert decode(encode_as_bytes(data)) == data
