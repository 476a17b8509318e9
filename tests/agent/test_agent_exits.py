"""What would end the program, in a tool, an agent function or an interceptor, ends one turn of one user of a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage, TextPart, ToolReturnPart

from dcaf import Keyring, Session, tool
from dcaf.agent import Agent, create_app
from dcaf.client import Client, ClientError
from dcaf.testing import serving
from tests.agent.agents import Part, model_of, wants

ENDS: dict[str, Callable[[], Any]] = {
    "SystemExit": lambda: sys.exit(2),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "BaseException": lambda: _raise(BaseException()),
    "group": lambda: _raise(BaseExceptionGroup("", [SystemExit()])),
}


def _raise(error: BaseException) -> None:
    raise error


def fails_if_asked(said: Any) -> None:
    if "fail" in str(said):
        ENDS[str(said).split()[-1]]()


@tool
def exits(how: str) -> None:
    fails_if_asked(f"fail {how}")


@tool
async def exits_async(how: str) -> None:
    fails_if_asked(f"fail {how}")


def reply(messages: list[ModelMessage]) -> Sequence[Part]:
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return [TextPart(str(last.content))]
    how = str(getattr(last, "content", "")).split()
    return [wants(how[0], {"how": how[-1]})] if how[0].startswith("exits") else [TextPart("ok")]


def function(messages: Any, context: Any, session: Session) -> str:
    session["dirty"] = 1
    fails_if_asked(messages[-1].content)
    session.clear()
    return "ok"


async def function_async(messages: Any, context: Any, session: Session) -> str:
    return function(messages, context, session)


def before(request: Any) -> None:
    fails_if_asked(request.messages[-1].content)


async def before_async(request: Any) -> None:
    before(request)


AGENTS = {
    "tools": Agent(model_of(reply), tools=[exits, exits_async]),
    "function": Agent(function),
    "async function": Agent(function_async),
    "interceptor": Agent(lambda messages, context: "ok", request_interceptors=before),
    "async interceptor": Agent(lambda messages, context: "ok", request_interceptors=before_async),
}


@pytest.mark.parametrize("name", AGENTS)
def test_the_server_goes_on(name: str) -> None:
    words = ["exits {}", "exits_async {}"] if name == "tools" else ["fail {}"]
    with serving(create_app(AGENTS[name], keys=Keyring.ephemeral(), audience="shop")) as url, Client(url) as client:
        socket = client.socket()
        for how in ENDS:
            for word in words:
                for say in (client.send, lambda said: list(client.stream(said)), socket.send):
                    said = _said(say, word.format(how))
                    assert (f"failed with {_kind(how)}" in said) if name == "tools" else "ServiceFailed" in said, (how, said)
            assert client.send("and now?").text == "ok"
            assert client.session == {}


def _kind(how: str) -> str:
    return "BaseExceptionGroup" if how == "group" else how


def _said(say: Callable[[str], Any], text: str) -> str:
    try:
        found = say(text)
    except ClientError as error:
        return type(error).__name__
    return "".join(getattr(item, "text", None) or "" for item in found) if isinstance(found, list) else str(found.text)
