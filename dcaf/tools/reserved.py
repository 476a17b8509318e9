"""The names by which a parameter asks for something of dcaf, whatever its annotation.

>>> filled_by_name("platform_context", dict | None, unset)
PlatformFill(as_dict=True)
>>> filled_by_name("session", unset, unset), filled_by_name("session", str, unset)
(SessionFill(may_be_none=False, kind=<class 'dcaf.core.session.Session'>), None)

What a reader gets wrong: this is asked where the annotation has named nothing of dcaf's. ``who: PlatformContext`` needs no name.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, MutableMapping
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from typing_extensions import is_typeddict

from dcaf.core.errors import ConfigurationError
from dcaf.core.session import Session
from dcaf.tools.providers import Fill, PlatformFill, SessionFill, opened, unset
from dcaf.tools.platform_context import PLATFORM

SESSION: Final = "session"

RESERVED: Final = (SESSION, PLATFORM)

DICTS: Final = (dict, Mapping, MutableMapping)
"""What takes a plain dict, beside a TypedDict."""


def filled_by_name(name: str, annotation: Any, default: Any) -> Fill | None:
    """What a reserved name asks for; None where the parameter is the model's.

    ``platform_context`` never is. ``session`` is where it cannot be meant for the session: a text, a number, a model.

    Args:
        name: The parameter's.
        annotation: As it stands, evaluated; ``unset`` where it has none.
        default: The parameter's; ``unset`` where it has none.

    Raises:
        ConfigurationError: The annotation is of something else; the message goes on after the parameter's name.
    """
    if name not in RESERVED:
        return None
    core, _, _ = opened(annotation)
    kinds = {_kind(member) for member in (get_args(core) if get_origin(core) in (Union, UnionType) else [core])}
    if name == PLATFORM and kinds <= {"unset", "any", "dict"}:
        return PlatformFill(as_dict=True)
    if name == SESSION and not kinds & {"any", "dict"}:
        return SessionFill(default is None, Session) if kinds == {"unset"} else None
    wanted = "session: Session" if name == SESSION else f"{PLATFORM}: dict[str, Any], or PlatformContext"
    raise ConfigurationError(
        f"is not what dcaf fills a parameter of that name with, and no model may fill it. Write `{wanted}`, or give the parameter "
        "another name."
    )


def _kind(annotation: Any) -> Literal["unset", "any", "dict", "other"]:
    """What kind of thing fits an annotation, as far as the reserved names care."""
    while hasattr(annotation, "__supertype__"):
        annotation = annotation.__supertype__
    core = get_origin(annotation) or annotation
    if core is unset:
        return "unset"
    if core is typing.Any or core is object or isinstance(core, TypeVar):
        return "any"
    return "dict" if is_typeddict(core) or any(core is kind for kind in DICTS) else "other"
