"""What is given to the agent's public entries by mistake ends in an error of dcaf that names the argument."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

import pytest

from dcaf import DcafError, Keyring, Session, tool
from dcaf.agent import Agent, AgentResponse, AgentResult, Data, InterceptorError, Message, ProposedCall, create_app, serve
from dcaf.core import StatelessStore


@tool(requires_approval=True)
def drop(volume: str) -> str:
    """Drop a volume."""
    return volume


def deep(levels: int = 5000) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


AGENT = Agent(lambda: "ok")
ASKED = Agent(lambda: AgentResult("?", approvals=[ProposedCall(drop, {"volume": "pg"}, "c1")]), tools=[drop]).run("go")
SETTINGS: Any = {"keys": Keyring.ephemeral(), "audience": "shop"}

WRONG: dict[str, Any] = {
    "None": None,
    "True": True,
    "0": 0,
    "a number": 7,
    "a fraction": 3.5,
    "nan": float("nan"),
    "a huge number": 10**400,
    "an empty text": "",
    "a text": "text",
    "half a surrogate": "\ud800",
    "bytes": b"bytes",
    "an empty list": [],
    "a list of numbers": [1],
    "a list of None": [None],
    "a list of texts": ["a"],
    "a list of lists": [[]],
    "a tuple": (),
    "an empty dict": {},
    "a dict": {"a": 1},
    "a dict of numbers": {1: 2},
    "a dict of objects": {"a": object()},
    "an object": object(),
    "a class": object,
    "Session": Session,
    "a session": Session(),
    "Agent": Agent,
    "an agent": AGENT,
    "a response": ASKED,
    "a tool": drop,
    "a function": lambda: 1,
    "a set": {1},
    "a time": dt.timedelta(1),
    "something deep": deep(),
    "a message": Message(role="user", content="x"),
    "Message": Message,
    "data": Data(),
    "an error": ValueError("x"),
    "a module": logging,
    "Any": Any,
    "an iterator": iter([1]),
}


def with_message(value: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.messages = value

    return change


def with_members(value: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.messages = [value]

    return change


def with_text(value: Any) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response.text = value

    return change


def with_session(value: Any) -> Callable[[Any], None]:
    def change(seen: Any) -> None:
        seen.session = value

    return change


def refuses(**members: Any) -> Callable[[Any], None]:
    def refuse(request: Any) -> None:
        raise InterceptorError(**{"user_message": "No.", **members})

    return refuse


def shown(response: AgentResponse) -> None:
    """All that a caller may look at."""
    response.to_message()
    assert response.meta_data
    assert response.session is not None


def proposing(call: Callable[[], ProposedCall]) -> AgentResponse:
    return Agent(lambda: AgentResult("?", approvals=[call()]), tools=[drop]).run("go")


ENTRIES: dict[str, Callable[[Any], Any]] = {
    "AgentResult(text)": AgentResult,
    "AgentResult(data)": lambda wrong: shown(Agent(lambda: AgentResult("x", data=wrong)).run("go")),
    "AgentResult(approvals)": lambda wrong: Agent(lambda: AgentResult("x", approvals=wrong), tools=[drop]).run("go"),
    "AgentResult(approvals=[])": lambda wrong: Agent(lambda: AgentResult("x", approvals=[wrong]), tools=[drop]).run("go"),
    "ProposedCall(tool)": lambda wrong: proposing(lambda: ProposedCall(wrong)),
    "ProposedCall(arguments)": lambda wrong: proposing(lambda: ProposedCall(drop, wrong)),
    "ProposedCall(arguments={})": lambda wrong: proposing(lambda: ProposedCall(drop, {"volume": wrong})),
    "ProposedCall(id)": lambda wrong: proposing(lambda: ProposedCall(drop, {"volume": "a"}, id=wrong)),
    "ProposedCall(intent)": lambda wrong: proposing(lambda: ProposedCall(drop, {"volume": "a"}, intent=wrong)),
    "decided(decisions)": ASKED.decided,
    "decided(decisions={})": lambda wrong: ASKED.decided({"c1": wrong}),
    "decided(text)": lambda wrong: ASKED.decided({"c1": True}, wrong),
    "an agent function returns": lambda wrong: Agent(lambda: wrong).run("go"),
    "request_interceptors=": lambda wrong: Agent(lambda: "x", request_interceptors=wrong),
    "request_interceptors=[]": lambda wrong: Agent(lambda: "x", request_interceptors=[wrong]),
    "response_interceptors=": lambda wrong: Agent(lambda: "x", response_interceptors=wrong),
    "a request interceptor returns": lambda wrong: Agent(lambda: "x", request_interceptors=lambda _: wrong).run("go"),
    "a response interceptor returns": lambda wrong: Agent(lambda: "x", response_interceptors=lambda _: wrong).run("go"),
    "request.messages": lambda wrong: Agent(lambda: "x", request_interceptors=with_message(wrong)).run("go"),
    "request.messages[]": lambda wrong: Agent(lambda: "x", request_interceptors=with_members(wrong)).run("go"),
    "request.session": lambda wrong: Agent(lambda: "x", request_interceptors=with_session(wrong)).run("go"),
    "response.text": lambda wrong: Agent(lambda: "x", response_interceptors=with_text(wrong)).run("go"),
    "response.session": lambda wrong: Agent(lambda: "x", response_interceptors=with_session(wrong)).run("go"),
    "InterceptorError(user_message)": lambda wrong: Agent(lambda: "x", request_interceptors=refuses(user_message=wrong)).run("go"),
    "InterceptorError(reason=)": lambda wrong: shown(Agent(lambda: "x", request_interceptors=refuses(reason=wrong)).run("go")),
    "InterceptorError(details=)": lambda wrong: shown(Agent(lambda: "x", request_interceptors=refuses(details=wrong)).run("go")),
    "agents=": lambda wrong: Agent(lambda: "x", agents=wrong),
    "create_app(agent)": lambda wrong: create_app(wrong, **SETTINGS),
    "create_app(store=)": lambda wrong: create_app(AGENT, store=wrong, **SETTINGS),
    "create_app(page=)": lambda wrong: create_app(AGENT, page=wrong, **SETTINGS),
    "create_app(audience=)": lambda wrong: create_app(AGENT, keys=SETTINGS["keys"], audience=wrong),
    "create_app(keys=)": lambda wrong: None if callable(wrong) else create_app(AGENT, keys=wrong, audience="shop"),
    "create_app(carriers=)": lambda wrong: create_app(AGENT, carriers=wrong, **SETTINGS),
    "create_app(exempt=)": lambda wrong: create_app(AGENT, exempt=wrong, **SETTINGS),
    "create_app(subject=)": lambda wrong: create_app(AGENT, subject=wrong, **SETTINGS),
    "create_app(conversation=)": lambda wrong: create_app(AGENT, conversation=wrong, **SETTINGS),
    "create_app(idle_timeout=)": lambda wrong: create_app(AGENT, idle_timeout=wrong, **SETTINGS),
    "serve(host=)": lambda wrong: None if isinstance(wrong, str) else serve(AGENT, host=wrong, **SETTINGS),
    "serve(port=)": lambda wrong: None if type(wrong) is int and 0 <= wrong < 65536 else serve(AGENT, port=wrong, **SETTINGS),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_given_by_mistake_ends_in_dcafs_own_error_or_is_taken(entry: str) -> None:
    """Forty values at each entry: some fit, and none reaches the inside and ends there."""
    others = {}
    for name, value in WRONG.items():
        try:
            ENTRIES[entry](value)
        except DcafError:
            continue
        except Exception as error:  # noqa: BLE001 - that is the question
            others[name] = f"{type(error).__name__}: {error}"[:200]
    assert others == {}


@pytest.mark.parametrize(
    ("entry", "wrong", "words"),
    [
        ("AgentResult(text)", 7, "text= of an AgentResult takes a text, not an int"),
        ("AgentResult(data)", [1], "data= of an AgentResult takes a dict, not a list"),
        ("AgentResult(approvals)", ProposedCall(drop), "takes a list of ProposedCalls, not a ProposedCall"),
        ("AgentResult(approvals)", [drop], "takes a list of ProposedCalls, not a Tool"),
        ("ProposedCall(tool)", len, "takes a tool: write @tool"),
        ("ProposedCall(arguments)", "pg", "takes a dict of the tool's arguments, not a str"),
        ("ProposedCall(id)", 7, "id= of a ProposedCall takes a text, or None"),
        ("decided(decisions)", ["c1"], "decisions= of decided\\(\\) takes a dict"),
        ("decided(decisions={})", 1, "a yes is True, and a no is its reason"),
        ("request_interceptors=", Session, "not the class Session"),
        ("request_interceptors=", lambda: None, "is called with one argument"),
        ("request_interceptors=", lambda a, b: None, "is called with one argument"),
        ("create_app(store=)", StatelessStore, "store= takes .*SessionStore.*not the class StatelessStore"),
        ("create_app(store=)", {}, "store= takes .*SessionStore.*not a dict"),
        ("create_app(page=)", "yes", "page= takes True, False or a Page, not a str"),
        ("create_app(carriers=)", 7, "carriers= knows"),
        ("serve(port=)", "8000", "port= takes a number from 0 to 65535"),
        ("serve(port=)", True, "port= takes a number"),
        ("serve(host=)", None, "host= takes an address"),
        ("InterceptorError(user_message)", None, "An InterceptorError takes the text that the user reads"),
    ],
)
def test_the_message_names_the_argument_and_what_it_takes(entry: str, wrong: Any, words: str) -> None:
    with pytest.raises(DcafError, match=words):
        ENTRIES[entry](wrong)


def test_what_fits_is_taken() -> None:
    Agent(lambda: "x", request_interceptors=[lambda request: None, lambda *_: None])
    assert AgentResult("x", data={"step": 1}, approvals=(ProposedCall(drop, {"volume": "pg"}),)).approvals
    create_app(AGENT, store=StatelessStore(), carriers=("body", "header"), **SETTINGS)


@pytest.mark.parametrize("entry", ["AgentResult(text)", "ProposedCall(arguments)", "decided(decisions={})"])
def test_no_message_shows_what_was_given(entry: str) -> None:
    canary = "can" + "ary"
    with pytest.raises(DcafError) as caught:
        ENTRIES[entry]([canary])
    assert canary not in str(caught.value)
