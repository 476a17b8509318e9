"""`dcaf serve module:agent`: an agent over HTTP and WebSocket, with its sessions sealed by the key in the environment.

The key must outlive the process, so without ``DCAF_KEYS`` nothing is served, and the message has the line that makes one.
"""

from __future__ import annotations

import argparse

from dcaf.core.importing import load_module


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    serve = commands.add_parser("serve", help="serve an agent, an agent function, or an application that is ready")
    serve.add_argument("target", metavar="module:agent", help="what to serve, from this folder or from what is installed")
    serve.add_argument("--audience", help="name of the service: no other service's session is accepted (default: the target)")
    serve.add_argument(
        "--conversation", help="where a body names its conversation, for instance /thread_id: sessions are bound to it"
    )
    serve.add_argument(
        "--ledger",
        metavar="URL",
        help="keep a ledger there, for instance sqlite:///dcaf.db: one newest session, log-out, approvals that are used once",
    )
    serve.add_argument(
        "--sessions",
        metavar="URL",
        help="keep sessions there, for instance in sqlite:///dcaf.db: state, conversation and memory; a client sends what is new",
    )
    serve.add_argument("--encrypted", action="store_true", help="encrypt what --sessions keeps, with the keys in DCAF_KEYS")
    serve.add_argument("--page", action="store_true", help="with a chat page at /, which shows the session at work")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    serve.add_argument("--workers", type=int, help="how many processes serve (default: WEB_CONCURRENCY, or 1)")
    serve.add_argument("--reload", action="store_true", help="start anew when a file changes")
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    load_module("dcaf.agent.serving", what="Serving", extra="agent,server").serve_named(
        options.target,
        audience=options.audience,
        conversation=options.conversation,
        ledger=options.ledger,
        sessions=options.sessions,
        encrypted=options.encrypted,
        page=options.page,
        host=options.host,
        port=options.port,
        workers=options.workers,
        reload=options.reload,
    )
    return 0
