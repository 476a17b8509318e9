"""The same story for the eye: in colour, with a line of progress, and the state as a small table that marks what changed.

>>> entries = [Entry("step", 2, "changed"), Entry("count", 3, "new"), Entry("price", 7, "")]
>>> Console(width=40, color_system=None).print(state_table(entries))
changed  step   2
new      count  3
         price  7

What a reader gets wrong: colour says nothing that a word does not say too, so NO_COLOR loses nothing. And what the service says is
text: neither markup nor a control character in it does anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from dcaf.core.extras import extra
from dcaf.demo.happening import Check, Entry, Step, Turn
from dcaf.demo.telling import HEADING, OPENED, QUESTION, PlainTeller, Teller

with extra("The demo", "dcaf[demo]"):
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

WIDE: Final = 60
"""Columns from which on a table has room beside its label."""

LABEL: Final = len("assistant  ")
MARK: Final = len("changed")

STYLES: Final = {"new": "green", "changed": "yellow", "gone": "dim", "": ""}


def fitting() -> Teller:
    """The teller for standard output: the plain one where that is no terminal, or one that only shows text (``TERM=dumb``)."""
    console = Console()
    # Asked of the stream itself, for FORCE_COLOR makes a terminal of every pipe; and COLUMNS=0 would print nothing at all.
    able = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal and console.width > 0
    return TerminalTeller(console) if able else PlainTeller()


class TerminalTeller:
    """Tells it to a terminal, in the width that it has.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def opened(self, url: str) -> None:
        """Where it runs."""
        self._console.print(shown(OPENED.format(url=url)))

    def begun(self, part: str) -> None:
        """A line of its own."""
        self._console.print()
        self._console.print(shown(part, "cyan"))

    def trying(self, step: Step) -> AbstractContextManager[object]:
        """What is being tried, and a line of progress that is gone when the block ends."""
        self._console.print()
        self._line("user" if step.kind == "turn" else "cheat", shown(step.what, "bold"))
        # A log on this terminal goes above the line; one that goes elsewhere is left to go there.
        return Live(progress(step), console=self._console, transient=True, auto_refresh=False, redirect_stderr=sys.stderr.isatty())

    def turned(self, turn: Turn) -> None:
        """What came back, and the state."""
        self._line("assistant", shown(str(turn.text)))
        for call in turn.waiting:
            self._line("waits", shown(f"{call.name} {_json(call.arguments)}, until somebody approves it", "yellow"))
        self._state(turn)
        self._line("envelope", Text(f"{turn.envelope_bytes} bytes"))

    def answered(self, check: Check) -> None:
        """The answer, as it came."""
        self._line("answer", shown(check.found))

    def closed(self, checks: Sequence[Check]) -> None:
        """The table, then what failed in full, then how many held."""
        failed = [check for check in checks if not check.held]
        self._console.print()
        self._console.print(Rule(style="dim"))
        self._console.print(shown(f"{QUESTION}\n", "cyan"))
        self._console.print(closing_table(checks, wide=self._is_wide))
        for check in failed:
            self._console.print(shown(f"\n{check.what}: expected {check.expected}, found {check.found}", "red"))
        self._console.print(Text(f"\n{len(checks) - len(failed)} of {len(checks)} held.", "bold red" if failed else "bold green"))

    @property
    def _is_wide(self) -> bool:
        return self._console.width >= WIDE

    def _state(self, turn: Turn) -> None:
        if not turn.entries:
            self._line("state", Text("empty"))
        elif self._is_wide:
            self._line("state", state_table(turn.entries))
        else:
            self._line("state", Text())
            self._console.print(state_table(turn.entries))

    def _line(self, label: str, value: RenderableType) -> None:
        line = Table.grid()
        line.add_column(width=LABEL, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text(label, "dim"), value)
        self._console.print(line)


def shown(text: str, style: str = "") -> Text:
    r"""Text as it is, with what would steer the terminal made visible.

    >>> shown("[red]plain[/red]\x1b[2J").plain
    '[red]plain[/red]\\x1b[2J'
    """
    return Text("".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text), style)


def progress(step: Step) -> RenderableType:
    """How far it is: ``turn 3 of 8``, and a bar."""
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=step.of, completed=step.number - 1, width=20, complete_style="cyan")
    line.add_row(Text(f"{step.kind} {step.number} of {step.of}"), bar)
    return line


def state_table(entries: Sequence[Entry]) -> Table:
    """The state, a key a row, and before each what the turn did to it, in a word."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=MARK, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for entry in entries:
        table.add_row(Text(entry.mark), shown(entry.key), shown(_json(entry.value)), style=STYLES[entry.mark])
    return table


def closing_table(checks: Sequence[Check], *, wide: bool) -> Table:
    """What was checked, and how it ended; where there is room also what came."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=len("FAILED"), no_wrap=True)
    table.add_column(overflow="fold", no_wrap=wide)
    table.add_column(overflow="fold")
    table.add_row(*(Text(title, "dim") for title in HEADING[: 3 if wide else 2]))
    for check in checks:
        outcome = Text("held", "green") if check.held else Text("FAILED", "bold red")
        table.add_row(outcome, shown(check.what), *([shown(check.came)] if wide else []))
    return table


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
