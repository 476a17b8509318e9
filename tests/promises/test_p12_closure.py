"""P12: what a session accepts it can seal, and a JavaScript client that echoes it changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcaf import Key, Keyring
from dcaf.core.sealer import Sealer
from tests.promises.generate import states

ECHO = Path(__file__).with_name("echo.mjs")
BATCH = 500

Opener = Callable[[Any], Any]


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(keys=Keyring(Key.generate()), audience="shop", max_token_bytes=1024 * 1024)


def echoed(node: str, texts: list[bytes]) -> Iterator[Any]:
    """What a Node.js process makes of each text."""
    done = subprocess.run([node, str(ECHO)], input=b"\n".join(texts) + b"\n", capture_output=True, check=True, timeout=120)
    return (orjson.loads(line) for line in done.stdout.splitlines())


def changed(node: str, number: int, seal: Callable[[dict[str, Any]], bytes], open_: Opener) -> int:
    """How many of so many states come back from the client as something else."""
    found, batch = 0, []
    for state in states(12, number):
        batch.append(state)
        if len(batch) == BATCH:
            found += _differing(node, batch, seal, open_)
            batch = []
    return found + (_differing(node, batch, seal, open_) if batch else 0)


def _differing(node: str, batch: list[dict[str, Any]], seal: Callable[[dict[str, Any]], bytes], open_: Opener) -> int:
    returned = echoed(node, [seal(state) for state in batch])
    # repr tells 1 from 1.0 and 0.0 from -0.0, which equality does not
    return sum(repr(open_(envelope)) != repr(state) for state, envelope in zip(batch, returned, strict=True))


@pytest.mark.promise(12)
def test_a_javascript_client_that_echoes_a_session_changes_nothing(
    sealer: Sealer, node: str, scale: float, measured: Callable[[int, str], None]
) -> None:
    number = int(100_000 * scale)

    def seal(state: dict[str, Any]) -> bytes:
        session = sealer.start()
        session.update(state)
        return sealer.seal(session, sealer.binding(), sequence=1)

    def opened(envelope: Any) -> Any:
        return sealer.open(envelope, sealer.binding()).to_dict()

    found = changed(node, number, seal, opened)
    measured(12, f"{found} of {number:,} states changed by a JavaScript client")
    assert found == 0


STORABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def echo(node: str) -> Iterator[Callable[[bytes], Any]]:
    """One Node.js process for many texts."""
    with subprocess.Popen([node, str(ECHO)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        reader, writer = process.stdout, process.stdin
        assert reader is not None
        assert writer is not None

        def one(text: bytes) -> Any:
            writer.write(text + b"\n")
            writer.flush()
            return orjson.loads(reader.readline())

        yield one
        writer.close()


@given(value=STORABLE)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_storable_value_comes_back_through_seal_and_a_javascript_client(
    sealer: Sealer, echo: Callable[[bytes], Any], value: Any
) -> None:
    session = sealer.start()
    session.set("value", value)
    envelope = echo(sealer.seal(session, sealer.binding(), sequence=1))
    assert repr(sealer.open(envelope, sealer.binding())["value"]) == repr(value)


@pytest.mark.promise(12)
def test_the_readable_object_itself_does_not_survive_the_same_client(node: str) -> None:
    def carried_in_the_open(state: dict[str, Any]) -> bytes:
        return json.dumps(state).encode()

    assert changed(node, BATCH, carried_in_the_open, lambda envelope: envelope) > 0
