"""P36: whatever a public entry is given by mistake ends in a DcafError that says what to write, and in no other exception."""

from __future__ import annotations

import asyncio
import gc
import inspect
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any

import pytest
import uvicorn
from pydantic import ValidationError

from dcaf import DcafError
from tests.promises.public_entries import ENTRIES, NOBODYS, Entry, Fresh, callables, stop
from tests.promises.wrong_values import VALUES, TouchedError, put_away

PYTHONS_OWN = re.compile(
    r"takes .*argument|missing \d+ required|unexpected keyword argument|multiple values for|unhashable type|"
    r"can't be used in 'await'"
)
"""A call that does not fit what is called: ours, or a function that was given to us and calls itself an application, say."""

OF_DICT = (".update", ".__ior__", ".fromkeys", "starlette.Session")
"""What ends as of a dict where it is given no mapping: in a TypeError or a ValueError."""

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
PATIENCE_S = 10.0
EVERY = {name: (entry, value) for name, value in callables() if (entry := ENTRIES.get(name)) is not None}


def parameters(entry: Entry, value: Any) -> list[str]:
    """The names of what can be given: those of the signature, and some that go into ``**``."""
    try:
        found = [name for name, item in inspect.signature(value).parameters.items() if item.kind is not item.VAR_KEYWORD]
    except ValueError:
        found = list(entry.valid)
    return [name for name in dict.fromkeys([*found, *entry.extra]) if name not in ("self", "cls")]


def awaited(found: Any) -> Any:
    """What comes of it, in an event loop where it needs one."""

    async def wait() -> Any:
        return await asyncio.wait_for(found, PATIENCE_S)

    return asyncio.run(wait()) if inspect.isawaitable(found) else found


def _call(value: Any, arguments: dict[str, Any]) -> Any:
    """By position where there is no other way."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return value(*arguments.values())
    rest = dict(arguments)
    items = signature.parameters.values()
    before_star = (Parameter.POSITIONAL_OR_KEYWORD,) if any(item.kind is item.VAR_POSITIONAL for item in items) else ()
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, *before_star)
    by_position = [rest.pop(item.name) for item in items if item.kind in kinds and item.name in rest]
    return value(*by_position, **rest)


def bound(name: str, entry: Entry, value: Any) -> Any:
    return value if entry.on is None else getattr(entry.on(), name.rpartition(".")[2])


def run(name: str, changed: dict[str, Any]) -> Any:
    """One call with a part of its arguments changed."""
    entry, value = EVERY[name]
    made = {
        key: item.made() if isinstance(item, Fresh) else item
        for key, item in {**entry.given, **entry.valid}.items()
        if key not in changed
    }
    target = bound(name, entry, value)
    arguments = {**made, **changed}
    with entry.within():
        return awaited(entry.then(awaited(_call(target, arguments))))


def misfit(name: str, parameter: str, value: Any) -> str | None:
    """What is wrong with how a mistake ends; None where it is told, or does no harm."""
    entry, _ = EVERY[name]
    try:
        run(name, {parameter: value})
    except DcafError as error:
        return None if str(error).strip() else f"{type(error).__name__} without a word"
    except ValidationError as error:
        return None if entry.is_model else _told(error)
    except KeyError as error:
        is_lookup = name.rpartition(".")[2] in ("__getitem__", "__delitem__", "pop")
        return None if is_lookup and type(error) is KeyError else _told(error)
    except (TypeError, ValueError) as error:
        is_of_call = isinstance(error, TypeError) and PYTHONS_OWN.search(str(error))
        return None if is_of_call or (name.endswith(OF_DICT) and type(error) in (TypeError, ValueError)) else _told(error)
    except TouchedError:  # an object that cannot be looked at says so itself
        return None
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return _told(error)
    return None


def _told(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/dcaf/" in frame.filename]
    at = f"{frames[-1].filename.rpartition('/dcaf/')[2]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {at}"


def kinds_for(name: str, parameter: str, scale: float) -> list[str]:
    """Every kind of wrong value at full numbers; else some, another choice for each parameter, and two in any case."""
    if scale >= 1:
        return list(VALUES)
    chosen = random.Random(f"{name} {parameter}").sample(sorted(VALUES), max(6, int(len(VALUES) * scale)))
    return list(dict.fromkeys(["None", "a hostile object", *chosen]))


def misfits(names: list[str], scale: float = 1.0) -> tuple[int, dict[str, dict[str, str]]]:
    """How many mistakes were made, and which of them ended otherwise: entry and parameter -> value -> what happened."""
    number, found = 0, dict[str, dict[str, str]]()
    for name in names:
        entry, value = EVERY[name]
        for parameter in parameters(entry, bound(name, entry, value)):
            for kind in kinds_for(name, parameter, scale):
                number += 1
                given = VALUES[kind]()
                what = misfit(name, parameter, given)
                put_away(given)
                if what is not None:
                    found.setdefault(f"{name}({parameter}=)", {})[kind] = what
    return number, found


@pytest.fixture(autouse=True)
def _quiet(caplog: Any, monkeypatch: Any) -> Iterator[None]:
    caplog.set_level("CRITICAL")
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module", autouse=True)
def _stopped() -> Iterator[None]:
    yield
    stop()
    gc.collect()  # else what a mistake has left open is told of in whichever test runs then


@pytest.mark.promise(36)
def test_every_public_callable_has_a_right_call() -> None:
    assert {name for name, _ in callables()} - ENTRIES.keys() - NOBODYS == set()


@pytest.mark.promise(36)
@pytest.mark.parametrize("name", EVERY)
def test_the_right_call_is_right(name: str) -> None:
    if EVERY[name][0].fails:
        with pytest.raises(DcafError):
            run(name, {})
    else:
        run(name, {})


@pytest.mark.promise(36)
def test_every_mistake_ends_in_dcafs_own_error(scale: float, measured: Callable[[int, str], None]) -> None:
    number, found = misfits(list(EVERY), scale)
    measured(36, f"{sum(map(len, found.values()))} of {number:,} wrong arguments ended in another exception than a DcafError")
    assert found == {}


CHECKS: dict[str, tuple[str, str]] = {
    "dcaf.asgi.SessionMiddleware(clock=)": ("dcaf.core.settings.require_clock", "dcaf.asgi.SessionMiddleware"),
    "dcaf.asgi.SessionMiddleware(store=)": ("dcaf.core.store.require_store", "dcaf.asgi.SessionMiddleware"),
    "dcaf.asgi.CookieCarrier(path=)": ("dcaf.asgi.carriers.require_text", "dcaf.asgi.CookieCarrier"),
    "dcaf.core.Keyring.parse(verify_only=)": ("dcaf.core.keys.require_text", "dcaf.core.Keyring.parse"),
    "dcaf.engines.Transaction(reads=)": ("dcaf.engines.transactions._require_all", "dcaf.engines.Transaction"),
}


@pytest.mark.promise(36)
@pytest.mark.parametrize("entry", CHECKS)
def test_control_an_entry_without_its_check_is_caught(entry: str, monkeypatch: Any) -> None:
    check, name = CHECKS[entry]
    monkeypatch.setattr(check, lambda *arguments: arguments[-1] if len(arguments) == 1 else arguments[1])
    assert entry in misfits([name])[1]
