"""Evaluate annotations, each by itself, so that one that cannot be evaluated is no harm to the others.

Typed sessions read those of their class, and tools those of their parameters.

>>> class Deploy:
...     LIMIT: "ClassVar[int]" = 3
...     step: "Later" = 1
>>> read_hint(Deploy, "LIMIT"), is_constant_hint(read_hint(Deploy, "LIMIT"))
(typing.ClassVar[int], True)
>>> read_hint(Deploy, "step") is None
True
>>> list(names_in("dict[str, 'Deploy']")), unquote("'Deploy' | None")
(['dict', 'str', 'Deploy'], 'Deploy | None')

An annotation that names something further down in its module cannot be evaluated while the class is made. It is evaluated again
when the field is first used.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, ForwardRef, get_args, get_origin, get_type_hints

from dcaf.core.errors import ConfigurationError

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations
else:
    from inspect import get_annotations

CONSTANT: Final = re.compile(r"\b(ClassVar|Final)\b")


def evaluate(annotation: Any, of_module: dict[str, Any], local: dict[str, Any], *, type_parameters: Any = ()) -> Any:
    """One annotation with its metadata, evaluated with whatever is quoted in it.

    It is the only annotation of a class that is made for it, because ``get_type_hints`` evaluates all those of a class, or none.

    Args:
        annotation: As it stands.
        of_module: The global names that it may use.
        local: The names around it, which count before those.
        type_parameters: Those of the class that it is of.

    Raises:
        NameError: It names something that is not there.
        Exception: Whatever else the expression raises.
    """
    members = {"__annotations__": {"value": annotation}, "__type_params__": type_parameters}
    return get_type_hints(type("Alone", (), members), of_module, local, include_extras=True)["value"]


def unquote(text: str) -> str:
    """The text of an annotation without the quotes in it that ``|`` cannot take: ``"Session" | None``.

    Raises:
        SyntaxError: It is no expression.
    """
    return ast.unparse(_Unquoter().visit(ast.parse(text.strip(), mode="eval")))


def names_in(annotation: Any) -> Iterator[str]:
    """Every name in an annotation that Python has not evaluated, ``a`` and ``a.b``, also those that are quoted in it."""
    if isinstance(annotation, str):
        yield from _names_in_text(annotation)
    elif isinstance(annotation, ForwardRef):
        yield from _names_in_text(annotation.__forward_arg__)
    for item in get_args(annotation):
        yield from names_in(item)


def annotations_of(cls: type) -> dict[str, Any]:
    """The annotations of a class itself, unevaluated where they are texts."""
    if sys.version_info >= (3, 14):
        return get_annotations(cls, format=Format.FORWARDREF)
    return get_annotations(cls)


def read_hint(cls: type, name: str, namespace: Mapping[str, Any] | None = None) -> Any:
    """Evaluate the annotation of one name, with its metadata; None where a name in it is not defined yet.

    Args:
        cls: The class that annotates it.
        name: The name.
        namespace: The local names around the class statement.

    Raises:
        ConfigurationError: It is no expression of types.
    """
    try:
        return _evaluate_hint(cls, name, namespace)
    except (NameError, AttributeError):
        return None


def need_hint(cls: type, name: str) -> Any:
    """Evaluate the annotation of one name where all names in it must be defined.

    Raises:
        ConfigurationError: It names something that cannot be found, or is no expression of types.
    """
    try:
        return _evaluate_hint(cls, name, None)
    except (NameError, AttributeError) as error:
        raise ConfigurationError(
            f"{cls.__name__}: the annotation names {error.name!r}, which cannot be found. Import it in the module where "
            "the class is defined, outside `if TYPE_CHECKING:`."
        ) from None


def is_constant_hint(hint: Any) -> bool:
    """Whether an annotation, evaluated or not, declares a constant of the class: ClassVar or Final."""
    if isinstance(hint, str):
        return CONSTANT.search(hint) is not None
    return (get_origin(hint) or hint) in (ClassVar, Final)


def constants_of(cls: type, namespace: Mapping[str, Any] | None = None) -> frozenset[str]:
    """The names that a class itself declares as constants."""
    found = {name: read_hint(cls, name, namespace) or written for name, written in annotations_of(cls).items()}
    return frozenset(name for name, hint in found.items() if is_constant_hint(hint))


def _evaluate_hint(cls: type, name: str, namespace: Mapping[str, Any] | None) -> Any:
    of_module = vars(sys.modules[cls.__module__]) if cls.__module__ in sys.modules else {}
    type_parameters = getattr(cls, "__type_params__", ())
    try:
        return evaluate(annotations_of(cls)[name], of_module, dict(namespace or {}), type_parameters=type_parameters)
    except (NameError, AttributeError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever the expression raises
        raise ConfigurationError(
            f"{cls.__name__}.{name}: the annotation is no type ({type(error).__name__}). Write one, as in {name}: int = 1."
        ) from None


def _names_in_text(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _names_in_text(node.value)


class _Unquoter(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        node.left, node.right = _unquote_node(node.left), _unquote_node(node.right)
        return node


def _unquote_node(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.parse(node.value, mode="eval").body
    return node
