"""Find the names in the annotations of a tool's parameters, however they came into its module.

>>> from dcaf.core.session import Session
>>> def greet(name: str, session: "Session") -> "Nowhere": ...
>>> Names.of(greet).evaluate("Session", where="greet")
<class 'dcaf.core.session.Session'>

A name is looked up where Python would look. Then it is looked up among the imports in the source, because running a module does
not tell what it imports under TYPE_CHECKING, and inside functions.

>>> source = Source("if TYPE_CHECKING: from decimal import Decimal as D", line=3, package="")
>>> source.imports()["D"].find(loads=True), source.binds("D")
(<class 'decimal.Decimal'>, False)

The text of an annotation decides nothing. What counts is the object that is found, so that another library's class of the same name
is another class.
"""

from __future__ import annotations

import ast
import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import resolve_name
from types import FrameType
from typing import Any, Final

from dcaf.core.annotations import evaluate, names_in, unquote
from dcaf.core.errors import ConfigurationError
from dcaf.tools.callables import find_function

SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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
        function: The innermost function.
        around: The local names of the scopes that it was written in, as far as they are known.
        is_last: There is no later time to look again: a module that only the source names, and nobody has loaded, is imported.

    Attributes:
        is_last: The same.
    """

    def __init__(self, function: Callable[..., Any], around: dict[str, Any], *, is_last: bool = False) -> None:
        self.is_last: bool = is_last
        self._function = function
        self._around = around
        self._globals: dict[str, Any] = getattr(function, "__globals__", {})
        self._local = {**around, **_closure(function), **_type_parameters(function)}
        self._source = Source.of(function)

    @classmethod
    def of(cls, function: Callable[..., Any], frame: FrameType | None = None) -> Names:
        """Those of a function that is being defined somewhere above a frame; None where that is over."""
        plain = find_function(function)
        return cls(plain, _locals_above(frame, plain))

    def at_last(self) -> Names:
        """The same, now that whatever was still to be defined is there."""
        return Names(self._function, self._around, is_last=True)

    def evaluate(self, annotation: Any, *, where: str) -> Any:
        """The annotation itself, with whatever is quoted in it; under PEP 563 all of it is.

        Args:
            annotation: As it stands.
            where: What a message says of its place.

        Raises:
            Unresolved: It names something that cannot be found.
            ConfigurationError: It can never be evaluated.
        """
        while True:
            try:
                return self._evaluate(annotation)
            except NameError as error:
                self._import(error.name or str(error))
            except AttributeError as error:
                raise Unresolved(str(error.name)) from None
            except (SyntaxError, TypeError) as error:
                raise ConfigurationError(f"{where} cannot be evaluated: {error}.") from None

    def find_hidden(self, annotation: Any) -> str | None:
        """The first name in an annotation that the source defines, and that is out of reach all the same; None if there is none."""
        roots = [name.partition(".")[0] for name in names_in(annotation)]
        known = self._local.keys() | self._globals.keys()
        return next((name for name in roots if self._source.binds(name) and name not in known), None)

    def find_parts(self, annotation: Any) -> Iterator[Any]:
        """What the names in an annotation stand for, one by one, as far as they can be found."""
        for name in names_in(annotation):
            try:
                yield self.evaluate(name, where=name)
            except (Unresolved, ConfigurationError):
                continue

    def _evaluate(self, annotation: Any) -> Any:
        try:
            return evaluate(annotation, self._globals, self._local)
        except TypeError:
            if not isinstance(annotation, str):
                raise
            return evaluate(unquote(annotation), self._globals, self._local)

    def _import(self, name: str) -> None:
        imports = self._source.imports()
        if name in self._local or name not in imports:
            raise Unresolved(name) from None
        try:
            self._local[name] = imports[name].find(loads=self.is_last)
        except LookupError:
            raise Unresolved(name) from None


@dataclass(frozen=True, slots=True)
class Imported:
    """What one name in an import statement stands for.

    Attributes:
        module: The module's full name.
        attribute: What is imported of it; empty for the module itself.
        bound: For ``import a.b``, the module that the name is bound to: ``a``; else empty.
    """

    module: str
    attribute: str = ""
    bound: str = ""

    def find(self, *, loads: bool) -> Any:
        """The object.

        Args:
            loads: Import the module if nobody has yet.

        Raises:
            LookupError: The module is not loaded, or has no such name.
        """
        try:
            module = importlib.import_module(self.module) if loads else sys.modules[self.module]
        except ImportError:
            raise LookupError(self.module) from None
        if self.bound:
            return sys.modules[self.bound]
        if not self.attribute:
            return module
        if hasattr(module, self.attribute):
            return getattr(module, self.attribute)
        return Imported(f"{self.module}.{self.attribute}").find(loads=loads)


class Source:
    """The source around one function.

    Args:
        text: The whole module; empty where there is none.
        line: Where the function begins.
        package: What relative imports start from.
    """

    def __init__(self, text: str, *, line: int, package: str) -> None:
        self._text = text
        self._line = line
        self._package = package

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Source:
        """That of a function; an empty one where its module has no file."""
        code, names = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        if code is None:
            return cls("", line=0, package="")
        package = names.get("__package__") or names.get("__name__", "").rpartition(".")[0]
        return cls("".join(linecache.getlines(code.co_filename, names)), line=code.co_firstlineno, package=package)

    def imports(self) -> dict[str, Imported]:
        """Name -> what it stands for, by the imports of the module and of the functions around; the innermost counts."""
        found: dict[str, Imported] = {}
        for node in _nodes_around(_parse(self._text), self._line):
            if isinstance(node, ast.Import):
                found |= {alias.asname or alias.name.partition(".")[0]: _module(alias) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = resolve_name("." * node.level + (node.module or ""), self._package or None) if node.level else node.module
                found |= {alias.asname or alias.name: Imported(module or "", alias.name) for alias in node.names}
        return found

    def binds(self, name: str) -> bool:
        """Whether a statement anywhere in the module defines a class, or assigns, by that name."""
        return any(
            (isinstance(node, ast.ClassDef) and node.name == name)
            or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name)
            for node in ast.walk(_parse(self._text))
        )


def _module(alias: ast.alias) -> Imported:
    return Imported(alias.name) if alias.asname else Imported(alias.name, bound=alias.name.partition(".")[0])


@lru_cache(maxsize=16)
def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # a notebook's cell, or a file that has changed since
        return ast.Module([], [])


def _nodes_around(node: ast.AST, line: int) -> Iterator[ast.AST]:
    """What is inside a node, but for the bodies of functions and classes that the line is not in; deeper scopes come last."""
    deeper = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, SCOPES):
            yield child
            yield from _nodes_around(child, line)
        elif child.lineno < line <= (child.end_lineno or 0):
            deeper.append(child)
    for scope in deeper:
        yield from _nodes_around(scope, line)


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
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found: dict[str, Any] = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet: the function itself, while it is being decorated
            continue
    return found


def _type_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {item.__name__: item for item in getattr(function, "__type_params__", ())}
