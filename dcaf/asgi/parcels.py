"""What a request brought beside its body: the token of each carrier, the first of which may be the one that is opened.

>>> from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier
>>> scope = {"type": "http", "method": "GET", "headers": [(b"dcaf-session", b"new")]}
>>> parcels_of((HeaderCarrier(), CookieCarrier()), scope)[0].value
{'dcaf': {'token': 'new'}}

What a reader gets wrong: a body's session comes before all of these. They are opened only where the body has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from starlette.types import Scope

from dcaf.asgi.carriers import Carrier
from dcaf.core.errors import SessionError
from dcaf.core.state import RESERVED


class Parcel(NamedTuple):
    """What one carrier brought.

    Attributes:
        carrier: The carrier.
        token: The token; empty where it could not be read.
        refusal: Why it could not; None where it could.
    """

    carrier: Carrier
    token: str
    refusal: SessionError | None = None

    def __repr__(self) -> str:
        return f"Parcel({self.carrier.name!r})"

    @property
    def value(self) -> Any:
        """What would have stood at ``data.session``.

        Raises:
            SessionError: It could not be read.
        """
        if self.refusal is not None:
            raise self.refusal
        return {RESERVED: {"token": self.token}}


def parcels_of(carriers: Iterable[Carrier], scope: Scope) -> list[Parcel]:
    """What each carrier brought, by precedence; nothing of those that brought nothing."""
    found: list[Parcel] = []
    for carrier in carriers:
        try:
            token = carrier.read(scope)
        except SessionError as refusal:
            found.append(Parcel(carrier, "", refusal))
        else:
            found += [] if token is None else [Parcel(carrier, token)]
    return found
