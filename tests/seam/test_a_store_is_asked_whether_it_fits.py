"""``check_settings`` of a store: asked when a middleware, a host or a service is made with it, and not later."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from dcaf.agent import create_app
from dcaf.asgi import SessionMiddleware
from dcaf.core import ConfigurationError, SessionHost, StatelessStore, StoreSettings
from dcaf.core.sealer import MAX_TOKEN_BYTES
from dcaf.integrations.starlette import SessionMiddleware as CookieMiddleware
from tests.asgi.test_told_at_the_start import started
from tests.asgi.wire import AUDIENCE, RING

MONTH = timedelta(days=30)


class Strict(StatelessStore):
    """Takes one audience, sessions of a month at most, and those that are bound to somebody."""

    def __init__(self) -> None:
        self.asked: list[StoreSettings] = []

    def check_settings(self, settings: StoreSettings) -> None:
        self.asked.append(settings)
        if settings.audience != AUDIENCE:
            raise ConfigurationError(f"This store is of {AUDIENCE!r}: write audience={AUDIENCE!r}.")
        if settings.absolute_timeout > MONTH:
            raise ConfigurationError("This store forgets after a month: pass absolute_timeout=timedelta(days=30).")
        if not settings.has_subject:
            raise ConfigurationError("This store ends the sessions of a subject: pass subject=.")


class Asking(StatelessStore):
    async def check_settings(self, settings: StoreSettings) -> None:
        raise AssertionError(settings)


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError(scope, receive, send)


def nobody(_: Any) -> None:
    return None


MAKERS: dict[str, Callable[..., Any]] = {
    "middleware": lambda **settings: SessionMiddleware(app, keys=RING, **settings),
    "cookie": lambda **settings: CookieMiddleware(app, RING, **settings),
    "create_app": lambda **settings: create_app(lambda messages, context: "Hello.", keys=RING, **settings),
    "host": lambda subject=None, **settings: SessionHost(keys=RING, **settings),
}
BOUND = [name for name in MAKERS if name != "host"]
RIGHT: dict[str, Any] = {"audience": AUDIENCE, "absolute_timeout": MONTH, "subject": nobody}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_it_learns_the_settings_once(make: Callable[..., Any]) -> None:
    store = Strict()
    make(store=store, **RIGHT)
    [asked] = store.asked
    assert asked == StoreSettings(AUDIENCE, MONTH, has_subject=True, max_state_bytes=asked.max_state_bytes)
    assert asked.max_state_bytes is not None
    assert 1_000 < asked.max_state_bytes < MAX_TOKEN_BYTES


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("wrong", [{"audience": "another"}, {"absolute_timeout": timedelta(days=31)}], ids=str)
def test_what_it_refuses_is_not_made(make: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="This store"):
        make(store=Strict(), **(RIGHT | wrong))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("wrong", [{"audience": "another"}, {"absolute_timeout": timedelta(days=31)}], ids=str)
@pytest.mark.parametrize("store", [None, StatelessStore()], ids=["none", "a store without it"])
def test_control_without_it_everything_is_made(make: Callable[..., Any], wrong: dict[str, Any], store: Any) -> None:
    make(store=store, **(RIGHT | wrong))


@pytest.mark.parametrize("name", BOUND)
def test_it_can_require_a_subject(name: str) -> None:
    without = {key: value for key, value in RIGHT.items() if key != "subject"}
    with pytest.raises(ConfigurationError, match="pass subject="):
        MAKERS[name](store=Strict(), **without)
    MAKERS["host"](store=Strict(), **without)  # each turn names its own


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_async_one_is_refused_and_not_called(make: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"store\.check_settings takes a plain function.*not an async one"):
        make(store=Asking(), **RIGHT)


@pytest.mark.parametrize(
    ("audience", "said"),
    [("another", "lifespan.startup.failed"), (AUDIENCE, "lifespan.startup.complete")],
    ids=["another audience", "control: its own"],
)
def test_added_to_an_application_it_keeps_the_server_from_starting(audience: str, said: str) -> None:
    middleware = Middleware(SessionMiddleware, keys=RING, store=Strict(), audience=audience, subject=nobody)
    answer = started(Starlette(middleware=[middleware]))[0]
    assert answer["type"] == said
    assert ("write audience=" in answer.get("message", "")) is (audience == "another")
