"""What is made of a tool has its settings, or is refused: whatever it is made with, nothing runs that a person has not approved."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import anyio.from_thread
import pytest

from dcaf import ConfigurationError, Session, Tool, tool
from dcaf.agent import Agent
from dcaf.core import ToolApprovalError
from dcaf.tools import Call, Result, ToolRunner

module = sys.modules["dcaf.tools.tool"]  # the package has the function by that name

RAN: list[str] = []
SETTINGS: dict[str, Any] = {
    "name": "wipe_disk",
    "description": "Wipe it, for good.",
    "requires_approval": True,
    "parallel": True,
    "timeout": timedelta(seconds=3),
    "strict": True,
}


@tool(**SETTINGS)
def wipe(disk: str, session: Session, speed: int = 1) -> str:
    """Wipe a disk.

    Args:
        disk: Which.
    """
    RAN.append(disk)
    return f"wiped {disk}"


class Disks:
    @tool(**SETTINGS)
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"

    @classmethod
    @tool(**SETTINGS)
    def below(cls, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"

    @tool(**SETTINGS)
    @classmethod
    def above(cls, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"

    @staticmethod
    @tool(**SETTINGS)
    def static(disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"

    partly = functools.partialmethod(wipe)

    @functools.singledispatchmethod
    @tool(**SETTINGS)
    def dispatched(self, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"


class Inherited(Disks): ...


class Called:
    @tool(**SETTINGS)
    def __call__(self, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"


def audited(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*values: Any, **named: Any) -> Any:
        return function(*values, **named)

    return inner


def audited_async(function: Any) -> Any:
    @functools.wraps(function)
    async def inner(*values: Any, **named: Any) -> Any:
        return function(*values, **named)

    return inner


def copying(function: Any) -> Any:
    def inner(disk: str, session: Session, speed: int = 1) -> Any:
        return function(disk, session, speed)

    inner.__dict__.update(function.__dict__)
    return inner


def unwrapped(function: Any) -> Any:
    inner = copying(function)
    del inner.__dict__["__wrapped__"]
    return inner


class Audited:
    def __init__(self, function: Any) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self.function(*values, **named)


class Proxy:
    """As wrapt and werkzeug make them: it answers for another object."""

    def __init__(self, function: Any) -> None:
        self.__dict__["__wrapped__"] = function

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    @__class__.setter
    def __class__(self, _: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self.__wrapped__(*values, **named)


@contextlib.contextmanager
def timed() -> Iterator[None]:
    yield


class Decorated:
    @audited
    @tool(**SETTINGS)
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return f"wiped {disk}"


KEEPING: dict[str, Callable[[], Any]] = {
    "the tool": lambda: wipe,
    "a tool of it": lambda: Tool(wipe),
    "stacked": lambda: tool(tool(tool(wipe))),
    "two names": lambda: tool(name=SETTINGS["name"])(tool(name="other")(wipe)),
    "a copy": lambda: copy.copy(wipe),
    "a deep copy": lambda: copy.deepcopy(wipe),
    "replaced": lambda: wipe.__replace__(timeout=SETTINGS["timeout"]),
    "decorated": lambda: audited(wipe),
    "decorated twice": lambda: audited(audited_async(wipe)),
    "decorated by an async function": lambda: audited_async(wipe),
    "decorated by an object": lambda: Audited(wipe),
    "decorated by a context manager": lambda: timed()(wipe),
    "a copy of its attributes": lambda: copying(wipe),
    "a copy of its attributes, without __wrapped__": lambda: unwrapped(wipe),
    "behind a proxy": lambda: Proxy(wipe),
    "a partial": lambda: functools.partial(wipe),
    "a partial of a partial": lambda: functools.partial(functools.partial(wipe)),
    "a partial, decorated": lambda: audited(functools.partial(wipe)),
    "a partial of what is decorated": lambda: functools.partial(audited(wipe)),
    "cached": lambda: functools.lru_cache(wipe),
    "dispatched": lambda: functools.singledispatch(wipe),
    "of an object": lambda: Disks().wipe,
    "of an object, inherited": lambda: Inherited().wipe,
    "of an object, renamed": lambda: tool(name=SETTINGS["name"])(Disks().wipe),
    "of an object, decorated": lambda: audited(Disks().wipe),
    "of an object, as a partial": lambda: functools.partial(Disks().wipe),
    "of a copied object": lambda: copy.deepcopy(Disks()).wipe,
    "of an object, copied": lambda: copy.deepcopy(Disks().wipe),
    "in the object": lambda: SimpleNamespace(wipe=wipe).wipe,
    "of a class": lambda: Disks.above,
    "of a class, of an object of it": lambda: Disks().above,
    "of a class, inherited": lambda: Inherited.above,
    "below classmethod": lambda: Disks.below,
    "below staticmethod": lambda: Disks.static,
    "a partial method": lambda: Disks().partly,
    "a decorated method": lambda: Decorated().wipe,
    "an object with __call__": Called,
}


def run(made: Tool[..., Any], *, is_approved: bool) -> Result:
    RAN.clear()
    call = Call(made, {"disk": "a"}, is_approved=is_approved)
    (result,) = asyncio.run(ToolRunner.of(Session()).run_all([call]))
    return result


@pytest.mark.parametrize("make", KEEPING.values(), ids=KEEPING)
def test_what_is_made_of_a_tool_has_its_settings(make: Callable[[], Any]) -> None:
    made = tool(make())
    assert {name: getattr(made, name) for name in ("name", "description", "requires_approval", "parallel", "timeout")} == {
        name: SETTINGS[name] for name in ("name", "description", "requires_approval", "parallel", "timeout")
    }
    assert made.input_schema["required"] == ["disk", "speed"], "the strict form"
    assert isinstance(run(made, is_approved=False).error, ToolApprovalError)
    assert RAN == []


@pytest.mark.parametrize("make", [make for name, make in KEEPING.items() if name not in ("cached", "dispatched")])
def test_it_runs_where_a_person_has_approved_it(make: Callable[[], Any]) -> None:
    assert run(tool(make()), is_approved=True).text == "wiped a"
    assert RAN == ["a"]


def test_control_without_a_look_at_what_stands_below_it_runs_unapproved(monkeypatch: Any) -> None:
    monkeypatch.setattr("dcaf.tools.settings.find_settings", lambda _: None)
    monkeypatch.setattr(module, "find_named", lambda _: [])
    monkeypatch.setattr(module, "is_call_approved", lambda: None)
    with pytest.raises(AssertionError):
        test_what_is_made_of_a_tool_has_its_settings(KEEPING["decorated"])
    assert run(tool(audited(wipe)), is_approved=False).text == "wiped a"


def test_what_is_given_anew_counts_and_the_rest_stays() -> None:
    made = tool(name="wipe_now", timeout=timedelta(seconds=9), parallel=False, strict=False, description="Now.")(wipe)
    assert (made.name, made.timeout, made.parallel, made.description) == ("wipe_now", timedelta(seconds=9), False, "Now.")
    assert made.requires_approval
    assert made.input_schema["required"] == ["disk"]
    assert wipe.name == "wipe_disk"


def test_a_schema_by_hand_stays_too_without_what_a_partial_has_decided() -> None:
    given = {"type": "object", "properties": {"disk": {"enum": ["a", "b"]}, "quick": {}}, "required": ["disk", "quick"]}

    @tool(input_schema=given, requires_approval=True)
    def erase(disk: str, quick: bool) -> str:
        return f"{disk} {quick}"

    assert tool(name="again")(erase).input_schema == given
    for decided in (functools.partial(erase, disk="a"), functools.partial(erase, "a")):
        made = tool(decided)
        assert made.input_schema == {"type": "object", "properties": {"quick": {}}, "required": ["quick"]}
        call = Call(made, {"quick": True}, is_approved=True)
        assert asyncio.run(ToolRunner.of(Session()).run_all([call]))[0].text == "a True"


def test_an_approval_that_is_needed_is_never_taken_away() -> None:
    for make in (lambda: wipe, lambda: audited(wipe), lambda: functools.partial(wipe), lambda: Disks().wipe):
        with pytest.raises(ConfigurationError) as caught:
            tool(requires_approval=False)(make())
        assert str(caught.value) == (
            "requires_approval=False: wipe_disk needs the approval of a person, and so does what is made of it. To have it "
            "without, make a tool of the function itself."
        )


def test_a_tool_cannot_be_changed_after_it_was_made() -> None:
    for name in ("name", "requires_approval", "parallel", "timeout"):
        with pytest.raises(AttributeError):
            setattr(wipe, name, None)


@pytest.mark.parametrize("method", ["run", "stream", "__call__", "check"])
def test_a_method_of_a_tool_is_no_tool(method: str) -> None:
    for made in (getattr(wipe, method), functools.partial(getattr(wipe, method))):
        with pytest.raises(ConfigurationError, match=f"{method} is a method of the tool wipe_disk: pass the tool itself"):
            tool(made)


# A method that overrides a tool


class Plain(Disks):
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:  # type: ignore[override]
        return super().wipe(disk, session)


class PlainAgain(Plain):
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:  # type: ignore[override]
        """Wipe it again."""
        RAN.append(f"{disk} again")
        return "again"


class OwnTool(Disks):
    @tool
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:
        """Wipe it otherwise."""
        RAN.append(disk)
        return "otherwise"


class OwnDecorated(Disks):
    @audited
    def wipe(self, disk: str, session: Session, speed: int = 1) -> str:
        RAN.append(disk)
        return "decorated"


@pytest.mark.parametrize("kind", [Plain, PlainAgain, OwnTool, OwnDecorated])
def test_a_method_that_overrides_a_tool_keeps_how_it_runs(kind: Any) -> None:
    made = tool(kind().wipe)
    assert (made.requires_approval, made.timeout, made.parallel) == (True, timedelta(seconds=3), True)
    assert (made.name, made.input_schema["required"]) == ("wipe", ["disk"]), "what the model reads is its own"
    assert isinstance(run(made, is_approved=False).error, ToolApprovalError)
    assert RAN == []
    assert not run(made, is_approved=True).is_error


def test_it_may_say_otherwise_and_the_class_above_stays_what_it_is() -> None:
    def erase(self: Any, disk: str) -> str:
        return disk

    shared = tool(name="erase")(lambda disk: disk)

    class DryRun(Disks):
        @tool(requires_approval=False)
        def wipe(self, disk: str) -> str:  # type: ignore[override]
            return f"would wipe {disk}"

        above = shared  # type: ignore[assignment]

    assert run(DryRun().wipe, is_approved=False).text == "would wipe a"
    assert DryRun.above.requires_approval
    assert not shared.requires_approval
    assert Disks().wipe.requires_approval


# A function that hides a tool


def by_name(disk: str, session: Session) -> Any:
    return wipe(disk, session)


def by_default(disk: str, session: Session, *, call: Any = wipe) -> Any:
    return call(disk, session)


def inside(disk: str, session: Session) -> Any:
    def inner() -> Any:
        return [wipe(disk, session) for _ in range(1)]

    return inner()


def by_attribute(disk: str, session: Session) -> Any:
    return KEPT.wipe(disk, session)


KEPT = SimpleNamespace(wipe=wipe)
LISTED = {"wipe": wipe}


def without_wraps(function: Any) -> Any:
    def inner(disk: str, session: Session) -> Any:
        return function(disk, session)

    inner.__name__, inner.__doc__ = function.__name__, function.__doc__
    return inner


class Holding:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, disk: str, session: Session) -> Any:
        return self.function(disk, session)

    def act(self, disk: str, session: Session) -> Any:
        return self.function(disk, session)


class Slotted(Holding):
    __slots__ = ("held",)

    def __init__(self, function: Any) -> None:
        self.held = function

    def __call__(self, disk: str, session: Session) -> Any:
        return self.held(disk, session)


named = tool(name="act")
HIDING: dict[str, Callable[[], Any]] = {
    "a lambda": lambda: named(lambda disk, session: wipe(disk, session=session)),
    "a function": lambda: by_name,
    "a default": lambda: by_default,
    "a function in a function": lambda: inside,
    "an attribute": lambda: by_attribute,
    "a decorator without wraps": lambda: without_wraps(wipe),
    "an object that holds it": lambda: named(Holding(wipe)),
    "an object that holds it in a slot": lambda: named(Slotted(wipe)),
    "a method of what holds it": lambda: Holding(wipe).act,
    "a partial that is given it": lambda: named(functools.partial(lambda call, disk, session: call(disk, session), wipe)),
    "its function, by the tool": lambda: named(lambda disk, session: wipe._function(disk, session=session)),
}


@pytest.mark.parametrize("make", HIDING.values(), ids=HIDING)
def test_what_names_a_tool_that_needs_approval_says_whether_it_does_itself(make: Callable[[], Any]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"names wipe_disk, which needs the approval of a person\. Give \w+ requires_approval"
    ):
        tool(make())


def test_what_was_defined_later_is_seen_by_the_one_who_takes_the_tool() -> None:
    def early(disk: str) -> Any:
        return later(disk)

    made = tool(early)
    made._check_runnable()
    later = tool(name="later", requires_approval=True)(lambda disk: disk)
    with pytest.raises(ConfigurationError, match="early names later, which needs the approval"):
        made._check_runnable()
    with pytest.raises(ConfigurationError, match="wipe_disk is a method, and there is no object"):
        Disks.wipe._check_runnable()
    Disks().wipe._check_runnable()


def test_with_an_approval_of_its_own_it_may_call_it() -> None:
    made = tool(requires_approval=True)(by_name)
    assert isinstance(run(made, is_approved=False).error, ToolApprovalError)
    assert run(made, is_approved=True).text == "wiped a"


def by_look_up(disk: str, session: Session) -> Any:
    return LISTED["wipe"](disk, session)


def helper(disk: str, session: Session) -> Any:
    return wipe(disk, session)


def by_helper(disk: str, session: Session) -> Any:
    return helper(disk, session)


async def by_helper_async(disk: str, session: Session) -> Any:
    return helper(disk, session)


def by_steps(disk: str, session: Session) -> Any:
    yield helper(disk, session)


async def by_steps_async(disk: str, session: Session) -> Any:
    yield helper(disk, session)


def while_it_is_closed(disk: str, session: Session) -> Any:
    try:
        yield "first"
        raise ValueError
    finally:
        helper(disk, session)


def by_a_worker(disk: str, session: Session) -> Any:
    return anyio.from_thread.run_sync(helper, disk, session)


def by_method(disk: str, session: Session) -> Any:
    return LISTED["wipe"].run({"disk": disk}, session=session)


UNSEEN = [by_look_up, by_helper, by_helper_async, by_steps, by_steps_async, while_it_is_closed, by_a_worker, by_method]


@pytest.mark.parametrize("function", UNSEEN)
def test_what_nobody_can_see_beforehand_does_not_run_either(function: Any) -> None:
    for made in (tool(function), tool(requires_approval=False)(function)):
        result = run(made, is_approved=False)
        assert result.is_error
        assert RAN == []


@pytest.mark.parametrize("function", [function for function in UNSEEN if function not in (by_method, while_it_is_closed)])
def test_with_an_approval_of_its_own_what_nobody_can_see_runs(function: Any) -> None:
    assert not run(tool(requires_approval=True)(function), is_approved=True).is_error
    assert RAN == ["a"]


def test_control_without_a_look_at_the_call_it_would_run(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "is_call_approved", lambda: None)
    assert run(tool(by_helper), is_approved=False).text == "wiped a"


def test_a_call_inside_an_approved_one_has_no_approval_from_it() -> None:
    @tool(requires_approval=True)
    async def around(disk: str, session: Session) -> Any:
        return await ToolRunner.of(session).run(tool(by_helper), {"disk": disk})

    assert isinstance(run(around, is_approved=True).error, ToolApprovalError)
    assert RAN == []


def test_a_plain_call_outside_of_a_call_is_pythons() -> None:
    RAN.clear()
    assert wipe("b", Session()) == "wiped b"
    assert RAN == ["b"]


def test_tools_that_need_no_approval_may_be_named() -> None:
    @tool
    def price(number: int) -> int:
        return 2 * number

    @tool
    def total(number: int) -> int:
        return price(number) + 1

    assert asyncio.run(total.run({"number": 2})) == 5


def test_an_agent_is_given_its_own_tools_again() -> None:
    shown = tool(name="shown")(Disks().wipe)
    first = Agent(lambda messages, context: "ok", tools=[wipe, shown])
    second = Agent(lambda messages, context: "ok", tools=first.tools.values())
    assert list(second.tools.values()) == list(first.tools.values()) == [wipe, shown]


def test_an_abstract_method_stays_abstract() -> None:
    class Shape(abc.ABC):
        @tool(requires_approval=True)
        @abc.abstractmethod
        def draw(self, colour: str) -> str: ...

    class Square(Shape):
        def draw(self, colour: str) -> str:  # type: ignore[override]
            return colour

    with pytest.raises(TypeError, match="abstract"):
        Shape()  # type: ignore[abstract]
    assert tool(Square().draw).requires_approval


# The tool of one object


def test_the_tool_of_one_object_is_one_tool() -> None:
    disks, other = Disks(), Inherited()
    assert disks.wipe is disks.wipe
    assert disks.wipe == disks.wipe
    assert hash(disks.wipe) == hash(disks.wipe)
    assert len({disks.wipe, disks.wipe, other.wipe, Disks.wipe, Disks.above, Inherited.above, Disks().above}) == 5
    assert disks.wipe != other.wipe
    assert disks.wipe != Disks.wipe
    assert wipe == copy.copy(wipe)
    assert wipe != tool(name="x")(wipe)
    assert copy.deepcopy(disks.wipe) != disks.wipe


def test_objects_that_are_equal_have_tools_of_their_own() -> None:
    class Point:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

        @tool
        def show(self) -> str:
            return str(id(self))

    one, two = Point(), Point()
    assert one.show != two.show
    assert asyncio.run(one.show.run({})) == str(id(one))
    assert asyncio.run(two.show.run({})) == str(id(two))


def test_an_object_that_is_gone_leaves_no_tool_to_the_next_one() -> None:
    for _ in range(200):
        disks = Disks()
        assert disks.wipe._function.__self__ is disks  # type: ignore[attr-defined]
        del disks
    assert len(Disks.wipe._tools) <= 1


def test_it_is_the_same_tool_in_every_thread() -> None:
    disks, found, start = Disks(), [], threading.Barrier(8)

    def look() -> None:
        start.wait()
        found.append(disks.wipe)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(item) for item in found}) == 1
