"""Writes one entry of the reference: what is known of a public object, as Markdown.

A type that is public itself leads to its own entry. Signatures and examples are only shown here: the tests of the modules run the
examples, and type checkers read the signatures.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from griffe import Class, Docstring, DocstringSectionKind, Expr, ExprBinOp, ExprName, ExprTuple, Function, Object, ParameterKind

from tests.documents.objects import (
    Annotation,
    Row,
    find_docstring,
    find_sections,
    flatten,
    is_record,
    list_arguments,
    list_attributes,
    list_methods,
    mark,
    unquote,
)

Links: TypeAlias = Mapping[str, str]
"""Canonical path of a public object -> the link to its entry."""

LONGEST_LINE = 132

WIDTH: Final = 84
"""Of code, so that the site need not scroll it."""

LINE: Final = 132
"""Of prose."""

LONGEST_VALUE: Final = 400
"""A constant's value is shown up to this many characters, where it names nothing private."""


def write_entry(heading: str, item: Object, links: Links) -> Iterator[str]:
    """The heading, the signature, the docstring and the members of a public object."""
    yield from [f"## {heading}", ""]
    if isinstance(item, Class):
        yield from _write_class(item, links)
    elif isinstance(item, Function):
        yield from _write_function(item, links)
    else:
        yield from _write_value(item)


def write_text(text: str) -> Iterator[str]:
    """The paragraphs of a docstring; its examples and what is indented are fenced."""
    for part in filter(str.strip, text.split("\n\n")):
        if part.startswith(">>>"):
            yield from ["```pycon", *part.splitlines(), "```", ""]
        elif part.startswith("    "):
            yield from ["```text", *textwrap.dedent(part).splitlines(), "```", ""]
        else:
            first, *others = mark(part).replace("::", ":").splitlines()
            is_list = bool(others) and all(line.startswith("    ") for line in others)
            yield from [first, "", *(f"- {line.strip()}" for line in others), ""] if is_list else [first, *others, ""]


def write_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A table and the blank line after it, or nothing where it has no rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    titles = list(heads)
    yield from [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *lines, ""] if lines else []


def wrap(text: str, indent: str = "") -> list[str]:
    """Lines of prose."""
    return textwrap.wrap(text, LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _write_class(item: Class, links: Links) -> Iterator[str]:
    arguments = list_arguments(item)
    if arguments or "__init__" in item.members:
        yield from _write_signature(f"class {item.name}", arguments, "", is_short=any(row.description for row in arguments))
    bases = [_write_type(base, links) for base in item.bases if isinstance(base, Expr) and base.canonical_path in links]
    yield from [f"Extends {' and '.join(bases)}.", ""] if bases else []
    if item.docstring:
        yield from _write_prose(item.docstring)
    yield from _write_arguments("argument and attribute" if is_record(item) else "argument", arguments, links)
    yield from _write_raises(find_docstring(item), links)
    attributes = ([f"`{row.name}`", _write_type(row.annotation, links), row.description] for row in list_attributes(item, links))
    yield from write_table(["attribute", "type", "what it is"], attributes)
    for method in list_methods(item, links):
        yield from [f"### {item.name}.{method.name}", "", *_write_function(method, links)]


def _write_function(item: Function, links: Links) -> Iterator[str]:
    arguments = list_arguments(item)
    is_setting = not isinstance(item.parent, Class) and any(row.description for row in arguments)
    for shape in item.overloads or [item]:
        marks = "".join(f"@{label}\n" for label in ("classmethod", "staticmethod") if label in item.labels)
        start = f"{marks}{'async ' if 'async' in item.labels else ''}def {item.name}"
        returned = f" -> {unquote(shape.returns)}" if shape.returns is not None else ""
        yield from _write_signature(start, list_arguments(shape), returned, is_short=is_setting)
    docstring = find_docstring(item)
    if docstring:
        yield from _write_prose(docstring)
    yield from _write_arguments("argument", arguments, links)
    yield from _write_returns(docstring)
    yield from _write_raises(docstring, links)


def _write_value(item: Object) -> Iterator[str]:
    value = unquote(getattr(item, "value", None))
    if value and len(value) <= LONGEST_VALUE and not re.search(r"\b_\w", value):
        line = f"{item.name} = {value}"
        wrapped = textwrap.wrap(line, LONGEST_LINE, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        yield from ["```py", *([line] if len(line) <= LONGEST_LINE else wrapped), "```", ""]
    if item.docstring:
        yield from _write_prose(item.docstring)


def _write_signature(start: str, arguments: list[Row], end: str, *, is_short: bool) -> Iterator[str]:
    """How it is called; the types stand in the table below a short one."""
    parts = list(_write_parameters(arguments, is_short=is_short))
    line = f"{start}({', '.join(parts)}){end}"
    if len(line.rpartition("\n")[2]) > WIDTH:
        wrapped = _wrap_whole(parts) if is_short else [f"{part}," for part in parts]
        line = "\n".join([f"{start}(", *(f"    {text}" for text in wrapped), f"){end}"])
    yield from ["```py", *line.splitlines(), "```", ""]


def _write_parameters(rows: list[Row], *, is_short: bool) -> Iterator[str]:
    """Each argument as a signature has it, and the marks of those that are passed by name alone, or by place alone."""
    before = None
    for row in rows:
        if before is ParameterKind.positional_only and row.kind is not before:
            yield "/"
        if row.kind is ParameterKind.keyword_only and before not in (row.kind, ParameterKind.var_positional):
            yield "*"
        before = row.kind
        annotation = "" if is_short or row.annotation is None else f": {unquote(row.annotation)}"
        default = "" if row.default is None else f" = {row.default}" if annotation else f"={row.default}"
        yield f"{row.name}{annotation}{default}"
    if before is ParameterKind.positional_only:
        yield "/"


def _wrap_whole(parts: list[str]) -> list[str]:
    """Lines of whole arguments."""
    glued = ", ".join(part.replace(" ", "\0") for part in parts)
    return [line.replace("\0", " ") for line in textwrap.wrap(glued, WIDTH - 4, break_long_words=False, break_on_hyphens=False)]


def _write_prose(docstring: Docstring) -> Iterator[str]:
    for section in docstring.parsed:
        if section.kind is DocstringSectionKind.text:
            yield from write_text(section.value)
        elif section.kind is DocstringSectionKind.examples:
            yield from write_text("\n\n".join(text for _, text in section.value))


def _write_arguments(title: str, arguments: list[Row], links: Links) -> Iterator[str]:
    rows = [
        [
            f"`{row.name}`",
            _write_type(row.annotation, links),
            "" if row.name.startswith("*") else "required" if row.default is None else _code(str(row.default)),
            row.description,
        ]
        for row in arguments
    ]
    if any(cells[3] for cells in rows):
        yield from write_table([title, "type", "default", "what it is"], rows)


def _write_returns(docstring: Docstring | None) -> Iterator[str]:
    for kind, verb in ((DocstringSectionKind.returns, "Returns"), (DocstringSectionKind.yields, "Yields")):
        for section in find_sections(docstring, kind):
            yield from [*wrap(f"{verb}: {flatten(' '.join(item.description for item in section.value))}"), ""]


def _write_raises(docstring: Docstring | None, links: Links) -> Iterator[str]:
    items = [item for section in find_sections(docstring, DocstringSectionKind.raises) for item in section.value]
    lines = [line for item in items for line in wrap(f"- {_write_type(item.annotation, links)}: {flatten(item.description)}", "  ")]
    yield from ["Raises:", "", *lines, ""] if lines else []


def _write_type(annotation: Annotation, links: Links) -> str:
    """A type in a cell: each member of a union by itself, with a link where it or a part of it has an entry."""
    if isinstance(annotation, ExprBinOp) and annotation.operator == "|":
        return f"{_write_type(annotation.left, links)} or {_write_type(annotation.right, links)}"
    if isinstance(annotation, ExprTuple):
        return " or ".join(_write_type(element, links) for element in annotation.elements)
    shown = _code(unquote(annotation)) if annotation else ""
    names = (
        [annotation] if isinstance(annotation, ExprName) else annotation.iterate(flat=True) if isinstance(annotation, Expr) else ()
    )
    paths = (path for name in names if isinstance(name, ExprName) for path in (name.canonical_path, name.name))
    link = next((links[path] for path in paths if path in links), None)
    return f"[{shown}]({link})" if link else shown


def _code(text: str) -> str:
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"
