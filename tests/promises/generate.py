"""Seeded volume for the promises: storable states of every shape, the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

ALPHABET: Final = [
    chr(code) for code in (*range(0x20, 0x7F), 0, 9, 10, 13, 0x7F, 0xE9, 0x3A9, 0x2028, 0x2029, 0xFEFF, 0x1F600, 0x10FFFF)
]
EDGES: Final = [0, -1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, -(2**63)]
FLOATS: Final = [0.0, -0.0, 1.0, 1e-7, 1e16, 1e21, 1e22, 5e-324, 1.7976931348623157e308, 0.1, 123456789.123456789]
NAMES: Final = ["__proto__", "constructor", "toString", "10", "2", "", "dcaf.", "token", "data", "session", "é", "a.b", "temp"]


def states(seed: int, number: int) -> Iterator[dict[str, Any]]:
    """So many states that a session accepts."""
    source = random.Random(seed)
    for _ in range(number):
        yield {_key(source): _value(source, 4) for _ in range(source.randrange(6))}


def _key(source: random.Random) -> str:
    name = source.choice(NAMES) if source.random() < 0.3 else _text(source)
    return f"{name}_" if name == "dcaf" or name.startswith("temp:") else name


def _text(source: random.Random) -> str:
    return "".join(source.choices(ALPHABET, k=source.randrange(12)))


def _value(source: random.Random, depth: int) -> Any:
    kind = source.randrange(9 if depth else 7)
    if kind < 2:
        return _text(source)
    if kind == 2:
        return source.choice(EDGES)
    if kind == 3:
        return source.choice(FLOATS)
    if kind == 4:
        return source.random() * 10 ** source.randrange(-300, 300)
    if kind == 5:
        return source.randrange(-1000, 1000)
    if kind == 6:
        return source.choice([None, True, False])
    if kind == 7:
        return [_value(source, depth - 1) for _ in range(source.randrange(4))]
    return {_key(source): _value(source, depth - 1) for _ in range(source.randrange(4))}
