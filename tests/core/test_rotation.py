"""A ring that is read again while the service runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from dcaf import ConfigurationError, Key, Keyring
from dcaf.core.json_values import JSON
from dcaf.core.keys import LiveKeyring
from dcaf.core.sealer import Sealer
from dcaf.core.settings import build_keyring

OLD, NEW = Key.generate("old"), Key.generate("new")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_ring_is_taken_up_when_its_time_has_come_and_not_before() -> None:
    clock, rings = Clock(), [Keyring(OLD), Keyring(NEW, OLD)]
    live = LiveKeyring(lambda: rings[min(1, int(clock.now // 60))], clock=clock)
    for now, kid in ((0, "old"), (59, "old"), (60, "new"), (61, "new")):
        clock.now = now
        assert (live.active.kid, live.signer(now).kid) == (kid, kid)
    assert live.find("old") is OLD


def test_a_ring_is_read_once_in_its_time_whenever_the_clock_began() -> None:
    clock, reads = Clock(), []
    clock.now = 5_000

    def load() -> Keyring:
        reads.append(clock.now)
        return Keyring(OLD)

    live = LiveKeyring(load, clock=clock)
    for now in (5_001, 5_059, 5_060, 5_061, 5_119, 5_120):
        clock.now = now
        assert live.find("old") is OLD
    assert reads == [5_000, 5_060, 5_120]


def test_a_ring_that_cannot_be_read_keeps_the_one_before_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    def load() -> Keyring:
        if clock.now:
            raise OSError("secret path")
        return Keyring(OLD)

    live = LiveKeyring(load, clock=clock)
    clock.now = 100
    assert live.active is OLD
    assert caplog.messages == ["dcaf: the key ring could not be read again (OSError); the one before stays"]
    assert "secret path" not in caplog.text


def test_the_first_ring_must_be_one() -> None:
    with pytest.raises(ConfigurationError, match="must give a Keyring, not a str"):
        LiveKeyring(lambda: "dcafk1_x")  # type: ignore[arg-type, return-value]


def test_a_session_survives_a_rotation_by_file_and_ends_when_its_key_goes(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(f"# the active one first\n{OLD.text()}\n\n")
    live = build_keyring(path)
    assert isinstance(live, LiveKeyring)
    live._clock, live._read_at = clock, 0.0
    sealer = Sealer(keys=live, audience="shop")
    session = sealer.start()
    session["n"] = 1
    envelope: JSON = {"dcaf": {"token": token_of(sealer.seal(session, sealer.binding(), sequence=1))}}

    path.write_text(f"{NEW.text()}\n{OLD.text()}\n")
    clock.now = 100
    again = sealer.open(envelope, sealer.binding())
    assert again["n"] == 1
    assert token_of(sealer.seal(again, sealer.binding(), sequence=1)).split(".")[1] == "new"

    path.write_text(NEW.text())
    clock.now = 200
    assert sealer.open(envelope, sealer.binding())["n"] == 1, "it may be half a file"
    clock.now = 300
    with pytest.raises(Exception, match="not sealed by this service"):
        sealer.open(envelope, sealer.binding())


def while_it_is_written(path: Path, before: str, after: str) -> list[str]:
    """Which moments of a writing lost the older key, where the file is read once while it is written and once after it."""
    lost = []
    for written in range(len(after) + 1):
        clock = Clock()
        path.write_text(before)
        live = build_keyring(path)
        assert isinstance(live, LiveKeyring)
        live._clock, live._read_at = clock, 0.0
        for clock.now, text in ((60, after[:written]), (120, after)):
            path.write_text(text)
            lost += [f"{written} at {clock.now}"] * (live.find("old") is None)
    return lost


RING = f"# ours\n{NEW.text()}\n{OLD.text()}\n"
THIRD = Key.generate("third")


@pytest.mark.parametrize("after", [RING, f"{THIRD.text()}\n{RING}", RING.replace("ours", "theirs")])
def test_a_file_that_is_being_written_forgets_no_key_at_any_moment(tmp_path: Path, after: str) -> None:
    assert while_it_is_written(tmp_path / "keys", RING, after) == []


def test_control_a_ring_that_takes_each_reading_forgets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveKeyring, "_adopt", lambda self, ring: setattr(self, "_ring", ring))
    assert while_it_is_written(tmp_path / "keys", RING, RING) != []


def test_a_revoked_key_is_dropped_at_the_first_reading_and_a_missing_one_at_the_second(caplog: pytest.LogCaptureFixture) -> None:
    clock, given = Clock(), [Keyring(NEW, OLD)]
    live = LiveKeyring(lambda: given[0], clock=clock)
    given[0] = Keyring(NEW, Key.from_bytes("old", OLD.secret, revoked=True))
    clock.now = 60
    assert live.find("old") is None
    assert caplog.messages == []
    given[0] = Keyring(OLD)
    clock.now = 120
    assert live.active is NEW
    assert [message.partition(";")[0] for message in caplog.messages] == ["dcaf: the key ring that was read lacks keys"]
    given[0] = Keyring(Key.generate("other"), NEW)  # lacks another one
    clock.now = 180
    assert live.active is NEW
    clock.now = 240
    assert live.active.kid == "other"


KEYS = [Key.generate(f"k{at}") for at in range(9)]


def read_in_turn(*rings: Keyring) -> tuple[LiveKeyring, Callable[[], None]]:
    """A live ring over some rings, and what has it read the next one."""
    clock, given = Clock(), iter(rings)
    live = LiveKeyring(lambda: next(given), clock=clock)

    def read() -> None:
        clock.now += 60
        assert live.active.kid

    return live, read


def test_a_reading_that_adds_a_key_and_lacks_another_verifies_with_both_and_signs_as_before() -> None:
    live, read = read_in_turn(Keyring(NEW, OLD), Keyring(THIRD, NEW))
    read()
    assert (live.find("third"), live.find("old"), live.active, live.signer(0)) == (THIRD, OLD, NEW, NEW)


def test_a_reading_that_revokes_a_key_and_lacks_another_drops_the_revoked_one_at_once() -> None:
    revoked = Key.from_bytes("new", NEW.secret, revoked=True)
    live, read = read_in_turn(Keyring(NEW, OLD), Keyring(THIRD, revoked))
    read()
    assert (live.find("new"), live.find("old"), live.active) == (None, OLD, THIRD)


def test_a_key_that_was_revoked_stays_so_where_a_reading_lacks_another_one() -> None:
    live, read = read_in_turn(Keyring(NEW, Key.from_bytes("old", OLD.secret, revoked=True)), Keyring(OLD))
    read()
    assert (live.find("old"), live.active) == (None, NEW)


def test_a_key_that_a_reading_lacks_verifies_once_more_and_signs_no_more() -> None:
    live, read = read_in_turn(Keyring(OLD), Keyring(NEW))
    read()
    assert (live.active, live.signer(0), live.find("old")) == (NEW, NEW, OLD), "other processes have dropped it perhaps"


def test_an_id_with_another_secret_is_taken_up_also_where_a_reading_lacks_a_key() -> None:
    other = Key.generate("new")
    live, read = read_in_turn(Keyring(NEW, OLD), Keyring(other))
    read()
    assert (live.find("new"), live.active, live.find("old")) == (other, other, OLD)


def count_unknown(keep: int) -> int:
    """How often a process that reads a ring more seldom than keys leave it does not know the key that signs elsewhere."""
    rings = [Keyring(KEYS[at], *KEYS[max(0, at - keep) : at], KEYS[at + 1]) for at in range(len(KEYS) - 1)]
    live, read = read_in_turn(*rings)
    unknown = 0
    for ring in rings[1:]:
        read()
        unknown += live.find(ring.active.kid) is None
    return unknown


def test_keys_that_leave_the_ring_at_every_reading_never_hide_the_one_that_signs() -> None:
    assert count_unknown(keep=2) == 0


def test_a_key_goes_at_the_second_reading_also_where_each_reading_lacks_another_one() -> None:
    live, read = read_in_turn(*(Keyring(key, after) for key, after in pairwise(KEYS)))
    for _ in range(4):
        read()
    assert [key.kid for key in KEYS if live.find(key.kid)] == ["k3", "k4", "k5"]
    assert live.active is KEYS[4]


def keep_all_of_before(self: LiveKeyring, ring: Keyring) -> None:
    """Broken: a reading that lacks a key teaches nothing."""
    missed = frozenset(self._ring._keys.keys() - ring._keys.keys())
    self._ring, self._missed = (ring, frozenset[str]()) if missed <= self._missed else (self._ring, missed)


def test_control_a_ring_that_stays_as_it_was_does_not_know_the_key_that_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveKeyring, "_adopt", keep_all_of_before)
    assert count_unknown(keep=2) > 0


def test_a_live_ring_may_be_given_by_the_function_of_another_one() -> None:
    clock, inner = Clock(), LiveKeyring(lambda: Keyring(NEW, OLD))
    live = LiveKeyring(lambda: inner, clock=clock)
    clock.now = 60
    assert live.active is NEW


def token_of(envelope: bytes) -> str:
    return envelope.decode().split('"token":"')[1].split('"')[0]


def test_a_key_file_that_is_missing_or_empty_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"The key file .*absent cannot be read: No such file or directory\."):
        build_keyring(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.write_text("# nothing yet\n")
    with pytest.raises(ConfigurationError, match=r"has no key. Write one with `dcaf keys new > "):
        build_keyring(empty)


@pytest.mark.parametrize("text", ["changeme", f"{NEW.text()}\nchangeme"], ids=["first", "second"])
def test_a_line_of_a_key_file_that_is_no_key_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as told:
        build_keyring(path)
    assert str(told.value).startswith(f"What is in the key file {path} is not a dcaf key (")


def test_a_key_file_that_is_no_text_says_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(bytes(range(128, 160)))
    with pytest.raises(ConfigurationError, match=r"is no text\. It has one key a line"):
        build_keyring(path)


def test_a_repr_shows_ids_and_no_secret() -> None:
    assert repr(LiveKeyring(lambda: Keyring(OLD))) == "LiveKeyring(active='old', kids=['old'])"
    assert os.sep not in repr(LiveKeyring(lambda: Keyring(OLD)))
