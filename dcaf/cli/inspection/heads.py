r"""What `curl -i` prints -> the head of the answer, the sessions in its header and its cookie, and the body.

>>> head, body = split(b"HTTP/1.1 204 No Content\r\nDCAF-Session: new\r\n\r\n")
>>> head.what, head.sites[0].where, body
('an HTTP answer, 204', 'header DCAF-Session', b'')
>>> split(b'{"messages":[]}')
(None, b'{"messages":[]}')

What a reader gets wrong: only a service that names these carriers looks at them. Where the body has a session, that one counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier, Presented, find_presented
from dcaf.asgi.headers import Raw, is_encoded
from dcaf.cli.inspection.reasons import REASONS
from dcaf.cli.inspection.sites import Site
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


def split(data: bytes) -> tuple[Head | None, bytes]:
    """A message's head and body; no head where the text begins with none.

    Of several answers, one after the other as `curl -iL` prints them, the last one counts.

    Raises:
        ConfigurationError: The body is compressed, or a carrier's token cannot be read.
    """
    found = None
    text = data.lstrip()
    while _begins(text) and not (found and FIELDS.match(text)):
        lines, _, text = _parted(text)
        found = _head(lines)
    return (None, data) if found is None else (found, text)


def _begins(text: bytes) -> bool:
    return any(pattern.match(text) for pattern in (STATUS, REQUEST, FIELDS))


def _parted(text: bytes) -> tuple[bytes, bytes, bytes]:
    found = END.search(text)
    return (text, b"", b"") if found is None else (text[: found.start()], found[0], text[found.end() :])


def _head(text: bytes) -> Head:
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in text.splitlines())]
    if is_encoded(headers):
        raise ConfigurationError("The body is compressed. Let curl undo it: curl --compressed.")
    sites = tuple(_site(each) for each in find_presented((HeaderCarrier(), CookieCarrier()), _scope(headers)))
    status = STATUS.match(text + b"\n")
    if status:
        return Head(f"an HTTP answer, {status[1].decode()}", sites, is_answer=True)
    return Head("an HTTP request", sites, is_answer=False) if REQUEST.match(text + b"\n") else Head("headers", sites, None)


def _scope(headers: Raw) -> dict[str, object]:
    """As of a request that carries them; what an answer sets is what the next request brings."""
    return {
        "type": "http",
        "method": "GET",
        "headers": [(b"cookie" if name == b"set-cookie" else name, value) for name, value in headers],
    }


def _site(presented: Presented) -> Site:
    where = NAMES[presented.carrier.name]
    if presented.refusal is not None:
        reason = REASONS.get(presented.refusal.reason, presented.refusal.reason)
        raise ConfigurationError(f"{where}: a service would answer {presented.refusal.code}, because {reason}.")
    return Site(where, {RESERVED: {"token": NEW if presented.token == DROPPED else presented.token}})
