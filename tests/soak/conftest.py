"""Where the soak tests of the ledger have their rows."""

from __future__ import annotations

from tests.promises.places import file, place

__all__ = ["file", "place"]
