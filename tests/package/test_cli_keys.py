"""`dcaf keys rotate` and `dcaf inspect`, as an operator calls them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dcaf import Key, Keyring
from dcaf.testing import sealed, tampered

DCAF = str(Path(sys.executable).with_name("dcaf"))
KEY = Key.generate("k7")
RING = Keyring(KEY)


def run(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DCAF, *arguments], input=given, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False
    )


def steps(printed: str) -> list[Keyring]:
    """The rings of the steps, as a worker would read them."""
    found = re.findall(r"^DCAF_KEYS=(.*)\nDCAF_KEYS_VERIFY=(.*)$", printed, re.MULTILINE)
    return [Keyring.from_environment({"DCAF_KEYS": active, "DCAF_KEYS_VERIFY": others}) for active, others in found]


def test_rotate_prints_three_rings_of_which_each_accepts_what_the_one_before_sealed() -> None:
    rings = [RING, *steps(run("keys", "rotate", DCAF_KEYS=KEY.text()).stdout)]
    assert len(rings) == 4
    for before, after in itertools.pairwise(rings[:3]):
        assert after.find(before.active.kid) is not None
    for before, after in itertools.pairwise(rings[1:]):
        assert before.find(after.active.kid) is not None
    assert rings[1].active.kid == "k7"
    assert rings[3].find("k7") is None


def test_rotate_keeps_the_older_keys_until_the_last_step() -> None:
    older = Key.generate("k6")
    rings = steps(run("keys", "rotate", DCAF_KEYS=KEY.text(), DCAF_KEYS_VERIFY=older.text()).stdout)
    assert [ring.find("k6") is not None for ring in rings] == [True, True, False]


def test_rotate_without_a_key_says_how_to_make_one() -> None:
    done = run("keys", "rotate")
    assert (done.returncode, done.stdout) == (2, "")
    assert "dcaf keys new" in done.stderr


ENVELOPE = sealed({"n": 1, "card": "4111"}, keys=RING, audience="shop", subject="ada")


def inspected(member: Any, *arguments: str, key: Key | None = KEY) -> subprocess.CompletedProcess[str]:
    environment = {} if key is None else {"DCAF_KEYS": key.text()}
    return run("inspect", *arguments, given=member if isinstance(member, str) else json.dumps(member), **environment)


def test_without_a_key_the_claims_are_shown_as_unverified() -> None:
    done = inspected(ENVELOPE, key=None)
    assert done.returncode == 0
    assert '"aud": "shop"' in done.stdout
    assert "Not verified: anybody could have written this." in done.stdout


def test_with_the_key_a_good_session_is_verified_and_its_values_are_not_shown() -> None:
    for given in (ENVELOPE, ENVELOPE["dcaf"]["token"]):
        done = inspected(given, "--audience", "shop", "--subject", "ada")
        assert (done.returncode, "Verified. The state has 2 keys: card, n." in done.stdout) == (0, True)
        assert "4111" not in done.stdout


@pytest.mark.parametrize(
    ("member", "arguments", "because"),
    [
        (tampered(ENVELOPE), ["--audience", "shop", "--subject", "ada"], "the token was changed, or sealed by another key"),
        (ENVELOPE, ["--audience", "billing", "--subject", "ada"], "or for another audience"),
        (ENVELOPE, ["--audience", "shop", "--subject", "bob"], "it is bound to another subject"),
        (ENVELOPE, ["--audience", "shop"], "or to none where one is"),
        ({"n": 1}, ["--audience", "shop"], "nobody has sealed it"),
        ("dcaf1s.cut", ["--audience", "shop"], "has not the shape"),
        (sealed({}, keys=Keyring(Key.generate("k9")), audience="shop"), ["--audience", "shop"], "no key of the ring has the id"),
        (sealed({}, keys=RING, audience="shop", age=timedelta(days=8)), ["--audience", "shop"], "longer than the idle timeout"),
    ],
)
def test_a_refusal_is_explained_to_the_operator(member: Any, arguments: list[str], because: str) -> None:
    done = inspected(member, *arguments)
    assert done.returncode == 1
    assert because in done.stdout


def test_an_encrypted_session_shows_nothing_without_its_key() -> None:
    secret = sealed({"card": "4111"}, keys=RING, audience="shop", encrypt=True)
    assert "cannot be read without a key" in inspected(secret, key=None).stdout
    assert "Verified. The state has 1 keys: card." in inspected(secret, "--audience", "shop").stdout


def test_what_is_neither_a_token_nor_json_is_said() -> None:
    assert "neither a token nor a JSON object" in inspected("{nonsense").stderr
    assert "pass --audience" in inspected(ENVELOPE).stderr
