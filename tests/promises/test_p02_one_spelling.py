"""P2: a token has exactly one accepted spelling."""

from __future__ import annotations

import base64
import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import cycle, product
from string import ascii_letters, digits
from urllib.parse import quote

import orjson
import pytest
from itsdangerous import Signer

from dcaf.core import encryption
from dcaf.core.base64url import Payload, decode
from dcaf.core.encryption import EncryptedSuite
from dcaf.core.errors import SessionError, SessionInvalid
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Opened, SignedSuite, Suite

NOW = 1_789_000_000
SUITES = ("signed", "encrypted")
RING = Keyring(Key.from_bytes("k7Qx", random.Random(2).randbytes(32)))
WHITE = ("\n", "\r\n", " ", "\t", "\0", "\x0b", "=", "==", "\x85", "\u2028", "\u200b", "\ufeff", "\u00ad", "\u0301", "%", "\\")
PADDING = ("=", "==", "===", "=\n", "%3D", "==.", "+", "/", "-", "_", "A")
TOKENS = 1_000
CONFUSED = "acdeijopsxyABEHIKMOPTX-_."
CONFUSABLE = (  # the same in Cyrillic, and three signs
    "\u0430\u0441\u0501\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"
    "\u0410\u0412\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425\u2010\u203f\u2024"
)


def looks_alike() -> dict[str, list[str]]:
    """Each character of a token, with every other one that some normalisation, or some eye, takes for it."""
    found: dict[str, list[str]] = {letter: [] for letter in f"{ascii_letters}{digits}-_."}
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x20000)):
        other = chr(code)
        for form in {unicodedata.normalize("NFKC", other), other.casefold(), other.upper(), _digit(other)}:
            if form in found:
                found[form].append(other)
    for letter, others in zip(CONFUSED, CONFUSABLE, strict=True):
        found[letter].append(others)
    return found


def _digit(letter: str) -> str:
    return str(unicodedata.digit(letter, ""))


def suite_named(name: str) -> Suite:
    """One of the two, its nonces drawn from a seed."""
    return SIGNED if name == "signed" else EncryptedSuite(random.Random(name).randbytes)


def sealer(suite: Suite) -> Sealer:
    return Sealer(keys=RING, audience="shop", clock=lambda: NOW, randomness=random.Random(2).randbytes, suite=suite)


def tokens_of(by: Sealer, number: int) -> list[str]:
    """So many tokens, of every length modulo four in each of their segments."""
    source, tokens = random.Random(2), []
    for at in range(number):
        session = by.start()
        session["text"] = "x" * (at % 12) + source.choice(("", "???>>>", "~~~", "é"))
        binding = by.binding(*((None,), ("ann",), ("ann", "t1"))[at % 3])
        envelope = by.seal(session, binding, sequence=10 ** (at % 4))
        tokens.append(str(orjson.loads(envelope)["dcaf"]["token"]))
    return tokens


def opens(by: Sealer, token: str, number: int) -> bool:
    """Whether one sealer accepts a text in place of the token of that number."""
    try:
        by.open({"dcaf": {"token": token}}, by.binding(*((None,), ("ann",), ("ann", "t1"))[number % 3]))
    except SessionError:
        return False
    return True


def spellings(token: str, similar: Mapping[str, Iterator[str]]) -> set[str]:
    """What some lenient reader takes for this token, and is not its text."""
    found = {*_of_segments(token), *_of_letters(token, similar), *_of_the_whole(token)}
    return found - {token}


def _of_segments(token: str) -> Iterator[str]:
    ends = [*(dot.start() for dot in re.finditer(r"\.", token)), len(token)]
    for end in ends:
        # 64 characters at each segment's end differ in its slack bits, or in more; the others are of other alphabets.
        yield from (token[: end - 1] + chr(code) + token[end:] for code in range(128))
        yield from (token[:end] + padding + token[end:] for padding in PADDING)
        yield from (token[:end] + white + token[end:] for white in WHITE)
    yield "=.".join(token.split("."))
    yield ".".join(_padded(segment) for segment in token.split("."))


def _padded(segment: str) -> str:
    return segment + "=" * (-len(segment) % 4)


def _of_letters(token: str, similar: Mapping[str, Iterator[str]]) -> Iterator[str]:
    white = cycle(WHITE)
    for at, letter in enumerate(token):
        before, after = token[:at], token[at + 1 :]
        yield before + next(white) + token[at:]
        yield from (before + other + after for other in (next(similar[letter]), f"%{ord(letter):02X}", f"\\u{ord(letter):04x}"))
        if letter in "-_":
            yield before + {"-": "+", "_": "/"}[letter] + after
    yield token.replace("-", "+").replace("_", "/")
    yield token.replace("-", "+")
    yield token.replace("_", "/")
    yield "\n".join(token[at : at + 76] for at in range(0, len(token), 76))
    yield "\r\n".join(token[at : at + 64] for at in range(0, len(token), 64))


def _of_the_whole(token: str) -> Iterator[str]:
    prefix, kid, rest = token.split(".", 2)
    for letters in product(*({letter.lower(), letter.upper()} for letter in prefix)):
        yield f"{''.join(letters)}.{kid}.{rest}"
    for other in (kid.swapcase(), kid.lower(), kid.upper(), f"0{kid}", f"{kid} ", "", "*"):
        yield f"{prefix}.{other}.{rest}"
    for other in ("dcaf01", "dcaf1.", "dcaf", "dcaf1", "dcaf1se", "dcaf2s", f"{prefix}.", f".{prefix}", f"{prefix}.{prefix}"):
        yield f"{other}.{kid}.{rest}"
    for white in WHITE:
        yield from (white + token, token + white, white + token + white)
    yield from (
        f".{token}",
        f"{token}.",
        f'"{token}"',
        f"Bearer {token}",
        f"{token},{token}",
        f"{token}\n{token}",
        f"{token}\ud800",
    )
    yield from (token.upper(), token.lower(), token.swapcase(), quote(token, safe="").replace(".", "%2E"), token.replace(".", ".."))
    yield from (token.replace(".", sep) for sep in (":", "|", "%2E", "\u3002", "\uff0e"))
    yield base64.urlsafe_b64encode(token.encode()).decode()


def most_spellings(by: Sealer, number: int) -> tuple[int, int, int]:
    """Of so many tokens: the most and the fewest accepted spellings that one has, and how many were tried."""
    similar = {letter: cycle(others) for letter, others in looks_alike().items()}
    most, fewest, tried = 0, 9, 0
    for at, token in enumerate(tokens_of(by, number)):
        others = spellings(token, similar)
        tried += 1 + len(others)
        found = opens(by, token, at) + sum(opens(by, other, at) for other in sorted(others))
        most, fewest = max(most, found), min(fewest, found)
    return most, fewest, tried


@pytest.mark.promise(2)
@pytest.mark.parametrize("name", SUITES)
def test_every_token_has_exactly_one_accepted_spelling(name: str, scale: float, measured: Callable[[int, str], None]) -> None:
    number = int(TOKENS * scale)
    most, fewest, tried = most_spellings(sealer(suite_named(name)), number)
    measured(2, f"{most} accepted spelling of each of {number:,} {name} tokens, of {tried:,} tried")
    assert (fewest, most) == (1, 1)


@pytest.mark.promise(2)
@pytest.mark.parametrize("name", SUITES)
def test_no_look_alike_of_any_character_of_a_token_is_accepted(name: str) -> None:
    by = sealer(suite_named(name))
    token = tokens_of(by, 1)[0]
    places = {letter: at for at, letter in enumerate(token)}
    others = [token[: places[letter]] + other + token[places[letter] + 1 :] for letter, found in looks_alike().items()
              if letter in places for other in found]  # fmt: skip
    assert len(others) > 1_000
    assert opens(by, token, 0)
    assert not any(opens(by, other, 0) for other in others)


class DecodesThenCompares(SignedSuite):
    """Broken: itsdangerous' own check of a signature, which decodes it first."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        body, _, mac = token.rpartition(b".")
        segments = body.split(b".")
        key = keys.find(segments[1].decode()) if len(segments) == 4 else None
        if key is None:
            raise SessionInvalid(reason="kid")
        signer = Signer(key.derive(self.prefix, audience, "mac"), key_derivation="none", digest_method=sha256)
        if not signer.verify_signature(body, mac):
            raise SessionInvalid(reason="mac")
        return Opened(self.prefix, key, decode(segments[2]), Payload(segment=segments[3]))


def _decoded(box: bytes) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(_padded(box.decode()))
    except ValueError:
        return None


class DecodesLeniently(EncryptedSuite):
    """Broken: whatever decodes to the same bytes is the same box."""

    def open(self, token: bytes, keys: Keyring, audience: str) -> Opened:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encryption, "_spelled_once", _decoded)
            return super().open(token, keys, audience)


BROKEN: list[Suite] = [DecodesThenCompares(), DecodesLeniently(random.Random(2).randbytes)]


@pytest.mark.promise(2)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda suite: type(suite).__name__)
def test_control_a_suite_that_decodes_before_it_compares_accepts_more(broken: Suite) -> None:
    most, _, _ = most_spellings(sealer(broken), 6)
    assert most >= 4
