"""The demo's service: an agent with six tools on a scripted model, over the HelpDesk protocol.

What a reader gets wrong: only the model is a stand-in. The agent, its tools, the approval and the service are those of a real one;
`dcaf serve` runs the same with a real model.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp

from dcaf.agent import Agent, create_app
from dcaf.core.keys import Keyring
from dcaf.demo.model import scripted
from dcaf.demo.tools import TOOLS

AUDIENCE: Final = "deploy-agent"


def create_agent() -> Agent:
    """The demo's agent."""
    return Agent(scripted(), tools=TOOLS, name=AUDIENCE)


def create_demo(keys: Keyring) -> ASGIApp:
    """The demo's application, with the session mounted around it."""
    return create_app(create_agent(), keys=keys, audience=AUDIENCE)
