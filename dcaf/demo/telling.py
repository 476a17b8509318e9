"""How `dcaf demo` is told: what a teller is, and the plain one, for pipes, logs and pages.

>>> PlainTeller().turned(Turn("start", "Which service?", before={}, state={"step": 1}, envelope_bytes=345))
user       start
assistant  Which service?
state      {"step": 1}
envelope   345 bytes
<BLANKLINE>

What a reader gets wrong: nothing here is for the eye. Programs read these lines, so they stay as they are; a terminal has a teller
of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from dcaf.demo.happening import Check, Step, Turn


class Teller(Protocol):
    """Whoever tells the story, while it happens.

    ``opened`` comes first and ``closed`` last. Between them each step is ``trying``, and then either ``turned`` or ``answered``.
    """

    def opened(self, url: str) -> None:
        """The service runs at this base URL."""

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
        print(f"The wizard runs at {url}. Its session rides in the JSON body, at data.session.\n")

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
        width = max(len(check.what) for check in checks)
        for check in checks:
            print(f"{'held' if check.held else 'FAILED':6}  {check.what:{width}}  {check.found}")
        failed = [check for check in checks if not check.held]
        for check in failed:
            print(f"\n{check.what}: expected {check.expected}, found {check.found}")
        print(f"\n{len(checks) - len(failed)} of {len(checks)} held.")
