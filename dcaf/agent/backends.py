"""What dcaf has to know of pydantic-ai's models: those inside one, how an answer ended, why one failed, and their thinking.

>>> from pydantic_ai.models.test import TestModel
>>> from pydantic_ai.models.wrapper import WrapperModel
>>> [type(model).__name__ for model in find_innermost(WrapperModel(WrapperModel(TestModel())))]
['TestModel']

What a reader gets wrong: a model is often several. One wraps another, to log or to limit it, and a fallback wraps many. What the
outermost says of itself need not hold for those that it asks.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart, ToolReturnPart
from pydantic_ai.models import Model, function
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettings

ENDED: Final = {"length": "max_tokens", "content_filter": "content_filter", "error": "error"}
"""What pydantic-ai calls the end of an answer -> ``stop_reason``."""

STATES: Final = {"suspended": "pause_turn", "incomplete": "error", "interrupted": "error"}
"""How far an answer came -> ``stop_reason``."""

MOST_CAUSES: Final = 8
"""Exceptions that one line names."""

MOST_FRAMES: Final = 5
"""Frames that are logged, the newest: before them is pydantic-ai, on the way to the provider's client."""

BEDROCK: Final = "bedrock_additional_model_requests_fields"


def find_innermost(model: Model) -> Iterator[Model]:
    """The models that are asked in the end, inside wrappers and fallbacks of pydantic-ai."""
    wrapped, several = getattr(model, "wrapped", None), getattr(model, "models", None)
    candidates = [wrapped] if isinstance(wrapped, Model) else several if isinstance(several, list | tuple) else ()
    inner = [item for item in candidates if isinstance(item, Model) and item is not model]
    if not inner:
        yield model
    for item in inner:
        yield from find_innermost(item)


def renew_client(model: Model) -> None:
    """Have a model make its own client anew where an event loop has used it that is closed, as pydantic-ai's agent does too.

    A client that was passed to a provider is left as it is.
    """
    with suppress(AttributeError):  # there is none, or the model was made without what a Model has
        model._refresh_http_client()


def is_unsupported(error: BaseException) -> bool:
    """Whether an error means that a model cannot answer in the way that it was asked, whole or piece by piece.

    A FunctionModel raises an assertion for that, and a fallback raises it among the errors of all that it has asked.
    """
    return any(
        isinstance(item, NotImplementedError)
        or _is_from(item, function.__name__)
        or (isinstance(item, BaseExceptionGroup) and any(is_unsupported(inner) for inner in item.exceptions))
        for item in _list_causes(error)
    )


def _is_from(error: BaseException, module: str) -> bool:
    """Whether that module itself has raised it."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == module


def read_stop_reason(said: ModelResponse) -> str:
    """How an answer of a model ended: ``end_turn`` where the model has said all that it wanted to, or asks for tools."""
    details = said.provider_details or {}
    if read_refusal(said) is not None or details.get("finish_reason") == "refusal":
        return "refusal"
    found = STATES.get(said.state) or ENDED.get(said.finish_reason or "")
    says_nothing = not said.tool_calls and not any(isinstance(part, TextPart) and part.content.strip() for part in said.parts)
    return found or ("empty" if says_nothing else "end_turn")


def read_refusal(said: ModelResponse) -> str | None:
    """With which words a model or its provider has refused to answer; None where it did not, or said none."""
    found = (said.provider_details or {}).get("refusal")
    return found if isinstance(found, str) and found else None


def describe_failure(error: BaseException) -> str:
    """Why a model failed, for the log: the types of all that was raised, their HTTP status, and the frames; no message."""
    names = " from ".join(_name_error(item) for item in _list_causes(error))
    return "".join([f"{names}\n", *traceback.format_tb(error.__traceback__, -MOST_FRAMES)]).rstrip()


def _list_causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what it was raised from."""
    found: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__


def _name_error(error: BaseException) -> str:
    status = _find_status(error)
    inner = error.exceptions[:MOST_CAUSES] if isinstance(error, BaseExceptionGroup) else ()
    details = [*([] if status is None else [f"HTTP {status}"]), *map(_name_error, inner)]
    return f"{type(error).__name__} ({', '.join(details)})" if details else type(error).__name__


def _find_status(error: BaseException) -> int | None:
    """The HTTP status that an error has, by itself or in its response."""
    try:
        found = [getattr(error, "status_code", None), getattr(getattr(error, "response", None), "status_code", None)]
    except Exception:  # noqa: BLE001 - a property of somebody else's error
        return None
    return next((status for status in found if isinstance(status, int)), None)


def choose_settings(model: Model, settings: ModelSettings | None, talk: Sequence[ModelMessage]) -> ModelSettings | None:
    """The settings for a request, without a budget for thinking where the earlier thinking is not in the messages any more.

    While thinking has a budget, Anthropic wants a turn that has called tools back with the thinking that it began with, and says to
    switch thinking off where that cannot be. The calls of an earlier turn come from messages, which have no thinking. With adaptive
    thinking there is no such rule.
    """
    if not _begins_without_thinking(talk) or not any(_has_budget(item, settings) for item in find_innermost(model)):
        return settings
    fields: Mapping[str, Any] = {}
    for item in find_innermost(model):
        fields = _merge_settings(item, settings).get(BEDROCK) or fields
    off: dict[str, Any] = {"thinking": False, "anthropic_thinking": {}}
    if fields:
        off[BEDROCK] = {name: value for name, value in fields.items() if name != "thinking"}
    return cast("ModelSettings", {**(settings or {}), **off})


def _begins_without_thinking(talk: Sequence[ModelMessage]) -> bool:
    """Whether the talk ends with results of tools, and the turn that called them begins with an answer without thinking."""
    first: ModelResponse | None = None
    for message in reversed(talk):
        if isinstance(message, ModelResponse):
            first = message
        elif not any(isinstance(part, ToolReturnPart) for part in message.parts):
            break
    return first is not None and not any(isinstance(part, ThinkingPart) for part in first.parts)


def _has_budget(model: Model, settings: ModelSettings | None) -> bool:
    merged = _merge_settings(model, settings)
    own = merged.get("anthropic_thinking") or (merged.get(BEDROCK) or {}).get("thinking")
    if isinstance(own, Mapping) and own:
        return bool(own.get("type") == "enabled")
    profile: Any = _get_profile(model)
    is_claude = "anthropic_supports_adaptive_thinking" in profile or profile.get("bedrock_thinking_variant") == "anthropic"
    is_adaptive = profile.get("anthropic_supports_adaptive_thinking") or profile.get("bedrock_supports_adaptive_thinking")
    return bool(merged.get("thinking")) and is_claude and not is_adaptive


def _merge_settings(model: Model, settings: ModelSettings | None) -> dict[str, Any]:
    return {**(getattr(model, "settings", None) or {}), **(settings or {})}


def _get_profile(model: Model) -> ModelProfile:
    with suppress(NotImplementedError, AttributeError):
        return model.profile
    return {}
