"""A session that may only be read shows everything, and nothing that is done to it reaches the session."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from dcaf import ConfigurationError, ReadOnlySession, Session
from dcaf.core import SessionReadOnlyError, SessionTypeError
from dcaf.core.readonly import WRITERS


class Cart(BaseModel):
    items: list[str] = []


def filled() -> Session:
    return Session.from_dict({"cart": {"items": ["widget"]}, "n": 1, "user:theme": "dark", "app:motd": "hi"})


def test_it_reads_as_a_session_reads() -> None:
    session = filled()
    session.temp["scratch"] = 1
    seen = ReadOnlySession.of(session)
    assert seen["n"] == seen.get("n") == seen.get("n", as_type=int) == 1
    assert seen.get("cart", as_type=Cart) == Cart(items=["widget"])
    assert (seen.get("gone"), seen.get("gone", 5), seen.get("gone", Cart(), as_type=Cart)) == (None, 5, Cart())
    assert dict(seen) == dict(session) == seen.copy()
    assert (seen.to_dict(), list(seen), len(seen)) == (session.to_dict(), list(session), len(session))
    assert (seen.has("n"), "n" in seen, seen.has("gone"), "gone" in seen) == (True, True, False, False)
    assert (seen.user["theme"], seen.app["motd"], seen.temp["scratch"]) == ("dark", "hi", 1)
    assert (list(seen.user), seen.user.to_dict(), len(seen.app)) == (["theme"], {"theme": "dark"}, 1)
    assert (seen.id, seen.sequence, seen.created_at, seen.expires_at, seen.restarted) == (None, 0, None, None, None)
    assert seen == session.copy()
    with pytest.raises(KeyError):
        seen["gone"]


def test_a_value_that_does_not_fit_is_an_error_with_its_path() -> None:
    with pytest.raises(SessionTypeError, match=r"cart\.items: Input should be a valid array"):
        ReadOnlySession.of(Session.from_dict({"cart": {"items": 1}})).get("cart", as_type=Cart)
    with pytest.raises(SessionTypeError, match=r"user:theme: "):
        ReadOnlySession.of(filled()).user.get("theme", as_type=int)


@pytest.mark.parametrize("name", WRITERS)
def test_every_way_to_write_a_session_is_refused_and_says_what_to_declare(name: str) -> None:
    session = filled()
    with pytest.raises(SessionReadOnlyError) as caught:
        getattr(ReadOnlySession.of(session), name)("n", 2)
    assert str(caught.value) == (
        f"a ReadOnlySession cannot be written, and {name} writes. Declare the parameter as `session: Session` to write."
    )
    assert not session.is_modified


def test_the_ways_to_write_that_are_refused_are_all_that_a_session_has() -> None:
    reads = {"get", "has", "copy", "items", "keys", "values", "to_dict", "from_dict", "fromkeys", "of", "temp", "user", "app"}
    knows = {"id", "sequence", "created_at", "expires_at", "restarted", "is_empty", "is_modified", "changes"}
    public = {name for name in dir(Session) if not name.startswith("_")}
    assert public - reads - knows == {name for name in WRITERS if not name.startswith("_")}


WRITES: dict[str, Callable[[Any], object]] = {
    "item": lambda seen: seen.__setitem__("n", 2),
    "del": lambda seen: seen.__delitem__("n"),
    "in place or": lambda seen: seen.__ior__({"n": 2}),
    "attribute": lambda seen: setattr(seen, "n", 2),
    "private attribute": lambda seen: setattr(seen, "_session", Session()),
    "scope": lambda seen: seen.user.set("theme", "light"),
    "scope's item": lambda seen: seen.temp.__setitem__("x", 1),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_statements_that_write_are_refused_too(write: Callable[[Any], object]) -> None:
    session = filled()
    with pytest.raises(SessionReadOnlyError):
        write(ReadOnlySession.of(session))
    assert (session.is_modified, session["n"], session.user["theme"]) == (False, 1, "dark")


CHANGES: dict[str, Callable[[Any], object]] = {
    "container": lambda seen: seen["cart"]["items"].append("bolt"),
    "get": lambda seen: seen.get("cart").update(items=[]),
    "typed": lambda seen: seen.get("cart", as_type=Cart).items.append("bolt"),
    "default": lambda seen: seen.get("gone", Cart(), as_type=Cart).items.append("bolt"),
    "values": lambda seen: next(iter(seen.values())).clear(),
    "copy": lambda seen: seen.copy()["cart"].clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_it_hands_out_is_a_copy(change: Callable[[Any], object]) -> None:
    session = filled()
    change(ReadOnlySession.of(session))
    assert (session.is_modified, session.to_dict()) == (False, filled().to_dict())


def test_control_the_session_itself_sees_such_a_change() -> None:
    session = filled()
    CHANGES["container"](session)
    assert session.is_modified


def test_it_shows_what_is_written_after_it_was_made_also_through_a_handle() -> None:
    session = filled()
    seen = ReadOnlySession.of(session)
    session.get("cart", as_type=Cart).items.append("bolt")  # type: ignore[union-attr]
    session["n"] = 2
    assert (seen["cart"]["items"], seen["n"]) == (["widget", "bolt"], 2)
    session.delete("n")
    assert "n" not in seen


def test_it_is_true_also_when_it_is_empty_and_shows_no_value_in_its_repr() -> None:
    assert ReadOnlySession()
    assert ReadOnlySession().is_empty
    assert repr(ReadOnlySession.of(filled())) == "<ReadOnlySession keys=['app:motd', 'cart', 'n', 'user:theme']>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(ReadOnlySession())


def test_no_session_to_write_is_made_of_it_by_of() -> None:
    with pytest.raises(ConfigurationError, match="It may only be read"):
        Session.of(ReadOnlySession.of(filled()))  # type: ignore[arg-type]


def test_pydantic_never_reads_one_from_a_body() -> None:
    with pytest.raises(ConfigurationError, match="never read from a request body"):
        TypeAdapter(ReadOnlySession)


def test_it_does_not_mark_the_session_as_read_by_a_handle() -> None:
    session = filled()
    ReadOnlySession.of(session).get("cart", as_type=Cart)
    assert session._state.slot("cart").handles == ()
