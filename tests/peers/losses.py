"""What becomes of a change: each row is a function of a system, and gives a few words for what happened.

The first line of a row's docstring is printed under the table. No word of a cell is known before: each depends on what a client
held after the change, and on what the service then saw.

What a reader gets wrong: *lost* is silent, the answer to the change was a success. What fails with a status of 400 or more is an
*error*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tests.peers.baskets import NOTES, Basket, System
from tests.peers.visitors import FORGED, WRITTEN, Answer, Visitor, Worker

Check = Callable[[dict[str, Any]], bool]
BOTH: Final = ["tea", "milk"]


def nested(system: System) -> str:
    """A list in the state gets one more item: `session["cart"].append("milk")`."""
    return _changed(system, "append", lambda state: state["cart"] == BOTH)


def typed_store(system: System) -> str:
    """A pydantic model is put into the state."""
    return _changed(system, "store_typed", _has_basket)


def typed_change(system: System) -> str:
    """A pydantic model is made from the state, and then changed. It is not stored again."""
    return _changed(system, "change_typed", _has_basket)


def unmentioned(system: System) -> str:
    """The state is changed, and the endpoint's answer says nothing about it, because a tool did it far below."""
    return _changed(system, "count", _counted, "/quietly")


def stream(system: System) -> str:
    """The answer is a stream, and the state changes after its first line was sent."""
    return _changed(system, "count", _counted, "/stream")


def socket(system: System) -> str:
    """The state changes on a WebSocket; the next request is an ordinary one."""
    worker, visitor = _begun(system)
    answer = visitor.speak(worker, "count")
    return "cannot" if answer is None else _told(answer, _seen(visitor.ask(worker, "look"), _counted))


def large(system: System) -> str:
    """16 KB of random letters are put into the state. A browser drops a cookie over 4,096 bytes, and so does this client."""
    return _changed(system, "fill", lambda state: state.get("notes") == NOTES)


def another_worker(system: System) -> str:
    """The next turn is answered by another process, or by the same one after a restart."""
    _, visitor = _begun(system)
    return _seen(visitor.ask(system.worker(), "look"), _is_written)


def cookieless(system: System) -> str:
    """A program keeps the JSON of each answer, and no cookies."""
    return _carried(system, Visitor(keeps_cookies=False), "/turn")


def scriptless(system: System) -> str:
    """A browser without a script sends forms, and gets HTML. It keeps cookies, and nothing of a page."""
    return _carried(system, Visitor(keeps_json=False), "/page")


def edited(system: System) -> str:
    """The client writes another `role` into what it holds, or changes one character where it cannot read."""
    worker, visitor = _begun(system)
    visitor.edit()
    answer = visitor.ask(worker, "look")
    return "accepted" if answer.state.get("role") == FORGED else _refused(answer)


def readable(system: System) -> str:
    """Somebody looks for the `role` in what the client holds: as it stands, and decoded from base64."""
    _, visitor = _begun(system)
    return "yes" if visitor.can_read() else "no"


def older(system: System) -> str:
    """The client sends what it held before its last change."""
    worker, visitor = _begun(system)
    before = visitor.copy()
    assert visitor.ask(worker, "count").state["count"] == 1
    answer = before.ask(worker, "look")
    return "accepted" if _is_written(answer.state) and not _counted(answer.state) else _refused(answer)


def logged_out(system: System) -> str:
    """The session is cleared. Then somebody sends a copy of what the client held before."""
    worker, visitor = _begun(system)
    before = visitor.copy()
    visitor.ask(worker, "clear")
    answer = before.ask(worker, "look")
    return "accepted" if _is_written(answer.state) else _refused(answer)


ROWS: Final[dict[str, Callable[[System], str]]] = {
    "a change inside a value": nested,
    "a typed object is stored": typed_store,
    "a typed object is changed after reading": typed_change,
    "the answer does not mention the state": unmentioned,
    "a change after the first byte of a stream": stream,
    "a change on a WebSocket": socket,
    "16 KB of state": large,
    "another worker, or a restart": another_worker,
    "a JSON client without cookies": cookieless,
    "a browser without a script": scriptless,
    "the client edits the state": edited,
    "the client can read the state": readable,
    "an older state is sent again": older,
    "a copy from before the log-out": logged_out,
}
"""Row of the table -> what it does."""


def meaning(row: str) -> str:
    """The sentence of a row."""
    return (ROWS[row].__doc__ or "").strip().partition("\n")[0]


def _carried(system: System, visitor: Visitor, route: str) -> str:
    worker = system.worker()
    answer = visitor.ask(worker, "begin", route)
    return "error" if answer.is_refused else _told(answer, _seen(visitor.ask(worker, "look", route), _is_written))


def _begun(system: System) -> tuple[Worker, Visitor]:
    worker, visitor = system.worker(), Visitor()
    first = visitor.ask(worker, "begin")
    assert _is_written(first.state), "a new session does not begin"
    return worker, visitor


def _changed(system: System, act: str, is_there: Check, route: str = "/turn") -> str:
    worker, visitor = _begun(system)
    answer = visitor.ask(worker, act, route)
    if answer.is_refused:
        return "error"
    assert route != "/stream" or b'"done"' in answer.body, "the stream was cut"
    return _told(answer, _seen(visitor.ask(worker, "look"), is_there))


def _told(answer: Answer, word: str) -> str:
    return f"{word}, with a warning" if word == "lost" and answer.was_warned else word


def _seen(answer: Answer, is_there: Check) -> str:
    if answer.is_refused:
        return f"refused: {answer.status}"
    return "kept" if is_there(answer.state) else "lost"


def _refused(answer: Answer) -> str:
    if answer.is_refused:
        return f"refused: {answer.status}"
    return "no effect" if _is_written(answer.state) else "refused: starts empty"


def _has_basket(state: dict[str, Any]) -> bool:
    return Basket.model_validate(state["basket"]).items == BOTH


def _counted(state: dict[str, Any]) -> bool:
    return state.get("count") == 1


def _is_written(state: dict[str, Any]) -> bool:
    return state.get("role") == WRITTEN
