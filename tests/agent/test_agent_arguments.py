"""What an Agent and its methods are given by mistake: an error of dcaf's own, which names the argument and says what it takes."""

from __future__ import annotations

import asyncio
import logging
import math
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pydantic_ai
import pytest
from pydantic_ai.models.test import TestModel as MadeUp

from dcaf import ConfigurationError, DcafError, Session, tool
from dcaf.agent import Agent, AgentResponse, MalformedRequest, Message, RunConfig
from tests.agent.agents import TOOLS, agent_of, count, drop, user

ANSWER = Agent(lambda: "ok").run("hi")


class Shop:
    """Something with methods."""

    @tool
    def sell(self, number: int) -> str:
        """Sell."""
        return f"sold {number}"

    def buy(self, number: int) -> str:
        """Buy."""
        return f"bought {number}"

    @tool
    @classmethod
    def close(cls) -> str:
        """Close."""
        return "closed"


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "an int": lambda: 3,
    "a float": lambda: 3.5,
    "not a number": lambda: math.nan,
    "a bool": lambda: True,
    "bytes": lambda: b"hi",
    "a bytearray": lambda: bytearray(b"hi"),
    "a memoryview": lambda: memoryview(b"hi"),
    "an empty text": lambda: "",
    "a text": lambda: "hi",
    "an empty list": list,
    "a list of texts": lambda: ["hi"],
    "a list of None": lambda: [None],
    "a list of lists": lambda: [["user", "hi"]],
    "a circle": circle,
    "a tuple of texts": lambda: ("user", "hi"),
    "an empty dict": dict,
    "a dict": lambda: {"role": "user", "content": "hi"},
    "a dict of other keys": lambda: {1: 2},
    "a dict of objects": lambda: {"a": object()},
    "a circle in a dict": lambda: {"a": circle()},
    "an ordered dict": lambda: OrderedDict(role="user"),
    "a set": lambda: {"hi"},
    "a frozenset": lambda: frozenset(["hi"]),
    "a range": lambda: range(3),
    "a generator of texts": lambda: (text for text in ["hi"]),
    "a deque": lambda: deque([3]),
    "an object": object,
    "a class": lambda: int,
    "the class Session": lambda: Session,
    "the class Message": lambda: Message,
    "the class Agent": lambda: Agent,
    "a Session": Session,
    "a Message": lambda: user("hi"),
    "an answer": lambda: ANSWER,
    "a tool": lambda: count,
    "a function": lambda: lambda: "hi",
    "a module": lambda: types,
    "an error": lambda: ValueError("hi"),
    "Ellipsis": lambda: ...,
    "a RunConfig": RunConfig,
    "another Agent": lambda: Agent(lambda: "ok"),
    "an Agent of another framework": lambda: pydantic_ai.Agent(MadeUp()),
}

QUIET = Agent(lambda messages, context: "ok")


async def streamed(*arguments: Any, **named: Any) -> Any:
    async with aclosing(QUIET.run_stream(*arguments, **named)) as events:
        return [event async for event in events][-1]


ENTRIES: dict[str, Callable[[Any], Any]] = {
    "Agent(model)": Agent,
    "Agent(tools=)": lambda value: Agent("test", tools=value),
    "Agent(tools=[])": lambda value: Agent("test", tools=[value]),
    "Agent(instructions=)": lambda value: Agent("test", instructions=value),
    "Agent(config=)": lambda value: Agent("test", config=value),
    "Agent(request_interceptors=)": lambda value: Agent("test", request_interceptors=value),
    "Agent(response_interceptors=)": lambda value: Agent("test", response_interceptors=value),
    "Agent(name=)": lambda value: Agent("test", name=value),
    "Agent(clock=)": lambda value: Agent("test", clock=value),
    "run(messages)": QUIET.run,
    "run(session=)": lambda value: QUIET.run("hi", session=value),
    "run(context=)": lambda value: QUIET.run("hi", context=value),
    "run(context={platform_context:})": lambda value: QUIET.run("hi", context={"platform_context": value}),
    "run_async(messages)": lambda value: asyncio.run(QUIET.run_async(value)),
    "run_stream(messages)": lambda value: asyncio.run(streamed(value)),
    "run_stream(session=)": lambda value: asyncio.run(streamed("hi", session=value)),
    "run_stream(context=)": lambda value: asyncio.run(streamed("hi", context=value)),
    "chat(text)": QUIET.chat,
    "chat(after=)": lambda value: QUIET.chat("hi", after=value),
    "chat(decisions=)": lambda value: QUIET.chat("hi", decisions=value),
    "chat(after=, decisions=)": lambda value: QUIET.chat("hi", after=ANSWER, decisions=value),
    "chat(after=, decisions={})": lambda value: QUIET.chat("hi", after=waiting(), decisions={"c1": value}),
    "chat(session=)": lambda value: QUIET.chat("hi", session=value),
    "chat_async(text)": lambda value: asyncio.run(QUIET.chat_async(value)),
    "RunConfig(streaming_mode=)": lambda value: RunConfig(streaming_mode=value),
    "RunConfig(max_model_calls=)": lambda value: RunConfig(max_model_calls=value),
    "RunConfig(timeout=)": lambda value: RunConfig(timeout=value),
    "RunConfig(model_settings=)": lambda value: RunConfig(model_settings=value),
}


def waiting() -> AgentResponse:
    from tests.agent.agents import scripted, wants

    return Agent(scripted([wants("drop", {"volume": "pg"})]), tools=[drop]).run("drop pg")


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_wrong_argument_ends_in_an_error_of_dcafs_own(entry: str, caplog: Any) -> None:
    named = "model" if entry == "Agent(model)" else entry.partition("(")[2].rpartition(", ")[2].partition("=")[0].strip("[])")
    told = 0
    with caplog.at_level(logging.CRITICAL):
        for kind, make in WRONG.items():
            try:
                ENTRIES[entry](make())
            except ConfigurationError as error:
                said = str(error)
                assert "hi" not in said.split() or entry == "Agent(model)", kind
                told += named in said or "a yes is True" in said
            except DcafError:
                told += 1
    assert told >= 5


def test_passed_on_as_they_are_they_end_elsewhere() -> None:
    """The control: what ran before without a look at its arguments."""
    from dcaf.agent.runner import Run

    def unchecked(messages: Any) -> Any:
        return Run(QUIET._setup, messages, Session(), {})

    async def run(messages: Any) -> None:
        async with aclosing(unchecked(messages).events()) as events:
            async for _ in events:
                pass

    ended = set()
    for make in WRONG.values():
        try:
            asyncio.run(run(make()))
        except DcafError:
            continue
        except Exception as error:  # noqa: BLE001
            ended.add(type(error).__name__)
    assert ended >= {"TypeError", "AttributeError"}


@pytest.mark.parametrize("messages", [["hi"], (message for message in [user("hi")]), deque([user("hi")]), (user("hi"),)])
def test_any_list_of_messages_is_one(messages: Any) -> None:
    if messages == ["hi"]:
        with pytest.raises(MalformedRequest, match=r"messages\.0"):
            QUIET.run(messages)
    else:
        assert QUIET.run(messages).text == "ok"


def test_the_words_say_what_to_write() -> None:
    said: dict[str, str] = {}
    wrongs: dict[str, Callable[[], Any]] = {
        "message": lambda: QUIET.run(user("hi")),  # type: ignore[arg-type]
        "none": lambda: QUIET.run(None),  # type: ignore[arg-type]
        "answer": lambda: QUIET.run(ANSWER),  # type: ignore[arg-type]
        "class": lambda: QUIET.run("hi", session=Session),  # type: ignore[arg-type]
        "text": lambda: QUIET.chat([user("hi")]),  # type: ignore[arg-type]
        "after": lambda: QUIET.chat("hi", after={"role": "user"}),  # type: ignore[arg-type]
        "platform": lambda: QUIET.run("hi", context={"platform_context": "mira"}),
        "config": lambda: Agent("test", config={"max_model_calls": 3}),  # type: ignore[arg-type]
        "tool": lambda: Agent("test", tools=count),  # type: ignore[arg-type]
        "function": lambda: Agent("test", tools=waiting),  # type: ignore[arg-type]
        "no tools": lambda: Agent("test", tools=None),  # type: ignore[arg-type]
        "a none": lambda: Agent("test", tools=[count, None]),  # type: ignore[list-item]
        "instructions": lambda: Agent("test", instructions=["be kind"]),  # type: ignore[arg-type]
        "model class": lambda: Agent(MadeUp),
        "a tool as a model": lambda: Agent(count),
    }
    for name, wrong in wrongs.items():
        with pytest.raises(ConfigurationError) as caught:
            wrong()
        said[name] = str(caught.value)
    assert said == {
        "message": "messages= takes a text, or a list of messages. This is one message: put it into a list.",
        "none": "messages= takes a text, or a list of messages, not None.",
        "answer": "messages= takes a text, or a list of messages, not an AgentResponse: chat(after=) goes on from one.",
        "class": "session= takes a Session, or a dict of its state, not the class Session.",
        "text": "text= takes what the user says, a text; for messages there is run(), not a list.",
        "after": "after= takes the AgentResponse of the turn before, or None, not a dict.",
        "platform": "context={'platform_context': ...} takes a dict of what the platform says of the user, not a str.",
        "config": "config= takes a RunConfig, as RunConfig(max_model_calls=8), not a dict.",
        "tool": "tools= takes a list of tools or functions. This is one: write tools=[count].",
        "function": "tools= takes a list of tools or functions. This is one: write tools=[waiting].",
        "no tools": "tools= takes a list of tools or functions, not None.",
        "a none": "tools= takes a list of tools or functions, and there is None among them.",
        "instructions": "instructions= takes a text, a function of the session, or None, not a list.",
        "model class": (
            "The class TestModel is neither an Agent, a model, the name of one, nor an agent function. Make one: TestModel(...)."
        ),
        "a tool as a model": "count is a tool. A model comes first: Agent(model, tools=[count]).",
    }


class ForeignAgent:
    """One that is asked with a text."""

    def run(self, prompt: str) -> str:
        return prompt


class Called(ForeignAgent):
    def __call__(self, prompt: str) -> str:
        return prompt


Called.__name__ = "Agent"
ForeignAgent.__module__ = Called.__module__ = "crew.core"


@pytest.mark.parametrize(
    ("foreign", "package"), [(pydantic_ai.Agent(MadeUp()), "pydantic_ai"), (ForeignAgent(), "crew"), (Called(), "crew")]
)
def test_an_agent_of_another_framework_is_named_as_such(foreign: Any, package: str) -> None:
    name = type(foreign).__name__
    with pytest.raises(
        ConfigurationError, match=rf"This {name} is one of {package}, and none of dcaf\. Pass the model that it asks"
    ):
        Agent(foreign)


def test_an_object_that_answers_messages_is_an_agent_function_whatever_its_class_is_called() -> None:
    def call(self: Any, messages: Any, context: Any) -> str:
        return f"{messages[-1].content}!"

    assert Agent(type("Agent", (), {"__call__": call})()).run("hi").text == "hi!"
    assert Agent(type("SupportAgent", (), {"__call__": call})()).run("hi").text == "hi!"


@pytest.mark.parametrize("tools", [[Shop.sell], [Shop.buy], [count, Shop.sell], (Shop.sell,)])
def test_a_tool_without_its_object_is_refused_when_the_agent_is_made(tools: Any) -> None:
    name = "buy" if tools == [Shop.buy] else "sell"
    with pytest.raises(ConfigurationError, match=rf"Shop\.{name} is a method, .* tools=\[thing\.{name}\]"):
        Agent("test", tools=tools)


def test_a_tool_with_its_object_is_taken() -> None:
    shop = Shop()
    assert set(Agent("test", tools=[shop.sell, shop.buy, Shop.close, *TOOLS]).tools) >= {"sell", "buy", "close", "count"}
    assert Agent("test", tools=(item for item in [shop.sell])).run("hi").data.executed_tool_calls[0].output == "sold 0"


def test_the_messages_of_a_program_stay_its_own() -> None:
    given = [user("call count", cmds=[{"a": 1}])]
    before = [message.model_dump() for message in given]

    def write(request: Any) -> None:
        request.messages[0].content = "changed"
        request.messages[0].data.cmds[0]["a"] = 2

    agent_of(request_interceptors=write).run(given)
    assert [message.model_dump() for message in given] == before
