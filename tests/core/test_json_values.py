"""What may be stored, what is refused and in which words, and how every kind of value comes back."""

import json
import math
import os
import struct
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import freezegun
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, SecretStr, create_model, field_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from dcaf.core import ConfigurationError, Session, SessionTypeError, SessionValueError
from dcaf.core.json_values import MAX_DEPTH, from_json, read, to_json, write
from dcaf.core.keys import Key, Keyring
from dcaf.core.sealer import Sealer

SCALE = float(os.environ.get("DCAF_SCALE", "0.02"))
EXAMPLES = max(25, int(2_500 * SCALE))
SEALER = Sealer(keys=Keyring(Key.generate("k7")), audience="shop", clock=lambda: 1_789_000_000)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
KEYS = TEXT.filter(lambda key: key != "dcaf" and not key.startswith("temp:"))


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mode(StrEnum):
    FAST = "fast"
    SAFE = "safe"


@dataclass
class Blob:
    raw: bytes
    at: datetime
    tags: frozenset[str] = frozenset()


@dataclass
class Album:
    cover: Blob
    pages: list[Blob] = field(default_factory=list)


class Item(BaseModel):
    name: str
    price: Decimal
    due: date | None = None


class Order(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    order_id: UUID
    line_items: list[Item] = []
    color: Color | None = None
    wait: timedelta = timedelta(0)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    ident: UUID
    tags: set[int]
    pair: tuple[int, str]
    color: Color
    amount: Decimal
    note: str | None = None


class Row(TypedDict, total=False):
    step: int
    at: datetime
    raw: bytes


def exact(value: Any) -> Any:
    """A form in which 1, 1.0, True and -0.0 are all different."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return (type(value), struct.pack("d", value) if type(value) is float else value)


def next_turn(session: Session, sealer: Sealer = SEALER) -> Session:
    return sealer.open(json.loads(sealer.seal(session, sealer.binding(), sequence=1)), sealer.binding())


def comes_back(value: object, as_type: Any) -> Any:
    session = SEALER.start()
    session.set("k", value)
    return next_turn(session).get("k", as_type=as_type)


def refusal(value: object, key: Any = "k") -> str:
    session = Session.from_dict({"kept": 1})
    with pytest.raises(SessionValueError) as caught:
        session.set(key, value)
    assert session.to_dict() == {"kept": 1}
    assert not session.is_modified
    return str(caught.value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: Any) -> None:
    assert refusal(number) == "k: is not a finite number, which JSON cannot say"


class Loose(BaseModel):
    any: Any = None
    some: dict[str, Any] = {}
    exact: float = 0.0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda number: Loose(any=number),
        lambda number: Loose(some={"x": [number]}),
        lambda number: Loose(exact=number),
        lambda number: [Loose(any=number)],
        lambda number: {"x": Loose(any=[number])},
    ],
)
def test_a_number_that_is_not_finite_is_refused_inside_a_model_too(make: Any, number: Any) -> None:
    assert "is not a finite number" in refusal(make(number))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400])
def test_an_integer_beyond_64_bits_is_refused(number: Any) -> None:
    assert refusal({"n": [number]}) == "k.n[0]: is an integer beyond 64 bits; store it as a string"


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 2**53 + 1, 0, -1])
def test_an_integer_of_64_bits_is_stored_exactly(number: Any) -> None:
    assert exact(comes_back(number, int)) == exact(number)


def test_a_lone_surrogate_in_a_value_is_refused() -> None:
    assert refusal(["ok", "a\ud800"]) == "k[1]: has a lone surrogate, which is no Unicode text"


def test_a_lone_surrogate_in_a_key_is_refused() -> None:
    assert refusal(1, key="a\udfff") == "the key: has a lone surrogate, which is no Unicode text"


def test_a_lone_surrogate_in_a_nested_key_is_refused() -> None:
    assert refusal({"\ud800": 1}) == "k['\\ud800']: has a lone surrogate, which is no Unicode text"


@pytest.mark.parametrize(("key", "kind"), [(1, "int"), (None, "NoneType"), ((1, 2), "tuple"), (b"x", "bytes")])
def test_a_nested_key_that_is_no_string_is_refused(key: Any, kind: Any) -> None:
    assert refusal({"a": {key: 1}}) == f"k.a: has a key of type {kind}; keys must be strings"


@pytest.mark.parametrize(("key", "kind"), [(1, "int"), (None, "NoneType"), (b"x", "bytes")])
def test_a_top_level_key_that_is_no_string_is_refused(key: Any, kind: Any) -> None:
    assert refusal(1, key=key) == f"a key of type {kind} cannot be stored; keys must be strings"


def test_the_librarys_own_key_is_refused() -> None:
    assert refusal({}, key="dcaf") == "'dcaf' is the library's own key; choose another"


def test_depth_over_64_is_refused_and_64_is_kept() -> None:
    def nested(depth: Any) -> Any:
        value: Any = "leaf"
        for _ in range(depth):
            value = [value]
        return value

    assert MAX_DEPTH == 64
    assert comes_back(nested(64), None) == nested(64)
    assert refusal(nested(65)) == "k" + "[0]" * 64 + ": nested deeper than 64"


def test_an_object_that_writes_a_plain_string_is_no_deeper_than_a_string() -> None:
    value: Any = date(2026, 1, 31)
    for _ in range(64):
        value = [value]
    assert comes_back(value, None) is not None


def test_a_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert refusal(value).endswith(": nested deeper than 64")


class Linked(BaseModel):
    next: Any = None


def test_a_model_that_holds_itself_is_refused_in_words_of_ours() -> None:
    value = Linked()
    value.next = value
    assert refusal(value).startswith("k: ")


def test_a_model_nested_too_deep_is_refused_in_words_of_ours() -> None:
    value = Linked()
    for _ in range(300):
        value = Linked(next=value)
    assert refusal(value).startswith("k: ")


class Raw(BaseModel):
    raw: bytes


def test_a_model_with_bytes_that_are_no_text_is_kept_or_refused_in_words_of_ours() -> None:
    try:
        found = comes_back(Raw(raw=b"\xff\x00"), Raw)
    except SessionValueError:
        return
    assert found == Raw(raw=b"\xff\x00")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(len, "builtin_function_or_method"), (lambda: 0, "function"), (object(), "object"), (int, "type"), (..., "ellipsis")],
)
def test_functions_and_other_objects_are_refused(value: Any, kind: Any) -> None:
    assert refusal({"a b": [value]}) == f"k['a b'][0]: is of type {kind}, which cannot be stored"


def test_the_path_of_a_refusal_names_members_and_items() -> None:
    assert refusal({"items": [{}, {"price": math.nan}]}) == "k.items[1].price: is not a finite number, which JSON cannot say"


def test_a_refusal_never_quotes_the_value() -> None:
    session = Session()
    session.set("k", Item(name="x", price=Decimal(1)))
    item = session.get("k", as_type=Item)
    assert item is not None
    item.price = "CANARY"  # type: ignore[assignment]
    with pytest.raises(SessionValueError) as caught:
        session.to_dict()
    assert str(caught.value) == "k.price: would not be read back: Input should be a valid decimal"
    assert "CANARY" not in str(caught.value)


def test_a_state_over_its_limit_is_refused_and_names_the_largest_keys() -> None:
    session = Sealer(keys=Keyring(Key.generate()), audience="shop", max_token_bytes=2_000).start()
    room = session._state.limit_bytes
    session.set("small", 1)
    session.set("middle", "m" * 300)
    with pytest.raises(SessionValueError) as caught:
        session.set("large", "x" * 2_000)
    assert str(caught.value) == (
        f"the session would be larger than the {room:,} bytes that fit into its token; the largest keys are "
        "'large' (2,011 bytes), 'middle' (312 bytes), 'small' (10 bytes). "
        "Store less, raise max_token_bytes, or keep the state on the server"
    )
    assert session.to_dict() == {"small": 1, "middle": "m" * 300}


@pytest.mark.parametrize(
    "key", ["k", "ü" * 40, "😀" * 40, '"\\' * 60, "\x00" * 30], ids=["ascii", "two", "four", "quotes", "controls"]
)
def test_whatever_a_session_accepts_fits_into_a_token_that_it_accepts(key: Any) -> None:
    sealer = Sealer(keys=Keyring(Key.generate("k" * 16)), audience="shop", max_token_bytes=4_000, clock=lambda: 1_789_000_000)
    session = sealer.start()
    with pytest.raises(SessionValueError, match="would be larger"):
        for number in range(1_000):
            session[f"{key}{number}"] = number
    assert next_turn(session, sealer) == session


def test_everything_that_a_session_accepts_it_can_write() -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.dictionaries(KEYS, VALUES, max_size=6))
    def law(values: Any) -> None:
        session = SEALER.start()
        session.update(values)
        assert exact(session.to_dict()) == exact(values)
        assert exact(next_turn(session).to_dict()) == exact(values)

    law()


def test_the_law_of_writing_catches_a_session_that_rounds_like_javascript() -> None:
    class Rounding(Session):
        def to_dict(self) -> Any:
            return {key: float(value) if type(value) is int else value for key, value in super().to_dict().items()}

    session = Rounding()
    session.update({"n": 2**53 + 1})
    assert exact(session.to_dict()) != exact({"n": 2**53 + 1})


def test_to_json_and_read_are_inverse() -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(VALUES)
    def law(value: Any) -> None:
        assert exact(read(write(to_json(value, path="k")))) == exact(value)

    law()


OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATETIMES = st.datetimes(timezones=st.none() | st.just(UTC) | OFFSETS)
DURATIONS = st.timedeltas()
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
ITEMS = st.builds(Item, name=TEXT, price=DECIMALS, due=st.none() | st.dates())
BLOBS = st.builds(Blob, raw=st.binary(max_size=30), at=DATETIMES, tags=st.frozensets(TEXT, max_size=3))
Positive = Annotated[int, Field(ge=1)]

TYPED = {
    "datetime": (datetime, DATETIMES),
    "date": (date, st.dates()),
    "time": (time, st.times()),
    "timedelta": (timedelta, DURATIONS),
    "UUID": (UUID, st.uuids()),
    "Decimal": (Decimal, DECIMALS),
    "Enum": (Color, st.sampled_from(Color)),
    "IntEnum": (Level, st.sampled_from(Level)),
    "StrEnum": (Mode, st.sampled_from(Mode)),
    "set": (set[int], st.sets(st.integers(-9, 9))),
    "frozenset": (frozenset[str], st.frozensets(TEXT, max_size=4)),
    "tuple": (tuple[int, str, date], st.tuples(st.integers(-9, 9), TEXT, st.dates())),
    "tuple of any length": (tuple[int, ...], st.lists(st.integers(-9, 9)).map(tuple)),
    "bytes": (bytes, st.binary()),
    "list of bytes": (list[bytes], st.lists(st.binary(max_size=9), max_size=4)),
    "dict of bytes": (dict[str, bytes], st.dictionaries(TEXT, st.binary(max_size=9), max_size=4)),
    "dataclass": (Blob, BLOBS),
    "nested dataclass": (Album, st.builds(Album, cover=BLOBS, pages=st.lists(BLOBS, max_size=3))),
    "list of dataclass": (list[Blob], st.lists(BLOBS, max_size=3)),
    "model": (Item, ITEMS),
    "model with aliases": (
        Order,
        st.builds(
            Order,
            order_id=st.uuids(),
            line_items=st.lists(ITEMS, max_size=3),
            color=st.none() | st.sampled_from(Color),
            wait=DURATIONS,
        ),
    ),
    "strict model": (
        Strict,
        st.builds(
            Strict,
            at=DATETIMES,
            ident=st.uuids(),
            tags=st.sets(st.integers(-9, 9)),
            pair=st.tuples(st.integers(-9, 9), TEXT),
            color=st.sampled_from(Color),
            amount=DECIMALS,
            note=st.none() | TEXT,
        ),
    ),
    "TypedDict": (
        Row,
        st.fixed_dictionaries({}, optional={"step": st.integers(-9, 9), "at": DATETIMES, "raw": st.binary(max_size=9)}),
    ),
    "list of models": (list[Item], st.lists(ITEMS, max_size=3)),
    "dict of models": (dict[str, Item], st.dictionaries(TEXT, ITEMS, max_size=3)),
    "Literal": (Literal["a", 1], st.sampled_from(["a", 1])),
    "X | None": (date | None, st.none() | st.dates()),
    "Annotated": (Positive, st.integers(1, 9)),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_typed_value_comes_back_equal(name: Any) -> None:
    as_type, strategy = TYPED[name]

    @settings(max_examples=max(20, EXAMPLES // 2), deadline=None)
    @given(strategy)
    def law(value: Any) -> None:
        found = comes_back(value, as_type)
        assert found == value
        assert type(found) is type(value)

    law()


def test_the_law_of_round_trips_catches_a_writer_that_takes_bytes_for_text() -> None:
    written = write(b"\xff".decode("latin-1"))
    assert read(written) is not None
    with pytest.raises(SessionTypeError):
        from_json(written, bytes, path="k")


def test_containers_of_pythons_own_kinds_are_stored_as_objects_and_arrays() -> None:
    pair = namedtuple("pair", "x y")  # noqa: PYI024
    session = Session()
    session.update({"o": OrderedDict(a=1), "d": deque([1]), "n": pair(1, 2), "s": {1}})
    assert session.to_dict() == {"o": {"a": 1}, "d": [1], "n": [1, 2], "s": [1]}


class Outward(BaseModel):
    x: int = Field(0, serialization_alias="X")


class Apart(BaseModel):
    x: int = Field(0, serialization_alias="out", validation_alias="in")


@pytest.mark.parametrize("model", [Outward, Apart])
def test_whatever_a_model_wrote_it_can_read(model: Any) -> None:
    value = model.model_validate({"x": 5}, by_name=True)
    assert comes_back(value, model) == value


class Login(BaseModel):
    password: SecretStr


def test_a_value_that_writes_itself_masked_is_refused() -> None:
    assert refusal(Login(password=SecretStr("hunter2"))).startswith("k.password: would come back as another value")


@pytest.mark.parametrize("number", [Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity")])
def test_a_decimal_that_is_no_number_is_kept_or_refused(number: Any) -> None:
    try:
        found = comes_back(number, Decimal)
    except SessionValueError:
        return
    assert str(found) == str(number)


def test_a_datetime_with_seconds_in_its_offset_is_kept_or_refused() -> None:
    value = datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=1, minutes=19, seconds=32)))
    try:
        found = comes_back(value, datetime)
    except SessionValueError:
        return
    assert found == value


def test_a_set_is_written_the_same_in_whichever_order_it_was_filled() -> None:
    one, other = set([0, 8]), set([8, 0])  # noqa: C405
    assert list(one) != list(other)
    session = Session.from_dict({"tags": one})
    session.set("tags", other)
    assert not session.is_modified


def test_a_misfit_names_key_and_path_and_never_the_value() -> None:
    session = Session.from_dict({"order": {"items": [{"name": "x", "price": "CANARY"}]}})

    class Shop(BaseModel):
        items: list[Item]

    with pytest.raises(SessionTypeError) as caught:
        session.get("order", as_type=Shop)
    assert str(caught.value) == "the value does not fit Shop\n  order.items[0].price: Input should be a valid decimal"


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


@pytest.mark.parametrize(
    ("as_type", "stored"),
    [
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "CANARY"}),
        (UUID, "CANARY"),
        (date, "CANARY"),
        (int, "CANARY"),
        (Literal["a"], "CANARY"),
        (Color, "CANARY"),
        (Decimal, "CANARY"),
        (Cat | Dog, "CANARY"),
        (timedelta, "CANARY"),
    ],
    ids=str,
)
def test_no_misfit_quotes_what_is_stored(as_type: Any, stored: Any) -> None:
    with pytest.raises(SessionTypeError) as caught:
        Session.from_dict({"k": stored}).get("k", as_type=as_type)
    assert "CANARY" not in str(caught.value)


def test_a_type_that_pydantic_cannot_describe_is_the_developers_mistake() -> None:
    class Opaque:
        pass

    with pytest.raises(ConfigurationError, match=r"^pydantic cannot describe <class .*Opaque'>: "):
        Session.from_dict({"k": 1}).get("k", as_type=Opaque)


@pytest.mark.parametrize(
    "value", [{"__proto__": {"x": 1}}, {"$type": "os"}, {"py/object": "os.system"}, {"lc": 1, "type": "constructor"}]
)
def test_members_that_other_libraries_obey_are_plain_data(value: Any) -> None:
    assert comes_back(value, None) == value


def test_write_is_compact_utf_8() -> None:
    assert write({"ü": [1, 2.0, None]}) == '{"ü":[1,2.0,null]}'.encode()
    assert orjson.loads(write({"ü": 1})) == {"ü": 1}


class Shout(str):
    __slots__ = ()


class Inches(float):
    pass


class Lying(int):
    """An integer that calls itself equal to nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


with freezegun.freeze_time("2026-10-25 00:30:00"):
    FROZEN, FROZEN_DAY = datetime.now(tz=UTC), date.today()  # noqa: DTZ011

SUBCLASSES: dict[str, tuple[Any, Any, Any]] = {
    "a text": (Shout("a"), str, "a"),
    "a float": (Inches(0.5), float, 0.5),
    "markup": (Markup("<b>"), str, "<b>"),
    "an integer of NumPy": (np.int64(-5), int, -5),
    "a small integer of NumPy": (np.uint8(5), int, 5),
    "a float of NumPy": (np.float64(0.1), float, 0.1),
    "a small float of NumPy": (np.float32(0.1), float, float(np.float32(0.1))),
    "a truth value of NumPy": (np.True_, bool, True),
    "a text of NumPy": (np.str_("a"), str, "a"),
    "a time of a frozen clock": (FROZEN, datetime, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    "a day of a frozen clock": (FROZEN_DAY, date, date(2026, 10, 25)),
    "an enum of texts": (Mode.FAST, str, "fast"),
    "an enum of numbers": (Level.HIGH, int, 2),
}


def list_of(as_type: Any) -> Any:
    return list[as_type]


def dict_of(as_type: Any) -> Any:
    return dict[str, as_type]


@pytest.mark.parametrize("name", SUBCLASSES)
def test_a_value_of_a_subclass_that_equals_its_base_is_taken_as_its_base(name: str) -> None:
    value, as_type, base = SUBCLASSES[name]
    held: Any = create_model("Held", value=(as_type, ...), some=(list_of(as_type), ...))
    session = SEALER.start()
    session.update({"top": value, "list": [value], "dict": {"a": [value]}})
    session.set("model", held.model_construct(value=value, some=[value]))
    session.append("appended", value)
    found: Any = next_turn(session)
    model = found.get("model", as_type=held)
    for one in (
        *(found.get("top", as_type=as_type), found.get("list", as_type=list_of(as_type))[0], model.value, model.some[0]),
        *(found.get("dict", as_type=dict_of(list_of(as_type)))["a"][0], found.get("appended", as_type=list_of(as_type))[0]),
    ):
        assert exact(one) == exact(base)
        assert type(one) is as_type


@pytest.mark.parametrize(
    "value",
    [Lying(5), np.datetime64("2026-01-31"), np.longdouble(1), np.complex64(1), np.bytes_(b"a"), np.array([1, 2]), np.array(1)],
    ids=repr,
)
def test_what_does_not_equal_a_plain_value_is_refused(value: Any) -> None:
    assert refusal({"a": [value]}) == f"k.a[0]: is of type {type(value).__name__}, which cannot be stored"
    assert refusal(Loose(some={"a": [value]})).startswith(f"k.some.a[0]: is of type {type(value).__name__}")


@pytest.mark.parametrize("value", [np.float64("nan"), np.float32("inf"), Inches("-inf")])
def test_a_subclass_of_a_number_that_is_not_finite_is_refused(value: Any) -> None:
    assert refusal([value]) == "k[0]: is not a finite number, which JSON cannot say"
    assert refusal(Loose(any=value)) == "k.any: is not a finite number, which JSON cannot say"


class Spot(NamedTuple):
    at: date
    cart: Item


def test_a_named_tuple_is_written_by_the_types_of_its_members() -> None:
    class More(Item):
        more: int = 1

    value = Spot(date(2026, 1, 31), Item(name="a", price=Decimal("1.10")))
    assert comes_back(value, Spot) == value
    assert refusal(Spot(value.at, More(name="a", price=Decimal(1)))).startswith("k[1]: is a More, where Item is declared")


class Raising(BaseModel):
    number: int = 0

    @field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        raise KeyError("CANARY")


@pytest.mark.parametrize(
    ("stored", "as_type", "said"),
    [
        ([{"a": 1}], set[Any], "k[0]: Set items should be hashable"),
        ([[1]], frozenset[Any], "k[0]: Set items should be hashable"),
        ({"number": 3}, Raising, "k: the value does not fit: the type's own code raised KeyError"),
        ({"a": {"number": 3}}, dict[str, Raising], "k: the value does not fit: the type's own code raised KeyError"),
    ],
)
def test_no_other_error_comes_out_of_get(stored: Any, as_type: Any, said: str) -> None:
    session = Session.from_dict({"k": stored})
    with pytest.raises(SessionTypeError) as caught:
        session.get("k", as_type=as_type)
    assert said in str(caught.value)
    assert not session.is_modified
