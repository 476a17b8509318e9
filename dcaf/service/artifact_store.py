"""Where the bytes of artifacts are, and how many there may be: ``SessionService(..., artifacts=ArtifactStore(...))``.

ArtifactStore("file:///var/lib/clinic/files", limit_bytes=50 * 1024 * 1024)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dcaf.core.importing import load_module
from dcaf.core.settings import require_positive

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LIMIT_BYTES: Final = 1024 * 1024 * 1024
MOST_NAMES: Final = 1_000
MOST_VERSIONS: Final = 10_000
PART_BYTES: Final = 4 * 1024 * 1024


class ArtifactStore:
    """Where the bytes of artifacts are.

    Args:
        place: A url, such as ``file:///var/lib/clinic/files``, ``s3://bucket/prefix`` or ``memory://``, or a store of obstore. What
            else a url needs, obstore reads from the environment: ``AWS_ACCESS_KEY_ID``, for instance.
        limit_bytes: How large an artifact may be.
        most_names: How many artifacts a session may have, and a user.
        most_versions: How many versions an artifact may have.
        part_bytes: How much of an artifact lies in one object, and is in memory at once.

    Raises:
        ConfigurationError: An argument is wrong, or obstore is not installed.

    Attributes:
        limit_bytes, most_names, most_versions, part_bytes: As above.
    """

    def __init__(
        self,
        place: ObjectStore | str,
        *,
        limit_bytes: int = LIMIT_BYTES,
        most_names: int = MOST_NAMES,
        most_versions: int = MOST_VERSIONS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.limit_bytes: int = require_positive("limit_bytes", limit_bytes)
        self.most_names: int = require_positive("most_names", most_names)
        self.most_versions: int = require_positive("most_versions", most_versions)
        self.part_bytes: int = require_positive("part_bytes", part_bytes)
        module = load_module("dcaf.service.artifact_objects", what="artifacts=", extra="artifacts")
        self._objects: Any = module.Objects(place)

    def __repr__(self) -> str:
        return f"<ArtifactStore of up to {self.limit_bytes:,} bytes each>"

    @classmethod
    def of(cls, place: ArtifactStore | ObjectStore | str) -> ArtifactStore:
        """The store itself, or one with the defaults.

        Raises:
            ConfigurationError: It is neither a store nor a url of one, or obstore is not installed.
        """
        return place if isinstance(place, ArtifactStore) else cls(place)
