"""Several users of one machine on one SQLite file: whoever comes first locks nobody out, and lets nobody in."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dcaf.core.errors import EngineError
from dcaf.engines.sqlite import file as sqlite_file
from dcaf.engines.sqlite.file import FileLock
from tests.engines.engine_processes import add, fork, open_counts

ENDINGS = ("-lock", "-next")
SERVICE, OTHER, GROUP = 65_534, 65_533, 65_532
AS_TWO_USERS = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two users")


@pytest.fixture
def path() -> Iterator[Path]:
    """A database in a folder of its own, which the service's user owns: those of pytest are closed to other users."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, SERVICE, GROUP)
    folder.chmod(0o2770)
    yield folder / "dcaf.db"
    shutil.rmtree(folder)


def as_user(user: int, work: Callable[[], Any]) -> None:
    """Do something in a process of a user of the group, which must end without an error."""

    def run() -> None:
        os.setgroups([GROUP])
        os.setgid(user)
        os.setuid(user)
        work()

    fork(run)


def write(path: Path) -> None:
    with contextlib.closing(open_counts(path).sync) as sync:
        sync.transact(add())


def make_without_locks(path: Path, mode: int) -> None:
    """A database of the service's user, as a backup gives it back: there is no file beside it."""
    as_user(SERVICE, lambda: write(path))
    path.chmod(mode)
    for ending in ENDINGS:
        path.with_name(path.name + ending).unlink()


def let_root_come_first(path: Path) -> None:
    """Root writes and stays; then the service's user writes."""
    make_without_locks(path, 0o644)
    engine = open_counts(path)
    try:
        engine.sync.transact(add())
        as_user(SERVICE, lambda: write(path))
        assert engine.sync.transact(add()).rows[0]["count"] == 3  # type: ignore[index]
    finally:
        engine.sync.close()


@AS_TWO_USERS
def test_root_who_comes_first_does_not_lock_the_service_out(path: Path) -> None:
    let_root_come_first(path)
    for ending in ENDINGS:
        found = path.with_name(path.name + ending).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (SERVICE, 0o600)


@AS_TWO_USERS
def test_control_root_that_keeps_the_lock_for_itself_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_let_in", lambda descriptor, database: os.fchmod(descriptor, 0o600))
    with pytest.raises(AssertionError):
        let_root_come_first(path)


@AS_TWO_USERS
def test_two_users_of_a_group_that_may_write_the_database_take_turns(path: Path) -> None:
    make_without_locks(path, 0o660)
    for user in (OTHER, SERVICE, OTHER):
        as_user(user, lambda: write(path))
    assert {stat.S_IMODE(path.with_name(path.name + ending).stat().st_mode) for ending in ENDINGS} == {0o660}


@AS_TWO_USERS
def test_a_user_who_may_only_read_the_database_cannot_hold_its_lock(path: Path) -> None:
    path.parent.chmod(0o755)
    make_without_locks(path, 0o644)
    as_user(SERVICE, lambda: write(path))

    def hold() -> None:
        path.read_bytes()
        for ending in ENDINGS:
            with pytest.raises(PermissionError):
                os.open(path.with_name(path.name + ending), os.O_RDONLY)

    as_user(OTHER, hold)


@pytest.mark.parametrize(
    ("database", "lock"),
    [(0o600, 0o600), (0o640, 0o600), (0o644, 0o600), (0o660, 0o660), (0o664, 0o660), (0o666, 0o666), (0o444, 0o600)],
)
def test_a_lock_is_for_those_who_may_read_and_write_the_database(database: int, lock: int, path: Path) -> None:
    path.touch()
    path.chmod(database)
    with FileLock(path):
        assert {stat.S_IMODE(path.with_name(path.name + ending).stat().st_mode) for ending in ENDINGS} == {lock}


def test_a_lock_without_a_database_is_as_the_umask_has_it(path: Path) -> None:
    before = os.umask(0o027)
    try:
        with FileLock(path):
            assert {stat.S_IMODE(path.with_name(path.name + ending).stat().st_mode) for ending in ENDINGS} == {0o640}
    finally:
        os.umask(before)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_in_the_place_of_a_lock_is_not_followed(is_there: bool, path: Path) -> None:
    other = path.with_name("of-somebody-else")
    if is_there:
        other.touch(0o640)
    path.with_name("dcaf.db-lock").symlink_to(other)
    with pytest.raises(EngineError, match="the lock beside it, cannot be opened"):
        write(path)
    assert other.exists() is is_there
    assert not is_there or (other.stat().st_uid, stat.S_IMODE(other.stat().st_mode)) == (os.geteuid(), 0o640)
