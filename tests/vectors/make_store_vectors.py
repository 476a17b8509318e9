"""The claims ``ep`` and ``at`` on their way through a service, with a store and without, and the hints beside the token."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import EXCHANGE
from tests.vectors.make_request_vectors import ENDED, INVALID
from tests.vectors.make_vectors import LIFE, NOW
from tests.vectors.making import OK, STATE, came, problem, turn, written
from tests.vectors.play import Vector

BODY: Final = '{"data":{"session":@}}'
READ: Final = '{"data":{"session":%}}'
CARRIED: Final = '{"data":{"session":@},"ok":true}'
STEP: Final = ["set", "wizard_step", 3]
THREE: Final = '{"wizard_step":3}'
KEPT: Final = '{"wizard_step":2,"big":9007199254740993}'
UNAVAILABLE: Final = problem(
    "Service Unavailable", 503, "The session cannot be checked right now. Try again.", "session-unavailable", drops=False
)
SUPERSEDED: Final = problem(
    "Conflict",
    409,
    "The session has moved on. Go on with the newest one, which another tab may have, or start a new one.",
    "session-superseded",
    drops=False,
)
REUSED: Final = problem(
    "Unprocessable Content",
    422,
    "The Idempotency-Key was used for another request. Send a new one.",
    "idempotency-key-reused",
    drops=False,
)
CONFLICT: Final = problem(
    "Conflict", 409, "The session has moved on, or another turn of it is in progress.", "session-conflict", drops=False
)
RETRY: Final = ["retry-after", "1"]
EPOCH: Final = {"store": {"epoch": 7}}
SERVER: Final = {"store": {"place": "server", "state": KEPT, "revision": 5}}
RESTARTS: Final = {"on_refused": "restart"}
NEWER: Final = f'{{"wizard_step":3,"dcaf":{{"token":"{came(THREE, seq=2)[0]}","expires_at":1789604740}}}}'


def of(name: str, client: str | None, *acts: Any, **more: Any) -> Vector:
    """A session came in at the top, and the application does some acts and answers."""
    return turn(name, BODY, client, **{"application": READ, "acts": [*acts, *OK], **more})


def refused(name: str, client: str, code: str, status: int, **more: Any) -> Vector:
    """One that came in is refused."""
    return turn(name, BODY, client, code=code, status=status, **more)


def without_store() -> list[Vector]:
    """Tokens that say that something is kept, at a service that keeps nothing."""

    def unavailable(name: str, **claims: Any) -> Vector:
        return refused(name, UNAVAILABLE, "session-unavailable", 503, token=came("{}", **claims), out=[RETRY])

    return [
        unavailable("an epoch, and no store", ep=7),
        unavailable("kept at the server, and no store", at="server"),
        unavailable("kept at a place of a later release, and no store", at="elsewhere"),
        refused(
            "kept at the server, and of somebody else",
            INVALID,
            "session-invalid",
            400,
            token=came("{}", at="server", subject="eve"),
            service={"subject": "ada"},
        ),
        refused(
            "kept at the server, and over",
            ENDED,
            "session-ended",
            409,
            token=came("{}", at="server"),
            service={"now": NOW + LIFE.idle_s + 60},
        ),
        refused(
            "kept at the server, and a service that starts anew drops nothing either",
            UNAVAILABLE,
            "session-unavailable",
            503,
            token=came("{}", at="server"),
            service=RESTARTS,
        ),
        turn(
            "kept at the server, in a header that is not dropped",
            "",
            UNAVAILABLE,
            candidate="header",
            headers=[["dcaf-session", "@@"]],
            code="session-unavailable",
            status=503,
            token=came("{}", at="server"),
            service={"carriers": ["header"]},
        ),
    ]


def with_store() -> list[Vector]:
    """Epochs that a store has, and states that it keeps."""
    kept = came("{}", at="server", seq=5)
    return [
        of("of the current epoch, it rests", CARRIED, token=came(ep=7), service=EPOCH, states=[STATE]),
        of("of the current epoch, and changed", CARRIED, STEP, token=came(ep=7), service=EPOCH, states=[THREE]),
        refused("of an epoch of before", ENDED, "session-ended", 409, token=came(ep=6), service=EPOCH),
        refused("of none, where epochs are kept", ENDED, "session-ended", 409, service=EPOCH),
        turn(
            "a new session has the epoch",
            "{}",
            CARRIED,
            candidate=None,
            acts=[["set", "a", 1], *OK],
            service=EPOCH,
            states=['{"a":1}'],
        ),
        of(
            "kept at the server, it rests",
            CARRIED,
            token=kept,
            application=f'{{"data":{{"session":{KEPT}}}}}',
            reads=KEPT,
            service=SERVER,
            states=["{}"],
        ),
        of(
            "kept at the server, and changed",
            CARRIED,
            STEP,
            token=kept,
            application=f'{{"data":{{"session":{KEPT}}}}}',
            reads=KEPT,
            service=SERVER,
            states=["{}"],
        ),
        of("moved to the server", CARRIED, service={"store": {"place": "server", "state": STATE, "revision": 1}}, states=["{}"]),
        turn(
            "a new session is kept at the server",
            "{}",
            CARRIED,
            candidate=None,
            acts=[["set", "a", 1], *OK],
            service={"store": {"place": "server", "state": "{}", "revision": 0}},
            states=["{}"],
        ),
    ]


def hints() -> list[Vector]:
    """What stands beside the token for the client's eyes."""
    bad, ended = came(subject="eve"), {"now": NOW + LIFE.idle_s + 60}
    lines = [["start", 200, [["content-type", "application/x-ndjson"]]], ["checkpoint"], ["send", '{"type":"done"}\n'], ["end"]]
    restarted: Vector = {"service": RESTARTS, "reads": "{}", "application": '{"data":{"session":{}}}'}
    conflict = {"refuses": "session-conflict", "envelope": NEWER}
    told = CONFLICT[:-1]
    found = [
        of("restarted: one that is none", CARRIED, token=bad, states=["{}"], **restarted),
        of("restarted: and changed", CARRIED, ["set", "a", 1], token=bad, states=['{"a":1}'], **restarted),
        of("restarted: one that is over", CARRIED, **{**restarted, "service": {**RESTARTS, **ended}}, states=["{}"]),
        turn("restarted: a plain one", '{"data":{"session":{"a":1}}}', CARRIED, acts=OK, states=["{}"], **restarted),
        turn(
            "restarted: in every envelope of a stream",
            BODY,
            '{"type":"session","data":{"session":@}}\n{"data":{"session":@},"type":"done"}\n',
            acts=lines,
            token=bad,
            states=["{}"],
            **restarted,
        ),
        of("not restarted: the wish for a new one", CARRIED, token=("new", "{}"), states=["{}"], service=RESTARTS),
    ]
    assert all(vector["client"]["body"].count('"restarted":"session-') == 1 + ("stream" in vector["name"]) for vector in found[:-1])
    assert '"restarted"' not in found[-1]["client"]["body"]
    return [
        *found,
        refused(
            "retry: the answer was lost, and this was not done",
            f'{told},"applied":false,"data":{{"session":@}}}}',
            "session-conflict",
            409,
            service={"store": {**conflict, "applied": False}},
            out=[RETRY],
        ),
        refused(
            "no retry: it was done",
            f'{told},"applied":true,"data":{{"session":@}}}}',
            "session-conflict",
            409,
            service={"store": {**conflict, "applied": True}},
        ),
        refused(
            "no retry: a part of it was done",
            f'{told},"applied":"partial","data":{{"session":@}}}}',
            "session-conflict",
            409,
            service={"store": {**conflict, "applied": "partial"}},
        ),
        refused(
            "a turn in progress", CONFLICT, "session-conflict", 409, service={"store": {"refuses": "session-conflict"}}, out=[RETRY]
        ),
        refused("not the newest", SUPERSEDED, "session-superseded", 409, service={"store": {"refuses": "session-superseded"}}),
        refused(
            "one key for two requests",
            REUSED,
            "idempotency-key-reused",
            422,
            service={"store": {"refuses": "idempotency-key-reused"}},
        ),
        of(
            "another turn came first",
            CONFLICT,
            STEP,
            status=409,
            states=[],
            service={"store": {"refuses_commit": "session-conflict"}},
        ),
        turn(
            "another turn came first, and a stream has begun",
            BODY,
            '{"type":"error","code":"session-conflict"}\n',
            application=READ,
            acts=[lines[0], STEP, *lines[2:]],
            states=[],
            service={"store": {"refuses_commit": "session-conflict"}},
        ),
    ]


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    return {"stores.json": written(EXCHANGE, [*without_store(), *with_store(), *hints()])}
