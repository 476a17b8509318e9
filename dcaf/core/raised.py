"""What a function of the application raised, in words for the log: its type and its place.

>>> def accept(plain): return plain["step"]
>>> try:
...     accept({})
... except KeyError as error:
...     print(describe_raised(error))
KeyError in accept (...:1)

What a reader gets wrong: the message of the exception is not there on purpose. It may quote what a caller has sent.
"""

from __future__ import annotations

import traceback


def describe_raised(error: BaseException) -> str:
    """The type of an exception that was caught where a function was called, and where in that function it came up."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is who caught it
    places = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames]
    said = type(error).__name__
    if places:
        said += f" in {places[0]}"
    return f"{said}, from {places[-1]}" if len(places) > 1 else said
