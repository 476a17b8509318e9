"""What an application may say to the middleware, checked when it is said, and what is the same for all of its turns.

>>> lifetime(timedelta(days=2), timedelta(days=1))
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: absolute_timeout is shorter than idle_timeout: ...

A wrong setting fails when the middleware is constructed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from starlette.types import Scope

from dcaf.asgi.body import Flights
from dcaf.asgi.carriers import Carrier
from dcaf.asgi.events import Events, Watcher
from dcaf.asgi.identity import Identity
from dcaf.asgi.json_sessions import Verify
from dcaf.asgi.terminal import Terminal
from dcaf.core.arguments import kind_of, texts_of
from dcaf.core.claims import Lifetime
from dcaf.core.envelope import Sealer
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Keyring
from dcaf.core.rotation import LiveKeyring
from dcaf.core.seal import SIGNED, Suite
from dcaf.core.session_dict import SessionDict
from dcaf.core.store import SessionStore
from dcaf.core.unsigned import Import

T = TypeVar("T")

MAX_TOKEN_BYTES: Final = 256 * 1024
"""The longest token that is accepted where an application says nothing else."""

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""The longest JSON body that is read likewise."""

Keys: TypeAlias = "Keyring | str | Path | Callable[[], Keyring] | None"
"""A ring, the text of one key, a file or a function to be read again every minute, or None for the environment."""

Routes: TypeAlias = "Iterable[str] | Callable[[Scope], bool]"
"""Whole paths, or a function of the scope that is true for the routes that are meant."""


@dataclass(frozen=True, slots=True)
class Config:
    """What is the same for all turns of one service.

    Attributes:
        sealer: Who opens and seals.
        identity: Whom a session is bound to.
        store: Keeps sessions; None keeps none.
        events: Whom to tell.
        restarts: Whether a refused session is started empty instead; None leaves it to what the session came by.
        unsigned: What happens to plain sessions.
        is_plain: Whether a route reads and writes the whole state itself; None where none does.
        passes_streams: Whether a route's streams pass as they are; None where none does.
        terminal: Which event or frame ends a turn.
        verify: Opens the token that stands first in a body; nothing where bodies carry no session.
        flights: How many bytes of bodies are being read.
        max_body_bytes: The longest JSON body or frame that is read.
        max_response_bytes: The longest JSON answer, event or frame that is completed.
        in_body: Whether bodies and frames carry sessions.
        carriers: What else does, by precedence.
        binds_request_session: Whether ``request.session`` is the session too.
        shown_as: The class of what that is; None is the Session itself.
    """

    sealer: Sealer
    identity: Identity
    store: SessionStore | None
    events: Events
    restarts: bool | None
    unsigned: Import | Literal["reject", "ignore"]
    is_plain: Callable[[Scope], bool] | None
    passes_streams: Callable[[Scope], bool] | None
    terminal: Terminal
    verify: Verify
    flights: Flights = field(repr=False)
    max_body_bytes: int
    max_response_bytes: int
    in_body: bool
    carriers: tuple[Carrier, ...]
    binds_request_session: bool
    shown_as: type[SessionDict] | None


def keyring(keys: Keys) -> Keyring:
    """A ring as it is, the text of one key, a file or a function to be read again, or, for None, what the environment holds.

    Raises:
        ConfigurationError: It is none of these, or there is no key.
    """
    if isinstance(keys, Path):
        return LiveKeyring(lambda: _from_file(keys))
    if keys is None:
        return Keyring.from_environment()
    if isinstance(keys, str):
        return Keyring.parse(keys)
    if isinstance(keys, Keyring):
        return keys
    if callable(keys) and not isinstance(keys, type):
        return LiveKeyring(keys)
    raise ConfigurationError(
        "keys= takes a Keyring, the text of a key, a pathlib.Path, a function that gives a Keyring, or None for the environment, "
        f"not {kind_of(keys)}."
    )


def _from_file(path: Path) -> Keyring:
    """One key a line: the active one first. Empty lines and lines that begin with # do not count."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"The key file {path} is no text. It has one key a line, as `dcaf keys new` prints them."
        ) from None
    texts = [line for line in lines if line and not line.startswith("#")]
    if not texts:
        raise ConfigurationError(f"The key file {path} has no key. Write one with `dcaf keys new > {path}`.")
    source = f"the key file {path}"
    return Keyring.parse(texts[0], ",".join(texts[1:]), sources=(source, source))


def lifetime(idle: timedelta, absolute: timedelta) -> Lifetime:
    """The two timeouts of a session.

    Raises:
        ConfigurationError: One is no timedelta of at least a second, or the absolute one is the shorter.
    """
    for name, value in (("idle_timeout", idle), ("absolute_timeout", absolute)):
        if not isinstance(value, timedelta) or value < timedelta(seconds=1):
            raise ConfigurationError(f"{name} must be a timedelta of at least a second, for instance timedelta(days=7).")
    if absolute < idle:
        raise ConfigurationError("absolute_timeout is shorter than idle_timeout: a session would end before it could be idle.")
    return Lifetime(int(idle.total_seconds()), int(absolute.total_seconds()))


def positive(name: str, value: int) -> int:
    """A number of bytes, from 1 up.

    Raises:
        ConfigurationError: It is something else.
    """
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{name} must be a number of bytes, from 1 up.")
    return value


def one_of(name: str, value: T, allowed: tuple[T, ...], otherwise: str = "") -> T:
    """One of a few words.

    Args:
        name: Of the setting.
        value: What it was given.
        allowed: The words.
        otherwise: What else it takes, in words; what that is, the caller has tried.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ConfigurationError(f"{name}= is one of {', '.join(map(repr, allowed))}{otherwise}.")
    return value


def suites(*, encrypt: bool, accept_both: bool) -> list[Suite]:
    """The suite that seals, and then those that are accepted too.

    Raises:
        ConfigurationError: Encryption is asked for, and the extra ``crypto`` is not installed.
    """
    if not encrypt and not accept_both:
        return [SIGNED]
    try:
        # By name, so that a service that only signs never loads the cryptography package.
        encrypted: Suite = import_module("dcaf.core.encrypted").ENCRYPTED
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"Encryption needs {error.name}: pip install 'dcaf[crypto]'") from None
    both = [encrypted, SIGNED] if encrypt else [SIGNED, encrypted]
    return both if accept_both else both[:1]


def watcher(level: str) -> Watcher | None:
    """Who tells OpenTelemetry of every turn; None where its API is not installed."""
    try:
        # By name, so that a service without telemetry loads nothing of it.
        found: Watcher = import_module("dcaf.asgi.telemetry").Telemetry(level)
    except ModuleNotFoundError:
        return None
    return found


def routes(name: str, value: Routes) -> Callable[[Scope], bool] | None:
    """Whether a scope is one of these routes: whole paths, or a function of the scope. None where none is named.

    Raises:
        ConfigurationError: It is a bare string, or a path does not begin with a slash.
    """
    if callable(value) and not isinstance(value, type):
        return value
    paths = texts_of(value)
    if paths is None or not all(path.startswith("/") for path in paths):
        raise ConfigurationError(f'{name}= takes paths, for instance {name}=("/api/chat",), or a function of the scope.')
    named = frozenset(paths)
    return (lambda scope: route_path(scope) in named) if named else None


def route_path(scope: Scope) -> str:
    """The path of a request as the application's routes have it: without that of the place where the application is mounted."""
    path, root = scope["path"], scope.get("root_path", "")
    below: str = path[len(root) :] if root and path.startswith(root) else path
    return below if below.startswith("/") else "/" if below == "" else path
