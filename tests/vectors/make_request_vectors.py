"""Requests, each with the candidate that is opened, the body that the application reads, and the refusal that is sent instead."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import EXCHANGE
from tests.vectors.make_vectors import NOW, SECOND
from tests.vectors.making import JSON_TYPE, came, problem, turn, written
from tests.vectors.play import Vector

UNCHANGED: Final = '{"ok":true}'
CARRIED: Final = '{"data":{"session":@},"ok":true}'
UNSIGNED: Final = problem(
    "Bad Request",
    400,
    "The session carries no seal. Send back the session object of the last answer, or none.",
    "session-unsigned",
    drops=True,
)
MALFORMED: Final = problem(
    "Bad Request",
    400,
    "The session is not an object with a token. Send back the session object of the last answer, or none.",
    "session-malformed",
    drops=True,
)
INVALID: Final = problem(
    "Bad Request", 400, "The session was not sealed by this service for this caller.", "session-invalid", drops=True
)
ENDED: Final = problem("Conflict", 409, "The session has ended. Start a new one.", "session-ended", drops=True)
NOT_JSON: Final = problem(
    "Bad Request",
    400,
    "The body is not strict JSON: UTF-8 without a byte order mark, finite numbers, no lone surrogates, moderate depth, and no "
    "repeated member on the way to a session.",
    "malformed-json",
    drops=False,
)
BODY_TOO_LARGE: Final = problem(
    "Content Too Large", 413, "The JSON body is larger than this service accepts.", "body-too-large", drops=False
)
TOKEN_TOO_LARGE: Final = problem(
    "Content Too Large", 413, "The session's token is larger than this service accepts.", "session-too-large", drops=False
)
ENCODED: Final = problem(
    "Unsupported Media Type", 415, "Send the body without a Content-Encoding.", "unsupported-content-encoding", drops=False
)
BIG: Final = '{"a":9007199254740993,"b":-9007199254740993,"c":18446744073709551615,"d":-9223372036854775808,"e":9007199254740991}'
WHITE: Final = (0x09, 0x0A, 0x0D, 0x20)
SKIPPED: Final = (
    *(0x00, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0x20),
    *range(0x80, 0x8B),
    *(0x9A, 0x9F, 0xA0, 0xA8, 0xA9, 0xAF, 0xBB, 0xBE, 0xBF, 0xC2, 0xE1, 0xE2, 0xE3, 0xEF, 0xFE, 0xFF),
)
PLAIN: Final = b'{"data":{"session":{"a":1}}}'


def read() -> list[Vector]:
    """Requests that are let in."""
    body = '{"data":{"session":@}}'
    own = came('{"wizard_step":2,"dcaf":{"used":["k1"]}}')
    secret = came(suite="dcaf1e")
    bound = came(subject="ada", conversation="t-7")
    named = {"subject": "ada", "conversation": "/thread_id"}
    return [
        turn("no session", '{"messages":[]}', UNCHANGED, candidate=None),
        turn("at the top", body, CARRIED, application='{"data":{"session":%}}'),
        turn(
            "in the last message that has one",
            '{"messages":[{"data":{"session":{"old":1}}},{"data":{"session":@}},{"data":{"session":{}}}],"n":1}',
            CARRIED,
            candidate="/messages/1/data/session",
            application='{"messages":[{"data":{}},{"data":{"session":%}},{"data":{}}],"n":1}',
        ),
        turn(
            "the top before the messages",
            '{"messages":[{"data":{"session":{"dcaf":{"token":"x"}}}}],"data":{"id":7,"session":@}}',
            CARRIED,
            application='{"messages":[{"data":{}}],"data":{"id":7,"session":%}}',
        ),
        turn(
            "a session that nobody signed, where a signed one counts",
            '{"data":{"session":@},"messages":[{"data":{"session":{"is_admin":true}}}]}',
            CARRIED,
            application='{"data":{"session":%},"messages":[{"data":{}}]}',
        ),
        turn(
            "the mirror, edited and spelled with spaces",
            '{ "data": { "session": { "wizard_step": 99, "dcaf": { "token": "@@", "expires_at": 1 } }, "x": 1.0 } }',
            CARRIED,
            application='{ "data": { "session": %, "x": 1.0 } }',
        ),
        turn(
            "hints that come back, edited",
            '{"data":{"session":{"dcaf":{"token":"@@","expires_at":"never","restarted":"session-ended","retry":true,"other":[1]}}}}',
            CARRIED,
            application='{"data":{"session":%}}',
        ),
        turn(
            "integers are exact for the application, and strings in the mirror",
            '{"data":{"session":{"a":"9007199254740993","dcaf":{"token":"@@"}}}}',
            CARRIED,
            application='{"data":{"session":%}}',
            token=came(BIG),
            states=[BIG],
        ),
        turn(
            "an integer of more than 64 bits",
            body,
            CARRIED,
            application='{"data":{"session":%}}',
            token=came('{"a":18446744073709551616,"b":1.0}'),
        ),
        turn(
            "without the library's own member",
            body,
            CARRIED,
            application='{"data":{"session":{"wizard_step":2}}}',
            reads='{"wizard_step":2}',
            token=own,
        ),
        turn(
            "encrypted, and nothing mirrored",
            body,
            CARRIED,
            application='{"data":{"session":{}}}',
            token=secret,
            service={"encrypt": True},
        ),
        turn(
            "encrypted, and one key mirrored",
            body,
            CARRIED,
            application='{"data":{"session":{"b":2}}}',
            token=came('{"a":1,"b":2}', suite="dcaf1e"),
            service={"encrypt": True, "mirror": ["b"]},
        ),
        turn(
            "encrypted, and both suites are accepted",
            body,
            "",
            application='{"data":{"session":%}}',
            token=secret,
            acts=[["start", 500, []], ["end"]],
            status=500,
            service={"accept_both": True},
        ),
        turn(
            "of a service whose clock has fractions, to the last of them",
            body,
            CARRIED,
            application='{"data":{"session":%}}',
            token=came(iat=NOW - 604_800, born=NOW - 604_800),
            service={"now": NOW + 60.999},
        ),
        turn(
            "the wish for a new one",
            '{"data":{"session":{"a":1,"dcaf":{"token":"new"}}}}',
            CARRIED,
            application='{"data":{"session":{}}}',
            reads="{}",
            states=["{}"],
        ),
        turn(
            "a plain one that is ignored",
            '{"data":{"session":{"is_admin":true}}}',
            CARRIED,
            application='{"data":{"session":{}}}',
            reads="{}",
            states=["{}"],
            service={"unsigned": "ignore"},
        ),
        turn(
            "bound to a subject and a conversation",
            '{"thread_id":"t-7","data":{"session":@}}',
            CARRIED,
            application='{"thread_id":"t-7","data":{"session":%}}',
            token=bound,
            service=named,
        ),
        turn("on GET", body, CARRIED, application='{"data":{"session":%}}', method="GET"),
        turn(
            "whatever the Content-Type says",
            body,
            CARRIED,
            application='{"data":{"session":%}}',
            headers=[["content-type", "application/x-www-form-urlencoded"]],
        ),
        turn("a form", "data.session=1&session={}", UNCHANGED, candidate=None, headers=[["content-type", "text/plain"]]),
        turn("white space alone", " \n\t ", UNCHANGED, candidate=None),
        turn(
            "200,000 of braces, brackets and commas, most of them in a string",
            [['{"x":"', 1], [",", 199_999], ['"}', 1]],
            UNCHANGED,
            candidate=None,
        ),
        turn(
            "10,000 messages with a session",
            [['{"messages":[', 1], ['{"data":{"session":null}},', 9_999], ['{"data":{"session":{}}}]}', 1]],
            UNCHANGED,
            candidate=None,
            application=[['{"messages":[', 1], ['{"data":{}},', 9_999], ['{"data":{}}]}', 1]],
        ),
        turn("of just the bytes that are read", '{"x":"12"}', UNCHANGED, candidate=None, service={"max_body_bytes": 10}),
        *(
            turn(f"{code:02X} before it is the beginning of no JSON", bytes([code]) + PLAIN, UNCHANGED, candidate=None)
            for code in (0x01, 0x08, 0x0E, 0x1B, 0x21, 0x7F, 0x8B, 0xC0, 0xF0)
        ),
    ]


def refused() -> list[Vector]:
    """Requests that are refused, with the whole answer."""
    body = '{"data":{"session":@}}'

    def of(name: str, text: Any, client: str, code: str, status: int = 400, **more: Any) -> Vector:
        found = {"candidate": None, **more} if status in (413, 415) or code == "malformed-json" else more
        return turn(name, text, client, code=code, status=status, **found)

    closing = [["connection", "close"]]
    return [
        of("a plain session", PLAIN, UNSIGNED, "session-unsigned"),
        of("a list", '{"data":{"session":[]}}', MALFORMED, "session-malformed"),
        of("a token that is null", '{"data":{"session":{"dcaf":{"token":null}}}}', MALFORMED, "session-malformed"),
        of("a token in Unicode", '{"data":{"session":{"dcaf":{"token":"é"}}}}', INVALID, "session-invalid"),
        of("a token that is none", '{"data":{"session":{"dcaf":{"token":"x"}}}}', INVALID, "session-invalid"),
        of("an envelope of another key", body, INVALID, "session-invalid", token=came(key=SECOND)),
        of("a token whose mac is another's", '{"data":{"session":{"dcaf":{"token":"@@A"}}}}', INVALID, "session-invalid"),
        of("another suite", body, INVALID, "session-invalid", token=came(suite="dcaf1e")),
        of("a session of somebody else", body, INVALID, "session-invalid", token=came(subject="eve"), service={"subject": "ada"}),
        of("a session of nobody", body, INVALID, "session-invalid", service={"subject": "ada"}),
        of(
            "a session of another conversation",
            '{"thread_id":"t-8","data":{"session":@}}',
            INVALID,
            "session-invalid",
            token=came(conversation="t-7"),
            service={"conversation": "/thread_id"},
        ),
        of(
            "a conversation that is empty",
            '{"thread_id":""}',
            INVALID,
            "session-invalid",
            candidate=None,
            service={"conversation": "/thread_id"},
        ),
        of("a session of the future", body, INVALID, "session-invalid", token=came(iat=NOW + 61)),
        of("a state that is a list", body, INVALID, "session-invalid", token=came("[1]")),
        of("a session that is over", body, ENDED, "session-ended", 409, service={"now": NOW + 604_801}),
        of("a session of an unknown schema", body, ENDED, "session-ended", 409, token=came(sv=2), service={"version": 1}),
        of(
            "no other is tried",
            '{"messages":[{"data":{"session":@}},{"data":{"session":{"dcaf":{"token":"x"}}}}]}',
            INVALID,
            "session-invalid",
            candidate="/messages/1/data/session",
        ),
        of(
            "one byte over the limit",
            '{"x":"123"}',
            BODY_TOO_LARGE,
            "body-too-large",
            413,
            service={"max_body_bytes": 10},
            out=closing,
        ),
        of(
            "200,001 of braces, brackets and commas",
            [['{"x":"', 1], [",", 200_000], ['"}', 1]],
            BODY_TOO_LARGE,
            "body-too-large",
            413,
            out=closing,
        ),
        of(
            "10,001 messages with a session",
            [['{"messages":[', 1], ['{"data":{"session":null}},', 10_000], ['{"data":{"session":{}}}]}', 1]],
            BODY_TOO_LARGE,
            "body-too-large",
            413,
            out=closing,
        ),
        of(
            "a token over its limit",
            body,
            TOKEN_TOO_LARGE,
            "session-too-large",
            413,
            candidate="/data/session",
            token=came('{"x":"' + "x" * 600 + '"}'),
            service={"max_token_bytes": 800},
            out=closing,
        ),
        of(
            "data twice",
            '{"data":{},"data":{"session":@}}',
            NOT_JSON,
            "malformed-json",
        ),
        of(
            "a body that is encoded",
            "{}",
            ENCODED,
            "unsupported-content-encoding",
            415,
            headers=[JSON_TYPE, ["content-encoding", "br"]],
            out=closing,
        ),
        *(_passed_over(code) for code in SKIPPED),
    ]


def _passed_over(code: int) -> Vector:
    name, data = f"{code:02X} before it", bytes([code]) + PLAIN
    if code in WHITE:
        return turn(name, data, UNSIGNED, code="session-unsigned", status=400)
    return turn(name, data, NOT_JSON, code="malformed-json", status=400, candidate=None)


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    return {"requests.json": written(EXCHANGE, [*read(), *refused()])}
