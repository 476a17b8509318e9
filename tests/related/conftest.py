"""Where the sessions of two processes are."""

from __future__ import annotations

from tests.service.kept_places import shared_place

__all__ = ["shared_place"]  # fixtures
