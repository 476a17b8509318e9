"""The session under FastAPI, by its dependency, by the context and by `request.session`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, assert_type

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from starlette.testclient import TestClient

from dcaf import ConfigurationError, Keyring, Session, SessionMiddleware, current_session
from dcaf.core import NotCarriedError
from dcaf.integrations.fastapi import REFUSALS, SessionData, SessionDep
from dcaf.testing import SessionClient, sealed, tampered


def client_of(api: FastAPI, path: str) -> SessionClient:
    return SessionClient(SessionMiddleware(api, keys=Keyring.ephemeral(), audience="shop"), path=path)


def test_the_dependency_gives_the_session_to_async_and_sync_endpoints() -> None:
    api = FastAPI()

    @api.post("/async")
    async def one(session: SessionDep) -> dict[str, int]:
        return {"n": session.incr("n")}

    @api.post("/sync")
    def two(session: SessionDep) -> dict[str, int]:
        return {"n": session.incr("n")}

    for path in ("/async", "/sync"):
        client = client_of(api, path)
        assert [client.send("x").body["n"] for _ in range(3)] == [1, 2, 3]


def test_the_session_is_current_in_endpoints_threads_and_tasks_and_is_request_session() -> None:
    api = FastAPI()

    @api.post("/all")
    async def everywhere(request: Request, session: SessionDep) -> dict[str, Any]:
        async def in_a_task() -> Session:
            return current_session()

        found = [
            request.session,
            current_session(),
            await asyncio.to_thread(current_session),
            await asyncio.create_task(in_a_task()),
        ]
        return {"same": all(item is session for item in found)}

    assert client_of(api, "/all").send("x").body["same"] is True


def test_outside_a_turn_there_is_no_current_session() -> None:
    with pytest.raises(ConfigurationError, match="called outside a turn"):
        current_session()


def test_a_session_as_a_bare_parameter_is_refused_with_what_to_write() -> None:
    api = FastAPI()
    with pytest.raises(ConfigurationError) as caught:

        @api.post("/bare")
        async def bare(session: Session) -> None: ...

    assert "session: SessionDep" in str(caught.value)
    assert "never read from a request body" in str(caught.value)


class Deploy(Session):
    step: int = 1


async def optional(session: Session | None = None) -> None: ...
async def from_the_body(session: Annotated[Session, Body()]) -> None: ...
async def subclass(session: Deploy) -> None: ...
async def several(sessions: list[Session]) -> None: ...
async def answered() -> Session: ...  # type: ignore[empty-body]
def in_a_dependency(session: Session) -> None: ...
async def dependent(found: Annotated[None, Depends(in_a_dependency)]) -> None: ...


@pytest.mark.parametrize("endpoint", [optional, from_the_body, subclass, several, answered, dependent])
def test_no_disguise_of_a_bare_session_is_registered(endpoint: Callable[..., Any]) -> None:
    name = "Deploy" if endpoint is subclass else "Session"
    with pytest.raises(ConfigurationError) as caught:
        FastAPI().post("/x")(endpoint)
    assert str(caught.value) == (
        f"A {name} is never read from a request body or from a model's arguments, where the client would write it. Under FastAPI "
        "declare `session: SessionDep` (from dcaf.integrations.fastapi); in a tool use dcaf's @tool; anywhere else call "
        f"dcaf.current_session({'' if name == 'Session' else name})."
    )


def test_control_the_dependency_is_registered_and_is_no_parameter_of_the_request() -> None:
    api = FastAPI()

    @api.post("/dep")
    async def endpoint(session: SessionDep) -> dict[str, Any]:
        return session.to_dict()

    operation = api.openapi()["paths"]["/dep"]["post"]
    assert "requestBody" not in operation
    assert "parameters" not in operation


def test_a_typed_session_comes_by_the_context() -> None:
    api = FastAPI()

    @api.post("/typed")
    def endpoint() -> dict[str, int]:
        deploy = current_session(Deploy)
        deploy.step += 1
        return {"step": deploy.step}

    client = client_of(api, "/typed")
    assert [client.send("x").body["step"] for _ in range(3)] == [2, 3, 4]


def test_a_sync_endpoint_runs_in_the_thread_pool_and_its_session_is_the_current_one_there() -> None:
    api = FastAPI()
    main = threading.get_ident()

    @api.post("/sync")
    def endpoint(request: Request, session: SessionDep) -> dict[str, bool]:
        current_session().set("from", "the pool")
        return {
            "same": all(item is session for item in (request.session, current_session())),
            "elsewhere": threading.get_ident() != main,
        }

    client = client_of(api, "/sync")
    assert {"same": True, "elsewhere": True}.items() <= client.send("x").body.items()
    assert client.send("x").session == {"from": "the pool"}


def counted(session: SessionDep) -> int:
    return session.incr("n")


def test_the_session_reaches_dependencies_of_dependencies_and_routers() -> None:
    router = APIRouter(prefix="/v1")

    @router.post("/count")
    def endpoint(n: Annotated[int, Depends(counted)], session: SessionDep) -> dict[str, bool]:
        return {"agree": session["n"] == n}

    api = FastAPI()
    api.include_router(router)
    client = client_of(api, "/v1/count")
    assert [client.send("x").body["agree"] for _ in range(2)] == [True, True]
    assert client.send("x").session == {"n": 3}


def test_the_application_finds_the_verified_state_in_the_body_and_never_the_mirror() -> None:
    api = FastAPI()

    @api.post("/body")
    async def endpoint(request: Request, session: SessionDep) -> dict[str, Any]:
        session.set("role", "guest")
        return {"seen": (await request.json())["data"].get("session")}

    client = client_of(api, "/body")
    client.send("x")
    assert client.envelope is not None
    client.envelope = client.envelope | {"role": "admin", "planted": True}
    assert client.send("x").body["seen"] == {"role": "guest"}


@pytest.mark.parametrize(("status", "kept"), [(401, {"tried": 1}), (500, {})])
def test_a_refusal_of_the_endpoint_keeps_its_changes_and_a_server_error_drops_them(status: int, kept: dict[str, int]) -> None:
    api = FastAPI()

    @api.post("/raise")
    async def endpoint(session: SessionDep) -> None:
        session.incr("tried")
        raise HTTPException(status, "no")

    reply = client_of(api, "/raise").send("x")
    assert (reply.status, reply.session) == (status, kept)


async def a_stream(session: SessionDep) -> StreamingResponse:
    session.set("n", 1)
    return StreamingResponse(iter([b"x"]))


async def a_list(session: SessionDep) -> list[int]:
    session.set("n", 1)
    return [1]


@pytest.mark.parametrize(("endpoint", "found"), [(a_stream, "has no Content-Type"), (a_list, "is a JSON array")])
def test_a_change_on_an_answer_that_cannot_carry_it_is_an_error_that_names_the_route(
    endpoint: Callable[..., Any], found: str
) -> None:
    api = FastAPI()
    api.post("/things/{thing}")(endpoint)
    with pytest.raises(NotCarriedError, match=rf"^POST /things/\{{thing\}} changed the session, and its answer {found}\. "):
        client_of(api, "/things/7").send("x")


def test_control_the_same_answer_passes_when_nothing_was_changed() -> None:
    api = FastAPI()

    @api.post("/list")
    async def endpoint(session: SessionDep) -> list[int]:
        return [len(session)]

    assert client_of(api, "/list").send("x").body == [0]


def test_a_change_in_a_background_task_is_lost_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    api = FastAPI()

    @api.post("/late")
    async def endpoint(session: SessionDep, tasks: BackgroundTasks) -> dict[str, Any]:
        session.set("n", 1)
        tasks.add_task(session.set, "late", 1)
        return {}

    client = client_of(api, "/late")
    assert client.send("x").session == {"n": 1}
    assert [record for record in caplog.records if "/late" in record.getMessage() and "lost" in record.getMessage()]


def test_no_session_is_ever_built_from_a_body() -> None:
    """Control of the refusal above: FastAPI does build a mapping that any other class describes."""
    api = FastAPI()

    @api.post("/mapping")
    async def mapping(session: dict[str, Any]) -> dict[str, Any]:
        return session

    assert client_of(api, "/mapping").post({"approved": True}).body["approved"] is True


class Wizard(Session):
    step: int = 1
    names: list[str] = []


def stepped(wizard: SessionDep[Wizard]) -> int:
    wizard.step += 1
    return wizard.step


def test_a_typed_session_is_a_dependency_under_its_name_and_shares_the_state() -> None:
    api = FastAPI()

    @api.post("/typed")
    async def endpoint(
        wizard: SessionDep[Wizard], other: SessionDep[Deploy], session: SessionDep, step: Annotated[int, Depends(stepped)]
    ) -> dict[str, Any]:
        assert_type(wizard, Wizard)
        assert_type(other, Deploy)
        assert_type(session, Session)
        wizard.names.append("api")
        return {"types": [type(one).__name__ for one in (wizard, other, session)], "steps": [step, wizard.step, other.step]}

    client = client_of(api, "/typed")
    assert client.send("x").body.items() >= {"types": ["Wizard", "Deploy", "Session"], "steps": [2, 2, 2]}.items()
    assert client.send("x").session == {"step": 3, "names": ["api", "api"]}
    operation = api.openapi()["paths"]["/typed"]["post"]
    assert not operation.keys() & {"requestBody", "parameters"}


def test_a_typed_session_comes_to_routers_sync_endpoints_and_under_postponed_annotations() -> None:
    """This module postpones its annotations, so FastAPI evaluates `SessionDep[Wizard]` from its text."""
    router = APIRouter()

    @router.post("/sync")
    def endpoint(wizard: SessionDep[Wizard]) -> dict[str, int]:
        wizard.step += 1
        return {"step": wizard.step}

    api = FastAPI()
    api.include_router(router, prefix="/v1")
    client = client_of(api, "/v1/sync")
    assert [client.send("x").body["step"] for _ in range(2)] == [2, 3]


def test_the_same_typed_session_is_asked_for_once_a_request() -> None:
    dep: Any = SessionDep
    assert dep[Wizard] == dep[Wizard]
    assert dep[Wizard] != dep[Deploy]
    assert dep[Session] == dep


@pytest.mark.parametrize("wrong", [int, dict[str, int], "Wizard", None])
def test_brackets_around_anything_but_a_session_are_refused_with_what_to_write(wrong: Any) -> None:
    dep: Any = SessionDep
    with pytest.raises(ConfigurationError, match="with a subclass of Session"):
        dep[wrong]


class Ask(BaseModel):
    text: str
    data: SessionData | None = None


class Told(SessionData):
    links: list[str] = []


class Answer(BaseModel):
    content: str
    data: Told | None = None


def asking() -> FastAPI:
    api = FastAPI(responses=REFUSALS)

    @api.post("/ask")
    async def endpoint(ask: Ask, session: SessionDep) -> Answer:
        session.append("asked", ask.text)
        seen = None if ask.data is None else ask.data.session
        return Answer(content=f"{seen}", data=Told(links=["/x"]))

    return api


def test_a_model_shows_the_session_in_openapi_as_it_is_on_the_wire() -> None:
    document = asking().openapi()
    schemas = document["components"]["schemas"]
    for name in ("SessionData", "Told"):
        envelope, null = schemas[name]["properties"]["session"]["anyOf"]
        assert null == {"type": "null"}
        assert (envelope["required"], envelope["properties"]["dcaf"]["required"]) == (["dcaf"], ["token"])
        assert envelope["additionalProperties"] is True, "the mirror"
    assert schemas["Ask"]["properties"]["data"]["anyOf"][0] == {"$ref": "#/components/schemas/SessionData"}
    assert schemas["Ask"]["required"] == ["text"]
    answers = document["paths"]["/ask"]["post"]["responses"]
    assert {"200", "400", "409", "413", "415", "422", "503"} == answers.keys()
    assert answers["409"]["content"].keys() == {"application/problem+json"}


class Plain(BaseModel):
    text: str


def test_control_a_body_model_without_data_shows_no_session() -> None:
    """What FastAPI shows by itself: the model, and nothing of what the middleware takes out and puts in."""
    api = FastAPI()

    @api.post("/plain")
    async def endpoint(plain: Plain, session: SessionDep) -> dict[str, str]:
        return {"content": plain.text}

    assert "session" not in str(api.openapi())


def test_the_model_reads_the_verified_state_and_is_never_checked_against_the_schema() -> None:
    client = client_of(asking(), "/ask")
    assert client.post({"text": "a"}).body["content"] == "None"
    reply = client.post({"text": "b", "data": {"session": client.envelope, "more": 1}})
    assert reply.body["content"] == "{'asked': ['a']}"
    assert (reply.session, reply.body["data"]["links"]) == ({"asked": ["a", "b"]}, ["/x"])
    assert client.post({"text": "c", "data": {"session": None}}).status == 200
    assert client.post({"text": "d", "data": {"session": tampered(client.envelope or {})}}).code == "session-invalid"


@pytest.mark.parametrize("model", [SessionData(), Told(links=[])])
def test_a_model_without_a_session_writes_none_so_that_an_answer_without_one_has_none(model: SessionData) -> None:
    assert "session" not in model.model_dump_json()
    assert "session" in SessionData(session={"step": 1}).model_dump_json()


def test_a_session_is_in_no_repr_of_the_model() -> None:
    assert "secret" not in repr(SessionData(session={"key": "secret"}))


def test_the_middleware_is_mounted_by_add_middleware_too() -> None:
    api = asking()
    api.add_middleware(SessionMiddleware, keys=Keyring.ephemeral(), audience="shop")
    client = SessionClient(api, path="/ask")
    assert client.post({"text": "a"}).session == {"asked": ["a"]}


class Said(BaseModel):
    type: str
    n: int


def test_the_streams_that_fastapi_makes_of_generators_carry_the_session() -> None:
    api = FastAPI()

    @api.post("/lines")
    async def lines(session: SessionDep) -> AsyncIterator[Said]:
        yield Said(type="text", n=session.incr("n"))
        yield Said(type="done", n=session.incr("n"))

    @api.post("/events", response_class=EventSourceResponse)
    async def events(session: SessionDep) -> AsyncIterator[Said]:
        yield Said(type="text", n=session.incr("n"))
        yield Said(type="done", n=session.incr("n"))

    for path, kind in (("/lines", "application/jsonl"), ("/events", "text/event-stream")):
        client = client_of(api, path)
        reply = client.send("x")
        assert reply.headers["content-type"].startswith(kind)
        assert reply.session == {"n": 2}
        assert client.send("x").session == {"n": 4}


def test_a_typed_session_that_a_websocket_took_before_its_first_frame_is_that_of_every_frame() -> None:
    api = FastAPI()

    @api.websocket("/ws")
    async def endpoint(socket: WebSocket, wizard: SessionDep[Wizard]) -> None:
        await socket.accept()
        async for _ in socket.iter_json():
            wizard.step += 1
            await socket.send_json({"type": "done", "step": wizard.step})

    keys = Keyring.ephemeral()
    app = SessionMiddleware(api, keys=keys, audience="shop")
    with TestClient(app).websocket_connect("/ws") as socket:
        socket.send_json({"data": {"session": sealed({"step": 7}, keys=keys, audience="shop")}})
        assert socket.receive_json()["step"] == 8
        socket.send_json({})
        assert socket.receive_json()["data"]["session"]["step"] == 9


class Counted(Session):
    n: int = 0


def inside_a_default(session: Session = Depends(SessionDep)) -> None: ...
def inside_an_annotation(session: Annotated[Session, Depends(SessionDep)]) -> None: ...
def inside_and_typed(session: Annotated[Counted, Depends(SessionDep[Counted])]) -> None: ...


@pytest.mark.parametrize("endpoint", [inside_a_default, inside_an_annotation, inside_and_typed])
def test_the_dependency_inside_depends_is_an_error_when_the_route_is_made(endpoint: Callable[..., None]) -> None:
    with pytest.raises(ConfigurationError, match=r"SessionDep is the whole annotation.* Do not put it into Depends\(\.\.\.\)"):
        FastAPI().post("/x")(endpoint)
