"""P3: no secret that was ever published is accepted as a key, and every generated key is."""

from __future__ import annotations

import ast
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import flask_unsign_wordlist  # type: ignore[import-untyped]
import pytest

from dcaf import ConfigurationError, Key, Keyring, SessionMiddleware

PUBLISHED: Final = 55_982


@cache
def secrets() -> tuple[str, ...]:
    """The published secrets, each a Python literal on a line of its own; a line that is none is taken as it stands."""
    lines = Path(flask_unsign_wordlist.get("all")).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return tuple(_literal(line) for line in lines)


def _literal(line: str) -> str:
    with suppress(SyntaxError, ValueError):
        found = ast.literal_eval(line)
        return found.decode("latin-1") if isinstance(found, bytes) else str(found)
    return line


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Never asked."""


def mounted(text: str) -> object:
    return SessionMiddleware(application, keys=text, audience="shop")


def from_environment(text: str) -> object:
    return Keyring.from_environment({"DCAF_KEYS": text})


def accepted(texts: tuple[str, ...], door: Callable[[str], object]) -> list[str]:
    """Which of the texts a door lets in."""
    found = []
    for text in texts:
        with suppress(ConfigurationError):
            door(text)
            found.append(text)
    return found


@pytest.mark.promise(3)
@pytest.mark.parametrize("door", [Key.parse, Keyring.parse, from_environment, mounted])
def test_no_published_secret_is_a_key(door: Callable[[str], object], scale: float, measured: Callable[[int, str], None]) -> None:
    words = secrets()
    assert len(words) == PUBLISHED
    words = words if scale >= 1 or door is not mounted else words[::10]  # a middleware asks Keyring.parse, which reads them all
    found = accepted(words, door)
    measured(3, f"{len(found)} of {len(words):,} published secrets accepted by {getattr(door, '__qualname__', '')}")
    assert found == []


@pytest.mark.promise(3)
def test_no_published_secret_is_accepted_beside_a_good_key() -> None:
    good = Key.generate("k7").text()
    words = tuple(word for word in secrets() if word.replace(",", "").strip())
    assert accepted(words, lambda text: Keyring.parse(good, text)) == []


@pytest.mark.promise(3)
def test_no_published_text_is_taken_as_raw_bytes_either(measured: Callable[[int, str], None]) -> None:
    words = secrets()
    found = accepted(words, lambda text: Key.from_bytes("k7", text.encode("utf-8", "surrogatepass")))
    measured(
        3, f"0 that are text, and {len(found)} published random ones, of {len(words):,} accepted as raw bytes by Key.from_bytes"
    )
    assert [word for word in found if word.isascii() and word.isprintable()] == []


@pytest.mark.promise(3)
def test_control_a_check_of_the_length_alone_would_take_thousands_as_raw_bytes() -> None:
    assert sum(len(word.encode("utf-8", "surrogatepass")) == 32 for word in secrets()) > 2_000


@pytest.mark.promise(3)
def test_no_generated_key_is_refused(scale: float, measured: Callable[[int, str], None]) -> None:
    number, refused = int(1_000_000 * scale), 0
    for _ in range(number):
        try:
            key = Key.generate()
            refused += Key.parse(key.text()) != key
        except ConfigurationError:
            refused += 1
    measured(3, f"{refused} of {number:,} generated keys refused")
    assert refused == 0


@pytest.mark.promise(3)
def test_a_length_check_alone_lets_published_secrets_in() -> None:
    def by_length(text: str) -> None:
        if len(text) < 32:
            raise ConfigurationError("too short")

    assert len(accepted(secrets(), by_length)) > 5_000
