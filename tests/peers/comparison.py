"""Writes the tables of docs/evidence/comparison.md: ``python -m tests.peers.comparison`` tries every attack again."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple
from unittest.mock import patch

import flask
from django import conf  # type: ignore[import-untyped]
from django.core.checks.security.base import check_secret_key  # type: ignore[import-untyped]
from flask.sessions import SecureCookieSessionInterface

from tests.peers.attacks import ATTACKS, DAY
from tests.peers.systems import (
    SYSTEMS,
    Dcaf,
    DjangoSessions,
    FlaskSessions,
    Itsdangerous,
    PyJWT,
    Starsessions,
    System,
    Turn,
    column,
)

PAGE: Final = Path(__file__).parents[2] / "docs" / "evidence" / "comparison.md"
BEGIN: Final = "<!-- written by python -m tests.peers.comparison -->"
END: Final = "<!-- until here -->"


class SaltPerUse(Itsdangerous):
    def salt(self, name: str) -> dict[str, Any]:
        return {"salt": name}


class MaxAge(Itsdangerous):
    max_age_s = 14 * DAY


class OwnSalt(FlaskSessions):
    def prepare(self, app: flask.Flask) -> None:
        interface = SecureCookieSessionInterface()
        interface.salt = f"{app.name}-session"
        app.session_interface = interface


class Permanent(FlaskSessions):
    def store(self, value: str) -> None:
        super().store(value)
        flask.session.permanent = True


class SavesEveryRequest(DjangoSessions):
    further: ClassVar[dict[str, Any]] = {"SESSION_SAVE_EVERY_REQUEST": True}


class Checked(DjangoSessions):
    def service(self, secret: str, *, old: str | None = None, name: str = "shop") -> Turn:
        turn = super().service(secret, old=old, name=name)
        with patch.multiple(conf.settings, SECRET_KEY=secret):
            for message in check_secret_key(None):
                warnings.warn(message.msg, stacklevel=2)
        return turn


class Lifetime(Starsessions):
    lifetime_s = 14 * DAY


class Exp(PyJWT):
    def claims(self, name: str, user: str) -> dict[str, Any]:
        return {"exp": int(time.time()) + 7 * DAY}


class Aud(PyJWT):
    def claims(self, name: str, user: str) -> dict[str, Any]:
        return {"aud": name}

    def checks(self, name: str, user: str) -> dict[str, Any]:
        return {"audience": name}


class Sub(PyJWT):
    def claims(self, name: str, user: str) -> dict[str, Any]:
        return {"sub": user}

    def checks(self, name: str, user: str) -> dict[str, Any]:
        return {"subject": user}


class LongKeys(PyJWT):
    options: ClassVar[dict[str, Any]] = {"enforce_minimum_key_length": True}


class NoSubject(Dcaf):
    def settings(self, name: str) -> dict[str, Any]:
        return {"audience": name}


class OneAudience(Dcaf):
    def settings(self, name: str) -> dict[str, Any]:
        return {**super().settings(name), "audience": "everything"}


class Other(NamedTuple):
    """A system with another setting, and the attack that it bears on."""

    system: System
    setting: str
    attack: str


OTHERS: Final = (
    Other(SaltPerUse(), "a `salt=` for each use", "cross-purpose"),
    Other(MaxAge(), "`loads(max_age=)` of 14 days", "expiry"),
    Other(OwnSalt(), "a session interface with a `salt` of its own", "cross-purpose"),
    Other(Permanent(), "`session.permanent = True`", "rotation"),
    Other(SavesEveryRequest(), "`SESSION_SAVE_EVERY_REQUEST`", "rotation"),
    Other(Checked(), "`manage.py check --deploy`", "weak secret"),
    Other(Lifetime(), "`lifetime=` of 14 days", "expiry"),
    Other(Aud(), "a claim `aud`, and `audience=`", "cross-purpose"),
    Other(LongKeys(), "`enforce_minimum_key_length`", "weak secret"),
    Other(Sub(), "a claim `sub`, and `subject=`", "cross-user"),
    Other(Exp(), "a claim `exp`, 7 days ahead", "expiry"),
    Other(OneAudience(), "one `audience=` for both services", "cross-purpose"),
    Other(NoSubject(), "no `subject=`", "cross-user"),
)


def cell(system: System, attack: str) -> str:
    """What one attack came to; measured once for each class of systems."""
    return _measured(type(system), attack)


@cache
def _measured(kind: type[System], attack: str) -> str:
    return ATTACKS[attack](kind())


def rendered() -> str:
    """Both tables."""
    head = ["attack", *(column(system) for system in SYSTEMS)]
    rows = [[f"**{attack}**", *(cell(system, attack) for system in SYSTEMS)] for attack in ATTACKS]
    defaults = {system.name: system for system in SYSTEMS}
    others = [
        [
            other.system.name,
            other.setting,
            other.attack,
            cell(defaults[other.system.name], other.attack),
            cell(other.system, other.attack),
        ]
        for other in OTHERS
    ]
    second = ["system", "with", "attack", "without that setting", "with it"]
    return "\n\n".join([_table(head, rows), "The same attacks, with other settings:", _table(second, others)])


def in_page(text: str) -> str:
    """The page with its tables as they are measured now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{rendered()}\n\n{END}{rest.partition(END)[2]}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


if __name__ == "__main__":
    logging.disable()  # dcaf would log each token that it refuses
    PAGE.write_text(in_page(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}\n")
