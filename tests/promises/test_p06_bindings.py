"""P6: a token is accepted by every process of its own service for its own holder, and by nobody else."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, product
from typing import NamedTuple

import orjson
import pytest

from dcaf.core.claims import Binding, Claims
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.errors import SessionInvalid
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED, Suite

NOW = 1_789_000_000
SUITES: dict[str, Suite] = {"signed": SIGNED, "encrypted": ENCRYPTED}
SECRETS = [random.Random(f"P6 {number}").randbytes(32) for number in range(2)]
# One id with two secrets, and one secret with two ids: each differs from the first in one of the two.
RINGS = [Keyring(Key.from_bytes(kid, SECRETS[number])) for kid, number in (("k7", 0), ("k7", 1), ("k8", 0))]
AUDIENCES = ("shop", "shop2", "Shop")
# Subjects and conversations have values in common, and one of each is the absence of any.
SUBJECTS = ("ann", "bob", "t1", None)
CONVERSATIONS = ("t1", "ann", "t1bob", None)
APPS = range(3)


class Context(NamedTuple):
    """Where a token is sealed or opened: by which keys, for which service, holder and conversation."""

    ring: int
    audience: str
    subject: str | None
    conversation: str | None


CONTEXTS = [Context(*each) for each in product(range(len(RINGS)), AUDIENCES, SUBJECTS, CONVERSATIONS)]


class Place(NamedTuple):
    """A context in one of three processes that are built alike."""

    app: int
    context: Context


PLACES = [Place(app, context) for app, context in product(APPS, CONTEXTS)]
Pair = tuple[Place, Place]


class Matrix:
    """A token sealed at every place that is asked for, and who accepts it where."""

    def __init__(self, suite: Suite, binding: type[Binding] = Binding) -> None:
        self._binding = binding
        self._sealers = {
            (app, ring, audience): Sealer(keys=RINGS[ring], audience=audience, clock=lambda: NOW, suite=suite)
            for app, ring, audience in product(APPS, range(len(RINGS)), AUDIENCES)
        }
        self._members: dict[Place, object] = {}

    def _sealed(self, place: Place) -> object:
        sealer = self._sealer(place)
        session = sealer.start()
        session["step"] = 2
        return orjson.loads(sealer.seal(session, self._bound(place), sequence=1))

    def _sealer(self, place: Place) -> Sealer:
        return self._sealers[place.app, place.context.ring, place.context.audience]

    def _bound(self, place: Place) -> Binding:
        context = place.context
        return self._binding(context.audience, context.subject, context.conversation)

    def accepts(self, pair: Pair) -> bool:
        """Whether what was sealed at one place is accepted at the other."""
        sealed, opening = pair
        if sealed not in self._members:
            self._members[sealed] = self._sealed(sealed)
        try:
            self._sealer(opening).open(self._members[sealed], self._bound(opening))  # type: ignore[arg-type]
        except SessionInvalid:
            return False
        return True

    def mistakes(self, pairs: Iterable[Pair]) -> tuple[int, int]:
        """How many of these pairs were accepted and should not be, and refused and should not be."""
        wrong = [pair for pair in pairs if self.accepts(pair) != (pair[0].context == pair[1].context)]
        accepted = sum(sealed.context != opening.context for sealed, opening in wrong)
        return accepted, len(wrong) - accepted


def near() -> Iterator[tuple[Context, Context]]:
    """Every pair that differs in nothing, in the keys alone, in the audience alone, or in the subject and the conversation."""
    for one, other in product(CONTEXTS, CONTEXTS):
        if (one.ring != other.ring) + (one.audience != other.audience) + (one[2:] != other[2:]) < 2:
            yield one, other


def spread() -> Iterator[Pair]:
    """Each of them: where nothing differs from every process to every process, else from one to one, in turn."""
    turns = cycle(product(APPS, APPS))
    for one, other in near():
        for app, other_app in product(APPS, APPS) if one == other else (next(turns),):
            yield Place(app, one), Place(other_app, other)


def pairs_of(scale: float) -> list[Pair]:
    """All ordered pairs of places; below full scale that part of them, and all that are near."""
    if scale >= 1:
        return list(product(PLACES, PLACES))
    source, number = random.Random(6), int(len(PLACES) ** 2 * scale)
    return [*spread(), *((source.choice(PLACES), source.choice(PLACES)) for _ in range(number))]


def in_one_app() -> list[Pair]:
    """Those that are near, in one process: enough to catch a broken variant."""
    return [(Place(0, one), Place(0, other)) for one, other in near()]


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", SUITES)
def test_only_the_diagonal_is_accepted(name: str, scale: float, measured: Callable[[int, str], None]) -> None:
    pairs = pairs_of(scale)
    diagonal = sum(sealed.context == opening.context for sealed, opening in pairs)
    accepted, refused = Matrix(SUITES[name]).mistakes(pairs)
    measured(
        6,
        f"{name}: {accepted} of {len(pairs) - diagonal:,} pairs of contexts that differ accepted, "
        f"{diagonal - refused:,} of {diagonal:,} equal ones accepted",
    )
    assert (accepted, refused) == (0, 0)


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("without", [(None, "t1"), ("ann", None), (None, None)])
def test_a_binding_present_on_one_side_alone_is_refused_both_ways(name: str, without: tuple[str | None, str | None]) -> None:
    matrix, bound = Matrix(SUITES[name]), Place(0, Context(0, "shop", "ann", "t1"))
    unbound = Place(0, Context(0, "shop", *without))
    assert matrix.accepts((bound, bound))
    assert matrix.accepts((unbound, unbound))
    assert not matrix.accepts((bound, unbound))
    assert not matrix.accepts((unbound, bound))


class ForgetsTheSubject(Binding):
    """Broken: whoever holds a token is its subject."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        super().check(claims._replace(sub=self.digests(suite, key)[0]), suite, key)


class ForgetsTheConversation(Binding):
    """Broken: a token serves every conversation of its holder."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        super().check(claims._replace(cid=self.digests(suite, key)[1]), suite, key)


class ChecksWhatIsThere(Binding):
    """Broken: a claim that is absent fits everybody."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        subject, conversation = self.digests(suite, key)
        super().check(claims._replace(sub=claims.sub or subject, cid=claims.cid or conversation), suite, key)


class ChecksWhatIsExpected(Binding):
    """Broken: who expects nobody accepts everybody."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        expected = claims._replace(sub=self.subject and claims.sub, cid=self.conversation and claims.cid)
        super().check(expected, suite, key)


class ForgetsTheRole(Binding):
    """Broken: a subject and a conversation of one name have one digest, and either serves as the other."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        if {claims.sub, claims.cid} != set(self.digests(suite, key)):
            raise SessionInvalid(reason="sub")

    def digests(self, suite: str, key: Key) -> tuple[str | None, str | None]:
        alike = super().digests(suite, key)[0], Binding(self.audience, self.conversation).digests(suite, key)[0]
        return alike[0], alike[1]


class ForgetsTheAudience(Binding):
    """Broken, together with a key that serves every audience: see the control below."""

    def check(self, claims: Claims, suite: str, key: Key) -> None:
        super().check(claims._replace(aud=self.audience), suite, key)


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize(
    "broken", [ForgetsTheSubject, ForgetsTheConversation, ChecksWhatIsThere, ChecksWhatIsExpected, ForgetsTheRole]
)
def test_control_one_binding_dropped_is_caught(name: str, broken: type[Binding]) -> None:
    accepted, refused = Matrix(SUITES[name], broken).mistakes(in_one_app())
    assert accepted > 0
    assert refused == 0


def derives_for_any_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    derive = Key.derive
    monkeypatch.setattr(Key, "derive", lambda key, suite, _audience, role: derive(key, suite, "any", role))
    monkeypatch.setattr("dcaf.core.encryption._bound_to", lambda kid, _audience: kid.encode())


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", SUITES)
def test_control_an_audience_is_bound_twice_and_only_both_dropped_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = in_one_app()
    assert Matrix(SUITES[name], ForgetsTheAudience).mistakes(pairs) == (0, 0)
    derives_for_any_audience(monkeypatch)
    assert Matrix(SUITES[name]).mistakes(pairs) == (0, 0)
    accepted, _ = Matrix(SUITES[name], ForgetsTheAudience).mistakes(pairs)
    assert accepted > 0


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", SUITES)
def test_control_a_key_whose_secret_plays_no_part_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    derive, first = Key.derive, RINGS[0].active
    monkeypatch.setattr(Key, "derive", lambda _key, suite, audience, role: derive(first, suite, audience, role))
    accepted, _ = Matrix(SUITES[name]).mistakes(in_one_app())
    assert accepted > 0
