"""The session as a mapping: what it answers, what counts as a change, and a model that it agrees with at every step."""

import copy
import json
import os
import pickle
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from pydantic import BaseModel, TypeAdapter

from dcaf.core import ConfigurationError, Session, SessionTypeError, SessionValueError
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.store import OpenRequest, StatelessStore

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
STEPS = 50
SEALER = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)


class Cart(BaseModel):
    items: list[str] = []
    total: int = 0


def next_turn(session: Session, sequence: Any = 1) -> Session:
    return SEALER.open(json.loads(SEALER.seal(session, SEALER.binding(), sequence=sequence)), SEALER.binding())


def message(kind: Any, make: Any) -> Any:
    with pytest.raises(kind) as caught:
        make()
    return str(caught.value)


def test_a_session_is_a_mutable_mapping() -> None:
    session = Session()
    session["a"] = 1
    session.set("b", [1])
    session.update({"c": None}, d="x")
    session.update([("e", 2.5)])
    session |= {"f": True}
    assert dict(session) == {"a": 1, "b": [1], "c": None, "d": "x", "e": 2.5, "f": True}
    assert list(session) == list(session.keys()) == ["a", "b", "c", "d", "e", "f"]
    assert session == {"a": 1, "b": [1], "c": None, "d": "x", "e": 2.5, "f": True}
    assert session != {"a": 1}
    assert len(session) == 6
    assert "a" in session
    assert "z" not in session
    assert session.has("a")
    assert session.pop("a") == 1
    assert session.pop("a", "gone") == "gone"
    assert session.popitem() == ("f", True)
    with pytest.raises(KeyError):
        session.pop("a")
    with pytest.raises(KeyError):
        session["a"]
    with pytest.raises(KeyError):
        del session["a"]


@pytest.mark.parametrize("key", [1, None, ("a",), b"a"])
def test_a_key_that_is_no_string_is_absent_as_in_any_mapping(key: Any) -> None:
    session = Session.from_dict({"a": 1})
    assert key not in session
    assert session.get(key) is None
    assert session.pop(key, "gone") == "gone"


def test_null_is_a_value() -> None:
    session = Session.from_dict({"a": None})
    assert "a" in session
    assert session["a"] is None
    assert session.get("a", 5) is None
    assert session.get("a", as_type=int | None) is None
    assert len(session) == 1


def test_an_empty_session_is_true() -> None:
    assert Session()
    assert Session().is_empty
    assert not Session.from_dict({"a": None}).is_empty


def test_temporary_keys_alone_leave_a_session_empty() -> None:
    session = Session()
    session.temp["x"] = 1
    assert session.is_empty
    assert list(session) == ["temp:x"]


@pytest.mark.parametrize("data", [None, {}])
def test_a_session_from_nothing_is_empty_and_not_modified(data: Any) -> None:
    session = Session.from_dict(data)
    assert session.to_dict() == {}
    assert not session.is_modified


def test_a_session_from_a_dict_is_a_copy_and_not_modified() -> None:
    data: dict[str, Any] = {"a": [1]}
    session = Session.from_dict(data)
    data["a"].append(2)
    assert session.to_dict() == {"a": [1]}
    session["a"].append(3)
    assert data == {"a": [1, 2]}


def test_from_dict_refuses_what_set_refuses() -> None:
    assert message(SessionValueError, lambda: Session.from_dict({"a": object()})) == "a: is of type object, which cannot be stored"
    assert message(SessionValueError, lambda: Session.from_dict({"dcaf": 1})) == "'dcaf' is the library's own key; choose another"


def test_deleting_an_absent_key_and_clearing_an_empty_session_change_nothing() -> None:
    session = Session()
    session.delete("a")
    session.clear()
    session.update({})
    assert not session.is_modified
    assert session.changes == {"set": {}, "delete": []}


def test_setting_an_equal_value_is_no_modification() -> None:
    session = Session.from_dict({"a": {"x": [1]}, "b": 1})
    session["a"] = {"x": [1]}
    session["b"] = 2
    session["b"] = 1
    del session["a"]
    session["a"] = {"x": [1]}
    assert not session.is_modified


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, False), (1, 1.0), (0.0, -0.0), (None, False), ([], {}), ("1", 1)])
def test_values_that_only_python_takes_for_equal_are_a_modification(before: Any, after: Any) -> None:
    session = Session.from_dict({"a": before})
    session["a"] = after
    assert session.is_modified
    assert orjson.dumps(session.to_dict()) == orjson.dumps({"a": after})


def test_changes_are_told_against_what_arrived() -> None:
    session = Session.from_dict({"a": 1, "b": 2, "c": [3]})
    session["a"] = 9
    del session["b"]
    session["c"].append(4)
    session["d"] = 5
    session["e"] = 6
    del session["e"]
    session.temp["t"] = 1
    assert session.changes == {"set": {"a": 9, "c": [3, 4], "d": 5}, "delete": ["b"]}


def test_scopes_are_views_of_prefixed_keys() -> None:
    session = Session()
    session.user["theme"] = "dark"
    session["app:motd"] = "hi"
    session.temp["x"] = 1
    assert session["user:theme"] == "dark"
    assert (dict(session.user), dict(session.app), dict(session.temp)) == ({"theme": "dark"}, {"motd": "hi"}, {"x": 1})
    assert session.user == {"theme": "dark"}
    assert repr(session.user) == "<StateMapping keys=['theme']>"


def test_clear_keeps_what_is_shared_and_the_scope_clears_its_own() -> None:
    session = Session.from_dict({"a": 1, "user:u": 1, "app:p": 1})
    session.temp["t"] = 1
    session.clear()
    assert dict(session) == {"user:u": 1, "app:p": 1}
    session.user.clear()
    assert dict(session) == {"app:p": 1}


def test_update_stores_all_or_nothing() -> None:
    session = Session.from_dict({"a": 1})
    assert message(SessionValueError, lambda: session.update({"a": 2, "b": object()})) == (
        "b: is of type object, which cannot be stored"
    )
    assert message(SessionValueError, lambda: session.update({"a": 2, 3: 1})) == (  # type: ignore[arg-type]
        "a key of type int cannot be stored; keys must be strings"
    )
    assert session.to_dict() == {"a": 1}


def test_incr_counts_from_nothing_and_refuses_what_is_no_integer() -> None:
    session = Session.from_dict({"s": "x", "t": True, "f": 1.5, "m": 2**64 - 1})
    assert [session.incr("n"), session.incr("n", 4), session.incr("n", -2)] == [1, 5, 3]
    for key in "stf":
        assert message(SessionTypeError, lambda key=key: session.incr(key)) == f"incr('{key}'): the stored value is not an integer"
    assert message(SessionValueError, lambda: session.incr("m")) == "m: is an integer beyond 64 bits; store it as a string"
    assert session.to_dict() == {"s": "x", "t": True, "f": 1.5, "m": 2**64 - 1, "n": 3}


def test_append_starts_a_list_and_refuses_what_is_none() -> None:
    session = Session.from_dict({"s": "x"})
    session.append("log", {"a": 1})
    session.append("log", 2)
    assert session["log"] == [{"a": 1}, 2]
    assert message(SessionTypeError, lambda: session.append("s", 1)) == "append('s'): the stored value is not a list"
    assert message(SessionValueError, lambda: session.append("log", object())) == (
        "log[2]: is of type object, which cannot be stored"
    )
    assert session.to_dict() == {"s": "x", "log": [{"a": 1}, 2]}


@pytest.mark.parametrize("key", ["dcaf", "\ud800"])
def test_a_default_that_changes_is_refused_under_a_key_that_set_refuses(key: Any) -> None:
    session = SEALER.start()
    try:
        session.get(key, {}, as_type=dict[str, int])["approved"] = 1
        sealed = SEALER.seal(session, SEALER.binding(), sequence=1)
    except SessionValueError:
        return
    state = SEALER.open(orjson.loads(sealed), SEALER.binding())._state
    assert state.payload().data == b"{}"


@pytest.mark.parametrize(
    "look", [Session.to_dict, Session.copy, dict, len, lambda session: session.get("a"), lambda session: session.is_empty]
)
def test_whoever_looks_at_a_session_has_touched_it(look: Any) -> None:
    session = Session.from_dict({"a": 1})
    assert not session.is_modified
    assert not session._state.is_touched
    look(session)
    assert session._state.is_touched


def test_a_session_outside_a_conversation_has_no_standing() -> None:
    session = Session()
    assert (session.id, session.sequence, session.created_at, session.expires_at, session.restarted) == (None, 0, None, None, None)
    assert message(ConfigurationError, lambda: SEALER.seal(session, SEALER.binding(), sequence=1)) == (
        "Only a session that the middleware began or opened can be sealed."
    )


def test_a_session_of_a_conversation_says_which_it_is() -> None:
    began = SEALER.start(restarted="session-ended")
    assert (began.sequence, began.restarted) == (0, "session-ended")
    session = next_turn(began, sequence=4)
    assert session.id == began.id
    assert len(session.id or "") == 22
    assert (session.sequence, session.restarted) == (4, None)
    assert session.created_at == datetime.fromtimestamp(1_789_000_000, UTC)
    assert session.expires_at == datetime.fromtimestamp(1_789_000_000 + 7 * 86_400, UTC)


def at_once(step: Any) -> Any:
    try:
        step.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the stateless store waited for something")


def numbered(session: Any) -> Any:
    """The number that the state gets from a store that keeps nothing."""
    claims = SEALER.claims_of(session) if session.sequence else None
    lease = at_once(StatelessStore().open(OpenRequest(session.id, claims, SEALER.binding())))
    sealed = SEALER.prepare(session, SEALER.binding(), sequence=lease.sequence).sealed
    at_once(lease.commit(sealed, ends_turn=True))
    assert lease.sequence == sealed.claims.seq + 1
    return sealed.claims.seq


def test_the_sequence_counts_changes() -> None:
    session = SEALER.start()
    assert numbered(session) == 1
    session["a"] = 1
    assert numbered(session) == 1
    session = next_turn(session, sequence=1)
    assert numbered(session) == 1
    session["a"] = 2
    assert numbered(session) == 2
    session["a"] = 1
    assert numbered(session) == 1


def test_a_repr_shows_keys_and_no_values() -> None:
    session = Session.from_dict({"b": "CANARY", "a": 1})
    assert repr(session) == "<Session keys=['a', 'b']>"


@pytest.mark.parametrize("make", [Session, lambda: Session().user])
def test_a_session_is_not_pickled(make: Any) -> None:
    name = type(make()).__name__
    assert message(TypeError, lambda: pickle.dumps(make())) == f"a {name} is not pickled: seal it, or take to_dict()"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_session_is_its_own(copied: Any) -> None:
    session = SEALER.start()
    session["a"] = [1]
    other = copied(session)
    other["a"].append(2)
    session["a"].append(3)
    assert (session["a"], other["a"]) == ([1, 3], [1, 2])
    assert other.id == session.id


def test_a_session_is_never_read_from_a_body() -> None:
    assert message(ConfigurationError, lambda: TypeAdapter(Session)) == (
        "A Session is never read from a request body or from a model's arguments, where the client would write it. "
        "Under FastAPI declare `session: SessionDep` (from dcaf.integrations.fastapi); in a tool use dcaf's @tool; "
        "anywhere else call dcaf.current_session()."
    )


def test_an_unknown_type_of_default_is_returned_as_it_is() -> None:
    session = Session()
    marker = object()
    assert session.get("a", marker) is marker
    assert session.get("a", 5, as_type=int) == 5
    assert not session.is_modified


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ATOMS = st.none() | st.booleans() | st.integers(-3, 3) | st.just(1.0) | TEXT
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from(["a", "b", "c", "user:u", "app:p", "temp:t", "ü"])
CARTS = st.builds(Cart, items=st.lists(TEXT, max_size=2), total=st.integers(0, 3))


def exact(values: Any) -> Any:
    return {key: orjson.dumps(value) for key, value in values.items()}


def lasting(values: Any) -> Any:
    return {key: value for key, value in values.items() if not key.startswith("temp:")}


class SessionMachine(RuleBasedStateMachine):
    """A plain dict does what the session does; they must agree at every step."""

    session_type = Session

    @initialize(values=st.dictionaries(KEYS, VALUES, max_size=4))
    def arrive(self, values: Any) -> None:
        self.session = SEALER.start()
        self.held: dict[str, Any] = {}
        self.model = copy.deepcopy(values)
        self.arrived: dict[str, Any] = {}
        self.session.update(values)
        self.reseal()

    def _let_go(self, key: Any) -> None:
        self.held.pop(key, None)

    def _lists(self) -> Any:
        return [key for key, value in self.model.items() if type(value) is list]

    def _carts(self) -> Any:
        return [key for key, value in self.model.items() if type(value) is dict and list(value) == ["items", "total"]]

    @rule(key=KEYS, value=VALUES)
    def set(self, key: Any, value: Any) -> None:
        self.session.set(key, value)
        self.model[key] = copy.deepcopy(value)
        self._let_go(key)

    @rule(key=KEYS, cart=CARTS, text=TEXT)
    def set_a_model_and_change_it(self, key: Any, cart: Any, text: Any) -> None:
        given = cart.model_copy(deep=True)
        self.session[key] = given
        given.items.append(text)
        self.model[key] = given.model_dump()
        self._let_go(key)

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        assert orjson.dumps(self.session.get(key)) == orjson.dumps(self.model.get(key))
        assert (key in self.session) == (key in self.model) == self.session.has(key)

    @rule(key=KEYS)
    def delete(self, key: Any) -> None:
        self.session.delete(key)
        self.model.pop(key, None)
        self._let_go(key)

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        assert orjson.dumps(self.session.pop(key, "none")) == orjson.dumps(self.model.pop(key, "none"))
        self._let_go(key)

    @rule(key=KEYS, value=VALUES)
    def setdefault(self, key: Any, value: Any) -> None:
        self.model.setdefault(key, copy.deepcopy(value))
        assert orjson.dumps(self.session.setdefault(key, value)) == orjson.dumps(self.model[key])

    @rule(values=st.dictionaries(KEYS, VALUES, max_size=3))
    def update(self, values: Any) -> None:
        self.session.update(values)
        self.model.update(copy.deepcopy(values))
        for key in values:
            self._let_go(key)

    @rule()
    def clear(self) -> None:
        self.session.clear()
        self.model = {key: value for key, value in self.model.items() if key.startswith(("user:", "app:"))}
        self.held.clear()

    @rule(key=KEYS, by=st.integers(-2, 2))
    def incr(self, key: Any, by: Any) -> None:
        found = self.model.get(key, 0)
        if type(found) is not int:
            with pytest.raises(SessionTypeError):
                self.session.incr(key, by)
            return
        self.model[key] = found + by
        assert self.session.incr(key, by) == found + by

    @rule(key=KEYS, value=VALUES)
    def append(self, key: Any, value: Any) -> None:
        found = self.model.get(key, [])
        if type(found) is not list:
            with pytest.raises(SessionTypeError):
                self.session.append(key, value)
            return
        self.model[key] = [*found, copy.deepcopy(value)]
        self.session.append(key, value)
        self._let_go(key)

    @precondition(lambda self: self._lists())
    @rule(data=st.data(), value=VALUES, hold=st.booleans())
    def append_through_a_raw_handle(self, data: Any, value: Any, hold: Any) -> None:
        key = data.draw(st.sampled_from(self._lists()))
        handle = self.session[key]
        if hold:
            self.held[key] = handle
        handle.append(value)
        self.model[key].append(copy.deepcopy(value))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), value=ATOMS)
    def change_through_a_handle_held_since_earlier_steps(self, data: Any, value: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.held[key].insert(0, value)
        self.model[key].insert(0, value)

    @precondition(lambda self: self._lists())
    @rule(data=st.data(), value=ATOMS)
    def append_through_a_typed_handle(self, data: Any, value: Any) -> None:
        key = data.draw(st.sampled_from(self._lists()))
        self.session.get(key, as_type=list[Any]).append(value)  # type: ignore[union-attr]
        self.model[key].append(value)
        self._let_go(key)

    @precondition(lambda self: self._carts())
    @rule(data=st.data(), text=TEXT, total=st.integers(0, 3))
    def change_a_model(self, data: Any, text: Any, total: Any) -> None:
        key = data.draw(st.sampled_from(self._carts()))
        cart = self.session.get(key, as_type=Cart)
        assert cart is not None
        assert cart.model_dump() == self.model[key]
        cart.items.append(text)
        cart.total = total
        self.model[key] = cart.model_dump()

    @precondition(lambda self: self._carts())
    @rule(data=st.data(), text=TEXT)
    def change_a_model_through_its_json(self, data: Any, text: Any) -> None:
        key = data.draw(st.sampled_from(self._carts()))
        self.session[key]["items"].append(text)
        self.model[key]["items"].append(text)

    @rule(key=KEYS, text=TEXT, change=st.booleans())
    def take_a_default(self, key: Any, text: Any, change: Any) -> None:
        if key in self.model:
            return
        handle = self.session.get(key, Cart(), as_type=Cart)
        if change:
            handle.items.append(text)
            self.model[key] = handle.model_dump()

    @rule()
    def reseal(self) -> None:
        self.session = next_turn(self.session)
        self.model = self.arrived = lasting(self.model)
        self.arrived = copy.deepcopy(self.model)
        self.held.clear()

    @invariant()
    def they_agree(self) -> None:
        before, now = exact(self.arrived), exact(lasting(self.model))
        assert self.session.is_modified == (before != now)
        assert exact(self.session.to_dict()) == now
        changes = self.session.changes
        assert exact(changes["set"]) == {key: value for key, value in now.items() if before.get(key) != value}
        assert sorted(changes["delete"]) == sorted(key for key in before if key not in now)
        assert sorted(self.session) == sorted(self.model)
        assert len(self.session) == len(self.model)
        assert self.session.is_empty == (not now)
        if [*before.items()] == [*now.items()]:
            assert self.session._state.payload() is self.session._state.arrived


SETTINGS = settings(
    max_examples=max(5, int(100_000 * SCALE) // STEPS),
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.promise(12)
def test_a_session_agrees_with_a_plain_dict_at_every_step() -> None:
    run_state_machine_as_test(SessionMachine, settings=SETTINGS)


class ForgetfulMachine(SessionMachine):
    """The broken twin: a session that hands out copies."""

    @precondition(lambda self: self._lists())
    @rule(data=st.data(), value=ATOMS)
    def append_through_a_raw_handle(self, data: Any, value: Any) -> None:
        key = data.draw(st.sampled_from(self._lists()))
        copy.deepcopy(self.session[key]).append(value)
        self.model[key].append(value)


def test_the_machine_catches_a_session_that_hands_out_copies() -> None:
    quick = settings(SETTINGS, max_examples=50, phases=[Phase.generate], derandomize=True, database=None, print_blob=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ForgetfulMachine, settings=quick)
