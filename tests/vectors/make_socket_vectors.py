"""Conversations on a WebSocket: what the application reads of each frame, and what the client gets before it sends the next."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import CONNECTION
from tests.vectors.make_vectors import LIFE, NOW
from tests.vectors.making import DROPPED, STATE, came, connection, written
from tests.vectors.play import Vector

CAME: Final = '{"data":{"session":@}}'
READ: Final = '{"data":{"session":%}}'
DONE: Final = ["frame", '{"type":"done"}']
CARRIED: Final = '{"data":{"session":@},"type":"done"}'
OWN: Final = '{"type":"session","data":{"session":@}}'
STEP: Final = ["set", "wizard_step", 3]
THREE: Final = '{"wizard_step":3}'
FOUR: Final = '{"wizard_step":4}'
NEWER: Final = f'{{"wizard_step":3,"dcaf":{{"token":"{came(THREE, seq=2)[0]}","expires_at":1789604740}}}}'
BUSY: Final = '{"type":"error","code":"session-conflict"}'


def says(frame: str, client: list[Any], *acts: Any, application: str | None = READ, reads: str = STATE, **more: Any) -> Vector:
    """A frame that the application reads."""
    return {"frame": frame, "client": client, "acts": list(acts), "application": application, "reads": reads, **more}


def refused(frame: str, *client: Any, **more: Any) -> Vector:
    """A frame that it does not read."""
    return {"frame": frame, "client": list(client), **more}


def error(code: str, *, drops: bool) -> str:
    """An error frame, by hand."""
    return f'{{"type":"error","code":"{code}"{"," + DROPPED if drops else ""}}}'


def sockets() -> list[Vector]:
    """Whole conversations."""
    go_on = '{"n":2}'
    return [
        connection("untouched, it rests", says(CAME, [CARRIED], DONE, states=[STATE])),
        connection("changed", says(CAME, [CARRIED], STEP, DONE, states=[THREE])),
        connection(
            "a frame without a session goes on with that of the connection",
            says(CAME, [CARRIED], STEP, DONE, states=[THREE]),
            says(go_on, [CARRIED], ["set", "wizard_step", 4], DONE, application=go_on, reads=THREE, states=[FOUR]),
        ),
        connection(
            "an older one that comes back counts",
            says(CAME, [CARRIED], STEP, DONE, states=[THREE]),
            says(CAME, [CARRIED], DONE, states=[STATE]),
        ),
        connection(
            "in the last message that has one",
            says(
                '{"messages":[{"data":{"session":{"a":1}}},{"data":{"session":@}}]}',
                [CARRIED],
                DONE,
                application='{"messages":[{"data":{}},{"data":{"session":%}}]}',
            ),
        ),
        connection(
            "nothing came in and nothing was stored", says("{}", ['{"type":"done"}'], DONE, application="{}", reads="{}", states=[])
        ),
        connection("a new session", says("{}", [CARRIED], ["set", "a", 1], DONE, application="{}", reads="{}", states=['{"a":1}'])),
        connection(
            "the wish for a new one",
            says(CAME, [CARRIED], DONE),
            says(
                '{"data":{"session":{"dcaf":{"token":"new"}}}}',
                [CARRIED],
                DONE,
                application='{"data":{"session":{}}}',
                reads="{}",
                states=["{}"],
            ),
        ),
        connection(
            "frames between",
            says(
                CAME,
                ["hello", '{"type":"token"}', CARRIED],
                ["frame", "hello"],
                ["frame", '{"type":"token"}'],
                STEP,
                DONE,
                states=[THREE],
            ),
        ),
        connection("a checkpoint", says(CAME, [OWN, CARRIED], STEP, ["checkpoint"], DONE, states=[THREE])),
        connection(
            "data that has no room",
            says(CAME, [OWN, '{"type":"done","data":[]}'], STEP, ["frame", '{"type":"done","data":[]}'], states=[THREE]),
        ),
        connection(
            "a session of the application's own",
            says(
                CAME,
                ['{"data":{"session":null}}', CARRIED],
                ["frame", '{"data":{"session":{"own":1}}}'],
                ["frame", '{"data":{"session":{"own":1}},"type":"done"}'],
                states=[STATE],
            ),
        ),
        connection(
            "a second frame before the end",
            says(CAME, [], STEP),
            refused(go_on, BUSY),
            refused(CAME, BUSY),
        ),
        connection("what is no JSON passes", says("hello", ["hello"], ["frame", "hello"], application="hello", reads="{}")),
        connection(
            "a plain session",
            refused('{"data":{"session":{"a":1}}}', error("session-unsigned", drops=True)),
            says(CAME, [CARRIED], DONE),
        ),
        connection(
            "one that is none",
            says(CAME, [CARRIED], STEP, DONE),
            refused('{"data":{"session":{"dcaf":{"token":"x"}}}}', error("session-invalid", drops=True)),
            says(go_on, [CARRIED], DONE, application=go_on, reads=THREE, states=[THREE]),
        ),
        connection("one that is over", refused(CAME, error("session-ended", drops=True)), service={"now": NOW + LIFE.idle_s + 60}),
        connection(
            "of somebody else",
            refused(CAME, error("session-invalid", drops=True)),
            service={"subject": "eve"},
            token=came(subject="ada"),
        ),
        connection("NaN", refused('{"n":NaN}', error("malformed-json", drops=False)), says(CAME, [CARRIED], DONE)),
        connection("data twice", refused('{"data":{},"data":{"session":@}}', error("malformed-json", drops=False))),
        connection(
            "over the limit", refused('{"x":"123"}', error("body-too-large", drops=False), 1009), service={"max_body_bytes": 10}
        ),
        connection(
            "a token over its limit",
            refused(CAME, error("session-too-large", drops=False), 1009),
            token=came('{"x":"' + "x" * 600 + '"}'),
            service={"max_token_bytes": 800},
        ),
        connection("the service closes after a change", says(CAME, [OWN, 1000], STEP, ["close", 1000], states=[THREE])),
        connection("the service closes without one", says(CAME, [1001], ["close", 1001], states=[])),
        connection("in binary", says(CAME, [CARRIED], DONE, is_binary=True)),
        connection("refused in binary", refused('{"n":NaN}', error("malformed-json", drops=False), is_binary=True)),
        connection(
            "encrypted",
            says(CAME, [CARRIED], DONE, application='{"data":{"session":{}}}'),
            token=came(suite="dcaf1e"),
            service={"encrypt": True},
        ),
        connection(
            "a plain route",
            says(
                CAME,
                ['{"data":{"session":{"b":1}}}', CARRIED],
                ["frame", '{"data":{"session":{"b":1}}}'],
                ["frame", '{"data":{"session":{"c":1}},"type":"done"}'],
                states=['{"c":1}'],
            ),
            service={"plain": ["/api/chat"]},
        ),
        connection(
            "restarted: in the turn that started it, and in no later one",
            says(CAME, [CARRIED], DONE, application='{"data":{"session":{}}}', reads="{}", states=["{}"]),
            says(go_on, [CARRIED], DONE, application=go_on, reads="{}", states=["{}"]),
            token=came(subject="eve"),
            service={"on_refused": "restart"},
        ),
        connection(
            "kept at the server, and no store",
            refused(CAME, error("session-unavailable", drops=False)),
            says(go_on, ['{"type":"done"}'], DONE, application=go_on, reads="{}"),
            token=came("{}", at="server"),
        ),
        connection(
            "a re-issue",
            refused(CAME, '{"type":"error","code":"session-conflict","applied":false,"data":{"session":@}}', states=[THREE]),
            service={"store": {"refuses": "session-conflict", "envelope": NEWER, "applied": False}},
        ),
        connection(
            "another turn came first",
            says(CAME, [BUSY], STEP, DONE, states=[]),
            service={"store": {"refuses_commit": "session-conflict"}},
        ),
        connection(
            "the header of the handshake is the first session",
            says("{}", [CARRIED], STEP, DONE, application="{}", states=[THREE]),
            headers=[["dcaf-session", "@@"]],
            service={"carriers": ["body", "header"]},
        ),
    ]


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    return {"sockets.json": written(CONNECTION, sockets())}
