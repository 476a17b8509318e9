"""Record each turn with OpenTelemetry, where its API is installed: opened, sealed, refused, how large, by which key.

    span event  dcaf.session.opened    dcaf.kind=continued dcaf.level=L0 dcaf.kid=k7 dcaf.request_bytes=812
    span event  dcaf.session.sealed    dcaf.kid=k7 dcaf.level=L0 dcaf.answer_bytes=640
    counter     dcaf.session.events    {dcaf.event=refused, dcaf.code=session-invalid}

The events belong to the current span, which another instrumentation began around the middleware; dcaf begins none of its own.
Nothing of a state, a token or a caller is in them.
"""

from __future__ import annotations

import sys
from typing import Final, Literal

from dcaf.asgi.operator_events import Event
from dcaf.core.importing import extra

with extra("Telemetry", "opentelemetry-api"):
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import _internal as _metrics
    from opentelemetry.util.types import AttributeValue

NAME: Final = "dcaf"


class Telemetry:
    """Records the turns of one service; without an SDK it costs a call and does nothing.

    Args:
        level: The level of the store; ``L0`` is no store.
    """

    def __init__(self, level: str) -> None:
        meter = metrics.get_meter(NAME)
        self._level = level
        self._opened = meter.create_counter("dcaf.session.opened", "{session}", "Sessions that a turn began or went on with")
        self._sealed = meter.create_histogram("dcaf.session.sealed", "By", "Length of what goes out with an answer")
        self._events = meter.create_counter("dcaf.session.events", "{event}", "Refusals, and what else an operator counts")

    @property
    def is_heard(self) -> bool:
        """Whether an SDK is loaded or a provider is set: the API alone records nothing, and is not free."""
        # If a later release has other names for the providers, they count as set.
        return (
            "opentelemetry.sdk" in sys.modules
            or getattr(trace, "_TRACER_PROVIDER", True) is not None
            or getattr(_metrics, "_METER_PROVIDER", True) is not None
        )

    def record_opened(self, *, kid: str | None, request_bytes: int) -> None:
        """Record that a turn has its session.

        Args:
            kid: Id of the key that had sealed it; None for a new one.
            request_bytes: Length of the body or the frame.
        """
        kind: Literal["new", "continued"] = "new" if kid is None else "continued"
        self._opened.add(1, {"dcaf.kind": kind, "dcaf.level": self._level})
        self._add_event("opened", {"dcaf.kind": kind, "dcaf.kid": kid or "", "dcaf.request_bytes": request_bytes})

    def record_sealed(self, *, kid: str, answer_bytes: int) -> None:
        """Record that a session goes out.

        Args:
            kid: Id of the key that sealed it.
            answer_bytes: Length of the envelope, or of the token alone.
        """
        self._sealed.record(answer_bytes, {"dcaf.level": self._level})
        self._add_event("sealed", {"dcaf.kid": kid, "dcaf.answer_bytes": answer_bytes})

    def record_event(self, event: Event) -> None:
        """Record an event: a refusal, a restart, a change that was lost."""
        fields = {"dcaf.code": event.code, "dcaf.reason": event.reason, "dcaf.kid": event.kid, "dcaf.route": event.route}
        attributes: dict[str, AttributeValue] = {name: value for name, value in fields.items() if value is not None}
        self._events.add(1, {"dcaf.event": event.name, "dcaf.code": event.code or "", "dcaf.level": self._level})
        self._add_event(event.name, attributes)

    def _add_event(self, name: str, attributes: dict[str, AttributeValue]) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.add_event(f"dcaf.session.{name}", {"dcaf.level": self._level, **attributes})
