"""Figures of suites: which lines there are, what they are called, and through which numbers they go."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
from finished_runs import Finished, own, small
from matplotlib.axes import Axes

from autolora.errors import InputError
from autolora.experiments.suites import figures
from autolora.experiments.suites.figures import Panel, as_svg
from autolora.experiments.suites.store import Store
from autolora.experiments.suites.table import Table, build_table

GS = [{"epoch": epoch, "gs_eq3": 0.1 * epoch, "val_robust": 0.1 + 0.01 * epoch} for epoch in (2, 4)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def finished(store: Store) -> Finished:
    return Finished(store)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """What is drawn, panel by panel."""
    panels: list[Panel] = []
    draw = figures._draw

    def note(axes: Axes, panel: Panel) -> None:
        panels.append(panel)
        draw(axes, panel)

    monkeypatch.setattr(figures, "_draw", note)
    return panels


def words(svg: str) -> list[str]:
    return [text for element in ElementTree.fromstring(svg).iter() if (text := (element.text or "").strip())]


def test_curves_over_the_epochs(finished: Finished, store: Store) -> None:
    item = small("autolora.F2")
    for cell in item.cells:
        for job in cell.jobs:
            finished(job, 0.4, rows=GS)
    table = build_table(item, store)
    svg = as_svg(table)
    assert svg == as_svg(table)
    found = words(svg)
    assert found.count("vanilla-rft") == found.count("twins-trades") == 2 and "five of CIFAR-10" in found
    assert "epoch" in found and "validation, PGD-10" in found
    assert {"2", "3", "4"} <= set(found) and not {"2.5", "3.0", "3.5"} & set(found)  # there are no half epochs
    assert table.lines[0].numbers["gradient_similarity"].mean == pytest.approx(0.3)  # the mean over the epochs
    assert table.lines[0].numbers["val_robust"].mean == pytest.approx(14)  # the highest


def test_numbers_along_an_axis_ours_and_theirs(finished: Finished, store: Store) -> None:
    item = small("autolora.T10")
    for cell in item.cells:
        for job in cell.jobs:
            finished(job, 0.4)
    found = words(as_svg(build_table(item, store)))
    assert {"autolora", "autolora, theirs", "0.2", "5.0", "alpha"} <= set(found)


def test_figures_that_cannot_be_drawn(store: Store) -> None:
    with pytest.raises(InputError, match="no finished run to draw"):
        as_svg(build_table(small("loft.F6"), store))
    with pytest.raises(InputError, match="no axis of numbers"):
        as_svg(build_table(small(), store))


def points(panel: Panel) -> dict[str, dict[float, float]]:
    """Return what the lines of a panel go through, by their names."""
    assert len({line.name for line in panel.series}) == len(panel.series)
    drawn = {line.name: zip(line.x, line.y, strict=True) for line in panel.series}
    return {name: {x: y for x, y in pairs if not math.isnan(y)} for name, pairs in drawn.items()}


def crossed(finished: Finished, store: Store, folder: Path) -> Table:
    """Two models and two methods at two rates: SA in percent is 40, 10 more for b, 20 for ft and 1 at 0.1.

    Of b with at there is the rate 0.1 alone, of a with ft the rate 0.01 alone: lines that know their methods only
    would join the one's with the other model's.
    """
    item = own(folder, {"model": ["a", "b"], "method": ["at", "ft"], "lr": [0.01, 0.1]}, ["natural"])
    for cell in item.cells:
        at = (cell.at["model"], cell.at["method"], cell.at["lr"])
        if at not in (("b", "at", 0.01), ("a", "ft", 0.1)):
            more = 0.1 * (at[0] == "b") + 0.2 * (at[1] == "ft") + 0.01 * (at[2] == 0.1)
            finished(cell.jobs[0], 0.1, natural=0.4 + more)
    return build_table(item, store)


def test_every_setting_has_a_line_of_its_own(
    finished: Finished, store: Store, tmp_path: Path, drawn: list[Panel]
) -> None:
    as_svg(crossed(finished, store, tmp_path))
    (panel,) = drawn
    expected = {"a, at": {0: 40, 1: 41}, "b, at": {1: 51}, "a, ft": {0: 60}, "b, ft": {0: 70, 1: 71}}
    found = points(panel)
    assert found.keys() == expected.keys()
    for name, line in expected.items():
        assert found[name] == pytest.approx(line)


def test_published_numbers_are_dashed_beside_their_own_setting(
    finished: Finished, store: Store, tmp_path: Path, drawn: list[Panel]
) -> None:
    published = {"columns": ["model", "lr", "natural"], "rows": [["a", 0.01, 1], ["a", 0.1, 2], ["b", 0.1, 3]]}
    item = own(tmp_path, {"model": ["a", "b"], "lr": [0.01, 0.1]}, ["natural"], published=published)
    finished(item.cells[0].jobs[0], 0.1)
    as_svg(build_table(item, store))
    (panel,) = drawn
    assert points(panel) == {"a": {0: 80}, "a, theirs": {0: 1, 1: 2}, "b, theirs": {1: 3}}
    assert [line.dashed for line in panel.series] == [False, True, True]


def test_an_axis_of_numbers_that_is_not_along_the_bottom_names_lines_too(
    finished: Finished, store: Store, tmp_path: Path, drawn: list[Panel]
) -> None:
    item = own(tmp_path, {"lr": [0.01, 0.1], "epochs": [2, 4]}, ["natural"])
    for cell in item.cells:
        finished(cell.jobs[0], 0.1)
    as_svg(build_table(item, store))
    assert points(drawn[0]).keys() == {"lr 0.01", "lr 0.1"}


def test_curves_of_several_models_have_a_name_each(
    finished: Finished, store: Store, tmp_path: Path, drawn: list[Panel]
) -> None:
    more = {"kind": "curves", "curves": ["val_robust"]}
    item = own(tmp_path, {"model": ["a", "b"], "method": ["at", "ft"]}, ["val_robust"], **more)
    for number, cell in enumerate(item.cells):
        finished(cell.jobs[0], 0.1, rows=[{"epoch": 1, "val_robust": 0.1 * number}])
    as_svg(build_table(item, store))
    (panel,) = drawn
    found = points(panel)
    assert {name: line[1] for name, line in found.items()} == pytest.approx(
        {"a, at": 0, "a, ft": 10, "b, at": 20, "b, ft": 30}
    )


def test_many_names_stand_below_their_panel(finished: Finished, store: Store, tmp_path: Path) -> None:
    """Beside the lines they would hide them; the figure is as much higher."""

    def height(models: int) -> float:
        names = list("abcdefgh"[:models])
        folder = tmp_path / str(models)
        folder.mkdir()
        item = own(folder, {"model": names, "lr": [0.01, 0.1]}, ["natural"])
        for cell in item.cells:
            if not store.path(cell.jobs[0]).exists():
                finished(cell.jobs[0], 0.1)
        svg = as_svg(build_table(item, store))
        assert set(names) <= set(words(svg))
        return float(str(ElementTree.fromstring(svg).get("height")).removesuffix("pt"))

    assert height(2) == height(6) < height(7) < height(8)


def test_a_level_of_which_nothing_is_known_leaves_a_gap(finished: Finished, store: Store, drawn: list[Panel]) -> None:
    """A line from the level before to the one behind would show numbers that nobody has."""
    item = small("autolora.T10")
    missing = item.cells[2]
    for cell in item.cells:
        for job in cell.jobs if cell is not missing else ():
            finished(job, 0.4)
    as_svg(build_table(item, store))
    (ours,) = (line for line in drawn[0].series if not line.dashed)
    assert [math.isnan(y) for y in ours.y] == [cell is missing for cell in item.cells]
