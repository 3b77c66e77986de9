"""The command line: exit codes for scripts, one line for every mistake, and options that mean what they say."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autolora.cli import COMMANDS, main, run
from autolora.experiments.config import RunConfig
from autolora.methods import METHODS

TINY = ["--model", "resnet20_cifar", "--weights", "none", "--image-size", "12", "--epochs", "1", "--attack", "pgd-1"]
TINY += ["--batch-size", "10", "--device", "cpu"]
COMMAND = Path(sys.executable).with_name("autolora")

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder: whatever a command leaves is seen."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that is a mistake, and return the line that it gets."""

    def call(*argv: str) -> str:
        assert run(list(argv)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("autolora: ")
        assert "Traceback" not in err
        assert not any(word in lines[0] for word in ("<class", "Union", "Namespace", "typing", "Parser key"))
        assert not any(Path.cwd().glob("runs"))
        return lines[0]

    return call


def seen(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Let a command do nothing but remember its configuration."""
    configs: list[RunConfig] = []

    def remember(config: RunConfig, **_: Any) -> None:
        configs.append(config)

    monkeypatch.setattr("autolora.experiments.run.run", remember)
    monkeypatch.setattr("autolora.cli.summary.print_result", lambda *_: None)
    return configs


# help, version, lists


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out, err = capsys.readouterr()
    examples = out.split("examples:\n")[1].splitlines()
    assert examples[0].startswith(f"  autolora {command}")
    assert "%%" not in out
    assert err == ""


def test_help_names_every_option_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    run(["fit", "--help"])
    out = capsys.readouterr().out
    public = "--model --weights --method --eps --norm --epochs --batch-size --image-size --rank --val-fraction"
    public += " --label-fraction --out --resume --seed --device --precision --quiet --config"
    assert [option for option in public.split() if f"{option} " not in out and f"[{option}]" not in out] == []


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_overview(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert "autolora quickstart" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert run(["--version"]) == 0
    assert version("autolora") in capsys.readouterr().out


def listed(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, str]]:
    assert run([*argv, "--json"]) == 0
    rows: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return rows


def test_methods(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "methods")
    assert [row["name"] for row in rows] == list(METHODS)
    assert all(row.keys() == {"name", "paper", "summary"} and all(row.values()) for row in rows)


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["name"] for row in listed(capsys, "models", "--filter", "resnet20*_cifar")} == {
        "resnet20_cifar",
        "resnet20w24_cifar",
        "resnet20w32_cifar",
    }
    weights = {row["name"]: row["weights"] for row in listed(capsys, "models", "--filter", "resnet*")}
    assert weights["resnet18"] == "pre-trained"
    assert weights["resnet20_cifar"] == "random"


def test_datasets(capsys: pytest.CaptureFixture[str]) -> None:
    assert "digits" in [row["name"] for row in listed(capsys, "datasets")]


def test_lists_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--filter", "a*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [name for name in METHODS if name.startswith("a")]
    assert len({line.index(METHODS[line.split()[0]].paper) for line in lines}) == 1  # in columns


# mistakes


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("fot digits", "command 'fot' is unknown; did you mean fit? (see autolora --help)"),
        ("--fast", "option --fast is unknown (see autolora --help)"),
        ("fit digits --modle x", "option --modle is unknown; did you mean --model? (see autolora fit --help)"),
        ("fit digits --batch_sizes 3", "option --batch_sizes is unknown; did you mean --batch-size? "),
        ("quickstart --sed 3", "option --sed is unknown; did you mean --seed? (see autolora quickstart --help)"),
        ("methods --jsn", "option --jsn is unknown; did you mean --json? (see autolora methods --help)"),
        ("fit digits more", "'more' belongs to no option; "),
        ("fit digits --epochs x", "option --epochs: 'x' is not an integer (see autolora fit --help)"),
        ("fit digits --epochs 2.5", "option --epochs: '2.5' is not an integer (see autolora fit --help)"),
        ("fit digits --lr fast", "option --lr: 'fast' is not a number (see autolora fit --help)"),
        ("fit digits --norm L3", "option --norm: 'L3' is not one of Linf, L2 (see autolora fit --help)"),
        ("fit digits --device tpu", "option --device: 'tpu' is not one of auto, cpu, cuda (see autolora fit --help)"),
        ("fit digits --schedule fast", "option --schedule: 'fast' is not one of auto, multistep, cosine, constant"),
        ("fit digits --method-options 3", "option --method-options: '3' is not a list of options; give them one by"),
        ("quickstart --seed x", "option --seed: 'x' is not an integer (see autolora quickstart --help)"),
        ("fit digits --lr", "option --lr: expected one argument (see autolora fit --help)"),
        ("fit", "no DATA given: a folder of class folders, an archive of one, or a named set such as digits (see auto"),
        ("fit nowhere/", "nowhere/ does not exist; give a folder, an archive or a named set"),
        ("fit digits --eps 8", "eps=8 is larger than the pixel range [0, 1]; did you mean 8/255?"),
        ("fit digits --epochs 0", "epochs=0 is too small; use 1 or more"),
        ("fit digits --model resnt18", "model 'resnt18' is unknown to timm; did you mean "),
        ("fit digits --method autolra", "method 'autolra' is unknown; did you mean autolora?"),
        ("fit digits --method-options.aplha 2", "method autolora has no option 'aplha'; did you mean alpha?"),
        ("fit digits --method-options.alpha two", "method autolora: alpha='two' is not a number"),
        ("fit digits --method-options.measured_images all", "method autolora: measured_images='all' is not an integer"),
        (
            "fit digits --schedule multistep --schedule-options.milestones 30",
            "schedule multistep: milestones=30 is not a list, each an integer",
        ),
        (
            "fit digits --schedule multistep --schedule-options.gamma -1",
            "gamma=-1: what a rate is multiplied by",
        ),
        ("fit digits --schedule cosine --schedule-options.minimum -1", "minimum=-1: a learning rate is 0 or more"),
        ("fit digits --schedule-options.minimum .nan", "schedule auto: minimum=nan is not a number"),
        ("fit digits --config nowhere.yaml", "option --config: there is no file "),
        ("fit digits --config", "option --config: expected one argument (see autolora fit --help)"),
    ],
)
def test_a_mistake_gets_one_line(refused: Refused, argv: str, line: str) -> None:
    assert refused(*argv.split()).startswith(f"autolora: {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("modle: x\n", "config key 'modle' is unknown; did you mean model? (see autolora fit --help)"),
        ("epochs: many\n", "option --epochs: 'many' is not an integer (see autolora fit --help)"),
        ("norm: 2\n", "option --norm: '2' is not one of Linf, L2 (see autolora fit --help)"),
        ("epochs: [3\n", "option --config: mine.yaml does not hold options as YAML, KEY: VALUE ("),
        ("only words\n", "option --config: mine.yaml does not hold options as YAML, KEY: VALUE ("),
    ],
)
@pytest.mark.parametrize("form", ["--config mine.yaml", "--config=mine.yaml"])
def test_a_mistake_in_a_config_file(refused: Refused, text: str, line: str, form: str) -> None:
    Path("mine.yaml").write_text(text)
    assert refused("fit", "digits", *form.split()).startswith(f"autolora: {line}")


def test_checkpoint_that_does_not_fit(refused: Refused, photos: Path) -> None:
    import timm
    import torch

    torch.save(timm.create_model("resnet20w24_cifar").state_dict(), "wide.pth")
    line = refused("fit", str(photos), *TINY, "--weights", "wide.pth", "--quiet")
    assert "weights wide.pth do not fit the model CifarResNet: of another shape: conv1.weight (24, 3, 3, 3)" in line


# configuration


def test_options_reach_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    argv = ["fit", "photos/", *TINY, "--eps", "4/255", "--method-options.alpha", "2", "--label-fraction", "0.5"]
    assert run([*argv, "--skip-bad-images", "--out", "runs/x"]) == 0
    assert configs == [
        RunConfig(
            "photos/",
            model="resnet20_cifar",
            weights="none",
            image_size=12,
            epochs=1,
            attack="pgd-1",
            batch_size=10,
            device="cpu",
            eps="4/255",
            method_options={"alpha": 2},
            label_fraction=0.5,
            skip_bad_images=True,
            out="runs/x",
        )
    ]


def test_defaults_are_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    assert run(["fit", "digits"]) == 0
    assert configs == [RunConfig("digits")]


@pytest.mark.parametrize("command", ["fit", "pretrain"])
def test_print_config_is_read_back(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = seen(monkeypatch)
    argv = ["--epochs", "3", "--eps", "0.5", "--norm", "L2", "--schedule", "cosine", "--schedule-options.warmup", "1"]
    assert run([command, "digits", *argv]) == 0
    assert run([command, "digits", *argv, "--print_config"]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert run([command, "--config", "mine.yaml"]) == 0
    assert configs[0] == configs[1]
    assert (configs[0].epochs, configs[0].norm, configs[0].schedule_options) == (3, "L2", {"warmup": 1})


@pytest.mark.parametrize(
    "argv",
    [
        "fit digits --epochs 3 --config mine.yaml",
        "fit digits --config mine.yaml --epochs 3",
        "fit --config mine.yaml digits --epochs 3",
        "fit --epochs 3 digits --config=mine.yaml",
        "fit --epochs 3 digits --config other.yaml --config mine.yaml",
    ],
)
def test_the_command_line_wins_wherever_it_stands(argv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    Path("other.yaml").write_text("rank: 4\nseed: 4\n")
    Path("mine.yaml").write_text("data: photos/\nepochs: 7\nseed: 5\nnorm: L2\n")
    assert run(argv.split()) == 0
    assert (configs[0].data, configs[0].epochs, configs[0].seed, configs[0].norm) == ("digits", 3, 5, "L2")
    assert configs[0].rank == (4 if "other" in argv else None)


def test_pretraining_is_the_same_engine_with_other_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    assert run(["pretrain", "digits"]) == 0
    assert (configs[0].method, configs[0].attack, configs[0].weights) == ("at", "one-step", "none")


# a run


def test_fit_prints_its_result(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(photos), *TINY, "--out", "run"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(Path("run/result.json").read_text())
    for name in ("natural", "pgd-10"):
        assert f"{result['scores'][name]['accuracy']:.1%}" in out
    assert "Linf" in out
    assert "8/255" in out
    assert "standard error" in err  # of the validation split
    assert "epoch   1/1" in err


def test_quiet_is_quiet(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(photos), *TINY, "--out", "run", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")


def test_config_of_a_run_is_read_by_the_command(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["fit", str(photos), *TINY, "--out", "run", "--quiet"]) == 0
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    configs = seen(monkeypatch)
    assert run(["fit", "--config", "run/config.yaml"]) == 0
    assert configs == [RunConfig(**stored)]


@pytest.mark.parametrize("options", [[], ["--seed", "3", "--schedule", "constant"]])
def test_an_interrupt_says_how_to_go_on(
    photos: Path, options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed can be typed, whatever the options of the run were."""
    argv = ["fit", str(photos), *TINY, *options, "--epochs", "2", "--out", "my run", "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr("autolora.experiments.tracking.write_metrics", stop)
        assert run(argv) == 130
    err = capsys.readouterr().err
    assert err.startswith("autolora: interrupted after the last finished epoch; continue with: autolora fit ")
    assert len(err.splitlines()) == 1
    assert run(argv) == 2
    assert run(shlex.split(err.partition("continue with: autolora ")[2])) == 0
    assert len(Path("my run/metrics.jsonl").read_text().splitlines()) == 2
    assert run([*argv, "--resume"]) == 2  # it is finished


def test_an_interrupt_while_reading_leaves_nothing(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autolora.experiments.ingredients.load_splits", stop)
    assert run(["fit", str(photos), *TINY, "--out", "run"]) == 130
    assert capsys.readouterr().err == "autolora: interrupted before anything was written\n"
    assert not Path("run").exists()


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_failure_while_running_is_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "runs/x/config.yaml")

    monkeypatch.setattr("autolora.experiments.run.run", fail)
    assert run(["fit", "digits"]) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1
    with pytest.raises(SystemExit) as done:
        main(["fit", "digits"])
    assert done.value.code == 1


# as users start it


def test_the_command_itself(photos: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [COMMAND, "fit", photos, *TINY, "--out", "run"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "Test accuracy on 18 images" in done.stdout
    assert "Warning" not in done.stderr
    assert Path("run/result.json").is_file()


def test_a_mistake_to_the_command_itself() -> None:
    done = subprocess.run([COMMAND, "fit", "nowhere/"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("autolora: nowhere/ does not exist; give")
    assert len(done.stderr.splitlines()) == 1


def test_a_second_sigterm_does_not_kill_a_process_that_is_ending() -> None:
    """A launcher repeats it, and may do so after the line has been printed: the exit code stays."""
    code = """
import atexit, os, signal
from autolora.cli import COMMANDS, main
ask = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
COMMANDS["params"].execute = ask
COMMANDS["params"].resume_hint = lambda options: ask() or "; twice"
atexit.register(ask)
main(["params", "resnet18"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (143, "autolora: interrupted; twice\n")


def test_a_sigterm_that_a_destructor_has_swallowed_can_be_repeated() -> None:
    code = """
import os, signal
import autolora.cli
class Deaf:
    def __del__(self):
        ask()
ask = lambda: os.kill(os.getpid(), signal.SIGTERM)
autolora.cli.COMMANDS["params"].execute = lambda options: (Deaf() and None) or ask()
autolora.cli.REPEATED = 0
autolora.cli.main(["params", "resnet18"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 143
    assert "Exception ignored" in done.stderr and done.stderr.endswith("\nautolora: interrupted\n"), done.stderr
