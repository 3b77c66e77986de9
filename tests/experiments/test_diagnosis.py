"""Planted defects of model, radius and data, each caught by its name, and a healthy patient without a finding."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from autolora.data import Splits, load_splits
from autolora.errors import InputError
from autolora.experiments.diagnosis import Diagnosis, Finding, Status
from autolora.experiments.diagnosis.examination import Circumstances, examine

COLOURS = torch.tensor([(60, 60, 190), (60, 190, 60), (190, 60, 60)]) / 255  # of the classes blue, green, red


class Painter(nn.Module):
    """Tell blue, green and red apart, in images of [0, 1]; what comes before and after may carry a defect."""

    def __init__(self, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(20 * COLOURS)
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.before(x).mean(dim=(2, 3))))


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.fixture(scope="module")
def splits(photos: Path) -> Splits:
    return load_splits(photos, image_size=12, progress=False)


@pytest.fixture
def altered(photos: Path, tmp_path: Path) -> Callable[..., Splits]:
    """Copy images of the data over others, and load what comes of it."""

    def load(**_: Any) -> Splits:
        return load_splits(root, image_size=12, progress=False)

    root = Path(shutil.copytree(photos, tmp_path / "photos"))
    load.root = root  # type: ignore[attr-defined]
    return load


def statuses(findings: list[Finding]) -> dict[str, str]:
    """Return what is not ok."""
    return {finding.name: finding.status for finding in findings if finding.status != "ok"}


def of(findings: list[Finding], name: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def test_a_healthy_patient(splits: Splits) -> None:
    findings = examine(Painter().eval(), splits, Circumstances())
    assert statuses(findings) == {}
    assert all(finding.found and not finding.advice for finding in findings)
    assert len({finding.name for finding in findings}) == len(findings) == 16
    assert of(findings, "accuracy").details["accuracy"] == 1.0
    assert Diagnosis("m", "d", "t", "i", findings).verdict.startswith("Nothing that makes a result worthless")


def without_blue(logits: Tensor) -> Tensor:
    return logits.where(logits.argmax(dim=1, keepdim=True) > 0, torch.nan)


DEFECTS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "softmax": (lambda: Painter(after=nn.Softmax(dim=1)).eval(), "probabilities"),
    "nan": (lambda: Painter(after=Layer(without_blue)).eval(), "not-finite"),
    "dropout": (lambda: Painter(before=nn.Dropout(0.3)).train(), "non-deterministic"),
    "rounding": (lambda: Painter(before=Layer(lambda x: (255 * x).round() / 255)).eval(), "zero-gradients"),
    "train mode": (lambda: Painter(after=nn.BatchNorm1d(3)).train(), "batch-dependent"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_of_the_model_is_a_problem_of_its_name(splits: Splits, defect: str) -> None:
    make, name = DEFECTS[defect]
    torch.manual_seed(0)
    findings = examine(make(), splits, Circumstances())
    finding = of(findings, name)
    assert finding.status == "problem" and finding.advice
    assert finding.details["count"] >= 1
    others = {"accuracy", "zero-gradients"} if name == "not-finite" else set()  # of the class that is lost
    assert set(statuses(findings)) <= {name} | others


def test_images_outside_the_pixel_range(splits: Splits) -> None:
    class Stretched:
        """Pixels of a data set that does not keep to 0..255."""

        def centre_crops(self, rows: Sequence[int]) -> Tensor:
            return 2 * splits.test.pixels.centre_crops(rows).float() - 60

    test = replace(splits.test, pixels=cast(Any, Stretched()))
    findings = examine(Painter().eval(), replace(splits, test=test), Circumstances())
    finding = of(findings, "input-range")
    assert finding.status == "problem" and finding.advice and finding.details["count"] == 18


def test_outputs_in_another_order(splits: Splits) -> None:
    model = Painter(after=Layer(lambda logits: logits[:, [2, 0, 1]])).eval()
    findings = examine(model, splits, Circumstances(split="train"))
    finding = of(findings, "label-order")
    assert finding.status == "problem"
    assert finding.details["outputs"] == {"blue": 1, "green": 2, "red": 0}
    assert "blue is output 1" in finding.found and "green is output 2" in finding.found
    assert of(findings, "accuracy").status == "problem"  # 0 of 36 are right as it is
    scale = of(findings, "input-scale")  # judged in the right order
    assert scale.status == "ok" and scale.details["given"]["accuracy"] == 1.0


def test_a_network_that_wants_another_scale(splits: Splits) -> None:
    of_bytes = Layer(lambda x: ((x - 60) / 130).clamp(0, 1))  # all black in [0, 1]
    finding = of(examine(Painter(before=of_bytes).eval(), splits, Circumstances(split="train")), "input-scale")
    assert finding.status == "problem" and finding.advice
    assert "31.0% as it is, 100.0% where the network is shown images in 0..255, on 29 images" in finding.found


def test_other_classes_than_the_data(splits: Splits) -> None:
    model = Painter(after=Layer(lambda logits: torch.cat([logits, logits], dim=1))).eval()
    findings = examine(model, splits, Circumstances())
    finding = of(findings, "classes")
    assert finding.status == "problem"
    assert "6 classes apart, and the data have 3 (blue, green, red)" in finding.found
    names = {finding.name for finding in findings}
    assert not names & {"accuracy", "label-order", "input-scale"} and "duplicates" in names


def test_classes_of_other_names(splits: Splits) -> None:
    named = ("cat", "dog", "red")
    finding = of(examine(Painter().eval(), splits, Circumstances(), named=named), "classes")
    assert finding.status == "problem" and "cat, dog, red" in finding.found
    known = of(examine(Painter().eval(), splits, Circumstances(), named=splits.classes), "classes")
    assert known.status == "ok" and "of the same names" in known.found


def test_a_model_that_knows_nothing(splits: Splits) -> None:
    constant = Painter(after=Layer(lambda logits: 0 * logits + torch.eye(3)[1])).eval()
    finding = of(examine(constant, splits, Circumstances()), "accuracy")
    assert finding.status == "problem"
    assert "33.3% of 18 images" in finding.found and "the same class" in finding.found


def test_a_model_that_takes_no_such_images(splits: Splits) -> None:
    class Picky(Painter):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 32:
                raise RuntimeError("expected 32x32")
            return super().forward(x)

    findings = examine(Picky().eval(), splits, Circumstances())
    assert statuses(findings) == {"forward": "problem"}
    assert "12x12" in of(findings, "forward").found and "--image-size" in of(findings, "forward").advice


RADII: list[tuple[Any, str, str, str]] = [
    ("8/255", "Linf", "ok", "8 grey levels"),
    ("8", "Linf", "problem", "--eps 8/255"),
    (0.5, "Linf", "problem", "--norm L2 --eps 0.5"),
    ("0.25/255", "Linf", "note", "below one grey level"),
    ("0.031", "Linf", "note", "another threat model than 8/255"),
    ("64/255", "Linf", "note", "larger than the customary"),
    (0, "Linf", "note", "robust accuracy is natural accuracy"),
    (8, "L2", "problem", "made uniform"),
    ("128", "L2", "problem", "--eps 128/255"),
    ("128/255", "L2", "ok", "L2 128/255"),
    ("8/255", "L2", "note", "next to no adversary"),
]


@pytest.mark.parametrize(("eps", "norm", "status", "said"), RADII)
def test_the_unit_of_eps(splits: Splits, eps: Any, norm: Any, status: str, said: str) -> None:
    finding = of(examine(Painter().eval(), splits, Circumstances(eps=eps, norm=norm)), "eps")
    assert finding.status == status and said in f"{finding.found} {finding.advice}"


@pytest.mark.parametrize("eps", ["-1/255", "eight", "nan"])
def test_what_is_no_radius_is_refused(splits: Splits, eps: str) -> None:
    with pytest.raises(InputError, match="eps="):
        examine(Painter().eval(), splits, Circumstances(eps=eps))


def test_a_radius_that_reaches_the_next_class(splits: Splits) -> None:
    finding = of(examine(Painter().eval(), splits, Circumstances(eps="127/255")), "separation")
    assert finding.status == "problem" and finding.details["inseparable"] == 18
    assert "18 of 18 images have another class within 2 eps" in finding.found


def copy(root: Path, original: str, to: str) -> None:
    shutil.copyfile(root / original, root / to)


def test_a_test_image_that_was_trained_on(altered: Any) -> None:
    copy(altered.root, "train/red/03.png", "test/red/01.png")
    findings = examine(Painter().eval(), altered(), Circumstances())
    assert statuses(findings) == {"duplicates": "problem"}
    finding = of(findings, "duplicates")
    assert "1 of 18 test images are in train or val too (1 exactly)" in finding.found
    assert "'test/red/01.png' and 'train/red/03.png' (1)" in finding.found
    (pair,) = finding.details["pairs"]
    assert Path(pair["name"]) == altered.root / "test/red/01.png"
    assert Path(pair["other_name"]) == altered.root / "train/red/03.png"
    assert pair["exact"]


def test_a_picture_with_two_labels(altered: Any) -> None:
    copy(altered.root, "train/red/03.png", "train/blue/07.png")
    findings = examine(Painter().eval(), altered(), Circumstances())
    finding = of(findings, "label-conflicts")
    assert finding.status == "problem" and "train/red/03.png" in finding.found and "train/blue/07.png" in finding.found


def test_an_image_that_shows_nothing(altered: Any) -> None:
    Image.fromarray(np.full((12, 12, 3), 80, dtype=np.uint8)).save(altered.root / "train/green/02.png")
    findings = examine(Painter().eval(), altered(), Circumstances())
    assert statuses(findings) == {"blank-images": "note"}
    assert "'train/green/02.png'" in of(findings, "blank-images").found


def test_a_rare_class(altered: Any) -> None:
    rng = np.random.default_rng(5)
    for index in range(40):
        noisy = np.clip(rng.normal(COLOURS[0].numpy() * 255, 40, (12, 12, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(altered.root / f"train/blue/more{index}.png")
    for index in range(4, 12):
        (altered.root / f"train/red/{index:02d}.png").unlink()
    finding = of(examine(Painter().eval(), altered(), Circumstances()), "class-balance")
    assert finding.status == "note" and "'red' has" in finding.found and "'green' has" not in finding.found


def test_problems_come_before_notes_in_the_verdict() -> None:
    checks: dict[str, Status] = {"a": "ok", "b": "problem", "c": "note", "d": "problem"}
    diagnosis = Diagnosis("m", "d", "t", "i", [Finding(name, status, "x") for name, status in checks.items()])
    assert diagnosis.verdict.startswith("2 problems make a result worthless")
    assert diagnosis.verdict.endswith("b, d; worth a look: c.")
    assert diagnosis.as_json()["problems"] == ["b", "d"]
