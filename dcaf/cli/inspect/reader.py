"""Any text that an operator has at hand -> the sessions in it, and the one that counts.

>>> found = find(b'{"data":{"session":{"dcaf":{"token":"new"}}}}')
>>> found.what, found.winner.where
('a JSON body, 45 bytes', 'data.session')
>>> find(b"hello")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: This is neither a token, nor JSON, nor a stream of events. Give a token, the object at ...

What a reader gets wrong: nothing is guessed where a service would not. A text that is almost JSON is refused here, too.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import orjson

from dcaf.asgi.lines import LINE_FEED, MARK
from dcaf.cli.inspect.bodies import in_json
from dcaf.cli.inspection.drawn import count
from dcaf.cli.inspection.heads import Head, split
from dcaf.cli.inspection.sites import Found, Site
from dcaf.cli.inspection.streamed import in_events, in_lines
from dcaf.core.envelope import NEW
from dcaf.core.errors import ConfigurationError
from dcaf.core.state import RESERVED

REMEDY: Final = "Give a token, the object at data.session, the whole body of a request or of an answer, or a stream of events."
WORD: Final = re.compile(rb"""\s*["']?((?:dcaf1|%b\b)[^\s"']*)["']?\s*""" % NEW.encode())
EVENTS: Final = re.compile(rb"\s*(?:%b)?(?:data|event|id|retry)?:" % MARK)
KEY: Final = re.compile(rb"\bdcafk1_")
WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
"""How the wider encodings of Unicode begin."""

COMPRESSED: Final = b"\x1f\x8b"
"""How gzip begins (RFC 1952, section 2.3.1)."""


def find(data: bytes) -> Found:
    """Find the sessions of a text.

    Raises:
        ConfigurationError: There is none in it, or nobody can read it; the message says what it is and what to give.
    """
    head, body = split(data)
    found = _read(body, None) if head is None else _with_head(head, body)
    if found.winner is None:
        raise ConfigurationError(f"There is no session in {found.what}: {found.lack}. {' '.join([*found.notes, REMEDY])}")
    return found


def _with_head(head: Head, body: bytes) -> Found:
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
        return in_events(data)
    _check(data)
    if data.lstrip().startswith(b"{"):
        return in_lines(data) if _is_lines(data) else in_json(data, is_answer=is_answer)
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
