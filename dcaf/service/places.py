"""Where the rows of a session lie, what it may be called, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dcaf.core.arguments import require_text
from dcaf.core.errors import ConfigurationError, SessionArchivedError, SessionClosedError, UnknownSessionError
from dcaf.engines import Outcome, Record, Row
from dcaf.service.artifact_contents import Files
from dcaf.service.kept import is_there
from dcaf.service.quotas import UNLIMITED, Quotas
from dcaf.service.tables import Owner, app_row, find_app

USER: Final = "user:"
APP: Final = "app:"
"""What the keys of a state begin with that all sessions of the user have, or all of the application."""

MOST_NAME_CHARACTERS: Final = 256

UNKNOWN: Final = "There is no such session."
CLOSED: Final = "The session was closed: nothing more is written to it."
ARCHIVED: Final = "The session was archived: sessions.restore(user=, id=) makes it one that can be written again."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the rows of a session lie.

    Attributes:
        app: The application.
        owner: Whose it is.
        id: Its id.
        partitions: Of the engine.
        files: Where the bytes of its artifacts are; None where the service has none.
        quotas: How much it, and its user, may have.
    """

    app: str
    owner: Owner = field(repr=False)
    id: str
    partitions: int
    files: Files | None = field(default=None, repr=False, compare=False)
    quotas: Quotas = field(default=UNLIMITED, repr=False, compare=False)

    @property
    def row(self) -> Record:
        """Its row."""
        return self.owner.session_row(self.id)

    @property
    def is_with_app(self) -> bool:
        """Whether what is shared across the application lies in the same partition."""
        return find_app(self.app, self.partitions)[1] == self.owner.partition

    def state_row(self, name: str) -> Record:
        """The row of a key of its state, wherever that is shared."""
        if name.startswith(APP):
            return app_row(self.app, name, partitions=self.partitions)
        return self.owner.shared_row(name) if name.startswith(USER) else self.owner.state_row(self.id, name)


def require_there(outcome: Outcome, birth: bytes | None = None) -> Row:
    """The row of a session, which is the first of an outcome.

    Raises:
        UnknownSessionError: It is not there, or is of another session than that of this birth.
        SessionClosedError: It was closed.
        SessionArchivedError: It was archived.
    """
    row = outcome.rows[0]
    if row is None or not is_there(row, outcome.now_ms) or birth not in {None, row["birth"]}:
        raise UnknownSessionError(UNKNOWN)
    if row["closed"] is not None:
        raise SessionClosedError(CLOSED)
    if row["archived"] is not None:
        raise SessionArchivedError(ARCHIVED)
    return row


def require_name(argument: str, name: str) -> str:
    """Require the name of an application, a user, a session or a checkpoint.

    Raises:
        ConfigurationError: It is empty, too long, or no text that UTF-8 can say.
    """
    found = require_text(argument, name, "and not an empty one")
    if not 0 < len(found) <= MOST_NAME_CHARACTERS:
        raise ConfigurationError(f"{argument} is a text of 1 to {MOST_NAME_CHARACTERS} characters, not of {len(found):,}.")
    return found
