r"""`dcaf inspect`: which session a text carries, what it says of itself, and, with the key, whether it is accepted and why not.

    curl -s https://agent.example/api/chat -d @turn.json | dcaf inspect --audience agent

It reads a token, an envelope, the body of a request or of an answer, or a stream from standard input. Without a key it shows claims
that nobody has verified, and says so. It ends with 0 for what was shown or verified, 1 for what is refused, 2 for wrong input.

>>> lines, code = report(b'{"messages":[{"data":{"session":{"step":2}}}]}', None, now=0)
>>> print("\n".join(lines))
A JSON request of 1 message, 46 bytes
`-> messages[0].data.session   a plain object, which nobody has sealed: this one counts
<BLANKLINE>
object     1 key
`-- step   1 byte
<BLANKLINE>
Refused with any key: session-unsigned (400), because it is a plain object without `dcaf`: nobody has sealed it.
Any service would refuse it, and tell the client to start over.

No value of a state, no subject and no whole token is printed, so that the output can be shown around. The explanation is for the
operator: on the wire every cause has one and the same answer.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from dcaf.cli.inspect import render
from dcaf.cli.inspect.bodies import Found, Site
from dcaf.cli.inspect.reader import find
from dcaf.cli.inspect.render import columns, count, describe_claims, plain, tree
from dcaf.cli.inspect.verdict import Clear, Judge, SealVerdict, explain_refusal, read_clear, refuse_without_key
from dcaf.core.claims import Binding
from dcaf.core.envelope import NEW
from dcaf.core.errors import ConfigurationError, SessionError
from dcaf.core.keys import EPHEMERAL, Keyring
from dcaf.core.sealer import MAX_TOKEN_BYTES

MOST: Final = 20
"""Rows of a list, but for the one that counts."""

STARTS_OVER: Final[dict[bool | None, str]] = {
    True: "The service told the client to start over: what the client had before is of no use any more.",
    False: "The client asks for a new session, whatever it had before.",
    None: "In an answer, the service told the client to start over. In a request, the client asks for a new session.",
}
UNVERIFIED: Final = "Not verified: anybody could have written this. Set DCAF_KEYS and pass --audience to verify it."
NO_EFFECT: Final = "The mirror is not what was sealed. It has no effect: only the token counts."
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
    lines, code = report(_read_input(), judge, now=int(time.time()))
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


def _read_input() -> bytes:
    if sys.stdin.isatty():
        sys.stderr.write("Paste a token, a body or a stream, then press Ctrl-D on a line of its own.\n")
    return sys.stdin.buffer.read()


def report(data: bytes, judge: Judge | None, *, now: int) -> tuple[list[str], int]:
    """The lines, and 0 for what was shown or verified, 1 for what is refused.

    Args:
        data: The text.
        judge: Who verifies; None verifies nothing.
        now: Seconds since the epoch.

    Raises:
        ConfigurationError: There is no session in the text; the message says what it is and what to give.
    """
    found = find(data)
    assert found.winner is not None
    lines = [*_places(found, found.winner), *found.notes, ""]
    if found.winner.token == NEW:
        return [*lines, STARTS_OVER[found.is_answer]], 0
    verdict = SealVerdict(refusal=refuse_without_key(found.winner.member)) if judge is None else judge.verdict(found.winner.member)
    clear = Clear("") if found.winner.token is None else read_clear(found.winner.token)
    lines += [*_session(found.winner, clear, verdict, now), *_ending(verdict, clear, judge)]
    return lines, 1 if verdict.refusal else 0


def _places(found: Found, winner: Site) -> list[str]:
    """The tree of the sessions, with an arrow at the one that counts."""
    listed = [site for rank, site in enumerate(found.sites) if site is winner or rank < MOST]
    rows = [(site.where, f"{site.describe()}{_role(site, winner, found.why)}") for site in listed]
    more = len(found.sites) - len(listed)
    rows += [(f"... and {more:,} more", "passed over")] if more else []
    return tree(found.what[0].upper() + found.what[1:], rows, marked=listed.index(winner))


def _role(site: Site, winner: Site, why: str) -> str:
    if site is winner:
        return f": this one counts{', ' if why else ''}{why}"
    return "" if site.member in (None, {}) else ": passed over"


def _session(site: Site, clear: Clear, verdict: SealVerdict, now: int) -> Iterable[str]:
    """Token, keys and claims."""
    if site.token is not None:
        yield from columns([("token", _token(site.token, clear))])
    yield from _keys(site, verdict)
    if site.token is not None:
        yield from ["", *columns(_claims(verdict, clear, now)), *_log(verdict)]
    yield ""


def _token(token: str, clear: Clear) -> str:
    key = "" if clear.kid is None else f", key {clear.kid}"
    size = f"{clear.suite}{key}, {count(len(token), 'byte')}: "
    if len(token) > MAX_TOKEN_BYTES:
        return f"{size}over max_token_bytes, which is {MAX_TOKEN_BYTES:,} where a service says nothing else"
    return f"{size}{len(token) / MAX_TOKEN_BYTES:.1%} of max_token_bytes ({MAX_TOKEN_BYTES:,} by default)"


def _keys(site: Site, verdict: SealVerdict) -> list[str]:
    """The keys of the state, or, where it was not opened, of the mirror."""
    if verdict.state is not None and verdict.shown is not None:
        rows = render.rows(site.mirror, verdict.state, verdict.shown)
        title = f"{count(len(verdict.state), 'key')}{'' if site.mirror else '; no mirror came with it'}"
        note = [NO_EFFECT] if render.is_changed(site.mirror, verdict.shown) else []
        return [*_list_keys("state", title, rows), *note]
    if not site.mirror:
        return columns([("mirror", "none")]) if site.token else []
    title, hint = ("mirror", "; for display, no service reads it back") if site.token else ("object", "")
    return _list_keys(title, f"{count(len(site.mirror), 'key')}{hint}", render.sizes(site.mirror))


def _list_keys(name: str, title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    shown = [(plain(key), words) for key, words in rows[:MOST]]
    shown += [(f"... and {len(rows) - MOST:,} more", "")] if len(rows) > MOST else []
    return tree(f"{name:10} {title}", shown)


def _claims(verdict: SealVerdict, clear: Clear, now: int) -> list[tuple[str, str]]:
    claims = verdict.claims or clear.claims
    if claims is None:
        return [("claims", "cannot be read without the key" if clear.is_encrypted else "cannot be read")]
    vouched = "nobody has verified this" if verdict.claims is None else f"sealed by key {verdict.kid}"
    return [("claims", vouched), *describe_claims(claims, now)]


def _log(verdict: SealVerdict) -> list[str]:
    return columns([("log", f"sid={verdict.sid_digest} in the log of the service")]) if verdict.sid_digest else []


def _ending(verdict: SealVerdict, clear: Clear, judge: Judge | None) -> list[str]:
    if verdict.refusal is not None:
        why = explain_refusal(verdict.refusal.reason, judge.binding if judge else None, verdict.claims or clear.claims)
        return [_describe_refusal(verdict.refusal, why, judge), _consequence(verdict.refusal, judge), *_unknown(verdict.refusal)]
    return [UNVERIFIED if judge is None or verdict.claims is None else f"Verified: it is good for {plain(verdict.claims.aud)}."]


def _describe_refusal(refusal: SessionError, why: str, judge: Judge | None) -> str:
    whose = " with any key" if judge is None else ""
    return f"Refused{whose}: {refusal.code} ({refusal.http_status}), because {why}."


def _consequence(refusal: SessionError, judge: Judge | None) -> str:
    who = "Any service" if judge is None else "A service with these keys"
    return (
        f"{who} would refuse it, and tell the client {'to start over' if refusal.offers_restart else 'nothing about its session'}."
    )


def _unknown(refusal: SessionError) -> list[str]:
    """What to look at where the key is not known."""
    if refusal.reason != "kid":
        return []
    if (refusal.kid or "").startswith(EPHEMERAL):
        return [
            f"The key {refusal.kid} is ephemeral by its name: such a key lives in its process only, and nothing else can verify it."
        ]
    return ["Is DCAF_KEYS the service's?"]
