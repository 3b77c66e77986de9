"""``autolora.evaluate`` on any module, with tensors or a loader; planted defects reach the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import autolora
from autolora.attacks.autoattack.ensemble import NATURAL
from autolora.errors import InputError
from autolora.models import build_model
from autolora.threat import Norm, ThreatModel


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Linear(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def images(model: nn.Module, count: int = 30) -> tuple[Tensor, Tensor]:
    x = 0.4 + 0.2 * torch.rand(count, 3, 2, 2)
    return x, model(x).argmax(dim=1)


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_autoattack_on_a_linear_model_is_the_closed_form(classes: int) -> None:
    """Right within eps if the margin to every class exceeds eps times the one-norm of the weights' difference."""
    model = Linear(classes).eval()
    x, y = images(model)
    logits, weight = model(x).detach(), model.layer.weight.detach()
    reach = (weight[y].unsqueeze(1) - weight.unsqueeze(0)).abs().sum(-1)
    distance = ((logits.gather(1, y.unsqueeze(1)) - logits) / reach).scatter(1, y.unsqueeze(1), torch.inf).amin(dim=1)
    eps = float(distance.median()) + 1e-4
    scores = autolora.evaluate(model, x, y, eps=eps, attacks=["autoattack-fast"], progress=False)
    assert scores["natural"]["accuracy"] == 1
    assert (
        scores["autoattack-fast"]["correct"] == int((distance > eps).sum()) and scores["autoattack-fast"]["total"] == 30
    )


def test_tensors_and_a_loader_are_the_same() -> None:
    model = Linear(4).eval()
    x, y = images(model)
    loader: DataLoader[tuple[Tensor, ...]] = DataLoader(TensorDataset(x, y), batch_size=7)
    given = autolora.evaluate(model, x, y, attacks=["pgd-3"], progress=False)
    assert autolora.evaluate(model, loader, attacks=["pgd-3"], progress=False) == given


def test_flags_are_in_the_result() -> None:
    model = nn.Sequential(Linear(4), nn.Softmax(dim=1)).eval()
    x, y = images(model)
    scores = autolora.evaluate(model, x * 300 - 150, y, attacks=["pgd-1"], progress=False)
    assert {flag["name"] for flag in scores["pgd-1"]["flags"]} >= {"probabilities", "input-range"}


def test_a_robust_model_is_searched_on_its_folded_form_and_judged_on_its_own(tmp_path: Path) -> None:
    model = build_model("packaged", classes=10).eval()
    x, y = torch.rand(6, 3, 32, 32), torch.arange(6)
    y[:4] = model(x[:4]).argmax(dim=1)
    scores = autolora.evaluate(model, x, y, attacks=["pgd-5"], out=tmp_path / "e", progress=False)
    x_adv = autolora.PGD(autolora.ThreatModel("8/255"), 5, start="natural")(model, x, y)
    right = (model(x).argmax(dim=1) == y) & (model(x_adv).argmax(dim=1) == y)
    assert scores["pgd-5"]["correct"] == int(right.sum()) and (tmp_path / "e" / "verdicts.csv").is_file()


def test_verdicts_about_another_model_or_other_images_are_not_taken_for_these(tmp_path: Path) -> None:
    model, other = Linear(3), Linear(3)
    x, y = images(model)
    options: dict[str, Any] = {"attacks": ["pgd-1"], "eps": "1/255", "out": tmp_path / "kept", "progress": False}
    first = autolora.evaluate(model, x, y, **options)
    assert autolora.evaluate(model, x, y, **options) == first
    for changed in ((other, x, y), (model, x.flip(0), y), (model, x, (y + 1) % 3)):
        with pytest.raises(InputError, match="holds verdicts with"):
            autolora.evaluate(*changed, **options)


def test_verdicts_about_a_function_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    model = Linear(3)
    x, y = images(model)
    options: dict[str, Any] = {"attacks": ["pgd-1"], "out": tmp_path / "kept", "progress": False}
    assert autolora.evaluate(lambda x: model(x), x, y, **options)["natural"]["accuracy"] == 1
    with pytest.raises(InputError, match="holds verdicts with model=a function"):
        autolora.evaluate(lambda x: -model(x), x, y, **options)


def test_a_module_that_is_set_otherwise_is_another_one(tmp_path: Path) -> None:
    class Signed(Linear):
        sign = 1.0

        def forward(self, x: Tensor) -> Tensor:
            return self.sign * super().forward(x)

    model = Signed(3)
    x, y = images(model)
    options: dict[str, Any] = {"attacks": ["pgd-1"], "out": tmp_path / "kept", "progress": False}
    autolora.evaluate(model, x, y, **options)
    model.sign = -1.0
    with pytest.raises(InputError, match="holds verdicts with settings="):
        autolora.evaluate(model, x, y, **options)


def test_settings_are_values_and_functions_and_an_older_folder_tells_none(tmp_path: Path) -> None:
    def dilated(dilation: int) -> nn.Sequential:
        torch.manual_seed(3)  # the same weights every time
        return nn.Sequential(nn.Conv2d(3, 4, 3, dilation=dilation, padding=dilation), nn.Flatten(), nn.Linear(256, 3))

    x, y = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    options: dict[str, Any] = {"attacks": ["pgd-1"], "out": tmp_path / "kept", "progress": False}
    found = autolora.evaluate(dilated(1), x, y, **options)
    with pytest.raises(InputError, match="holds verdicts with settings="):
        autolora.evaluate(dilated(2), x, y, **options)
    (manifest,) = (tmp_path / "kept").rglob("manifest.json")
    content = json.loads(manifest.read_text())
    del content["settings"]
    manifest.write_text(json.dumps(content))
    assert autolora.evaluate(dilated(1), x, y, **options) == found


def test_what_cannot_be_evaluated_is_said_before_anything_is_attacked() -> None:
    model, x, y = Linear(3), torch.rand(6, 3, 2, 2), torch.arange(6) % 3
    options: dict[str, Any] = {"attacks": ["pgd-1"], "progress": False}
    cases: list[tuple[Tensor, dict[str, Any], str]] = [
        (y, {"attacks": []}, "no attack given"),
        (y, {"batch_size": 0}, "batch_size=0 is no number of images"),
        (y + 1, {}, "labels from 1 to 3 do not belong to a model of 3 classes"),
        (y - 1, {}, "labels from -1"),
        (y.float(), {}, "labels of torch.float32 are none"),
    ]
    for labels, changed, said in cases:
        with pytest.raises(InputError, match=said):
            autolora.evaluate(model, x, labels, **{**options, **changed})
    assert autolora.evaluate(model, x, y.int(), **options) == autolora.evaluate(model, x, y, **options)


def test_images_in_half_precision_are_judged_and_kept(tmp_path: Path) -> None:
    model = Linear(3).bfloat16()
    x, y = images(model.float())
    found = autolora.evaluate(
        model.bfloat16(), x.bfloat16(), y, attacks=["pgd-2"], eps="64/255", out=tmp_path / "e", progress=False
    )
    assert found["pgd-2"]["correct"] < found["natural"]["correct"]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_model_of_16_bits_is_attacked_within_eps_by_all_of_autoattack(
    kind: torch.dtype, norm: Norm, tmp_path: Path
) -> None:
    """On the grid of bf16, which is coarse beside this eps, what is found would lie outside of the ball."""
    threat, model = ThreatModel(0.15 if norm == "Linf" else 0.486, norm), Linear(3)  # half of the images
    x, y = images(model, 24)
    x = x.to(kind)
    out = tmp_path / "e"
    found = autolora.evaluate(
        model.to(kind), x, y, attacks=["autoattack"], eps=threat.eps, norm=norm, out=out, progress=False
    )
    assert 0 < found["autoattack"]["correct"] < found["natural"]["correct"] == 24
    (file,) = out.rglob("*.safetensors")
    shard = load_file(file)
    moved = (shard["fallen"].double() - x[shard["by"] > NATURAL].double()).flatten(1)
    length = moved.abs().amax(dim=1) if norm == "Linf" else moved.norm(dim=1)
    assert len(moved) == 24 - found["autoattack"]["correct"] and length.max() <= float(threat.eps) * (1 + 1e-4)


def test_one_attack_may_be_given_by_itself() -> None:
    model = Linear(3).eval()
    x, y = images(model)
    one = autolora.evaluate(model, x, y, attacks="pgd-1", progress=False)
    assert one == autolora.evaluate(model, x, y, attacks=["pgd-1"], progress=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "resnet18"}, "the model is a str"),
        ({"model": lambda x: (x, x)}, "answers 2 images with tuple"),
        ({"model": lambda x: x.mean(dim=(1, 2, 3)).long()}, r"with \(2,\); it has to give logits"),
        ({"x": np.zeros((6, 3, 2, 2), dtype=np.float32)}, "are a ndarray of other things"),
        ({"x": 3}, "images are a int"),
        ({"x": [(torch.rand(3, 2, 2), 0)] * 6}, "gives single images"),
        ({"x": torch.zeros(6, 3, 2, 2, dtype=torch.uint8)}, r"images of torch.uint8 .* x.float\(\) / 255"),
        ({"y": [0] * 6}, "labels are a list"),
        ({"y": np.zeros(6, dtype=np.int64)}, "labels are a ndarray"),
        ({"batch_size": "4"}, "batch_size='4' is no number of images"),
        ({"precision": "fp8"}, "precision='fp8' is not one of"),
        ({"seed": 2 * 10**10}, "seed=20000000000 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"out": __file__}, "is a file"),
    ],
)
def test_what_is_no_model_and_no_images_is_said_in_one_line(changed: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"model": Linear(3), "x": torch.rand(6, 3, 2, 2), "y": torch.zeros(6).long()} | changed
    with pytest.raises(InputError, match=said):
        autolora.evaluate(
            given.pop("model"), given.pop("x"), given.pop("y"), attacks=["pgd-1"], progress=False, **given
        )


def test_images_without_labels_and_labels_that_do_not_fit() -> None:
    x = torch.rand(3, 3, 2, 2)
    wrong: list[tuple[Any, ...]] = [(x,), (x, torch.zeros(2)), (x[:0], torch.zeros(0)), ([],)]
    for arguments in wrong:
        with pytest.raises(InputError, match=r"labels|images"):
            autolora.evaluate(Linear(3), *arguments, progress=False)
