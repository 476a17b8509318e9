"""Ten calls at once through the agents of other frameworks, each with a function written by hand: nothing is lost.

openai-agents and LangGraph live in an environment of their own, which ``make test`` makes. ``DCAF_AGENTS`` names another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import REQUIRED
from tests.tools.bridges import BRIDGES, CALLS, FAILS, FRAMEWORKS, SYNC_BRIDGES

ROOT: Final = Path(__file__).parents[2]
ELSEWHERE: Final = Path(os.environ.get("DCAF_AGENTS", Path(sys.prefix) / "agents")) / "bin" / "python"
EXPECTED: Final = [index for index in range(CALLS) if index != FAILS]
WAYS: Final = (*(f"async, {bridge.__name__}" for bridge in BRIDGES), *(f"sync, {bridge.__name__}" for bridge in SYNC_BRIDGES))
CONTROLS: Final = tuple(way for way in WAYS if "by_function" in way)


TITLES: Final = {"pydantic-ai": "pydantic-ai", "openai-agents": "openai-agents", "langchain": "LangChain", "langgraph": "LangChain"}


def found(framework: str) -> dict[str, list[int]]:
    baskets: dict[str, list[int]] = _told(framework)[0]
    return baskets


@cache
def _told(framework: str) -> Any:
    python = Path(sys.executable) if framework == "pydantic-ai" else ELSEWHERE
    if not python.exists():
        reason = f"{framework} is not installed: run `make test` once"
        if "agents" in REQUIRED:
            pytest.fail(f"{reason}, and DCAF_REQUIRE names agents")
        pytest.skip(reason)
    done = subprocess.run(
        [str(python), "-m", "tests.tools.bridges", framework],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)[framework]


@pytest.mark.parametrize("way", [way for way in WAYS if way not in CONTROLS])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ten_calls_at_once_lose_nothing_and_the_one_that_raised_leaves_nothing(framework: str, way: str) -> None:
    assert sorted(found(framework)[way]) == EXPECTED


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_calls_of_tasks_keep_the_order_of_the_model(framework: str) -> None:
    assert found(framework)["async, by_run"] == EXPECTED


@pytest.mark.parametrize("way", CONTROLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_control_the_function_itself_loses_calls(framework: str, way: str) -> None:
    assert len(found(framework)[way]) < len(EXPECTED)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_tool_that_is_given_as_it_is_is_refused_with_what_to_write(framework: str) -> None:
    begins = f"A Session is filled by dcaf, and never by a model. {TITLES[framework]} takes no tool of dcaf's as it is: "
    said = _told(framework)[1]
    assert said
    assert [text.startswith(begins) for text in said] == [True] * len(said), said
