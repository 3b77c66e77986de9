"""Every command in README and docs, as a shell understands it: the parser takes it, and what it names is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autolora import cli
from autolora.experiments.config import RunConfig, to_yaml

from .blocks import ROOT, Block, blocks

# what the pages run beside autolora; each says its words, and does nothing
STUBS = ("autolora", "uv", "pip", "python", "torchrun", "accelerate", "tensorboard", "ssh", "grep")
# one write for each command: the two sides of a pipe run at the same time
RECORDER = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\" $'\\n' >> \"$RECORD\"; }}\n" for name in STUBS)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: the files of the repository, and runs with a configuration."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("configs", "benchmarks", "examples"):
        (root / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / ".ci", root / ".ci")
    for run in ("photos", "photos-autolora"):
        (root / "runs" / run).mkdir(parents=True)
        (root / "runs" / run / "config.yaml").write_text(to_yaml(RunConfig(data="photos/", out=f"runs/{run}")))
    return root


@pytest.fixture(scope="module", autouse=True)
def one_parser() -> Iterator[None]:
    """Make the parser once: there are hundreds of commands."""
    parser = cli._parser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_parser", lambda: parser)
        yield


def commands(block: Block, folder: Path) -> list[list[str]]:
    """Return the words of every command that a block runs, after the shell's own loops, quotes and expansions."""
    record = folder / "record"
    record.write_text("")
    bash = shutil.which("bash")
    assert bash is not None
    code = block.code.replace("bash .ci/run", "test -f .ci/run").replace("~/", "home/")
    (folder / "home").mkdir(exist_ok=True)
    for target in ("home/.zfunc", "home/.local/share/bash-completion/completions"):
        (folder / target).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [bash, "--noprofile", "--norc", "-euc", RECORDER + code],
        cwd=folder,
        env={"PATH": "/nowhere", "RECORD": str(record), "HOME": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{block}: {done.stderr}"
    lines = [line.strip("\0").split("\0") for line in record.read_text().split("\n")]
    return [line for line in lines if line != [""]]


def words_of_autolora(command: list[str]) -> list[str] | None:
    """Return what autolora is told by a command that runs it, directly or in several processes."""
    if command[0] == "autolora":
        return command[1:]
    if command[:3] == ["uv", "run", "autolora"]:
        return command[3:]
    if command[0] in ("torchrun", "accelerate") and "autolora" in command:
        return command[command.index("autolora") + 1 :]
    return None


@pytest.mark.parametrize("block", blocks("bash", "sh", "console"), ids=str)
def test_a_command_can_be_typed_as_it_stands(
    block: Block, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(block, clone)
    assert found, f"{block} runs nothing"
    monkeypatch.chdir(clone)
    (clone / "mine.py").write_text("")
    for command in found:
        words = words_of_autolora(command)
        if words is not None and "--print_completion" in words:  # run by tests/cli/test_terminal.py
            assert words[1:] in (["shtab-bash"], ["shtab-zsh"])
        elif words is not None:
            options = cli._parse(words)
            said = capsys.readouterr().err  # 0: it was asked for a text, such as --help
            assert options == 0 or not isinstance(options, int), f"{block}: autolora {' '.join(words)}: {said}"
        elif command[0] == "python":
            assert (ROOT / command[1]).is_file(), f"{block}: {command}"
        elif command[0] == "pip":
            assert command[1] == "install"


def test_every_language_is_known() -> None:
    known = {"bash", "sh", "console", "python", "yaml", "json", "csv", ""}
    assert {block.language for block in blocks(*known)} <= known
    assert not [block for block in blocks("shell", "py", "text", "python3")]
