"""Writes the table of signatures in docs/evidence/comparison.md: ``make signatures`` gives every framework the matrix again.

The frameworks are heavy, so they live in an environment of their own, with the versions that the Makefile names.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.peers.frameworks import FRAMEWORKS, Framework
from tests.tools.signatures import GROUPS, SHAPES, Shape

PAGE: Final = Path(__file__).parents[2] / "docs" / "evidence" / "comparison.md"
BEGIN: Final = "<!-- written by make signatures -->"
END: Final = "<!-- until here -->"
OK: Final = "ok"
FORGED: Final = Shape("a value that the model sends for it", SHAPES[1].source, arguments={"name": "ada", "session": {"x": 1}})
SECONDS: Final = 20


class Registered(Exception):
    """It could not be registered."""


def verdict(framework: Framework, shape: Shape, folder: Path) -> str:
    """What becomes of one shape in one framework."""
    try:
        tool = registered(framework, shape, folder)
    except Registered:
        return OK if shape.result is None else "error at registration"
    return asyncio.run(asyncio.wait_for(_verdict(framework, shape, tool), SECONDS))


def registered(framework: Framework, shape: Shape, folder: Path) -> Any:
    """The framework's tool of a shape. Shapes whose module registers by itself do it there."""
    kept: list[Any] = []

    def made(function: Callable[..., Any]) -> None:
        try:
            kept.append(framework.registered(function, "act" if shape.needs_name else None))
        except Exception as error:
            raise Registered from error

    module = shape.loaded(folder, framework.home, framework.context, made=made)
    found = eval(shape.made, vars(module))
    if not kept:
        made(found)
    return kept[0]


async def _verdict(framework: Framework, shape: Shape, tool: Any) -> str:
    try:
        seen = await framework.seen(tool)
    except Exception:
        return OK if shape.result is None else "error at registration"
    if shape.result is None and set(seen) - {"name"}:
        return "taken, and left to the model"
    leaks = set(seen) & set(shape.injected)
    try:
        result = await framework.called(tool, dict(shape.arguments))
    except Exception:
        return "leaks to the model" if leaks else "error at call" if shape.result else "taken, and every call fails"
    if shape.result is None:
        return "taken, and injected"
    if leaks:
        return "leaks to the model" + (", though injected" if _is_right(framework, shape, result) else "")
    if set(seen) != set(shape.sees):
        return "shows the model what it may not fill" if set(seen) - set(shape.sees) else "hides a parameter from the model"
    return OK if _is_right(framework, shape, result) else _wrong(framework, shape, result)


def _is_right(framework: Framework, shape: Shape, result: Any) -> bool:
    return any(result == shape.expected(name) for name in framework.given)


def _wrong(framework: Framework, shape: Shape, result: Any) -> str:
    if isinstance(shape.result, list):
        return "only the last piece" if result == shape.expected(framework.given[0])[-1:] else "the result is lost"
    said = str(result).removeprefix("ada ")
    if said in framework.given:
        return "injects the base class"
    return "not injected" if said in {"NoneType", "dict", "str"} else "the result is lost"


def forged(framework: Framework, shape: Shape, folder: Path) -> str:
    """What becomes of a value that the model sends for the parameter of the context."""
    tool = registered(framework, shape, folder)
    try:
        result = asyncio.run(framework.called(tool, dict(shape.arguments)))
    except Exception:
        return "the call is refused"
    return "dropped" if _is_right(framework, shape, result) else "injected"


def named(framework: Framework, shape: Shape) -> Shape:
    """The shape with the parameter called as the framework's documentation calls it; by the name alone some of them inject."""

    def renamed(text: str) -> str:
        return re.sub(r"\bsession\b", framework.by_name, text)

    is_about_places = shape in GROUPS["where the session stands"]
    source = shape.source if is_about_places or not framework.comes_first else context_first(shape)
    return replace(
        shape,
        source=renamed(source),
        made=renamed(shape.made),
        sees=tuple(map(renamed, shape.sees)),
        injected=tuple(map(renamed, shape.injected)),
        arguments={renamed(name): value for name, value in shape.arguments.items()},
    )


def context_first(shape: Shape) -> str:
    """The source, with what is injected before the other parameters; those get a default where it has one."""
    tree = ast.parse(shape.source.replace("$", "DOLLAR_"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            _put_first(node.args, shape.injected[:1])
    return ast.unparse(tree).replace("DOLLAR_", "$")


def _put_first(arguments: ast.arguments, names: tuple[str, ...]) -> None:
    given = [None] * (len(arguments.args) - len(arguments.defaults)) + arguments.defaults
    pairs = list(zip(arguments.args, given, strict=True))
    pairs.sort(key=lambda pair: (pair[0].arg not in {"self", "cls", "greeting"}, pair[0].arg not in names))
    seen = False
    arguments.defaults = []
    for _, default in pairs:
        seen = seen or default is not None
        if seen:
            arguments.defaults.append(default or ast.Constant(""))
    arguments.args = [argument for argument, _ in pairs]


def measured(framework: Framework, folder: Path) -> dict[str, str]:
    """Title -> verdict, for every shape that frameworks can be asked for."""
    shapes = [shape for shape in SHAPES if shape.peers]
    found = {shape.title: verdict(framework, named(framework, shape), folder) for shape in shapes}
    return found | {FORGED.title: forged(framework, named(framework, FORGED), folder)}


def rendered(columns: dict[str, dict[str, str]]) -> str:
    """The table, with how many shapes each framework gets right."""
    python = ".".join(map(str, sys.version_info[:3]))
    lines = [f"On Python {python}.", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    right = [sum(value == OK for value in column.values()) for column in columns.values()]
    asked = [len(column) - 1 for column in columns.values()]
    lines.append(_row("**right, of all**", [f"**{number} of {all_}**" for number, all_ in zip(right, asked, strict=True)]))
    for group, shapes in GROUPS.items():
        asked_for = [shape.title for shape in shapes if shape.peers and shape in SHAPES]
        if asked_for:
            lines.append(_row(f"**{group}**", [""] * len(columns)))
        lines.extend(_row(title, [column[title] for column in columns.values()]) for title in asked_for)
    lines.append(_row(FORGED.title, [column[FORGED.title] for column in columns.values()]))
    return "\n".join(lines)


def in_page(page: str, text: str) -> str:
    """The page, with the table as it was measured now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


def _row(title: str, cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in [title, *cells]) + " |"


if __name__ == "__main__":
    logging.disable()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        found = {f"{item.package} {version(item.package)}": measured(item, Path(place)) for item in FRAMEWORKS}
    PAGE.write_text(in_page(PAGE.read_text(), rendered(found)))
    sys.stdout.write(rendered(found) + "\n")
