"""Writes the files of vectors that are not there yet; what exists is frozen.

python -m tests.vectors.make_all
"""

from __future__ import annotations

import sys
from typing import Final

from tests.vectors import (
    make_carrier_vectors,
    make_claim_vectors,
    make_place_vectors,
    make_request_vectors,
    make_response_vectors,
    make_socket_vectors,
    make_store_vectors,
)
from tests.vectors.make_vectors import FOLDER

MAKERS: Final = (
    make_claim_vectors,
    make_request_vectors,
    make_response_vectors,
    make_carrier_vectors,
    make_socket_vectors,
    make_store_vectors,
    make_place_vectors,
)


def files() -> dict[str, bytes]:
    """Name -> bytes of each file."""
    return {name: data for maker in MAKERS for name, data in maker.files().items()}


if __name__ == "__main__":
    for name, data in files().items():
        path = FOLDER / name
        if not path.exists():  # a release may add vectors in another file, never edit these
            path.write_bytes(data)
            sys.stdout.write(f"wrote {name}\n")
