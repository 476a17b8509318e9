"""One worker of a service, for uvicorn: ``python -m uvicorn --factory tests.promises.nginx_worker:create_app``.

Its key ring is a file that it reads again five times a second. What may be done once is written down in a file of all workers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dcaf import Keyring
from dcaf.core.keys import LiveKeyring
from tests.promises.ledgers import Service, make_ledger
from tests.promises.places import Place


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
    place = os.environ.get("DCAF_TEST_PLACE")
    ledger = None if place is None else make_ledger(Place(**json.loads(place)))
    return Noted(ledger, LiveKeyring(load_ring, every_s=0.2)).app
