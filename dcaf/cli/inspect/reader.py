r"""Any text that an operator has at hand -> the sessions in it: what `curl -i` prints, a token, a body, a stream.

>>> found = find(b'{"data":{"session":{"dcaf":{"token":"new"}}}}')
>>> found.what, found.winner.where
('a JSON body, 45 bytes', 'data.session')
>>> head, body = split(b"HTTP/1.1 204 No Content\r\nDCAF-Session: new\r\n\r\n")
>>> head.what, head.sites[0].where, body
('an HTTP answer, 204', 'header DCAF-Session', b'')
>>> find(b"hello")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: This is neither a token, nor JSON, nor a stream of events. Give a token, the object at ...

Nothing is guessed where a service would not guess: a text that is almost JSON is refused here, too. Only a service that names the
header or the cookie as a carrier looks at it, and where the body has a session, that one counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

import orjson

from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier, PresentedToken, find_presented_tokens
from dcaf.asgi.framing import LINE_FEED, MARK
from dcaf.asgi.headers import Raw, is_encoded
from dcaf.cli.inspect.bodies import Found, Site, read_events, read_json_text, read_lines
from dcaf.cli.inspect.render import count
from dcaf.cli.inspect.verdict import REASONS
from dcaf.core.envelope import NEW
from dcaf.core.errors import ConfigurationError
from dcaf.core.state import RESERVED

STATUS: Final = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})\b[^\r\n]*\r?\n")
REQUEST: Final = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/[0-9.]+\r?\n")
FIELDS: Final = re.compile(rb"(?i:dcaf-session|cookie|set-cookie):")
END: Final = re.compile(rb"\r?\n\r?\n")
DROPPED: Final = "null"
"""The value of a cookie that tells the browser to drop it."""

NAMES: Final = {HeaderCarrier.name: "header DCAF-Session", CookieCarrier.name: f"cookie {CookieCarrier().cookie}"}

REMEDY: Final = "Give a token, the object at data.session, the whole body of a request or of an answer, or a stream of events."
WORD: Final = re.compile(rb"""\s*["']?((?:dcaf1|%b\b)[^\s"']*)["']?\s*""" % NEW.encode())
EVENTS: Final = re.compile(rb"\s*(?:%b)?(?:data|event|id|retry)?:" % MARK)
KEY: Final = re.compile(rb"\bdcafk1_")
WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
"""How the wider encodings of Unicode begin."""

COMPRESSED: Final = b"\x1f\x8b"
"""How gzip begins (RFC 1952, section 2.3.1)."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a message.

    Attributes:
        what: Which kind of message, in words.
        sites: What its header and its cookie brought, by precedence.
        is_answer: Whether a service wrote it; None for headers alone.
    """

    what: str
    sites: tuple[Site, ...]
    is_answer: bool | None


def find(data: bytes) -> Found:
    """Find the sessions of a text.

    Raises:
        ConfigurationError: There is none in it, or nobody can read it; the message says what it is and what to give.
    """
    head, body = split(data)
    found = _read(body, None) if head is None else _read_message(head, body)
    if found.winner is None:
        raise ConfigurationError(f"There is no session in {found.what}: {found.lack}. {' '.join([*found.notes, REMEDY])}")
    return found


def split(data: bytes) -> tuple[Head | None, bytes]:
    """A message's head and body; no head where the text begins with none.

    Of several answers, one after the other as `curl -iL` prints them, the last one counts.

    Raises:
        ConfigurationError: The body is compressed, or a carrier's token cannot be read.
    """
    found = None
    text = data.lstrip()
    while _begins(text) and not (found and FIELDS.match(text)):
        lines, _, text = _split_head(text)
        found = _head(lines)
    return (None, data) if found is None else (found, text)


def _begins(text: bytes) -> bool:
    return any(pattern.match(text) for pattern in (STATUS, REQUEST, FIELDS))


def _split_head(text: bytes) -> tuple[bytes, bytes, bytes]:
    found = END.search(text)
    return (text, b"", b"") if found is None else (text[: found.start()], found[0], text[found.end() :])


def _head(text: bytes) -> Head:
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in text.splitlines())]
    if is_encoded(headers):
        raise ConfigurationError("The body is compressed. Let curl undo it: curl --compressed.")
    sites = tuple(_site(each) for each in find_presented_tokens((HeaderCarrier(), CookieCarrier()), _scope(headers)))
    status = STATUS.match(text + b"\n")
    if status:
        return Head(f"an HTTP answer, {status[1].decode()}", sites, is_answer=True)
    return Head("an HTTP request", sites, is_answer=False) if REQUEST.match(text + b"\n") else Head("headers", sites, None)


def _scope(headers: Raw) -> dict[str, object]:
    """What a request carries; what an answer sets is what the next request brings."""
    return {
        "type": "http",
        "method": "GET",
        "headers": [(b"cookie" if name == b"set-cookie" else name, value) for name, value in headers],
    }


def _site(presented: PresentedToken) -> Site:
    where = NAMES[presented.carrier.name]
    if presented.refusal is not None:
        reason = REASONS.get(presented.refusal.reason, presented.refusal.reason)
        raise ConfigurationError(f"{where}: a service would answer {presented.refusal.code}, because {reason}.")
    return Site(where, {RESERVED: {"token": NEW if presented.token == DROPPED else presented.token}})


def _read_message(head: Head, body: bytes) -> Found:
    """A message: what stands in its body comes before what its header and its cookie brought."""
    found = _foreign(body) if _is_foreign(body) else _read(body, head.is_answer)
    winner = found.winner or next(iter(head.sites), None)
    why = found.why if found.winner else "where the service names this carrier"
    sites = [*found.sites, *head.sites]
    return replace(found, what=f"{head.what}: {found.what}", sites=sites, winner=winner, why=why, is_answer=head.is_answer)


def _foreign(body: bytes) -> Found:
    what = f"{count(len(body), 'byte')} that are no JSON" if body.strip() else "no body"
    return Found(what, lack="neither the header DCAF-Session nor the cookie __Host-dcaf is there")


def _is_foreign(body: bytes) -> bool:
    """Whether it is some other text, as of a page, in which nobody looks for a session, or none."""
    return not (body.lstrip().startswith(b"{") or EVENTS.match(body))


def _read(data: bytes, is_answer: bool | None) -> Found:
    if EVENTS.match(data):
        return read_events(data)
    _check(data)
    if data.lstrip().startswith(b"{"):
        return read_lines(data) if _is_lines(data) else read_json_text(data, is_answer=is_answer)
    word = WORD.fullmatch(data)
    if word is None:
        raise ConfigurationError(f"This is {_unknown(data)}. {REMEDY}")
    site = Site("the token", {RESERVED: {"token": word[1].decode()}})
    return Found("a token", [site], site, is_answer=is_answer)


def _check(data: bytes) -> None:
    """Refuse what no service could read.

    Raises:
        ConfigurationError: It says what it is.
    """
    if not data.strip():
        raise ConfigurationError(f"Standard input is empty. {REMEDY}")
    if data.startswith(COMPRESSED):
        raise ConfigurationError("This is compressed. Undo it first: curl --compressed, or gunzip.")
    if data.startswith((MARK, *WIDE)) or b"\0" in data[:4]:
        raise ConfigurationError(
            "This begins with a byte order mark, or is no UTF-8. A service refuses such a body as malformed-json. "
            "Save it as UTF-8 without a mark."
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"This is no UTF-8: the byte {error.start + 1} is in no character of it. {REMEDY}") from None


def _unknown(data: bytes) -> str:
    if KEY.search(data):
        return "a key, or has one. It is a secret: keep it out of pipes and tickets"
    return "JSON, and no object" if data.lstrip().startswith(b"[") else "neither a token, nor JSON, nor a stream of events"


def _is_lines(data: bytes) -> bool:
    """Whether it is no JSON text, and the first of several lines is one."""
    lines = [line for line in LINE_FEED.split(data) if line.strip()]
    return len(lines) > 1 and not _is_json(data) and _is_json(lines[0])


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True
