"""What the code of a function names, as far as it can be found without running it: what it may call.

>>> import math
>>> def half(number): return math.sqrt(number) / 2
>>> math.sqrt in find_named(half), math.floor in find_named(half)
(True, False)

This is a look at the code, and no proof. It does not see what a function takes out of a dict, is passed, or finds by a name that it
makes up.
"""

from __future__ import annotations

import dis
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, cast

from dcaf.tools.callables import find_function, layers
from dcaf.tools.settings import has_settings

DEPTH: Final = 2
"""How many dots are followed: ``self.client.charge`` has two."""

MOST_OBJECTS: Final = 500
"""Objects, and functions, that are looked at: a program names fewer."""

GLOBAL: Final = ("LOAD_GLOBAL", "LOAD_NAME")
ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM")
IMPORT: Final = ("IMPORT_NAME",)

CALLED: Final = (FunctionType, MethodType, functools.partial)

PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), tuple, list, dict, set, frozenset)
"""Types of the language itself, whose attributes lead to nothing of an application."""


def find_named(function: Callable[..., Any]) -> list[Any]:
    """The objects that a function names, and the functions below it that it decorates, binds or completes."""
    found: list[Any] = []
    for layer in layers(function):
        found += _find_named_by(layer)
    return found[:MOST_OBJECTS]


def find_reached(function: Callable[..., Any]) -> Iterator[Any]:
    """The objects that a function names, and that those functions name which it names, in the same package or folder."""
    place = _package_and_folder(function)
    waiting, seen = [function], {id(function)}
    while waiting and len(seen) < MOST_OBJECTS:
        for item in find_named(waiting.pop()):
            if id(item) in seen:
                continue
            seen.add(id(item))
            yield item
            called = _callable_in(item)
            if called is not None and any(one == other for one, other in zip(_package_and_folder(called), place, strict=True)):
                waiting.append(called)


class _CodeNames(NamedTuple):
    """The names in a piece of code: of globals, of attributes, and of modules that it imports itself."""

    globals: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()


@lru_cache(maxsize=1024)
def _names(code: CodeType) -> _CodeNames:
    """Those of the code, and of the functions inside it."""
    steps = list(dis.get_instructions(code))
    found = [frozenset(step.argval for step in steps if step.opname.startswith(kinds)) for kinds in (GLOBAL, ATTRIBUTE, IMPORT)]
    inside = [_names(item) for item in code.co_consts if isinstance(item, CodeType)]
    return _CodeNames(*(own.union(*(names[at] for names in inside)) for at, own in enumerate(found)))


def _find_named_by(layer: Any) -> list[Any]:
    code = getattr(layer, "__code__", None) or getattr(type(layer).__call__, "__code__", None)
    names = _CodeNames() if code is None else _names(code)
    level = found = [item for item in _roots(layer, names) if not _is_instance(item, PLAIN)]
    for _ in range(DEPTH):
        known = {id(item) for item in found}
        inner = {id(value): value for item in level for value in _attributes(item, names.attributes)}
        level = [value for key, value in inner.items() if key not in known and not _is_instance(value, PLAIN)]
        found = [*found, *level]
    return found


def _roots(layer: Any, names: _CodeNames) -> Iterator[Any]:
    """What a name in the code can begin with: a global, what it closes over, a default, its object, what a partial has decided."""
    around: Mapping[str, Any] = getattr(layer, "__globals__", {})
    yield from (around[name] for name in sorted(names.globals) if name in around)
    yield from (sys.modules[name] for name in sorted(names.modules) if name in sys.modules)
    for cell in getattr(layer, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from getattr(layer, "__defaults__", None) or ()
    yield from (getattr(layer, "__kwdefaults__", None) or {}).values()
    if _is_instance(layer, MethodType):
        yield layer.__self__
    elif _is_instance(layer, functools.partial):
        yield from (*layer.args, *layer.keywords.values())
    elif not _is_instance(layer, FunctionType):
        yield layer


def _attributes(item: Any, names: Iterable[str]) -> Iterator[Any]:
    """Those of the names that are attributes, without running a descriptor or a proxy."""
    spaces = list(_namespaces(item))
    for name in names:
        found: Any = next((space[name] for space in spaces if name in space), None)
        if _is_instance(found, property):
            found = found.fget
        elif _is_instance(found, MemberDescriptorType) and not _is_instance(item, type):  # a slot
            found = getattr(item, name, None)
        yield found.__func__ if _is_instance(found, (staticmethod, classmethod)) else found


def _namespaces(item: Any) -> Iterator[Mapping[str, Any]]:
    if not _is_instance(item, type):
        with suppress(AttributeError):
            yield object.__getattribute__(item, "__dict__")
    if not _is_instance(item, (FunctionType, ModuleType)):
        kind = item if _is_instance(item, type) else type(item)
        yield from (type.__dict__["__dict__"].__get__(base) for base in type.__dict__["__mro__"].__get__(kind))


def _callable_in(item: Any) -> Callable[..., Any] | None:
    """What runs when something is called, where a person wrote it; asked of its type, since a proxy answers for another object."""
    if _is_instance(item, CALLED) or has_settings(item):
        return cast("Callable[..., Any]", item)
    by_type: Any = None if _is_instance(item, type) else inspect.getattr_static(type(item), "__call__", None)
    return MethodType(by_type, item) if _is_instance(by_type, FunctionType) else None


def _is_instance(value: Any, kind: type | tuple[type, ...]) -> bool:
    """As isinstance, which a proxy answers for another object, or with an error where it has none now."""
    return issubclass(type(value), kind)


def _package_and_folder(function: Callable[..., Any]) -> tuple[str, str]:
    """The package, and the folder, that a function was written in."""
    plain = find_function(function)
    module: str = getattr(plain, "__module__", None) or ""
    return module.partition(".")[0], os.path.dirname(getattr(getattr(plain, "__code__", None), "co_filename", module))  # noqa: PTH120
