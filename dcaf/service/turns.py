"""A turn of a kept session: a block at whose end all that was done in it is committed, or nothing."""

from __future__ import annotations

from contextvars import Token
from types import TracebackType

from dcaf.core.context import begin, end
from dcaf.core.errors import ConfigurationError
from dcaf.core.mapping import state_of
from dcaf.core.session import Session
from dcaf.service.calls import Calls
from dcaf.service.plans import Plan, run, run_async, run_to_end
from dcaf.service.session import KeptSession


class ServiceTurn:
    """One turn of a kept session, with ``async with`` or ``with``. Inside the block ``current_session()`` is its session.

    Args:
        calls: Of the service.
        opening: What opens the session.
    """

    def __init__(self, calls: Calls, opening: Plan[KeptSession]) -> None:
        self._calls = calls
        self._opening = opening
        self._is_used = False
        self._session: KeptSession | None = None
        self._before: Token[Session] | None = None

    async def __aenter__(self) -> KeptSession:
        return self._begin(await run_async(self._take_opening(), self._calls.engine))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session = self._leave()
        try:
            if error is None:
                await run_to_end(self._calls.save(session), self._calls.engine)
        finally:
            state_of(session).end(_ignore_late)

    def __enter__(self) -> KeptSession:
        return self._begin(run(self._take_opening(), self._calls.engine))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        session = self._leave()
        try:
            if error is None:
                run(self._calls.save(session), self._calls.engine)
        finally:
            state_of(session).end(_ignore_late)

    def _take_opening(self) -> Plan[KeptSession]:
        if self._is_used:
            raise ConfigurationError("A turn is entered once: call sessions.open(...) again for the next one.")
        self._is_used = True
        return self._opening

    def _begin(self, session: KeptSession) -> KeptSession:
        self._session, self._before = session, begin(session)
        return session

    def _leave(self) -> KeptSession:
        assert self._session is not None
        assert self._before is not None
        end(self._before)
        return self._session


def _ignore_late() -> None:
    """A late write raises where it is made, and nothing else happens."""
