"""A conversation as a model reads it."""

from __future__ import annotations

import asyncio
import gc
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

from dcaf.agent import Message
from dcaf.agent.history import build_history


def shown(*messages: Any) -> list[Any]:
    """Side and contents of each message."""
    found = asyncio.run(build_history([Message.model_validate(message) for message in messages]))
    return [(type(message).__name__, [_shown(part) for part in message.parts]) for message in found]


def _shown(part: Any) -> Any:
    if isinstance(part, ToolCallPart):
        return f"{part.tool_call_id}: {part.tool_name}{part.args}"
    return f"{part.tool_call_id} = {part.content}" if isinstance(part, ToolReturnPart) else part.content


def did(id_: str, output: str = "ok", name: str = "count", **arguments: Any) -> dict[str, Any]:
    return {"id": id_, "name": name, "input": arguments, "output": output}


def test_the_sides_take_turns() -> None:
    found = shown(
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    )
    assert found == [("ModelRequest", ["a", "b"]), ("ModelResponse", ["c", "d"]), ("ModelRequest", ["e"])]


def test_calls_stand_before_the_text_that_came_of_them() -> None:
    found = shown(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "done", "data": {"executed_tool_calls": [did("c1", "1"), did("c2", "2")]}},
    )
    assert found[1:] == [
        ("ModelResponse", ["c1: count{}", "c2: count{}"]),
        ("ModelRequest", ["c1 = 1", "c2 = 2"]),
        ("ModelResponse", ["done"]),
    ]


def test_a_call_that_is_told_again_counts_once() -> None:
    call = did("c1", "1")
    found = shown(
        {"role": "assistant", "content": "done", "data": {"executed_tool_calls": [call]}},
        {"role": "user", "content": "more", "data": {"executed_tool_calls": [call], "executed_approvals": [call]}},
    )
    assert str(found).count("c1: ") == 1


def test_another_call_of_the_same_id_is_not_lost_and_gets_an_id_of_its_own() -> None:
    """Some models number their calls anew in each answer."""
    found = shown(
        {"role": "assistant", "content": "one", "data": {"executed_tool_calls": [did("call_0", "1", n=1)]}},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "two", "data": {"executed_tool_calls": [did("call_0", "2", n=2)]}},
    )
    outputs = [part for side, parts in found for part in parts if " = " in part]
    ids = [output.split(" = ")[0] for output in outputs]
    assert [output.split(" = ")[1] for output in outputs] == ["1", "2"]
    assert len(set(ids)) == 2


CALLS = st.lists(st.builds(did, st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["f", "g"])), max_size=4)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": st.sampled_from(["", "text"])},
        optional={"data": st.fixed_dictionaries({"executed_tool_calls": CALLS, "executed_approvals": CALLS})},
    ),
    max_size=6,
)


@given(MESSAGES)
def test_whatever_a_client_tells_the_sides_take_turns_and_every_call_has_one_answer(messages: Any) -> None:
    found = asyncio.run(build_history([Message.model_validate(message) for message in messages]))
    assert all(type(one) is not type(other) for one, other in pairwise(found))
    calls = [part.tool_call_id for message in found for part in message.parts if isinstance(part, ToolCallPart)]
    answers = [part.tool_call_id for message in found for part in message.parts if isinstance(part, ToolReturnPart)]
    assert calls == answers
    assert len(set(calls)) == len(calls)
    texts = [part.content for message in found for part in message.parts if isinstance(part, TextPart | UserPromptPart)]
    assert texts == [message["content"] for message in messages if message["content"]]


def test_what_waits_and_what_a_platform_says_is_not_in_it() -> None:
    found = shown(
        {
            "role": "user",
            "content": "go",
            "platform_context": {"token": "canary"},
            "data": {"approvals": [{"id": "canary", "name": "drop"}], "cmds": ["canary"], "extra": "canary"},
        }
    )
    assert found == [("ModelRequest", ["go"])]


@pytest.mark.alone
def test_a_megabyte_of_history_takes_a_time_that_grows_with_it() -> None:
    def took(number: int) -> float:
        messages = [
            Message.model_validate({"role": role, "content": "x" * 100, "data": {"executed_tool_calls": [did(f"{role}{at}")]}})
            for at in range(number)
            for role in ("user", "assistant")
        ]
        gc.collect()
        gc.disable()  # what it collects is of the whole process
        try:
            start = time.perf_counter()
            asyncio.run(build_history(messages))
            return time.perf_counter() - start
        finally:
            gc.enable()

    took(100)
    assert min(took(4000) for _ in range(3)) < 40 * min(took(400) for _ in range(3))
