"""Which messages of a history a model is shown: the newest, as many as fit, or a summary of the older ones.

>>> call = {"id": "c1", "type": "function", "function": {"name": "find_appointment", "arguments": "{}"}}
>>> history = [
...     Message("system", "You are a clinic's assistant."),
...     Message("user", "When is my appointment?"),
...     Message("assistant", tool_calls=(call,)),
...     Message("tool", "At 2 pm.", tool_call_id="c1"),
...     Message("assistant", "It is at 2 pm."),
... ]
>>> [message.role for message in last(history, 3)]
['system', 'assistant', 'tool', 'assistant']
>>> [message.role for message in last(history, 2)]
['system', 'assistant']
>>> [message.content for message in summarize(history, 1, lambda older: f"{len(older)} messages about an appointment.")]
["You are a clinic's assistant.", '3 messages about an appointment.', 'It is at 2 pm.']

No window splits a call from its results: an assistant's message with calls and all the results of those are one unit. A unit is
left out where a result is missing, or the call, because models' services refuse such a history. Only the newest unit may wait for
results: they are still to come.

What a reader gets wrong: a window is a view. It changes nothing in the store, and where a unit is left out, the window has fewer
messages than it may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar, Final, NamedTuple, TypeAlias

from dcaf.core.arguments import kind_of, require, require_bool, require_function, require_plain_function, require_text
from dcaf.core.errors import ConfigurationError, StateError
from dcaf.service.messages import Message, require_messages

Unit: TypeAlias = list[tuple[int, Message]]
"""A message, and where it calls tools, their results after it; each with its place in the sequence that was given."""

Summarize: TypeAlias = Callable[[Sequence[Message]], "str | Message"]
"""Makes one message of several, which come oldest first."""

INSTRUCTIONS: Final = ("system", "developer")
"""The roles in which the operator speaks."""

PLAIN: Final = "a function that is called at once (Plan.of() takes async ones)"


class WindowTooSmallError(StateError):
    """The newest messages are larger than the window, and cannot be split; the message says both sizes."""

    code: ClassVar[str] = "window-too-small"


def last(messages: Iterable[Message], count: int, *, instructions: bool = True) -> list[Message]:
    """The newest messages, at most so many.

    Args:
        messages: The history or its end, oldest first.
        count: How many. The instructions do not count.
        instructions: Whether the messages of the operator with which the history begins come first, however old they are.

    Raises:
        ConfigurationError: The count is less than 1, or something is of a wrong type.
        WindowTooSmallError: The newest unit has more messages.
    """
    _require_count("count=", count)
    opening, units = _open(messages, keeps_instructions=instructions)
    return [*_flatten(opening), *_flatten(_take_newest(units, count, "count=", len))]


def tokens(messages: Iterable[Message], limit: int, count: Callable[[Message], int], *, instructions: bool = True) -> list[Message]:
    """The newest messages that have at most so many tokens together.

    Args:
        messages: The history or its end, oldest first.
        limit: How many tokens. The instructions count too, because the model reads them with the rest.
        count: Counts the tokens of one message, as the model's tokenizer does. It is called for the instructions, and from the
            newest message on until no more fit.
        instructions: Whether the messages of the operator with which the history begins come first, however old they are.

    Raises:
        ConfigurationError: The limit is less than 1, the count is no whole number, or something is of a wrong type.
        WindowTooSmallError: The newest unit has more tokens than the instructions leave. Nothing is cut.
    """
    _require_count("limit=", limit)
    require_plain_function("count=", count, "a function that gives the number of tokens of a message")
    opening, units = _open(messages, keeps_instructions=instructions)
    taken = sum(_count_tokens(unit, count) for unit in opening)
    newest = _take_newest(units, limit, "limit=", lambda unit: _count_tokens(unit, count), taken)
    return [*_flatten(opening), *_flatten(newest)]


def summarize(messages: Iterable[Message], keep: int, fn: Summarize, *, instructions: bool = True) -> list[Message]:
    """The newest messages as they are, and one message instead of all that are older.

    One older message stands for itself. ``Plan`` does the same where the function is async.

    Args:
        messages: The whole history, oldest first.
        keep: How many messages are kept as they are, at most.
        fn: Gets the older ones, and returns what stands for them: a text, which becomes a message of the user, since what users
            have said must not become an instruction of the operator; or a Message. It is called each time: keep what it returned
            by the number of the last message.
        instructions: Whether the messages of the operator with which the history begins come first and are not summarized.

    Raises:
        ConfigurationError, WindowTooSmallError: As ``layers``.
    """
    return layers(messages, Summary(fn), keep=keep, instructions=instructions)


def layers(messages: Iterable[Message], *older: Summary | Message | str, keep: int, instructions: bool = True) -> list[Message]:
    """A window in layers: facts about what is long ago, summaries of what is older, and the newest messages as they are.

    >>> history = [Message("user", f"This is number {number}.") for number in range(100)]
    >>> window = layers(history, "Known facts: none.", Summary(lambda some: f"{len(some)} more.", of=60), keep=2)
    >>> [message.content for message in window]
    ['Known facts: none.', '60 more.', 'This is number 98.', 'This is number 99.']

    Args:
        messages: The history or its end, oldest first.
        older: What stands before the newest messages, in this order: a text or a Message as it is, a Summary of the messages next
            to those that come after it. What is older than all of them is left out.
        keep: How many messages are kept as they are, at most.
        instructions: Whether the messages of the operator with which the history begins come first and are in no layer.

    Raises:
        ConfigurationError: A number is less than 1, a function is async or returns no message, or something is of a wrong type.
        WindowTooSmallError: The newest unit of the messages to keep, or of a summary, has more messages than that.
    """
    plan = Plan.of(messages, *older, keep=keep, instructions=instructions)
    return plan.build([require_plain_function("fn=", task.fn, PLAIN)(task.messages) for task in plan.tasks])


class Summary(NamedTuple):
    """A layer in which one message stands for several.

    Attributes:
        fn: Gets the messages, oldest first, and returns a text or a Message; async where a ``Plan`` takes it.
        of: For how many messages it stands, at most; None for all that are left.
    """

    fn: Callable[[Sequence[Message]], object]
    of: int | None = None


class Task(NamedTuple):
    """A summary that has to be written.

    Attributes:
        fn: What writes it.
        messages: Of which messages, oldest first.
    """

    fn: Callable[[Sequence[Message]], object]
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class Plan:
    """A window of which some parts have yet to be written, by whoever can wait for them.

    >>> history = [Message("user", f"This is number {number}.") for number in range(100)]
    >>> plan = Plan.of(history, Summary(len), keep=1)
    >>> [task.fn(task.messages) for task in plan.tasks]
    [99]
    >>> [message.content for message in plan.build(["Ninety-nine more."])]
    ['Ninety-nine more.', 'This is number 99.']

    Attributes:
        parts: The window in order: messages as they are, and tasks.
    """

    parts: tuple[Message | Task, ...]

    @classmethod
    def of(cls, messages: Iterable[Message], *older: Summary | Message | str, keep: int, instructions: bool = True) -> Plan:
        """Plan a window in layers.

        Args:
            messages, older, keep, instructions: As of ``layers``; functions of summaries may be async.

        Raises:
            ConfigurationError, WindowTooSmallError: As ``layers``.
        """
        _require_count("keep=", keep)
        opening, units = _open(messages, keeps_instructions=instructions)
        newest = _take_newest(units, keep, "keep=", len)
        before = _plan_older(older, units[: len(units) - len(newest)])
        return cls((*_flatten(opening), *before, *_flatten(newest)))

    @property
    def tasks(self) -> list[Task]:
        """The summaries that have to be written, in the order of the window; none where nothing is old enough."""
        return [part for part in self.parts if isinstance(part, Task)]

    def build(self, written: Iterable[object]) -> list[Message]:
        """The window.

        Args:
            written: What the functions of ``tasks`` have returned, in their order.

        Raises:
            ConfigurationError: There are more or fewer, or one is neither a text nor a message that may stand alone.
        """
        found = list(written)
        if len(found) != len(self.tasks):
            raise ConfigurationError(
                f"Plan.build() takes what its {len(self.tasks)} tasks have returned, not {len(found)} results."
            )
        summaries = iter(found)
        return [_read_summary("fn=", next(summaries)) if isinstance(part, Task) else part for part in self.parts]


def _plan_older(older: Sequence[Summary | Message | str], units: list[Unit]) -> list[Message | Task]:
    """What stands before the newest messages; the layers that are next to them are filled first."""
    parts: list[Message | Task] = []
    for layer in reversed(older):
        if not isinstance(layer, Summary):
            parts.append(_read_summary("layers()", layer))
            continue
        covered = _cover(layer, units)
        units = units[: len(units) - len(covered)]
        parts += _plan_summary(layer, _flatten(covered))
    return parts[::-1]


def _cover(layer: Summary, units: list[Unit]) -> list[Unit]:
    """The units that a summary stands for."""
    require_function("fn=", layer.fn, "a function of messages that returns a text or a Message")
    if layer.of is None:
        return units
    _require_count("of=", layer.of)
    return _take_newest(units, layer.of, "of=", len)


def _plan_summary(layer: Summary, covered: list[Message]) -> list[Message | Task]:
    """One message stands for itself: a summary would not be shorter by a message."""
    return [Task(layer.fn, covered)] if len(covered) > 1 else [*covered]


def _read_summary(argument: str, written: object) -> Message:
    """A text as a message of the user; a message as it is."""
    if isinstance(written, str):
        return Message("user", require_text(argument, written, "what stands for several messages"))
    message = require(argument, written, Message, "a text or a Message")
    if message.role == "tool" or message.tool_calls:
        raise ConfigurationError(f"{argument} takes a text or a Message that neither calls tools nor answers a call.")
    return message


def _open(messages: Iterable[Message], *, keeps_instructions: bool) -> tuple[list[Unit], list[Unit]]:
    """The whole units of a history: the instructions with which it begins, where they are kept, and the others."""
    units = _find_units(require_messages("messages", messages))
    if not require_bool("instructions=", keeps_instructions):
        return [], units
    rest = next((place for place, unit in enumerate(units) if unit[0][1].role not in INSTRUCTIONS), len(units))
    return units[:rest], units[rest:]


def _find_units(messages: Sequence[Message]) -> list[Unit]:
    """The units that no message is missing of, in the order in which they begin; the newest may wait for results."""
    units: list[Unit] = []
    callers: dict[str | None, Unit] = {}  # the id of a call without a result -> the unit that made it
    for place, message in enumerate(messages):
        if message.role == "tool":
            callers.pop(message.tool_call_id, []).append((place, message))  # where the call is missing, so is its unit
            continue
        unit = [(place, message)]
        units.append(unit)
        callers.update((call["id"], unit) for call in message.tool_calls)
    return [unit for unit in units if unit is units[-1] or len(unit) == 1 + len(unit[0][1].tool_calls)]


def _take_newest(units: list[Unit], limit: int, argument: str, measure: Callable[[Unit], int], taken: int = 0) -> list[Unit]:
    """The newest units that fit, oldest first.

    Args:
        units: All of them, oldest first.
        limit: How large they may be together.
        argument: What the limit is called in an error.
        measure: The size of a unit.
        taken: What is taken of the limit already.
    """
    size, first = taken, len(units)
    while first > 0:
        size += measure(units[first - 1])
        if size > limit:
            break
        first -= 1
    if size > limit and first == len(units):
        raise WindowTooSmallError(
            f"{argument} of this window is {limit:,}, and it would have {size:,} with its newest message alone, or with the newest "
            "call of tools and its results, which are not split. Make the window larger, or the messages shorter."
        )
    return units[first:]


def _flatten(units: Iterable[Unit]) -> list[Message]:
    """The messages of units in the order of the history: a result may come long after its call."""
    found = [item for unit in units for item in unit]
    return [message for _, message in sorted(found, key=itemgetter(0))]


def _count_tokens(unit: Unit, count: Callable[[Message], int]) -> int:
    return sum(_require_tokens(count(message)) for _, message in unit)


def _require_tokens(number: int) -> int:
    if type(number) is not int or number < 0:
        raise ConfigurationError(
            f"count= gives the number of tokens of a message, a whole number of 0 or more, not {kind_of(number)}."
        )
    return number


def _require_count(argument: str, number: int) -> None:
    if require(argument, number, int, "a whole number") < 1:
        raise ConfigurationError(f"{argument} takes a whole number, 1 or more.")
