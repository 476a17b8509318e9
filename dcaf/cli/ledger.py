"""`dcaf ledger`: what an operator does with a ledger: list its sessions, end them, free one, purge, look whether it works.

    dcaf ledger list --url sqlite:////var/lib/shop/dcaf.db

It works beside the services that use the same database. It ends with 0 for what was done, 1 where nothing was there to be done, and
2 for wrong input, or where the database cannot be used. No subject is printed; one that nobody should see among the running
programs is read from standard input: ``-``.

What a reader gets wrong: no command makes a database. Where there is none, the url is another than that of the service.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from dcaf.core.claims import CHARACTERS_22


class IdParser(argparse.ArgumentParser):
    """Takes a session id for what it is, although one of 64 begins with a hyphen as an option does."""

    def _parse_optional(self, arg_string: str) -> Any:
        return None if CHARACTERS_22.fullmatch(arg_string) else super()._parse_optional(arg_string)


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    ledger = commands.add_parser("ledger", help="list and end the sessions of a ledger, and look after it")
    own = ledger.add_subparsers(required=True, metavar="command", parser_class=IdParser)
    listed = _add(own, "list", "list the live sessions of a subject, or all (those of subjects that were logged out, too)")
    listed.add_argument(
        "subject", nargs="?", metavar="SUBJECT", help="whose; - reads it from standard input (default: everybody's)"
    )
    listed.add_argument("--audience", help="of which service the subject is one")
    listed.add_argument("--json", action="store_true", help="print a JSON object a line")
    _add(own, "revoke", "end a session").add_argument("session", metavar="SESSION", help="its id, as list prints it")
    logged_out = _add(own, "log-out", "end every session of a subject")
    logged_out.add_argument("subject", metavar="SUBJECT", help="whose; - reads it from standard input")
    logged_out.add_argument("--audience", help="of which service the subject is one")
    unlocked = _add(own, "unlock", "take a session from a turn that hangs")
    unlocked.add_argument("session", metavar="SESSION", help="its id, as list prints it")
    _add(own, "purge", "remove what has expired")
    restored = _add(own, "restored", "end every session, after the database was restored from a copy")
    restored.add_argument("--yes", action="store_true", help="do it")
    checked = _add(own, "check", "look whether the database works, and what it promises")
    checked.add_argument("--json", action="store_true", help="print a JSON object")


def _add(commands: argparse._SubParsersAction[IdParser], name: str, says: str) -> IdParser:
    command = commands.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
    command.add_argument("--url", help="where the ledger is (default: what DB_CONNECTION_STRING or SESSION_STORAGE says)")
    command.set_defaults(run=_run, act=name)
    return command


def _run(options: argparse.Namespace) -> int:
    # Only this command needs SQLite and the ledger, and every command imports this module.
    code: int = import_module("dcaf.cli.ledger_actions").run(options)
    return code
