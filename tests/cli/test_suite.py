"""``autolora suite``: what it prints, what it refuses in one line, and a real run of a suite of one's own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autolora.cli import run
from autolora.experiments.export import export
from autolora.experiments.selection import LABEL
from autolora.methods import METHODS

SUITE: dict[str, Any] = {
    "id": "two-rates",
    "paper": "ours",
    "title": "two rates on digits",
    "grid": {"method": ["at", "ft"]},
    "metrics": ["natural", "pgd-10"],
    "published": {"columns": ["method", "natural", "pgd-10"], "rows": [["at", 90, 80.5], ["ft", 95, 10]]},
    "claims": [
        {"says": "attacks help", "metrics": ["pgd-10"], "higher": {"method": "at"}, "than": {"method": "ft"}},
    ],
    "settings": {
        "small": {
            "about": "57 digits",
            "seeds": [0],
            "options": {
                "data": "digits",
                "model": "resnet20_cifar",
                "weights": "none",
                "image_size": 8,
                "epochs": 1,
                "label_fraction": 0.05,
                "batch_size": 32,
                "attack": "pgd-1",
            },
            "levels": {"method": {"at": {"method": "at"}, "ft": {"method": "ft", "schedule": "constant"}}},
        }
    },
}

Printed = Callable[..., str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run ``autolora suite`` and return what it prints."""

    def call(*argv: str) -> str:
        assert run(["suite", *argv]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(SUITE))
    return str(path)


def test_list(printed: Printed) -> None:
    rows = json.loads(printed("list", "--json"))
    assert len(rows) == 20 and all({"id", "paper", "title", "runs"} <= set(row) for row in rows)
    runs = {row["id"]: row["runs"] for row in rows}
    assert (runs["autolora.T1"], runs["autolora.T5"], runs["loft.T1"]) == (54, 0, 12)
    assert {row["paper"] for row in rows} == {"AutoLoRa", "LoFT"}
    assert all(row["id"] in printed("list") for row in rows[:2])


def test_show(printed: Printed, tmp_path: Path) -> None:
    text = printed("show", "autolora.T6", "--runs", str(tmp_path))
    assert text.count("3 missing") == 9 and "27 runs, 27 to do; 1 backbones, 1 to do" in text
    for said in ("24.07", "range over lr", "this scale cannot tell: whether 0.03", "habit idle-branch", "autoattack"):
        assert said in text
    released = printed("show", "autolora.T1", "--scale", "paper", "--protocol", "released", "--seeds", "0")
    assert "rounded-eps: radius 0.0314" in released and "18 runs, 18 to do" in released


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_every_suite_can_be_shown(printed: Printed, tmp_path: Path, scale: str) -> None:
    ids = [row["id"] for row in json.loads(printed("list", "--json"))]
    text = printed("show", *ids, "--scale", scale, "--runs", str(tmp_path))
    assert all(name in text for name in ids) and "not known" not in text


def test_a_suite_of_ones_own_is_shown(printed: Printed, own: str, tmp_path: Path) -> None:
    assert "passes of one image" in printed("show", own, "--runs", str(tmp_path))
    changed = yaml.safe_load(Path(own).read_text())
    changed["settings"]["small"]["options"] |= {"data": "photos/", "epochs": None}
    Path(own).write_text(yaml.safe_dump(changed))
    assert "cost is not known" in printed("show", own, "--runs", str(tmp_path))


def test_a_method_that_does_not_say_its_passes_is_shown_without_a_cost(
    printed: Printed, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "passes of one image" in printed("show", own, "--runs", str(tmp_path))
    monkeypatch.setattr(METHODS["at"], "passes_of_loss", None)  # as a method that is registered without it has it
    text = printed("show", own, "--runs", str(tmp_path))
    assert "their cost is not known: " in text and "or a method how many passes" in text
    assert "passes of one image" not in text and "2 runs, 2 to do" in text


def test_a_habit_that_needs_the_share_of_validation_says_so(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["suite", "show", own, "--habit", "select-on-test"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "val_fraction is left open; set it in the options" in err and err.count("\n") == 1


def test_dry_run_prints_what_is_missing_backbones_first(printed: Printed, photos: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    words = ["run", "autolora.T8", "--data", str(photos), "--seeds", "0", "--dry-run", "--runs", str(store)]
    lines = [shlex.split(line) for line in printed(*words).splitlines()]
    assert [line[:3] for line in lines] == [["autolora", "fit", str(photos)]] * (5 + 15)
    folders = [line[line.index("--out") + 1] for line in lines]
    starts = [line[line.index("--model") + 1] for line in lines]
    assert len(set(folders)) == 20 and set(starts[5:]) == set(folders[:5]) and starts[:5] == ["resnet20_cifar"] * 5
    assert not store.exists()


def test_several_suites_share_their_runs(printed: Printed, photos: Path, tmp_path: Path) -> None:
    words = ["--data", str(photos), "--dry-run", "--runs", str(tmp_path), "--skip-evaluation"]
    assert len(printed("run", "autolora.T1", "autolora.T8", "autolora.F1", *words).splitlines()) == 5 + 45
    both = printed("run", "autolora.T1", "autolora.T7", "--data", str(photos), "--dry-run", "--runs", str(tmp_path))
    assert both.count(" evaluate ") == 18 and both.count(" --attack autoattack ") == 18


def test_selecting_on_test_trains_on_data_that_say_so(printed: Printed, photos: Path, tmp_path: Path) -> None:
    words = ["run", "autolora.T9", "--data", str(photos), "--dry-run", "--runs", str(tmp_path), "--seeds", "0"]
    fits = printed(*words, "--habit", "select-on-test").splitlines()[1:]
    assert len(fits) == 2 and all("-validated-on-test-" in line and "--val-fraction" not in line for line in fits)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no ACTION given: list, show, run, table"),
        (["sow"], "action 'sow' is unknown; did you mean show?"),
        (["show"], "no ID given"),
        (["list", "loft.T1"], "`autolora suite list` takes no 'loft.T1'"),
        (["show", "loft.T9"], "suite 'loft.T9' is unknown; did you mean loft.T"),
        (["show", "loft.T1", "--jobs", "2"], "--jobs belongs to `autolora suite run`, not to show"),
        (["show", "loft.T1", "--scale", "big"], "loft.T1 has no scale 'big'; there are paper, small"),
        (["show", "loft.T1", "--seeds", "0;6"], "--seeds 0;6 is no list of whole numbers"),
        (["show", "none.yaml"], "there is no such file"),
        (["run", "autolora.T1"], "photos has to be provided"),
        (["run", "autolora.T1", "--data", "nowhere.zip"], "photos=nowhere.zip: there is no such file or folder"),
        (["run", "loft.T1", "--jobs", "0"], "--jobs 0 is not a whole number of 1 or more"),
        (["run", "loft.T1", "--compile", "atack"], "--compile atack is unknown; did you mean attack?"),
        (["table", "loft.T1", "--compile", "on"], "--compile belongs to `autolora suite run`, not to table"),
        (["run", "loft.T1", "--executor", "lokal"], "executor 'lokal' is unknown; did you mean local?"),
        (["run", "loft.T1", "--protocol", "released"], "the paper has no released code to follow"),
        (["table"], "give the ID of a suite, or --all"),
        (["table", "loft.T1", "--all"], "give the ID of a suite, or --all"),
        (["table", "loft.T1", "--out", "x.pdf"], "--out x.pdf has '.pdf'; it is written as .csv, .json"),
        (["table", "loft.T1", "--format", "tex"], "format 'tex' is unknown; did you mean text?"),
        (["table", "--all", "--runs", "nowhere"], "nowhere is no folder"),
        (["table", "loft.F6", "--out", "x.svg", "--runs", "nowhere"], "no finished run to draw"),
        (["table", "loft.T4", "--beside", "select-on-test"], "loft.T4 holds no numbers of runs"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["suite", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_a_table_without_runs_shows_what_is_published(printed: Printed, tmp_path: Path) -> None:
    out = tmp_path / "t4.md"
    printed("table", "loft.T4", "--scale", "paper", "--out", str(out), "--runs", str(tmp_path))
    assert "| 8 | 2.50 | 2.50 | +0.00 |" in out.read_text()
    text = printed("table", "autolora.T1", "--runs", str(tmp_path), "--format", "csv")
    assert "54.27" in text and text.startswith("model,data,method,metric,ours,")


@pytest.mark.slow
def test_a_suite_is_run_and_read(
    own: str, tmp_path: Path, printed: Printed, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two real runs at once; then one folder is what a kill leaves, and is not read."""
    runs = ["--runs", str(tmp_path / "runs")]
    assert "0 runs are finished, 2 to do" in printed("run", own, "--jobs", "2", *runs)
    assert printed("run", own, "--dry-run", *runs) == "\n"
    rows = json.loads(printed("table", own, "--json", *runs))["rows"]
    scores = {row["at"]["method"]: row["metrics"]["natural"] for row in rows}
    for folder in (tmp_path / "runs").glob("*-digits-seed0-*"):
        result = json.loads((folder / "result.json").read_text())
        found = scores[result["config"]["method"]]
        assert found["ours"]["mean"] == pytest.approx(100 * result["scores"]["natural"]["accuracy"])
    assert scores["at"]["theirs"] == 90
    assert len(json.loads(printed("table", "--all", "--json", *runs))) == 2

    (killed,) = (tmp_path / "runs").glob("at-*")
    (killed / "result.json").unlink()
    assert "1 interrupted" in printed("table", own, *runs)
    (again,) = printed("run", own, "--dry-run", *runs).splitlines()
    assert again.startswith("autolora fit digits ") and again.endswith(f" --out {killed} --resume")


@pytest.mark.slow
def test_a_run_that_fails_is_left_alone(own: str, tmp_path: Path, printed: Printed, capsys: Any) -> None:
    content = json.loads(json.dumps({**SUITE, "grid": {"method": ["ft"]}, "claims": []}))
    content["settings"]["small"]["options"]["model"] = "resnet20_cifr"
    Path(own).write_text(yaml.safe_dump(content))
    runs = ["--runs", str(tmp_path / "runs")]
    assert run(["suite", "run", own, *runs]) == 1
    assert "1 of 1 runs did not finish, the first: failed: autolora: model 'resnet20_cifr'" in capsys.readouterr().err
    assert "1 failed" in printed("table", own, *runs)
    assert run(["suite", "run", own, *runs]) == 1
    assert "left alone: ft-digits-seed0-" in capsys.readouterr().out
    assert "fit" in printed("run", own, "--dry-run", "--retry-failed", *runs)


@pytest.mark.slow
def test_a_run_under_the_released_protocol_says_what_it_was_selected_on(
    photos: Path, tmp_path: Path, printed: Printed
) -> None:
    settings = json.loads(json.dumps(SUITE["settings"]))
    settings["small"]["options"] |= {"data": str(photos), "label_fraction": 1.0, "val_fraction": 0.25}
    content = {**SUITE, "grid": {"method": ["ft"]}, "settings": settings, "claims": []}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    words = [str(tmp_path / "own.yaml"), "--habit", "select-on-test", "--runs", str(tmp_path / "runs")]
    printed("run", *words)
    (path,) = (tmp_path / "runs").glob("ft-*/result.json")
    result = json.loads(path.read_text())
    assert any(LABEL in note for note in result["data"]["notes"])
    assert (result["data"]["train"], result["data"]["val"], result["data"]["test"]) == (27, 18, 18)
    assert json.loads(printed("table", "--all", "--json", "--runs", str(tmp_path / "runs")))[0]["selected_on"] == "test"
    assert result["selected_on"] == "test"
    assert "they are the test images too" in (tmp_path / "runs/.suite" / f"{path.parent.name}.log").read_text()
    card = (export(path.parent, "timm", tmp_path / "exported") / "README.md").read_text()
    assert "selected on the test images themselves" in card and "were not used" not in card
    assert "selected for its natural accuracy, and measured under Linf 8/255" in card  # it is natural fine-tuning
    assert "Protocol: select-on-test" in printed("table", *words)
