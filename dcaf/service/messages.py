"""A message of a conversation in the shape of OpenAI's chat API: checked when it comes in, and kept as bytes.

>>> hello = Message.of({"role": "user", "content": "When is my appointment?"})
>>> hello.role, hello.content
('user', 'When is my appointment?')
>>> unpack(pack(hello), number=7, at_ms=1_767_225_600_000)
Message(role='user', number=7)

What a reader gets wrong: a message is a copy. Lists and dicts in its attributes are there to be read; who changes them changes
neither what is kept nor what ``to_dict`` gives.

A message that was read is bytes until somebody looks at it: a turn reads a window of messages, and few turns look at them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from dcaf.core.arguments import has_methods, items_of, kind_of, require, require_text
from dcaf.core.errors import ConfigurationError, SessionInvalid, SessionTypeError, SessionValueError
from dcaf.core.json_values import read, to_json, write
from dcaf.core.parts import join_path, key_step

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks in a message: the operator twice, the person, the model, and a tool that the model has called."""

Content: TypeAlias = "str | list[dict[str, Any]] | None"
"""What a message says: a text, or parts such as ``{"type": "text", "text": "Hello!"}``; None where the model only calls tools."""

Packed: TypeAlias = "tuple[bytes, int | None, int | None]"
"""What a message says, as JSON; its number, and when it was said, in milliseconds since the epoch. None for not kept yet."""

ROLES: Final[tuple[str, ...]] = get_args(Role)
ROLES_LISTED: Final = ", ".join(f'"{role}"' for role in ROLES)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)

REMEDY: Final = "Keep what is long elsewhere and a reference to it in the message, or raise the limit."


@dataclass(frozen=True, slots=True)
class Message:
    """What one side has said in a conversation.

    Args:
        role, content, tool_calls, tool_call_id, name, metadata, number, at: As the attributes.

    Raises:
        ConfigurationError: It is no message of this shape; the error names the member, and quotes no value.
        SessionValueError: A value may not be stored, such as a NaN.

    Raises, when one that was read from a history is first looked at:
        SessionTypeError: Its bytes are no message: another program, or a newer version, wrote them.

    Attributes:
        role: Who speaks.
        content: What they say. None is possible only where an assistant calls tools.
        tool_calls: The calls of an assistant: ``{"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}}``.
            The arguments are the text that the model has written, which need not be JSON.
        tool_call_id: Which call a tool answers; None in every other message.
        name: A name of who speaks, for the model; None for none.
        metadata: What the application keeps beside the message, and no model is shown; None for nothing.
        number: Its place in the history; None until it is kept there.
        at: When it was said, in UTC and whole milliseconds; None until it is kept, unless it was given.
    """

    role: Role
    content: Content = field(default=None, repr=False)
    _: KW_ONLY
    tool_calls: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    tool_call_id: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    metadata: dict[str, Any] | None = field(default=None, repr=False)
    number: int | None = None
    at: datetime | None = field(default=None, repr=False)
    _packed: Packed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ALL_CHECKS}
        _take(self, _drop_empty(given), "Message")

    if not TYPE_CHECKING:  # whose check of names would be over: any would be right

        def __getattr__(self, name: str) -> Any:
            if name not in ALL_CHECKS:
                raise AttributeError(name)
            self._fill(self._parse())
            return getattr(self, name)

    def __hash__(self) -> int:
        return hash((self.role, self.tool_call_id, self.number))

    @classmethod
    def of(
        cls, given: Message | Mapping[str, Any] | tuple[str, Content], *, limit_bytes: int | None = None, path: str = "message"
    ) -> Message:
        """Read a message from what an application has: a dict of OpenAI's shape, or a pair of role and content.

        A member that is None or an empty list counts as absent. A member that no message has is refused, because it would be
        lost; ``metadata`` keeps what belongs to none. Members of a call and of a part of the content are kept as they are.

        Args:
            given: A message, which is returned as it is; a mapping; or role and content.
            limit_bytes: The most bytes that the message may have as ``pack`` writes it; None for no limit.
            path: What the message is called in errors.

        Raises:
            ConfigurationError: It is no message; the error names the member, and quotes no value.
            SessionValueError: A value may not be stored, or the message is too long.
        """
        require_text("path=", path, "what the message is called in errors")
        message = given if isinstance(given, Message) else _take(object.__new__(Message), _read_members(given, path), path)
        _require_size(message, limit_bytes, path)
        return message

    @property
    def at_ms(self) -> int | None:
        """When it was said, in milliseconds since the epoch; None until it is kept, unless it was given."""
        return self._packed[2]

    def placed(self, *, number: int, at_ms: int) -> Message:
        """The same message at a place of a history.

        Args:
            number: Its number there.
            at_ms: When it was said, in milliseconds since the epoch.
        """
        return unpack(pack(self), number=number, at_ms=at_ms)

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """The message as OpenAI's chat API takes it: a new dict, in which members that are None are left out.

        Args:
            whole: Also give what is not for the model: ``metadata``, ``number``, and ``at`` as a text (RFC 3339). ``Message.of``
                reads them back.
        """
        found = self._parse()
        if not whole:
            found.pop("metadata", None)
            return found
        place = {"number": self.number, "at": None if self.at is None else self.at.isoformat(timespec="milliseconds")}
        return found | {name: value for name, value in place.items() if value is not None}

    def _parse(self) -> dict[str, Any]:
        """The members that say something.

        Raises:
            SessionTypeError: These are not the bytes of a message.
        """
        data, number, _ = self._packed
        try:
            members = read(data)
        except SessionInvalid:
            members = None
        if type(members) is not dict or "role" not in members or not MEMBERS.issuperset(members):
            raise SessionTypeError(f"entry {number} of the history is no message: another program, or a newer version, wrote it")
        return members

    def _fill(self, members: Mapping[str, Any]) -> None:
        """Have the members as attributes."""
        # Line by line, because each turn looks at a window of messages, and a loop takes a third longer.
        _, number, at_ms = self._packed
        put, get = object.__setattr__, members.get
        put(self, "role", members["role"])
        put(self, "content", get("content"))
        put(self, "tool_calls", tuple(get("tool_calls", ())))
        put(self, "tool_call_id", get("tool_call_id"))
        put(self, "name", get("name"))
        put(self, "metadata", get("metadata"))
        put(self, "number", number)
        put(self, "at", None if at_ms is None else EPOCH + at_ms * MILLISECOND)


def pack(message: Message) -> bytes:
    """Write what a message says as JSON; its number and its time are not in it."""
    return message._packed[0]


def unpack(data: bytes, *, number: int, at_ms: int) -> Message:
    """A message as ``pack`` wrote it. Bytes that are no message's are refused when somebody looks at it.

    Args:
        data: The bytes.
        number: Its place in the history.
        at_ms: When it was said, in milliseconds since the epoch.
    """
    message = object.__new__(Message)
    object.__setattr__(message, "_packed", (data, number, at_ms))
    return message


def require_messages(argument: str, value: Iterable[Message]) -> list[Message]:
    """Require several messages, and list them.

    Raises:
        ConfigurationError: It is something else, or one of them is no Message.
    """
    items = items_of(value)
    if items is None:
        raise ConfigurationError(f"{argument} takes a list of messages, not {kind_of(value)}.")
    for index, item in enumerate(items):
        if not isinstance(item, Message):
            raise ConfigurationError(f"{argument}[{index}] takes a Message, as Message.of() gives it, not {kind_of(item)}.")
    return items


def _take(message: Message, given: Mapping[str, Any], path: str) -> Message:
    """Fill a message with members that are checked first."""
    found = _check(given, path)
    number, at = found.pop("number", None), found.pop("at", None)
    packed: Packed = write(found), number, None if at is None else (at - EPOCH) // MILLISECOND
    object.__setattr__(message, "_packed", packed)
    message._fill(found)
    return message


def _read_members(given: Any, path: str) -> dict[str, Any]:
    """What a mapping or a pair says, without members that say nothing."""
    if isinstance(given, tuple) and len(given) == len(("role", "content")):
        return _drop_empty({"role": given[0], "content": given[1]})
    if not isinstance(given, Mapping):
        advice = " Give its model_dump()." if has_methods(given, "model_dump") else ""
        raise ConfigurationError(
            f'{path} takes a Message, a dict such as {{"role": "user", "content": "Hello!"}}, or a pair of role and content, '
            f"not {kind_of(given)}.{advice}"
        )
    members = _drop_empty(dict(given))
    for name in members:
        if name not in ALL_CHECKS:
            raise ConfigurationError(
                f"{path}{join_path([_name_of(name)])} would be lost: a message has {', '.join(ALL_CHECKS)}. Put what else "
                "you want to keep into metadata."
            )
    return members


def _name_of(key: object) -> str | int:
    step = key_step(key)
    return "None" if step is None else step


def _drop_empty(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if not (value is None or (type(value) in (list, tuple) and not value))}


def _check(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Copy the members of a message into plain JSON, its time into a datetime in UTC.

    Args:
        given: The members that say something; no others than a message has.
        path: What the message is called in errors.
    """
    found = {name: check(given[name], f"{path}.{name}") for name, check in ALL_CHECKS.items() if name in given}
    _check_role_fits(found, path)
    return found


def _check_role_fits(members: Mapping[str, Any], path: str) -> None:
    """Which members a message has depends on its role."""
    role = members.get("role")
    if role is None:
        raise ConfigurationError(f"{path}.role is missing. It is one of {ROLES_LISTED}.")
    if role == "tool" and "tool_call_id" not in members:
        raise ConfigurationError(f"{path}.tool_call_id is missing: the message of a tool says which call it answers.")
    if role != "tool" and "tool_call_id" in members:
        raise ConfigurationError(f'{path}.tool_call_id is for a message whose role is "tool".')
    if role != "assistant" and "tool_calls" in members:
        raise ConfigurationError(f'{path}.tool_calls are for a message whose role is "assistant".')
    if "content" not in members and "tool_calls" not in members:
        raise ConfigurationError(f"{path}.content is missing. Only a message that calls tools may have none.")


def _check_role(value: Any, path: str) -> str:
    takes = f"one of {ROLES_LISTED}"
    role = str.__str__(require(path, value, str, takes))
    if role not in ROLES:
        raise ConfigurationError(f"{path} takes {takes}, not another text.")
    return role


def _check_text(value: Any, path: str) -> str:
    text = to_json(str.__str__(require(path, value, str, "a text")), path=path)
    return cast("str", text)


def _check_name(value: Any, path: str) -> str:
    text = _check_text(value, path)
    if not text:
        raise ConfigurationError(f"{path} takes a text that is not empty.")
    return text


def _check_content(value: Any, path: str) -> str | list[Any]:
    if isinstance(value, str):
        return _check_text(value, path)
    require(path, value, (list, tuple), "a text or a list of parts")
    for index, part in enumerate(value):
        _check_member(require(f"{path}[{index}]", part, Mapping, "a dict"), "type", f"{path}[{index}]")
    return cast("list[Any]", to_json(value, path=path))


def _check_calls(value: Any, path: str) -> list[Any]:
    seen: set[str] = set()
    for index, call in enumerate(require(path, value, (list, tuple), "a list of calls")):
        where = f"{path}[{index}]"
        call_id = _check_call(require(where, call, Mapping, "a dict"), where)
        if call_id in seen:
            raise ConfigurationError(f"{where}.id is that of another call of the same message.")
        seen.add(call_id)
    return cast("list[Any]", to_json(value, path=path))


def _check_call(call: Mapping[str, Any], path: str) -> str:
    """The id of a call."""
    if _check_member(call, "type", path) != "function":
        raise ConfigurationError(f'{path}.type takes "function": no other kind of call is known here.')
    function = require(f"{path}.function", call.get("function"), Mapping, "a dict with name and arguments")
    _check_member(function, "name", f"{path}.function")
    _check_text(function.get("arguments"), f"{path}.function.arguments")
    return _check_member(call, "id", path)


def _check_member(members: Mapping[str, Any], name: str, path: str) -> str:
    if name not in members:
        raise ConfigurationError(f"{path}.{name} is missing. It is a text.")
    return _check_name(members[name], f"{path}.{name}")


def _check_metadata(value: Any, path: str) -> dict[str, Any]:
    return cast("dict[str, Any]", to_json(require(path, value, Mapping, "a dict"), path=path))


def _check_number(value: Any, path: str) -> int:
    if require(path, value, int, "a whole number") < 0:
        raise ConfigurationError(f"{path} takes a whole number, 0 or more.")
    return int(value)


def _check_at(value: Any, path: str) -> datetime:
    takes = "a datetime with a time zone, such as datetime.now(UTC), or its text"
    moment = require(path, _parse_time(value), datetime, takes)
    if moment.utcoffset() is None:
        raise ConfigurationError(f"{path} takes {takes}; this one has no time zone.")
    try:
        return EPOCH + (moment - EPOCH) // MILLISECOND * MILLISECOND
    except OverflowError:
        raise ConfigurationError(f"{path} takes a moment of the years 1 to 9999 in UTC.") from None


def _parse_time(value: Any) -> Any:
    """A datetime, where the value is the text of one."""
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _require_size(message: Message, limit_bytes: int | None, path: str) -> None:
    if limit_bytes is None:
        return
    if require("limit_bytes=", limit_bytes, int, "a number of bytes, or None") < 1:
        raise ConfigurationError("limit_bytes= takes a number of bytes, 1 or more, or None for no limit.")
    if len(pack(message)) > limit_bytes:
        raise SessionValueError(f"{path} has {len(pack(message)):,} bytes, and may have {limit_bytes:,}. {REMEDY}")


CHECKS: Final[dict[str, Callable[[Any, str], Any]]] = {
    "role": _check_role,
    "content": _check_content,
    "tool_calls": _check_calls,
    "tool_call_id": _check_name,
    "name": _check_name,
    "metadata": _check_metadata,
}
"""What ``pack`` writes of a message, in this order -> what checks it and copies it into plain JSON."""

MEMBERS: Final = frozenset(CHECKS)

PLACE: Final[dict[str, Callable[[Any, str], Any]]] = {"number": _check_number, "at": _check_at}
"""What says where and when a message was said, which a store keeps beside the bytes -> what checks it."""

ALL_CHECKS: Final = CHECKS | PLACE
