"""What dcaf fills a parameter with, and how its annotation or its name asks for it.

What dcaf puts into a parameter by itself, and how the parameter's annotation asks for it.

>>> from dcaf.core.session import Session
>>> asked_for(Session | None, unset)
SessionFill(may_be_none=True, kind=<class 'dcaf.core.session.Session'>)
>>> asked_for(str, unset) is None
True

What a reader gets wrong: a session inside something else, as in ``list[Session]`` or ``Session | int``, is asked for by nobody, and
yet it is no parameter for a model either: it is a mistake.

The names by which a parameter asks for something of dcaf, whatever its annotation.

>>> filled_by_name("platform_context", dict | None, unset)
PlatformFill(as_dict=True)
>>> filled_by_name("session", unset, unset), filled_by_name("session", str, unset)
(SessionFill(may_be_none=False, kind=<class 'dcaf.core.session.Session'>), None)

What a reader gets wrong: this is asked where the annotation has named nothing of dcaf's. ``who: PlatformContext`` needs no name.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType, is_typeddict

from dcaf.core.adapters import adapter
from dcaf.core.errors import ConfigurationError, SessionTypeError
from dcaf.core.readonly import ReadOnlySession
from dcaf.core.session import Session, SessionKey
from dcaf.tools.callables import maker
from dcaf.tools.platform_context import PLATFORM, PlatformContext, current_platform

unset: Final = Parameter.empty

FILLED: Final = (Session, ReadOnlySession, PlatformContext)
"""The classes that dcaf fills parameters with."""

ALIASES: Final = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
"""What ``type X = ...`` makes, of the standard library where it has it, and of typing_extensions."""


@dataclass(frozen=True, slots=True)
class SessionFill:
    """The session itself, or a typed view of it.

    Attributes:
        may_be_none: Whether the parameter gets None where no session is running.
        kind: The class that it is annotated with.
        writes: Whether it can write the session.
    """

    may_be_none: bool
    kind: type[Session]
    writes: ClassVar[bool] = True

    def __call__(self, session: Session | None) -> Session | None:
        """The session as that class."""
        return session if session is None or type(session) is self.kind else self.kind.of(session)

    @property
    def needs_session(self) -> bool:
        """Whether there is nothing to put there without one."""
        return not self.may_be_none

    @property
    def what(self) -> str:
        """What the parameter gets, for a table."""
        return "the session" if self.kind is Session else f"the session as {self.kind.__name__}"


@dataclass(frozen=True, slots=True)
class ReadOnlyFill:
    """The session, to read. Attributes as of ``SessionFill``."""

    may_be_none: bool
    kind: type[ReadOnlySession]
    writes: ClassVar[bool] = False

    def __call__(self, session: Session | None) -> ReadOnlySession | None:
        """A reader of the session."""
        return None if session is None else self.kind.of(session)

    @property
    def needs_session(self) -> bool:
        """As of ``SessionFill``."""
        return not self.may_be_none

    @property
    def what(self) -> str:
        """What the parameter gets, for a table."""
        return "the session, to read"


@dataclass(frozen=True, slots=True)
class KeyFill:
    """The value of one key.

    Attributes:
        may_be_none: Whether the parameter gets None where the key is absent, or no session is running.
        key: The key.
        as_type: What the value is read as, and written back as.
        default: Makes the parameter's default, a new one each time; None where it has none.
    """

    may_be_none: bool
    key: str
    as_type: Any
    default: Callable[[], Any] | None
    writes: ClassVar[bool] = True

    @property
    def needs_session(self) -> bool:
        """As of ``SessionFill``."""
        return not self.may_be_none

    def __call__(self, session: Session | None) -> Any:
        """The value, live; where the key is absent the default, live too.

        Raises:
            SessionTypeError: The stored value does not fit, or there is none and the parameter can do without neither.
        """
        if session is None:
            return None
        offered = None if self.default is None else self.default()
        found = session.get(self.key, offered, as_type=self.as_type)
        if found is not None or self.may_be_none or self.key in session:
            return found
        raise SessionTypeError(
            f"{self.key}: the session has no such key, and the tool's parameter has no default. Give it one, or allow None."
        )

    @property
    def what(self) -> str:
        """What the parameter gets, for a table."""
        return f"session[{self.key!r}]"


@dataclass(frozen=True, slots=True)
class PlatformFill:
    """What the platform says of the turn; empty where it says nothing.

    Attributes:
        as_dict: Whether the parameter gets a dict of its own, and not the PlatformContext.
    """

    as_dict: bool
    may_be_none: ClassVar[bool] = False
    needs_session: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    def __call__(self, _: Session | None) -> PlatformContext | dict[str, Any]:
        """That of the turn that is running."""
        return current_platform().to_dict() if self.as_dict else current_platform()

    @property
    def what(self) -> str:
        """What the parameter gets, for a table."""
        return "the platform's context"


Fill = SessionFill | ReadOnlyFill | KeyFill | PlatformFill


def asked_for(annotation: Any, default: Any) -> Fill | None:
    """What an annotation asks dcaf for; None where the parameter is the model's.

    Args:
        annotation: As it stands, evaluated.
        default: The parameter's; ``unset`` where it has none.

    Raises:
        ConfigurationError: A session is in it that nobody can fill; the message goes on after the parameter's name.
    """
    core, metadata, optional = opened(annotation)
    keys = [item for item in metadata if isinstance(item, SessionKey)]
    may_be_none = optional or default is None
    if keys:
        return _key_fill(keys, core, [item for item in metadata if not isinstance(item, SessionKey)], default, optional=optional)
    if isinstance(core, type) and issubclass(core, Session):
        return SessionFill(may_be_none, core)
    if isinstance(core, type) and issubclass(core, ReadOnlySession):
        return ReadOnlyFill(may_be_none, core)
    if isinstance(core, type) and issubclass(core, PlatformContext):
        return PlatformFill(as_dict=False)
    if any(is_session_like(part) for part in _parts(annotation, set())):
        raise ConfigurationError(
            "has a session inside another type, which is filled by nobody: it is never read from a model's arguments. Annotate it "
            'as Session, Session | None, ReadOnlySession, or Annotated[Cart, SessionKey("cart")].'
        )
    return None


def is_session_like(part: Any) -> bool:
    """Whether something found in an annotation is one of the things that dcaf fills."""
    return isinstance(part, SessionKey) or (isinstance(part, type) and issubclass(part, (*FILLED, SessionKey)))


def spelled(annotation: Any) -> str:
    """An annotation, for a reader: without the modules of its names."""
    return annotation.__qualname__ if isinstance(annotation, type) else re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", str(annotation))


def _key_fill(keys: list[SessionKey], core: Any, metadata: list[Any], default: Any, *, optional: bool) -> KeyFill:
    if len(keys) > 1:
        raise ConfigurationError("has two SessionKeys: one parameter is one key.")
    if any(is_session_like(part) for part in _parts(core, set())):
        raise ConfigurationError("has a SessionKey around a session: annotate it as one or as the other.")
    as_type = Annotated[core, *metadata] if metadata else core
    adapter(as_type)
    made = _default(default)
    may_be_none = optional or (made is not None and made() is None)
    return KeyFill(may_be_none, keys[0].key, Union[as_type, None] if optional else as_type, made)  # noqa: UP007 - as_type may be a form without |


def _default(default: Any) -> Callable[[], Any] | None:
    if isinstance(default, FieldInfo):
        return None if default.is_required() else lambda: default.get_default(call_default_factory=True)
    if default is unset:
        return None
    return maker(default) or (lambda: default)


def opened(annotation: Any) -> tuple[Any, list[Any], bool]:
    """What stands inside Annotated, Optional and aliases: the type, the metadata on the way, and whether None is allowed."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    alias = next((item for item in (annotation, origin) if isinstance(item, ALIASES)), None)
    if alias is not None:
        return opened(alias.__value__)
    if isinstance(annotation, TypeVar) and annotation.__bound__ is not None:
        return opened(annotation.__bound__)
    if origin is Annotated:
        core, metadata, optional = opened(arguments[0])
        return core, [*metadata, *arguments[1:]], optional
    others = [item for item in arguments if item is not type(None)]
    if origin in (Union, UnionType) and len(others) == 1:
        core, metadata, _ = opened(others[0])
        return core, metadata, True
    is_filled = isinstance(origin, type) and issubclass(origin, FILLED)
    return origin if is_filled else annotation, [], False  # a generic class of ours has its fields, whatever stands in brackets


def _parts(annotation: Any, seen: set[int]) -> Iterator[Any]:
    """An annotation and everything in it, metadata, aliases and bounds too."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    yield annotation
    names = ("__value__",) if isinstance(annotation, ALIASES) else ("__supertype__", "__bound__", "__constraints__")
    further = [getattr(annotation, name, None) for name in names if not isinstance(annotation, type)]
    for item in (*get_args(annotation), get_origin(annotation), *further):
        for part in item if isinstance(item, list | tuple) else [item]:
            yield from _parts(part, seen)


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
