"""The same agent under four frameworks, each under three servers, on four wires: a wizard to its end, with an approval."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from dcaf import Key, Keyring
from dcaf.client import SessionDead, TurnTooLarge
from dcaf.testing import sealed, tampered
from tests.frameworks.programs import AUDIENCE, FRAMEWORKS, SERVERS, Running, free_ports, start
from tests.frameworks.talk import WIRES, Talk

KEY = Key.generate("k7")
PAIRS = tuple(product(FRAMEWORKS, SERVERS))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Running]]:
    """All of them, started at once: they import in parallel, and the first test waits for the first."""
    folder: Path = tmp_path_factory.mktemp("servers")
    ports = free_ports(len(PAIRS))
    found = {
        pair: start(*pair, port, KEY.text(), (folder / "-".join(pair)).open("w+b")) for pair, port in zip(PAIRS, ports, strict=True)
    }
    try:
        yield found
    finally:
        for one in found.values():
            one.process.terminate()
        for one in found.values():
            one.stop()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("framework", "server"), PAIRS)
def test_the_wizard_ends_with_an_approval(running: dict[tuple[str, str], Running], framework: str, server: str, wire: str) -> None:
    with Talk(running[framework, server].url, wire) as talk:
        reply = talk.say("service api")
        assert (reply.text, reply.session) == ("Service: api. Step 2: how many replicas?", {"wizard_step": 2, "service": "api"})
        reply = talk.say("3 replicas")
        assert reply.text == "3 replicas. Step 3: say 'execute' to deploy api."
        assert reply.session == {"wizard_step": 3, "service": "api", "replicas": 3}
        asked = talk.say("execute")
        assert asked.text == "This deploys. Are you sure?"
        assert ([one.name for one in asked.approvals], asked.session) == (["execute_deploy"], reply.session)
        done = talk.approve(asked)
        assert done.executed_approvals[0]["output"] == "Deployed api with 3 replicas."
        assert (done.text, done.session) == ("Deployed api with 3 replicas.", {})


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("framework", "server"), PAIRS)
def test_control_a_session_under_this_key_is_taken_and_a_changed_one_is_not(
    running: dict[tuple[str, str], Running], framework: str, server: str, wire: str
) -> None:
    envelope = sealed({"service": "api", "replicas": 3}, keys=Keyring(KEY), audience=AUDIENCE)
    url = running[framework, server].url
    with Talk(url, wire, session=envelope) as talk:
        assert talk.say("4 replicas").session == {"service": "api", "replicas": 4, "wizard_step": 3}
    with Talk(url, wire, session=tampered(envelope)) as talk, pytest.raises(SessionDead) as caught:
        talk.say("4 replicas")
    assert caught.value.code == "session-invalid"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("server", SERVERS)
def test_a_body_over_the_limit_costs_no_session(running: dict[tuple[str, str], Running], server: str, wire: str) -> None:
    """The answer comes while the client is still sending, and each server has its own way with that."""
    with Talk(running["starlette", server].url, wire) as talk:
        talk.say("service api")
        before = talk.token
        with pytest.raises(TurnTooLarge, match="body-too-large"):
            talk.say("x" * 5_000_000)
        assert talk.token == before
        assert talk.say("3 replicas").session == {"wizard_step": 3, "service": "api", "replicas": 3}
