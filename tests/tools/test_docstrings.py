"""What is read from a docstring, in whatever form it is written, and what never is."""

from __future__ import annotations

from typing import Any

import pytest

from dcaf import Session, tool
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
