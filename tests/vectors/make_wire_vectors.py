r"""What stands in bodies, answers and streams, written by hand from docs/protocol.md, sections 2 and 3, as frozen vectors.

    python -m tests.vectors.make_wire_vectors

In every text ``@`` stands for an envelope: in what comes in ``{"dcaf":{"token":…}}`` with the file's own token, in what goes out
the envelope of the state that the turn leaves behind. ``%`` stands for the state that was sealed, as the application reads it.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any, Final

from tests.vectors.make_vectors import FIRST, FOLDER, NOW, Sealed, compact

Vector = dict[str, Any]
STATE: Final = '{"wizard_step":2}'
DEEP: Final = 900
OWN: Final = '{"type":"session","data":{"session":@}}'
EVENT: Final = f"event: session\ndata: {OWN}\n\n"


def read(name: str, body: str | bytes, application: str | bytes, **more: Any) -> Vector:
    """A body that is let in, and what the application reads."""
    return {"name": name, **_text("body", body), **_text("application", application), **more}


def refused(name: str, body: str | bytes, status: int, code: str, **more: Any) -> Vector:
    """A body that is refused."""
    return {"name": name, **_text("body", body), "status": status, "code": code, **more}


def _text(key: str, value: str | bytes) -> Vector:
    """A text as it is, and bytes that are none as base64."""
    return {key: value} if isinstance(value, str) else {f"{key}_base64": base64.b64encode(value).decode()}


def bodies() -> list[Vector]:
    """Bodies, with the application's view of each."""
    return [
        read("no session", '{"messages":[]}', '{"messages":[]}'),
        read("the top-level one", '{"data":{"session":@}}', '{"data":{"session":%}}'),
        read("white space stays", ' { "data" : { "session" : @ } } \n', ' { "data" : { "session" : % } } \n'),
        read(
            "every other byte stays",
            '{"n":1.0,"big":12345678901234567890123,"a":1,"a":2,"data":{"session":@}}',
            '{"n":1.0,"big":12345678901234567890123,"a":1,"a":2,"data":{"session":%}}',
        ),
        read(
            "the last message before the first",
            '{"messages":[{"data":{"session":{"a":1}}},{"data":{"session":@}}]}',
            '{"messages":[{"data":{}},{"data":{"session":%}}]}',
        ),
        read(
            "any role",
            '{"messages":[{"role":"assistant","data":{"x":1,"session":@}}]}',
            '{"messages":[{"role":"assistant","data":{"x":1,"session":%}}]}',
        ),
        read(
            "the top before the messages",
            '{"messages":[{"data":{"session":@}}],"data":{"session":@}}',
            '{"messages":[{"data":{}}],"data":{"session":%}}',
        ),
        read(
            "null and an empty object are none",
            '{"data":{"session":null},"messages":[{"data":{"session":{}}},{"data":{"session":@}}]}',
            '{"data":{},"messages":[{"data":{}},{"data":{"session":%}}]}',
        ),
        read(
            "none that counts",
            '{"data":{"session":null,"x":1},"messages":[{"data":{"session":{}}}]}',
            '{"data":{"x":1},"messages":[{"data":{}}]}',
        ),
        read("cut: the first of several", '{"data":{"session":null , "x":1}}', '{"data":{"x":1}}'),
        read("cut: the last of several", '{"data":{"x":1 , "session":null }}', '{"data":{"x":1 }}'),
        read("cut: the only one", '{"data":{ "session" : null }}', '{"data":{  }}'),
        read("cut: in the middle", '{"data":{"x":1, "session":null, "y":2}}', '{"data":{"x":1, "y":2}}'),
        read("an escaped name", '{"data":{"\\u0073ession":@}}', '{"data":{"\\u0073ession":%}}'),
        read("an escaped name on the way", '{"d\\u0061ta":{"session":@}}', '{"d\\u0061ta":{"session":%}}'),
        read(
            "the name in a string", '{"t":"\\"session\\":{}","data":{"session":@}}', '{"t":"\\"session\\":{}","data":{"session":%}}'
        ),
        read(
            "a session elsewhere stays",
            '{"session":{"a":1},"x":{"data":{"session":{"a":1}}}}',
            '{"session":{"a":1},"x":{"data":{"session":{"a":1}}}}',
        ),
        read("data that is a list", '{"data":[{"session":{"a":1}}]}', '{"data":[{"session":{"a":1}}]}'),
        read("messages that are no list", '{"messages":{"data":{"session":{"a":1}}}}', '{"messages":{"data":{"session":{"a":1}}}}'),
        read("data twice without a session", '{"data":{},"data":{"x":1}}', '{"data":{},"data":{"x":1}}'),
        read("messages twice without a session", '{"messages":[],"messages":[]}', '{"messages":[],"messages":[]}'),
        read(
            "the last dcaf and the last token count",
            '{"data":{"session":{"dcaf":{"token":"x"},"dcaf":{"token":"y","token":"@@"}}}}',
            '{"data":{"session":%}}',
        ),
        read(
            "the mirror has no effect",
            '{"data":{"session":{"wizard_step":99,"dcaf":{"token":"@@","expires_at":1}}}}',
            '{"data":{"session":%}}',
        ),
        read("the wish for a new one", '{"data":{"session":{"dcaf":{"token":"new"}}}}', '{"data":{"session":{}}}'),
        read("308 digits", '{"n":' + "9" * 308 + "}", '{"n":' + "9" * 308 + "}"),
        read("a small number", '{"n":1e-400}', '{"n":1e-400}'),
        read("minus zero", '{"n":-0}', '{"n":-0}'),
        read("nested", '{"x":' + "[" * (DEEP - 1) + "]" * (DEEP - 1) + "}", '{"x":' + "[" * (DEEP - 1) + "]" * (DEEP - 1) + "}"),
        read("an array", '[{"data":{"session":{"a":1}}}]', '[{"data":{"session":{"a":1}}}]'),
        read("a form", "session=1&data=2", "session=1&data=2"),
        read("no body", "", ""),
        read("identity", '{"data":{"session":@}}', '{"data":{"session":%}}', content_encoding=["identity"]),
        read("Identity, in other letters", '{"data":{"session":@}}', '{"data":{"session":%}}', content_encoding=["IDENTITY"]),
        read("identity twice", '{"data":{"session":@}}', '{"data":{"session":%}}', content_encoding=["identity", "identity"]),
        read("a byte that no parser passes over", b'\x01{"data":{"session":{"a":1}}}', b'\x01{"data":{"session":{"a":1}}}'),
        read("a word before it", 'x{"data":{"session":{"a":1}}}', 'x{"data":{"session":{"a":1}}}'),
        refused("a plain session", '{"data":{"session":{"a":1}}}', 400, "session-unsigned"),
        refused("no object", '{"data":{"session":1}}', 400, "session-malformed"),
        refused("false is a candidate", '{"data":{"session":false}}', 400, "session-malformed"),
        refused("dcaf that is no object", '{"data":{"session":{"dcaf":1}}}', 400, "session-malformed"),
        refused("a token that is no text", '{"data":{"session":{"dcaf":{"token":1}}}}', 400, "session-malformed"),
        refused("an empty token", '{"data":{"session":{"dcaf":{"token":""}}}}', 400, "session-invalid"),
        refused("no other is tried", '{"data":{"session":{"a":1}},"messages":[{"data":{"session":@}}]}', 400, "session-unsigned"),
        refused("session twice", '{"data":{"session":{},"session":@}}', 400, "malformed-json"),
        refused("data twice, one with a session", '{"data":{},"data":{"session":@}}', 400, "malformed-json"),
        refused(
            "messages twice, one with a session", '{"messages":[{"data":{"session":null}}],"messages":[]}', 400, "malformed-json"
        ),
        refused("data twice in a message", '{"messages":[{"data":{"session":null},"data":1}]}', 400, "malformed-json"),
        refused("NaN", '{"data":{"session":@},"n":NaN}', 400, "malformed-json"),
        refused("an overflow", '{"n":1e309}', 400, "malformed-json"),
        refused("310 digits", '{"n":1' + "0" * 309 + "}", 400, "malformed-json"),
        refused("a lone surrogate", '{"n":"\\ud800"}', 400, "malformed-json"),
        refused("a control character", '{"n":"\x01"}', 400, "malformed-json"),
        refused("too deep", '{"x":' + "[" * 1_024 + "]" * 1_024 + "}", 400, "malformed-json"),
        refused("broken", '{"data":', 400, "malformed-json"),
        refused("two texts", "{}{}", 400, "malformed-json"),
        refused("a byte order mark", '\ufeff{"data":{"session":@}}', 400, "malformed-json"),
        refused("UTF-16", '{"data":{"session":{"a":1}}}'.encode("utf-16"), 400, "malformed-json"),
        refused("UTF-32", '{"data":{"session":{"a":1}}}'.encode("utf-32-be"), 400, "malformed-json"),
        refused("no UTF-8", b'{"x":"\xff"}', 400, "malformed-json"),
        *(
            refused(f"U+{ord(mark):04X} before it", mark + "{}", 400, "malformed-json")
            for mark in "\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u3000"
        ),
        *(
            refused(f"encoded: {listed!r}", "{}", 415, "unsupported-content-encoding", content_encoding=[listed])
            for listed in ("gzip", "", "identity, identity")
        ),
        refused("a form that is encoded", "a=1", 415, "unsupported-content-encoding", content_encoding=["gzip"]),
    ]


def answer(
    name: str, text: str, client: str | None, *, kind: str | None = "application/json", status: int = 200, turn: str = "changed"
) -> Vector:
    """An answer of the application, and what the client gets; None where a changed session cannot be carried."""
    return {"name": name, "turn": turn, "status": status, "content_type": kind, "answer": text, "client": client}


def answers() -> list[Vector]:
    """Answers. The turn is ``changed`` (a session came in and was changed), ``untouched`` (came in), or ``none``."""
    return [
        answer("no data", '{"a":1}', '{"data":{"session":@},"a":1}'),
        answer("an empty object", "{}", '{"data":{"session":@}}'),
        answer("white space stays", ' {"a" : 1} ', ' {"data":{"session":@},"a" : 1} '),
        answer("data is null", '{"data":null,"a":1.0}', '{"data":{"session":@},"a":1.0}'),
        answer("data is empty", '{"data":{}}', '{"data":{"session":@}}'),
        answer("data has members", '{"data":{"x":1}}', '{"data":{"session":@,"x":1}}'),
        answer("the application's own object", '{"data":{"x":1,"session":{"own":1},"y":2}}', '{"data":{"x":1,"session":@,"y":2}}'),
        answer("null there", '{"data":{"session":null}}', '{"data":{"session":@}}'),
        answer("an escaped name", '{"d\\u0061ta":{"sess\\u0069on":7}}', '{"d\\u0061ta":{"sess\\u0069on":@}}'),
        answer("untouched", '{"a":1}', '{"data":{"session":@},"a":1}', turn="untouched"),
        answer(
            "a problem of the application's", '{"a":1}', '{"data":{"session":@},"a":1}', kind="application/problem+json", status=404
        ),
        answer("with parameters, in other letters", "{}", '{"data":{"session":@}}', kind="Application/JSON; charset=utf-8"),
        answer("none came in", '{"a":1}', '{"a":1}', turn="none"),
        answer(
            "none came in: an object of the application's",
            '{"data":{"session":{"own":1}}}',
            '{"data":{"session":null}}',
            turn="none",
        ),
        answer(
            "none came in: an envelope of somebody else's",
            '{"data":{"session":{"dcaf":{"token":"x"}}}}',
            '{"data":{"session":null}}',
            turn="none",
        ),
        answer("none came in: what is no object", '{"data":{"session":"sid-7"}}', '{"data":{"session":"sid-7"}}', turn="none"),
        answer(
            "none came in: elsewhere",
            '{"session":{"a":1},"x":{"data":{"session":{}}}}',
            '{"session":{"a":1},"x":{"data":{"session":{}}}}',
            turn="none",
        ),
        answer(
            "none came in: twice", '{"data":{"session":1,"session":{"a":1}}}', '{"data":{"session":1,"session":null}}', turn="none"
        ),
        answer(
            "untouched: session twice",
            '{"data":{"session":{},"session":{"a":1}}}',
            '{"data":{"session":null,"session":null}}',
            turn="untouched",
        ),
        answer(
            "untouched: data twice",
            '{"data":{},"data":{"session":{"a":1}}}',
            '{"data":{},"data":{"session":null}}',
            turn="untouched",
        ),
        answer("untouched: NaN", '{"data":{"session":{"a":1}},"n":NaN}', '{"data":{"session":null},"n":NaN}', turn="untouched"),
        answer("untouched: a list", "[1, 2]", "[1, 2]", turn="untouched"),
        answer("untouched: a text", "hello", "hello", kind="text/plain", turn="untouched"),
        answer("500", '{"a":1}', '{"a":1}', status=500),
        answer("500: an object of the application's", '{"data":{"session":{"a":1}}}', '{"data":{"session":null}}', status=500),
        answer("changed: a list", "[]", None),
        answer("changed: data is a list", '{"data":[]}', None),
        answer("changed: data twice", '{"data":{},"data":{}}', None),
        answer("changed: session twice", '{"data":{"session":1,"session":2}}', None),
        answer("changed: NaN", '{"a":NaN}', None),
        answer("changed: a text", "{}", None, kind="text/plain"),
        answer("changed: no type", "{}", None, kind=None),
        answer("changed: another type of JSON's name", "{}", None, kind="text/json"),
    ]


def stream(name: str, kind: str, text: str, client: str, *, turn: str = "changed") -> Vector:
    """A whole stream of the application, and what the client gets. The turn is as of an answer."""
    return {"name": f"{kind}: {name}", "turn": turn, "kind": kind, "stream": text, "client": client}


def streams() -> list[Vector]:
    """Streams, each the whole of what the application sends, and the whole of what the client gets."""
    lines = [
        ("done", '{"a":1}\n{"type":"done"}\n', '{"a":1}\n{"data":{"session":@},"type":"done"}\n'),
        ("done with data", '{"type":"done","data":{"x":1}}\n', '{"type":"done","data":{"session":@,"x":1}}\n'),
        ("done twice", '{"type":"done"}\n' * 2, '{"data":{"session":@},"type":"done"}\n' * 2),
        ("no line feed at the end", '{"type":"done"}', '{"data":{"session":@},"type":"done"}'),
        ("no terminal event", '{"a":1}\n', f'{{"a":1}}\n{OWN}\n'),
        ("no terminal event and no line feed", '{"a":1}', f'{{"a":1}}\n{OWN}\n'),
        ("[DONE]", '{"a":1}\n[DONE]\n', f'{{"a":1}}\n{OWN}\n[DONE]\n'),
        ("data that has no room", '{"type":"done","data":[]}\n', f'{OWN}\n{{"type":"done","data":[]}}\n'),
        ("an escaped type", '{"type":"d\\u006fne"}\n', '{"data":{"session":@},"type":"d\\u006fne"}\n'),
        ("a carriage return before the line feed", '{"type":"done"}\r\n', '{"data":{"session":@},"type":"done"}\r\n'),
        ("nothing", "", f"{OWN}\n"),
        ("no JSON", "hello\n", f"hello\n{OWN}\n"),
        (
            "the application's own in the terminal event",
            '{"type":"done","data":{"session":{"a":1}}}\n',
            '{"type":"done","data":{"session":@}}\n',
        ),
        (
            "the application's own in another event",
            '{"type":"x","data":{"session":{"a":1}}}\n{"type":"done"}\n',
            '{"type":"x","data":{"session":null}}\n{"data":{"session":@},"type":"done"}\n',
        ),
        (
            "session twice",
            '{"type":"done","data":{"session":1,"session":{"a":1}}}\n',
            f'{OWN}\n{{"type":"done","data":{{"session":null,"session":null}}}}\n',
        ),
        (
            "data twice",
            '{"type":"done","data":{},"data":{"session":{}}}\n',
            f'{OWN}\n{{"type":"done","data":{{}},"data":{{"session":null}}}}\n',
        ),
        ("NaN", '{"type":"x","n":NaN,"data":{"session":{"a":1}}}\n', f'{{"type":"x","n":NaN,"data":{{"session":null}}}}\n{OWN}\n'),
        (
            "a line in a line",
            'x\r{"type":"done","data":{"session":{"a":1}}}\n',
            f'x\r{{"type":"done","data":{{"session":null}}}}\n{OWN}\n',
        ),
        (
            "in a string",
            '{"type":"x","text":"{\\"data\\":{\\"session\\":1}}"}\n',
            f'{{"type":"x","text":"{{\\"data\\":{{\\"session\\":1}}}}"}}\n{OWN}\n',
        ),
    ]
    events = [
        ("named done", "event: done\ndata: {}\n\n", 'event: done\ndata: {"data":{"session":@}}\n\n'),
        ("a type", 'data: {"type":"done"}\n\n', 'data: {"data":{"session":@},"type":"done"}\n\n'),
        ("done without data", "event: done\n\n", f"{EVENT}event: done\n\n"),
        ("no terminal event", "data: 1\n\n", f"data: 1\n\n{EVENT}"),
        ("[DONE]", "data: 1\n\ndata: [DONE]\n\n", f"data: 1\n\n{EVENT}data: [DONE]\n\n"),
        ("no empty line at the end", 'data: 1\n\ndata: {"type":"done"}', f'data: 1\n\n{EVENT}data: {{"type":"done"}}'),
        ("carriage returns", "event: done\rdata: {}\r\r", 'event: done\rdata: {"data":{"session":@}}\r\r'),
        ("several data lines", 'data: {"type":\ndata: "done"}\n\n', 'data: {"data":{"session":@},"type":\ndata: "done"}\n\n'),
        ("comments", ": ping\n\nevent: done\ndata: {}\n\n", ': ping\n\nevent: done\ndata: {"data":{"session":@}}\n\n'),
        (
            "the application's own in another event",
            'data: {"data":{"session":{"a":1}}}\n\nevent: done\ndata: {}\n\n',
            'data: {"data":{"session":null}}\n\nevent: done\ndata: {"data":{"session":@}}\n\n',
        ),
        (
            "session twice",
            'event: done\ndata: {"data":{"session":1,"session":{"a":1}}}\n\n',
            f'{EVENT}event: done\ndata: {{"data":{{"session":null,"session":null}}}}\n\n',
        ),
        (
            "a data line of its own",
            'data: hello\ndata: {"data":{"session":{"a":1}}}\n\n',
            f'data: hello\ndata: {{"data":{{"session":null}}}}\n\n{EVENT}',
        ),
        (
            "the application's own, and no empty line",
            'data: 1\n\ndata: {"data":{"session":{"a":1}}}',
            f'data: 1\n\n{EVENT}data: {{"data":{{"session":null}}}}',
        ),
    ]
    passing = [
        stream(
            "nothing came in and nothing was stored",
            "lines",
            '{"type":"done","data":{"x":1}}\n[DONE]\nx',
            '{"type":"done","data":{"x":1}}\n[DONE]\nx',
            turn="none",
        ),
        stream(
            "none came in: the application's own",
            "lines",
            '{"type":"done","data":{"session":{"a":1}}}\n',
            '{"type":"done","data":{"session":null}}\n',
            turn="none",
        ),
        stream(
            "nothing came in and nothing was stored",
            "events",
            "event: done\ndata: {}\n\n",
            "event: done\ndata: {}\n\n",
            turn="none",
        ),
    ]
    of_lines = [stream(name, "lines", text, client) for name, text, client in lines]
    return [*of_lines, *(stream(name, "events", text, client) for name, text, client in events), *passing]


def files() -> dict[str, bytes]:
    """Every file of these vectors, by name."""
    sealed = Sealed("wire", "dcaf1s")
    head = {"keys": [FIRST.text()], "audience": sealed.claims["aud"], "now": NOW, "token": sealed.token(STATE), "state": STATE}
    made = {"bodies.json": bodies(), "answers.json": answers(), "streams.json": streams()}
    return {name: written({**head, "vectors": found}) for name, found in made.items()}


def written(value: Any) -> bytes:
    """A file, a vector a line."""
    lines = ",\n".join(compact(vector) for vector in value["vectors"])
    head = json.dumps({key: item for key, item in value.items() if key != "vectors"}, ensure_ascii=False)
    return f'{head[:-1]}, "vectors": [\n{lines}\n]}}\n'.encode()


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)
        sys.stdout.write(f"wrote {name}\n")
