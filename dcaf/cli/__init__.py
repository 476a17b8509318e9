"""The command line: `dcaf keys`, `dcaf inspect`, `dcaf tools`, `dcaf demo`, `dcaf serve`, `dcaf ledger` and `dcaf sessions`.

`dcaf keys new` prints the key and nothing else, so that it can be captured: ``export DCAF_KEYS="$(dcaf keys new)"``.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from dcaf.cli import demo, keys, ledger, serve, sessions, tools
from dcaf.cli.inspect import command as inspect
from dcaf.core.errors import DcafError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; None takes the process's arguments. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has had enough, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (DcafError, OSError, OverflowError) as error:
        sys.stderr.write(f"dcaf: {error}\n")
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dcaf", description="Session state that travels with an agent's conversation.")
    parser.add_argument("--version", action="version", version=f"dcaf {version('dcaf')}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (keys, inspect, tools, demo, serve, ledger, sessions):
        command.add_to(commands)
    return parser
