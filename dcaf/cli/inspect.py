"""`dcaf inspect`: which session a text carries, what it says of itself, and, with the key, whether it is believed and why not.

    curl -s https://agent.example/api/chat -d @turn.json | dcaf inspect --audience agent

It reads a token, an envelope, the body of a request or of an answer, or a stream from standard input. Without a key it shows claims
that nobody has verified, and says so. It ends with 0 for what was shown or verified, 1 for what is refused, 2 for wrong input.

What a reader gets wrong: the explanation is for the operator. On the wire every cause has one and the same answer.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from typing import Final

from dcaf.cli.inspect.command import report
from dcaf.cli.inspect.verdict import Judge
from dcaf.core.claims import Binding
from dcaf.core.errors import ConfigurationError
from dcaf.core.keys import Keyring

NO_AUDIENCE: Final = "A seal is verified for an audience: pass --audience, as SessionMiddleware(audience=) has it."


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    inspect = commands.add_parser("inspect", help="show the session in a token, a body or a stream from standard input")
    inspect.add_argument("--audience", help="whom it should be for; with DCAF_KEYS set, the seal is verified")
    inspect.add_argument("--subject", help="whom it should be bound to")
    inspect.add_argument("--conversation", help="the conversation that it should be bound to")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    judge = _judge(options)
    lines, code = report(_given(), judge, now=int(time.time()))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a key's name may have letters that this terminal has not
    print("\n".join(lines))
    return code


def _judge(options: argparse.Namespace) -> Judge | None:
    if not os.environ.get("DCAF_KEYS", "").strip():
        return None
    if options.audience is None:
        raise ConfigurationError(NO_AUDIENCE)
    return Judge(Keyring.from_environment(), Binding(options.audience, options.subject, options.conversation), time.time)


def _given() -> bytes:
    if sys.stdin.isatty():
        sys.stderr.write("Paste a token, a body or a stream, then press Ctrl-D on a line of its own.\n")
    return sys.stdin.buffer.read()
