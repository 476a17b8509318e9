"""The sealing core: open a token, change one small key, seal; dcaf, the floor, and nine other libraries, with the same states."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson
from joserfc.errors import JoseError

from dcaf import Key, Keyring, Session
from dcaf.core.encryption import ENCRYPTED
from dcaf.core.sealer import Sealer
from dcaf.core.signing import SIGNED
from tests.benchmarks import floors
from tests.benchmarks.harness import Effort, interleaved, of_function, written
from tests.benchmarks.others import OTHERS, SECRET, Sealing
from tests.benchmarks.states import SIZES, state_of

RING: Final = Keyring(Key.from_bytes("bench", SECRET))
AUDIENCE: Final = "benchmark"
MOST_BYTES: Final = 1 << 24
OPERATIONS: Final = ("one", "every")
SIGNED_NAME: Final = "dcaf, signed"
ENCRYPTED_NAME: Final = "dcaf, encrypted"
DCAF: Final = (SIGNED_NAME, ENCRYPTED_NAME)
TOUCH: Final = {SIGNED_NAME: "floor touch, signed", ENCRYPTED_NAME: "floor touch, encrypted"}
WHOLE: Final = {SIGNED_NAME: "floor whole, signed", ENCRYPTED_NAME: "floor whole, encrypted"}


def sealer(*, encrypt: bool, mirror: bool = False) -> Sealer:
    """A real one, as SessionMiddleware makes it, for tokens of any size."""
    return Sealer(keys=RING, audience=AUDIENCE, max_token_bytes=MOST_BYTES, mirror=mirror, suite=ENCRYPTED if encrypt else SIGNED)


def dcaf(name: str, *, encrypt: bool) -> Sealing:
    """dcaf's own Sealer, from ``data.session`` to ``data.session``."""
    own = sealer(encrypt=encrypt)

    def open_(token: str) -> Session:
        return own.open({"dcaf": {"token": token}}, own.binding())

    def one(token: str) -> bytes:
        session = open_(token)
        session["step"] += 1
        return own.seal(session, own.binding(), sequence=2)

    def every(token: str) -> bytes:
        session = open_(token)
        for key in session:
            session[key]
        session["step"] += 1
        return own.seal(session, own.binding(), sequence=2)

    return Sealing(
        name, lambda state: token_in(sealed(own, state)), lambda envelope: open_(token_in(envelope)).to_dict(), one, every
    )


def sealed(own: Sealer, state: dict[str, Any]) -> bytes:
    """The envelope of a new session."""
    session = own.start()
    session.update(state)
    return own.seal(session, own.binding(), sequence=1)


def token_in(envelope: bytes) -> str:
    """The token of an envelope; a token alone is one too."""
    return str(orjson.loads(envelope)["dcaf"]["token"]) if envelope.startswith(b"{") else envelope.decode()


def signed_floors() -> list[Sealing]:
    """The floors of the signed suite: what they make is a token that dcaf opens."""
    own = dcaf(SIGNED_NAME, encrypt=False)
    secret = RING.active.derive(SIGNED.prefix, AUDIENCE, "mac")
    return [
        Sealing(TOUCH[SIGNED_NAME], own.seal, own.opened, one=floors.signed(secret, floors.touch)),
        Sealing(WHOLE[SIGNED_NAME], own.seal, own.opened, every=floors.signed(secret, floors.whole)),
    ]


def encrypted_floors() -> list[Sealing]:
    """The floors of the encrypted suite: AES-256-GCM with one key, where dcaf derives one for each token."""
    seal, opened = partial(floors.box, SECRET), partial(floors.unboxed, SECRET)
    return [
        Sealing(TOUCH[ENCRYPTED_NAME], seal, opened, one=floors.boxed(SECRET, floors.touch)),
        Sealing(WHOLE[ENCRYPTED_NAME], seal, opened, every=floors.boxed(SECRET, floors.whole)),
    ]


def every_sealing() -> list[Sealing]:
    """All rows: dcaf, the floors, the others."""
    own = [dcaf(SIGNED_NAME, encrypt=False), dcaf(ENCRYPTED_NAME, encrypt=True)]
    return [*own, *signed_floors(), *encrypted_floors(), *(make() for make in OTHERS)]


def turn_of(sealing: Sealing, operation: str, state: dict[str, Any]) -> Callable[[], object] | None:
    """One turn of a state, to be repeated; None where the library refuses a token of that size."""
    turn = getattr(sealing, operation)
    try:
        token = sealing.seal(state)
        turn(token)
    except JoseError:
        return None
    return partial(turn, token)


def measured(effort: Effort) -> dict[str, Any]:
    """Operation -> size -> row -> what was measured."""
    sealings = every_sealing()
    return {operation: {size: _table(sealings, operation, size, effort) for size in SIZES} for operation in OPERATIONS}


def _table(sealings: list[Sealing], operation: str, size: str, effort: Effort) -> dict[str, Any]:
    state = state_of(SIZES[size])
    turns = {one.name: turn_of(one, operation, state) for one in sealings if getattr(one, operation) is not None}
    samples = interleaved({name: of_function(turn) for name, turn in turns.items() if turn is not None}, effort)
    return written({name: samples.get(name) for name in turns})
