"""Tokens with the claims ``ep`` and ``at``, good and refused, and claims as no service writes them; of both suites."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.vectors.about import TOKENS_AND_STORES
from tests.vectors.make_vectors import ABOUT, ALPHABET, LARGEST, NOW, SUITES, Refusals, Sealed, Vector, accepted, compact, write_mac

GOOD_PLACES: Final = ("server", "a", "elsewhere", "abcdefghijklmnop")
NO_PLACES: Final[tuple[tuple[str, Any], ...]] = (
    ("empty", ""),
    ("of 17 letters", "a" * 17),
    ("with a capital", "Server"),
    ("with a digit", "server2"),
    ("with a hyphen", "a-b"),
    ("with a space", "server "),
    ("with a line feed", "server\n"),
    ("with a NUL", "server\0"),
    ("with a letter beyond ASCII", "sérver"),
    ("with a letter that looks like one", "server".replace("e", "\u0435")),
    ("null", None),
    ("true", True),
    ("a number", 1),
    ("a list", ["server"]),
    ("an object", {"server": 1}),
)


def good(suite: str) -> Iterator[Vector]:
    """Claims that are good, whoever knows their place."""

    def of(name: str, state: str = "{}", *, order: tuple[str, ...] = (), **claims: Any) -> Vector:
        return accepted(Sealed(f"{suite}: {name}", suite, **claims), state, order=order)

    yield of("an epoch", '{"wizard_step":2}', ep=1_788_000_000_000)
    yield of("the epoch 0", ep=0)
    yield of("the last epoch", ep=LARGEST)
    for place in GOOD_PLACES:
        yield of(f"kept at {place}", at=place, seq=7)
    yield of("a state beside a place", '{"wizard_step":2}', at="server")
    every = Sealed(f"{suite}: every claim", suite, subject="ada", conversation="t-7", sv=3, ep=1, at="server", ix=[])
    yield accepted(every, "{}", version=3)
    yield of("in another order", order=("at", "ep", "aud"), ep=1, at="server")
    twice = Sealed(f"{suite}: a place that is said twice, of which the last counts", suite, at="server")
    claims = compact(twice.claims).replace('"at"', '"at":"","at"')
    yield {**accepted(twice, "{}"), "token": twice.token("{}", claims.encode()), "claims": claims}


def spelled(suite: str) -> Iterator[Vector]:
    """Claims as no service writes them, which every reader takes: whoever sealed them has the key."""

    def of(name: str, change: tuple[str, str] = ("", ""), **claims: Any) -> Vector:
        sealed = Sealed(f"{suite}: {name}", suite, **claims)
        text = compact(sealed.claims).replace(*change) if change[0] else compact(sealed.claims)
        return {**accepted(sealed), "token": sealed.token(claims=text.encode()), "claims": text}

    yield of("claims with white space", (",", " ,\t"))
    yield of("the number -0", ('"seq":1', '"seq":-0'))
    yield of("the number 0", seq=0)
    yield of("born after it was sealed", born=NOW + 9_999)
    yield of("over before it was sealed", iat=NOW + 50, exp=NOW - 10)
    if suite == "dcaf1s":
        yield _respelled("claims", 2)
        yield _respelled("state", 3)


def _respelled(segment: str, at: int) -> Vector:
    """A signed token in which a segment ends with bits that are of no byte, under a right mac."""
    made = (Sealed(f"dcaf1s: {segment} that end in bits of no byte", "dcaf1s", seq=10**digits) for digits in range(3))
    sealed = next(one for one in made if len(one.token().split(".")[at]) % 4 == 3)
    parts = sealed.token().split(".")[:4]
    parts[at] = parts[at][:-1] + ALPHABET[ALPHABET.index(parts[at][-1]) + 1]
    body = ".".join(parts)
    return {**accepted(sealed), "token": f"{body}.{write_mac(body)}"}


def bad(found: Refusals, suite: str) -> None:
    """Claims that are none."""
    for said, value in NO_PLACES:
        sealed = Sealed(
            f"{suite}: a place that is {said}" if not said.startswith("with") else f"{suite}: a place {said}", suite, at=value
        )
        found.add("claims", sealed, sealed.token("{}"))
    for said, value in (("negative", -1), ("2**53", 2**53), ("a string", "1"), ("null", None), ("true", True), ("a list", [1])):
        sealed = Sealed(f"{suite}: an epoch that is {said}", suite, ep=value)
        found.add("claims", sealed, sealed.token())
    for text in ("1.0", "1e3"):
        sealed = Sealed(f"{suite}: an epoch that is {text}", suite, ep=1)
        found.add("claims", sealed, sealed.token(claims=compact(sealed.claims).replace('"ep":1', f'"ep":{text}').encode()))
    for name in ("AT", "EP", "place"):
        found.add("claims", Sealed(f"{suite}: a claim {name}", suite, **_claim(name)))


def _claim(name: str) -> dict[str, Any]:
    return {name: "server"}


def without_store(found: Refusals, suite: str) -> None:
    """Good claims, at a service that keeps nothing; and that what is wrong with them otherwise is said first."""

    def of(name: str, **claims: Any) -> Sealed:
        return Sealed(f"{suite}: {name}, and no store", suite, **claims)

    for sealed in (of("an epoch", ep=7), of("kept at the server", at="server"), of("kept elsewhere", at="elsewhere", ep=7)):
        found.add("store", sealed, sealed.token("{}"), "session-unavailable", store=None)
    found.add("claims", of("a place that is none", at="Server"), store=None)
    found.add("sub", of("of somebody else", at="server", subject="eve"), subject="ada", store=None)
    over = {"born": 0, "iat": 1, "exp": 2}
    found.add("exp", of("over", at="server", **over), code="session-ended", store=None)
    found.add("version", of("of an unknown schema", at="server", sv=9), code="session-ended", store=None)


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    found = Refusals()
    for suite in SUITES:
        bad(found, suite)
        without_store(found, suite)
    vectors = [*good("dcaf1s"), *good("dcaf1e"), *spelled("dcaf1s"), *spelled("dcaf1e"), *found.vectors]
    lines = ",\n".join(json.dumps(vector) for vector in vectors)
    return {
        "claims.json": f'{{\n"about": {json.dumps(ABOUT | TOKENS_AND_STORES, indent=1)},\n"vectors": [\n{lines}\n]\n}}\n'.encode()
    }
