"""What is read from a run folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autolora.errors import InputError
from autolora.experiments.selection import LABEL
from autolora.report.accuracies import main_scores
from autolora.report.collected import collect
from autolora.report.epochs import falls, loss_terms
from autolora.report.radii import curves

from .folders import first, write_evaluation, write_run, write_verdicts


def changed(folder: Path, change: Any) -> None:
    """Change ``result.json`` in place."""
    path = folder / "result.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_nothing_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run given"):
        collect([])
    with pytest.raises(InputError, match=r"holds no run: neither result\.json nor config\.yaml"):
        collect([tmp_path])


def test_a_run_is_reported_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    with pytest.raises(InputError, match="given twice"):
        collect([folder, tmp_path / "x" / ".." / "a"])


def test_runs_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "x" / "a"), write_run(tmp_path / "y" / "a")]
    assert [run.name for run in collect(folders)] == [str(folder) for folder in folders]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("scores"),
        lambda content: content.update(scores=[]),
        lambda content: content["scores"]["pgd-10"].update(accuracy="high"),
        lambda content: content["scores"]["pgd-10"].update(accuracy=0.9),
        lambda content: content["scores"]["pgd-10"].update(correct=61),
        lambda content: content["scores"]["pgd-10"].update(total=0, correct=0),
        lambda content: content["scores"].update(natural=None),
        lambda content: content["threat_model"].update(norm="L7"),
        lambda content: content["threat_model"].update(eps="eight"),
        lambda content: content["data"].update(classes="ant"),
    ],
)
def test_a_result_that_is_none_is_refused(tmp_path: Path, change: Any) -> None:
    folder = write_run(tmp_path / "a")
    changed(folder, change)
    with pytest.raises(InputError):
        collect([folder])


def test_damaged_files_are_refused_or_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    (folder / "evaluation/verdicts.csv").write_text("index,label\n")
    broken = write_evaluation(folder, "broken", {"natural": 48, "autoattack": 24})
    (broken / "evaluation.json").write_text("{")
    (run,) = collect([folder])
    assert len(run.unread) == 3 and run.history == () and run.verdicts is None and run.evaluations == ()
    (folder / "result.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        collect([folder])


@pytest.mark.parametrize("text", ["a: [", "just text", "- a"])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError):
        collect([tmp_path])


def test_a_configuration_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"!!python/object/apply:os.mkdir ['{tmp_path}/made']")
    with pytest.raises(InputError):
        collect([tmp_path])
    assert not (tmp_path / "made").exists()


def test_a_class_that_there_is_not_is_no_verdict(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    path = folder / "evaluation/verdicts.csv"
    path.write_text(path.read_text().replace("\n59,2,", "\n59,3,"))
    (run,) = collect([folder])
    assert run.verdicts is None and "not among the 3" in run.unread[0]


def test_of_one_attack_the_most_images_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_evaluation(folder, "some", {"natural": 9, "pgd-10": 3}, total=12, label="pgd-10")
    write_evaluation(folder, "elsewhere", {"natural": 48, "pgd-50": 20}, threat="Linf 4/255", label="pgd-50")
    (run,) = collect([folder])
    assert [(item.attack, item.score.total) for item in main_scores(run)] == [("natural", 60), ("pgd-10", 60)]
    assert [attack for attack, _ in run.judgements] == ["natural", "pgd-10"]
    assert run.judgements[1][1] is run.verdicts


def test_training_images_are_no_test_images(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    about = {"split": "train"}
    write_evaluation(folder, "train", {"natural": 48, "autoattack": 44}, circumstances=about)
    (run,) = collect([folder])
    assert [item.attack for item in main_scores(run)] == ["natural", "pgd-10"]
    assert [attack for attack, _ in run.judgements] == ["natural", "pgd-10"]


def test_other_images_are_not_the_runs_and_are_said_to_be_left_out(tmp_path: Path) -> None:
    """An evaluation of a run on other data lies in the run's folder by default, and would be its headline."""
    folder = write_run(tmp_path / "a", config={"image_size": 32})
    about = {"model": "m", "split": "test", "classes": []}
    cases: dict[str, dict[str, Any]] = {"other": {"data": "6" * 64}, "larger": {"data": "5" * 64, "image_size": 64}}
    for name, changes in cases.items():
        write_evaluation(folder, name, {"natural": 60, "autoattack": 58}, circumstances={**about, **changes})
    write_evaluation(folder, "own", {"natural": 48, "pgd-20": 20})
    (run,) = collect([folder])
    assert {item.attack for item in run.measured} == {"natural", "pgd-10", "pgd-20"}
    assert [text.split("evaluation/")[1] for text in sorted(run.unread)] == [
        "larger shows images at 64 pixels, and the run has them at 32, and is left out",
        "other is not on the images of the run, and is left out",
    ]


def test_a_test_split_that_was_given_is_no_matter_of_the_seed(tmp_path: Path) -> None:
    """A table with train and val alone has its val as test images, and says that there is no test split."""
    notes = ["there is no test split: val is the test split, and validation images are taken from train"]
    block = json.loads((write_run(tmp_path / "x") / "result.json").read_text())["data"] | {"notes": notes}
    folders = [
        write_run(tmp_path / f"{split}{seed}", config={"seed": seed}, data={**block, "test_split": split})
        for split in ("given", "held out")
        for seed in (0, 1)
    ]
    given, other, held, drawn = (run.images_key for run in collect(folders))
    assert given == other and held != drawn


def test_a_run_that_was_selected_on_test_images_says_so(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "a")
    block = json.loads((plain / "result.json").read_text())["data"]
    folder = write_run(tmp_path / "b", data={**block, "notes": [f"data: {LABEL}"]})  # of before it was recorded
    assert [run.selected_on_test for run in collect([plain, folder])] == [False, True]


def test_a_curve_takes_radii_from_several_evaluations(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    for eps, right in (("4/255", 40), ("8/255", 25), ("2/255", 44)):
        write_evaluation(folder, eps[0], {"natural": 48, "pgd-20": right}, threat=f"Linf {eps}", label="pgd-20")
    write_evaluation(folder, "few", {"natural": 9, "pgd-20": 3}, total=12, threat="Linf 16/255", label="pgd-20")
    (run,) = collect([folder])
    (curve,) = curves(run).values()
    assert [(round(255 * radius), score.correct) for radius, score in curve.items()] == [
        (0, 48),
        (2, 44),
        (4, 40),
        (8, 25),
    ]


def test_a_curve_is_on_the_same_images_not_on_as_many(tmp_path: Path) -> None:
    """Two samples of 12, each with 9 right as they are: the first two radii are of one, the last of the other."""
    folder = write_run(tmp_path / "a")
    for eps, right, begin in (("2/255", 8, 0), ("4/255", 7, 0), ("16/255", 6, 24)):
        counts = {"natural": 9, "pgd-20": right}
        place = write_evaluation(folder, f"e{eps[0]}", counts, total=12, threat=f"Linf {eps}", label="pgd-20")
        columns = {attack: first(count, 12) for attack, count in counts.items()}
        write_verdicts(place, columns, np.arange(begin, begin + 12), 3)
    (run,) = collect([folder])
    (curve,) = curves(run).values()
    assert [round(255 * radius) for radius in curve] == [0, 2, 4]
    (folder / "evaluation/e4/verdicts.csv").unlink()  # now nobody knows which images those were
    (run,) = collect([folder])
    assert curves(run) == {}


def test_a_curve_is_on_test_images(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    for split in ("val", "train"):
        for eps in ("4/255", "8/255"):
            about = {"model": "m", "data": "5" * 64, "split": split}
            counts = {"natural": 18, "pgd-20": 9}
            write_evaluation(
                folder, split + eps[0], counts, total=24, threat=f"Linf {eps}", label="pgd-20", circumstances=about
            )
    (run,) = collect([folder])
    assert len(run.evaluations) == 4 and curves(run) == {}


def test_where_the_rate_fell() -> None:
    rates = [0.01, 0.01, 0.005, 0.004, 0.002, 0.0005]
    assert falls([{"epoch": epoch, "lr": lr} for epoch, lr in enumerate(rates, start=1)]) == [3, 5, 6]
    assert falls([]) == [] and falls([{"epoch": 1}, {"epoch": 2}]) == []


def test_loss_terms_are_what_nothing_else_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    row = {"epoch": 1, "lr": 0.1, "lambda1": 1, "mine": 2.0, "gs_eq8": 0.1, "gs_eq8_se": 0.1, "val_robust": 0.3}
    (folder / "metrics.jsonl").write_text(json.dumps({**row, "text": "no number", "nan": None, "seconds": 3}) + "\n")
    (run,) = collect([folder])
    assert loss_terms(run) == ["mine"]
