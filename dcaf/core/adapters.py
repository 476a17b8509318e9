"""What pydantic knows of a type: its adapter, and what its schema says of how its values are written and read.

>>> adapter(list[int]).validate_json(b"[1, 2]")
[1, 2]
>>> bytes | str == str | bytes, same_type(bytes | str, str | bytes)
(True, False)

What a reader gets wrong: Python calls ``bytes | str`` and ``str | bytes`` equal, and pydantic reads them differently. So no
type is looked up by its equality alone.
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
"""Where a member is read: the first step is a key of the object itself."""

CONFIG: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
WRITERS: Final = ("function-plain", "function-wrap", "format", "include-exclude-sequence", "include-exclude-dict")
"""Kinds of serializers that may write less than what is there."""

ROUNDING: Final = ("ser_json_temporal", "ser_json_timedelta")
"""Settings of a model by which a time is written as a number."""

SETS: Final = ("set", "frozenset")
NO_TYPES: Final = frozenset(
    ["metadata", "default", "serialization", "computed_fields", "config", "cls", "expected", "members", "function"]
)
"""Members of a schema in which no type of a value stands."""

DEFERRED: Final = "import it where the type is written, outside `if TYPE_CHECKING:`, or call its model_rebuild() where it is known"


@dataclass(frozen=True, slots=True)
class Names:
    """How the members of an object are read.

    Attributes:
        paths: Member -> the paths under which it is read, besides its own name.
        keys: The keys of the object that are read whole.
    """

    paths: dict[str, list[Path]]
    keys: frozenset[str]

    @classmethod
    def of(cls, paths: dict[str, list[Path]]) -> Names:
        """Those of members and their paths."""
        aliases = (str(path[0]) for some in paths.values() for path in some if len(path) == 1)
        return cls(paths, frozenset((*paths, *aliases)))


@dataclass(slots=True)
class Description:
    """A type, described by pydantic.

    Attributes:
        adapter: The one TypeAdapter of it.
        read_once: Which part of it gives its items one time only, as ``Cart.items``; None where none does.
        has_sets: Whether a set may stand in a value, whose items have no order of their own.
        writes_all: Whether everything that is there is seen in how it is written: no serializer of a program's own masks or
            rounds it, and nothing is excluded.
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
        """Whether an object of a subclass may stand where one of its classes is declared."""
        return any(map(type.__subclasses__, self.names))


def adapter(as_type: Any) -> TypeAdapter[Any]:
    """The one TypeAdapter of a type.

    Raises:
        ConfigurationError: pydantic cannot describe the type, or a value of it could be read one time only.
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
    """What is said of a part that gives its items one time only."""
    return f"{part} is an Iterable, an Iterator or a Generator, and gives its items one time only. Write list[...]"


def same_type(one: Any, other: Any) -> bool:
    """Whether pydantic reads two types alike: equal is not enough, and ``List[int]`` is ``list[int]``."""
    return one is other or bool(_meaning(one) == _meaning(other))


def _meaning(as_type: Any) -> Any:
    """What a type is, so that two of them are equal where they mean the same: arms in their order, True apart from 1."""
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
    name = next(_texts(as_type), None)
    if name is not None:
        raise ConfigurationError(
            f"{as_type!r} names {name!r} by a text, which cannot be looked up here. Pass the type itself, without quotes."
        )
    try:
        # A model, dataclass or TypedDict takes no config of its own here, but a dataclass in a list would. Under another name
        # it inherits it alone too, so that a value is written the same wherever it stands. Models keep their own.
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
    except Exception as error:  # noqa: BLE001 - a type brings code of its own, and pydantic takes some objects for what they are not
        raise ConfigurationError(f"pydantic cannot describe {as_type!r}: {type(error).__name__}") from None
    return found


_cached = lru_cache(maxsize=1024)(lambda as_type, _: _describe(as_type))

# pydantic looks a name up where it is called from too. From here it would find what this library happens to import.
_adapt: Final[Any] = FunctionType((lambda *_: _[0](_[1], config=_[2])).__code__, {})
_rebuild: Final[Any] = FunctionType((lambda *_: _[0].rebuild(raise_errors=True)).__code__, {})


def _texts(as_type: Any) -> Iterator[str]:
    """The types inside one that are only named."""
    if isinstance(as_type, str | ForwardRef):
        yield as_type if isinstance(as_type, str) else as_type.__forward_arg__
    elif get_origin(as_type) is Annotated:
        yield from _texts(get_args(as_type)[0])
    elif get_origin(as_type) is not Literal:
        for inner in as_type if isinstance(as_type, list) else get_args(as_type):
            yield from _texts(inner)


def _name(as_type: Any) -> str:
    return as_type.__name__ if isinstance(as_type, type) else str(as_type)


class _Walk:
    """One walk over a schema: each mapping with a ``type`` is a part, whatever its kind, and may hold others."""

    def __init__(self, found: Description) -> None:
        self._found = found

    def visit(self, node: Any, path: str, owner: type | None = None) -> None:
        """Note what a part of a schema says, and the parts inside it.

        Args:
            node: The part, or a collection of parts.
            path: Where it stands, for a message.
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
        for name, item in _named(fields):
            self.visit(item, f"{path}.{name}")

    def _note(self, kind: str, node: dict[str, Any], path: str, owner: type | None) -> tuple[str, type | None]:
        """Note one part; where those inside it stand, and whose members they are."""
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
    """Whether a part is written whole, as far as its schema tells."""
    if node.get("serialization_exclude") or node.get("serialization_exclude_if"):
        return False
    if any(name.startswith(ROUNDING) for name in node.get("config") or ()):
        return False
    writer = node.get("serialization") or {}
    own = getattr(writer.get("function"), "__module__", None) or ""
    return writer.get("type") not in WRITERS or own.startswith("pydantic._internal")


def _named(fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """The fields of an object by their names: a schema has them as a mapping, or as a list."""
    return [*fields.items()] if isinstance(fields, dict) else [(item["name"], item) for item in fields if isinstance(item, dict)]


def _names(fields: Any) -> Names:
    return Names.of({name: _paths(item.get("validation_alias")) for name, item in _named(fields)})


def _paths(alias: Any) -> list[Path]:
    """An alias is a text, a path, or a list of paths to choose from."""
    if alias is None:
        return []
    if isinstance(alias, str):
        return [[alias]]
    return list(alias) if isinstance(alias[0], list) else [alias]
