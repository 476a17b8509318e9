"""Broken: the same service, which closes the connection as soon as it has refused."""

from __future__ import annotations

from typing import Any

from dcaf.asgi import problems
from tests.refusals.refusing import app

__all__ = ["app"]


async def _close(*_: Any) -> None:
    """Read nothing more."""


problems._linger = _close  # type: ignore[assignment]
