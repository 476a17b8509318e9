"""The page's modules that draw nothing, run by Node.js: what changed, what a token says, what a cheat makes of it."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dcaf import Keyring
from dcaf.agent.page import STATIC
from dcaf.testing import SessionClient, sealed
from tests.clients.hostile_streams import CUTTINGS, LONG, STREAM, WORDS, carried, hostile
from tests.clients.servers import line, session

MODULES: Final = Path(__file__).with_name("modules.mjs")
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files where Node.js takes them for modules, as a browser does: older ones ask for it."""
    copied: Path = shutil.copytree(STATIC, tmp_path_factory.mktemp("page") / "static")
    (copied / "package.json").write_text('{"type": "module"}')
    return copied


Ask = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def ask(node: str, folder: Path) -> Iterator[Ask]:
    """Gives the modules a command, as modules.mjs describes them."""
    command = [node, str(MODULES), folder.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        said, heard = process.stdin, process.stdout
        assert said is not None
        assert heard is not None

        def asked(members: dict[str, Any]) -> Any:
            said.write(json.dumps(members) + "\n")
            said.flush()
            told = json.loads(heard.readline())
            assert "error" not in told, told
            return told.get("value")

        yield asked
        said.close()


@pytest.fixture(scope="module")
def call(ask: Ask) -> Call:
    """Calls a function of a module."""

    def called(module: str, name: str, *args: Any, outcome: Any = None) -> Any:
        return ask({"module": module, "name": name, "args": args, "outcome": outcome})

    return called


def marks(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["path"]: row["mark"] for row in rows}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ({}, {}, {}),
        ({}, {"n": 1}, {"n": "new"}),
        ({"n": 1}, {"n": 1}, {"n": ""}),
        ({"n": 1}, {"n": 2}, {"n": "changed"}),
        ({"n": 1}, {}, {"n": "removed"}),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, {"a.b[0]": "", "a.b[1]": "changed"}),
        ({"a": [1]}, {"a": []}, {"a": "new", "a[0]": "removed"}),
        ({"a": {}}, {"a": {}}, {"a": ""}),
        ({"a": None}, {"a": False}, {"a": "changed"}),
        ({"a": "1"}, {"a": 1}, {"a": "changed"}),
        ({"": 1}, {"": 2}, {'[""]': "changed"}),
        ({"": {"": {}}}, {"": {"": {}}}, {'[""][""]': ""}),
        ({"a.b": 1, "a": {"b": 2}}, {"a.b": 1, "a": {"b": 2}}, {'["a.b"]': "", "a.b": ""}),
        ({"a[0]": 1, "a": [2]}, {"a[0]": 1, "a": [3]}, {'["a[0]"]': "", "a[0]": "changed"}),
    ],
)
def test_each_leaf_says_what_the_turn_did_to_it(call: Call, before: Any, after: Any, found: dict[str, str]) -> None:
    assert marks(call("changes.js", "rows", before, after)) == found


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (61, "1 minute and 1 second"),
        (3600, "1 hour"),
        (86_340, "23 hours and 59 minutes"),
        (86_400, "1 day"),
        (604_800, "7 days"),
        (604_799.5, "7 days"),
        (601_200, "6 days and 23 hours"),
        (3_599.6, "1 hour"),
        (59.6, "1 minute"),
        (86_399.6, "1 day"),
    ],
)
def test_times_are_said_in_words(call: Call, seconds: float, words: str) -> None:
    assert call("token.js", "words", seconds) == words


def test_a_token_says_its_claims_and_an_encrypted_one_does_not(call: Call) -> None:
    keys = Keyring.ephemeral()
    state = {"name": "Zoë 北京 🚀"}
    signed = sealed(state, keys=keys, audience="a")["dcaf"]["token"]
    assert call("token.js", "read", signed)["claims"]["aud"] == "a"
    encrypted = sealed(state, keys=keys, audience="a", encrypt=True)["dcaf"]["token"]
    assert call("token.js", "read", encrypted)["claims"] is None
    assert call("token.js", "read", "new") is None


def test_the_state_is_read_from_a_signed_token_whatever_the_mirror_shows(call: Call) -> None:
    state = {"near": 2**53 - 1, "real": 1.5e300, "name": "Zoë", "list": [{}, None]}
    envelope = sealed(state, keys=Keyring.ephemeral(), audience="a")
    assert call("conversation.js", "visible", {"dcaf": envelope["dcaf"]}) == state
    assert call("conversation.js", "visible", envelope) == state


def test_an_integer_that_javascript_rounds_is_shown_as_the_mirror_has_it(call: Call) -> None:
    envelope = sealed({"n": 2**53 + 1}, keys=Keyring.ephemeral(), audience="a")
    assert call("conversation.js", "visible", envelope) == {"n": str(2**53 + 1)}


def test_of_an_encrypted_session_only_the_mirror_is_seen(call: Call) -> None:
    envelope = sealed({"n": 1}, keys=Keyring.ephemeral(), audience="a", encrypt=True)
    assert call("conversation.js", "visible", {"shown": 2, "dcaf": envelope["dcaf"]}) == {"shown": 2}
    assert call("token.js", "isEncrypted", envelope["dcaf"]["token"])
    assert not call("token.js", "isEncrypted", "new")


@pytest.mark.parametrize("encrypt", [False, True])
def test_a_forged_token_differs_and_is_refused(call: Call, encrypt: bool) -> None:
    keys = Keyring.ephemeral()
    envelope = sealed({"name": "Zoë"}, keys=keys, audience="deploy-agent", encrypt=encrypt)
    forged = {"dcaf": {"token": call("token.js", "forged", envelope["dcaf"]["token"])}}
    from dcaf.demo import create_demo

    with SessionClient(create_demo(keys, accept_both=True), envelope=forged) as client:
        assert client.send("hello").code == "session-invalid"
    with SessionClient(create_demo(keys, accept_both=True), envelope=envelope) as client:
        assert client.send("hello").status == 200


KEYS: Final = Keyring.ephemeral()
MINE: Final = sealed({"n": 1}, keys=KEYS, audience="a")
OTHER: Final = sealed({}, keys=KEYS, audience="a")
TALK: Final = {"envelope": MINE, "here": {"body": '{"data":{"thread":"t-1"},"messages":[]}', "messages": []}}
TURN: Final = {"number": 1, "said": "hi", "body": "{}", "before": MINE}
L0: Final = {"level": "L0", "restarts": False}
UNCLEAR: Final = "This shows nothing of the session."


def came(code: str = "", status: int = 200, envelope: Any = MINE) -> dict[str, Any]:
    return {"status": status, "code": code, "detail": "", "text": "", "data": {}, "envelope": envelope}


@pytest.mark.parametrize(
    ("name", "args"),
    [("tampering", [TALK, L0]), ("mirrored", [TALK]), ("replayed", [TURN, L0])],
    ids=["tamper", "mirror", "replay"],
)
@pytest.mark.parametrize(
    ("outcome", "answer"),
    [
        (came("stopped", 0), "Not answered: stopped"),
        (came("no-answer", 0), "Not answered: no-answer"),
        (came("model-failed", 200), "Not answered: model-failed"),
        (came("session-unavailable", 503), "Refused: 503 session-unavailable"),
        (came("session-too-large", 413), "Refused: 413 session-too-large"),
        (came("http-502", 502), "Refused: 502 http-502"),
    ],
)
def test_what_is_no_answer_about_the_session_proves_nothing(call: Call, name: str, args: Any, outcome: Any, answer: str) -> None:
    assert call("cheat.js", name, *args, outcome=outcome) == {"isGood": None, "answer": answer, "meaning": UNCLEAR}


@pytest.mark.parametrize(
    ("level", "turn", "outcome", "told"),
    [
        ("L0", TURN, came(), (False, "keeps nothing (L0)")),
        ("L1", TURN, came(), (False, "keeps one number a user (L1)")),
        ("L2", TURN, came(), (False, "(L2) has a store that lets older turns in")),
        ("custom", TURN, came(), (False, "(custom) has a store that lets older turns in")),
        ("L2", TURN, came("session-conflict", 409), (True, "(L2) knows that the conversation has gone on")),
        ("L0", TURN, came("session-ended", 409), (True, "(L0) knows that this session is over")),
        ("L0", TURN, came("session-invalid", 400), (True, "(L0) does not take its seal any longer")),
        ("L2", {**TURN, "before": None}, came(), (True, "a session of its own")),
        ("L2", {**TURN, "before": {"dcaf": {"token": "new"}}}, came(), (True, "a session of its own")),
        ("L0", TURN, came(envelope=OTHER), (True, "a session of its own")),
    ],
)
def test_the_page_says_why_a_replay_was_taken_or_refused(call: Call, level: str, turn: Any, outcome: Any, told: Any) -> None:
    is_good, meaning = told
    verdict = call("cheat.js", "replayed", turn, {"level": level, "restarts": False}, outcome=outcome)
    assert verdict["isGood"] is is_good
    assert meaning in verdict["meaning"]


@pytest.mark.parametrize(
    ("restarts", "outcome", "is_good", "answer"),
    [
        (False, came("session-invalid", 400), True, "Refused: 400 session-invalid"),
        (False, came(envelope=OTHER), False, "Accepted: 200"),
        (True, came(envelope=OTHER), True, "Started anew: 200"),
        (True, came(envelope={"forged": True}), False, "Accepted: 200"),
    ],
)
def test_a_service_that_starts_anew_has_not_taken_the_forgery(
    call: Call, restarts: bool, outcome: Any, is_good: bool, answer: str
) -> None:
    verdict = call("cheat.js", "tampering", TALK, {"level": "L0", "restarts": restarts}, outcome=outcome)
    assert (verdict["isGood"], verdict["answer"]) == (is_good, answer)


@pytest.mark.parametrize(("restarts", "is_good"), [(True, None), (False, False)])
def test_whether_an_encrypted_session_was_begun_anew_is_not_claimed(call: Call, restarts: bool, is_good: bool | None) -> None:
    before, after = (sealed({}, keys=KEYS, audience="a", encrypt=True) for _ in range(2))
    service = {"level": "L2", "restarts": restarts}
    verdict = call("cheat.js", "replayed", {**TURN, "before": before}, service, outcome=came(envelope=after))
    assert (verdict["isGood"], verdict["answer"]) == (is_good, "Accepted: 200")


def test_a_mirror_that_had_an_effect_would_be_told(call: Call) -> None:
    assert call("cheat.js", "mirrored", TALK, outcome=came())["answer"] == "Without effect"
    assert call("cheat.js", "mirrored", TALK, outcome=came(envelope={**MINE, "forged": True}))["isGood"] is False


def test_an_attempt_has_everything_of_the_last_body_but_its_session(call: Call) -> None:
    """A conversation may be named inside of ``data``."""
    sent = json.loads(call("cheat.js", "mirrored", TALK)["body"])
    assert sent["data"]["thread"] == "t-1"
    assert sent["data"]["session"] == {**MINE, "forged": True}


def exchanged(ask: Ask, *parts: bytes, status: int = 200, **how: Any) -> Any:
    """What comes of an answer."""
    told = ask({"parts": carried(parts), "status": status, **how})
    assert told["polluted"] == []
    return told


def test_however_a_stream_is_cut_the_page_hears_the_same(ask: Ask) -> None:
    whole = exchanged(ask, STREAM)
    assert whole["outcome"]["text"] == f"{WORDS}."
    assert [found["n"] for found in whole["sessions"]] == [1, 2]
    for name, parts in CUTTINGS.items():
        told = exchanged(ask, *parts)
        assert {**told, "cpu_us": 0} == {**whole, "cpu_us": 0}, name


def test_whatever_comes_the_page_has_an_answer_or_a_code(ask: Ask, scale: float) -> None:
    rng = random.Random(16)
    for _ in range(max(200, int(4000 * scale))):
        stream = hostile(rng)
        told = exchanged(ask, stream, broken=rng.random() < 0.3, status=rng.choice([200, 200, 200, 400, 409, 503]))
        outcome = told["outcome"]
        assert bool(outcome["code"]) != outcome["isAnswered"], stream
        assert isinstance(outcome["code"] + outcome["detail"] + outcome["text"], str), stream
        assert all(isinstance(session["dcaf"]["token"], str) for session in told["sessions"]), stream
        assert "session" not in outcome["data"], stream


def problem(**members: Any) -> bytes:
    return json.dumps({"code": "session-ended", "detail": "Over.", **members}).encode()


NEW: Final = {"dcaf": {"token": "new"}}
SAYS_NEW: Final = problem(data={"session": NEW})
TEXT: Final = line(type="text_delta", text="Well, ")
CHECKPOINT: Final = line(type="session", data={"session": session(1)})
END: Final = line(type="done", data={"session": session(2)})
FAILS: Final = line(type="error", code="model-failed", error="It failed.")


@pytest.mark.parametrize(
    ("answer", "how", "code", "sessions"),
    [
        ([SAYS_NEW], {"status": 409}, "session-ended", [NEW]),
        ([SAYS_NEW], {"status": 500}, "session-ended", []),
        ([SAYS_NEW], {"status": 503}, "session-ended", []),
        ([problem(data={"session": session(3)})], {"status": 500}, "session-ended", []),
        ([SAYS_NEW[:-2]], {"status": 409}, "http-409", []),
        ([SAYS_NEW], {"status": 409, "broken": True}, "http-409", []),
        ([b"<html>"], {"status": 502}, "http-502", []),
        ([problem(data={"session": session(3)})], {"status": 409}, "session-ended", [session(3)]),
        ([CHECKPOINT, TEXT], {"broken": True}, "broken-off", [session(1)]),
        ([CHECKPOINT, TEXT], {}, "no-end", [session(1)]),
        ([CHECKPOINT, TEXT, b"{"], {}, "no-end", [session(1)]),
        ([TEXT, b"<p>\n", CHECKPOINT], {}, "not-json", []),
        ([TEXT, FAILS, CHECKPOINT, END], {}, "model-failed", [session(1), session(2)]),
        ([TEXT, CHECKPOINT, END], {"broken": True}, "", [session(1), session(2)]),
        ([TEXT, END, FAILS], {}, "", [session(2)]),
        ([TEXT, END, b"<p>\n"], {}, "", [session(2)]),
        ([TEXT, CHECKPOINT], {"stopAfter": 2}, "stopped", [session(1)]),
        ([TEXT, CHECKPOINT, END], {"stopAfter": 3}, "", [session(1), session(2)]),
        ([], {}, "no-end", []),
    ],
)
def test_each_session_is_handed_on_as_it_comes_and_only_a_refusal_can_drop_it(
    ask: Ask, answer: list[bytes], how: dict[str, Any], code: str, sessions: list[Any]
) -> None:
    told = exchanged(ask, *answer, **how)
    assert (told["outcome"]["code"], told["sessions"]) == (code, sessions)
    assert told["outcome"].get("envelope") == (sessions[-1] if sessions else None)


def test_what_cannot_be_read_ends_the_turn(ask: Ask) -> None:
    """The rest of the stream is not waited for."""
    assert exchanged(ask, TEXT, b"<p>\n", TEXT, TEXT)["isCancelled"]


SLOW: Final = ("part.value.split(", "(begun + part.value).split(", "[begun + first", "[first")


def test_the_page_reads_a_long_line_in_time_that_grows_with_it(ask: Ask, folder: Path, tmp_path: Path) -> None:
    """The control joins and searches the whole line again for every part of it."""
    slow: Path = shutil.copytree(folder, tmp_path / "slow")
    text = (slow / "exchange.js").read_text()
    (slow / "exchange.js").write_text(text.replace(*SLOW[:2]).replace(*SLOW[2:]))

    def cpu_us(module: Path) -> int:
        told = [ask({"parts": LONG, "from": module.as_uri()}) for _ in range(2)]
        assert [one["outcome"]["isAnswered"] for one in told] == [True] * 2
        found: int = min(one["cpu_us"] for one in told)
        return found

    assert 2 * cpu_us(folder) < cpu_us(slow)
