"""A store that gives what no lease is: nobody can tell, and nothing is dropped, or taken for a session that nobody keeps."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf.core import OpenRequest, Payload, SessionInvalid, SessionTooLarge, StatelessLease
from tests.asgi.wire import Recorder, call, envelope, mounted
from tests.stores_for_tests import ToldStore


class Rubbish:
    """Gives its lease, with other attributes; or something else in place of it."""

    level = "rubbish"

    def __init__(self, *instead: Any, **attributes: Any) -> None:
        self.instead, self.attributes, self.released = instead, attributes, 0

    async def open(self, request: OpenRequest) -> Any:
        if self.instead:
            return self.instead[0]
        lease = StatelessLease(request)
        lease.release = self.release  # type: ignore[method-assign]
        vars(lease).update(self.attributes)
        return lease

    async def release(self) -> None:
        self.released += 1


NO_NUMBERS: tuple[Any, ...] = (-1, None, "7", True, 1.5, 2**53)
NO_LEASES: tuple[Any, ...] = (None, True, {}, StatelessLease)
NO_PAYLOADS: tuple[Any, ...] = (b"{}", "{}", {}, 7)
GIVEN: dict[str, Rubbish] = {
    **{f"no lease: {value!r}": Rubbish(value) for value in NO_LEASES},
    **{f"{name}={value!r}": Rubbish(**{name: value}) for name in ("revision", "sequence") for value in NO_NUMBERS},
    **{f"epoch={value!r}": Rubbish(epoch=value) for value in NO_NUMBERS if value is not None},
    **{f"version={value!r}": Rubbish(version=value, place="server", payload=Payload(b"{}")) for value in NO_NUMBERS},
    **{f"place={value!r}": Rubbish(place=value, payload=Payload(b"{}")) for value in ("", "my place", "Server", 7, "a" * 17)},
    **{f"payload={value!r}": Rubbish(place="server", payload=value) for value in NO_PAYLOADS},
    **{
        f"state={value!r}": Rubbish(place="server", payload=Payload(value))
        for value in (b"", b"[]", b"{,}", b'{"a":\xff}', b"null")
    },
    **{f"may_retry={value!r}": Rubbish(may_retry=value) for value in (None, 1, "yes")},
    "a state as text": Rubbish(place="server", payload=Payload("{}")),  # type: ignore[arg-type]
    "a number that is taken": Rubbish(sequence=1),
}


@pytest.mark.parametrize("given", GIVEN)
def test_nobody_can_tell_and_nothing_is_dropped(given: str, caplog: pytest.LogCaptureFixture) -> None:
    store = GIVEN[given]
    app = Recorder(tool=lambda session: session.incr("n"))
    sent = call(mounted(app, store=store, on_refused="restart"), {"data": {"session": envelope({"n": 1})}})
    assert (sent.status, sent.code, sent.json.get("data")) == (503, "session-unavailable", None)
    assert store.instead or store.released
    assert "state=" in given or "text" in given or "the store gave a lease" in caplog.text


@pytest.mark.parametrize("step", ["open", "latest", "commit"])
@pytest.mark.parametrize("error", [SessionInvalid(reason="mac"), SessionTooLarge(reason="length")])
def test_a_refusal_that_no_store_can_know_of_is_a_failure(error: Exception, step: str) -> None:
    happening: dict[str, Any] = {step: error}
    app = mounted(Recorder(tool=lambda session: session.incr("n")), store=ToldStore(**happening), on_refused="restart")
    sent = call(app, {"data": {"session": envelope({"n": 1})}})
    assert (sent.status, sent.code, sent.json.get("data")) == (503, "session-unavailable", None)
