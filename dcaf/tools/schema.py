"""What a model fills of a tool: the JSON Schema and the validation of its open parameters, also strict or written by hand.

>>> from dcaf.tools.injection_plan import Plan
>>> from dcaf.tools.docstrings import Docstring
>>> def greet(name: str, times: int = 1) -> str:
...     '''Greet the person.
...
...     Args:
...         name: What to call them.
...     '''
>>> arguments = Arguments("greet", Plan.of(greet), Docstring.of(greet.__doc__))
>>> arguments.schema["properties"]["name"]
{'description': 'What to call them.', 'type': 'string'}
>>> arguments.validate({"name": "Ada"})
{'name': 'Ada'}

Strict schemas, which some providers ask for, require every member. What had a default is still not needed: the model says null
instead of leaving it out, and a null that does not fit counts as left out.

>>> strict(arguments.schema, tool="greet")["properties"]["times"]
{'anyOf': [{'type': 'integer'}, {'type': 'null'}]}

A schema by hand is what the model is shown. What it sends is checked against the function's own types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from inspect import Parameter
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import from_json

from dcaf.core.errors import ConfigurationError, ToolArgumentError
from dcaf.core.parts import describe_misfit, list_problems
from dcaf.tools.callables import find_default_factory
from dcaf.tools.docstrings import Docstring
from dcaf.tools.injectables import unset
from dcaf.tools.injection_plan import Plan
from dcaf.tools.settings import drop_properties

INSIDE: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Members of a schema that are lists of schemas."""


class Arguments:
    """The open parameters of one tool.

    Args:
        tool: The tool's name, for messages.
        plan: Which parameters are open; one without an annotation takes any JSON value.
        docstring: What it says of them.
        given: A schema that was written by hand, to be shown in place of the one that is made; None to make one.

    Attributes:
        schema: A JSON Schema (2020-12) of an object with one property for each parameter.

    Raises:
        ConfigurationError: pydantic cannot describe a parameter, or the schema by hand does not fit the parameters.
    """

    def __init__(self, tool: str, plan: Plan, docstring: Docstring, given: Mapping[str, Any] | None = None) -> None:
        parameters = [*plan.open, *([] if given is None else _further_parameters(given, plan, tool=tool))]
        # Fields are numbered and named by alias, so that no parameter's name can clash with an attribute of the model.
        self._names = {f"p{index}": parameter.name for index, parameter in enumerate(parameters)}
        self._further = {parameter.name for parameter in parameters[len(plan.open) :]}
        self._model, made = _build_model(tool, dict(zip(self._names, parameters, strict=True)), docstring)
        self.schema: dict[str, Any] = made if given is None else _hide_filled(given, plan, tool=tool)
        self._defaults = {
            name
            for name, parameter in zip(self._names, parameters, strict=True)
            if (parameter.default is unset or isinstance(parameter.default, FieldInfo))
            and not self._model.model_fields[name].is_required()
        }
        self._shared = {name for name in self._defaults if _is_shared(tool, self._names[name], self._model.model_fields[name])}

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check what the model sent; parameters that it left out are left out. A null that does not fit counts as left out.

        Raises:
            ToolArgumentError: The arguments do not fit; one path and problem a line.
        """
        found, _ = self._validate(arguments)
        sent = found.model_fields_set
        values = {}
        for field, name in self._names.items():
            if field in sent or field in self._defaults:
                value = getattr(found, field)
                values[name] = deepcopy(value) if field in self._shared and field not in sent else value
        return values

    def complete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function will get them, as JSON; what JSON cannot say stays as the model sent it, or is left out.

        Raises:
            ToolArgumentError: As ``validate``.
        """
        found, sent = self._validate(arguments)
        own = {field: name for field, name in self._names.items() if field in found.model_fields_set or name not in self._further}
        return {name: value for field, name in own.items() if (value := self._to_json(found, field, sent)) is not unset}

    def defaults(self) -> dict[str, Any]:
        """What the parameters get that are left out and whose default is in a pydantic ``Field``."""
        fields = self._model.model_fields
        return {self._names[field]: fields[field].get_default(call_default_factory=True) for field in self._defaults}

    def _to_json(self, found: BaseModel, field: str, sent: Mapping[str, Any]) -> Any:
        """One argument as JSON, where that reads back as the same value; else what was sent, or ``unset``."""
        name, value = self._names[field], getattr(found, field)
        try:
            written = from_json(found.model_dump_json(by_alias=True, include={field}, warnings=False))[name]
            again = getattr(self._model.model_validate({**sent, name: written}), field)
            is_same = type(again) is type(value) and bool(again == value)
        except Exception:  # noqa: BLE001 - whatever a type of the application raises while it is written, read or compared
            is_same = False
        return written if is_same else sent.get(name, unset)

    def _validate(self, arguments: Mapping[str, Any]) -> tuple[BaseModel, Mapping[str, Any]]:
        """The arguments validated, and those that were: without the nulls that count as left out."""
        try:
            return self._model.model_validate(arguments), arguments
        except ValidationError as error:
            first = error
        nulls = [item["loc"] for item in first.errors(include_url=False) if item["input"] is None]
        try:
            without = deepcopy(arguments) if nulls else arguments
            for place in nulls:
                _leave_out(without, place)
            return self._model.model_validate(without), without
        except (ValidationError, RecursionError):
            raise ToolArgumentError(describe_misfit("arguments", self._model, first), list_problems("arguments", first)) from None


def strict(schema: Mapping[str, Any], *, tool: str) -> dict[str, Any]:
    """The same schema, strict.

    Raises:
        ConfigurationError: It has a place that strict schemas cannot say: a mapping with any keys, or a value of any type.
    """
    return _Strict(schema, tool).object(schema, "arguments")


def _is_shared(tool: str, name: str, field: FieldInfo) -> bool:
    """Whether the default in a ``Field`` is one object that a call could change; pydantic copies only those without a hash."""
    try:
        return field.default_factory is None and find_default_factory(field.default) is not None
    except ConfigurationError as error:
        raise ConfigurationError(f"{tool}: the parameter {name!r} {error}") from None


class _Schema(GenerateJsonSchema):
    """As pydantic's, without titles made of names, and without a warning for a default that JSON cannot say."""

    ignored_warning_kinds = {*GenerateJsonSchema.ignored_warning_kinds, "non-serializable-default"}  # noqa: RUF012 - pydantic's

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's
        return False


def _build_model(tool: str, parameters: Mapping[str, Parameter], docstring: Docstring) -> tuple[type[BaseModel], dict[str, Any]]:
    fields = {field: _field(parameter, docstring.parameters.get(parameter.name)) for field, parameter in parameters.items()}
    try:
        model = create_model(tool, __config__=ConfigDict(extra="forbid"), **cast("Any", fields))
        schema = model.model_json_schema(schema_generator=_Schema)
    except PydanticUserError as error:
        raise ConfigurationError(f"{tool}: {_explain_failure(parameters.values(), error)}") from None
    return model, {"type": "object", "properties": {}} | {key: value for key, value in schema.items() if key != "title"}


def _field(parameter: Parameter, description: str | None) -> tuple[Any, Any]:
    annotation = Any if parameter.annotation is unset else parameter.annotation
    described: dict[str, Any] = {} if description is None else {"description": description}
    names: dict[str, Any] = {"alias": parameter.name, "validation_alias": parameter.name}
    if isinstance(parameter.default, FieldInfo):
        return Annotated[annotation, parameter.default], Field(**names, **described)
    default: dict[str, Any] = {} if parameter.default is unset else {"default": parameter.default}
    return annotation, Field(**default, **names, **described)


def _explain_failure(parameters: Iterable[Parameter], error: PydanticUserError) -> str:
    """Which parameter it is that pydantic cannot describe, and what to write."""
    for parameter in parameters:
        try:
            TypeAdapter(_field(parameter, None)[0]).json_schema()
        except PydanticUserError:
            kind = parameter.annotation
            name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
            return (
                f"the parameter {parameter.name!r} is annotated as {name}, which pydantic cannot describe to a model. If the model "
                "fills it, annotate it as a type such as str or a pydantic model; if it is the session, as dcaf.Session."
            )
    return f"a parameter cannot be described to a model: {error.message}"


def _leave_out(value: Any, place: Sequence[str | int]) -> None:
    """Take a null out of the object that it is a member of; steps that are no keys are pydantic's names for types."""
    parent: Any = None
    for step in place:
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            parent, last, value = value, step, value[step]  # type: ignore[index]
    if isinstance(parent, dict) and value is None:
        del parent[last]


def _further_parameters(given: Mapping[str, Any], plan: Plan, *, tool: str) -> list[Parameter]:
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


def _hide_filled(given: Mapping[str, Any], plan: Plan, *, tool: str) -> dict[str, Any]:
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
    return deepcopy(drop_properties(given, plan.hidden))


def _properties(given: Mapping[str, Any], tool: str) -> Mapping[str, Any]:
    properties = given.get("properties", {})
    if given.get("type") != "object" or not isinstance(properties, Mapping):
        raise ConfigurationError(f'{tool}: input_schema is a JSON Schema of an object: {{"type": "object", "properties": ...}}.')
    return properties


class _Strict:
    """Makes one schema strict, with the definitions that stand at its root."""

    def __init__(self, root: Mapping[str, Any], tool: str) -> None:
        self._definitions: Mapping[str, Any] = root.get("$defs", {})
        self._tool = tool

    def any(self, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
        """One schema, whatever it describes."""
        if "$ref" in schema and len(schema) > 1:  # strict schemas have no other member next to a reference
            others = {key: value for key, value in schema.items() if key != "$ref"}
            return self.any({**self._find_definition(schema), **others}, path)
        if "$ref" in schema:
            return dict(schema)
        if schema.get("type") == "object":
            return self.object(schema, path)
        found = {key: value for key, value in schema.items() if key not in {"default", "discriminator"}}
        if not {"type", "enum", "const", "anyOf", "oneOf", "allOf"} & found.keys():
            raise ConfigurationError(self._build_message(path, "has a value of any type"))
        for name in set(INSIDE) & found.keys():
            found["anyOf" if name == "oneOf" else name] = [self.any(item, path) for item in found.pop(name)]
        if isinstance(found.get("items"), Mapping):
            found["items"] = self.any(found["items"], f"{path}[]")
        return found

    def object(self, schema: Mapping[str, Any], path: str) -> dict[str, Any]:
        """A schema of an object."""
        if schema.get("additionalProperties") not in (None, False) or ("properties" not in schema and path != "arguments"):
            raise ConfigurationError(self._build_message(path, "is a mapping with any keys"))
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
            return self._takes_null(self._find_definition(schema))
        kinds = schema.get("type")
        is_named = kinds == "null" or (isinstance(kinds, list) and "null" in kinds) or None in schema.get("enum", ())
        return is_named or any(self._takes_null(item) for name in ("anyOf", "oneOf") for item in schema.get(name, ()))

    def _find_definition(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._definitions[schema["$ref"].removeprefix("#/$defs/")]
        return found

    def _build_message(self, path: str, problem: str) -> str:
        return (
            f"{self._tool}: {path} {problem}, which a strict schema cannot say. Declare its members, with a pydantic model for "
            "example, or take the schema that is not strict."
        )
