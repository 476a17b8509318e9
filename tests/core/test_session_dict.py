"""The dict that shows a session: what is special about it beside what tests/core/test_as_a_dict.py runs on it."""

from __future__ import annotations

import asyncio
import collections
import copy
import json
import pickle
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import jinja2
import msgspec
import orjson
import pytest
from pydantic import BaseModel, TypeAdapter

from dcaf import ReadOnlySession, Session, tool
from dcaf.core import SessionAliasError, SessionValueError
from dcaf.core.session_dict import SessionDict
from dcaf.core.transaction import Overlay


class Deploy(Session):
    step: int = 1
    services: list[str] = []


class Cart(BaseModel):
    items: list[str] = []


def both(**values: Any) -> tuple[Any, Session]:
    session = Session.from_dict(values)
    return SessionDict.of(session), session


def storage(shown: Any) -> Any:
    """What code in C reads."""
    return orjson.loads(orjson.dumps(shown))


VALUES = {"user": "ada", "id": 7, "cart": {"items": ["nut"]}, "none": None, "share": 0.5, "ok": True}

READS: dict[str, Callable[[Any], Any]] = {
    "json.dumps": lambda shown: json.loads(json.dumps(shown)),
    "json.dumps, indented": lambda shown: json.loads(json.dumps(shown, indent=1)),
    "json.dumps of what has it inside": lambda shown: json.loads(json.dumps({"session": shown}))["session"],
    "orjson": lambda shown: orjson.loads(orjson.dumps(shown)),
    "msgspec": lambda shown: msgspec.json.decode(msgspec.json.encode(dict(shown))),
    "pydantic": lambda shown: TypeAdapter(dict[str, Any]).validate_python(shown),
    "dict()": dict,
    "keyword arguments": lambda shown: named(**shown),
    "unpacked": lambda shown: {**shown},
    "|": lambda shown: shown | {},
    "| from the left": lambda shown: {} | shown,
    "copy()": lambda shown: shown.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda shown: pickle.loads(pickle.dumps(shown)),
    "ChainMap": lambda shown: dict(collections.ChainMap(shown)),
    "OrderedDict": lambda shown: dict(collections.OrderedDict(shown)),
    "items()": lambda shown: dict(shown.items()),
    "a comprehension": lambda shown: {key: shown[key] for key in shown},
    "dict.copy": dict.copy,
    "dict.items": lambda shown: dict(dict.items(shown)),
    "update() of another": lambda shown: (found := {}, found.update(shown))[0],
    "match": lambda shown: dict(matched(shown)),
}


def named(**words: Any) -> Any:
    return words


def matched(shown: Any) -> Any:
    match shown:
        case {"user": _, **rest}:
            return {"user": "ada"} | rest
    return {}


@pytest.mark.parametrize("row", READS)
@pytest.mark.parametrize("side", ["the dict", "the session", "a typed object"])
def test_every_reader_of_dicts_reads_it_whichever_side_was_written(row: str, side: str) -> None:
    shown, session = both(**VALUES)
    expected: Any = {**VALUES, "late": [1]}
    if side == "the dict":
        shown["late"] = [1]
    elif side == "the session":
        session["late"] = [1]
    else:
        session.get("cart", Cart(), as_type=Cart).items.append("bolt")
        expected = {**VALUES, "cart": {"items": ["nut", "bolt"]}}
        shown.mark_accessed()  # as request.session does
    found = READS[row](shown)
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("row", READS)
def test_control_a_session_itself_is_read_by_fewer_of_them(row: str) -> None:
    session = Session.from_dict(VALUES)
    fewer = {"json.dumps", "json.dumps, indented", "json.dumps of what has it inside", "orjson", "pydantic", "pickle", "dict.copy"}
    try:
        found = READS[row](session)
    except (TypeError, ValueError):
        assert row in fewer | {"copy.copy", "dict.items"}
    else:
        assert found == VALUES


def test_it_is_a_dict_and_false_when_it_is_empty() -> None:
    shown, session = both()
    assert isinstance(shown, dict)
    assert not shown
    assert shown == {}
    assert session
    shown["a"] = 1
    assert shown


def test_a_template_reads_the_keys_even_those_that_are_called_like_an_attribute_of_a_session() -> None:
    shown, session = both(user="ada", id=7, changes=[1], app="shop")
    session.user["theme"] = "dark"
    template = jinja2.Template(
        "{{ s.user }} {{ s.id }} {{ s.changes }} {{ s.app }} {{ s.nothing }} {{ 'user' in s }}|{{ s | tojson }}"
    )
    assert template.render(s=shown).startswith("ada 7 [1] shop  True|")


@pytest.mark.parametrize("name", ["incr", "append", "set", "has", "delete", "to_dict", "is_empty", "is_modified", "temp", "user"])
def test_what_only_a_session_has_says_where_it_is(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"request\.session is a dict here.*\. Write current_session\(\)\.{name} instead"):
        getattr(both()[0], name)


def test_another_attribute_is_refused_as_it_would_be_lost() -> None:
    shown, _ = both()
    with pytest.raises(AttributeError):
        shown.cart = []
    with pytest.raises(AttributeError, match=r"has no attribute .cart.$"):
        _ = shown.cart


# In step


def test_changes_inside_values_are_of_both() -> None:
    shown, session = both(cart={"items": []})
    shown["cart"]["items"].append("nut")
    session["cart"]["items"].append("bolt")
    assert shown["cart"] is session["cart"]
    assert storage(shown) == session.to_dict() == {"cart": {"items": ["nut", "bolt"]}}
    assert session.is_modified


def test_typed_views_and_the_dict_take_turns() -> None:
    shown, session = both()
    deploy = Deploy.of(shown)
    shown["services"] = ["api"]
    deploy.services.append("db")
    shown["services"].append("web")
    deploy.step += 1
    session.incr("step")
    session.append("services", "cron")
    assert shown == session.to_dict() == {"services": ["api", "db", "web", "cron"], "step": 3}
    assert storage(shown) == shown


def test_what_is_given_stays_live_and_is_the_same_object_as_in_a_dict() -> None:
    shown, session = both()
    given: list[Any] = []
    assert shown.setdefault("l", given) is given
    given.append(1)
    shown["l"].append(2)
    session["l"].append(3)
    assert given == [1, 2, 3]
    assert shown["l"] is given


def test_a_tools_call_commits_into_both_and_leaves_nothing_when_it_fails() -> None:
    shown, session = both(log=["a"], step=1)
    call = Overlay(session._state)
    inside = Session._over(call)
    inside["log"].append("b")
    inside["step"] = 2
    del inside["step"]
    assert storage(shown) == {"log": ["a"], "step": 1}
    call.commit()
    assert storage(shown) == shown == {"log": ["a", "b"]}
    Session._over(Overlay(session._state))["gone"] = 1
    assert "gone" not in shown


def test_a_tool_and_a_typed_view_and_a_reader_take_it_for_the_session() -> None:
    @tool
    def advance(session: Deploy) -> int:
        """Advance."""
        session.step += 1
        return session.step

    shown, session = both(step=4)
    assert asyncio.run(advance.run({}, session=shown)) == 5
    assert (shown["step"], session["step"]) == (5, 5)
    assert ReadOnlySession.of(shown)["step"] == 5
    assert Session.of(shown).incr("step") == shown["step"] == 6


def test_a_value_is_shown_as_json_has_it() -> None:
    shown, _ = both()
    shown["due"] = date(2026, 1, 31)
    shown["pair"] = (1, 2)
    shown["cart"] = Cart(items=["nut"])
    assert storage(shown) == shown == {"due": "2026-01-31", "pair": [1, 2], "cart": {"items": ["nut"]}}
    shown["cart"]["items"].append("bolt")
    assert shown["cart"] == {"items": ["nut", "bolt"]}


def test_clear_drops_all_of_it_also_what_is_shared() -> None:
    shown, session = both(**{"a": 1, "user:theme": "dark"})
    session.temp["t"] = 1
    shown.clear()
    assert session == {}
    assert session.is_modified


def test_code_in_c_that_writes_past_its_methods_is_noticed() -> None:
    shown, session = both(a=1, b=[2], c=3)
    dict.update(shown, d={"x": []})
    dict.pop(shown, "a")
    dict.__setitem__(shown, "c", dict.pop(shown, "c"))
    assert session.is_modified
    assert session.to_dict() == {"b": [2], "d": {"x": []}, "c": 3}
    assert list(session) == ["b", "d", "c"]
    shown["d"]["x"].append(1)
    assert session["d"] == {"x": [1]}
    exec("e = 5", {}, shown)
    assert session["e"] == 5


# Refused, and nothing lost


REFUSED: dict[str, Callable[[Any], Any]] = {
    "a number that is none": lambda shown: shown.__setitem__("x", float("nan")),
    "an integer beyond 64 bits": lambda shown: shown.update(u=1, x=2**70),
    "a key that is no string": lambda shown: shown.__setitem__(1, 2),
    "a key inside": lambda shown: shown.update(u=1, x={1: 2}),
    "an object": lambda shown: shown.setdefault("x", object()),
    "the library's own key": lambda shown: shown.__ior__({"u": 1, "dcaf": 1}),
    "a function in place of a value": lambda shown: shown.__setitem__("a", print),
    "a surrogate": lambda shown: shown.__setitem__("x", "\ud800"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_changes_nothing_on_either_side(row: str) -> None:
    shown, session = both(a=[1], b=2)
    held = shown["a"]
    with pytest.raises(SessionValueError):
        REFUSED[row](shown)
    assert storage(shown) == dict(shown) == session.to_dict() == {"a": [1], "b": 2}
    assert not session.is_modified
    held.append(2)
    assert session["a"] == shown["a"] == [1, 2]


def test_what_code_in_c_wrote_and_a_session_cannot_hold_is_an_error_until_it_is_gone() -> None:
    shown, session = both(a=1)
    dict.__setitem__(shown, "x", float("nan"))
    for look in (session.to_dict, lambda: shown["a"], lambda: session.is_modified):
        with pytest.raises(SessionValueError, match=r"x: is not a finite number"):
            look()
    dict.__delitem__(shown, "x")
    assert session.to_dict() == {"a": 1}


def test_two_ways_that_both_changed_a_value_are_an_error_until_one_is_set() -> None:
    shown, session = both(cart={"items": []})
    raw, typed = shown["cart"], session.get("cart", Cart(), as_type=Cart)
    raw["items"].append("nut")
    typed.items.append("bolt")
    for look in (lambda: shown["cart"], session.to_dict, lambda: json.dumps(shown), lambda: shown.pop("cart"), lambda: len(shown)):
        with pytest.raises(SessionAliasError):
            look()
    shown.mark_accessed()
    shown["cart"] = {"items": ["nut", "bolt"]}
    assert storage(shown) == session.to_dict() == {"cart": {"items": ["nut", "bolt"]}}


def test_a_value_changed_past_the_methods_and_inside_is_an_error() -> None:
    shown, session = both(cart={"items": []})
    session.get("cart", Cart(), as_type=Cart).items.append("bolt")
    dict.__setitem__(shown, "cart", {"items": ["nut"]})
    with pytest.raises(SessionAliasError, match=r"session\['cart'\] was changed in request\.session and by another way"):
        session.to_dict()


# What Starlette asks of it


def test_it_says_whether_it_was_looked_at_and_changed() -> None:
    shown: Any = SessionDict({"a": 1}, b=2)
    assert (shown.accessed, shown.modified, shown["a"], shown["b"]) == (False, False, 1, 2)
    shown.mark_accessed()
    assert (shown.accessed, shown.modified) == (True, False)
    shown["a"] = 1
    assert not shown.modified
    shown["a"] = 2
    assert shown.modified
    shown = SessionDict(a=[1])
    shown["a"].append(2)
    assert (shown.accessed, shown.modified) == (True, True)
    shown.modified = True


def test_nobody_has_touched_a_session_that_was_only_shown() -> None:
    for look, touches in (
        (lambda shown, session: None, False),
        (lambda shown, session: session.is_modified, False),
        (lambda shown, session: session._state.payload(), False),
        (lambda shown, session: shown.mark_accessed(), True),
        (lambda shown, session: shown.get("a"), True),
        (lambda shown, session: session.get("a"), True),
        (lambda shown, session: session.to_dict(), True),
        (lambda shown, session: list(session), True),
        (lambda shown, session: session.copy(), True),
        (lambda shown, session: session.set("b", 1), True),
        (lambda shown, session: Overlay(session._state).find("a"), True),
        (lambda shown, session: dict.__setitem__(shown, "b", session.is_modified), True),
    ):
        shown, session = both(a=1)
        look(shown, session)
        assert session.is_modified in {True, False}
        assert session._state.is_touched is touches, look


def test_a_repr_shows_keys_and_no_values() -> None:
    shown, _ = both(card="4111-1111")
    assert (repr(shown), f"{shown}") == ("<SessionDict keys=['card']>",) * 2


def test_threads_lose_nothing() -> None:
    shown, session = both(n=0)

    def work(number: int) -> None:
        for turn in range(200):
            shown[f"k{number}-{turn % 7}"] = turn
            session.incr("n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shown["n"] == 800
    assert len(shown) == len(session) == 1 + 4 * 7
