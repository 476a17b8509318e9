"""Events that an operator can count and alert on: each goes to the log, to telemetry, and to a function of the application.

>>> from dcaf.core.errors import SessionInvalid
>>> seen = []
>>> Events(seen.append).report_refusal(SessionInvalid(reason="mac", kid="k7"))
>>> seen[0].name, seen[0].code, seen[0].reason, seen[0].kid
('refused', 'session-invalid', 'mac', 'k7')

An event has digests and key ids, but never a token, a key, state or a subject. Nor has it the path that was asked for: nobody knows
which part of that names the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from dcaf.core.errors import SessionError, SessionUnavailable
from dcaf.core.keys import EPHEMERAL

REMEMBERED: Final = 1000
"""The most routes, and key ids, that are remembered as reported; of further ones nothing is reported."""

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
    """Telemetry that follows every turn."""

    @property
    def is_heard(self) -> bool:
        """Whether anybody reads what is recorded."""

    def record_opened(self, *, kid: str | None, request_bytes: int) -> None:
        """Record that a turn has its session."""

    def record_sealed(self, *, kid: str, answer_bytes: int) -> None:
        """Record that a session goes out."""

    def record_event(self, event: Event) -> None:
        """Record an event."""


class Events:
    """Reports events; what the application's function raises is logged, and changes nothing.

    Args:
        on_event: The application's function; None for none.
        watcher: Telemetry; None for none.

    Attributes:
        watcher: As above.
    """

    def __init__(self, on_event: Callable[[Event], None] | None = None, watcher: Watcher | None = None) -> None:
        self._on_event = on_event
        self.watcher: Watcher | None = watcher
        self._reported: dict[EventName, set[str]] = {}

    def report_refusal(self, refusal: SessionError | SessionUnavailable) -> None:
        """Report that a request was answered with a problem."""
        self._report_about("refused", refusal)

    def report_restart(self, refusal: SessionError) -> None:
        """Report that a session was started empty instead of being refused."""
        self._report_about("restarted", refusal)

    def report_import(self, sid: str) -> None:
        """Report that a plain session was taken in."""
        self._report(logging.INFO, Event("imported", sid=sid))

    def report_reseal(self, kid: str, sid: str) -> None:
        """Report that a session which an older key had sealed goes out under the active one."""
        self._report(logging.INFO, Event("resealed", kid=kid, sid=sid))

    def report_overwrite(self, route: str, naming: str) -> None:
        """Report, once a route, that the application wrote a ``data.session`` of its own where it does not count.

        Args:
            route: As an operator may read it.
            naming: What to write so that it counts.
        """
        self._report_once(
            Event("overwritten", route=route),
            f"If that object is the new state, {naming}. It must never be built from request, document or model text.",
        )

    def report_lost_change(self, route: str, advice: str) -> None:
        """Report that the session was changed after the answer that could have carried it.

        Args:
            route: As an operator may read it.
            advice: What the application should do.
        """
        self._report(logging.ERROR, Event("lost", route=route), advice)

    def _report_about(self, name: EventName, refusal: SessionError | SessionUnavailable) -> None:
        reason, kid, sid = (getattr(refusal, field, None) for field in ("reason", "kid", "sid_digest"))
        # Another subject's session is an attack or a grave mistake; the rest are clients with old or broken ones.
        self._report(logging.ERROR if reason == "sub" else logging.WARNING, Event(name, refusal.code, reason, kid, sid))
        if reason == "kid" and kid is not None and kid.startswith(EPHEMERAL):
            self._report_once(
                Event("ephemeral", kid=kid),
                "An ephemeral key of another process sealed it: with several workers, or after a restart, every worker needs the "
                "same DCAF_KEYS.",
            )

    def _report_once(self, event: Event, advice: str) -> None:
        reported, key = self._reported.setdefault(event.name, set()), event.route or event.kid or ""
        if key not in reported and len(reported) < REMEMBERED:
            reported.add(key)
            self._report(logging.WARNING, event, advice)

    def _report(self, level: int, event: Event, advice: str = "") -> None:
        fields = {name: getattr(event, name) for name in ("code", "reason", "kid", "sid", "route")}
        text = " ".join(f"{name}={value!r}" for name, value in fields.items() if value is not None)
        logger.log(level, "dcaf: %s %s%s", event.name, text, f". {advice}" if advice else "", extra={"dcaf_event": event})
        if self.watcher is not None:
            self.watcher.record_event(event)
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:
            logger.exception("dcaf: on_event raised")
