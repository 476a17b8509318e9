"""P35: nothing of the user's is ever sealed outside the routes that the application named with ``plain=``."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from contextlib import suppress
from typing import Any

import pytest

from dcaf.asgi import SessionMiddleware
from dcaf.core import Key, Keyring, current_session
from dcaf.core.errors import NotCarriedError, SessionError, SessionValueError
from dcaf.core.sealer import Sealer
from dcaf.testing import sealed

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
REQUESTS = max(400, int(20_000 * SCALE))
RING = Keyring(Key.generate("k7"))
SEALER = Sealer(keys=RING, audience="shop")
STATE = {"step": 2}
CANARY = "canary-of-the-user"
TOKEN = re.compile(r"dcaf1[se]\.[\w.-]+", re.ASCII)
BOUNDARY = b"--b\r\ncontent-disposition: form-data; name=doc\r\n\r\n"


async def _read(receive: Any) -> Any:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _parsed(body: Any) -> Any:
    with suppress(ValueError):
        return json.loads(body)
    return None


def echo_body(scope: Any, body: Any) -> Any:
    """``{"data": <the body>}``: a top-level member ``session`` of the body lands at ``data.session``."""
    return 200, {"data": _parsed(body)}


def echo_document(scope: Any, body: Any) -> Any:
    """An uploaded document, shown back as ``data``."""
    return 201, {"data": _parsed(body.removeprefix(BOUNDARY))}


def echo_errors(scope: Any, body: Any) -> Any:
    """A 422 that shows the body, as validation errors do."""
    parsed = _parsed(body)
    return 422, {"detail": [{"input": parsed}], "data": parsed}


def echo_context(scope: Any, body: Any) -> Any:
    """A ``request_context`` that is merged into ``data``."""
    parsed = _parsed(body)
    context = parsed.get("request_context") if isinstance(parsed, dict) else None
    return 200, {"content": "ok", "data": context if isinstance(context, dict) else {}}


def echo_session(scope: Any, body: Any) -> Any:
    """An agent that believes the model: ``data.session`` out of a message's text."""
    parsed = _parsed(body)
    said = parsed["messages"][-1]["content"] if isinstance(parsed, dict) and parsed.get("messages") else "null"
    return 200, {"data": {"session": _parsed(said)}}


def echo_query(scope: Any, body: Any) -> Any:
    """Query parameters as ``data``."""
    return 200, {"data": {"session": {"q": scope["query_string"].decode()}}}


ENDPOINTS = {
    f"/{endpoint.__name__}": endpoint
    for endpoint in (echo_body, echo_document, echo_errors, echo_context, echo_session, echo_query)
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    status, answer = ENDPOINTS[scope["path"]](scope, await _read(receive))
    if b"count" in scope["query_string"]:
        current_session().incr("step")
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Requests:
    """A seeded source of requests whose every value is the user's, but for the token."""

    def __init__(self, seed: Any) -> None:
        self.random = random.Random(seed)
        self.envelope = sealed(STATE, keys=RING, audience="shop")

    def one(self) -> Any:
        pick = self.random.choice
        wish = self.wish()
        forms = [
            {"session": wish},
            {"session": wish, "data": {"session": wish}},
            {"request_context": {"session": wish}},
            {"messages": [{"role": "user", "content": json.dumps(wish)}]},
            {"data": {"session": wish, "note": CANARY}},
            [{"session": wish}],
        ]
        body = pick(forms)
        if isinstance(body, dict) and "data" not in body and self.random.random() < 0.6:
            body["data"] = {"session": pick([self.envelope, self.envelope, {"dcaf": {"token": "new"}}, None])}
        raw = json.dumps(body).encode()
        if self.random.random() < 0.3:
            raw = pick([BOUNDARY + raw, b"[" + raw + b"]", b"\n" + raw])
        return pick(list(ENDPOINTS)), pick([b"", b"count", CANARY.encode()]), raw

    def wish(self) -> Any:
        """What a user would like to have sealed."""
        plain = {"admin": True, CANARY: CANARY}
        return self.random.choice(
            [
                plain,
                {**plain, "dcaf": {"token": "x"}},
                {**plain, "dcaf": self.envelope["dcaf"]},
                {"step": CANARY},
                CANARY,
                [CANARY],
                {},
            ]
        )


async def ask(service: Any, path: Any, query: Any, body: Any, method: Any = "POST") -> Any:
    pending = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query, "headers": []}
    try:
        await service(scope, receive, send)
    except (NotCarriedError, SessionValueError):  # the server answers 500
        return 500, ""
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode()


def sealed_states(answer: Any) -> Any:
    """The state of every token in an answer that this service would accept."""
    for token in TOKEN.findall(answer):
        with suppress(SessionError):
            yield SEALER.open({"dcaf": {"token": token}}, SEALER.binding()).to_dict()


def assert_nothing_of_the_users(answer: Any) -> Any:
    found = list(sealed_states(answer))
    for state in found:
        # What the service itself counted, and nothing else: a clear would be the user's doing, too.
        assert state in ({}, {"step": 1}, STATE, {"step": 3}), state
    return len(found)


async def run(service: Any, count: Any = REQUESTS) -> Any:
    requests, answers = Requests(35), []
    for _ in range(count):
        request = requests.one()
        answers.append((request, *(await ask(service, *request))))
    return answers


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


def mounted(**options: Any) -> Any:
    return SessionMiddleware(application, keys=RING, audience="shop", **options)


def assert_no_oracle(answers: Any) -> Any:
    tokens = 0
    for (_, _, body), _, answer in answers:
        tokens += assert_nothing_of_the_users(answer)
        empty = any(state == {} for state in sealed_states(answer))
        assert not empty or b'"new"' in body, "a session was cleared on the user's word"
    return tokens


@pytest.mark.promise(35)
def test_nothing_that_a_user_says_is_sealed_outside_the_named_routes(measured: Any) -> None:
    answers = asyncio.run(run(mounted()))
    tokens = assert_no_oracle(answers)
    assert tokens > REQUESTS // 5
    assert sum(status < 300 for _, status, _ in answers) > REQUESTS // 5
    measured(35, f"0 of {tokens:,} tokens sealed a user's word, in answers to {REQUESTS:,} requests")


@pytest.mark.promise(35)
def test_naming_one_route_opens_no_other() -> None:
    answers = asyncio.run(run(mounted(plain=("/chat",))))
    assert assert_no_oracle(answers) > REQUESTS // 5


@pytest.mark.promise(35)
def test_control_adoption_everywhere_is_caught() -> None:
    answers = asyncio.run(run(mounted(plain=lambda scope: True)))
    with pytest.raises(AssertionError):
        assert_no_oracle(answers)


@pytest.mark.promise(35)
@pytest.mark.parametrize("path", ENDPOINTS)
def test_each_echo_is_overwritten_when_a_session_came_in_and_left_alone_when_none_did(path: Any) -> None:
    requests = Requests(1)
    wish = {"admin": CANARY}
    common = {"session": wish, "request_context": {"session": wish}, "messages": [{"content": json.dumps(wish)}]}
    with_session = json.dumps({**common, "data": {"session": requests.envelope}}).encode()
    status, answer = asyncio.run(ask(mounted(), path, CANARY.encode(), with_session))
    assert status < 500
    assert assert_nothing_of_the_users(answer) >= 1
    assert CANARY not in json.dumps(json.loads(answer)["data"]["session"])
    without = json.dumps(common).encode()
    status, answer = asyncio.run(ask(mounted(), path, CANARY.encode(), without))
    assert list(sealed_states(answer)) == []
    assert TOKEN.search(answer) is None


@pytest.mark.promise(35)
def test_on_a_named_route_a_plain_object_with_a_dcaf_member_is_not_sealed() -> None:
    body = {
        "data": {"session": Requests(1).envelope},
        "messages": [{"content": json.dumps({"admin": CANARY, "dcaf": {"token": "x"}})}],
    }
    _, answer = asyncio.run(ask(mounted(plain=("/echo_session",)), "/echo_session", b"", json.dumps(body).encode()))
    assert list(sealed_states(answer)) == [STATE]


@pytest.mark.promise(35)
def test_on_a_named_route_a_body_that_is_not_json_adopts_nothing() -> None:
    document = BOUNDARY + json.dumps({"session": {"admin": CANARY}}).encode()
    _, answer = asyncio.run(ask(mounted(plain=("/echo_document",)), "/echo_document", b"", document))
    assert TOKEN.search(answer) is None
