"""Each rule of the header and the cookie, broken on purpose: the test that fixes the rule must see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dcaf.asgi import responses
from dcaf.asgi.carriers import CookieCarrier, HeaderCarrier, find_presented_tokens
from dcaf.asgi.lifecycle import ASGITurn
from dcaf.asgi.request import RequestSession
from dcaf.asgi.responses import HeaderSender
from dcaf.asgi.websocket import PassingWebSocket
from dcaf.core.sealer import Sealer
from tests.asgi import test_carriers as header
from tests.asgi import test_cookie as cookie


@pytest.fixture(autouse=True)
def _quiet(caplog: Any) -> None:
    caplog.set_level("CRITICAL", logger="dcaf")


async def _passing(self: Any, message: Any) -> Any:
    return message


def _unclaimed(self: Any, scope: Any) -> Any:
    found = [value for name, value in scope["headers"] if name == b"cookie"]
    return found[0].partition(b"=")[2].decode() if found else None


def _unlimited(self: Any, scope: Any) -> Any:
    found = [value for name, value in scope["headers"] if name == self.field]
    return found[0].decode("latin-1") if found else None


def _unreplaced(self: Any, found: Any) -> None:
    """Leave the body as it came."""


async def _carrying(self: Any, start: Any) -> None:
    """Begin the answer, whatever its status."""
    await responses.send_with_headers(self._turn, start, self._send)


Break = tuple[Any, str, Any, Callable[[], None]]
RULES: dict[str, Break] = {
    "the header comes before the cookie": (
        "dcaf.asgi.request",
        "find_presented_tokens",
        lambda carriers, scope: find_presented_tokens(carriers, scope)[::-1],
        lambda: header.test_body_header_cookie_is_the_order(("header", "cookie"), "header"),
    ),
    "a session that began in place of another drops it": (
        "dcaf.asgi.responses",
        "drop_stale",
        lambda _, start: start,
        header.test_after_that_refusal_a_client_that_starts_over_can_go_on,
    ),
    "a dead session is dropped by the problem": (
        "dcaf.asgi.lifecycle",
        "find_carriers_to_clear",
        lambda *_: [],
        lambda: header.test_a_dead_session_of_the_header_is_dropped_by_the_problem(b"x", "session-invalid"),
    ),
    "no session of a body reaches a service of other carriers": (
        RequestSession,
        "_prepare_body",
        _unreplaced,
        lambda: header.test_where_the_body_is_no_carrier_no_session_of_it_reaches_the_application(
            ("header",), header.carrying({"n": 1})
        ),
    ),
    "nor of a frame": (
        PassingWebSocket,
        "_admit",
        _passing,
        header.test_where_frames_carry_nothing_they_pass_and_a_change_is_told,
    ),
    "a change of a socket is told": (
        ASGITurn,
        "report_lost",
        lambda _: None,
        header.test_where_frames_carry_nothing_they_pass_and_a_change_is_told,
    ),
    "a change after the start is told": (
        HeaderSender,
        "report_late_change",
        lambda _: None,
        lambda: header.test_a_change_after_the_start_is_told(header.by_header(header.token())),
    ),
    "a server error carries nothing": (
        HeaderSender,
        "_take_start",
        _carrying,
        header.test_a_server_error_carries_no_session,
    ),
    "a long header is refused": (
        HeaderCarrier,
        "read",
        _unlimited,
        header.test_a_header_over_its_limit_is_refused_before_it_is_verified,
    ),
    "two headers are refused": (HeaderCarrier, "read", _unlimited, header.test_two_headers_are_refused),
    "several cookies are refused": (CookieCarrier, "read", _unclaimed, cookie.test_several_cookies_of_one_name_are_refused),
    "an unchanged session is not set again": (
        "dcaf.asgi.responses",
        "_is_due_by",
        lambda *_: True,
        cookie.test_parallel_requests_do_not_set_the_state_of_before,
    ),
    "an answer that looked at nothing is left alone": (
        ASGITurn,
        "is_private",
        True,
        cookie.test_a_session_that_nobody_looked_at_adds_nothing_to_an_answer,
    ),
    "a read session makes the answer vary": (
        CookieCarrier,
        "varied",
        lambda _, headers: headers,
        lambda: cookie.test_a_session_that_was_read_makes_the_answer_private_and_sets_nothing(None),
    ),
    "a worn token is made anew": (
        Sealer,
        "rests",
        lambda *_: True,
        lambda: cookie.test_a_token_is_made_anew_after_a_tenth_of_the_idle_timeout(cookie.DAY, is_set=True),
    ),
    "an emptied session deletes the cookie": (
        "dcaf.asgi.responses",
        "_is_empty",
        lambda _: False,
        cookie.test_an_emptied_session_deletes_the_cookie,
    ),
    "a refused cookie is started anew": (
        CookieCarrier,
        "restarts",
        False,
        lambda: cookie.test_a_refused_cookie_is_started_anew_and_replaced("x"),
    ),
    "a cookie too long is refused": (
        CookieCarrier,
        "room_bytes",
        100_000,
        cookie.test_where_bodies_carry_more_a_cookie_is_refused_when_it_is_set,
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_control_a_broken_rule_is_caught(rule: str, monkeypatch: Any) -> None:
    target, name, broken, test = RULES[rule]
    test()
    monkeypatch.setattr(*((f"{target}.{name}",) if isinstance(target, str) else (target, name)), broken)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test()
