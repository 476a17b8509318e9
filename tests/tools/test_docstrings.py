"""What is read from a docstring, in whatever form it is written, and what never is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dcaf import Session, tool
from dcaf.tools.docstrings import FORMS as FORMS_OF
from dcaf.tools.docstrings import Docstring

SAID = {"name": "What to call them.", "times": "How often."}
FORMS = {
    "google": "Args:\n    name: What to call them.\n    times: How often.\n    session: Where the secret is.",
    "google with types": "Args:\n    name (str): What to call them.\n    times (int, optional): How often.\n"
    "    session (Session): The secret.",
    "google keyword": "Args:\n    name: What to call them.\n\nKeyword Args:\n    times: How often.\n    session: The secret.",
    "google arguments": "Arguments:\n  name: What to call them.\n  times: How often.\n  session: The secret.",
    "numpy": "Parameters\n----------\nname : str\n    What to call them.\ntimes\n    How often.\n"
    "session : Session\n    The secret.",
    "numpy other": "Parameters\n----------\nname\n    What to call them.\nsession\n    The secret.\n\n"
    "Other Parameters\n----------------\ntimes\n    How often.",
    "sphinx": ":param name: What to call them.\n:param int times: How often.\n:param session: The secret.\n:type session: Session",
    "epydoc": "@param name: What to call them.\n@param times: How often.\n@param session: The secret.",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_every_usual_form_is_read_and_a_hidden_parameter_is_not_in_it(text: str) -> None:
    found = Docstring.of(f"Greet the person.\n\n{text}\n", hidden={"session"})
    assert (found.description, found.parameters) == ("Greet the person.", SAID)


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_control_what_is_not_hidden_is_told(text: str) -> None:
    assert "ecret" in Docstring.of(f"Greet the person.\n\n{text}\n").parameters["session"]


UNREAD = {
    "markdown": "## Parameters\n- `name`: What to call them.\n- `session`: Holds\n  the secret.",
    "two forms": "Args:\n    name: What.\n    times: How often.\n\n:param session: Holds\n    the secret.",
    "no section": "name: What to call them.\nsession: Holds\n    the secret.",
    "dashes": "Parameters:\nname -- What to call them.\nsession -- Holds the secret.",
    "stars": "* **session** (Session): Holds the secret.\n* name: What to call them.",
}


@pytest.mark.parametrize("text", UNREAD.values(), ids=UNREAD)
def test_a_line_about_a_hidden_parameter_is_left_out_also_where_the_form_is_none(text: str) -> None:
    @tool
    def greet(name: str, times: int, session: Session) -> str:
        return name

    greet = tool(_with_text(greet._function, f"Greet the person.\n\n{text}\n"))
    assert greet.description.startswith("Greet the person.")
    assert "secret" not in greet.description + str(greet.input_schema)
    assert "session" not in greet.description.lower()


def _with_text(function: Any, text: str) -> Any:
    function.__doc__ = text
    return function


def test_words_about_sessions_that_explain_no_parameter_stay() -> None:
    text = "Start the session again.\n\nsession handling is described elsewhere: ask."
    assert Docstring.of(text, hidden={"session"}).description == text


def test_notes_and_text_over_several_lines_stay() -> None:
    found = Docstring.of(
        """Greet the person.

        Over
        two lines.

        Note:
            Be kind.

        Args:
            name: What to call them,
                over two lines.

        Returns:
            Words.
        """
    )
    assert found.description == "Greet the person.\n\nOver\ntwo lines.\n\nNote:\n    Be kind."
    assert found.parameters == {"name": "What to call them,\nover two lines."}


def test_two_parameters_that_share_a_line_share_what_it_says() -> None:
    assert Docstring.of("Add.\n\nParameters\n----------\na, b : int\n    A number.\n").parameters == {
        "a": "A number.",
        "b": "A number.",
    }


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_no_docstring_says_nothing(text: str | None) -> None:
    assert Docstring.of(text) == Docstring("", {})


ABOUT = {
    "google": "Args:\n    name: What to call them.\n    times (int): How often,\n        at most.\n    session: The secret.",
    "google, other titles": "Parameters:\n    name: What to call them.\n\nKeyword Args:\n    times: How often,\n        at most.",
    "numpy": "Parameters\n----------\nname : str\n    What to call them.\ntimes : int, optional\n    How often,\n    at most.\n"
    "session\n    The secret.",
    "sphinx": ":param name: What to call them.\n:param int times: How often,\n    at most.\n:type name: str\n"
    ":param session: The secret.",
    "sphinx, lazily": ":param name: What to call them.\n:param times: How often,\nat most.\n:param session: The secret.\n"
    ":type session: S",
    "epydoc": "@param name: What to call them.\n@param times: How often,\n    at most.\n@type times: int\n"
    "@param session: The secret.",
}
OUTCOME = {
    "none": "",
    "google": "Returns:\n    Words of theirs.\n\nRaises:\n    ValueError: Words of theirs.\n\n    More words of theirs.",
    "google, yields": "Yields:\n    str: Words of theirs.",
    "numpy": "Returns\n-------\nstr\n    Words of theirs.\n\nRaises\n------\nValueError\n    Words of theirs.",
    "sphinx": ":returns: Words of theirs,\n    and of others.\n:rtype: str\n:raises ValueError: Words of theirs.",
    "epydoc": "@return: Words of theirs.\n@rtype: str\n@raise ValueError: Words of theirs.",
}
FURTHER = {
    "a sentence": "Only after they said yes.",
    "two paragraphs": "Only after they said yes.\n\nNever twice,\nnot even when asked.",
    "a note": "Note:\n    Only after they said yes.",
    "a note in a line": "Note: Only after they said yes.",
    "a warning": "Warning:\n    Only after they said yes.\n\n    Never twice.",
    "an example": "Example:\n    >>> greet('ada')\n    'Hello, ada.'",
    "a heading of one's own": "House rules:\n    Only after they said yes.",
    "numpy notes": "Notes\n-----\nOnly after they said yes.",
    "numpy examples": "Examples\n--------\n>>> greet('ada')",
    "a heading of one's own, underlined": "House rules\n===========\nOnly after they said yes.",
    "a directive": ".. note:: Only after they said yes.",
    "a directive with a block": ".. warning::\n    Only after they said yes.",
    "a list": "- Only after they said yes.\n- Never twice.",
    "a field of one's own": ":note: Only after they said yes.",
    "an epydoc note": "@note: Only after they said yes.",
    "a heading of markdown": "## House rules\nOnly after they said yes.",
}


@pytest.mark.parametrize("further", FURTHER.values(), ids=FURTHER)
@pytest.mark.parametrize("outcome", OUTCOME.values(), ids=OUTCOME)
@pytest.mark.parametrize("about", ABOUT.values(), ids=ABOUT)
def test_all_that_is_about_no_parameter_result_or_error_is_told_wherever_it_stands(about: str, outcome: str, further: str) -> None:
    for parts in (
        (about, outcome, further),
        (about, further, outcome),
        (further, about, outcome),
        (outcome, about, further),
        (outcome, further, about),
        (further, about, further, outcome, further),
    ):
        found = Docstring.of("\n\n".join(part for part in ("Greet the person.", *parts) if part), hidden={"session"})
        assert found.description == "\n\n".join(["Greet the person.", *(further for part in parts if part == further)]), parts
        assert found.parameters == {"name": "What to call them.", "times": "How often,\nat most."}, parts


def test_control_the_parser_alone_loses_what_stands_after_the_parameters() -> None:
    parsed = FORMS_OF["google"](f"Greet the person.\n\n{ABOUT['google']}\n\n{FURTHER['a note']}")
    told = (parsed.short_description or "") + (parsed.long_description or "")
    assert "said yes" not in told


INSIDE = {
    "a sentence": ("Only after they said yes.", "Only after they said yes."),
    "a note": ("Note: Only after they said yes.", "Note: Only after they said yes."),
    "a note with a block": ("Warning:\n        Only after they said yes.", "Warning:\n    Only after they said yes."),
    "a list": ("- Only after they said yes.\n    - Never twice.", "- Only after they said yes.\n- Never twice."),
}


@pytest.mark.parametrize(("written", "told"), INSIDE.values(), ids=INSIDE)
def test_a_word_to_the_reader_among_the_parameters_is_told_too(written: str, told: str) -> None:
    text = f"Greet.\n\nArgs:\n    name: What to call them.\n\n    {written}\n\n    times: How often.\n"
    found = Docstring.of(text)
    assert found.description == f"Greet.\n\n{told}"
    assert found.parameters == SAID


def test_a_parameter_in_several_paragraphs_keeps_them() -> None:
    found = Docstring.of("Greet.\n\nArgs:\n    name: What to call them.\n\n        In their own words.\n    times: How often.\n")
    assert found.parameters == {"name": "What to call them.\nIn their own words.", "times": "How often."}
    assert found.description == "Greet."


@pytest.mark.parametrize(
    "text", ["Args:", "Args:\n\n", "Greet.\n\nReturns:", "Parameters\n----------", ":param", "@param", "Returns\n---"]
)
def test_a_heading_with_nothing_below_breaks_nothing(text: str) -> None:
    assert Docstring.of(text).parameters == {}


@pytest.mark.parametrize(
    "part",
    [
        "Args:\n",
        "    name: x\n",
        ":param x: y\n",
        "a\n---\n",
        "\n",
        "    \n",
        "Note:\n    x\n",
        ":" * 9,
        "x ",
        "@",
        "(",
        "Args:\n    a: b\n\n",
    ],
)
def test_a_long_docstring_is_read_in_time(part: str) -> None:
    started = time.perf_counter()
    Docstring.of("Greet.\n\n" + part * (20_000 // len(part)), hidden={"session"})
    assert time.perf_counter() - started < 2
