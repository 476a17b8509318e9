"""P20: two processes have a turn of one kept session open at once: one is kept, or both where they merge; no history is mixed.

Each turn changes a key that both change, one of its own, and a counter, and adds four messages. Beside them a third one appends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

import pytest

from dcaf.core.errors import StaleSessionError
from dcaf.service import Message, ServiceTurn, SessionService
from tests.promises.broken_services import MakeService, make_by_halves, make_forgetful, make_merging, make_service, make_unchecked
from tests.promises.ledgers import Worker, at_once, workers
from tests.promises.places import ENGINES, Place

ROUNDS, FEWEST = 1_000, 10
NAMES: Final = ("a", "b")
BESIDE: Final = "beside"
PARTS: Final = 4
"""Messages of a turn."""
KEYS: Final = 20
"""So many keys a writer has to itself, which it changes one after the other."""

OF_SESSION: Final[dict[str, Any]] = {"user": "ada", "id": "visit"}


class Writer:
    """Who writes in this process.

    Args:
        service: Its service.
        name: Its name.
    """

    def __init__(self, service: SessionService, name: str) -> None:
        self.service, self.name = service, name
        self._turn: ServiceTurn | None = None

    def begin(self, number: int) -> None:
        """Open a turn and do what is to be done in it."""
        self._turn = self.service.sync.open(**OF_SESSION, last=PARTS)
        session = self._turn.__enter__()
        session["last"], session[f"{self.name}.{number % KEYS}"] = self.name, number
        session.incr("count")
        session.user[self.name] = number
        for part in range(PARTS):
            session.messages.add("user", f"{self.name} {number} {part}")

    def commit(self) -> bool:
        """End the turn; False where another one came first."""
        assert self._turn is not None
        try:
            self._turn.__exit__(None, None, None)
        except StaleSessionError:
            return False
        return True


WRITERS: Final[list[Writer]] = []
"""That of a process that was told to be one."""


def be_writer(place: Place, make: MakeService, name: str) -> None:
    WRITERS[:] = [Writer(make(place), name)]


def begin(number: int) -> None:
    WRITERS[0].begin(number)


def commit() -> bool:
    return WRITERS[0].commit()


@dataclass
class Played:
    """What came of all rounds.

    Attributes:
        kept: The turns that were acknowledged, in each round.
        beside: How often somebody appended beside them.
        lost: What was acknowledged of these and is not there in the end.
        mixed: How many turns have their messages not side by side.
        took_s: How long it took.
    """

    kept: list[list[str]] = field(default_factory=list)
    beside: int = 0
    lost: list[object] = field(default_factory=list)
    mixed: int = 0
    took_s: float = 0.0


def play(place: Place, make: MakeService, number: int) -> Played:
    """Play so many rounds: two turns are begun, and then both committed, while another one appends."""
    played, began = Played(), time.monotonic()
    service = make_service(place)
    try:
        service.sync.create(**OF_SESSION)
        with workers(len(NAMES)) as found:
            at_once(found, be_writer, *((place, make, name) for name in NAMES))
            for at in range(number):
                at_once(found, begin, *[(at,)] * len(NAMES))
                played.kept.append(commit_together(found, service, at))
                played.beside += 1
        played.took_s = time.monotonic() - began
        find_faults(service, played)
    finally:
        service.engine.sync.close()
    return played


def commit_together(writers: Sequence[Worker], service: SessionService, at: int) -> list[str]:
    """The names of those whose turn was acknowledged."""
    for writer in writers:
        writer.ask(commit)
    service.sync.append(**OF_SESSION, messages=[("user", f"{BESIDE} {at} {part}") for part in range(PARTS)])
    return [name for name, writer in zip(NAMES, writers, strict=True) if writer.answer()]


def find_faults(service: SessionService, played: Played) -> None:
    """Look at what is there after all rounds."""
    found, history = service.sync.get(**OF_SESSION), list(read_history(service))
    assert found is not None
    turns = [(name, at) for at, names in enumerate(played.kept) for name in names]
    last = {f"{name}.{at % KEYS}": at for name, at in turns}
    last |= {f"user:{name}": at for name, at in turns}
    expected = {**last, "count": len(turns)}
    played.lost += [key for key, value in expected.items() if found.get(key) != value]
    played.lost += ["last"] * (found["last"] not in played.kept[-1])
    played.lost += ["revision"] * (found.revision != len(turns) + 1)
    wanted = {f"{name} {at}" for name, at in [*turns, *((BESIDE, at) for at in range(played.beside))]}
    played.lost += wanted - set(map(find_author, history))
    played.mixed = len(wanted - set(find_whole(history)) - set(played.lost))
    played.lost += ["more messages than were acknowledged"] * (len(history) != PARTS * len(wanted))


def read_history(service: SessionService) -> Iterator[str]:
    """What each message says, oldest first."""
    after: int | None = 0
    while after is not None:
        page = service.sync.messages(**OF_SESSION, limit=1_000, after=after)
        yield from map(say, page.items)
        after = page.items[-1].number if page.items else None


def say(message: Message) -> str:
    assert isinstance(message.content, str)
    return message.content


def find_whole(history: Sequence[str]) -> list[str]:
    """The turns that have all their messages side by side and in order."""
    blocks = ((turn, list(messages)) for turn, messages in groupby(history, find_author))
    return [turn for turn, messages in blocks if messages == [f"{turn} {part}" for part in range(PARTS)]]


def find_author(message: str) -> str:
    """The turn that a message is of: who wrote it, and in which round."""
    return message.rpartition(" ")[0]


@pytest.mark.promise(20)
def test_of_two_turns_that_are_open_at_once_one_is_kept(place: Place, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(ROUNDS * scale * place.part))
    played = play(place, make_service, number)
    wrong = sum(len(names) != 1 for names in played.kept)
    measured(
        20,
        f"{place.name}: in {number - wrong:,} of {number:,} rounds exactly one of two turns of a kept session that two processes "
        f"had open at once was committed; {len(played.lost)} changes lost, {played.mixed} turns mixed with others",
    )
    assert (wrong, played.lost, played.mixed) == (0, [], 0)


@pytest.mark.promise(20)
def test_of_two_turns_that_merge_both_are_kept(place: Place, scale: float, measured: Callable[[int, str], None]) -> None:
    number = max(FEWEST, int(ROUNDS * scale * place.part))
    played = play(place, make_merging, number)
    wrong = sum(len(names) != len(NAMES) for names in played.kept)
    measured(20, f"{place.name}: with on_busy=merge both in {number - wrong:,} of {number:,}; {len(played.lost)} changes lost")
    assert (wrong, played.lost, played.mixed) == (0, [], 0)


@pytest.mark.promise(20)
@pytest.mark.parametrize("place", ENGINES, indirect=True)
def test_control_a_commit_that_does_not_compare_the_revision_is_caught(place: Place) -> None:
    played = play(place, make_unchecked, FEWEST)
    assert any(len(names) > 1 for names in played.kept)
    assert played.lost


@pytest.mark.promise(20)
def test_control_a_merge_of_the_revision_alone_is_caught(file: Place) -> None:
    assert play(file, make_forgetful, FEWEST).lost


@pytest.mark.promise(20)
def test_control_messages_that_are_written_one_by_one_are_caught(file: Place) -> None:
    assert play(file, make_by_halves, 3 * FEWEST).mixed
