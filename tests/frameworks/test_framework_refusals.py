"""What a client holds after it was refused: its session, or, where that is dead, the right to begin a new one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from dcaf.client import ServiceError, SessionDead
from dcaf.core.errors import SessionConflict, SessionUnavailable
from dcaf.testing import sealed, serving, tampered
from tests.frameworks.programs import AUDIENCE, FRAMEWORKS
from tests.frameworks.service import RING, Service
from tests.frameworks.talk import WIRES, Talk
from tests.stores_for_tests import ToldStore

STATE = {"service": "api", "replicas": 3}


def envelope(**options: Any) -> dict[str, Any]:
    return sealed(STATE, keys=RING, audience=AUDIENCE, **options)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Service, str]]:
    service = Service(request.param)
    with serving(service) as url:
        yield service, url


@pytest.mark.parametrize("at", ["open", "commit"])
@pytest.mark.parametrize("refusal", [SessionUnavailable(reason="store"), SessionConflict(reason="busy")], ids=lambda one: one.code)
@pytest.mark.parametrize("wire", WIRES)
def test_a_client_keeps_its_session_over_an_answer_that_may_not_cost_it(
    served: tuple[Service, str], wire: str, refusal: Any, at: str
) -> None:
    service, url = served
    store = ToldStore()
    service.mount(store=store)

    def refuse_once(about: Any) -> None:
        if about.claims is not None:  # that of a socket's handshake has none
            store.happening.clear()
            raise refusal

    with Talk(url, wire, session=envelope()) as talk:
        before = talk.token
        store.happening[at] = refuse_once
        with pytest.raises(ServiceError) as caught:
            talk.say("4 replicas")
        assert (caught.value.code, store.happening) == (refusal.code, {})
        assert caught.value.status in {refusal.http_status, None}
        assert talk.token == before
        assert talk.say("4 replicas").session == {**STATE, "replicas": 4, "wizard_step": 3}


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_keeps_its_session_over_a_body_that_was_too_large(served: tuple[Service, str], wire: str) -> None:
    service, url = served
    service.mount(max_body_bytes=2_000)
    with Talk(url, wire, session=envelope()) as talk:
        before = talk.token
        with pytest.raises(ServiceError) as caught:
            talk.say("service " + "x" * 4_000)
        assert caught.value.code == "body-too-large"
        assert talk.token == before
        assert talk.say("4 replicas").session == {**STATE, "replicas": 4, "wizard_step": 3}


DEAD: dict[str, dict[str, Any]] = {
    "session-unsigned": {"service": "mine"},
    "session-malformed": {"service": "api", "dcaf": {}},
    "session-invalid": tampered(envelope()),
    "session-ended": envelope(age=timedelta(days=8)),
}


@pytest.mark.parametrize("code", DEAD)
@pytest.mark.parametrize("wire", WIRES)
def test_a_client_starts_over_after_its_session_was_found_dead(served: tuple[Service, str], wire: str, code: str) -> None:
    service, url = served
    service.mount()
    with Talk(url, wire, session=DEAD[code]) as talk:
        with pytest.raises(SessionDead) as caught:
            talk.say("4 replicas")
        assert (caught.value.code, talk.token) == (code, "new")
        assert talk.say("4 replicas").session == {"replicas": 4, "wizard_step": 3}


@pytest.mark.parametrize("code", DEAD)
@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_restarts_by_itself_needs_one_turn(served: tuple[Service, str], wire: str, code: str) -> None:
    service, url = served
    service.mount()
    with Talk(url, wire, session=DEAD[code], on_dead="restart") as talk:
        reply = talk.say("4 replicas")
        assert (reply.restarted, reply.session) == (code, {"replicas": 4, "wizard_step": 3})


@pytest.mark.parametrize("code", DEAD)
@pytest.mark.parametrize("wire", WIRES)
def test_control_a_client_that_keeps_a_dead_session_is_refused_again(served: tuple[Service, str], wire: str, code: str) -> None:
    service, url = served
    service.mount()
    with Talk(url, wire, session=DEAD[code]) as talk:
        for _ in range(2):
            talk.client.conversation.envelope = DEAD[code]
            with pytest.raises(SessionDead) as caught:
                talk.say("4 replicas")
            assert caught.value.code == code
