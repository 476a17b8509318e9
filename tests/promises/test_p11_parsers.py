"""P11: whatever is in a body, the service stands: it serves what is JSON, byte for byte, and refuses what is not."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from dcaf import Session
from dcaf.asgi import SessionMiddleware
from dcaf.core.errors import StateError
from tests.asgi.wire import AUDIENCE, RING, Sent, envelope, exchange, messages_of, scope_of
from tests.promises.corpus import DEEP, Case, cases, mutants, naughty, strict

ANSWER: Final = [(b"content-type", b"application/json")]
CODES: Final = {
    400: {"malformed-json", "session-unsigned"},
    413: {"body-too-large"},
    415: {"unsupported-content-encoding"},
}
TRIES: Final = 5
MOST_S: Final = 0.050

SESSION: Final = json.dumps(envelope({"step": 2})).encode()
VISIBLE: Final = b'{"step":2}'
VALUE_FIRST: Final = b'{"x":%b,"data":{"session":%b}}'
VALUE_LAST: Final = b'{"data":{"session":%b},"x":%b}'
KEY: Final = b'{%b:1,"data":{"session":%b,"id":1}}'

SCALE: Final = float(os.environ.get("DCAF_SCALE", "0.02"))
EVERY: Final = 1 if SCALE >= 1 else 3
"""One text in so many is tried below the full numbers."""

Store = Callable[[Session, str, Any], None]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of refusals are expected: their lines would cost more than they do."""
    caplog.set_level(logging.CRITICAL, logger="dcaf")


@dataclass
class Application:
    """Keeps the bytes of its body, stores a value under a key, and reads one back."""

    store: Store = Session.set
    body: bytes | None = None
    loaded: list[str] = field(default_factory=list)
    has_refused: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.body = await _whole(receive)
        with suppress(ValueError, RecursionError):
            self._tool(json.loads(self.body), scope["dcaf.session"])
        await send({"type": "http.response.start", "status": 200, "headers": ANSWER})
        await send({"type": "http.response.body", "body": b'{"ok":true}'})

    def _tool(self, body: Any, session: Session) -> None:
        if isinstance(body, dict) and "store" in body:
            key, value = body["store"]
            self._store(key, value, session)
        if isinstance(body, dict) and "load" in body:
            found = (session.get(body["load"]), session.to_dict()[body["load"]], body["data"]["session"][body["load"]])
            self.loaded = [json.dumps(value) for value in found]

    def _store(self, key: str, value: Any, session: Session) -> None:
        try:
            self.store(session, key, value)
        except StateError:
            self.has_refused = True


async def _whole(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


class Service:
    """A middleware around the application, of whichever make; counts what it was sent."""

    def __init__(self, make: Any = SessionMiddleware, store: Store = Session.set) -> None:
        self.app = Application(store)
        self.service = make(self.app, keys=RING, audience=AUDIENCE)
        self.requests = 0

    async def send(self, body: bytes) -> Sent:
        """The law, first half: no crash, no 5xx, and each refusal is a problem with a code."""
        self.app.body, self.app.loaded, self.app.has_refused = None, [], False
        self.requests += 1
        try:
            sent = await exchange(self.service, scope_of(), messages_of(body))
        except Exception as error:  # whatever it is, the server would answer with 500
            raise AssertionError(f"{type(error).__name__} for {body[:200]!r}") from error
        assert sent.status in (200, *CODES), (sent.status, body[:200])
        if sent.status != 200:
            assert sent.header("content-type") == "application/problem+json"
            assert sent.code in CODES[sent.status], (sent.code, body[:200])
            assert self.app.body is None
        return sent

    async def check(self, body: bytes, seen: bytes, *, is_json: bool | None) -> None:
        """The law, second half: what is JSON is served, what is an object and no JSON is not, and every byte is kept.

        Args:
            body: What is sent.
            seen: What the application must see of it.
            is_json: None where a parser may do either.
        """
        sent = await self.send(body)
        if is_json or (is_json is False and looks_like_an_object(body)):
            assert (sent.status == 200) is is_json, (sent.status, body[:200])
        assert self.app.body in (None, seen), (self.app.body, body[:200])

    async def check_stored(self, key: str, value: Any, *, may_refuse: bool = False) -> None:
        """The law for what a tool stores: it comes back in the next turn, equal to the byte."""
        first = await self.send(json.dumps({"store": [key, value]}).encode())
        if first.status != 200 or self.app.has_refused:
            assert may_refuse, (key, value)
            return
        body = {"data": {"session": first.envelope}, "load": key}
        second = await self.send(json.dumps(body, ensure_ascii=False).encode())
        assert second.status == 200, (second.code, key)
        assert self.app.loaded == [json.dumps(value)] * 3, (key, value)


def looks_like_an_object(body: bytes) -> bool:
    return body.lstrip(b" \t\n\r").startswith(b"{")


def is_json(body: bytes) -> bool | None:
    """Whether a text is JSON, by the oracle; None where it is too deep for it."""
    try:
        strict(body)
    except RecursionError:
        return None
    except ValueError:
        return False
    return True


def tried() -> list[Case]:
    return cases()[::EVERY]


def says(case: Case) -> bool | None:
    return {"y": True, "n": False, "i": None}[case.family]


def run(check: Callable[[Service], Awaitable[None]], make: Any = SessionMiddleware, store: Store = Session.set) -> int:
    """Check one service; how many requests that took."""
    service = Service(make, store)
    asyncio.run(check(service))  # type: ignore[arg-type]
    return service.requests


async def texts_as_bodies(service: Service) -> None:
    for case in tried():
        await service.check(case.data, case.data, is_json=says(case))


async def texts_beside_a_session(service: Service) -> None:
    for case in tried():
        data = case.data
        await service.check(VALUE_FIRST % (data, SESSION), VALUE_FIRST % (data, VISIBLE), is_json=says(case))
        await service.check(VALUE_LAST % (SESSION, data), VALUE_LAST % (VISIBLE, data), is_json=says(case))


async def texts_as_names(service: Service) -> None:
    for case in tried():
        is_name = case.data.strip().startswith(b'"') and says(case)
        await service.check(KEY % (case.data, SESSION), KEY % (case.data, VISIBLE), is_json=is_name)


async def texts_stored(service: Service) -> None:
    for case in tried():
        if case.family == "y":
            value = json.loads(case.data)
            await service.check_stored("v", value, may_refuse=not is_storable(value))
            await service.check_stored("in", [{"": value}], may_refuse=not is_storable(value, 62))


def is_storable(value: Any, depth: int = 64) -> bool:
    """What the session promises to take: integers of 64 bits, Unicode text, 64 containers inside one another."""
    if isinstance(value, dict | list):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        return depth > 0 and all(is_storable(item, depth - 1) for item in items)
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@pytest.mark.promise(11)
def test_every_json_text_is_served_unchanged_and_nothing_else_is(measured: Callable[[int, str], None]) -> None:
    checks = (texts_as_bodies, texts_beside_a_session, texts_as_names, texts_stored)
    number = sum(run(check) for check in checks)
    measured(11, f"0 crashes, 0 answers over 499 and 0 values changed in {number:,} requests made of {len(tried()):,} JSON texts")


def test_the_corpus_is_as_its_names_say() -> None:
    found = cases()
    assert len({case.data for case in found}) == len(found) > 1_500
    assert len(naughty()) > 500
    assert all(is_json(case.data) in (says(case), None) for case in found if case.family != "i")
    assert all(is_json(case.data) for case in found if case.family == "y")


async def mutants_everywhere(service: Service, number: int) -> None:
    for data in mutants(11, number // 2):
        await service.check(data, data, is_json=is_json(data))
        body = VALUE_LAST % (SESSION, data)
        await service.check(body, VALUE_LAST % (VISIBLE, data), is_json=is_json(body))


@pytest.mark.promise(11)
def test_a_text_that_was_changed_at_random_is_served_unchanged_or_refused(
    scale: float, measured: Callable[[int, str], None]
) -> None:
    number = int(200_000 * scale)
    run(lambda service: mutants_everywhere(service, number))
    measured(11, f"nor in {number:,} requests made of such texts changed at random")


async def strings_on_the_wire(service: Service, strings: Iterable[str]) -> None:
    for text in strings:
        raw = text.encode("utf-8", "surrogatepass")
        plants = '"session"' in text  # a plain session, which is refused
        await service.check(raw, raw, is_json=None if plants else is_json(raw))
        for written in (json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")):
            is_text = is_unicode(text)
            await service.check(VALUE_FIRST % (written, SESSION), VALUE_FIRST % (written, VISIBLE), is_json=is_text)
            is_member = is_text and text != "data"  # a second member of that name is refused
            await service.check(KEY % (written, SESSION), KEY % (written, VISIBLE), is_json=is_member)


async def strings_stored(service: Service, strings: Iterable[str]) -> None:
    for text in strings:
        refused = not is_unicode(text)
        await service.check_stored("v", text, may_refuse=refused)
        await service.check_stored(text, text, may_refuse=refused or text == "dcaf")
        await service.check_stored("in", {text: [text]}, may_refuse=refused)


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in text)


@pytest.mark.promise(11)
def test_every_naughty_string_passes_and_comes_back_as_it_was(measured: Callable[[int, str], None]) -> None:
    strings = naughty()[::EVERY]
    number = sum(run(lambda service, check=check: check(service, strings)) for check in (strings_on_the_wire, strings_stored))  # type: ignore[misc]
    measured(11, f"nor in {number:,} requests with {len(strings)} naughty strings, as body, value, name, key and stored value")


NESTED: Final = {
    "of arrays": b'{"x":%b%b}' % (b"[" * DEEP, b"]" * DEEP),
    "that never close": b'{"x":' + b"[" * DEEP,
    "of objects": b'{"x":' * DEEP + b"1" + b"}" * DEEP,
    "in a session": b'{"data":{"session":%b%b}}' % (b"[" * DEEP, b"]" * DEEP),
    "in a message": b'{"messages":[{"data":{"session":%b' % (b'{"a":' * DEEP),
    "beside a session": VALUE_LAST % (SESSION, b"[" * DEEP + b"]" * DEEP),
    "and no object": b"[" * DEEP + b"]" * DEEP,
}


async def took(service: Service, body: bytes) -> float:
    begin = time.perf_counter()
    await service.send(body)
    return time.perf_counter() - begin


@pytest.mark.promise(11)
def test_a_hundred_thousand_nested_brackets_are_answered_at_once(measured: Callable[[int, str], None]) -> None:
    service = Service()
    slowest = {kind: min(asyncio.run(took(service, body)) for _ in range(TRIES)) for kind, body in NESTED.items()}
    assert max(slowest.values()) <= MOST_S, slowest
    measured(11, f"{DEEP:,} nested brackets answered in {max(slowest.values()) * 1000:.0f} ms")


class Redumps(SessionMiddleware):
    """Broken: it parses and writes anew."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _whole(receive)
        with suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body)).encode()
        await super().__call__(scope, _given(body), send)


class ReadsWithoutCare(SessionMiddleware):
    """Broken: it believes that a parser always returns."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _whole(receive)
        if looks_like_an_object(body):
            json.loads(body)
        await super().__call__(scope, _given(body), send)


class ServesWhatItCannotParse(SessionMiddleware):
    """Broken: what its parser refuses reaches the application."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _whole(receive)
        try:
            strict(body)
        except (ValueError, RecursionError):
            await self.app({**scope, "dcaf.session": Session()}, _given(body), send)
        else:
            await super().__call__(scope, _given(body), send)


def _given(body: bytes) -> Any:
    pending = messages_of(body)

    async def receive() -> Any:
        return pending.pop(0)

    return receive


@pytest.mark.promise(11)
@pytest.mark.parametrize("broken", [Redumps, ReadsWithoutCare, ServesWhatItCannotParse])
def test_control_a_middleware_that_rewrites_trips_or_lets_pass_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        run(texts_beside_a_session, broken)


def rounded(session: Session, key: str, value: Any) -> None:
    """Store as JavaScript would: every number is a double."""
    session.set(key, json.loads(json.dumps(value), parse_int=float))


def normalised(session: Session, key: str, value: Any) -> None:
    """Store as a database may: text without white space around it."""
    session.set(key, value.strip() if isinstance(value, str) else value)


@pytest.mark.promise(11)
def test_control_a_store_that_rounds_or_normalises_is_caught() -> None:
    with pytest.raises(AssertionError):
        run(texts_stored, store=rounded)
    with pytest.raises(AssertionError):
        run(lambda service: strings_stored(service, naughty()), store=normalised)


class Counts(SessionMiddleware):
    """Broken: it looks for the end of each bracket anew."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _whole(receive)
        depth, at = 0, body.find(b"[")
        while at != -1 and depth < 20_000:
            depth, at = body[:at].count(b"[") + 1, body.find(b"[", at + 1)
        await super().__call__(scope, _given(body), send)


@pytest.mark.promise(11)
def test_control_a_parser_whose_work_grows_with_the_square_is_too_slow() -> None:
    slow = Service(Counts)
    assert min(asyncio.run(took(slow, NESTED["of arrays"])) for _ in range(TRIES)) > MOST_S
