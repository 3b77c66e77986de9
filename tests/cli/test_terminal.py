"""The terminal: help in groups with examples, completion that a shell takes, bars only where they are seen."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from jsonargparse import Namespace
from tqdm import tqdm

from autolora.cli import COMMANDS, GROUPS, run
from autolora.cli.options import GROUPS as OPTION_GROUPS
from autolora.cli.options import bars


def test_help_of_fit_has_its_options_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    headings = [line[:-1] for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert headings == ["positional arguments", "options", *OPTION_GROUPS, "examples"]
    groups = text.split("optimisation:")[1].split("data:")[0]
    assert "--schedule" in groups and "--lr" in groups and "--model" not in groups


def test_help_has_the_commands_by_what_one_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    listed = text.partition("commands:")[2].partition("examples:")[0].splitlines()
    titles = [line.strip() for line in listed if line.startswith("  ") and line[2:3].isalpha()][1:]
    names = [line.split()[0] for line in listed if line.startswith("    ") and line[4:5].isalpha()]
    assert titles == list(GROUPS) and names == list(COMMANDS)
    assert len(names) == len(set(names)) == sum(map(len, GROUPS.values()))
    assert max(map(len, text.partition("commands:")[2].splitlines())) <= 80


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


@pytest.mark.parametrize("terminal", [True, False])
def test_a_download_is_drawn_on_a_terminal_and_not_into_a_log(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(name: str, root: str | None) -> str:
        with tqdm(total=1, desc=name) as bar:  # as torchvision does, whatever it writes to
            bar.update()
        return "there"

    monkeypatch.setattr("autolora.data.download", fetch)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert run(["datasets", "--download", "cifar10"]) == 0
    out, err = capsys.readouterr()
    assert out == "cifar10 is in there\n" and ("cifar10: 100%" in err) == terminal == bool(err)
