"""P15: a token, a key, a value of the state, a subject, a conversation appear in no log line, traceback, repr or problem."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import ipaddress
import json
import logging
import pickle
import re
import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, AnyUrl, BaseModel, ConfigDict, Field, ImportString, Json, SecretStr, StringConstraints

from dcaf import ConfigurationError, DcafError, Key, Keyring, Session, SessionMiddleware, current_session, tool
from dcaf.asgi.operator_events import Event
from dcaf.core.base64url import encode
from dcaf.core.claims import Binding
from dcaf.core.keys import LiveKeyring
from dcaf.core.migrations import Import
from dcaf.core.sealer import Sealer
from dcaf.core.settings import choose_suites
from dcaf.testing import sealed, tampered
from tests.asgi.wire import JSON_TYPE, Sent, call

WORD: Final = "canary"


class Said:
    """Everything that was said to anybody but the holder, and what none of it may have.

    Attributes:
        texts: What was said.
        needles: What must be in none of it.
    """

    def __init__(self, key: Key) -> None:
        self.texts: list[str] = []
        text = key.text()
        spelled = (key.secret.hex(), repr(key.secret)[2:-1], base64.b64encode(key.secret).decode()[:40], encode(key.secret))
        self.needles: set[str] = {WORD, text, *spelled}

    def add(self, *texts: object) -> None:
        """Something was said."""
        self.texts += [str(text) for text in texts]

    def token(self, envelope: Any) -> Any:
        """Remember the token of an envelope, whole and in its parts."""
        token = envelope["dcaf"]["token"]
        self.needles |= {token, *(part for part in token.split(".") if len(part) > 20)}
        return envelope

    def error(self, error: BaseException) -> None:
        """An exception came up, as a server would log it."""
        self.add(str(error), repr(error), error.args, vars(error), f"{error}")
        self.add("".join(traceback.format_exception(error)))

    def object(self, found: object) -> None:
        """An object that somebody may print."""
        self.add(repr(found), str(found), f"{found}", [found], {"of": found})
        if hasattr(found, "__dict__"):
            self.add(repr(vars(found)))

    @property
    def leaks(self) -> list[str]:
        """What was said and must not be."""
        return [text for text in self.texts if WORD in text.lower() or any(needle in text for needle in self.needles)]


class Listener(logging.Handler):
    """Takes every record of every logger, as a formatter writes it and with everything that hangs on it."""

    def __init__(self, said: Said) -> None:
        super().__init__(logging.DEBUG)
        self.said = said
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        self.said.add(logging.Formatter("%(levelname)s %(name)s %(message)s").format(record), record.__dict__)


@contextmanager
def listening(said: Said) -> Iterator[Listener]:
    """Every logger at DEBUG."""
    root, listener = logging.getLogger(), Listener(said)
    loggers = [root, *(logging.getLogger(name) for name in (*logging.root.manager.loggerDict, "dcaf", "asyncio", "starlette"))]
    before = [(logger, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate, logger.disabled = True, False
    root.addHandler(listener)
    try:
        yield listener
    finally:
        root.removeHandler(listener)
        for logger, level, propagate, disabled in before:
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


@contextmanager
def heard(said: Said, kind: type[BaseException] = DcafError) -> Iterator[None]:
    """Something is raised in here, and its traceback is kept."""
    try:
        yield
    except kind as error:
        said.add(traceback.format_exc())
        said.error(error)
    else:
        pytest.fail("nothing was raised")


class Colour(Enum):
    """For a misfit."""

    RED = "red"


class Cat(BaseModel):
    """For a misfit."""

    kind: Literal["cat"]


class Dog(BaseModel):
    """For a misfit."""

    kind: Literal["dog"]


class Closed(BaseModel):
    """For a misfit."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=False)
    number: int


def own_words(value: str) -> str:
    """A validator that quotes what it got."""
    raise ValueError(f"{value!r} will not do")


TYPES: Final[list[Any]] = [
    int,
    float,
    bool,
    bytes,
    date,
    datetime,
    time,
    timedelta,
    UUID,
    Decimal,
    Colour,
    AnyUrl,
    ipaddress.IPv4Address,
    Literal["a", "b"],
    list[int],
    dict[str, int],
    tuple[int, str],
    set[int],
    int | None,
    int | bool,
    Closed,
    Json[int],
    ImportString,
    Annotated[str, AfterValidator(own_words)],
    Annotated[str, StringConstraints(pattern="^x$")],
    Annotated[str, StringConstraints(max_length=2)],
    Annotated[Cat | Dog, Field(discriminator="kind")],
    Cat,
    re.Pattern,
    type,
]
"""No type of these fits the canary."""


@tool
def deploy(name: str, times: int, session: Session) -> str:
    """Deploy something."""
    session.set("times", times)
    return name


class Scenario:
    """Turns, refusals and errors of one service, with the canary in every place.

    Args:
        suite_encrypts: Whether the state is encrypted.
        folder: For a key file.
    """

    def __init__(self, folder: Path, *, suite_encrypts: bool) -> None:
        self.key = Key.generate("k7")
        self.old = Key.generate("old")
        self.ring = Keyring(self.key, self.old)
        self.said = Said(self.key)
        self.encrypt, self.folder = suite_encrypts, folder
        self.state = {"value": f"{WORD}-{secrets.token_hex(4)}", "kind": {"kind": WORD}, "list": [WORD], "number": {"number": WORD}}
        self.subject, self.conversation = f"{WORD}@example.com", f"{WORD}-thread"
        self.answers = 0

    def mounted(self, application: Any = None, **settings: Any) -> SessionMiddleware:
        """The service; its events are listened to."""
        usual: dict[str, Any] = {
            "keys": self.ring,
            "audience": "shop",
            "subject": lambda _: self.subject,
            "conversation": "/thread_id",
            "encrypt": self.encrypt,
            "on_event": self.event,
        }
        return SessionMiddleware(application or self.application(), **{**usual, **settings})

    def event(self, event: Event) -> None:
        """Told of an event."""
        self.said.add(event, dataclasses.asdict(event))

    def application(self, act: Callable[[Session], object] | None = None, answer: bytes = b"{}", status: int = 200) -> Any:
        """An application that does something with its session, and answers."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            session = current_session()
            if act is not None:
                act(session)
            self.said.object(session)
            await send({"type": "http.response.start", "status": status, "headers": [JSON_TYPE]})
            await send({"type": "http.response.body", "body": answer})

        return app

    def sealed(self, **options: Any) -> Any:
        """An envelope of the state for this holder, its token remembered."""
        usual: dict[str, Any] = {"subject": self.subject, "conversation": self.conversation, "encrypt": self.encrypt}
        return self.said.token(sealed(self.state, **{"keys": self.ring, "audience": "shop", **usual, **options}))

    def ask(self, session: Any, service: SessionMiddleware | None = None, **options: Any) -> Sent:
        """One request, the canary in its message too; a problem's whole answer counts as said."""
        body = options.pop("body", {"thread_id": self.conversation, "messages": [{"content": WORD}], "data": {"session": session}})
        sent = call(service or self.mounted(), body, **options)
        self.answers += 1
        if sent.status >= 400:
            self.said.add(sent.body.decode(), sent.headers)
        elif isinstance(sent.envelope, dict):
            self.said.token(sent.envelope)
        return sent

    def play(self) -> None:
        """All of it."""
        self.turns()
        self.refusals()
        self.failing_turns()
        self.errors()
        self.settings()
        self.objects()

    def turns(self) -> None:
        assert self.ask(self.sealed()).status == 200
        assert self.ask(self.sealed(keys=Keyring(self.old))).status == 200
        assert self.ask(None, self.mounted(self.application(lambda session: session.update(self.state)))).status == 200
        assert self.ask(self.sealed(), self.mounted(self.application(answer=b'{"data":{"session":{"a":"canary"}}}'))).status == 200
        assert self.ask(tampered(self.sealed()), self.mounted(on_refused="restart")).status == 200
        door = Import(datetime(2999, 1, 1, tzinfo=UTC), lambda plain: plain)
        assert self.ask(self.state, self.mounted(unsigned=door)).status == 200
        assert self.ask(self.state, self.mounted(unsigned="ignore")).status == 200

    def refusals(self) -> None:
        def fails(*_: Any) -> Any:
            raise LookupError(WORD)

        good = self.sealed()
        token = good["dcaf"]["token"]
        refused: list[tuple[int, Any, SessionMiddleware]] = [
            (400, tampered(good), self.mounted()),
            (400, self.state, self.mounted()),
            (400, [WORD], self.mounted()),
            (400, WORD, self.mounted()),
            (400, {"dcaf": {"token": 1, WORD: WORD}}, self.mounted()),
            (400, {"dcaf": {"token": WORD}}, self.mounted()),
            (400, {"dcaf": {"token": token[:-4]}}, self.mounted()),
            (400, {"dcaf": {"token": token + "é" + WORD}}, self.mounted()),
            (400, good, self.mounted(subject=lambda _: "eve")),
            (400, good, self.mounted(conversation=None)),
            (400, good, self.mounted(audience="other")),
            (400, good, self.mounted(keys=Keyring(self.old))),
            (503, good, self.mounted(subject=fails)),
            (503, good, self.mounted(conversation=fails)),
            (400, good, self.mounted(subject=lambda _: [WORD])),
            (400, good, self.mounted(clock=lambda: 1.0)),
            (400, good, self.mounted(encrypt=not self.encrypt)),
            (409, self.sealed(age=timedelta(days=8)), self.mounted()),
            (409, good, self.mounted(version=-0, clock=lambda: 4e9)),
            (413, good, self.mounted(max_token_bytes=600, max_body_bytes=10_000)),
            (413, good, self.mounted(max_body_bytes=100)),
            (400, self.state, self.mounted(unsigned=Import(datetime(2999, 1, 1, tzinfo=UTC), fails))),
            (400, self.state, self.mounted(unsigned=Import(datetime(1999, 1, 1, tzinfo=UTC), dict))),
        ]
        for status, session, service in refused:
            if status == 413 and len(token) <= 600 and service is refused[19][2]:
                continue
            assert self.ask(session, service).status == status
        for body in (
            b'{"data":{"session":NaN,"a":"canary"}}',
            b'\xff\xfe{"canary"',
            b'{"data":{"session":1,"session":"canary"}}',
            b'{"canary',
        ):
            assert self.ask(None, body=body).status == 400
        assert self.ask(None, headers=(JSON_TYPE, (b"content-encoding", b"canary"))).status == 415

    def failing_turns(self) -> None:
        def aliased(session: Session) -> None:
            plain, typed = session["list"], session.get("list", [], as_type=list[str])
            plain.append(WORD)
            typed.append(f"{WORD}!")

        acts: list[Callable[[Session], object]] = [
            aliased,
            lambda session: session.set("a", float("nan")),
            lambda session: session["list"].append({1: WORD}),
            lambda session: session["list"].append(f"{WORD}\ud800"),
            lambda session: session["list"].append(object()),
            lambda session: session.get("value", as_type=int),
            lambda session: session.set("a", WORD * 100_000),
            lambda session: session.incr("value"),
            lambda session: session.append("value", WORD),
        ]
        for act in acts:
            with heard(self.said):
                self.ask(self.sealed(), self.mounted(self.application(act)))
        for answer, status in ((b"[]", 200), (b'{"data":1}', 200), (b"canary", 200)):
            with heard(self.said):
                self.ask(self.sealed(), self.mounted(self.application(lambda session: session.set("a", WORD), answer, status)))
        huge = b'{"data":{"session":{"a":123456789012345678901234567890,"b":"canary"}}}'
        with heard(self.said):
            self.ask(self.sealed(), self.mounted(self.application(None, huge), plain=("/api/chat",), plain_secret=True))

    def errors(self) -> None:
        session = Session.from_dict(self.state)
        for as_type in TYPES:
            for key in self.state:
                try:
                    session.get(key, as_type=as_type)
                except (DcafError, ValueError, TypeError) as error:
                    self.said.error(error)
        for value in (10**30, float("inf"), f"{WORD}\ud800", {1: WORD}, object(), SecretStr(WORD), [WORD, {2: WORD}], lambda: WORD):
            with heard(self.said):
                Session().set("a", value)
        for arguments in ({"name": [WORD], "times": WORD}, {"name": WORD}, {"name": WORD, "times": WORD}, {"times": {"a": WORD}}):
            with heard(self.said):
                asyncio.run(deploy.run(arguments, session=session))
        with heard(self.said, TypeError):
            pickle.dumps(session)

    def settings(self) -> None:
        text = self.key.text()
        path = self.folder / "keys"
        path.write_text(text[:-1] + "-" if text[-1] != "-" else text[:-1] + "_")
        live_rings = [self.ring]
        other = Key.from_bytes("k7", secrets.token_bytes(32))

        def load() -> Keyring:
            if live_rings:
                return live_rings.pop()
            raise OSError(text)

        attempts: list[Callable[[], object]] = [
            lambda: Key.parse(path.read_text()),
            lambda: Key.parse(text + "x"),
            lambda: Key.parse(text.replace("dcafk1", "dcafk2")),
            lambda: Keyring.parse(text[:-1]),
            lambda: Keyring.parse(text, path.read_text()),
            lambda: Keyring.from_environment({"DCAF_KEYS": text[1:]}),
            lambda: Key.from_bytes("k7", self.key.secret[:31]),
            lambda: Key.from_bytes("k7", text.encode()),
            lambda: Key.from_bytes(WORD * 4, self.key.secret),
            lambda: Keyring(text),  # type: ignore[arg-type]
            lambda: Keyring(self.key, other),
            lambda: self.mounted(keys=text[:-2]),
            lambda: self.mounted(keys=self.key.secret),
            lambda: self.mounted(keys=path),
            lambda: self.mounted(keys=lambda: text),
            lambda: self.mounted(subject=self.subject),
        ]
        for attempt in attempts:
            with heard(self.said, ConfigurationError):
                attempt()
        with heard(self.said, TypeError):
            pickle.dumps(self.key)
        live = LiveKeyring(load, every_s=0)
        assert live.find("k7") == self.key
        self.said.object(live)

    def objects(self) -> None:
        (suite,) = choose_suites(encrypt=self.encrypt, accept_both=False)
        sealer = Sealer(keys=self.ring, audience="shop", suite=suite)
        binding = sealer.binding(self.subject, self.conversation)
        opened = sealer.verify(self.sealed())
        assert opened is not None
        session = sealer.accept(opened, binding)
        session.update({f"temp:{name}": value for name, value in self.state.items()})
        views = [session, session.temp, session.user, session.app, session._state, session._standing]
        held = [self.key, self.ring, binding, Binding("shop", self.subject), opened, sealer, deploy, self.mounted()]
        service = self.mounted()
        for found in (
            *views,
            *held,
            service,
            service._config,
            service._config.events,
            sealer.claims_of(session),
            Key.parse(self.key.text()),
        ):
            self.said.object(found)


def played(folder: Path, number: int) -> tuple[int, int, list[str]]:
    """So many scenarios: how many texts were said, how many requests were answered, and what leaked."""
    texts, answers, leaks = 0, 0, []
    for at in range(number):
        scenario = Scenario(folder, suite_encrypts=at % 2 == 1)
        with listening(scenario.said) as listener:
            scenario.play()
        assert listener.count > 30
        texts += len(scenario.said.texts)
        answers += scenario.answers
        leaks += scenario.said.leaks
    return texts, answers, leaks


@pytest.mark.promise(15)
def test_no_canary_is_said_to_anybody_but_the_holder(tmp_path: Path, scale: float, measured: Callable[[int, str], None]) -> None:
    texts, answers, leaks = played(tmp_path, max(2, int(200 * scale)))
    measured(15, f"{len(leaks)} of {texts:,} log lines, tracebacks, reprs and problems, of {answers:,} requests, had a canary")
    assert leaks == []


@pytest.mark.promise(15)
def test_a_raise_with_the_payload_is_caught(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path, suite_encrypts=False)

    def raises(session: Session) -> None:
        raise RuntimeError(f"bad state: {session.to_dict()}")

    with heard(scenario.said, RuntimeError):
        scenario.ask(scenario.sealed(), scenario.mounted(scenario.application(raises)))
    assert len(scenario.said.leaks) >= 2


@pytest.mark.promise(15)
@pytest.mark.parametrize("what", ["key", "token", "state"])
def test_a_log_line_with_the_payload_is_caught(tmp_path: Path, what: str) -> None:
    scenario = Scenario(tmp_path, suite_encrypts=False)
    lines = {"key": scenario.key.text(), "token": scenario.sealed()["dcaf"]["token"], "state": json.dumps(scenario.state)}
    with listening(scenario.said):
        logging.getLogger("some.other").debug("got %s", lines[what])
    assert scenario.said.leaks
