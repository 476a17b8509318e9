"""`dcaf inspect`, as an operator calls it: what it reads, draws and never prints, and that it agrees with the service."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcaf import Key, Keyring, current_session
from dcaf.asgi import CookieCarrier
from dcaf.cli import main
from dcaf.cli.inspect.bodies import Site
from dcaf.cli.inspect.command import report
from dcaf.cli.inspect.reader import find
from dcaf.cli.inspect.render import describe_claims, moment, span
from dcaf.cli.inspect.verdict import Judge
from dcaf.core import SessionHost
from dcaf.core.base64url import Payload, encode
from dcaf.core.claims import Binding, Claims
from dcaf.core.errors import ConfigurationError
from dcaf.core.signing import SIGNED
from dcaf.service import SessionService
from dcaf.testing import FrozenClock, Reply, fixed_keys, sealed, tampered
from tests.asgi import hostile_bodies
from tests.asgi.wire import Recorder, call, mounted

DCAF: Final = str(Path(sys.executable).with_name("dcaf"))
KEY: Final = Key.generate("k7")
RING: Final = Keyring(KEY)
NOW: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
STATE: Final = {"step": 2, "cart": {"items": ["soup"]}, "card": "4111-canary"}
NEW: Final = {"dcaf": {"token": "new"}}
GUIDE: Final = Path(__file__).parents[2] / "docs" / "guides" / "inspect.md"
STEPS: Final[tuple[dict[str, Any], ...]] = ({"step": 1}, {"step": 2, "cart": ["soup"]})


def clock() -> float:
    return NOW


def envelope(state: Any = STATE, **options: Any) -> dict[str, Any]:
    return sealed(state, **{"keys": RING, "audience": "shop", "clock": clock, **options})


def judge(audience: str = "shop", keys: Keyring = RING, **whom: str) -> Judge:
    return Judge(keys, Binding(audience, **whom), clock)


def written(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def shown(value: Any, by: Judge | None = None, *, now: int = NOW) -> tuple[str, int]:
    lines, code = report(written(value), by, now=now)
    return "\n".join(lines), code


def block(text: str, first: str) -> list[str]:
    """The lines from the one that begins so to the next empty one."""
    lines = itertools.dropwhile(lambda line: not line.startswith(first), text.splitlines())
    return list(itertools.takewhile(bool, lines))


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command: its exit code, and what it printed and complained about."""

    def run(data: Any, *arguments: str, key: str | None = KEY.text()) -> tuple[int, str, str]:
        monkeypatch.delenv("DCAF_KEYS", raising=False)
        if key is not None:
            monkeypatch.setenv("DCAF_KEYS", key)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written(data))))
        code = main(["inspect", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


# What stands where


def test_a_whole_request_is_drawn_with_an_arrow_at_the_session_that_counts() -> None:
    mine, older = envelope({"step": 3}, sequence=3), envelope({"step": 2}, sequence=2)
    body = {
        "messages": [
            {"role": "assistant", "data": {"session": older}},
            {"role": "user", "content": "2 replicas"},
            {"role": "assistant", "data": {"session": mine}},
            {"role": "user", "data": {"session": {}}},
        ],
        "data": {"session": None},
    }
    text, code = shown(body)
    sizes = [len(item["dcaf"]["token"]) for item in (mine, older)]
    assert block(text, "A JSON request") == [
        f"A JSON request of 4 messages, {len(written(body)):,} bytes",
        "|-- data.session               null, as if it were not there",
        "|-- messages[3].data.session   {}, as if it were not there",
        f"|-> messages[2].data.session   token of {sizes[0]} bytes: this one counts, the last message that has one",
        f"`-- messages[0].data.session   token of {sizes[1]} bytes: passed over",
    ]
    assert code == 0


def test_the_top_level_comes_before_the_messages() -> None:
    found = find(written({"messages": [{"data": {"session": envelope()}}], "data": {"session": NEW}}))
    assert (found.winner, found.why) == (Site("data.session", NEW), "the top level comes first")


def test_a_token_and_an_envelope_are_read_as_they_are() -> None:
    mine = envelope()
    token = mine["dcaf"]["token"]
    for text_of_it in (mine, token.encode(), f'  "{token}"\n'.encode(), f"'{token}'".encode()):
        text, code = shown(text_of_it, judge())
        assert (code, text.splitlines()[-1]) == (0, "Verified: it is good for shop.")
    assert block(shown(mine)[0], "An envelope")[1].startswith("`-> the object itself   token of ")


def test_an_answer_has_its_session_at_the_top_level_alone() -> None:
    body = {"role": "assistant", "content": "Hello.", "data": {"session": envelope()}}
    assert shown(body, judge())[0].startswith("A JSON answer, ")
    echoing = {"messages": [{"data": {"session": envelope()}}]}
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
    assert find(written(echoing)).winner is not None
    with pytest.raises(ConfigurationError, match="There is no session in an HTTP answer, 200: a JSON answer"):
        find(head + written(echoing))


def test_a_refusal_that_tells_the_client_to_start_over_is_said_so() -> None:
    refusal = call(mounted(Recorder()), {"data": {"session": {"step": 2}}})
    text, code = shown(refusal.body, judge())
    assert text.splitlines() == [
        f"A refusal, 400 session-unsigned, {len(refusal.body)} bytes",
        "`-> data.session   the wish for a new session: this one counts",
        "The service says: The session carries no seal. Send back the session object of the last answer, or none.",
        "",
        "The service told the client to start over: what the client had before is of no use any more.",
    ]
    assert code == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"messages": [], "data": {"session": NEW}}, "The client asks for a new session, whatever it had before."),
        (NEW, "In an answer, the service told the client to start over. In a request, the client asks for a new session."),
        (b"new\n", "In an answer, the service told the client to start over. In a request, the client asks for a new session."),
    ],
)
def test_the_wish_for_a_new_session_is_said_by_whom_it_comes_from(given: Any, said: str) -> None:
    for by in (None, judge()):
        text, code = shown(given, by)
        assert (text.splitlines()[-1], code) == (said, 0)


def stream(*sessions: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"type": "text_delta", "text": "4111-canary"}]
    events += [{"type": "session", "data": {"session": session}} for session in sessions[:-1]]
    return [*events, {"type": "done", "data": {"session": sessions[-1]}}]


def as_lines(events: list[Any]) -> bytes:
    return b"".join(written(event) + b"\n" for event in events)


def as_events(events: list[Any]) -> bytes:
    pieces = [b"event: %b\r\ndata: %b\r\n\r\n" % (event["type"].encode(), written(event)) for event in events]
    return b": ping\r\n\r\n" + b"".join(pieces) + b"data: [DONE]\r\n\r\n"


@pytest.mark.parametrize(
    ("write", "kind", "content_type", "number"),
    [(as_lines, "an NDJSON stream", "application/x-ndjson", 3), (as_events, "an SSE stream", "text/event-stream", 4)],
)
def test_of_a_stream_the_last_event_counts_as_for_a_client(write: Any, kind: str, content_type: str, number: int) -> None:
    mine = envelope({"step": 3})
    data = write(stream(envelope(), mine))
    found = find(data)
    assert found.what == f"{kind} of {number} events, {len(data):,} bytes"
    assert [site.where for site in found.sites] == ["event 3, done", "event 2, session"]
    assert (found.why, found.notes, found.is_answer) == ("the last event that carries one", (), True)
    assert found.winner is not None
    reply = Reply.of_answer(200, {"content-type": content_type}, data, sent_bytes=0)
    assert found.winner.member == reply.envelope == mine


def test_a_stream_that_was_cut_is_told_as_one() -> None:
    events = stream(envelope(), envelope())
    cut = find(as_lines(events[:-1]) + b'{"type":"do')
    assert [site.where for site in cut.sites] == ["event 2, session"]
    assert "No event ends the turn" in cut.notes[0]
    half = find(as_events(events[:-1]).replace(b"data: [DONE]\r\n\r\n", b"data: {"))
    assert half.notes[1] == "The last 7 bytes are no event, because no empty line ends them: the stream was cut."


def test_a_stream_that_ended_with_an_error_is_told_with_its_code() -> None:
    error = {"type": "error", "code": "session-conflict"}
    found = find(as_lines([*stream(envelope(), envelope())[:-1], error]))
    assert found.notes == ("The service ended the stream with the error session-conflict.",)


HEAD: Final = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nserver: x\r\n"


def test_what_curl_i_prints_is_read_with_its_head() -> None:
    data = HEAD + b"\r\n" + written({"data": {"session": envelope()}})
    assert find(data).what.startswith("an HTTP answer, 200: a JSON answer, ")
    request = b"POST /api/chat HTTP/1.1\nhost: x\n\n" + written({"messages": [], "data": {"session": envelope()}})
    assert find(request).what.startswith("an HTTP request: a JSON request of 0 messages, ")
    assert find(HEAD + b"\r\n" + as_lines(stream(envelope()))).what.startswith("an HTTP answer, 200: an NDJSON stream")


def test_a_header_and_a_cookie_are_read_by_the_carriers_themselves() -> None:
    token = envelope()["dcaf"]["token"].encode()
    cookie = CookieCarrier().write({"type": "http", "method": "GET", "headers": []}, [], token, life_s=60)
    assert cookie is not None
    for field, where in (
        (b"DCAF-Session: " + token, "header DCAF-Session"),
        (b"set-cookie: " + cookie[0][1], "cookie __Host-dcaf"),
        (b"Cookie: a=b; __Host-dcaf=" + token, "cookie __Host-dcaf"),
    ):
        for data in (HEAD + field + b"\r\n\r\n<p>a page</p>", field + b"\n"):
            found = find(data)
            assert found.winner is not None
            assert (found.winner.where, found.winner.token, found.why) == (
                where,
                token.decode(),
                "where the service names this carrier",
            )
    both = find(HEAD + b"DCAF-Session: " + token + b"\r\n\r\n" + written({"data": {"session": NEW}}))
    assert [(site.where, site is both.winner) for site in both.sites] == [("data.session", True), ("header DCAF-Session", False)]


def test_a_cookie_that_is_to_be_dropped_tells_to_start_over() -> None:
    cleared = CookieCarrier().clear({"type": "http", "method": "GET", "headers": []}, [])
    text, code = shown(HEAD + b"Set-Cookie: " + cleared[0][1] + b"\r\n\r\n")
    assert ("The service told the client to start over" in text, code) == (True, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "Standard input is empty."),
        (b" \n", "Standard input is empty."),
        (b"hello world", "This is neither a token, nor JSON, nor a stream of events."),
        (b"<html></html>", "This is neither a token, nor JSON, nor a stream of events."),
        (b"[1]", "This is JSON, and no object."),
        (b"\xef\xbb\xbf{}", "This begins with a byte order mark, or is no UTF-8."),
        ('{"data":{}}'.encode("utf-16"), "This begins with a byte order mark, or is no UTF-8."),
        ('{"data":{}}'.encode("utf-16-be"), "This begins with a byte order mark, or is no UTF-8."),
        (b'{"name":"caf\xe9"}', "This is no UTF-8: the byte 13 is in no character of it."),
        (b"\x1f\x8b\x08", "This is compressed."),
        (HEAD + b"content-encoding: br\r\n\r\n\x0b", "The body is compressed."),
        (b'{"data":', "400 malformed-json: unexpected end of data, at line 1, column 9."),
        (b'{"data":NaN}', "400 malformed-json: unexpected character"),
        (b'{"data":{"session":{}},"data":{"session":{}}}', "400 malformed-json: a member is repeated on the way to a session"),
        (
            b'{"messages":[' + b'{"data":{"session":{}}},' * 10_001 + b"0]}",
            "413 body-too-large: it has more sessions than are read",
        ),
        (b'{"a":[' + b"0," * 200_001 + b"0]}", "413 body-too-large: it has more braces"),
        ({"data": [1]}, "`data` is no object, and a session stands in one."),
        ({"data": {"session": None}}, "data.session is null, as if it were not there."),
        ({"messages": [{"data": {"session": {}}}]}, "messages[0].data.session is {}, as if it were not there."),
        ({"messages": []}, "There is no session in a JSON request of 0 messages, 15 bytes: neither `dcaf` nor `data.session`"),
        ({"step": 2}, "A plain object that was a session is one that nobody has sealed."),
        ({"code": "session-conflict"}, "session-conflict carries none, so the client keeps the one that it has."),
        (as_lines([{"type": "text_delta"}, {"type": "done"}]), "an NDJSON stream of 2 events, 38 bytes: no event carries one"),
        (b"data: {}\n\n", "an SSE stream of 1 event, 10 bytes: no event carries one"),
        (HEAD + b"\r\n", "There is no session in an HTTP answer, 200: no body: neither the header DCAF-Session nor"),
        (HEAD + b"\r\nBad Gateway", "an HTTP answer, 200: 11 bytes that are no JSON: neither the header"),
        (b"Cookie: __Host-dcaf=a; __Host-dcaf=b\n", "session-invalid, because there are several cookies of this name."),
        (b"DCAF-Session: " + b"a" * 9_000, "session-too-large, because the header is longer than 8 KiB."),
        pytest.param(KEY.text().encode(), "This is a key, or has one. It is a secret", id="a key, which is random"),
    ],
)
def test_wrong_input_is_named_and_the_remedy_with_it(inspect: Any, given: Any, said: str) -> None:
    code, out, complaint = inspect(given, key=None)
    assert (code, out) == (2, "")
    assert said in complaint
    assert complaint.startswith("dcaf: ")
    assert complaint.count("\n") == 1
    assert any(word in complaint for word in ("Give ", "curl --compressed", "Save it", "several", "longer"))


def test_a_token_of_a_megabyte_and_a_conversation_of_thousands_are_read() -> None:
    token = b"dcaf1s.k7.eyJh.%b.%b" % (b"e" * 1_000_000, b"A" * 43)
    text, code = shown(token)
    assert "1,000,059 bytes: over max_token_bytes, which is 262,144 where a service says nothing else" in text
    assert (code, len(text) < 1_000) == (0, True)
    messages = [{"data": {"session": None}}] * 4_000
    body = {"messages": [{"data": {"session": envelope()}}, *messages]}
    lines = block(shown(body)[0], "A JSON request")
    assert len(lines) == 23
    assert lines[-2].startswith("|-> messages[0].data.session ")
    assert lines[-1] == "`-- ... and 3,980 more            passed over"


def test_a_body_over_the_default_limit_is_read_and_said_to_be_refused() -> None:
    body = {"messages": [{"content": "x" * 4_200_000}], "data": {"session": envelope()}}
    text, code = shown(body, judge())
    assert "refuses this body: 413 body-too-large." in text
    assert code == 0


# What the token says


def test_claims_are_told_in_words_on_a_line_each() -> None:
    mine = envelope(age=timedelta(hours=2), lived=timedelta(days=3), sequence=3, subject="ada", version=4)
    sid = json.loads(shown_sid(mine))
    assert block(shown(mine)[0], "claims") == [
        "claims     nobody has verified this",
        "aud        shop",
        f"sid        {sid}",
        "seq        3: changed 3 times",
        "born       2025-12-28T22:00:00Z, 3 days and 2 hours ago",
        "iat        2025-12-31T22:00:00Z, 2 hours ago",
        "exp        2026-01-07T22:00:00Z, in 6 days and 22 hours",
        "sub        bound to a subject",
        "cid        bound to no conversation",
        "sv         version 4 of the application's schema",
    ]


def shown_sid(mine: dict[str, Any]) -> str:
    found = judge(subject="ada").verdict(mine).claims
    assert found is not None
    return json.dumps(found.sid)


def test_every_claim_has_words() -> None:
    whole = Claims("shop", "A" * 22, 1, NOW, NOW, NOW, "B" * 22, "C" * 22, 2, 3, "server", (1, 2))
    assert [name for name, _ in describe_claims(whole, NOW)] == list(Claims._fields)
    words = dict(describe_claims(whole, NOW))
    assert words["seq"] == "1: changed once"
    assert words["cid"] == "bound to a conversation"
    assert words["at"] == "the state is kept elsewhere: server"
    assert (words["ep"], words["ix"]) == ("epoch 3 of the subject", "an index of 2 keys")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3_599, "59 minutes and 59 seconds"),
        (7_200, "2 hours"),
        (90_061, "1 day and 1 hour"),
        (597_600, "6 days and 22 hours"),
        (400 * 86_400, "400 days"),
    ],
)
def test_a_time_is_said_in_its_two_largest_units(seconds: int, words: str) -> None:
    assert span(seconds) == words


def test_what_is_over_and_what_comes_from_the_future_is_said() -> None:
    claims = Claims("shop", "A" * 22, 1, NOW, NOW, NOW + 10)
    expired, tolerated, early = (dict(describe_claims(claims, NOW + at)) for at in (4 * 86_400, 40, -3_600))
    assert expired["exp"] == "2026-01-01T00:00:10Z, 3 days and 23 hours ago: it has expired"
    assert tolerated["exp"].endswith("30 seconds ago: it has expired, and is taken for 60 seconds more")
    assert early["iat"] == "2026-01-01T00:00:00Z, in 1 hour: the clock that sealed it is ahead of this one"
    assert moment(2**53 - 1, NOW) == "no time that a calendar has"


def test_the_token_is_measured_against_its_limit() -> None:
    mine = envelope({"note": "x" * 20_000})
    length = len(mine["dcaf"]["token"])
    line = block(shown(mine)[0], "token")[0]
    assert (
        line
        == f"token      dcaf1s (signed), key k7, {length:,} bytes: {length / 262_144:.1%} of max_token_bytes (262,144 by default)"
    )


def test_without_a_key_the_mirror_is_shown_by_names_and_sizes() -> None:
    assert block(shown(envelope())[0], "mirror") == [
        "mirror     3 keys; for display, no service reads it back",
        "|-- card   13 bytes",
        "|-- cart   18 bytes",
        "`-- step   1 byte",
    ]


# The verdict


def test_with_the_key_the_state_is_compared_with_the_mirror() -> None:
    mine = envelope() | {"step": 9, "admin": True}
    del mine["card"]
    text, code = shown({"data": {"session": mine}}, judge())
    assert block(text, "state") == [
        "state      3 keys",
        "|-- admin   4 bytes, planted: it is not in the state",
        "|-- card    13 bytes, not mirrored",
        "|-- cart    18 bytes, mirrored",
        "`-- step    1 byte, edited in the mirror",
        "The mirror is not what was sealed. It has no effect: only the token counts.",
    ]
    assert (code, "sealed by key k7" in text) == (0, True)


def test_a_mirror_that_javascript_wrote_is_no_edit_and_a_bool_for_a_number_is_one() -> None:
    mine = envelope({"price": 1.0, "big": 2**60, "a": {"x": 1, "y": 2}})
    rewritten = mine | {"price": 1, "a": {"y": 2, "x": 1}}
    assert "no effect" not in shown(rewritten, judge())[0]
    assert "price   3 bytes, edited in the mirror" in shown(mine | {"price": True}, judge())[0]


def test_a_token_alone_has_no_mirror_to_compare() -> None:
    text, _ = shown({"dcaf": envelope()["dcaf"]}, judge())
    assert block(text, "state") == [
        "state      3 keys; no mirror came with it",
        "|-- card   13 bytes",
        "|-- cart   18 bytes",
        "`-- step   1 byte",
    ]


def test_the_sid_of_the_log_is_told_so_that_the_two_can_be_joined() -> None:
    events: list[Any] = []
    service = mounted(Recorder(), keys=RING, subject=lambda _: "bob", clock=clock, on_event=events.append)
    mine = envelope(subject="ada")
    call(service, {"data": {"session": mine}})
    text, code = shown(mine, judge(subject="bob"))
    assert (events[0].reason, code) == ("sub", 1)
    assert f"log        sid={events[0].sid} in the log of the service" in text


@pytest.mark.parametrize(
    ("member", "by", "because"),
    [
        (tampered(envelope()), judge(), "session-invalid (400), because the token was changed, or sealed by another key"),
        (envelope(), judge("billing"), "because it says that it is for shop, and --audience is billing."),
        (envelope(subject="ada"), judge(subject="bob"), "because it is bound to another subject than --subject names."),
        (envelope(subject="ada"), judge(), "because it is bound to a subject: pass --subject."),
        (envelope(), judge(subject="ada"), "because it is bound to no subject, and --subject names one."),
        (envelope(conversation="c1"), judge(), "because it is bound to a conversation: pass --conversation."),
        ({"data": {"session": {"n": 1}}}, judge(), "session-unsigned (400), because it is a plain object without `dcaf`"),
        ({"data": {"session": 7}}, judge(), "session-malformed (400), because it is not an object."),
        ({"dcaf": {}}, judge(), "session-malformed (400), because `dcaf` has no string `token`."),
        (b"dcaf1s.cut", judge(), "because the token has not the shape of one"),
        ("dcaf1s.ä".encode(), judge(), "because the token has other characters than ASCII."),
        (envelope(keys=Keyring(Key.generate("k9"))), judge(), "because no key of the ring has the id"),
        (
            envelope(age=timedelta(days=11)),
            judge(),
            "session-ended (409), because it was not used for longer than the idle timeout.",
        ),
        (envelope(age=timedelta(seconds=-90)), judge(), "because it was sealed in the future"),
        (b"dcaf1s.k7.eyJh.%b.%b" % (b"e" * 262_144, b"A" * 43), judge(), "session-too-large (413), because the token is longer"),
    ],
)
def test_a_refusal_is_explained_to_the_operator(member: Any, by: Judge, because: str) -> None:
    text, code = shown(member, by)
    (refused,) = (line for line in text.splitlines() if line.startswith("Refused: "))
    assert (code, because in refused) == (1, True)


@pytest.mark.parametrize(
    ("member", "by", "said"),
    [
        (tampered(envelope()), judge(), "A service with these keys would refuse it, and tell the client to start over."),
        (
            b"dcaf1s.k7.eyJh.%b.%b" % (b"e" * 262_144, b"A" * 43),
            judge(),
            "A service with these keys would refuse it, and tell the client nothing about its session.",
        ),
        (b"dcaf1s.cut", None, "Any service would refuse it, and tell the client to start over."),
    ],
    ids=["start over", "go on", "any service"],
)
def test_what_a_refusal_would_tell_the_client_is_said_as_what_would_be(member: Any, by: Judge | None, said: str) -> None:
    assert shown(member, by)[0].splitlines()[-1] == said


def test_an_unknown_key_asks_whether_the_keys_are_the_service_s() -> None:
    text, _ = shown(envelope(keys=Keyring(Key.generate("k9"))), judge())
    assert text.splitlines()[-1] == "Is DCAF_KEYS the service's?"


def test_an_ephemeral_key_is_told_as_one_that_lives_in_its_process() -> None:
    keys = Keyring.ephemeral()
    text, _ = shown(envelope(keys=keys), judge())
    assert text.splitlines()[-1] == (
        f"The key {keys.active.kid} is ephemeral by its name: such a key lives in its process only, and nothing else can verify it."
    )
    assert "ephemeral" not in shown(envelope(keys=keys), judge(keys=keys))[0]


@pytest.mark.parametrize(
    "member", [{"data": {"session": {"n": 1}}}, {"data": {"session": "x"}}, b"dcaf1s.cut", {"dcaf": {"token": 1}}]
)
def test_what_no_key_can_save_is_refused_without_one(member: Any) -> None:
    text, code = shown(member)
    assert (code, text.splitlines()[-2].startswith("Refused with any key: session-")) == (1, True)


def test_a_state_that_is_no_json_is_refused_and_not_a_traceback() -> None:
    claims = Claims("shop", "A" * 22, 1, NOW, NOW, NOW + 60)
    for state in (b"nonsense", b"[1,2]"):
        token = SIGNED.seal(KEY, "shop", claims.write(), Payload(state))
        text, code = shown(token, judge())
        assert (code, "because the state is no JSON object" in text) == (1, True)
    text, code = shown(SIGNED.seal(KEY, "shop", b'{"aud":"shop"}', Payload(b"{}")), judge())
    assert (code, "because the claims are not those of the protocol" in text) == (1, True)
    assert "claims     cannot be read\n" in text


def test_a_session_of_a_newer_schema_is_verified_all_the_same() -> None:
    assert shown(envelope(version=3), judge())[1] == 0


def test_an_encrypted_session_shows_its_claims_with_the_key_alone() -> None:
    secret = envelope(encrypt=True, age=timedelta(days=11))
    without, code = shown(secret)
    assert ("claims     cannot be read without the key" in without, "shop" in without, code) == (True, False, 0)
    expired, code = shown(secret, judge())
    assert ("claims     sealed by key k7\naud        shop" in expired, "it has expired" in expired, code) == (True, True, 1)
    text, code = shown(envelope(encrypt=True), judge())
    assert ("|-- card   13 bytes" in text, code) == (True, 0)


# The command


def test_the_command_reads_key_audience_subject_and_conversation(inspect: Any) -> None:
    mine = sealed(STATE, keys=RING, audience="shop", subject="ada", conversation="c1")
    whom = ["--audience", "shop", "--subject", "ada", "--conversation", "c1"]
    code, out, _ = inspect({"messages": [{"data": {"session": mine}}]}, *whom)
    assert (code, out.splitlines()[-1]) == (0, "Verified: it is good for shop.")
    assert inspect(mine, "--audience", "shop", "--subject", "ada")[0] == 1
    code, out, _ = inspect(mine, key=None)
    assert (code, "Not verified: anybody could have written this." in out) == (0, True)


def test_wrong_settings_are_said_before_anything_is_shown(inspect: Any) -> None:
    for arguments, key, said in (
        ([], KEY.text(), "pass --audience"),
        (["--audience", ""], KEY.text(), "audience= must name this service"),
        (["--audience", "shop"], "secret", "What is in DCAF_KEYS is not a dcaf key"),
    ):
        code, out, complaint = inspect(envelope(), *arguments, key=key)
        assert (code, out, said in complaint) == (2, "", True)


def test_a_terminal_is_told_what_to_paste(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("DCAF_KEYS", raising=False)
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"new\n")))
    assert main(["inspect"]) == 0
    assert capsys.readouterr().err.startswith("Paste a token")


def test_a_real_pipe_carries_a_body_and_the_exit_code() -> None:
    mine = sealed({"größe": 2}, keys=fixed_keys(), audience="shop")
    body = json.dumps({"messages": [{"data": {"session": mine}}]}).encode()
    environment = {"PATH": "/usr/bin:/bin", "DCAF_KEYS": fixed_keys().active.text(), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([DCAF, "inspect", "--audience", "shop"], input=body, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"`-- gr\xf6\xdfe   1 byte, mirrored" in done.stdout
    assert done.stdout.endswith(b"Verified: it is good for shop.\n")


def test_the_guide_s_picture_is_what_is_printed() -> None:
    pictures = re.findall(r"^```text\n(A JSON.*?)\n```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    then, keys = FrozenClock(), fixed_keys()
    turns = [sealed(state, keys=keys, audience="shop", sequence=number, clock=then) for number, state in enumerate(STEPS, 1)]
    messages = [{"role": "assistant", "data": {"session": turn}} for turn in turns]
    body = json.dumps({"messages": [*messages, {"role": "user", "content": "pay", "data": {"session": None}}]})
    then.tick(timedelta(hours=2))
    edited = body.replace('"step": 2', '"step": 9').encode()
    text, _ = shown(edited, Judge(keys, Binding("shop"), then), now=int(then()))
    assert [re.sub(r"[\w-]{22}", "...", picture) for picture in pictures] == [re.sub(r"[\w-]{22}", "...", text)]


# What is never printed


def test_no_state_no_key_no_subject_and_no_whole_token_is_printed(inspect: Any) -> None:
    canary = "canary-c3a9"
    mine = sealed({"a": canary, "b": {canary: [canary]}}, keys=RING, audience="shop", subject=canary, conversation=canary)
    token = mine["dcaf"]["token"]
    bodies: list[Any] = [
        mine,
        token.encode(),
        {"messages": [{"content": canary, "data": {"session": mine}}], "data": {"session": mine | {"a": canary}, canary: canary}},
        {"data": {"session": {"a": canary}}},
        {"data": {"session": canary}},
        {"data": {"session": {"dcaf": {"token": canary}}}},
        {"data": {"session": {"dcaf": canary}}},
        {"code": canary, "detail": canary, "data": {"session": NEW}},
        {"type": "error", "code": canary},
        as_lines([{"type": "text_delta", "text": canary}, *stream(mine)]),
        as_events(stream(mine, mine)),
        b"HTTP/1.1 200 "
        + canary.encode()
        + b"\r\nset-cookie: __Host-dcaf="
        + token.encode()
        + b"\r\nx: "
        + canary.encode()
        + b"\r\n\r\n",
        b'{"data":"' + canary.encode(),
        canary.encode(),
        KEY.text().encode(),
        written({"data": {"session": tampered(mine)}}),
    ]
    segments = token.split(".")[2:]
    for body in bodies:
        for whom in ([], ["--subject", canary, "--conversation", canary], ["--subject", "bob"]):
            for key in (None, KEY.text()):
                _, out, complaint = inspect(body, "--audience", "shop", *whom, key=key)
                for secret in (canary, KEY.text(), encode(KEY.secret), *segments):
                    assert secret not in out + complaint


def test_control_the_canaries_are_in_what_was_given() -> None:
    mine = envelope({"a": "canary-c3a9"})
    assert "canary-c3a9" in written(mine).decode()
    assert mine["dcaf"]["token"].split(".")[3] in written(mine).decode()


def test_a_name_moves_no_cursor_and_a_deep_mirror_is_no_traceback() -> None:
    deep = b"[" * 900 + b"]" * 900
    mine = written(envelope() | {"\x1b[2Jx": 1, "y" * 99: 2})
    for by in (None, judge()):
        text, code = shown(mine.replace(b'"step":2', b'"step":' + deep), by)
        assert code == 0
        assert "\x1b" not in text
        assert "\\x1b[2Jx" in text
        assert "y" * 60 + "... " in text
        assert ("nested too deep" in text) == (by is None)


# It agrees with the service

AT: Final = ["data.session", *(f"messages[{index}].data.session" for index in range(4))]
SEALED: Final = {at: envelope({"at": at}, keys=RING, audience="shop") for at in AT}


def member(at: str) -> st.SearchStrategy[Any]:
    ill = [tampered(SEALED[at]), {"plain": 1}, 7, "x", False, [], {"dcaf": {}}, NEW]
    return st.one_of(st.just(SEALED[at]), st.just(SEALED[at]), st.sampled_from([None, {}]), st.sampled_from(ill))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Requests as clients write them: sessions anywhere, members in any order, escapes and white space."""

    def data(at: str) -> Any:
        return draw(st.one_of(member(at).map(lambda found: {"x": 1, "session": found}), st.sampled_from([None, {}, 3])))

    messages = [
        {"content": "hi", "data": data(at)} if draw(st.booleans()) else draw(st.sampled_from([{}, "data", 0])) for at in AT[1:]
    ]
    members = [("messages", draw(st.sampled_from([messages, messages, None]))), ("data", data(AT[0])), ("thread_id", "ü")]
    chosen = dict(draw(st.permutations(members))[: draw(st.integers(1, 3))])
    text = json.dumps(chosen, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans()))
    return text.replace('"session"', '"sess\\u0069on"').encode() if draw(st.booleans()) else text.encode()


async def tells(scope: Any, receive: Any, send: Any) -> None:
    """A service that answers with what it was given."""
    answer = json.dumps({"state": dict(current_session())}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer, "more_body": False})


SERVICE: Final = mounted(tells, keys=RING, clock=clock)


def served(body: bytes, service: Any = SERVICE) -> Any:
    """What the service makes of a body: the state, or the code of its refusal."""
    answer = call(service, body).json
    return answer.get("code") or answer["state"]


def judged(body: bytes, by: Judge) -> tuple[str, Any]:
    """The place that inspect calls the winner, and what it says the service makes of it."""
    try:
        winner = find(body).winner
    except ConfigurationError as error:
        codes = [word.strip(":.") for word in str(error).split() if word.strip(":.") in ("malformed-json", "body-too-large")]
        return "", codes[0] if codes else {}
    assert winner is not None
    if winner.token == "new":
        return winner.where, {}
    verdict = by.verdict(winner.member)
    return winner.where, verdict.refusal.code if verdict.refusal else verdict.state


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies())
def test_the_winner_is_the_session_that_the_service_opens(body: bytes) -> None:
    where, outcome = judged(body, judge())
    assert served(body) == outcome
    if isinstance(outcome, dict) and outcome:
        assert outcome == {"at": where}


def test_control_a_rule_that_takes_the_first_message_differs() -> None:
    body = written({"messages": [{"data": {"session": SEALED[at]}} for at in AT[1:]]})
    assert served(body) == {"at": AT[4]} == {"at": judged(body, judge())[0]}
    first = find(body).sites[-1]
    assert judge().verdict(first.member).state == {"at": AT[1]} != served(body)


def is_read_as_a_body(body: bytes) -> bool:
    """Not as text in another encoding, as lines, or as an envelope."""
    return body.startswith(b"{") and b"\n" not in body and body.decode(errors="replace").encode() == body


def test_a_body_that_somebody_harmed_is_judged_as_the_service_judges_it() -> None:
    ring = hostile_bodies.RING
    service, by = mounted(tells, keys=ring, clock=clock), judge(keys=ring)
    agreed = {"malformed-json": 0, "session-invalid": 0, "session-unsigned": 0, "empty": 0}
    for body in hostile_bodies.bodies(250, seed=7):
        if is_read_as_a_body(body):
            outcome = judged(body, by)[1]
            assert served(body, service) == outcome, body
            agreed[outcome or "empty"] = agreed.get(outcome or "empty", 0) + 1
    assert all(agreed.values()), agreed


def test_a_pointer_has_no_state_to_compare_the_mirror_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session service keeps the state: the mirror is shown, and is no fault."""
    host = SessionHost(keys=RING, audience="shop", store=SessionService("memory://", app="shop"), clock=clock)

    async def main() -> Any:
        async with host.turn() as turn:
            turn.session["step"] = 1
        return turn.envelope

    envelope_ = anyio.run(main)
    lines, code = report(json.dumps({"data": {"session": envelope_}}).encode(), judge(), now=int(clock()))
    text = "\n".join(lines)
    assert (code, "planted" in text, "not what was sealed" in text) == (0, False, False)
    assert "the state is kept elsewhere: server" in text
    assert "Verified: it is good for shop." in text
