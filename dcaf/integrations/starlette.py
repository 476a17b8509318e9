"""A replacement of Starlette's SessionMiddleware: the same ``request.session`` in the same cookie, sealed.

>>> from dcaf.core import Keyring
>>> from starlette.applications import Starlette
>>> app = Starlette()
>>> app.add_middleware(SessionMiddleware, keys=Keyring.ephemeral(), audience="shop", max_age=3600)

``request.session`` is a dict here, as Starlette's is, and has a dict's methods alone. ``dcaf.current_session()`` gives the same
session with all that a Session can do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from starlette.types import ASGIApp

from dcaf.asgi.carriers import CookieCarrier
from dcaf.asgi.middleware import SessionMiddleware as Base
from dcaf.asgi.middleware import fail_at_startup
from dcaf.core.errors import ConfigurationError
from dcaf.core.session_dict import SessionDict
from dcaf.core.settings import ABSOLUTE_TIMEOUT, Keys

__all__ = ["Session", "SessionMiddleware"]

FORTNIGHT_S: Final = 14 * 24 * 60 * 60
CENTURY_S: Final = 100 * 365 * 24 * 60 * 60
FIXED: Final = {
    "carriers": "This SessionMiddleware has the cookie alone. For other carriers use dcaf.SessionMiddleware(carriers=...).",
    "idle_timeout": "Here the idle timeout is max_age=, in seconds, as in Starlette.",
    "secret_key": (
        "A secret of any strength is no key here. Make one with `dcaf keys new`, and pass it as keys=, or set DCAF_KEYS. "
        "Sessions that secret_key= has signed start anew."
    ),
}
"""Settings that are not taken, and what to do instead."""


class Session(SessionDict):
    """The class of ``request.session``, by its name in Starlette."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class StarlettesCookie(CookieCarrier):
    """A cookie with its attributes in Starlette's spelling, for tests that compare their text. Attributes as of CookieCarrier."""

    def _attributes(self) -> bytes:
        words = [f"path={self.path}", "httponly", f"samesite={self.same_site}"]
        words += ["secure"] if self.secure else []
        words += [f"domain={self.domain}"] if self.domain is not None else []
        words += ["partitioned"] if self.partitioned else []
        return "".join(f"; {word}" for word in words).encode("latin-1")


class SessionMiddleware(Base):
    """The session in a cookie, with Starlette's arguments. A refused cookie, and several of its name, start a new session.

    Args:
        app: The application.
        keys: As for ``dcaf.SessionMiddleware``. None reads DCAF_KEYS and DCAF_KEYS_VERIFY.
        session_cookie: Name of the cookie. With the prefix ``__Host-`` no other host can set it; that needs ``https_only``.
        max_age: How many seconds a session lives without a request; None is a fortnight, in a cookie that ends with the browser.
        path: Below which the cookie is sent.
        same_site: Whether other sites' links send it (``lax``), nothing of theirs does (``strict``), or all (``none``).
        https_only: Whether it travels over HTTPS alone.
        domain: For which hosts; None is this one alone.
        partitioned: Whether an embedded site has one for each site that embeds it.
        audience: The name of this service; a session of any other is refused.
        absolute_timeout: How long a session lives in all; None is 30 days, or ``max_age`` where that is more.
        **settings: Any other setting of ``dcaf.SessionMiddleware``, for instance ``encrypt=True``.

    Raises:
        ConfigurationError: A setting is wrong; the message says what to write.
    """

    _shown_as = Session

    @fail_at_startup
    def __init__(
        self,
        app: ASGIApp,
        /,
        keys: Keys = None,
        *,
        session_cookie: str = "session",
        max_age: int | None = FORTNIGHT_S,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        audience: str = "",
        absolute_timeout: timedelta | None = None,
        **settings: Any,
    ) -> None:
        for name in FIXED.keys() & settings.keys():
            raise ConfigurationError(f"{name}=: {FIXED[name]}")
        idle = timedelta(seconds=FORTNIGHT_S if max_age is None else _check_age(max_age))
        cookie = StarlettesCookie(
            session_cookie,
            path=path,
            domain=domain,
            secure=https_only,
            same_site=same_site,
            lasts=max_age is not None,
            partitioned=partitioned,
        )
        super().__init__(
            app,
            keys=keys,
            audience=audience,
            idle_timeout=idle,
            absolute_timeout=max(ABSOLUTE_TIMEOUT, idle) if absolute_timeout is None else absolute_timeout,
            carriers=(cookie,),
            **{"on_refused": "restart", **settings},
        )


def _check_age(max_age: int) -> int:
    if type(max_age) is not int or not 1 <= max_age <= CENTURY_S:
        raise ConfigurationError("max_age= is a number of seconds, from 1 up to a hundred years, or None.")
    return max_age
