"""`dcaf keys new` makes a key; `dcaf keys rotate` prints what to deploy, step by step, to replace one.

What a reader gets wrong: the order of the steps. A key that signs before every worker can verify with it drops sessions.
"""

from __future__ import annotations

import argparse
import os
from typing import Final

from dcaf.core.keys import Key, Keyring

STEPS: Final = """\
1. Give this to every worker, and wait until all of them run with it. The new key {new.kid} verifies, and does not sign yet.

DCAF_KEYS={old}
DCAF_KEYS_VERIFY={verify_new}

2. Then this. {new.kid} signs; sessions that {old_kid} sealed go on, and come back sealed by {new.kid}.

DCAF_KEYS={new_text}
DCAF_KEYS_VERIFY={verify_old}

3. After the idle timeout and a minute (7 days by default) nobody holds a session of {old_kid} that is still alive. Then this.

DCAF_KEYS={new_text}
DCAF_KEYS_VERIFY=

A key that leaked is dropped at once, by step 3 with a new key: every session that it sealed ends.
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    keys = commands.add_parser("keys", help="make and rotate keys").add_subparsers(required=True, metavar="command")
    keys.add_parser("new", help="print a new key, for DCAF_KEYS").set_defaults(run=_new)
    rotate = keys.add_parser("rotate", help="print the three steps that replace the active key of DCAF_KEYS")
    rotate.set_defaults(run=_rotate)


def _new(_: argparse.Namespace) -> int:
    print(Key.generate().text())
    return 0


def _rotate(_: argparse.Namespace) -> int:
    Keyring.from_environment()
    old, older = os.environ["DCAF_KEYS"].strip(), os.environ.get("DCAF_KEYS_VERIFY", "").strip()
    new = Key.generate()
    print(
        STEPS.format(
            new=new,
            new_text=new.text(),
            old=old,
            old_kid=Key.parse(old).kid,
            verify_new=_join(new.text(), older),
            verify_old=_join(old, older),
        ),
        end="",
    )
    return 0


def _join(first: str, rest: str) -> str:
    return f"{first},{rest}" if rest else first
