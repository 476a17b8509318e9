"""What a module's source imports and defines, where running it does not tell: under TYPE_CHECKING, and inside functions.

>>> source = Source("if TYPE_CHECKING: from decimal import Decimal as D", line=3, package="")
>>> source.imports()["D"].found(loading=True), source.binds("D")
(<class 'decimal.Decimal'>, False)

What a reader gets wrong: the text only says where a name comes from. What it is, is then looked up, so that another library's
class of the same name is another class.
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
from typing import Any, Final

SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


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

    def found(self, *, loading: bool) -> Any:
        """The object.

        Args:
            loading: Import the module if nobody has yet.

        Raises:
            LookupError: The module is not loaded, or has no such name.
        """
        try:
            module = importlib.import_module(self.module) if loading else sys.modules[self.module]
        except ImportError:
            raise LookupError(self.module) from None
        if self.bound:
            return sys.modules[self.bound]
        if not self.attribute:
            return module
        return getattr(module, self.attribute) if hasattr(module, self.attribute) else self._submodule(loading=loading)

    def _submodule(self, *, loading: bool) -> Any:
        return Imported(f"{self.module}.{self.attribute}").found(loading=loading)


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
        for node in _around(_parsed(self._text), self._line):
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
            for node in ast.walk(_parsed(self._text))
        )


def dotted_names(text: str) -> Iterator[str]:
    """Every name in an annotation's text, ``a`` and ``a.b``, also those that are quoted in it; none in text that is no Python."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from dotted_names(node.value)


def unquoted(text: str) -> str:
    """The same annotation, without the quotes in it that ``|`` cannot take: ``"Session" | None``."""
    return ast.unparse(_Unquoted().visit(ast.parse(text.strip(), mode="eval")))


class _Unquoted(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        node.left, node.right = _opened(node.left), _opened(node.right)
        return node


def _opened(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node


def _module(alias: ast.alias) -> Imported:
    return Imported(alias.name) if alias.asname else Imported(alias.name, bound=alias.name.partition(".")[0])


@lru_cache(maxsize=16)
def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # a notebook's cell, or a file that has changed since
        return ast.Module([], [])


def _around(node: ast.AST, line: int) -> Iterator[ast.AST]:
    """What is inside a node, but for the bodies of functions and classes that the line is not in; deeper scopes come last."""
    deeper = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, SCOPES):
            yield child
            yield from _around(child, line)
        elif child.lineno < line <= (child.end_lineno or 0):
            deeper.append(child)
    for scope in deeper:
        yield from _around(scope, line)
