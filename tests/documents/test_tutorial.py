"""The tutorials, done by a reader who types what they say into empty folders beside a clone, and believes nothing."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

from tests.documents.reader import Reader, Untrue
from tests.documents.terminal import Terminal, TooLong
from tests.documents.tutorial_text import Open, Run, Step, Unclear, Write, steps

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Tutorial:
    """A text, and its steps that have something to do."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / "docs" / f"{self.name}.md").read_text()

    @cached_property
    def steps(self) -> list[Step]:
        return [step for step in steps(self.text) if step.actions]


FIRST = Tutorial("tutorial")
SECOND = Tutorial("tutorial-server")
"""It begins with the environment that the first step of the first one makes."""
TUTORIALS = (FIRST, SECOND)
STEPS = [
    pytest.param(tutorial, step, id=f"{tutorial.name}-{re.sub(r'[^a-z0-9]+', '-', step.title.lower())}")
    for tutorial in TUTORIALS
    for step in tutorial.steps
]
CLONE = ("pyproject.toml", "README.md", "LICENSE")
"""What a clone has besides the package that an installation reads."""


def environment() -> dict[str, str]:
    """A newcomer's environment: the same machine, but neither this run's settings nor this project's programs."""
    ours = ("PYTHON", "PYTEST", "COV", "DCAF", "VIRTUAL_ENV", "COLUMNS")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    elsewhere = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    return theirs | {
        "PATH": os.pathsep.join([f"{sys.base_prefix}/bin", *elsewhere]),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",
        "PIP_QUIET": "1",  # what pip says of a machine's own indexes is not the tutorial's
    }


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a clone is in, under the name that the tutorial calls it by."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copytree(ROOT / "dcaf", folder / "dcaf" / "dcaf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in CLONE:
        shutil.copy(ROOT / name, folder / "dcaf")
    return folder


@pytest.fixture(scope="module")
def readers(curl: str, beside: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Tutorial, Reader]]:
    """A reader of each tutorial, in a terminal of its own."""
    assert curl
    with one_at_a_time(), ExitStack() as stack:
        for port in {port for tutorial in TUTORIALS for port in re.findall(r"127\.0\.0\.1:(\d+)", tutorial.text)}:
            with socket.socket() as taken:
                assert taken.connect_ex(("127.0.0.1", int(port))) != 0, f"something else runs on a tutorial's port, {port}"
        desks = {tutorial: tmp_path_factory.mktemp("desk") for tutorial in TUTORIALS}
        yield {
            tutorial: Reader(tutorial.steps, stack.enter_context(Terminal(beside, desk, environment())))
            for tutorial, desk in desks.items()
        }


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other checkout of this user tests its tutorial: the port in the text is one."""
    with (Path(tempfile.gettempdir()) / f"dcaf-tutorial-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(("tutorial", "step"), STEPS)
def test_a_tutorial_works_as_it_is_written(readers: dict[Tutorial, Reader], tutorial: Tutorial, step: Step) -> None:
    readers[FIRST].follow(FIRST.steps[0])
    readers[tutorial].follow(step)


def test_what_the_tutorial_installs_is_this_code(readers: dict[Tutorial, Reader], beside: Path) -> None:
    readers[FIRST].follow(FIRST.steps[0])
    (installed,) = beside.glob("*/.venv/lib/python*/site-packages/dcaf")
    files = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    cloned = {path.relative_to(beside / "dcaf" / "dcaf") for path in (beside / "dcaf" / "dcaf").rglob("*") if path.is_file()}
    assert files == cloned
    assert [name for name in files if (installed / name).read_bytes() != (beside / "dcaf" / "dcaf" / name).read_bytes()] == []


def test_the_environment_of_the_reader_has_no_dcaf_of_its_own(tmp_path: Path) -> None:
    with Terminal(tmp_path, tmp_path, environment()) as terminal:
        assert [status for status, _ in terminal.type("dcaf --version\npython3 -c 'import dcaf'\n").failed] == [127, 1]


def test_the_tutorials_have_all_kinds_of_actions() -> None:
    """Or else a convention has changed, and the reader does nothing."""
    assert {type(action) for step in FIRST.steps for action in step.actions} == {Write, Run, Open}


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.name)
def test_every_block_of_a_tutorial_is_an_action(tutorial: Tutorial) -> None:
    told = sum(tutorial.text.count(mark) for mark in ("```sh\n", "```python\n", "\nOpen <"))
    assert sum(len(step.actions) for step in tutorial.steps) == told > 10


def test_a_reader_of_the_second_tutorial_writes_the_tools_once() -> None:
    files = [action.name for step in SECOND.steps for action in step.actions if isinstance(action, Write)]
    assert [name for name in set(files) if files.count(name) > 1] == ["app.py"]


# The controls: a reader of little texts.

TRUE = """\
# A text

## A folder

```sh
mkdir new
cd new
export WHO=you
sleep 600 &
```

## A file

Write `hello.py`:

```python
import os

print("hello", os.environ["WHO"])
print(os.getpid(), "is my number")
```

```sh
python3 hello.py
jobs -r
```

```text
hello you
… is my number
[1]+  Running                 sleep 600 &
```

<!-- exit status 3 -->
```sh
echo so much on error >&2
(exit 3)
```

```text
so much on error
```
"""


def follow(text: str, folder: Path, *, limit: timedelta = timedelta(seconds=20)) -> None:
    (folder / "desk").mkdir()
    with Terminal(folder, folder / "desk", environment(), limit=limit) as terminal:
        reader = Reader(found := steps(text), terminal)
        for step in found:
            reader.follow(step)


def test_a_true_text_is_followed(tmp_path: Path) -> None:
    follow(TRUE, tmp_path)
    assert (tmp_path / "new" / "hello.py").exists()


@pytest.mark.parametrize(
    ("true", "untrue", "complaint"),
    [
        ("hello you\n", "hello me\n", r"line 23: this is not what is printed\n.*-hello me\n.*\+hello you\n"),
        ("… is my number\n", "", r"line 23: this is not what is printed\n.*\+\d+ is my number\n"),
        ("print(os", "raise SystemExit(os", "line 23: `python3 hello.py` ended with 1, not with 0\nhello you\n"),
        ("jobs -r", "job -r", "line 23: `job -r` ended with 127, not with 0\n.*job: command not found"),
        ("(exit 3)", "(exit 4)", r"line 35: `\( exit 4 \)` ended with 4, not with 3\n"),
        ("(exit 3)", "true", "line 35: all commands ended with 0, not with 3\n"),
        ("cd new\n", "cd new\necho untold\n", r"line 5: this is not what is printed\n.*\+untold"),
        ("cd new\n", "cd new\nfalse\n", "line 5: `false` ended with 1, not with 0\n"),
    ],
)
def test_control_what_is_not_as_shown_is_reported(tmp_path: Path, true: str, untrue: str, complaint: str) -> None:
    assert TRUE.count(true) == 1
    with pytest.raises(Untrue, match=f"(?s)^{complaint}"):
        follow(TRUE.replace(true, untrue), tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("## A file\n\nWrite `hello.py`:\n\n```sh\npython3 hello.py\n```\n", "line 3: there is no python block after this"),
        ("## A file\n\nWrite `hello.py`:\n", "line 3: there is no python block after this"),
        ("## A file\n\n```python\n1\n```\n", "line 3: nobody said what to do with this python block"),
        ("## A picture\n\n```text\n1\n```\n", "line 3: nobody said what to do with this text block"),
        ("## A failure\n\n<!-- exit status 2 -->\n", "line 3: there is no sh block after this"),
        ("```sh\nls\n```\n", "line 1: this is to be done before the first step"),
        ("## A list\n\n- one\n\n  ```sh\n  ls\n  ```\n", "a block is indented, or not closed"),
        ("## An end\n\n```sh\nls\n", "a block is indented, or not closed"),
    ],
)
def test_control_a_text_that_does_not_say_what_to_do_is_reported(text: str, complaint: str) -> None:
    with pytest.raises(Unclear, match=f"^{complaint}"):
        steps(text)


def test_control_a_file_that_was_never_written_is_reported(tmp_path: Path) -> None:
    head, rest = TRUE.split("Write `hello.py`:")
    with pytest.raises(Untrue, match=r"^line 15: `python3 hello.py` ended with 2, not with 0"):
        follow(head + rest.split("```\n", 1)[1], tmp_path)


@pytest.mark.parametrize("page", ["http://127.0.0.1:9/", "nowhere"])
def test_control_a_page_that_is_not_there_is_reported(tmp_path: Path, page: str) -> None:
    with pytest.raises(Untrue, match=f"line 3: {page} cannot be opened"):
        follow(f"## A page\n\nOpen <{page}> in a browser.\n", tmp_path)


def test_control_after_a_step_that_failed_none_is_tried(tmp_path: Path) -> None:
    first, second = steps("## One\n\n```sh\nfalse\n```\n\n## Two\n\n```sh\ntouch two\n```\n")
    with Terminal(tmp_path, tmp_path, environment()) as terminal:
        reader = Reader([first, second], terminal)
        with pytest.raises(Untrue, match="`false` ended with 1"):
            reader.follow(first)
        with pytest.raises(Untrue, match="not tried, for a step before this one failed: One"):
            reader.follow(second)
    assert not (tmp_path / "two").exists()


def test_a_step_by_itself_is_done_after_those_before_it_and_once(tmp_path: Path) -> None:
    first, second = steps("## One\n\n```sh\necho one >> done\n```\n\n## Two\n\n```sh\ncat done\n```\n\n```text\none\n```\n")
    with Terminal(tmp_path, tmp_path, environment()) as terminal:
        reader = Reader([first, second], terminal)
        reader.follow(second)
        reader.follow(first)
    assert (tmp_path / "done").read_text() == "one\n"


@pytest.mark.parametrize("commands", ["sleep 600", "sleep 600 & exit"])
def test_control_commands_that_do_not_end_are_ended_and_reported(tmp_path: Path, commands: str) -> None:
    with pytest.raises(TooLong, match=r"did not end in 0\.5 s, or ended the terminal"):
        follow(f"## Wait\n\n```sh\n{commands}\n```\n", tmp_path, limit=timedelta(seconds=0.5))


PULSE: Final = "while sleep 0.02; do echo alive >> pulse; done &\nuntil [ -s pulse ]; do sleep 0.02; done"


def test_nothing_is_left_running_when_a_step_fails(tmp_path: Path) -> None:
    with pytest.raises(Untrue):
        follow(f"## Wait\n\n```sh\n{PULSE}\nfalse\n```\n", tmp_path)
    last = (tmp_path / "pulse").read_text()
    time.sleep(0.2)
    assert last
    assert (tmp_path / "pulse").read_text() == last
