"""A window never splits a call from its results, keeps the order, is no larger than it may be, and is its own window."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

import pytest
from hypothesis import Phase, example, find, given, settings
from hypothesis import strategies as st

from dcaf.core.errors import ConfigurationError, DcafError
from dcaf.service.links import check_links
from dcaf.service.messages import Message
from dcaf.service.windows import INSTRUCTIONS, Plan, Summary, WindowTooSmallError, last, layers, summarize, tokens
from tests.promises.wrong_values import VALUES as WRONG
from tests.promises.wrong_values import put_away

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
often = settings(max_examples=max(50, int(2_500 * SCALE)), deadline=None)
quickly = settings(max_examples=2_000, phases=[Phase.generate], database=None)

Window = Callable[[Sequence[Message], int], list[Message]]


def say(role: str, content: str = "x") -> Message:
    return Message.of((role, content))


def ask(*ids: str) -> Message:
    calls = tuple({"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for call_id in ids)
    return Message("assistant", tool_calls=calls)


def answer(call_id: str) -> Message:
    return Message("tool", "x", tool_call_id=call_id)


@st.composite
def histories(draw: st.DrawFn, *, whole: bool = False) -> list[Message]:
    """What a store may hold: calls without an answer, results that come late, ids that come again, and a beginning that is cut off.

    Each message has its number, and its content has that many letters, which count as its tokens.
    """
    found, waiting = [say(role) for role in draw(st.lists(st.sampled_from(INSTRUCTIONS), max_size=2))], list[str]()
    for _ in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(["user", "assistant", "system", "ask", "answer", "answer"]))
        free = [one for one in "abcdef" if one not in waiting]
        if kind == "answer" and waiting:
            found.append(answer(waiting.pop(draw(st.integers(0, len(waiting) - 1)))))
        elif kind == "ask" and free:
            ids = draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=3))
            found.append(ask(*ids))
            waiting += ids
        else:
            found.append(say("user" if kind in ("ask", "answer") else kind))
    check_links(found)
    sizes = draw(st.lists(st.integers(1, 4), min_size=len(found), max_size=len(found)))
    found = [Message.of({**one.to_dict(), "content": size * "x"}) for one, size in zip(found, sizes, strict=True)]
    found = [one.placed(number=number, at_ms=0) for number, one in enumerate(found, 1)]
    return found if whole else found[draw(st.integers(0, 3)) :]


def count(message: Message) -> int:
    return len(message.content or "")


def in_tokens(messages: Sequence[Message], limit: int) -> list[Message]:
    return tokens(messages, limit, count)


def in_summary(messages: Sequence[Message], keep: int) -> list[Message]:
    return summarize(messages, keep, lambda older: f"{len(older)} messages")


def in_layers(messages: Sequence[Message], keep: int) -> list[Message]:
    return layers(messages, "facts", Summary(lambda older: f"{len(older)} messages", of=8), keep=keep)


WINDOWS: dict[str, Window] = {
    "last": last,
    "last without instructions": lambda messages, limit: last(messages, limit, instructions=False),
    "tokens": in_tokens,
    "summarize": in_summary,
    "layers": in_layers,
}
each_window = pytest.mark.parametrize("name", WINDOWS)


def show(window: Window, messages: Sequence[Message], limit: int) -> list[Message]:
    """The window; none where it says that it is too small."""
    try:
        return window(messages, limit)
    except WindowTooSmallError:
        return []


def is_whole(messages: Sequence[Message]) -> bool:
    """Whether each result follows its call, and all calls but those of the newest message are answered."""
    waiting: set[str] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return False
            waiting.remove(message.tool_call_id)
        elif waiting & (ids := {call["id"] for call in message.tool_calls}):
            return False
        else:
            waiting |= ids
    newest = next((message for message in reversed(messages) if message.role != "tool"), None)
    return newest is None or waiting <= {call["id"] for call in newest.tool_calls}


def read_numbers(messages: Iterable[Message]) -> list[int]:
    return [message.number for message in messages if message.number is not None]


# What holds of every window


@each_window
@often
@given(messages=histories(), limit=st.integers(1, 16))
@example(messages=[answer("a"), say("user")], limit=5)
@example(messages=[ask("a"), answer("a"), say("user")], limit=2)
@example(messages=[ask("a"), say("user"), answer("a")], limit=2)
@example(messages=[ask("a"), say("user")], limit=2)
@example(messages=[ask("a"), answer("a"), answer("a")], limit=5)
def test_no_window_splits_a_call_from_its_results(name: str, messages: list[Message], limit: int) -> None:
    assert is_whole(show(WINDOWS[name], messages, limit))


SPLITTERS: dict[str, Window] = {
    "a plain slice": lambda messages, limit: list(messages[-limit:]),
    "a slice without the results at its front": lambda messages, limit: _drop_front(messages[-limit:]),
    "a slice without results that have no call": lambda messages, limit: _drop_orphans(messages[-limit:]),
    "a slice that leaves out calls without results": lambda messages, limit: [
        one for one in messages[-limit:] if not one.tool_calls or find_results(messages, messages.index(one))
    ],
}


def _drop_front(messages: Sequence[Message]) -> list[Message]:
    first = next((place for place, message in enumerate(messages) if message.role != "tool"), len(messages))
    return list(messages[first:])


def _drop_orphans(messages: Sequence[Message]) -> list[Message]:
    ids = {call["id"] for message in messages for call in message.tool_calls}
    return [message for message in messages if message.role != "tool" or message.tool_call_id in ids]


@pytest.mark.parametrize("name", SPLITTERS)
def test_control_a_window_that_splits_is_caught(name: str) -> None:
    split = SPLITTERS[name]
    find(st.tuples(histories(), st.integers(1, 16)), lambda drawn: not is_whole(split(*drawn)), settings=quickly)


@each_window
@often
@given(messages=histories(), limit=st.integers(1, 16))
def test_a_window_keeps_the_order_and_every_message_as_it_is(name: str, messages: list[Message], limit: int) -> None:
    by_number = {message.number: message for message in messages}
    shown = [message for message in show(WINDOWS[name], messages, limit) if message.number is not None]
    assert read_numbers(shown) == sorted(set(read_numbers(shown)))
    assert all(message is by_number[message.number] for message in shown)


@pytest.mark.parametrize("name", [name for name in WINDOWS if name != "layers"])
@often
@given(messages=histories(), limit=st.integers(1, 16))
@example(messages=[say("user"), say("system"), say("user")], limit=2)
@example(messages=[say("system"), say("user"), say("system"), say("user")], limit=2)
def test_a_window_of_a_window_is_itself(name: str, messages: list[Message], limit: int) -> None:
    shown = show(WINDOWS[name], messages, limit)
    assert show(WINDOWS[name], shown, limit) == shown


def test_control_a_window_that_counts_from_the_front_is_not_its_own() -> None:
    def every_other(messages: Sequence[Message], limit: int) -> list[Message]:
        return list(messages[::2][-limit:])

    find(
        st.tuples(histories(), st.integers(1, 16)),
        lambda drawn: every_other(every_other(*drawn), drawn[1]) != every_other(*drawn),
        settings=quickly,
    )


@each_window
@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "5", None])
def test_a_size_is_a_whole_number_of_1_or_more(name: str, limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^(count|limit|keep)= takes a whole number"):
        WINDOWS[name]([say("user")], limit)


@each_window
def test_nothing_of_nothing_is_nothing_else(name: str) -> None:
    assert [one for one in WINDOWS[name]([], 5) if one.content != "facts"] == []


# How many messages are shown, and which


def whole_units(messages: Sequence[Message]) -> list[list[int]]:
    """The places of each unit, found one by one, in the order of their first messages."""
    found = [[place, *find_results(messages, place)] for place, message in enumerate(messages) if message.role != "tool"]
    return [unit for unit in found if unit is found[-1] or len(unit) == 1 + len(messages[unit[0]].tool_calls)]


def find_results(messages: Sequence[Message], caller: int) -> list[int]:
    later = range(caller + 1, len(messages))
    ids = [call["id"] for call in messages[caller].tool_calls]
    firsts = [next((place for place in later if messages[place].tool_call_id == call_id), None) for call_id in ids]
    return [place for place in firsts if place is not None]


def show_plainly(messages: Sequence[Message], limit: int, measure: Callable[[Message], int], *, opening_counts: bool) -> Any:
    """The largest window that fits, by trying each; None where the newest unit does not."""
    units = whole_units(messages)
    opening: list[list[int]] = []
    while units and messages[units[0][0]].role in INSTRUCTIONS:
        opening.append(units.pop(0))
    for first in range(len(units) + 1):
        newest, begin = [messages[place] for place in sorted(chain(*units[first:]))], [messages[place] for place in chain(*opening)]
        size = sum(map(measure, [*begin, *newest] if opening_counts else newest))
        if size <= limit and (newest or not units):
            return [*begin, *newest]
    return None


@often
@given(histories(), st.integers(1, 16))
def test_last_shows_the_newest_units_that_fit(messages: list[Message], limit: int) -> None:
    expected = show_plainly(messages, limit, lambda _: 1, opening_counts=False)
    if expected is None:
        with pytest.raises(WindowTooSmallError):
            last(messages, limit)
    else:
        assert last(messages, limit) == expected


@often
@given(histories(), st.integers(1, 30))
def test_tokens_shows_the_newest_units_that_fit(messages: list[Message], limit: int) -> None:
    expected = show_plainly(messages, limit, count, opening_counts=True)
    if expected is None:
        with pytest.raises(WindowTooSmallError):
            in_tokens(messages, limit)
    else:
        assert in_tokens(messages, limit) == expected
        assert sum(map(count, expected)) <= limit


@often
@given(histories(), st.integers(1, 16))
def test_summaries_and_layers_keep_the_newest_as_last_does(messages: list[Message], keep: int) -> None:
    newest = show(last, messages, keep)
    for window in (in_summary, in_layers):
        shown = show(window, messages, keep)
        own = [message for message in shown if message.number is None]
        assert len(own) <= 2
        assert set(read_numbers(newest)) <= set(read_numbers(shown))
        assert len(read_numbers(shown)) - len(read_numbers(newest)) <= 1, "one older message stands for itself"


@often
@given(histories(), st.integers(1, 8))
def test_each_message_is_kept_summarized_or_not_whole(messages: list[Message], keep: int) -> None:
    summarized: list[Message] = []

    def write(older: Sequence[Message]) -> str:
        summarized.extend(older)
        return "s"

    shown = show(lambda some, limit: summarize(some, limit, write), messages, keep)
    if shown:
        places = {message.number for message in (*summarized, *shown) if message.number is not None}
        assert places == {messages[place].number for unit in whole_units(messages) for place in unit}


def test_the_instructions_at_the_beginning_stay_and_do_not_count_as_messages() -> None:
    history = [say("system"), say("developer"), say("user", "1"), say("system", "2"), say("user", "3")]
    assert last(history, 1) == [*history[:2], history[4]]
    assert last(history, 2) == [*history[:2], *history[3:]]
    assert last(history, 1, instructions=False) == history[4:]
    assert last(history[:2], 1) == history[:2]


def test_the_instructions_count_as_tokens() -> None:
    history = [say("system", "aaa"), say("user", "bb"), say("user", "cc")]
    assert tokens(history, 6, count) == [history[0], history[2]]
    assert tokens(history, 7, count) == history
    assert tokens(history, 4, count, instructions=False) == history[1:]


def test_tokens_are_counted_only_as_far_as_they_fit() -> None:
    history, counted = [say("system"), *(say("user", str(number)) for number in range(1_000))], list[Message]()

    def count_one(message: Message) -> int:
        counted.append(message)
        return 1

    assert len(tokens(history, 10, count_one)) == 10
    assert counted == [history[0], *history[:-11:-1]]


def test_what_does_not_fit_and_cannot_be_split_is_an_error_with_both_sizes() -> None:
    history = [say("user"), ask("a", "b", "c"), answer("a"), answer("b"), answer("c")]
    with pytest.raises(WindowTooSmallError, match=r"^count= of this window is 3, and it would have 4 with its newest"):
        last(history, 3)
    with pytest.raises(WindowTooSmallError, match=r"^limit= of this window is 1,000, and it would have 1,003 with"):
        tokens([say("system", "abc"), say("user", "x" * 1_000)], 1_000, count)
    with pytest.raises(WindowTooSmallError, match=r"^keep= of this window is 2, "):
        in_summary(history, 2)
    with pytest.raises(WindowTooSmallError, match=r"^of= of this window is 3, "):
        layers([*history, say("user")], Summary(lambda _: "s", of=3), keep=1)


def test_a_call_waits_for_its_results_at_the_end_alone() -> None:
    waiting = [say("user"), ask("a", "b"), answer("a")]
    assert last(waiting, 5) == waiting
    assert last([*waiting, say("user", "Well?")], 5) == [waiting[0], say("user", "Well?")]
    late = [*waiting, say("user", "Well?"), answer("b")]
    assert last(late, 5) == late
    assert last(late, 4) == late[1:]
    assert last(late, 3) == [late[3]]


# Summaries and layers


def test_a_summary_says_what_the_older_messages_said() -> None:
    history = [say("system", "rules"), say("user", "1"), ask("a"), answer("a"), say("user", "2")]
    assert summarize(history, 1, lambda older: f"{len(older)}") == [history[0], say("user", "3"), history[4]]
    assert summarize(history, 1, lambda _: say("developer", "short")) == [history[0], say("developer", "short"), history[4]]
    with_rules = summarize(history, 1, lambda older: f"{len(older)}", instructions=False)
    assert with_rules == [say("user", "4"), history[4]]


@pytest.mark.parametrize("older", [0, 1])
def test_what_is_not_longer_than_its_summary_stays(older: int) -> None:
    history = [say("user", str(number)) for number in range(older + 2)]
    assert summarize(history, 2, lambda _: pytest.fail("there is nothing to summarize")) == history


def test_layers_stand_in_their_order_and_share_no_message() -> None:
    history = [say("user", str(number)) for number in range(100)]
    coarse, fine = Summary(lambda older: f"coarse {older[0].content}-{older[-1].content}", of=50), Summary(_name_ends, of=20)
    shown = layers(history, say("system", "facts"), coarse, fine, keep=5)
    assert [one.content for one in shown[:3]] == ["facts", "coarse 25-74", "75-94"]
    assert shown[3:] == history[95:]
    assert layers(history, keep=5) == history[95:]
    assert layers(history, Summary(_name_ends), fine, keep=5)[0].content == "0-74"
    assert len(layers(history, coarse, Summary(_name_ends), keep=5)) == 6, "the one that takes all leaves nothing to the other"


def _name_ends(older: Sequence[Message]) -> str:
    return f"{older[0].content}-{older[-1].content}"


async def _write_slowly(older: Sequence[Message]) -> str:
    await asyncio.sleep(0)
    return _name_ends(older)


def test_a_plan_has_the_tasks_of_functions_that_must_be_awaited() -> None:
    history = [say("user", str(number)) for number in range(9)]
    plan = Plan.of(history, Summary(_write_slowly), keep=2)

    async def run() -> list[Message]:
        return plan.build([await task.fn(task.messages) for task in plan.tasks])  # type: ignore[misc]

    assert asyncio.run(run()) == summarize(history, 2, _name_ends)
    with pytest.raises(ConfigurationError, match=r"^fn= takes a function that is called at once \(Plan\.of\(\) takes async ones\)"):
        summarize(history, 2, _write_slowly)  # type: ignore[arg-type]
    for wrong in ([], ["a", "b"], "a"):
        with pytest.raises(ConfigurationError, match=r"^Plan\.build\(\) takes .* in a list of their number, which is 1\.$"):
            plan.build(wrong)


@pytest.mark.parametrize("wrong", [None, 5, {"role": "user"}, ask("a"), answer("a"), "\ud800"])
def test_a_summary_is_a_text_or_a_message_that_stands_alone(wrong: Any) -> None:
    history = [say("user", str(number)) for number in range(9)]
    with pytest.raises(ConfigurationError, match=r"^fn= takes a text"):
        summarize(history, 2, lambda _: wrong)
    with pytest.raises(ConfigurationError, match=r"^layers\(\) takes a text"):
        layers(history, wrong, keep=2)


@pytest.mark.parametrize("number", [-1, 1.0, None, True, "5"])
def test_a_tokenizer_gives_whole_numbers(number: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^count= gives the number of tokens of a message"):
        tokens([say("user")], 5, lambda _: number)


@pytest.mark.parametrize("name", WRONG)
def test_whatever_a_window_is_given_by_mistake_ends_in_an_error_of_ours(name: str) -> None:
    history: list[Any] = [say("user", str(number)) for number in range(9)]
    calls: list[Callable[[Any], Any]] = [
        *(lambda value, window=window: window(value, 3) for window in WINDOWS.values()),
        *(lambda value, window=window: window(history, value) for window in WINDOWS.values()),
        lambda value: last(history, 3, instructions=value),
        lambda value: tokens(history, 3, value),
        lambda value: summarize(history, 3, value),
        lambda value: layers(history, value, keep=3),
        lambda value: layers(history, Summary(value), keep=3),
        lambda value: layers(history, Summary(_name_ends, of=value), keep=3),
        lambda value: Plan.of(history, Summary(_name_ends), keep=3).build(value),
        lambda value: Plan.of(history, Summary(_name_ends), keep=3).build([value]),
    ]
    for call in calls:
        value = WRONG[name]()
        try:
            call(value)
        except DcafError:
            pass
        except TypeError:
            assert callable(value), "only a function of theirs may raise something else"
        finally:
            put_away(value)


# How long it takes


@cache
def talk(length: int) -> list[Message]:
    """A history in which each fourth message calls a tool."""
    turns = [[say("user"), ask(f"c{turn}"), answer(f"c{turn}"), say("assistant")] for turn in range(length // 4)]
    return [message for turn in turns for message in turn]


def seconds(window: Callable[[list[Message]], object], messages: list[Message]) -> float:
    """The shortest of three runs."""
    found = []
    for _ in range(3):
        start = time.perf_counter()
        window(messages)
        found.append(time.perf_counter() - start)
    return min(found)


SPEED: dict[str, Callable[[list[Message]], object]] = {
    "last": lambda messages: last(messages, 50),
    "all": lambda messages: last(messages, 200_000),
    "tokens": lambda messages: tokens(messages, 200_000, lambda _: 1),
    "summarize": lambda messages: summarize(messages, 50, _name_ends),
    "layers": lambda messages: layers(messages, Summary(_name_ends), Summary(_name_ends, of=40_000), keep=10_000),
    "check_links": check_links,
}


@pytest.mark.alone
@pytest.mark.parametrize("name", SPEED)
def test_a_hundred_thousand_messages_take_a_second_and_five_times_as_long_as_a_fifth(name: str) -> None:
    long, short = seconds(SPEED[name], talk(100_000)), seconds(SPEED[name], talk(20_000))
    assert long < 1
    assert long < 12 * short


@pytest.mark.alone
def test_control_a_window_that_looks_through_the_history_for_each_call_is_caught() -> None:
    def count_results(messages: list[Message]) -> list[int]:
        ids = [call["id"] for message in messages for call in message.tool_calls]
        return [sum(message.tool_call_id == call_id for message in messages) for call_id in ids]

    assert seconds(count_results, talk(5_000)) > 12 * seconds(count_results, talk(1_000))
