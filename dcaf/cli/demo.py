"""`dcaf demo`: the whole story, or with --serve a wizard to talk to.

What a reader gets wrong: the demo needs the extra ``demo``; the other commands do not, and run without it.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Final

from dcaf.core.importing import load_module
from dcaf.core.keys import Keyring
from dcaf.demo.teller import without_warnings

PACE: Final = timedelta(milliseconds=40)
"""Before each word, so that a person sees them come."""

SAID: Final = '{"messages":[{"role":"user","content":"start"}]}'


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    demo = commands.add_parser("demo", help="run a conversation against a real server, then try to cheat")
    demo.add_argument("--serve", action="store_true", help="leave the server running, with a chat page and a curl line")
    demo.add_argument("--port", type=int, default=0, help="where to serve (default: a free port)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    modules = ("dcaf.testing.server", "dcaf.demo.app", "dcaf.demo.story")
    server, app, story = (load_module(name, what="The demo", extra="demo") for name in modules)
    if not options.serve:
        told: int = story.tell()
        return told
    with without_warnings():
        demo = app.create_demo(Keyring.ephemeral(), pace=PACE)
    code: int = server.serve(demo, port=options.port, announce=_announce)
    return code


def _announce(url: str) -> None:
    print(f"The wizard runs at {url}. Open it in a browser, or talk to it from another terminal:\n")
    print(f"curl -s {url}/api/chat -d '{SAID}'\n")
    print("Ctrl-C stops it.", flush=True)
