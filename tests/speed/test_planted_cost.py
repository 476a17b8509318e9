"""What it costs to look for planted sessions: the time grows with the size of an event, whatever stands in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from dcaf.asgi.json_walk import remove_sessions
from dcaf.core.errors import MalformedJSON

SHAPES: dict[str, Callable[[int], bytes]] = {
    "flat text": lambda n: b'{"data":{"session":"' + b"x" * n + b'"}}',
    "spaces": lambda n: b"session" + b" " * n + b"{",
    "spaces before": lambda n: b" " * n + b'{"data":{"session":1}}',
    "a long name before": lambda n: b"a" * n + b' {"data":{"session":1}}',
    "lines": lambda n: b'{"data":{"session":1}}\n' * (n // 23),
    "returns": lambda n: b"session" + b"\r" * n,
    "braces": lambda n: b"{" * n + b"session",
    "brace lines": lambda n: b"{\n" * (n // 2) + b"session",
    "sessions": lambda n: b'{"data":{' + b",".join([b'"session":1'] * (n // 12)) + b"}}",
    "datas": lambda n: b"{" + b",".join([b'"data":{"session":1}'] * (n // 21)) + b"}",
    "numbers": lambda n: b'{"data":{"session":[' + b"1," * (n // 2) + b"1]}}",
    "digits": lambda n: b'{"data":{"session":' + b"9" * n + b"}}",
    "escapes": lambda n: b'{"data":{"session":"' + b"\\u0073" * (n // 6) + b'"}}',
    "wide": lambda n: ('{"data":{"x":"' + "session " * (n // 16) + '"}}').encode("utf-16"),
}


def seconds(made: bytes) -> float:
    start = time.perf_counter()
    with suppress(MalformedJSON):
        remove_sessions(made)
    return time.perf_counter() - start


@pytest.mark.parametrize("shape", SHAPES)
def test_the_time_grows_with_the_size(shape: str) -> None:
    small, large = SHAPES[shape](1 << 14), SHAPES[shape](1 << 19)
    assert min(seconds(large) for _ in range(3)) < 200 * max(min(seconds(small) for _ in range(5)), 2e-5)


def quadratic(made: bytes) -> float:
    """Broken: each line is looked for from the start."""
    start = time.perf_counter()
    for at in range(0, len(made), 512):
        made.count(b"\r", 0, at)
    return time.perf_counter() - start


def test_control_a_search_that_begins_anew_is_caught() -> None:
    small, large = SHAPES["returns"](1 << 14), SHAPES["returns"](1 << 19)
    assert quadratic(large) > 200 * max(quadratic(small), 2e-5)
