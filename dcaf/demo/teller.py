"""How `dcaf demo` is told: what happens in it as values, and the teller that prints them.

Keeps the service's warnings out of the demo's story. They are for whoever runs a service, and a demo knows what it does.

>>> with without_warnings():
...     logging.getLogger("dcaf").isEnabledFor(logging.WARNING), logging.getLogger("dcaf").isEnabledFor(logging.ERROR)
(False, True)

What a reader gets wrong: the log is not off. An error is still told, and a warning again when the block has ended.

What happens in `dcaf demo`, as values: a step that begins, a turn that has ended, a check of what was found.

>>> turn = Turn("two", "Noted.", before={"step": 1, "note": "x"}, state={"step": 2, "count": 2}, envelope_bytes=345)
>>> [(entry.key, entry.value, entry.mark) for entry in turn.entries]
[('step', 2, 'changed'), ('count', 2, 'new'), ('note', 'x', 'gone')]
>>> turn.outcome
'step 2, count 2, note gone'

What a reader gets wrong: marks and outcome compare two states that the client saw. They are for display, as the mirror itself is; a
check compares the whole state.

How `dcaf demo` is told: what a teller is, and the plain one, for pipes, logs and pages.

>>> PlainTeller().turned(Turn("start", "Which service?", before={}, state={"step": 1}, envelope_bytes=345))
user       start
assistant  Which service?
state      {"step": 1}
envelope   345 bytes
<BLANKLINE>

What a reader gets wrong: nothing here is for the eye. Programs read these lines, so they stay as they are; a terminal has a teller
of its own.

The same story for the eye: in colour, with a line of progress, and the state as a small table that marks what changed.

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
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from dcaf.core.importing import extra


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


Kind = Literal["turn", "cheat"]
Mark = Literal["", "new", "changed", "gone"]

ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Step:
    """Something that is about to be tried.

    Attributes:
        kind: A turn of the conversation, or an attempt to cheat.
        number: From 1.
        of: How many of this kind there are.
        what: What the user says, or how somebody cheats.
    """

    kind: Kind
    number: int
    of: int
    what: str

    @classmethod
    def each(cls, kind: Kind, whats: Sequence[str]) -> list[Step]:
        """One step for each, numbered."""
        return [cls(kind, number, len(whats), what) for number, what in enumerate(whats, 1)]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the state after a turn; of a key that is gone, the value that it had."""

    key: str
    value: Any
    mark: Mark


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits for somebody to approve it."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said in one turn, and what came back.

    Attributes:
        said: What the user said.
        text: What the assistant said; None where the answer has no text.
        before: The state that the turn began with.
        state: The state that it left.
        envelope_bytes: Length of ``data.session`` as JSON.
        waiting: The calls that now wait for an approval.
    """

    said: str
    text: str | None
    before: Mapping[str, Any]
    state: Mapping[str, Any]
    envelope_bytes: int
    waiting: Sequence[Waiting] = ()

    @property
    def entries(self) -> list[Entry]:
        """The state key by key, with what this turn did to each; at the end the keys that are gone."""
        there = [Entry(key, value, self._mark(key)) for key, value in self.state.items()]
        return there + [Entry(key, value, "gone") for key, value in self.before.items() if key not in self.state]

    @property
    def outcome(self) -> str:
        """What the turn did, in a line: the changes, what is gone, and what waits."""
        found = list(changes(self.before, self.state))
        gone = ", ".join(path for path, value in found if not value)
        said = [f"{path} {value}" for path, value in found if value]
        said += [f"{gone} gone"] if gone else []
        said += [f"{call.name} waits" for call in self.waiting]
        return ", ".join(said) or "no change"

    def _mark(self, key: str) -> Mark:
        if key not in self.before:
            return "new"
        return "" if self.before[key] == self.state[key] else "changed"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the closing table.

    Attributes:
        what: What was tried.
        expected: What had to come, whole.
        found: What came, whole.
        brief: What came, as the table has it; empty where it has all of it.
    """

    what: str
    expected: str
    found: str
    brief: str = ""

    @property
    def held(self) -> bool:
        """Whether it happened as it must."""
        return self.expected == self.found

    @property
    def came(self) -> str:
        """What the table shows."""
        return self.brief or self.found


def changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What differs between two states: the path of each change, and the new value as JSON, which is empty where it is gone.

    >>> list(changes({"cart": [{"name": "soup", "quantity": 2}]}, {"cart": [{"name": "soup", "quantity": 3}]}))
    [('cart[0].quantity', '3')]
    """
    if before == after:
        return
    old, new = _members(before), _members(after)
    if not old.keys() & new.keys() and path:
        yield path, json.dumps(after, ensure_ascii=False)
        return
    for step, value in new.items():
        yield from changes(old.get(step, ABSENT), value, f"{path}{step}".lstrip("."))
    yield from ((f"{path}{step}".lstrip("."), "") for step in old if step not in new)


def _members(value: Any) -> dict[str, Any]:
    """What a value is made of, by the last step of each path."""
    if isinstance(value, Mapping):
        return {f".{key}": item for key, item in value.items()}
    return {f"[{number}]": item for number, item in enumerate(value)} if isinstance(value, list) else {}


OPENED: Final = "The wizard runs at {url}. The session of the conversation rides in the JSON body, at data.session."
QUESTION: Final = "Did all come as it must? After a turn the whole session is compared, after a cheat the answer."
HEADING: Final = ("held?", "what", "what came")


class Teller(Protocol):
    """Whoever tells the story, while it happens.

    ``opened`` comes first and ``closed`` last. Between them parts are ``begun``, and in a part each step is ``trying``, and then
    either ``turned`` or ``answered``.
    """

    def opened(self, url: str) -> None:
        """The service runs at this base URL."""

    def begun(self, part: str) -> None:
        """What comes now, and why it is there."""

    def trying(self, step: Step) -> AbstractContextManager[object]:
        """A step begins; it runs inside the block, and has ended, or failed, where the block ends."""

    def turned(self, turn: Turn) -> None:
        """The step was a turn, and this came back."""

    def answered(self, check: Check) -> None:
        """The step was an attempt to cheat, and this was the answer."""

    def closed(self, checks: Sequence[Check]) -> None:
        """All is over: what was checked, in its order."""


class PlainTeller:
    """Tells it to standard output in plain lines, the same wherever they go."""

    def opened(self, url: str) -> None:
        """Where it runs."""
        print(f"{OPENED.format(url=url)}\n")

    def begun(self, part: str) -> None:
        """A line of its own."""
        print(f"{part}\n")

    def trying(self, step: Step) -> AbstractContextManager[object]:
        """Nothing: a log says what happened, not what is about to."""
        return nullcontext(step)

    def turned(self, turn: Turn) -> None:
        """One turn, label by label."""
        print(f"user       {turn.said}")
        print(f"assistant  {turn.text}")
        for call in turn.waiting:
            print(f"waits      {call.name} {json.dumps(call.arguments)}, until somebody approves it")
        print(f"state      {json.dumps(turn.state)}")
        print(f"envelope   {turn.envelope_bytes} bytes\n")

    def answered(self, check: Check) -> None:
        """One attempt, and its answer."""
        print(f"cheat      {check.what}\nanswer     {check.found}\n")

    def closed(self, checks: Sequence[Check]) -> None:
        """The table, then what failed, then how many held."""
        rows = [HEADING, *(("held" if check.held else "FAILED", check.what, check.came) for check in checks)]
        width = max(len(what) for _, what, _ in rows)
        print(f"{QUESTION}\n")
        for outcome, what, came in rows:
            print(f"{outcome:6}  {what:{width}}  {came}")
        failed = [check for check in checks if not check.held]
        for check in failed:
            print(f"\n{check.what}: expected {check.expected}, found {check.found}")
        print(f"\n{len(checks) - len(failed)} of {len(checks)} held.")


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
