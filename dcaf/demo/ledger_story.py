"""`dcaf demo --ledger`: what changes when the server remembers a few bytes of each session, told against a server that runs.

The ledger is a SQLite file in a folder that is gone afterwards. Without one each attempt below is answered otherwise: the token
that a client holds is then all that there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
from starlette.types import Scope

from dcaf.core.keys import Keyring
from dcaf.demo.app import AUDIENCE, LOG_OUT, create_demo
from dcaf.demo.story import APPROVE, CONVERSATION, tell_turn
from dcaf.demo.teller import Check, print_cheat, print_checks, without_warnings
from dcaf.ledger import Ledger
from dcaf.testing import Reply, SessionClient
from dcaf.testing.server import serving

USER: Final = "X-User"
"""The header that says who asks. A real service reads a login here, which nobody can write for somebody else."""

OPENED: Final = (
    "The wizard runs at {url}. The session still rides in the JSON body, at data.session; a ledger in dcaf.db knows which is the "
    "newest."
)
BASKET: Final[tuple[str, dict[str, Any]]] = ("add 2 widget", {"basket": {"items": [{"name": "widget", "quantity": 2}]}})
WIZARD: Final = 5
"""So many turns of the conversation are the deployment."""

OLDER: Final = "Sessions of before. The server knows the newest number of each session, and what has been used up."
LOST: Final = "An answer that never arrives. The turn was done; the client, which cannot know, sends it again."
LOGGED_OUT: Final = "Log-out. One number for each user, and one mark for each session that has ended."


@dataclass(frozen=True, slots=True)
class Told:
    """What a conversation leaves behind.

    Attributes:
        envelopes: What was said -> the session that was sent with it.
        messages: What was said -> the conversation so far, as it was sent with it.
        newest: The session at the end.
        checks: What came of each turn.
    """

    envelopes: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    newest: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def tell() -> int:
    """Run the story and print it; the exit code is 0 only if everything happened as it must."""
    with without_warnings(), keeping_ledger() as ledger:
        app = create_demo(Keyring.ephemeral(), store=ledger, subject=find_user)
        with serving(app) as url:
            print(f"{OPENED.format(url=url)}\n")
            told = _converse(url)
            checks = [*told.checks, *_try_older(url, told), *_lose_answer(url, told), *_log_out(url, ledger), *_forget(url)]
    print_checks(checks)
    return 0 if all(check.held for check in checks) else 1


@contextmanager
def keeping_ledger() -> Iterator[Ledger]:
    """A ledger in a folder of its own, which is removed afterwards."""
    with TemporaryDirectory(prefix="dcaf-demo-") as folder:
        ledger = Ledger(f"sqlite:///{Path(folder, 'dcaf.db')}", audience=AUDIENCE)
        try:
            yield ledger
        finally:
            ledger.engine.sync.close()


def find_user(scope: Scope) -> str | None:
    """Who asks; None for nobody."""
    found: bytes = dict(scope["headers"]).get(USER.lower().encode(), b"")
    return found.decode("latin-1") or None


def _converse(url: str) -> Told:
    """The deployment, and a basket."""
    told = Told()
    before: dict[str, Any] = {}
    with _client(url, "ada") as client:
        for said, expected in (*CONVERSATION[:WIZARD], BASKET):
            told.envelopes[said], told.messages[said] = client.envelope, [*client.messages]
            reply = client.decide(decision=True) if said == APPROVE else client.send(said)
            told.checks.append(tell_turn(said, before, reply, expected))
            before = reply.session
        told.newest.update(client.envelope or {})
    return told


def _try_older(url: str, told: Told) -> list[Check]:
    print(f"{OLDER}\n")
    with _client(url, "ada", told.envelopes["3 replicas"]) as client:
        older = _tell("the session after 'service api', to choose again", "409 session-superseded", client.send("9000 replicas"))
    with _client(url, "ada", told.envelopes[APPROVE], told.messages[APPROVE]) as client:
        again = _tell("the same approval once more", "409 session-superseded", client.decide(decision=True))
    return [older, again]


def _lose_answer(url: str, told: Told) -> list[Check]:
    print(f"{LOST}\n")
    with _client(url, "ada", told.newest) as client:
        client.send("one more widget")  # this is the answer that is lost
    with _client(url, "ada", told.newest) as client:
        repaired = _tell(
            "the same turn, sent again", "409 session-conflict, applied: True, 3 widgets", client.send("one more widget")
        )
        on = _tell("one more, with the session of that answer", "200 4 x widget in the basket.", client.send("one more widget"))
    return [repaired, on]


def _log_out(url: str, ledger: Ledger) -> list[Check]:
    print(f"{LOGGED_OUT}\n")
    with _client(url, "ada") as laptop, _client(url, "ada") as phone, _client(url, "bob") as other:
        for client in (laptop, phone, other):
            client.send("start")
        anyio.run(ledger.log_out, "ada")
        return [
            _tell("ada's laptop, after ada was logged out", "409 session-ended", laptop.send("service api")),
            _tell("ada's phone", "409 session-ended", phone.send("service api")),
            _tell("bob, whom that is not about", "200 Service: api. Step 2: how many replicas?", other.send("service api")),
        ]


def _forget(url: str) -> list[Check]:
    """Two ways for a user to end one session: a tool, and an endpoint."""
    checks: list[Check] = []
    for what, path in (("a copy of the session, after 'forget me'", None), (f"a copy, after POST {LOG_OUT}", LOG_OUT)):
        with _client(url, "bob") as client:
            copy = client.send("start").envelope
            client.send("forget me") if path is None else _post(url, path, copy)
        with _client(url, "bob", copy) as thief:
            checks.append(_tell(what, "409 session-ended", thief.send("service api")))
    return checks


def _post(url: str, path: str, envelope: dict[str, Any] | None) -> None:
    with SessionClient(url, path=path, headers={USER: "bob"}, envelope=envelope) as client:
        client.send("")


def _client(
    url: str, user: str, envelope: dict[str, Any] | None = None, messages: list[dict[str, Any]] | None = None
) -> SessionClient:
    return SessionClient(url, headers={USER: user}, envelope=envelope, messages=messages or [])


def _tell(what: str, expected: str, reply: Reply) -> Check:
    check = Check(what, expected, found=_describe(reply))
    print_cheat(check, label="try")
    return check


def _describe(reply: Reply) -> str:
    """What came: the text, or the code, whether the turn was done before, and the basket of the session that came with it."""
    if reply.code is None:
        return f"{reply.status} {reply.text}"
    if reply.body.get("applied") is None:
        return f"{reply.status} {reply.code}"
    number = sum(item["quantity"] for item in reply.session["basket"]["items"])
    return f"{reply.status} {reply.code}, applied: {reply.body['applied']}, {number} widgets"
