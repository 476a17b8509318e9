"""What pydantic-ai's models are made of, and what dcaf has to know of them and of their answers.

>>> from pydantic_ai.models.test import TestModel
>>> from pydantic_ai.models.wrapper import WrapperModel
>>> [type(model).__name__ for model in innermost(WrapperModel(WrapperModel(TestModel())))]
['TestModel']

What a reader gets wrong: a model is often several. One stands before another, to log or to limit it, and a fallback stands before
many. What the outermost says of itself holds for none of those that it asks.
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


def innermost(model: Model) -> Iterator[Model]:
    """The models that are asked in the end, inside wrappers and fallbacks of pydantic-ai."""
    wrapped, several = getattr(model, "wrapped", None), getattr(model, "models", None)
    candidates = [wrapped] if isinstance(wrapped, Model) else several if isinstance(several, list | tuple) else ()
    inner = [item for item in candidates if isinstance(item, Model) and item is not model]
    if not inner:
        yield model
    for item in inner:
        yield from innermost(item)


def renew_client(model: Model) -> None:
    """Have a model make its client anew, if it made one itself that an event loop has used which is no more.

    pydantic-ai's own agent does the same when a run begins. A client that was passed to a provider is left as it is.
    """
    with suppress(AttributeError):  # there is none, or the model was made without what a Model has
        model._refresh_http_client()


def cannot(error: BaseException) -> bool:
    """Whether a model says by an error that it cannot answer in the way that it was asked, whole or piece by piece.

    A FunctionModel says so by an assertion. A fallback says it among the errors of all that it has asked.
    """
    return any(
        isinstance(item, NotImplementedError)
        or _is_from(item, function.__name__)
        or (isinstance(item, BaseExceptionGroup) and any(cannot(inner) for inner in item.exceptions))
        for item in _causes(error)
    )


def _is_from(error: BaseException, module: str) -> bool:
    """Whether that module has raised it, and nothing that it has called."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == module


def stop_reason(said: ModelResponse) -> str:
    """How an answer of a model ended: ``end_turn`` where the model has said all that it wanted to, or asks for tools."""
    details = said.provider_details or {}
    if refusal_of(said) is not None or details.get("finish_reason") == "refusal":
        return "refusal"
    found = STATES.get(said.state) or ENDED.get(said.finish_reason or "")
    says_nothing = not said.tool_calls and not any(isinstance(part, TextPart) and part.content.strip() for part in said.parts)
    return found or ("empty" if says_nothing else "end_turn")


def refusal_of(said: ModelResponse) -> str | None:
    """With which words a model or its provider has refused to answer; None where it did not, or said none."""
    found = (said.provider_details or {}).get("refusal")
    return found if isinstance(found, str) and found else None


def describe(error: BaseException) -> str:
    """Why a model failed, for the log: the types of all that was raised, their HTTP status, and the frames; no message."""
    named = " from ".join(_named(item) for item in _causes(error))
    return "".join([f"{named}\n", *traceback.format_tb(error.__traceback__, -MOST_FRAMES)]).rstrip()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what it was raised from."""
    found: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__


def _named(error: BaseException) -> str:
    status = _status(error)
    inner = error.exceptions[:MOST_CAUSES] if isinstance(error, BaseExceptionGroup) else ()
    told = [*([] if status is None else [f"HTTP {status}"]), *map(_named, inner)]
    return f"{type(error).__name__} ({', '.join(told)})" if told else type(error).__name__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error has, by itself or in its response."""
    try:
        found = [getattr(error, "status_code", None), getattr(getattr(error, "response", None), "status_code", None)]
    except Exception:  # noqa: BLE001 - a property of somebody else's error
        return None
    return next((status for status in found if isinstance(status, int)), None)


def settings_for(model: Model, settings: ModelSettings | None, talk: Sequence[ModelMessage]) -> ModelSettings | None:
    """The settings for a request, without a budget for thinking where what was thought before is not there any more.

    Anthropic wants a turn that has called tools back with the thinking that it began with, while thinking has a budget, and says
    to switch it off where that cannot be. The calls of an earlier turn are known from the messages, which have no thinking. With
    adaptive thinking there is no such rule.
    """
    if not _begins_without_thinking(talk) or not any(_has_budget(item, settings) for item in innermost(model)):
        return settings
    fields: Mapping[str, Any] = {}
    for item in innermost(model):
        fields = _merged(item, settings).get(BEDROCK) or fields
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
    merged = _merged(model, settings)
    own = merged.get("anthropic_thinking") or (merged.get(BEDROCK) or {}).get("thinking")
    if isinstance(own, Mapping) and own:
        return bool(own.get("type") == "enabled")
    profile: Any = _profile(model)
    is_claude = "anthropic_supports_adaptive_thinking" in profile or profile.get("bedrock_thinking_variant") == "anthropic"
    is_adaptive = profile.get("anthropic_supports_adaptive_thinking") or profile.get("bedrock_supports_adaptive_thinking")
    return bool(merged.get("thinking")) and is_claude and not is_adaptive


def _merged(model: Model, settings: ModelSettings | None) -> dict[str, Any]:
    return {**(getattr(model, "settings", None) or {}), **(settings or {})}


def _profile(model: Model) -> ModelProfile:
    with suppress(NotImplementedError, AttributeError):
        return model.profile
    return {}
