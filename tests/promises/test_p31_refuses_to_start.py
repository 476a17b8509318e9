"""P31: a service with a wrong setting does not start, and says what to write; with the right one it does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from dcaf import ConfigurationError, Key, Keyring, SessionMiddleware
from dcaf.core.claims import Lifetime
from tests.asgi.wire import Recorder, call

KEY: Final = Key.generate("k7")
RING: Final = Keyring(KEY)
MAKE_ONE: Final = 'Make one: export DCAF_KEYS="$(dcaf keys new)"'
DAMAGED: Final = KEY.text()[:-1] + ("A" if KEY.text()[-1] != "A" else "B")
TWICE: Final = "SessionMiddleware is mounted twice around one application. Remove one of the two."


class Between:
    """Another middleware, between two of dcaf's."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def served(**settings: Any) -> None:
    """Start a service and answer one request."""
    app = SessionMiddleware(settings.pop("app", None) or Recorder(), **{"keys": RING, "audience": "shop", **settings})
    assert call(app, {"messages": []}, **settings.pop("scope", {})).status == 200


def in_a_scope(**members: Any) -> None:
    """Answer one request whose scope has something in it already."""
    options = {name: members.pop(name) for name in ("bind_request_session",) if name in members}
    app = SessionMiddleware(Recorder(), keys=RING, audience="shop", **options)
    assert call(app, {"messages": []}, **members).status == 200


def with_environment(name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        served(keys=None)


def with_workers(count: str, ring: Callable[[], Keyring] = Keyring.ephemeral) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEB_CONCURRENCY", count)
        served(keys=ring())


def hours(count: int) -> timedelta:
    return timedelta(hours=count)


WRONG_AND_RIGHT: Final[dict[str, tuple[Callable[[], None], str, Callable[[], None]]]] = {
    "no key": (
        lambda: with_environment("DCAF_KEYS", ""),
        f"There is no key: pass keys=, or set DCAF_KEYS. {MAKE_ONE}",
        lambda: with_environment("DCAF_KEYS", KEY.text()),
    ),
    "a key of white space": (
        lambda: with_environment("DCAF_KEYS", " \n"),
        f"There is no key: pass keys=, or set DCAF_KEYS. {MAKE_ONE}",
        lambda: with_environment("DCAF_KEYS", f" {KEY.text()}\n"),
    ),
    "no dcaf key": (
        lambda: served(keys="correct horse battery staple"),
        f"This is not a dcaf key (dcafk1_<kid>_<secret>_<checksum>). {MAKE_ONE}",
        lambda: served(keys=KEY.text()),
    ),
    "a bad checksum": (
        lambda: served(keys=DAMAGED),
        "The key 'k7' is damaged: its checksum does not match. Copy it again, whole.",
        lambda: served(keys=KEY.text()),
    ),
    "one key id with two secrets": (
        lambda: served(keys=Keyring.parse(KEY.text(), Key.generate("k7").text())),
        "The key id 'k7' stands for two different secrets. Give one of them another id.",
        lambda: served(keys=Keyring.parse(KEY.text(), Key.generate("k8").text())),
    ),
    "an empty audience": (
        lambda: served(audience=""),
        "audience= must name this service, for instance audience='deploy-agent': no other service's session is accepted.",
        lambda: served(audience="deploy-agent"),
    ),
    "an absolute timeout under the idle one": (
        lambda: served(idle_timeout=hours(2), absolute_timeout=hours(1)),
        "absolute_timeout is shorter than idle_timeout: a session would end before it could be idle.",
        lambda: served(idle_timeout=hours(2), absolute_timeout=hours(2)),
    ),
    "an ephemeral key for several workers": (
        lambda: with_workers("2"),
        "An ephemeral key serves one process, and WEB_CONCURRENCY asks for several: they would refuse one another's sessions. "
        + MAKE_ONE,
        lambda: with_workers("1"),
    ),
    "an ephemeral key for many workers": (
        lambda: with_workers("16"),
        "An ephemeral key serves one process, and WEB_CONCURRENCY asks for several: they would refuse one another's sessions. "
        + MAKE_ONE,
        lambda: with_workers("16", lambda: RING),
    ),
    "plain routes with encryption": (
        lambda: served(plain=("/api/chat",), encrypt=True),
        "plain= with encrypt=True: a plain route reads the whole state in its request body, where frameworks echo it in their "
        "validation errors. Drop one of the two, or pass plain_secret=True.",
        lambda: served(plain=("/api/chat",), encrypt=True, plain_secret=True),
    ),
    "plain routes by a function, with encryption": (
        lambda: served(plain=lambda _: False, encrypt=True),
        "plain= with encrypt=True: a plain route reads the whole state in its request body, where frameworks echo it in their "
        "validation errors. Drop one of the two, or pass plain_secret=True.",
        lambda: served(plain=lambda _: False),
    ),
    "mounted twice": (
        lambda: served(app=SessionMiddleware(Recorder(), keys=RING, audience="shop")),
        TWICE,
        lambda: served(app=Recorder()),
    ),
    "mounted twice with another between": (
        lambda: served(app=Between(SessionMiddleware(Recorder(), keys=RING, audience="shop"))),
        TWICE,
        lambda: served(app=Between(Recorder())),
    ),
    "scope['session'] taken": (
        lambda: in_a_scope(session={"a": 1}),
        "scope['session'] is taken by another session middleware, perhaps Starlette's SessionMiddleware (it holds a dict). Remove "
        "that one, or pass bind_request_session=False to dcaf's and use dcaf.current_session().",
        lambda: in_a_scope(session={"a": 1}, bind_request_session=False),
    ),
}


def verdict(wrong: Callable[[], None], message: str, right: Callable[[], None]) -> bool:
    """Whether the wrong setting is refused with exactly this message, and the right one starts."""
    right()
    try:
        wrong()
    except ConfigurationError as error:
        return str(error) == message
    return False


@pytest.mark.promise(31)
@pytest.mark.parametrize("name", WRONG_AND_RIGHT)
def test_a_wrong_setting_does_not_start_and_the_right_one_does(name: str) -> None:
    assert verdict(*WRONG_AND_RIGHT[name])


@pytest.mark.promise(31)
def test_every_wrong_setting_is_counted(measured: Callable[[int, str], None]) -> None:
    refused = sum(verdict(*row) for row in WRONG_AND_RIGHT.values())
    measured(31, f"{refused} of {len(WRONG_AND_RIGHT)} wrong settings refused at the start; with the right one each starts")
    assert refused == len(WRONG_AND_RIGHT) >= 10


WITHOUT_CRYPTO: Final = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if BLOCKED and name.partition(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}", name="cryptography")

BLOCKED = sys.argv[1] == "blocked"
sys.meta_path.insert(0, Blocker())
from dcaf import ConfigurationError, Key, Keyring, SessionMiddleware

ring = Keyring(Key.generate("k7"))
SessionMiddleware(print, keys=ring, audience="shop")
for setting in ("encrypt", "accept_both"):
    try:
        SessionMiddleware(print, keys=ring, audience="shop", **{setting: True})
    except ConfigurationError as error:
        print(error)
    else:
        print("started")
"""


@pytest.mark.promise(31)
@pytest.mark.parametrize(
    ("crypto", "said"), [("blocked", "Encryption needs cryptography: pip install 'dcaf[crypto]'"), ("there", "started")]
)
def test_without_the_crypto_extra_a_service_that_encrypts_does_not_start(crypto: str, said: str) -> None:
    command = [sys.executable, "-c", WITHOUT_CRYPTO, crypto]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [said, said]


@pytest.mark.promise(31)
def test_a_service_that_checks_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.core.settings.build_lifetime", lambda *_: Lifetime(7200, 3600))
    assert not verdict(*WRONG_AND_RIGHT["an absolute timeout under the idle one"])
    monkeypatch.setattr(SessionMiddleware, "_check_scope", lambda *_: None)
    assert not verdict(*WRONG_AND_RIGHT["scope['session'] taken"])
    assert not verdict(*WRONG_AND_RIGHT["mounted twice with another between"])
