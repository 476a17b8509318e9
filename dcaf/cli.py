"""The command line: `dcaf keys new` and `dcaf demo`.

What a reader gets wrong: `dcaf keys new` prints the key and nothing else, so that it can be captured:
``export DCAF_KEYS="$(dcaf keys new)"``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dcaf.core.errors import DcafError
from dcaf.core.keys import Key, Keyring

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; None takes the process's arguments. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except (DcafError, OSError) as error:
        print(f"dcaf: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dcaf", description="Session state that travels with an agent's conversation.")
    commands = parser.add_subparsers(required=True, metavar="command")
    keys = commands.add_parser("keys", help="make keys").add_subparsers(required=True, metavar="command")
    new = keys.add_parser("new", help="print a new key, for DCAF_KEYS")
    new.set_defaults(run=_keys_new)
    demo = commands.add_parser("demo", help="run a conversation against a real server, then try to cheat")
    demo.add_argument("--serve", action="store_true", help="leave the server running, and print a curl line for it")
    demo.add_argument("--port", type=int, default=0, help="where to serve (default: a free port)")
    demo.set_defaults(run=_demo)
    return parser


def _keys_new(_: argparse.Namespace) -> int:
    print(Key.generate().text())
    return 0


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
