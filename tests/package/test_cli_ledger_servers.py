"""`dcaf ledger` on a real Redis and a real PostgreSQL: each command, where there is a ledger and where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dcaf import Key, Keyring
from dcaf.cli import main
from dcaf.core import SessionHost
from dcaf.ledger import Ledger
from tests.engines import postgres_servers, redis_servers

SUBJECT = "ada@example.org"
PASSWORD = "s3cret"


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_servers.running(*redis_servers.DURABLE) as server, server.client() as operator:
        operator.execute_command("ACL", "SETUSER", "shop", "on", f">{PASSWORD}", "~*", "+@all")
        yield server.socket_url.replace("unix://", f"unix://shop:{PASSWORD}@")


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """The url of a server, with a password in it; nobody else has rows there."""
    if request.param == "postgres":
        return postgres_servers.get_server().make_database().replace("postgres@", f"postgres:{PASSWORD}@")
    found: str = request.getfixturevalue("redis_url")
    return found


def fill(url: str, times: int) -> None:
    """A ledger with so many sessions of the subject."""
    store = Ledger(url, audience="clinic")
    host = SessionHost(keys=Keyring(Key.generate("k1")), audience="clinic", store=store)

    async def run_turns() -> None:
        for _ in range(times):
            async with host.turn(None, subject=SUBJECT) as turn:
                turn.session["n"] = 1
        await store.aclose()

    asyncio.run(run_turns())


def test_each_command_does_on_a_server_what_it_does_on_a_file(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str, code: int = 0) -> str:
        assert main(["ledger", *arguments, "--url", url]) == code
        printed = capsys.readouterr()
        assert PASSWORD not in printed.out + printed.err
        assert SUBJECT not in printed.out + printed.err
        return printed.out + printed.err

    def find_sessions(*arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in run("list", *arguments, "--json").splitlines()]

    assert "There is no ledger in" in run("list", code=2)
    assert "There is no ledger in" in run("restored", "--yes", code=2)
    fill(url, 3)
    first, second, third = find_sessions(SUBJECT, "--audience", "clinic")
    assert len(find_sessions()) == 3
    assert "No turn holds this session." in run("unlock", first["session"], code=1)
    assert "Revoked: none of its tokens" in run("revoke", first["session"])
    assert {live["session"] for live in find_sessions()} == {second["session"], third["session"]}
    assert "Logged out: 2 live sessions ended." in run("log-out", SUBJECT, "--audience", "clinic")
    assert find_sessions(SUBJECT, "--audience", "clinic") == []
    assert "Removed" in run("purge")
    assert "Every session that was open has ended." in run("restored", "--yes")
    checked = json.loads(run("check", "--json"))
    assert (checked["durability"], checked["vouched"]) == ("acknowledged", "nothing")
    assert checked["restored_ms"] is not None


def test_a_server_that_is_not_there_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    for url in (f"redis://shop:{PASSWORD}@127.0.0.1:1/0", f"postgresql://shop:{PASSWORD}@127.0.0.1:1/shop"):
        assert main(["ledger", "check", "--url", url]) == 2
        printed = capsys.readouterr()
        assert "reached" in printed.err
        assert PASSWORD not in printed.out + printed.err
