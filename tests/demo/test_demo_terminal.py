"""`dcaf demo`, as it looks in a terminal and through a pipe."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from dcaf.agent.app import _warn_once
from dcaf.cli import main
from dcaf.demo import story
from dcaf.demo.teller import Check, PlainTeller, Step, Teller, TerminalTeller, Turn, Waiting, fitting
from tests.demo.terminals import ENVIRONMENT, Seen, Terminal, become_terminal, run_in_terminal, screen, set_environment

DCAF = str(Path(sys.executable).with_name("dcaf"))
PLAIN = Path(__file__).with_name("plain.txt").read_text()

COLOUR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;\d]*m")
STEP = Step("turn", 3, 8, "service api")
LOUD = """
import sys
from dcaf.demo.teller import Check, Step
from dcaf.demo.teller import fitting

teller = fitting()
with teller.trying(Step("cheat", 1, 1, "it")):
    print("a line of the log", file=sys.stderr)
teller.answered(Check("it", "400 no", "400 no"))
"""


@pytest.fixture(scope="module")
def piped() -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([DCAF, "demo"], capture_output=True, check=False, timeout=60, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return run_in_terminal([DCAF, "demo"], columns=80)


def masked(lines: str) -> str:
    """Without what differs from run to run."""
    return re.sub(r"(?m)^(envelope   )\d+", r"\1N", re.sub(r"(http://127\.0\.0\.1:)\d+", r"\1PORT", lines))


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_pipe_gets_the_plain_lines_byte_for_byte(piped: subprocess.CompletedProcess[bytes]) -> None:
    assert piped.returncode == 0
    assert b"\x1b" not in piped.stdout
    assert masked(piped.stdout.decode()) == PLAIN


def test_a_terminal_gets_colour_and_the_same_exit_code(seen: Seen) -> None:
    assert seen.code == 0
    assert COLOUR.search(seen.raw)
    assert seen.lines[-1] == "13 of 13 held."


def test_the_line_of_progress_comes_and_goes(seen: Seen) -> None:
    steps = [f"turn {number} of 8" for number in range(1, 9)] + [f"cheat {number} of 5" for number in range(1, 6)]
    assert [step for step in steps if step in seen.raw] == steps
    assert [step for step in steps if step in screen(seen.raw)] == []


def test_the_cursor_is_there_again_in_the_end(seen: Seen) -> None:
    assert seen.raw.rfind("\x1b[?25h") > seen.raw.rfind("\x1b[?25l") > 0


def test_the_table_marks_what_a_turn_changed_in_a_word(seen: Seen) -> None:
    start = seen.lines.index("user       3 replicas")
    assert [line.split() for line in seen.lines[start + 2 : start + 5]] == [
        ["state", "changed", "wizard_step", "3"],
        ["service", '"api"'],
        ["new", "replicas", "3"],
    ]


def test_the_table_shows_what_is_gone_and_then_that_nothing_is_left(seen: Seen) -> None:
    start = seen.lines.index("user       (approves)")
    assert [line.split()[-3] for line in seen.lines[start + 2 : start + 5]] == ["gone"] * 3
    assert "state      empty" in seen.lines[start + 5 :]


def test_a_terminal_tells_everything_that_the_plain_lines_tell(seen: Seen) -> None:
    told = words(masked("\n".join(seen.lines)))
    facts = [line for line in PLAIN.split("\n") if line and not line.startswith(("The wizard", "state"))]
    assert len(facts) == 3 * 8 + 1 + 2 * 5 + 3 + 2 + 13 + 1
    assert [fact for fact in facts if words(fact) not in told] == []


def test_the_closing_table_shows_of_every_turn_what_only_this_turn_did(seen: Seen) -> None:
    heading = next(line for line in seen.lines if line.startswith("held?"))
    rows = [line[heading.index("what came") :] for line in seen.lines if line.startswith("held    after")]
    assert len(set(rows)) == len(rows) == 8
    assert rows[1] == 'wizard_step 2, service "api"'


def test_the_whole_session_is_compared_although_the_table_shows_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second turn the table would show the same; the session has a member too many."""
    wrong = (("start", {"wizard_step": 1}), ("service api", {"wizard_step": 2, "service": "api", "left": 1}))
    monkeypatch.setattr(story, "CONVERSATION", wrong)
    terminal = become_terminal(monkeypatch, COLUMNS="80")
    assert story.tell() == 1
    assert "FAILED  after 'service api'" in terminal.screen
    assert terminal.screen.endswith("6 of 7 held.")


@pytest.mark.parametrize("command", [["demo"], ["demo", "--serve", "--port", "70000"]])
def test_what_the_service_would_warn_of_is_not_in_the_story(command: list[str]) -> None:
    told = subprocess.run([DCAF, *command], capture_output=True, check=False, timeout=60, env=ENVIRONMENT, text=True)
    assert [line for line in told.stderr.splitlines() if "port" not in line] == []


def test_control_the_service_does_warn(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()  # as in a process that has not told of it yet
    monkeypatch.setattr(story, "without_warnings", nullcontext)
    assert story.tell(PlainTeller()) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "dcaf"]
    assert [len([line for line in said if word in line]) for word in ("ephemeral key", "no ledger", "refused code=")] == [1, 1, 3]


def test_what_is_printed_on_error_stands_above_the_answer_and_breaks_no_line() -> None:
    seen = run_in_terminal([sys.executable, "-c", LOUD], columns=80)
    assert seen.lines == ["", "cheat      it", "a line of the log", "answer     400 no"]


def test_a_log_that_goes_elsewhere_is_left_to_go_there(capsys: pytest.CaptureFixture[str]) -> None:
    output = Terminal()
    with TerminalTeller(Console(file=output, force_terminal=True)).trying(STEP):
        print("a line of the log", file=sys.stderr)
    assert capsys.readouterr().err == "a line of the log\n"
    assert "a line of the log" not in output.getvalue()


def test_eighty_columns_are_enough(seen: Seen) -> None:
    told = seen.lines[next(index for index, line in enumerate(seen.lines) if line.startswith("The wizard")) :]
    assert max(len(line) for line in told) <= 80


def test_forty_columns_without_colour_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch, COLUMNS="40", NO_COLOR="1")
    assert main(["demo"]) == 0
    assert "turn 3 of 8" in terminal.getvalue()
    assert not COLOUR.search(terminal.getvalue())
    assert max(len(line) for line in terminal.screen.split("\n")) <= 40
    assert "changed  wizard_step  2\n" in terminal.screen
    assert terminal.screen.endswith("13 of 13 held.")


@pytest.mark.parametrize("teller", [PlainTeller, lambda: TerminalTeller(Console())], ids=["plain", "terminal"])
def test_control_a_check_that_fails_is_shown_and_ends_with_1(teller: Callable[[], Teller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "CONVERSATION", (("start", {"wizard_step": 2}),))
    terminal = become_terminal(monkeypatch, COLUMNS="80")
    assert story.tell(teller()) == 1
    assert "FAILED  after 'start'" in terminal.screen
    assert 'after \'start\': expected {"wizard_step": 2}, found {"wizard_step": 1}' in terminal.screen
    assert terminal.screen.endswith("5 of 6 held.")


def test_what_the_service_says_is_text_and_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    said, literal = "[red]x[/red] [/] :smile: \x1b[2J\x07\u202e", r"[red]x[/red] [/] :smile: \x1b[2J\x07\u202e"
    terminal = become_terminal(monkeypatch, COLUMNS="200")
    teller = TerminalTeller(Console())
    with teller.trying(Step("cheat", 1, 1, said)):
        pass
    teller.turned(Turn("", said, {}, {said: 1}, 345, [Waiting(said, {})]))
    teller.answered(Check("", "", said))
    teller.closed([Check(said, "", said)])
    # tried, said, waiting, the key, answered; in the table and below it, what and found
    assert terminal.screen.count(literal) == 9


def test_control_a_console_left_to_itself_reads_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch, COLUMNS="200")
    Console().print("[red]x[/red] :smile:")
    assert "[red]" not in terminal.screen
    assert ":smile:" not in terminal.screen


def test_what_is_longer_than_a_line_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch, COLUMNS="40")
    teller = TerminalTeller(Console())
    teller.turned(Turn("", "A" * 100, {}, {"K" * 50: "V" * 100}, 345))
    teller.answered(Check("", "", "Z" * 100))
    assert [terminal.screen.count(sign) for sign in "AKVZ"] == [100, 50, 100, 100]
    assert max(len(line) for line in terminal.screen.split("\n")) <= 40


def test_a_step_that_breaks_off_leaves_no_line_and_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = become_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), TerminalTeller(Console()).trying(STEP):
        raise KeyboardInterrupt
    assert "turn 3 of 8" in terminal.getvalue()
    assert terminal.screen == "\nuser       service api"
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l") > 0


def test_a_terminal_gets_its_teller(monkeypatch: pytest.MonkeyPatch) -> None:
    become_terminal(monkeypatch)
    assert isinstance(fitting(), TerminalTeller)


@pytest.mark.parametrize("setting", [{"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}, {"COLUMNS": "0"}])
def test_a_terminal_that_can_only_show_text_gets_the_plain_lines(setting: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    become_terminal(monkeypatch, **setting)
    assert isinstance(fitting(), PlainTeller)


@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize("setting", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_what_is_no_terminal_gets_the_plain_lines_whatever_is_asked(
    setting: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, **setting)
    assert isinstance(fitting(), PlainTeller)
