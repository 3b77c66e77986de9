"""Planted defects, each caught by its name, and models without a defect, on which nothing is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from autolora.evaluation.flags import MESSAGES, preflight
from autolora.models import build_model


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Network(nn.Module):
    """Convolution, batch norm, linear layer: enough to carry a defect."""

    def __init__(self, before: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(6 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.features(self.before(x))))


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * 255).round() / 255


class NotANumber(nn.Module):
    """The first three rows of a batch are lost."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat([logits[:3] * torch.nan, logits[3:]])


def images(count: int = 16) -> tuple[Tensor, Tensor]:
    return torch.rand(count, 3, 8, 8), torch.arange(count) % 4


def names(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, int]:
    return {flag.name: flag.count for flag in preflight(model, x, y)}


def test_a_sound_model_has_no_flag() -> None:
    assert names(Network().eval(), *images()) == {}
    assert names(build_model("packaged", classes=4).eval(), torch.rand(8, 3, 32, 32), torch.arange(8) % 4) == {}


def test_images_outside_the_pixel_range() -> None:
    x, y = images()
    x[:5] = (x[:5] - 0.5) / 0.25
    assert names(Network().eval(), x, y) == {"input-range": 5}
    x[0, 0, 0, 0] = torch.nan
    assert "input-range" in names(Network().eval(), x, y)


def test_probabilities_instead_of_logits() -> None:
    assert names(Network(after=nn.Softmax(dim=1)).eval(), *images()) == {"probabilities": 16}
    assert names(Network(after=nn.LogSoftmax(dim=1)).eval(), *images()) == {}


def test_logits_that_are_not_finite() -> None:
    assert names(Network(after=NotANumber()).eval(), *images())["not-finite"] == 3


def test_dropout_that_was_left_on() -> None:
    model = Network(before=nn.Dropout(0.2)).eval()
    model.before.train()
    assert set(names(model, *images())) == {"non-deterministic"}


@pytest.mark.parametrize("count", [4, 5, 7, 13, 16])
def test_batch_norm_in_training_mode(count: int) -> None:
    """Over images of one pixel it refuses a single image; none is ever shown alone."""
    assert names(Network().train(), *images(16)) == {"batch-dependent": 16}
    pooled = Network().train()
    pooled.features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 6 * 36))
    assert names(pooled, *images(count)).keys() == {"batch-dependent"}


def test_a_rounding_layer_hides_the_gradient() -> None:
    assert names(Network(before=Rounding()).eval(), *images()) == {"zero-gradients": 16}


def test_a_model_without_any_gradient() -> None:
    class Detached(Network):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    model = Detached().eval().requires_grad_(False)
    assert names(model, *images()) == {"zero-gradients": 16}


def test_certainty_is_not_taken_for_a_masked_gradient() -> None:
    """The cross entropy of logits this far apart has no gradient in float32; the margin has."""
    model = Network().eval()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    assert names(model, *images()) == {}


def test_one_row_that_looks_like_a_probability_is_chance() -> None:
    class Chance(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return torch.cat([torch.full_like(logits[:1], 0.25) + 0 * logits[:1], logits[1:]])

    assert "probabilities" not in names(Network(after=Chance()).eval(), *images())


def test_nothing_about_the_model_changes() -> None:
    model, (x, y) = Network().eval(), images()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    preflight(model, x, y)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not x.requires_grad


def test_a_flag_reads_as_a_sentence_and_goes_into_a_result() -> None:
    (flag,) = preflight(Network(after=nn.Softmax(dim=1)).eval(), *images())
    assert str(flag).startswith("probabilities (16 of 16 images): ") and MESSAGES["probabilities"] in str(flag)
    assert flag.as_json() == {"name": "probabilities", "message": flag.message, "count": 16, "total": 16}
