"""Which of several later evaluations of a run count."""

from __future__ import annotations

from pathlib import Path

import pytest
from finished_runs import Finished, attacked

from autolora.errors import InputError
from autolora.experiments.judged import read_judged
from autolora.experiments.suites.grid import Job
from autolora.experiments.suites.store import Store

JOB = Job({"seed": 0, "data": "photos", "method": "at"}, title="run")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run on ten test images."""
    return Finished(Store(tmp_path))(JOB, 0.5, images=10)


@pytest.mark.parametrize("names", [("a100", "autoattack"), ("autoattack", "again")])
def test_of_several_samples_the_largest_counts(names: tuple[str, str], folder: Path) -> None:
    """Whatever their folders are called: 1 of 2 images, and 1 of 4."""
    attacked(folder, [1, 0], names[0])
    attacked(folder, [1, 0, 0, 0], names[1])
    sample = read_judged(folder).samples["autoattack"]
    assert (sample.score["correct"], sample.score["total"], len(sample.images)) == (1, 4, 4)
    assert sample.right.tolist() == [True, False, False, False]


def test_of_samples_of_one_size_the_first_by_name_counts(folder: Path) -> None:
    attacked(folder, [1, 0], "b")
    attacked(folder, [1, 1], "a")
    assert read_judged(folder).samples["autoattack"].score["correct"] == 2


def attacked_whole(folder: Path, named: str) -> None:
    """Write an evaluation of all test images, on every other of which the model is right."""
    images = [line.split(",")[:2] for line in (folder / "evaluation" / "verdicts.csv").read_text().splitlines()[1:]]
    attacked(folder, [number % 2 for number in range(len(images))], named)
    rows = [f"{index},{label},0,{number % 2}" for number, (index, label) in enumerate(images)]
    verdicts = folder / "evaluation" / named / "verdicts.csv"
    verdicts.write_text("\n".join(["index,label,predicted,autoattack", *rows]) + "\n")


@pytest.mark.parametrize("name", ["a", "z"])
def test_all_test_images_count_before_any_sample(name: str, folder: Path) -> None:
    attacked(folder, [1, 0], "m")
    attacked_whole(folder, name)
    run = read_judged(folder)
    score = run.scores["autoattack"]
    assert (score["correct"], score["total"], int(run.right["autoattack"].sum())) == (5, 10, 5)


def test_all_test_images_twice_are_refused(folder: Path) -> None:
    attacked_whole(folder, "a")
    attacked_whole(folder, "b")
    with pytest.raises(InputError, match="has autoattack twice"):
        read_judged(folder)
