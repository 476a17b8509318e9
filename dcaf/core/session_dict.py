"""A session as a dict: a real one, for code that was written for one, kept in step with the session in both directions.

>>> import json
>>> session = Session.from_dict({"cart": {"items": []}})
>>> shown = SessionDict.of(session)
>>> shown["user"] = "ada"
>>> shown["cart"]["items"].append("nut")
>>> session["step"] = 1
>>> json.dumps(shown) == json.dumps(session.to_dict()) == '{"cart": {"items": ["nut"]}, "user": "ada", "step": 1}'
True

What a reader gets wrong: its methods are not enough. What is written in C reads and writes the storage of a dict, and calls
nobody. So the storage is always right: whoever takes the lock of the state takes in first what was written into the storage, and
leaves there what has become of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import Any, Final, Self

from dcaf.core.class_attributes import has_attribute
from dcaf.core.errors import SessionAliasError, StateError
from dcaf.core.handles import Slot
from dcaf.core.mapping import state_of
from dcaf.core.payload import Members
from dcaf.core.session import Session
from dcaf.core.state import State

READERS: Final = (
    *("__getitem__", "get", "__contains__", "__len__", "__iter__", "__reversed__", "keys", "items", "values", "copy"),
    *("__eq__", "__ne__", "__or__", "__ror__"),
)
"""Methods of a dict that look at it."""

WRITERS: Final = ("__setitem__", "__delitem__", "update", "clear", "__ior__")
"""Those that change it, whatever there was."""

BOTH: Final = ("pop", "popitem", "setdefault")
"""Those that look at it, and change it."""


class SessionDict(dict[str, Any]):
    """The keys of a session, as a dict with the attributes that Starlette's own sessions have.

    What a dict takes and a session does not is refused where it is written: values that JSON cannot say, keys that are no strings.

    Args:
        *values: As of a dict: what arrived, so that it is not modified.
        **named: Likewise.
    """

    __slots__ = ("_is_accessed", "_session")

    def __init__(self, *values: Any, **named: Any) -> None:
        self._bind(Session.from_dict(dict(*values, **named)))

    @classmethod
    def of(cls, session: Session) -> Self:
        """Show a session. Views of it that were made before do not see what is written from now on."""
        return cls.__new__(cls)._bind(session)

    def _bind(self, session: Session) -> Self:
        self._is_accessed = False
        self._session = session
        session.__dict__["_state"] = DictState(self, state_of(session))
        return self

    @property
    def __dcaf_session__(self) -> Session:
        """The session, for whoever takes one."""
        return self._session

    @property
    def _state(self) -> State:
        return state_of(self._session)

    @property
    def accessed(self) -> bool:
        """Whether somebody asked for it, or changed it."""
        return self._is_accessed or self.modified

    @property
    def modified(self) -> bool:
        """Whether it is not what arrived. It may be set, and is found out in any case, also inside the values."""
        return self._session.is_modified

    @modified.setter
    def modified(self, value: bool) -> None: ...

    def mark_accessed(self) -> None:
        """Say that somebody asks for it, as ``request.session`` does."""
        self._is_accessed = True
        self._state.look()
        self._settle_quietly()

    def mark_modified(self) -> None:
        """As of Starlette's: nothing needs to be said."""
        self.mark_accessed()

    def _settle_quietly(self) -> None:
        """Bring in step what can be; a value that was changed in two ways waits for who reads it, or sets it."""
        state = self._state
        with state.lock:
            for slot in state._slots.values():
                with suppress(StateError):
                    slot.settle()

    def __getattr__(self, name: str) -> Any:
        advice = f". Write current_session().{name} instead" if has_attribute(Session, name) else ""
        raise AttributeError(f"request.session is a dict here, and has no attribute {name!r}{advice}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} keys={sorted(self)}>"

    def __reduce_ex__(self, _: object) -> Any:
        return dict, ({**self},)


class DictState(State):
    """A state whose keys stand in a dict, too.

    Args:
        shown: The dict.
        state: Whose place this one takes.
    """

    __slots__ = ("_shown", "_values")

    def __init__(self, shown: dict[str, Any], state: State) -> None:
        super().__init__()
        self._shown = shown
        self._values: dict[str, tuple[Any, bytes]] = {}
        self.lock = Gate(self.take_in, self.show)
        self.refill(state)
        self._looked = False

    @property
    def is_touched(self) -> bool:
        """Whether anybody looked at the state: of this one, all of it is parsed at once."""
        return self._looked or any(slot.data is not slot.arrived and slot.data != slot.arrived for slot in self._slots.values())

    def find(self, key: str) -> Slot | None:
        """As of a state."""
        self._looked = True
        with self.lock:
            return super().find(key)

    def keys(self, prefix: str = "") -> list[str]:
        """As of a state."""
        self._looked = True
        return super().keys(prefix)

    def changed(self) -> list[str]:
        """As of a state."""
        with self.lock:
            return super().changed()

    def _now(self) -> Members:
        self._looked = True  # a tool's call reads it by this way
        return super()._now()

    def take_in(self) -> None:
        """Make part of the state what was written into the dict.

        Raises:
            SessionAliasError: A value was changed there, and by another way too.
            SessionValueError: It may not be stored.
        """
        if self._is_in_step():
            return
        storage, known = dict(dict.items(self._shown)), self._values
        coming = {key: value for key, value in storage.items() if key not in known or known[key][0] is not value}
        for key in coming:
            self._check(key)
        self.put_all(coming)
        for key in known.keys() - storage.keys():
            self.drop(key)
        self._values = {key: known[key] if key not in coming else (value, b"") for key, value in storage.items()}
        if self._present() != [*storage]:
            for key in storage:
                self.move_to_end(key)

    def show(self) -> None:
        """Write into the dict what has changed in the state."""
        self._join_all()
        present = self._present()
        for key in dict.keys(self._shown) - set(present):
            dict.__delitem__(self._shown, key)
            del self._values[key]
        for key in present:
            with suppress(StateError):
                self._show(key)
        if [*dict.keys(self._shown)] != present:
            in_order = {key: dict.__getitem__(self._shown, key) for key in present}
            dict.clear(self._shown)
            dict.update(self._shown, in_order)

    def undo(self) -> None:
        """Give the dict back what it had."""
        dict.clear(self._shown)
        dict.update(self._shown, {key: value for key, (value, _) in self._values.items()})

    def _show(self, key: str) -> None:
        slot = self.slot(key)
        value, (before, data) = slot.lend(), self._values.get(key, (None, None))
        if slot.data is not None and (slot.data != data or (isinstance(value, dict | list) and value is not before)):
            dict.__setitem__(self._shown, key, value)
            self._values[key] = (value, slot.data)

    def _is_in_step(self) -> bool:
        """Whether the dict is as it was left."""
        values, known = dict.items(self._shown), self._values.items()
        return len(values) == len(known) and all(
            key is name and value is before for (key, value), (name, (before, _)) in zip(values, known, strict=True)
        )

    def _check(self, key: str) -> None:
        """Refuse a value that was written into the dict, where the one before it has changed unseen in the meantime."""
        slot, before = self._slots.get(key), self._values.get(key)
        if slot is None or before is None:
            return
        with suppress(StateError):  # what cannot be settled is resolved by what is set now
            slot.settle()
        if slot.data != before[1]:
            raise SessionAliasError(
                f"session[{key!r}] was changed in request.session and by another way, and one change would be lost. Set it again."
            )


class Gate:
    """The lock of a state that is shown: who comes in takes in what was written outside, and who leaves shows what changed."""

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._lock = RLock()
        self._enter = enter
        self._leave = leave
        self._depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        try:
            if self._depth == 1:
                self._enter()
        except BaseException:
            self._go()
            raise

    def __exit__(self, *raised: object) -> None:
        try:
            if self._depth == 1:
                self._leave()
        finally:
            self._go()

    def _go(self) -> None:
        self._depth -= 1
        self._lock.release()


def _method(name: str, *, looks: bool, writes: bool) -> Callable[..., Any]:
    """A method of a dict, between what is brought in step before it and after it.

    Args:
        name: Its name.
        looks: Whether it returns values: then one that was changed in two ways is an error.
        writes: Whether it changes the dict: then what is refused is undone.
    """
    method = getattr(dict, name)

    def call(self: SessionDict, *arguments: Any, **named: Any) -> Any:
        state = self._state
        assert isinstance(state, DictState)
        if looks:
            state.settle()
        else:
            self._settle_quietly()
        state.look()
        found = method(self, *arguments, **named)
        if writes:
            try:
                with state.lock:
                    pass
            except StateError:
                state.undo()
                raise
        return found

    call.__name__ = name
    return call


for _name in (*READERS, *WRITERS, *BOTH):  # here, where type checkers see those of a dict
    setattr(SessionDict, _name, _method(_name, looks=_name not in WRITERS, writes=_name not in READERS))
