"""One worker of a service on a SQLite file, for uvicorn: ``python -m uvicorn tests.promises.nginx_worker:app``.

Its key ring is a file that it reads again five times a second. What may be done once is written down in a file of all workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from dcaf import Keyring
from dcaf.core.keys import LiveKeyring
from tests.promises.ledgers import Service, make_ledger

FOLDER: Final = Path(os.environ["DCAF_TEST_FOLDER"])
KEPT: Final = os.environ["DCAF_TEST_KEPT"] == "yes"
DONE: Final = os.open(FOLDER / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def load_ring() -> Keyring:
    active, *others = (FOLDER / "keys").read_text().split()
    return Keyring.parse(active, ",".join(others))


class Noted(Service):
    """It writes down what it does."""

    def do(self, message: str) -> None:
        os.write(DONE, f"{message}\n".encode())


app: Any = Noted(make_ledger(FOLDER / "dcaf.db") if KEPT else None, LiveKeyring(load_ring, every_s=0.2)).app
