"""What pydantic knows of a type: its adapter, and what its schema says of how its values are written and read.

>>> adapter(list[int]).validate_json(b"[1, 2]")
[1, 2]
>>> bytes | str == str | bytes, same_type(bytes | str, str | bytes)
(True, False)

Python calls ``bytes | str`` and ``str | bytes`` equal, and pydantic reads them differently. So types are
not cached by their equality alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import FunctionType, UnionType
from typing import Annotated, Any, Final, ForwardRef, Literal, NewType, TypeAlias, Union, cast, get_args, get_origin

from pydantic import ConfigDict, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter

from dcaf.core.errors import ConfigurationError

Path: TypeAlias = "Sequence[str | int]"
"""The way to a member in what is read; the first step is a key of the object itself."""

CONFIG: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
WRITERS: Final = ("function-plain", "function-wrap", "format", "include-exclude-sequence", "include-exclude-dict")
"""Kinds of serializers that may not write everything."""

ROUNDING: Final = ("ser_json_temporal", "ser_json_timedelta")
"""Settings of a model that write a time as a number."""

SETS: Final = ("set", "frozenset")
NO_TYPES: Final = frozenset(
    ["metadata", "default", "serialization", "computed_fields", "config", "cls", "expected", "members", "function"]
)
"""Members of a schema that hold no schema of a part."""

DEFERRED: Final = "import it where the type is written, outside `if TYPE_CHECKING:`, or call its model_rebuild() where it is known"


@dataclass(frozen=True, slots=True)
class Names:
    """How the members of an object are read.

    Attributes:
        paths: Member -> the paths under which it is read, in addition to its own name.
        keys: The keys of the object that are read whole.
    """

    paths: dict[str, list[Path]]
    keys: frozenset[str]

    @classmethod
    def of(cls, paths: dict[str, list[Path]]) -> Names:
        """Build the names from members and their paths."""
        aliases = (str(path[0]) for some in paths.values() for path in some if len(path) == 1)
        return cls(paths, frozenset((*paths, *aliases)))


@dataclass(slots=True)
class Description:
    """A type, described by pydantic.

    Attributes:
        adapter: The one TypeAdapter of it.
        read_once: The part that can be iterated only once, as ``Cart.items``; None where there is none.
        has_sets: Whether a value may have a set in it, whose items have no order.
        writes_all: Whether the written form has everything: no serializer of an application masks or rounds it, and nothing is
            excluded.
        names: Model or dataclass -> how its members are read.
        rows: The same of each TypedDict.
    """

    adapter: TypeAdapter[Any]
    read_once: str | None = None
    has_sets: bool = False
    writes_all: bool = True
    names: dict[type, Names] = field(default_factory=dict)
    rows: list[Names] = field(default_factory=list)

    @property
    def has_subclasses(self) -> bool:
        """Whether one of its classes has subclasses, whose objects may take the place of the declared class's."""
        return any(map(type.__subclasses__, self.names))


def adapter(as_type: Any) -> TypeAdapter[Any]:
    """The one TypeAdapter of a type.

    Raises:
        ConfigurationError: pydantic cannot describe the type, or a value of it could be iterated only once.
    """
    found = describe(as_type)
    if found.read_once is not None:
        raise ConfigurationError(describe_read_once(found.read_once))
    return found.adapter


def describe(as_type: Any) -> Description:
    """What pydantic knows of a type, cached where the type can be hashed.

    Raises:
        ConfigurationError: pydantic cannot describe it.
    """
    try:
        try:
            return _cached(as_type, _meaning(as_type))
        except TypeError:  # it has no hash
            return _describe(as_type)
    except RecursionError:
        raise ConfigurationError(f"A {type(as_type).__name__} that is nested so deep is no type.") from None


def describe_read_once(part: str) -> str:
    """The message for a part that can be iterated only once."""
    return f"{part} is an Iterable, an Iterator or a Generator, and gives its items one time only. Write list[...]"


def same_type(one: Any, other: Any) -> bool:
    """Whether pydantic reads two types alike: equal is not enough, and ``List[int]`` is ``list[int]``."""
    return one is other or bool(_meaning(one) == _meaning(other))


def _meaning(as_type: Any) -> Any:
    """A key that two types share if they mean the same: the arms of a union in order, and True different from 1."""
    if isinstance(as_type, type):
        return as_type
    origin, inner = get_origin(as_type), get_args(as_type)
    if origin is Literal:
        return (Literal, *((type(value), value) for value in inner))
    if origin is Annotated:
        return (Annotated, _meaning(inner[0]), *((type(item), repr(item), item) for item in as_type.__metadata__))
    if origin is None:
        return as_type if not isinstance(as_type, list) else tuple(map(_meaning, as_type))
    return (Union if origin is UnionType else origin, *map(_meaning, inner))


def _describe(as_type: Any) -> Description:
    name = next(_forward_names(as_type), None)
    if name is not None:
        raise ConfigurationError(
            f"{as_type!r} names {name!r} by a text, which cannot be looked up here. Pass the type itself, without quotes."
        )
    try:
        # pydantic refuses a config for a model, dataclass or TypedDict itself, but a dataclass in a list inherits it. Behind a
        # NewType it always does, so that a value is written the same wherever it stands. Models keep their own config.
        made = _adapt(TypeAdapter, cast("Any", NewType)("_", as_type), CONFIG)
        if not made.pydantic_complete:
            _rebuild(made)
        found = Description(made)
        _Walk(found).visit(made.core_schema, _name(as_type))
    except ConfigurationError:
        raise
    except PydanticUndefinedAnnotation as error:
        raise ConfigurationError(f"{as_type!r} names {error.name!r}, which is not found: {DEFERRED}.") from None
    except PydanticUserError as error:
        raise ConfigurationError(f"pydantic cannot describe {as_type!r}: {error.message}") from None
    except Exception as error:  # noqa: BLE001 - a type may run code of its own
        raise ConfigurationError(f"pydantic cannot describe {as_type!r}: {type(error).__name__}") from None
    return found


_cached = lru_cache(maxsize=1024)(lambda as_type, _: _describe(as_type))

# pydantic also looks names up in the module that calls it. These functions have no globals, so it finds none of this library's.
_adapt: Final[Any] = FunctionType((lambda *_: _[0](_[1], config=_[2])).__code__, {})
_rebuild: Final[Any] = FunctionType((lambda *_: _[0].rebuild(raise_errors=True)).__code__, {})


def _forward_names(as_type: Any) -> Iterator[str]:
    """The names of types inside a type that are given as texts."""
    if isinstance(as_type, str | ForwardRef):
        yield as_type if isinstance(as_type, str) else as_type.__forward_arg__
    elif get_origin(as_type) is Annotated:
        yield from _forward_names(get_args(as_type)[0])
    elif get_origin(as_type) is not Literal:
        for inner in as_type if isinstance(as_type, list) else get_args(as_type):
            yield from _forward_names(inner)


def _name(as_type: Any) -> str:
    return as_type.__name__ if isinstance(as_type, type) else str(as_type)


class _Walk:
    """Walks over a schema: each mapping with a ``type`` is a part, whatever its kind, and may hold others."""

    def __init__(self, found: Description) -> None:
        self._found = found

    def visit(self, node: Any, path: str, owner: type | None = None) -> None:
        """Add a part of a schema and the parts inside it to the description.

        Args:
            node: The part, or a collection of parts.
            path: Its path, for a message.
            owner: The model or dataclass whose members these are.
        """
        kind = node.get("type") if isinstance(node, dict) else None
        if isinstance(kind, str):
            path, owner = self._note(kind, node, path, owner)
            for key, inner in node.items():
                if key == "fields":
                    self._visit_fields(inner, path)
                elif key not in NO_TYPES:
                    self.visit(inner, path, owner)
        elif isinstance(node, list | tuple | dict):
            for inner in node.values() if isinstance(node, dict) else node:
                self.visit(inner, path, owner)

    def _visit_fields(self, fields: Any, path: str) -> None:
        for name, item in _fields_by_name(fields):
            self.visit(item, f"{path}.{name}")

    def _note(self, kind: str, node: dict[str, Any], path: str, owner: type | None) -> tuple[str, type | None]:
        """Add one part; returns the path and the owner of the parts inside it."""
        found = self._found
        found.has_sets |= kind in SETS
        found.writes_all &= _writes_all(node)
        if kind == "generator":
            found.read_once = path
        elif kind in ("model", "dataclass"):
            path, owner = node["cls"].__name__, node["cls"]
        elif kind in ("model-fields", "dataclass-args") and owner is not None:
            found.names.setdefault(owner, _names(node["fields"]))
        elif kind == "typed-dict":
            found.rows.append(_names(node["fields"]))
        return path, owner


def _writes_all(node: dict[str, Any]) -> bool:
    """Whether everything of a part is written, as far as its schema tells."""
    if node.get("serialization_exclude") or node.get("serialization_exclude_if"):
        return False
    if any(name.startswith(ROUNDING) for name in node.get("config") or ()):
        return False
    writer = node.get("serialization") or {}
    own = getattr(writer.get("function"), "__module__", None) or ""
    return writer.get("type") not in WRITERS or own.startswith("pydantic._internal")


def _fields_by_name(fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """The fields of an object by name; a schema has them as a mapping or as a list."""
    return [*fields.items()] if isinstance(fields, dict) else [(item["name"], item) for item in fields if isinstance(item, dict)]


def _names(fields: Any) -> Names:
    return Names.of({name: _paths(item.get("validation_alias")) for name, item in _fields_by_name(fields)})


def _paths(alias: Any) -> list[Path]:
    """The paths of an alias, which is a text, a path, or a list of paths."""
    if alias is None:
        return []
    if isinstance(alias, str):
        return [[alias]]
    return list(alias) if isinstance(alias[0], list) else [alias]
