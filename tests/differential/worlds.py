"""One world of the differential run: a service, its clients, and everything that can be seen from outside.

    python worlds.py FIRST NUMBER

It prints a line of JSON for each world from FIRST on. A world is made of its number alone: the settings, the application, what the
clients send, the clock and the randomness. It imports nothing but public names of dcaf, so that the same file runs on two trees.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib
import json
import logging
import os
import random
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final


def _same_bytes(size: int) -> bytes:
    return hashlib.shake_256(b"nonce").digest(size)


if __name__ == "__main__":
    os.urandom = _same_bytes  # the nonce of an encrypted token, too, is one that both trees draw: taken when dcaf is imported

from dcaf import Key, Keyring, SessionMiddleware  # noqa: E402
from dcaf.asgi import checkpoint  # noqa: E402

NOW: Final = 1_789_000_000
KEYS: Final = [
    Key.from_bytes(kid, bytes((at * 37 + shift) % 256 for at in range(32))) for shift, kid in ((5, "k1"), (9, "k2"), (140, "k3"))
]
TOKEN: Final = re.compile(rb"dcaf1[se](?:\.[\w-]+){2,4}")
EXPIRES: Final = re.compile(rb'"expires_at":\s?\d+|Max-Age=\d+')
JSON_TYPE: Final = (b"content-type", b"application/json")
KINDS: Final = (b"application/json", b"application/json", b"application/x-ndjson", b"text/event-stream", b"text/plain")


class World:
    """A service and two clients of it."""

    def __init__(self, number: int) -> None:
        self.source = random.Random(number)
        self.now = NOW + self.source.randrange(1_000)
        self.events: list[Any] = []
        self.log: list[str] = []
        self.held: list[dict[str, Any]] = [{}, {}]
        self.old: list[dict[str, Any]] = []
        self.cookies: list[bytes] = [b"", b""]
        self.headers: list[bytes] = [b"", b""]
        self.steps: list[Any] = []
        self.seen: list[Any] = []
        self.settings = self._settings()
        self.is_encrypted = bool(self.settings.get("encrypt"))

    def _settings(self) -> dict[str, Any]:
        source, pick = self.source, self.source.choice
        made: dict[str, Any] = {
            "keys": pick([Keyring(KEYS[0]), Keyring(KEYS[0], KEYS[1])]),
            "mirror": pick([True, True, False, {"n", "list"}]),
            "on_refused": pick([None, None, "restart", "reject"]),
            "carriers": pick([("body",)] * 5 + [("header",), ("cookie",), ("body", "header", "cookie")]),
            "max_body_bytes": pick([4 * 1024 * 1024, 2_000]),
            "max_token_bytes": pick([256 * 1024, 1_500]),
            "max_response_bytes": pick([16 * 1024 * 1024, 400]),
            "clock": lambda: self.now,
            "randomness": self._bytes,
            "on_event": self._event,
        }
        made |= pick([{}, {}, {"subject": lambda scope: dict(scope["headers"]).get(b"x-user", b"").decode() or None}])
        made |= pick([{}, {}, {"conversation": "/thread_id"}])
        made |= pick([{}, {}, {"plain": ("/plain",)}])
        made |= pick([{}, {}, {}, {"unsigned": "ignore"}, {"unsigned": "import"}])
        made |= pick([{}, {}, {}, {"version": 1, "migrations": {1: lambda values: {**values, "migrated": True}}}])
        made |= pick([{}, {}, {}, {"pass_streams": ("/stream",)}, {"exempt": ("/free",)}])
        made |= pick([{}, {}, {}, {}, {"encrypt": True}])
        if made.get("encrypt"):
            made.pop("plain", None)
            made["mirror"] = source.choice([False, {"n"}])
        return made

    def service(self) -> SessionMiddleware:
        """The mounted application."""
        settings = {**self.settings, "keys": self.source.choice([self.settings["keys"]] * 4 + [Keyring(KEYS[1], KEYS[0])])}
        if settings.get("unsigned") == "import":
            settings["unsigned"] = _door()
        return SessionMiddleware(self.application, audience="shop", **settings)

    def _bytes(self, size: int) -> bytes:
        return bytes(self.source.randrange(256) for _ in range(size))

    def _event(self, event: Any) -> None:
        self.events.append([event.name, event.code, event.reason, event.kid, event.route])

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        """Do what the turn says, on HTTP or on a socket."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        turn, session = self.turn, scope.get("dcaf.session")
        length = [value.decode() for name, value in scope["headers"] if name == b"content-length"]
        if turn["reads"] == "first":
            self.seen.append([length, await _read(receive)])
        self.seen.append(None if session is None else _look(session))
        self._do(session, turn["before"])
        if turn["reads"] == "late":
            self.seen.append([length, await _read(receive)])
        if turn["raises"] == "before":
            raise LookupError("before")
        await self._answer(turn, session, send)
        if turn["raises"] == "after":
            raise LookupError("after")

    async def _answer(self, turn: dict[str, Any], session: Any, send: Any) -> None:
        headers = [(b"content-type", turn["kind"]), *turn["headers"]]
        if turn["checks"]:
            await self._check()
        try:
            await send({"type": "http.response.start", "status": turn["status"], "headers": headers})
            for at, chunk in enumerate(turn["chunks"]):
                self._do(session, turn["during"] if at == 1 else [])
                _raise_if(turn["raises"] == "during" and at == 1)
                if turn["checks"] and at == 1:
                    await self._check()
                await send({"type": "http.response.body", "body": chunk, "more_body": at + 1 < len(turn["chunks"])})
        except Exception as error:
            self.seen.append(["send raised", type(error).__name__, str(error)])
            raise

    async def _check(self) -> None:
        try:
            await checkpoint()
        except Exception as error:  # noqa: BLE001 - what it says is compared
            self.seen.append(["checkpoint", type(error).__name__])

    def _do(self, session: Any, work: list[Any]) -> None:
        for name, *arguments in work if session is not None else []:
            try:
                if name == "nested":
                    session.get("list", [], as_type=list[Any]).append(arguments[0])
                elif name == "item":
                    session["list"].append(arguments[0])
                else:
                    self.seen.append([name, getattr(session, name)(*arguments)])
            except Exception as error:  # noqa: BLE001 - what it says is compared
                self.seen.append([name, type(error).__name__, str(error)])

    async def _socket(self, scope: Any, receive: Any, send: Any) -> None:
        session = scope["dcaf.session"]
        self.seen.append(_look(session))
        await receive()
        self._do(session, self.turn["before"])
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            self.seen.append([_text(message), _look(session)])
            self._do(session, self.turn["during"])
            for frame in self.turn["frames"]:
                await send({"type": "websocket.send", **frame})

    # What a client does

    def play(self) -> dict[str, Any]:
        """Every step of the world, as it was seen."""
        handler = _Kept(self.log)
        logger = logging.getLogger("dcaf")
        logger.handlers[:], logger.propagate = [handler], False
        for _ in range(self.source.randrange(2, 6)):
            self.turn, service = self._turn(), self.service()
            self.seen, mark = [], (len(self.events), len(self.log))
            who = self.source.randrange(2)
            step = self._talk(service, who) if self.source.random() < 0.2 else self._ask(service, who)
            step |= {"seen": self._plain(self.seen), "events": self.events[mark[0] :], "log": self.log[mark[1] :]}
            self.steps.append(step)
            self.now += self.source.choice([0, 1, 50, 3_600, 86_400, 700_000])
        return {"steps": self.steps, "settings": sorted(name for name in self.settings if name not in ("clock", "on_event"))}

    def _turn(self) -> dict[str, Any]:
        source, pick = self.source, self.source.choice
        kind = pick(KINDS)
        chunks = _cut(source, _answer(source, kind)) if source.random() < 0.5 else [_answer(source, kind)]
        return {
            "reads": pick(["first", "first", "late", "never"]),
            "before": _work(source),
            "during": _work(source) if source.random() < 0.3 else [],
            "raises": pick([None] * 12 + ["before", "during", "after"]),
            "status": pick([200] * 8 + [201, 204, 302, 404, 500]),
            "kind": kind,
            "headers": pick([[]] * 6 + [[(b"etag", b"x")], [(b"content-encoding", b"gzip")], [(b"cache-control", b"public")]]),
            "chunks": chunks,
            "checks": source.random() < 0.15,
            "frames": [_frame(source, _answer(source, b"application/json")) for _ in range(source.randrange(3))]
            + [{"text": '{"type":"done"}'}],
        }

    def _ask(self, service: Any, who: int) -> dict[str, Any]:
        source = self.source
        body = self._body(who)
        headers = [source.choice([JSON_TYPE, JSON_TYPE, JSON_TYPE, (b"content-type", b"text/plain")])]
        headers += source.choice([[]] * 8 + [[(b"content-encoding", b"gzip")], [(b"digest", b"x")]])
        headers += [(b"content-length", str(len(body)).encode())] if source.random() < 0.6 else []
        headers += [(b"x-user", source.choice([b"ada", b"ada", b"eve"]))]
        headers += [(b"cookie", b"__Host-dcaf=" + self.cookies[who])] if self.cookies[who] and source.random() < 0.9 else []
        headers += [(b"dcaf-session", self.headers[who])] if self.headers[who] and source.random() < 0.9 else []
        path = source.choice(["/chat", "/chat", "/plain", "/stream", "/free"])
        method = source.choice(["POST"] * 6 + ["GET", "HEAD"])
        scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": b"", "headers": headers}
        messages, error = asyncio.run(_exchange(service, scope, _cut(source, body) if source.random() < 0.4 else [body]))
        self._adopt(who, messages)
        return {"http": [method, path], "sent": [self._message(message) for message in messages], "error": error}

    def _talk(self, service: Any, who: int) -> dict[str, Any]:
        source = self.source
        frames = []
        for _ in range(source.randrange(1, 5)):
            body = self._body(who)
            frames.append({"type": "websocket.receive", **_frame(source, body)})
        scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"x-user", b"ada")], "subprotocols": []}
        messages, error = asyncio.run(_exchange_frames(service, scope, frames))
        return {"socket": len(frames), "sent": [self._message(message) for message in messages], "error": error}

    def _body(self, who: int) -> bytes:
        """What a client sends: mostly what it holds, now and then another thing, spelled in one way or another."""
        source = self.source
        session = self._session(who)
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": source.choice(["hi", 'a "session"', "é", "\\u0073"])} for _ in range(source.randrange(3))
        ]
        if messages and source.random() < 0.4:
            messages[-1]["data"] = {"session": session, "x": 1}
        body: dict[str, Any] = {"messages": messages, "thread_id": source.choice(["t1", "t1", "t2", None])}
        if source.random() < 0.7:
            body["data"] = source.choice([{"session": session}, {"a": 1, "session": session}, {"session": None}, {"session": {}}])
        spelled = source.choice([(",", ":")] * 3 + [(", ", ": ")])
        text = json.dumps(body, separators=spelled, ensure_ascii=source.random() < 0.3).encode("utf-8", "surrogatepass")
        return _harmed(source, text) if source.random() < 0.25 else text

    def _session(self, who: int) -> Any:
        source, held = self.source, self.held[who]
        own = {"dcaf": held["dcaf"]} if "dcaf" in held else {}
        choices = [held] * 10 + [
            own,
            {**held, "n": 99},
            dict(reversed(held.items())),
            self.held[1 - who],
            {},
            None,
            7,
            {"n": 1},
            {"dcaf": {"token": "new"}},
        ]
        choices += [source.choice(self.old)] if self.old else []
        if "dcaf" in held:
            token = held["dcaf"]["token"]
            choices.append({**held, "dcaf": {"token": token[:60] + "AAA" + token[63:]}})
        return source.choice(choices)

    def _adopt(self, who: int, messages: list[Any]) -> None:
        data = b"".join(message.get("body", b"") for message in messages)
        for line in reversed(data.splitlines()):
            found = _session_in(line.removeprefix(b"data: "))
            if found:
                self.old.append(self.held[who])
                self.held[who] = found
                break
        for name, value in (item for message in messages for item in message.get("headers", ())):
            if name == b"set-cookie" and value.startswith(b"__Host-dcaf="):
                self.cookies[who] = value.partition(b"=")[2].partition(b";")[0]
            if name == b"dcaf-session":
                self.headers[who] = value

    # What can be compared

    def _message(self, message: dict[str, Any]) -> Any:
        found = {key: value for key, value in message.items() if key != "headers"}
        if "headers" in message:
            found["headers"] = sorted(
                [name.decode(), self._plain(value)] for name, value in message["headers"] if name != b"content-length"
            )
        return self._plain(found)

    def _plain(self, value: Any) -> Any:
        """A value without what differs by right: a token is shown by what it says, and not by when it was sealed."""
        if isinstance(value, dict):
            return {str(key): self._plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogatepass")
        if isinstance(value, bytes):
            return EXPIRES.sub(b"EXPIRES", TOKEN.sub(lambda found: _said(found[0]), value)).decode("latin-1")
        return value


def _said(token: bytes) -> bytes:
    """What a token says: of a signed one key, session, number and state."""
    kind, kid, *parts = token.split(b".")
    if kind == b"dcaf1e" or len(parts) != 3:
        return b"<%b %b>" % (kind, kid)
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[0] + b"=="))
        state = base64.urlsafe_b64decode(parts[1] + b"==")
        said = [claims[name] for name in ("aud", "sid", "seq", "born")] + [claims.get(name) for name in ("sub", "cid", "sv", "ep")]
    except (ValueError, KeyError, TypeError):
        return b"<broken %b>" % hashlib.sha256(token).hexdigest().encode()
    return json.dumps([kid.decode(), *said, state.decode("latin-1")]).encode()


def _session_in(line: bytes) -> Any:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    data = value.get("data") if isinstance(value, dict) else None
    found = data.get("session") if isinstance(data, dict) else None
    return found if isinstance(found, dict) and "dcaf" in found else None


def _look(session: Any) -> Any:
    try:
        return [session.to_dict(), session.sequence, session.restarted]
    except Exception as error:  # noqa: BLE001 - what it says is compared
        return type(error).__name__


def _text(message: dict[str, Any]) -> Any:
    return message["text"] if message.get("text") is not None else (message.get("bytes") or b"").decode("latin-1")


async def _read(receive: Any) -> Any:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return ["left", body.decode("latin-1")]
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body.decode("latin-1")


async def _exchange(service: Any, scope: Any, chunks: list[bytes]) -> tuple[list[Any], Any]:
    sent: list[Any] = []
    pending = [{"type": "http.request", "body": chunk, "more_body": at + 1 < len(chunks)} for at, chunk in enumerate(chunks)]

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await service(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - what it says is compared
        return sent, [type(error).__name__, str(error)]
    return sent, None


async def _exchange_frames(service: Any, scope: Any, frames: list[Any]) -> tuple[list[Any], Any]:
    sent: list[Any] = []
    pending = [{"type": "websocket.connect"}, *frames, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> Any:
        return pending.pop(0) if pending else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await service(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - what it says is compared
        return sent, [type(error).__name__, str(error)]
    return sent, None


def _work(source: random.Random) -> list[Any]:
    work: list[Any] = [
        ("incr", "n"),
        ("append", "list", source.randrange(9)),
        ("set", "x", source.choice(["v", 1.5, None, {"deep": [1, {"er": 2}]}, "y" * 600, 2**60])),
        ("delete", "n"),
        ("clear",),
        ("update", {"a": 1, "b": [True]}),
        ("nested", 7),
        ("item", 8),
        ("get", "n"),
        ("set", "bad", {1, 2}),
        ("set", "dcaf", 1),
    ]
    return source.sample(work, source.choice([0, 0, 1, 1, 2, 3]))


def _answer(source: random.Random, kind: bytes) -> bytes:
    values = [
        '{"content":"ok"}',
        '{"content":"ok","data":{"x":1}}',
        '{"data":null,"type":"done"}',
        '{"data":{"session":{"own":1}}}',
        '{ "data" : { "session" : {} , "y":[1.0] } }',
        '{"data":[1]}',
        "[1,2]",
        "{}",
        "not json",
        '{"type":"done","data":{"session":{"own":2},"z":"\\u0064"}}',
        '{"type":"text_delta","text":"\\"done\\""}',
    ]
    if kind == b"application/x-ndjson":
        lines = [source.choice(values) for _ in range(source.randrange(1, 5))] + source.choice(
            [[], ['{"type":"done"}'], ["[DONE]"]]
        )
        return "\n".join([*lines, source.choice(["", "x"])]).encode()
    if kind == b"text/event-stream":
        names = ["", "event: done\n", ": ping\n", "id: 1\n"]
        events = [f"{source.choice(names)}data: {source.choice(values)}\n\n" for _ in range(source.randrange(1, 4))]
        return ("".join(events) + source.choice(["", "data: [DONE]\n\n", "data: half"])).encode()
    return source.choice(values).encode()


def _frame(source: random.Random, body: bytes) -> dict[str, Any]:
    try:
        return {"text": body.decode()} if source.random() < 0.7 else {"bytes": body}
    except UnicodeDecodeError:
        return {"bytes": body}


def _cut(source: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(source.randrange(len(data) + 1) for _ in range(source.randrange(1, 5)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _harmed(source: random.Random, data: bytes) -> bytes:
    at = source.randrange(len(data) + 1)
    odd = [
        b'"',
        b"{",
        b"}",
        b",",
        b"\\u0061",
        b"\0",
        b"\xef\xbb\xbf",
        b"NaN",
        b'"session":{',
        b'"data":1,',
        b" ",
        b"\xff",
        b"1e999",
    ]
    return data[:at] + source.choice(odd) + data[at + source.randrange(3) :]


def _raise_if(now: bool) -> None:
    if now:
        raise LookupError("during")


def _door() -> Any:
    found: Any = importlib.import_module("dcaf.core.migrations").Import  # where both trees have it
    return found(until=datetime(2999, 1, 1, tzinfo=UTC), accept=lambda plain: {"n": plain["n"]})


class _Kept(logging.Handler):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.append(re.sub(r"sid='[\w-]+'", "sid=...", f"{record.levelname} {record.getMessage()}"))


def main(first: int, number: int) -> None:
    """Play so many worlds."""
    for at in range(first, first + number):
        sys.stdout.write(json.dumps(World(at).play()) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
