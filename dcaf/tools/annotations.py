"""What an annotation stands for: each parameter's alone, however its names came into the module.

>>> from dcaf.core.session import Session
>>> def greet(name: str, session: "Session") -> "Nowhere": ...
>>> Names.of(greet).value("Session", where="greet")
<class 'dcaf.core.session.Session'>

What a reader gets wrong: nothing is decided by the text of an annotation. A name is looked up where Python would look, then among
the imports of the source, those under ``if TYPE_CHECKING:`` too, and what counts is the object that is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ForwardRef, get_args, get_type_hints

from dcaf.core.errors import ConfigurationError
from dcaf.tools.callables import written
from dcaf.tools.source import Source, dotted_names, unquoted


class Unresolved(Exception):
    """An annotation names something that cannot be found.

    Attributes:
        name: What it names.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name: str = name


class Names:
    """The names that the annotations of one function may use.

    Args:
        function: What was written.
        around: The local names of the scopes that it was written in, as far as they are known.
        loading: Import a module that only the source names and nobody has loaded yet.
    """

    def __init__(self, function: Callable[..., Any], around: dict[str, Any], *, loading: bool = False) -> None:
        self._function = function
        self._around = around
        self._loading = loading
        self._globals: dict[str, Any] = getattr(function, "__globals__", {})
        self._local = {**around, **_closure(function), **_type_parameters(function)}
        self._source = Source.of(function)

    @classmethod
    def of(cls, function: Callable[..., Any], frame: FrameType | None = None) -> Names:
        """Those of a function that is being defined somewhere above a frame; None where that is over."""
        plain = written(function)
        return cls(plain, _locals_above(frame, plain))

    @property
    def is_last(self) -> bool:
        """Whether there is no later time to look again."""
        return self._loading

    def at_last(self) -> Names:
        """The same, now that whatever was still to be defined is there."""
        return Names(self._function, self._around, loading=True)

    def value(self, annotation: Any, *, where: str) -> Any:
        """The annotation itself, with whatever is quoted in it; under PEP 563 all of it is.

        Raises:
            Unresolved: It names something that cannot be found.
            ConfigurationError: It can never be evaluated.
        """
        while True:
            try:
                return self._evaluated(annotation)
            except NameError as error:
                self._import(error.name or str(error))
            except AttributeError as error:
                raise Unresolved(str(error.name)) from None
            except (SyntaxError, TypeError) as error:
                raise ConfigurationError(f"{where} cannot be evaluated: {error}.") from None

    def hidden(self, annotation: Any) -> str | None:
        """The first name in an annotation that the source defines, and that is out of reach all the same; None if there is none."""
        roots = [name.partition(".")[0] for name in _names_in(annotation)]
        return next((name for name in roots if self._source.binds(name) and not self._knows(name)), None)

    def parts(self, annotation: Any) -> Iterator[Any]:
        """What the names in an annotation stand for, one by one, as far as they can be found."""
        for name in _names_in(annotation):
            try:
                yield self.value(name, where=name)
            except (Unresolved, ConfigurationError):
                continue

    def _evaluated(self, annotation: Any) -> Any:
        try:
            return _hint(annotation, self._globals, self._local)
        except TypeError:
            if not isinstance(annotation, str):
                raise
            return _hint(unquoted(annotation), self._globals, self._local)

    def _import(self, name: str) -> None:
        imports = self._source.imports()
        if name in self._local or name not in imports:
            raise Unresolved(name) from None
        try:
            self._local[name] = imports[name].found(loading=self._loading)
        except LookupError:
            raise Unresolved(name) from None

    def _knows(self, name: str) -> bool:
        return name in self._local or name in self._globals


def _hint(annotation: Any, of_module: dict[str, Any], local: dict[str, Any]) -> Any:
    holder = type("Holder", (), {"__annotations__": {"value": annotation}})
    return get_type_hints(holder, of_module, local, include_extras=True)["value"]


def _names_in(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, str):
        yield from dotted_names(annotation)
    elif isinstance(annotation, ForwardRef):
        yield from dotted_names(annotation.__forward_arg__)
    for item in get_args(annotation):
        yield from _names_in(item)


def _locals_above(frame: FrameType | None, function: Callable[..., Any]) -> dict[str, Any]:
    """The local names of the scopes that a function is written in, from those of them that still run."""
    name, file = getattr(function, "__qualname__", ""), getattr(getattr(function, "__code__", None), "co_filename", None)
    scopes = {name[: index - 1].removesuffix(".<locals>") for index in range(1, len(name)) if name[index - 1] == "."}
    found: dict[str, Any] = {}
    while frame is not None and scopes:
        if frame.f_code.co_filename == file and frame.f_code.co_qualname in scopes:
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    return found


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    cells = zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False
    )
    found: dict[str, Any] = {}
    for name, cell in cells:
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet: the function itself, while it is being decorated
            continue
    return found


def _type_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {item.__name__: item for item in getattr(function, "__type_params__", ())}
