"""The session in FastAPI endpoints: ``session: SessionDep``, or typed ``deploy: SessionDep[Deploy]``.

>>> from fastapi import FastAPI
>>> app = FastAPI()
>>> @app.post("/steps")
... async def count(session: SessionDep) -> dict[str, object]:
...     return {"step": session.incr("step")}

``SessionData`` shows ``data.session`` in the OpenAPI document, as it is on the wire:

>>> class Turn(BaseModel):
...     text: str
...     data: SessionData | None = None
>>> Turn.model_validate({"text": "hi", "data": {"session": {"step": 1}}}).data.session
{'step': 1}

What a reader gets wrong: a bare ``session: Session`` parameter would ask FastAPI to read a session from the request body,
where the client writes it. That is a ConfigurationError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeVar

from dcaf.asgi.problems import ENVELOPE, PROBLEM, REFUSED
from dcaf.core.context import current_session
from dcaf.core.errors import ConfigurationError
from dcaf.core.importing import extra
from dcaf.core.session import Session

with extra("dcaf.integrations.fastapi", "dcaf[fastapi]"):
    from fastapi import Depends

__all__ = ["REFUSALS", "SessionData", "SessionDep"]

S = TypeVar("S", bound=Session, default=Session)

REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": text, "content": {"application/problem+json": {"schema": PROBLEM}}} for status, text in REFUSED.items()
}
"""What the middleware may answer instead of the application, for ``FastAPI(responses=REFUSALS)``."""

INSIDE_DEPENDS: Final = "SessionDep is the whole annotation, session: SessionDep. Do not put it into Depends(...)."


class SessionData(BaseModel):
    """``data`` of a request or an answer, as the OpenAPI document shows it. A subclass may have further members.

    Attributes:
        session: In a request the verified state, as far as the application may see it; the document shows the envelope that the
            client sends. In an answer the middleware writes it; None leaves it out. Nothing is checked against the schema.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow", hide_input_in_errors=True, json_schema_extra={"description": "What goes with a message; the session too."}
    )

    session: Annotated[Any, WithJsonSchema({"anyOf": [ENVELOPE, {"type": "null"}]})] = Field(
        default=None, repr=False, exclude_if=lambda session: session is None
    )


@cache
def _dependency(as_type: type[Session]) -> Callable[[], Awaitable[Session]]:
    """The dependency that gives the session as a type: one function for each type, so that FastAPI calls it once a request."""

    async def session() -> Session:
        return current_session(as_type)

    return session


if TYPE_CHECKING:
    SessionDep: TypeAlias = Annotated[S, Depends()]
    """The session of the turn, as an endpoint's or a dependency's parameter; ``SessionDep[Deploy]`` is the same as a Deploy."""
else:

    class _Alias(type(Annotated[Session, ...]), _root=True):
        """``Annotated[Session, Depends(...)]`` that takes a typed session in brackets.

        A generic alias would change the type alone, and not the dependency with it.
        """

        def __getitem__(self, as_type: type[S]) -> Any:
            if not (isinstance(as_type, type) and issubclass(as_type, Session)):
                raise ConfigurationError(
                    f"SessionDep[{as_type!r}]: write SessionDep, or SessionDep[...] with a subclass of Session."
                )
            return _Alias(as_type, (Depends(_dependency(as_type)),))

        @property
        def __signature__(self) -> Any:
            """Raise: FastAPI reads it where the alias stands in ``Depends(...)``, and would read its parameters from the query."""
            raise ConfigurationError(INSIDE_DEPENDS)

    SessionDep = _Alias(Session, (Depends(_dependency(Session)),))
