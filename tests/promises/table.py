"""Writes docs/evidence/promises.md from what a full run measured: `make promises` ends with it."""

from __future__ import annotations

import json
import platform
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
EVIDENCE: Final = ROOT / "docs" / "evidence"
MEASURED: Final = EVIDENCE / "promises.json"
PAGE: Final = EVIDENCE / "promises.md"
README: Final = ROOT / "README.md"

PROMISES: Final = {
    1: ("an altered token is never accepted, in either suite", "a verifier that skips the MAC or the tag"),
    2: ("a token has exactly one accepted spelling", "itsdangerous' own decode-then-compare"),
    3: ("no published secret is a key, and no generated key is refused", "a check of the length alone"),
    4: ("a token of another system, made with the same secret, is refused", "a real token, which is accepted"),
    5: ("HKDF, HMAC, AES-GCM and XAES-256-GCM give the published answers", "a flipped bit"),
    6: ("only the right audience, subject, conversation and keys are accepted", "one binding dropped"),
    8: ("a session ends when it should, with a minute of skew", "a lifetime that forgets the absolute end"),
    9: ("no number of refreshes passes the absolute end", "a lifetime that forgets the absolute end"),
    10: ("a body over a limit is answered before it is read, and blocks nobody", "an answer that leaves the connection open"),
    11: ("no body and no text crashes a service, and values come back byte for byte", "a body that is parsed and written anew"),
    12: (
        "what a session accepts it can seal, and a JavaScript client that echoes it changes nothing",
        "signing the readable object",
    ),
    14: ("the answer to a session that is not authentic is the same bytes, whatever the cause", "an answer that names the reason"),
    15: (
        "no log line, traceback, repr or answer has a token, a key, state or a subject, nor a path that names one",
        "one that raises or logs the payload; the path that was asked for in place of a route's name",
    ),
    17: ("nothing of one request is seen by another", "a session in a global instead of a context variable"),
    18: (
        "a stream cut anywhere leaves the client one valid session, and no event waits for a later one",
        "a stream that holds an event back; one that seals only at its end",
    ),
    19: (
        "with a ledger, a lost answer leaves no conversation stuck, nothing done twice, and nobody else with the session",
        "a ledger that gives no answer twice; one that gives it to whoever has an older token; none",
    ),
    20: (
        "with a ledger, or in a session service, no turn that was acknowledged is lost to another one or mixed with it",
        "no ledger; several states side by side; an engine that reads and then writes; a service that does not compare the "
        "revision, merges it alone, or writes messages one by one",
    ),
    21: ("with a ledger, no older token is accepted", "no ledger, which accepts all"),
    22: ("what was revoked or logged out is not brought back by a turn that was under way", "a revocation that deletes a row"),
    23: (
        "nothing acknowledged is lost when a process or the server of the store is killed, and no turn of a kept session is halved",
        "an engine that acknowledges before it commits; a Redis without its file; a PostgreSQL that does not wait for its log; a "
        "service that writes a turn by halves",
    ),
    24: (
        "while its store is down, a service says so in a second and takes nobody for new; it recovers in two",
        "a store that fails open; one that takes what it cannot find for ended; one that waits",
    ),
    25: ("what comes from a client is never code", "a module that unpickles"),
    31: ("wrong settings refuse to start, and say what to write", "the right setting, which starts"),
    33: (
        "no approval is executed that this session did not ask for, as it asked, in the last five minutes",
        "approvals on the client's word; arguments that are not looked at; no ledger, where a replay in five minutes runs",
    ),
    34: (
        "no unverified state reaches the application, whatever parser it uses",
        "passing on what cannot be parsed; rewriting application/json alone",
    ),
    35: (
        "no signing oracle: nothing of the user's is sealed outside named routes, and no client takes a planted session",
        "adoption on every route; passing on what cannot be completed",
    ),
    36: (
        "a wrong argument at a public entry ends in a DcafError that says what to write",
        "an entry without its check",
    ),
    37: (
        "nothing is read under one limit and written or walked under another",
        "a session's end found by writing it, under the writer's limit of depth",
    ),
    38: ("no parser grows faster than what it reads", "a search that decodes the rest of the text for each session"),
    39: (
        "what a person approved begins once: it is not offered again, and not used up in vain, however its turn ends",
        "a turn that rolls back everything; calls that are used up before they begin; a client that is told at the end alone; "
        "a store that is not told what has not begun",
    ),
    40: (
        "a value that was only read is never changed; one that goes in comes out the same, or is refused",
        "comparing what is written alone",
    ),
}
"""Number -> (promise, control: the broken variant that the same test catches). Numbers are stable; others come later."""


PLACES: Final = ("SQLite", "Redis", "Redis Cluster", "PostgreSQL", "PgBouncer")
ON_EACH: Final = (19, 20, 21, 22, 23, 24, 33)
"""The promises of the ledger, and where each is measured: a sentence begins with the name of its place."""

IN_README: Final = (1, 12, 33)
WIDTH: Final = 130


def rendered(run: dict[str, Any]) -> str:
    """The page, for one run."""
    rows = [f"| P{number} | {promise} | {control} | {_figure(run, number)} |" for number, (promise, control) in PROMISES.items()]
    return "\n".join([HEAD.format(**run["run"]), *rows, ""])


def list_missing(measured: Mapping[int, Sequence[str]]) -> list[str]:
    """What a full run has not measured: promises, and the places of those of the ledger."""
    missing = [f"P{number}" for number in PROMISES if number not in measured]
    for number in ON_EACH:
        begun = {re.split("[:,]", sentence)[0] for sentence in measured.get(number, ())}
        missing += [f"P{number} on {place}" for place in PLACES if place not in begun]
    return missing


def in_readme(text: str, run: dict[str, Any]) -> str:
    """The README with its line about the promises: how many there are, which run it was, and the first figure of some."""
    figures = "; ".join(run["measured"].get(str(number), ["not measured"])[0] for number in IN_README)
    line = LINE.format(count=len(PROMISES), figures=figures, **run["run"])
    item = textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{item}\n{END}{rest.partition(END)[2]}"


def _figure(run: dict[str, Any], number: int) -> str:
    return "; ".join(run["measured"].get(str(number), ["not measured"]))


def describe() -> dict[str, str]:
    """Which run this is."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "python": platform.python_version(), "system": platform.system()}


BEGIN: Final = "<!-- written by make promises -->"
END: Final = "<!-- until here -->"
LINE: Final = (
    "- [{count} promises](docs/evidence/promises.md), each a test with a control that the same test catches. The last full run was "
    "on {date}, Python {python}, {system}. Some of its figures: {figures}."
)
HEAD: Final = """\
# What dcaf promises, as tests

Each promise is a test with a number, and a control: a broken variant that the same test must catch. `make promises` runs
them at full numbers and writes this page; `make test` runs the same code and the same controls at a fiftieth.

The promises of the ledger (P19 to P24, and what P33 says of `session.once()`) run on every engine, with two processes each: SQLite;
Redis that syncs its file before it answers (`appendfsync always`); a Redis Cluster of three; PostgreSQL; and PostgreSQL behind
PgBouncer in transaction mode. Each figure says where it was measured. On the cluster and behind PgBouncer they run a tenth of the
numbers here, and all of them in `make soak`.

Last full run: {date}, Python {python}, {system}. Some take minutes, and `make soak` runs them: a key replaced across four workers
under load (P7), a caching proxy in front of the service (P16), and ten thousand turns over two workers behind nginx on SQLite, on
Redis and on PostgreSQL, while keys rotate, sessions are revoked, and workers and the server of the store are killed (P19). Mutation
testing (P28) is `make mutants`, which writes [mutants.md](mutants.md).

| promise | what holds | control | measured |
|---|---|---|---|"""


if __name__ == "__main__":
    last = json.loads(MEASURED.read_text())
    PAGE.write_text(rendered(last))
    README.write_text(in_readme(README.read_text(), last))
    sys.stdout.write(f"wrote {PAGE.name} and the line of {README.name}\n")
