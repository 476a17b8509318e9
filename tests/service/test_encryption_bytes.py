"""What a service keeps encrypted is searched for in the bytes of the database: its file and log, its data directory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dcaf.core import ConfigurationError, SealedRowError
from dcaf.service import EncryptedEngine
from dcaf.service.tables import Owner, find_space
from tests.service import encrypted_places
from tests.service.encrypted_places import AFTER, BEFORE, SECRETS, EncryptedPlace, fill
from tests.service.kept_places import SHARED, find_kept_place


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each kind of place that has bytes on a disk. The words are of this test alone: other tests use the servers, too."""
    mark = uuid4().hex[:12]
    for name in ("SECRETS", "WORD"):
        monkeypatch.setattr(encrypted_places, name, _rename(getattr(encrypted_places, name), mark))
    found = find_kept_place(request.param, tmp_path)
    yield EncryptedPlace(found)
    found.close()


def _rename(words: Any, mark: str) -> Any:
    if isinstance(words, dict):
        return {kind: f"{word}-{mark}" for kind, word in words.items()}
    return tuple(f"{word}-{mark}" for word in words)


def find_words(place: EncryptedPlace) -> tuple[list[str], list[str]]:
    """The words that stand in the database, and those that do not; a digest that everybody can compute is one of them."""
    data = place.read_bytes()
    words = {word: word.encode() for word in encrypted_places.SECRETS}
    user, session_id = encrypted_places.WORD["user"], encrypted_places.WORD["session"]
    owner, space = Owner("clinic", user, partitions=1), find_space("clinic", encrypted_places.WORD["space"], 1)[0]
    words |= {"digest of the user": owner.key, "digest of the session": owner.session_key(session_id)[-16:]}
    words |= {"digest of the space": space[-16:]}
    # PostgreSQL keeps no digest as text; Redis and SQLite keep bytes as they are.
    return [name for name, word in words.items() if word in data], [name for name, word in words.items() if word not in data]


def test_nothing_that_was_kept_stands_in_the_database(place: EncryptedPlace) -> None:
    service = place.open_service()
    fill(service)
    service.sync.fork(user=encrypted_places.WORD["user"], id=encrypted_places.WORD["session"])
    service.sync.reencrypt()
    found, _ = find_words(place)
    assert found == []
    kept = service.sync.get(user=encrypted_places.WORD["user"], id=encrypted_places.WORD["session"])
    assert kept is not None
    assert kept.state[encrypted_places.WORD["key"]] == encrypted_places.WORD["value"]


def test_control_without_a_ring_all_of_it_stands_there(place: EncryptedPlace) -> None:
    fill(place.open_service(None))
    _, hidden = find_words(place)
    assert hidden == []


def test_no_log_no_repr_and_no_error_has_any_of_it(place: EncryptedPlace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    service = place.open_service()
    fill(service)
    engine = service.engine
    assert isinstance(engine, EncryptedEngine)
    told = [
        repr(service),
        repr(engine),
        repr(engine.sync),
        repr(engine._rows),
        repr(engine.__dict__),
        repr(service.sync.reencrypt()),
    ]
    for ring in (None, AFTER):
        with pytest.raises((ConfigurationError, SealedRowError)) as refused:
            place.open_service(ring).sync.get(user=encrypted_places.WORD["user"], id=encrypted_places.WORD["session"])
        told.append(repr(refused.value))
    told.append(caplog.text)
    for word in (*encrypted_places.SECRETS, BEFORE.active.secret.hex(), repr(BEFORE.active.secret)):
        assert not [text for text in told if word in text]


def test_the_words_are_of_each_kind_that_a_service_is_told() -> None:
    assert len(set(SECRETS)) == len(SECRETS) == 30
