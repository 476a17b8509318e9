"""Read what an export wrote, line by line, and make the sessions of it.

>>> from dcaf.service import SessionService
>>> sessions, others = SessionService("memory://", app="clinic"), SessionService("memory://", app="clinic")
>>> session = sessions.sync.create(user="p-123", id="v1", state={"step": 2})
>>> others.sync.import_lines(sessions.sync.export()).sessions
1
>>> list(others.sync.export()) == list(sessions.sync.export())
True

What a reader gets wrong: an error ends the import, and the sessions of the lines before it stay. Of the one that
the line belongs to there is nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from dcaf.core.arguments import kind_of
from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines import Engine
from dcaf.service.blocks import Block, Imported, SessionBlock, SharedBlock, SpaceBlock
from dcaf.service.document_rows import DocumentScope
from dcaf.service.lines import check_header, read_line
from dcaf.service.places import APP, USER, Place, require_name
from dcaf.service.plans import Plan, run, run_to_end
from dcaf.service.remembered import MemoryScope
from dcaf.service.tables import app_row

NO_LINES: Final = "lines= takes the lines of an export, such as an open file or a list of them, not {}."


class Importer:
    """Takes the lines of one export.

    Args:
        app: The application.
        partitions: Of the engine.
        place: Finds where the session of a user and an id lies; an id that is None is made up.
        birth: Makes what tells a session from others of its id.
        replaces: Whether a session, a key or a fact of the export takes the place of one that is there.
    """

    def __init__(
        self,
        app: str,
        partitions: int,
        place: Callable[[str | None, str | None], Place],
        birth: Callable[[], bytes],
        *,
        replaces: bool,
    ) -> None:
        self._app = app
        self._partitions = partitions
        self._place = place
        self._birth = birth
        self._replaces = replaces
        self._number = 0
        self._block: Block | None = None
        self._is_done = False
        self._found = Imported()

    def take(self, line: object) -> Plan[None] | None:
        """Take a line; returns what is to be done before the next one, if anything.

        Raises:
            ConfigurationError, SessionValueError: No export has it at this place.
        """
        self._number += 1
        if self._number == 1:
            check_header(line, self._app)
            return None
        members = read_line(line, self._number)
        kind, block = members.pop("kind"), self._block
        if self._is_done:
            raise self._refuse("stands behind the end of the export")
        if block is None:
            return self._begin(kind, members)
        if kind == "end":
            return self._end(block, members["lines"])
        return self._void(block) if kind == "void" else block.add(kind, members, self._number)

    def finish(self) -> Imported:
        """What was made.

        Raises:
            ConfigurationError: The last line was not that of an export.
        """
        if not self._is_done:
            raise ConfigurationError(
                f"The export breaks off after line {self._number}. What it has up to there as a whole was made."
            )
        return self._found

    def abandon(self) -> Plan[None]:
        """Drop what there is of a session that is half made."""
        if self._block is not None:
            yield from self._block.abandon()

    def _begin(self, kind: str, members: Mapping[str, Any]) -> Plan[None] | None:
        if kind == "session":
            return self._begin_session(members)
        if kind == "app":
            self._block = SharedBlock(self._find_app_row, APP, None, replaces=self._replaces)
        elif kind == "user":
            owner = self._find_place(members["user"], None).owner
            self._block = SharedBlock(owner.shared_row, USER, MemoryScope.of_user(owner), replaces=self._replaces)
        elif kind == "space":
            self._block = SpaceBlock(self._find_space(members["space"]), replaces=self._replaces)
        elif kind == "done":
            self._finish(members["sessions"])
        else:
            raise self._refuse("stands outside of a block")
        return None

    def _begin_session(self, members: Mapping[str, Any]) -> Plan[None]:
        user = members["user"]
        place = self._find_place(user, members["id"])
        block = SessionBlock(place, lambda: self._place(user, None), members, self._birth(), self._number, replaces=self._replaces)
        self._block = block
        return block.begin()

    def _end(self, block: Block, lines: int) -> Plan[None]:
        if lines != block.lines:
            raise self._refuse("counts other lines than there were")
        yield from block.end()
        self._block = None
        self._found = Imported(*map(sum, zip(self._found, block.found, strict=True)))

    def _void(self, block: Block) -> Plan[None]:
        if not isinstance(block, SessionBlock):
            raise self._refuse("is for a session alone")
        yield from block.abandon()
        self._block = None

    def _finish(self, sessions: int) -> None:
        if sessions != self._found.sessions + self._found.ended:
            raise self._refuse("counts other sessions than there were")
        self._is_done = True

    def _find_app_row(self, name: str) -> Any:
        return app_row(self._app, name, partitions=self._partitions)

    def _find_space(self, space: str) -> DocumentScope:
        try:
            return DocumentScope.of_space(self._app, require_name("space", space), self._partitions)
        except ConfigurationError as error:
            raise ConfigurationError(f"Line {self._number}: {error}") from None

    def _find_place(self, user: str | None, session_id: str | None) -> Place:
        try:
            return self._place(user, session_id)
        except ConfigurationError as error:
            raise ConfigurationError(f"Line {self._number}: {error}") from None

    def _refuse(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"Line {self._number} {problem}.")


def import_lines(importer: Importer, lines: Iterable[object], engine: Engine) -> Imported:
    """Import without an event loop. Raises what the importer, the lines and the engine raise."""
    try:
        for line in lines:
            if (plan := importer.take(line)) is not None:
                run(plan, engine)
        return importer.finish()
    except Exception:
        with suppress(EngineError):
            run(importer.abandon(), engine)
        raise


async def import_lines_async(importer: Importer, lines: Iterable[object] | AsyncIterable[object], engine: Engine) -> Imported:
    """The same in an event loop."""
    try:
        if isinstance(lines, AsyncIterable):
            async for line in lines:
                if (plan := importer.take(line)) is not None:
                    await run_to_end(plan, engine)
        else:
            for line in lines:
                if (plan := importer.take(line)) is not None:
                    await run_to_end(plan, engine)
        return importer.finish()
    except Exception:
        with suppress(EngineError):
            await run_to_end(importer.abandon(), engine)
        raise


def require_lines(lines: object, *, is_async: bool) -> Any:
    """Require lines.

    Raises:
        ConfigurationError: These are none, or a text as a whole.
    """
    kinds = (Iterable, AsyncIterable) if is_async else (Iterable,)
    if isinstance(lines, str | bytes | bytearray | Mapping | type) or not isinstance(lines, kinds):
        raise ConfigurationError(NO_LINES.format(kind_of(lines)))
    return lines
