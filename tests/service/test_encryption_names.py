"""What stands in the keys of encrypted rows: it is found by the same ranges, and says nothing without the key."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcaf.core import ConfigurationError, Key, Keyring, SealedRowError
from dcaf.core.encryption import decrypt, derive_cipher, encrypt
from dcaf.engines import Range
from dcaf.service.encryption_cells import Cells, kid_of, place_of
from dcaf.service.encryption_layout import LAYOUTS, Layout, pack, unpack
from dcaf.service.encryption_names import Names
from dcaf.service.tables import TABLES, Owner, app_row, pack_number

SECRET = bytes(range(32))
RING = Keyring(Key.from_bytes("k7", SECRET))
NAMES = Names(SECRET)
# Bytes at the ends of an alphabet: what comes behind a prefix that ends with 255 is shorter than the prefix.
DIGESTS = st.lists(st.sampled_from([0, 254, 255]), min_size=16, max_size=16).map(bytes)
FEW = [b"a" + b"\xff" * 15, b"a" * 15 + b"\xff", b"a" * 15 + b"\xfe", b"a" * 14 + b"\xff\xff"]
OWNERS = st.sampled_from(FEW) | DIGESTS.map(lambda digest: b"a" + digest[1:])  # behind an owner of 255 alone there is no key
NAME = st.text(max_size=4) | st.sampled_from(["a", "a\0", "a\0\0", "x" * 400])
NUMBERS = st.sampled_from([0, 1, 2, 255, 256, 2**40])


@st.composite
def prefixes_and_keys(draw: Any) -> tuple[Layout, bytes, list[bytes]]:
    """A table, what some of its keys begin with, and keys."""
    layout = LAYOUTS[draw(st.sampled_from(sorted(name for name, layout in LAYOUTS.items() if layout.refused is None)))]
    owners = draw(st.lists(OWNERS, min_size=1, max_size=3))
    keys = {draw(keys_of(layout, owners)): None for _ in range(draw(st.integers(1, 8)))}
    first = next(iter(keys))
    ends = [
        end for end in (16, 17, 33, 34, 43) if end <= (layout.start_of_name(first) or len(first)) and is_whole(layout, first, end)
    ]
    return layout, first[: draw(st.sampled_from(ends))], list(keys)


def is_whole(layout: Layout, key: bytes, end: int) -> bool:
    return end <= 17 or (not layout.is_list and key[16:17] == b"s") if end <= 33 else not layout.is_list and end <= len(key)


@st.composite
def keys_of(draw: Any, layout: Layout, owners: list[bytes]) -> bytes:
    owner: bytes = draw(st.sampled_from(owners))
    session: bytes = draw(DIGESTS)
    number = pack_number(draw(NUMBERS))
    if layout.is_list:
        mark: bytes = draw(st.sampled_from([b"", b"\xff"]))
        return owner + mark + number + session
    text: str = draw(NAME)
    table = layout.table.name
    name = layout.pack_name(text.encode())
    if table == "dcaf_kept_sessions":
        return owner + b"s" + session
    if layout.find_name is None:
        return owner + b"s" + session + number
    if table == "dcaf_kept_memory":
        scopes, ends = (b"u", b"s" + session + b"s", b"s" + session + b"u"), (b"h", b"g" + number + name)
        return b"".join((owner, draw(st.sampled_from(scopes)), draw(st.sampled_from(ends))))
    if table == "dcaf_kept_artifacts":
        born = b"s" + session + number
        end: bytes = draw(st.sampled_from((b"c", b"h" + name, b"v" + number * 2)))
        return b"".join((owner, draw(st.sampled_from((b"u", born + b"s", born + b"u"))), end))
    if table == "dcaf_kept_documents":
        return owner + b"s" + session + b"=" + text[:200].encode()
    places = [b"s" + session, b"u", b""][: 3 if table == "dcaf_kept_state" else 1]
    return b"".join((owner, draw(st.sampled_from(places)), name))


def find(keys: list[bytes], wanted: Range) -> list[bytes]:
    ordered = sorted(keys)
    return ordered[bisect_left(ordered, wanted.start) : len(ordered) if wanted.end is None else bisect_left(ordered, wanted.end)]


@given(prefixes_and_keys())
@settings(max_examples=300, deadline=None)
def test_a_range_of_what_keys_begin_with_finds_the_same_rows(found: tuple[Layout, bytes, list[bytes]]) -> None:
    layout, prefix, keys = found
    hidden = {NAMES.hide(layout, key): key for key in keys}
    wanted = Range.of_prefix(layout.table, prefix, 100)
    assert len(hidden) == len(keys)
    there = find(list(hidden), NAMES.hide_range(layout, wanted))
    assert sorted(hidden[key] for key in there) == find(keys, wanted)
    # Page by page, from the last key of the page before: each once.
    walked, rest = [], wanted
    while page := find(list(hidden), NAMES.hide_range(layout, rest))[:1]:
        walked.append(hidden[page[0]])
        rest = Range(layout.table, walked[-1] + b"\0", wanted.end, 100)
    assert walked == [hidden[key] for key in there]


@given(prefixes_and_keys())
@settings(max_examples=100, deadline=None)
def test_a_key_is_shown_again_and_has_nothing_of_an_owner_or_a_session(found: tuple[Layout, bytes, list[bytes]]) -> None:
    layout, _, keys = found
    for key in keys:
        hidden = NAMES.hide(layout, key)
        assert NAMES.hide(layout, layout.mark_unknown(NAMES.show(layout, hidden))) == hidden
        start = layout.start_of_name(key)
        assert NAMES.show(layout, hidden)[:start] == key[:start]
        assert key[:16] not in hidden
        assert hidden != Names(b"\1" * 32).hide(layout, key)


def test_every_table_of_a_service_is_described() -> None:
    assert sorted(LAYOUTS) == sorted(table.name for table in TABLES)
    for layout in LAYOUTS.values():
        in_clear = {name for name in layout.plain if layout.table.columns[name] is bytes}
        allowed = {"birth", "generation", "app"}  # random bytes, and a digest of the application
        assert layout.refused is not None or in_clear <= allowed


@pytest.mark.parametrize("start", [b"a" * 15, b"a" * 16 + b"s" + b"b" * 15, b"a" * 16 + b"u=step"])
def test_a_range_that_begins_within_what_is_hidden_is_refused(start: bytes) -> None:
    layout = LAYOUTS["dcaf_kept_state"]
    with pytest.raises(ConfigurationError, match="begins within"):
        NAMES.hide_range(layout, Range(layout.table, start, None, 1))


def test_a_value_of_a_row_that_one_session_has_is_not_compared() -> None:
    layout = LAYOUTS["dcaf_kept_state"]
    with pytest.raises(ConfigurationError, match="not compared"):
        NAMES.tag(layout, b"a" * 16 + b"s" + b"b" * 16 + b"=step", b"1")
    shared = b"a" * 16 + b"u=user:theme"
    assert NAMES.tag(layout, shared, b"1") not in {NAMES.tag(layout, shared, b"2"), NAMES.tag(layout, shared + b"x", b"1"), None}


@given(st.lists(st.none() | st.binary(max_size=8), min_size=1, max_size=3))
def test_what_is_packed_is_unpacked(values: list[bytes | None]) -> None:
    packed = pack(values)
    assert (packed is None) == (set(values) == {None})
    assert packed is None or unpack(packed, len(values)) == values


@given(st.binary(max_size=64), st.integers(0, 2**16), st.integers(1, 255))
def test_a_cell_opens_in_its_place_alone_and_whole(plain: bytes, at: int, change: int) -> None:
    cells = Cells(RING, "clinic", NAMES.mark)
    place = place_of("messages", b"1", "data")
    cell = cells.seal(place, plain)
    assert cells.open(place, cell) == plain
    for other in (place_of("messages", b"2", "data"), place_of("changes", b"1", "data"), place_of("messages", b"1", "name")):
        with pytest.raises(SealedRowError):
            cells.open(other, cell)
    broken = bytearray(cell)
    broken[at % len(cell)] ^= change
    with pytest.raises(SealedRowError):
        cells.open(place, bytes(broken))
    with pytest.raises(SealedRowError):
        cells.open(place, cell[: at % len(cell)])
    with pytest.raises(SealedRowError):
        Cells(RING, "shop", NAMES.mark).open(place, cell)


def test_no_two_cells_of_one_text_are_alike_and_the_half_of_a_nonce_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.service.encryption_cells.MOST_UNDER_A_HALF", 2)
    cells, place = Cells(RING, "clinic", NAMES.mark), place_of("messages", b"1", "data")
    found = [cells.seal(place, b"Hello!") for _ in range(5)]
    assert len(set(found)) == 5
    assert len({cell[8:20] for cell in found}) == 3
    assert {kid_of(cell) for cell in found} == {"k7"}
    assert [cells.open(place, cell) for cell in found] == [b"Hello!"] * 5


def test_a_cipher_of_half_a_nonce_is_that_of_the_whole() -> None:
    nonce = bytes(range(24))
    box = derive_cipher(SECRET, nonce[:12]).encrypt(nonce[12:], b"plain", b"bound")
    assert box == encrypt(SECRET, nonce, b"plain", b"bound")
    assert decrypt(SECRET, nonce, box, b"bound") == b"plain"


def test_whatever_the_digest_of_a_name_is_a_key_of_the_application_stays_one() -> None:
    """One digest in 256 begins as a session would, and one as a user would."""
    layout, key = LAYOUTS["dcaf_kept_state"], app_row("clinic", "app:theme", partitions=1).key
    owner = Owner("clinic", "p-123", partitions=1).session_row("visit-1").key
    for number in range(2_000):
        names = Names(number.to_bytes(32, "big"))
        hidden = names.hide(layout, key)
        assert layout.restore_name(names.show(layout, hidden), {"name": b"app:theme", "value": b"1"}) == key
        assert names.show(LAYOUTS["dcaf_kept_sessions"], names.hide(LAYOUTS["dcaf_kept_sessions"], owner)) == owner


def test_control_without_a_sign_before_the_digest_some_are_taken_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcaf.service.encryption_names.OF_NAME", b"")
    with pytest.raises(AssertionError):
        test_whatever_the_digest_of_a_name_is_a_key_of_the_application_stays_one()
