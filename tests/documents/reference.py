"""Writes docs/reference.md from the docstrings: every name that a package gives, and every setting.

    python -m tests.documents.reference

What a reader gets wrong: nothing is written here by hand but the map of the packages. What is missing on the page is missing in
a docstring.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from docstring_parser import Docstring, DocstringStyle, parse

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "reference.md"
WIDTH: Final = 120

PACKAGES: Final = {
    "dcaf": "what most programs need, from the packages below",
    "dcaf.core": "sessions, keys, and every error but the client's",
    "dcaf.tools": "tools, and the calls of one turn",
    "dcaf.asgi": "the middleware, and what its settings take",
    "dcaf.agent": "an agent, and its service (extra `agent`)",
    "dcaf.client": "a client of such a service (extra `client`)",
    "dcaf.demo": "the demo's agent and its service, which the examples serve (extra `demo`)",
    "dcaf.integrations.fastapi": "what an endpoint of FastAPI declares",
    "dcaf.integrations.starlette": "a drop-in for Starlette's own SessionMiddleware",
    "dcaf.testing": "for your tests (extra `testing`)",
}
"""Package or module -> what it is for. A name is told once, in the first package after ``dcaf`` that has it."""

MODULES: Final = {
    "dcaf.agent.codec": "what a service of your own is made of, under any framework",
    "dcaf.agent.models": "the messages and the events of such a service, as models of pydantic",
}
"""Modules that examples and guides import, and no package repeats."""

HEAD: Final = """\
# Reference

Every name that a package gives, and every setting, from the docstrings (`python -m tests.documents.reference` writes this page).
The guides show them in use; [the README](../README.md) lists the guides.

| import from | what is there |
|---|---|"""


def names_of(module: ModuleType) -> list[str]:
    """The public names of a package, or those that a module defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return sorted((name for name in own if not name.startswith("_")), key=lambda key: (not key[0].isupper(), key))


def rendered() -> str:
    """The page."""
    lines = [HEAD, *(f"| [`{name}`](#{_anchor(name)}) | {purpose} |" for name, purpose in {**PACKAGES, **MODULES}.items())]
    told: dict[int | str, str] = {}
    for name in [*PACKAGES, *MODULES]:
        if name != "dcaf":
            lines += ["", *_package(name, told)]
    at = lines.index("", 1) if "" in lines[1:] else len(lines)
    return "\n".join([*lines[:at], "", *_window(told), *lines[at:], ""])


def _anchor(name: str) -> str:
    return name.replace(".", "")


def _window(told: dict[int | str, str]) -> Iterator[str]:
    """The names of ``dcaf`` itself, each with the package that tells of it."""
    module = import_module("dcaf")
    yield "## dcaf"
    yield ""
    yield from _paragraph(_first(module.__doc__))
    yield ""
    yield "| name | told under |"
    yield "|---|---|"
    for name in module.__all__:
        package = told.get(_key(getattr(module, name), name), "")
        yield f"| `{name}` | [`{package}`](#{_anchor(package)}) |"


def _key(value: Any, name: str) -> int | str:
    return id(value) if isinstance(value, type) or callable(value) else name


def _package(package: str, told: dict[int | str, str]) -> Iterator[str]:
    module = import_module(package)
    yield f"## {package}"
    yield ""
    yield from _paragraph(_first(module.__doc__))
    errors, elsewhere = [], []
    for name in names_of(module):
        value = getattr(module, name)
        key = _key(value, name)
        if key in told:
            elsewhere.append((name, told[key]))
            continue
        told[key] = package
        if isinstance(value, type) and issubclass(value, Exception):
            errors.append(value)
        else:
            yield from ["", f"### {package}.{name}", "", *_entry(module, name, value)]
    if errors:
        yield from ["", f"### The errors of {package}", "", *_errors(errors)]
    if elsewhere:
        yield ""
        yield from _paragraph("Also here: " + ", ".join(f"`{name}` ({where})" for name, where in elsewhere) + ".")


def _errors(errors: Iterable[type[Exception]]) -> Iterator[str]:
    yield "| error | is a | code | status | when, and what it has |"
    yield "|---|---|---|---|---|"
    for error in errors:
        parsed = parse(inspect.cleandoc(error.__doc__ or ""), DocstringStyle.GOOGLE)
        code, status = getattr(error, "code", ""), getattr(error, "http_status", "")
        own = [f"`{item.arg_name}`: {_flat(item.description)}" for item in parsed.params if item.args[0] == "attribute"]
        said = " ".join(filter(None, [_flat(parsed.short_description), _flat(parsed.long_description), *own]))
        yield f"| `{error.__name__}` | `{error.__mro__[1].__name__}` | `{code}` | {status} | {_cell(said)} |"


def _entry(module: ModuleType, name: str, value: Any) -> Iterator[str]:
    if isinstance(value, type):
        yield from _class(value)
    elif inspect.isroutine(value):
        yield from _callable(name, value)
    else:
        yield from _paragraph(_comment(module, name) or f"`{_written(value)}`")


def _class(value: type) -> Iterator[str]:
    parsed = _parsed(value.__doc__)
    # A class may leave its arguments to the one that it extends.
    parsed.meta += [] if parsed.params else [item for base in value.__mro__[1:-1] for item in _parsed(_own_doc(base)).params]
    if _is_made(value):
        yield from _signature(value.__name__, value)
        yield ""
    yield from _text(parsed)
    members = list(_members(value))
    if members:
        yield from ["", "| member | what it does |", "|---|---|"]
        yield from (f"| `{shown}` | {_cell(said)} |" for shown, said in members)


def _own_doc(value: type) -> str | None:
    return value.__doc__ if value.__module__.startswith("dcaf") else None


def _is_made(value: type) -> bool:
    """Whether anybody calls the class: not a Protocol, and not a choice of a few values."""
    return not getattr(value, "_is_protocol", False) and not issubclass(value, enum.Enum)


def _callable(name: str, value: Callable[..., Any]) -> Iterator[str]:
    parsed = _parsed(value.__doc__)
    yield from _signature(name, value)
    yield ""
    yield from _text(parsed)


def _members(value: type) -> Iterator[tuple[str, str]]:
    """Methods and properties that dcaf itself has written, in their order, those of the class before those it inherits."""
    seen = set()
    for base in value.__mro__:
        for name, member in vars(base).items() if base.__module__.startswith("dcaf") else ():
            function = getattr(member, "__func__", member)
            if name.startswith("_") or name in seen or not (inspect.isroutine(function) or isinstance(member, property)):
                continue
            seen.add(name)
            if not function.__doc__ or function.__doc__.startswith("As of a carrier"):
                continue  # nobody calls it but the middleware
            parsed = _parsed(function.__doc__)
            shown = name if isinstance(member, property) else f"{name}{_parameters(function)}"
            raised = "; ".join(f"{error.type_name}: {_flat(error.description)}" for error in parsed.raises)
            said = [_flat(parsed.short_description), _flat(_prose(parsed.long_description)), f"Raises {raised}" if raised else ""]
            yield shown, " ".join(filter(None, said))


def _signature(name: str, value: Callable[..., Any]) -> Iterator[str]:
    call = f"{name}{_parameters(value)}"
    yield "```text"
    yield from textwrap.wrap(call, WIDTH, subsequent_indent=" " * (len(name) + 1), break_long_words=False, break_on_hyphens=False)
    yield "```"


def _parameters(value: Callable[..., Any]) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        item.replace(
            annotation=inspect.Parameter.empty, default=item.default if item.default is item.empty else _Shown(item.default)
        )
        for item in found.parameters.values()
        if item.name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters))


class _Shown:
    """A default, as a program would write it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return _written(self._value)


def _written(value: Any) -> str:
    if isinstance(value, timedelta):
        return f"timedelta(days={value.days})" if value.days else f"timedelta(seconds={int(value.total_seconds())})"
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if callable(value):
        return str(getattr(value, "__qualname__", "..."))
    found = repr(value)
    return "..." if found.startswith("<") or " at 0x" in found else found


def _text(parsed: Docstring) -> Iterator[str]:
    """The words of a docstring, its parameters and attributes as a table, its errors as a line."""
    for at, item in enumerate([parsed.short_description or "", *_paragraphs(parsed.long_description)]):
        yield from [""] if at else []
        yield from ["```text", textwrap.dedent(item), "```"] if item.startswith(" ") else _paragraph(item.replace("::", ":"))
    for kind in ("argument", "attribute"):
        items = [item for item in parsed.params if (item.args[0] == "attribute") == (kind == "attribute")]
        yield from ["", f"| {kind} | what it is |", "|---|---|"] if items else []
        yield from (f"| `{item.arg_name}` | {_cell(_flat(item.description))} |" for item in items)
    if parsed.returns is not None and parsed.returns.description:
        yield ""
        yield from _paragraph(f"Returns {parsed.returns.description}")
    if parsed.raises:
        yield ""
        raised = (f"{item.type_name}: {_flat(item.description)}" for item in parsed.raises)
        yield from _paragraph("Raises " + " ".join(raised))


def _parsed(text: str | None) -> Docstring:
    return parse(inspect.cleandoc(text or ""), DocstringStyle.GOOGLE)


def _first(text: str | None) -> str:
    return _flat(inspect.cleandoc(text or "").partition("\n\n")[0])


def _paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a description, and programs that it shows; what a doctest shows stands in the guides."""
    return [part for part in (text or "").split("\n\n") if part.strip() and not part.startswith(">>>")]


def _prose(text: str | None) -> str:
    return " ".join(part for part in _paragraphs(text) if not part.startswith(" "))


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(_marked(text), WIDTH, break_long_words=False, break_on_hyphens=False)


def _flat(text: str | None) -> str:
    return _marked(" ".join((text or "").split()))


def _marked(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _comment(module: ModuleType, name: str) -> str:
    """The string that stands below the definition of a name, in whichever module defines it; without one what it stands for."""
    for node, following in pairwise(ast.parse(inspect.getsource(_home(module, name))).body):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and name in _targets(node):
            value = following.value if isinstance(following, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                return " ".join(value.value.split())
            return f"`{ast.unparse(node.value).strip(chr(39))}`"
    return ""


def _home(module: ModuleType, name: str) -> ModuleType:
    """The module from which a package has a name."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and name in (alias.asname or alias.name for alias in node.names):
            return import_module(str(node.module))
    return module


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


if __name__ == "__main__":
    PAGE.write_text(rendered())
    sys.stdout.write(f"wrote {PAGE.name}\n")
