"""What a docstring says of a tool and of each of its parameters, and nothing of those that the model must not see.

>>> said = Docstring.of('''Greet the person.
...
... Args:
...     name: What to call them.
...     session: Where the secret is.
... ''', hidden={"session"})
>>> said.description, said.parameters
('Greet the person.', {'name': 'What to call them.'})

What a reader gets wrong: the form is found out, not declared. Of Google, NumPy, Sphinx and Epydoc the one that explains most
counts. Lines in another form stay in the description, but for those of a hidden parameter.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from docstring_parser import Docstring as Parsed
from docstring_parser import epydoc, google, numpydoc, rest
from docstring_parser.common import ParseError

KEYWORDS: Final[tuple[google.Section, ...]] = tuple(
    google.Section(title, "param", google.SectionType.MULTIPLE)
    for title in ("Keyword Args", "Keyword Arguments", "Other Parameters")
)
"""Sections of the Google form that the parser does not know by itself."""

FORMS: Final[tuple[Callable[[str], Parsed], ...]] = (
    rest.parse,
    google.GoogleParser([*google.DEFAULT_SECTIONS, *KEYWORDS]).parse,
    numpydoc.NumpydocParser().parse,
    epydoc.parse,
)


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring, read.

    Attributes:
        description: What it says before its sections, and in notes between them.
        parameters: Name -> what it says of that parameter.
    """

    description: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, text: str | None, *, hidden: Collection[str] = ()) -> Docstring:
        """Read one; None is an empty one.

        Args:
            text: As it was written.
            hidden: Parameters of which nothing may be told.
        """
        parsed = _parsed(inspect.cleandoc(text or ""))
        said = {
            name.strip().lstrip("*"): item.description
            for item in parsed.params
            for name in item.arg_name.split(",")
            if item.description
        }
        told = "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
        return cls(_without(told, hidden), {name: text for name, text in said.items() if name not in hidden})


def _parsed(text: str) -> Parsed:
    found = []
    for form in FORMS:
        try:
            found.append(form(text))
        except ParseError:  # not in this form
            continue
    return max(found, key=lambda parsed: len(parsed.meta), default=Parsed())


def _without(text: str, hidden: Collection[str]) -> str:
    """The text without the lines that explain a hidden parameter, in whatever form, and those that are indented below one."""
    return "\n".join(_kept(text.splitlines(), hidden)).strip() if hidden else text


def _kept(lines: list[str], hidden: Collection[str]) -> Iterator[str]:
    names = "|".join(re.escape(name) for name in hidden)
    about = re.compile(rf"\s*([-*+]\s+|[:@]param\s+([\w.\[\]]+\s+)?|:type\s+)?[`*]*({names})[`*]*\s*(\([^)]*\))?\s*(:|--|-\s|$)")
    below: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if below is not None and line.strip() and indent > below:
            continue
        below = indent if about.match(line) else None
        if below is None:
            yield line
