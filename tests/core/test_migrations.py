"""Older state is brought to the present version, or has ended."""

import json
from typing import Any, NoReturn

import pytest

from dcaf.core import ConfigurationError, SessionEnded, SessionValueError
from dcaf.core.base64url import Payload
from dcaf.core.json_values import write
from dcaf.core.keys import Key, Keyring
from dcaf.core.migrations import MAX_VERSION, Migrations
from dcaf.core.sealer import Sealer
from dcaf.core.state import State

RING = Keyring(Key.generate("k7"))


def sealer(migrations: Any = None, **settings: Any) -> Any:
    return Sealer(keys=RING, audience="shop", clock=lambda: 1_789_000_000, migrations=migrations, **settings)


def sealed(state: Any, migrations: Any = None) -> Any:
    made = sealer(migrations)
    session = made.start()
    session.update(state)
    return json.loads(made.seal(session, made.binding(), sequence=1))


def opened(envelope: Any, migrations: Any, **settings: Any) -> Any:
    made = sealer(migrations, **settings)
    return made.open(envelope, made.binding())


def rename(values: Any) -> Any:
    return {"wizard_step": values.pop("step", 1), **values}


def double(values: Any) -> Any:
    return values | {"wizard_step": values["wizard_step"] * 2}


@pytest.mark.parametrize("version", [-1, True, 1.0, "1", None])
def test_a_version_that_is_no_count_is_refused(version: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Migrations(version)
    assert str(caught.value) == "version is a number from 0 up: raise it by one with each change of the schema."


@pytest.mark.parametrize(
    ("version", "steps"), [(2, [1]), (3, [1, 3]), (1, [1, 2]), (0, [1]), (1, [0, 1]), (0, [0]), (2, [2, 3]), (1, [-1, 0, 1])]
)
def test_steps_that_do_not_lead_to_the_version_are_refused(version: Any, steps: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Migrations(version, dict.fromkeys(steps, rename))
    assert str(caught.value) == (
        f"migrations has the steps {steps}, which do not lead to version {version} without a gap: "
        "migrations[n] makes version n out of n - 1, and version is the last n."
    )


@pytest.mark.parametrize(("version", "steps"), [(0, []), (1, [1]), (3, [1, 2, 3]), (3, [2, 3]), (3, [3]), (5, [])])
def test_steps_that_end_at_the_version_are_taken(version: Any, steps: Any) -> None:
    assert Migrations(version, dict.fromkeys(steps, rename)).version == version


def test_the_largest_version_is_taken_and_the_one_above_is_not() -> None:
    assert Migrations(MAX_VERSION).version == MAX_VERSION
    with pytest.raises(ConfigurationError):
        Migrations(MAX_VERSION + 1)


def test_what_is_no_mapping_of_functions_is_refused_in_these_words() -> None:
    with pytest.raises(ConfigurationError) as error:
        Migrations(1, {1: "rename"})  # type: ignore[dict-item]
    assert str(error.value) == "migrations= takes {version: function}."


def test_a_state_of_the_present_version_passes_the_check() -> None:
    Migrations(1, {1: dict}).check(1)


def test_an_older_state_is_brought_to_the_present_version_step_by_step() -> None:
    session = opened(sealed({"step": 3, "x": 1}), Migrations(2, {1: rename, 2: double}))
    assert session.to_dict() == {"wizard_step": 6, "x": 1}
    assert not session.is_modified
    assert not session._state.is_sealed


def test_only_the_steps_that_are_due_run() -> None:
    session = opened(sealed({"wizard_step": 3}, Migrations(1, {1: rename})), Migrations(2, {1: rename, 2: double}))
    assert session.to_dict() == {"wizard_step": 6}


def test_a_state_of_the_present_version_is_not_touched() -> None:
    session = opened(sealed({"wizard_step": 3}, Migrations(1, {1: rename})), Migrations(1, {1: rename}))
    assert not session._state.is_touched
    assert session.to_dict() == {"wizard_step": 3}


def test_a_migrated_state_is_sealed_as_the_present_version() -> None:
    migrations = Migrations(1, {1: rename})
    made = sealer(migrations)
    session = made.open(sealed({"step": 3}), made.binding())
    again = json.loads(made.seal(session, made.binding(), sequence=2))
    assert made.open(again, made.binding()).to_dict() == {"wizard_step": 3}


@pytest.mark.parametrize(
    ("sealed_by", "opened_by"),
    [
        (Migrations(3), Migrations(2)),
        (Migrations(1), Migrations(0)),
        (Migrations(0), Migrations(1)),
        (Migrations(1), Migrations(3, {3: rename})),
    ],
    ids=["newer", "newer than none", "no way", "older than the first step"],
)
def test_a_state_without_a_way_to_the_present_version_has_ended(sealed_by: Any, opened_by: Any) -> None:
    with pytest.raises(SessionEnded) as caught:
        opened(sealed({"step": 1}, sealed_by), opened_by)
    assert (caught.value.reason, caught.value.kid) == ("version", "k7")
    assert caught.value.sid_digest is not None


def test_what_a_step_raises_is_not_caught() -> None:
    def fail(values: Any) -> NoReturn:
        raise LookupError("the application's own")

    with pytest.raises(LookupError, match="the application's own"):
        opened(sealed({}), Migrations(1, {1: fail}))


def test_a_step_whose_result_may_not_be_stored_changes_nothing() -> None:
    state = State(Payload(b'{"a":1,"b":2}'))
    with pytest.raises(SessionValueError, match=r"^b: is of type object, which cannot be stored$"):
        Migrations(1, {1: lambda values: {"a": 5, "b": object()}}).upgrade(state, 0)
    assert state.plain() == b'{"a":1,"b":2}'


def test_a_step_does_not_see_and_does_not_lose_the_librarys_own_member() -> None:
    seen = []
    state = State(Payload(b'{"a":1,"dcaf":{"approvals":[7]}}'))

    def note(values: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(values))
        return {}

    Migrations(1, {1: note}).upgrade(state, 0)
    assert seen == [{"a": 1}]
    assert state.payload().data == b'{"dcaf":{"approvals":[7]}}'


def test_a_large_key_can_be_renamed() -> None:
    envelope = sealed({"old": "x" * 3_000})
    limit = len(envelope["dcaf"]["token"]) + 1_000
    session = opened(envelope, Migrations(1, {1: lambda values: {"new": values["old"]}}), max_token_bytes=limit)
    assert session.to_dict() == {"new": "x" * 3_000}


def test_a_migration_that_returns_the_same_values_modifies_nothing() -> None:
    state = State(Payload(b'{"a":1,"b":[2]}'))
    Migrations(1, {1: lambda values: values}).upgrade(state, 0)
    assert state.changed_keys() == []
    assert state.payload().data == write({"a": 1, "b": [2]})
