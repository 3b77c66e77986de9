"""Mistakes in the options of every command, and in files of options: one line in a user's words, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from autolora.cli import COMMANDS, run
from autolora.errors import InputError
from autolora.experiments.config import RunConfig, config_from, read_yaml
from autolora.experiments.evaluation_config import EvaluationConfig

JARGON = (
    "<class",
    "typing.",
    "Parser key",
    "Union",
    "Namespace",
    "NoneType",
    "subtypes",
    "validate",
    "explicit argument",
)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("evaluate x --limit many", "option --limit: 'many' is not an integer (see autolora evaluate --help)"),
        ("evaluate x --limit 1.5", "option --limit: '1.5' is not an integer"),
        ("evaluate x --limit 1e308", "option --limit: '1e308' is not an integer"),
        ("evaluate x --split tset", "option --split: 'tset' is not one of train, val, test"),
        ("evaluate x --engine theirs", "option --engine: 'theirs' is not one of own, reference"),
        ("evaluate x --restarts {}", "option --restarts: '{}' is not an integer"),
        ("evaluate x --fast=yes", "option --fast takes no value, and 'yes' was given"),
        ("evaluate x --corruptions=", "option --corruptions takes no value, and '' was given"),
        ("evaluate", "no MODEL given: run folder, folder with a model"),
        ("doctor x --limit many", "option --limit: 'many' is not an integer (see autolora doctor --help)"),
        ("doctor x --norm L3", "option --norm: 'L3' is not one of Linf, L2"),
        ("doctor", "no MODEL given: "),
        ("report r --device tpu", "option --device: 'tpu' is not one of auto, cpu, cuda (see autolora report --help)"),
        ("export", "no RUN given: run folder, or folder with a model in timm's format (see autolora export --help)"),
        ("export r --private=x", "option --private takes no value, and 'x' was given"),
        ("suite list --sede 3", "option --sede is unknown; did you mean --seeds? (see autolora suite --help)"),
        ("suite run x --job 3", "option --job is unknown; did you mean --jobs? (see autolora suite --help)"),
        ("compare a b --json=3", "option --json takes no value, and '3' was given"),
        ("params x --rank", "option --rank: expected at least one argument"),
        ("quickstart --seed 1.5", "option --seed: '1.5' is not an integer"),
        ("fit x --resume=maybe", "option --resume takes no value, and 'maybe' was given"),
    ],
)
def test_a_mistake_gets_one_line(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"autolora: {line}") and err.count("\n") == 1
    assert not any(word in err for word in JARGON)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_of_any_command_answers_nonsense_in_python(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A dictionary is no value of any option but those that take options."""
    from autolora.cli import _options

    for name, option in _options()[command].items():
        if option.positional or name in ("config", "preset") or option.kind in (None, str, str | None):
            continue
        argv = [command, *(["x"] if command != "quickstart" else []), f"--{name.replace('_', '-')}={{}}"]
        if run(argv) == 2:
            said = capsys.readouterr().err
            assert said.startswith("autolora: ") and not any(word in said for word in JARGON), said


@pytest.mark.parametrize(
    ("argv", "text", "line"),
    [
        ("evaluate x", "quiet: 3\n", "config key 'quiet': 3 is not true or false"),
        ("fit x", "skip_bad_images: maybe\n", "config key 'skip_bad_images': 'maybe' is not true or false"),
        ("evaluate x", "attack: [[1]]\n", "attack=([1],) is not a list, each a text"),
        ("compare", "runs: 3\n", "option --config: mine.yaml gives one value to an option that takes a list"),
        ("compare", "runs: [3]\n", "RUNS: '3' is not a text"),
        ("fit x", "1: 2\n", "config key 1 is a value, not a name of an option"),
        ("fit x", "model: &m [*m]\n", "option --config: mine.yaml stands for more than 10,000 values"),
        ("fit x", "a: &a [x, x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n"
         for p, n in zip("abcdefgh", "bcdefghi", strict=True)), "option --config: mine.yaml stands for more"),
        ("fit x", "[" * 5000, "option --config: mine.yaml is nested too deeply for options"),
        ("fit x", "x" * 1_000_001, "option --config: mine.yaml is larger than 1,000,000 bytes"),
        ("fit x", 'model: "a\\0b"\n', "model='a\\x00b' holds a zero byte"),
        ("fit", "data: [a]\n", "no data given"),
        ("fit x", "method_options: {1: 2}\n", "method-options={1: 2} is not a list of options"),
        ("fit x", "model: !!python/object/apply:os.system ['touch ran']\n", "option --config: mine.yaml does not hold"),
    ],
    ids=lambda value: value[:25],
)  # fmt: skip
def test_a_file_of_options_is_refused_in_one_line(
    argv: str, text: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    assert run([*argv.split(), "--config", "mine.yaml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"autolora: {line}") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_file_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_bytes(b"model: \xff\xfe")
    assert run(["fit", "x", "--config", str(tmp_path / "c.yaml")]) == 2
    assert "is no text in UTF-8; give a YAML file of options" in capsys.readouterr().err


def test_options_that_repeat_may_stand_alone_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is one radius, and not its letters."""
    asked: list[EvaluationConfig] = []

    def seen(config: EvaluationConfig, **_: object) -> dict[str, object]:
        asked.append(config)
        return {}

    monkeypatch.setattr("autolora.experiments.evaluating.run_evaluation", seen)
    (tmp_path / "c.yaml").write_text("eps: 8/255\nattack: [pgd-1, pgd-2]\n")
    assert run(["evaluate", "x", "--quiet", "--config", str(tmp_path / "c.yaml")]) == 0
    (tmp_path / "c.yaml").write_text("eps: [0.03, 8/255]\n")
    assert run(["evaluate", "x", "--quiet", "--config", str(tmp_path / "c.yaml")]) == 0
    assert [config.eps for config in asked] == [("8/255",), ("0.03", "8/255")]
    assert asked[0].attack == ("pgd-1", "pgd-2")


@pytest.mark.parametrize("name", ["lr", "epochs", "norm", "method_options", "reset_momentum", "model", "eps"])
@pytest.mark.parametrize("value", [[1], {1: 2}, float("nan")])
def test_python_and_the_file_of_a_run_get_the_same_answer(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{name.replace('_', '-')}=.* is not "):
        config_from({"data": "digits", name: value})


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "[" * 3000, "1: 2\n", "data: {a\n", "\x00", "data: [1]\n", "lr: x\ndata: d\n"]
)
def test_a_damaged_file_of_a_run_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_numbers_and_truth_values_are_not() -> None:
    assert RunConfig("digits", lr=1).lr == 1
    for name in ("lr", "epochs"):
        with pytest.raises(InputError, match=f"{name}=True is not an? "):
            RunConfig("digits", **{name: True})  # type: ignore[arg-type]


def test_what_a_name_holds_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "\x1b[2Jphotos\u202e"]) == 2
    err = capsys.readouterr().err
    assert err.rstrip("\n").isprintable() and "\\x1b[2J" in err


@pytest.mark.parametrize("argv", [["fit"], ["report"], ["evaluate"], ["compare", "x"], ["export", "--format", "timm"]])
def test_a_name_that_no_system_takes(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*argv[:1], "x" * 5000, *argv[1:]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("autolora: ") and "Error" not in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["..", "../..", ".", "/", "x/..", "hf-hub:a/../../b", "wds:../../../x-{0..9}.tar", ""])
def test_no_name_leads_out_of_the_folder_of_results(name: str) -> None:
    """Of a model, and of data: folders that nobody named with ``--out``."""
    evaluation = EvaluationConfig(name).folder
    assert evaluation.name == "autoattack"
    for folder in (evaluation.parent, RunConfig(name).folder):
        assert folder.parent in (Path("evaluations"), Path("runs")) and folder.name not in ("", "..")
