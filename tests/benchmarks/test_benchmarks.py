"""The benchmark measures what it says: each subject does its work, and the documents say what the last run measured."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from starlette.responses import JSONResponse

from dcaf.testing import serving
from tests.benchmarks import harness, small
from tests.benchmarks.client import seen
from tests.benchmarks.memory import measured as memory_of
from tests.benchmarks.others import Sealing
from tests.benchmarks.pages import LEVELS, MEASURED, PAGE, README, in_levels, in_readme, pictures, rendered
from tests.benchmarks.sealing import every_sealing, turn_of
from tests.benchmarks.server import SAME_BYTES, request_of, turn_for
from tests.benchmarks.states import SIZES, state_of
from tests.benchmarks.streams import KINDS, stream_of
from tests.benchmarks.turns import SAID, Turn, Way
from tests.benchmarks.turns import turn_of as request_of_way
from tests.benchmarks.ways import DCAF, LEAN, WAYS, Bare, Cookie

STATE = state_of(200)
OTHER = state_of(200, seed=1)
WRITTEN: dict[str, dict[str, Any]] = {
    "write": {**STATE, "step": 4},
    "parsed": {**STATE, "step": 4},
    "append": {**STATE, "messages": [SAID]},
    "replace": OTHER,
}
"""Operation -> the state that its answer must carry."""
ONCE = harness.Effort(rounds=2, least_rounds=2, batch_s=0, table_s=0)


def name_of(subject: Any) -> str:
    return str(subject.name)


def answer_of(way: Way, operation: str) -> Any:
    return asyncio.run(request_of_way(way, operation, STATE, OTHER)())


@pytest.mark.parametrize("size", SIZES)
def test_a_state_is_as_large_as_it_is_called_and_the_same_each_time(size: str) -> None:
    length = len(json.dumps(state_of(SIZES[size]), separators=(",", ":"), ensure_ascii=False).encode())
    assert 0.85 < length / SIZES[size] <= 1.01
    assert state_of(SIZES[size]) == state_of(SIZES[size]) != state_of(SIZES[size], seed=1)


@pytest.mark.parametrize("sealing", every_sealing(), ids=name_of)
@pytest.mark.parametrize("operation", ["one", "every"])
def test_a_turn_of_the_core_writes_its_key_and_keeps_the_rest(sealing: Sealing, operation: str) -> None:
    if getattr(sealing, operation) is None:
        assert sealing.name.startswith("floor")
        return
    turn = turn_of(sealing, operation, STATE)
    assert turn is not None
    assert sealing.opened(turn()) == {**STATE, "step": 4}


def test_a_library_that_refuses_a_size_has_no_figure() -> None:
    refusing = next(sealing for sealing in every_sealing() if sealing.name.startswith("joserfc"))
    assert turn_of(refusing, "one", state_of(SIZES["128 KB"])) is None


@pytest.mark.parametrize("way", WAYS[1:], ids=name_of)
@pytest.mark.parametrize("operation", WRITTEN)
def test_a_written_session_is_in_the_answer(way: Way, operation: str) -> None:
    answer = answer_of(way, operation)
    assert answer[0]["status"] == 200
    assert way.answered(answer) == WRITTEN[operation]


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_a_key_that_is_read_is_in_the_answer(way: Way) -> None:
    assert json.loads(answer_of(way, "read")[-1]["body"])["step"] == 3


@pytest.mark.parametrize("way", [way for way in WAYS if way.name in DCAF], ids=name_of)
def test_an_untouched_session_of_dcaf_goes_out_again(way: Way) -> None:
    assert way.answered(answer_of(way, "untouched")) == STATE


class ForgetsToWrite(Cookie):
    """Broken: its endpoint changes a copy."""

    def session(self, request: Any) -> Any:
        return dict(super().session(request))


def test_control_a_way_that_writes_nothing_is_noticed() -> None:
    assert ForgetsToWrite().answered(answer_of(ForgetsToWrite(), "write")) != WRITTEN["write"]


def test_an_endpoint_that_parses_its_body_finds_the_message_in_it() -> None:
    for way in WAYS:
        assert json.loads(answer_of(way, "parsed")[-1]["body"])["heard"] == SAID["content"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_carries_the_session_that_was_written(kind: str) -> None:
    way = next(way for way in WAYS if way.name == LEAN)
    bodies = [message["body"] for message in asyncio.run(stream_of(way, kind, 10)())[1:]]
    assert b'"token"' in b"".join(bodies)
    assert b"".join(bodies).count(b"delta") == 9
    assert b'"token"' not in b"".join(message["body"] for message in asyncio.run(stream_of(Bare(), kind, 10)())[1:])


def test_the_same_bytes_without_a_session_are_as_many() -> None:
    own, plain = turn_for(LEAN), turn_for(SAME_BYTES + LEAN)
    assert len(request_of(own)) == len(request_of(plain))
    assert len(asyncio.run(own())[-1]["body"]) == len(asyncio.run(plain())[-1]["body"]) > 16_384


def test_the_client_counts_answers_and_does_not_count_refusals() -> None:
    turn, before = turn_for(LEAN), set(threading.enumerate())
    with serving(turn.app) as url:
        port = int(url.rpartition(":")[2])
        found = seen(port, request_of(turn), connections=2, warm_up_s=0.01, seconds=0.1)
        assert found["per_s"] > 1
        assert 0 < found["median_ms"] <= found["p99_ms"]
        refused = Turn(turn.app, turn.headers, turn.body.replace(b"dcaf1s.", b"dcaf1x."))
        with pytest.raises(ConnectionError, match="400"):
            seen(port, request_of(refused), connections=1, warm_up_s=0, seconds=0.1)
    assert set(threading.enumerate()) <= before


class Hoarding(Bare):
    """Broken: it keeps what it answers."""

    name = "hoarding"

    def wrapped(self, app: Any) -> Any:
        kept = []

        async def keeping(scope: Any, receive: Any, send: Any) -> None:
            kept.append(bytes(100_000))
            await JSONResponse({})(scope, receive, send)

        return keeping


def test_control_memory_that_is_kept_is_noticed() -> None:
    found = memory_of([Hoarding(), Bare()], peaks=1, turns=10)
    assert found["hoarding"]["grown_bytes"] > 1_000_000 > found[Bare.name]["grown_bytes"]
    assert found["hoarding"]["peak"] > found[Bare.name]["peak"]


def test_rows_take_turns_and_a_slower_one_is_slower() -> None:
    order: list[str] = []
    found = harness.interleaved(
        {"fast": harness.of_function(lambda: order.append("fast")), "slow": harness.of_function(lambda: sum(range(20_000)))}, ONCE
    )
    assert order.count("fast") > harness.WARM_UP
    assert found["slow"].median_s > found["fast"].median_s


def test_the_small_costs_are_measured() -> None:
    found = small.measured(ONCE, imports=1)
    assert found["imports"]["dcaf"] > 0
    assert all(sample["us"] > 0 for part in ("calls", "reads") for sample in found[part].values())


def test_the_documents_say_what_the_last_run_measured() -> None:
    run = json.loads(MEASURED.read_text())
    text = README.read_text()
    assert text == in_readme(text, run), "write it anew: python -m tests.benchmarks.pages"
    assert PAGE.read_text() == rendered(run), "write it anew: python -m tests.benchmarks.pages"
    assert LEVELS.read_text() == in_levels(LEVELS.read_text(), run), "write it anew: python -m tests.benchmarks.pages"
    for path, picture in pictures(run).items():
        assert path.read_text() == picture, f"{path.name}: python -m tests.benchmarks.pages"
