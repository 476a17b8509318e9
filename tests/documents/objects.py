"""Reads what the source says of a public object: its arguments, attributes and methods, and the words for each.

Griffe reads signatures and docstrings; here they are brought together, so that each argument has its type, default and description,
whichever class or docstring has them.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Final, TypeAlias

from griffe import (
    Alias,
    Attribute,
    Class,
    Docstring,
    DocstringSection,
    DocstringSectionKind,
    Expr,
    ExprName,
    Function,
    Object,
    Parameter,
    ParameterKind,
)

Annotation: TypeAlias = str | Expr | None

NOT_OURS: Final = frozenset({"model_config"})
"""What pydantic has of a model."""

NOT_PASSED: Final = frozenset({"self", "cls"})


@dataclass(frozen=True, slots=True)
class Row:
    """One argument or attribute.

    Attributes:
        name: What it is called, with the stars of a variadic argument.
        kind: How it is passed; None of an attribute.
        annotation: Its type.
        default: Its default as the source has it; None where it is required.
        description: What it is, on one line; empty where the docstring says nothing.
    """

    name: str
    kind: ParameterKind | None
    annotation: Annotation
    default: Annotation
    description: str


NOTHING: Final = Row("", None, None, None, "")


def resolve(item: Object | Alias) -> Object:
    """The object that an import leads to."""
    return item.final_target if isinstance(item, Alias) else item


def get_summary(item: Object) -> str:
    """The first paragraph of a docstring, on one line."""
    found = find_docstring(item)
    return flatten(found.value.partition("\n\n")[0]) if found else ""


def find_docstring(item: Object) -> Docstring | None:
    """The docstring of an object, or of what it overrides."""
    if item.docstring is not None or not isinstance(item.parent, Class):
        return item.docstring
    overridden = (base.members.get(item.name) for base in item.parent.mro())
    return next((resolve(found).docstring for found in overridden if found is not None and resolve(found).docstring), None)


def find_sections(docstring: Docstring | None, kind: DocstringSectionKind) -> list[DocstringSection]:
    return [section for section in docstring.parsed if section.kind is kind] if docstring else []


def list_arguments(item: Class | Function) -> list[Row]:
    """The arguments of a function or a constructor, described by the docstring of whichever class describes them."""
    described = {name.lstrip("*"): text for name, text in _describe_arguments(item).items()}
    return [
        Row(_star(found), found.kind, found.annotation, _get_default(found), described.get(found.name, ""))
        for found in _get_parameters(item)
        if found.name not in NOT_PASSED and not found.name.startswith("_") and str(found.annotation) != "Never"
    ]


def list_attributes(item: Class, documented: Container[str] = ()) -> list[Row]:
    """The public attributes of a class, properties among them, but for those that its constructor takes as they are.

    A constant of the class without words of its own overrides one that a protocol or a base class describes.
    """
    arguments = {row.name: row for row in list_arguments(item)}
    described = _describe_attributes(item, documented)
    rows = []
    for member in _list_members(item, documented):
        if isinstance(member, Attribute) and not (is_record(item) and member.name in arguments):
            argument = arguments.get(member.name, NOTHING)
            text = described.get(member.name) or _describe_member(member) or argument.description
            if text or _is_model(item) or "class-attribute" not in member.labels:
                rows.append(Row(member.name, None, member.annotation or argument.annotation, None, text))
    return rows


def list_methods(item: Class, documented: Container[str] = ()) -> list[Function]:
    """The public methods of a class, its own before those of the classes that it extends.

    One without a docstring implements a protocol, for the library to call.
    """
    found = [member for member in _list_members(item, documented) if isinstance(member, Function)]
    return [method for method in found if get_summary(method)]


def list_unknown(item: Class | Function) -> list[str]:
    """The arguments that a docstring describes, and the signature has not."""
    known = {row.name.lstrip("*") for row in list_arguments(item)}
    docstring = item.docstring if isinstance(item, Class) else find_docstring(item)
    return [name for name in _describe(docstring, DocstringSectionKind.parameters) if name.lstrip("*") not in known]


def is_record(item: Class) -> bool:
    """Whether the constructor takes the attributes: a dataclass or a named tuple."""
    return "dataclass" in item.labels or _is_named_tuple(item)


def flatten(text: str) -> str:
    """Prose on one line, as a cell of a table has it."""
    prose = (part for part in text.split("\n\n") if not part.startswith((">>>", "    ")))
    return mark(" ".join(" ".join(prose).split())).replace("|", "&#124;")


def mark(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def unquote(annotation: Annotation) -> str:
    text = "" if annotation is None else str(annotation)
    return text[1:-1] if text[:1] in "'\"" and text[:1] == text[-1:] else text


def _star(parameter: Parameter) -> str:
    stars = {ParameterKind.var_positional: "*", ParameterKind.var_keyword: "**"}
    return f"{stars.get(parameter.kind, '') if parameter.kind else ''}{parameter.name}"


def _get_default(parameter: Parameter) -> Annotation:
    """The default; a constant of the package is what it stands for."""
    if parameter.kind in (ParameterKind.var_positional, ParameterKind.var_keyword) or parameter.default is None:
        return None
    return _replace_constants(parameter.default, parameter.function)


def _replace_constants(value: str | Expr, function: Function | None) -> str:
    text = str(value)
    names = [value] if isinstance(value, ExprName) else value.iterate(flat=True) if isinstance(value, Expr) else ()
    for name in names:
        found = _find_constant(name.canonical_path, function) if isinstance(name, ExprName) and name.name.isupper() else None
        text = text if found is None else text.replace(str(name), _replace_constants(found, function))
    return text


def _find_constant(path: str, function: Function | None) -> str | Expr | None:
    if function is None or not path.startswith(f"{function.package.path}."):
        return None
    value: str | Expr | None = getattr(resolve(function.modules_collection.get_member(path)), "value", None)
    return value


def _get_parameters(item: Class | Function) -> list[Parameter]:
    found = list(item.parameters)
    if found or isinstance(item, Function) or not _is_named_tuple(item):
        return found
    fields = (member for member in item.members.values() if isinstance(member, Attribute))
    return [Parameter(field.name, annotation=field.annotation, default=field.value) for field in fields]


def _is_named_tuple(item: Class) -> bool:
    return any(str(base) == "NamedTuple" for base in item.bases)


def _is_model(item: Class) -> bool:
    """Whether it is a model of pydantic, whose fields all belong to what it reads."""
    return "model_config" in item.all_members


def _describe_arguments(item: Class | Function) -> dict[str, str]:
    """The words of the docstring; of a constructor's argument those of the attribute of that name, where it has none."""
    if isinstance(item, Function):
        return _describe(find_docstring(item), DocstringSectionKind.parameters)
    described = (_describe(base.docstring, DocstringSectionKind.parameters) for base in _list_lineage(item))
    attributes = {member.name: _describe_member(member) for member in _list_members(item) if isinstance(member, Attribute)}
    return attributes | _describe_attributes(item) | next(filter(None, described), {})


def _describe_attributes(item: Class, documented: Container[str] = ()) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(_list_lineage(item, documented)):
        found |= _describe(base.docstring, DocstringSectionKind.attributes)
    return found


def _describe_member(member: Attribute) -> str:
    docstring = find_docstring(member)
    texts = [section.value for section in find_sections(docstring, DocstringSectionKind.text)]
    raised = [item for section in find_sections(docstring, DocstringSectionKind.raises) for item in section.value]
    return flatten("\n\n".join([*texts, *(f"Raises ``{item.annotation}``: {item.description}" for item in raised)]))


def _describe(docstring: Docstring | None, kind: DocstringSectionKind) -> dict[str, str]:
    items = [item for section in find_sections(docstring, kind) for item in section.value]
    return {name.strip(): flatten(item.description) for item in items for name in item.name.split(",")}


def _list_lineage(item: Class, documented: Container[str] = ()) -> list[Class]:
    """The class and those that it extends, but for those that have entries of their own."""
    return [item, *(base for base in item.mro() if base.path not in documented)]


def _list_members(item: Class, documented: Container[str] = ()) -> list[Object]:
    found: dict[str, Object] = {}
    for base in _list_lineage(item, documented):
        for name, member in base.members.items():
            if not name.startswith("_") and not member.is_alias and name not in NOT_OURS:
                found.setdefault(name, resolve(member))
    return list(found.values())
