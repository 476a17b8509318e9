"""Who asks: one running service, and a client that keeps what it is given and brings it along.

What a reader gets wrong: the client is no library's. It keeps a cookie as RFC 6265bis says (section 5.7: none over 4,096 bytes),
and the JSON at ``data.session`` of an answer's last line. So what is lost is lost between the two, and not in a test client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import warnings
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Final, NamedTuple, Protocol, Self

from werkzeug.test import Client

from dcaf import DcafError
from tests.asgi.sockets import Peer
from tests.asgi.wire import scope_of

MOST_COOKIE_BYTES: Final = 4_096
SHORTEST_TOKEN: Final = 20
WRITTEN, FORGED = "user", "root"
"""What the state says of its holder, and what a client would rather have there; of one length, so that no length tells."""

Headers = dict[str, str]


class Heard(NamedTuple):
    """What came back: status, lines of Set-Cookie, and the body or the frame."""

    status: int
    cookies: list[str]
    body: bytes = b""


class Worker(Protocol):
    """One process of a service."""

    def ask(self, route: str, act: str, headers: Headers, body: bytes) -> Heard:
        """Send one request."""

    def speak(self, act: str, headers: Headers, frame: Any) -> Heard | None:
        """Open a WebSocket, say one frame, hear one, and close it; None where there is no WebSocket."""


class ASGI(Worker):
    """An ASGI application, called as a server calls it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def ask(self, route: str, act: str, headers: Headers, body: bytes) -> Heard:
        scope = scope_of("POST", route, _lines(headers), query_string=f"act={act}".encode())
        try:
            start, *parts = asyncio.run(_sent(self._app, scope, body))
        except (DcafError, TypeError):  # a server answers 500
            return Heard(500, [])
        return Heard(start["status"], _cookies(start), b"".join(part.get("body", b"") for part in parts))

    def speak(self, act: str, headers: Headers, frame: Any) -> Heard | None:
        with Peer(self._app, "/socket", query_string=f"act={act}".encode(), headers=_lines(headers)) as peer:
            assert peer.opening["type"] == "websocket.accept", peer.opening
            answer = json.dumps(peer.ask(frame)).encode()
            peer.leave()
            return Heard(200, _cookies(peer.opening), answer)


class WSGI(Worker):
    """A WSGI application; ``site`` is what must hold while it answers."""

    def __init__(self, app: Any, site: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._client, self._site = Client(app, use_cookies=False), site

    def ask(self, route: str, act: str, headers: Headers, body: bytes) -> Heard:
        with self._site():
            answer = self._client.post(route, query_string={"act": act}, headers=headers, data=body)
            return Heard(answer.status_code, answer.headers.getlist("set-cookie"), answer.data)

    def speak(self, act: str, headers: Headers, frame: Any) -> Heard | None:
        upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AA=="}
        with self._site():
            answer = self._client.get("/turn", query_string={"act": act}, headers=headers | upgrade)
        assert answer.status_code != 101, "it has WebSockets: write how to speak to it"
        return None


class Answer(NamedTuple):
    """What a client learnt: the status, the body, and the state that the service then saw; and whether its operator was told."""

    status: int
    body: bytes
    state: dict[str, Any]
    was_warned: bool

    @property
    def is_refused(self) -> bool:
        """Whether the service answered with an error."""
        return self.status >= 400


class Visitor:
    """One client.

    Attributes:
        jar: Its cookies.
        session: What it keeps of ``data.session``.
    """

    def __init__(self, *, keeps_cookies: bool = True, keeps_json: bool = True) -> None:
        self.jar: Headers = {}
        self.session: Any = None
        self._keeps_cookies, self._keeps_json = keeps_cookies, keeps_json

    def ask(self, worker: Worker, act: str, route: str = "/turn") -> Answer:
        """Have the service do one thing, and keep what it gives to keep."""
        body = json.dumps(self._frame()).encode() if self._keeps_json else b""
        with told() as lines:
            heard = worker.ask(route, act, self._headers(), body)
        return self._kept(heard, was_warned=bool(lines))

    def speak(self, worker: Worker, act: str) -> Answer | None:
        """The same on a WebSocket; None where there is none."""
        with told() as lines:
            heard = worker.speak(act, self._headers(), self._frame())
        return None if heard is None else self._kept(heard, was_warned=bool(lines))

    def copy(self) -> Self:
        """Another client that holds the same."""
        return deepcopy(self)

    def can_read(self) -> bool:
        """Whether what the state says of its holder can be read out of what the client holds."""
        return self._forged() != (self.jar, self.session)

    def edit(self) -> None:
        """Write something else there; where nothing can be read, change one character of each token."""
        found = self._forged()
        self.jar, self.session = found if self.can_read() else rewritten((self.jar, self.session), _flipped)

    def _forged(self) -> tuple[Headers, Any]:
        found: tuple[Headers, Any] = rewritten((self.jar, self.session), forged)
        return found

    def _frame(self) -> dict[str, Any]:
        return {"data": {"session": self.session}}

    def _headers(self) -> Headers:
        kind = "application/json" if self._keeps_json else "application/x-www-form-urlencoded"
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        return {"content-type": kind, "host": "shop.example"} | ({"cookie": cookies} if cookies else {})

    def _kept(self, heard: Heard, *, was_warned: bool) -> Answer:
        if self._keeps_cookies:
            self._keep_cookies(heard.cookies)
        last = _value((heard.body.splitlines() or [b""])[-1])
        data = last.get("data")
        if self._keeps_json and isinstance(data, dict) and "session" in data:
            self.session = data["session"]
        return Answer(heard.status, heard.body, last.get("state") or {}, was_warned)

    def _keep_cookies(self, lines: list[str]) -> None:
        for line in lines:
            pair, _, attributes = line.partition(";")
            name, _, value = pair.partition("=")
            if re.search(r"expires=\w+, 01[ -]Jan[ -]1970|max-age=0\b", attributes, re.IGNORECASE):
                self.jar.pop(name, None)
            elif len(name) + len(value) <= MOST_COOKIE_BYTES:
                self.jar[name] = value


@contextmanager
def told() -> Iterator[list[Any]]:
    """What a service tells its operator meanwhile: warnings, and lines of the log from WARNING on."""
    lines = _Lines()
    logging.getLogger().addHandler(lines)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield lines.told
        lines.told += warned
    finally:
        logging.getLogger().removeHandler(lines)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record)


def rewritten(held: Any, change: Callable[[str], str]) -> Any:
    """What a client holds, with each text in it changed."""
    if isinstance(held, tuple):
        return tuple(rewritten(value, change) for value in held)
    if isinstance(held, Mapping):
        return {name: rewritten(value, change) for name, value in held.items()}
    return change(held) if isinstance(held, str) else held


def forged(text: str) -> str:
    """A text with the word exchanged: in the open, or in a part of a token that is base64.

    >>> forged("user"), forged(f"{b64encode(b'a user').decode()}.mac") == f"{b64encode(b'a root').decode()}.mac"
    ('root', True)
    """
    parts = re.split(r"([.:])", text.replace(WRITTEN, FORGED))
    return "".join(_forged_part(part) for part in parts)


def _forged_part(part: str) -> str:
    for encode, altchars in ((urlsafe_b64encode, b"-_"), (b64encode, b"+/")):
        try:
            decoded = b64decode(part + "=" * (-len(part) % 4), altchars, validate=True)
        except NotBase64:
            continue
        if WRITTEN.encode() in decoded:
            encoded = encode(decoded.replace(WRITTEN.encode(), FORGED.encode())).decode()
            return encoded[: len(part)]
    return part


def _flipped(text: str) -> str:
    middle = len(text) // 2
    if len(text) < SHORTEST_TOKEN:
        return text
    return f"{text[:middle]}{'a' if text[middle] != 'a' else 'b'}{text[middle + 1 :]}"


def _value(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _sent(app: Any, scope: Any, body: bytes) -> list[Any]:
    sent: list[Any] = []
    asked = iter(({"type": "http.request", "body": body, "more_body": False},))

    async def receive() -> Any:
        return next(asked, None) or await asyncio.Event().wait()  # the client stays until the answer is complete

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def _cookies(start: Mapping[str, Any]) -> list[str]:
    return [value.decode() for name, value in start.get("headers", ()) if name.lower() == b"set-cookie"]


def _lines(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
