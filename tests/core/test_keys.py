"""Who may vouch: derivation against its known answers, one textual form, and rings that refuse what is ambiguous."""

import copy
import hashlib
import logging
import os
import pickle
import string
import traceback
from pathlib import Path
from typing import Any

import flask_unsign_wordlist  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dcaf.core import ConfigurationError, Key, Keyring
from dcaf.core.base64url import encode
from dcaf.core.keys import TEXT, hkdf_sha256, length_prefixed

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
SECRET = hashlib.sha256(b"a secret of these tests").digest()
OTHER = hashlib.sha256(b"another one").digest()
KEY = Key.from_bytes("k7", SECRET)
MAKE_ONE = 'Make one: export DCAF_KEYS="$(dcaf keys new)"'
NO_KEY = f"This is not a dcaf key (dcafk1_<kid>_<secret>_<checksum>). {MAKE_ONE}"

SECRETS = st.binary(min_size=32, max_size=32).filter(lambda secret: len(set(secret)) >= 10)
KIDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=16)

RFC_5869 = [  # appendix A.1 to A.3: ikm, salt, info, length, okm
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


def message(make: Any) -> Any:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


def damage(body: Any) -> Any:
    return f"{body}_{encode(hashlib.sha256(body.encode()).digest())[:6]}"


@pytest.mark.parametrize(("ikm", "salt", "info", "length", "okm"), RFC_5869)
def test_hkdf_gives_the_answers_of_rfc_5869(ikm: Any, salt: Any, info: Any, length: Any, okm: Any) -> None:
    found = hkdf_sha256(bytes.fromhex(ikm), bytes.fromhex(info), salt=bytes.fromhex(salt), length=length)
    assert found.hex() == okm
    assert found.hex() != "00" + okm[2:]


def test_the_known_answers_catch_a_flipped_bit() -> None:
    ikm, salt, info, length, okm = RFC_5869[0]
    flipped = bytes([bytes.fromhex(ikm)[0] ^ 1]) + bytes.fromhex(ikm)[1:]
    assert hkdf_sha256(flipped, bytes.fromhex(info), salt=bytes.fromhex(salt), length=length).hex() != okm


@settings(deadline=None, max_examples=max(30, int(2_000 * SCALE)))
@given(secret=st.binary(max_size=80), info=st.binary(max_size=80), salt=st.binary(max_size=80), length=st.integers(1, 300))
@example(secret=b"", info=b"", salt=b"", length=8_160)
def test_hkdf_agrees_with_another_implementation(secret: Any, info: Any, salt: Any, length: Any) -> None:
    assert hkdf_sha256(secret, info, salt=salt, length=length) == HKDF(hashes.SHA256(), length, salt or None, info).derive(secret)


def test_a_key_derives_as_the_protocol_says() -> None:
    info = b"\0\0\0\4dcaf\0\0\0\0011\0\0\0\6dcaf1s\0\0\0\5sh\xc3\xb6p\0\0\0\3mac"
    for key in (KEY, Key.generate()):
        assert key.derive("dcaf1s", "shöp", "mac") == HKDF(hashes.SHA256(), 32, b"", info).derive(key.secret)


def test_no_two_purposes_share_a_derived_key() -> None:
    parts = [
        (s, a, r) for s in ("dcaf1s", "dcaf1e") for a in ("a", "ab", "amac", "") for r in ("mac", "bind", "log", "box", "bmac")
    ]
    assert len({KEY.derive(*part) for part in parts}) == len(parts)
    assert len({s + a + r for s, a, r in parts}) < len(parts)  # without length prefixes some would be one


def test_length_prefixes_count_bytes() -> None:
    assert length_prefixed("é") == b"\0\0\0\2\xc3\xa9"


@settings(deadline=None, max_examples=max(100, int(5_000 * SCALE)))
@given(kid=KIDS, secret=SECRETS)
def test_the_textual_form_comes_back(kid: Any, secret: Any) -> None:
    key = Key.from_bytes(kid, secret)
    found = Key.parse(key.text())
    assert (found.kid, found.secret, found) == (kid, secret, key)
    assert TEXT.fullmatch(key.text())


def test_generated_keys_are_accepted() -> None:
    for _ in range(max(100, int(50_000 * SCALE))):
        key = Key.generate()
        assert Key.parse(key.text()) == key
        assert len(key.kid) == 6


def test_the_textual_form_is_that_of_the_protocol() -> None:
    body = f"dcafk1_k7_{encode(SECRET)}"
    assert KEY.text() == f"{body}_{encode(hashlib.sha256(body.encode()).digest())[:6]}"
    assert len(KEY.text()) == 7 + 3 + 43 + 7


def changes(text: Any) -> Any:
    alphabet = string.ascii_letters + string.digits + "-_ .=\n\0é"
    for at in range(len(text)):
        yield text[:at] + text[at + 1 :]
        for character in alphabet:
            if character != text[at]:
                yield text[:at] + character + text[at + 1 :]
            yield text[:at] + character + text[at:]
    for character in alphabet:
        yield text + character


def accepted(parse: Any, texts: Any) -> Any:
    count = 0
    for text in texts:
        try:
            parse(text)
        except ConfigurationError:
            continue
        count += 1
    return count


def test_any_change_of_a_single_character_is_refused() -> None:
    text = KEY.text()
    assert accepted(Key.parse, (changed for changed in changes(text) if changed != text)) == 0


def test_the_law_of_single_characters_catches_a_check_of_the_shape_alone() -> None:
    def lenient(text: Any) -> None:
        if not TEXT.fullmatch(text):
            raise ConfigurationError("shape")

    assert accepted(lenient, changes(KEY.text())) > 1_000


def test_a_damaged_checksum_is_named_without_the_text() -> None:
    text = KEY.text()
    damaged = text[:-1] + ("A" if text[-1] != "A" else "B")
    assert message(lambda: Key.parse(damaged)) == "The key 'k7' is damaged: its checksum does not match. Copy it again, whole."


def test_a_spelling_that_is_not_canonical_is_refused() -> None:
    text = encode(SECRET)
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    others = [text[:-1] + character for character in alphabet if alphabet.index(character) // 4 == alphabet.index(text[-1]) // 4]
    assert len(others) == 4
    for other in others:
        spelled = damage(f"dcafk1_k7_{other}")
        if other == text:
            assert Key.parse(spelled) == KEY
        else:
            assert message(lambda spelled=spelled: Key.parse(spelled)) == f"The key 'k7' is not spelled canonically. {MAKE_ONE}"


@pytest.mark.parametrize("text", ["", "secret", None, 5, b"dcafk1", SECRET, SECRET.hex(), encode(SECRET), KEY, " " + KEY.text()])
def test_nothing_else_is_accepted_as_text(text: Any) -> None:
    assert message(lambda: Key.parse(text)) == NO_KEY


def published() -> Any:
    lines = Path(flask_unsign_wordlist.get("all")).read_text("utf-8", "replace").splitlines()
    return lines[:: max(1, int(1 / max(SCALE, 1e-3)))]


def test_no_published_secret_is_accepted_as_a_key() -> None:
    secrets = published()
    assert len(secrets) > 500
    assert accepted(Key.parse, secrets) == 0
    assert accepted(lambda text: Keyring.from_environment({"DCAF_KEYS": text}), secrets) == 0


def test_the_law_of_published_secrets_catches_a_check_of_the_length_alone() -> None:
    def lenient(text: Any) -> None:
        if len(text) < 16:
            raise ConfigurationError("short")

    assert accepted(lenient, published()) > 0


@pytest.mark.parametrize("kid", ["", "a" * 17, "a_b", "a.b", "é", None, 5, "a\n"])
def test_a_key_id_is_letters_and_digits(kid: Any) -> None:
    assert message(lambda: Key.from_bytes(kid, SECRET)) == "A key id is 1 to 16 letters and digits."


@pytest.mark.parametrize("secret", [b"", SECRET[:31], SECRET + b"x", encode(SECRET), bytearray(SECRET), None])
def test_a_secret_is_32_bytes(secret: Any) -> None:
    assert message(lambda: Key.from_bytes("k7", secret)) == f"Key 'k7': the secret must be 32 random bytes. {MAKE_ONE}"


@pytest.mark.parametrize("secret", [bytes(32), b"a" * 32, b"12345678" * 4])
def test_a_secret_of_few_different_bytes_is_refused(secret: Any) -> None:
    assert (
        message(lambda: Key.from_bytes("k7", secret)) == f"Key 'k7': the secret's bytes repeat, so they are not random. {MAKE_ONE}"
    )


def test_a_secret_of_ten_different_bytes_is_the_least_that_is_taken() -> None:
    assert Key.from_bytes("k7", bytes(range(200, 210)) * 3 + b"\xc8\xc8")
    with pytest.raises(ConfigurationError, match="the secret's bytes repeat"):
        Key.from_bytes("k7", bytes(range(200, 209)) * 3 + b"\xc8" * 5)


def test_a_secret_that_is_text_is_refused() -> None:
    found = message(lambda: Key.from_bytes("k7", b"correct horse battery staple 123"))
    assert found == f"Key 'k7': the secret is text, so somebody chose it. {MAKE_ONE}"
    text = bytes(range(0x41, 0x41 + 31))
    for byte in (0x09, 0x0A, 0x0D, 0x20, 0x7E):
        with pytest.raises(ConfigurationError, match="is text"):
            Key.from_bytes("k7", text[:31] + bytes([byte]))
    for byte in (0x08, 0x0B, 0x1F, 0x7F, 0x80):
        assert Key.from_bytes("k7", text[:31] + bytes([byte]))


def spellings(secret: Any) -> Any:
    return [secret.hex(), encode(secret), repr(secret)[2:-1], repr(list(secret))[1:-1]]


def shows_nothing(shown: Any) -> None:
    for spelling in spellings(SECRET):
        assert spelling not in shown
        assert spelling[:12] not in shown


def test_no_repr_shows_the_secret() -> None:
    for thing in (KEY, Keyring(KEY), [KEY], {"key": KEY}):
        shows_nothing(repr(thing) + str(thing) + f"{thing}")
    assert repr(KEY) == "Key(kid='k7')"
    assert repr(Keyring(KEY, Key.from_bytes("a", OTHER))) == "Keyring(active='k7', kids=['a', 'k7'])"


def test_the_law_of_reprs_catches_a_key_that_shows_it() -> None:
    with pytest.raises(AssertionError):
        shows_nothing(f"Key(secret={SECRET!r})")


@pytest.mark.parametrize("thing", [KEY, Keyring(KEY)], ids=["key", "ring"])
@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, lambda thing: thing.__reduce_ex__(4)])
def test_a_key_is_neither_pickled_nor_copied(thing: Any, leak: Any) -> None:
    with pytest.raises(TypeError) as caught:
        leak(thing)
    shows_nothing(str(caught.value))
    assert (
        str(caught.value)
        == {
            Key: "a Key is not pickled or copied into messages: pass its id",
            Keyring: "a Keyring is not pickled: read it from the environment where it is needed",
        }[type(thing)]
    )


def test_no_refusal_shows_the_text_of_a_key() -> None:
    text = KEY.text()
    for broken in (text[:-1], text + "x", text[:-1] + ("A" if text[-1] != "A" else "B"), text.replace("_", "-")):
        with pytest.raises(ConfigurationError) as caught:
            Key.parse(broken)
        shows_nothing("".join(traceback.format_exception(caught.value)))


A_TIME = "a number of seconds since the epoch"
A_KEY = "a text, one key as `dcaf keys new` prints it"
IN_THE_ENVIRONMENT = "a text, as `dcaf keys new` prints it"
RING: Any = Keyring
FROM: Any = Keyring.from_environment


@pytest.mark.parametrize(
    ("make", "argument", "takes"),
    [
        (lambda wrong: Key.from_bytes("k7", SECRET, not_before=wrong), "Key(not_before=)", A_TIME),
        (lambda wrong: Keyring(KEY).signer(wrong), "Keyring.signer()", A_TIME),
        (lambda wrong: Key.from_bytes("k7", SECRET, revoked=wrong), "Key(revoked=)", "True or False"),
        (lambda wrong: KEY.derive(wrong, "shop", "mac"), "Key.derive(suite=)", "a text, as section 4 of the protocol has it"),
        (lambda wrong: KEY.derive("dcaf1s", wrong, "mac"), "Key.derive(audience=)", "a text, as section 4 of the protocol has it"),
        (lambda wrong: KEY.derive("dcaf1s", "shop", wrong), "Key.derive(role=)", "a text, as section 4 of the protocol has it"),
        (RING.parse, "Keyring.parse(active=)", A_KEY),
        (lambda wrong: Keyring.parse("", wrong), "Keyring.parse(verify_only=)", "a text, keys with commas between them"),
        (FROM, "Keyring.from_environment()", "a mapping of variables, such as os.environ, or None"),
        (lambda wrong: FROM({"DCAF_KEYS": wrong}), "DCAF_KEYS in the environment", IN_THE_ENVIRONMENT),
        (lambda wrong: FROM({"DCAF_KEYS_VERIFY": wrong}), "DCAF_KEYS_VERIFY in the environment", IN_THE_ENVIRONMENT),
    ],
    ids=lambda item: item if isinstance(item, str) and item.endswith((")", "environment")) else "",
)
def test_what_is_given_by_mistake_is_told_with_what_is_taken(make: Any, argument: str, takes: str) -> None:
    assert message(lambda: make([KEY.text()])) == f"{argument} takes {takes}, not a list."


@pytest.mark.parametrize("sources", ["vault", ("vault",), ("vault", None), ["a", "b"], ("a", "b", "c"), None])
def test_the_keys_of_a_text_were_found_in_two_places(sources: Any) -> None:
    found = message(lambda: Keyring.parse(KEY.text(), sources=sources))
    assert found == "Keyring.parse(sources=) takes two texts, where the keys were found."


def test_one_id_with_two_secrets_is_refused() -> None:
    found = message(lambda: Keyring(KEY, Key.from_bytes("k8", OTHER), Key.from_bytes("k7", OTHER)))
    assert found == "The key id 'k7' stands for two different secrets. Give one of them another id."
    assert Keyring(KEY, KEY).find("k7") == KEY


def test_a_revoked_key_cannot_be_active() -> None:
    found = message(lambda: Keyring(Key.from_bytes("k7", SECRET, revoked=True)))
    assert found == "The active key 'k7' is revoked, so it cannot sign. Name another one first."


def test_a_ring_holds_keys_and_no_text() -> None:
    assert message(lambda: Keyring(KEY.text())) == "A Keyring holds Key objects, not str; read text with Keyring.parse()."  # type: ignore[arg-type]
    assert message(lambda: Keyring(KEY, SECRET)) == "A Keyring holds Key objects, not bytes; read text with Keyring.parse()."  # type: ignore[arg-type]


def test_a_ring_finds_the_keys_that_may_verify() -> None:
    ring = Keyring(KEY, Key.from_bytes("old", OTHER), Key.from_bytes("bad", SECRET, revoked=True))
    assert ring.active is KEY
    assert (ring.find("k7"), ring.find("old"), ring.find("bad"), ring.find("K7"), ring.find("")) == (
        KEY,
        Key.from_bytes("old", OTHER),
        None,
        None,
        None,
    )


@pytest.mark.parametrize("kid", [None, 7, b"k7", ["k7"], {"k7": 1}])
def test_a_ring_finds_no_key_by_what_is_no_text(kid: Any) -> None:
    assert Keyring(KEY).find(kid) is None


@pytest.mark.parametrize("revoked_first", [True, False])
def test_revoking_wins_wherever_it_stands_in_the_ring(revoked_first: Any) -> None:
    twins = [Key.from_bytes("old", OTHER, revoked=True), Key.from_bytes("old", OTHER)]
    try:
        ring = Keyring(KEY, *(twins if revoked_first else reversed(twins)))
    except ConfigurationError:
        return
    assert ring.find("old") is None


def test_a_ring_may_be_one_key_of_text() -> None:
    assert Keyring.parse(KEY.text()).active == KEY


def test_a_ring_of_which_no_key_may_sign_yet_says_so() -> None:
    ring = Keyring(Key.from_bytes("k7", SECRET, not_before=100), Key.from_bytes("old", OTHER, revoked=True))
    assert ring.signer(100).kid == "k7"
    assert message(lambda: ring.signer(99)) == (
        "No key of the ring may sign yet: not_before lies in the future. Keep an older key in it."
    )


def test_a_ring_is_read_from_the_environment(monkeypatch: Any) -> None:
    older = Key.from_bytes("old", OTHER)
    environment = {"DCAF_KEYS": f" {KEY.text()}\n", "DCAF_KEYS_VERIFY": f"{older.text()} ,, "}
    ring = Keyring.from_environment(environment)
    assert (ring.active, ring.find("old")) == (KEY, older)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Keyring.from_environment().find("old") == older
    assert Keyring.from_environment({"DCAF_KEYS": KEY.text()}).find("old") is None


@pytest.mark.parametrize(
    "environment", [{"DCAF_KEYS": "changeme"}, {"DCAF_KEYS": KEY.text(), "DCAF_KEYS_VERIFY": "changeme"}], ids=["active", "older"]
)
def test_what_is_no_key_is_named_by_the_variable_that_it_is_in(environment: Any) -> None:
    (name,) = (name for name, value in environment.items() if value == "changeme")
    assert message(lambda: Keyring.from_environment(environment)) == NO_KEY.replace("This", f"What is in {name}")


def test_what_is_no_key_is_named_by_where_it_was_found() -> None:
    assert message(lambda: Key.parse("changeme", source="the vault")) == NO_KEY.replace("This", "What is in the vault")
    for active, older in (("changeme", ""), (KEY.text(), "changeme")):
        assert message(lambda active=active, older=older: Keyring.parse(active, older)) == NO_KEY


@pytest.mark.parametrize("environment", [{}, {"DCAF_KEYS": ""}, {"DCAF_KEYS": "  "}, {"DCAF_KEYS_VERIFY": KEY.text()}])
def test_no_key_names_the_command_that_makes_one(environment: Any) -> None:
    assert message(lambda: Keyring.from_environment(environment)) == f"There is no key: pass keys=, or set DCAF_KEYS. {MAKE_ONE}"


def test_two_keys_in_the_place_of_the_active_one_are_refused() -> None:
    text = f"{KEY.text()},{Key.from_bytes('old', OTHER).text()}"
    assert message(lambda: Keyring.from_environment({"DCAF_KEYS": text})) == (
        "DCAF_KEYS holds one key, the active one. Put the others into DCAF_KEYS_VERIFY, separated by commas."
    )


@pytest.mark.parametrize("workers", ["2", "16", " 4 "])
def test_an_ephemeral_key_refuses_several_workers(monkeypatch: Any, workers: Any) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    assert message(Keyring.ephemeral) == (
        "An ephemeral key serves one process, and WEB_CONCURRENCY asks for several: they would refuse one another's "
        f"sessions. {MAKE_ONE}"
    )


@pytest.mark.parametrize("workers", [None, "1", "0", "", "auto"])
def test_an_ephemeral_key_says_so_in_the_log(monkeypatch: Any, caplog: Any, workers: Any) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    if workers is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", workers)
    with caplog.at_level(logging.WARNING, logger="dcaf"):
        ring = Keyring.ephemeral()
    kid = ring.active.kid
    assert (kid[:3], len(kid)) == ("tmp", 9)
    assert caplog.messages == [f"dcaf: ephemeral key {kid}: every session ends with this process. Not for production."]
    assert Keyring.ephemeral().active.kid != kid
