"""States that a store gives: where they are kept from then on, and tokens of another place."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import PLACES
from tests.vectors.make_store_vectors import CARRIED, KEPT, RETRY, UNAVAILABLE, of, refused
from tests.vectors.making import STATE, came, written
from tests.vectors.play import Vector

HERE: Final[dict[str, Any]] = {"place": "server", "state": KEPT, "revision": 5}
NOWHERE: Final[dict[str, Any]] = {"state": KEPT, "revision": 5}
READ: Final = f'{{"data":{{"session":{KEPT}}}}}'
STEP: Final = ["set", "wizard_step", 3]
CHANGED: Final = KEPT.replace("2", "3", 1)


def places() -> list[Vector]:
    """Exchanges with a store that gives a state."""
    kept = came("{}", at="server", seq=5)
    there = {"application": READ, "reads": KEPT}
    return [
        of("kept here", CARRIED, token=kept, service={"store": HERE}, states=["{}"], **there),
        of("kept here, and changed", CARRIED, STEP, token=kept, service={"store": HERE}, states=["{}"], **there),
        of(
            "kept here, at an older number",
            CARRIED,
            token=came("{}", at="server", seq=4),
            service={"store": HERE},
            states=["{}"],
            **there,
        ),
        refused(
            "kept at another place",
            UNAVAILABLE,
            "session-unavailable",
            503,
            token=came("{}", at="elsewhere", seq=5),
            service={"store": HERE},
            out=[RETRY],
        ),
        of("put into the token again", CARRIED, token=kept, service={"store": NOWHERE}, states=[KEPT], **there),
        of(
            "put into the token again, and changed",
            CARRIED,
            STEP,
            token=kept,
            service={"store": NOWHERE},
            states=[CHANGED],
            **there,
        ),
        of("the token has it already", CARRIED, token=came(KEPT, seq=5), service={"store": NOWHERE}, states=[KEPT], **there),
        of(
            "an encrypted token has it already, and nothing is mirrored",
            CARRIED,
            application='{"data":{"session":{}}}',
            reads=STATE,
            token=came(suite="dcaf1e", seq=5),
            service={"encrypt": True, "store": {"state": STATE, "revision": 5}},
            states=[STATE],
        ),
    ]


def files() -> dict[str, bytes]:
    """The file of these vectors."""
    return {"places.json": written(PLACES, places())}
