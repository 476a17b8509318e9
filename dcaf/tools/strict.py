"""A schema for providers that take only strict ones: every member is required, and none may be added.

>>> strict({"type": "object", "properties": {"times": {"type": "integer", "default": 1}}}, tool="greet")["properties"]
{'times': {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}}

What a reader gets wrong: what had a default is still not needed. The model says null instead of leaving it out, and a null that
does not fit counts as left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from dcaf.core.errors import ConfigurationError

INSIDE: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Members of a schema that are lists of schemas."""


def strict(schema: Mapping[str, Any], *, tool: str) -> dict[str, Any]:
    """The same schema, strict.

    Raises:
        ConfigurationError: It has a place that strict schemas cannot say: a mapping with any keys, or a value of any type.
    """
    return _Strict(schema, tool).object(schema, "arguments")


class _Strict:
    def __init__(self, root: Mapping[str, Any], tool: str) -> None:
        self._definitions: Mapping[str, Any] = root.get("$defs", {})
        self._tool = tool

    def any(self, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
        """One schema, whatever it describes."""
        if "$ref" in schema and len(schema) > 1:  # strict schemas have nothing beside a reference
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self.any({**self._target(schema), **beside}, path)
        if "$ref" in schema:
            return dict(schema)
        if schema.get("type") == "object":
            return self.object(schema, path)
        found = {key: value for key, value in schema.items() if key not in {"default", "discriminator"}}
        if not {"type", "enum", "const", "anyOf", "oneOf", "allOf"} & found.keys():
            raise ConfigurationError(self._unsayable(path, "has a value of any type"))
        for name in set(INSIDE) & found.keys():
            found["anyOf" if name == "oneOf" else name] = [self.any(item, path) for item in found.pop(name)]
        if isinstance(found.get("items"), Mapping):
            found["items"] = self.any(found["items"], f"{path}[]")
        return found

    def object(self, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
        """A schema of an object."""
        if schema.get("additionalProperties") not in (None, False) or ("properties" not in schema and path != "arguments"):
            raise ConfigurationError(self._unsayable(path, "is a mapping with any keys"))
        properties, required = schema.get("properties", {}), schema.get("required", ())
        found = {key: deepcopy(value) for key, value in schema.items() if key != "default"}
        found["properties"] = {
            name: self._member(item, f"{path}.{name}", required=name in required) for name, item in properties.items()
        }
        found |= {"required": list(properties), "additionalProperties": False}
        if "$defs" in schema:
            found["$defs"] = {name: self.any(item, name) for name, item in schema["$defs"].items()}
        return found

    def _member(self, schema: Mapping[str, Any], path: str, *, required: bool) -> dict[str, Any]:
        found = self.any(schema, path)
        if required or self._takes_null(schema):
            return found
        described = {"description": found.pop("description")} if "description" in found else {}
        return described | {"anyOf": [found, {"type": "null"}]}

    def _takes_null(self, schema: Mapping[str, Any]) -> bool:
        if "$ref" in schema:
            return self._takes_null(self._target(schema))
        kinds = schema.get("type")
        is_named = kinds == "null" or (isinstance(kinds, list) and "null" in kinds) or None in schema.get("enum", ())
        return is_named or any(self._takes_null(item) for name in ("anyOf", "oneOf") for item in schema.get(name, ()))

    def _target(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
        return found

    def _unsayable(self, path: str, problem: str) -> str:
        return (
            f"{self._tool}: {path} {problem}, which a strict schema cannot say. Declare its members, with a pydantic model for "
            "example, or take the schema that is not strict."
        )
