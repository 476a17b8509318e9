"""Lines that look like the end of a turn and bring a session of somebody else, in every spelling that some client may read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DEEP = 1_500
DIGITS = "9" * 6_000
CUT = {"u2028": "\u2028", "u2029": "\u2029", "x0b": "\x0b", "x0c": "\x0c", "x1c": "\x1c", "x1e": "\x1e", "x85": "\x85"}


def done(inside: str, kind: str = '"type":"done"') -> str:
    return f"{{{kind},{inside}}}"


def after(mark: str) -> Callable[[str], str]:
    """A line that begins after what some reader takes for the end of one."""
    return lambda e: f"hello{mark}" + done(f'"data":{{"session":{e}}}')


def encoded(encoding: str) -> Callable[[str], bytes]:
    return lambda e: done(f'"data":{{"session":{e}}}').encode(encoding)


TEXTS: dict[str, Callable[[str], str]] = {
    "said once": lambda e: done(f'"data":{{"session":{e}}}'),
    "session twice": lambda e: done(f'"data":{{"session":1,"session":{e}}}'),
    "session twice, ours first": lambda e: done(f'"data":{{"session":{e},"session":1}}'),
    "session after null": lambda e: done(f'"data":{{"session":null,"session":{e}}}'),
    "session before null": lambda e: done(f'"data":{{"session":{e},"session":null}}'),
    "session three times": lambda e: done(f'"data":{{"session":{{}},"session":{e},"x":1,"session":{e}}}'),
    "data twice": lambda e: done(f'"data":{{}},"data":{{"session":{e}}}'),
    "data twice, the other way": lambda e: done(f'"data":{{"session":{e}}},"data":{{}}'),
    "data after a list": lambda e: done(f'"data":[],"data":{{"session":{e}}}'),
    "data before a list": lambda e: done(f'"data":{{"session":{e}}},"data":[]'),
    "data before null": lambda e: done(f'"data":{{"session":{e}}},"data":null'),
    "data three times": lambda e: done(f'"data":{{"session":{e}}},"data":{{"session":{e}}},"data":{{"session":{e}}}'),
    "type twice": lambda e: done(f'"data":{{"session":{e}}}', '"type":"x","type":"done"'),
    "type twice, the other way": lambda e: done(f'"data":{{"session":{e}}}', '"type":"done","type":"x"'),
    "type last": lambda e: f'{{"data":{{"session":{e}}},"type":"done"}}',
    "no type": lambda e: f'{{"data":{{"session":{e}}}}}',
    "another type": lambda e: done(f'"data":{{"session":{e}}}', '"type":"text_delta","text":"hi"'),
    "the type of a checkpoint": lambda e: done(f'"data":{{"session":{e}}}', '"type":"session"'),
    "an error": lambda e: done(f'"data":{{"session":{e}}}', '"type":"error","code":"x"'),
    "dcaf twice": lambda e: done(f'"data":{{"session":{{"dcaf":{{"token":"x"}},{e[1:]}}}'),
    "escaped session": lambda e: done(f'"data":{{"\\u0073ession":{e}}}'),
    "escaped everywhere": lambda e: done(f'"d\\u0061ta":{{"se\\u0073sio\\u006E":{e}}}', '"t\\u0079pe":"d\\u006fne"'),
    "escaped twice": lambda e: done(f'"data":{{"\\u0073ession":1,"sess\\u0069on":{e}}}'),
    "escaped data, plain data": lambda e: done(f'"data":{{}},"d\\u0061t\\u0061":{{"session":{e}}}'),
    "white space": lambda e: f' \t{{ "type" : "done" ,\t"data" : {{ "session" : {e} }} }} \t',
    "carriage returns between": lambda e: f'{{"type":"done",\r"data":{{"session":\r{e}}}}}',
    "a carriage return at the end": lambda e: done(f'"data":{{"session":{e}}}') + "\r",
    "after a carriage return": lambda e: "hello\r" + done(f'"data":{{"session":{e}}}'),
    "in an array, on a line of its own": lambda e: '{"x":[\r' + done(f'"data":{{"session":{e}}}') + "\r]}",
    "NaN": lambda e: done(f'"data":{{"session":{e}}},"score":NaN'),
    "infinities": lambda e: done(f'"data":{{"session":{e},"x":[-Infinity,Infinity]}}'),
    "an overflow": lambda e: done(f'"data":{{"session":{e}}},"x":1e999'),
    "minus zero": lambda e: done(f'"data":{{"x":-0,"session":{e}}}'),
    "a lone surrogate": lambda e: done(f'"data":{{"session":{e}}},"text":"\\ud800"'),
    "a lone surrogate in a name": lambda e: done(f'"data":{{"\\udfff":1,"session":{e}}}'),
    "a huge integer": lambda e: done(f'"data":{{"session":{e}}},"n":{DIGITS}'),
    "a huge fraction": lambda e: done(f'"data":{{"session":{e}}},"n":1.{DIGITS}'),
    "a byte order mark": lambda e: "\ufeff" + done(f'"data":{{"session":{e}}}'),
    "NUL before": lambda e: "\0" + done(f'"data":{{"session":{e}}}'),
    "a mark inside a name": lambda e: done(f'"data":{{"\ufeffsession":1,"session":{e}}}'),
    "deep beside": lambda e: done(f'"data":{{"session":{e}}},"x":{"[" * DEEP}{"]" * DEEP}'),
    "deep before": lambda e: done(f'"x":{"[" * DEEP}{"]" * DEEP},"data":{{"session":{e}}}'),
    "deep and twice": lambda e: done(f'"data":{{"x":{"[" * 300}{"]" * 300},"session":1,"session":{e}}}'),
    "two objects": lambda e: done('"data":{}') + done(f'"data":{{"session":{e}}}'),
    "a comma too many": lambda e: done(f'"data":{{"session":{e}}},'),
    "single quotes": lambda e: "{'type':'done','data':{'session':" + e + "}}",
    "in an array": lambda e: "[" + done(f'"data":{{"session":{e}}}') + "]",
    "in a list of data": lambda e: done(f'"data":[{{"session":{e}}}]'),
    "in a string": lambda e: done('"data":' + json.dumps(json.dumps({"session": json.loads(e)}))),
    "__proto__": lambda e: done(f'"__proto__":{{"data":{{"session":{e}}}}}'),
    "[DONE] before": lambda e: "[DONE]\r" + done(f'"data":{{"session":{e}}}'),
    "a field's name before": lambda e: "data: " + done(f'"data":{{"session":{e}}}'),
    "too long": lambda e: done(f'"text":"{"x" * 20_000}","data":{{"session":1,"session":{e}}}'),
    "too long, and the name at the cut": lambda e: done(f'"t":"{"x" * 16_350}","data":{{"session":{e}}},"u":"{"x" * 9_000}"'),
    **{f"after {name}": after(mark) for name, mark in CUT.items()},
}
"""Name -> what a careless application makes a line, an event's data or a frame of; given the planted session as JSON."""

EVENTS: dict[str, Callable[[str], str]] = {
    "several data lines": lambda e: f'data: {{"type":"done",\ndata: "data":{{"session":1,\ndata:"session":{e}}}}}\n\n',
    "fields between": lambda e: f'data: {{"data":{{"session":1,\nid: 7\nretry: 9\nevent: done\ndata: "session":{e}}}}}\n\n',
    "no space": lambda e: f'event:done\ndata:{{"data":{{}},"data":{{"session":{e}}}}}\n\n',
    "two names": lambda e: f'event: done\nevent: x\ndata: {{"data":{{"session":1,"session":{e}}}}}\n\n',
    "carriage returns": lambda e: f'event: done\rdata: {{"data":{{"session":{e}}}}}\r\r',
    "mixed ends": lambda e: f'event: done\r\ndata: {{"data":{{"session":1,"session":{e}}}}}\n\r\n',
    "a line of two data lines": lambda e: f'data: hello\ndata: {{"type":"done","data":{{"session":{e}}}}}\n\n',
    "a field after a space": lambda e: f' data: {{"type":"done","data":{{"session":{e}}}}}\n\n',
    "a line without a field": lambda e: f'{{"type":"done","data":{{"session":{e}}}}}\n\n',
    "a comment": lambda e: f': {{"type":"done","data":{{"session":{e}}}}}\n\n',
    "no empty line after it": lambda e: f'data: {{"type":"done","data":{{"session":{e}}}}}',
    "no line end after it": lambda e: f'data: {{"type":"done","data":{{"session":{e}}}}}\n: ping',
    "a mark before a field": lambda e: f'\ufeffdata: {{"type":"done","data":{{"session":{e}}}}}\n\n',
    "an empty data line first": lambda e: f'data\ndata: {{"type":"done","data":{{"session":1,"session":{e}}}}}\n\n',
}
"""What a careless application lets into a stream of server-sent events as it is."""

ENCODINGS = ("utf-16-le", "utf-16-be", "utf-16", "utf-32-le", "utf-32-be", "utf-32", "utf-8-sig")
EVIL_BYTES: dict[str, Callable[[str], bytes]] = {
    **{name: encoded(name) for name in ENCODINGS},
    "bytes that are no UTF-8": lambda e: done(f'"x":"\xff","data":{{"session":1,"session":{e}}}').encode("latin-1"),
    "a surrogate in UTF-8": lambda e: done(f'"x":"\ud800","data":{{"session":1,"session":{e}}}').encode(errors="surrogatepass"),
    "an overlong letter": lambda e: done(f'"x":"@","data":{{"session":1,"session":{e}}}').encode().replace(b"@", b"\xc1\x81"),
}
"""The same as bytes, for lines and binary frames."""


def spellings(wire: str, planted: Any) -> dict[str, bytes]:
    """Every spelling that a wire can bring, whole: with the line end, the event's fields, or as a frame's bytes."""
    text = json.dumps(planted)
    found = {name: made(text).encode(errors="surrogatepass") for name, made in TEXTS.items()}
    if wire == "text frames":
        return found
    found |= {name: made(text) for name, made in EVIL_BYTES.items()}
    if wire == "binary frames":
        return found
    if wire == "lines":
        return {name: line + b"\n" for name, line in found.items()} | {"no line end": done(f'"data":{{"session":{text}}}').encode()}
    raw = {name: made(text).encode() for name, made in EVENTS.items()}
    return {name: b"data: " + line + b"\n\n" for name, line in found.items()} | raw
