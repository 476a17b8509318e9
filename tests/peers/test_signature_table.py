"""The page's table of signatures has every shape, and a verdict can come out every way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dcaf import Session, Tool
from tests.peers.frameworks import FRAMEWORKS, Dcaf, Framework, Function
from tests.peers.signature_table import BEGIN, END, FORGED, OK, PAGE, context_first, forged, in_page, measured, verdict
from tests.tools.signatures import GROUPS, SHAPES, Shape

TABLE = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in TABLE.splitlines() if "|" in line
]
ASKED = [shape.title for shapes in GROUPS.values() for shape in shapes if shape.peers and shape.since < (3, 14)]


def shape_of(title: str) -> Shape:
    (found,) = [shape for shape in SHAPES if shape.title == title]
    return found


def test_the_page_has_every_shape_and_dcaf_is_right_in_each() -> None:
    assert [row[0] for row in ROWS if row[-1] == OK] == ASKED
    assert [row[0] for row in ROWS if row[0] and not row[0].startswith("**") and row[-1] != OK] == ["---", FORGED.title]


def test_the_page_names_the_frameworks_with_the_versions_of_the_makefile() -> None:
    (line,) = re.findall(r"^FRAMEWORKS := (.*)$", (PAGE.parents[2] / "Makefile").read_text(), re.MULTILINE)
    pinned = re.findall(r"([a-z-]+)==([\d.]+)", line)
    assert ROWS[0][1:-1] == [f"{name} {version}" for name, version in pinned]
    assert [name for name, _ in pinned] == [item.package for item in FRAMEWORKS[:-1]]


def test_dcaf_is_still_right_in_each(tmp_path: Path) -> None:
    found = measured(Dcaf(), tmp_path)
    assert found.pop(FORGED.title) == "dropped"
    assert set(found.values()) == {OK}


class Leaking(Dcaf):
    """Broken: the model is shown what is injected."""

    async def seen(self, tool: Any) -> dict[str, Any]:
        return {**await super().seen(tool), "session": {}}


class Losing(Dcaf):
    """Broken: a generator comes back as what it is."""

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        return repr(await super().called(tool, arguments))


class Refusing(Dcaf):
    """Broken: nothing can be registered."""

    def registered(self, function: Function, name: str | None) -> Any:
        raise TypeError


class Failing(Dcaf):
    """Broken: every call fails."""

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        raise TypeError


class Empty(Dcaf):
    """Broken: the session never arrives."""

    async def called(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> Any:
        return f"{arguments['name']} NoneType"


class Base(Dcaf):
    """Broken: what arrives is no object of the subclass."""

    async def called(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> Any:
        return "ada Session"


class Hiding(Dcaf):
    """Broken: the model is not shown what it must fill."""

    async def seen(self, tool: Any) -> dict[str, Any]:
        return {}


class Believing(Dcaf):
    """Broken: takes anything, and what the model says about the session."""

    def registered(self, function: Function, name: str | None) -> Any:
        return function

    async def seen(self, tool: Any) -> dict[str, Any]:
        return {"name": {}}

    async def called(self, tool: Any, arguments: dict[str, Any]) -> Any:
        return tool(**{"session": Session(), **arguments})


@pytest.mark.parametrize(
    ("framework", "title", "said"),
    [
        (Leaking(), "PEP 563", "leaks to the model, though injected"),
        (Losing(), "generator", "the result is lost"),
        (Refusing(), "PEP 563", "error at registration"),
        (Refusing(), "`list[Session]` is refused", OK),
        (Failing(), "PEP 563", "error at call"),
        (Empty(), "PEP 563", "not injected"),
        (Base(), "a subclass of `Session`", "injects the base class"),
        (Hiding(), "PEP 563", "hides a parameter from the model"),
        (Believing(), "`Session | int` is refused", "taken, and injected"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Framework) else str(value),
)
def test_control_a_verdict_comes_out_every_way(framework: Framework, title: str, said: str, tmp_path: Path) -> None:
    assert verdict(framework, shape_of(title), tmp_path) == said


def test_control_a_believed_forgery_is_seen(tmp_path: Path) -> None:
    assert forged(Believing(), FORGED, tmp_path) == "injected"


def test_the_context_is_put_first_with_a_default_for_what_follows_one() -> None:
    found = context_first(shape_of("`Session | None = None`"))
    assert "def act(session: Session | None=None, name: str='') -> str:" in found
    assert "def act(self, session: Session, name: str) -> str:" in context_first(shape_of("bound method"))
    assert "from $home import $name as Session" in found


def test_the_rest_of_the_page_stays_as_it_is() -> None:
    page = PAGE.read_text()
    assert in_page(in_page(page, "x"), TABLE.strip()) == page
