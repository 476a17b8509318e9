"""Keeps the sample out of dcaf's own run: its tests are for the wheel, not for the work tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pytest_ignore_collect(config: Any) -> bool | None:
    return None if config.rootpath == Path(__file__).parent else True
