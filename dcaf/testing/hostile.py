"""Clients that do to a session what clients do: change how it is written, or send one that they should not.

>>> envelope = {"price": 1.0, "note": None, "dcaf": {"token": "dcaf1s.k7.e30", "expires_at": 1789000000}}
>>> HARMLESS["strip nulls"](envelope)
b'{"price":1.0,"dcaf":{"token":"dcaf1s.k7.e30","expires_at":1789000000}}'
>>> HARMLESS["camelCase keys"](envelope)
b'{"price":1.0,"note":null,"dcaf":{"token":"dcaf1s.k7.e30","expiresAt":1789000000}}'
>>> MISUSES["swap users"].expected({"subject"}), MISUSES["echo an older turn"].expected({"subject"})
('session-invalid', None)

What a reader gets wrong: not every misuse is noticed, and the table says so. An older turn is served at level L0, because a
server without memory knows no newer one; a test that expects a refusal there tests a promise that nobody made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, TypeAlias, get_args

from dcaf.client.arguments import check, check_function, refuse
from dcaf.client.envelopes import is_sealed
from dcaf.testing.client import SessionClient
from dcaf.testing.conversation import Echo, encode_json, user_message
from dcaf.testing.reply import Reply, cut, held

Level: TypeAlias = Literal["L0", "L1", "L2"]
"""How much the server remembers: nothing; an epoch for each subject; the newest number of each session."""

Play: TypeAlias = Callable[[SessionClient, SessionClient, str], Reply]
"""A client, another one, and what both say -> the answer that decides."""

FAILED: Final = 500
"""From here on an answer carries no session (docs/protocol.md, section 3)."""

EXPONENT_FROM: Final = 1e21
"""From here on JavaScript writes a double with an exponent, below it as an integer (ECMA-262, Number::toString)."""

SHOWN_AS_TEXT: Final = re.compile(r"-?\d{16,20}")
"""Integers that the mirror shows as strings, because JavaScript would round them."""


@dataclass(frozen=True, slots=True)
class Misuse:
    """What a client does with sessions that are genuine, or were.

    Attributes:
        level: The first level that detects it.
        status: HTTP status of the answer where it is detected.
        code: Code of that answer.
        setting: The argument of ``SessionMiddleware`` without which no level detects it; None where none is needed.
        play: Does it, on any service that changes its session with every turn, and gives the answer that decides. The other
            client belongs to another user, or is in another conversation of the same one, whichever is swapped; the rest do
            not use it. It raises ValueError where a turn that leads there is refused or carries no session.

    Raises:
        ConfigurationError: One of them is of a wrong type.
    """

    level: Level
    status: int
    code: str
    setting: Literal["subject", "conversation"] | None
    play: Play

    def __post_init__(self) -> None:
        check_level(self.level)
        check("status", self.status, int, "an HTTP status")
        check("code", self.code, str, "the code of a refusal")
        check("setting", self.setting, (str, NoneType), 'one of "subject" and "conversation", or None')
        check_function("play", self.play, "a function of a client, another one, and what both say")

    def expected(self, settings: Container[str] = (), *, level: Level = "L0") -> str | None:
        """Code of the answer that a service must give; None where it is served like any other turn.

        Args:
            settings: Which of ``"subject"`` and ``"conversation"`` the service sets.
            level: Of the service.

        Raises:
            ConfigurationError: An argument is of a wrong type.
        """
        if isinstance(settings, str | bytes | bytearray | memoryview) or not isinstance(settings, Container):
            refuse("settings", settings, 'names of settings: {"subject", "conversation"}')
        check_level(level)
        is_detected = level >= self.level and (self.setting is None or self.setting in settings)
        return self.code if is_detected else None


def check_level(level: object) -> None:
    """Refuse what is no level.

    Raises:
        ConfigurationError: It is none.
    """
    if level not in get_args(Level):
        refuse("level", level, f"one of {', '.join(map(repr, get_args(Level)))}")


def aborted(client: SessionClient, text: str, *, at: int = 0) -> Reply:
    """Say something, and lose the answer: the client goes on with the session that it holds then, and has said nothing.

    The service finishes its answer; it is the way back that breaks off.

    Args:
        client: Whose answer is cut.
        text: What the user says.
        at: How many bytes of the answer arrive; of a WebSocket only whole frames count.

    Raises:
        ConfigurationError: The answer is not that long, or an argument is of a wrong type.
    """
    check("client", client, SessionClient, "a SessionClient")
    before, said = client.envelope, len(client.messages)
    reply = client.send(text)
    arrived = cut(reply.content, at)
    client.envelope = before if reply.status >= FAILED else held(reply.content_type, arrived, before)
    del client.messages[said:]
    return reply


def _change_values(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A change of every value at any depth, the innermost first."""

    def changed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return change({key: changed(item) for key, item in value.items()})
        return change([changed(item) for item in value] if isinstance(value, list) else value)

    return changed


def _change_objects(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    return _change_values(lambda value: change(value) if isinstance(value, dict) else value)


def _camel_case(name: str) -> str:
    return re.sub(r"(?<=[A-Za-z0-9])_([a-z])", lambda found: found[1].upper(), name)


def _shorten_float(value: Any) -> Any:
    is_short = isinstance(value, float) and value.is_integer() and abs(value) < EXPONENT_FROM
    return int(value) if is_short else value


def _round_integer(value: Any) -> Any:
    if isinstance(value, str) and SHOWN_AS_TEXT.fullmatch(value):
        return int(float(value))
    return int(float(value)) if type(value) is int else value


def _change_value(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    return f"{value}!" if isinstance(value, str) else not value


def _edit_mirror(envelope: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: item for key, item in envelope.items() if key != "dcaf"}
    return {**_change_values(_change_value)(shown), "is_admin": True, "dcaf": {**envelope["dcaf"], "expires_at": 9_999_999_999}}


def _keep_declared(envelope: Mapping[str, Any]) -> dict[str, Any]:
    known = ("token", "expires_at")
    return {"dcaf": {name: envelope["dcaf"][name] for name in known if name in envelope["dcaf"]}}


def _escape(envelope: Mapping[str, Any]) -> bytes:
    """All that is not ASCII, as Python and PHP do it, what could be HTML, as Go and .NET do it, and the token's first letter."""
    text = json.dumps(envelope, separators=(",", ":")).replace('"dcaf', '"\\u0064caf')
    return re.sub("[/<>&']", lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def _as_text(change: Callable[[Mapping[str, Any]], Any]) -> Echo:
    return lambda envelope: encode_json(change(envelope))


def _for_envelopes_only(echo: Echo) -> Echo:
    """A way to write an envelope that refuses what is none."""

    def checked(envelope: Mapping[str, Any]) -> bytes:
        if not isinstance(envelope, Mapping) or not is_sealed(envelope):
            refuse("envelope", envelope, "an envelope: what stands at data.session of an answer, with its token")
        return echo(envelope)

    return checked


_WRITERS: Final[Mapping[str, Echo]] = MappingProxyType(
    {
        "reorder keys": _as_text(_change_objects(lambda members: dict(reversed(members.items())))),
        "sort keys": _as_text(_change_objects(lambda members: dict(sorted(members.items())))),
        "1.0 becomes 1": _as_text(_change_values(_shorten_float)),
        "1 becomes 1.0": _as_text(_change_values(lambda value: float(value) if type(value) is int else value)),
        "round integers to doubles": _as_text(_change_values(_round_integer)),
        "escape unicode": _escape,
        "unescape unicode": encode_json,
        "strip nulls": _as_text(_change_objects(lambda members: {key: item for key, item in members.items() if item is not None})),
        "camelCase keys": _as_text(_change_objects(lambda members: {_camel_case(key): item for key, item in members.items()})),
        "drop unknown siblings": _as_text(_keep_declared),
        "edit the mirror": _as_text(_edit_mirror),
        "drop the mirror": _as_text(lambda envelope: {"dcaf": {"token": envelope["dcaf"]["token"]}}),
    }
)

HARMLESS: Final[Mapping[str, Echo]] = MappingProxyType({name: _for_envelopes_only(echo) for name, echo in _WRITERS.items()})
"""What a client may do to the envelope that it echoes: name -> the JSON text it sends. Each must change nothing."""


def _require_session(reply: Reply) -> dict[str, Any]:
    """The session of an answer that leads to a misuse."""
    if reply.code is not None or reply.envelope is None:
        raise ValueError(f"the turn before was answered with {reply.status} and {reply.code or 'no session'}: nothing to misuse")
    return reply.envelope


def _echo_older_turn(client: SessionClient, _: SessionClient, text: str) -> Reply:
    older, *_newer = [_require_session(client.send(text)) for _ in range(3)]
    client.envelope = older
    return client.send(text)


def _swap_sessions(client: SessionClient, other: SessionClient, text: str) -> Reply:
    client.envelope = _require_session(other.send(text))
    return client.send(text)


def _truncate_token(client: SessionClient, _: SessionClient, text: str) -> Reply:
    envelope = _require_session(client.send(text))
    token = envelope["dcaf"]["token"]
    client.envelope = {**envelope, "dcaf": {**envelope["dcaf"], "token": token[: len(token) // 2]}}
    return client.send(text)


def _truncate_body(client: SessionClient, _: SessionClient, text: str) -> Reply:
    _require_session(client.send(text))
    body = client.asked(user_message(text), {})
    return client.post(cut(body, len(body) // 2))


def _send_twice(client: SessionClient, _: SessionClient, text: str) -> Reply:
    _require_session(client.send(text))
    body = client.asked(user_message(text), {})
    _require_session(client.post(body))
    return client.post(body)


def _lose_answer(client: SessionClient, _: SessionClient, text: str) -> Reply:
    _require_session(client.send(text))
    _require_session(aborted(client, text))
    return client.send(text)


def _for_clients_only(play: Play) -> Play:
    """A misuse that refuses what is no client."""

    @wraps(play)
    def checked(client: SessionClient, other: SessionClient, text: str) -> Reply:
        for name, value in (("client", client), ("other", other)):
            check(name, value, SessionClient, "a SessionClient")
        return play(client, other, text)

    return checked


MISUSES: Final[Mapping[str, Misuse]] = MappingProxyType(
    {
        "echo an older turn": Misuse("L2", 409, "session-superseded", None, _for_clients_only(_echo_older_turn)),
        "swap users": Misuse("L0", 400, "session-invalid", "subject", _for_clients_only(_swap_sessions)),
        "swap conversations": Misuse("L0", 400, "session-invalid", "conversation", _for_clients_only(_swap_sessions)),
        "truncate the token": Misuse("L0", 400, "session-invalid", None, _for_clients_only(_truncate_token)),
        "truncate the body": Misuse("L0", 400, "malformed-json", None, _for_clients_only(_truncate_body)),
        "double-send": Misuse("L2", 409, "session-conflict", None, _for_clients_only(_send_twice)),
        "abort mid-stream": Misuse("L2", 409, "session-conflict", None, _for_clients_only(_lose_answer)),
    }
)
"""What a client may do with sessions: name -> what it does, and the level and the setting that detect it."""
