"""The states that are measured: what an agent remembers, from 200 bytes to 1 MB, the same in every run.

From 2 KB up most of the bytes are `messages`. The 200 B state has none yet.

>>> sorted(state_of(2_048)), 2_000 < len(orjson.dumps(state_of(2_048))) < 2_100
(['cart', 'messages', 'profile', 'step'], True)
"""

from __future__ import annotations

import random
from typing import Any, Final

import orjson

SIZES: Final = {"200 B": 200, "2 KB": 2_048, "16 KB": 16_384, "128 KB": 131_072, "1 MB": 1_048_576}
LARGE: Final = ("16 KB", "128 KB", "1 MB")
SMALLEST_WITH_MESSAGES: Final = 1_024
LONGEST_MESSAGE: Final = 900

VOCABULARY: Final = """\
a about account add address after again all already amount and answer any are as ask at available back basket be because
before began both brown but by call can cancel card change check choose city client close colour come confirm cost could
customer date day deliver delivery deploy did different do done each early eight empty error every expected feature few find
first five for found four free from full further gave get give go good great green had half has have he help her here him his
hold hour how however if in into is it item its just keep kept know large last late later leave less let like line list little
long look made make many may me mean might minute more most much must my name need never new next night nine no none not
nothing now number of off offer often old on once one only open or order other our out over own paid part pay payment perhaps
place please point price question quite ready reason receive record red replica request return right running said same say
second see send sent service set seven several shall she ship should show since size small so some soon still stock stop store
such summary take ten than thank that the their them then there these they thing this those three through time to today
together told tomorrow too total town try two under until up upon use value very wait want warehouse was way we week well went
were what when where whether which while who why will window with within without work would write year yes yet you your"""
WORDS: Final = tuple(VOCABULARY.split())
MARKS: Final = (".", ".", ".", ".", "?", "!", ".\n\n", ", naïve as it is.", ' ("as before").', " » or so «.")
ITEMS: Final = ("widget", "gasket", "flange", "bracket", "coupling", "valve")


def state_of(size_bytes: int, *, seed: int = 0) -> dict[str, Any]:
    """A state that is about so large, written as compact JSON; another seed gives another one of the same shape."""
    drawn = random.Random(f"{size_bytes} {seed}")
    small = size_bytes < SMALLEST_WITH_MESSAGES
    state: dict[str, Any] = {"step": 3, "profile": _profile(drawn, small=small), "cart": _cart(drawn, 1 if small else 4)}
    room = 0 if small else size_bytes - len(orjson.dumps(state)) - len(',"messages":[]')
    return {**state, "messages": _messages(drawn, room)}


def message(drawn: random.Random, at: int, length: int) -> dict[str, Any]:
    """One message of a conversation."""
    return {"role": "assistant" if at % 2 else "user", "id": f"m-{at:05}", "content": _prose(drawn, length), "tokens": length // 4}


def _messages(drawn: random.Random, room: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    while room > len(orjson.dumps(message(drawn, 0, 1))):
        messages.append(message(drawn, len(messages), min(drawn.randint(60, LONGEST_MESSAGE), max(1, room - 80))))
        room -= len(orjson.dumps(messages[-1])) + 1
    return messages


def _prose(drawn: random.Random, length: int) -> str:
    text = ""
    while len(text) < length:
        words = drawn.choices(WORDS, k=drawn.randint(4, 14))
        text += " ".join(words).capitalize() + drawn.choice(MARKS) + " "
    return text[:length]


def _profile(drawn: random.Random, *, small: bool) -> dict[str, Any]:
    profile: dict[str, Any] = {"name": "Ada", "tier": drawn.choice(("basic", "gold")), "preferences": {"theme": "dark"}}
    return profile if small else {**profile, "address": {"city": "Zürich", "street": "Seeweg 7"}, "notes": _prose(drawn, 120)}


def _cart(drawn: random.Random, number: int) -> dict[str, Any]:
    items: list[dict[str, Any]] = [
        {"sku": drawn.choice(ITEMS), "quantity": drawn.randint(1, 9), "price": drawn.randint(1, 999) / 4} for _ in range(number)
    ]
    return {"items": items, "currency": "CHF", "total": sum(item["price"] * item["quantity"] for item in items)}
