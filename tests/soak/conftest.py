"""Where the soak tests of the ledger have their rows."""

from __future__ import annotations

from tests.promises.places import file, pgbouncer, place, postgres_server, redis_cluster, redis_server, served

__all__ = ["file", "pgbouncer", "place", "postgres_server", "redis_cluster", "redis_server", "served"]
