"""The libraries that reach a service, and one error for all of their ways to fail.

What a reader gets wrong: a request that failed may have been served. Nothing is sent again by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dcaf.client.errors import ServiceUnreachable
from dcaf.client.refusals import refused
from dcaf.client.turn import Turn
from dcaf.core.extras import extra

with extra("dcaf.client", "dcaf[client]"):
    import httpx2
    import websockets.asyncio.client as async_websockets
    import websockets.sync.client as sync_websockets
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

__all__ = ["ConnectionClosed", "InvalidStatus", "WebSocketException", "async_websockets", "httpx2", "reached", "sync_websockets"]


@contextmanager
def reached(path: str, turn: Turn | None = None) -> Iterator[None]:
    """Do something with a service's connection.

    Args:
        path: What is reached, for the message.
        turn: What is read; if it has failed, that is why nothing more comes.

    Raises:
        ServiceError: It refused a WebSocket before it was open, or the turn had failed.
        ServiceUnreachable: No connection, a timeout, or it broke off.
    """
    try:
        yield
    except InvalidStatus as refusal:
        raise refused(refusal.response.status_code, refusal.response.headers, None) from refusal
    except (httpx2.RequestError, WebSocketException, OSError) as error:
        raise (turn and turn.failure) or ServiceUnreachable(
            f"No complete answer came from {path} ({type(error).__name__}); whether the turn ran is not known. "
            "Its message is not kept: check the address and the service, then send it again."
        ) from error
