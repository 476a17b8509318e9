"""Read a version of an artifact piece by piece, with an event loop or without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Final

import anyio.to_thread

from dcaf.core.errors import DcafError, EngineError, UnknownArtifactError
from dcaf.engines import Engine, Transaction
from dcaf.service.artifact_contents import NOT_WHOLE, Files, count_parts, path_of, read_part
from dcaf.service.artifact_finding import Found
from dcaf.service.artifact_scopes import is_saved
from dcaf.service.artifact_values import ArtifactVersion
from dcaf.service.plans import Plan, run, run_async

READ_DELETED: Final = "The artifact was deleted while it was read."


class ArtifactStream:
    """A version of an artifact, to be read piece by piece: with ``async for``, or with ``for`` where no event loop runs.

    Each piece is as large as an object of the store, 4 MiB unless the store says something else; the last one may be smaller.

    Args:
        engine: Where its row is.
        files: Where its bytes are.
        root: Of all paths.
        found: What was found of it.

    Attributes:
        version: What is known of it.

    Raises, while it is read:
        UnknownArtifactError: It was deleted meanwhile.
        EngineError: The store failed, or has not the bytes that were saved.
    """

    def __init__(self, engine: Engine, files: Files, root: str, found: Found) -> None:
        self.version: ArtifactVersion = found.version
        self._engine = engine
        self._found = found
        self._read = partial(read_part, files.objects, path_of(root, found.record.key), found.row)

    def __repr__(self) -> str:
        return f"<ArtifactStream of {self.version.size:,} bytes>"

    def __iter__(self) -> Iterator[bytes]:
        for number in range(count_parts(self._found.row)):
            part = self._read(number)
            if part is None:
                raise run(self._explain(), self._engine)
            yield part

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(count_parts(self._found.row)):
            part = await anyio.to_thread.run_sync(self._read, number)
            if part is None:
                raise await run_async(self._explain(), self._engine)
            yield part

    def _explain(self) -> Plan[DcafError]:
        row = (yield Transaction([self._found.record])).rows[0]
        return EngineError(NOT_WHOLE) if row is not None and is_saved(row) else UnknownArtifactError(READ_DELETED)
