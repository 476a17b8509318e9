r"""The lines of an export: JSON, one object a line, so that a file of any length is written and read line by line.

>>> line = write_line("state", {"key": "step"}, value=b"2")
>>> line
b'{"kind":"state","key":"step","value":2}\n'
>>> read_line(line, 7)
{'kind': 'state', 'key': 'step', 'value': 2}
>>> read_line(b'{"kind":"state","key":7,"value":2}', 8)
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: Line 8: key of a line of kind "state" is not as an export writes it.

The first line names format, version and application. Blocks follow: of the application, of a space of its documents, of
a user, or of a session. Each begins
with a line of that kind, and ends with a line ``end``, which counts the lines between. The last line is ``done``. What the lines
of a session said before a line ``void`` counts for nothing: it was changed while it was read, and follows again if it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import orjson

from dcaf.core.arguments import kind_of
from dcaf.core.errors import ConfigurationError
from dcaf.service.tables import SESSIONS

FORMAT: Final = "sessions"
VERSION: Final = 1

MOST_LINE_BYTES: Final = 64 * 1024 * 1024
"""How long a line may be. The longest is the first change of a session, which has the whole state with which it was made."""

TOO_LONG: Final = "A session has a row that is longer than the {:,} bytes that a line of an export may have."

Check: TypeAlias = Callable[[Any], bool]

LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: no datetime is later."""

FIRST_MS: Final = -62_135_596_800_000
"""The first of the year 1."""

MOST_COUNT: Final = 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_COUNT


def _is_moment(value: Any) -> bool:
    return type(value) is int and FIRST_MS <= value <= LAST_MS


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_change(value: Any) -> bool:
    if (
        not isinstance(value, dict)
        or value.keys() - {"rewind", "version"} != {"set", "delete"}
        or not _is_count(value.get("version", 0))
    ):
        return False
    return isinstance(value["set"], dict) and _is_list(value["delete"]) and value.get("rewind", True) is True


def _is_any(_: Any) -> bool:
    return True


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


LEFT_OUT: Final = ("birth", "dropped")
"""Columns of a session that are not exported: an import makes another session, which is there."""

COLUMNS: Final[dict[str, Check]] = {
    **{name: _or_none(_is_moment) for name in SESSIONS.columns if name not in LEFT_OUT},
    "id": _is_text,
    "user": _or_none(_is_text),
    **dict.fromkeys(("revision", "messages", "changes", "listed"), _is_count),
    **dict.fromkeys(("created", "updated"), _is_moment),
    "version": _or_none(_is_count),
    "title": _or_none(_is_text),
    "labels": _or_none(_is_texts),
    "metadata": _or_none(_is_object),
    "open_calls": _or_none(_is_list),
}
"""Member of the line of a session, which is a column of its row -> what it has to be; in this order."""

SHAPES: Final[dict[str, dict[str, Check]]] = {
    "app": {},
    "space": {"space": _is_text},
    "user": {"user": _is_text},
    "session": COLUMNS,
    "state": {"key": _is_text, "value": _is_any},
    "memory": {
        "key": _is_text,
        "shared": lambda value: isinstance(value, bool),
        **dict.fromkeys(("created", "updated"), _is_moment),
        "expires": _or_none(_is_moment),
        "value": _is_any,
    },
    "checkpoint": {"name": _is_text, **dict.fromkeys(("messages", "changes"), _is_count), "at": _is_moment, "state": _is_object},
    "document": {
        "key": _is_text,
        "revision": _is_count,
        "updated": _is_moment,
        "expires": _or_none(_is_moment),
        "binary": lambda value: isinstance(value, bool),
        "value": _is_any,
    },
    "message": {"number": _is_count, "revision": _is_count, "at": _is_moment, "message": _is_object},
    "change": {**dict.fromkeys(("number", "revision", "messages"), _is_count), "at": _is_moment, "change": _is_change},
    "void": {},
    "end": {"lines": _is_count},
    "done": {"sessions": _is_count},
}
"""Kind of a line -> its members, and what each has to be."""


def write_header(app: str) -> bytes:
    """The first line."""
    return orjson.dumps({"dcaf": FORMAT, "version": VERSION, "app": app}) + b"\n"


def write_line(kind: str, members: Mapping[str, Any] | None = None, **written: bytes) -> bytes:
    """A line, with its end.

    Args:
        kind: What it is about.
        members: Its members.
        written: Members that are JSON already, and come last.
    """
    found = orjson.dumps({"kind": kind, **(members or {})})
    return found[:-1] + b"".join(b',"%b":%b' % (name.encode(), data) for name, data in written.items()) + b"}\n"


def check_line(line: bytes) -> bytes:
    """Refuse a line that no import would take.

    Raises:
        ConfigurationError: It is too long.
    """
    if len(line) > MOST_LINE_BYTES:
        raise ConfigurationError(TOO_LONG.format(MOST_LINE_BYTES))
    return line


def check_header(line: object, app: str) -> None:
    """Refuse a first line of another format, another version, or another application.

    Raises:
        ConfigurationError: It is one.
    """
    found = _load(line, 1)
    if found.get("dcaf") != FORMAT:
        raise ConfigurationError("Line 1 is not that of an export of sessions.")
    if found.get("version") != VERSION:
        raise ConfigurationError(f"Line 1: the export is of another version than {VERSION}, the one that this release reads.")
    if found.get("app") != app:
        raise ConfigurationError("Line 1: the export is of another application. A service with its app= imports it.")


def read_line(line: object, number: int) -> dict[str, Any]:
    """Read a line behind the first.

    Args:
        line: A text, or bytes; with its end, or without.
        number: Its number, for errors, which name no value.

    Raises:
        ConfigurationError: It is none that an export writes, or is too long.
    """
    found = _load(line, number)
    kind = found.get("kind")
    shape = SHAPES.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise ConfigurationError(f"Line {number} is of no kind that an export has.")
    if found.keys() != {"kind", *shape}:
        raise ConfigurationError(f'Line {number} has not the members of a line of kind "{kind}".')
    for name, check in shape.items():
        if not check(found[name]):
            raise ConfigurationError(f'Line {number}: {name} of a line of kind "{kind}" is not as an export writes it.')
    return found


def _load(line: object, number: int) -> dict[str, Any]:
    if not isinstance(line, bytes | str):
        raise ConfigurationError(f"Line {number} is to be bytes or a text, not {kind_of(line)}.")
    if len(line) > MOST_LINE_BYTES:
        raise ConfigurationError(f"Line {number} is longer than {MOST_LINE_BYTES:,} bytes.")
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError(f"Line {number} is no JSON object.")
    return found
