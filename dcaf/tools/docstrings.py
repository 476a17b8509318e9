r"""What a docstring says of a tool and of each of its parameters, and nothing of those that the model must not see.

>>> found = Docstring.of('''Greet the person.
...
... Args:
...     name: What to call them.
...     session: Where the secret is.
...
... Be kind.
... ''', hidden={"session"})
>>> found.description, found.parameters
('Greet the person.\n\nBe kind.', {'name': 'What to call them.'})

The form is found out, not declared, and there may be several. What is about parameters, results and errors, in the form of Google,
NumPy, Sphinx or Epydoc, is taken out; all else is the description, wherever it stands.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from docstring_parser import Docstring as Parsed
from docstring_parser import epydoc, google, numpydoc, rest
from docstring_parser.common import ParseError

KEYWORDS: Final[tuple[google.Section, ...]] = tuple(
    google.Section(title, "param", google.SectionType.MULTIPLE)
    for title in ("Keyword Args", "Keyword Arguments", "Other Parameters")
)
"""Sections of the Google form that the parser does not know by itself."""

FORMS: Final[Mapping[str, Callable[[str], Parsed]]] = {
    "rest": rest.parse,
    "google": google.GoogleParser([*google.DEFAULT_SECTIONS, *KEYWORDS]).parse,
    "numpy": numpydoc.NumpydocParser().parse,
    "epydoc": epydoc.parse,
}

PARAMETERS: Final = (
    *("Args", "Arguments", "Params", "Parameters"),
    *("Keyword Args", "Keyword Arguments", "Other Params", "Other Parameters"),
)
OUTCOMES: Final = (
    *("Return", "Returns", "Yield", "Yields", "Receives"),
    *("Raise", "Raises", "Except", "Excepts", "Exception", "Exceptions", "Warns"),
)
ADVICE: Final = (
    *("Attention", "Caution", "Danger", "Error", "Example", "Examples", "Hint", "Important", "Note", "Notes", "Tip", "Todo"),
    *("Warning", "Warnings"),
)
"""What begins a note to the reader, also among the parameters."""

HEADING: Final = re.compile(rf"({'|'.join((*PARAMETERS, *OUTCOMES))}):\s*$")
ADVISES: Final = re.compile(rf"({'|'.join(ADVICE)}):")
ENTRY: Final = re.compile(rf"(?!{ADVISES.pattern})\*{{0,2}}[\w.]+\s*(\([^)]*\))?\s*:")
NAME: Final = re.compile(r"[\w*{\"'(\[]")
"""What the line of a name, or of a type, begins with."""

FIELD: Final = re.compile(
    r"([:@])(param|parameter|arg|argument|key|keyword|kwarg|type|returns?|rtype|yields?|ytype|raises?|excepts?|exception)\b[^:]*:"
)
ANY_FIELD: Final = re.compile(r":\w[^:]*:(\s|$)|@\w+")

LONGEST_ENTRY: Final = 3
"""Words of a line that may name a parameter, a type or an error, and be no sentence: ``dict of str``."""


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring, read.

    Attributes:
        description: What it says, but for parameters, results and errors.
        parameters: Name -> what it says of that parameter.
    """

    description: str
    parameters: Mapping[str, str]

    @classmethod
    def of(cls, text: str | None, *, hidden: Collection[str] = ()) -> Docstring:
        """Read one; None is an empty one.

        Args:
            text: As it was written.
            hidden: Parameters that the model must not see.
        """
        parts = _Parts(inspect.cleandoc(text or "").splitlines())
        description = re.sub(r"\n{3,}", "\n\n", "\n".join(parts.description)).strip()
        found = {name: about for form, lines in parts.parameters.items() for name, about in _read_parameters(FORMS[form], lines)}
        visible = {name: about for name, about in found.items() if name not in hidden}
        return cls("\n".join(_drop_hidden(description, hidden)).strip() if hidden else description, visible)


def _read_parameters(parse: Callable[[str], Parsed], lines: list[str]) -> Iterator[tuple[str, str]]:
    """Each parameter that lines in one form describe, with its description."""
    try:
        parsed = parse("\n".join([".", "", *lines]))  # with a first sentence, which the parsers count on
    except ParseError:  # not in this form after all
        return
    for item in parsed.params:
        for name in item.arg_name.split(","):
            if item.description:
                yield name.strip().lstrip("*"), item.description


@dataclass(slots=True)
class _Parts:
    """The lines of a docstring: those of the description, and by form those about parameters. Others are left out."""

    lines: list[str]
    description: list[str] = field(default_factory=list)
    parameters: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at = 0
        while at < len(self.lines):
            at = self._section(at) or self._underlined(at) or self._fields(at) or self._describe(at)

    def _describe(self, at: int) -> int:
        self.description.append(self.lines[at])
        return at + 1

    def _section(self, at: int) -> int | None:
        """A heading and what is indented below it: the form of Google. Gives where it ends."""
        found = HEADING.match(self.lines[at])
        end = at + 1 if found is None else self._indented_to(at + 1)
        if found is None or end == at + 1:
            return None
        if found.group(1) not in PARAMETERS:
            return end
        entries, notes = _split_notes(self.lines[at + 1 : end])
        self._add("google", [self.lines[at], *entries])
        self.description += ["", *notes, ""]
        return end

    def _underlined(self, at: int) -> int | None:
        """A heading with dashes below it, and what follows up to the next one, or to a sentence: the form of NumPy."""
        title = self.lines[at].strip()
        if title not in (*PARAMETERS, *OUTCOMES) or not self._is_line(at + 1):
            return None
        end = at + 2
        while end < len(self.lines) and not self._is_line(end + 1) and not self._is_apart(end):
            end += 1
        if title in PARAMETERS:
            self._add("numpy", self.lines[at:end])
        return end

    def _fields(self, at: int) -> int | None:
        """``:param name: ...`` or ``@param name: ...`` with the lines that go on from it: the forms of Sphinx and Epydoc."""
        found = FIELD.match(self.lines[at])
        if found is None:
            return None
        end = at + 1
        while end < len(self.lines) and self.lines[end].strip() and ANY_FIELD.match(self.lines[end]) is None:
            end += 1
        end = max(end, self._indented_to(end)) if self._is_blank(end) else end
        self._add("rest" if found.group(1) == ":" else "epydoc", self.lines[at:end])
        return end

    def _add(self, form: str, lines: list[str]) -> None:
        self.parameters.setdefault(form, []).extend(lines)

    def _indented_to(self, at: int) -> int:
        """Where the lines end that are indented, or empty; without empty ones at the end."""
        end = at
        while end < len(self.lines) and (self._is_blank(end) or _indent(self.lines[end])):
            end += 1
        while end > at and self._is_blank(end - 1):
            end -= 1
        return end

    def _is_blank(self, at: int) -> bool:
        return at < len(self.lines) and not self.lines[at].strip()

    def _is_line(self, at: int) -> bool:
        return at < len(self.lines) and re.fullmatch(r"-{3,}|={3,}", self.lines[at].strip()) is not None

    def _is_apart(self, at: int) -> bool:
        """Whether a line goes on with something else than a list of names and types: after an empty one, and written otherwise."""
        line = self.lines[at]
        if not line.strip() or _indent(line) or not self._is_blank(at - 1):
            return False
        if NAME.match(line) is None or ADVISES.match(line) or re.search(r"[.!?]$|\S:$", line.rstrip()):
            return True
        is_explained = " : " in line or self._indented_to(at + 1) > at + 1
        return not is_explained and len(line.split()) > LONGEST_ENTRY


def _split_notes(body: list[str]) -> tuple[list[str], list[str]]:
    """The lines of a list of parameters, and those between them that are a note to the reader."""
    entries: list[str] = []
    notes: list[str] = []
    is_note = False
    for before, line in zip(["", *body], body, strict=False):
        if line.strip() and _indent(line) == _indent(body[0]):
            is_note = ENTRY.match(line.strip()) is None and (is_note or not before.strip())
        (notes if is_note else entries).append(line)
    return entries, inspect.cleandoc("\n".join(["", *notes])).splitlines()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _drop_hidden(text: str, hidden: Collection[str]) -> Iterator[str]:
    """The lines without those that explain a hidden parameter, in whatever form, and those that are indented below one."""
    names = "|".join(re.escape(name) for name in hidden)
    about = re.compile(rf"\s*([-*+]\s+|[:@]param\s+([\w.\[\]]+\s+)?|:type\s+)?[`*]*({names})[`*]*\s*(\([^)]*\))?\s*(:|--|-\s|$)")
    below: int | None = None
    for line in text.splitlines():
        indent = _indent(line)
        if below is not None and line.strip() and indent > below:
            continue
        below = indent if about.match(line) else None
        if below is None:
            yield line
