"""The session in FastAPI endpoints: ``session: SessionDep``.

>>> from fastapi import FastAPI
>>> app = FastAPI()
>>> @app.post("/steps")
... async def count(session: SessionDep) -> dict[str, object]:
...     return {"step": session.incr("step")}

What a reader gets wrong: a bare ``session: Session`` parameter would ask FastAPI to read a session from the request body,
where the client writes it. That is a ConfigurationError.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends

from dcaf.core.current import current_session
from dcaf.core.session import Session


async def _session() -> Session:
    return current_session()


SessionDep: TypeAlias = Annotated[Session, Depends(_session)]
"""The session of the turn, as an endpoint's or a dependency's parameter."""
