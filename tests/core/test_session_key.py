"""A SessionKey names one key, and is understood by tools alone."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter

from dcaf import ConfigurationError, SessionKey


def test_it_is_a_value() -> None:
    assert SessionKey("cart") == SessionKey("cart") != SessionKey("basket")
    assert len({SessionKey("cart"), SessionKey("cart")}) == 1
    with pytest.raises(FrozenInstanceError):
        SessionKey("cart").key = "basket"  # type: ignore[misc]


@pytest.mark.parametrize("key", ["dcaf", None, 5, str])
def test_a_key_that_no_session_has_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="SessionKey"):
        SessionKey(key)


@pytest.mark.parametrize("key", ["cart", "user:theme", "temp:scratch", "app:motd", ""])
def test_control_any_other_key_is_taken(key: str) -> None:
    assert SessionKey(key).key == key


def test_pydantic_never_reads_one_from_a_body() -> None:
    with pytest.raises(ConfigurationError, match="is filled by dcaf's @tool"):
        TypeAdapter(Annotated[dict[str, int], SessionKey("cart")])


def test_no_model_has_a_field_of_one() -> None:
    with pytest.raises(ConfigurationError, match="is filled by dcaf's @tool"):

        class Order(BaseModel):
            cart: Annotated[dict[str, int], SessionKey("cart")]
