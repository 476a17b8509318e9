"""Prints what the related systems do that are installed: ``contract_page`` runs it in an environment of their own."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio

from tests.related.contracts import CONTRACTS, list_behaviours, try_out
from tests.related.installed_systems import INSTALLED, AdkDatabase, AdkSqlite, AgentsSqlite, Installed, OpenStackAISqlite
from tests.related.related_systems import Behaviour
from tests.related.two_writers import measure

WRITING: tuple[type[Installed], ...] = (AdkDatabase, AdkSqlite, AgentsSqlite, OpenStackAISqlite)
"""Those that two processes reach."""


def describe(kind: type[Installed]) -> str:
    """What it is called in tables."""
    return kind.title.format(version(kind.package))


async def ask(kind: type[Installed], behaviour: Behaviour) -> str:
    """What a system makes of a behaviour, over a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        system = kind(Path(folder))
        try:
            return await try_out(behaviour, system)
        finally:
            await system.aclose()


def ask_all(kind: type[Installed]) -> dict[str, dict[str, str]]:
    """Contract -> behaviour -> what the system makes of it."""
    found: dict[str, dict[str, str]] = {key: {} for key in CONTRACTS}
    for key, name in list_behaviours():
        found[key][name] = anyio.run(partial(ask, kind, CONTRACTS[key].behaviours[name]))
    return found


def write(kind: type[Installed]) -> list[int]:
    """What becomes of the turns of two processes."""
    with tempfile.TemporaryDirectory() as folder:
        return list(measure(kind.__name__, folder))


if __name__ == "__main__":
    logging.disable()
    warnings.simplefilter("ignore")
    cells: dict[str, Any] = {describe(kind): ask_all(kind) for kind in INSTALLED}
    json.dump({"cells": cells, "writers": {describe(kind): write(kind) for kind in WRITING}}, sys.stdout)
