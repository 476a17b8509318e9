"""A service that refuses large bodies, for servers that take ``module:name``."""

from __future__ import annotations

from typing import Any

from dcaf import Keyring, SessionMiddleware


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


app = SessionMiddleware(_answer, keys=Keyring.ephemeral(), audience="shop", max_body_bytes=1024 * 1024)
