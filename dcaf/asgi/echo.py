"""An envelope that came back just as it was sent is taken out of a body before it is parsed.

>>> from dcaf.core.base64url import Payload
>>> from dcaf.core.keys import Key
>>> opened = Opened("dcaf1s", Key.generate("k7"), b"{}", Payload(b'{"step":1}'))
>>> data = b'{"data":{"session":{"step":1,"dcaf":{"token":"dcaf1s.k7","expires_at":9}}}}'
>>> find(data, lambda token: opened).shortened.replace(STAND_IN, b"*")
b'{"data":{"session":*}}'

Why the two texts mean the same. What is taken out is an object, every byte of which is known: the members are the very state
that the token seals, and the token was verified. A string stands in for it that only this process knows. Where the parser
finds that string at ``data.session``, it had reached the beginning of a value there, and goes on after it as it would have gone
on after the object. Where it does not, the whole body is parsed instead.

What a reader gets wrong: nothing is trusted that is not compared. A mirror that was edited, reordered or spelled otherwise
is no echo, and takes the plain path.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dcaf.asgi import splice
from dcaf.asgi.locate import JSONText
from dcaf.asgi.walk import Place
from dcaf.core.seal import Opened

BEGIN: Final = b'"session":{'
OWN: Final = b'"dcaf":{"token":"'
END: Final = re.compile(rb'"(?:,"expires_at":(?:0|[1-9][0-9]{0,14}))?\}\}')

NONCE: Final = secrets.token_hex(16)
STAND_IN: Final = f'"{NONCE}"'.encode()


class Echo(NamedTuple):
    """What was found: the body with a stand-in for the envelope, and the envelope's token, verified.

    Attributes:
        begin: Where the name of the member stands.
    """

    shortened: bytes
    opened: Opened
    begin: int

    def is_at(self, value: Any) -> bool:
        """Whether a parsed value is the stand-in."""
        return bool(value == NONCE)

    def parsed(self, data: bytes) -> tuple[JSONText, Sequence[Place]]:
        """The shortened body, and the places of its sessions: mostly there is none but this one."""
        text = JSONText.read(data)
        top = text.value.get("data") if type(text.value) is dict else None
        if type(top) is not dict or not self.is_at(top.get("session")) or not splice.is_alone(data):
            return text, text.sessions()
        start = self.begin + len(BEGIN) - 1
        return text, [splice.around(data, self.begin, start, start + len(STAND_IN), NONCE)]


def find(data: bytes, verify: Callable[[bytes], Opened | None]) -> Echo | None:
    """The first envelope of a body, if it came back as it was sent; None else.

    Args:
        data: The body.
        verify: Opens a token; None where it is not one of ours.
    """
    begin = data.find(BEGIN)
    if begin < 0:
        return None
    start = begin + len(BEGIN) - 1
    own = start + 1 if data.startswith(OWN, start + 1) else data.find(OWN, start)
    token = own + len(OWN)
    end = END.match(data, data.find(b'"', token)) if own >= 0 else None
    opened = verify(data[token : end.start()]) if end else None
    if end is None or opened is None or not (own == start + 1 or _is_mirror(data, start, own, opened)):
        return None
    return Echo(b"".join((data[:start], STAND_IN, data[end.end() :])), opened, begin)


def _is_mirror(data: bytes, start: int, own: int, opened: Opened) -> bool:
    """Whether what stands between a brace and the member ``dcaf`` is the sealed state and a comma."""
    state = opened.payload.data
    return len(state) == own - start and data.startswith(b",", own - 1) and data.startswith(state[:-1], start)
