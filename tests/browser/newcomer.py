"""A newcomer's path, timed: a fresh clone, `make demo`, and the first answered turn in a browser.

`python -m tests.browser.newcomer` prints the table, and keeps a picture of the page in docs/page.png. It needs git, make and
Chromium, and takes a minute or two, so no test runs it.

What a reader gets wrong: the clone is of what is committed. Its virtual environment is made from nothing but what pip has kept.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from tests.conftest import program

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = ROOT / "docs" / "page.png"
WIZARD: Final = ("service api", "3 replicas", "execute")


class Watch:
    """How long each step took, from the one before."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []
        self.last = time.perf_counter()

    def tick(self, step: str) -> None:
        now = time.perf_counter()
        self.steps.append((step, now - self.last))
        self.last = now

    def table(self) -> str:
        rows = [f"| {step} | {seconds:.1f} |" for step, seconds in [*self.steps, ("in all", sum(s for _, s in self.steps))]]
        return "\n".join(["| step | seconds |", "|---|---:|", *rows])


def main() -> None:
    """Walk the path, and say how long it took."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "dcaf"
        run("git", "clone", "--quiet", str(ROOT), str(clone), folder=Path(folder))
        watch.tick("git clone")
        run("make", "demo", folder=clone)
        watch.tick("make demo, with the virtual environment that it makes")
        with demo(clone) as url, sync_playwright() as playwright:
            watch.tick("dcaf demo --serve, until it prints its address")
            browser = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            first_turn(page, url)
            watch.tick("open the page, press a suggestion, read the answer")
            picture(page)
            browser.close()
    print(watch.table())


def run(*command: str, folder: Path) -> None:
    """Run a command; it fails as the command does."""
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def demo(clone: Path) -> Iterator[str]:
    """The demo of a clone, and its address."""
    command = [str(clone / ".venv" / "bin" / "dcaf"), "demo", "--serve"]
    with subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"http://[\d.:]+\d", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.terminate()


def first_turn(page: Any, url: str) -> None:
    """What somebody does who has never seen the page."""
    page.goto(url)
    page.get_by_role("button", name="start", exact=True).click()
    page.get_by_text("Step 1: which service do you want to deploy?").first.wait_for()


def picture(page: Any) -> None:
    """The page at work: a call that waits, and a cheat that was refused."""
    for text in WIZARD:
        page.locator("#send:enabled").wait_for()
        page.get_by_role("button", name=text, exact=True).click()
    page.get_by_role("button", name="Approve").wait_for()
    page.locator("#send:enabled").wait_for()
    page.get_by_role("button", name="Tamper with the token").click()
    page.locator("#verdict .card").wait_for()
    page.emulate_media(reduced_motion="reduce")
    page.screenshot(path=PICTURE, full_page=True)


if __name__ == "__main__":
    main()
