"""One worker of a service on a SQLite file, for uvicorn: ``python -m uvicorn --factory tests.promises.nginx_worker:create_app``.

Its key ring is a file that it reads again five times a second. What may be done once is written down in a file of all workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dcaf import Keyring
from dcaf.core.keys import LiveKeyring
from tests.promises.ledgers import Service, make_ledger


class Noted(Service):
    """It writes down what it does."""

    def do(self, message: str) -> None:
        done = os.open(find_folder() / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(done, f"{message}\n".encode())
        os.close(done)


def find_folder() -> Path:
    return Path(os.environ["DCAF_TEST_FOLDER"])


def load_ring() -> Keyring:
    active, *others = (find_folder() / "keys").read_text().split()
    return Keyring.parse(active, ",".join(others))


def create_app() -> Any:
    """The service of this process, as its environment says."""
    ledger = make_ledger(find_folder() / "dcaf.db") if os.environ["DCAF_TEST_KEPT"] == "yes" else None
    return Noted(ledger, LiveKeyring(load_ring, every_s=0.2)).app
