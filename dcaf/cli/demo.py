"""`dcaf demo`: the whole story, or with --serve a wizard to talk to.

What a reader gets wrong: the demo needs the extra ``demo``; the other commands do not, and run without it.
"""

from __future__ import annotations

import argparse
import sys

from dcaf.core.keys import Keyring

try:
    from dcaf.demo.app import create_demo
    from dcaf.demo.server import serve
    from dcaf.demo.story import tell
except ModuleNotFoundError as _missing:
    if (_missing.name or "").startswith("dcaf"):
        raise
    MISSING: str | None = _missing.name
else:
    MISSING = None


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    demo = commands.add_parser("demo", help="run a conversation against a real server, then try to cheat")
    demo.add_argument("--serve", action="store_true", help="leave the server running, and print a curl line for it")
    demo.add_argument("--port", type=int, default=0, help="where to serve (default: a free port)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    if MISSING is not None:
        print(f"dcaf: the demo needs {MISSING}: pip install 'dcaf[demo]'", file=sys.stderr)
        return 2
    if not options.serve:
        return tell()
    return serve(create_demo(Keyring.ephemeral()), port=options.port, announce=_announce)


def _announce(url: str) -> None:
    body = '{"messages":[{"role":"user","content":"start"}]}'
    print(
        f"The wizard runs at {url}. Stop it with Ctrl-C. Say something to it:\n\ncurl -s {url}/api/chat -d '{body}'\n", flush=True
    )
