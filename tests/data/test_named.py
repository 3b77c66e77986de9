"""The names: their facts, their command, and the folder of a run on one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autolora.cli import run
from autolora.data import known_sets
from autolora.experiments.config import RunConfig

# classes, training and test images as their authors publish them; caltech256-released as its code has them
PUBLISHED = {
    "digits": ("10", "1797", ""),
    "cifar10": ("10", "50000", "10000"),
    "cifar100": ("100", "50000", "10000"),
    "stl10": ("10", "5000", "8000"),
    "dtd": ("47", "3760", "1880"),
    "dogs": ("120", "12000", "8580"),
    "cub": ("200", "5994", "5794"),
    "caltech256": ("257", "15420", "15187"),
    "caltech256-released": ("257", "38550", "3549"),
    "torchvision:MNIST": ("10", "60000", "10000"),
    "torchvision:SVHN": ("10", "73257", "26032"),
    "torchvision:Flowers102": ("102", "2040", "6149"),
    "torchvision:OxfordIIITPet": ("37", "3680", "3669"),
}


def test_the_facts_of_the_named_sets() -> None:
    rows = {row["name"]: row for row in known_sets()}
    assert {name: tuple(rows[name][key] for key in ("classes", "train", "test")) for name in PUBLISHED} == PUBLISHED
    for name, row in rows.items():
        if row["source"].startswith("http"):
            assert row["size"].endswith("iB") and row["terms"], name
        else:
            assert row["source"] in ("embedded", "torchvision", ""), name
        assert row.keys() == rows["digits"].keys() and (row["summary"] or row["terms"]), name
    assert {"hf:ORG/NAME", "FILE.csv", "FOLDER or ARCHIVE"} < rows.keys()


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "--filter", "dtd"]) == 0
    assert capsys.readouterr().out.startswith("dtd  describable textures, split 1")
    assert run(["datasets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == known_sets()


def test_the_command_tells_what_it_cannot_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "--download", "dogs", "--data-root", str(tmp_path)]) == 2
    assert f"dogs is not in {tmp_path}; get images.tar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("cub", "cub"),
        ("torchvision:SVHN", "SVHN"),
        ("hf:org/name,label=fine", "name"),
        ("wds:/data/photos-{000..012}.tar", "photos"),
        ("table.csv", "table"),
    ],
)
def test_the_folder_of_a_run(data: str, folder: str) -> None:
    assert RunConfig(data).folder == Path(f"runs/{folder}-autolora")
