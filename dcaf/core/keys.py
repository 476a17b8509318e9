"""Keys and key rings: the text of a key, the ring that names the one that signs, and a ring that is read again at run time.

>>> key = Key.generate("k7")
>>> Key.parse(key.text()) == key
True
>>> key
Key(kid='k7')
>>> old, new = Key.generate("old"), Key.generate("new")
>>> rings, times = [Keyring(old), Keyring(new, old)], iter([0.0, 10.0, 61.0])
>>> live = LiveKeyring(lambda: rings.pop(0), clock=lambda: next(times))
>>> live.active.kid, live.active.kid
('old', 'new')

What a reader gets wrong: a key is not a password. Only text that ``dcaf keys new`` prints is accepted, so nobody's favourite secret
can become a key.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NoReturn

from dcaf.core.arguments import require, require_bool, require_text
from dcaf.core.base64url import decode, encode
from dcaf.core.errors import ConfigurationError, describe_raised

SECRET_BYTES: Final = 32
KID_CHARACTERS: Final = 16
TEXT_BYTES: Final = frozenset((*b"\t\n\r", *range(0x20, 0x7F)))
"""Bytes of ASCII text; 32 random ones are all among them once in 10**13."""

KID: Final = re.compile(r"[A-Za-z0-9]{1,16}", re.ASCII)
TEXT: Final = re.compile(r"(dcafk1_([A-Za-z0-9]{1,16})_([\w-]{43}))_([\w-]{6})", re.ASCII)
EPHEMERAL: Final = "tmp"
SECONDS: Final = "a number of seconds since the epoch"
MAKE_ONE: Final = 'Make one: export DCAF_KEYS="$(dcaf keys new)"'

logger: Final[logging.Logger] = logging.getLogger("dcaf")

RELOAD_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        kid: Its id, 1 to 16 letters and digits; tokens name it in clear.
        secret: 32 random bytes.
        not_before: It does not sign before this time, in seconds since the epoch; it verifies always.
        revoked: It never verifies and never signs.
    """

    kid: str
    secret: bytes = field(repr=False)
    not_before: int = field(default=0, repr=False)
    revoked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.kid, str) or not KID.fullmatch(self.kid):
            raise ConfigurationError("A key id is 1 to 16 letters and digits.")
        if not isinstance(self.secret, bytes) or len(self.secret) != SECRET_BYTES:
            raise ConfigurationError(f"Key {self.kid!r}: the secret must be {SECRET_BYTES} random bytes. {MAKE_ONE}")
        if len(set(self.secret)) < SECRET_BYTES // 3:
            raise ConfigurationError(f"Key {self.kid!r}: the secret's bytes repeat, so they are not random. {MAKE_ONE}")
        if TEXT_BYTES.issuperset(self.secret):
            raise ConfigurationError(f"Key {self.kid!r}: the secret is text, so somebody chose it. {MAKE_ONE}")
        require("Key(not_before=)", self.not_before, (int, float), SECONDS)
        require_bool("Key(revoked=)", self.revoked)

    @classmethod
    def generate(cls, kid: str | None = None) -> Key:
        """Make a key from the system's randomness; ``kid`` None draws six letters and digits."""
        alphabet = string.ascii_letters + string.digits
        return cls(
            kid if kid is not None else "".join(secrets.choice(alphabet) for _ in range(6)), secrets.token_bytes(SECRET_BYTES)
        )

    @classmethod
    def from_bytes(cls, kid: str, secret: bytes, *, not_before: int = 0, revoked: bool = False) -> Key:
        """Take the raw bytes of a key, for instance from a key management service.

        Raises:
            ConfigurationError: They are not 32 random bytes.
        """
        return cls(kid, secret, not_before, revoked)

    @classmethod
    def parse(cls, text: str, *, source: str = "") -> Key:
        """Read the textual form.

        Args:
            text: What ``dcaf keys new`` has printed.
            source: Where the text was found, for the message of an error.

        Raises:
            ConfigurationError: It is anything else, or was damaged; the message never has the text.
        """
        found = TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None and isinstance(text, str) and "," in text:
            raise ConfigurationError(
                "DCAF_KEYS holds one key, the active one. Put the others into DCAF_KEYS_VERIFY, separated by commas."
            )
        if found is None:
            what = f"What is in {source}" if source else "This"
            raise ConfigurationError(f"{what} is not a dcaf key (dcafk1_<kid>_<secret>_<checksum>). {MAKE_ONE}")
        body, kid, secret, checksum = found.groups()
        if not hmac.compare_digest(_checksum(body), checksum):
            raise ConfigurationError(f"The key {kid!r} is damaged: its checksum does not match. Copy it again, whole.")
        return cls(kid, _decode_secret(kid, secret))

    def text(self) -> str:
        """The textual form: ``dcafk1_<kid>_<43 characters>_<6 characters>``. It is the secret itself."""
        body = f"dcafk1_{self.kid}_{encode(self.secret)}"
        return f"{body}_{_checksum(body)}"

    def derive(self, suite: str, audience: str, role: str) -> bytes:
        """Derive the 32 bytes that serve one role of one audience (docs/protocol.md, section 4).

        Raises:
            ConfigurationError: One of them is no text.
        """
        try:
            return _derive(self.secret, suite, audience, role)
        except Exception:
            for name, value in (("suite", suite), ("audience", audience), ("role", role)):
                require_text(f"Key.derive({name}=)", value, "as section 4 of the protocol has it")
            raise

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key is not pickled or copied into messages: pass its id")


class Keyring:
    """The keys of a service: the active one signs, all of them verify.

    Before the active key's ``not_before``, the first of the others that may sign does.

    Args:
        active: The key that signs.
        verify_only: Keys that still verify, or, during a rotation, the one that will sign next.

    Raises:
        ConfigurationError: One id stands for two secrets, or the active key is revoked.
    """

    __slots__ = ("_active", "_keys")

    def __init__(self, active: Key, *verify_only: Key) -> None:
        for key in (active, *verify_only):
            if not isinstance(key, Key):
                raise ConfigurationError(f"A Keyring holds Key objects, not {type(key).__name__}; read text with Keyring.parse().")
        if active.revoked:
            raise ConfigurationError(f"The active key {active.kid!r} is revoked, so it cannot sign. Name another one first.")
        self._active = active
        self._keys: dict[str, Key] = {}
        for key in (active, *verify_only):
            known = self._keys.get(key.kid, key)
            self._keys[key.kid] = known if known.revoked else key
            if known.secret != key.secret:
                raise ConfigurationError(f"The key id {key.kid!r} stands for two different secrets. Give one of them another id.")

    @classmethod
    def parse(cls, active: str, verify_only: str = "", *, sources: tuple[str, str] = ("", "")) -> Keyring:
        """Read the textual forms: the active key, and the older ones separated by commas.

        Args:
            active: The key that signs.
            verify_only: The older ones.
            sources: Where the two were found, for the message of an error.

        Raises:
            ConfigurationError: A text is no key.
        """
        require_text("Keyring.parse(active=)", active, "one key as `dcaf keys new` prints it")
        require_text("Keyring.parse(verify_only=)", verify_only, "keys with commas between them")
        if not (isinstance(sources, tuple) and list(map(type, sources)) == [str, str]):
            raise ConfigurationError("Keyring.parse(sources=) takes two texts, where the keys were found.")
        older = [Key.parse(text.strip(), source=sources[1]) for text in verify_only.split(",") if text.strip()]
        return cls(Key.parse(active.strip(), source=sources[0]), *older)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Keyring:
        """Read ``DCAF_KEYS`` (the active key) and ``DCAF_KEYS_VERIFY`` (older ones, comma separated).

        Args:
            environment: None reads the process's own.

        Raises:
            ConfigurationError: There is no key, or a text is none.
        """
        variables = os.environ if environment is None else environment
        require("Keyring.from_environment()", variables, Mapping, "a mapping of variables, such as os.environ, or None")
        active, older = (
            require_text(f"{name} in the environment", variables.get(name, ""), "as `dcaf keys new` prints it")
            for name in ("DCAF_KEYS", "DCAF_KEYS_VERIFY")
        )
        if not active.strip():
            raise ConfigurationError(f"There is no key: pass keys=, or set DCAF_KEYS. {MAKE_ONE}")
        return cls.parse(active, older, sources=("DCAF_KEYS", "DCAF_KEYS_VERIFY"))

    @classmethod
    def ephemeral(cls) -> Keyring:
        """A ring with one new key that ends with this process, for demos and tests; the log says so.

        Raises:
            ConfigurationError: ``WEB_CONCURRENCY`` is over 1, where each worker would make a key of its own.
        """
        if _workers() > 1:
            raise ConfigurationError(
                "An ephemeral key serves one process, and WEB_CONCURRENCY asks for several: they would refuse one another's "
                f"sessions. {MAKE_ONE}"
            )
        key = Key.generate(EPHEMERAL + secrets.token_hex(3))
        logger.warning("dcaf: ephemeral key %s: every session ends with this process. Not for production.", key.kid)
        return cls(key)

    @property
    def active(self) -> Key:
        """The key that signs, once its time has come."""
        return self._active

    def signer(self, now: float) -> Key:
        """The key that signs at a time, in seconds since the epoch: the active one, or, before its time, the next in the ring.

        Raises:
            ConfigurationError: None may sign yet.
        """
        if type(now) is not float and type(now) is not int:
            require("Keyring.signer()", now, (int, float), SECONDS)
        for key in self._keys.values():
            if key.not_before <= now and not key.revoked:
                return key
        raise ConfigurationError("No key of the ring may sign yet: not_before lies in the future. Keep an older key in it.")

    def find(self, kid: str) -> Key | None:
        """The key of an id, if the ring may verify with it: known and not revoked."""
        key = self._keys.get(kid) if isinstance(kid, str) else None
        return None if key is None or key.revoked else key

    def __repr__(self) -> str:
        return f"Keyring(active={self._active.kid!r}, kids={sorted(self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Keyring is not pickled: read it from the environment where it is needed")


def length_prefixed(text: str) -> bytes:
    """LP(x) of the protocol: the byte length in four bytes, big-endian, then the bytes in UTF-8."""
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


def hkdf_sha256(secret: bytes, info: bytes, *, salt: bytes = b"", length: int = 32) -> bytes:
    """Derive key bytes: HKDF (RFC 5869, sections 2.2 and 2.3) with SHA-256; ``length`` in bytes, at most 8,160."""
    pseudo_random = hmac.digest(salt, secret, "sha256")  # an empty salt is one of zeros: HMAC pads its key with them
    found = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(pseudo_random, block + info + bytes([counter]), "sha256")
        found += block
    return found[:length]


class LiveKeyring(Keyring):
    """A ring that a function loads again at intervals, so that rotating a key needs no restart.

    Where the function fails, the ring before stays. A key that is missing stays until the next load misses it too, because a file
    that is being written is not a smaller ring; what was loaded beside it verifies at once. Both are logged.
    ``Key.from_bytes(revoked=True)`` drops a key at once.

    Args:
        load: Returns the current ring, from a file or a key management service. It is called while a request waits.
        every_s: How long a ring is used before it is loaded again, in seconds.
        clock: Seconds that only go forward.

    Raises:
        ConfigurationError: The first ring cannot be loaded.
    """

    __slots__ = ("_clock", "_every_s", "_load", "_missed", "_read_at", "_ring")

    def __init__(
        self, load: Callable[[], Keyring], *, every_s: float = RELOAD_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._every_s = every_s
        self._clock = clock
        self._read_at = clock()
        try:
            self._ring = _require_ring(load())
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a loader raises, there is no ring
            raise ConfigurationError(
                f"The function that gives the key ring raised {describe_raised(error)}. It must give one when the service starts."
            ) from None  # the message of another program's error may quote what it read
        self._missed: frozenset[str] = frozenset()

    @property
    def active(self) -> Key:
        """The key that signs, once its time has come."""
        return self._current().active

    def signer(self, now: float) -> Key:
        """The key that signs at a time. Raises what the ring raises."""
        return self._current().signer(now)

    def find(self, kid: str) -> Key | None:
        """The key of an id, if the current ring may verify with it."""
        return self._current().find(kid)

    def __repr__(self) -> str:
        return f"Live{self._ring!r}"

    def _current(self) -> Keyring:
        now = self._clock()
        if now - self._read_at >= self._every_s:
            self._read_at = now
            try:
                self._adopt(_require_ring(self._load()))
            except Exception as error:  # noqa: BLE001 - whatever a loader raises, the service keeps its keys
                # Only the type: the message of another program's error may quote what it read.
                logger.error("dcaf: the key ring could not be read again (%s); the one before stays", type(error).__name__)  # noqa: TRY400
        return self._ring

    def _adopt(self, ring: Keyring) -> None:
        """Use a ring from now on. Keys that it lacks for the first time are kept until the next reading."""
        lacking = frozenset(self._ring._keys.keys() - ring._keys.keys())
        kept, self._missed = lacking - self._missed, lacking
        if not kept:
            self._ring = ring
            return
        self._ring = self._with_kept(ring, kept)
        logger.warning("dcaf: the key ring that was read lacks keys; they still verify until the next reading lacks them too")

    def _with_kept(self, ring: Keyring, kept: frozenset[str]) -> Keyring:
        """A ring that verifies with the keys that were read and with those that are kept.

        It signs as before, if the key that signed was read again: one that other processes may have dropped must not sign.
        """
        before, signed = self._ring._keys, self._ring._active
        keys = {**ring._keys, **{kid: key for kid, key in before.items() if kid in kept or (key.revoked and kid in ring._keys)}}
        signs = [keys[kid] for kid in (signed.kid, ring._active.kid) if kid in ring._keys and not keys[kid].revoked]
        return Keyring(signs[0] if signs else signed, *keys.values())


@lru_cache(maxsize=256)
def _derive(secret: bytes, suite: str, audience: str, role: str) -> bytes:
    return hkdf_sha256(secret, b"".join(length_prefixed(part) for part in ("dcaf", "1", suite, audience, role)))


def _checksum(body: str) -> str:
    return encode(hashlib.sha256(body.encode()).digest())[:6]


def _decode_secret(kid: str, text: str) -> bytes:
    secret = decode(text)
    if encode(secret) != text:
        raise ConfigurationError(f"The key {kid!r} is not spelled canonically. {MAKE_ONE}")
    return secret


def _workers() -> int:
    try:
        return int(os.environ.get("WEB_CONCURRENCY") or 1)
    except ValueError:
        return 1


def _require_ring(ring: Keyring) -> Keyring:
    if isinstance(ring, LiveKeyring):
        return ring._current()
    if not isinstance(ring, Keyring):
        raise ConfigurationError(f"The function that reads the keys must give a Keyring, not a {type(ring).__name__}.")
    return ring
