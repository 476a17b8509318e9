"""The demo's tools under FastAPI.

Run it with: pip install fastapi uvicorn && uvicorn fastapi_app:app --app-dir examples
"""

import os
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field

from dcaf import Keyring, SessionMiddleware, current_session
from dcaf.demo.planner import plan
from dcaf.integrations.fastapi import SessionDep


class Message(BaseModel):
    """One thing that was said; older answers carry more than this."""

    content: str


class Turn(BaseModel):
    """The messages of the conversation; ``data`` is the middleware's."""

    messages: Annotated[list[Message], Field(min_length=1)]


api = FastAPI()


@api.post("/api/chat")
async def chat(turn: Turn, session: SessionDep) -> dict[str, object]:
    """Plan, call the tool, answer."""
    call = plan(turn.messages[-1].content)
    content = await call.tool.run(call.arguments, session=session) if call else "Say: start, service NAME, N replicas, execute."
    return {"role": "assistant", "content": content}


@api.post("/api/step")
def step() -> dict[str, object]:
    """The session from anywhere below the middleware, in a thread too."""
    return {"step": current_session().get("wizard_step", 0)}


app = SessionMiddleware(api, keys=None if "DCAF_KEYS" in os.environ else Keyring.ephemeral(), audience="deploy-agent")
