"""One question to a model: its text as it comes, and then what it has said.

What a reader gets wrong: whether a model can stream is known when it was asked to. One that cannot, wherever it stands behind
others, is asked for its whole answer; and one that can only stream is asked for a stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from dcaf.agent.backends import cannot, refusal_of
from dcaf.tools.contained import contained

BETWEEN: Final = "\n\n"
"""Stands between two texts of an answer that something stood between: a call of a tool, thinking, a search of the provider's."""

Pieces: TypeAlias = AsyncGenerator[Any, None]
"""Text as it comes; the last one is the whole, a ModelResponse."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        model: The model.
        talk: The conversation so far.
        settings: Temperature and the like.
        parameters: The tools.
        streams: Whether the text comes as the model writes it; else in one piece.
    """

    model: Model
    talk: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters
    streams: bool

    async def pieces(self) -> Pieces:
        """Ask. That an answer was filtered is an answer too.

        Raises:
            ExitError: The model ended with something that is no Exception.
            Exception: Whatever else it raises.
        """
        try:
            async with aclosing(self._either()) as pieces:
                async for piece in pieces:
                    yield piece
        except ContentFilterError:
            yield ModelResponse([], finish_reason="content_filter")

    async def _either(self) -> Pieces:
        """Ask in one way, and in the other where the model cannot answer in this one."""
        first, second = (self._streamed, self._whole) if self.streams else (self._whole, self._joined)
        has_begun = False
        try:
            async with aclosing(first()) as pieces:
                async for piece in pieces:
                    has_begun = True
                    yield piece
        except Exception as error:
            if has_begun or not cannot(error):
                raise
        else:
            return
        async with aclosing(second()) as pieces:
            async for piece in pieces:
                yield piece

    async def _whole(self) -> Pieces:
        with contained():
            said = await model_request(
                self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters
            )
        texts = _Texts()
        text = "".join(texts.more(PartStartEvent(index=at, part=part)) for at, part in enumerate(said.parts))
        for piece in (text, texts.refusal(said)):
            if piece:
                yield piece
        yield said

    async def _streamed(self) -> Pieces:
        texts = _Texts()
        asking = model_request_stream(self.model, self.talk, model_settings=self.settings, model_request_parameters=self.parameters)
        with contained():
            async with asking as events:
                async for event in events:
                    piece = texts.more(event)
                    if piece:
                        yield piece
            said = events.get()
        refusal = texts.refusal(said)
        if refusal:
            yield refusal
        yield said

    async def _joined(self) -> Pieces:
        """As ``_streamed``, with the text in one piece."""
        texts: list[str] = []
        async with aclosing(self._streamed()) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    texts.append(piece)
                else:
                    if texts:
                        yield "".join(texts)
                    yield piece


@dataclass(slots=True)
class _Texts:
    """The text of one answer while its parts come in."""

    last: int | None = None
    is_apart: bool = False

    def more(self, event: ModelResponseStreamEvent) -> str:
        """What an event adds to the text."""
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                return self._added(event.index, text) if text else ""
            case PartStartEvent():
                self.is_apart = self.last is not None
        return ""

    def refusal(self, said: ModelResponse) -> str:
        """What a model says that has refused and said nothing else."""
        return refusal_of(said) or "" if self.last is None else ""

    def _added(self, index: int, text: str) -> str:
        before = BETWEEN if self.is_apart and index != self.last else ""
        self.last, self.is_apart = index, False
        return before + text
