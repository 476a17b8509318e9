"""What is said where a package of an extra is not installed: each optional package missing, against every module and entry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dcaf
from dcaf.testing import fixed_keys

PACKAGE = Path(dcaf.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in PACKAGE.rglob("*.py")
)
OPTIONAL = (
    "httpx2",
    "websockets",
    "pydantic_ai",
    "uvicorn",
    "fastapi",
    "cryptography",
    "opentelemetry",
    "pytest",
)
ALWAYS = ("dcaf", "dcaf.core", "dcaf.asgi", "dcaf.tools", "dcaf.cli", "dcaf.demo", "dcaf.integrations.starlette", "dcaf.testing")
"""What can be imported whatever is missing: the base installation, and the package that pytest loads a plugin from."""

NEEDED = [
    ("dcaf.client", "websockets", "dcaf.client needs websockets: pip install 'dcaf[client]'"),
    ("dcaf.client", "httpx2", "dcaf.client needs httpx2: pip install 'dcaf[client]'"),
    ("dcaf.testing.client", "httpx2", "dcaf.client needs httpx2: pip install 'dcaf[client]'"),
    ("dcaf.agent", "pydantic_ai", "dcaf.agent needs pydantic-ai: pip install 'dcaf[agent]'"),
    ("dcaf.agent.page", "pydantic_ai", "dcaf.agent needs pydantic-ai: pip install 'dcaf[agent]'"),
    ("dcaf.integrations.fastapi", "fastapi", "dcaf.integrations.fastapi needs fastapi: pip install 'dcaf[fastapi]'"),
    ("dcaf.core.encryption", "cryptography", "Encryption needs cryptography: pip install 'dcaf[crypto]'"),
    ("dcaf.demo.story", "websockets", "dcaf.testing needs websockets: pip install 'dcaf[testing]'"),
    ("dcaf.demo.app", "pydantic_ai", "dcaf.agent needs pydantic-ai: pip install 'dcaf[agent]'"),
]
SHOP = "import sys, types; sys.modules['shop'] = types.ModuleType('shop'); sys.modules['shop'].agent = lambda messages: 'hi'; "
RUN = SHOP + "from dcaf.cli import main; import sys; sys.exit(main({arguments!r}))"
SERVE = "from dcaf.agent import serve; serve(lambda m, c: 'hi', audience='a', keys=__import__('dcaf').Keyring.ephemeral())"
SEAL = "from dcaf import Keyring; from dcaf.testing import sealed; sealed({}, keys=Keyring.ephemeral(), audience='a', encrypt=True)"
MOUNT = (
    "from dcaf import Keyring, SessionMiddleware; SessionMiddleware(print, keys=Keyring.ephemeral(), audience='a', encrypt=True)"
)
ENTRIES = [
    (RUN.format(arguments=["serve", "shop:agent"]), "uvicorn", "dcaf: Serving needs uvicorn: pip install 'dcaf[agent,server]'"),
    (
        RUN.format(arguments=["serve", "shop:agent"]),
        "pydantic_ai",
        "dcaf: Serving needs pydantic-ai: pip install 'dcaf[agent,server]'",
    ),
    (RUN.format(arguments=["demo"]), "uvicorn", "dcaf: The demo needs uvicorn: pip install 'dcaf[demo]'"),
    (RUN.format(arguments=["demo"]), "httpx2", "dcaf: The demo needs httpx2: pip install 'dcaf[demo]'"),
    (RUN.format(arguments=["demo"]), "websockets", "dcaf: The demo needs websockets: pip install 'dcaf[demo]'"),
    (SERVE, "uvicorn", "ConfigurationError: Serving needs uvicorn: pip install 'dcaf[agent,server]'"),
    (
        "from dcaf.testing import SessionClient",
        "httpx2",
        "ModuleNotFoundError: dcaf.testing needs httpx2: pip install 'dcaf[testing]'",
    ),
    (
        "import dcaf.testing as k; k.sealed",
        "websockets",
        "ModuleNotFoundError: dcaf.testing needs websockets: pip install 'dcaf[testing]'",
    ),
    (
        "from dcaf.testing import serving; serving(print)",
        "uvicorn",
        "ConfigurationError: dcaf.testing.serving needs uvicorn: pip install 'dcaf[server]'",
    ),
    (
        "from dcaf.demo import create_demo",
        "pydantic_ai",
        "ModuleNotFoundError: dcaf.agent needs pydantic-ai: pip install 'dcaf[agent]'",
    ),
    (SEAL, "cryptography", "ConfigurationError: Encryption needs cryptography: pip install 'dcaf[crypto]'"),
    (MOUNT, "cryptography", "ConfigurationError: Encryption needs cryptography: pip install 'dcaf[crypto]'"),
]
EVERY = """
import importlib, json, sys
sys.modules[{missing!r}] = None
said = {{}}
for name in {modules!r}:
    try:
        importlib.import_module(name)
        said[name] = None
    except BaseException as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


def without(missing: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that lacks a package."""
    command = [sys.executable, "-c", f"import sys; sys.modules[{missing!r}] = None\n{code}"]
    known = {**os.environ, "DCAF_KEYS": fixed_keys().active.text()}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=known)


def imported(missing: str) -> dict[str, Any]:
    """Name of every module -> what its import said in an interpreter that lacks a package; None where it was imported."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY.format(missing=missing, modules=MODULES)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def is_named(said: Any) -> bool:
    """Whether what was said tells what to install; an import that worked had nothing to say."""
    return said is None or (said[0] == "ModuleNotFoundError" and "pip install '" in said[1])


@pytest.mark.parametrize("missing", OPTIONAL)
def test_no_module_ends_in_the_name_of_another_library_alone(missing: str) -> None:
    said = imported(missing)
    assert {name: one for name, one in said.items() if not is_named(one)} == {}
    assert {name: said[name] for name in ALWAYS if said[name] is not None} == {}
    assert len(said) > 100


def test_control_pythons_own_message_is_not_enough() -> None:
    assert not is_named(["ModuleNotFoundError", "No module named 'websockets'"])
    assert not is_named(["AttributeError", "pip install 'dcaf[client]'"])
    said = imported("anyio")  # of the base installation: whoever lacks it has no dcaf
    assert not is_named(said["dcaf.asgi"])


@pytest.mark.parametrize(("module", "missing", "message"), NEEDED)
def test_the_first_import_of_a_program_names_the_extra(module: str, missing: str, message: str) -> None:
    done = without(missing, f"import {module}")
    assert done.stderr.strip().splitlines()[-1] == f"ModuleNotFoundError: {message}"
    assert "During handling" not in done.stderr


@pytest.mark.parametrize(("code", "missing", "message"), ENTRIES)
def test_what_is_called_without_its_extra_names_it(code: str, missing: str, message: str) -> None:
    done = without(missing, code)
    assert done.stderr.strip().splitlines()[-1].endswith(message)
    assert done.returncode in {1, 2}


def test_a_library_that_is_too_old_to_have_a_module_is_named_too() -> None:
    done = without("websockets.asyncio", "import dcaf.client")
    assert "dcaf.client needs websockets: pip install 'dcaf[client]'" in done.stderr


def test_a_module_of_dcaf_that_is_missing_is_told_as_it_is() -> None:
    done = without("dcaf.client.turn", "import dcaf.client")
    assert "pip install" not in done.stderr
    assert "dcaf.client.turn" in done.stderr
