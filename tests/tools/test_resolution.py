"""Where the names in an annotation are looked for, and what becomes of one that is nowhere."""

from __future__ import annotations

import gc
import logging
import sys
import textwrap
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from dcaf import ConfigurationError, Session, Tool, tool
from dcaf.tools.annotations import Names
from dcaf.tools.injection_plan import Plan
from tests.tools.signatures import Shape

FUTURE = "from __future__ import annotations\n"
OF_DCAF = f"{FUTURE}from dcaf import Session, tool\n"
Written = Callable[..., ModuleType]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """A module from its text; what it imports is beside it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def load(text: str, **beside: str) -> ModuleType:
        for name, source in beside.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return Shape("module", textwrap.dedent(text)).loaded(tmp_path, "dcaf", "Session")

    return load


def run(made: Tool[..., Any], arguments: dict[str, Any], session: Session | None = None) -> Any:
    async def turn() -> Any:
        return await made.run(arguments, session=session)

    return anyio.run(turn)


def test_an_annotation_that_names_nothing_takes_any_json_value_and_the_log_says_so_once(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    act = written(f"{FUTURE}def act(size: Nowhere, n: int) -> Nothing: return size\n").act
    with caplog.at_level(logging.WARNING, "dcaf"):
        made = tool(act)
        assert made.input_schema["properties"] == {"size": {}, "n": {"type": "integer"}}
        assert run(made, {"size": [{"a": 1}], "n": "2"}) == [{"a": 1}]
    assert [record.getMessage() for record in caplog.records] == [
        "act: 'size' takes any JSON value: its annotation names 'Nowhere', which cannot be found"
    ]


@pytest.mark.parametrize("annotation", ["Nowhere", "sys.Nowhere", "list[Nowhere]", "typing.Nowhere | None", "'Nowhere'"])
def test_it_may_name_nothing_in_any_way(written: Written, annotation: str) -> None:
    act = written(f"{FUTURE}import sys, typing\ndef act(size: {annotation}) -> None: return size\n").act
    assert run(tool(act), {"size": 5}) == 5


def test_a_parameter_with_a_default_keeps_it(written: Written) -> None:
    act = written(f"{FUTURE}def act(size: Nowhere = 7): return size\n").act
    assert "required" not in tool(act).input_schema
    assert run(tool(act), {}) == 7


@pytest.mark.parametrize(
    "annotation", ["Session | Nowhere", "Nowhere[Session]", "list['Session', Nowhere]", "dcaf.Session | Nowhere"]
)
def test_a_session_beside_a_name_that_is_nowhere_is_never_the_models(written: Written, annotation: str) -> None:
    act = written(f"{OF_DCAF}import dcaf\ndef act(memory: {annotation}): return memory\n").act
    with pytest.raises(ConfigurationError, match=r"act: the annotation of 'memory' names 'Nowhere', which cannot be found"):
        tool(act).input_schema  # noqa: B018


def test_a_class_that_the_source_defines_out_of_reach_is_never_the_models(written: Written) -> None:
    """It might be a session: a function's own class, and the function is decorated when that has returned."""
    module = written(f"""{OF_DCAF}
def around():
    class Deploy(Session): ...
    def act(memory: Deploy): return memory
    return act
""")
    with pytest.raises(ConfigurationError, match="'Deploy', which is defined where dcaf cannot see it, and might be a session"):
        tool(module.around()).input_schema  # noqa: B018


def test_control_the_same_function_is_a_tool_where_its_class_can_be_seen(written: Written) -> None:
    module = written(f"""{OF_DCAF}
def around():
    class Deploy(Session): ...
    def act(memory: Deploy): return type(memory).__name__
    return tool(act)
""")
    assert run(module.around(), {}, Session()) == "Deploy"


def test_the_scopes_around_a_function_are_found_through_a_decorator_of_another_module(written: Written) -> None:
    module = written(
        f"""{FUTURE}
from dcaf import Session
from house import house_tool
def around():
    class Deploy(Session): ...
    Local = int
    @house_tool
    def act(memory: Deploy, n: Local): return f"{{type(memory).__name__}} {{n}}"
    return act
""",
        house="from dcaf import tool\ndef house_tool(function):\n    class Deploy: ...\n    Local = str\n    return tool(function)",
    )
    assert run(module.around(), {"n": "3"}, Session()) == "Deploy 3"


def test_the_body_of_a_class_is_a_scope_too(written: Written) -> None:
    module = written(f"""{OF_DCAF}
class Thing:
    Number = int
    @tool
    def act(self, n: Number): return n
""")
    assert run(module.Thing().act, {"n": "3"}) == 3


def test_an_import_of_another_function_is_not_this_ones(written: Written) -> None:
    module = written(f"""{FUTURE}
def elsewhere():
    from dcaf import Session
def act(memory: Session): return memory
""")
    assert run(tool(module.act), {"memory": 5}) == 5


def test_the_innermost_import_counts(written: Written) -> None:
    module = written(
        f"""{FUTURE}
from typing import TYPE_CHECKING
def around():
    from dcaf import Session
    def act(memory: Session): return type(memory).__name__
    return act
if TYPE_CHECKING:
    from theirs import Session
""",
        theirs="class Session: ...\n",
    )
    assert run(tool(module.around()), {}, Session()) == "Session"


def test_a_class_of_another_library_under_type_checking_is_not_ours(written: Written) -> None:
    module = written(
        f"""{FUTURE}
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from theirs import Session
def act(session: Session): return session
""",
        theirs="class Session: ...\n",
    )
    with pytest.raises(ConfigurationError, match=r"the parameter 'session' is annotated as theirs\.Session, which pydantic cannot"):
        tool(module.act).input_schema  # noqa: B018


def test_a_module_that_nobody_has_loaded_is_imported_when_the_tool_is_used_and_not_before(written: Written) -> None:
    module = written(
        f"""{FUTURE}
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from late_home import Deploy
    import late_package.inner
    from late_package import other
def act(memory: Deploy, item: late_package.inner.Item, kind: other.Kind): return f"{{type(memory).__name__}} {{item.name}} {{kind}}"
""",
        late_home="from dcaf import Session\nclass Deploy(Session): ...\n",
    )
    home = Path(module.__file__ or "").parent / "late_package"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "inner.py").write_text("from pydantic import BaseModel\nclass Item(BaseModel):\n    name: str\n")
    (home / "other.py").write_text("Kind = int\n")
    made = tool(module.act)
    assert "late_home" not in sys.modules
    assert run(made, {"item": {"name": "bolt"}, "kind": "3"}, Session()) == "Deploy bolt 3"
    assert "late_home" in sys.modules


def test_a_relative_import_is_looked_up_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "relative_house"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "home.py").write_text("from dcaf import Session\nclass Deploy(Session): ...\n")
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .home import Deploy\n    from . import home\n"
    body = "def act(one: Deploy, two: home.Deploy): return [type(one).__name__, type(two).__name__]\n"
    (package / "tools.py").write_text(FUTURE + text + body)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__("relative_house.tools").tools
    assert run(tool(module.act), {}, Session()) == ["Deploy", "Deploy"]


def test_a_module_that_cannot_be_imported_names_nothing(written: Written) -> None:
    module = written(f"""{FUTURE}
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from no_such_package import Frame
def act(frame: Frame): return frame
""")
    assert run(tool(module.act), {"frame": 1}) == 1


def test_the_names_of_a_decorated_function_are_those_of_its_own_module(written: Written) -> None:
    module = written(
        f"""{FUTURE}
from wrapping import wrapped
from dcaf import Session as Memory
@wrapped
def act(memory: Memory): return type(memory).__name__
""",
        wrapping="""
        import functools
        Memory = int
        def wrapped(function):
            @functools.wraps(function)
            def around(*args, **kwargs): return function(*args, **kwargs)
            return around
        """,
    )
    assert run(tool(module.act), {}, Session()) == "Session"


def test_a_function_without_a_source_is_read_as_far_as_its_names_go() -> None:
    space: dict[str, Any] = {"Session": Session}
    exec(f"{FUTURE}def act(n: int, memory: Session, other: Nowhere = 1): return type(memory).__name__", space)
    assert run(tool(space["act"]), {"n": 1}, Session()) == "Session"


def test_a_function_may_be_its_own_closure() -> None:
    def around() -> Tool[..., Any]:
        @tool
        def act(n: int) -> Any:
            return act.name if n else n

        return act

    assert run(around(), {"n": 1}) == "act"


def test_a_function_that_nobody_has_used_yet_is_read_without_a_name_that_is_missing() -> None:
    def lost(value: Missing, memory: Session) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    plan = Plan.of(lost)
    assert (plan.lost, list(plan.injected)) == ({"value": "Missing"}, ["memory"])
    assert not Names.of(lost).is_last


if sys.version_info >= (3, 12):

    def test_an_alias_whose_value_is_nowhere_is_like_an_annotation_that_is(written: Written) -> None:
        module = written("type Size = Nowhere\ndef act(size: Size): return size\n")
        assert run(tool(module.act), {"size": 5}) == 5


def test_a_tool_whose_names_are_all_found_keeps_nothing_of_the_function_that_made_it() -> None:
    class Large: ...

    def around(number: type) -> tuple[Tool[..., Any], weakref.ref[Large]]:
        large = Large()

        @tool
        def act(n: number, session: Session) -> Any:  # type: ignore[valid-type]
            return n

        return act, weakref.ref(large)

    made, large = around(int)
    gc.collect()
    assert run(made, {"n": "3"}, Session()) == 3
    assert large() is None
