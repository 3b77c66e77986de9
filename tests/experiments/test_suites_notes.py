"""What is said below a table: which runs it rests on, and what their numbers are of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from finished_runs import BY_HAND, IMAGES, Finished, attacked, own, small

from autolora.experiments.suites.grid import Plan
from autolora.experiments.suites.notes import notes
from autolora.experiments.suites.store import Store
from autolora.experiments.suites.table import build_table


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def finished(store: Store) -> Finished:
    return Finished(store)


@pytest.fixture
def by_hand(finished: Finished) -> Plan:
    """Three seeds of Table 1."""
    item = small()
    for cell in item.cells:
        for job, robust in zip(cell.jobs, BY_HAND[str(cell.at["method"])], strict=True):
            finished(job, robust)
    return item


def said(item: Plan, store: Store) -> str:
    return " ".join(notes(build_table(item, store), store))


def changed(path: Path, part: str, values: Mapping[str, Any]) -> None:
    """Change a block of a run's result."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, part: {**content.get(part, {}), **values}}))


def test_runs_from_backbones_that_were_trained_anew_are_said(by_hand: Plan, store: Store) -> None:
    """One name, two sets of weights: the seed does not make them the same on another machine."""

    def began_with(weights: Mapping[int, str | None]) -> str:
        for job in by_hand.jobs:
            changed(store.path(job) / "result.json", "model", {"started_from": weights[job.seed]})
        return said(by_hand, store)

    (backbone,) = by_hand.backbones
    nobody_knows = f"None of the 9 runs from {backbone.name} says with which of its pre-trainings it began"
    assert nobody_knows in said(by_hand, store) and "different pre-trainings" not in said(by_hand, store)
    assert "pre-trainings" not in began_with({0: "a", 6: "a", 66: "a"})
    assert f"Runs began with 2 different pre-trainings of {backbone.name}" in began_with({0: "a", 6: "b", 66: "a"})
    unknown = f"3 of 9 runs from {backbone.name} do not say with which of its pre-trainings they began"
    assert unknown in began_with({0: "a", 6: None, 66: "a"}) and "None of" not in began_with({0: "a", 6: None, 66: "a"})
    assert nobody_knows in (text := began_with({0: None, 6: None, 66: None})) and "do not say" not in text


def test_one_run_alone_began_with_one_pre_training(finished: Finished, store: Store) -> None:
    item = small(seeds=[0])
    finished(item.cells[0].jobs[0], 0.4)
    assert "pre-trainings" not in said(item, store)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {}, ""),
        ({"cpu": "AVX512"}, {"cpu": "AVX512"}, ""),
        ({"cpu": "AVX512"}, {}, ""),  # of one it is not known
        ({"cpu": "AVX512"}, {"cpu": "AVX2"}, "cpu in fp32, AVX2; cpu in fp32, AVX512"),
        (
            {"torch": "2.6", "threads": 1},
            {"torch": "2.7", "threads": 2},
            "fp32, threads: 1, torch 2.6; cpu in fp32, thr",
        ),
        ({"device": "A100", "cpu": "AVX512"}, {"device": "A100", "cpu": "AVX2"}, ""),  # it did not compute
        ({"precision": "bf16"}, {}, "cpu in bf16; cpu in fp32"),
    ],
)
def test_runs_that_were_not_computed_alike(
    first: dict[str, Any], second: dict[str, Any], told: str, finished: Finished, store: Store
) -> None:
    item = small(seeds=[0])
    for cell, environment in zip(item.cells, (first, second), strict=False):
        finished(cell.jobs[0], 0.4, environment=environment)
    text = said(item, store)
    assert told in text and ("not all computed alike" in text) == bool(told)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (0, f"AA: on 10 of the {IMAGES} test images, the same for all runs."),
        (20, f"AA: on samples of 10 of the {IMAGES} test images, not all of the same images."),
    ],
)
def test_samples_are_the_same_only_if_their_images_are(first: int, told: str, by_hand: Plan, store: Store) -> None:
    for number, job in enumerate(by_hand.jobs):
        attacked(store.path(job), [1] * 10, first=first if number == 4 else 0)
    assert told in notes(build_table(by_hand, store), store)


def test_samples_of_two_data_sets_are_said_of_each(finished: Finished, store: Store, tmp_path: Path) -> None:
    item = own(tmp_path, {"data": ["a", "b"], "method": ["at", "ft"]}, ["autoattack"])
    for cell in item.cells:
        folder = finished(cell.jobs[0], 0.4, fingerprint=str(cell.at["data"]) * 64)
        attacked(folder, [1] * (10 if cell.at["data"] == "a" else 8))
    text = said(item, store)
    assert "AA, a: on 10 of the 200 test images, the same for all runs." in text
    assert "AA, b: on 8 of the 200 test images, the same for all runs." in text


def test_what_stands_for_the_epochs_is_said(finished: Finished, store: Store) -> None:
    item = small("autolora.F2")
    rows = [{"epoch": epoch, "gs_eq3": 0.1 * epoch, "val_robust": 0.1} for epoch in (1, 2)]
    assert "of each run" not in said(item, store)
    finished(item.cells[0].jobs[0], 0.4, rows=rows)
    found = notes(build_table(item, store), store)
    assert any(
        note.startswith("gradient similarity, Eq. 3, 4, 8: of each run the mean over the epochs") for note in found
    )
    assert any(note.startswith("validation, PGD-10: of each run the highest of the epochs, which") for note in found)
