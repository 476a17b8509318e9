"""Check the settings of sealing, which the middleware and ``SessionHost`` share, and build the sealer of them.

>>> build_lifetime(timedelta(days=2), timedelta(days=1))
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: absolute_timeout is shorter than idle_timeout: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from dcaf.core.arguments import kind_of, require_bool, require_clock, require_function
from dcaf.core.claims import Lifetime
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Keyring, LiveKeyring
from dcaf.core.migrations import Migration, Migrations
from dcaf.core.sealer import DEFAULT_LIFETIME, Sealer
from dcaf.core.signing import SIGNED, Suite

T = TypeVar("T")

IDLE_TIMEOUT: Final = timedelta(seconds=DEFAULT_LIFETIME.idle_s)
ABSOLUTE_TIMEOUT: Final = timedelta(seconds=DEFAULT_LIFETIME.absolute_s)
"""How long a session lives where an application says nothing else."""

Keys: TypeAlias = "Keyring | str | Path | Callable[[], Keyring] | None"
"""A ring, the text of one key, a file or a function that is read again every minute, or None for the environment."""


def build_sealer(
    *,
    keys: Keys,
    audience: str,
    encrypt: bool,
    accept_both: bool,
    mirror: Iterable[str] | bool | None,
    idle_timeout: timedelta,
    absolute_timeout: timedelta,
    max_token_bytes: int,
    version: int,
    migrations: Mapping[int, Migration] | None,
    clock: Callable[[], float],
    randomness: Callable[[int], bytes],
) -> Sealer:
    """Build the sealer from settings as ``SessionMiddleware`` describes them.

    Raises:
        ConfigurationError: One of them is wrong.
    """
    suite, *others = choose_suites(encrypt=require_bool("encrypt=", encrypt), accept_both=require_bool("accept_both=", accept_both))
    return Sealer(
        keys=build_keyring(keys),
        audience=audience,
        lifetime=build_lifetime(idle_timeout, absolute_timeout),
        mirror=(not encrypt) if mirror is None else mirror,
        max_token_bytes=require_positive("max_token_bytes", max_token_bytes),
        migrations=Migrations(version, migrations),
        clock=require_clock("clock=", clock),
        randomness=require_function("randomness=", randomness),
        suite=suite,
        also_accepted=others,
    )


def build_keyring(keys: Keys) -> Keyring:
    """Build a key ring from whatever ``keys=`` takes.

    Raises:
        ConfigurationError: It is nothing that ``keys=`` takes, or there is no key.
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


def build_lifetime(idle: timedelta, absolute: timedelta) -> Lifetime:
    """Build the lifetime of a session from its two timeouts.

    Raises:
        ConfigurationError: One is no timedelta of at least a second, or the absolute one is shorter.
    """
    for name, value in (("idle_timeout", idle), ("absolute_timeout", absolute)):
        if not isinstance(value, timedelta) or value < timedelta(seconds=1):
            raise ConfigurationError(f"{name} must be a timedelta of at least a second, for instance timedelta(days=7).")
    if absolute < idle:
        raise ConfigurationError("absolute_timeout is shorter than idle_timeout: a session would end before it could be idle.")
    return Lifetime(int(idle.total_seconds()), int(absolute.total_seconds()))


def require_positive(name: str, value: int) -> int:
    """Require a number of bytes from 1 up.

    Raises:
        ConfigurationError: It is something else.
    """
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{name} must be a number of bytes, from 1 up.")
    return value


def require_choice(name: str, value: T, allowed: tuple[T, ...], otherwise: str = "") -> T:
    """Require one of a few words.

    Args:
        name: The name of the setting.
        value: Its value.
        allowed: The words.
        otherwise: What else the setting takes, in words; the caller has checked that already.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ConfigurationError(f"{name}= is one of {', '.join(map(repr, allowed))}{otherwise}.")
    return value


def choose_suites(*, encrypt: bool, accept_both: bool) -> list[Suite]:
    """Choose the suite that seals, followed by those that are accepted as well.

    Raises:
        ConfigurationError: Encryption is on, and the extra ``crypto`` is not installed.
    """
    if not encrypt and not accept_both:
        return [SIGNED]
    try:
        # By name, so that a service that only signs never loads the cryptography package.
        encrypted: Suite = import_module("dcaf.core.encryption").ENCRYPTED
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"Encryption needs {error.name}: pip install 'dcaf[crypto]'") from None
    both = [encrypted, SIGNED] if encrypt else [SIGNED, encrypted]
    return both if accept_both else both[:1]
