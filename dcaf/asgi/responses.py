"""Send the application's answer with the session: in a JSON object, in a stream, or in the headers. Any other answer passes.

A ``BodySender`` puts the session into the body, a ``HeaderSender`` into a header or a cookie. What a ``BodySender`` does with the
next message of the application depends on its phase:

    phase    message                              what happens                                            next
    BEGINS   start of JSON                        it is held back                                         HELD
    BEGINS   any other start, status 500 or more  it is sent                                              PASSES
    BEGINS   start of a stream                    it is sent; the stream does the rest                    STREAMS
    BEGINS   any other start                      it is sent, if the session is unmodified                PASSES
    HELD     a part of the body                   it is kept, up to the limit                             HELD, PASSES
    HELD     the end of the body                  both are sent, with the session; without it from 500    PASSES
    HELD     the end, and the session is refused  the problem is sent instead                             OVER
    HELD     the end, and it cannot be written    the error is raised, and nothing was sent               BEGINS
    any      the start, and a session for its headers is refused: the problem is sent instead             OVER
    HELD     anything else                        the start is sent, if the session is unmodified         PASSES
    PASSES   anything                             it is sent                                              PASSES
    OVER     anything                             it is dropped                                           OVER

Nothing is sealed for a status of 500 or more. No JSON is sent with a session that is not the service's own (``json_walk``). An
answer that cannot carry a changed session is an error before it starts: its client would go on from the state of before. After the
error the phase is BEGINS again, so that an application may send another answer. One around the middleware always can; Starlette's
error handlers inside it cannot, because they believe that the first start was sent: the server then answers for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from functools import partial
from typing import Final

import orjson
from starlette.types import Message, Send

from dcaf.asgi.body import INLINE_STRUCTURE, off_the_loop
from dcaf.asgi.carriers import Carrier, HeaderCarrier
from dcaf.asgi.config import name_request
from dcaf.asgi.diagnostics import NOT_WHOLE, describe_answer, describe_uncarried
from dcaf.asgi.headers import JSON, Raw, describe_new_body, forbid_storing, is_encoded, is_json_type, media_type
from dcaf.asgi.json_walk import remove_sessions_of_text
from dcaf.asgi.lifecycle import ASGITurn, parse
from dcaf.asgi.problems import build_problem
from dcaf.asgi.streams import SessionStream, choose_cutter
from dcaf.core.errors import NotCarriedError, SessionError, SessionUnavailable
from dcaf.core.mapping import state_of

SERVER_ERROR: Final = 500
REDIRECTION: Final = 300
JSON_TYPE: Final = JSON.encode()
HEADER_ADVICE: Final = (
    "Change the session before the answer starts: header and cookie are written then, and a cookie on no request of another site"
)
LARGEST: Final = 3
"""How many of the largest keys are named in an error."""


class AnswerPhase(Enum):
    """The phase of an answer: see the table above."""

    BEGINS = auto()
    HELD = auto()
    STREAMS = auto()
    PASSES = auto()
    OVER = auto()


class BodySender:
    """Sends one answer whose body carries the session."""

    def __init__(self, turn: ASGITurn, send: Send) -> None:
        self._turn = turn
        self._send = send
        self._phase = AnswerPhase.BEGINS
        self._start: Message = {}
        self._body = bytearray()
        self._stream: SessionStream | None = None
        self._owes_checkpoint = False
        self._failed = False

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            NotCarriedError: The session was modified, and this answer cannot carry it.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if message["type"] == "http.response.start" and self._phase in (AnswerPhase.BEGINS, AnswerPhase.HELD):
            self._start, self._body = {**message, "headers": message.get("headers", ())}, bytearray()
            self._phase = self._choose_phase(self._start)
            if self._phase is not AnswerPhase.HELD:
                await self._send_at_once(self._start)
            return
        if self._stream is not None:
            await self._stream.send(message)
            return
        if self._phase is AnswerPhase.HELD and message["type"] == "http.response.body":
            take = self._hold if message.get("more_body", False) else self._complete
            await take(message.get("body", b""))
            return
        if self._phase is AnswerPhase.HELD:
            await self._send_start(None)
        if self._phase is not AnswerPhase.OVER:
            await self._send(message)

    async def checkpoint(self, *, may_wait: bool = False) -> bool:
        """Send the session as it is now; False where no stream is sent.

        Args:
            may_wait: Whether it goes out as soon as a stream has begun, where nothing has begun yet.

        Raises as ``send``.
        """
        if self._stream is not None:
            return await self._stream.checkpoint()
        self._owes_checkpoint = self._owes_checkpoint or (may_wait and self._phase is AnswerPhase.BEGINS)
        return self._owes_checkpoint and may_wait

    async def fail(self) -> None:
        """Take note that the application raised: nothing more is sealed, and a stream that has begun gets an error event."""
        self._failed = True
        if self._stream is not None:
            await self._stream.fail()

    def report_late_change(self) -> None:
        """Report a change that nothing carried, of a background task perhaps: it is lost.

        Where the client left a stream early, nothing is reported: it keeps the session that it had.
        """
        has_left = self._stream is not None and not (self._stream.has_ended and not self._stream.is_refused)
        if not self._failed and not has_left and self._turn.is_changed:
            self._turn.report_lost()

    def _choose_phase(self, start: Message) -> AnswerPhase:
        """The phase of an answer after its start."""
        kind = self._find_kind(start)
        self._failed = self._failed or start["status"] >= SERVER_ERROR
        if kind is JSON or is_json_type(kind):
            return AnswerPhase.HELD
        if self._failed:
            return AnswerPhase.PASSES
        config = self._turn.config
        passes = config.passes_streams is not None and config.passes_streams(self._turn.outer)
        lines = None if passes else choose_cutter(kind, config.max_response_bytes)
        if lines is None:
            return AnswerPhase.PASSES
        self._stream = SessionStream(self._turn, lines, self._send, owes_checkpoint=self._owes_checkpoint)
        return AnswerPhase.STREAMS

    async def _send_at_once(self, start: Message) -> None:
        """Send the start of an answer that is not held back."""
        try:
            if self._stream is None:
                await self._send_start(None)
            else:
                self._check_adoption(start)
                self._turn.drop_others()
                await self._stream.begin(drop_stale(self._turn, start))
        except BaseException:
            self._phase = AnswerPhase.BEGINS
            raise

    async def _hold(self, part: bytes) -> None:
        """Keep a part of a body, up to the limit."""
        self._body += part
        if len(self._body) > self._turn.config.max_response_bytes:
            data = bytes(self._body)
            await self._send_start(data)
            await self._send_body(data, more=True)

    async def _complete(self, last: bytes) -> None:
        """Send an answer whose body has come to its end, with the session where it is due."""
        data = bytes(self._body + last) if self._body else last
        turn, size = self._turn, len(data)
        if turn.adopts:
            self._check_adoption(self._start)
        completed, self._phase = None, AnswerPhase.BEGINS
        try:
            # An answer is parsed only where the session is to go out with it.
            if size <= turn.config.max_response_bytes and not self._failed and (turn.arrived or turn.is_due or turn.adopts):
                text = parse(data) if size <= INLINE_STRUCTURE else await off_the_loop(parse, data)
                completed = None if text is None else await turn.complete(text)
            if completed is None:
                data = await turn.remove_sessions(data, partial(remove_sessions_of_text, objects_only=True))
        except (SessionError, SessionUnavailable) as refusal:
            self._failed, self._phase = True, AnswerPhase.OVER
            await send_problem(turn, refusal, self._send)
            return
        if completed is None:
            await self._send_without_session(data, is_changed=len(data) != size)
            return
        self._phase = AnswerPhase.PASSES
        start = drop_stale(turn, self._start) if turn.stale else self._start
        await self._send({**start, "headers": describe_new_body(start["headers"], len(completed))})
        await self._send({"type": "http.response.body", "body": completed, "more_body": False})

    async def _send_without_session(self, data: bytes, *, is_changed: bool) -> None:
        """Send an answer without the session in its body, which is changed where foreign sessions were taken out of it."""
        if is_changed:
            self._start = {**self._start, "headers": describe_new_body(self._start["headers"], len(data))}
        await self._send_start(data)
        await self._send_body(data, more=False)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        if self._phase is not AnswerPhase.OVER:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _send_start(self, data: bytes | None) -> None:
        """Send the start of an answer whose body cannot carry the session, or need not. Its headers may carry a new one."""
        turn, start = self._turn, self._start
        self._phase = AnswerPhase.BEGINS
        if self._failed:
            await self._send(mark_private(turn, start))
        elif turn.config.carriers and not turn.arrived:
            if not await send_with_headers(turn, start, self._send):
                self._failed, self._phase = True, AnswerPhase.OVER
                return
        else:
            self._check_unmodified(data)
            if not await self._commit_unseen():
                return
            await self._send(mark_private(turn, drop_stale(turn, start)))
        self._phase = AnswerPhase.PASSES

    async def _commit_unseen(self) -> bool:
        """Let the store know of a turn whose answer carries no session, where it must; False where a problem was sent instead.

        The client keeps its token: nothing changed, so that it is of the same number as the one that is made here.
        """
        turn = self._turn
        if not turn.owes_commit:
            return True
        try:
            await turn.seal_envelope(ends_turn=True)
        except (SessionError, SessionUnavailable) as refusal:
            self._failed, self._phase = True, AnswerPhase.OVER
            await send_problem(turn, refusal, self._send)
            return False
        return True

    def _check_adoption(self, start: Message) -> None:
        """A new state counts only in an answer of a route that ``plain=`` names, and with a status of success."""
        self._turn.adopts = self._turn.adopts and start["status"] < REDIRECTION

    def _find_kind(self, start: Message) -> str:
        """The media type of an answer whose body is whole and not encoded; an empty text for any other."""
        if start["status"] in NOT_WHOLE or self._turn.scope["method"] == "HEAD":
            return ""
        found = dict(start["headers"])
        if b"content-encoding" in found and is_encoded(start["headers"]):
            return ""
        return JSON if found.get(b"content-type") == JSON_TYPE else media_type(start["headers"])

    def _check_unmodified(self, data: bytes | None) -> None:
        """Refuse to send an answer that would lose a change.

        Raises:
            NotCarriedError: The session was modified.
            SessionAliasError, SessionValueError: What tools did to it cannot be written.
        """
        turn = self._turn
        if turn.session.is_modified:
            method, limit = turn.scope["method"], turn.config.max_response_bytes
            found = describe_answer(method, self._start, data, limit_bytes=limit)
            raise NotCarriedError(describe_uncarried(name_request(turn.scope), found))


class HeaderSender:
    """Sends one answer whose headers carry the session, and whose body passes.

    The headers are sent when the answer starts. Later changes are lost, and reported as the event ``lost``.
    """

    def __init__(self, turn: ASGITurn, send: Send) -> None:
        self._turn = turn
        self._turn.advice = HEADER_ADVICE
        self._send = send
        self._phase = AnswerPhase.BEGINS
        self._failed = False

    async def send(self, message: Message) -> None:
        """Take the next message of the application.

        Raises:
            NotCarriedError: The session was modified, and is too large.
            SessionAliasError, SessionValueError: What tools did to the session cannot be written.
        """
        if message["type"] == "http.response.start" and self._phase is AnswerPhase.BEGINS:
            await self._take_start({**message, "headers": message.get("headers", ())})
        elif self._phase is not AnswerPhase.OVER:
            await self._send(message)

    async def checkpoint(self, *, may_wait: bool = False) -> bool:  # noqa: ARG002
        """False: no stream carries the session."""
        return False

    async def fail(self) -> None:
        """Take note that the application raised."""
        self._failed = True

    def report_late_change(self) -> None:
        """Report a change that the answer did not carry."""
        if not self._failed and self._turn.is_changed:
            self._turn.report_lost()

    async def _take_start(self, start: Message) -> None:
        turn = self._turn
        if start["status"] >= SERVER_ERROR:
            self._failed = True
            await self._send(mark_private(turn, start))
        elif not await send_with_headers(turn, start, self._send):
            self._failed, self._phase = True, AnswerPhase.OVER
            return
        self._phase = AnswerPhase.PASSES


async def send_with_headers(turn: ASGITurn, start: Message, send: Send) -> bool:
    """Send the start of an answer, with the session in its headers if it is due; False where a problem was sent instead.

    Raises:
        NotCarriedError: The session was modified, and nothing carries it.
        SessionAliasError, SessionValueError: What tools did to the session cannot be written.
    """
    carrier = turn.carrier or next((each for each in turn.config.carriers if each.serves(turn.scope)), None)
    try:
        if carrier is not None and _is_due_by(turn, carrier):
            headers = await _add_session(turn, carrier, start["headers"])
            start = {**start, "headers": _forbid_storing(turn, headers)}
        else:
            start = mark_private(turn, start)
    except (SessionError, SessionUnavailable) as refusal:
        await send_problem(turn, refusal, send)
        return False
    await send(drop_stale(turn, start))
    return True


async def send_problem(turn: ASGITurn, refusal: SessionError | SessionUnavailable, send: Send) -> None:
    """Answer with a problem instead: another turn came first, or the store cannot tell."""
    turn.config.events.report_refusal(refusal)
    instead = build_problem(refusal)
    await send({"type": "http.response.start", "status": instead.status_code, "headers": instead.raw_headers})
    await send({"type": "http.response.body", "body": instead.body, "more_body": False})


def mark_private(turn: ASGITurn, start: Message) -> Message:
    """The start of an answer, marked as not to be stored if it was computed from a session."""
    return {**start, "headers": _forbid_storing(turn, start["headers"])} if turn.is_private else start


def drop_stale(turn: ASGITurn, start: Message) -> Message:
    """The start of an answer that tells the client to drop its sessions in other carriers: a new one has replaced them."""
    for carrier in turn.stale:
        start = {**start, "headers": carrier.clear(turn.scope, start["headers"])}
    return start


def _forbid_storing(turn: ASGITurn, headers: Raw) -> Raw:
    headers = forbid_storing(headers)
    for carrier in turn.config.carriers:
        headers = carrier.varied(headers)
    return headers


def _is_due_by(turn: ASGITurn, carrier: Carrier) -> bool:
    """Whether the session goes out: it changed, or it came in and its client needs a new token to go on as long as it may."""
    if turn.is_changed or turn.owes_commit or (state_of(turn.session).has_spent and not turn.arrived):
        return True
    return turn.arrived and not (carrier.keeps and turn.config.sealer.rests(turn.session))


async def _add_session(turn: ASGITurn, carrier: Carrier, headers: Raw) -> Raw:
    is_changed, gives_way = turn.is_changed, state_of(turn.session).resumed is not None
    is_over = carrier.keeps and _is_empty(turn) and not gives_way
    if turn.is_unnamed:
        raise NotCarriedError(_describe_unnamed(turn, carrier))

    def check_length(token: bytes) -> None:
        if is_changed and not is_over and len(token) > carrier.room_bytes:
            raise NotCarriedError(_describe_too_long(turn, carrier, len(token)))

    token = await turn.seal_token(check_length)
    if is_over or (state_of(turn.session).is_closed and not gives_way):
        return carrier.clear(turn.scope, headers)
    sealer = turn.config.sealer
    life_s = sealer.rest_of_token_s(token) if gives_way else sealer.rest_s(turn.session)
    written = carrier.write(turn.scope, headers, token, life_s=life_s)
    return headers if written is None else written


def _is_empty(turn: ASGITurn) -> bool:
    """Whether the session has nothing that its client would have to keep."""
    state = state_of(turn.session)
    return turn.session.is_empty and not state.own() and not state.has_spent


def _describe_unnamed(turn: ASGITurn, carrier: Carrier) -> str:
    return (
        f"{name_request(turn.scope)} changed the session, and names no conversation: the {carrier.name} of the "
        "request holds the session of one, which this would overwrite. Change the session in requests that conversation= can name."
    )


def _describe_too_long(turn: ASGITurn, carrier: Carrier, length: int) -> str:
    sizes = {key: len(orjson.dumps(value)) for key, value in turn.session.to_dict().items()}
    largest: Sequence[str] = sorted(sizes, key=lambda key: -sizes[key])[:LARGEST]
    listed = ", ".join(f"{key!r} ({sizes[key]:,} bytes)" for key in largest)
    return (
        f"{name_request(turn.scope)} changed the session, and its token of {length:,} bytes is longer than the "
        f"{carrier.room_bytes:,} that a {carrier.name} carries. The largest keys are {listed}. Store less, {_advise_limit(carrier)}"
        "keep the state on the server, or let the client send its session in JSON bodies."
    )


def _advise_limit(carrier: Carrier) -> str:
    if not isinstance(carrier, HeaderCarrier):
        return ""
    return "raise HeaderCarrier(limit_bytes=) and the header buffers of the proxy in front (nginx: proxy_buffer_size), "
