"""`dcaf demo`: a conversation against a real server and attempts to cheat, or with --serve a wizard to talk to; --ledger adds one.

Only this command needs the extra ``demo``, so what it needs is imported when it runs.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

from dcaf.core.importing import load_module
from dcaf.core.keys import Keyring
from dcaf.demo.teller import without_warnings

if TYPE_CHECKING:
    from dcaf.ledger import Ledger

PACE: Final = timedelta(milliseconds=40)
"""Before each word, so that a person sees them come."""

SAID: Final = '{"messages":[{"role":"user","content":"start"}]}'


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    demo = commands.add_parser("demo", help="run a conversation against a real server, then try to cheat")
    demo.add_argument("--serve", action="store_true", help="leave the server running, with a chat page and a curl line")
    demo.add_argument("--ledger", action="store_true", help="with a ledger, in a temporary file: show what it changes")
    demo.add_argument("--port", type=int, default=0, help="where to serve (default: a free port)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    if options.ledger:
        load_module("cryptography", what="A ledger", extra="demo,crypto")
    story = "dcaf.demo.ledger_story" if options.ledger else "dcaf.demo.story"
    modules = ("uvicorn", "dcaf.testing.server", "dcaf.demo.app", story)
    _, server, app, told = (load_module(name, what="The demo", extra="demo") for name in modules)
    if not options.serve:
        code: int = told.tell()
        return code
    if not options.ledger:
        return _serve(server, app, port=options.port)
    with told.keeping_ledger() as ledger:
        return _serve(server, app, port=options.port, ledger=ledger)


def _serve(server: ModuleType, app: ModuleType, *, port: int, ledger: Ledger | None = None) -> int:
    with without_warnings():
        demo = app.create_demo(Keyring.ephemeral(), pace=PACE, store=ledger)
    code: int = server.serve(demo, port=port, announce=partial(_announce, ledger=ledger))
    return code


def _announce(url: str, ledger: Ledger | None = None) -> None:
    print(f"The wizard runs at {url}. Open it in a browser, or talk to it from another terminal:\n")
    print(f"curl -s {url}/api/chat -d '{SAID}'\n")
    if ledger is not None:
        print(f"Its ledger knows each session while it runs:\n\ndcaf ledger list --url {ledger.engine.url}\n")
    print("Ctrl-C stops it.", flush=True)
