"""The types of ``examples/protocol.ts`` are those of the wire: what real services answer fits them, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_ai.models.function import FunctionModel
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dcaf import Keyring, Session, SessionMiddleware, current_session
from dcaf.agent import Agent, InterceptorError, create_app
from dcaf.agent.openapi import build_openapi
from dcaf.asgi import checkpoint
from dcaf.demo import create_agent, create_demo
from tests.clients import typescript
from tests.clients.typescript import ROOT, compiled

PROTOCOL: Final = ROOT / "examples" / "protocol.ts"
GUIDE: Final = ROOT / "docs" / "guides" / "clients.md"
KEYS: Final = Keyring.ephemeral()
KINDS: Final = ("Turn", "Answer", "AgentEvent", "Problem")


class Recorder:
    """What was sent and what came, by the type that it should have."""

    def __init__(self) -> None:
        self.found: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    def json(self, client: TestClient, message: Any, session: Any = None) -> dict[str, Any]:
        """A turn in one piece."""
        response = client.post("/api/chat", json=self._turn(message, session))
        answer: dict[str, Any] = response.json()
        self.found["Answer" if response.is_success else "Problem"].append(answer)
        return answer

    def stream(self, client: TestClient, message: Any, session: Any = None) -> None:
        """A turn as a stream."""
        lines = client.post("/api/chat-stream", json=self._turn(message, session)).text.splitlines()
        self.found["AgentEvent"] += [json.loads(line) for line in lines]

    def frames(self, client: TestClient, *texts: str) -> None:
        """What a socket says until its turn is over."""
        with client.websocket_connect("/api/chat-ws") as socket:
            for text in texts:
                socket.send_text(text)
            while (frame := socket.receive_json())["type"] not in {"done", "error"}:
                self.found["AgentEvent"].append(frame)
            self.found["AgentEvent"].append(frame)

    def _turn(self, message: Any, session: Any) -> dict[str, Any]:
        turn = {"messages": [message], "data": {"session": session}, "thread_id": "th-1"}
        self.found["Turn"].append(turn)
        return turn


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text, "platform_context": {"user_id": "mira"}}


def wizard(record: Recorder) -> None:
    """The demo from its start to its end, on both wires, and what it refuses."""
    client = TestClient(create_demo(KEYS))
    session = None
    for text in ("start", "service api", "3 replicas", "execute"):
        record.stream(client, said(text), session)
        answer = record.json(client, said(text), session)
        session = answer["data"]["session"]
    approvals = [{**item, "execute": True} for item in answer["data"]["approvals"]]
    decided = {"role": "user", "data": {"approvals": approvals}}
    record.stream(client, decided, session)
    record.json(client, decided, session)
    record.json(client, said("hi"), {"dcaf": {"token": "no token"}})
    record.json(client, {"role": "user"})
    record.frames(client, json.dumps({"messages": [said("hi")], "data": {"session": {"dcaf": {"token": "no token"}}}}))


def failures(record: Recorder) -> None:
    """A model that breaks in the middle, an interceptor that ends the turn, and a socket on which somebody says stop."""

    async def breaks(_messages: Any, _info: Any) -> Any:
        yield "Well, "
        raise ConnectionError

    def block(_request: Any) -> None:
        raise InterceptorError("Not today.")

    async def slow(_messages: Any, _context: Any, _session: Session) -> None:
        await asyncio.sleep(60)

    model = FunctionModel(stream_function=breaks)
    record.stream(TestClient(create_app(Agent(model), keys=KEYS, audience="a")), said("hi"))
    record.json(TestClient(create_app(Agent(model, request_interceptors=block), keys=KEYS, audience="a")), said("hi"))
    turn = json.dumps({"messages": [said("hi")]})
    record.frames(TestClient(create_app(slow, keys=KEYS, audience="a")), turn, "stop")


def checkpoints(record: Recorder) -> None:
    """A session in the middle of a stream, and a stream that the middleware ends, because its application broke."""

    async def deploy(_: Any) -> StreamingResponse:
        async def events() -> Any:
            current_session()["begun"] = True
            await checkpoint()
            yield '{"type": "text_delta", "text": "still going"}\n'
            raise ConnectionError

        return StreamingResponse(events(), media_type="application/x-ndjson")

    routes = [Route("/api/chat-stream", deploy, methods=["POST"])]
    app = SessionMiddleware(Starlette(routes=routes), keys=KEYS, audience="a")
    record.stream(TestClient(app, raise_server_exceptions=False), said("hi"))


@pytest.fixture(scope="module")
def record() -> Recorder:
    """Every kind of answer and event, from real services."""
    record = Recorder()
    wizard(record)
    failures(record)
    checkpoints(record)
    return record


def satisfying(values: list[tuple[str, Any]]) -> str:
    """A program that is right if every value has its type; each stands on a line of its own, from the second on."""
    lines = [f"export const v{number} = {json.dumps(value)} satisfies {kind};" for number, (kind, value) in enumerate(values)]
    return "\n".join([f'import type {{ {", ".join(KINDS)} }} from "./protocol";', *lines])


def event_types() -> set[str]:
    """The types of events that the file has."""
    union = PROTOCOL.read_text().partition("export type AgentEvent =")[2].partition(";\n\n")[0]
    return set(re.findall(r'\{ type: "(\w+)"', union))


def mistakes(record: Recorder) -> Iterator[tuple[str, Any]]:
    """Real values with one mistake each."""
    answer, done = record.found["Answer"][0], record.found["AgentEvent"][-1]
    yield "Answer", {**answer, "role": "system"}
    yield "Answer", {**answer, "contents": "?"}
    yield "Answer", {**answer, "data": {**answer["data"], "session": {"wizard_step": 1}}}
    yield "Answer", {**answer, "data": {**answer["data"], "approvals": [{"id": "c1"}]}}
    yield "AgentEvent", {**done, "type": "finished"}
    yield "AgentEvent", {"type": "text_delta", "content": "Hello."}
    yield "Problem", {**record.found["Problem"][0], "status": "400"}
    yield "Turn", {"message": "Hello."}
    yield "Turn", {"messages": [said("hi")], "data": {"session": {"service": "api"}}}


SAME: Final = """
type Named<T> = keyof { [K in keyof T as string extends K ? never : number extends K ? never : K]: T[K] };
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : [A, "is more than", B]) : [A, "lacks some of", B];
type EventOf<T extends string> = Extract<AgentEvent, { type: T }>;
"""
ALIKE: Final = ("Answer", "Approval", "Data", "ExecutedApproval", "ExecutedToolCall", "Message", "MetaData", "PendingToolCall")
OF_THE_MIDDLEWARE: Final = {"error": {"data", "applied", "ran"}}
"""Members that the middleware adds, by the type of an event."""


def names(members: set[str]) -> str:
    return " | ".join(json.dumps(name) for name in sorted(members))


def agreement(schemas: dict[str, Any]) -> str:
    """A program that is right if the types have the members that a service's OpenAPI document has."""
    kinds = [*ALIKE, "Session", "Turn", "Problem"]
    pairs = [(kind, set(schemas[kind]["properties"])) for kind in kinds]
    pairs += [(f'EventOf<"{type_}">', members | OF_THE_MIDDLEWARE.get(type_, set())) for type_, members in events_in(schemas)]
    lines = [f"true satisfies Same<Named<{kind}>, {names(members)}>;" for kind, members in pairs]
    return "\n".join([f'import type {{ AgentEvent, {", ".join(kinds)} }} from "./protocol";', SAME, *lines])


def events_in(schemas: dict[str, Any]) -> list[tuple[str, set[str]]]:
    """The type and the members of each event of the document."""
    found = [schemas[each["$ref"].rpartition("/")[2]]["properties"] for each in schemas["Event"]["anyOf"]]
    return [(members["type"]["const"], set(members)) for members in found]


def altered(schemas: dict[str, Any]) -> dict[str, Any]:
    """The document with two members more, and one less."""
    schemas["Approval"]["properties"]["more"] = schemas["Done"]["properties"]["more"] = {}
    del schemas["MetaData"]["properties"]["blocked"]
    return schemas


def schemas() -> dict[str, Any]:
    """Of a service's OpenAPI document."""
    found: dict[str, Any] = build_openapi(create_agent())["components"]["schemas"]
    return found


@pytest.fixture(scope="module")
def errors(node: str, record: Recorder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """The lines in which the compiler finds errors, of all the programs here in one run: to start it is what takes time."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "protocol.ts").write_text(PROTOCOL.read_text())
    programs = {
        "real": satisfying([(kind, value) for kind in KINDS for value in record.found[kind]]),
        "wrong": satisfying(list(mistakes(record))),
        "alike": agreement(schemas()),
        "altered": agreement(altered(schemas())),
    }
    for name, text in programs.items():
        (folder / f"{name}.ts").write_text(text)
    told = re.findall(r"(\w+)\.ts\((\d+),", compiled(node, *(folder / f"{name}.ts" for name in programs)))
    return {name: [int(line) for found, line in told if found == name] for name in programs}


def test_what_real_services_send_and_take_has_these_types(errors: dict[str, list[int]], record: Recorder) -> None:
    assert {event["type"] for event in record.found["AgentEvent"]} == event_types()
    assert {problem["code"] for problem in record.found["Problem"]} == {"session-invalid", "malformed-request"}
    assert errors["real"] == []


def test_control_a_value_with_one_mistake_is_refused(errors: dict[str, list[int]], record: Recorder) -> None:
    assert errors["wrong"] == list(range(2, len(list(mistakes(record))) + 2))


def test_the_types_have_the_members_of_the_openapi_document(errors: dict[str, list[int]]) -> None:
    known = {type_ for type_, _ in events_in(schemas())}
    assert known == event_types() - {"session"}, "which the middleware sends"
    assert errors["alike"] == []


def test_control_a_member_that_only_one_of_them_has_is_found(errors: dict[str, list[int]]) -> None:
    assert len(errors["altered"]) == 3


def test_the_guide_shows_the_file() -> None:
    assert f"```ts\n{PROTOCOL.read_text()}```" in GUIDE.read_text()


def test_the_commands_of_the_guide_compile_its_program_outside_the_project(node: str, tmp_path: Path) -> None:
    """But for npm's: the types of Node.js are the few that the tests have."""
    (line,) = re.findall(r"^npx tsc (.*) --types node (.*)$", GUIDE.read_text(), re.MULTILINE)
    (program,) = re.findall(r"^This is `chat.ts`:\n\n```ts\n(.*?)```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    for name in ("client.mjs", "protocol.ts"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    (tmp_path / "chat.ts").write_text(program)
    command = [node, str(typescript._compiler()), *" ".join(line).split(), str(typescript.AMBIENT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted(path.name for path in (tmp_path / "built").rglob("*.*js")) == ["chat.js", "client.mjs", "protocol.js"]
    (tmp_path / "chat.ts").write_text(program.replace("event.text;", "event.words;"))
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60).returncode != 0


@pytest.mark.parametrize(
    ("required", "outcome"), [(frozenset(), pytest.skip.Exception), (frozenset({"node"}), pytest.fail.Exception)]
)
def test_a_missing_compiler_skips_and_fails_where_node_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, node: str, required: frozenset[str], outcome: type[BaseException]
) -> None:
    monkeypatch.setattr(typescript, "COMPILER", tmp_path / "nowhere")
    monkeypatch.setattr(typescript, "REQUIRED", required)
    with pytest.raises(outcome, match="not installed: run `make check`"):
        compiled(node, tmp_path / "a.ts")
