"""Proposals and decisions: what a person may decide about, and what comes of it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from dcaf import Session
from dcaf.agent.approvals import read_decisions
from dcaf.agent.helpdesk import Approval, Data
from dcaf.core import ToolArgumentError
from dcaf.tools.decisions import BEFORE, BOTH, LATE, REJECTED, TWICE, UNKNOWN
from dcaf.tools.proposals import DECIDED, MOST_BYTES, MOST_PENDING, PENDING, VALID_S, add_proposal, is_waiting
from tests.agent.agents import decide
from tests.asgi.wire import envelope

NOW = 1_789_000_000.0


def session_with(arguments: Any, id_: str = "c1", name: str = "drop") -> Session:
    session = Session()
    add_proposal(session, id_, name, arguments, now=NOW)
    return session


def said(session: Session, *decisions: Approval, now: float = NOW) -> list[str | None]:
    return [verdict.reason for verdict in decide(session, decisions, now=now)]


def yes(arguments: Any, id_: str = "c1", name: str = "drop", **more: Any) -> Approval:
    return Approval(id=id_, name=name, input=arguments, execute=True, **more)


def no(arguments: Any, reason: str = "not now", id_: str = "c1") -> Approval:
    return Approval(id=id_, name="drop", input=arguments, rejection_reason=reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=4)


def as_javascript(value: Any) -> Any:
    """What JSON.parse and JSON.stringify leave of a value: whole numbers without a fraction, where they are exact."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: as_javascript(item) for key, item in reversed(value.items())}
    return [as_javascript(item) for item in value] if isinstance(value, list) else value


def test_what_was_proposed_may_be_approved_once() -> None:
    session = session_with({"volume": "pg"})
    assert said(session, yes({"volume": "pg"})) == [None]
    assert said(session, yes({"volume": "pg"})) == [BEFORE]


@given(ARGUMENTS)
def test_a_proposal_is_known_again_by_its_own_arguments(arguments: Any) -> None:
    assert said(session_with(arguments), yes(arguments)) == [None]


@given(ARGUMENTS)
def test_a_proposal_is_known_again_after_a_javascript_client_has_written_it(arguments: Any) -> None:
    assert said(session_with(arguments), yes(as_javascript(arguments))) == [None]


@given(ARGUMENTS, ARGUMENTS)
def test_other_arguments_are_refused(proposed: Any, claimed: Any) -> None:
    same = rfc8785.dumps(proposed) == rfc8785.dumps(claimed)
    assert (said(session_with(proposed), yes(claimed)) == [None]) == same


@pytest.mark.parametrize(
    ("proposed", "claimed"),
    [
        ({"n": 1}, {"n": True}),
        ({"n": 1}, {"n": "1"}),
        ({"n": 0}, {"n": None}),
        ({"n": 0}, {}),
        ({"n": []}, {"n": {}}),
        ({"n": "é"}, {"n": "e\u0301"}),
        ({"n": "a"}, {"n": "a\u200b"}),
        ({"n": "a"}, {"N": "a"}),
        ({"n": 0.1 + 0.2}, {"n": 0.3}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"n": 2**53 - 1}, {"n": 2**53}),
        ({"n": 2**53 - 1}, {"n": 10**400}),
    ],
)
def test_values_that_look_alike_are_not_the_same(proposed: Any, claimed: Any) -> None:
    assert said(session_with(proposed), yes(claimed)) == [UNKNOWN]


@pytest.mark.parametrize(
    ("proposed", "claimed"),
    [
        ({"n": 1.0}, {"n": 1}),
        ({"n": 1}, {"n": 1.0}),
        ({"n": -0.0}, {"n": 0}),
        ({"a": 1, "b": {"d": 2, "c": 3}}, {"b": {"c": 3, "d": 2}, "a": 1}),
        ({"n": 1e21}, {"n": 1000000000000000000000.0}),
        ({"n": "\u00e9\U0001f600"}, json.loads('{"n": "\\u00e9\\ud83d\\ude00"}')),
        ({"\U0001f600": 1, "\ufb33": 2}, {"\ufb33": 2, "\U0001f600": 1}),
    ],
)
def test_values_that_a_json_parser_may_spell_otherwise_are_the_same(proposed: Any, claimed: Any) -> None:
    assert said(session_with(proposed), yes(claimed)) == [None]


@pytest.mark.parametrize("name", ["Drop", "drop ", "drop_all", ""])
def test_another_tool_is_refused(name: str) -> None:
    assert said(session_with({}), yes({}, name=name)) == [UNKNOWN]


def test_an_id_and_a_name_cannot_be_divided_otherwise() -> None:
    """Lengths stand before the parts: `a` + `bc` is not `ab` + `c`."""
    session = session_with({}, id_="a", name="bc")
    own = session._state.own()
    own[PENDING] = {"ab": own[PENDING]["a"]}
    session._state.keep(own)
    assert said(session, yes({}, id_="ab", name="c")) == [UNKNOWN]


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 10**400, float("nan"), float("inf"), "\ud800", {"\ud800": 1}, object(), {1: 2}],
    ids=["2**53", "-2**53", "huge", "nan", "inf", "surrogate", "surrogate key", "object", "number as key"],
)
def test_arguments_that_two_parsers_read_differently_are_refused_at_the_proposal(value: Any) -> None:
    session = Session()
    with pytest.raises(ToolArgumentError) as caught:
        add_proposal(session, "c1", "drop", {"x": value}, now=NOW)
    assert caught.value.problems[0][0] == "arguments"
    assert session._state.own() == {}


def test_arguments_of_any_depth_are_refused_and_crash_nothing() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ToolArgumentError):
        add_proposal(Session(), "c1", "drop", {"x": deep}, now=NOW)


@pytest.mark.parametrize(("age_s", "expected"), [(0, None), (VALID_S, None), (VALID_S + 1, LATE), (10**9, LATE)])
def test_an_approval_expires_after_five_minutes(age_s: int, expected: str | None) -> None:
    assert VALID_S == 300
    assert said(session_with({}), yes({}), now=NOW + age_s) == [expected]


def test_a_decision_takes_what_has_expired_out_of_the_session() -> None:
    session = session_with({})
    add_proposal(session, "c2", "drop", {}, now=NOW + 200)
    assert said(session, yes({}, id_="c3"), now=NOW + 301) == [UNKNOWN]
    assert list(session._state.own()[PENDING]) == ["c2"]


def test_a_call_that_is_decided_twice_at_once_does_not_run_and_waits_on() -> None:
    session = session_with({})
    assert said(session, yes({}), yes({})) == [TWICE, TWICE]
    assert said(session, yes({}), no({})) == [TWICE, TWICE]
    assert said(session, yes({})) == [None]


def test_approved_and_rejected_at_once_does_not_run_and_waits_on() -> None:
    session = session_with({})
    assert said(session, yes({}, rejection_reason="no")) == [BOTH]
    assert said(session, yes({}, rejection_reason="")) == [BOTH]
    assert said(session, yes({})) == [None]


def test_a_rejection_is_told_with_its_reason_and_ends_the_waiting() -> None:
    session = session_with({})
    assert said(session, no({})) == [f"{REJECTED}not now"]
    assert said(session, yes({})) == [BEFORE]
    assert list(session._state.own()) == [DECIDED]


def test_a_rejection_of_what_was_not_proposed_is_not_known() -> None:
    (verdict,) = decide(session_with({}), [no({}, id_="c2")], now=NOW)
    assert (verdict.reason, verdict.is_known, verdict.is_approved) == (UNKNOWN, False, False)


def test_neither_yes_nor_no_leaves_it_waiting_and_changes_nothing() -> None:
    session = Session._over(session_with({})._state)
    before = session._state.own()
    assert said(session, Approval(id="c1", name="drop")) == []
    assert session._state.own() == before


def test_the_older_form_decides_too() -> None:
    data = Data.model_validate({"tool_calls": [{"id": "c1", "name": "drop", "input": {"v": 1}, "execute": True}]})
    assert said(session_with({"v": 1}), *read_decisions(data)) == [None]


def test_the_same_decision_in_both_forms_is_one() -> None:
    item = {"id": "c1", "name": "drop", "input": {}, "execute": True}
    data = Data.model_validate({"approvals": [item], "tool_calls": [item]})
    assert said(session_with({}), *read_decisions(data)) == [None]


@pytest.mark.parametrize("approved", ["approvals", "tool_calls"])
def test_a_yes_in_one_form_and_a_no_in_the_other_is_refused(approved: str) -> None:
    other = "tool_calls" if approved == "approvals" else "approvals"
    item = {"id": "c1", "name": "drop"}
    data = Data.model_validate({approved: [{**item, "execute": True}], other: [{**item, "rejection_reason": "no"}]})
    assert said(session_with({}), *read_decisions(data)) == [TWICE, TWICE]


@pytest.mark.parametrize("decided", ["approvals", "tool_calls"])
def test_a_decision_in_one_form_counts_where_the_other_is_sent_back_undecided(decided: str) -> None:
    other = "tool_calls" if decided == "approvals" else "approvals"
    item = {"id": "c1", "name": "drop"}
    data = Data.model_validate({decided: [{**item, "execute": True}], other: [item]})
    assert said(session_with({}), *read_decisions(data)) == [None]


def test_no_data_decides_nothing() -> None:
    assert read_decisions(None) == []


def test_at_most_32_calls_wait_and_the_oldest_give_way() -> None:
    session = Session()
    for number in range(MOST_PENDING + 8):
        add_proposal(session, f"c{number}", "drop", {}, now=NOW)
    own = session._state.own()[PENDING]
    assert MOST_PENDING == 32
    assert list(own) == [f"c{number}" for number in range(8, 40)]


def test_each_proposal_is_used_under_a_name_of_its_own() -> None:
    """A model may give the id of a call that was approved long ago to another one."""
    session, uses = Session(), set()
    for _ in range(3):
        add_proposal(session, "c1", "drop", {}, now=NOW)
        uses |= {verdict.use for verdict in decide(session, [yes({})], now=NOW)}
    assert len(uses) == 3


def test_pending_approvals_survive_clear_and_are_in_no_view() -> None:
    session = Session.from_dict({"step": 1})
    add_proposal(session, "c1", "drop", {"volume": "pg"}, now=NOW)
    session.clear()
    assert is_waiting(session, "c1")
    assert session.to_dict() == {}
    assert session.changes == {"set": {}, "delete": ["step"]}
    assert dict(session.items()) == {}
    assert "c1" not in repr(session)
    assert said(session, yes({"volume": "pg"})) == [None]


def test_a_session_with_nothing_but_a_proposal_is_sealed_and_not_shown() -> None:
    from tests.asgi.wire import call, mounted

    async def application(scope: Any, receive: Any, send: Any) -> None:
        add_proposal(scope["dcaf.session"], "c1", "drop", {"volume": "pg"}, now=NOW)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})

    sent = call(mounted(application), {"data": {"session": envelope({"step": 1})}})
    assert {key: value for key, value in sent.envelope.items() if key != "dcaf"} == {"step": 1}
    assert set(sent.envelope["dcaf"]) == {"token", "expires_at"}


def test_ten_thousand_decisions_of_unknown_calls_are_judged_at_once() -> None:
    """Nothing is computed over the arguments of a call that does not wait."""
    large = {"text": "x" * 1000}
    decisions = [yes(large, id_=f"z{number}") for number in range(10_000)]
    session = session_with({})
    start = time.perf_counter()
    assert set(said(session, *decisions)) == {UNKNOWN}
    assert time.perf_counter() - start < 1.0


def test_arguments_that_are_too_long_for_a_person_are_neither_proposed_nor_digested() -> None:
    fitting = {"text": "x" * (MOST_BYTES - len('{"text":""}'))}
    assert said(session_with(fitting), yes(fitting)) == [None]
    with pytest.raises(ToolArgumentError, match="too long"):
        session_with({"text": fitting["text"] + "x"})
    dense = {"list": [{"a": number} for number in range(100_000)]}
    session = session_with({})
    decision = yes(dense)
    decisions = [decision, *(decision.model_copy(update={"id": f"z{number}"}) for number in range(100))]
    start = time.perf_counter()
    assert said(session, *decisions) == [UNKNOWN] * 101
    assert time.perf_counter() - start < 1.0


def test_a_verdict_shows_no_arguments() -> None:
    (verdict,) = decide(session_with({"v": "canary"}), [yes({"v": "canary"})], now=NOW)
    assert verdict.is_approved
    assert "canary" not in repr(verdict)
    assert verdict.use not in repr(verdict)
