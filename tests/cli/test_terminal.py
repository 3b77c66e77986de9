"""The terminal: help in groups with examples, completion that a shell takes, bars only where they are seen."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from jsonargparse import Namespace

from autolora.cli import COMMANDS, run
from autolora.cli.options import GROUPS, bars


def test_help_of_fit_has_its_options_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    headings = [line[:-1] for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert headings == ["positional arguments", "options", *GROUPS, "examples"]
    groups = text.split("optimisation:")[1].split("data:")[0]
    assert "--schedule" in groups and "--lr" in groups and "--model" not in groups


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_worked_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"autolora {name}" in text.split("examples:")[1]
    assert "\x1b" not in text


def test_a_shell_takes_the_completion(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="no shtab: pip install shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    assert run(["--print_completion", "shtab-bash"]) == 0
    script = capsys.readouterr().out
    typed = "COMP_WORDS=(autolora qui) COMP_CWORD=1; _shtab_autolora autolora qui autolora; echo ${COMPREPLY[@]}"
    done = subprocess.run([bash, "--norc", "-c", f"{script}\n{typed}"], capture_output=True, text=True)
    assert done.stdout.split() == ["quickstart"], done.stderr


@pytest.mark.parametrize(("quiet", "terminal", "drawn"), [(0, 1, True), (1, 1, False), (0, 0, False), (1, 0, False)])
def test_bars_are_drawn_for_people(monkeypatch: pytest.MonkeyPatch, quiet: bool, terminal: bool, drawn: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(terminal), raising=False)
    assert bars(Namespace(quiet=bool(quiet))) is drawn  # type: ignore[no-untyped-call]
