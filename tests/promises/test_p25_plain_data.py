"""P25: what a client sends is data: nothing in dcaf unpickles, evaluates or imports by a name that came from outside."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import dcaf
from dcaf import Session
from tests.asgi.wire import Recorder, call, mounted

PACKAGE: Final = Path(dcaf.__file__).parent

MODULES: Final = frozenset(
    [
        "pickle",
        "_pickle",
        "cPickle",
        "marshal",
        "shelve",
        "dbm",
        "dill",
        "cloudpickle",
        "jsonpickle",
        "yaml",
        "joblib",
        "importlib",
        "imp",
        "runpy",
        "pkgutil",
        "code",
        "codeop",
        "copyreg",
        "ctypes",
        "subprocess",
        "pty",
    ]
)
"""Whose import is found."""

CALLS: Final = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "__import__",
        "import_module",
        "import_string",
        "resolve_name",
        "run_path",
        "run_module",
        "get_type_hints",
        "ForwardRef",
        "get_annotations",
        "evaluate_forward_ref",
        "ImportString",
        "system",
        "popen",
        "unpickle",
    ]
)
"""Whose use is found, as a name or as an attribute, called or passed on."""


class Found(NamedTuple):
    """One use of something that makes code out of data."""

    file: str
    name: str


ALLOWED: Final = {
    Found("tools/annotations.py", "importlib"): "for the next two",
    Found("tools/annotations.py", "resolve_name"): "the full name of a relative import in the program's own source",
    Found(
        "tools/annotations.py", "import_module"
    ): "imports what the program's own source imports for its annotations, at a tool's first use",
    Found("core/importing.py", "importlib"): "for the next",
    Found(
        "core/importing.py", "import_module"
    ): "imports the module that the operator names in `dcaf tools` and `dcaf serve`, and one of dcaf that only one command needs",
    Found("agent/openapi.py", "importlib"): "importlib.metadata, for the version in the OpenAPI document",
    Found("core/adapters.py", "ForwardRef"): "recognises a type that is only named, to refuse it",
    Found(
        "core/annotations.py", "get_type_hints"
    ): "evaluates the annotations of the program's own tools, when they are decorated, and of its own subclasses of Session",
    Found("core/annotations.py", "ForwardRef"): "recognises an annotation that Python has not evaluated",
    Found("core/annotations.py", "get_annotations"): "reads the same without evaluating them",
    Found("cli/__init__.py", "importlib"): "importlib.metadata, for the version that `dcaf --version` prints",
    Found("asgi/config.py", "importlib"): "for the next",
    Found("asgi/config.py", "import_module"): "imports dcaf.asgi.telemetry, a constant in the source, only where it is wanted",
    Found("core/sealer.py", "importlib"): "for the next",
    Found("core/sealer.py", "import_module"): "imports dcaf.core.kept, a constant in the source, only where a store keeps answers",
    Found("core/settings.py", "importlib"): "for the next",
    Found("core/settings.py", "import_module"): "imports dcaf.core.encryption, a constant in the source, only where it is wanted",
    Found("agent/serving.py", "importlib"): "for the next",
    Found(
        "agent/serving.py", "import_module"
    ): "imports dcaf.ledger or dcaf.service, constants in the source, only where --ledger or --sessions asks for one",
    Found("cli/ledger.py", "importlib"): "for the next",
    Found("cli/ledger.py", "import_module"): "imports dcaf.cli.ledger_actions, a constant in the source, only for that command",
    Found("cli/sessions.py", "importlib"): "for the next",
    Found("cli/sessions.py", "import_module"): "imports dcaf.cli.sessions_actions, a constant in the source, only for that command",
    Found("service/encryption.py", "importlib"): "for the next",
    Found(
        "service/encryption.py", "import_module"
    ): "imports dcaf.service.encryption_rows and two beside it, constants in the source, only where a service encrypts",
    Found("ledger/settings.py", "importlib"): "for the next",
    Found("ledger/settings.py", "import_module"): "imports dcaf.core.kept, a constant in the source, to see whether it can be",
    Found("service/encryption.py", "importlib"): "for the next",
    Found("service/encryption.py", "import_module"): "imports modules of dcaf.service, constants, where encrypt= asks",
    Found("engines/__init__.py", "importlib"): "for the next",
    Found(
        "engines/__init__.py", "import_module"
    ): "imports an engine that needs an extra, a constant in the source, when it is asked for",
    Found("testing/engines.py", "importlib"): "find_spec, which imports nothing: whether pytest and Hypothesis are there",
    Found("core/arguments.py", "importlib"): "find_spec, which imports nothing: whether dcaf has an integration of its own",
}


def scan(text: str, file: str) -> Iterator[Found]:
    """Every use in one source."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (Found(file, name.split(".")[0]) for name in names if name.split(".")[0] in MODULES)
        used = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if used in CALLS and not _is_pattern(node):
            yield Found(file, used)


def _is_pattern(node: ast.AST) -> bool:
    """``re.compile`` makes no code."""
    return isinstance(node, ast.Attribute) and node.attr == "compile" and isinstance(node.value, ast.Name) and node.value.id == "re"


def scanned() -> dict[str, str]:
    """File -> source, of the whole package."""
    return {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.promise(25)
def test_nothing_in_the_package_makes_code_out_of_data(measured: Callable[[int, str], None]) -> None:
    sources = scanned()
    found = {item for file, text in sources.items() for item in scan(text, file)}
    assert len(sources) > 40
    measured(
        25, f"{len(found - set(ALLOWED))} uses of pickle, eval or import by name in {len(sources)} files, {len(ALLOWED)} named"
    )
    assert found == set(ALLOWED), "an exception that is gone is taken out of the list, a new one needs a reason"


@pytest.mark.promise(25)
def test_each_import_by_name_is_of_a_constant() -> None:
    for file, *modules in (
        ("core/settings.py", "dcaf.core.encryption"),
        ("core/sealer.py", "dcaf.core.kept"),
        ("ledger/settings.py", "dcaf.core.kept"),
        ("agent/serving.py", "dcaf.ledger", "dcaf.service"),
        ("cli/ledger.py", "dcaf.cli.ledger_actions"),
        ("cli/sessions.py", "dcaf.cli.sessions_actions"),
        ("asgi/config.py", "dcaf.asgi.telemetry"),
        (
            "service/encryption.py",
            "dcaf.service.artifact_rotation",
            "dcaf.service.artifact_sealing",
            "dcaf.service.encryption_order",
            "dcaf.service.encryption_rotation",
            "dcaf.service.encryption_rows",
        ),
    ):
        tree = ast.parse((PACKAGE / file).read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module"]
        assert sorted(ast.literal_eval(argument) for node in calls for argument in node.args) == modules


@pytest.mark.promise(25)
@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import marshal as m", "marshal"),
        ("def f():\n import shelve", "shelve"),
        ("eval('1')", "eval"),
        ("run = exec", "exec"),
        ("import builtins\nbuiltins.eval(x)", "eval"),
        ("__import__(name)", "__import__"),
        ("import importlib.util", "importlib"),
        ("from importlib import import_module", "importlib"),
        ("from pydantic import ImportString\nx: ImportString", "ImportString"),
        ("compile(x, '', 'exec')", "compile"),
    ],
)
def test_a_file_that_makes_code_out_of_data_is_caught(tmp_path: Path, line: str, name: str) -> None:
    (tmp_path / "bad.py").write_text(f'"""A file."""\n\n{line}\n')
    assert Found("bad.py", name) in set(scan((tmp_path / "bad.py").read_text(), "bad.py"))


NAMES: Final = [
    "__proto__",
    "constructor",
    "prototype",
    "$type",
    "py/object",
    "py/reduce",
    "py/type",
    "lc",
    "__class__",
    "__reduce__",
    "__init__",
    "_rails",
    "@type",
    "__type__",
    "!!python/object",
    "__dict__",
    "__import__",
    "$ref",
    "$where",
    "json_class",
    "^o",
    "__jsonclass__",
    "_type",
    "class",
    "__builtins__",
    "__globals__",
    "model_config",
]
"""Members that some decoder somewhere takes for an order."""

ORDERS: Final[list[Any]] = [
    {"py/object": "os.system"},
    {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["true"]}]},
    {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "llms", "OpenAI"],
        "kwargs": {"k": {"lc": 1, "type": "secret", "id": ["K"]}},
    },
    {"$type": "System.Windows.Data.ObjectDataProvider", "MethodName": "Start"},
    {"@type": "com.sun.rowset.JdbcRowSetImpl", "dataSourceName": "ldap://x"},
    {"__proto__": {"isAdmin": True}, "constructor": {"prototype": {"isAdmin": True}}},
    {"__class__": "Session", "__init__": {"__globals__": {}}},
    {"_rails": {"message": "BAhJIgxoZWxsbw==", "exp": None}},
    {"json_class": "Gem::Installer", "^o": "Object"},
    "gASVHgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu",
    "!!python/object/apply:os.system [true]",
    "{{7*7}} ${7*7} <%= 7*7 %>",
]


def states(seed: int, number: int) -> Iterator[dict[str, Any]]:
    """So many states of nothing but such members."""
    source = random.Random(seed)

    def value(depth: int) -> Any:
        kind = source.randrange(4 if depth else 2)
        if kind < 2:
            return source.choice([*ORDERS, *NAMES, 1, None, True, 1.5])
        if kind == 2:
            return [value(depth - 1) for _ in range(source.randrange(3))]
        return {source.choice(NAMES): value(depth - 1) for _ in range(source.randrange(1, 4))}

    for _ in range(number):
        yield {name: value(3) for name in source.sample(NAMES, source.randrange(1, 6))}


def is_plain(value: object) -> bool:
    """Whether it is made of JSON's own types alone, no subclass of one."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) in (str, int, float, bool, type(None))


def after_two_turns(state: dict[str, Any], *, encrypt: bool) -> tuple[Any, Any]:
    """What a tool reads in the second turn of a state that it stored in the first, and what stands in the body there."""
    found: list[Any] = []

    def store(session: Session) -> None:
        session.update(json.loads(json.dumps(state)))

    def look(session: Session) -> None:
        found.append(dict(session.items()))
        found.append({key: session.get(key, as_type=Any) for key in session})

    options: dict[str, Any] = {"encrypt": encrypt, "mirror": True}
    first = call(mounted(Recorder(tool=store), **options), {"messages": [{"role": "user", "data": state}], **state})
    second = Recorder(tool=look)
    again = call(mounted(second, **options), {"data": {"session": json.loads(json.dumps(first.envelope))}})
    assert (first.status, again.status) == (200, 200)
    assert found[0] == found[1]
    return found[0], second.seen["data"]["session"]


@pytest.mark.promise(25)
def test_the_names_of_other_systems_orders_pass_through_a_turn_as_plain_data(
    scale: float, measured: Callable[[int, str], None]
) -> None:
    number = int(20_000 * scale)
    for at, state in enumerate(states(25, number)):
        read, seen = after_two_turns(state, encrypt=at % 2 == 1)
        assert read == seen == state
        assert is_plain(read)
    measured(25, f"{number:,} states of {len(NAMES)} such names came back as plain data")


@pytest.mark.promise(25)
def test_a_reader_that_obeys_an_order_is_caught() -> None:
    class Made(dict[str, Any]):
        """What an obedient decoder makes of an order."""

    def obedient(members: dict[str, Any]) -> Any:
        return Made(members) if "py/object" in members else members

    assert not is_plain(json.loads(json.dumps({"a": [ORDERS[0]]}), object_hook=obedient))
    assert is_plain(json.loads(json.dumps({"a": ORDERS})))
