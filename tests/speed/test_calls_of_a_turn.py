"""How many Python functions of dcaf a turn calls: the time of a small one is theirs, since each runs once and is cold."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

import dcaf
from dcaf import Session, current_session, tool
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.turns import ANSWER, Turn, asked, turn_of
from tests.benchmarks.ways import LEAN, WAYS

PACKAGE = str(Path(dcaf.__file__).parent)
STATE = state_of(SIZES["200 B"])
(WAY,) = [way for way in WAYS if way.name == LEAN]


@tool
async def step(session: Session) -> str:
    """Take a step."""
    session["step"] += 1
    return "done"


async def chat(request: Request) -> JSONResponse:
    await step.run({}, session=current_session())
    return JSONResponse(ANSWER)


def with_a_tool() -> Turn:
    return asked(WAY, chat, STATE)


async def drop(message: Any) -> None:
    """Keep nothing of the answer."""


def calls_of(turn: Turn) -> Counter[str]:
    """Function of dcaf -> how often a turn calls it, when it is not the first."""
    found: Counter[str] = Counter()

    def seen(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            found[frame.f_code.co_qualname] += 1

    async def ask() -> None:
        for _ in range(3):
            await turn.ask(drop)
        sys.setprofile(seen)
        try:
            await turn.ask(drop)
        finally:
            sys.setprofile(None)

    asyncio.run(ask())
    return found


KINDS: dict[str, tuple[Callable[[], Turn], int]] = {
    "untouched": (lambda: turn_of(WAY, "untouched", STATE, {}), 80),
    "write": (lambda: turn_of(WAY, "write", STATE, {}), 130),
    "a tool": (with_a_tool, 160),
}
"""Turn -> the most calls. Before the path was rebuilt they were 130, 175 and 210."""


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have loaded an SDK of OpenTelemetry into this process: then each turn tells it more."""
    monkeypatch.setattr("dcaf.asgi.telemetry.Telemetry.is_heard", False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_calls_no_more_functions_than_it_did(kind: str) -> None:
    make, most = KINDS[kind]
    found = calls_of(make())
    print(f"{kind}: {found.total()} calls of {len(found)} functions")
    assert 20 < found.total() <= most, found.most_common(30)


def test_control_one_more_layer_around_each_message_is_caught() -> None:
    make, _ = KINDS["untouched"]
    turn, before = make(), calls_of(make()).total()

    def layered(send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def sent(message: Any) -> None:
            current_session().has("step")
            await send(message)

        return sent

    inner = turn.app.app  # type: ignore[attr-defined]
    turn.app.app = lambda scope, receive, send: inner(scope, receive, layered(send))  # type: ignore[attr-defined]
    assert calls_of(turn).total() > before + 3
