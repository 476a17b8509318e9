"""What an application chooses for sessions that are plain, refused or secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dcaf import ConfigurationError, Key, Keyring, SessionMiddleware, current_session
from dcaf.asgi.operator_events import Event
from dcaf.core.migrations import Import
from dcaf.testing import SessionClient, sealed, tampered

RING = Keyring(Key.generate("k7"))
NOW = 1_789_000_000
SECRET = {"step": 2, "card": "4111"}


async def step(request: Request) -> JSONResponse:
    """Count, and echo what the application can see."""
    seen = (await request.json()).get("data")
    restarted = current_session().restarted
    return JSONResponse({"n": request.session.incr("n"), "seen": seen, "restarted": restarted})  # type: ignore[attr-defined]


def mounted(**settings: Any) -> SessionMiddleware:
    app = Starlette(routes=[Route("/api/chat", step, methods=["POST"])])
    return SessionMiddleware(app, keys=settings.pop("keys", RING), audience="shop", **settings)


def client(envelope: Any = None, **settings: Any) -> SessionClient:
    return SessionClient(mounted(**settings), envelope=envelope)


GOOD = sealed({"n": 5}, keys=RING, audience="shop")


# Refused sessions


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (tampered(GOOD), "session-invalid"),
        ({"n": 9}, "session-unsigned"),
        ({"dcaf": {}}, "session-malformed"),
        (sealed({"n": 5}, keys=RING, audience="shop", age=timedelta(days=8)), "session-ended"),
    ],
)
def test_a_refused_session_is_refused_or_started_empty_as_the_application_chose(envelope: Any, code: str) -> None:
    assert client(envelope).send("x").code == code
    reply = client(envelope, on_refused="restart").send("x")
    assert (reply.status, reply.body["n"], reply.body["restarted"], reply.body["seen"]) == (200, 1, code, {"session": {}})
    assert client(reply.envelope).send("y").body["n"] == 2


def test_a_restart_emits_the_new_session_also_when_nobody_touched_it() -> None:
    async def nothing(request: Request) -> JSONResponse:
        return JSONResponse({})

    app = Starlette(routes=[Route("/api/chat", nothing, methods=["POST"])])
    reply = SessionClient(SessionMiddleware(app, keys=RING, audience="shop", on_refused="restart"), envelope=tampered(GOOD)).send(
        "x"
    )
    assert reply.envelope is not None


def test_a_malformed_body_is_never_restarted() -> None:
    served = SessionClient(mounted(on_refused="restart"))
    assert served.post(b'{"data":{"session":NaN}}').status == 400


# Plain sessions


def test_plain_sessions_are_ignored_where_the_application_chose_so() -> None:
    reply = client({"n": 9, "planted": True}, unsigned="ignore").send("x")
    assert (reply.status, reply.body["n"], reply.body["seen"]) == (200, 1, {"session": {}})


def door(until: datetime, accept: Any = lambda plain: {"n": plain["n"]}) -> Import:
    return Import(until=until, accept=accept)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_an_import_narrows_seals_and_ends_with_its_date() -> None:
    settings: dict[str, Any] = {"unsigned": door(at(NOW + 3600)), "clock": lambda: NOW}
    reply = client({"n": 9, "approved": True}, **settings).send("x")
    assert reply.session == {"n": 10}
    assert reply.envelope is not None
    assert reply.envelope["dcaf"]["expires_at"] <= NOW + 3600
    later = {**settings, "clock": lambda: NOW + 3500}
    refreshed = client(reply.envelope, **later).send("x")
    assert refreshed.session == {"n": 11}
    assert refreshed.envelope is not None
    assert refreshed.envelope["dcaf"]["expires_at"] <= NOW + 3600
    gone = {**settings, "clock": lambda: NOW + 3600 + 61}
    assert client(refreshed.envelope, **gone).send("x").code == "session-ended"
    assert client({"n": 9}, **gone).send("x").code == "session-unsigned"


def refusing(plain: Any) -> Any:
    raise KeyError(plain)


@pytest.mark.parametrize("accept", [refusing, lambda plain: None, lambda plain: ["n"]])
def test_an_import_that_would_not_have_it_refuses(accept: Any) -> None:
    reply = client({"n": 9}, unsigned=door(at(NOW + 3600), accept), clock=lambda: NOW).send("x")
    assert reply.code == "session-unsigned"


def test_an_import_needs_a_time_zone_and_a_function() -> None:
    with pytest.raises(ConfigurationError, match="takes a datetime with a time zone"):
        door(datetime(2027, 1, 1))  # noqa: DTZ001
    with pytest.raises(ConfigurationError, match="takes a function of the plain object"):
        door(at(NOW), accept="n")


# Secret sessions


def test_an_encrypted_state_is_nowhere_to_be_read() -> None:
    async def echo(request: Request) -> JSONResponse:
        body = await request.json()
        return JSONResponse({"echo": body, "card": current_session()["card"] == "4111"}, 422)

    app = Starlette(routes=[Route("/api/chat", echo, methods=["POST"])])
    served = SessionClient(SessionMiddleware(app, keys=RING, audience="shop", encrypt=True, mirror={"step"}))
    served.envelope = sealed(SECRET, keys=RING, audience="shop", encrypt=True)
    reply = served.send("x")
    assert reply.body["card"] is True
    assert reply.session == {"step": 2}
    assert reply.body["echo"]["data"] == {"session": {"step": 2}}
    assert "4111" not in str(reply.body)


def test_control_a_signed_state_can_be_read() -> None:
    assert "card" in str(client(sealed(SECRET, keys=RING, audience="shop")).send("x").body)


def test_a_service_migrates_to_encryption_and_back_without_dropping_a_session() -> None:
    chain = client()
    chain.send("x")
    for settings in ({"encrypt": True, "accept_both": True}, {"encrypt": True}, {"accept_both": True}, {}):
        following = client(chain.envelope, **settings)
        reply = following.send("x")
        assert reply.status == 200
        chain = following
    assert chain.envelope is not None
    assert chain.envelope["n"] == 5


def test_outside_a_migration_the_other_suite_is_refused() -> None:
    encrypted = sealed({"n": 5}, keys=RING, audience="shop", encrypt=True)
    assert client(encrypted).send("x").code == "session-invalid"
    assert client(GOOD, encrypt=True).send("x").code == "session-invalid"


def test_plain_routes_read_an_encrypted_state_only_where_that_was_said() -> None:
    with pytest.raises(ConfigurationError, match="plain= with encrypt=True"):
        mounted(encrypt=True, plain=("/api/chat",))
    envelope = sealed(SECRET, keys=RING, audience="shop", encrypt=True)
    reply = client(envelope, encrypt=True, plain=("/api/chat",), plain_secret=True).send("x")
    assert reply.body["seen"] == {"session": SECRET}


# Events


def test_an_operator_is_told_of_each_event_without_a_secret() -> None:
    told: list[Event] = []
    settings: dict[str, Any] = {"on_event": told.append}
    client(tampered(GOOD), **settings).send("x")
    client(tampered(GOOD), on_refused="restart", **settings).send("x")
    client({"n": 1}, unsigned=door(at(2**33)), **settings).send("x")
    client(GOOD, keys=Keyring(Key.generate("k8"), RING.active), **settings).send("x")
    client(sealed({"n": 1}, keys=Keyring.ephemeral(), audience="shop"), **settings).send("x")
    assert [(event.name, event.code, event.reason) for event in told] == [
        ("refused", "session-invalid", "mac"),
        ("restarted", "session-invalid", "mac"),
        ("imported", None, None),
        ("resealed", None, None),
        ("refused", "session-invalid", "kid"),
        ("ephemeral", None, None),
    ]
    assert (told[0].kid, told[3].kid) == ("k7", "k7")
    assert GOOD["dcaf"]["token"] not in repr(told)


def test_what_on_event_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError

    assert client(tampered(GOOD), on_event=fail).send("x").code == "session-invalid"
    assert "on_event raised" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_refused": "forgive"}, "on_refused= is one of 'reject', 'restart'."),
        ({"unsigned": True}, "unsigned= is one of 'reject', 'ignore', or an Import(until=, accept=) from dcaf.asgi"),
        ({"on_event": "print"}, "on_event= takes a function, not a str."),
        ({"keys": 7}, "keys= takes a Keyring, the text of a key, a pathlib.Path"),
    ],
)
def test_a_wrong_choice_fails_when_the_middleware_is_made(settings: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mounted(**settings)
    assert str(caught.value).startswith(message)
