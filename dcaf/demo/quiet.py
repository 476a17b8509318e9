"""Keeps the service's warnings out of the demo's story. They are for whoever runs a service, and a demo knows what it does.

>>> with without_warnings():
...     logging.getLogger("dcaf").isEnabledFor(logging.WARNING), logging.getLogger("dcaf").isEnabledFor(logging.ERROR)
(False, True)

What a reader gets wrong: the log is not off. An error is still told, and a warning again when the block has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_warnings() -> Iterator[None]:
    """Log errors alone while the block runs, of all threads."""
    logger = logging.getLogger("dcaf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
