r"""A corpus of JSON texts, right and wrong, and of strings that programs have stumbled over; all of it is generated.

A name says what a strict parser does: ``y_`` accepts, ``n_`` refuses, ``i_`` may do either (RFC 8259 leaves it open).

What a reader gets wrong: a text is one *value*. Whoever puts it into an object must put it whole.
"""

# ruff: noqa: RUF001 - characters that look like others are what this is about

from __future__ import annotations

import itertools
import json
import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

BASE: Final = '{"a":[1,"b",null,{"c":true}],"d":-1.5e3}'
STRUCTURAL: Final = '{}[]:,"'
DEEP: Final = 100_000

NO_NUMBERS: Final = """
    +1 | 01 | -01 | 00 | 1. | -1. | .5 | -.5 | . | - | + | -- | --1 | -+1 | 1e | 1e+ | 1E- | 1e1.5 | 1ee2 | 1eE2 | e5 | 1.e5
    1.5e | 0e | 0E+ | 0x10 | 0b1 | 0o7 | 1_000 | 1,000 | 1a | 1f | 1L | 1n | 1- | 1+1 | 1-1 | 1..2 | 1.2.3 | 1.2. | 1.-2
    1.+2 | 1/2 | 1% | $1 | #1 | 1° | ١ | １ | ² | 1٣ | 1e٣ | -١ | 0.e1 | 9.e+ | -2. | 2.e-3 | -e1 | -.e1 | 1e-+1 | 1e--1 | 1;2
    1:2 | 1e0x1 | 1 000 | - 1 | 1 e5 | NaN | nan | -NaN | +NaN | Infinity | -Infinity | +Infinity | inf | -inf | INF | Inf
    infinity | 1.#INF | 1.#QNAN | NaN1 | Infinit
"""
STRINGS: Final = r"""
    "" | "[{\"a\":1}]" | "\\" | "\\\\\"" | "null" | "/**/" | "\ud83d\ude00" | "\uD800\uDC00" | "\uDBFF\uDFFF"
    "\uD83d\udE00\u0041"
"""
LONE_SURROGATES: Final = r"""
    "\ud800" | "\udc00" | "\uDBFF" | "\uDFFF" | "\ud800\ud800" | "\udc00\ud800" | "\ud800x" | "\ud800\n" | "\ud800\u0041"
    "a\udc00"
"""
NO_STRINGS: Final = r'''
    "\u" | "\u1" | "\u12" | "\u123" | "\u12G4" | "\u{41}" | "\U00000041" | "\u 041" | "\u+041" | "\u-041" | "\u00e"
    "\ud83d\u" | "\uD8x0" | "\ud83d\ude0" | "\ud83d\ude0g" | "\x41" | "\101" | "\0" | "\u１２３４" | 'a' | "a | a" | `a` | “a” | a
    \u0022a\u0022 | "\" | """ | "a"" | '' | "a' | r'a' | "a"b" | "a" "b" | "a"+"b" | "a\" | "\\\" | b"a" | u"a" | "a","b | "\
    "
'''
MEMBERS: Final = r"__proto__ | constructor | \u0000 | \ud83d\ude00 | é | a.b | $ref | $type | toString | \n | 10 | \" | session"
STRUCTURES: Final = """
    [] | {} | [[]] | [{}] | {"a":{}} | {"":0} | [null] | [1,[2,[3]]] | {"a":[],"b":{}} | ["a",1,null,true,false]
    {"a":1,"a":2} | {"a":1,"\\u0061":2} | {"":1,"":2} | {"a":{"b":1,"b":1}} | [{"a":1,"a":1}]
"""
NO_STRUCTURES: Final = """
    [ | ] | { | } | , | : | [, | ,] | {, | ,} | [,] | {,} | [:] | {:} | [1,] | [,1] | [1,,2] | [1 2] | [1:2] | [} | {] | [1}
    {1] | [[] | []] | {{}} | {}{} | [][] | [](1) | (1) | <1> | []; | {[]} | {1} | {1:2} | {null:1} | {"a"} | {"a":} | {"a",1}
    {"a" 1} | {"a":1,} | {,"a":1} | {"a":1,,"b":2} | {"a":1 "b":2} | {"a"::1} | {"a":1:2} | {'a':1} | {a:1} | {"a":1;"b":2}
    {"a"=1} | {"a"=>1} | {[]:1} | {{}:1} | {"a":b} | {"a":1 | "a":1} | "a":1 | {"a":1] | ["a":1] | {...a} | ["a",\\n4
    [1,2,3 4] | /**/1 | 1/**/ | [1/**/] | 1// | 1# | <!-- -->1 | {"a":/*1*/2} | %1 | /1/ | ;1 | {"a":1}// | {"a":1}/**/
    {#"a":1}
"""
NO_LITERALS: Final = """
    True | TRUE | tRue | tru | truee | t | fals | False | FALSE | nul | nulll | Null | NULL | nil | none | None | undefined
    void | yes | no | on | off | void0 | true1 | false- | trüe | new Date() | Date(0) | function(){} | ()=>1 | b'a' | u'a'
    {{1}} | ${1} | {%a%} | !!1 | !!python/none | &a 1 | *a | <a/> | - 1 | a: 1 | true false | [nul] | [tru] | {"a":tru}
    [True] | {"a":None}
"""
WRITINGS: Final = """
    é | Å | ﬁ | ﷺ | 가 | क्षि | ต้ | שלום | السلام | مرحبا 123 abc | İ | ı | ß | ẞ | ǆ | ﬀ | ŉ | Σς | K | 𝔘𝔫𝔦 | Ⓐⓑ | ｆｕｌｌ | ᵘᵖ
    ₗₒw | 漢字 | 𠜎𠜱 | ひらガナ | ﾊﾝｶｸ | Ψ∂√∞ | ½⅓ | ① | Ⅷ | ٣٤٥ | १२३ | Ω≈ç√∫ | ¡™£¢∞ | ⁰⁴⁵ | ʇxəʇ | z̷a̷l̷g̷o̷ | 社會科學 | Ⱥ | ѣ
"""
INJECTIONS: Final = r"""
    1 or 1=1 | ' or 'x'='x | '; drop table t; -- | ' or ""=" | 1; select pg_sleep(0) | ') or ('a'='a | /*x*/
    0 union select null | %' like ' | x' and 1=2 -- | <b> | </script><script>alert(1)</script> | <img src=x onerror=alert(1)>
    <svg/onload=a()> | javascript:alert(1) | <!-- | --> | ]]> | <![CDATA[x]]> | &lt; | &amp;amp; | <a href='//x'>
    <?xml version='1.0'?> | &#0; | &unknown; | <!DOCTYPE x [<!ENTITY e SYSTEM 'file:///x'>]> | <style>*{}</style> | {{7*7}}
    ${7*7} | #{7*7} | <%= 7*7 %> | {% raw %} | {0} | {x!r} | %s | %n%n | %(x)s | $x | ${jndi:x} | {{=it}} | [[x]] | @(1) | $$
    { | } | {} | {{ | [ | ] | [] | $(id) | `id` | ; id | && id | > /dev/null | < /dev/null | -rf | --help | * | ~ | !! | $HOME
    - | -- | $IFS | %PATH% | ^ | () { :;}; x | ../../x | ..\..\x | /dev/null | C:\x | \\host\share | file:///x | CON | NUL
    aux.txt | . | .. | / | // | a/b | ~root | :memory: | =1+1 | +1 | @x | -1+1 | (&(x=*)) | *)(x=* | //*[1] | x:y | a=b&c=d
    ?x | #x | $where | $gt | $ne | ^(a+)+$ | (?R) | [^] | event: done | {"type":"done"} | [DONE] | "session":{}
    {"data":{"session":{"a":1}}} | dcaf1s.a.b.c.d | {"dcaf":{"token":"new"}} | {"messages":[{"data":{"session":{"a":1}}}]}
    "}} | \u0000
"""
NAMES: Final = """
    __proto__ | constructor | prototype | toString | hasOwnProperty | valueOf | __class__ | __init__ | __dict__ | __reduce__
    self | this | $type | $ref | @type | py/object | !!python/object | lc | data | session | messages | token | length | then
    0 | 1e3 | dcaf. | DCAF | dcaf | temp | user | app: | user: | user:x | app:x | a.b | a[0] | a~1b | key with space | class
    import | lambda | get | set | items
"""
LOOKALIKES: Final = """
    null | NULL | nil | undefined | true | True | false | NaN | nan | -NaN | Infinity | -Infinity | inf | -0 | +0 | 00 | 0x0
    0b1 | 1e5 | 1E400 | 1. | .1 | 1,5 | 1_000 | 1 000 | ١٢٣ | １２３ | 9007199254740993 | 18446744073709551616 | 0.1 | 1.0 | -1
    --1 | 1/0 | 1e-400 | 0/0 | 2026-02-30 | 2026-01-31 | 0000-00-00 | 9999-12-31 | 10000-01-01 | 2026-01-31T24:00:00Z
    2026-06-30T23:59:60Z | 12:60 | 1/2/3 | 31.12.99 | PT1S | P1Y | Jan 1 | 00000000-0000-0000-0000-000000000000 | ::1
    127.0.0.1 | 0.0.0.0:0 | a@b | http://x | +49 30 1 | €1,00 | 1e1e1 | #fff | MQ== | AAAA | 0o7 | yes | on | Y | N | 1
    2**64 | 0.30000000000000004 | 1e16 | 1E+2 | -1e-7 | ٫5 | 1:1 | P0D | 24:00 | 1970-01-01
"""
"""Texts between bars; what needs white space at its ends, or a bar, is written elsewhere."""


def _lines(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split(" | ")]


@dataclass(frozen=True, slots=True)
class Case:
    """One text."""

    name: str
    data: bytes

    @property
    def family(self) -> str:
        """``y``, ``n`` or ``i``."""
        return self.name[0]


def strict(data: bytes) -> Any:
    """What a JSON text says, by the standard library made strict: an oracle that shares nothing with the library's parser.

    Raises:
        ValueError, RecursionError: It is none.
    """
    value = json.loads(data.decode(), parse_constant=_never, parse_float=_finite, parse_int=_in_range)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _never(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _in_range(text: str) -> int:
    _finite(text)
    return int(text)


@cache
def cases() -> list[Case]:
    """All of them, each text once."""
    families = (_numbers, _strings, _encodings, _structures, _edits, _trailing, _literals, _depths)
    found: dict[bytes, Case] = {}
    for family in families:
        for name, texts in family():
            for at, text in enumerate(texts):
                data = text if isinstance(text, bytes) else text.encode()
                found.setdefault(data, Case(f"{name}_{at}", data))
    return list(found.values())


Families: TypeAlias = Iterator[tuple[str, Sequence[str | bytes]]]


def _numbers() -> Families:
    integers = ["0", "-0", "7", "-10", "9007199254740993", "18446744073709551615", "-9223372036854775809", "8" * 60]
    fractions = ["", ".0", ".25", ".000000000000000000001", ".1234567890123456789"]
    exponents = ["", "e0", "E+5", "e-7", "e-4000", "E007"]
    yield "y_number", ["".join(parts) for parts in itertools.product(integers, fractions, exponents)]
    yield "y_number_spaced", [" 1", "1 ", "\t-1.5\n", "\r\n2e2\r\n"]
    yield "n_number", _lines(NO_NUMBERS)
    yield "i_number_huge", ["1e309", "-1e309", "1e400", "1.5e+9999", "77e100000", "1e" + "9" * 1000, "5" * 310, "-" + "5" * 5000]
    yield "i_number_tiny", ["1e-400", "-1e-400", "1e-" + "9" * 30, "0." + "0" * 500 + "1", "0e" + "9" * 30, "5" * 309 + "e-100"]


def _strings() -> Families:
    printable = [chr(code) for code in range(0x20, 0x80) if chr(code) not in '"\\']
    yield "y_string_ascii", [f'"{one}"' for one in printable]
    boundaries = "\x80\u07ff\u0800\u2028\u2029\ud7ff\ue000\ufdd0\ufeff\ufffd\ufffe\uffff\U00010000\U0001f600\U0010ffff"
    yield "y_string_utf8", [f'"{one}"' for one in boundaries]
    yield "y_string_escape", [f'"\\{one}"' for one in '"\\/bfnrt']
    codes = [0, 0x1F, 0x20, 0x22, 0x5C, 0x7F, 0xA0, 0x3A9, 0x200B, 0x2028, 0xABCD, 0xD7FF, 0xE000, 0xFFFE, 0xFFFF]
    yield "y_string_unicode_escape", [f'"a\\u{code:04{case}}z"' for code in codes for case in "xX"]
    yield "y_string", [*_lines(STRINGS), '" "', '"' + "x" * 10_000 + '"']
    yield "i_string_lone_surrogate", _lines(LONE_SURROGATES)
    yield "n_string_control", [f'"{chr(code)}"' for code in range(0x20)]
    yield "n_string_bad_escape", [f'"\\{chr(code)}"' for code in range(0x7F) if chr(code) not in '"\\/bfnrtu']
    yield "n_string_bad_escape_utf8", ['"\\é"', '"\\😀"', '"\\\u2028"', '"\\１"']
    yield "n_string", _lines(NO_STRINGS)


def _encodings() -> Families:
    wrong = "80 bf c0 c1 c3 e2 e282 f0 f09f f09f98 f5 f8 fc fe ff c0af c1bf e080af e09fbf f08080af f08fbfbf f888808080 fc8480808080"
    surrogates = "eda080 edafbf edb080 edbfbf eda080edb080 edb080eda080 f4908080 f7bfbfbf c328 e228a1 e28228 f0288cbc 80c3 c3c3"
    yield "n_utf8", [b'"' + bytes.fromhex(text) + b'"' for text in f"{wrong} {surrogates}".split()]
    yield "n_utf8_in_member", [b'{"a":"' + bytes.fromhex(text) + b'"}' for text in f"{wrong} {surrogates}".split()]
    yield "n_utf8_outside", [b"\xff", b"[\xff]", b"{\xc3}", b'{"a":1\xa0}', b'\x80{"a":1}', b"1\xff", b'{"a"\xe2:1}']
    encodings = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
    yield "n_wide", [text.encode(name) for name in encodings for text in ('{"a":1}', "[]", '"é"', " {}")]
    marks = (b"\xef\xbb\xbf", b"\xef\xbb", b"\xff\xfe", b"\xfe\xff")
    yield "n_mark", [mark + text for mark in marks for text in (b'{"a":1}', b"[]", b"", b"1")]


def _structures() -> Families:
    yield "y_structure", _lines(STRUCTURES)
    yield "y_structure_name", [f'{{"{name}":1}}' for name in [*_lines(MEMBERS), " ", "a" * 2000]]
    spaces = (" ", "\t", "\n", "\r", " \r\n\t ")
    yield "y_structure_space", [BASE.replace(sign, f"{space}{sign}{space}") for space in spaces for sign in ",:{}[]"]
    no_spaces = "\x0b\x0c\x00\x1c\x85\xa0\u1680\u2003\u2028\u200b\ufeff\u2060\u3000"
    yield "n_structure_space", [f"[1{space},2]" for space in no_spaces]
    yield "n_structure", _lines(NO_STRUCTURES)
    yield "n_structure_comment", ["[1,//\n2]", "//\n1", "#\n1", "--1\n2"]
    yield "n_structure_empty", ["", " ", "\n", "\t\r\n ", "\x00", "\x0b", "\u2028", "\ufeff", "\u200b"]


def _edits() -> Families:
    """The base text cut short, with one structural character gone, with one too many: told apart by the oracle."""
    texts = [BASE[:end] for end in range(1, len(BASE))] + [BASE[start:] for start in range(1, len(BASE))]
    texts += [BASE[:at] + BASE[at + 1 :] for at, sign in enumerate(BASE) if sign in STRUCTURAL]
    texts += [BASE[:at] + sign + BASE[at:] for at in range(len(BASE) + 1) for sign in STRUCTURAL]
    texts += [BASE[:at] + sign + BASE[at + 1 :] for at in range(len(BASE)) for sign in STRUCTURAL]
    yield "y_edit", [text for text in texts if _is_json(text)]
    yield "n_edit", [text for text in texts if not _is_json(text)]


def _is_json(text: str) -> bool:
    try:
        strict(text.encode())
    except ValueError:
        return False
    return True


def _trailing() -> Families:
    after = [
        "x",
        "{}",
        "[]",
        "]",
        "}",
        ",",
        ":",
        '"',
        '"a"',
        "0",
        "null",
        "\x00",
        "\x0b",
        "\x0c",
        "\xa0",
        "\u2028",
        "\ufeff",
        "//",
        "/**/",
        "#",
        ";",
        "\\n",
    ]
    yield "n_trailing", [text + rest for text in ("{}", "[1]", '"a"', "null", BASE) for rest in after]
    yield "n_trailing_number", ["1 x", "1 1", "1]", "1}", "1,", "1:", "1\x00", "1\xa0", '1""', "1[]", "1{}"]
    yield (
        "y_trailing_space",
        [f"{space}{text}{space}" for text in ("{}", "[]", '""', "0", "null") for space in (" ", "\n", "\r\n", "\t \t")],
    )


def _literals() -> Families:
    yield "y_literal", ["true", "false", "null"]
    yield "n_literal", [*_lines(NO_LITERALS), "false\u2028", "nu\u200bll"]


def _depths() -> Families:
    yield "y_depth", ["[" * depth + "]" * depth for depth in (2, 10, 64, 65, 100, 200)]
    yield "y_depth_objects", ['{"a":' * depth + "1" + "}" * depth for depth in (2, 10, 64, 65, 100, 200)]
    deeper = (254, 255, 300, 500, 900, 990, 1000, 1020, 1023, 1024, 1025, 2000, 50_000)
    yield "i_depth", ["[" * depth + "]" * depth for depth in deeper]
    yield "i_depth_objects", ['{"a":' * depth + "1" + "}" * depth for depth in deeper]
    yield (
        "n_depth",
        [
            "[" * DEEP,
            '{"a":' * DEEP,
            '[{"":' * (DEEP // 2),
            "]" * DEEP,
            "[" * 1000,
            '{"a":[' * 600,
            "{" * DEEP,
            "[" * 500 + "]" * 501,
        ],
    )


def mutants(seed: int, number: int) -> Iterator[bytes]:
    """So many texts made of the corpus by small changes; each is what a parser has not been shown."""
    source = random.Random(seed)
    seeds = [case.data for case in cases() if 0 < len(case.data) < 200]
    for _ in range(number):
        data = bytearray(source.choice(seeds))
        for _ in range(source.choice([1, 1, 1, 2, 3])):
            _mutate(source, data, seeds)
        yield bytes(data)


def _mutate(source: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    at = source.randrange(len(data) + 1)
    kind = source.randrange(6)
    if kind == 0:
        data[at:at] = source.choice(seeds)
    elif kind == 1:
        del data[at : at + source.randrange(1, 4)]
    elif kind == 2:
        data[at : at + 1] = bytes([source.randrange(256)])
    elif kind == 3:
        data[at:at] = bytes([source.choice(b'{}[]:,"\\ \n0123456789.eE+-tfnu\xef\xc3\x80\x00')])
    elif kind == 4:
        end = source.randrange(at, len(data) + 1)
        data[at:at] = data[at:end]
    else:
        data[:] = b"[" + data + b"," + source.choice(seeds) + b"]"


def naughty() -> list[str]:
    """Strings, each once; some hold half of a surrogate pair."""
    groups = (_characters, _marks, _emoji, _quoting, _injections, _names, _lookalikes, _long, _halves)
    return list(dict.fromkeys(text for group in groups for text in group()))


def _characters() -> Iterator[str]:
    yield from (chr(code) for code in (*range(0x21), 0x7F, *range(0x80, 0xA1), 0xAD))
    yield from (f"a{chr(code)}b" for code in (*range(0x20), 0x7F, 0x85, 0xA0))
    spaces = [
        *range(0x2000, 0x2010),
        0x1680,
        0x180E,
        0x2028,
        0x2029,
        0x202F,
        0x205F,
        0x3000,
        0x2060,
        0x2061,
        0x2064,
        0xFEFF,
        0xFFF9,
        0xFFFB,
    ]
    yield from (form.format(chr(code)) for code in spaces for form in ("{0}", "a{0}b"))
    yield from (
        chr(code)
        for code in (0xFDD0, 0xFDEF, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0xE000, 0xF8FF, 0x1FFFE, 0xE0001, 0xF0000, 0x10FFFE, 0x10FFFF)
    )
    yield from ("", " ", "  ", " a", "a ", "\r\n", "\n\r", "\u2028\u2029", "\x00\x00", "\ufeff\ufeff", "\t\v\f")


def _marks() -> Iterator[str]:
    directions = [0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069, 0x200E, 0x200F, 0x061C]
    yield from (form.format(chr(code)) for code in directions for form in ("{0}abc", "abc{0}def{0}", "{0}אבג{0}123"))
    yield from ("o" + "".join(chr(code) for code in range(0x300, 0x300 + number)) for number in (1, 2, 5, 20, 100))
    yield from ("e\u0301", "\u0301e", "A\u030a", "\u212b", "\u1100\u1161", "\u0f77", "\u1e9b\u0323")
    yield from _lines(WRITINGS)


def _emoji() -> Iterator[str]:
    joiner, selector = "\u200d", "\ufe0f"
    people = ["👩", "👨", "👧", "👦", "🧑", "🏳️", "❤️", "💻", "🚀"]
    yield from (joiner.join(pair) for pair in itertools.permutations(people, 2))
    yield from (f"{hand}{chr(tone)}" for hand in "👍👋🤚👩" for tone in range(0x1F3FB, 0x1F400))
    yield from (chr(0x1F1E6 + first) + chr(0x1F1E6 + second) for first, second in ((0, 0), (3, 4), (20, 18), (25, 25), (7, 0)))
    yield from (f"{digit}{selector}\u20e3" for digit in "0189#*")
    yield from (
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        joiner,
        selector,
        "☺",
        "☺\ufe0e",
        f"{joiner}{joiner}",
        "🚀" * 50,
    )


def _quoting() -> Iterator[str]:
    signs = ["'", '"', "\\", "`", "/", "\u2018", "\u201c", "«"]
    yield from ("".join(parts) for number in (1, 2) for parts in itertools.product(signs, repeat=number))
    yield from (
        "\\u0041",
        "\\ud800",
        "\\n",
        "\\x00",
        "\\\\n",
        '\\"',
        '"}',
        '"}]}',
        '{"',
        '","',
        '":"',
        "&quot;",
        "&#x27;",
        "%22",
        "%00",
        "%0d%0a",
        "\\0",
        "''''",
        '""""',
    )


def _injections() -> Iterator[str]:
    yield from _lines(INJECTIONS)
    yield from ("a\nb", "x\x00.png", "\tx", "a\r\nSet-Cookie: x", "a\nb: c", "data: x\n\n", "*/\n/*", "\r\n\r\n", "-----\r\n")


def _names() -> Iterator[str]:
    yield from _lines(NAMES)


def _lookalikes() -> Iterator[str]:
    yield from _lines(LOOKALIKES)
    yield "9" * 400


def _long() -> Iterator[str]:
    yield from (
        one * number
        for one in ("a", "é", "😀", " ", '"', "\\", "\n", "<", "[", "\u202e", "\u0301")
        for number in (255, 256, 1024, 10_000)
    )
    yield from (string.printable, "".join(chr(code) for code in range(0x100)), "".join(chr(code) for code in range(0x2000, 0x2070)))


def _halves() -> Iterator[str]:
    """Half of a surrogate pair: Python can hold it, UTF-8 cannot say it."""
    codes = (0xD800, 0xDBFF, 0xDC00, 0xDFFF)
    yield from (form.format(chr(code)) for code in codes for form in ("{0}", "a{0}", "{0}a", "{0}{0}", "😀{0}"))
    yield "\udc00\ud800"
