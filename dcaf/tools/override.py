"""A schema that was written by hand, laid over the parameters that a function really has.

>>> from dcaf.tools.injection import Plan
>>> def forward(session, **options): ...
>>> given = {"type": "object", "properties": {"city": {"type": "string"}, "session": {}}, "required": ["session"]}
>>> [parameter.name for parameter in further(given, Plan.of(forward), tool="forward")]
['city']
>>> shown(given, Plan.of(forward), tool="forward")
{'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': []}

What a reader gets wrong: the schema is what the model is shown. What it sends is checked against the function's own types.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from inspect import Parameter
from typing import Any

from dcaf.core.errors import ConfigurationError
from dcaf.tools.injection import Plan


def further(given: Mapping[str, Any], plan: Plan, *, tool: str) -> list[Parameter]:
    """What the schema names and ``**kwargs`` takes, as parameters.

    Raises:
        ConfigurationError: The function has no parameter of that name, and no ``**kwargs``.
    """
    own = {*plan.hidden, *(parameter.name for parameter in plan.open)}
    names = [name for name in _properties(given, tool) if name not in own]
    rest = next((item for item in plan.rest if item.kind is item.VAR_KEYWORD), None)
    if names and rest is None:
        raise ConfigurationError(f"{tool}: input_schema has the property {names[0]!r}, and the function no such parameter.")
    return [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=rest.annotation) for name in names if rest is not None]


def shown(given: Mapping[str, Any], plan: Plan, *, tool: str) -> dict[str, Any]:
    """What the model is shown: the schema, without the parameters that dcaf fills.

    Raises:
        ConfigurationError: A parameter that must be filled is not in it.
    """
    properties = _properties(given, tool)
    for parameter in plan.open:
        if parameter.default is parameter.empty and parameter.name not in properties:
            raise ConfigurationError(
                f"{tool}: input_schema has no property {parameter.name!r}, which the function cannot do without."
            )
    found = deepcopy(dict(given))
    found["properties"] = {name: value for name, value in properties.items() if name not in plan.hidden}
    if "required" in found:
        found["required"] = [name for name in found["required"] if name not in plan.hidden]
    return found


def _properties(given: Mapping[str, Any], tool: str) -> Mapping[str, Any]:
    properties = given.get("properties", {})
    if given.get("type") != "object" or not isinstance(properties, Mapping):
        raise ConfigurationError(f'{tool}: input_schema is a JSON Schema of an object: {{"type": "object", "properties": ...}}.')
    return properties
