"""Where the services of these tests keep their sessions."""

from __future__ import annotations

from tests.service.artifact_places import files, kind_of_files, store
from tests.service.kept_places import calls, kept_place, shared_place

__all__ = ["calls", "files", "kept_place", "kind_of_files", "shared_place", "store"]  # fixtures
