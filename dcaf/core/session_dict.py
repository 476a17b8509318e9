"""A session as a real dict, for code that needs one; the dict and the session follow each other's changes.

>>> import json
>>> session = Session.from_dict({"cart": {"items": []}})
>>> shown = SessionDict.of(session)
>>> shown["user"] = "ada"
>>> shown["cart"]["items"].append("nut")
>>> session["step"] = 1
>>> json.dumps(shown) == json.dumps(session.to_dict()) == '{"cart": {"items": ["nut"]}, "user": "ada", "step": 1}'
True

Overriding the methods is not enough, because code in C reads and writes the storage of a dict directly.
So whoever takes the lock of the state first takes over what was written into the storage, and at the end writes back what changed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
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
"""The methods of a dict that read it."""

WRITERS: Final = ("__setitem__", "__delitem__", "update", "clear", "__ior__")
"""The methods that change it without a read."""

BOTH: Final = ("pop", "popitem", "setdefault")
"""The methods that read and change it."""


class SessionDict(dict[str, Any]):
    """The keys of a session, as a dict with the attributes of Starlette's own sessions.

    What a session cannot store is refused where it is written: values that JSON cannot say, and keys that are no strings.

    Args:
        *values: As in a dict. They count as arrived, so that the session is not modified.
        **named: Likewise.
    """

    __slots__ = ("_is_accessed", "_session")

    def __init__(self, *values: Any, **named: Any) -> None:
        self._bind(Session.from_dict(dict(*values, **named)))

    @classmethod
    def of(cls, session: Session) -> Self:
        """Show a session. Views of it that were made before do not see later changes."""
        return cls.__new__(cls)._bind(session)

    def _bind(self, session: Session) -> Self:
        self._is_accessed = False
        self._session = session
        session.__dict__["_state"] = DictState(self, state_of(session))
        return self

    @property
    def __dcaf_session__(self) -> Session:
        """The session, for functions that take one."""
        return self._session

    @property
    def _state(self) -> State:
        return state_of(self._session)

    @property
    def accessed(self) -> bool:
        """Whether the session was asked for or changed."""
        return self._is_accessed or self.modified

    @property
    def modified(self) -> bool:
        """Whether it differs from what arrived, also inside the values. Setting it has no effect."""
        return self._session.is_modified

    @modified.setter
    def modified(self, value: bool) -> None: ...

    def mark_accessed(self) -> None:
        """Count the session as asked for, as ``request.session`` does."""
        self._is_accessed = True
        self._state.mark_seen()
        self._write_back_quietly()

    def mark_modified(self) -> None:
        """As in Starlette's sessions; changes are noticed without it."""
        self.mark_accessed()

    def _write_back_quietly(self) -> None:
        """Write back all handles that can be; a value that was changed in two ways raises where it is read."""
        state = self._state
        with state.lock:
            for slot in state._slots.values():
                with suppress(StateError):
                    slot.write_back()

    def __getattr__(self, name: str) -> Any:
        advice = f". Write current_session().{name} instead" if has_attribute(Session, name) else ""
        raise AttributeError(f"request.session is a dict here, and has no attribute {name!r}{advice}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} keys={sorted(self)}>"

    def __reduce_ex__(self, _: object) -> Any:
        return dict, ({**self},)


class DictState(State):
    """A state whose keys are in a dict, too.

    Args:
        shown: The dict.
        state: The state that this one replaces.
    """

    __slots__ = ("_shown", "_values")

    def __init__(self, shown: dict[str, Any], state: State) -> None:
        super().__init__()
        self._shown = shown
        self._values: dict[str, tuple[Any, bytes]] = {}
        self.lock: AbstractContextManager[object] = Gate(self.take_in, self.show)
        self.refill(state)
        self._looked = False

    @property
    def is_touched(self) -> bool:
        """Whether anything has read or changed the state; that it is parsed does not tell, because the dict needs all of it."""
        return self._looked or any(slot.data is not slot.arrived and slot.data != slot.arrived for slot in self._slots.values())

    def find(self, key: str) -> Slot | None:
        self._looked = True
        with self.lock:
            return super().find(key)

    def keys(self, prefix: str = "") -> list[str]:
        self._looked = True
        return super().keys(prefix)

    def changed_keys(self) -> list[str]:
        with self.lock:
            return super().changed_keys()

    def _current_members(self) -> Members:
        self._looked = True  # a tool's call reads the state this way
        return super()._current_members()

    def take_in(self) -> None:
        """Store what was written into the dict.

        Raises:
            SessionAliasError: A value was changed in the dict and in another way.
            SessionValueError: A value may not be stored.
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
        if self._present_keys() != [*storage]:
            for key in storage:
                self.move_to_end(key)

    def show(self) -> None:
        """Write the changes of the state into the dict."""
        self._write_tails()
        present = self._present_keys()
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
        """Restore the dict as it was after the last ``show``."""
        dict.clear(self._shown)
        dict.update(self._shown, {key: value for key, (value, _) in self._values.items()})

    def _show(self, key: str) -> None:
        slot = self.slot(key)
        value, (before, data) = slot.get_live(), self._values.get(key, (None, None))
        if slot.data is not None and (slot.data != data or (isinstance(value, dict | list) and value is not before)):
            dict.__setitem__(self._shown, key, value)
            self._values[key] = (value, slot.data)

    def _is_in_step(self) -> bool:
        """Whether nothing was written into the dict since the last ``show``."""
        values, known = dict.items(self._shown), self._values.items()
        return len(values) == len(known) and all(
            key is name and value is before for (key, value), (name, (before, _)) in zip(values, known, strict=True)
        )

    def _check(self, key: str) -> None:
        """Refuse a value that was written into the dict where the state has another change of it."""
        slot, before = self._slots.get(key), self._values.get(key)
        if slot is None or before is None:
            return
        with suppress(StateError):  # a value that was changed in two ways is replaced by the one that is set now
            slot.write_back()
        if slot.data != before[1]:
            raise SessionAliasError(
                f"session[{key!r}] was changed in request.session and by another way, and one change would be lost. Set it again."
            )


class Gate:
    """The lock of a state with a dict: takes over what was written into the dict at the start, and shows changes at the end."""

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
            self._leave_once()
            raise

    def __exit__(self, *raised: object) -> None:
        try:
            if self._depth == 1:
                self._leave()
        finally:
            self._leave_once()

    def _leave_once(self) -> None:
        self._depth -= 1
        self._lock.release()


def _build_method(name: str, *, looks: bool, writes: bool) -> Callable[..., Any]:
    """A method of a dict, with the dict brought up to date before it and the state after it.

    Args:
        name: Its name.
        looks: Whether it returns values; a value that was changed in two ways is an error then.
        writes: Whether it changes the dict; a refused change is undone then.
    """
    method = getattr(dict, name)

    def call(self: SessionDict, *arguments: Any, **named: Any) -> Any:
        state = self._state
        assert isinstance(state, DictState)
        if looks:
            state.write_back()
        else:
            self._write_back_quietly()
        state.mark_seen()
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
    setattr(SessionDict, _name, _build_method(_name, looks=_name not in WRITERS, writes=_name not in READERS))
