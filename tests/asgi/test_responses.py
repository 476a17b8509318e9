from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf import current_session
from dcaf.asgi.responses import BodySender
from dcaf.core.errors import NotCarriedError, SessionValueError
from tests.asgi.wire import (
    JSON_TYPE,
    Recorder,
    call,
    envelope,
    exchange,
    messages_of,
    mounted,
    opened,
    scope_of,
)
from tests.stores_for_tests import ToldStore

STEP = {"step": 2}
TEXT = ((b"content-type", b"text/plain"),)


def count(session: Any) -> None:
    session.incr("step")


def body_with(state: Any = STEP) -> Any:
    return {"data": {"session": envelope(state)}}


def answered(
    answer: Any = b'{"ok":true}',
    *,
    tool: Any = count,
    body: Any = None,
    method: Any = "POST",
    path: Any = "/api/chat",
    status: Any = 200,
    headers: Any = (JSON_TYPE,),
    **options: Any,
) -> Any:
    app = Recorder(answer, tool=tool, status=status, headers=headers)
    return call(mounted(app, **options), body_with() if body is None else body, method=method, path=path)


# Where the envelope goes


@pytest.mark.parametrize(
    ("answer", "around"),
    [
        (b'{"ok":1.0}', b'{"data":{"session":@},"ok":1.0}'),
        (b"{}", b'{"data":{"session":@}}'),
        (b' { "a":1,"a":2 } ', b' {"data":{"session":@}, "a":1,"a":2 } '),
        (b'{"data":null,"n":12345678901234567890123}', b'{"data":{"session":@},"n":12345678901234567890123}'),
        (b'{"data":{}}', b'{"data":{"session":@}}'),
        (b'{"data":{"x":-0.0}}', b'{"data":{"session":@,"x":-0.0}}'),
        (b'{"data":{"session":null}}', b'{"data":{"session":@}}'),
        (b'{"data":{"x":1,"session":{"step":9},"y":1e5}}', b'{"data":{"x":1,"session":@,"y":1e5}}'),
        (b'{"d\\u0061ta":{"sess\\u0069on":[]}}', b'{"d\\u0061ta":{"sess\\u0069on":@}}'),
    ],
)
@pytest.mark.parametrize("tool", [None, count])
def test_the_envelope_goes_to_data_session_and_no_other_byte_changes(answer: Any, around: Any, tool: Any) -> None:
    sent = answered(answer, tool=tool)
    before, after = around.split(b"@")
    assert sent.body.startswith(before)
    assert sent.body.endswith(after)
    assert opened(json.loads(sent.body[len(before) : len(sent.body) - len(after)])) == {"step": 3 if tool else 2}
    assert sent.header("content-length") == str(len(sent.body))


@given(
    st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), max_size=5),
    st.integers(0, 40),
)
@settings(max_examples=100, deadline=None)
def test_a_chunked_answer_is_completed_like_a_whole_one(members: Any, cut: Any) -> None:
    whole = json.dumps(members).encode()
    if any(type(value) is int and abs(value) > 10**300 for value in members.values()):
        return
    members.pop("data", None)
    whole = json.dumps(members).encode()
    sent = answered([whole[:cut], b"", whole[cut:], b""])
    found = sent.json
    assert opened(found.pop("data")["session"]) == {"step": 3}
    assert found == members
    assert len(sent.messages) == 2


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON; charset=utf-8", b"application/problem+json", b"application/vnd.api+json"]
)
@pytest.mark.parametrize("status", [200, 201, 202, 302, 400, 404, 422, 499])
def test_every_json_answer_below_500_carries_the_session(kind: Any, status: Any) -> None:
    sent = answered(status=status, headers=((b"content-type", kind),))
    assert (sent.status, opened(sent.envelope)) == (status, {"step": 3})


def test_a_session_that_came_in_goes_out_although_nobody_touched_it() -> None:
    first = envelope(STEP)
    sent = answered(tool=None, body={"data": {"session": first}})
    assert opened(sent.envelope) == STEP


def test_where_nothing_came_in_and_nothing_was_stored_the_answer_is_the_applications_own() -> None:
    own = b' {"data": {"session": "sid-7", "note": {"session": {"dcaf": 1}}}, "session": {"n": 1}} '
    sent = answered(own, tool=None, body={}, headers=(JSON_TYPE, (b"etag", b'"x"')))
    assert sent.body == own
    assert sent.headers == [("content-type", "application/json"), ("etag", '"x"')]


def test_a_new_session_goes_out_when_something_was_stored() -> None:
    assert opened(answered(body={}).envelope) == {"step": 1}


def test_the_applications_own_object_is_overwritten_and_the_log_says_so_once_a_route(caplog: Any) -> None:
    app = Recorder(b'{"data":{"session":{"step":99}}}')
    service = mounted(app)
    for path in ("/a", "/b", "/a"):
        assert opened(call(service, body_with(), path=path).envelope) == STEP
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "plain=('/a',)" in warnings[0]
    assert "plain=('/b',)" in warnings[1]


# What cannot carry it


CANNOT: dict[str, dict[str, Any]] = {
    "text": {"answer": b"hello", "headers": TEXT},
    "no content type": {"answer": b"{}", "headers": ()},
    "a redirect": {"answer": b"", "headers": (), "status": 303},
    "an array": {"answer": b"[1,2]"},
    "a number": {"answer": b"1.0"},
    "a string": {"answer": b'"canary"'},
    "data is a list": {"answer": b'{"data":[1]}'},
    "data is a string": {"answer": b'{"data":"x"}'},
    "data is a number": {"answer": b'{"data":0}'},
    "data is false": {"answer": b'{"data":false}'},
    "data twice": {"answer": b'{"data":{},"data":{}}'},
    "session twice": {"answer": b'{"data":{"session":1,"session":2}}'},
    "malformed": {"answer": b'{"a":NaN}'},
    "empty": {"answer": b""},
    "gzip": {"answer": b"\x1f\x8b", "headers": (JSON_TYPE, (b"content-encoding", b"gzip"))},
    "204": {"answer": b"", "status": 204},
    "205": {"answer": b"", "status": 205},
    "304": {"answer": b"", "status": 304},
    "206": {"answer": b'{"a":1}', "status": 206},
    "HEAD": {"answer": b"", "method": "HEAD"},
    "too long": {"answer": b'{"a":"' + b"x" * 100 + b'"}', "max_response_bytes": 50},
    "too long in chunks": {"answer": [b'{"a":"'] + [b"x" * 20] * 9 + [b'"}'], "max_response_bytes": 50},
}

FOUND: dict[str, str] = {
    "text": "is text/plain, which cannot carry it",
    "no content type": "has no Content-Type",
    "a redirect": "is a redirect (303)",
    "an array": "is a JSON array",
    "a number": "is a JSON number",
    "a string": "is a JSON string",
    "data is a list": 'has a list at "data"',
    "data is a string": 'has a string at "data"',
    "data is a number": 'has a number at "data"',
    "data is false": 'has a boolean at "data"',
    "data twice": "repeats a member on the way to data.session, or is nested too deep",
    "session twice": "repeats a member on the way to data.session, or is nested too deep",
    "malformed": "is not strict JSON",
    "empty": "is empty",
    "gzip": "is compressed (gzip): mount compression outside SessionMiddleware",
    "204": "has no body (204)",
    "205": "has no body (205)",
    "304": "has no body (304)",
    "206": "is partial (206)",
    "HEAD": "is one to HEAD, which has no body",
    "too long": "is over max_response_bytes (50)",
    "too long in chunks": "is over max_response_bytes (50)",
}
REMEDY = (
    " Answer with a JSON object whose `data` is an object, absent or null, with NDJSON or with server-sent events; or let the "
    'session travel in a header or a cookie, SessionMiddleware(..., carriers=("header",)); or leave the session alone.'
)


@pytest.mark.parametrize("case", CANNOT)
def test_a_modified_session_on_an_answer_that_cannot_carry_it_is_an_error_that_says_where_and_why(case: Any) -> None:
    options = {"method": "POST", **CANNOT[case]}
    with pytest.raises(NotCarriedError) as told:
        answered(path="/the/route", **options)
    remedy = "" if case == "gzip" else REMEDY
    assert str(told.value) == f"{options['method']} /the/route changed the session, and its answer {FOUND[case]}.{remedy}"


@pytest.mark.parametrize("case", CANNOT)
def test_an_unmodified_session_lets_it_pass_byte_for_byte(case: Any) -> None:
    options = {"headers": (JSON_TYPE,), **CANNOT[case]}
    headers = (*options.pop("headers"), (b"etag", b'"x"'), (b"content-digest", b"y"))
    sent = answered(tool=None, headers=headers, **options)
    whole = options["answer"] if isinstance(options["answer"], bytes) else b"".join(options["answer"])
    assert sent.body == whole
    assert [pair for pair in sent.headers if pair[0] != "cache-control"] == [(n.decode(), v.decode()) for n, v in headers]
    assert sent.header("cache-control") == "no-store"


@pytest.mark.parametrize("case", CANNOT)
def test_without_a_session_it_passes_with_no_header_added(case: Any) -> None:
    options = {"headers": (JSON_TYPE,), **CANNOT[case]}
    sent = answered(tool=None, body={"x": 1}, **options)
    assert sent.headers == [(n.decode(), v.decode()) for n, v in options["headers"]]


class Silent(BodySender):
    """Broken: it sends what it cannot complete, and the change is lost."""

    def _check_unmodified(self, *_: Any) -> None:
        pass


def test_control_an_answer_that_silently_drops_a_change_is_caught(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.asgi.request.BodySender", Silent)
    with pytest.raises(pytest.fail.Exception), pytest.raises(NotCarriedError):
        answered(b"[1,2]")


@pytest.mark.parametrize("depth", [500, 900, 1000, 1015])
def test_a_deep_answer_carries_the_session_or_passes_but_never_crashes(depth: Any) -> None:
    answer = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
    sent = answered(answer, tool=None)
    assert sent.body == answer or sent.body.endswith(answer[1:])


@pytest.mark.parametrize(
    ("settings", "headers", "chunks"),
    [({}, TEXT, [b"a", b"b"]), ({"max_response_bytes": 20}, [JSON_TYPE], [b'{"a":"' + b"x" * 50, b'"}'])],
    ids=["text", "JSON that grew too long"],
)
def test_a_change_after_the_start_is_an_error_for_the_operator(settings: Any, headers: Any, chunks: Any, caplog: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": chunks[0], "more_body": True})
        current_session().incr("step")
        await send({"type": "http.response.body", "body": chunks[1]})

    seen: list[Any] = []
    sent = call(mounted(app, on_event=seen.append, **settings), body_with())
    assert sent.body == b"".join(chunks)
    assert [(event.name, event.route) for event in seen] == [("lost", "/api/chat")]
    assert [record.levelname for record in caplog.records if "lost" in record.message] == ["ERROR"]


def test_a_change_between_start_and_end_of_a_json_answer_is_carried() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        current_session().incr("step")
        await send({"type": "http.response.body", "body": b"}"})

    assert opened(call(mounted(app), body_with()).envelope) == {"step": 3}


# Failures seal nothing


@pytest.mark.parametrize("status", [500, 501, 503, 599])
@pytest.mark.parametrize("answer", [b'{"data":{"session":1}}', b"{}", b"text"])
def test_a_server_error_seals_nothing_and_passes_byte_for_byte(status: Any, answer: Any) -> None:
    sent = answered(answer, status=status, headers=(JSON_TYPE, (b"etag", b"x")))
    assert (sent.status, sent.body, sent.header("etag")) == (status, answer, "x")


@pytest.mark.parametrize("started", [False, True])
def test_an_exception_seals_nothing_and_nothing_was_sent_of_a_json_answer(started: Any) -> None:
    messages = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        current_session().incr("step")
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
            await send({"type": "http.response.body", "body": b'{"a":1', "more_body": True})
        raise RuntimeError("tool")

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(body_with()).encode()}

    with pytest.raises(RuntimeError, match="tool"):
        asyncio.run(mounted(app)(scope_of(), receive, send))
    assert messages == []


def test_a_server_error_passes_although_the_session_holds_what_cannot_be_sealed() -> None:
    def spoil(session: Any) -> None:
        session["list"] = []
        session["list"].append(float("nan"))

    sent = answered(b'{"error":1}', tool=spoil, body={}, status=500)
    assert (sent.status, sent.body) == (500, b'{"error":1}')


def test_what_cannot_be_sealed_is_an_error_below_500() -> None:
    def spoil(session: Any) -> None:
        session["list"] = []
        session["list"].append(float("nan"))

    with pytest.raises(SessionValueError, match=r"list\[0\]"):
        answered(tool=spoil)


# Headers


STALE = ["etag", "content-md5", "digest", "content-digest", "repr-digest"]


def test_etag_and_digests_are_dropped_when_the_answer_is_rewritten_and_only_then() -> None:
    headers = (JSON_TYPE, (b"x-own", b"1"), *((name.encode(), b"x") for name in STALE), (b"content-length", b"11"))
    rewritten = answered(headers=headers)
    assert [name for name, _ in rewritten.headers if name in STALE] == []
    assert rewritten.header("x-own") == "1"
    assert rewritten.header("content-length") == str(len(rewritten.body))
    passed = answered(tool=None, body={}, headers=headers)
    assert [name for name, _ in passed.headers if name in STALE] == STALE
    assert passed.header("content-length") == "11"


@pytest.mark.parametrize(
    "own", [(), ((b"cache-control", b"public, max-age=60"),), ((b"cache-control", b"public"), (b"cache-control", b"max-age=1"))]
)
@pytest.mark.parametrize("status", [200, 404, 500])
def test_no_store_is_the_only_cache_control_of_an_answer_with_a_session(own: Any, status: Any) -> None:
    sent = answered(headers=(JSON_TYPE, *own), status=status)
    assert sent.header("cache-control") == "no-store"


def test_the_cache_control_of_other_answers_is_the_applications_own() -> None:
    sent = answered(tool=None, body={}, headers=(JSON_TYPE, (b"cache-control", b"public")))
    assert sent.header("cache-control") == "public"


def app_with_start(start: Any, body: Any = b"hello") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize("status", [200, 204, 500])
def test_an_answer_may_leave_out_its_headers_as_asgi_allows(status: Any) -> None:
    sent = call(mounted(app_with_start({"type": "http.response.start", "status": status})), body_with())
    assert (sent.status, sent.body, sent.header("cache-control")) == (status, b"hello", "no-store")


@pytest.mark.parametrize("status", [200, 500])
def test_headers_may_be_any_iterable_as_asgi_allows(status: Any) -> None:
    start = {"type": "http.response.start", "status": status, "headers": TEXT}
    sent = call(mounted(app_with_start(start)), body_with())
    assert sent.header("cache-control") == "no-store"


@pytest.mark.parametrize(("status", "body"), [(200, b"hello"), (500, b"hello")])
def test_the_applications_own_list_of_headers_is_not_changed_under_its_hands(status: Any, body: Any) -> None:
    shared = list(TEXT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": shared})
        await send({"type": "http.response.body", "body": body})

    service = mounted(app)
    assert call(service, body_with()).header("cache-control") == "no-store"
    assert call(service, {}).header("cache-control") is None
    assert shared == list(TEXT)


def test_other_messages_pass_in_order() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": list(TEXT), "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": []})

    sent = call(mounted(app), body_with())
    assert [message["type"].rpartition(".")[2] for message in sent.messages] == ["early_hint", "start", "body", "trailers"]


def test_a_file_that_the_server_sends_itself_cannot_carry_a_modified_session() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        current_session().incr("step")
        await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
        await send({"type": "http.response.pathsend", "path": "/x.json"})

    with pytest.raises(NotCarriedError, match="and its answer is sent by the server itself"):
        call(mounted(app), body_with())


# plain=: the application's own object is the state


def adopted(answer: Any, *, tool: Any = None, body: Any = None, **options: Any) -> Any:
    return answered(answer, tool=tool, body=body, plain=("/api/chat",), **options)


def test_on_a_named_route_the_applications_object_replaces_the_state_without_a_warning(caplog: Any) -> None:
    sent = adopted(b'{"data":{"session":{"own":[1,2.5,"x"]},"y":1}}')
    assert opened(sent.envelope) == {"own": [1, 2.5, "x"]}
    assert not caplog.records


def test_on_a_named_route_an_empty_object_clears() -> None:
    assert opened(adopted(b'{"data":{"session":{}}}').envelope) == {}


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"data":{}}',
        b'{"data":null}',
        b'{"data":{"session":null}}',
        b'{"data":{"session":[1]}}',
        b'{"data":{"session":"x"}}',
    ],
)
def test_on_a_named_route_what_is_no_object_leaves_the_state(answer: Any) -> None:
    assert opened(adopted(answer).envelope) == STEP


@pytest.mark.parametrize("own", [{"dcaf": {}}, {"dcaf": None, "x": 1}, {"x": 1, "dcaf": {"token": "new"}}])
def test_an_object_with_a_dcaf_member_is_never_adopted(own: Any) -> None:
    assert opened(adopted(json.dumps({"data": {"session": own}}).encode()).envelope) == STEP


def test_an_escaped_dcaf_member_is_never_adopted_either() -> None:
    assert opened(adopted(b'{"data":{"session":{"x":1,"dc\\u0061f":1}}}').envelope) == STEP


@pytest.mark.parametrize("status", [302, 400, 404, 422])
def test_outside_2xx_nothing_is_adopted(status: Any) -> None:
    assert opened(adopted(b'{"data":{"session":{"own":1}}}', status=status).envelope) == STEP


@pytest.mark.parametrize("status", [200, 201, 202])
def test_every_2xx_is_adopted(status: Any) -> None:
    assert opened(adopted(b'{"data":{"session":{"own":1}}}', status=status).envelope) == {"own": 1}


@pytest.mark.parametrize("body", [b"", b"text", b"[1]"])
def test_without_a_json_object_in_the_request_nothing_is_adopted(body: Any) -> None:
    sent = adopted(b'{"data":{"session":{"own":1}}}', body=body)
    assert sent.body == b'{"data":{"session":{"own":1}}}'


def test_the_first_turn_of_a_named_route_is_adopted_too() -> None:
    assert opened(adopted(b'{"data":{"session":{"own":1}}}', body={"messages": []}).envelope) == {"own": 1}


def test_a_session_that_a_tool_modified_wins_over_the_applications_object() -> None:
    assert opened(adopted(b'{"data":{"session":{"own":1}}}', tool=count).envelope) == {"step": 3}


def test_on_another_route_nothing_is_adopted() -> None:
    assert opened(adopted(b'{"data":{"session":{"own":1}}}', path="/api/chat/").envelope) == STEP


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30])
def test_an_integer_beyond_64_bits_is_refused_and_not_rounded(number: Any) -> None:
    with pytest.raises(SessionValueError, match="own"):
        adopted(b'{"data":{"session":{"own":%d}}}' % number)


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1])
def test_an_integer_of_64_bits_is_adopted_exactly(number: Any) -> None:
    assert opened(adopted(b'{"data":{"session":{"own":%d}}}' % number).envelope) == {"own": number}


@pytest.mark.parametrize("broken", [{"plain": lambda scope: True}, {"plain": ("/api/chat",)}])
def test_control_adoption_where_it_is_not_due_is_caught(broken: Any) -> None:
    with pytest.raises(AssertionError):
        assert opened(answered(b'{"data":{"session":{"own":1}}}', tool=None, **broken).envelope) == STEP


# Under a framework


def test_background_tasks_still_run() -> None:
    ran: list[Any] = []

    async def endpoint(request: Any) -> Any:
        current_session().incr("step")
        return JSONResponse({}, background=BackgroundTask(ran.append, 1))

    service = mounted(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    with TestClient(service) as client:
        answer = client.post("/", json={})
    assert (ran, opened(answer.json()["data"]["session"])) == ([1], {"step": 1})


async def _concurrently(make_service: Any, turns: Any) -> Any:
    seen = {}
    gate = asyncio.Event()
    waiting = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal waiting
        await receive()
        name = scope["path"]
        before = current_session()["who"]
        waiting += 1
        if waiting == turns:
            gate.set()
        await gate.wait()
        await asyncio.sleep(0)
        current_session()["after"] = before
        task = await asyncio.create_task(_who())
        thread = await asyncio.to_thread(lambda: current_session()["who"])
        seen[name] = {before, current_session()["who"], task, thread}
        await send({"type": "http.response.start", "status": 200, "headers": [JSON_TYPE]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def _who() -> Any:
        await asyncio.sleep(0)
        return current_session()["who"]

    service = make_service(app)
    calls = [
        exchange(service, scope_of(path=f"/{n}"), messages_of(json.dumps(body_with({"who": f"/{n}"})).encode()))
        for n in range(turns)
    ]
    return seen, await asyncio.gather(*calls)


def assert_nobody_saw_another(seen: Any, answers: Any) -> None:
    for name, found in seen.items():
        assert found == {name}
    for number, sent in enumerate(answers):
        assert opened(sent.envelope) == {"who": f"/{number}", "after": f"/{number}"}


def test_concurrent_requests_do_not_see_one_anothers_session() -> None:
    assert_nobody_saw_another(*asyncio.run(_concurrently(mounted, 50)))


def test_control_a_session_kept_in_a_global_is_caught(monkeypatch: Any) -> None:
    class Global:
        value = None

        def get(self) -> Any:
            return self.value

        def set(self, value: Any) -> None:
            self.value = value

        def reset(self, token: Any) -> None:
            pass

    monkeypatch.setattr("dcaf.core.context._current", Global())
    with pytest.raises(AssertionError):
        assert_nobody_saw_another(*asyncio.run(_concurrently(mounted, 50)))


def test_after_a_turn_no_session_is_current() -> None:
    from dcaf import ConfigurationError

    async def run() -> None:
        await exchange(mounted(Recorder()), scope_of(), messages_of(b"{}"))
        with pytest.raises(ConfigurationError, match="outside a turn"):
            current_session()

    asyncio.run(run())


# What is committed


@pytest.mark.parametrize("carriers", [("body",), ("header",)])
def test_what_cannot_be_written_is_refused_before_it_is_committed(carriers: Any) -> None:
    def write(session: Any) -> None:
        session["cart"] = {"items": []}
        session["cart"]["items"].append(object())

    store = ToldStore()
    with pytest.raises(SessionValueError):
        call(mounted(Recorder(tool=write), store=store, carriers=carriers), {})
    assert store.steps == ["open", "latest", "release"]
    call(mounted(Recorder(tool=lambda session: session.incr("step")), store=store, carriers=carriers), {})
    assert [(sealed.claims.seq, ends_turn) for sealed, ends_turn in store.committed] == [(1, True)]
    assert store.steps[3:] == ["open", "latest", "commit", "release"]
