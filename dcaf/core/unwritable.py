r"""Which part of a value its type cannot write, where pydantic says only that there is one.

>>> from pydantic import BaseModel, TypeAdapter
>>> class Page(BaseModel):
...     thumb: bytes
>>> def dump(include):
...     return TypeAdapter(list[Page]).dump_python(pages, mode="json", include=include)
>>> pages = [Page(thumb=b"ab"), Page(thumb=b"\xff")]
>>> refusal = find_unwritable(pages, dump)
>>> refusal.path, refusal.problem[:28]
('[1].thumb', 'holds bytes that are no text')

What a reader gets wrong: it is asked only after a value was refused, to find the words for that. It asks pydantic for fewer and
fewer parts, so that the settings of each model count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from dcaf.core.parts import ATOMS, SETS, Step, parts_of
from dcaf.core.paths import Refusal

Dump: TypeAlias = Callable[[Any], object]
"""Writes the parts of a value that are included: ``{"pages": {1: {"thumb": True}}}``."""

DEEPEST: Final = 64
AS_BASE64: Final = (
    'holds bytes that are no text. In the model\'s configuration write ser_json_bytes="base64" and val_json_bytes="base64"'
)


def find_unwritable(value: Any, dump: Dump) -> Refusal:
    """Say what cannot be written, at the innermost part."""
    whole, path = value, list[Step]()
    while len(path) < DEEPEST:
        parts = [] if isinstance(value, SETS) else [*parts_of(value)]
        step = _first([step for step, _ in parts if step is not None], lambda steps: _fails(dump, path, steps))
        if step is None:
            return _under(path, Refusal(_problem(value)))
        path.append(step)
        value = next(part for key, part in parts if key == step)
    return Refusal(f"is of type {type(whole).__name__}, and nested deeper than {DEEPEST}, or holds itself")


def _first(steps: list[Any], fails: Callable[[list[Any]], bool]) -> Any:
    """The first step at which writing fails, by halves; None where it fails at none."""
    if not steps or not fails(steps):
        return None
    while len(steps) > 1:
        half = steps[: len(steps) // 2]
        steps = half if fails(half) else steps[len(half) :]
    return steps[0]


def _fails(dump: Dump, path: Sequence[Step], steps: Sequence[Step]) -> bool:
    include: Any = dict.fromkeys(steps, True)
    for step in reversed(path):
        include = {step: include}
    try:
        dump(include)
    except Exception:  # noqa: BLE001 - serializers are code of the application, or of some other library
        return True
    return False


def _under(path: Sequence[Step], refusal: Refusal) -> Refusal:
    for step in reversed(path):
        refusal.under(step)
    return refusal


def _problem(value: object) -> str:
    if isinstance(value, bytes):
        return AS_BASE64
    if isinstance(value, str) and not _is_text(value):
        return "has a lone surrogate, which is no Unicode text"
    if type(value) in ATOMS:
        return "cannot be written: the type's own code failed at it"
    return f"is of type {type(value).__name__}, which cannot be stored"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
