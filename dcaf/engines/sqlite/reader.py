"""The connection of a SQLite engine that reads, beside the one that writes.

All that waits is read from one snapshot, which is as new as the calls. Whoever reads waits for nobody who writes. A table that is
not there yet, or not all of it, is made by the connection that writes, which then does the call, too.
"""

from __future__ import annotations

import sqlite3
from collections import deque

from dcaf.core.errors import ConfigurationError, EngineError
from dcaf.engines.sqlite.connection import Connection, Settings
from dcaf.engines.sqlite.errors import build_error
from dcaf.engines.sqlite.tables import TableSql
from dcaf.engines.sqlite.worker import Calls, Job, Worker
from dcaf.engines.transactions import Table


class Reader(Connection):
    """Reads beside the one that writes, from a snapshot that is as new as the call.

    Args:
        settings: What both connections share.
        writer: Gets the calls for which a table has to be made first.
    """

    def __init__(self, settings: Settings, writer: Worker) -> None:
        super().__init__(settings)
        self._writer = writer

    def serve(self, calls: Calls) -> None:
        jobs = deque(calls.begin(calls.collect()))
        try:
            self.open()
            self.database.execute("BEGIN")
            while jobs:
                self._do(jobs[0])
                jobs.popleft()
            self.database.execute("COMMIT")
        except _NotMade:
            self.close()
            for job in jobs:
                calls.pass_on(job, self._writer)
        except (sqlite3.Error, OSError, EngineError) as error:
            self.close()
            for job in jobs:
                job.fail(build_error(error))
        except BaseException:
            self.close()
            raise

    def require(self, table: Table) -> TableSql:
        if table.name not in self._checked:
            sql = TableSql(table)
            if sql.find_missing(self.find_columns(table)) or not (sql.words is None or self.has_words(sql.words)):
                raise _NotMade
            self._sql[table.name] = sql
            self._checked.add(table.name)
        return self._sql[table.name]

    def open(self) -> None:
        if not self._settings.path.exists():  # to open it would make an empty one
            raise _NotMade
        super().open()

    def notice_other_file(self) -> None:
        """Read what is there now: nothing that was acknowledged is at stake."""

    def _set_up(self) -> None:
        super()._set_up()
        self.database.execute("PRAGMA query_only = 1")

    def _do(self, job: Job) -> None:
        try:
            job.finish(job.call(self, self.now_ms()))
        except (EngineError, ConfigurationError) as error:
            job.fail(error)


class _NotMade(Exception):
    """A table, or a column of it, is not there yet."""
