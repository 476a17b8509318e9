"""The fixtures that pytest has wherever dcaf is installed.

    def test_a_conversation(session_client, dcaf_keys):
        client = session_client(create_app(agent, keys=dcaf_keys, audience="shop"))
        assert client.send("2 widgets").session == {"basket": {"widget": 2}}

The fixtures are what a test passes on; nothing is patched. An application that is to have these keys and this clock is built with
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TypeAlias

import dcaf.testing as kit
from dcaf import Keyring, Session
from dcaf.core.importing import extra

with extra("dcaf.testing.plugin", "pytest"):
    import pytest

SessionClients: TypeAlias = "Callable[..., kit.SessionClient]"
"""What the fixture ``session_client`` is: the arguments of SessionClient -> a client."""


@pytest.fixture(scope="session")
def dcaf_keys() -> Keyring:
    """Keys that are the same in every run."""
    return kit.fixed_keys()


@pytest.fixture
def dcaf_clock() -> kit.FrozenClock:
    """A clock that stands still at the beginning of 2026, until the test moves it: ``dcaf_clock.tick(timedelta(days=8))``."""
    return kit.FrozenClock()


@pytest.fixture
def dcaf_session() -> Session:
    """A new, empty session, to call a tool with."""
    return Session()


@pytest.fixture
def session_client() -> Iterator[SessionClients]:
    """Clients: ``session_client(app, wire="sse")``. Each application is started, as its lifespan says, and stopped at the end."""
    with ExitStack() as clients:
        yield lambda *args, **settings: clients.enter_context(kit.SessionClient(*args, **settings))
