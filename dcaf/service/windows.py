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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, TypeAlias

from dcaf.core.arguments import items_of, kind_of, require, require_bool, require_function, require_plain_function, require_text
from dcaf.core.errors import ConfigurationError, StateError
from dcaf.service.messages import Message, require_messages

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
        instructions: Whether the messages of the operator with which these messages begin come first, however old they are.

    Raises:
        ConfigurationError: The count is less than 1, or something is of a wrong type.
        WindowTooSmallError: The newest unit has more messages.
    """
    _require_count("count=", count)
    opening, units = _open(messages, keeps_instructions=instructions)
    return [*opening.flatten(), *_take_newest(units, count, "count=", len).flatten()]


def tokens(messages: Iterable[Message], limit: int, count: Callable[[Message], int], *, instructions: bool = True) -> list[Message]:
    """The newest messages that have at most so many tokens together.

    Args:
        messages: The history or its end, oldest first.
        limit: How many tokens. The instructions count too, because the model reads them with the rest.
        count: Counts the tokens of one message, as the model's tokenizer does. It is called for the instructions, and from the
            newest message on until no more fit.
        instructions: Whether the messages of the operator with which these messages begin come first, however old they are.

    Raises:
        ConfigurationError: The limit is less than 1, the count is no whole number, or something is of a wrong type.
        WindowTooSmallError: The newest unit has more tokens than the instructions leave. Nothing is cut.
    """
    _require_count("limit=", limit)
    require_plain_function("count=", count, "a function that gives the number of tokens of a message")
    opening, units = _open(messages, keeps_instructions=instructions)
    begin = opening.flatten()
    newest = _take_newest(units, limit, "limit=", lambda unit: _count_tokens(unit, count), _count_tokens(begin, count))
    return [*begin, *newest.flatten()]


def summarize(messages: Iterable[Message], keep: int, fn: Summarize, *, instructions: bool = True) -> list[Message]:
    """The newest messages as they are, and one message instead of all that are older.

    One older message stands for itself. ``Plan`` does the same where the function is async.

    Args:
        messages: The whole history, oldest first.
        keep: How many messages are kept as they are, at most.
        fn: Gets the older ones, and returns what stands for them: a text, which becomes a message of the user, since what users
            have said must not become an instruction of the operator; or a Message. It is called each time: keep what it returned
            by the number of the last message.
        instructions: Whether the messages of the operator with which these messages begin come first and are not summarized.

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
        instructions: Whether the messages of the operator with which these messages begin come first and are in no layer.

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
        before = _plan_older(older, units.cut(0, len(units.begins) - len(newest.begins)))
        return cls((*opening.flatten(), *before, *newest.flatten()))

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
        found, due = items_of(written), len(self.tasks)
        if isinstance(written, str) or found is None or len(found) != due:
            raise ConfigurationError(f"Plan.build() takes what its tasks have returned, in a list of their number, which is {due}.")
        summaries = iter(found)
        return [_read_summary("fn=", next(summaries)) if isinstance(part, Task) else part for part in self.parts]


def _plan_older(older: Sequence[Summary | Message | str], units: _Units) -> list[Message | Task]:
    """What stands before the newest messages; the layers that are next to them are filled first."""
    parts: list[Message | Task] = []
    for layer in reversed(older):
        if not isinstance(layer, Summary):
            parts.append(_read_summary("layers()", layer))
            continue
        covered = _cover(layer, units)
        units = units.cut(0, len(units.begins) - len(covered.begins))
        parts += _plan_summary(layer, covered.flatten())
    return parts[::-1]


def _cover(layer: Summary, units: _Units) -> _Units:
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


class _Units(NamedTuple):
    """The whole units of a history, in the order in which they begin.

    They are places in the history and not lists of messages: Python's garbage collector looks at every list again and again.

    Attributes:
        messages: The history.
        begins: The place of the first message of each unit.
        results: Place of a message with calls -> the places of their results.
    """

    messages: Sequence[Message]
    begins: Sequence[int]
    results: Mapping[int, Sequence[int]]

    def cut(self, first: int, end: int | None = None) -> _Units:
        """Some of the units."""
        return self._replace(begins=self.begins[first:end])

    def list_unit(self, begin: int) -> list[Message]:
        """The messages of the unit that begins at a place."""
        return [self.messages[place] for place in (begin, *self.results.get(begin, ()))]

    def flatten(self) -> list[Message]:
        """The messages in the order of the history: a result may come long after its call."""
        places = [place for begin in self.begins for place in (begin, *self.results.get(begin, ()))]
        return [self.messages[place] for place in sorted(places)]


def _open(messages: Iterable[Message], *, keeps_instructions: bool) -> tuple[_Units, _Units]:
    """The whole units of a history: the instructions with which it begins, where they are kept, and the others."""
    units = _find_units(require_messages("messages", messages))
    rest = 0
    if require_bool("instructions=", keeps_instructions):
        roles = (units.messages[begin].role for begin in units.begins)
        rest = next((at for at, role in enumerate(roles) if role not in INSTRUCTIONS), len(units.begins))
    return units.cut(0, rest), units.cut(rest)


def _find_units(messages: Sequence[Message]) -> _Units:
    """The units that no message is missing of; the newest may wait for results."""
    begins: list[int] = []
    results: dict[int, list[int]] = {}
    callers: dict[str | None, int] = {}  # the id of a call without a result -> the place of its message
    for place, message in enumerate(messages):
        if message.role != "tool":
            begins.append(place)
            if message.tool_calls:
                results[place] = []
                callers.update((call["id"], place) for call in message.tool_calls)
        elif message.tool_call_id in callers:
            results[callers.pop(message.tool_call_id)].append(place)
    return _Units(messages, [begin for begin in begins if begin == begins[-1] or _is_whole(messages, begin, results)], results)


def _is_whole(messages: Sequence[Message], begin: int, results: Mapping[int, Sequence[int]]) -> bool:
    return begin not in results or len(results[begin]) == len(messages[begin].tool_calls)


def _take_newest(units: _Units, limit: int, argument: str, measure: Callable[[list[Message]], int], taken: int = 0) -> _Units:
    """The newest units that fit.

    Args:
        units: All of them.
        limit: How large they may be together.
        argument: What the limit is called in an error.
        measure: The size of a unit.
        taken: What is taken of the limit already.
    """
    size, first = taken, len(units.begins)
    while first > 0 and size <= limit:
        size += measure(units.list_unit(units.begins[first - 1]))
        first -= size <= limit
    if size > limit and first == len(units.begins):
        raise WindowTooSmallError(
            f"{argument} of this window is {limit:,}, and it would have {size:,} with its newest message alone, or with the newest "
            "call of tools and its results, which are not split. Make the window larger, or the messages shorter."
        )
    return units.cut(first)


def _count_tokens(messages: Iterable[Message], count: Callable[[Message], int]) -> int:
    return sum(_require_tokens(count(message)) for message in messages)


def _require_tokens(number: int) -> int:
    if type(number) is not int or number < 0:
        raise ConfigurationError(
            f"count= gives the number of tokens of a message, a whole number of 0 or more, not {kind_of(number)}."
        )
    return number


def _require_count(argument: str, number: int) -> None:
    if require(argument, number, int, "a whole number") < 1:
        raise ConfigurationError(f"{argument} takes a whole number, 1 or more.")
