"""What a second reader, in Node.js, finds in the vectors of whole exchanges by the document: the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.vectors.make_vectors import FOLDER
from tests.vectors.play import Vector
from tests.vectors.test_exchange_vectors import FROZEN, read

READER: Final = Path(__file__).with_name("wire.mjs")
NO_CANDIDATE: Final = ("malformed-json", "body-too-large", "unsupported-content-encoding")
"""Refusals of bodies in which no candidate is looked for."""


def examined(node: str, path: Path) -> list[Any]:
    """What the reader says of each vector of a file."""
    done = subprocess.run([node, str(READER), str(path)], capture_output=True, check=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


def problems(found: list[Any]) -> dict[str, list[str]]:
    """Name -> what is otherwise than the document says, of the vectors with which something is."""
    listed = {one["name"]: [text for turn in one.get("turns", [one]) for text in turn["problems"]] for one in found}
    return {name: texts for name, texts in listed.items() if texts}


def candidate_of(vector: Vector) -> Any:
    """The candidate in the body that a vector says; its own word where the body has none to say."""
    return vector.get("candidate", ...) if vector.get("code") not in NO_CANDIDATE else ...


@pytest.mark.parametrize("name", FROZEN)
def test_a_reader_in_another_language_finds_what_the_vectors_say(node: str, name: str) -> None:
    found, vectors = examined(node, FOLDER / name), read(name)["vectors"]
    assert problems(found) == {}
    assert [one["name"] for one in found] == [vector["name"] for vector in vectors]
    for vector, one in zip(vectors, found, strict=True):
        for said, came in zip(vector.get("turns", [vector]), one.get("turns", [one]), strict=True):
            assert came["sealed"] == said["sealed"], vector["name"]
        if candidate_of(vector) not in (..., "header", "cookie"):
            assert one["candidate"] == vector["candidate"], vector["name"]


CHANGES: Final[list[tuple[str, str, str]]] = [
    ("application", '"wizard_step":2', "another body was read"),
    ("reads", '"wizard_step":2', "another state was read"),
    ("client", '"wizard_step":2', "the mirror is not the state"),
    ("client", '"expires_at":1789604740', "expires_at is not the claim exp"),
]


@pytest.mark.parametrize(("member", "text", "problem"), CHANGES)
def test_a_vector_that_says_otherwise_is_found(node: str, tmp_path: Path, member: str, text: str, problem: str) -> None:
    file = json.loads((FOLDER / "requests.json").read_bytes())
    vector = next(vector for vector in file["vectors"] if vector["name"] == "at the top")
    holder = vector["client"] if member == "client" else vector
    key = "body" if member == "client" else member
    assert holder[key].count(text) == 1
    holder[key] = holder[key].replace(text, text[:-1] + "9")
    (tmp_path / "changed.json").write_text(json.dumps(file))
    assert problem in problems(examined(node, tmp_path / "changed.json"))["at the top"]
