"""Carry the session outside the body: in a header of its own, or in a cookie.

>>> header = HeaderCarrier()
>>> header.read({"headers": [(b"dcaf-session", b"dcaf1s.k7.e30.e30.c2ln")]})
'dcaf1s.k7.e30.e30.c2ln'

Only the token travels here. There is no mirror: a client that wants to show the state needs a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

from starlette.types import Scope

from dcaf.asgi.headers import Raw
from dcaf.core.arguments import items_of, kind_of, require_bool, require_text
from dcaf.core.errors import ConfigurationError, SessionError, SessionInvalid, SessionTooLarge
from dcaf.core.state import RESERVED

BODY: Final = "body"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""

COOKIE_BYTES: Final = 4096
"""The longest name and value that browsers keep (RFC 6265bis, section 5.6)."""

HEADER_BYTES: Final = 8 * 1024
"""The longest line of a request's head that servers take at their defaults (nginx, uvicorn's httptools, Apache: 8 KiB)."""

NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of HTTP (RFC 9110, section 5.6.2), as the name of a cookie must be."""

PLAIN: Final = re.compile(r"[!-+\--:<-~]+")
"""What an attribute of a cookie may be, here: nothing that ends it, or the header, for any reader (RFC 6265bis, section 4.1)."""

EPOCH: Final = b"Thu, 01 Jan 1970 00:00:00 GMT"


class Carrier(Protocol):
    """Carries a token outside the body.

    Attributes:
        name: What the log calls it.
        restarts: Whether a refused session is started anew by default, because its client has no other way to drop it.
        keeps: Whether a client keeps a token until it gets another one, so that an unchanged session need not go out.
    """

    name: ClassVar[str]
    restarts: ClassVar[bool]
    keeps: ClassVar[bool]

    @property
    def room_bytes(self) -> int:
        """The longest token that fits."""

    def serves(self, scope: Scope) -> bool:
        """Whether it is used in this request and its answer."""

    def read(self, scope: Scope) -> str | None:
        """The token of a request; None where there is none that counts.

        Raises:
            SessionTooLarge: It is over the limit.
            SessionInvalid: There are several.
        """

    def write(self, scope: Scope, headers: Raw, token: bytes, *, life_s: int) -> Raw | None:
        """The headers of an answer with a token, which is valid for so many seconds; None where the token is too long."""

    def clear(self, scope: Scope, headers: Raw) -> Raw:
        """The headers of an answer that tells the client to drop its session."""

    def varied(self, headers: Raw) -> Raw:
        """The headers of an answer that depends on whether the request had a token, and on which."""


@dataclass(frozen=True, slots=True)
class HeaderCarrier:
    """``DCAF-Session``, in requests and in answers.

    Attributes:
        limit_bytes: The longest token. The default fits the buffer that nginx has for the headers of an answer (4 KiB,
            ``proxy_buffer_size``). Whoever raises that may raise this, to 8 KiB at most: servers take no longer ones.

    Raises:
        ConfigurationError: The limit is not a number of bytes, or is more than servers take.
    """

    limit_bytes: int = 3_800
    name: ClassVar[str] = "header"
    restarts: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    field: ClassVar[bytes] = b"dcaf-session"

    def __post_init__(self) -> None:
        if type(self.limit_bytes) is not int or not 0 < self.limit_bytes <= HEADER_BYTES:
            raise ConfigurationError(f"HeaderCarrier(limit_bytes=) takes a number of bytes from 1 to {HEADER_BYTES:,}.")

    @property
    def room_bytes(self) -> int:
        """The longest token that it carries."""
        return self.limit_bytes

    def serves(self, scope: Scope) -> bool:  # noqa: ARG002
        return True  # no page of another site can have a browser send it

    def read(self, scope: Scope) -> str | None:
        found = [value for name, value in scope["headers"] if name == self.field]
        if len(found) > 1:
            raise SessionInvalid(reason="headers")
        if found and len(found[0]) > self.limit_bytes:
            raise SessionTooLarge(reason="header")
        return found[0].decode("latin-1") if found and found[0] else None

    def write(self, scope: Scope, headers: Raw, token: bytes, *, life_s: int) -> Raw | None:  # noqa: ARG002
        return None if len(token) > self.limit_bytes else self._set(headers, token)

    def clear(self, scope: Scope, headers: Raw) -> Raw:  # noqa: ARG002
        return self._set(headers, b"new")  # this token asks for a new session

    def varied(self, headers: Raw) -> Raw:
        return headers  # an answer that nobody stores needs no Vary

    def _set(self, headers: Raw, value: bytes) -> Raw:
        others = [item for item in headers if item[0] != self.field]
        # Scripts of other origins may read it, where they may read the answer at all.
        return [*_add_name(others, b"access-control-expose-headers", b"DCAF-Session"), (self.field, value)]


@dataclass(frozen=True, slots=True)
class CookieCarrier:
    """A cookie that scripts cannot read. On an unsafe request from another site it is neither read nor set.

    Attributes:
        cookie: Its name. With the prefix ``__Host-`` a browser takes it only from this very host, over HTTPS (or from localhost).
        path: Below which it is sent.
        domain: For which hosts; None is this one alone.
        secure: Whether it travels over HTTPS alone.
        same_site: Whether other sites' links send it (``lax``), nothing of theirs does (``strict``), or all (``none``).
        lasts: Whether it outlives the browser; it ends with the session in any case.
        partitioned: Whether an embedded site has one for each site that embeds it.

    Raises:
        ConfigurationError: A browser would not keep it.
    """

    cookie: str = "__Host-dcaf"
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    same_site: Literal["lax", "strict", "none"] = "lax"
    lasts: bool = True
    partitioned: bool = False
    name: ClassVar[str] = "cookie"
    restarts: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in (("secure", self.secure), ("lasts", self.lasts), ("partitioned", self.partitioned)):
            require_bool(f"CookieCarrier({name}=)", value)
        for name, text in (("cookie", self.cookie), ("path", self.path), ("domain", "-" if self.domain is None else self.domain)):
            require_text(f"CookieCarrier({name}=)", text, "as browsers take it in a cookie")
        if not NAME.fullmatch(self.cookie):
            raise ConfigurationError(f"{self.cookie!r} cannot be the name of a cookie: use letters, digits, - and _.")
        if not isinstance(self.same_site, str) or self.same_site not in ("lax", "strict", "none"):
            raise ConfigurationError("same_site= is one of 'lax', 'strict', 'none'.")
        if not (
            self.path.startswith("/")
            and all(PLAIN.fullmatch(value) for value in (self.path, "-" if self.domain is None else self.domain))
        ):
            raise ConfigurationError("path= begins with a slash, and neither it nor domain= has spaces, commas or semicolons.")
        if self.cookie.startswith("__Host-") and not (self.secure and self.path == "/" and self.domain is None):
            raise ConfigurationError("A cookie named __Host-... needs secure=True, path='/' and no domain. Name it otherwise.")
        if (self.same_site == "none" or self.partitioned or self.cookie.startswith("__Secure-")) and not self.secure:
            raise ConfigurationError("A cookie for other sites, a partitioned one and one named __Secure-... need secure=True.")

    @property
    def room_bytes(self) -> int:
        """The longest token that it carries."""
        return COOKIE_BYTES - len(self.cookie) - len("=")

    def serves(self, scope: Scope) -> bool:
        return not is_foreign(scope)

    def read(self, scope: Scope) -> str | None:
        found = [] if is_foreign(scope) else list(self._values(scope["headers"]))
        if len(found) > 1:
            raise SessionInvalid(reason="cookies")
        return found[0].decode("latin-1") if found and found[0] else None

    def write(self, scope: Scope, headers: Raw, token: bytes, *, life_s: int) -> Raw | None:
        if len(token) > self.room_bytes:
            return None
        age = b"; Max-Age=%d" % life_s if self.lasts else b""
        return self._set(scope, headers, token + age)

    def clear(self, scope: Scope, headers: Raw) -> Raw:
        return self._set(scope, headers, b"null; Expires=" + EPOCH)

    def varied(self, headers: Raw) -> Raw:
        return _add_name(headers, b"vary", b"Cookie")

    def _set(self, scope: Scope, headers: Raw, value: bytes) -> Raw:
        if is_foreign(scope):
            return headers
        return [*headers, (b"set-cookie", self.cookie.encode() + b"=" + value + self._attributes())]

    def _attributes(self) -> bytes:
        words = [f"Path={self.path}", "HttpOnly", f"SameSite={self.same_site.capitalize()}"]
        words += [f"Domain={self.domain}"] if self.domain else []
        words += [word for word, is_on in (("Secure", self.secure), ("Partitioned", self.partitioned)) if is_on]
        return "".join(f"; {word}" for word in words).encode("latin-1")

    def _values(self, headers: Raw) -> Iterable[bytes]:
        for name, line in headers:
            for pair in line.split(b";") if name == b"cookie" else ():
                key, _, value = pair.partition(b"=")
                if key.strip() == self.cookie.encode():
                    yield value.strip().strip(b'"')


Carriers: TypeAlias = "Iterable[str | HeaderCarrier | CookieCarrier]"
"""``"body"``, ``"header"``, ``"cookie"``, or a carrier with settings of its own."""


class PresentedToken(NamedTuple):
    """The token that a request has in one carrier, or why it could not be read.

    Attributes:
        token: Empty where it could not be read.
        refusal: Why it could not; None where it could.
    """

    carrier: Carrier
    token: str
    refusal: SessionError | None = None

    def __repr__(self) -> str:
        return f"PresentedToken({self.carrier.name!r})"

    @property
    def value(self) -> Any:
        """What a body with this token would have at ``data.session``.

        Raises:
            SessionError: It could not be read.
        """
        if self.refusal is not None:
            raise self.refusal
        return {RESERVED: {"token": self.token}}


def find_presented_tokens(carriers: Iterable[Carrier], scope: Scope) -> list[PresentedToken]:
    """The tokens of a request outside its body, by precedence of their carriers.

    >>> scope = {"type": "http", "method": "GET", "headers": [(b"dcaf-session", b"new")]}
    >>> find_presented_tokens((HeaderCarrier(), CookieCarrier()), scope)[0].value
    {'dcaf': {'token': 'new'}}
    """
    found: list[PresentedToken] = []
    for carrier in carriers:
        try:
            token = carrier.read(scope)
        except SessionError as refusal:
            found.append(PresentedToken(carrier, "", refusal))
        else:
            found += [] if token is None else [PresentedToken(carrier, token)]
    return found


def is_foreign(scope: Scope) -> bool:
    """Whether a page of another site made the browser send a request that may change something, such as that of a WebSocket.

    A browser says so in Sec-Fetch-Site (Fetch Metadata, section 2.4), an older one in Origin. A client that sends neither is not a
    browser.
    """
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
        return False
    found = dict(scope["headers"])
    if b"sec-fetch-site" in found:
        return bool(found[b"sec-fetch-site"] == b"cross-site")
    origin = found.get(b"origin")
    return origin is not None and _host_of(origin) != found.get(b"host", b"").lower()


def parse_carriers(value: Carriers) -> tuple[bool, tuple[Carrier, ...]]:
    """Whether the body carries sessions, and the other carriers by precedence: the header before the cookie.

    Raises:
        ConfigurationError: There is no carrier, one is unknown, or there are two of one kind.
    """
    items = [value] if isinstance(value, str) or not isinstance(value, Iterable) else items_of(value)
    is_body = [isinstance(item, str) and item == BODY for item in items or ()]
    made = [_make_carrier(item) for item, is_own in zip(items or (), is_body, strict=True) if not is_own]
    if not items or len({item.name for item in made}) != len(made):
        raise ConfigurationError('carriers= takes one of each kind at most, and one at least: carriers=("body", "cookie").')
    return any(is_body), tuple(sorted(made, key=lambda item: item.name == CookieCarrier.name))


def _make_carrier(item: Carrier | str) -> Carrier:
    if isinstance(item, HeaderCarrier | CookieCarrier):
        return item
    if isinstance(item, str) and item == HeaderCarrier.name:
        return HeaderCarrier()
    if isinstance(item, str) and item == CookieCarrier.name:
        return CookieCarrier()
    found = repr(item) if isinstance(item, str) else kind_of(item)
    raise ConfigurationError(f"carriers= knows 'body', 'header' and 'cookie', and a HeaderCarrier or a CookieCarrier, not {found}.")


def _host_of(origin: bytes) -> bytes | None:
    """Host and port of an origin, as the header Host has them; None where the origin is not a URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _add_name(headers: Raw, field: bytes, name: bytes) -> Raw:
    """The headers with one more name in a field that is a list of names (RFC 9110, section 5.6.1)."""
    before = [value for key, value in headers if key == field]
    listed = {item.strip().lower() for value in before for item in value.split(b",")}
    if name.lower() in listed:
        return headers
    return [*[item for item in headers if item[0] != field], (field, b", ".join([*filter(None, before), name]))]
