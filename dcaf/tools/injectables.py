"""What dcaf fills a parameter with, and how the parameter asks for it: by its annotation, or by a reserved name.

>>> from dcaf.core.session import Session
>>> find_fill(Session | None, unset)
SessionFill(may_be_none=True, kind=<class 'dcaf.core.session.Session'>)
>>> find_fill(str, unset) is None
True
>>> find_fill_by_name("platform_context", dict | None, unset)
PlatformFill(may_be_none=False, as_dict=True)
>>> find_fill_by_name("session", str, unset) is None
True

A new injectable is a class below ``dcaf.core.journal.Injected``. For a class that cannot be one there are a Fill and a provider: a
line in ``PROVIDERS``, or ``register_provider``.

What a reader gets wrong: a session inside something else, as in ``list[Session]`` or ``Session | int``, is filled by nobody, and is
no parameter for a model either: it is a mistake.
"""

from __future__ import annotations

import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from inspect import Parameter
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType, is_typeddict

from dcaf.core.adapters import adapter
from dcaf.core.errors import ConfigurationError, SessionTypeError
from dcaf.core.journal import Injected
from dcaf.core.readonly import ReadOnlySession
from dcaf.core.session import Session, SessionKey
from dcaf.tools.callables import find_default_factory
from dcaf.tools.platform_context import PLATFORM, PlatformContext, current_platform

unset: Final = Parameter.empty

ALIASES: Final = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
"""What ``type X = ...`` makes, of the standard library where it has it, and of typing_extensions."""

SESSION: Final = "session"

RESERVED: Final = (SESSION, PLATFORM)

DICTS: Final = (dict, Mapping, MutableMapping)
"""What takes a plain dict, besides a TypedDict."""


@dataclass(frozen=True, slots=True)
class Fill(ABC):
    """What dcaf puts into one parameter, at each call.

    Attributes:
        may_be_none: Whether the parameter gets None where there is nothing to put there.
        takes_session: Whether it takes the session, or a part of it.
        writes: Whether it can write the session.
    """

    may_be_none: bool
    takes_session: ClassVar[bool] = True
    writes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, session: Session | None) -> Any:
        """The value for one call; the session is None where none is running."""

    @property
    @abstractmethod
    def what(self) -> str:
        """What the parameter gets, for a table."""

    @property
    def needs_session(self) -> bool:
        """Whether there is nothing to put there without a session."""
        return self.takes_session and not self.may_be_none


@dataclass(frozen=True, slots=True)
class SessionFill(Fill):
    """The session itself, or a typed view of it.

    Attributes:
        kind: The class that the parameter is annotated with.
    """

    kind: type[Session]
    writes: ClassVar[bool] = True

    def __call__(self, session: Session | None) -> Session | None:
        return session if session is None or type(session) is self.kind else self.kind.of(session)

    @property
    def what(self) -> str:
        return "the session" if self.kind is Session else f"the session as {self.kind.__name__}"


@dataclass(frozen=True, slots=True)
class ReadOnlyFill(Fill):
    """The session, to read. Attributes as of ``SessionFill``."""

    kind: type[ReadOnlySession]

    def __call__(self, session: Session | None) -> ReadOnlySession | None:
        return None if session is None else self.kind.of(session)

    @property
    def what(self) -> str:
        return "the session, to read"


@dataclass(frozen=True, slots=True)
class KeyFill(Fill):
    """The value of one key, live; where the key is absent the default, live too.

    Attributes:
        key: The key.
        as_type: What the value is read as, and written back as.
        default: Makes the parameter's default, a new one each time; None where it has none.
    """

    key: str
    as_type: Any
    default: Callable[[], Any] | None
    writes: ClassVar[bool] = True

    def __call__(self, session: Session | None) -> Any:
        """The value of the key, or the default where it is absent.

        Raises:
            SessionTypeError: The stored value does not fit, or there is none and the parameter can do without neither.
        """
        if session is None:
            return None
        default = None if self.default is None else self.default()
        found = session.get(self.key, default, as_type=self.as_type)
        if found is not None or self.may_be_none or self.key in session:
            return found
        raise SessionTypeError(
            f"{self.key}: the session has no such key, and the tool's parameter has no default. Give it one, or allow None."
        )

    @property
    def what(self) -> str:
        return f"session[{self.key!r}]"


@dataclass(frozen=True, slots=True)
class InjectedFill(Fill):
    """What a class makes of the session by itself.

    Attributes:
        kind: The class that the parameter is annotated with.
    """

    kind: type[Injected]

    @property
    def writes(self) -> bool:  # type: ignore[override]
        """Whether it can write the session."""
        return self.kind.writes

    def __call__(self, session: Session | None) -> Injected | None:
        """It. Raises as ``Injected.of``."""
        if session is None or (self.may_be_none and not self.kind.is_for(session)):
            return None
        return self.kind.of(session)

    @property
    def what(self) -> str:
        return f"the {self.kind.__name__} of the session"


@dataclass(frozen=True, slots=True)
class PlatformFill(Fill):
    """What the platform says of the turn; empty where it says nothing.

    Attributes:
        as_dict: Whether the parameter gets a dict of its own, and not the PlatformContext.
    """

    as_dict: bool
    takes_session: ClassVar[bool] = False

    def __call__(self, _: Session | None) -> PlatformContext | dict[str, Any]:
        return current_platform().to_dict() if self.as_dict else current_platform()

    @property
    def what(self) -> str:
        return "the platform's context"


Provider: TypeAlias = Callable[[Any, bool], Fill]
"""Makes the fill of a parameter of the class that it is annotated with, and of whether it may be None."""

PROVIDERS: Final[dict[type, Provider]] = {
    Session: lambda kind, may_be_none: SessionFill(may_be_none, kind),
    ReadOnlySession: lambda kind, may_be_none: ReadOnlyFill(may_be_none, kind),
    Injected: lambda kind, may_be_none: InjectedFill(may_be_none, kind),
    PlatformContext: lambda _kind, _may_be_none: PlatformFill(may_be_none=False, as_dict=False),
}
"""Class -> what fills the parameters that are annotated with it, or with a subclass of it; the last one that fits counts."""


def register_provider(kind: type, provider: Provider) -> None:
    """Have dcaf fill the parameters of a class, in the tools that are made from now on.

    Args:
        kind: The class. Its subclasses are filled too.
        provider: Makes the fill of one parameter.

    Raises:
        ConfigurationError: The class has a provider already.
    """
    if kind in PROVIDERS:
        raise ConfigurationError(f"{kind.__qualname__} has a provider already.")
    PROVIDERS[kind] = provider


def find_fill(annotation: Any, default: Any) -> Fill | None:
    """What an annotation asks dcaf for; None where the parameter is the model's.

    Args:
        annotation: As it stands, evaluated.
        default: The parameter's; ``unset`` where it has none.

    Raises:
        ConfigurationError: A session is in it that nobody can fill; the message goes on after the parameter's name.
    """
    core, metadata, optional = unwrap(annotation)
    keys = [item for item in metadata if isinstance(item, SessionKey)]
    if keys:
        return _key_fill(keys, core, [item for item in metadata if not isinstance(item, SessionKey)], default, optional=optional)
    provider = _find_provider(core)
    if provider is not None:
        return provider(core, optional or default is None)
    if any(is_injectable(part) for part in _parts(annotation, set())):
        raise ConfigurationError(
            "has a session inside another type, which is filled by nobody: it is never read from a model's arguments. Annotate it "
            'as Session, Session | None, ReadOnlySession, or Annotated[Cart, SessionKey("cart")].'
        )
    return None


def find_fill_by_name(name: str, annotation: Any, default: Any) -> Fill | None:
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
    core, _, _ = unwrap(annotation)
    kinds = {_kind(member) for member in (get_args(core) if get_origin(core) in (Union, UnionType) else [core])}
    if name == PLATFORM and kinds <= {"unset", "any", "dict"}:
        return PlatformFill(may_be_none=False, as_dict=True)
    if name == SESSION and not kinds & {"any", "dict"}:
        return SessionFill(default is None, Session) if kinds == {"unset"} else None
    wanted = "session: Session" if name == SESSION else f"{PLATFORM}: dict[str, Any], or PlatformContext"
    raise ConfigurationError(
        f"is not what dcaf fills a parameter of that name with, and no model may fill it. Write `{wanted}`, or give the parameter "
        "another name."
    )


def is_injectable(part: Any) -> bool:
    """Whether something found in an annotation is one of the things that dcaf fills."""
    is_key = isinstance(part, SessionKey) or (isinstance(part, type) and issubclass(part, SessionKey))
    return is_key or _find_provider(part) is not None


def unwrap(annotation: Any) -> tuple[Any, list[Any], bool]:
    """What stands inside Annotated, Optional and aliases: the type, the metadata on the way, and whether None is allowed."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    alias = next((item for item in (annotation, origin) if isinstance(item, ALIASES)), None)
    if alias is not None:
        return unwrap(alias.__value__)
    if isinstance(annotation, TypeVar) and annotation.__bound__ is not None:
        return unwrap(annotation.__bound__)
    if origin is Annotated:
        core, metadata, optional = unwrap(arguments[0])
        return core, [*metadata, *arguments[1:]], optional
    others = [item for item in arguments if item is not type(None)]
    if origin in (Union, UnionType) and len(others) == 1:
        core, metadata, _ = unwrap(others[0])
        return core, metadata, True
    is_filled = _find_provider(origin) is not None  # a generic class of ours has its fields, whatever stands in brackets
    return origin if is_filled else annotation, [], False


def format_annotation(annotation: Any) -> str:
    """An annotation, for a reader: without the modules of its names."""
    return annotation.__qualname__ if isinstance(annotation, type) else re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", str(annotation))


def _find_provider(kind: Any) -> Provider | None:
    if not isinstance(kind, type):
        return None
    return next((provider for base, provider in reversed(PROVIDERS.items()) if issubclass(kind, base)), None)


def _key_fill(keys: list[SessionKey], core: Any, metadata: list[Any], default: Any, *, optional: bool) -> KeyFill:
    if len(keys) > 1:
        raise ConfigurationError("has two SessionKeys: one parameter is one key.")
    if any(is_injectable(part) for part in _parts(core, set())):
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
    return find_default_factory(default) or (lambda: default)


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
