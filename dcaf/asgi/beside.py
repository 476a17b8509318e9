"""An answer whose session goes beside its body: into a header or a cookie, when the answer starts.

What a reader gets wrong: nothing is held back, so what changes the session after the start is too late. The operator is told
of it, as of everything that is lost.
"""

from __future__ import annotations

from typing import Final

import orjson
from starlette.types import Message, Scope, Send

from dcaf.asgi.carriers import Carrier
from dcaf.asgi.headers import Raw, private
from dcaf.asgi.outgoing import Outgoing
from dcaf.asgi.problems import problem
from dcaf.asgi.route import name_request
from dcaf.asgi.turn import Turn, Turns
from dcaf.core.errors import NotCarriedError, SessionError, SessionUnavailable

SERVER_ERROR: Final = 500
BEFORE_THE_START: Final = (
    "Change the session before the answer starts: header and cookie are written then, and a cookie on no request of another site"
)
LARGEST: Final = 3
"""Keys that are named where there is no room for all."""


class Beside(Outgoing):
    """One answer on its way out, whose body passes as it is.

    Args:
        scope: Of the request.
        turn: The turn.
        turns: Who seals it.
        send: Where the answer goes.
        adopts: As of Outgoing.
    """

    _failed = False
    _in_time = BEFORE_THE_START

    def __init__(self, scope: Scope, turn: Turn, turns: Turns, send: Send, *, adopts: bool = False) -> None:
        super().__init__(scope, turn, turns, adopts=adopts)
        self._send = send

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            NotCarriedError: The session was modified, and is too large.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if message["type"] == "http.response.start":
            await self._begin({**message, "headers": message.get("headers", ())})
        else:
            await self._send(message)

    def look_back(self) -> None:
        """Tell the operator of a change that the answer did not carry."""
        if not self._failed:
            super().look_back()

    async def checkpoint(self) -> bool:
        """False: no stream carries the session."""
        return False

    async def fail(self) -> None:
        """The application raised."""
        self._failed = True

    async def _begin(self, start: Message) -> None:
        if start["status"] >= SERVER_ERROR:
            self._failed = True
            await self._pass(start)
        else:
            await self._pass_beside(self._dropping(start))

    async def _pass_beside(self, start: Message) -> None:
        """Send the start, with the session in its headers where it is due."""
        carrier = self._turn.carrier or self._first()
        try:
            if carrier is not None and self._is_due_by(carrier):
                headers = await self._carried(carrier, start["headers"])
                start = {**start, "headers": self._marked(headers)}
        except (SessionError, SessionUnavailable) as refusal:
            await self._refuse(refusal)
            self._send = _nowhere
        else:
            await self._pass(start)

    async def _pass(self, start: Message) -> None:
        await self._send({**start, "headers": self._marked(start["headers"])} if self.is_private else start)

    def _dropping(self, start: Message) -> Message:
        """The start, telling the client to drop what it has by another carrier: a session was begun in its place."""
        for carrier in self._turn.stale:
            start = {**start, "headers": carrier.clear(self.scope, start["headers"])}
        return start

    def _marked(self, headers: Raw) -> Raw:
        """The headers of an answer that was computed from a session, or gives one: not to be stored."""
        headers = private(headers)
        for carrier in self.turns.carriers:
            headers = carrier.varied(headers)
        return headers

    def _first(self) -> Carrier | None:
        """The carrier of a new session; None where none serves this request, so that it is lost."""
        return next((carrier for carrier in self.turns.carriers if carrier.serves(self.scope)), None)

    def _is_due_by(self, carrier: Carrier) -> bool:
        """Whether the session goes out: it changed, or it came in and would not be good for as long without it."""
        if self.is_changed:
            return True
        if not self._turn.arrived:
            return False
        return not carrier.rests or self._turn.kid is None or self.turns.sealer.is_worn(self.session)

    async def _carried(self, carrier: Carrier, headers: Raw) -> Raw:
        is_changed, is_over = self.is_changed, carrier.rests and self._is_void()
        token = await self.turns.token(self._turn)
        if is_over:
            return carrier.clear(self.scope, headers)
        written = carrier.write(self.scope, headers, token, life_s=self.turns.sealer.rest_s(self.session))
        if written is None and is_changed:
            raise NotCarriedError(self._too_long(carrier, len(token)))
        return headers if written is None else written

    def _is_void(self) -> bool:
        """Whether there is nothing to keep."""
        return self.session.is_empty and not self.session._state.own()

    def _too_long(self, carrier: Carrier, length: int) -> str:
        sizes = {key: len(orjson.dumps(value)) for key, value in self.session.to_dict().items()}
        largest = sorted(sizes, key=lambda key: -sizes[key])[:LARGEST]
        listed = ", ".join(f"{key!r} ({sizes[key]:,} bytes)" for key in largest)
        return (
            f"{name_request(self.scope)} changed the session, and its token of {length:,} bytes is longer than the "
            f"{carrier.room_bytes:,} that a {carrier.name} carries. The largest keys are {listed}. Store less, keep the state on "
            "the server, or let the client send its session in JSON bodies."
        )

    async def _refuse(self, refusal: SessionError | SessionUnavailable) -> None:
        """Answer with the problem instead: another turn came first, or nobody can tell."""
        self.turns.events.refused(refusal)
        self._failed = True
        instead = problem(refusal)
        await self._send({"type": "http.response.start", "status": instead.status_code, "headers": instead.raw_headers})
        await self._send({"type": "http.response.body", "body": instead.body, "more_body": False})


async def _nowhere(message: Message) -> None:
    """Drop what follows on an answer that was refused."""
