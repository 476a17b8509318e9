"""Sessions in a header and in a cookie: what is read, what is sent, and what the client is told to drop."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import EXCHANGE
from tests.vectors.make_request_vectors import ENDED, INVALID, TOKEN_TOO_LARGE
from tests.vectors.make_vectors import LIFE, NOW, Sealed
from tests.vectors.making import JSON_TYPE, OK, STATE, answer, came, turn, written
from tests.vectors.play import Vector

STEP: Final = ["set", "wizard_step", 3]
THREE: Final = '{"wizard_step":3}'
HEADER: Final = {"carriers": ["body", "header"]}
COOKIE: Final = {"carriers": ["body", "cookie"]}
ALL: Final = {"carriers": ["body", "header", "cookie"]}
BY_HEADER: Final = ["dcaf-session", "@@"]
BY_COOKIE: Final = ["cookie", "__Host-dcaf=@@"]
EXPOSED: Final = ["access-control-expose-headers", "DCAF-Session"]
VARIES: Final = ["vary", "Cookie"]
NO_STORE: Final = ["cache-control", "no-store"]
DELETED: Final = ["set-cookie", "__Host-dcaf=null; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; HttpOnly; SameSite=Lax; Secure"]
NEW: Final = ["dcaf-session", "new"]
TEXT: Final = answer("hello", kind="text/plain")
OTHER: Final = Sealed("another session", "dcaf1s").token(STATE)
WORN: Final = NOW - LIFE.idle_s // 10 - 1


def beside(name: str, client: str | None, *headers: list[str], acts: Any = (), **more: Any) -> Vector:
    """A request without a body, whose session comes beside it."""
    found = {"body": "", "answers": TEXT, "reads": STATE, **more}
    opened = None if found["reads"] == "{}" else _first(headers)
    body, answers = found.pop("body"), found.pop("answers")
    return turn(name, body, client, candidate=opened, headers=headers, acts=[*acts, *answers], **found)


def _first(headers: Any) -> str:
    """Which of the two carriers counts."""
    return "header" if any(name == "dcaf-session" for name, _ in headers) else "cookie"


def without(vector: Vector, *absent: str) -> Vector:
    """The vector, in whose answer some headers are not."""
    found = [header for header, _ in vector["client"]["headers"] if header in absent]
    assert not found, (vector["name"], vector["client"])
    return vector


def in_header() -> list[Vector]:
    """The header ``DCAF-Session``."""
    return [
        beside("header: it rests, and goes out again", "hello", BY_HEADER, service=HEADER, states=[STATE], out=[EXPOSED, NO_STORE]),
        beside("header: changed", "hello", BY_HEADER, acts=[STEP], service=HEADER, states=[THREE], out=[EXPOSED]),
        beside(
            "header: a JSON answer to it passes as it is",
            '{"ok":true}',
            BY_HEADER,
            acts=[STEP],
            answers=OK,
            service=HEADER,
            states=[THREE],
        ),
        beside(
            "header: others are exposed already",
            "hello",
            BY_HEADER,
            answers=answer("hello", kind="text/plain", headers=[["access-control-expose-headers", "X-A, X-B"]]),
            service=HEADER,
            out=[["access-control-expose-headers", "X-A, X-B, DCAF-Session"]],
        ),
        without(
            beside(
                "header: 500",
                "hello",
                BY_HEADER,
                acts=[STEP],
                answers=answer("hello", kind=None, status=500),
                status=500,
                service=HEADER,
                states=[],
            ),
            "dcaf-session",
        ),
        beside(
            "header: changed after the start, it is too late",
            "hello",
            BY_HEADER,
            acts=[*TEXT[:1], STEP],
            answers=TEXT[1:],
            service=HEADER,
            states=[STATE],
        ),
        beside("header: the wish for a new one", "hello", NEW, service=HEADER, reads="{}", states=["{}"]),
        without(
            beside("header: empty is none", "hello", ["dcaf-session", ""], service=HEADER, reads="{}", states=[]), "dcaf-session"
        ),
        beside(
            "header: a new session goes there where the answer is a text",
            "hello",
            acts=[["set", "a", 1]],
            service=HEADER,
            reads="{}",
            states=['{"a":1}'],
            out=[EXPOSED, NO_STORE],
        ),
        without(
            beside(
                "header: a new session goes into a JSON body",
                '{"data":{"session":@},"ok":true}',
                acts=[["set", "a", 1]],
                answers=OK,
                service=HEADER,
                reads="{}",
                states=['{"a":1}'],
            ),
            "dcaf-session",
        ),
        beside(
            "header: a stream to it passes as it is",
            '{"type":"done"}\n',
            BY_HEADER,
            acts=[STEP],
            answers=answer('{"type":"done"}\n', kind="application/x-ndjson"),
            service=HEADER,
            states=[THREE],
        ),
        refused(
            "header: another key", INVALID, ["dcaf-session", "@@"], token=came(subject="eve"), service=HEADER, out=[NEW, EXPOSED]
        ),
        refused(
            "header: over",
            ENDED,
            BY_HEADER,
            code="session-ended",
            status=409,
            service={**HEADER, "now": NOW + LIFE.idle_s + 60},
            out=[NEW],
        ),
        refused("header: twice", INVALID, BY_HEADER, BY_HEADER, service=HEADER, out=[NEW]),
        without(
            refused(
                "header: too long",
                TOKEN_TOO_LARGE,
                ["dcaf-session", "x" * 3_801],
                code="session-too-large",
                status=413,
                service=HEADER,
            ),
            "dcaf-session",
        ),
        without(
            refused(
                "header: malformed, in a body that is none",
                INVALID,
                BY_HEADER,
                body='{"data":{"session":{"dcaf":{"token":"x"}}}}',
                candidate="/data/session",
                service=HEADER,
            ),
            "dcaf-session",
        ),
    ]


def refused(name: str, client: str, *headers: list[str], code: str = "session-invalid", status: int = 400, **more: Any) -> Vector:
    """A request that is refused."""
    found = {"candidate": _first(headers), "body": "", **more}
    return turn(name, found.pop("body"), client, headers=headers, code=code, status=status, **found)


def in_cookie() -> list[Vector]:
    """The cookie ``__Host-dcaf``."""
    site = ["sec-fetch-site", "cross-site"]
    host, origin = ["host", "a.example"], ["origin", "https://b.example"]
    two = ["cookie", "__Host-dcaf=@@; __Host-dcaf=@@"]
    return [
        without(beside("cookie: it rests, and is not set", "hello", BY_COOKIE, service=COOKIE, states=[]), "set-cookie", "vary"),
        without(
            beside("cookie: read", "hello", BY_COOKIE, acts=[["read", "a"]], service=COOKIE, states=[], out=[VARIES, NO_STORE]),
            "set-cookie",
        ),
        beside("cookie: changed", "hello", BY_COOKIE, acts=[STEP], service=COOKIE, states=[THREE], out=[VARIES, NO_STORE]),
        beside(
            "cookie: worn, it is set anew",
            "hello",
            BY_COOKIE,
            token=came(iat=WORN, born=WORN),
            service=COOKIE,
            states=[STATE],
            out=[VARIES],
        ),
        beside("cookie: cleared, it is deleted", "hello", BY_COOKIE, acts=[["clear"]], service=COOKIE, states=[], out=[DELETED]),
        beside(
            "cookie: among others, in quotes",
            "hello",
            ["cookie", 'a=b;__Host-dcaf="@@" ; c=d'],
            acts=[STEP],
            service=COOKIE,
            states=[THREE],
        ),
        without(
            beside("cookie: another's name", "hello", ["cookie", "dcaf=@@"], service=COOKIE, reads="{}", states=[]), "set-cookie"
        ),
        without(
            beside(
                "cookie: 500",
                "hello",
                BY_COOKIE,
                acts=[STEP],
                answers=answer("hello", kind=None, status=500),
                status=500,
                service=COOKIE,
                states=[],
            ),
            "set-cookie",
        ),
        without(
            beside(
                "cookie: not read of another site",
                "hello",
                BY_COOKIE,
                site,
                acts=[["read", "a"]],
                service=COOKIE,
                reads="{}",
                states=[],
            ),
            "set-cookie",
        ),
        beside(
            "cookie: read of another site on GET",
            "hello",
            BY_COOKIE,
            site,
            acts=[["read", "a"]],
            method="GET",
            service=COOKIE,
            states=[],
        ),
        without(
            beside("cookie: not read of another origin", "hello", BY_COOKIE, host, origin, service=COOKIE, reads="{}", states=[]),
            "set-cookie",
        ),
        beside(
            "cookie: of the same origin",
            "hello",
            BY_COOKIE,
            host,
            ["origin", "https://a.example"],
            acts=[STEP],
            service=COOKIE,
            states=[THREE],
        ),
        beside("cookie: several are started anew", "hello", two, service=COOKIE, reads="{}", states=[], out=[DELETED]),
        beside(
            "cookie: one that is over is started anew",
            "hello",
            BY_COOKIE,
            acts=[["set", "a", 1]],
            service={**COOKIE, "now": NOW + LIFE.idle_s + 60},
            reads="{}",
            states=['{"a":1}'],
        ),
        beside(
            "cookie: one that is none is started anew",
            "hello",
            ["cookie", "__Host-dcaf=x"],
            service=COOKIE,
            reads="{}",
            states=[],
            out=[DELETED],
        ),
        refused(
            "cookie: refused, where the service says so",
            INVALID,
            ["cookie", "__Host-dcaf=x"],
            service={**COOKIE, "on_refused": "reject"},
            out=[DELETED],
        ),
    ]


def among() -> list[Vector]:
    """Several carriers in one request, and bodies that are none."""
    body = '{"data":{"session":@}}'
    other = ["dcaf-session", OTHER]
    bound = came(conversation="t-7")
    named = {"conversation": "/thread_id"}
    return [
        without(
            turn(
                "the body before the header",
                body,
                '{"data":{"session":@},"ok":true}',
                application='{"data":{"session":%}}',
                acts=[STEP, *OK],
                headers=[JSON_TYPE, BY_HEADER],
                service=ALL,
                states=[THREE],
            ),
            "dcaf-session",
        ),
        without(
            beside(
                "the header before the cookie",
                "hello",
                BY_HEADER,
                BY_COOKIE,
                acts=[STEP],
                service=ALL,
                states=[THREE],
                out=[EXPOSED],
            ),
            "set-cookie",
        ),
        refused("two sessions", INVALID, other, BY_COOKIE, service=ALL, out=[NEW, DELETED]),
        refused(
            "two sessions, one in the body", INVALID, JSON_TYPE, other, body=body, candidate="/data/session", service=ALL, out=[NEW]
        ),
        beside(
            "what does not verify beside one that does is passed over",
            "hello",
            BY_HEADER,
            ["cookie", "__Host-dcaf=x"],
            service=ALL,
            states=[STATE],
        ),
        refused("no other is tried", INVALID, ["dcaf-session", "x"], BY_COOKIE, service=ALL, out=[NEW]),
        turn(
            "a new one in the body drops the others",
            '{"data":{"session":{"dcaf":{"token":"new"}}}}',
            '{"data":{"session":@},"ok":true}',
            application='{"data":{"session":{}}}',
            reads="{}",
            headers=[JSON_TYPE, BY_HEADER, BY_COOKIE],
            service=ALL,
            states=["{}"],
            out=[NEW, DELETED],
        ),
        turn(
            "where the body is no carrier its sessions are taken out",
            '{"data":{"session":{"is_admin":true},"x":1},"messages":[{"data":{"session":{"dcaf":{"token":"y"}}}}]}',
            '{"ok":true}',
            candidate="header",
            application='{"data":{"x":1},"messages":[{"data":{}}]}',
            headers=[JSON_TYPE, BY_HEADER],
            reads=STATE,
            service={"carriers": ["header"]},
            states=[STATE],
        ),
        without(
            beside(
                "a request that names no conversation leaves the session of one alone",
                "hello",
                BY_HEADER,
                token=bound,
                service={**HEADER, **named},
                reads="{}",
                states=[],
            ),
            "dcaf-session",
        ),
        beside(
            "and cannot change it",
            None,
            BY_HEADER,
            acts=[STEP],
            token=bound,
            service={**HEADER, **named},
            reads="{}",
            raised="NotCarriedError",
        ),
        turn(
            "one that names it has the session",
            '{"thread_id":"t-7"}',
            '{"ok":true}',
            candidate="header",
            headers=[JSON_TYPE, BY_HEADER],
            token=bound,
            reads=STATE,
            service={**HEADER, **named},
            states=[STATE],
        ),
    ]


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    return {"carriers.json": written(EXCHANGE, [*in_header(), *in_cookie(), *among()])}
