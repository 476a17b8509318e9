"""`dcaf sessions`: what an operator does with the sessions that a service keeps: list, show, move, archive, erase.

    dcaf sessions list --app clinic --user p-123 --url sqlite:////var/lib/clinic/dcaf.db

It works beside the services that use the same database. It ends with 0 for what was done, 1 where nothing was there to be done, and
2 for wrong input, or where the database cannot be used. A user that nobody should see among the running programs is read from
standard input: ``-``.

What a reader gets wrong: `show` prints names and sizes. What was said is printed where ``--values`` asks for it, and by `export`.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from dcaf.cli.ledger import IdParser


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    sessions = commands.add_parser("sessions", help="list, move and erase the sessions that a service keeps")
    own = sessions.add_subparsers(required=True, metavar="command", parser_class=IdParser)
    _add_looking(own)
    _add_moving(own)
    _add_archive(own)
    _add(own, "re-encrypt", "encrypt everything anew that is not under the active key, so that older keys can go")
    erased = _add(own, "erase", "erase a user: all sessions, and what they shared")
    erased.add_argument("user", metavar="USER", help="whose; - reads it from standard input")
    erased.add_argument("--report", action="store_true", help="print what was erased as a JSON object")


def _add_looking(own: argparse._SubParsersAction[IdParser]) -> None:
    listed = _add(own, "list", "list the sessions of a user, the newest first, or those of everybody")
    listed.add_argument("--user", metavar="USER", help="whose; - reads it from standard input (default: all, in no order of time)")
    listed.add_argument("--limit", type=int, default=50, metavar="N", help="how many (default: 50)")
    listed.add_argument("--cursor", metavar="CURSOR", help="go on where another list ended")
    listed.add_argument("--all", action="store_true", help="list all of them")
    listed.add_argument("--archived", action="store_true", help="list those that were archived")
    listed.add_argument("--json", action="store_true", help="print a JSON object a line")
    shown = _add(own, "show", "show what is known of a session: its keys and its newest messages, without their values")
    _add_whose(shown)
    shown.add_argument("id", metavar="ID", help="its id, as list prints it")
    shown.add_argument("--messages", type=int, default=10, metavar="N", help="how many messages (default: 10)")
    shown.add_argument("--values", action="store_true", help="print the values, too: whatever was said")
    shown.add_argument("--json", action="store_true", help="print a JSON object")


def _add_moving(own: argparse._SubParsersAction[IdParser]) -> None:
    exported = _add(own, "export", "write sessions as JSON, one object a line, for import")
    _add_whose(exported).add_argument("--all-users", action="store_true", help="all sessions of the application")
    exported.add_argument("id", nargs="?", metavar="ID", help="of one session (default: all of the user)")
    exported.add_argument("-o", "--output", metavar="FILE", help="write a file that its owner alone reads (default: print)")
    imported = _add(own, "import", "make the sessions of an export")
    imported.add_argument("file", metavar="FILE", help="what export wrote; - reads standard input")
    imported.add_argument("--replace", action="store_true", help="replace sessions, shared keys and facts that are there")
    imported.add_argument("--json", action="store_true", help="print a JSON object")


def _add_archive(own: argparse._SubParsersAction[IdParser]) -> None:
    archived = _add(own, "archive", "archive a session, or all that are idle: they can be read, and are not written")
    _add_whose(archived).add_argument("--idle", metavar="TIME", help="all that were not committed for so long: 30d, 12h, 90m, 30s")
    archived.add_argument("id", nargs="?", metavar="ID", help="of one session")
    restored = _add(own, "restore", "take a session out of the archive")
    _add_whose(restored)
    restored.add_argument("id", metavar="ID", help="its id, as list --archived prints it")


def _add_whose(command: IdParser) -> argparse._MutuallyExclusiveGroup:
    whose = command.add_mutually_exclusive_group(required=True)
    whose.add_argument("--user", metavar="USER", help="whose; - reads it from standard input")
    whose.add_argument("--anonymous", action="store_true", help="nobody's: an anonymous session")
    return whose


def _add(commands: argparse._SubParsersAction[IdParser], name: str, says: str) -> IdParser:
    command = commands.add_parser(name, help=says, description=f"{says[0].upper()}{says[1:]}.")
    command.add_argument("--app", required=True, help="of which application, as SessionService(app=) has it")
    command.add_argument("--url", help="where the sessions are (default: what DB_CONNECTION_STRING or SESSION_STORAGE says)")
    command.add_argument("--encrypted", action="store_true", help="the service has encrypt=, with the keys in DCAF_KEYS")
    command.add_argument(
        "--artifacts", metavar="URL", help="where the bytes of artifacts are, as SessionService(artifacts=) has it"
    )
    command.set_defaults(run=_run, act=name)
    return command


def _run(options: argparse.Namespace) -> int:
    # Only this command needs SQLite and the service, and every command imports this module.
    code: int = import_module("dcaf.cli.sessions_actions").run(options)
    return code
