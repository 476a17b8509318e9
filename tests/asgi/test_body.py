from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from dcaf.asgi.body import BytesInFlight
from tests.asgi.wire import JSON_TYPE, Recorder, Sent, envelope, mounted, scope_of

LIMIT = 10_000
CHUNK = b'{"x":"' + b"y" * 994


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


class Sender:
    """A client that sends one chunk after the other, when it is told to."""

    def __init__(self, service: Any, **members: Any) -> None:
        self.sent = Sent()
        self.inbound: asyncio.Queue[Any] = asyncio.Queue()
        self.task = asyncio.create_task(service(scope_of(**members), self.inbound.get, self._send))

    async def _send(self, message: Any) -> None:
        self.sent.messages.append(message)

    async def say(self, chunk: Any, *, more: Any = True) -> None:
        self.inbound.put_nowait({"type": "http.request", "body": chunk, "more_body": more})
        await settle()

    async def leave(self) -> None:
        self.inbound.put_nowait({"type": "http.disconnect"})
        await settle()

    async def finish(self) -> None:
        """End the body as JSON, and see the answer."""
        await self.say(b'"}', more=False)
        await self.leave()
        await asyncio.wait_for(self.task, 5)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def service_of(**settings: Any) -> Any:
    return mounted(Recorder(), **{"max_bytes_in_flight": LIMIT, **settings})


def taken(service: Any) -> Any:
    return service._config.bytes_in_flight.taken_bytes


async def fill(service: Any, count: Any = 10) -> Any:
    """So many slow senders, each in the middle of its body."""
    senders = [Sender(service) for _ in range(count)]
    for sender in senders:
        await sender.say(CHUNK)
    return senders


def assert_unavailable(sent: Any, *, connection: Any = "close") -> None:
    assert sent.status == 503
    assert sent.code == "session-unavailable"
    assert sent.header("retry-after") == "1"
    assert sent.header("connection") == connection
    assert sent.header("cache-control") == "no-store"
    assert "data" not in sent.json


async def one_too_many(service: Any, **members: Any) -> Any:
    slow = await fill(service)
    assert taken(service) == LIMIT
    last = Sender(service, **members)
    await last.say(b"{")
    return slow, last


def test_the_sender_over_the_limit_is_told_to_come_again_and_the_others_go_on() -> None:
    events: list[Any] = []

    async def run() -> None:
        service = service_of(on_event=events.append)
        slow, last = await one_too_many(service)
        assert_unavailable(last.sent)
        assert taken(service) == LIMIT
        await last.leave()
        assert last.task.done()
        await slow[0].leave()
        for sender in slow[1:]:
            await sender.finish()
            assert sender.sent.status == 200
        assert taken(service) == 0

    asyncio.run(run())
    assert [(event.name, event.code, event.reason) for event in events] == [("refused", "session-unavailable", "bytes-in-flight")]


@pytest.mark.parametrize(("version", "connection"), [("1.0", "close"), ("1.1", "close"), ("2", None), ("3", None)])
def test_the_connection_is_closed_where_the_version_knows_that_header(version: Any, connection: Any) -> None:
    async def run() -> None:
        _, last = await one_too_many(service_of(), http_version=version)
        assert_unavailable(last.sent, connection=connection)

    asyncio.run(run())


def test_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    async def run(size: Any) -> Any:
        service = service_of()
        sender = Sender(service)
        text = json.dumps({"x": ""}).encode()
        await sender.say(text[:-2] + b"y" * (size - len(text)) + text[-2:], more=False)
        await sender.leave()
        await asyncio.wait_for(sender.task, 5)
        assert taken(service) == 0
        return sender.sent.status

    assert asyncio.run(run(LIMIT)) == 200
    assert asyncio.run(run(LIMIT + 1)) == 503


def test_one_byte_of_each_of_many_senders_counts() -> None:
    async def run() -> None:
        service = service_of(max_bytes_in_flight=50)
        senders = [Sender(service) for _ in range(60)]
        for sender in senders:
            await sender.say(b"{")
        assert [bool(sender.sent.messages) for sender in senders] == [False] * 50 + [True] * 10
        for sender in senders[50:]:
            assert_unavailable(sender.sent)
        assert taken(service) == 50
        for sender in senders:
            sender.task.cancel()
        await settle()
        assert taken(service) == 0

    asyncio.run(run())


class Turned:
    """The ways in which the reading of a body ends, each with the status that its sender sees."""

    @staticmethod
    async def served(sender: Any) -> Any:
        await sender.say(b'"}', more=False)
        assert sender.task.done() is False  # the application waits for the client to leave
        return 200

    @staticmethod
    async def malformed(sender: Any) -> Any:
        await sender.say(b"\x00", more=False)
        return 400

    @staticmethod
    async def too_large(sender: Any) -> Any:
        await sender.say(b"y" * 2_000)
        return 413

    @staticmethod
    async def unsigned(sender: Any) -> Any:
        await sender.say(b'","data":{"session":{"planted":1}}}', more=False)
        return 400

    @staticmethod
    async def invalid(sender: Any) -> Any:
        session = json.dumps({"session": {"dcaf": {"token": envelope()["dcaf"]["token"] + "x"}}}).encode()
        await sender.say(b'","data":' + session + b"}", more=False)
        return 400

    @staticmethod
    async def over_the_limit(sender: Any) -> Any:
        await sender.say(b"y" * LIMIT)
        return 503

    @staticmethod
    async def left(sender: Any) -> Any:
        await sender.leave()
        return None

    @staticmethod
    async def cancelled(sender: Any) -> Any:
        sender.task.cancel()
        await settle()
        return None

    @staticmethod
    async def broken(sender: Any) -> Any:
        sender.inbound.put_nowait(None)  # whatever a server gives that is no message
        await settle()
        assert isinstance(sender.task.exception(), TypeError)
        return None


ENDS = [name for name in vars(Turned) if not name.startswith("_")]


def assert_given_back(name: Any, bytes_in_flight: Any = BytesInFlight) -> None:
    async def run() -> None:
        max_body = {"max_body_bytes": 2_000} if name == "too_large" else {}
        service = service_of(**max_body)
        object.__setattr__(service._config, "bytes_in_flight", bytes_in_flight(LIMIT))
        others = await fill(service, 2)
        sender = Sender(service)
        await sender.say(CHUNK)
        assert taken(service) == 3_000
        status = await getattr(Turned, name)(sender)
        assert (sender.sent.status if sender.sent.messages else None) == status
        assert taken(service) == 2_000
        for other in others:
            await other.finish()
        assert taken(service) == 0
        sender.task.cancel()
        await settle()

    asyncio.run(run())


@pytest.mark.parametrize("name", ENDS)
def test_what_a_body_took_is_given_back_however_its_reading_ends(name: Any) -> None:
    assert_given_back(name)


class NeverGivesBack(BytesInFlight):
    """Broken: what is taken stays taken."""

    def give_back(self, size: int) -> None:
        pass


class GivesBackAtTheGoodEnd(BytesInFlight):
    """Broken: an exception keeps what was taken."""

    def give_back(self, size: int) -> None:
        if sys.exception() is None:
            super().give_back(size)


@pytest.mark.parametrize("name", ENDS)
def test_control_bytes_that_are_never_given_back_are_caught(name: Any) -> None:
    with pytest.raises(AssertionError):
        assert_given_back(name, NeverGivesBack)


@pytest.mark.parametrize("name", ["malformed", "too_large", "over_the_limit", "cancelled", "broken"])
def test_control_bytes_that_an_exception_keeps_are_caught(name: Any) -> None:
    with pytest.raises(AssertionError):
        assert_given_back(name, GivesBackAtTheGoodEnd)


def test_a_service_that_was_full_serves_again_when_the_slow_ones_are_gone() -> None:
    async def run() -> None:
        service = service_of()
        for _ in range(20):
            slow, last = await one_too_many(service)
            assert_unavailable(last.sent)
            for sender in slow:
                await sender.leave()
            assert taken(service) == 0
        sender = Sender(service)
        await sender.say(CHUNK)
        await sender.finish()
        assert sender.sent.status == 200

    asyncio.run(run())


def test_a_body_that_is_no_json_is_counted_only_until_that_is_clear() -> None:
    async def run() -> None:
        service = service_of(max_bytes_in_flight=100)
        sender = Sender(service, headers=())
        await sender.say(b" " * 10)
        assert taken(service) == 10
        await sender.say(b"name=" + b"y" * 50)
        assert taken(service) == 0
        await sender.say(b"y" * 10_000, more=False)
        await sender.leave()
        await asyncio.wait_for(sender.task, 5)
        assert sender.sent.status == 200

    asyncio.run(run())


def test_white_space_that_never_becomes_a_body_counts_too() -> None:
    async def run() -> None:
        service = service_of(max_bytes_in_flight=100)
        sender = Sender(service, headers=(JSON_TYPE,))
        await sender.say(b" " * 101)
        assert_unavailable(sender.sent)
        assert taken(service) == 0

    asyncio.run(run())


def test_two_middlewares_count_apart() -> None:
    async def run() -> None:
        one, two = service_of(), service_of()
        held = await fill(one)
        sender = Sender(two)
        await sender.say(CHUNK)
        assert (taken(one), taken(two)) == (LIMIT, 1_000)
        await sender.finish()
        assert sender.sent.status == 200
        assert all(each.sent is not sender.sent for each in held)

    asyncio.run(run())
