"""Kinds of values for P40: how to make one, the type that declares it, and whether it can come back as the same."""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NotRequired, TypeAlias, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import freezegun
import numpy as np
from markupsafe import Markup
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    RootModel,
    SecretStr,
    SerializeAsAny,
    Tag,
    WrapSerializer,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

T = TypeVar("T")
Make: TypeAlias = Callable[[random.Random], Any]

ZURICH: Final = ZoneInfo("Europe/Zurich")
MIDNIGHT: Final = datetime(2026, 1, 1)  # noqa: DTZ001 - a naive one is meant
TEXTS: Final = ["", "a", "ab cd", "é", "日本", "😀", "null", "\x00", '"\\', "abcd", "1", "2026-01-31", "__proto__"]


def text(source: random.Random) -> str:
    return source.choice(TEXTS) + source.choice(TEXTS)


def integer(source: random.Random) -> int:
    return source.choice([0, 1, -1, 7, 2**53 + 1, 2**63, -(2**63), source.randrange(-999, 999)])


def number(source: random.Random) -> float:
    return source.choice([0.0, -0.0, 1.0, 1e16, 1e22, 5e-324, 0.1, -1.5e300, source.random()])


def octets(source: random.Random) -> bytes:
    return source.choice([b"", b"ab", b"\xff\x00", bytes(range(256)), source.randbytes(5)])


def day(source: random.Random) -> date:
    return date(source.choice([1, 1970, 2026, 9999]), source.randrange(1, 13), source.randrange(1, 29))


def naive(source: random.Random) -> datetime:
    return MIDNIGHT + timedelta(source.randrange(365), 30 * 60, source.choice([0, 1, 999_999]), hours=source.randrange(24))


def aware(source: random.Random) -> datetime:
    return naive(source).replace(tzinfo=source.choice([UTC, timezone(timedelta(minutes=source.randrange(-800, 800)))]))


def of_the_night(source: random.Random) -> datetime:
    """A time around a change of the clock, with the zone itself."""
    change = source.choice([datetime(2026, 3, 29, 0, tzinfo=UTC), datetime(2026, 10, 25, 0, tzinfo=UTC)])
    return (change + timedelta(minutes=30 * source.randrange(-2, 6))).astimezone(ZURICH)


def span(source: random.Random) -> timedelta:
    return timedelta(source.randrange(-9, 9), source.randrange(99_999), source.choice([0, 1, 999_999]))


def decimal(source: random.Random) -> Decimal:
    return Decimal(source.choice(["1.10", "0", "-0", "0.00", "1E+3", "12345678901234567890.123", "-1.5"]))


def identity(source: random.Random) -> UUID:
    return UUID(int=source.getrandbits(128))


def some(make: Make, most: int = 3) -> Callable[[random.Random], list[Any]]:
    return lambda source: [make(source) for _ in range(source.randrange(most + 1))]


def pairs(key: Make, item: Make) -> Callable[[random.Random], dict[Any, Any]]:
    return lambda source: {key(source): item(source) for _ in range(source.randrange(4))}


def plain(source: random.Random, depth: int = 2) -> Any:
    kind = source.randrange(8 if depth else 5)
    if kind == 5:
        return [plain(source, depth - 1) for _ in range(source.randrange(4))]
    if kind > 5:
        return {text(source): plain(source, depth - 1) for _ in range(source.randrange(4))}
    leaf: Make = [text, integer, number, lambda _: None, lambda s: s.choice([True, False])][kind]
    return leaf(source)


class Color(Enum):
    RED = "red"
    BLUE = 2


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mode(StrEnum):
    FAST = "fast"
    SAFE = "safe"


class Right(Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Bits(IntFlag):
    A = 1
    B = 2


class Word(str, Enum):  # noqa: UP042 - the older form of a StrEnum, which is another
    ONE = "one"
    TWO = "two"


class Item(BaseModel):
    name: str = ""
    price: Decimal = Decimal("1.10")
    due: date | None = None


class Cart(BaseModel):
    items: list[Item] = []
    by_name: dict[str, Item] = {}
    first: Item | None = None


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    order_id: UUID
    line_items: list[Item] = []


class Choices(BaseModel):
    name: str = Field(validation_alias=AliasChoices("userName", AliasPath("names", 0)))
    age: int = Field(0, alias="yearsOld")


class Outward(BaseModel):
    x: int = Field(0, serialization_alias="X", validation_alias="in")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    at: datetime
    tags: set[int]
    pair: tuple[int, str]
    color: Color
    amount: Decimal


class Tagged(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str
    at: datetime | None = None


class Post(BaseModel):
    tags: set[Tagged] = set()
    pairs: frozenset[tuple[int, Tagged]] = frozenset()


class Tags(RootModel[list[Item]]):
    pass


class Table(RootModel[dict[int, Item]]):
    pass


class Box(BaseModel, Generic[T]):
    content: T
    more: list[T] = []


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str = ""


class Counted(BaseModel):
    width: int = 2

    @computed_field
    def area(self) -> int:
        return self.width * 2


class Private(BaseModel):
    name: str = ""
    _seen: int = PrivateAttr(0)


class Raw(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    raw: bytes = b""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = ""


class Birth(BaseModel):
    name: str
    at: date


class Death(BaseModel):
    name: str
    at: date
    cause: str = ""


class Link(BaseModel):
    next: Link | None = None
    name: str = ""


class Normal(BaseModel):
    name: str = ""

    @field_validator("name")
    @classmethod
    def small(cls, value: str) -> str:
        return value.lower()


class Renamed(BaseModel):
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def older(cls, value: Any) -> Any:
        return {**value, "name": value["title"]} if isinstance(value, dict) and "title" in value else value


class Crypt(BaseModel):
    """Written otherwise each time, and read back as what it was."""

    secret: str = ""

    @field_serializer("secret")
    def hide(self, value: str) -> str:
        return f"{random.random()}:{value}"

    @field_validator("secret", mode="before")
    @classmethod
    def show(cls, value: Any) -> Any:
        return value.partition(":")[2] if isinstance(value, str) and re.match(r"0\.\d+", value) else value


class Split(BaseModel):
    """Writes itself as a text, and reads it."""

    left: int = 0
    right: int = 0

    @model_serializer
    def joined(self) -> str:
        return f"{self.left}/{self.right}"

    @model_validator(mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return dict(zip(("left", "right"), map(int, value.split("/")), strict=True)) if isinstance(value, str) else value


class Masked(BaseModel):
    name: str = ""
    key: str = ""

    @field_serializer("key")
    def mask(self, key: str) -> str:
        return key[:2] + "****"


class Rounded(BaseModel):
    price: Annotated[float, PlainSerializer(lambda price: round(price, 1))] = 0.0


class Wrapped(BaseModel):
    price: Annotated[Decimal, WrapSerializer(lambda price, _: float(price))] = Decimal(0)


class Excluded(BaseModel):
    name: str = ""
    key: str = Field("", exclude=True)


with warnings.catch_warnings(action="ignore"):  # json_encoders are from pydantic 1

    class Encoded(BaseModel):
        model_config = ConfigDict(json_encoders={datetime: lambda at: at.date().isoformat()})
        at: datetime


class Seconds(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    wait: timedelta


class Login(BaseModel):
    name: str = ""
    password: SecretStr


class Utf8(BaseModel):
    raw: bytes = b""


class Loose(BaseModel):
    any: Any = None
    some: dict[str, Any] = {}
    table: dict[Any, Any] = {}


class Lazy(BaseModel):
    tags: Sequence[str] = ()


class Late(BaseModel):
    items: list[int] = None  # type: ignore[assignment]


class Step(BaseModel):
    name: str = ""


class Deploy(Step):
    image: str = "api:1"


class Same(Step):
    """Adds nothing but its name."""


class Plan(BaseModel):
    steps: list[Step] = []
    named: dict[str, Step] = {}
    one: Step | None = None
    any_step: SerializeAsAny[Step] = Step()


class Blob(BaseModel):
    raw: bytes | str


class Owner(BaseModel):
    id: UUID | str


class Amount(BaseModel):
    value: float | Decimal = Field(0.0, union_mode="left_to_right")


class Digits(BaseModel):
    value: int | str = Field(union_mode="left_to_right")


class Flags(BaseModel):
    flag: Literal[1, "1"] = 1


@dataclass
class Line:
    raw: bytes
    at: datetime
    tags: frozenset[str] = frozenset()


@dataclass
class Sheet:
    cover: Line
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Slotted:
    name: str = ""
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True, order=True)
class Point:
    x: int = 0
    y: int = 0


@dataclass(kw_only=True)
class Keyed:
    name: str
    child: Keyed | None = None


@pydantic_dataclass
class Checked:
    level: Level = Level.LOW
    waits: list[timedelta] = Field(default_factory=list)


@pydantic_dataclass(config=ConfigDict(extra="forbid"))
class Named:
    user_name: str = Field(alias="userName")


@dataclass
class Later:
    seen: int = field(default=0, init=False)
    name: str = ""


@dataclass
class Once:
    name: str
    salt: InitVar[int] = 0


@dataclass
class Holder(Generic[T]):
    content: T


@dataclass
class Base:
    name: str = ""


@dataclass
class Derived(Base):
    more: int = 1


@dataclass
class Bases:
    bases: list[Base] = field(default_factory=list)


class Row(TypedDict, total=False):
    step: int
    at: datetime
    raw: bytes


class Nested(TypedDict):
    row: Row
    rows: NotRequired[list[Row]]
    item: Item


class Framed(BaseModel):
    row: Nested


class Aliased(TypedDict):
    user_name: Annotated[str, Field(alias="userName")]


class Spot(NamedTuple):
    x: int
    at: date
    color: Color = Color.RED


class Journey(NamedTuple):
    steps: list[Step]


class Inches(float):
    pass


class Number(int):
    pass


class Shout(str):
    __slots__ = ()


class Bag(list[int]):
    pass


def frozen(source: random.Random) -> datetime:
    """What the time is while freezegun stops it: of a class of its own."""
    with freezegun.freeze_time(naive(source)):
        return datetime.now()  # noqa: DTZ005 - a naive one is meant


def frozen_day(source: random.Random) -> date:
    with freezegun.freeze_time(naive(source)):
        return date.today()  # noqa: DTZ011


def items(source: random.Random) -> Item:
    return Item(name=text(source), price=decimal(source), due=source.choice([None, day(source)]))


def lines(source: random.Random) -> Line:
    return Line(octets(source), aware(source), frozenset(some(text)(source)))


def chained(source: random.Random) -> Link:
    found = Link(name=text(source))
    for _ in range(source.randrange(5)):
        found = Link(next=found)
    return found


def rows(source: random.Random) -> Row:
    made: dict[str, Make] = {"step": integer, "at": aware, "raw": octets}
    return {name: make(source) for name, make in made.items() if source.random() < 0.7}  # type: ignore[return-value]


def pets(source: random.Random) -> Cat | Dog:
    return Cat(lives=3) if source.random() < 0.5 else Dog(name=text(source))


def events(source: random.Random) -> Birth | Death:
    birth = Birth(name="a", at=day(source))
    return birth if source.random() < 0.5 else Death(name="a", at=birth.at, cause="old age")


STORED: Final[Mapping[str, tuple[Any, Make]]] = {
    "str": (str, text),
    "int": (int, integer),
    "float": (float, number),
    "bool": (bool, lambda s: s.choice([True, False])),
    "None": (int | None, lambda s: s.choice([None, integer(s)])),
    "plain": (Any, plain),
    "list": (list[Any], some(plain)),
    "dict": (dict[str, Any], pairs(text, plain)),
    "bytes": (bytes, octets),
    "naive datetime": (datetime, naive),
    "aware datetime": (datetime, aware),
    "datetime of a night with a change": (datetime, of_the_night),
    "date": (date, day),
    "time": (time, lambda s: naive(s).time()),
    "time with an offset": (time, lambda s: naive(s).time().replace(tzinfo=UTC)),
    "timedelta": (timedelta, span),
    "Decimal": (Decimal, decimal),
    "UUID": (UUID, identity),
    "Enum": (Color, lambda s: s.choice([*Color])),
    "IntEnum": (Level, lambda s: s.choice([*Level])),
    "StrEnum": (Mode, lambda s: s.choice([*Mode])),
    "str and Enum": (Word, lambda s: s.choice([*Word])),
    "Flag": (Right, lambda s: Right(s.randrange(1, 8))),
    "IntFlag": (Bits, lambda s: Bits(s.randrange(1, 4))),
    "Literal": (Literal["a", 1, "1"], lambda s: s.choice(["a", 1, "1"])),
    "tuple": (tuple[int, str, date], lambda s: (integer(s), text(s), day(s))),
    "tuple of any length": (tuple[Decimal, ...], lambda s: tuple(some(decimal)(s))),
    "set": (set[int], lambda s: {*some(integer, 9)(s)}),
    "frozenset of tuples": (frozenset[tuple[int, date]], lambda s: frozenset((integer(s), day(s)) for _ in range(4))),
    "date or datetime": (date | datetime, lambda s: s.choice([day(s), aware(s)])),
    "set of times": (set[datetime], lambda s: {of_the_night(s) for _ in range(6)}),
    "deque": (deque[Item], lambda s: deque(some(items)(s))),
    "OrderedDict": (OrderedDict[str, int], lambda s: OrderedDict(pairs(text, integer)(s))),
    "defaultdict": (defaultdict[str, list[int]], lambda s: defaultdict(list, pairs(text, some(integer))(s))),
    "Counter": (Counter[str], lambda s: Counter(some(text)(s))),
    "dict by number": (dict[int, str], pairs(integer, text)),
    "dict by date": (dict[date, int], pairs(day, integer)),
    "dict by enum": (dict[Mode, int], pairs(lambda s: s.choice([*Mode]), integer)),
    "dict by UUID": (dict[UUID, Item], pairs(identity, items)),
    "NamedTuple": (Spot, lambda s: Spot(integer(s), day(s), s.choice([*Color]))),
    "path": (PurePosixPath, lambda s: PurePosixPath("/a", text(s).replace("\x00", ""))),
    "address": (IPv4Address, lambda s: IPv4Address(s.getrandbits(32))),
    "network": (IPv4Network, lambda s: IPv4Network((s.getrandbits(32), 32))),
    "pattern": (re.Pattern[str], lambda s: re.compile(s.choice(["a+", "^b$"]))),
    "complex": (complex, lambda s: complex(s.randrange(9), s.randrange(9))),
    "URL": (AnyUrl, lambda s: AnyUrl(f"https://a.test/{s.randrange(9)}?q=1")),
    "model": (Item, items),
    "model of models": (Cart, lambda s: Cart(items=some(items)(s), by_name=pairs(text, items)(s), first=items(s))),
    "model with generated aliases": (Camel, lambda s: Camel.model_validate({"orderId": identity(s), "lineItems": some(items)(s)})),
    "model with choices of aliases": (Choices, lambda s: Choices.model_validate({"userName": text(s), "yearsOld": integer(s)})),
    "model with an outward alias": (Outward, lambda s: Outward(**{"in": integer(s)})),
    "strict model": (
        Strict,
        lambda s: Strict(at=aware(s), tags={1, 2}, pair=(integer(s), text(s)), color=Color.BLUE, amount=decimal(s)),
    ),
    "frozen model": (Tagged, lambda s: Tagged(name=text(s), at=of_the_night(s))),
    "sets of models": (
        Post,
        lambda s: Post(
            tags={Tagged(name=text(s), at=of_the_night(s)) for _ in range(4)},
            pairs=frozenset((integer(s), Tagged(name=text(s))) for _ in range(3)),
        ),
    ),
    "root model of a list": (Tags, lambda s: Tags(some(items)(s))),
    "root model of a dict": (Table, lambda s: Table(pairs(integer, items)(s))),
    "generic model": (Box[date], lambda s: Box[date](content=day(s), more=some(day)(s))),
    "model with extra members": (Open, lambda s: Open.model_validate({"name": text(s), "extra": plain(s), "more": text(s)})),
    "model with a computed member": (Counted, lambda s: Counted(width=integer(s))),
    "model with a private attribute": (Private, lambda s: Private(name=text(s))),
    "model with bytes": (Raw, lambda s: Raw(raw=octets(s))),
    "union of models by a member": (Annotated[Cat | Dog, Field(discriminator="kind")], pets),
    "union of models that look alike": (Birth | Death, events),
    "union of models by a function": (
        Annotated[
            Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")],
            Discriminator(lambda value: value["kind"] if isinstance(value, dict) else value.kind),
        ],
        pets,
    ),
    "model that holds its own kind": (Link, chained),
    "model that renames what it reads": (Renamed, lambda s: Renamed(name=text(s))),
    "model that is written otherwise each time": (Crypt, lambda s: Crypt(secret=text(s))),
    "model that is written as a text": (Split, lambda s: Split(left=s.randrange(9), right=s.randrange(9))),
    "model with nothing to mask": (Excluded, lambda s: Excluded(name=text(s), key="")),
    "dataclass": (Line, lines),
    "dataclass of dataclasses": (Sheet, lambda s: Sheet(lines(s), some(lines)(s))),
    "dataclass with slots": (Slotted, lambda s: Slotted(text(s), some(items)(s))),
    "set of dataclasses": (set[Point], lambda s: {Point(integer(s), integer(s)) for _ in range(5)}),
    "dataclass by keywords": (Keyed, lambda s: Keyed(name=text(s), child=Keyed(name=text(s)))),
    "dataclass of pydantic": (Checked, lambda s: Checked(Level.HIGH, some(span)(s))),
    "dataclass with an alias": (Named, lambda s: Named(userName=text(s))),
    "dataclass with a late member": (Later, lambda s: Later(name=text(s))),
    "generic dataclass": (Holder[date], lambda s: Holder(day(s))),
    "list of dataclasses": (list[Line], some(lines)),
    "TypedDict": (Row, rows),
    "TypedDict of TypedDicts": (Nested, lambda s: {"row": rows(s), "rows": some(rows)(s), "item": items(s)}),
    "TypedDict with an alias": (Aliased, lambda s: {"user_name": text(s)}),
    "value behind validators": (
        Annotated[list[int], BeforeValidator(lambda value: value), AfterValidator(sorted)],
        lambda s: sorted(some(integer)(s)),
    ),
}
"""Kind -> its type, and how to make a value that is stored and comes back as the same."""

BASED: Final[Mapping[str, tuple[Any, Make]]] = {
    "subclass of str": (str, lambda s: Shout(text(s))),
    "subclass of int": (int, lambda s: Number(integer(s))),
    "subclass of float": (float, lambda s: Inches(number(s))),
    "markup": (str, lambda s: Markup(text(s))),
    "datetime of a frozen clock": (datetime, frozen),
    "date of a frozen clock": (date, frozen_day),
    "integer of NumPy": (int, lambda s: np.int64(s.randrange(-999, 999))),
    "float of NumPy": (float, lambda s: s.choice([np.float64, np.float32])(number(s) % 1e30)),
    "truth value of NumPy": (bool, lambda s: np.bool_(s.choice([True, False]))),
    "text of NumPy": (str, lambda s: np.str_(text(s).replace("\x00", ""))),
    "subclasses where anything may stand": (Any, lambda s: {"a": [np.int64(3), Shout(text(s))], "b": Inches(0.5)}),
}
"""The same of what comes back as its base."""

DECLARED: Final = frozenset(
    ["dict by number", "dict by date", "dict by enum", "dict by UUID", "generic dataclass", "TypedDict with an alias"]
)
"""Those of them that only a declared type brings back: on their own they are plain, or of a class that does not say all."""

LOST: Final[Mapping[str, tuple[Any, Make]]] = {
    "model that masks": (Masked, lambda s: Masked(name=text(s), key="sk-12345")),
    "model that rounds": (Rounded, lambda s: Rounded(price=0.123 + s.randrange(9))),
    "model that converts": (Wrapped, lambda _: Wrapped(price=Decimal("1.10"))),
    "model that excludes": (Excluded, lambda s: Excluded(name=text(s), key="k")),
    "model with encoders": (Encoded, lambda s: Encoded(at=naive(s).replace(hour=5))),
    "model that normalises": (Normal, lambda _: Normal.model_construct(name="Ada")),
    "model with a secret": (Login, lambda s: Login(name=text(s), password=SecretStr("hunter2"))),
    "secret": (SecretStr, lambda _: SecretStr("hunter2")),
    "model with bytes that are no text": (Utf8, lambda _: Utf8(raw=b"\xff")),
    "tuple where anything may stand": (Loose, lambda s: Loose(any=(integer(s),))),
    "set where anything may stand": (Loose, lambda s: Loose(some={"a": {integer(s)}})),
    "time where anything may stand": (Loose, lambda s: Loose(any=[day(s)])),
    "enum where anything may stand": (Loose, lambda _: Loose(some={"a": Color.RED})),
    "model where anything may stand": (Loose, lambda s: Loose(any=items(s))),
    "dict with keys that are no text": (Loose, lambda _: Loose(table={1: "a", "1": "b"})),
    "dict by an enum of numbers": (dict[Color, int], lambda _: {Color.BLUE: 1}),
    "dict with keys of two kinds": (Loose, lambda _: Loose(any={True: 1, None: 2})),
    "tuple where a sequence is declared": (Lazy, lambda s: Lazy(tags=(text(s),))),
    "default that does not fit": (Late, lambda _: Late()),
    "not a number": (Loose, lambda s: Loose(any=[s.choice([float("nan"), float("inf")])])),
    "subclass of a model": (Plan, lambda s: Plan(steps=[Step(), Deploy(name=text(s))])),
    "subclass of a model in a dict": (Plan, lambda s: Plan(named={"a": Deploy(name=text(s))})),
    "subclass of a model that is written whole": (Plan, lambda _: Plan(any_step=Deploy())),
    "subclass that adds nothing": (Plan, lambda _: Plan(one=Same())),
    "subclass of a dataclass": (Bases, lambda _: Bases([Derived()])),
    "text where bytes may stand": (Blob, lambda _: Blob(raw="abcd")),
    "text where a UUID may stand": (Owner, lambda s: Owner.model_construct(id=str(identity(s)))),
    "Decimal where a float may stand": (Amount, lambda _: Amount.model_construct(value=Decimal("1.10"))),
    "text with digits where a number may stand": (Digits, lambda _: Digits.model_construct(value="5")),
    "true where one is declared": (Flags, lambda _: Flags.model_construct(flag=True)),
    "dict where a model belongs": (Cart, lambda _: Cart.model_construct(items=[{"name": "a"}])),
    "subclass of a list": (Box[list[int]], lambda _: Box[list[int]].model_construct(content=Bag([1]), more=[])),
    "dataclass with a changed late member": (Later, lambda _: _later()),
    "model of a TypedDict with another member": (
        Framed,
        lambda s: Framed.model_construct(row={"row": {"step": 1, "else": 2}, "item": items(s)}),
    ),
    "named tuple with a subclass": (Journey, lambda _: Journey([Deploy()])),
    "fraction where anything may stand": (Loose, lambda _: Loose(any=Fraction(1, 3))),
    "number beyond 64 bits": (Loose, lambda _: Loose(any=[2**64])),
    "text with half a character": (Loose, lambda _: Loose(any="\ud800")),
}
"""The same of what may not be stored: it would come back as another value."""


def _later() -> Later:
    made = Later(name="a")
    made.seen = 5
    return made
