"""How an agent runs: what streams, how often the model is called, how long a turn takes; and how arguments are checked.

>>> RunConfig(max_model_calls=0)
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: max_model_calls must be a number from 1 up.
>>> require("text=", 7, str, "a text")
Traceback (most recent call last):
    ...
dcaf.core.errors.ConfigurationError: text= takes a text, not an int.

What a reader gets wrong: a turn that reaches a limit is an error, and leaves the session as it was. It is no shorter answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any

from pydantic_ai.settings import ModelSettings

from dcaf.core.errors import ConfigurationError


class StreamingMode(IntEnum):
    """Which way text streams.

    Attributes:
        NONE: The model is asked for whole answers; a stream has the text in one piece.
        SSE: Text streams to the client as the model writes it.
        BIDI: The same, and on a WebSocket the client may send the text ``stop`` to end the turn that is running.
    """

    NONE = 0
    SSE = 1
    BIDI = 2


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How an agent runs.

    Attributes:
        streaming_mode: Which way text streams.
        max_model_calls: How often the model may be called in one turn.
        timeout: How long a turn may take; None is without end.
        model_settings: Temperature and the like, as pydantic-ai has them; None leaves them to the model.

    Raises:
        ConfigurationError: A limit is none, or another member is of another kind.
    """

    streaming_mode: StreamingMode = StreamingMode.BIDI
    max_model_calls: int = 20
    timeout: timedelta | None = timedelta(minutes=5)
    model_settings: ModelSettings | None = None

    def __post_init__(self) -> None:
        if type(self.max_model_calls) is not int or self.max_model_calls < 1:
            raise ConfigurationError("max_model_calls must be a number from 1 up.")
        if self.timeout is not None and (not isinstance(self.timeout, timedelta) or self.timeout <= timedelta()):
            raise ConfigurationError("timeout= takes a timedelta over zero, for instance timeout=timedelta(minutes=5), or None.")
        if not isinstance(self.streaming_mode, StreamingMode):
            raise ConfigurationError("streaming_mode= takes StreamingMode.NONE, .SSE or .BIDI.")
        if self.model_settings is not None and not isinstance(self.model_settings, dict):
            raise ConfigurationError("model_settings= takes a dict, for instance model_settings={'temperature': 0.0}, or None.")

    @property
    def timeout_s(self) -> float | None:
        """The time limit in seconds."""
        return None if self.timeout is None else self.timeout.total_seconds()


def require(argument: str, value: Any, kind: Any, takes: str) -> None:
    """Refuse an argument of another kind. The message does not show the value, which may be what a person has said.

    Args:
        argument: How the user writes it.
        value: What was given.
        kind: What it must be an instance of: a class, or a union of some.
        takes: The same in words.

    Raises:
        ConfigurationError: It is something else.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{argument} takes {takes}, not {describe_kind(value)}.")


def describe_kind(value: Any) -> str:
    """What something is, in words: of an instance its class, of a class that it is one."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
