"""What an operator can count and alert on: each event once to the log, and to a function of the application's own.

>>> from dcaf.core.errors import SessionInvalid
>>> seen = []
>>> Events(seen.append).report_refusal(SessionInvalid(reason="mac", kid="k7"))
>>> seen[0].name, seen[0].code, seen[0].reason, seen[0].kid
('refused', 'session-invalid', 'mac', 'k7')

What a reader gets wrong: an event has digests and key ids, never a token, a key, state or a subject. Nor the path: before a
request is routed nobody knows which part of it names the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from dcaf.core.errors import SessionError, SessionUnavailable
from dcaf.core.keys import EPHEMERAL

REMEMBERED: Final = 1000
"""Routes, and key ids, that are told only once, at most; after so many others nothing more is told of new ones."""

EventName: TypeAlias = Literal["refused", "restarted", "imported", "resealed", "ephemeral", "overwritten", "lost"]

logger: Final[logging.Logger] = logging.getLogger("dcaf")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session.

    Attributes:
        name: ``refused``: answered with a problem. ``restarted``: started empty instead of refused. ``imported``: a plain
            session was taken in. ``resealed``: an older key had sealed it. ``ephemeral``: another process's ephemeral key had.
            ``overwritten``: the application's own plain object does not count. ``lost``: a change came after the answer.
        code: Of the refusal; None where there was none.
        reason: Why, in one word.
        kid: Id of the key that the token named.
        sid: Keyed digest of the session id.
        route: The route's own path, where the framework tells it; None before the request was routed.
    """

    name: EventName
    code: str | None = None
    reason: str | None = None
    kid: str | None = None
    sid: str | None = None
    route: str | None = None


class Watcher(Protocol):
    """Who is told of every turn, beside the log."""

    @property
    def is_heard(self) -> bool:
        """Whether anybody hears what it is told; else nothing needs to be said."""

    def record_opened(self, *, kid: str | None, request_bytes: int) -> None:
        """A turn has its session."""

    def record_sealed(self, *, kid: str, answer_bytes: int) -> None:
        """A session goes out."""

    def record_event(self, event: Event) -> None:
        """Something else happened."""


class Events:
    """Tells of events; what the application's function raises is logged, and changes nothing.

    Args:
        on_event: The application's function; None for none.
        watcher: Who is told of every turn; None is nobody.

    Attributes:
        watcher: As above.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None, watcher: Watcher | None = None) -> None:
        self._on_event = on_event
        self.watcher: Watcher | None = watcher
        self._told: dict[EventName, set[str]] = {}

    def report_refusal(self, refusal: SessionError | SessionUnavailable) -> None:
        """A request was answered with a problem."""
        self._of_refusal("refused", refusal)

    def report_restart(self, refusal: SessionError) -> None:
        """A session was started empty instead of being refused."""
        self._of_refusal("restarted", refusal)

    def report_import(self, sid: str) -> None:
        """A plain session was taken in."""
        self._tell(logging.INFO, Event("imported", sid=sid))

    def report_reseal(self, kid: str, sid: str) -> None:
        """A session that an older key had sealed goes out under the active one."""
        self._tell(logging.INFO, Event("resealed", kid=kid, sid=sid))

    def report_overwrite(self, route: str, naming: str) -> None:
        """The application put something of its own at ``data.session``, where it does not count; told once a route.

        Args:
            route: As an operator may read it.
            naming: What to write so that it counts.
        """
        self._once(
            Event("overwritten", route=route),
            f"If that object is the new state, {naming}. It must never be built from request, document or model text.",
        )

    def report_lost_change(self, route: str, advice: str) -> None:
        """The session was changed after the answer that could have carried it.

        Args:
            route: As an operator may read it.
            advice: What to do in time.
        """
        self._tell(logging.ERROR, Event("lost", route=route), advice)

    def _of_refusal(self, name: EventName, refusal: SessionError | SessionUnavailable) -> None:
        reason, kid, sid = (getattr(refusal, field, None) for field in ("reason", "kid", "sid_digest"))
        # Another subject's session is an attack or a grave mistake; the rest are clients with old or broken ones.
        self._tell(logging.ERROR if reason == "sub" else logging.WARNING, Event(name, refusal.code, reason, kid, sid))
        if reason == "kid" and kid is not None and kid.startswith(EPHEMERAL):
            self._once(
                Event("ephemeral", kid=kid),
                "An ephemeral key of another process sealed it: with several workers, or after a restart, every worker needs the "
                "same DCAF_KEYS.",
            )

    def _once(self, event: Event, advice: str) -> None:
        told, key = self._told.setdefault(event.name, set()), event.route or event.kid or ""
        if key not in told and len(told) < REMEMBERED:
            told.add(key)
            self._tell(logging.WARNING, event, advice)

    def _tell(self, level: int, event: Event, advice: str = "") -> None:
        facts = {name: getattr(event, name) for name in ("code", "reason", "kid", "sid", "route")}
        said = " ".join(f"{name}={value!r}" for name, value in facts.items() if value is not None)
        logger.log(level, "dcaf: %s %s%s", event.name, said, f". {advice}" if advice else "", extra={"dcaf_event": event})
        if self.watcher is not None:
            self.watcher.record_event(event)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("dcaf: on_event raised")
