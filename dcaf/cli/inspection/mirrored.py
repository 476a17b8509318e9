"""The keys of a session and how large they are, and where a mirror differs from the state that was sealed.

>>> rows({"step": 9, "admin": True}, {"step": 2, "cart": []}, {"step": 2, "cart": []})
[('admin', '4 bytes, planted: it is not in the state'), ('cart', '2 bytes, not mirrored'), ('step', '1 byte, edited in the mirror')]

What a reader gets wrong: names and sizes are shown, and never a value. A state may be private, and what is printed ends in tickets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from dcaf.cli.inspection.drawn import count


def sizes(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each key by its name, and the bytes of its value as compact JSON."""
    return [(name, size(values[name])) for name in sorted(values)]


def rows(mirror: Mapping[str, Any], state: Mapping[str, Any], shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each key of a mirror and of the state, by its name, with what became of it.

    Args:
        mirror: As it came in; an empty one is none, and no key of the state is missing in it.
        state: What was sealed.
        shown: The mirror as it would have gone out.
    """
    return [
        (name, f"{size(state.get(name, mirror.get(name)))}{_became(name, mirror, shown)}") for name in sorted({*mirror, *state})
    ]


def is_changed(mirror: Mapping[str, Any], shown: Mapping[str, Any]) -> bool:
    """Whether a mirror shows what the state has not; what it leaves out it may leave out."""
    return any(name not in shown or not _is_same(mirror[name], shown[name]) for name in mirror)


def size(value: Any) -> str:
    """How many bytes a value takes."""
    try:
        return count(len(orjson.dumps(value)), "byte")
    except orjson.JSONEncodeError:
        return "nested too deep to be written"


def _became(name: str, mirror: Mapping[str, Any], shown: Mapping[str, Any]) -> str:
    if name not in shown:
        return ", planted: it is not in the state"
    if name not in mirror:
        return ", not mirrored" if mirror else ""
    return ", mirrored" if _is_same(mirror[name], shown[name]) else ", edited in the mirror"


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal to a client that knows one kind of number and no order of members."""
    try:
        return bool(_bare(one) == _bare(other))
    except RecursionError:
        return False


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return (value,) if isinstance(value, bool) else value  # in Python True is 1
