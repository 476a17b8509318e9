"""What is left for the model to fill: the description, the JSON Schema and the validation of a tool's open parameters.

>>> import inspect
>>> def greet(name: str, times: int = 1) -> str:
...     '''Greet the person.
...
...     Args:
...         name: What to call them.
...     '''
>>> arguments = Arguments("greet", list(inspect.signature(greet).parameters.values()), greet.__doc__)
>>> arguments.schema["properties"]["name"]
{'description': 'What to call them.', 'type': 'string'}
>>> arguments.validate({"name": "Ada"})
{'name': 'Ada'}

What a reader gets wrong: an injected parameter never comes here, so nothing of it can reach the model, and a value that
the model sends for one is an unknown argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from docstring_parser import Docstring, parse
from pydantic import ConfigDict, Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from dcaf.core.errors import ConfigurationError, ToolArgumentError
from dcaf.core.paths import misfit


class Arguments:
    """The open parameters of one tool.

    Args:
        tool: The tool's name, for messages.
        parameters: In order, their annotations evaluated; an unannotated one takes any JSON value.
        docstring: Of the function, in Google, NumPy or Sphinx form; None where it has none.

    Attributes:
        description: What the docstring says before its sections.
        schema: A JSON Schema (2020-12) of an object with one property for each parameter.

    Raises:
        ConfigurationError: pydantic cannot describe a parameter.
    """

    def __init__(self, tool: str, parameters: Sequence[inspect.Parameter], docstring: str | None) -> None:
        self._tool = tool
        text = parse(inspect.cleandoc(docstring or ""))
        said = {item.arg_name: item.description for item in text.params}
        self.description: str = _description(text)
        # Fields are numbered and named by alias, so that no parameter's name can clash with an attribute of the model.
        self._names = {f"p{index}": parameter.name for index, parameter in enumerate(parameters)}
        fields = {
            field: _field(parameter, said.get(parameter.name)) for field, parameter in zip(self._names, parameters, strict=True)
        }
        try:
            self._model = create_model(tool, __config__=ConfigDict(extra="forbid"), **cast("Any", fields))
            self.schema: dict[str, Any] = _untitled(self._model.model_json_schema(schema_generator=_Schema))
        except PydanticUserError as error:
            raise ConfigurationError(f"{tool}: a parameter cannot be described to a model: {error.message}") from None

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Check what the model sent; parameters that it left out are left out.

        Raises:
            ToolArgumentError: The arguments do not fit; one path and problem a line.
        """
        try:
            found = self._model.model_validate(arguments)
        except ValidationError as error:
            raise ToolArgumentError(misfit("arguments", self._model, error)) from None
        return {self._names[field]: getattr(found, field) for field in self._names if field in found.model_fields_set}


class _Schema(GenerateJsonSchema):
    """As pydantic's, but a default that JSON cannot say is left out without a warning."""

    ignored_warning_kinds = {*GenerateJsonSchema.ignored_warning_kinds, "non-serializable-default"}  # noqa: RUF012 - pydantic's


def _field(parameter: inspect.Parameter, said: str | None) -> tuple[Any, Any]:
    if isinstance(parameter.default, FieldInfo):
        raise ConfigurationError(
            f"{parameter.name}: write the default itself, and pydantic's Field into the annotation: "
            f"{parameter.name}: Annotated[..., Field(...)] = default."
        )
    annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
    default = ... if parameter.default is parameter.empty else parameter.default
    told: dict[str, Any] = {} if said is None else {"description": said}
    return annotation, Field(default, alias=parameter.name, **told)


def _description(text: Docstring) -> str:
    return "\n\n".join(part for part in (text.short_description, text.long_description) if part)


def _untitled(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the titles that pydantic makes up from names: they tell a model nothing."""
    properties = {
        name: {key: value for key, value in item.items() if key != "title"} for name, item in schema.get("properties", {}).items()
    }
    return {key: value for key, value in schema.items() if key != "title"} | {"properties": properties}
