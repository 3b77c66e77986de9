"""Images that the model enlarges: the attack acts on the small ones, and whatever carries the model carries it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from autolora.attacks import PGD
from autolora.errors import InputError
from autolora.experiments.searching import form
from autolora.experiments.subject import model_fingerprint
from autolora.models import LowRankBranch, RobustModel, Upsampling, build_model, evaluating
from autolora.models.bundle import build_classifier, load_bundle, save_bundle
from autolora.models.folding import Folding
from autolora.models.lowrank import Pairs
from autolora.threat import ThreatModel

MODES: tuple[Literal["nearest", "bilinear"], ...] = ("nearest", "bilinear")
SMALL, LARGE = 8, 20  # 2.5 times: neither way may rely on a whole factor


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def built(mode: Any, name: str = "resnet20_cifar", small: int = SMALL, large: int = LARGE) -> RobustModel:
    """A model with statistics and a head that are not those of a new one."""
    model = build_model(name, classes=3, weights="none", image_size=small, upsampling=Upsampling(large, mode))
    model.train()(torch.rand(8, 3, small, small))
    return model.eval()


def by_hand(x: Tensor, mode: str, side: int) -> Tensor:
    """Enlarge by the definition, pixel by pixel: nearest takes floor(i s / S), bilinear weighs by areas."""
    small, scale = x.shape[-1], x.shape[-1] / side
    weights = torch.zeros(side, small)
    for i in range(side):
        if mode == "nearest":
            weights[i, int(i * scale)] = 1
        else:
            at = min(max((i + 0.5) * scale - 0.5, 0), small - 1)
            low = int(at)
            weights[i, low] += 1 - (at - low)
            weights[i, min(low + 1, small - 1)] += at - low
    return torch.einsum("ih,nchw,jw->ncij", weights, x, weights)


@pytest.mark.parametrize("mode", MODES)
def test_the_backbone_sees_the_enlarged_image(mode: str) -> None:
    model, x = built(mode), torch.rand(2, 3, SMALL, SMALL)
    large = by_hand(x, mode, LARGE)
    with torch.no_grad():
        expected = model.head(model.backbone(model.normalize(large)))
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert model.architecture.input_size == (3, SMALL, SMALL) and model.architecture.network_size == (3, LARGE, LARGE)


@pytest.mark.parametrize("mode", MODES)
def test_the_attack_acts_on_the_small_image(mode: str) -> None:
    """A pixel's gradient is the weighted sum over the pixels that it becomes, and eps bounds the small image."""
    model, x, y = built(mode), torch.rand(2, 3, SMALL, SMALL), torch.tensor([0, 1])
    small = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(nn.functional.cross_entropy(model(small), y), small)
    again = x.clone().requires_grad_()
    logits = model.head(model.backbone(model.normalize(by_hand(again, mode, LARGE))))
    (reference,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y), again)
    torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))
    with evaluating(model):
        x_adv = PGD(ThreatModel("8/255", "Linf"), 3)(model, x, y)
    assert x_adv.shape == x.shape and 0 < float((x_adv - x).abs().max()) <= 8 / 255 + 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_the_network_that_is_attacked_is_the_same_function(mode: str) -> None:
    model, x = built(mode), torch.rand(2, 3, SMALL, SMALL)
    folding = Folding(model.backbone)
    assert folding.pairs
    with evaluating(model), torch.no_grad():
        expected = model(x)
        with model.running(folding.network(model.backbone)):
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        searched = form(model)
        torch.testing.assert_close(searched(x), expected, rtol=1e-4, atol=1e-5)


def test_branches_see_what_the_backbone_sees() -> None:
    model, x = built("nearest"), torch.rand(2, 3, SMALL, SMALL)
    model.branches["natural"] = LowRankBranch(model.backbone, Pairs(rank=2))  # a new one changes nothing: B is zero
    with torch.no_grad():
        torch.testing.assert_close(model.through("natural", x), model(x))


@pytest.mark.parametrize("name", ["resnet20_cifar", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("mode", MODES)
def test_the_bundle_keeps_it(tmp_path: Path, name: str, mode: str) -> None:
    model, x = built(mode, name, 8, 32), torch.rand(2, 3, 8, 8)
    save_bundle(model, tmp_path / "model", ["a", "b", "c"], {})
    with torch.no_grad():
        expected = model(x)
        for loaded in (load_bundle(tmp_path), build_classifier(str(tmp_path))):
            torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)
            assert loaded.architecture == model.architecture
        network: Any = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
        assert tuple(network.pretrained_cfg["input_size"]) == (3, 32, 32)  # what timm has is the network behind it
        torch.testing.assert_close(network(model.normalize(by_hand(x, mode, 32))), expected, rtol=1e-4, atol=1e-5)


def test_a_record_that_is_broken_is_named(tmp_path: Path) -> None:
    save_bundle(built("nearest"), tmp_path, ["a", "b", "c"], {})
    config = json.loads((tmp_path / "config.json").read_text())
    for broken in ({"to": 20, "mode": "nearest"}, {"images": 8, "to": "20", "mode": "nearest"}, {"mode": "cubic"}, 20):
        (tmp_path / "config.json").write_text(json.dumps({**config, "upsampling": broken}))
        with pytest.raises(InputError, match=r"config\.json: its upsampling .* is not as it was written"):
            load_bundle(tmp_path)


def test_the_way_of_enlarging_is_part_of_what_a_model_is() -> None:
    nearest = built("nearest")
    others = [build_model("resnet20_cifar", classes=3, weights="none", image_size=SMALL, upsampling=given)
              for given in (Upsampling(LARGE, "bilinear"), Upsampling(24, "nearest"), None)]  # fmt: skip
    for other in others:
        other.load_state_dict(nearest.state_dict())
    assert len({model_fingerprint(model) for model in (nearest, *others)}) == 4


def test_whole_factors_repeat_pixels_as_pillow_does() -> None:
    """timm's transform, which takes the place of the model's step in the export, makes the same of a 32x32 image."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    model = built("nearest", small=8, large=56)
    large = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.Resampling.NEAREST))
    assert torch.equal(model.upsample(x), torch.from_numpy(large.copy()).permute(2, 0, 1)[None] / 255)
