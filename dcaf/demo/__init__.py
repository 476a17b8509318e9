"""A deployment wizard and a basket, served and driven, for `dcaf demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from dcaf.demo.app import create_agent, create_demo

del annotations  # no public name of this package

__all__ = ["create_agent", "create_demo"]


def __getattr__(name: str) -> _Any:
    """Import a name where it is asked for: it needs an agent framework, which takes a second to load."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dcaf.demo import app  # noqa: PLC0415

    return getattr(app, name)
