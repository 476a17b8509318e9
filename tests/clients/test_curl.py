"""The wizard driven by curl: each turn a process of its own, which knows nothing but the last answer."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from dcaf.testing import tampered
from tests.conftest import Served


def said(curl: str, served: Served, text: str, session: Any, approvals: Any = ()) -> dict[str, Any]:
    """Say one thing, with the session of the last answer, and approve what waits; the answer."""
    approved = [{**item, "execute": True} for item in approvals]
    message = {"role": "user", "content": text, "data": {"approvals": approved}}
    body = json.dumps({"messages": [message], "data": {"session": session}})
    done = subprocess.run(
        [curl, "-sS", f"{served.url}/api/chat", "--data-binary", "@-"], input=body, capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def mirror(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer["data"]["session"].items() if key != "dcaf"}


def test_the_line_that_the_demo_prints_works_when_pasted(curl: str, served: Served) -> None:
    assert served.curl_line.startswith("curl ")
    done = subprocess.run(["bash", "-c", served.curl_line], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["content"].startswith("Step 1")
    assert mirror(answer) == {"wizard_step": 1}


def test_the_whole_conversation_holds_by_curl(curl: str, served: Served) -> None:
    from dcaf.demo.story import CONVERSATION  # which loads an agent: tests/clients/test_programs.py asks this file for less

    session: Any = None
    waiting: list[Any] = []
    for text, expected in CONVERSATION:
        answer = said(curl, served, text, session, waiting)
        waiting = answer["data"]["approvals"]
        session = answer["data"]["session"]
        assert mirror(answer) == expected


@pytest.mark.parametrize("only_token", [False, True])
def test_an_edited_or_missing_mirror_has_no_effect(curl: str, served: Served, only_token: bool) -> None:
    session = said(curl, served, "service api", None)["data"]["session"]
    edited = {"dcaf": session["dcaf"]} if only_token else {**session, "service": "mine", "wizard_step": 99}
    assert mirror(said(curl, served, "3 replicas", edited))["service"] == "api"


def test_a_forged_session_is_refused_and_the_tool_does_not_run(curl: str, served: Served) -> None:
    answer = said(curl, served, "execute", {"service": "api", "replicas": 3})
    assert answer["code"] == "session-unsigned"
    assert "content" not in answer
    assert mirror(said(curl, served, "start", answer["data"]["session"])) == {"wizard_step": 1}


@pytest.mark.parametrize("text", ["start", "service api", "3 replicas", "execute", "add 1 bolt", "one more bolt", "hello"])
def test_whatever_is_said_first_is_answered(curl: str, served: Served, text: str) -> None:
    """A newcomer with the printed line may begin anywhere in the conversation."""
    body = json.dumps({"messages": [{"role": "user", "content": text}]})
    command = [curl, "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"{served.url}/api/chat", "--data-binary", body]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "200"


def test_a_changed_token_is_refused_and_the_answer_starts_over(curl: str, served: Served) -> None:
    session = said(curl, served, "service api", None)["data"]["session"]
    control = said(curl, served, "3 replicas", session)
    assert mirror(control) == {"service": "api", "wizard_step": 3, "replicas": 3}
    answer = said(curl, served, "3 replicas", tampered(session))
    assert (answer["code"], answer["data"]["session"]) == ("session-invalid", {"dcaf": {"token": "new"}})
    assert mirror(said(curl, served, "start", answer["data"]["session"])) == {"wizard_step": 1}
