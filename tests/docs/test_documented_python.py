"""Every Python block in README and docs runs as printed, on tiny data in place of what a page assumes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import autolora
from autolora import METHODS
from autolora.data import load_splits, loader

from .blocks import Block, blocks

TESTED_ELSEWHERE = {"docs/export.md"}  # by tests/experiments/test_export*.py, against models that were exported there
PARTS = ("docs/write-a-method.md",)  # define something rather than do something


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A folder with photos and with the runs that pages speak of, at the least cost."""
    root = tmp_path_factory.mktemp("workplace")
    (root / "photos").symlink_to(photos)
    runs = root / "runs"
    small: dict[str, Any] = {"epochs": 1, "progress": False}
    autolora.finetune(photos, method="ft", out=runs / "photos", **small)
    shutil.copytree(runs / "photos", runs / "photos-autolora")
    autolora.finetune(ten_classes(root / "ten"), method="loft", attack="pgd-1", out=runs / "digits", **small)
    shutil.copytree(runs / "digits", runs / "digits-eps4")
    return root


def ten_classes(root: Path) -> Path:
    """Write as few images as a run can have of as many classes as there are digits."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 1)):
        for digit in range(10):
            (root / split / str(digit)).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / str(digit) / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def assumed(workplace: Path) -> dict[str, Any]:
    """What a page may take for granted: a model, images, labels, batches."""
    model = autolora.load(workplace / "runs/photos")
    test = load_splits(str(workplace / "photos"), image_size=32, progress=False).test.subset(range(3))
    x, _ = test.__getitems__(range(3))
    with torch.no_grad():
        wrong = (model(x).argmax(dim=1) + 1) % 3  # an attack has nothing to search for on an image that is wrong
    return {"model": model, "x": x, "y": wrong, "batches": loader(test, 3)}


@pytest.fixture(autouse=True)
def short(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let runs be short, each in a folder of its own, and leave the methods as they were."""
    monkeypatch.chdir(workplace)
    full, small = autolora.finetune, {"epochs": 1, "out": tmp_path / "run", "progress": False}
    monkeypatch.setattr(autolora, "finetune", lambda data, **given: full(data, **{**small, **given}))
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.parametrize("block", [each for each in blocks("python") if each.page not in TESTED_ELSEWHERE], ids=str)
def test_a_block_runs_as_printed(block: Block, assumed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if "import peft" in block.code:
        pytest.importorskip("peft")
    torch.manual_seed(0)
    printed = ModuleType("printed")
    monkeypatch.setitem(sys.modules, "printed", printed)  # where a dataclass looks for what it is made of
    vars(printed).update(assumed)
    before = set(vars(printed))
    exec(compile(block.code, str(block), "exec"), vars(printed))
    assert set(vars(printed)) - before - {"__builtins__"}, f"{block} does nothing"


def test_no_page_is_left_out() -> None:
    pages = {block.page for block in blocks("python")}
    assert pages >= {*TESTED_ELSEWHERE, *PARTS, "README.md", "docs/index.md"}
