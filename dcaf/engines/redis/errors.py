"""The errors of Redis in words: what has happened, what helps, and whether anything was written.

What a reader gets wrong: Redis's own text of an error may have a key or a user's name in it. So it is never passed on; its first
word, which is a code, is.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Final

from dcaf.core.errors import CommitUnknownError, DcafError, EngineError
from dcaf.core.importing import extra

with extra("dcaf.engines.redis.engine", "dcaf[redis]"):
    from redis import exceptions as library

CLOSED: Final = "The engine is closed."
ENDED: Final = "The event loop has ended. Nothing was written."
BUSY: Final = "Redis was busy for {:g} s, or could not be reached. Nothing was written."
UNKNOWN: Final = "Redis has not answered, and nobody can tell whether it has written."
SLOW: Final = "Redis has not answered for {:g} s."
NONE_FREE: Final = "All connections of this process to Redis were in use for {:g} s. Nothing was written."
UNREACHED: Final = "Redis cannot be reached: {}. Nothing was written."

REASONS: Final[Mapping[str, str]] = {
    "OOM": "its memory is full (maxmemory), and it drops nothing: give it more, or purge",
    "READONLY": "this server is a replica, which takes no writes: the failover is under way, or the url names the wrong one",
    "MISCONF": "it cannot write to its disk: see its log",
    "NOREPLICAS": "too few replicas follow it (min-replicas-to-write)",
    "LOADING": "it reads its data from the disk, and will be there soon",
    "BUSY": "a script of somebody else runs",
    "MASTERDOWN": "this replica has lost its master",
    "CLUSTERDOWN": "the cluster is down, or has nobody for some of its slots",
    "TRYAGAIN": "the cluster moves these rows just now",
    "CROSSSLOT": "the keys of one transaction are in several places of the cluster",
    "MOVED": "the cluster moves these rows just now",
    "ASK": "the cluster moves these rows just now",
    "NOAUTH": "it asks for a password: write redis://user:password@host",
    "WRONGPASS": "it does not take the user and the password of the url",
    "NOSCRIPT": "it forgets the script as soon as it has it",
    "WRONGTYPE": "a key of this engine holds something else: another program uses the same prefix",
    "EXECABORT": "it refuses the command",
}
"""The code of an error, and what it means. After none of these has anything been written."""

IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")
"""How Redis before 7 tells of an error inside a script."""

IN_SCRIPT_NOPERM: Final = "The user executing the script can't"
"""How Redis tells that a command inside a script was one too many for the user: what the script has written before it stays."""

NO_PERMISSION: Final = "the user of the url may not run what the engine needs: EVALSHA, EVAL, and commands on its keys"

CONNECTING: Final[Mapping[type[Exception], str]] = {
    library.AuthenticationError: REASONS["WRONGPASS"],
    library.BusyLoadingError: REASONS["LOADING"],
    library.NoPermissionError: NO_PERMISSION,
    library.TimeoutError: "it does not answer in time",
    TimeoutError: "it does not answer in time",
    FileNotFoundError: "there is no file of a name that the url has",
    PermissionError: "this process may not open a file that the url names",
    ssl.SSLError: "TLS does not come about: see the certificates that the url names, and its ssl_ arguments",
    ConnectionResetError: "it has ended the connection at once: where it speaks TLS, write rediss://",
}
"""What goes wrong while a connection is made: what the client library raises, or what that came from."""

NOT_TRUSTED: Final = "its certificate is not trusted: say ?ssl_ca_certs=FILE in the url"
OTHER_NAME: Final = "its certificate is for another name than the host of the url: write the one that it has"


def find_code(error: Exception) -> str:
    """The code of a reply that is an error: Redis's first word, or what the client library has made of it."""
    text = str(error)
    if IN_SCRIPT_NOPERM in text:
        return "NOPERM"
    inner = IN_SCRIPT.search(text)
    word = inner[1] if inner else getattr(error, "status_code", None) or text.partition(" ")[0]
    return word if word.isalpha() and word.isupper() else "ERR"


def build_error(error: Exception, *, writes: bool) -> DcafError:
    """An error for the caller of a command to which Redis has replied with an error."""
    code = find_code(error)
    if code in REASONS:
        return EngineError(f"Nothing was written: {REASONS[code]} ({code}).")
    if code == "NOPERM" and IN_SCRIPT_NOPERM not in str(error):
        return EngineError(f"Nothing was written: {NO_PERMISSION} (NOPERM).")
    reason = NO_PERMISSION if code == "NOPERM" else "Redis answers with an error"
    if not writes:
        return EngineError(f"It could not be done: {reason} ({code}).")
    return CommitUnknownError(f"Nobody can tell whether it was written: {reason} ({code}).")


def build_unreached(error: Exception) -> DcafError:
    """An error for all who wait for a connection that could not be made."""
    if isinstance(error, DcafError):
        return type(error)(*error.args)
    return EngineError(UNREACHED.format(describe(error)))


def describe(error: Exception) -> str:
    """What has happened to a connection, in words; no address, no user and no password."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return OTHER_NAME if "is not valid for" in str(error) else NOT_TRUSTED
    if "No connection available" in str(error) or isinstance(error, library.MaxConnectionsError):
        return "all connections of this process are in use"
    if isinstance(error, library.ResponseError) and not isinstance(error, library.NoPermissionError):
        return f"it answers with an error ({find_code(error)})"
    found = [words for one in (error, error.__context__) for kind, words in CONNECTING.items() if isinstance(one, kind)]
    return found[0] if found else "see whether it runs, and what the url says"
