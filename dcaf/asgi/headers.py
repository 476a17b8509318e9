"""The headers that are untrue of a body once it was rewritten.

>>> headers = MutableHeaders({"digest": "sha-256=x", "etag": "1", "server": "a"})
>>> drop_digests(headers, "etag")
>>> headers.keys()
['server']

What a reader gets wrong: they are dropped, not made anew. Nobody asked this service to vouch for its bytes twice.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import MutableHeaders

DIGESTS: Final = ("content-md5", "digest", "content-digest", "repr-digest")
"""RFC 1864, RFC 3230, and RFC 9530 that follows it."""


def drop_digests(headers: MutableHeaders, *others: str) -> None:
    """Take every digest of the body out, and what else is untrue."""
    for name in (*DIGESTS, *others):
        del headers[name]
