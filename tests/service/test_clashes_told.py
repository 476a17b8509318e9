"""Where two turns have changed one value and one of them is given up, the log says so, without key and value."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf.core.errors import StaleSessionError
from dcaf.engines import MemoryEngine
from dcaf.service import SessionService, commits
from dcaf.service.changes import Change

WHOSE: dict[str, Any] = {"user": "p", "id": "v"}
TOLD = "dcaf: a turn of a kept session was kept over another turn of it, or of another session of the user (write-write)"


def clash(caplog: pytest.LogCaptureFixture, first: dict[str, Any], then: dict[str, Any], **settings: Any) -> list[str]:
    """What the log says of two turns at once."""
    service = SessionService(MemoryEngine(partitions=8), app="clinic", **{"on_busy": "merge", **settings})
    service.sync.create(**WHOSE, state={"canary": {"a": 1, "b": 1}, "user:canary": 0, "app:canary": 0, "n": 0})
    caplog.clear()
    with service.sync.open(**WHOSE) as session:
        session.update(first)
        session.incr("n")
        with service.sync.open(**WHOSE) as other:
            other.update(then)
            other.incr("n")
    found = service.sync.get(**WHOSE)
    assert found is not None
    assert found["n"] == 2
    assert "canary" not in caplog.text
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("key", ["canary", "user:canary", "app:canary", "new", "user:new", "app:new"])
def test_a_clash_is_told_once(caplog: pytest.LogCaptureFixture, key: str) -> None:
    assert clash(caplog, {key: "mine"}, {key: "theirs"}) == [TOLD]


def test_each_clash_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert clash(caplog, {"canary": 1, "user:canary": 1, "x": 1}, {"canary": 2, "user:canary": 2, "y": 1}) == [TOLD] * 2


def test_what_merges_is_no_clash(caplog: pytest.LogCaptureFixture) -> None:
    first: dict[str, Any] = {"canary": {"a": 2, "b": 1}, "user:one": 1, "x": 1}
    then: dict[str, Any] = {"canary": {"a": 1, "b": 2}, "user:two": 1, "y": 1}
    assert clash(caplog, first, then) == []


def test_a_turn_that_is_refused_tells_no_clash(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StaleSessionError):
        clash(caplog, {"user:canary": 1}, {"user:canary": 2}, on_busy="reject")
    assert not caplog.records


def clash_of_two_sessions(caplog: pytest.LogCaptureFixture) -> list[str]:
    service = SessionService(MemoryEngine(), app="clinic")
    for session_id in ("v", "w"):
        service.sync.create(user="p", id=session_id)
    with service.sync.open(user="p", id="v") as session:
        session["user:a"] = 1
        with service.sync.open(user="p", id="w") as other:
            other["user:a"] = 2
    return [record.getMessage() for record in caplog.records]


def test_two_sessions_of_a_user_clash_whatever_is_done_with_busy_ones(caplog: pytest.LogCaptureFixture) -> None:
    assert clash_of_two_sessions(caplog) == [TOLD]


def test_control_a_clash_is_silent_where_it_is_not_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Change, "count_clashes", lambda _: 0)
    assert clash_of_two_sessions(caplog) == []
    monkeypatch.setattr(commits, "log_clash", lambda *_: None)
    assert clash(caplog, {"canary": 1}, {"canary": 2}) == []
