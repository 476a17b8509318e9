"""P1: no altered token is accepted."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, islice, product
from string import ascii_letters, digits
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from dcaf.core import encryption
from dcaf.core.base64url import decode, encode
from dcaf.core.encryption import ENCRYPTED, TAG_BYTES, EncryptedSuite
from dcaf.core.errors import SessionError
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Opened, SignedSuite, Suite

NOW = 1_789_000_000
BASE64URL = ascii_letters + digits + "-_"
SINGLE = BASE64URL + ".+/=%~ \n\0é"
KEYS = [Key.from_bytes(kid, random.Random(kid).randbytes(32)) for kid in ("k7", "k8")]
SUITES = ("signed", "encrypted")
OTHERS = 50
RANDOM_AT_LEAST = 2_000


def suite_named(name: str) -> Suite:
    """One of the two, its nonces drawn from a seed."""
    return SIGNED if name == "signed" else EncryptedSuite(random.Random(name).randbytes)


def sealer(suite: Suite, *also: Suite, active: int = 0) -> Sealer:
    """One that accepts as much as any: both keys, and the other suite where it is named."""
    ring, drawn = Keyring(KEYS[active], KEYS[1 - active]), random.Random(1).randbytes
    return Sealer(keys=ring, audience="shop", clock=lambda: NOW, randomness=drawn, suite=suite, also_accepted=also)


def valid_tokens(suite: Suite, number: int) -> list[str]:
    """So many tokens of one holder: several sessions with several states each, under two keys."""
    sealers = [sealer(suite, active=active) for active in (0, 1)]
    tokens = []
    for at in range(number):
        if at % 5 == 0:
            session = sealers[0].start()
        session["step"] = at
        envelope = sealers[at % 2].seal(session, sealers[0].binding("ann", "t1"), sequence=at % 5 + 1)
        tokens.append(str(orjson.loads(envelope)["dcaf"]["token"]))
    return tokens


def accepted(by: Sealer, tokens: Iterable[str]) -> int:
    """How many of these one sealer accepts for the holder of the valid ones."""
    binding, found = by.binding("ann", "t1"), 0
    for token in tokens:
        try:
            by.open({"dcaf": {"token": token}}, binding)
        except SessionError:
            continue
        found += 1
    return found


def single_edits(token: str) -> Iterator[str]:
    """Every substitution, insertion, deletion, transposition of neighbours, and truncation at either end."""
    for at in range(len(token) + 1):
        before, after = token[:at], token[at:]
        yield from (before + letter + after for letter in SINGLE)
        yield from (before + letter + after[1:] for letter in SINGLE if after)
        yield before + after[1:]
        yield before + after[1:2] + after[:1] + after[2:]
        yield before
        yield after


def splices(tokens: list[str], foreign: list[str]) -> Iterator[str]:
    """The first token with parts of each other one: whole segments in every choice, and the rest from every character on."""
    first = tokens[0].split(".")
    for other in (*tokens[1:], *foreign):
        segments = other.split(".")
        for choice in product((False, True), repeat=max(len(first), len(segments))):
            mixed = (theirs if taken else ours for ours, theirs, taken in zip(first, segments, choice, strict=False))
            yield ".".join(mixed)
        for at in range(1, min(len(tokens[0]), len(other))):
            yield tokens[0][:at] + other[at:]


def random_edits(tokens: list[str], source: random.Random) -> Iterator[str]:
    """Without end: one to eight changes to any of the tokens."""
    changes = (_letter, _letter, _byte, _byte, _swap, _slice, _segments, _claims)
    for _ in count():
        token = source.choice(tokens)
        for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
            token = source.choice(changes)(token, tokens, source)
        yield token


def _letter(token: str, _: list[str], source: random.Random) -> str:
    at = source.randrange(len(token) + 1)
    return token[:at] + source.choice(("", source.choice(BASE64URL))) + token[at + source.randrange(2) :]


def _byte(token: str, _: list[str], source: random.Random) -> str:
    """Change bits under a segment and spell it canonically, so that it gets as far as the seal."""
    segments = token.split(".")
    at = source.randrange(len(segments))
    try:
        data = bytearray(decode(segments[at]))
    except ValueError:
        return token
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    segments[at] = encode(bytes(data))
    return ".".join(segments)


def _swap(token: str, _: list[str], source: random.Random) -> str:
    letters = list(token)
    one, other = source.randrange(len(letters)), source.randrange(len(letters))
    letters[one], letters[other] = letters[other], letters[one]
    return "".join(letters)


def _slice(token: str, tokens: list[str], source: random.Random) -> str:
    """Cut a piece out, double it, or take it from another token."""
    start, end = sorted((source.randrange(len(token)), source.randrange(len(token))))
    piece = source.choice(("", token[start:end] * 2, source.choice(tokens)[start:end]))
    return (token[:start] + piece + token[end:]) or "."


def _segments(token: str, tokens: list[str], source: random.Random) -> str:
    segments, others = token.split("."), source.choice(tokens).split(".")
    segments[source.randrange(len(segments))] = source.choice(others)
    return ".".join(segments)


def _claims(token: str, _: list[str], source: random.Random) -> str:
    """What a forger would do first: say something else in what can be read."""
    segments = token.split(".")
    at = source.randrange(len(segments))
    try:
        values: Any = orjson.loads(decode(segments[at]))
    except ValueError:
        return token
    if isinstance(values, dict) and values:
        values[source.choice(sorted(values))] = source.choice((NOW + 86_400, 0, 1, "", "shop", None))
        segments[at] = encode(orjson.dumps(values))
    return ".".join(segments)


def alterations(suite: Suite, number: int) -> tuple[list[str], Iterator[str]]:
    """The valid tokens of a suite, and so many altered ones: at the least all single edits and splices, and some at random."""
    tokens = valid_tokens(suite, 1 + OTHERS)
    foreign = valid_tokens(suite_named("signed" if suite.prefix == ENCRYPTED.prefix else "encrypted"), 10)
    valid = {*tokens, *foreign}
    systematic = [token for token in dict.fromkeys(chain(single_edits(tokens[0]), splices(tokens, foreign))) if token not in valid]
    at_random = (token for token in random_edits(tokens, random.Random(1)) if token not in valid)
    return tokens, islice(chain(systematic, at_random), max(number, len(systematic) + RANDOM_AT_LEAST))


def counted(tokens: Iterator[str], tally: list[int]) -> Iterator[str]:
    """The same, with their number."""
    for token in tokens:
        tally[0] += 1
        yield token


@pytest.mark.promise(1)
@pytest.mark.parametrize("name", SUITES)
def test_no_altered_token_is_accepted(name: str, scale: float, measured: Callable[[int, str], None]) -> None:
    suite, tally = suite_named(name), [0]
    by = sealer(suite, ENCRYPTED if suite is SIGNED else SIGNED)
    tokens, altered = alterations(suite, int(1_000_000 * scale))
    found = accepted(by, counted(altered, tally))
    measured(1, f"{found} of {tally[0]:,} altered {name} tokens accepted")
    assert accepted(by, tokens) == 1 + OTHERS
    assert found == 0


class SkipsTheMac(SignedSuite):
    """Broken: whatever the mac is, it is the right one."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hmac, "compare_digest", lambda _expected, _found: True)
            return super().open(token, keys, audience)


class ComparesHalfTheMac(SignedSuite):
    """Broken: the second half of the mac is not looked at."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hmac, "compare_digest", lambda expected, found: expected[:22] == found[:22])
            return super().open(token, keys, audience)


def without_the_tag(secret: bytes, nonce: bytes, box: bytes | memoryview, _: bytes) -> bytes:
    """XAES-256-GCM as a stream cipher."""
    counter = nonce[12:] + (2).to_bytes(4, "big")
    decryptor = Cipher(AES(encryption._subkey(secret, nonce)), modes.CTR(counter)).decryptor()
    return decryptor.update(box[:-TAG_BYTES]) + decryptor.finalize()


class SkipsTheTag(EncryptedSuite):
    """Broken: it decrypts, and does not verify."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encryption, "decrypt", without_the_tag)
            return super().open(token, keys, audience)


BROKEN: list[Suite] = [SkipsTheMac(), ComparesHalfTheMac(), SkipsTheTag(random.Random(1).randbytes)]


@pytest.mark.promise(1)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda suite: type(suite).__name__)
def test_control_a_suite_that_does_not_verify_is_caught(broken: Suite) -> None:
    tokens, altered = alterations(broken, 0)
    assert accepted(sealer(broken), tokens) == 1 + OTHERS
    assert accepted(sealer(broken), islice(altered, 0, None, 7)) > 100
