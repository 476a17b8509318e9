"""All contracts, and what a system makes of a behaviour, in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.related.adk_contract import ADK
from tests.related.artifact_contract import ARTIFACTS
from tests.related.core_contract import CORE
from tests.related.genai_contract import GENAI
from tests.related.pyai_contract import PYAI
from tests.related.reference_contract import REFERENCE
from tests.related.related_systems import Behaviour, Contract, NotThere, Otherwise, System

CONTRACTS: Final[Mapping[str, Contract]] = {
    "adk": ADK,
    "reference": REFERENCE,
    "core": CORE,
    "pyai": PYAI,
    "genai": GENAI,
    "artifacts": ARTIFACTS,
}

HELD: Final = "held"
NOT_THERE: Final = "no such call"

REASONS: Final[Mapping[tuple[str, str], str]] = {
    (
        "adk",
        "an_id_is_taken_without_the_spaces_around_it",
    ): "an id is kept as it is given, so that two systems never disagree on it.",
    ("adk", "an_id_of_spaces_alone_counts_as_none"): "the same; an id that is empty is refused.",
}
"""What dcaf does not hold: contract and behaviour -> why."""

OF_DCAF: Final[Mapping[tuple[str, str], str]] = {
    ("adk", "an_id_is_taken_without_the_spaces_around_it"): "it is kept with its spaces",
    ("adk", "an_id_of_spaces_alone_counts_as_none"): "it is kept as an id",
}
"""The same -> what it does."""


async def try_out(behaviour: Behaviour, system: System) -> str:
    """What a system makes of a behaviour."""
    try:
        await behaviour(system)
    except NotThere:
        return NOT_THERE
    except Otherwise as error:
        return str(error)
    except Exception as error:
        return f"fails: {type(error).__name__}"
    return HELD


def list_behaviours() -> list[tuple[str, str]]:
    """Contract and name of each behaviour."""
    return [(key, name) for key, contract in CONTRACTS.items() for name in contract.behaviours]
