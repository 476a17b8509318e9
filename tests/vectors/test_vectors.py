"""The frozen vectors: dcaf and a second opener in another language agree on every one, and no release edits one."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
import pytest

from dcaf.core import Key, Keyring, SessionError
from dcaf.core.base64url import Payload, decode
from dcaf.core.claims import Claims, Lifetime
from dcaf.core.encryption import EncryptedSuite
from dcaf.core.migrations import Migrations
from dcaf.core.payload import INDEXED_BYTES
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Suite
from tests.vectors.make_vectors import CLIENTS, FOLDER, files

Vector: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]

FROZEN: Final = {
    "signed.json": "b5bf19ba78b3b897186d70653f39f03b19b13d4386f1c516635c60c4789d174a",
    "encrypted.json": "56485e20aae87b413c9c9fd18ecc3f00ea86e49a59362cb4d0a26ebdccee4897",
    "refused.json": "fceb8f0d697c87df97cae4f041cb640ab8a4236778d6d1a8c97db0a331ef02f7",
    "hostile.json": "d5e98cce90f03a3de86834fc15b28da246c75823ed1b268d84a45bf2151c768b",
    "indexed.json": "51fb78b2b076848e4efa8112bb4d5576ce776890739dfe887a8d749cd7585ff2",
}
"""SHA-256 of each file. A release may add vectors in another file; whoever changes one of these breaks every other client."""

OPENER: Final = Path(__file__).with_name("open.mjs")


def vectors(name: str) -> list[Vector]:
    """The vectors of one file."""
    found: list[Vector] = json.loads((FOLDER / name).read_bytes())["vectors"]
    return found


def ring(vector: Vector) -> Keyring:
    """The keys of a vector's service."""
    keys = [Key.parse(text) for text in vector["keys"]]
    revoked = vector.get("revoked", ())
    return Keyring(*(Key.from_bytes(key.kid, key.secret, revoked=key.kid in revoked) for key in keys))


def sealer(vector: Vector, *, times: list[int] | None = None, sid: str = "") -> Sealer:
    """The service of a vector; ``times`` and ``sid`` make its token again."""
    suites: dict[str, Suite] = {"dcaf1s": SIGNED, "dcaf1e": EncryptedSuite(lambda _: decode(vector["nonce"]))}
    pending = list(times or ())
    first, *others = (suites[name] for name in vector["suites"])
    return Sealer(
        keys=ring(vector),
        audience=vector["audience"],
        lifetime=Lifetime(vector["idle"], vector["absolute"]),
        max_token_bytes=max(vector.get("max_token_bytes", 256 * 1024), 1000),
        migrations=Migrations(vector["version"]),
        clock=lambda: (pending.pop(0) if len(pending) > 1 else pending[0]) if pending else vector["now"],
        randomness=lambda _: decode(sid),
        suite=first,
        also_accepted=others,
    )


def opened(vector: Vector) -> Answer:
    """What dcaf makes of a vector, in the words of the opener."""
    service = sealer(vector)
    # A service with so small a limit would not start; the check itself has no such floor.
    service._max_token_bytes = vector.get("max_token_bytes", service._max_token_bytes)
    member = orjson.loads(vector["envelope"]) if "envelope" in vector else {"dcaf": {"token": vector["token"]}}
    binding = service.binding(vector["subject"], vector["conversation"])
    try:
        seal = service.verify(member)
        session = service.accept(seal, binding)
    except SessionError as refusal:
        return {"name": vector["name"], "accepted": False, "code": refusal.code, "reason": refusal.reason}
    assert seal is not None
    assert service.claims_of(session) == Claims.read(seal.claims)
    state = seal.payload.data
    shown = {key: value for key, value in json.loads(state).items() if key != "dcaf"}
    assert repr(session.to_dict()) == repr(shown)
    return {"name": vector["name"], "accepted": True, "claims": seal.claims.decode(), "state": state.decode()}


def expected(vector: Vector) -> Answer:
    """What a vector says."""
    if "reason" in vector:
        return {"name": vector["name"], "accepted": False, "code": vector["code"], "reason": vector["reason"]}
    return {"name": vector["name"], "accepted": True, "claims": vector["claims"], "state": vector["state"]}


def opened_by_node(node: str, name: str) -> list[Answer]:
    """What the opener in Node.js makes of a file."""
    done = subprocess.run([node, str(OPENER), str(FOLDER / name)], capture_output=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", FROZEN)
def test_no_byte_of_a_frozen_file_has_changed(name: str) -> None:
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FROZEN[name]


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    assert files() == {name: (FOLDER / name).read_bytes() for name in FROZEN}


@pytest.mark.parametrize("name", FROZEN)
def test_every_vector_has_a_name_of_its_own(name: str) -> None:
    names = [vector["name"] for vector in vectors(name)]
    assert len(set(names)) == len(names) >= 20


@pytest.mark.parametrize("name", FROZEN)
def test_dcaf_opens_and_refuses_what_the_vectors_say(name: str) -> None:
    for vector in vectors(name):
        assert opened(vector) == expected(vector)


@pytest.mark.parametrize("name", FROZEN)
def test_an_opener_in_another_language_opens_and_refuses_what_the_vectors_say(node: str, name: str) -> None:
    assert opened_by_node(node, name) == [expected(vector) for vector in vectors(name)]


@pytest.mark.parametrize("name", ["signed.json", "encrypted.json", "indexed.json"])
def test_sealing_the_same_again_gives_the_same_token(name: str) -> None:
    for vector in vectors(name):
        key = ring(vector).find(vector["token"].split(".")[1])
        assert key is not None
        payload = Payload(vector["state"].encode())
        token = suite_of(vector).seal(key, vector["audience"], vector["claims"].encode(), payload)
        assert token == vector["token"].encode()


@pytest.mark.parametrize("name", ["signed.json", "encrypted.json"])
def test_a_whole_turn_at_the_same_time_gives_the_same_token(name: str) -> None:
    turns = [vector for vector in vectors(name) if can_be_a_turn(vector)]
    assert len(turns) >= 30
    for vector in turns:
        claims = Claims.read(vector["claims"].encode())
        key = ring(vector).find(vector["token"].split(".")[1])
        assert key is not None
        own = {
            **vector,
            "keys": [key.text()],
            "suites": [vector["token"].split(".")[0]],
            "idle": 7 * 86_400,
            "absolute": 30 * 86_400,
        }
        again = sealer(own, times=[claims.born, claims.iat], sid=claims.sid)
        session = again.start()
        session.update(orjson.loads(vector["state"]))
        envelope = again.seal(session, again.binding(vector["subject"], vector["conversation"]), sequence=claims.seq)
        assert orjson.loads(envelope)["dcaf"] == {"token": vector["token"], "expires_at": claims.exp}


def can_be_a_turn(vector: Vector) -> bool:
    """Whether an application could have made it today: no reserved claim, nothing of the library's own, orjson's spelling."""
    claims = Claims.read(vector["claims"].encode())
    today = claims.write() == vector["claims"].encode() and claims.ep is None and claims.sv != 0
    return (
        today
        and "dcaf" not in json.loads(vector["state"])
        and orjson.dumps(orjson.loads(vector["state"])).decode() == vector["state"]
        and (claims.ix is not None) == (len(vector["state"].encode()) > INDEXED_BYTES)
    )


def suite_of(vector: Vector) -> Suite:
    """The suite of a vector's token, with its nonce."""
    return SIGNED if vector["token"].startswith("dcaf1s.") else EncryptedSuite(lambda _: decode(vector["nonce"]))


def test_there_is_a_vector_for_every_reason_and_for_each_suite() -> None:
    found = {(vector["suites"][0], vector["reason"]) for vector in vectors("refused.json")}
    common = {"ascii", "length", "shape", "suite", "kid", "claims", "aud", "sub", "cid", "iat", "exp", "born", "version"}
    due = {(suite, reason) for suite in ("dcaf1s", "dcaf1e") for reason in common}
    assert due | {("dcaf1s", "mac"), ("dcaf1e", "tag"), ("dcaf1e", "base64")} <= found


def test_every_client_has_a_vector_that_keeps_claims_and_state() -> None:
    names = {vector["name"].partition(": ")[2] for vector in vectors("hostile.json")}
    assert set(CLIENTS) < names
    envelopes = [vector["envelope"] for vector in vectors("hostile.json")]
    assert len(set(envelopes)) >= len(envelopes) - 4


def spelled_anyhow(box: bytes) -> bytes | None:
    """Broken: whatever decodes is the one spelling."""
    try:
        return decode(box)
    except ValueError:
        return None


def test_an_opener_that_skips_a_check_is_caught_by_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def differing() -> set[str]:
        return {vector["reason"] for vector in vectors("refused.json") if opened(vector) != expected(vector)}

    assert differing() == set()
    monkeypatch.setattr("dcaf.core.signing.hmac.compare_digest", lambda _expected, _received: True)
    assert differing() == {"mac"}
    monkeypatch.undo()
    monkeypatch.setattr("dcaf.core.encryption._spelled_once", decode)
    with pytest.raises(ValueError, match=r"padding|base64|length"):
        differing()
    monkeypatch.undo()
    monkeypatch.setattr("dcaf.core.encryption._spelled_once", spelled_anyhow)
    assert differing() == {"base64"}
    monkeypatch.undo()
    monkeypatch.setattr("dcaf.core.sealer.check_times", lambda *_: None)
    assert differing() == {"iat", "exp", "born"}
