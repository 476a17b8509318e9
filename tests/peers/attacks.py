"""The six attacks: each is a function of a system, and gives a few words for what the system did.

No word of a cell is known before: each depends on what came back. Time stands still at ``NOW`` unless an attack moves it.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, tzinfo
from string import ascii_letters, digits
from typing import Final, Self
from unittest.mock import patch

import jwt

from dcaf import ConfigurationError
from tests.peers.systems import System, Turn

NOW: Final = 1_789_000_000
HOUR: Final = 3_600
DAY: Final = 24 * HOUR
AGES: Final = (0, HOUR, DAY, 7 * DAY, 14 * DAY, 31 * DAY, 365 * DAY, 3_652 * DAY)
"""How old a token is when it is tried first; the end is then searched to the second, and told to the minute."""
REFRESHES: Final = 400
LETTERS: Final = f"{ascii_letters}{digits}-_="
ADDED: Final = ("=", "==", "===", "====", ".", "!", "!!!!")
WITHIN: Final = (" ", "    ", "!!!!", "====")
"""Put into the signature. White space at the end of a token is not tried: HTTP itself takes it off a cookie."""
WEAK: Final = ("secret", "changeme", "a" * 64)


class _Clock(datetime):
    """The class of PyJWT's clock, going by ``time.time``."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(time.time(), tz)


@contextmanager
def at(moment: int) -> Iterator[None]:
    """Let it be that second since the epoch, for every library here."""
    with patch("time.time", lambda: float(moment)), patch("jwt.api_jwt.datetime", _Clock):
        yield


def spelling(system: System) -> str:
    """How many texts of one token, its own among them, are accepted."""
    with at(NOW):
        turn = system.service(system.secrets[0])
        token = turn(None, "1").sealed
        texts = spellings(token) | {token}
        accepted = sum(turn(text).value == "1" for text in texts)
    return f"{_counted(accepted, 'spelling')} accepted, of {len(texts):,} tried"


def spellings(token: str) -> set[str]:
    """Other texts that some reader takes for this token: one character is another, or some are added."""
    ends = [*(found.start() for found in re.finditer(r"[.:]", token)), len(token)]
    signature = ends[-2] + 1 if len(ends) > 1 else 0
    changed = {*range(signature, len(token)), *(end - 1 for end in ends)}
    found = {token[:place] + letter + token[place + 1 :] for place in changed for letter in LETTERS}
    found |= {token[:end] + added + token[end:] for end in ends for added in ADDED}
    found |= {token[:place] + added + token[place:] for place in (signature + 4, len(token) - 1) for added in WITHIN}
    return found - {token}


def purpose(system: System) -> str:
    """Whether a token is accepted that the same secret made for another service, or for something that is no session."""
    with at(NOW):
        secret = system.secrets[0]
        turn = system.service(secret, name="shop")
        another = system.service(secret, name="admin")(None, "1").sealed
        answers = {"another service": turn(another).value, "another use": turn(system.other_use(secret)).value}
    return "; ".join(f"{whose}: {_word(value == '1')}" for whose, value in answers.items())


def weak(system: System) -> str:
    """How many of three poor secrets a service works with; a warning does not stop it, and is counted."""
    with at(NOW):
        found = [_tried(system, secret) for secret in WEAK]
    warned = found.count("with a warning")
    accepted = f"{found.count('accepted') + warned} of {len(WEAK)} accepted"
    return f"{accepted}, {warned} with a warning" if warned else accepted


def _tried(system: System, secret: str) -> str:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            turn = system.service(secret)
            works = turn(turn(None, "1").sealed).value == "1"
        except (ConfigurationError, jwt.InvalidKeyError):
            return "refused"
    assert works, "it takes the secret, and does not work with it"
    return "with a warning" if warned else "accepted"


def user(system: System) -> str:
    """Whether ann's token gives ann's state to bob, who is authenticated as himself."""
    with at(NOW):
        turn = system.service(system.secrets[0])
        token = turn(None, "1", user="ann").sealed
        assert turn(token, user="ann").value == "1"
        return _word(turn(token, user="bob").value == "1")


def expiry(system: System) -> str:
    """How long a token is accepted that nobody touches, and how long a session lives that changes every day."""
    turn = system.service(system.secrets[0])
    return f"untouched: {_untouched(turn)}; changed daily: {_daily(turn)}"


def _untouched(turn: Turn) -> str:
    with at(NOW):
        token = turn(None, "1").sealed
    refused = next((age for age in AGES if not _lives(turn, token, age)), None)
    if refused is None:
        return f"alive after {_duration(AGES[-1])}"
    good, bad = AGES[AGES.index(refused) - 1], refused
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _lives(turn, token, middle) else (good, middle)
    return _duration(good)


def _lives(turn: Turn, token: str, age: int) -> bool:
    with at(NOW + age):
        return turn(token).value == "1"


def _daily(turn: Turn) -> str:
    with at(NOW):
        token = turn(None, "0").sealed
    for day in range(1, REFRESHES + 1):
        with at(NOW + day * DAY):
            answer = turn(token, str(day))
        if answer.value != str(day - 1):
            return f"{day - 1} days"
        token = answer.sealed
    return f"alive after {REFRESHES} days"


def rotation(system: System) -> str:
    """Whether a session survives a new secret, and whether reading alone brings it under the new one."""
    with at(NOW):
        old, new = system.secrets
        token = system.service(old)(None, "1").sealed
        answer = system.service(new, old=old)(token)
        if answer.value != "1":
            return "lost" if system.one_secret is None else f"lost: {system.one_secret}"
        resealed = answer.token is not None and system.service(new)(answer.token).value == "1"
    return f"kept; a read {'re-seals it' if resealed else 'leaves it under the old secret'}"


ATTACKS: Final[dict[str, Callable[[System], str]]] = {
    "spelling": spelling,
    "cross-purpose": purpose,
    "weak secret": weak,
    "cross-user": user,
    "expiry": expiry,
    "rotation": rotation,
}
"""Row of the table -> the attack."""


def _word(accepted: bool) -> str:
    return "accepted" if accepted else "refused"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _duration(seconds: int) -> str:
    days, rest = divmod(round(seconds / 60), 24 * 60)
    return " and ".join(_counted(number, noun) for number, noun in ((days, "day"), (rest, "minute")) if number)
