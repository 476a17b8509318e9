"""An encrypted service on each kind of place, what it is filled with, and the bytes that the database has of it.

>>> place = EncryptedPlace(KeptPlace("memory"))
>>> fill(place.open_service())
>>> from dcaf.service.encryption import find_sealed
>>> from dcaf.service.tables import STATE
>>> [row["value"][:1] for _, row in place.engine.sync.scan(find_sealed(STATE), limit=1)]
[b'\\x01']
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dcaf.core import Key, Keyring
from dcaf.engines import Engine
from dcaf.service import SessionService
from tests.engines.postgres_servers import get_server
from tests.engines.redis_servers import share_server
from tests.service.kept_places import KeptPlace

OLD: Final = Key.from_bytes("old", bytes((37 * number + 11) % 256 for number in range(32)))
NEW: Final = Key.from_bytes("new", bytes((91 * number + 5) % 256 for number in range(32)))
BEFORE: Final = Keyring(OLD)
MEANWHILE: Final = Keyring(NEW, OLD)
AFTER: Final = Keyring(NEW)

SECRETS: Final = tuple(
    f"needle-{what}-7c1f"
    for what in (
        *(
            "user",
            "session",
            "key",
            "value",
            "user-key",
            "user-value",
            "app-key",
            "app-value",
            "title",
            "label",
            "room",
            "metadata",
        ),
        *("said", "answered", "call", "tool", "fact", "remembered", "mood", "worried", "checkpoint", "beside", "merged", "long"),
        *("document", "written", "data", "space", "settings", "stored"),
    )
)
"""Everything that a service is told which nobody is to read in a database; a word of each kind."""

WORD: Final = {secret.removeprefix("needle-").removesuffix("-7c1f"): secret for secret in SECRETS}


@dataclass
class EncryptedPlace:
    """A place, and an engine on it that each service of it shares.

    Attributes:
        place: The place.
        engine: The engine below.
    """

    place: KeptPlace
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = self.place.open_engine()

    def open_service(self, ring: Keyring | None = BEFORE, app: str = "clinic", **settings: Any) -> SessionService:
        """A service; without a ring one that does not encrypt."""
        return SessionService(self.engine, app=app, encrypt=ring, **settings)

    def read_bytes(self) -> bytes:
        """All that its database has on the disk."""
        if self.place.kind == "sqlite":
            return b"".join(path.read_bytes() for path in Path(self.place.where).parent.glob(f"{Path(self.place.where).name}*"))
        if self.place.kind == "redis":
            return _read_folder(share_server().folder, besides={"log"})
        get_server().execute("CHECKPOINT")
        return _read_folder(get_server().folder / "data")


def fill(service: SessionService) -> None:
    """Have a service keep a word of each kind."""
    word = WORD
    user, session_id = word["user"], word["session"]
    call = {"id": word["call"], "type": "function", "function": {"name": word["tool"], "arguments": "{}"}}
    service.sync.create(
        user=user,
        id=session_id,
        state={
            word["key"]: word["value"],
            f"user:{word['user-key']}": word["user-value"],
            f"app:{word['app-key']}": word["app-value"],
        },
        title=word["title"],
        labels={word["label"]: word["room"]},
        metadata={"of": word["metadata"]},
    )
    with service.sync.open(user=user, id=session_id) as session:
        session.messages.add("user", word["said"])
        session.messages.add("assistant", word["answered"], tool_calls=[call])
        session.memory.set(word["fact"], word["remembered"])
        session.memory.here.set(word["mood"], [word["worried"]])
        session.documents.sync.put(word["document"], {"text": word["written"]})
        session.checkpoint(word["checkpoint"])
        session[word["long"] * 12] = True
    service.sync.append(user=user, id=session_id, messages=[("user", word["beside"])])
    service.sync.merge(user=user, id=session_id, state={"merged": word["merged"]})
    service.sync.documents.put(word["space"], word["settings"], word["stored"])
    service.sync.documents.put(word["space"], word["settings"] * 2, word["data"].encode())


def _read_folder(folder: Path, besides: set[str] | None = None) -> bytes:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in (besides or set())]
    return b"".join(path.read_bytes() for path in found)
