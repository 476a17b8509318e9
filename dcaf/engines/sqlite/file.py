"""Where a SQLite database stands: whether it can be kept there, and the lock beside it, by which several processes take turns.

>>> MOUNTS = '''22 1 8:1 / / rw - ext4 /dev/sda1 rw
... 40 22 0:51 / /srv/shared rw - nfs4 server:/export rw'''
>>> find_file_system(Path("/srv/shared/a/dcaf.db"), MOUNTS), find_file_system(Path("/srv/dcaf.db"), MOUNTS)
('nfs4', 'ext4')

What a reader gets wrong: nobody may open the database's own file but SQLite. To close any descriptor of it drops every lock that
this process has on it (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from dcaf.core.errors import ConfigurationError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    HAS_FLOCK = False
else:
    HAS_FLOCK = True

MOUNTINFO: Final = Path("/proc/self/mountinfo")

POINT: Final = 4
"""Which word of a line of it is where something is mounted."""

NETWORK: Final = frozenset(
    {
        *(
            "nfs",
            "nfs3",
            "nfs4",
            "cifs",
            "smb2",
            "smb3",
            "smbfs",
            "sshfs",
            "9p",
            "glusterfs",
            "ceph",
            "lustre",
            "afs",
            "ncpfs",
            "ncp",
        ),
        *("gpfs", "beegfs", "davfs", "s3fs", "gcsfuse", "rclone"),
    }
)
"""File systems in which two machines, or two clients of one, do not see each other's memory and locks as SQLite's WAL needs it."""


def check_place(path: Path, mountinfo: str | None = None) -> None:
    """Refuse a place where no database can be kept.

    Args:
        path: Its absolute path; the file need not be there.
        mountinfo: What ``/proc/self/mountinfo`` says (proc(5)); None for none.

    Raises:
        ConfigurationError: The folder is not there or cannot be written, the file cannot be, or a network is between.
    """
    folder = path.parent
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {folder} for the database: make it, or name another in the url.")
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is no file: name one in the url, as in sqlite:////var/lib/shop/dcaf.db.")
    kind = None if mountinfo is None else find_file_system(path, mountinfo)
    if kind in NETWORK:
        raise ConfigurationError(
            f"{path} is in a network file system ({kind}), where SQLite loses data. Name a folder on a disk of this machine."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"The folder {folder} cannot be written, and SQLite keeps files beside the database: allow it.")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigurationError(f"{path} cannot be read and written by this user: allow it, or name another file in the url.")


def read_mountinfo() -> str | None:
    """What the kernel says of mounted file systems; None where it does not (no Linux)."""
    try:
        return MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def find_file_system(path: Path, mountinfo: str) -> str | None:
    """The kind of the file system in which a path is, without ``fuse.`` before it; None where nothing says so."""
    place = Path(os.path.realpath(path))
    found: tuple[int, str | None] = (-1, None)
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        fields, kinds = mount.split(), source.split()
        if len(fields) > POINT and kinds:
            point = Path(_unescape(fields[POINT]))
            # Of two at one point the later one is on top.
            if place.is_relative_to(point) and len(point.parts) >= found[0]:
                found = (len(point.parts), kinds[0].removeprefix("fuse."))
    return found[1]


class FileLock:
    """A lock that the kernel gives to one after the other, and takes back from a process that has died.

    SQLite's own way to wait is to try again after ever longer sleeps, so that among busy processes some never come to write. This
    lock is for fairness alone: what keeps the database whole is SQLite's own. So nothing is harmed where it is missing.

    It is two locks. Whoever has given the second one back would often have it again before the one that the kernel has woken is
    running; so whoever is next holds the first one until it has the second.

    Args:
        path: The database: two files beside it, which stay empty.
    """

    def __init__(self, path: Path) -> None:
        self._database = path
        self._paths = [path.with_name(path.name + ending) for ending in ("-next", "-lock")]
        self._open: list[int] = []

    def __enter__(self) -> None:
        if not HAS_FLOCK:
            return
        if not self._open:
            self._open = [open_beside(self._database, path) for path in self._paths]
        turn, lock = self._open
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._open:
            fcntl.flock(self._open[1], fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        opened, self._open = self._open, []
        for descriptor in opened:
            os.close(descriptor)


def open_beside(database: Path, path: Path) -> int:
    """Open a file beside a database; where there is none, make an empty one for whoever may read and write the database.

    Args:
        database: The database.
        path: The file.

    Returns:
        Its descriptor.

    Raises:
        OSError: It cannot be opened, or is a link: root would give away what somebody has it point to.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, flags)
    with suppress(OSError):  # there is no database yet, or this user may not: then it is as the umask has it
        _let_in(made, database.stat())
    return made


def find_mode(mode: int) -> int:
    """The mode of a lock: who may read and write the database may take it. Who may only read could hold it for ever."""
    return 0o600 | sum(both for both in (0o060, 0o006) if mode & both == both)


def _let_in(descriptor: int, database: os.stat_result) -> None:
    """Give a file the owner and the mode of a database, as SQLite does with its own two."""
    if os.geteuid() == 0:
        os.fchown(descriptor, database.st_uid, database.st_gid)
    os.fchmod(descriptor, find_mode(database.st_mode))


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
