"""Agents for tests: a model that does what its user says, tools that write, wait and break, and wires."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from dcaf import Session, Tool, tool
from dcaf.agent import Agent, AgentResponse, Approval, Message, PlatformContext
from dcaf.agent.approvals import to_decided_call
from dcaf.core.claims import Binding
from dcaf.core.store import OpenRequest, SessionStore
from dcaf.tools import Verdict
from dcaf.tools import decide as decide_calls
from tests.asgi.wire import JSON_TYPE, Sent, messages_of, scope_of

Part = TextPart | ToolCallPart
Reply = Callable[[list[ModelMessage]], Sequence[Part]]


SECRET = "canary in the model's error"


def model_of(reply: Reply) -> FunctionModel:
    """A model that answers as a function says, whole and word by word."""

    async def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(list(reply(messages)))

    async def pieces(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        for at, part in enumerate(reply(messages)):
            if isinstance(part, TextPart):
                for number, word in enumerate(part.content.split(" ")):
                    yield f" {word}" if number else word
                    await anyio.lowlevel.checkpoint()
            else:
                yield {at: DeltaToolCall(part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id)}

    return FunctionModel(whole, stream_function=pieces)


def scripted(*answers: Sequence[Part] | str | Exception) -> FunctionModel:
    """A model that gives these answers in turn, and counts on not being asked again."""
    left = iter(answers)

    def reply(_: list[ModelMessage]) -> Sequence[Part]:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return [TextPart(answer)] if isinstance(answer, str) else answer

    return model_of(reply)


def wants(name: str, arguments: Any = None, id_: str = "c1") -> ToolCallPart:
    return ToolCallPart(name, arguments if isinstance(arguments, str) else json.dumps(arguments or {}), id_)


def obeys(messages: list[ModelMessage]) -> Sequence[Part]:
    """Call what the user says (`call name {...}`, a line each), else repeat it; after the calls say what came of them."""
    last = messages[-1]
    assert isinstance(last, ModelRequest)
    prompts = [str(part.content) for part in last.parts if isinstance(part, UserPromptPart)]
    if not prompts:
        outputs = [str(part.content) for part in last.parts if isinstance(part, ToolReturnPart)]
        return [TextPart(f"Done: {'; '.join(outputs)}")]
    if prompts[-1] == "fail":
        raise ConnectionError(SECRET)
    calls = [line.split(" ", 2)[1:] for line in prompts[-1].splitlines() if line.startswith("call ")]
    if not calls:
        return [TextPart(f"You said {prompts[-1]}")]
    return [ToolCallPart(call[0], call[1] if len(call) > 1 else "{}") for call in calls]


def obedient() -> FunctionModel:
    return model_of(obeys)


@tool
def count(session: Session) -> int:
    """Count."""
    return session.incr("n")


@tool
def note(text: str, session: Session) -> str:
    """Write something down."""
    session.append("notes", text)
    return "noted"


@tool(requires_approval=True)
def drop(volume: str, session: Session) -> str:
    """Delete a volume."""
    session.append("dropped", volume)
    return f"{volume} dropped"


@tool(requires_approval=True)
def explode(session: Session) -> str:
    """Break after the approval."""
    session.set("exploded", value=True)
    raise RuntimeError("canary in the tool's error")


@tool(requires_approval=True)
async def hang(session: Session) -> str:
    """Take for ever after the approval."""
    session.set("hung", value=True)
    await anyio.sleep(60)
    return "never"


@tool
def boom(session: Session) -> str:
    """Break."""
    session.set("boom", value=True)
    raise RuntimeError("canary in the tool's error")


@tool(timeout=timedelta(milliseconds=20))
async def slow(session: Session) -> str:
    """Take too long."""
    session.set("slow", value=True)
    await anyio.sleep(60)
    return "never"


@tool
async def wait(seconds: float) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "waited"


@tool
def whoami(platform_context: PlatformContext) -> str:
    """Tell who asks."""
    return f"{platform_context.get('user_id', 'nobody')}, {len(platform_context.get('duplo_token', ''))} characters"


TOOLS: list[Tool[..., Any]] = [count, note, drop, explode, hang, boom, slow, wait, whoami]


def agent_of(model: Any = None, **settings: Any) -> Agent:
    return Agent(obedient() if model is None else model, tools=TOOLS, **settings)


def user(content: str = "", **data: Any) -> Message:
    return Message.model_validate({"role": "user", "content": content, **({"data": data} if data else {})})


def asked_of(response: AgentResponse) -> Approval:
    (found,) = response.approvals
    return found


def gathered(agent: Agent, messages: Any, *, backend: str = "asyncio", **options: Any) -> list[Any]:
    """The events of a stream."""

    async def run() -> list[Any]:
        async with aclosing(agent.run_stream(messages, **options)) as events:
            return [event async for event in events]

    return anyio.run(run, backend=backend)


def decide(session: Session, decisions: Sequence[Approval], *, now: float) -> list[Verdict]:
    """Decide about calls as a message says. It takes no event loop, so that a hundred thousand can be tried; long ones do."""

    async def decided() -> list[Verdict]:
        return await decide_calls(session, [to_decided_call(item) for item in decisions], clock=lambda: now)

    try:
        decided().send(None)
    except StopIteration as stopped:
        verdicts: list[Verdict] = stopped.value
        return verdicts
    except RuntimeError:
        return asyncio.run(decided())
    raise AssertionError


class Clock:
    """A time that tests turn."""

    def __init__(self, now: float | None = None) -> None:
        self.now = time.time() if now is None else now

    def __call__(self) -> float:
        return self.now


async def held(session: Session, store: SessionStore) -> Session:
    """A session, as a turn has it whose store is this."""
    session._state.lease = await store.open(OpenRequest("A" * 22, None, Binding("tests")))
    return session


async def exchange(app: Any, scope: Any, messages: Any) -> Sent:
    """One request of a client that waits for its answer."""
    sent, pending = Sent(), list(messages)

    async def receive() -> Any:
        if not pending:
            await anyio.sleep_forever()
        message = pending.pop(0)
        sent.taken_bytes += len(message.get("body", b""))
        return message

    async def send(message: Any) -> None:
        sent.messages.append(message)

    await app(scope, receive, send)
    return sent


def call(app: Any, body: Any = b"", *, method: str = "POST", path: str = "/api/chat", headers: Any = (JSON_TYPE,)) -> Sent:
    """One request; a body that is neither bytes nor chunks of bytes is written as JSON."""
    found = json.dumps(body).encode() if isinstance(body, dict) else body
    return asyncio.run(exchange(app, scope_of(method, path, headers), messages_of(found)))


def lines_of(body: bytes) -> Iterator[Any]:
    return (json.loads(line) for line in body.splitlines())
