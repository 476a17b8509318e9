"""`dcaf keys rotate`, as an operator calls it."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

from dcaf import Key, Keyring

DCAF = str(Path(sys.executable).with_name("dcaf"))
KEY = Key.generate("k7")
RING = Keyring(KEY)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DCAF, *arguments], env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False
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
