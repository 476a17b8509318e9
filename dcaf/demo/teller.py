"""What `dcaf demo` prints, line by line, and the values that it prints: turns, attempts to cheat, and the table of checks.

>>> record = TurnRecord("two", "Noted.", before={"step": 1, "note": "x"}, state={"step": 2}, envelope_bytes=345)
>>> print_turn(record)
user       two
assistant  Noted.
state      {"step": 2}
envelope   345 bytes
<BLANKLINE>
>>> record.outcome
'step 2, note gone'

Programs read these lines, so they are the same in a terminal, in a pipe and in a log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

OPENED: Final = "The wizard runs at {url}. The session of the conversation rides in the JSON body, at data.session."
QUESTION: Final = "Did all come as it must? After a turn the whole session is compared, after a cheat the answer."
HEADING: Final = ("held?", "what", "what came")
ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A call that waits for somebody to approve it."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TurnRecord:
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
    waiting: Sequence[WaitingCall] = ()

    @property
    def outcome(self) -> str:
        """What the turn did, in a line: the changes, what is gone, and what waits."""
        found = list(find_changes(self.before, self.state))
        gone = ", ".join(path for path, value in found if not value)
        said = [f"{path} {value}" for path, value in found if value]
        said += [f"{gone} gone"] if gone else []
        said += [f"{call.name} waits" for call in self.waiting]
        return ", ".join(said) or "no change"


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


def print_turn(record: TurnRecord) -> None:
    """Print a turn, label by label."""
    _print_text(f"user       {record.said}")
    _print_text(f"assistant  {record.text}")
    for call in record.waiting:
        _print_text(f"waits      {call.name} {json.dumps(call.arguments)}, until somebody approves it")
    _print_text(f"state      {json.dumps(record.state)}")
    _print_text(f"envelope   {record.envelope_bytes} bytes\n")


def print_cheat(check: Check, label: str = "cheat") -> None:
    """Print an attempt to cheat, or what else the label says, and its answer."""
    _print_text(f"{label:10} {check.what}\nanswer     {check.found}\n")


def print_checks(checks: Sequence[Check]) -> None:
    """Print the table of all checks, then what failed, then how many held."""
    rows = [HEADING, *(("held" if check.held else "FAILED", check.what, check.brief or check.found) for check in checks)]
    width = max(len(what) for _, what, _ in rows)
    _print_text(f"{QUESTION}\n")
    for outcome, what, came in rows:
        _print_text(f"{outcome:6}  {what:{width}}  {came}")
    failed = [check for check in checks if not check.held]
    for check in failed:
        _print_text(f"\n{check.what}: expected {check.expected}, found {check.found}")
    _print_text(f"\n{len(checks) - len(failed)} of {len(checks)} held.")


@contextmanager
def without_warnings() -> Iterator[None]:
    """Log errors alone while the block runs, in all threads: a demo knows what the service would warn of.

    >>> with without_warnings():
    ...     logging.getLogger("dcaf").isEnabledFor(logging.WARNING), logging.getLogger("dcaf").isEnabledFor(logging.ERROR)
    (False, True)
    """
    logger = logging.getLogger("dcaf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def find_changes(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What differs between two states: the path of each change, and the new value as JSON, which is empty where it is gone.

    >>> list(find_changes({"cart": [{"name": "soup", "quantity": 2}]}, {"cart": [{"name": "soup", "quantity": 3}]}))
    [('cart[0].quantity', '3')]
    """
    if before == after:
        return
    old, new = _members(before), _members(after)
    if not old.keys() & new.keys() and path:
        yield path, json.dumps(after, ensure_ascii=False)
        return
    for step, value in new.items():
        yield from find_changes(old.get(step, ABSENT), value, f"{path}{step}".lstrip("."))
    yield from ((f"{path}{step}".lstrip("."), "") for step in old if step not in new)


def _members(value: Any) -> dict[str, Any]:
    """What a value is made of, by the last step of each path."""
    if isinstance(value, Mapping):
        return {f".{key}": item for key, item in value.items()}
    return {f"[{number}]": item for number, item in enumerate(value)} if isinstance(value, list) else {}


def _print_text(text: str) -> None:
    """Print what the service says as text: what would steer a terminal is made visible."""
    print("".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text))
