"""Methods, class methods, static methods, partials and objects as tools."""

from __future__ import annotations

import functools
from typing import Any

import anyio
import pytest

from dcaf import ConfigurationError, Session, Tool, tool


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    @tool
    def sell(self, number: int, session: Session) -> str:
        """Sell something.

        Args:
            number: How many.
        """
        return f"{self.name} sold {session.incr('sold', number)}"

    @tool
    @classmethod
    def kind(cls, session: Session) -> str:
        return f"{cls.__name__} {len(session)}"

    @tool
    @staticmethod
    def price(number: int) -> int:
        return 2 * number

    @staticmethod
    @tool
    def below(number: int) -> int:
        return 3 * number

    def plain(self, number: int) -> int:
        return number

    @classmethod
    @tool
    def upside_down(cls, number: int) -> int:
        return number


class Market(Shop): ...


def run(made: Tool[..., Any], arguments: dict[str, Any], session: Session | None = None) -> Any:
    return anyio.run(functools.partial(made.run, arguments, session=session or Session()))


def test_every_object_has_the_tool_as_its_own() -> None:
    session = Session()
    first, second = Shop("first"), Market("second")
    assert run(first.sell, {"number": 2}, session) == "first sold 2"
    assert run(second.sell, {"number": 3}, session) == "second sold 5"
    assert list(first.sell.input_schema["properties"]) == ["number"]
    assert first.sell.input_schema is second.sell.input_schema, "read once"
    assert (first.sell.name, first.sell.description) == ("sell", "Sell something.")


def test_the_method_is_called_like_a_method() -> None:
    session = Session()
    assert Shop("a").sell(2, session) == "a sold 2"
    assert Shop.sell(Shop("b"), 2, session) == "b sold 4"


def test_class_methods_and_static_methods_are_tools_of_the_class_and_of_its_objects() -> None:
    assert (run(Market.kind, {}), run(Market("a").kind, {}), run(Shop.kind, {})) == ("Market 0", "Market 0", "Shop 0")
    assert (run(Shop.price, {"number": 4}), run(Shop("a").price, {"number": 4})) == (8, 8)
    assert (run(Shop.below, {"number": 4}), run(Shop("a").below, {"number": 4})) == (12, 12)


def test_a_method_without_its_object_says_what_it_needs() -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(Shop.sell, {"number": 2})
    assert str(caught.value) == (
        "sell is a method, and there is no object: run the tool of one, thing.sell. "
        "On a class method write @tool above @classmethod."
    )


def test_what_was_forged_is_counted_for_the_method_whatever_the_object() -> None:
    before = Shop.sell.forged["session"]
    run(Shop("a").sell, {"number": 1, "session": {}})
    assert Shop.sell.forged["session"] == before + 1


def test_a_bound_method_and_an_unbound_one_are_made_tools_where_they_are() -> None:
    assert run(tool(Shop("a").plain), {"number": 4}) == 4
    with pytest.raises(ConfigurationError, match="plain is a method"):
        run(tool(Shop.plain), {"number": 4})


def test_a_method_whose_first_parameter_has_another_name_is_refused_with_its_class() -> None:
    with pytest.raises((ConfigurationError, RuntimeError)) as caught:

        class Odd:
            @tool
            def act(this, name: str) -> str:  # noqa: N805
                return name

    error = caught.value if isinstance(caught.value, ConfigurationError) else caught.value.__cause__
    assert isinstance(error, ConfigurationError)
    assert str(error) == "Odd.act: call the first parameter of a method self, or write @tool above @staticmethod."


def test_a_tool_that_stands_in_a_class_and_is_no_method_stays_what_it_is() -> None:
    def double(n: int) -> int:
        return 2 * n

    class Holder:
        made = tool(double)

    assert run(Holder().made, {"n": 2}) == 4


def search(index: str, query: str, session: Session, limit: int = 3) -> str:
    """Search the index.

    Args:
        index: Which.
        query: What for.
    """
    session["query"] = query
    return f"{index} {query} {limit}"


def test_what_a_partial_has_decided_is_no_longer_the_models() -> None:
    made = tool(name="find")(functools.partial(search, index="public", limit=9))
    assert list(made.input_schema["properties"]) == ["query"]
    assert made.input_schema["properties"]["query"]["description"] == "What for."
    assert made.description == "Search the index."
    assert run(made, {"query": "x"}) == "public x 9"
    with pytest.raises(Exception, match=r"arguments\.index: Extra inputs are not permitted"):
        run(made, {"query": "x", "index": "private"})


def test_what_a_partial_has_decided_stays_decided_behind_a_decorator() -> None:
    @functools.wraps(search)
    def audited(*values: Any, **named: Any) -> Any:
        return inner(*values, **named)

    inner = functools.partial(search, index="public")
    audited.__wrapped__ = inner
    made = tool(audited)
    assert list(made.input_schema["properties"]) == ["query", "limit"]
    with pytest.raises(Exception, match=r"arguments\.index: Extra inputs are not permitted"):
        run(made, {"query": "x", "index": "private"})
    assert run(made, {"query": "x"}) == "public x 3"


def test_a_session_that_a_partial_has_decided_is_not_replaced() -> None:
    own, other = Session(), Session()
    made = tool(name="find")(functools.partial(search, "public", session=own))
    assert run(made, {"query": "x"}, other) == "public x 3"
    assert (own.to_dict(), other.to_dict()) == ({"query": "x"}, {})


class Counter:
    """An object that counts."""

    name = "not the tool's"
    description = "not the tool's either"

    def __init__(self) -> None:
        self.forged = "mine"
        self._function = "mine"

    def __call__(self, number: int, session: Session) -> int:
        """Count on.

        Args:
            number: By how much.
        """
        return session.incr("n", number)


def test_an_object_is_told_by_what_its_call_says_and_its_attributes_stay_its_own() -> None:
    made = tool(name="count")(Counter())
    assert (made.name, made.description) == ("count", "Count on.")
    assert made.input_schema["properties"]["number"]["description"] == "By how much."
    assert run(made, {"number": 2}) == 2
    assert made.forged == {}


def test_a_tool_of_a_tool_is_one_of_its_function() -> None:
    again = tool(name="again")(tool(search))
    assert (again.name, run(again, {"index": "a", "query": "b"})) == ("again", "a b 3")


@pytest.mark.parametrize("given", [lambda x: x, Counter(), functools.partial(search, "a")], ids=["lambda", "object", "partial"])
def test_what_has_no_name_of_its_own_says_how_to_give_it_one(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"has no name of its own: write tool\(name="):
        tool(given)


def test_what_python_cannot_read_the_parameters_of_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="its parameters cannot be read"):
        tool(max)
