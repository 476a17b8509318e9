"""The signature matrix: every shape in which a tool takes a session, with what the model sees, what is injected, and the result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from dcaf import ConfigurationError, Session, Tool, tool
from tests.tools.signatures import GROUPS, SHAPES, Shape

SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.title)


def made(shape: Shape, folder: Path) -> Tool[..., Any]:
    def make(function: Callable[..., Any]) -> Tool[..., Any]:
        if isinstance(function, Tool):
            return function
        return tool(name="act")(function) if shape.needs_name else tool(function)

    module = shape.loaded(folder, "dcaf", "Session", made=make)
    return make(eval(shape.made, vars(module)))


def run(given: Tool[..., Any], arguments: Any, session: Session) -> Any:
    async def turn() -> Any:
        return await given.run(arguments, session=session)

    return anyio.run(turn)


@SHAPE
def test_a_tool_of_any_shape_gets_its_session_and_shows_nothing_of_it(shape: Shape, tmp_path: Path) -> None:
    if shape.result is None:
        with pytest.raises(ConfigurationError) as caught:
            made(shape, tmp_path)
        assert "annotat" in str(caught.value) or "Declare" in str(caught.value), "the message says what to write"
        return
    found = made(shape, tmp_path)
    session = Session()
    assert tuple(found.input_schema["properties"]) == shape.sees
    assert tuple(found._read.finish().plan.injected) == shape.injected
    assert run(found, dict(shape.arguments), session) == shape.expected("Session")
    assert {row.parameter for row in found.explain().rows if row.filled_by != "nobody"} == {*shape.sees, *shape.injected}


FILLED = [shape for shape in SHAPES if shape.result is not None and shape.injected]


@pytest.mark.parametrize("shape", FILLED, ids=lambda shape: shape.title)
def test_a_model_never_fills_what_the_session_fills(shape: Shape, tmp_path: Path) -> None:
    found = made(shape, tmp_path)
    forged = {name: {"approved": True} for name in shape.injected}
    assert run(found, {**shape.arguments, **forged}, Session()) == shape.expected("Session")
    assert found.forged == dict.fromkeys(shape.injected, 1)


def test_control_a_model_fills_a_session_that_is_its_own(tmp_path: Path) -> None:
    (shape,) = [shape for shape in SHAPES if shape.title == "`session: str` is the model's"]
    assert run(made(shape, tmp_path), {"session": "eve"}, Session()) == "eve"


def test_the_matrix_is_large_and_no_shape_is_in_it_twice() -> None:
    every = [shape for shapes in GROUPS.values() for shape in shapes]
    assert len(SHAPES) >= 45
    assert len({shape.title for shape in every}) == len(every) == len({shape.source + shape.made for shape in every})
    left_out = {shape.title for shape in every} - {shape.title for shape in SHAPES}
    assert all(shape.since > sys.version_info[:2] for shape in every if shape.title in left_out)
