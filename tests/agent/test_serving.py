"""An agent under uvicorn: what is served, and under which name. The server itself is stood in for; others start a real one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcaf import SessionMiddleware
from dcaf.agent import serve, serving
from dcaf.agent.serving import named_app, serve_named
from dcaf.core import ConfigurationError, Key
from tests.agent.agents import agent_of
from tests.asgi.wire import AUDIENCE, RING

MODULE = '''
from dcaf import Session
from dcaf.agent import Agent

def answers(messages, context, session: Session):
    return f"{session.incr('n')}"

agent = Agent(answers)
number = 7

async def application(scope, receive, send):
    """An application that is ready."""

class Application:
    async def __call__(self, scope, receive, send):
        """Another."""

ready = Application()
'''


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What a server was started with, in a folder with a module of agents."""
    started: list[Any] = []
    (tmp_path / "shop_agents.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCAF_KEYS", Key.generate("k9").text())
    monkeypatch.delitem(sys.modules, "shop_agents", raising=False)
    monkeypatch.setattr(serving, "uvicorn", SimpleNamespace(run=lambda app, **settings: started.append((app, settings))))
    for name in (serving.TARGET, serving.AUDIENCE):
        monkeypatch.setenv(name, "")
    return started


def test_an_agent_or_a_function_is_served_with_the_settings_of_the_application(ran: list[Any]) -> None:
    serve(agent_of(), host="0.0.0.0", port=9, keys=RING, audience=AUDIENCE)
    serve(lambda messages: "x", keys=RING, audience=AUDIENCE)
    (first, settings), (second, others) = ran
    assert isinstance(first, SessionMiddleware)
    assert isinstance(second, SessionMiddleware)
    assert settings == {"host": "0.0.0.0", "port": 9}
    assert others == {"host": "127.0.0.1", "port": 8000}


def test_wrong_settings_are_refused_before_a_server_starts(ran: list[Any]) -> None:
    with pytest.raises(ConfigurationError):
        serve(agent_of(), keys=RING, audience="")
    assert ran == []


@pytest.mark.parametrize("name", ["agent", "answers"])
def test_an_agent_and_a_function_are_found_by_name(name: str, ran: list[Any]) -> None:
    serve_named(f"shop_agents:{name}", host="h", port=1, reload=False)
    ((app, settings),) = ran
    assert isinstance(app, SessionMiddleware)
    assert settings == {"factory": False, "host": "h", "port": 1, "reload": False, "app_dir": str(Path.cwd())}


@pytest.mark.parametrize("name", ["application", "ready"])
def test_an_application_that_is_ready_is_served_as_it_is(name: str, ran: list[Any]) -> None:
    serve_named(f"shop_agents:{name}", host="h", port=1, reload=False)
    assert not isinstance(ran[0][0], SessionMiddleware)


def test_with_a_reload_the_application_is_named_and_each_process_makes_it_anew(ran: list[Any]) -> None:
    serve_named("shop_agents:agent", audience="shop", host="h", port=1, reload=True)
    ((named, settings),) = ran
    assert named == "dcaf.agent.serving:named_app"
    assert settings["factory"]
    assert os.environ[serving.AUDIENCE] == "shop"
    assert isinstance(named_app(), SessionMiddleware)


@pytest.mark.parametrize("target", ["shop_agents:number", "shop_agents:nothing", "no_such_module:agent", "shop_agents"])
def test_what_is_no_agent_is_refused_by_name(target: str, ran: list[Any]) -> None:
    with pytest.raises(ConfigurationError):
        serve_named(target, host="h", port=1, reload=False)
    assert ran == []


def test_without_a_key_nothing_is_served_and_the_line_that_makes_one_is_told(ran: list[Any], monkeypatch: Any) -> None:
    monkeypatch.delenv("DCAF_KEYS")
    with pytest.raises(ConfigurationError, match="dcaf keys new"):
        serve_named("shop_agents:agent", host="h", port=1, reload=False)
    assert ran == []


def test_without_uvicorn_the_line_that_installs_it_is_told(ran: list[Any], monkeypatch: Any) -> None:
    monkeypatch.setattr(serving, "uvicorn", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        serve(agent_of(), keys=RING, audience=AUDIENCE)
