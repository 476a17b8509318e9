"""Answers, whole and streamed, with the bytes that the client gets: when a session rests, what is sealed, and where it stands."""

from __future__ import annotations

from typing import Any, Final

from tests.vectors.about import EXCHANGE
from tests.vectors.make_vectors import FIRST, LIFE, NOW, SECOND
from tests.vectors.making import OK, STATE, answer, came, turn, written
from tests.vectors.play import Vector

BODY: Final = '{"data":{"session":@}}'
READ: Final = '{"data":{"session":%}}'
CARRIED: Final = '{"data":{"session":@},"ok":true}'
THREE: Final = '{"wizard_step":3}'
STEP: Final = ["set", "wizard_step", 3]
TENTH: Final = LIFE.idle_s // 10
LARGE: Final = '{"a":"' + "x" * 1_500 + '","b":"' + "é" * 1_000 + '","c":[1,2.5,null]}'
PLAIN: Final = {"plain": ["/api/chat"]}
LINES: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"
OWN: Final = '{"type":"session","data":{"session":@}}'
NAMED: Final = f"event: session\ndata: {OWN}\n\n"


def of(name: str, client: str | None, *acts: Any, **more: Any) -> Vector:
    """A session came in at the top; the application does some acts and answers."""
    return turn(name, BODY, client, **{"application": READ, "acts": [*acts, *more.pop("answers", OK)], **more})


def fresh(name: str, client: str | None, *acts: Any, **more: Any) -> Vector:
    """None came in."""
    found = {"candidate": None, "acts": [*acts, *more.pop("answers", OK)], **more}
    return turn(name, "{}", client, **found)


def sealing() -> list[Vector]:
    """When a token rests, and what is sealed."""
    no_store = [["cache-control", "no-store"]]
    return [
        of("untouched, it rests", CARRIED, states=[STATE], out=no_store),
        of("read, it rests", CARRIED, ["read", "wizard_step"], states=[STATE]),
        of("set to what it was, it rests", CARRIED, ["set", "wizard_step", 2], states=[STATE]),
        of("changed and changed back, it rests", CARRIED, STEP, ["set", "wizard_step", 2], states=[STATE]),
        of("at a tenth of the idle timeout it rests", CARRIED, token=came(iat=NOW - TENTH, born=NOW - TENTH), states=[STATE]),
        of(
            "a second after it is sealed anew, with the number that it had",
            CARRIED,
            token=came(iat=NOW - TENTH - 1, born=NOW - TENTH - 1, seq=7),
            states=[STATE],
        ),
        of(
            "sealed by a key that only verifies, it is sealed anew",
            CARRIED,
            service={"keys": [SECOND.text(), FIRST.text()]},
            states=[STATE],
        ),
        of("changed, it has the next number", CARRIED, STEP, token=came(seq=41), states=[THREE]),
        of("the end is that of the absolute timeout", CARRIED, STEP, token=came(born=NOW - LIFE.absolute_s + 100), states=[THREE]),
        of("cleared", CARRIED, ["clear"], states=["{}"]),
        of("a key is deleted, and another added", CARRIED, ["delete", "wizard_step"], ["set", "b", [1]], states=['{"b":[1]}']),
        of("what lives for a turn is not sealed", CARRIED, ["set", "temp:x", 1], states=[STATE]),
        of(
            "the library's own member stays when the state is cleared",
            CARRIED,
            ["clear"],
            ["set", "a", 1],
            application=f'{{"data":{{"session":{STATE}}}}}',
            reads=STATE,
            token=came('{"wizard_step":2,"dcaf":{"used":["k1"]}}'),
            states=['{"a":1,"dcaf":{"used":["k1"]}}'],
        ),
        _values(),
        of("a schema of the service's own", CARRIED, STEP, token=came(sv=3), service={"version": 3}, states=[THREE]),
        of("an index, where the members are large", CARRIED, ["set", "n", 1], token=came(LARGE), states=[LARGE[:-1] + ',"n":1}']),
        of("a mirror of one key", CARRIED, ["set", "b", 2], service={"mirror": ["b"]}, states=['{"wizard_step":2,"b":2}']),
        of("no mirror", CARRIED, ["set", "b", 2], service={"mirror": False}, states=['{"wizard_step":2,"b":2}']),
        of(
            "encrypted, it rests",
            CARRIED,
            application='{"data":{"session":{}}}',
            token=came(suite="dcaf1e"),
            service={"encrypt": True},
            states=[STATE],
        ),
        fresh("a new session", '{"data":{"session":@},"ok":true}', ["set", "a", 1], states=['{"a":1}'], out=no_store),
        fresh(
            "a new session of somebody, in a conversation",
            CARRIED,
            ["set", "a", 1],
            states=['{"a":1}'],
            service={"subject": "ada", "conversation": "/thread_id"},
        ),
        fresh("nothing was stored", '{"ok":true}', states=[]),
        fresh("a look at a session that is none is not to be stored", '{"ok":true}', ["read", "a"], states=[], out=no_store),
    ]


def _values() -> Vector:
    numbers = '"big":9007199254740992,"edge":9007199254740991,"whole":1.0,"nothing":null'
    state = f'{{{numbers},"text":"é\\"\\\\\\n\u2028😀/","10":true,"2":{{"b":[],"a":{{}}}}}}'
    acts = [["set", "big", 2**53], ["set", "edge", 2**53 - 1], ["set", "whole", 1.0], ["set", "nothing", None]]
    acts += [["set", "text", 'é"\\\n\u2028😀/'], ["set", "10", True], ["set", "2", {"b": [], "a": {}}]]
    return fresh(
        "values of each kind", CARRIED, *acts, states=[state], service={"mirror": ["big", "edge", "whole", "nothing", "text", "10"]}
    )


def placing() -> list[Vector]:
    """Where the session stands, and what cannot carry it."""
    own = answer('{"data":{"session":{"own":1}},"n":1}')
    digests = [["etag", '"1"'], ["content-md5", "x"], ["digest", "x"], ["content-digest", "x"], ["repr-digest", "x"]]
    return [
        of("in several parts", '{"data":{"session":@},"ok":true}', STEP, answers=answer('{"o', 'k":tr', "ue}"), states=[THREE]),
        of("data has members", '{"data":{"session":@,"x":1},"n":2}', STEP, answers=answer('{"data":{"x":1},"n":2}')),
        of("data is null", '{"data":{"session":@}}', STEP, answers=answer('{"data":null}')),
        of("the application's own is overwritten", '{"data":{"session":@},"n":1}', STEP, answers=own, states=[THREE]),
        of(
            "digests are gone",
            CARRIED,
            STEP,
            answers=answer('{"ok":true}', headers=[*digests, ["x-other", "y"]]),
            out=[["x-other", "y"]],
        ),
        of(
            "it may be stored no more",
            CARRIED,
            answers=answer('{"ok":true}', headers=[["cache-control", "public, max-age=60"]]),
            out=[["cache-control", "no-store"]],
        ),
        of("of another type of JSON", CARRIED, STEP, answers=answer('{"ok":true}', kind="application/vnd.x+json;v=1")),
        of("404", CARRIED, STEP, answers=answer('{"ok":true}', status=404), status=404),
        of("500", '{"ok":true}', STEP, answers=answer('{"ok":true}', status=500), status=500, states=[]),
        of("the application fails", None, STEP, answers=[["fail"]], states=[], raised="BrokenError"),
        of("204", "", answers=answer("", status=204, kind=None), status=204, states=[]),
        of(
            "a text, untouched", "hello", answers=answer("hello", kind="text/plain"), states=[], out=[["cache-control", "no-store"]]
        ),
        of("a text, changed", None, STEP, answers=answer("hello", kind="text/plain"), raised="NotCarriedError"),
        of("a list, changed", None, STEP, answers=answer("[1]"), raised="NotCarriedError"),
        of("to HEAD, untouched", '{"ok":true}', method="HEAD", states=[]),
        of("to HEAD, changed", None, STEP, method="HEAD", raised="NotCarriedError"),
        of("a part, changed", None, STEP, answers=answer('{"ok":true}', status=206), raised="NotCarriedError"),
        of("encoded, untouched", "{}", answers=answer("{}", headers=[["content-encoding", "gzip"]]), states=[]),
        of("encoded, changed", None, STEP, answers=answer("{}", headers=[["content-encoding", "gzip"]]), raised="NotCarriedError"),
        of("over the limit, untouched", '{"ok":true}', service={"max_response_bytes": 10}, states=[]),
        of("over the limit, changed", None, STEP, service={"max_response_bytes": 10}, raised="NotCarriedError"),
    ]


def adopting() -> list[Vector]:
    """Routes on which the application's own object is the new state."""

    def plain(name: str, client: str, text: str, *acts: Any, **more: Any) -> Vector:
        return of(name, client, *acts, **{"answers": answer(text, status=more.get("status", 200)), "service": PLAIN, **more})

    def session(text: str) -> str:
        return f'{{"data":{{"session":{text}}}}}'

    carried = session("@")
    return [
        plain("an object is the new state", carried, session('{"b":1,"a":1.0}'), states=['{"b":1,"a":1.0}']),
        plain("an empty object clears", carried, session("{}"), states=["{}"]),
        plain("null leaves", carried, session("null"), states=[STATE]),
        plain("absent leaves", '{"data":{"session":@},"n":1}', '{"n":1}', states=[STATE]),
        plain("one with dcaf is not adopted", carried, session('{"b":1,"dcaf":{"token":"x"}}'), states=[STATE]),
        plain("the Session counts where it was modified", carried, session('{"b":1}'), STEP, states=[THREE]),
        plain("only with 2xx", carried, session('{"b":1}'), status=404, states=[STATE]),
        plain("what came in is the state", carried, session(STATE), states=[STATE]),
        fresh("nothing came in", carried, answers=answer(session('{"b":1}')), service=PLAIN, states=['{"b":1}']),
    ]


def streaming() -> list[Vector]:
    """Streams, with what the application does between its parts."""

    def lines(name: str, client: str, *acts: Any, **more: Any) -> Vector:
        found = {"application": READ, "acts": [["start", 200, [["content-type", LINES]]], *acts], **more}
        return turn(f"NDJSON: {name}", BODY, client, **found)

    def events(name: str, client: str, *acts: Any, **more: Any) -> Vector:
        found = {"application": READ, "acts": [["start", 200, [["content-type", f"{EVENTS}; charset=utf-8"]]], *acts], **more}
        return turn(f"SSE: {name}", BODY, client, **found)

    done, carried = '{"type":"done"}\n', '{"data":{"session":@},"type":"done"}\n'
    sent, failed = ["send", '{"type":"token"}\n'], '{"type":"error","code":"internal-error"}'
    four = '{"wizard_step":4}'
    return [
        lines(
            "changed before the terminal event", '{"type":"token"}\n' + carried, sent, STEP, ["send", done], ["end"], states=[THREE]
        ),
        lines("untouched", carried, ["send", done], ["end"], states=[STATE], out=[["cache-control", "no-store"]]),
        lines(
            "cut in the middle of an event",
            carried,
            STEP,
            ["send", '{"ty'],
            ["send", 'pe":"done'],
            ["send", '"}\n'],
            ["end"],
            states=[THREE],
        ),
        lines(
            "changed between two terminal events",
            carried * 2,
            STEP,
            ["send", done],
            ["set", "wizard_step", 4],
            ["send", done],
            ["end"],
            states=[THREE, four],
        ),
        lines("changed after the terminal event", f"{carried}{OWN}\n", ["send", done], STEP, ["end"], states=[STATE, THREE]),
        lines(
            "a checkpoint",
            f'{{"type":"token"}}\n{OWN}\n{carried}',
            sent,
            STEP,
            ["checkpoint"],
            ["send", done],
            ["end"],
            states=[THREE],
        ),
        lines(
            "two checkpoints, and no change between them",
            f"{OWN}\n{OWN}\n",
            STEP,
            ["checkpoint"],
            ["checkpoint"],
            ["set", "wizard_step", 4],
            ["checkpoint"],
            ["end"],
            states=[THREE, four],
        ),
        lines(
            "the application fails in the middle of an event",
            f'{{"type":"token"}}\n{failed}\n',
            sent,
            STEP,
            ["send", '{"type":'],
            ["fail"],
            states=[],
            raised="BrokenError",
            breaks_off=True,
        ),
        lines(
            "a sealed session of somebody else's",
            f'{{"data":{{"session":null}}}}\n{OWN}\n',
            ["send", '{"data":{"session":@}}\n'.replace("@", '{"dcaf":{"token":"planted"}}')],
            ["end"],
            states=[STATE],
        ),
        lines(
            "an event over the limit",
            f'{{"type":"done","x":"{"y" * 40}"}}\n{OWN}\n',
            ["send", f'{{"type":"done","x":"{"y" * 40}"}}\n'],
            ["end"],
            service={"max_response_bytes": 40},
            states=[STATE],
        ),
        lines(
            "on a plain route",
            '{"data":{"session":{"b":1}},"type":"token"}\n{"type":"done","data":{"session":@}}\n',
            ["send", '{"data":{"session":{"b":1}},"type":"token"}\n'],
            ["send", '{"type":"done","data":{"session":{"c":1}}}\n'],
            ["end"],
            service=PLAIN,
            states=['{"c":1}'],
        ),
        events(
            "changed before the terminal event",
            'data: 1\n\nevent: done\ndata: {"data":{"session":@}}\n\n',
            ["send", "data: 1\n\n"],
            STEP,
            ["send", "event: done\ndata: {}\n\n"],
            ["end"],
            states=[THREE],
        ),
        events(
            "a checkpoint",
            f'{NAMED}data: {{"data":{{"session":@}},"type":"done"}}\n\n',
            STEP,
            ["checkpoint"],
            ["send", 'data: {"type":"done"}\n\n'],
            ["end"],
            states=[THREE],
        ),
        events(
            "id, retry and comments stay",
            'retry: 9\n: ping\nid: 7\nevent: done\ndata: {"data":{"session":@}}\n\n',
            ["send", "retry: 9\n: ping\nid: 7\nevent: done\ndata: {}\n\n"],
            ["end"],
            states=[STATE],
        ),
        events("a byte order mark", f"\ufeffdata: 1\n\n{NAMED}", ["send", "\ufeffdata: 1\n\n"], ["end"], states=[STATE]),
        events(
            "[DONE]",
            f"data: 1\n\n{NAMED}data: [DONE]\n\n",
            ["send", "data: 1\n\n"],
            ["send", "data: [DONE]\n\n"],
            ["end"],
            states=[STATE],
        ),
        events(
            "changed after the terminal event",
            f'event: done\ndata: {{"data":{{"session":@}}}}\n\n{NAMED}',
            ["send", "event: done\ndata: {}\n\n"],
            STEP,
            ["end"],
            states=[STATE, THREE],
        ),
        events(
            "the application fails in the middle of an event",
            f"data: 1\n\nevent: error\ndata: {failed}\n\n",
            ["send", "data: 1\n\n"],
            ["send", "data: 2"],
            ["fail"],
            states=[],
            raised="BrokenError",
            breaks_off=True,
        ),
        events(
            "more depth than is read ends it",
            'event: error\ndata: {"type":"error","code":"malformed-json"}\n\n',
            ["send", "data: " + '{"data":{"session":' + "[" * 3000 + "]" * 3000 + "}}\n\n"],
            ["send", "data: 2\n\n"],
            ["end"],
            states=[],
        ),
        turn(
            "a stream that is encoded passes",
            BODY,
            "data: 1\n\n",
            application=READ,
            acts=answer("data: 1\n\n", kind=EVENTS, headers=[["content-encoding", "gzip"]]),
            states=[],
        ),
        turn(
            "a stream with 500 passes",
            BODY,
            done,
            application=READ,
            acts=[STEP, *answer(done, kind=LINES, status=500)],
            status=500,
            states=[],
        ),
        turn(
            "a stream with 404 carries",
            BODY,
            carried,
            application=READ,
            acts=[STEP, *answer(done, kind=LINES, status=404)],
            status=404,
            states=[THREE],
        ),
    ]


def files() -> dict[str, bytes]:
    """The files of these vectors."""
    return {
        "responses.json": written(EXCHANGE, [*sealing(), *placing(), *adopting()]),
        "events.json": written(EXCHANGE, streaming()),
    }
