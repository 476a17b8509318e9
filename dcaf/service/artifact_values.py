"""What an artifact is, and what may be said of one: its name, its media type, its metadata.

>>> check_name("../../etc/passwd"), find_mime(None, "scan.png"), find_mime(None, "scan")
('../../etc/passwd', 'image/png', 'application/octet-stream')
>>> check_name("")
Traceback (most recent call last):
    ...
dcaf.core.errors.SessionValueError: The name of an artifact has 1 to 256 characters, not 0.

What a reader gets wrong: a name is only a name. No path is ever made of it, so it may have whatever a user or a model has written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from mimetypes import MimeTypes
from typing import Any, Final, cast

from dcaf.core.arguments import kind_of, require
from dcaf.core.errors import ConfigurationError, SessionValueError
from dcaf.core.json_values import read, to_json, write
from dcaf.engines import Row
from dcaf.service.kept import moment_of
from dcaf.service.places import USER

MOST_NAME_CHARACTERS: Final = 256
MOST_MIME_CHARACTERS: Final = 255
MOST_METADATA_BYTES: Final = 16 * 1024

BYTES: Final = "application/octet-stream"
"""The media type of what is not known."""

_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
MIME: Final = re.compile(rf"{_WORD}/{_WORD}(?: ?; ?{_WORD}=(?:{_WORD}|\"[\x20\x21\x23-\x5b\x5d-\x7e]*\"))*")
"""A media type with its parameters (RFC 9110, section 8.3.1), and nothing that would end a header."""

_KNOWN: Final = MimeTypes()


@dataclass(frozen=True, slots=True)
class ArtifactVersion:
    """What is known of a version of an artifact.

    Attributes:
        name: The name of the artifact.
        version: Its number: the first is 0.
        mime: Its media type.
        size: How many bytes it has.
        metadata: What else the application wrote of it, as JSON has it.
        created_at: When it was saved, in UTC.
    """

    name: str = field(repr=False)
    version: int
    mime: str
    size: int
    metadata: Mapping[str, Any] = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Artifact(ArtifactVersion):
    """A version of an artifact, with its bytes.

    Attributes:
        data: The bytes.
    """

    data: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The bytes as a text in UTF-8.

        Raises:
            UnicodeDecodeError: They are none.
        """
        return self.data.decode()


def describe_version(name: str, version: int, row: Row) -> ArtifactVersion:
    """What a row says of a version."""
    metadata = cast("dict[str, Any]", read(cast("bytes", row["metadata"])))
    moment = moment_of(cast("int", row["at"]))
    return ArtifactVersion(name, version, cast("bytes", row["mime"]).decode(), cast("int", row["size"]), metadata, moment)


def check_name(name: object) -> str:
    """Refuse what is no name of an artifact.

    Raises:
        SessionValueError: It is no text of 1 to 256 characters that UTF-8 can say, or ``user:`` alone.
    """
    if not isinstance(name, str):
        raise SessionValueError(f"The name of an artifact is a text, not {kind_of(name)}.")
    if not 0 < len(name) <= MOST_NAME_CHARACTERS:
        raise SessionValueError(f"The name of an artifact has 1 to {MOST_NAME_CHARACTERS} characters, not {len(name):,}.")
    if name == USER:
        raise SessionValueError(f'The name of an artifact has something after "{USER}".')
    return cast("str", to_json(str.__str__(name), path="the name of an artifact"))


def check_version(version: object) -> int | None:
    """Refuse what is no number of a version.

    Raises:
        ConfigurationError: It is neither a number from 0 on nor None.
    """
    if version is None:
        return None
    found = require("version=", version, int, "the number of a version, or None for the newest")
    if found < 0:
        raise ConfigurationError("version= is 0 for the first version, 1 for the second; None for the newest.")
    return found


def find_mime(mime: object, name: str) -> str:
    """The media type that was given, or the one that the ending of a name stands for.

    Raises:
        SessionValueError: It is none.
    """
    if mime is None:
        return _KNOWN.guess_type("file." + name.rpartition(".")[2])[0] or BYTES
    if isinstance(mime, str) and len(mime) > MOST_MIME_CHARACTERS:
        raise SessionValueError(f"mime= takes a media type of at most {MOST_MIME_CHARACTERS} characters, not {len(mime):,}.")
    if not isinstance(mime, str) or MIME.fullmatch(mime) is None:
        raise SessionValueError('mime= takes a media type: "image/png", "text/plain; charset=utf-8".')
    return mime


def pack_metadata(metadata: object) -> bytes:
    """The metadata as JSON.

    Raises:
        ConfigurationError: It is no dict.
        SessionValueError: It may not be stored, or is too large.
    """
    given = require("metadata=", {} if metadata is None else metadata, Mapping, "a dict of plain values")
    data = write(to_json(dict(given), path="metadata"))
    if len(data) > MOST_METADATA_BYTES:
        raise SessionValueError(
            f"metadata has {len(data):,} bytes as JSON, and may have {MOST_METADATA_BYTES:,}. Save what is larger as an artifact."
        )
    return data
