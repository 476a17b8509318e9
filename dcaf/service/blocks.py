"""Write what the lines of an import say: a session, which is there when all of it is, or keys and facts that sessions share.

A session is made as a fork is. Its own row says that it is dropped until all others are there, so nobody finds half of one, and a
purge finds what an import that died has left. One that takes another's place is made beside it first, under an id that is made up,
and moved when it is whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from dcaf.core.errors import ConfigurationError, SessionExistsError, SessionValueError, StaleSessionError
from dcaf.core.json_values import to_json, write
from dcaf.core.slots import TEMPORARY
from dcaf.engines import AllOf, Condition, Exists, Is, Not, Now, Put, Range, Record, Transaction, Value
from dcaf.service.document_lines import read_document
from dcaf.service.document_rows import DocumentScope
from dcaf.service.dropping import EVER, NEVER, drop_rows, make_room
from dcaf.service.journal import MOST_BYTES
from dcaf.service.kept import is_there
from dcaf.service.memory import check_key
from dcaf.service.messages import Message, pack
from dcaf.service.places import APP, USER, Place, require_name
from dcaf.service.plans import Plan
from dcaf.service.quotas import check_messages, check_sessions, count_rows, find_lists
from dcaf.service.remembered import MemoryScope, generation_of, join
from dcaf.service.tables import CHANGES, MESSAGES, OF_SESSIONS, STATE, Columns

AT_ONCE: Final = 500
AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""After how many rows, or bytes of them, what was read is written."""

EXISTS: Final = "Line {}: there is a session of this id already. With replace=True, that of the export takes its place."
LOST: Final = "Line {}: somebody else made or dropped this session while it was imported. Import it again."


class Imported(NamedTuple):
    """What an import has made.

    Attributes:
        sessions: How many sessions, with their states, histories and memories.
        messages: How many messages these have.
        shared: How many keys and facts that sessions share, and documents of the application, were written.
        stayed: How many of those were there already, and stayed as they were.
        ended: How many sessions had ended meanwhile, and were not made.
    """

    sessions: int = 0
    messages: int = 0
    shared: int = 0
    stayed: int = 0
    ended: int = 0


class Block(ABC):
    """The lines between the first and the last of a block.

    Attributes:
        lines: How many there were.
        found: What was made of them; that of a session counts when it has ended.
    """

    def __init__(self) -> None:
        self.lines: int = 0
        self.found: Imported = Imported()
        self._puts: dict[Record, Put] = {}
        self._bytes = 0

    def add(self, kind: str, members: Mapping[str, Any], number: int) -> Plan[None] | None:
        """Take a line; returns what is to be done before the next one, if anything.

        Raises:
            ConfigurationError, SessionValueError: It does not belong here, or has what may not be stored.
        """
        self.lines += 1
        put = self._read(kind, members, number)
        if put.record in self._puts:
            raise ConfigurationError(f"Line {number} is of the same key as one before.")
        self._puts[put.record] = put
        self._bytes += sum(len(value) for value in put.values.values() if isinstance(value, bytes))
        return self.flush() if len(self._puts) >= AT_ONCE or self._bytes >= AT_ONCE_BYTES else None

    def flush(self) -> Plan[None]:
        """Write what was taken."""
        puts, self._puts, self._bytes = list(self._puts.values()), {}, 0
        if puts:
            yield from self._write(puts)

    @abstractmethod
    def end(self) -> Plan[None]:
        """Write the rest, and make it count."""

    @abstractmethod
    def abandon(self) -> Plan[None]:
        """Drop what is half made."""

    @abstractmethod
    def _read(self, kind: str, members: Mapping[str, Any], number: int) -> Put: ...

    @abstractmethod
    def _write(self, puts: Sequence[Put]) -> Plan[None]: ...


class SharedBlock(Block):
    """Keys and facts that the sessions of a user share, or those of an application.

    Args:
        find: Finds the row of a key.
        prefix: What the keys begin with.
        scope: Whose memory; None for none.
        replaces: Whether what is there makes room.
    """

    def __init__(self, find: Callable[[str], Record], prefix: str, scope: MemoryScope | None, *, replaces: bool) -> None:
        super().__init__()
        self._find = find
        self._prefix = prefix
        self._scope = scope
        self._replaces = replaces

    def end(self) -> Plan[None]:
        """Write the rest."""
        yield from self.flush()

    def abandon(self) -> Plan[None]:
        """Nothing is half made: each key and each fact stands for itself."""
        yield from ()

    def _read(self, kind: str, members: Mapping[str, Any], number: int) -> Put:
        if kind == "state" and members["key"].startswith(self._prefix):
            return _put_key(self._find(members["key"]), members, number)
        if kind == "memory" and self._scope is not None and members["shared"]:
            return _put_fact(self._scope, members, number)
        raise _refuse_place(number)

    def _write(self, puts: Sequence[Put]) -> Plan[None]:
        facts = [put for put in puts if put.record.table is not STATE]
        yield from self._lay([put for put in puts if put.record.table is STATE], None)
        yield from self._lay(facts, self._scope)

    def _lay(self, puts: Sequence[Put], scope: MemoryScope | None) -> Plan[None]:
        """Write rows, but for those that are there and stay."""
        generation = 0
        while puts:
            placed = [_at_generation(put, scope, generation) for put in puts]
            heads = [] if scope is None else [scope.head]
            outcome = yield Transaction([*heads, *(put.record for put in placed)])
            if heads and (now := generation_of(outcome.rows[0])) != generation:
                generation = now
                continue
            there = [row is not None for row in outcome.rows[len(heads) :]]
            wanted = [put for put, is_there_ in zip(placed, there, strict=True) if self._replaces or not is_there_]
            free: list[Condition] = [] if self._replaces else [Not(Exists(put.record)) for put in wanted]
            conditions = [*free, *([] if scope is None else [scope.is_at(generation)])]
            reads = [*heads, *(put.record for put in wanted)]
            when = join(conditions) if conditions else None
            if (yield Transaction(reads, when=when, writes=wanted)).applied:
                shared, stayed = self.found.shared + len(wanted), self.found.stayed + len(puts) - len(wanted)
                self.found: Imported = self.found._replace(shared=shared, stayed=stayed)
                return


class SpaceBlock(SharedBlock):
    """Documents of a space of an application.

    Args:
        space: Where they are to lie.
        replaces: Whether what is there makes room.
    """

    def __init__(self, space: DocumentScope, *, replaces: bool) -> None:
        super().__init__(space.row, "", None, replaces=replaces)
        self._space = space

    def _read(self, kind: str, members: Mapping[str, Any], number: int) -> Put:
        if kind != "document":
            raise _refuse_place(number)
        return read_document(self._space, members, number)


class SessionBlock(Block):
    """A session.

    Args:
        place: Where it is to lie.
        beside: Makes a place where it lies until it is whole, where it takes another's.
        columns: What is known of it.
        birth: Tells it from others of this id.
        number: Of its line.
        replaces: Whether a session that is there makes room.
    """

    def __init__(
        self, place: Place, beside: Callable[[], Place], columns: Mapping[str, Any], birth: bytes, number: int, *, replaces: bool
    ) -> None:
        super().__init__()
        self._target = self._place = place
        self._beside = beside
        self._columns = columns
        self._birth = birth
        self._number = number
        self._replaces = replaces
        self._is_begun = self._is_over = False
        self._last = {"message": 0, "change": 0}

    def begin(self) -> Plan[None]:
        """Begin it.

        Raises:
            SessionExistsError: There is one of its id, which stays.
            QuotaExceededError: Its user may not have one more, or it may not have so many messages.
        """
        quotas = self._target.quotas
        outcome = yield Transaction([self._target.row], ranges=find_lists(quotas, self._target.owner))
        ends = self._columns["ends"]
        if ends is not None and ends <= outcome.now_ms:
            self._is_over = True
            return
        if is_there(outcome.rows[0], outcome.now_ms):
            if not self._replaces:
                raise SessionExistsError(EXISTS.format(self._number))
            self._place = self._beside()
        else:
            check_sessions(quotas, count_rows(outcome.pages), f"Line {self._number}: ")
        check_messages(quotas, self._columns["messages"], f"Line {self._number}: ")
        yield from self._reserve(self._place)

    def end(self) -> Plan[None]:
        """Write the rest, and its own row last.

        Raises:
            ConfigurationError: Messages or changes are missing.
            StaleSessionError: Somebody else has dropped it, or has made one of its id.
        """
        counts = {"message": self._columns["messages"], "change": self._columns["changes"]}
        if self._last != counts:
            raise ConfigurationError(f"Line {self._number}: the session has not as many messages and changes as the line says.")
        if self._is_over:
            self.found = Imported(ended=1)
            return
        yield from self.flush()
        if self._place is not self._target:
            yield from self._move()
        yield from self._finish(self._target)
        self.found: Imported = Imported(sessions=1, messages=self._columns["messages"])

    def abandon(self) -> Plan[None]:
        """Drop what is half made."""
        if self._is_begun:
            yield from _drop(self._place, self._birth)
            yield from _drop(self._target, self._birth)

    def _read(self, kind: str, members: Mapping[str, Any], number: int) -> Put:
        if kind in self._last:
            return self._read_numbered(kind, members, number)
        if kind == "document":
            return read_document(DocumentScope.of_session(self._place.owner, self._place.id), members, number)
        if kind == "checkpoint":
            return self._read_checkpoint(members, number)
        is_anonymous = self._place.owner.user is None
        if kind == "memory" and (is_anonymous or not members["shared"]):
            owner, session_id = self._place.owner, self._place.id
            return _put_fact(_SCOPES[members["shared"]](owner, session_id), members, number)
        if kind != "state" or members["key"].startswith((APP, TEMPORARY, *(() if is_anonymous else (USER,)))):
            raise _refuse_place(number)
        return _put_key(self._place.state_row(members["key"]), members, number)

    def _read_numbered(self, kind: str, members: Mapping[str, Any], number: int) -> Put:
        self._last[kind] += 1
        if members["number"] != self._last[kind]:
            raise ConfigurationError(f"Line {number} is not the next {kind} of its session.")
        table = MESSAGES if kind == "message" else CHANGES
        row = self._place.owner.numbered_row(table, self._place.id, members["number"])
        values: Columns = {name: members[name] for name in table.columns if name != "data"}
        data = _read_message(members, number) if kind == "message" else write(members["change"])
        return Put(row, {**values, "data": _trim(data)})

    def _read_checkpoint(self, members: Mapping[str, Any], number: int) -> Put:
        counts: Columns = {name: members[name] for name in ("messages", "changes")}
        if any(members[name] > self._columns[name] for name in counts) or any(
            name.startswith((APP, USER, TEMPORARY)) for name in members["state"]
        ):
            raise ConfigurationError(f"Line {number} is no checkpoint of its session.")
        try:
            name = require_name("name", members["name"])
        except ConfigurationError as error:
            raise ConfigurationError(f"Line {number}: {error}") from None
        data = write(to_json(members["state"], path=f"Line {number}: state"))
        row = self._place.owner.checkpoint_row(self._place.id, name)
        return Put(row, {"name": name.encode(), **counts, "at": members["at"], "data": _trim(data)})

    def _write(self, puts: Sequence[Put]) -> Plan[None]:
        if not self._is_over:
            yield from self._add(self._place, puts)

    def _add(self, place: Place, puts: Sequence[Put]) -> Plan[None]:
        if not (yield Transaction([place.row], when=self._is_ours(place.row), writes=puts)).applied:
            raise StaleSessionError(LOST.format(self._number))

    def _is_ours(self, row: Record) -> Condition:
        return AllOf(Is(row, "birth", self._birth), Is(row, "revision", 0))

    def _reserve(self, place: Place) -> Plan[None]:
        user = self._columns["user"]
        owner: Columns = {"id": place.id.encode(), "user": None if user is None else user.encode()}
        begun = Put(place.row, {**owner, "birth": self._birth, "created": Now(), "dropped": Now(), "revision": 0})
        while not (outcome := (yield Transaction([place.row], when=Not(Exists(place.row)), writes=[begun]))).applied:
            yield from make_room(place, outcome)
        self._is_begun = True

    def _finish(self, place: Place) -> Plan[None]:
        row = place.row
        listed = Put(
            place.owner.list_row(self._columns["listed"], place.id, archived=self._columns["archived"] is not None),
            {"session": place.id.encode()},
        )
        kept = Put(row, {**{name: _pack(value) for name, value in self._columns.items()}, "dropped": None})
        yield from self._add(place, [kept, listed])

    def _move(self) -> Plan[None]:
        """Put what lies beside a session into its place."""
        beside, target = self._place, self._target
        outcome = yield Transaction([target.row])
        if outcome.rows[0] is not None:
            yield from drop_rows(target, outcome.rows[0], before_ms=EVER)
        yield from self._reserve(target)
        for source, aim in _list_ranges(beside, target):
            yield from self._copy(source, aim)
        yield from _drop(beside, self._birth)

    def _copy(self, source: Range, aim: bytes) -> Plan[None]:
        stem, after = len(source.start), source.start
        while True:
            rest = Range(source.table, after, source.end, AT_ONCE, partition=source.partition)
            (page,) = (yield Transaction([], ranges=[rest])).pages
            partition = self._target.owner.partition
            yield from self._add(self._target, [Put(Record(source.table, aim + key[stem:], partition), row) for key, row in page])
            if len(page) < AT_ONCE:
                return
            after = page[-1][0] + b"\0"


def _list_ranges(source: Place, target: Place) -> list[tuple[Range, bytes]]:
    """The rows of a session but for its own, and what the keys of them begin with at another place."""
    aim = target.owner.session_key(target.id)
    found = [(source.owner.rows_of(table, source.id, AT_ONCE), aim) for table in OF_SESSIONS]
    if source.owner.user is None:
        shared, theirs = source.owner.shared_rows(AT_ONCE), target.owner.shared_rows(AT_ONCE)
        found.append((shared, theirs.start))
    return found


def _drop(place: Place, birth: bytes) -> Plan[None]:
    """Drop what is half made, if it is still this."""
    outcome = yield Transaction([place.row])
    row = outcome.rows[0]
    if row is not None and row["birth"] == birth and not is_there(row, outcome.now_ms):
        yield from drop_rows(place, row, before_ms=NEVER)


def _at_generation(put: Put, scope: MemoryScope | None, generation: int) -> Put:
    if scope is None or not generation:
        return put
    return Put(scope.row(cast("bytes", put.values["name"]).decode(), generation), put.values)


def _put_key(row: Record, members: Mapping[str, Any], number: int) -> Put:
    value = write(to_json(members["value"], path=f"Line {number}: value"))
    return Put(row, {"name": members["key"].encode(), "value": value})


def _put_fact(scope: MemoryScope, members: Mapping[str, Any], number: int) -> Put:
    try:
        name = check_key(members["key"])
    except SessionValueError as error:
        raise SessionValueError(f"Line {number}: {error}") from None
    value = write(to_json(members["value"], path=f"Line {number}: value"))
    moments = {column: members[column] for column in ("created", "updated", "expires")}
    return Put(scope.row(name, 0), {"name": name.encode(), "value": value, **moments})


def _read_message(members: Mapping[str, Any], number: int) -> bytes:
    return pack(Message.of(members["message"], limit_bytes=MOST_BYTES, path=f"Line {number}: message"))


def _trim(data: bytes) -> bytes:
    """The same bytes: those that orjson gives keep up to eight times as much memory, and a block holds hundreds of them."""
    return bytes(memoryview(data))


def _refuse_place(number: int) -> ConfigurationError:
    return ConfigurationError(f"Line {number} does not belong into its block.")


def _pack(value: Any) -> Value:
    """A member of the line of a session as a column."""
    if isinstance(value, str):
        return value.encode()
    return write(value) if isinstance(value, dict | list) else value


_SCOPES: Final = {True: MemoryScope.of_user, False: MemoryScope.of_session}
"""Whether a fact is shared -> the memory that has it."""
