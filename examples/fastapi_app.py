"""The demo's agent under FastAPI.

Run it with: pip install fastapi uvicorn && uvicorn fastapi_app:app --app-dir examples
"""

import os
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field

from dcaf import Keyring, SessionMiddleware, current_session
from dcaf.agent import Message
from dcaf.demo.app import create_agent
from dcaf.integrations.fastapi import SessionDep


class Turn(BaseModel):
    """The messages of the conversation; ``data`` is the middleware's."""

    messages: Annotated[list[Message], Field(min_length=1)]


agent = create_agent()
api = FastAPI()


@api.post("/api/chat")
async def chat(turn: Turn, session: SessionDep) -> dict[str, object]:
    """Run the agent on the session, and answer; the middleware seals the session into it."""
    response = await agent.run_async(turn.messages, session=session)
    return {"role": "assistant", "content": response.text, "data": response.data.model_dump(exclude={"session"})}


@api.post("/api/step")
def step() -> dict[str, object]:
    """The session from anywhere below the middleware, in a thread too."""
    return {"step": current_session().get("wizard_step", 0)}


app = SessionMiddleware(api, keys=None if "DCAF_KEYS" in os.environ else Keyring.ephemeral(), audience="deploy-agent")
