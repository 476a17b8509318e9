"""Where the soak tests of the ledger have their rows."""

from __future__ import annotations

from tests.promises.places import file, place, redis_cluster, redis_server

__all__ = ["file", "place", "redis_cluster", "redis_server"]
