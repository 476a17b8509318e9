"""The related systems' contracts: dcaf holds each behaviour on each engine, but for those of which the page says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.engines import MemoryEngine
from tests.related.contracts import CONTRACTS, HELD, NOT_THERE, OF_DCAF, REASONS, list_behaviours, try_out
from tests.related.kept_system import DcafService
from tests.related.related_systems import CLINIC, Event, Otherwise, Seen, System, find, require
from tests.related.two_writers import DcafBlind
from tests.service.kept_places import KINDS, KeptPlace, find_kept_place

BEHAVIOURS = list_behaviours()
ADK_BEHAVIOURS = 29
"""As many as the ADK's session services were asked for before this service was written."""


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptPlace]:
    """Each kind of place in turn; each test has applications of its own there."""
    found = find_kept_place(request.param, tmp_path_factory.mktemp("related"))
    found.open_engine()
    yield found
    found.close()


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """One event loop for all tests: an engine connects to its server once."""
    with start_blocking_portal() as found:
        yield found


def engine_of(place: KeptPlace) -> Any:
    return place._engines[0]


def ask(system: System, contract: str, behaviour: str) -> str:
    return anyio.run(try_out, CONTRACTS[contract].behaviours[behaviour], system)


@pytest.mark.parametrize(("contract", "behaviour"), [one for one in BEHAVIOURS if one not in OF_DCAF])
def test_dcaf_holds(portal: BlockingPortal, place: KeptPlace, contract: str, behaviour: str) -> None:
    portal.call(CONTRACTS[contract].behaviours[behaviour], DcafService(engine_of(place)))


@pytest.mark.parametrize(("contract", "behaviour"), OF_DCAF)
def test_dcaf_does_otherwise_as_the_page_says(place: KeptPlace, contract: str, behaviour: str) -> None:
    assert ask(DcafService(engine_of(place)), contract, behaviour) == OF_DCAF[contract, behaviour]


KEYS = [prefix + name for prefix in ("", "app:", "user:", "temp:") for name in ("a", "b:", "user:", "temp:a", "A")]
VALUES: list[Any] = [None, True, False, 0, 1, "", "1", [], {"app:a": None}]
STATES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=6)


async def check_split(system: System, state: dict[str, Any]) -> None:
    """A state is put together as it was given, but for its temporary keys; another session of the user has what is shared."""
    await system.create("ann", "v1", state=state)
    await system.create("ann", "v2")
    kept = {name: value for name, value in state.items() if not name.startswith("temp:")}
    require((await find(system, "ann", "v1")).state == kept, "it is put together as another")
    shared = {name: value for name, value in kept.items() if name.startswith(("app:", "user:"))}
    require((await find(system, "ann", "v2")).state == shared, "what is shared is something else")


@given(STATES)
@settings(deadline=None, database=None)
def test_a_state_is_split_by_prefix_and_put_together(state: dict[str, Any]) -> None:
    anyio.run(check_split, DcafService(MemoryEngine()), state)


def test_control_a_service_that_drops_what_it_does_not_split_is_noticed() -> None:
    with pytest.raises(Otherwise):
        anyio.run(check_split, Dropping(MemoryEngine()), {"user:a": None, "b": 1})


def test_the_adk_has_as_many_behaviours_as_it_was_asked_for() -> None:
    assert len(CONTRACTS["adk"].behaviours) == ADK_BEHAVIOURS


def test_what_dcaf_does_otherwise_has_a_reason_each() -> None:
    assert set(OF_DCAF) == set(REASONS) <= set(BEHAVIOURS)


class EmptyState(dict[str, Any]):
    """Broken: a state that nothing is pending of."""

    APP_PREFIX = USER_PREFIX = TEMP_PREFIX = ""

    def has_delta(self) -> bool:
        return False

    def to_dict(self) -> dict[str, Any]:
        return {}


class Empty(System):
    """Broken: it takes every call and keeps nothing."""

    taken = stale = unknown = wrong = closed = (ZeroDivisionError,)

    async def restart(self) -> None:
        return None

    async def create(self, user: str = "ann", id: str | None = None, **about: Any) -> Seen:
        return Seen(id, user, {}, [], None, created_at=1.0, updated_at=1.0)

    async def get(self, user: str, id: str, **about: Any) -> Seen | None:
        return await self.create(user, id)

    async def open(self, user: str, id: str, *, app: str = CLINIC) -> Seen:
        return await self.create(user, id)

    async def get_or_create(self, user: str, id: str | None = None) -> Seen:
        return await self.create(user, id)

    async def append(self, seen: Seen, *events: Event) -> None:
        return None

    async def break_off(self, seen: Seen, event: Event) -> None:
        seen.events.append(event)

    async def list_sessions(self, user: str, *, app: str = CLINIC) -> list[Seen]:
        return []

    async def list_all(self, *, app: str = CLINIC) -> list[Seen]:
        return []

    async def delete(self, user: str, id: str, *, app: str = CLINIC) -> bool:
        return False

    async def rewind(self, seen: Seen, to: int) -> None:
        return None

    async def user_state(self, user: str, *, app: str = CLINIC) -> dict[str, Any]:
        return {}

    async def add(self, user: str, id: str, messages: list[dict[str, Any]], *, app: str = CLINIC) -> int:
        return 0

    async def page(self, user: str, id: str, *, limit: int, offset: int = 0) -> tuple[list[Event], int]:
        return [], 0

    async def remember(self, user: str, key: str, value: object, *, id: str | None = None) -> None:
        return None

    async def recall(self, user: str, *, id: str | None = None) -> dict[str, Any]:
        return {}

    async def forget(self, user: str, key: str, *, id: str | None = None) -> bool:
        return False

    async def forget_all(self, user: str) -> int:
        return 0

    async def list_events(self, user: str, id: str) -> list[Event]:
        return []

    async def close(self, seen: Seen) -> None:
        return None

    def make_state(self, value: dict[str, Any], delta: dict[str, Any]) -> Any:
        return EmptyState()

    def call_without_await(self, user: str, id: str, event: Event) -> Seen:
        return Seen(id, user, {}, [], None)

    async def call_with_objects(self, user: str, id: str, state: dict[str, Any]) -> tuple[Seen, list[Any]]:
        return await self.create(user, id), []

    async def window(self, user: str, id: str, *, tokens: int) -> list[Event]:
        return []

    def with_ttl(self, ttl_s: float) -> System:
        return self

    def with_own_store(self, log: list[str]) -> System:
        return self

    async def archive(self, user: str, id: str) -> None:
        return None

    async def archive_idle(self, idle_s: float) -> int:
        return 0

    async def checkpoint(self, seen: Seen, name: str) -> None:
        return None

    async def rewind_to(self, seen: Seen, name: str) -> None:
        return None

    async def rewind_before(self, seen: Seen, event: Event) -> None:
        return None

    async def clear(self, user: str) -> int:
        return 0


@pytest.mark.parametrize(("contract", "behaviour"), BEHAVIOURS)
def test_control_a_system_that_keeps_nothing_holds_nothing(contract: str, behaviour: str) -> None:
    assert ask(Empty(), contract, behaviour) != HELD


@pytest.mark.parametrize(("contract", "behaviour"), BEHAVIOURS)
def test_control_a_system_without_calls_has_no_such_call(contract: str, behaviour: str) -> None:
    assert ask(System(), contract, behaviour) == NOT_THERE


class Everybodys(DcafService):
    """Broken: one user for all."""

    async def create(self, user: str = "ann", id: str | None = None, **about: Any) -> Seen:
        return await super().create("all", id, **about)

    async def get(self, user: str, id: str, **about: Any) -> Seen | None:
        return await super().get("all", id, **about)


class OneApplication(DcafService):
    """Broken: one application for all."""

    def service(self, app: str = CLINIC) -> Any:
        return super().service()


class Shuffling(DcafService):
    """Broken: events of one moment come by their texts."""

    async def get(self, user: str, id: str, **about: Any) -> Seen | None:
        seen = await super().get(user, id, **about)
        if seen is not None:
            seen.events.sort(key=lambda event: (event.at, hash(event.text)))
        return seen


class Merging(DcafService):
    """Broken: a dict is merged into the one before."""

    async def append(self, seen: Seen, *events: Event) -> None:
        for event in events:
            for name, value in event.state.items():
                if isinstance(value, dict):
                    event.state[name] = {**seen.state.get(name, {}), **value}
        await super().append(seen, *events)


class Dropping(DcafService):
    """Broken: None removes a key."""

    async def get(self, user: str, id: str, **about: Any) -> Seen | None:
        seen = await super().get(user, id, **about)
        if seen is not None:
            seen.state = {name: value for name, value in seen.state.items() if value is not None}
        return seen


class KeepingTemporary(DcafService):
    """Broken: a temporary key is kept under another name."""

    async def append(self, seen: Seen, *events: Event) -> None:
        for event in events:
            event.state = {name.removeprefix("temp:"): value for name, value in event.state.items()}
        await super().append(seen, *events)


class Forgetting(DcafService):
    """Broken: a rewind takes the state of the beginning back, too."""

    async def rewind(self, seen: Seen, to: int) -> None:
        await super().rewind(seen, to)
        await self.service().merge(user=seen.user, id=seen.id, state={"form": None})


class Oldest(DcafService):
    """Broken: the oldest are taken for the newest."""

    async def get(self, user: str, id: str, *, last: int | None = None, **about: Any) -> Seen | None:
        seen = await super().get(user, id, **about)
        if seen is not None and last is not None:
            seen.events = seen.events[:last]
        return seen


class Telling(DcafService):
    """Broken: another user is told that there is such a session."""

    async def open(self, user: str, id: str, *, app: str = CLINIC) -> Seen:
        if await self.get("ann", id) is not None and user != "ann":
            raise self.unknown[0]("It is not yours.")
        return await super().open(user, id, app=app)


class Stringly(DcafService):
    """Broken: a fact comes back as a text."""

    async def remember(self, user: str, key: str, value: object, *, id: str | None = None) -> None:
        await super().remember(user, key, str(value), id=id)


@pytest.mark.parametrize(
    ("broken", "contract", "behaviour"),
    [
        (Everybodys, "adk", "two_users_may_have_the_same_id_and_share_nothing"),
        (OneApplication, "adk", "two_applications_share_nothing"),
        (Shuffling, "adk", "events_of_one_moment_keep_their_order"),
        (Oldest, "adk", "the_newest_events_alone_are_read_or_none"),
        (Merging, "adk", "an_event_replaces_a_key_of_the_state_as_a_whole"),
        (Dropping, "adk", "none_and_booleans_are_values"),
        (KeepingTemporary, "adk", "temporary_keys_last_for_the_turn"),
        (DcafBlind, "adk", "a_writer_whose_session_has_changed_is_refused"),
        (DcafBlind, "core", "state_and_event_are_written_together"),
        (Forgetting, "adk", "a_rewind_leaves_the_state_of_the_beginning"),
        (Telling, "core", "a_session_of_another_user_looks_like_a_missing_one"),
        (Oldest, "genai", "the_newest_twenty_messages_make_a_context"),
        (Stringly, "genai", "facts_keep_their_types"),
    ],
)
def test_control_a_broken_service_is_noticed(broken: type[DcafService], contract: str, behaviour: str) -> None:
    assert ask(DcafService(MemoryEngine()), contract, behaviour) == HELD
    assert ask(broken(MemoryEngine()), contract, behaviour) != HELD
