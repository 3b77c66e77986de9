"""``--plugin`` and ``--preset`` on the command line, and what wins over what."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autolora.cli import run
from autolora.experiments import plugins
from autolora.experiments.config import RunConfig
from autolora.methods import METHODS

EXAMPLE = Path(__file__).parents[2] / "examples" / "write_a_method.py"
TINY = "--model resnet20_cifar --weights none --image-size 12 --epochs 1 --attack pgd-1 --batch-size 10 --device cpu"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder and as a new process does, and leave no method behind."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(plugins, "_LOADED", {})
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)
    for name in [name for name in sys.modules if name.startswith("autolora_plugin_")]:
        del sys.modules[name]


def seen(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Let a command do nothing but remember its configuration."""
    configs: list[RunConfig] = []
    monkeypatch.setattr("autolora.experiments.run.run", lambda config, **_: configs.append(config))
    monkeypatch.setattr("autolora.cli.summary.print_result", lambda *_: None)
    return configs


def refused(capsys: pytest.CaptureFixture[str], command: str) -> str:
    assert run(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    line = err.splitlines()[-1]
    assert line.startswith("autolora: ")
    return line


# --plugin


def test_fit_with_a_plugin(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = f"fit {photos} {TINY} --plugin {EXAMPLE} --method alp --method-options.weight 0.1 --out run"
    assert run(argv.split()) == 0
    out, err = capsys.readouterr()
    assert f"plugin: running the code in {EXAMPLE}" in err
    assert "Test accuracy" in out
    (row,) = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert row.keys() >= {"natural", "adversarial", "pairing"}
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    assert (stored["method"], stored["method_options"], stored["plugin"]) == ("alp", {"weight": 0.1}, str(EXAMPLE))


def test_resume_takes_the_plugin_from_the_run_folder(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(EXAMPLE, "mine.py")
    with monkeypatch.context() as patched:
        patched.setattr("autolora.experiments.tracking.write_metrics", stop)
        assert run(f"fit {photos} {TINY} --epochs 2 --plugin mine.py --method alp --out run --quiet".split()) == 130
    resume = capsys.readouterr().err.partition("continue with: autolora ")[2]
    monkeypatch.setattr(plugins, "_LOADED", {})  # another process
    METHODS.pop("alp")
    with monkeypatch.context() as patched:
        (Path.cwd().parent / "there").mkdir()
        patched.chdir(Path.cwd().parent / "there")
        os.symlink("../here/run", "run")
        line = refused(capsys, resume)
        assert line.startswith("autolora: plugin mine.py: there is no such file; a path counts from the folder")
        assert line.endswith(str(Path.cwd()))
    assert run(shlex.split(resume)) == 0
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 2


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_methods_lists_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods", "--json"]) == 0
    without = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert run(["methods", "--json", "--plugin", str(EXAMPLE)]) == 0
    out, err = capsys.readouterr()
    assert [row["name"] for row in json.loads(out)] == [*without, "alp"]
    assert "running the code" in err


def test_a_method_without_a_docstring_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "from autolora import Method, register\n\n\n@register('mine')\nclass Mine(Method):\n"
        "    def loss(self, model, batch):\n        return {}\n"
    )
    assert run(["methods", "--plugin", "mine.py", "--filter", "mine"]) == 0
    assert capsys.readouterr().out == "mine\n"


def test_a_mistake_in_a_plugin_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "fit digits --plugin nowhere.py").startswith("autolora: plugin nowhere.py: there is no such")
    Path("mine.py").write_text("\nunknown\n")
    line = refused(capsys, "fit digits --plugin mine.py --method mine")
    assert line == (
        "autolora: plugin mine.py, line 2, fails while it is imported: NameError: name 'unknown' is not defined"
    )
    assert refused(capsys, "methods --plugin mine.py") == line
    assert not Path("runs").exists()
    assert refused(capsys, "models --plugin mine.py").startswith("autolora: option --plugin is unknown")


# --preset


@pytest.mark.parametrize("form", ["--preset slf", "--preset=slf"])
@pytest.mark.parametrize(
    "argv",
    [
        "fit digits {} --epochs 3 --config mine.yaml",
        "fit --epochs 3 --config mine.yaml {} digits",
        "fit --config=mine.yaml digits --epochs 3 {}",
        "{} fit digits --epochs 3 --config mine.yaml",
    ],
)
def test_command_line_over_config_over_preset(argv: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    Path("mine.yaml").write_text("epochs: 7\nlr: 0.05\n")
    assert run(argv.format(form).split()) == 0
    config = configs[0]
    assert (config.epochs, config.lr) == (3, 0.05)  # the preset has 25 and 0.01
    assert (config.method, config.batch_size, config.weight_decay, config.head) == ("slf", 512, 2e-4, "zero")


def test_a_preset_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    assert run(["fit", "digits", "--preset", "aff-trades"]) == 0
    (config,) = configs
    assert (config.method, config.lr, config.epochs, config.batch_size) == ("vanilla-rft", 0.1, 25, 128)
    assert config.method_options == {"beta": 6.0, "attack_loss": "kl", "start": "gaussian"}
    assert (config.schedule, config.schedule_options) == ("multistep", {"milestones": [15, 20]})


def test_one_entry_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    argv = "fit digits --preset aff-trades --method-options.beta 3 --schedule-options.milestones [40,60]"
    assert run(argv.split()) == 0
    assert configs[0].method_options == {"beta": 3, "attack_loss": "kl", "start": "gaussian"}
    assert configs[0].schedule_options == {"milestones": [40, 60]}
    argv = "fit digits --preset aff-trades --method at --method-options null"
    assert run(argv.split()) == 0
    assert (configs[1].method, configs[1].method_options, configs[1].lr) == ("at", None, 0.1)


def test_pretraining_takes_presets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = seen(monkeypatch)
    assert run(["pretrain", "digits", "--preset", "aff-trades"]) == 0
    (config,) = configs
    assert (config.model, config.weights, config.attack) == ("resnet20w24_cifar", "none", "pgd-10")
    assert config.schedule_options == {"milestones": [15, 20]}  # not the warm-up of pre-training


def test_print_config_holds_the_preset(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    configs = seen(monkeypatch)
    assert run(["fit", "digits", "--preset", "aff-autolora"]) == 0
    assert run(["fit", "digits", "--preset", "aff-autolora", "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "preset" not in printed
    Path("mine.yaml").write_text(printed)
    assert run(["fit", "--config", "mine.yaml"]) == 0
    assert configs[0] == configs[1]


@pytest.mark.parametrize("command", ["fit", "pretrain"])
def test_help_names_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "[--preset NAME]" in out.partition("positional")[0]  # usage
    assert "--preset NAME " in out.partition("options:")[2]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("fit digits --preset sfl", "preset 'sfl' is unknown; did you mean slf?"),
        ("fit --preset digits", "preset 'digits' is unknown; there are aff-autolora, aff-trades, alf, slf"),
        ("fit digits --preset", "option --preset: expected one argument (see autolora fit --help)"),
        (
            "fit digits --preset slf --preset=alf",
            "presets slf and alf are given; each is a whole protocol, so give one",
        ),
        ("fit digits --presett slf", "option --presett is unknown; did you mean --preset? (see autolora fit --help)"),
        ("fit digits --config mine.yaml", "config key 'preset' belongs on the command line; give --preset NAME"),
        ("quickstart --preset slf", "option --preset is unknown; there are out, seed, quiet, config"),
        ("methods --preset slf", "option --preset is unknown; there are "),
    ],
)
def test_a_mistake_with_a_preset(
    argv: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(monkeypatch)
    Path("mine.yaml").write_text("preset: slf\n")
    assert refused(capsys, argv).startswith(f"autolora: {line}")


def test_another_method_lacks_the_options_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "fit digits --preset aff-trades --method at")
    assert line.startswith("autolora: method at has no option 'beta'")
    assert not Path("runs").exists()


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["presets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["aff-autolora", "aff-trades", "alf", "slf"]
    assert all(row.keys() == {"name", "summary"} and row["summary"].endswith(".") for row in rows)
    assert run(["presets", "--filter", "s*"]) == 0
    assert capsys.readouterr().out.startswith("slf  Standard linear fine-tuning of the RobustSSL protocol")
