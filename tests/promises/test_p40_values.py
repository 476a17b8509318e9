"""P40: a value that was only read is never changed; one that goes in comes out the same, with its exact types, or is refused."""

from __future__ import annotations

import asyncio
import json
import random
import re
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from datetime import datetime, time
from enum import Enum
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import pytest
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr, TypeAdapter, create_model
from typing_extensions import TypedDict

from dcaf import DcafError, ReadOnlySession, Session, SessionKey, tool
from dcaf.core import SessionValueError, json_values
from dcaf.core.handles import Handle
from dcaf.core.keys import Key, Keyring
from dcaf.core.parts import Refusal, base_of
from dcaf.core.sealer import Sealer
from tests.promises.generate import states
from tests.promises.kinds import BASED, DECLARED, LOST, STORED, Make

SEALER: Final = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000, max_token_bytes=1 << 20)
KINDS: Final = {**STORED, **BASED, **LOST}


BASE64: Final = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Other(BaseModel):
    """What stands beside a type in a union."""

    nothing_else_has_this: int


@dataclass
class Place:
    """Somewhere that a value of a type can stand.

    Attributes:
        around: Makes the type of what is stored around a value of a type.
        put: Makes what is stored.
        take: Finds the value again.
        untyped: Whether what is stored is a plain container, in which nothing says of which type the value is.
    """

    around: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]
    take: Callable[[Any], Any]
    untyped: bool = False


def _field(as_type: Any) -> Any:
    return create_model("Held", __config__=BASE64, value=(as_type, ...))


def _root(as_type: Any) -> Any:
    class Held(RootModel[as_type]):
        model_config = BASE64

    return Held


def _list(as_type: Any) -> Any:
    return list[as_type]


def _pair(as_type: Any) -> Any:
    return tuple[int, as_type]


def _queue(as_type: Any) -> Any:
    return deque[as_type]


def _by_text(as_type: Any) -> Any:
    return dict[str, as_type]


def _named(as_type: Any) -> Any:
    return NamedTuple("Held", [("value", as_type), ("other", int)])


def _row(as_type: Any) -> Any:
    return TypedDict("Row", {"value": as_type})  # type: ignore[operator]


PLACES: Final[Mapping[str, Place]] = {
    "top": Place(lambda t: t, lambda _, value: value, lambda found: found, untyped=True),
    "plain list": Place(_list, lambda _, value: [value], lambda found: found[0], untyped=True),
    "plain dict": Place(_by_text, lambda _, value: {"a b": value}, lambda found: found["a b"], untyped=True),
    "field": Place(_field, lambda held, value: held.model_construct(value=value), lambda found: found.value),
    "field of a list": Place(
        lambda t: _field(_list(t)), lambda held, value: held.model_construct(value=[value]), lambda found: found.value[0]
    ),
    "field of a dict": Place(
        lambda t: _field(_by_text(t)), lambda held, value: held.model_construct(value={"a": value}), lambda found: found.value["a"]
    ),
    "field of a tuple": Place(
        lambda t: _field(_pair(t)), lambda held, value: held.model_construct(value=(1, value)), lambda found: found.value[1]
    ),
    "field of a deque": Place(
        lambda t: _field(_queue(t)), lambda held, value: held.model_construct(value=deque([value])), lambda found: found.value[0]
    ),
    "optional field": Place(
        lambda t: _field(t | None), lambda held, value: held.model_construct(value=value), lambda found: found.value
    ),
    "union": Place(lambda t: _field(t | Other), lambda held, value: held.model_construct(value=value), lambda found: found.value),
    "default": Place(
        lambda t: create_model("Held", __config__=BASE64, value=(t, None)),
        lambda held, value: held.model_construct(value=value),
        lambda found: found.value,
    ),
    "root model": Place(_root, lambda held, value: held.model_construct(root=value), lambda found: found.root),
    "member of a dataclass": Place(
        lambda t: make_dataclass("Held", [("value", t)]), lambda held, value: held(value), lambda found: found.value
    ),
    "member of a TypedDict": Place(
        lambda t: _field(_row(t)),
        lambda held, value: held.model_construct(value={"value": value}),
        lambda found: found.value["value"],
    ),
    "member of a NamedTuple": Place(
        _named,
        lambda held, value: held(value, 1),
        lambda found: found.value,
    ),
}
"""Where a value can stand. In a union and as a default pydantic takes what stands there as it is."""

Store: TypeAlias = Callable[[Session, Any, Any], None]


def _set(session: Session, value: Any, _: Any) -> None:
    session.set("k", value)


def _update(session: Session, value: Any, _: Any) -> None:
    session.update({"k": value})


def _typed(as_type: Any) -> type[Session]:
    return type("View", (Session,), {"__annotations__": {"k": as_type}})


def _view(session: Session, value: Any, as_type: Any) -> None:
    setattr(_typed(as_type).of(session), "k", value)  # noqa: B010 - it is declared in a class that was made just now


def _offer(session: Session, value: Any, as_type: Any) -> None:
    """As an item of a default that is given with its type, and changed in place."""
    found = session.get("k", [], as_type=_list(as_type))
    found.append(value)
    session.set("k", session.get("k", as_type=_list(as_type))[0])


STORES: Final[Mapping[str, Store]] = {"set": _set, "update": _update, "typed session": _view, "default": _offer}


def exact(value: Any, look: Callable[[Any], Any] = lambda leaf: leaf) -> Any:
    """A form in which only what is the same is equal: types and signs too, and what an object calls equal does not count.

    Args:
        value: The value.
        look: What to see in place of each part that has no parts.
    """
    kind = type(value)
    if isinstance(value, BaseModel):
        names = [*kind.model_fields, *(value.__pydantic_extra__ or ())]
        return kind, *((name, exact(getattr(value, name, None), look)) for name in names)
    if is_dataclass(value):
        return kind, *((item.name, exact(getattr(value, item.name), look)) for item in fields(value))
    if isinstance(value, Mapping):
        return kind, frozenset((exact(key, look), exact(item, look)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return kind, frozenset(exact(item, look) for item in value)
    if isinstance(value, list | tuple | deque):
        return kind, *(exact(item, look) for item in value)
    return type(look(value)), _leaf(look(value))


def _leaf(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("d", value)
    if isinstance(value, datetime | time):
        return value.replace(tzinfo=None, fold=0).isoformat(), value.utcoffset()
    return value.get_secret_value() if isinstance(value, SecretStr) else repr(value)


def base(value: Any) -> Any:
    """The base of a value of one of the subclasses that the guide lists."""
    return value if isinstance(value, Enum) else base_of(value)


def next_turn(session: Session) -> Session:
    return SEALER.open(json.loads(SEALER.seal(session, SEALER.binding(), sequence=1)), SEALER.binding())


def comes_back(place: Place, as_type: Any, value: Any, store: Store = _set) -> str:
    """The law of what goes in: "same", or "refused" by an error of ours that begins with the key. Anything else is a failure."""
    session, around = SEALER.start(), place.around(as_type)
    stored = place.put(around, value)
    try:
        store(session, stored, around)
        sealed = next_turn(session)
    except SessionValueError as error:
        return "refused" if re.match(r"k[.:\[]", str(error)) else str(error)
    found = place.take(sealed.get("k", as_type=around))
    assert exact(found) == exact(value) or exact(found) == exact(value, base), (value, found)
    return "same"


def some_places(source: random.Random, scale: float) -> list[str]:
    """The places to try: all of them in a full run."""
    return [*PLACES] if scale >= 1 else source.sample([*PLACES], 2)


def tried(group: Mapping[str, tuple[Any, Make]], scale: float) -> Iterator[tuple[str, str, Any, Any]]:
    """Kind, place, type and value."""
    source = random.Random(40)
    for kind, (as_type, make) in group.items():
        for place in some_places(source, scale):
            for _ in range(max(1, int(15 * scale))):
                yield kind, place, as_type, make(source)


@pytest.mark.promise(40)
def test_what_can_come_back_as_the_same_is_stored_and_does(scale: float, measured: Callable[[int, str], None]) -> None:
    number = 0
    for kind, place, as_type, value in tried({**STORED, **BASED}, scale):
        number += 1
        if not (PLACES[place].untyped and kind in DECLARED):
            assert comes_back(PLACES[place], as_type, value) == "same", (kind, place, value)
    measured(40, f"{number:,} values of {len(STORED) + len(BASED)} kinds came back as the same, in {len(PLACES)} places")


@pytest.mark.promise(40)
def test_what_would_come_back_as_another_value_is_refused(scale: float, measured: Callable[[int, str], None]) -> None:
    number = 0
    for kind, place, as_type, value in tried(LOST, scale):
        number += 1
        assert comes_back(PLACES[place], as_type, value) == "refused", (kind, place, value)
    measured(40, f"{number:,} values of {len(LOST)} kinds that could not were refused, with their key")


@pytest.mark.promise(40)
def test_the_same_holds_two_levels_down(scale: float, measured: Callable[[int, str], None]) -> None:
    source, number = random.Random(43), max(20, int(4_000 * scale))
    typed = [place for place in PLACES.values() if not place.untyped]
    for _ in range(number):
        kind, inner, outer = source.choice([*KINDS]), source.choice(typed), source.choice(typed)
        as_type, make = KINDS[kind]
        around, value = inner.around(as_type), make(source)
        expected = {"refused"} if kind in LOST else {"same"}
        if value is None and inner is PLACES["root model"]:
            expected.add("refused")  # beside None, null does not say that it was a root model
        assert comes_back(outer, around, inner.put(around, value)) in expected, kind
    measured(40, f"the same of {number:,} values two levels down")


@pytest.mark.promise(40)
@pytest.mark.parametrize("store", [name for name in STORES if name != "set"])
def test_the_same_holds_however_a_value_goes_in(store: str, scale: float) -> None:
    place = PLACES["field"]
    for kind, _, as_type, value in tried(KINDS, min(scale, 0.05)):
        expected = "refused" if kind in LOST else "same"
        assert comes_back(place, as_type, value, STORES[store]) == expected, (kind, value)


def by_rewriting(given: Any, back: Any) -> None:
    """The broken twin: a value is the same if it is written the same a second time."""
    written = [TypeAdapter(type(item)).dump_json(item, warnings="none") for item in (given, back)]
    if written[0] != written[1]:
        raise Refusal("is written otherwise")


@pytest.mark.promise(40)
@pytest.mark.parametrize(
    "kind",
    [
        "model that masks",
        "model that rounds",
        "model that excludes",
        "model that converts",
        "tuple where anything may stand",
        "enum where anything may stand",
        "subclass of a model",
        "subclass of a dataclass",
        "text where bytes may stand",
        "text where a UUID may stand",
        "model of a TypedDict with another member",
    ],
)
def test_control_comparing_what_is_written_alone_is_caught(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "require_same", by_rewriting)
    as_type, make = LOST[kind]
    with pytest.raises((AssertionError, DcafError)):
        assert comes_back(PLACES["top"], as_type, make(random.Random(1))) == "refused"


def readings(as_type: Any) -> dict[str, Callable[[Session], Any]]:
    """Ways to read the key ``k``, which holds a value of a type."""
    view = _typed(as_type)

    def show(value: Any) -> str:
        """Look at a value."""
        return repr(value)

    show.__annotations__["value"] = Annotated[as_type, SessionKey("k")]
    made = tool(show)
    return {
        "get": lambda s: s.get("k"),
        "get as a type": lambda s: s.get("k", as_type=as_type),
        "get as a type and nothing": lambda s: s.get("k", as_type=as_type | None),
        "get with a default": lambda s: (s.get("k", [], as_type=as_type), s.get("l", [], as_type=list[as_type])),
        "typed session": lambda s: repr(getattr(view.of(s), "k", None)),
        "SessionKey": lambda s: asyncio.run(made.run({}, session=s)),
        "ReadOnlySession": lambda s: ReadOnlySession.of(s).get("k", as_type=as_type),
        "all": lambda s: (dict(s), [*s.items()], len(s), repr(s), s == {}, s.to_dict()),
    }


def only_read(sealed: dict[str, Any], read: Callable[[Session], Any]) -> None:
    """The law of what is read: nothing was changed, and what would be sealed is what arrived, to the byte."""
    session = SEALER.open(sealed, SEALER.binding())
    arrived = session._state.payload().data
    for _ in range(2):
        with suppress(DcafError):  # where it is no value of this type
            read(session)
    assert not session.is_modified
    assert session.changes == {"set": {}, "delete": []}
    assert session._state.payload().data == arrived


@pytest.mark.promise(40)
def test_what_is_only_read_is_never_changed(scale: float, measured: Callable[[int, str], None]) -> None:
    source, number = random.Random(41), 0
    for as_type, make in KINDS.values():
        ways = readings(as_type)
        chosen = [*ways] if scale >= 1 else source.sample([*ways], 2)
        for _ in range(max(1, int(10 * scale))):
            session = SEALER.start()
            with suppress(SessionValueError):  # what JSON itself cannot say
                session.set("k", written(as_type, make(source)))
            sealed = json.loads(SEALER.seal(session, SEALER.binding(), sequence=1))
            for way in chosen:
                only_read(sealed, ways[way])
                number += 1
    measured(40, f"{number:,} readings of {len(KINDS)} kinds in {len(readings(int))} ways changed nothing")


def written(as_type: Any, value: Any) -> Any:
    """What a client that is no program of ours may have stored of a value: as pydantic writes it, masks and all."""
    try:
        return json.loads(TypeAdapter(list[as_type]).dump_json([value], warnings="none"))[0]
    except (ValueError, UnicodeError):
        return {"raw": "text"}


@pytest.mark.promise(40)
def test_whatever_is_stored_is_read_as_any_type_or_refused_by_an_error_of_ours(scale: float) -> None:
    source = random.Random(42)
    for state in states(42, max(20, int(1_000 * scale))):
        value = [*state.values(), None][0]
        sealed = json.loads(SEALER.seal(_of(value), SEALER.binding(), sequence=1))
        for as_type, _ in source.sample([*KINDS.values()], 5):
            only_read(sealed, readings(as_type)["get as a type"])


def _of(value: Any) -> Session:
    session = SEALER.start()
    session.set("k", value)
    return session


@pytest.mark.promise(40)
def test_control_a_handle_that_is_compared_with_how_it_is_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handle, "is_changed", lambda handle: handle.write_value() != handle.base)
    as_type, make = STORED["model that is written otherwise each time"]
    sealed = json.loads(SEALER.seal(_of(make(random.Random(1))), SEALER.binding(), sequence=1))
    with pytest.raises(AssertionError):
        only_read(sealed, readings(as_type)["get as a type"])
