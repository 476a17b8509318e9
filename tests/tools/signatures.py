"""The signature matrix as data: shapes in which people write a tool that takes a session, each a module of its own.

Nothing here knows dcaf: ``$home`` and ``$name`` stand for the module and the class that are injected, so that the same shapes are
given to other frameworks with their own context class. A module is written to a file, since some shapes can only be told by source.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from types import ModuleType
from typing import Any

IMPORT = "from $home import $name as Session\n"
FUTURE = "from __future__ import annotations\n"
HIDDEN = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from $home import $name as Session\n"
RETURN = "    return f'{name} {type(session).__name__}'\n"
_count = itertools.count()


@dataclass(frozen=True)
class Shape:
    """One way to write a tool.

    Attributes:
        title: What a table calls it.
        source: The module, with ``$home`` and ``$name``.
        made: The expression that is made a tool.
        sees: What the model sees, in order.
        injected: What it does not see, and the session fills.
        arguments: What the model sends.
        result: What comes back; ``$name`` is the session's class. None where a tool cannot be made.
        since: The first Python that can read the source.
        peers: Whether other frameworks can be asked for the same.
        needs_name: It has no name of its own.
    """

    title: str
    source: str
    made: str = "act"
    sees: tuple[str, ...] = ("name",)
    injected: tuple[str, ...] = ("session",)
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"name": "ada"})
    result: Any = "ada $name"
    since: tuple[int, int] = (3, 11)
    peers: bool = True
    needs_name: bool = False

    def loaded(self, folder: Path, home: str, name: str, **names: Any) -> ModuleType:
        """The module, with a class of some module in the place of the session, and with what it may call."""
        path = folder / f"shape_{next(_count)}.py"
        path.write_text(Template(self.source).substitute(home=home, name=name))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update(names)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module

    def expected(self, name: str) -> Any:
        """What comes back, with the name of the session's class."""
        if isinstance(self.result, list):
            return [Template(item).substitute(name=name) for item in self.result]
        return Template(self.result).substitute(name=name)


def function(title: str, parameters: str, *before: str, body: str = RETURN, **more: Any) -> Shape:
    """A function ``act`` with these parameters."""
    return Shape(title, "".join(before or (IMPORT,)) + f"def act({parameters}) -> str:\n{body}", **more)


def written(title: str, text: str, **more: Any) -> Shape:
    """A module, written out."""
    return Shape(title, textwrap.dedent(text), **more)


MEMORY = "    return f'{name} {type(memory).__name__}'\n"
REFUSED: dict[str, Any] = {"result": None, "injected": ()}

WHERE = [
    function("`(name, session: Session)`", "name: str, session: Session"),
    function("`(session: Session, name)`", "session: Session, name: str"),
    function("any name, last", "name: str, memory: Session", body=MEMORY, injected=("memory",)),
    function("any name, first", "memory: Session, name: str", body=MEMORY, injected=("memory",)),
    function("no annotation, named `session`", "name: str, session"),
    function("keyword-only", "name: str, *, session: Session"),
    function("positional-only", "session: Session, name: str, /"),
    function(
        "in each of the three kinds",
        "first: Session, /, name: str, second: Session, *, session: Session",
        body=f"    assert type(first) is type(second) is type(session)\n{RETURN}",
        injected=("first", "second", "session"),
    ),
    function(
        "two sessions",
        "name: str, session: Session, other: Session",
        body=f"    assert type(other) is type(session)\n{RETURN}",
        injected=("session", "other"),
    ),
    function("after a default", "name: str = 'ada', session: Session = None", arguments={}),
    function("beside `*args: int`", "name: str, session: Session, *args: int"),
    function("beside `**kwargs: int`", "name: str, session: Session, **kwargs: int"),
]

HOW = [
    function("`Optional[Session] = None`", "name: str, session: Optional[Session] = None", "from typing import Optional\n", IMPORT),
    function("`Optional[Session]`", "name: str, session: Optional[Session]", "from typing import Optional\n", IMPORT),
    function("`Session | None = None`", "name: str, session: Session | None = None"),
    function("`Session | None`", "name: str, session: Session | None"),
    function("`Annotated[Session, …]`", "name: str, session: Annotated[Session, 'x']", "from typing import Annotated\n", IMPORT),
    function(
        "`Annotated[Session | None, …] = None`",
        "name: str, session: Annotated[Session | None, 'x'] = None",
        "from typing import Annotated\n",
        IMPORT,
    ),
    function(
        "`Optional[Annotated[Session, …]] = None`",
        "name: str, session: Optional[Annotated[Session, 'x']] = None",
        "from typing import Annotated, Optional\n",
        IMPORT,
    ),
    function("alias: `S = Session`", "name: str, session: S", IMPORT, "S = Session\n"),
    function("alias: `type S = Session`", "name: str, session: S", IMPORT, "type S = Session\n", since=(3, 12)),
    function("alias: `type S = Session | None`", "name: str, session: S", IMPORT, "type S = Session | None\n", since=(3, 12)),
    function(
        "a type variable, bound to `Session`",
        "name: str, session: S",
        "from typing import TypeVar\n",
        IMPORT,
        "S = TypeVar('S', bound=Session)\n",
    ),
    written(
        "`def act[S: Session]`",
        f"{FUTURE}{IMPORT}def act[S: Session](name: str, session: S) -> str:\n{RETURN}",
        since=(3, 12),
    ),
    function("a subclass of `Session`", "name: str, session: Mine", IMPORT, "class Mine(Session): ...\n", result="ada Mine"),
    function(
        "`Session` and a subclass of it",
        "name: str, mine: Mine, session: Session",
        IMPORT,
        "class Mine(Session): ...\n",
        body=f"    assert type(mine) is Mine\n{RETURN}",
        injected=("mine", "session"),
    ),
]

NAMED = [
    function("PEP 563", "name: str, session: Session", FUTURE, IMPORT),
    function("PEP 563, `Session | None`", "name: str, session: Session | None = None", FUTURE, IMPORT),
    function("`'Session'`", "name: str, session: 'Session'"),
    function("`Optional['Session']`", "name: str, session: Optional['Session']", "from typing import Optional\n", IMPORT),
    function("PEP 563, `'Session' | None`", "name: str, session: 'Session' | None", FUTURE, IMPORT),
    function("PEP 563, imported under `TYPE_CHECKING`", "name: str, session: Session", FUTURE, HIDDEN),
    function("… `Session | None`", "name: str, session: Session | None = None", FUTURE, HIDDEN),
    function("… quoted, without PEP 563", "name: str, session: 'Session'", HIDDEN),
    function(
        "… the module: `home.Session`",
        "name: str, session: home.$name",
        FUTURE,
        "import typing\nif typing.TYPE_CHECKING:\n    import $home as home\n",
    ),
    function("… without PEP 563 or quotes (Python 3.14)", "name: str, session: Session", HIDDEN, since=(3, 14)),
    function("… `Session | None` (Python 3.14)", "name: str, session: Session | None = None", HIDDEN, since=(3, 14)),
    written(
        "PEP 563, imported in the function around it",
        f"""{FUTURE}
def around():
    from $home import $name as Session

    def act(name: str, session: Session) -> str:
        return f'{{name}} {{type(session).__name__}}'

    return act
""",
        made="around()",
    ),
    written(
        "PEP 563, a name of the function around it",
        f"""{FUTURE}{IMPORT}
def around(made):
    Local = Session

    def act(name: str, session: Local) -> str:
        return f'{{name}} {{type(session).__name__}}'

    return made(act)
""",
        made="around(made)",
    ),
    written(
        "PEP 563, a name that is defined later",
        f"""{FUTURE}{IMPORT}
def act(name: str, session: Later) -> str:
    return f'{{name}} {{type(session).__name__}}'

act = made(act)
Later = Session
""",
    ),
    written(
        "the return annotation cannot be resolved",
        f"{FUTURE}{IMPORT}def act(name: str, session: Session) -> Nowhere:\n{RETURN}",
    ),
    function(
        "another parameter's annotation cannot be resolved",
        "name: str, other: Nowhere, session: Session",
        FUTURE,
        IMPORT,
        body=f"    assert other == 5\n{RETURN}",
        sees=("name", "other"),
        arguments={"name": "ada", "other": 5},
    ),
]

CALLED = [
    written("`async def`", f"{IMPORT}async def act(name: str, session: Session) -> str:\n{RETURN}"),
    written(
        "generator",
        f"{IMPORT}def act(name: str, session: Session):\n    yield name\n    yield type(session).__name__\n",
        result=["ada", "$name"],
    ),
    written(
        "async generator",
        f"{IMPORT}async def act(name: str, session: Session):\n    yield name\n    yield type(session).__name__\n",
        result=["ada", "$name"],
    ),
    written(
        "bound method",
        f"{IMPORT}class Thing:\n    def act(self, name: str, session: Session) -> str:\n    {RETURN}",
        made="Thing().act",
    ),
    written(
        "class method",
        f"{IMPORT}class Thing:\n    @classmethod\n    def act(cls, name: str, session: Session) -> str:\n    {RETURN}",
        made="Thing.act",
    ),
    written(
        "static method",
        f"{IMPORT}class Thing:\n    @staticmethod\n    def act(name: str, session: Session) -> str:\n    {RETURN}",
        made="Thing.act",
    ),
    written(
        "`functools.partial`, by position",
        f"import functools\n{IMPORT}def act(greeting: str, name: str, session: Session) -> str:\n{RETURN}",
        made="functools.partial(act, 'hello')",
        needs_name=True,
    ),
    written(
        "`functools.partial`, by keyword",
        f"import functools\n{IMPORT}def act(name: str, session: Session, greeting: str) -> str:\n{RETURN}",
        made="functools.partial(act, greeting='hello')",
        needs_name=True,
    ),
    written(
        "object with `__call__`",
        f"{IMPORT}class Thing:\n    def __call__(self, name: str, session: Session) -> str:\n    {RETURN}",
        made="Thing()",
        needs_name=True,
    ),
    written(
        "object with `async __call__`",
        f"{IMPORT}class Thing:\n    async def __call__(self, name: str, session: Session) -> str:\n    {RETURN}",
        made="Thing()",
        needs_name=True,
    ),
    written(
        "lambda",
        "act = lambda name, session: f'{name} {type(session).__name__}'\n",
        needs_name=True,
    ),
    written(
        "decorated, with `wraps`",
        f"""import functools
{IMPORT}
def decorated(function):
    @functools.wraps(function)
    def around(*args, **kwargs):
        return function(*args, **kwargs)
    return around

@decorated
def act(name: str, session: Session) -> str:
{RETURN}""",
    ),
    written(
        "async decorator with `wraps` around a sync function",
        f"""import functools
{IMPORT}
def decorated(function):
    @functools.wraps(function)
    async def around(*args, **kwargs):
        return function(*args, **kwargs)
    return around

@decorated
def act(name: str, session: Session) -> str:
{RETURN}""",
    ),
    written(
        "sync decorator with `wraps` around `async def`",
        f"""import functools
{IMPORT}
def decorated(function):
    @functools.wraps(function)
    def around(*args, **kwargs):
        return function(*args, **kwargs)
    return around

@decorated
async def act(name: str, session: Session) -> str:
{RETURN}""",
    ),
    written(
        "decorated, without `wraps`: nothing is left to fill",
        f"""{IMPORT}
def decorated(function):
    def around(*args, **kwargs):
        return function(*args, **kwargs)
    return around

@decorated
def act(name: str, session: Session) -> str:
{RETURN}""",
        **REFUSED,
    ),
]

OTHERS = [
    function(
        "`session: str` is the model's",
        "session: str",
        body="    return session\n",
        sees=("session",),
        injected=(),
        arguments={"session": "ada"},
        result="ada",
    ),
    function("`name: str` alone", "name: str", body="    return name\n", injected=(), result="ada"),
    written(
        "a pydantic model of another library, named `Session`",
        f"""{IMPORT}
from pydantic import BaseModel

class Theirs(BaseModel):
    owner: str

Theirs.__name__ = "Session"

def act(name: str, session: Theirs) -> str:
    return session.owner
""",
        sees=("name", "session"),
        injected=(),
        arguments={"name": "eve", "session": {"owner": "ada"}},
        result="ada",
    ),
    written(
        "another library's class named `Session` is refused",
        """
        class Session: ...

        def act(name: str, session: Session) -> str:
            return name
        """,
        **REFUSED,
    ),
    function("`list[Session]` is refused", "name: str, sessions: list[Session]", **REFUSED),
    function("`Session | int` is refused", "name: str, session: Session | int", **REFUSED),
    function("`*sessions: Session` is refused", "name: str, *sessions: Session", **REFUSED),
]

OWN: list[Shape] = [
    function(
        "`ReadOnlySession`",
        "name: str, session: ReadOnlySession",
        "from dcaf import ReadOnlySession\n",
        result="ada ReadOnlySession",
        peers=False,
    ),
    function(
        "`Annotated[Cart, SessionKey('cart')]`",
        "name: str, cart: Annotated[Cart, SessionKey('cart')] = Cart()",
        FUTURE,
        "from typing import Annotated\nfrom dcaf import SessionKey\nfrom pydantic import BaseModel\nclass Cart(BaseModel): ...\n",
        body="    return f'{name} {type(cart).__name__}'\n",
        injected=("cart",),
        result="ada Cart",
        peers=False,
    ),
    *(
        written(
            f"`@tool` on a {kind}",
            f"from dcaf import tool\n{IMPORT}class Thing:\n    @tool\n{line}    def act({first}name: str, session: Session):\n"
            f"    {RETURN}",
            made=held,
            peers=False,
        )
        for kind, line, first, held in (
            ("method", "", "self, ", "Thing().act"),
            ("class method", "    @classmethod\n", "cls, ", "Thing.act"),
            ("static method", "    @staticmethod\n", "", "Thing.act"),
        )
    ),
]

GROUPS: dict[str, list[Shape]] = {
    "where the session stands": WHERE,
    "how it is annotated": HOW,
    "how the name came in": NAMED,
    "what is called": CALLED,
    "what is no session": OTHERS,
    "what only dcaf has": OWN,
}
SHAPES = [shape for shapes in GROUPS.values() for shape in shapes if sys.version_info >= shape.since]
