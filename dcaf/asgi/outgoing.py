"""What every carrier of an answer shares: the session of the turn, whether it must go out, and its envelope.

What a reader gets wrong: the Session object is the truth, not the answer's text. A plain object that the application put
at ``data.session`` is overwritten, unless the application named the route with ``plain=``: otherwise an endpoint that
wraps user input in ``{"data": ...}`` would sign it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.types import Scope

from dcaf.asgi.locate import JSONText
from dcaf.asgi.planted import clear, may_plant
from dcaf.asgi.route import advise_plain, name_route
from dcaf.asgi.terminal import is_done, may_be_done
from dcaf.asgi.threads import off_the_loop
from dcaf.asgi.turn import Turn, Turns
from dcaf.core.errors import MalformedJSON, StateError
from dcaf.core.seal import Pieces
from dcaf.core.session import Session
from dcaf.core.state import RESERVED

BEFORE_THE_ANSWER: Final = (
    "Change the session before the endpoint gives its answer, and not in a background task; in a stream or on a WebSocket before "
    "the event that ends the turn, and not on a route that pass_streams= names"
)


class Outgoing:
    """The session of one turn on its way out.

    Args:
        scope: Of the request, for the name of the route.
        turn: The turn.
        turns: Who seals it.
        adopts: Whether the application's own plain ``data.session`` is the new state, where nothing else changed it.
    """

    _in_time: str = BEFORE_THE_ANSWER
    _envelope: Pieces | None = None
    _adopted = False
    _changed = False

    def __init__(self, scope: Scope, turn: Turn, turns: Turns, *, adopts: bool) -> None:
        self.scope: Scope = scope
        self.session: Session = turn.session
        self.turns: Turns = turns
        self.adopts: bool = adopts
        self._turn = turn
        self._path: str = scope["path"]

    @property
    def is_due(self) -> bool:
        """Whether an answer must carry the session: one came in, or something was stored."""
        return self._turn.arrived or self._envelope is not None or self.is_changed

    @property
    def is_changed(self) -> bool:
        """Whether the session is not what arrived or was last sealed, or can no longer be written."""
        try:
            return self.session.is_modified
        except StateError:
            return True

    @property
    def is_sent(self) -> bool:
        """Whether the client has the session as it is now, or none is due."""
        return not self.is_due or (self._envelope is not None and not self.is_changed)

    @property
    def is_private(self) -> bool:
        """Whether the answer was computed from a session; one that rests with its client has to be looked at for that."""
        carrier = self._turn.carrier
        rests = carrier is not None and carrier.rests
        return (self._turn.arrived and not rests) or self.session._state.is_touched

    async def envelope(self) -> Pieces:
        """The envelope of the session as it is now, in pieces; the same as before where nothing changed since.

        Raises:
            SessionConflict, SessionUnavailable: As the keeper.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if self._envelope is None or self.is_changed:
            self._changed = self._changed or (self.adopts and self.is_changed and not self._adopted)
            self._envelope = await self.turns.seal(self._turn)
            self._adopted = False
        return self._envelope

    async def completed(self, text: JSONText) -> bytes | None:
        """A text with the session at its ``data.session``; None where none is due, or it has no room for one.

        Raises as ``envelope``.
        """
        if _plain_session(text.value) is not None:
            self._heed(text)
        frame = text.frame() if self.is_due else None
        if frame is None:
            return None
        before, after = frame
        return b"".join((before, *await self.envelope(), after))

    async def cleared(self, data: bytes, clear: Callable[[bytes], bytes] = clear) -> bytes:
        """A text without the sessions that the application put into it, which count on a route that ``plain=`` names alone.

        Args:
            data: What no session of ours stands in.
            clear: Takes them out.

        Raises:
            MalformedJSON: A client could read one, and it cannot be taken out.
        """
        if not may_plant(data) or self.turns.is_plain(self.scope):
            return data
        found = await off_the_loop(clear, data)
        if found != data:
            self._tell_overwritten()
        return found

    async def event(self) -> bytes:
        """The text of an event that carries nothing but the session. Raises as ``envelope``."""
        return b"".join((b'{"type":"session","data":{"session":', *await self.envelope(), b"}}"))

    async def ends_turn(self, name: str | None, data: bytes) -> tuple[bool, JSONText | None]:
        """Whether an event ends the turn, and its parsed text, where it was parsed and is JSON."""
        if self.turns.terminal is is_done and not may_be_done(name, data):
            return False, None
        text = await off_the_loop(parsed, data)
        return self.turns.terminal(name, None if text is None else text.value), text

    def look_back(self) -> None:
        """Tell the operator of a change that no answer carried: it came too late, or the answer had no room for it."""
        if self.is_changed:
            self.lose()

    def lose(self) -> None:
        """Tell the operator that a change was sealed and did not arrive, or was not sealed at all."""
        self.turns.events.lost(name_route(self.scope), self._in_time)

    def _tell_overwritten(self) -> None:
        self.turns.events.overwritten(name_route(self.scope), advise_plain(self.scope, self._path))

    def _heed(self, text: JSONText) -> None:
        """Take the application's own object for the new state on a route that was named, and tell of it on any other."""
        if not self.adopts:
            self._tell_overwritten()
        elif not (self._changed or self.session.is_modified):
            # Read once more by the parser that keeps integers of any size, so that too large ones are refused and not rounded.
            found = _plain_session(json.loads(text.data))
            if isinstance(found, dict) and RESERVED not in found:
                self.session._state.replace(found)
                self._adopted = True


def parsed(data: bytes) -> JSONText | None:
    """A text, if a strict parser takes it."""
    try:
        return JSONText.read(data)
    except MalformedJSON:
        return None


def error_text(code: str, **members: Any) -> bytes:
    """The text of an error, as an event or a frame."""
    return orjson.dumps({"type": "error", "code": code, **members})


def _plain_session(value: Any) -> Any:
    data = value.get("data") if isinstance(value, dict) else None
    return data.get("session") if isinstance(data, dict) else None
