"""The settings of a tool: what was given with its function, and what is taken over from the tool that it is made of.

>>> wipe = Settings(name="wipe", requires_approval=True)
>>> made = Settings(name="wipe_disk", timeout=timedelta(seconds=3)).over(wipe)
>>> made.name, made.requires_approval, made.timeout
('wipe_disk', True, datetime.timedelta(seconds=3))

None is "not given", and then what stands below counts. What needs approval cannot be given False later.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from types import MethodType
from typing import Any, Final

from pydantic_core import from_json, to_json

from dcaf.core.errors import ConfigurationError
from dcaf.tools.callables import find_decided, layers, name_of

NAME: Final = "_settings"
"""The attribute of a tool that holds them: functools.wraps copies it, as all do that copy ``__dict__``."""

HOW_IT_RUNS: Final = ("requires_approval", "parallel", "timeout")
"""What a method keeps that overrides another one; what the model reads of it, it says itself."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one tool, as of ``Tool``; None is what was not given.

    Raises:
        ConfigurationError: One of them is of another type.
    """

    name: str | None = None
    description: str | None = None
    input_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    strict: bool | None = None
    requires_approval: bool | None = None
    parallel: bool | None = None
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        if self.name is not None and (not isinstance(self.name, str) or not self.name or not self.name.isprintable()):
            raise ConfigurationError('name= takes the name that a model calls, for instance name="deploy".')
        if self.description is not None and not isinstance(self.description, str):
            raise ConfigurationError("description= takes a text.")
        for name in ("strict", "requires_approval", "parallel"):
            if not isinstance(getattr(self, name), bool | None):
                raise ConfigurationError(f"{name}= takes True or False.")
        if self.timeout is not None and (not isinstance(self.timeout, timedelta) or self.timeout <= timedelta()):
            raise ConfigurationError("timeout= takes a timedelta over zero, for instance timeout=timedelta(seconds=30).")
        if self.input_schema is not None:
            object.__setattr__(self, "input_schema", _copy_schema(self.input_schema))

    def over(self, below: Settings) -> Settings:
        """These, and those of the tool below where these say nothing.

        Raises:
            ConfigurationError: An approval that is needed below is not needed here.
        """
        if below.requires_approval and self.requires_approval is False:
            raise ConfigurationError(
                f"requires_approval=False: {below.name} needs the approval of a person, and so does what is made of it. To have it "
                "without, make a tool of the function itself."
            )
        return self._completed_by(below, [item.name for item in fields(self)])

    def without(self, names: Collection[str]) -> Settings:
        """These, where some parameters are no longer the model's: a schema by hand does not name them."""
        if self.input_schema is None or not isinstance(self.input_schema.get("properties"), Mapping):
            return self
        return replace(self, input_schema=drop_properties(self.input_schema, names))

    def overriding(self, other: Settings) -> Settings:
        """These, and how the method runs that they override where these say nothing; what the model reads is their own."""
        return self._completed_by(other, HOW_IT_RUNS)

    def _completed_by(self, other: Settings, names: Iterable[str]) -> Settings:
        missing = {name: getattr(other, name) for name in names if getattr(self, name) is None}
        return replace(self, **missing)


def complete_settings(own: Settings, function: Any, called: Callable[..., Any]) -> Settings:
    """The settings of a tool: its own, and those of the tool that it is made of, or overrides, where its own say nothing.

    Args:
        own: What was given with its function.
        function: What it is made of.
        called: What it calls.

    Raises:
        ConfigurationError: An approval that is needed there is not needed here. Or it has no name.
    """
    below, above = find_settings(function), find_overridden_by(function)
    found = own if below is None else own.over(below.without(find_decided(called)))
    found = found if above is None else found.overriding(above)
    return replace(found, name=found.name or name_of(called))


def drop_properties(schema: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The schema of an object without some of its properties."""
    found = {**schema, "properties": {name: value for name, value in schema.get("properties", {}).items() if name not in names}}
    if "required" in found:
        found["required"] = [name for name in found["required"] if name not in names]
    return found


def has_settings(value: object) -> bool:
    """Whether it is a tool, or has what a decorator copies of one; asked without running a descriptor or a proxy."""
    return isinstance(inspect.getattr_static(value, NAME, None), Settings)


def find_settings(function: Any) -> Settings | None:
    """Those of the first tool behind a function, or of one whose attributes a decorator has copied; None where there is none."""
    found = (getattr(layer, NAME, None) for layer in layers(function))
    return next((item for item in found if isinstance(item, Settings)), None)


def find_overridden(owner: type, name: str) -> Settings | None:
    """Those of the tool that a class's own method of that name overrides; None where it overrides none."""
    above = (vars(base)[name] for base in owner.__mro__[1:] if name in vars(base))
    return next((found for item in above if (found := find_settings(item)) is not None), None)


def find_overridden_by(function: Any) -> Settings | None:
    """As ``find_overridden``, of a bound method that is no tool."""
    if not isinstance(function, MethodType):
        return None
    owner = function.__self__
    return find_overridden(owner if isinstance(owner, type) else type(owner), function.__name__)


def _copy_schema(schema: object) -> dict[str, Any]:
    try:
        found = from_json(to_json(schema)) if isinstance(schema, Mapping) else None
    except (ValueError, TypeError):  # of pydantic: it is no JSON, or too deep
        found = None
    if not isinstance(found, dict):
        raise ConfigurationError('input_schema= takes a JSON Schema: {"type": "object", "properties": ...}.')
    return found
