"""Writes the table of docs/evidence/comparison.md on servers that remember: ``python -m tests.peers.remembering``.

Sessions on a server, and dcaf with a ledger and without. Each row is a function of a system, and gives a few words for what
happened.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from textwrap import fill
from threading import Thread
from typing import Any, ClassVar, Final

import dcaf
from dcaf.ledger import Ledger
from tests.benchmarks.tables import words
from tests.peers.baskets import Dcaf, InMemory, System, column
from tests.peers.losses import logged_out, older
from tests.peers.visitors import WRITTEN, Answer, Visitor
from tests.peers.why import DjangoOnServer

PAGE: Final = Path(__file__).parents[2] / "docs" / "evidence" / "comparison.md"
BEGIN: Final = "<!-- written by python -m tests.peers.remembering -->"
END: Final = "<!-- until here, remembering -->"
WIDTH: Final = 120


class DjangoCache(DjangoOnServer):
    name = "Django {}, engine `cache`"


class WithLedger(Dcaf):
    name = "dcaf {}, `store=Ledger(...)`"
    terms: ClassVar[dict[str, Any]] = {}

    def mounted(self, app: Any) -> Any:
        ledger = Ledger("memory://", audience="shop", **self.terms)
        return dcaf.SessionMiddleware(app, keys=self.keys(), audience="shop", store=ledger)


SYSTEMS: Final[tuple[type[System], ...]] = (InMemory, DjangoCache, Dcaf, WithLedger)


def at_once(system: System) -> str:
    """A turn reads a number, and stores the next one. In its middle another turn of that session does the same, as a whole."""
    worker, visitor = system.worker(), Visitor()
    assert visitor.ask(worker, "begin").state["role"] == WRITTEN
    other, answers = visitor.copy(), list[Answer]()

    def meanwhile() -> None:
        thread = Thread(target=lambda: answers.append(other.ask(worker, "count")))
        thread.start()
        thread.join()

    system.meanwhile = meanwhile
    first = visitor.ask(worker, "count_slowly")
    counted = visitor.ask(worker, "look").state["count"]
    served = sum(not answer.is_refused for answer in (first, *answers))
    refused = "".join(f", the other is refused: {answer.status}" for answer in (first, *answers) if answer.is_refused)
    return f"{served} of 2 served, {counted} of them counted{refused}"


ROWS: Final[dict[str, Callable[[System], str]]] = {
    "an older state is sent again": older,
    "a copy from before the log-out": logged_out,
    "two turns at once": at_once,
}
"""Row of the table -> what it does."""


def cell(kind: type[System], row: str) -> str:
    """What became of one row; asked once for each system."""
    return _asked(kind, row)


@cache
def _asked(kind: type[System], row: str) -> str:
    return ROWS[row](kind())


def rendered() -> str:
    """The table, and what each row does."""
    rows = [[f"**{row}**", *(cell(kind, row) for kind in SYSTEMS)] for row in ROWS]
    head = ["", *(column(kind()) for kind in SYSTEMS)]
    meanings = [fill(f"- **{row}**: {_meaning(row)}", WIDTH, subsequent_indent="  ") for row in ROWS]
    return "\n\n".join([words(head, rows), "\n".join(meanings)])


def in_page(text: str) -> str:
    """The page with this table as it comes out now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, "the page has no place for the table"
    return f"{before}{begin}\n\n{rendered()}\n\n{end}{after}"


def _meaning(row: str) -> str:
    return (ROWS[row].__doc__ or "").strip()


if __name__ == "__main__":
    logging.disable()
    PAGE.write_text(in_page(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.name}\n")
