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
from typing import Final, Protocol

from dcaf.demo.happening import Check, Step, Turn

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
