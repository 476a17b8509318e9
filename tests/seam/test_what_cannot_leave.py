"""What no answer can carry is not committed either: the client goes on from what it has."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf.asgi import HeaderCarrier
from dcaf.core.errors import NotCarriedError
from tests.asgi.wire import call, mounted
from tests.stores_for_tests import MemoryLedger

TEXT = (b"content-type", b"text/plain")


@pytest.mark.parametrize("carrier", ["cookie", HeaderCarrier(limit_bytes=2000)])
def test_a_session_that_its_carrier_has_no_room_for_is_not_committed(carrier: Any) -> None:
    length = 10

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["dcaf.session"]["text"] = "x" * length
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
        await send({"type": "http.response.body", "body": b"hi"})

    def turn(sent: Any = None) -> Any:
        found = {} if sent is None else dict(sent.start["headers"])
        cookie, token = found.get(b"set-cookie"), found.get(b"dcaf-session")
        headers = [] if cookie is None else [(b"cookie", cookie.split(b";")[0])]
        return call(service, headers=(*headers, *([] if token is None else [(b"dcaf-session", token)])))

    ledger = MemoryLedger()
    service = mounted(app, store=ledger, carriers=("body", carrier))
    first = turn()
    length = 6000
    with pytest.raises(NotCarriedError, match="'text'"):
        turn(first)
    length = 20
    assert turn(first).status == 200
    assert [row.number for row in ledger.rows.values()] == [2]
