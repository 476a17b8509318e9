"""The state of a token in its two forms, of which an index makes neither."""

from __future__ import annotations

import pytest

from dcaf.core.base64url import Payload, add_index, encode

STATE = b'{"step":1,"note":"x"}'
INDEX = (10, 12)


def test_a_payload_that_gets_an_index_is_another_one_in_the_same_forms() -> None:
    before = Payload(STATE)
    after = add_index(before, INDEX)
    assert (before.index, after.index, after.data, after.segment) == (None, INDEX, STATE, encode(STATE).encode())


def test_a_segment_that_cannot_be_read_gets_its_index_and_fails_where_it_is_read() -> None:
    after = add_index(Payload(segment=b"!"), INDEX)
    assert (after.index, after.segment) == (INDEX, b"!")
    with pytest.raises(ValueError, match="base64"):
        after.data  # noqa: B018 - reading it decodes the segment
