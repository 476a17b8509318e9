"""A stand-in for the services of OpenAI and Anthropic: a real server on loopback, which answers as they do, whole and as events.

It keeps connections, and it holds to what Anthropic documents of thinking with a budget: a turn that has called tools goes back
with the thinking that it began with, unchanged, or without thinking.
"""

from __future__ import annotations

import gc
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio.lowlevel
import uvicorn
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dcaf.tools.event_loop import wait_for

Body = dict[str, Any]
SIGNED = "signed: "
CLAUDE = "claude-haiku-4-5"
"""A model that thinks with a budget."""


@dataclass(frozen=True)
class Said:
    """What a model says: in this order, and why it ended."""

    text: str = ""
    call: tuple[str, str] | None = None  # name, and the arguments as they were written so far
    finish: str = ""  # length, content_filter, refusal; else as it comes
    refusal: str = ""
    more: str = ""  # a second text, after some thinking

    @property
    def end(self) -> str:
        return self.finish or ("tool" if self.call else "stop")


Reply = Callable[[Body], "Said | int"]
"""What is said to a request; a number is the status of an error."""


@dataclass
class Provider:
    """The services, and what came to them."""

    reply: Reply
    url: str = ""
    bodies: list[Body] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    calls: int = 0
    made: list[Any] = field(default_factory=list)

    def app(self) -> Starlette:
        paths = {"/v1/chat/completions": _chat, "/v1/responses": _responses, "/v1/messages": _messages}
        return Starlette(routes=[Route(path, self._answering(shape), methods=["POST"]) for path, shape in paths.items()])

    def models(self) -> dict[str, Callable[..., Model]]:
        return {"openai-chat": self.chat, "openai-responses": self.responses, "anthropic": self.claude}

    def chat(self, **client: Any) -> Model:
        return self._kept(OpenAIChatModel("gpt-4o", provider=self._openai(client)))

    def responses(self, **client: Any) -> Model:
        return self._kept(OpenAIResponsesModel("gpt-4o", provider=self._openai(client)))

    def claude(self, **client: Any) -> Model:
        return self._kept(AnthropicModel(CLAUDE, provider=AnthropicProvider(base_url=self.url, api_key="k", **client)))

    def _openai(self, client: dict[str, Any]) -> OpenAIProvider:
        return OpenAIProvider(base_url=f"{self.url}/v1", api_key="k", **client)

    def _kept(self, model: Model) -> Model:
        self.made.append(model)
        return model

    def close(self) -> None:
        """Close what the clients keep open, as far as its loop is there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            for model in self.made:
                with suppress(RuntimeError):
                    wait_for(model.client.close)
            self.made.clear()
            gc.collect()

    def _answering(self, shape: Callable[[Body, Said, str], tuple[Body, list[Body]]]) -> Any:
        async def answer(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            assert request.client is not None
            self.connections.add((request.client.host, request.client.port))
            wrong = _missing_thinking(body) if shape is _messages else None
            said = self.reply(body)
            if wrong is not None:
                self.refused.append(wrong)
                return _error(400, wrong)
            if isinstance(said, int):
                return _error(said, "the key of mira is s3cret")
            self.calls += 1
            whole, events = shape(body, said, f"{self.calls}")
            if not body.get("stream"):
                return JSONResponse(whole)
            return StreamingResponse(_sse(events, shape), media_type="text/event-stream")

        return answer


def _error(status: int, message: str) -> Response:
    return JSONResponse({"type": "error", "error": {"type": "invalid_request_error", "message": message}}, status)


async def _sse(events: list[Body], shape: Any) -> Any:
    for event in events:
        named = f"event: {event['type']}\n" if "type" in event else ""
        yield f"{named}data: {json.dumps(event)}\n\n"
        await anyio.lowlevel.checkpoint()
    if shape is _chat:
        yield "data: [DONE]\n\n"


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def _chat(body: Body, said: Said, id_: str) -> tuple[Body, list[Body]]:
    end = {"tool": "tool_calls", "refusal": "stop"}.get(said.end, said.end)
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    calls: list[Body] = []
    if said.call is not None:
        name, arguments = said.call
        calls = [{"id": f"call-{id_}", "type": "function", "function": {"name": name, "arguments": arguments}}]
    message: Body = {"role": "assistant", "content": said.text or None, "refusal": said.refusal or None}
    message |= {"tool_calls": calls} if calls else {}
    common = {"id": f"chat-{id_}", "created": 1, "model": body["model"]}
    whole = common | {"object": "chat.completion", "usage": usage}
    whole["choices"] = [{"index": 0, "finish_reason": end, "logprobs": None, "message": message}]
    deltas: list[Body] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _halves(said.text)]
    deltas += [{"refusal": piece} for piece in _halves(said.refusal)]
    for call in calls:
        deltas.append({"tool_calls": [{**call, "index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}]})
        written = call["function"]["arguments"]
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _halves(written)]
    chunk = common | {"object": "chat.completion.chunk"}
    events = [chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append(chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
    return whole, [*events, chunk | {"choices": [], "usage": usage}]


def _responses(body: Body, said: Said, id_: str) -> tuple[Body, list[Body]]:
    output: list[Body] = []
    if said.text or said.refusal:
        content: Body = {"type": "output_text", "text": said.text, "annotations": []}
        if said.refusal:
            content = {"type": "refusal", "refusal": said.refusal}
        output.append({"type": "message", "id": f"m{id_}", "role": "assistant", "status": "completed", "content": [content]})
    if said.call is not None:
        name, arguments = said.call
        call = {"type": "function_call", "id": f"f{id_}", "call_id": f"call-{id_}", "name": name, "arguments": arguments}
        output.append(call | {"status": "completed"})
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(said.end)
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    whole: Body = {"id": f"resp-{id_}", "object": "response", "created_at": 1, "model": body["model"], "output": output}
    whole |= {"status": "incomplete" if reason else "completed", "incomplete_details": {"reason": reason} if reason else None}
    whole |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "usage": usage, "error": None}
    events: list[Body] = [{"type": "response.created", "response": whole | {"output": [], "status": "in_progress"}}]
    for at, item in enumerate(output):
        events += _item_events(at, item)
    events.append({"type": "response.incomplete" if reason else "response.completed", "response": whole})
    return whole, [event | {"sequence_number": at} for at, event in enumerate(events)]


def _item_events(at: int, item: Body) -> list[Body]:
    where = {"output_index": at, "item_id": item["id"]}
    if item["type"] == "function_call":
        empty = item | {"arguments": "", "status": "in_progress"}
        deltas = [
            {"type": "response.function_call_arguments.delta", "delta": piece, **where} for piece in _halves(item["arguments"])
        ]
    else:
        empty = item | {"content": [], "status": "in_progress"}
        part = item["content"][0]
        kind = part["type"].removeprefix("output_")
        name = "output_text" if kind == "text" else "refusal"
        deltas = [
            {"type": f"response.{name}.delta", "delta": piece, "content_index": 0, "logprobs": [], **where}
            for piece in _halves(part[kind])
        ]
    added = {"type": "response.output_item.added", "output_index": at, "item": empty}
    return [added, *deltas, {"type": "response.output_item.done", "output_index": at, "item": item}]


def _messages(body: Body, said: Said, id_: str) -> tuple[Body, list[Body]]:
    thinks = (body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}
    begins = not any(block["type"] == "tool_result" for block in _blocks(body["messages"][-1]))
    blocks: list[Body] = []
    if thinks and (begins or said.more):
        blocks.append({"type": "thinking", "thinking": f"thought {id_}", "signature": f"{SIGNED}thought {id_}"})
    blocks += [{"type": "text", "text": said.text}] if said.text else []
    if said.more:
        blocks += [{"type": "thinking", "thinking": f"more {id_}", "signature": f"{SIGNED}more {id_}"}]
        blocks += [{"type": "text", "text": said.more}]
    if said.call is not None:
        name, arguments = said.call
        blocks.append({"type": "tool_use", "id": f"toolu_{id_}", "name": name, "input": _whole(arguments)})
    end = {"stop": "end_turn", "tool": "tool_use", "length": "max_tokens", "content_filter": "refusal"}.get(said.end, said.end)
    usage = {"input_tokens": 3, "output_tokens": 2}
    whole: Body = {"id": f"msg_{id_}", "type": "message", "role": "assistant", "model": body["model"], "content": blocks}
    whole |= {"stop_reason": end, "stop_sequence": None, "usage": usage}
    events: list[Body] = [{"type": "message_start", "message": whole | {"content": [], "stop_reason": None}}]
    for at, block in enumerate(blocks):
        events += _block_events(at, block, said)
    events.append({"type": "message_delta", "delta": {"stop_reason": end, "stop_sequence": None}, "usage": {"output_tokens": 2}})
    return whole, [*events, {"type": "message_stop"}]


def _block_events(at: int, block: Body, said: Said) -> list[Body]:
    match block["type"]:
        case "thinking":
            empty = block | {"thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _halves(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            empty = block | {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _halves(block["text"])]
        case _:
            assert said.call is not None
            empty = block | {"input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _halves(said.call[1])]
    start = {"type": "content_block_start", "index": at, "content_block": empty}
    told = [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
    return [start, *told, {"type": "content_block_stop", "index": at}]


def _whole(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def _blocks(message: Body) -> list[Body]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _missing_thinking(body: Body) -> str | None:
    """What is wrong with a request while thinking has a budget: the turn that called tools begins without its thinking."""
    for message in body["messages"]:
        for block in _blocks(message):
            if block["type"] == "thinking" and block["signature"] != SIGNED + block["thinking"]:
                return "Invalid `signature` in `thinking` block"
    if (body.get("thinking") or {}).get("type") != "enabled":
        return None
    turn: list[Body] = []
    for message in reversed(body["messages"]):
        if message["role"] == "user" and not any(block["type"] == "tool_result" for block in _blocks(message)):
            break
        if message["role"] == "assistant":
            turn = _blocks(message)
            if not any(block["type"] == "tool_use" for block in turn):
                break
    has_called = any(block["type"] == "tool_use" for block in turn)
    if has_called and turn[0]["type"] not in {"thinking", "redacted_thinking"}:
        return (
            f"Expected `thinking` or `redacted_thinking`, but found `{turn[0]['type']}`. When `thinking` is enabled, a final "
            "`assistant` message must start with a thinking block"
        )
    return None


@contextmanager
def provider(reply: Reply) -> Iterator[Provider]:
    """The services, under uvicorn, as long as the block lasts."""
    found = Provider(reply)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(found.app(), log_level="critical", lifespan="off", timeout_keep_alive=60, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    found.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield found
    finally:
        found.close()
        server.should_exit = True
        thread.join()
        listener.close()
